//! Refusals in the REST error model: the one place where a service error gets its status.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use isk_virtual_table::ServiceError;

use crate::wire::{ErrorBody, ErrorModel};

/// How long a client is asked to wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A refusal: status, the exception's name that clients go by, and a text for people.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    /// The request itself is wrong.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    /// A write. Clients show 403 with its text and do not try again; 405 and 406 lose the text in
    /// some of them, and a 5xx on a commit means "perhaps it happened" to all.
    pub(crate) fn read_only(what: &str) -> Self {
        let message = format!(
            "this catalog is read-only: {what} is refused; topics change by producing to Kafka"
        );
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    /// A view was asked for; there are none.
    pub(crate) fn no_such_view(namespace: &str, view: &str) -> Self {
        let message = format!("view {namespace}.{view} does not exist: this catalog has no views");
        Self::new(StatusCode::NOT_FOUND, "NoSuchViewException", message)
    }

    /// No route of ours has this path.
    pub(crate) fn no_such_route(path: &str) -> Self {
        let message = format!("there is no {path:?} here; /openapi.yaml lists what there is");
        Self::new(StatusCode::NOT_FOUND, "NotFoundException", message)
    }

    /// The path is there, but not with this method.
    pub(crate) fn wrong_method(method: &http::Method, path: &str) -> Self {
        let message = format!("{method} {path:?} is not served; /openapi.yaml lists what is");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UnsupportedOperationException", message)
    }

    /// The body is longer than is read.
    pub(crate) fn body_too_long(limit: usize) -> Self {
        let message = format!("the request's body is longer than {limit} bytes, or broke off");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BadRequestException", message)
    }

    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let message = error.to_string();
        let (status, kind) = match error {
            ServiceError::NoSuchNamespace(_) => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            ServiceError::NoSuchTable { .. } => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            ServiceError::NoSuchKey { .. } => (StatusCode::NOT_FOUND, "NotFoundException"),
            // The specification's status for what this server cannot do: not tried again.
            ServiceError::Unsupported { .. } => {
                (StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException")
            }
            // Asking again plans again, and that is the remedy.
            ServiceError::Gone { .. } | ServiceError::Unavailable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
            }
            ServiceError::Internal(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerErrorException")
            }
        };
        Self { status, kind, message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), kind = self.kind, "{}", self.message);
        }
        let body = ErrorBody {
            error: ErrorModel {
                message: self.message,
                kind: self.kind,
                code: self.status.as_u16(),
            },
        };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
