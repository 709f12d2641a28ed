//! One log line, one span and one id for each request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use isk_traces::{Asked, Instrument, Span, answered};
use uuid::Uuid;

/// Carries a request's id: a proxy's is kept, else one is made.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a request.
const MAX_ID_LEN: usize = 128;

/// Answers with a request id, and logs what was asked and how it ended.
///
/// The path alone is logged; headers and queries may hold secrets.
pub(crate) async fn trace(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let span = span(&request, &id);
    let answer = async {
        let response = next.run(request).await;
        answered(&Span::current(), response.status());
        tracing::info!(
            %method,
            path,
            status = response.status().as_u16(),
            ms = start.elapsed().as_millis() as u64,
            request_id = id.to_str().unwrap_or_default(),
            "catalog request"
        );
        response
    };
    let mut response = answer.instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// A request's span; none for those that come every few seconds to see whether the service lives.
fn span(request: &Request, id: &HeaderValue) -> Span {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if let Some("/healthz" | "/readyz" | "/metrics") = route {
        return Span::none();
    }
    let asked = Asked {
        method: request.method(),
        route,
        path: request.uri().path(),
        headers: request.headers(),
        request_id: id.to_str().unwrap_or_default(),
    };
    asked.span()
}

fn request_id(request: &Request) -> HeaderValue {
    let printable = |id: &&HeaderValue| {
        (1..=MAX_ID_LEN).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    match request.headers().get(REQUEST_ID).filter(printable) {
        Some(id) => id.clone(),
        // A UUID in text is always a legal header value.
        None => HeaderValue::from_str(&Uuid::new_v4().to_string())
            .unwrap_or(HeaderValue::from_static("-")),
    }
}
