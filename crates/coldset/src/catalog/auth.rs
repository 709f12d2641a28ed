//! Who we are to the upstream catalog: tokens that are renewed, requests that are signed.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use isk_outbound::{Secret, chain};
use object_store::aws::AwsAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Mutex;

use super::wire::{TokenAnswer, TokenError};
use super::{bounded, words};
use crate::keys::CurrentKeys;
use crate::{ColdsetConfig, ColdsetError, UpstreamAuth};

/// How long a token serves whose server does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(3600);

/// A token that lives longer is renewed all the same.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long the token endpoint is left in peace after it gave none.
const PAUSE: Duration = Duration::from_secs(1);

/// A token answer is small.
const MAX_TOKEN_ANSWER: usize = 256 << 10;

/// What Iceberg's own token endpoint grants to clients.
const ICEBERG_SCOPE: &str = "catalog";

/// How requests are authenticated.
pub(super) enum Auth {
    None,
    Bearer(Secret),
    OAuth2(Box<OAuth2>),
    SigV4(Box<SigV4>),
}

pub(super) struct OAuth2 {
    token_uri: Url,
    /// The client's id, a colon and its secret, or the secret alone.
    credential: Secret,
    /// What is asked for besides.
    asked: Vec<(&'static str, String)>,
    kept: std::sync::Mutex<Kept>,
    /// Held while a token is fetched: many requests ask for one, and who waited finds what came of it in `kept`.
    fetching: Mutex<()>,
}

/// What is known just now.
#[derive(Default)]
struct Kept {
    token: Option<Token>,
    /// Why no token came when one was last asked for.
    failed: Option<Failed>,
}

struct Token {
    header: HeaderValue,
    /// What it was got with.
    form: String,
    renew_at: Instant,
    expires: Instant,
}

impl Token {
    fn is_over(&self) -> bool {
        self.expires <= Instant::now()
    }
}

struct Failed {
    at: Instant,
    /// What was asked with: with another credential it may go well.
    form: String,
    error: ColdsetError,
}

pub(super) struct SigV4 {
    region: String,
    name: String,
    keys: CurrentKeys,
}

impl Auth {
    pub(super) fn new(config: &ColdsetConfig, base: &Url) -> Result<Self, ColdsetError> {
        Ok(match &config.auth {
            UpstreamAuth::None => Self::None,
            UpstreamAuth::Bearer(token) => {
                configured(token)?;
                Self::Bearer(token.clone())
            }
            UpstreamAuth::OAuth2 { token_uri, credential, scope, audience, resource } => {
                let own = format!("{}/v1/oauth/tokens", base.as_str().trim_end_matches('/'));
                let text = token_uri.as_deref().unwrap_or(&own);
                // The catalog's own endpoint knows the scope `catalog`; another server need not.
                let default_scope = token_uri.is_none().then_some(ICEBERG_SCOPE);
                let scope = scope.as_deref().or(default_scope);
                let asked = [
                    ("scope", scope),
                    ("audience", audience.as_deref()),
                    ("resource", resource.as_deref()),
                ];
                let asked =
                    asked.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned())));
                Self::OAuth2(Box::new(OAuth2 {
                    token_uri: super::http_url("oauth2-server-uri", text)?,
                    credential: credential.clone(),
                    asked: asked.collect(),
                    kept: std::sync::Mutex::default(),
                    fetching: Mutex::default(),
                }))
            }
            UpstreamAuth::SigV4 { region, name, keys } => Self::SigV4(Box::new(SigV4 {
                region: region.clone(),
                name: name.clone(),
                keys: CurrentKeys::new(keys.clone(), "rest.access-key-id")?,
            })),
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
            Self::Bearer(token) => {
                headers.insert(AUTHORIZATION, configured(token)?);
            }
            Self::OAuth2(oauth) => {
                headers.insert(AUTHORIZATION, oauth.token(client).await?);
            }
            Self::SigV4(signer) => signer.sign(method, url, headers, body).await?,
        }
        Ok(())
    }

    /// After a 401: whether asking again, with a new token, may help.
    pub(super) fn renew(&self, refused: &HeaderMap) -> bool {
        let oauth = match self {
            Self::OAuth2(oauth) => oauth,
            // Its file may have changed meanwhile.
            Self::Bearer(token) => {
                return configured(token)
                    .is_ok_and(|header| refused.get(AUTHORIZATION) != Some(&header));
            }
            Self::None | Self::SigV4(_) => return false,
        };
        let mut kept = oauth.kept();
        // Somebody else may have renewed it meanwhile.
        if kept.token.as_ref().is_some_and(|t| refused.get(AUTHORIZATION) == Some(&t.header)) {
            kept.token = None;
        }
        true
    }
}

