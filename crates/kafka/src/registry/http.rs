//! One GET against the registry: bounded, and suspicious of what comes back.

use std::sync::atomic::{AtomicUsize, Ordering};

use isk_outbound::{Authorities, chain};
use isk_traces::{Instrument, count, span};
use reqwest::header::HeaderMap;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::field::Empty;

use super::{RegistryAuth, RegistryConfig, RegistryError, RegistryMetrics};
use crate::https;
use crate::metrics::add;

/// The registry's REST interface.
pub(super) struct Http {
    client: reqwest::Client,
    bases: Vec<Url>,
    /// The base that last answered.
    preferred: AtomicUsize,
    auth: RegistryAuth,
    max_bytes: usize,
    pub(super) metrics: RegistryMetrics,
}

/// The body of the registry's own error answers.
#[derive(Deserialize)]
struct ErrorBody {
    error_code: i64,
}

/// An answer that was read to its end.
struct Answer {
    status: StatusCode,
    content_type: String,
    body: Vec<u8>,
}

impl Http {
    pub(super) fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let (bases, auth) = bases(config)?;
        let bad = |what: &str, error: reqwest::Error| {
            RegistryError::Config(format!("{what}: {}", chain(&error)))
        };
        let authorities = Authorities::new(config.ca_pem.as_deref()).map_err(|e| {
            RegistryError::Config(format!("the registry's CA certificates: {}", chain(&e)))
        })?;
        let mut builder =
            https::builder(&authorities, config.connect_timeout, config.request_timeout)
                .map_err(|e| RegistryError::Config(chain(&e)))?;
        if let Some(pem) = &config.identity_pem {
            let identity = reqwest::Identity::from_pem(pem)
                .map_err(|e| bad("our certificate and key for the registry are no PEM", e))?;
            builder = builder.identity(identity);
        }
        let client = builder.build().map_err(|e| bad("the registry's HTTP client", e))?;
        Ok(Self {
            client,
            bases,
            preferred: AtomicUsize::new(0),
            auth,
            max_bytes: config.max_response_bytes,
            metrics: RegistryMetrics::default(),
        })
    }

    /// GETs `path` below a base URL. `None` when the registry says in its own words that what is
    /// asked for does not exist.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
    ) -> Result<Option<T>, RegistryError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = RegistryError::Config("no registry URL is configured".into());
        for step in 0..self.bases.len() {
            let index = (first + step) % self.bases.len();
            add(&self.metrics.requests, 1);
            match self.get_from(&self.bases[index], path).await {
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => {
                    add(&self.metrics.errors, 1);
                    tracing::debug!(%error, "a schema registry request failed");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn get_from<T: DeserializeOwned>(
        &self,
        base: &Url,
        path: &[&str],
    ) -> Result<Option<T>, RegistryError> {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let span = span!(
            "ask registry",
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            http.request.method = "GET",
            http.response.status_code = Empty,
            server.address = url.host_str(),
            url.path = url.path(),
        );
        let answer = self.read(&url).instrument(span.clone()).await;
        let answer = answer.inspect_err(|error| isk_traces::failed(&span, error))?;
        span.record("http.response.status_code", count(answer.status.as_u16()));
        match answer.status {
            StatusCode::OK => serde_json::from_slice(&answer.body).map(Some).map_err(|error| {
                let what = format!("it is not what was asked for: {error}");
                strange(&url, &answer, &what)
            }),
            StatusCode::NOT_FOUND if is_registrys_not_found(&answer.body) => Ok(None),
            StatusCode::NOT_FOUND => Err(strange(
                &url,
                &answer,
                "a schema registry would have said so with an error code 404xx; \
                 check the URL and its path prefix",
            )),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(RegistryError::Refused { url: url.to_string(), status: answer.status.as_u16() })
            }
            _ => Err(strange(&url, &answer, "200 was expected")),
        }
    }

    async fn read(&self, url: &Url) -> Result<Answer, RegistryError> {
        let unreachable = |error: reqwest::Error| RegistryError::Unreachable {
            url: url.to_string(),
            reason: chain(&error.without_url()),
        };
        let request = self
            .client
            .get(url.clone())
            .header("Accept", "application/vnd.schemaregistry.v1+json, application/json");
        let request = match &self.auth {
            RegistryAuth::None => request,
            RegistryAuth::Basic { user, password } => {
                request.basic_auth(user, Some(password.text()))
            }
            RegistryAuth::Bearer(token) => request.bearer_auth(token.text()),
        };
        let mut trace = HeaderMap::new();
        isk_traces::pass_on(&mut trace);
        let response = request.headers(trace).send().await.map_err(unreachable)?;
        let content_type = response
            .headers()
            .get("content-type")
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .unwrap_or_default();
        let status = response.status();
        let body = https::body(response, self.max_bytes).await.map_err(unreachable)?;
        let too_large = || RegistryError::TooLarge { url: url.to_string(), limit: self.max_bytes };
        let body = body.ok_or_else(too_large)?;
        Ok(Answer { status, content_type, body })
    }
}

/// Confluent's error codes for "not found" are 404 followed by two digits; a plain 404 is its answer
/// to a path it does not have.
fn is_registrys_not_found(body: &[u8]) -> bool {
    serde_json::from_slice::<ErrorBody>(body)
        .is_ok_and(|error| (40_400..40_500).contains(&error.error_code))
}

/// Reads bytes as the body of an error.
pub(super) fn read_any(bytes: &[u8]) {
    let answer =
        Answer { status: StatusCode::NOT_FOUND, content_type: String::new(), body: bytes.to_vec() };
    if let (false, Ok(url)) = (is_registrys_not_found(bytes), Url::parse("http://registry/")) {
        let _ = strange(&url, &answer, "").to_string();
    }
}

fn strange(url: &Url, answer: &Answer, expected: &str) -> RegistryError {
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(600)]);
    let excerpt: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    RegistryError::Answer {
        url: url.to_string(),
        status: answer.status.as_u16(),
        content_type: answer.content_type.clone(),
        excerpt: excerpt.chars().take(160).collect(),
        expected: expected.to_owned(),
    }
}

