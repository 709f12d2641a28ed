//! Requests to the catalog: bounded, authenticated, and repeated where that is safe.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use isk_outbound::{Authorities, NoClient, chain};
use isk_traces::{Instrument, count, span, start_of};
use reqwest::{Method, StatusCode, Url};
use tracing::field::Empty;

use super::auth::Auth;
use crate::{ColdsetConfig, ColdsetError};

/// How often a request is sent at most.
const MAX_ATTEMPTS: u32 = 3;

/// How long a Retry-After is obeyed; the caller is told to come again instead of a longer one.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The first pause where the server names none.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A longer answer is an error, in bytes. Metadata of tables with long histories is megabytes.
pub(super) const MAX_ANSWER: usize = 128 << 20;

/// The catalog's HTTP interface.
pub(super) struct Http {
    client: reqwest::Client,
    auth: Auth,
    /// Sent with every request.
    headers: HeaderMap,
    timeout: Duration,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub url: Url,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    pub(super) fn new(config: &ColdsetConfig, base: &Url) -> Result<Self, ColdsetError> {
        let authorities = Authorities::new(config.ca_pem.as_deref())
            .map_err(|e| ColdsetError::config("ca-file", chain(&e)))?;
        let unmade = |e: NoClient| {
            ColdsetError::config("uri", format!("no HTTP client can be made: {}", chain(&e)))
        };
        let builder = authorities
            .client()
            .map_err(unmade)?
            .user_agent(concat!("isk/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.request_timeout.min(Duration::from_secs(5)))
            .timeout(config.request_timeout)
            // A redirect may lead credentials astray, and turns a POST into a GET.
            .redirect(reqwest::redirect::Policy::none());
        Ok(Self {
            client: builder.build().map_err(|e| unmade(e.into()))?,
            auth: Auth::new(config, base)?,
            headers: fixed_headers(config)?,
            timeout: config.request_timeout,
        })
    }

    /// Sends a request until it is answered: again with a new token after a 401, and again after a
    /// pause when the server asks for one and the method may be repeated.
    pub(super) async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Answer, ColdsetError> {
        let started = Instant::now();
        let repeatable = matches!(*method, Method::GET | Method::HEAD);
        let mut renewed = false;
        let mut attempt = 1;
        loop {
            let mut full = headers.clone();
            for (name, value) in &self.headers {
                full.insert(name, value.clone());
            }
            self.auth.prove(&self.client, method, url, &mut full, body).await?;
            let span = span!(
                "ask upstream catalog",
                otel.kind = "client",
                otel.status_code = Empty,
                error.type = Empty,
                http.request.method = method.as_str(),
                http.response.status_code = Empty,
                server.address = url.host_str(),
                url.path = start_of(url.path()),
            );
            let answer = self.once(method, url, full.clone(), body).instrument(span.clone()).await;
            let answer = answer.inspect_err(|error| isk_traces::failed(&span, error))?;
            span.record("http.response.status_code", count(answer.status.as_u16()));
            drop(span);
            // 419 is the interface's own word for an expired token.
            if matches!(answer.status.as_u16(), 401 | 419) && !renewed {
                renewed = true;
                if self.auth.renew(&full) {
                    continue;
                }
            }
            let busy = matches!(answer.status.as_u16(), 429 | 503);
            if !busy || !repeatable || attempt == MAX_ATTEMPTS {
                return Ok(answer);
            }
            let pause = retry_after(&answer.headers).unwrap_or(FIRST_PAUSE * attempt);
            if pause > MAX_PAUSE || started.elapsed() + pause >= self.timeout {
                return Ok(answer);
            }
            tracing::debug!(%url, status = answer.status.as_u16(), ?pause, "upstream is busy");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn once(
        &self,
        method: &Method,
        url: &Url,
        mut headers: HeaderMap,
        body: &Bytes,
    ) -> Result<Answer, ColdsetError> {
        // Not signed: a proxy on the way may change it.
        isk_traces::pass_on(&mut headers);
        let what = format!("the upstream catalog ({method} {url})");
        let response = self
            .client
            .request(method.clone(), url.clone())
            .headers(headers)
            .body(body.clone())
            .send()
            .await
            .map_err(|error| {
                let remedy = "check coldset.uri and that the catalog runs";
                let reason = format!("{}; {remedy}", chain(&error.without_url()));
                ColdsetError::unavailable(&what, reason)
            })?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let to = headers.get("location").map(|v| String::from_utf8_lossy(v.as_bytes()));
            let to = to.as_deref().map_or("an unnamed place".into(), words);
            let reason = format!("it redirects to {to}; set coldset.uri to where it really is");
            return Err(ColdsetError::unreadable(what, reason));
        }
        let body = bounded(response, MAX_ANSWER, &what).await?;
        Ok(Answer { url: url.clone(), status, headers, body })
    }
}

fn fixed_headers(config: &ColdsetConfig) -> Result<HeaderMap, ColdsetError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let bad = || ColdsetError::config(&format!("header.{name}"), "this is no HTTP header");
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        // It may well be a key of an API.
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

/// Seconds; the form that is a date is not used by catalogs.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A body, if it is not longer than `limit`.
pub(super) async fn bounded(
    mut response: reqwest::Response,
    limit: usize,
    what: &str,
) -> Result<Bytes, ColdsetError> {
    let too_long =
        || ColdsetError::unreadable(what, format!("its answer is longer than {limit} bytes"));
    if response.content_length().is_some_and(|n| n > limit as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(too_long()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(error) => {
                return Err(ColdsetError::unavailable(what, chain(&error.without_url())));
            }
        }
    }
}

/// Somebody else's text, made short enough for an error.
pub(super) fn words(text: &str) -> String {
    let text: String = text.chars().take(2000).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
