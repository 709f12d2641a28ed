//! Who we are to the upstream catalog: tokens that are renewed, requests that are signed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Mutex;

use super::wire::{TokenAnswer, TokenError};
use super::{bounded, words};
use crate::error::chain;
use crate::{ColdsetConfig, ColdsetError, UpstreamAuth};

/// How long a token serves whose server does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// A token answer is small.
const MAX_TOKEN_ANSWER: usize = 256 << 10;

/// What Iceberg's own token endpoint grants to clients.
const ICEBERG_SCOPE: &str = "catalog";

/// How requests are authenticated.
pub(super) enum Auth {
    None,
    Bearer(HeaderValue),
    OAuth2(Box<OAuth2>),
    SigV4(Box<SigV4>),
}

pub(super) struct OAuth2 {
    token_uri: Url,
    form: String,
    /// Held while a token is fetched, so that many requests ask for one.
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

pub(super) struct SigV4 {
    region: String,
    name: String,
    credential: AwsCredential,
}

impl Auth {
    pub(super) fn new(config: &ColdsetConfig, base: &Url) -> Result<Self, ColdsetError> {
        Ok(match &config.auth {
            UpstreamAuth::None => Self::None,
            UpstreamAuth::Bearer(token) => Self::Bearer(bearer(token).ok_or_else(|| {
                ColdsetError::config("token", "it holds a character that no header may have")
            })?),
            UpstreamAuth::OAuth2 {
                token_uri,
                client_id,
                client_secret,
                scope,
                audience,
                resource,
            } => {
                let own = format!("{}/v1/oauth/tokens", base.as_str().trim_end_matches('/'));
                let text = token_uri.as_deref().unwrap_or(&own);
                // The catalog's own endpoint knows the scope `catalog`; another server need not.
                let default_scope = token_uri.is_none().then_some(ICEBERG_SCOPE);
                let scope = scope.as_deref().or(default_scope);
                let asked = [
                    ("client_id", client_id.as_deref()),
                    ("client_secret", Some(client_secret)),
                    ("scope", scope),
                    ("audience", audience.as_deref()),
                    ("resource", resource.as_deref()),
                ];
                let token_uri = super::http_url("oauth2-server-uri", text)?;
                Self::OAuth2(Box::new(OAuth2::new(token_uri, asked)))
            }
            UpstreamAuth::SigV4 {
                region,
                name,
                access_key_id,
                secret_access_key,
                session_token,
            } => {
                let plain = |text: &str| HeaderValue::from_str(text).is_ok();
                if !plain(access_key_id) || !session_token.as_deref().is_none_or(plain) {
                    return Err(ColdsetError::config(
                        "rest.access-key-id",
                        "it or rest.session-token holds a character that no header may have",
                    ));
                }
                Self::SigV4(Box::new(SigV4 {
                    region: region.clone(),
                    name: name.clone(),
                    credential: AwsCredential {
                        key_id: access_key_id.clone(),
                        secret_key: secret_access_key.clone(),
                        token: session_token.clone(),
                    },
                }))
            }
        })
    }

    /// Adds to a request's headers what proves who we are.
    pub(super) async fn prove(
        &self,
        client: &reqwest::Client,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
        body: &Bytes,
    ) -> Result<(), ColdsetError> {
        match self {
            Self::None => {}
            Self::Bearer(value) => {
                headers.insert(AUTHORIZATION, value.clone());
            }
            Self::OAuth2(oauth) => {
                headers.insert(AUTHORIZATION, oauth.token(client).await?);
            }
            Self::SigV4(signer) => signer.sign(method, url, headers, body)?,
        }
        Ok(())
    }

    /// After a 401: whether asking again, with a new token, may help.
    pub(super) async fn renew(&self, refused: &HeaderMap) -> bool {
        let Self::OAuth2(oauth) = self else { return false };
        let mut token = oauth.token.lock().await;
        // Somebody else may have renewed it meanwhile.
        if token.as_ref().is_some_and(|t| refused.get(AUTHORIZATION) == Some(&t.header)) {
            *token = None;
        }
        true
    }
}

impl OAuth2 {
    fn new<'a>(
        token_uri: Url,
        asked: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in asked {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        Self { token_uri, form: form.finish(), token: Mutex::new(None) }
    }

    async fn token(&self, client: &reqwest::Client) -> Result<HeaderValue, ColdsetError> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref().filter(|t| Instant::now() < t.renew_at) {
            return Ok(token.header.clone());
        }
        let fresh = self.fetch(client).await?;
        let header = fresh.header.clone();
        *token = Some(fresh);
        Ok(header)
    }

    async fn fetch(&self, client: &reqwest::Client) -> Result<Token, ColdsetError> {
        let what = format!("the token endpoint {}", self.token_uri);
        let asked = Instant::now();
        let response = client
            .post(self.token_uri.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(self.form.clone())
            .send()
            .await
            .map_err(|e| ColdsetError::unavailable(&what, chain(&e.without_url())))?;
        let status = response.status();
        let body = bounded(response, MAX_TOKEN_ANSWER, &what).await?;
        if !status.is_success() {
            return Err(refusal(&what, status, &body));
        }
        // The answer holds the token: an error says where it is wrong, not what it says.
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            ColdsetError::unreadable(&what, format!("its answer is no token ({place})"))
        })?;
        let header = bearer(&answer.access_token)
            .ok_or_else(|| ColdsetError::unreadable(&what, "its token fits in no header"))?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        // A minute early, but never more than a tenth of its life.
        let early = (life / 10).min(Duration::from_secs(60));
        let life = life.saturating_sub(early).min(Duration::from_secs(30 * 24 * 3600));
        Ok(Token { header, renew_at: asked + life })
    }
}

/// What a token endpoint says when it does not give a token. Its texts may be anything, so only
/// the two fields of RFC 6749 are repeated.
fn refusal(what: &str, status: StatusCode, body: &[u8]) -> ColdsetError {
    let error: TokenError = serde_json::from_slice(body).unwrap_or_default();
    let said = [error.error, error.error_description].into_iter().flatten().collect::<Vec<_>>();
    let said = if said.is_empty() { "no reason given".into() } else { words(&said.join(": ")) };
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        let message = format!(
            "{what} gave no token: {said}; check coldset.credential, coldset.scope and \
             coldset.oauth2-server-uri"
        );
        return ColdsetError::Refused { status: status.as_u16(), message };
    }
    ColdsetError::unavailable(what, format!("status {}: {said}", status.as_u16()))
}

impl SigV4 {
    fn sign(
        &self,
        method: &Method,
        url: &Url,
        headers: &mut HeaderMap,
        body: &Bytes,
    ) -> Result<(), ColdsetError> {
        let mut request = HttpRequest::new(HttpRequestBody::from(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = url.as_str().parse().map_err(|error| {
            ColdsetError::unreadable(format!("the request {url}"), format!("{error}"))
        })?;
        *request.headers_mut() = std::mem::take(headers);
        AwsAuthorizer::new(&self.credential, &self.name, &self.region)
            .authorize(&mut request, None);
        *headers = std::mem::take(request.headers_mut());
        Ok(())
    }
}

/// A header value that logs do not show.
fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
