//! The span of a request to one of the ports, by the semantic conventions for HTTP servers.

use http::{HeaderMap, Method, StatusCode, header};
use tracing::Span;
use tracing::field::Empty;

use crate::{continue_from, count};

/// More of a text that a client sent is not kept: spans wait in memory.
const MAX_TEXT: usize = 512;

/// What is told of a request.
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// What its path is an instance of, if it is known.
    pub route: Option<&'a str>,
    /// Its path; its query may hold signatures and tokens.
    pub path: &'a str,
    /// Its headers: a client's trace goes on.
    pub headers: &'a HeaderMap,
    /// The id that it is logged under.
    pub request_id: &'a str,
}

impl Asked<'_> {
    /// The request's span.
    pub fn span(&self) -> Span {
        let agent = self.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        let method = known(self.method);
        let span = crate::root!(
            "request",
            otel.name = name(method, self.route),
            otel.kind = "server",
            otel.status_code = Empty,
            error.type = Empty,
            http.request.method = method,
            http.response.status_code = Empty,
            http.route = self.route,
            url.path = start_of(self.path),
            user_agent.original = agent.map(start_of),
            isk.request_id = self.request_id,
        );
        continue_from(&span, self.headers);
        span
    }
}

/// Notes a request's status in its span.
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", count(status.as_u16()));
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
}

/// A name that there are few of.
fn name(method: &str, route: Option<&str>) -> String {
    let method = if method == OTHER { "HTTP" } else { method };
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}

/// What the conventions call a method that is none of theirs.
const OTHER: &str = "_OTHER";

/// Clients may write anything for a method.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE => method.as_str(),
        Method::OPTIONS | Method::PATCH | Method::CONNECT | Method::TRACE => method.as_str(),
        _ => OTHER,
    }
}

/// The start of a text that somebody else wrote, for a span.
pub fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}