/// The base URLs without credentials, and the credentials.
fn bases(config: &RegistryConfig) -> Result<(Vec<Url>, RegistryAuth), RegistryError> {
    let mut auth = config.auth.clone();
    let mut bases = Vec::new();
    for (index, text) in config.urls.iter().enumerate() {
        // The text may hold a password, so it is named by its place.
        let bad =
            |why: &str| RegistryError::Config(format!("schema registry URL {}: {why}", index + 1));
        let mut url = Url::parse(text.trim()).map_err(|e| bad(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(bad("it must begin with http:// or https://"));
        }
        if !url.username().is_empty() {
            if matches!(auth, RegistryAuth::None) {
                let password = decoded(url.password().unwrap_or_default());
                auth = RegistryAuth::Basic {
                    user: decoded(url.username()),
                    password: isk_outbound::Secret::Given(password),
                };
            }
            url.set_username("").map_err(|()| bad("it holds a user it cannot have"))?;
            url.set_password(None).map_err(|()| bad("it holds a password it cannot have"))?;
        }
        url.set_query(None);
        url.set_fragment(None);
        bases.push(url);
    }
    if bases.is_empty() {
        return Err(RegistryError::Config("no schema registry URL is configured".into()));
    }
    Ok((bases, auth))
}

/// Undoes a URL's percent encoding.
fn decoded(text: &str) -> String {
    let raw = text.as_bytes();
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        let hex = raw.get(at + 1..at + 3).filter(|h| h.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if raw[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(raw[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_a_url_become_basic_auth_and_leave_the_url() {
        let config = RegistryConfig::new("http://me:p%40ss@registry:8081/apis/ccompat/v7/");
        let (bases, auth) = bases(&config).unwrap();
        assert_eq!(bases[0].as_str(), "http://registry:8081/apis/ccompat/v7/");
        let RegistryAuth::Basic { user, password } = auth else { panic!("no basic auth") };
        assert_eq!((user.as_str(), password.text().as_str()), ("me", "p@ss"));
        assert!(!format!("{config:?}").contains("p%40ss"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in ["", "localhost:8081", "ftp://x/", "not a url"] {
            assert!(bases(&RegistryConfig::new(url)).is_err(), "{url:?}");
        }
        assert!(bases(&RegistryConfig::default()).is_err());
    }

    #[test]
    fn only_the_registrys_own_words_mean_not_found() {
        for (body, expected) in [
            (r#"{"error_code":40403,"message":"Schema not found"}"#, true),
            (r#"{"error_code":40401,"message":"Subject not found"}"#, true),
            (r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#, false),
            (r#"{"status":404,"error":"Not Found","path":"/schemas/ids/1"}"#, false),
            ("<html><body>404</body></html>", false),
            ("", false),
        ] {
            assert_eq!(is_registrys_not_found(body.as_bytes()), expected, "{body}");
        }
    }
}
