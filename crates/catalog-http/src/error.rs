//! Refusals in the REST error model: the one place where a service error gets its status.

use std::error::Error;
use std::io;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};
use isk_access::KafkaSilent;
use isk_coldset::ColdsetError;
use isk_virtual_table::ServiceError;

use crate::wire::{ErrorBody, ErrorModel};

/// How long a client is asked to wait before it tries again, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// How to come in (RFC 6750, section 3).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"isk\"");

/// A refusal: status, the exception's name that clients go by, and a text for people.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    /// Nobody known asks.
    pub(crate) fn not_known(why: &str) -> Self {
        let message = format!(
            "{why}; send a bearer token: an OAuth2 client's (credential), an issuer's, or an API key"
        );
        Self::new(StatusCode::UNAUTHORIZED, "NotAuthorizedException", message)
    }

    /// There is no authentication, so there are no tokens.
    pub(crate) fn no_tokens() -> Self {
        let message = "there are no tokens here: this catalog asks nobody who they are; leave the client's \
                       credential away, or have the operator set auth.type";
        Self::new(StatusCode::NOT_FOUND, "UnsupportedOperationException", message)
    }

    /// Somebody known may not do that.
    pub(crate) fn not_allowed(name: &str, what: &str) -> Self {
        let message = format!("{name} may not {what}: no rule of the access file allows it");
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    /// Somebody known may do that by our rules, and not by Kafka's.
    pub(crate) fn kept_by_kafka(name: &str, what: &str) -> Self {
        let message = format!(
            "{name} may not {what}: Kafka does not let it read the topic; its login to Kafka needs READ on it"
        );
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    /// Too much of one principal is under way.
    pub(crate) fn too_many(name: &str) -> Self {
        let message = format!(
            "too many requests of {name} are under way (limits.requests_per_principal); try again"
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", message)
    }

    /// Too many clients are connected.
    pub(crate) fn too_many_connections() -> Self {
        let message = "there are too many connections (limits.connections); try again";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", message)
    }

    /// The request itself is wrong.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    /// Somebody else has the say in it.
    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "ConflictException", message)
    }

    /// A write. Clients show 403 with its text and do not try again; 405 and 406 lose the text in
    /// some of them, and a 5xx on a commit means "perhaps it happened" to all.
    pub(crate) fn read_only(what: &str) -> Self {
        let message = format!(
            "this catalog is read-only: {what} is refused; topics change by producing to Kafka"
        );
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    /// A write in `coldset`, which the configuration does not allow.
    pub(crate) fn coldset_read_only(what: &str) -> Self {
        let message = format!(
            "coldset is read-only here: {what} is refused; the operator can allow it with \
             coldset.writable = true (ISK_COLDSET_WRITABLE)"
        );
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    /// A write that names a table of another namespace than `coldset`.
    pub(crate) fn not_in_coldset(namespace: &str, table: &str) -> Self {
        let message = format!(
            "table {namespace}.{table} cannot be changed: only tables of coldset can, and they stay \
             in it"
        );
        Self::new(StatusCode::FORBIDDEN, "ForbiddenException", message)
    }

    /// The namespace is there already.
    pub(crate) fn namespace_exists(namespace: &str) -> Self {
        let message = format!("namespace {namespace} exists already");
        Self::new(StatusCode::CONFLICT, "AlreadyExistsException", message)
    }

    /// The upstream's warehouse was asked for; there is no upstream.
    pub(crate) fn no_upstream() -> Self {
        let message = "there is no warehouse coldset: no upstream catalog is configured (coldset.uri, \
                       ISK_COLDSET_CLIENT_URI)";
        Self::new(StatusCode::NOT_FOUND, "NoSuchWarehouseException", message)
    }

    /// A path of the upstream's that is not passed on.
    pub(crate) fn not_passed(path: &str) -> Self {
        let message = format!(
            "{path:?} is not passed to the upstream catalog: only paths below namespaces, tables, \
             views and transactions are, and without \".\" and \"..\""
        );
        Self::new(StatusCode::BAD_REQUEST, "BadRequestException", message)
    }

    /// A write was sent, and no answer came. Clients take 504 for "perhaps it happened": they neither
    /// try a commit again nor throw its files away.
    pub(crate) fn outcome_unknown(method: &Method, error: &ColdsetError) -> Self {
        let message = format!(
            "{error}; the {method} was sent, and whether it happened is not known: look at the table \
             before trying again"
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, "CommitStateUnknownException", message)
    }

    /// The body did not arrive in time.
    pub(crate) fn body_too_slow(limit: Duration) -> Self {
        let message = format!("the request's body did not arrive within {} s", limit.as_secs());
        Self::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", message)
    }

    /// A view was asked for; there are none.
    pub(crate) fn no_such_view(namespace: &str, view: &str) -> Self {
        let message = format!("view {namespace}.{view} does not exist: this catalog has no views");
        Self::new(StatusCode::NOT_FOUND, "NoSuchViewException", message)
    }

    /// No such plan is known (any more).
    pub(crate) fn no_such_plan(id: &str) -> Self {
        let message = format!("plan {id:?} does not exist (any more): plan the scan again");
        Self::new(StatusCode::NOT_FOUND, "NoSuchPlanIdException", message)
    }

    /// What was given as a plan task is none.
    pub(crate) fn no_such_plan_task(task: &str) -> Self {
        let task: String = task.chars().take(100).collect();
        let message = format!("{task:?} is no plan task of this catalog: plan the scan again");
        Self::new(StatusCode::NOT_FOUND, "NoSuchPlanTaskException", message)
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

    /// The body was not read to its end.
    pub(crate) fn body_not_read(limit: usize, error: &axum::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<io::Error>();
            if let Some(late) = io.filter(|io| io.kind() == io::ErrorKind::TimedOut) {
                let message = late.to_string();
                return Self::new(StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException", message);
            }
            cause = error.source();
        }
        Self::body_too_long(limit)
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
            ServiceError::Unsupported { .. } | ServiceError::Undecodable { .. } => {
                (StatusCode::NOT_ACCEPTABLE, "UnsupportedOperationException")
            }
            ServiceError::Denied { .. } | ServiceError::Withheld { .. } => {
                (StatusCode::FORBIDDEN, "ForbiddenException")
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

impl From<KafkaSilent> for ApiError {
    fn from(error: KafkaSilent) -> Self {
        let (status, kind) = match error {
            KafkaSilent::Refused(_) => (StatusCode::FORBIDDEN, "ForbiddenException"),
            KafkaSilent::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
            }
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<ColdsetError> for ApiError {
    fn from(error: ColdsetError) -> Self {
        let (status, kind) = match &error {
            ColdsetError::NoSuchTable(_) => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            ColdsetError::NoSuchNamespace(_) => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            ColdsetError::NoSuchObject { .. } => (StatusCode::NOT_FOUND, "NotFoundException"),
            ColdsetError::Refused { status: 413, .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, "BadRequestException")
            }
            // What it refused was this service, not the client.
            ColdsetError::Refused { .. } => (StatusCode::FORBIDDEN, "ForbiddenException"),
            ColdsetError::Unavailable { .. } | ColdsetError::Unreadable { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException")
            }
            ColdsetError::Config { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerErrorException")
            }
        };
        Self::new(status, kind, error.to_string())
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
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}
