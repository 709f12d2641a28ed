//! What the catalog refuses, and the one place where a refusal gets its status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use iceberg::ErrorKind;
use serde_json::json;

use super::budget::Full;
use super::names::{Namespace, TableName};

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no namespace {0}")]
    NoSuchNamespace(Namespace),
    #[error("there is no table {0}")]
    NoSuchTable(TableName),
    #[error("{0} is there already")]
    AlreadyExists(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    #[error("there is no {0:?} here")]
    NoSuchRoute(String),
    #[error(transparent)]
    Full(#[from] Full),
    #[error("the embedded lake cannot write its files: {0}")]
    Storage(#[from] std::io::Error),
    #[error("the embedded lake made metadata that it cannot write: {0}")]
    Unwritable(#[from] serde_json::Error),
}

impl Refusal {
    /// Classes what the metadata's rules refused.
    pub(crate) fn of_metadata(table: &TableName, error: &iceberg::Error) -> Self {
        match error.kind() {
            ErrorKind::CatalogCommitConflicts => Self::Conflict(format!("{table}: {error}")),
            ErrorKind::TableNotFound => Self::NoSuchTable(table.clone()),
            _ => Self::Invalid(format!("{table}: {error}")),
        }
    }

    /// Status and the exception's name that clients go by.
    fn class(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchNamespace(_) => (StatusCode::NOT_FOUND, "NoSuchNamespaceException"),
            Self::NoSuchTable(_) => (StatusCode::NOT_FOUND, "NoSuchTableException"),
            Self::NoSuchRoute(_) => (StatusCode::NOT_FOUND, "NotFoundException"),
            Self::AlreadyExists(_) => (StatusCode::CONFLICT, "AlreadyExistsException"),
            Self::Conflict(_) => (StatusCode::CONFLICT, "CommitFailedException"),
            // Not a server's error: to that, clients say "perhaps it was committed".
            Self::Invalid(_) | Self::Full(_) => (StatusCode::BAD_REQUEST, "BadRequestException"),
            Self::Storage(_) | Self::Unwritable(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "InternalServerErrorException")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, kind) = self.class();
        if status.is_server_error() {
            tracing::error!("{self}");
        }
        let error = json!({ "message": self.to_string(), "type": kind, "code": status.as_u16() });
        (status, Json(json!({ "error": error }))).into_response()
    }
}
