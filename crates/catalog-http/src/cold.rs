//! The upstream catalog, as this one asks it: which headers and bodies are passed on, and what the
//! answers, or their absence, become.

use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use isk_coldset::{ColdsetError, Upstream};
/// The namespace, and the warehouse, of the upstream catalog's tables.
pub(crate) use isk_virtual_table::COLDSET;
use isk_virtual_table::ServiceError;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cold_answer::{Kind, Vend, with_our_settings};
use crate::cold_names::upstream_levels;
use crate::error::ApiError;

/// The most bytes of a passed request's body: a commit that adds many files takes some MiB.
const MAX_BODY: usize = 16 << 20;

/// The bodies that are held at the same time; more wait. It bounds memory to this many times
/// [`MAX_BODY`].
const MAX_BODIES: usize = 8;

/// How long a client may take to send a body: it holds one of the places above meanwhile.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

const ACCESS_DELEGATION: HeaderName = HeaderName::from_static("x-iceberg-access-delegation");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The upstream catalog and the places for request bodies.
pub(crate) struct Cold {
    pub upstream: Upstream,
    bodies: Semaphore,
}

/// A body, and the place it takes.
pub(crate) struct Held<'a> {
    pub bytes: Bytes,
    _place: Option<SemaphorePermit<'a>>,
}

impl Held<'_> {
    /// No body at all: it takes no place.
    pub(crate) fn nothing() -> Self {
        Self { bytes: Bytes::new(), _place: None }
    }

    /// Another body in the same place.
    pub(crate) fn with(self, bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), ..self }
    }
}

/// What is asked of the upstream catalog.
pub(crate) struct Question<'a> {
    pub method: Method,
    /// What stands behind `/v1/{prefix}/`, percent-encoded.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// As the client sent them.
    pub headers: &'a HeaderMap,
    pub body: Bytes,
    /// Whether it changes anything upstream.
    pub writes: bool,
}

impl Cold {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Self { upstream, bodies: Semaphore::new(MAX_BODIES) }
    }

    /// The levels of the upstream namespace that is shown as `coldset`.
    pub(crate) fn levels(&self) -> Vec<&str> {
        upstream_levels(self.upstream.namespace())
    }

    /// Reads a request's body once there is a place for it.
    pub(crate) async fn body(&self, request: Request) -> Result<Held<'_>, ApiError> {
        let place = self.bodies.acquire().await;
        let place = place.map_err(|e| ServiceError::Internal(format!("places for bodies: {e}")))?;
        let read = axum::body::to_bytes(request.into_body(), MAX_BODY);
        match tokio::time::timeout(BODY_TIMEOUT, read).await {
            Ok(Ok(bytes)) => Ok(Held { bytes, _place: Some(place) }),
            Ok(Err(error)) => Err(ApiError::body_not_read(MAX_BODY, &error)),
            Err(_) => Err(ApiError::body_too_slow(BODY_TIMEOUT)),
        }
    }

    /// Asks the upstream catalog; the answer is its own, whatever its status.
    ///
    /// A write whose answer does not come may have happened. Clients throw away the files of a commit
    /// that failed, and try one again that was answered with 503: so that status is kept for what was
    /// never sent, and the other case says what it is.
    pub(crate) async fn ask(
        &self,
        question: Question<'_>,
    ) -> Result<http::Response<Bytes>, ApiError> {
        if question.writes {
            self.upstream.ready().await?;
        }
        let headers = self.passed_headers(question.headers);
        let Question { method, path, query, body, writes, .. } = question;
        let answer = self.upstream.pass(method.clone(), path, query, &headers, body).await;
        answer.map_err(|error| match error {
            ColdsetError::Unavailable { .. } | ColdsetError::Unreadable { .. } if writes => {
                ApiError::outcome_unknown(&method, &error)
            }
            error => error.into(),
        })
    }

    /// The client's own keys stay here: who asks the upstream catalog is this service. The validators
    /// and wishes about storage settings make sense only where its answers go out as they are.
    fn passed_headers(&self, given: &HeaderMap) -> HeaderMap {
        let always = [header::ACCEPT, header::CONTENT_TYPE, IDEMPOTENCY_KEY];
        let direct = [header::IF_NONE_MATCH, ACCESS_DELEGATION];
        let direct = if self.upstream.is_direct() { &direct[..] } else { &[] };
        let mut passed = HeaderMap::new();
        for name in always.iter().chain(direct) {
            for value in given.get_all(name) {
                passed.append(name, value.clone());
            }
        }
        passed
    }

    /// An answer on its way to the client: as it is, or with our storage settings in it.
    pub(crate) fn answer(
        &self,
        answer: http::Response<Bytes>,
        kind: Kind,
        vend: &Vend<'_>,
    ) -> Result<Response, ApiError> {
        let (parts, body) = answer.into_parts();
        let passed = [header::CONTENT_TYPE, header::RETRY_AFTER, header::ALLOW];
        let ours = parts.status.is_success() && !self.upstream.is_direct();
        let replaced = if ours { with_our_settings(&body, kind, vend)? } else { None };
        let mut headers = copied(&parts.headers, &passed);
        let body = match replaced {
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Bytes::from(body)
            }
            None => {
                headers.extend(copied(&parts.headers, &[header::ETAG, header::CACHE_CONTROL]));
                body
            }
        };
        // A HEAD's length is that of a body which is not sent.
        let empty = body.is_empty() || parts.status == StatusCode::NO_CONTENT;
        let mut response = if empty { ().into_response() } else { body.into_response() };
        *response.status_mut() = parts.status;
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().extend(headers);
        Ok(response)
    }
}

fn copied(from: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let named = names.iter().filter_map(|name| Some((name.clone(), from.get(name)?.clone())));
    named.collect()
}