impl OAuth2 {
    /// What the token endpoint is told.
    fn form(&self) -> String {
        let credential = self.credential.text();
        let (id, secret) = match credential.split_once(':') {
            Some((id, secret)) => (Some(id), secret),
            None => (None, credential.as_str()),
        };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.extend_pairs(id.map(|id| ("client_id", id)));
        form.append_pair("client_secret", secret);
        form.extend_pairs(&self.asked);
        form.finish()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token, where there is no reason to ask for another.
    fn current(&self, form: &str) -> Option<HeaderValue> {
        let kept = self.kept();
        let current = |t: &&Token| t.form == form && Instant::now() < t.renew_at;
        kept.token.as_ref().filter(current).map(|t| t.header.clone())
    }

    /// The token while it is not over, whatever it was got with.
    fn unexpired(&self) -> Option<HeaderValue> {
        let kept = self.kept();
        kept.token.as_ref().filter(|t| !t.is_over()).map(|t| t.header.clone())
    }

    /// Why no token came, where one was asked for since then, or only just.
    fn failure(&self, form: &str, since: Instant) -> Option<ColdsetError> {
        let kept = self.kept();
        let holds = |f: &&Failed| f.form == form && (f.at >= since || f.at.elapsed() < PAUSE);
        kept.failed.as_ref().filter(holds).map(|f| f.error.clone())
    }

    /// A token that is not over. While no other is to be had (a new credential may be in its file before the
    /// provider knows it), the one that was got before serves to its end.
    async fn token(&self, client: &reqwest::Client) -> Result<HeaderValue, ColdsetError> {
        let came = Instant::now();
        if let Some(token) = self.current(&self.form()) {
            return Ok(token);
        }
        let _one_at_a_time = match self.fetching.try_lock() {
            Ok(turn) => turn,
            // Somebody asks already: only who has none waits for what comes of it.
            Err(_) => match self.unexpired() {
                Some(token) => return Ok(token),
                None => self.fetching.lock().await,
            },
        };
        let form = self.form();
        if let Some(token) = self.current(&form) {
            return Ok(token);
        }
        if let Some(error) = self.failure(&form, came) {
            return self.unexpired().ok_or(error);
        }
        let renewed = self.renewed(client, form).await;
        renewed.or_else(|error| self.unexpired().ok_or(error))
    }

    /// Asks for a token, and keeps what comes of it.
    async fn renewed(
        &self,
        client: &reqwest::Client,
        mut form: String,
    ) -> Result<HeaderValue, ColdsetError> {
        let mut fetched = self.fetch(client, form.clone()).await;
        // The credential's file may have changed meanwhile.
        let now = self.form();
        if matches!(fetched, Err(ColdsetError::Refused { .. })) && now != form {
            form = now;
            fetched = self.fetch(client, form.clone()).await;
        }
        let mut kept = self.kept();
        match fetched {
            Ok(token) => {
                if kept.failed.take().is_some() {
                    tracing::info!("the upstream catalog's token endpoint gives tokens again");
                }
                Ok(kept.token.insert(token).header.clone())
            }
            Err(error) => {
                // Where none holds, the request fails and says so.
                let holds = kept.token.as_ref().is_some_and(|t| !t.is_over());
                if kept.failed.is_none() && holds {
                    tracing::warn!(
                        %error,
                        "the upstream catalog's token is not renewed; the one before holds until it is over"
                    );
                }
                kept.failed = Some(Failed { at: Instant::now(), form, error: error.clone() });
                Err(error)
            }
        }
    }

    async fn fetch(&self, client: &reqwest::Client, form: String) -> Result<Token, ColdsetError> {
        let what = format!("the token endpoint {}", self.token_uri);
        let asked = Instant::now();
        let response = client
            .post(self.token_uri.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form.clone())
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
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(LONGEST_LIFE);
        // A minute early, but never more than a tenth of its life.
        let early = (life / 10).min(Duration::from_secs(60));
        Ok(Token { header, form, renew_at: asked + (life - early), expires: asked + life })
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
    async fn sign(
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
        let keys = self.keys.get().await;
        let signed =
            AwsAuthorizer::new(&keys, &self.name, &self.region).try_authorize(&mut request, None);
        signed.map_err(|e| ColdsetError::unreadable(format!("the request {url}"), chain(&e)))?;
        *headers = std::mem::take(request.headers_mut());
        Ok(())
    }
}

/// The configured token as it is now.
fn configured(token: &Secret) -> Result<HeaderValue, ColdsetError> {
    bearer(&token.text()).ok_or_else(|| {
        ColdsetError::config("token", "it holds a character that no header may have")
    })
}

/// A header value that logs do not show.
fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}
