//! What an answer of the catalog means. A proxy's pages are told from the catalog's own words.

use reqwest::StatusCode;
use serde::de::DeserializeOwned;

use super::http::Answer;
use super::wire::{ErrorAnswer, ErrorModel};
use super::words;
use crate::ColdsetError;

/// What is said not to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Table,
    Namespace,
    /// An object, without saying which: some catalogs' types are that general.
    Something,
}

impl Answer {
    /// The error document, where it is one.
    pub(super) fn error(&self) -> Option<ErrorModel> {
        serde_json::from_slice::<ErrorAnswer>(&self.body).ok().map(|answer| answer.error)
    }

    /// What the catalog itself says does not exist. `None` for any other answer, and for a 404
    /// that is not about a table or namespace: of a proxy, or of a wrong prefix or warehouse.
    pub(super) fn missing(&self) -> Option<Missing> {
        if self.status != StatusCode::NOT_FOUND {
            return None;
        }
        let error = self.error()?;
        let kind = error.kind.unwrap_or_default();
        let says = |known: &[&str]| known.iter().any(|k| kind.starts_with(k));
        if says(&["NoSuchNamespace", "NamespaceNotFound"]) {
            Some(Missing::Namespace)
        } else if says(&["NoSuchTable", "NoSuchIcebergTable", "NoSuchTabular", "TableNotFound"]) {
            Some(Missing::Table)
        } else if says(&["NotFoundException", "EntityNotFound", "NoSuchObject"]) {
            let message = error.message.unwrap_or_default().to_ascii_lowercase();
            let elsewhere = ["warehouse", "catalog", "prefix"].iter().any(|w| message.contains(w));
            (!elsewhere).then_some(Missing::Something)
        } else {
            None
        }
    }

    /// The body of a 200.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ColdsetError> {
        if self.status != StatusCode::OK {
            return Err(self.failure());
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| self.strange(&format!("not what was asked for ({error})")))
    }

    /// Whether the body could be the catalog's: JSON, or nothing.
    pub(super) fn is_json(&self) -> bool {
        let first = self.body.iter().find(|byte| !byte.is_ascii_whitespace());
        first.is_none_or(|byte| matches!(byte, b'{' | b'['))
    }

    /// The error that an answer other than the expected one is.
    pub(super) fn failure(&self) -> ColdsetError {
        let status = self.status.as_u16();
        let said = match self.error() {
            Some(error) => {
                let kind = error.kind.unwrap_or_default();
                words(&format!("{kind}: {}", error.message.unwrap_or_default()))
            }
            None if self.status.is_success() => return self.strange("not the expected answer"),
            None => format!("not in a catalog's words: {}", self.excerpt()),
        };
        match status {
            408 | 429 | 500..=599 => {
                ColdsetError::unavailable(self.what(), format!("status {status}, {said}"))
            }
            _ => {
                let remedy = match status {
                    401 | 403 => "check coldset's credentials and what they may do",
                    404 => "check coldset.uri, coldset.warehouse and coldset.prefix",
                    _ => "see the upstream catalog's log",
                };
                let message = format!("{}: {said}; {remedy}", self.what());
                ColdsetError::Refused { status, message }
            }
        }
    }

    pub(super) fn strange(&self, why: &str) -> ColdsetError {
        ColdsetError::unreadable(
            self.what(),
            format!(
                "status {} with {why}: {}; check that coldset.uri is an Iceberg REST catalog",
                self.status.as_u16(),
                self.excerpt()
            ),
        )
    }

    fn what(&self) -> String {
        format!("the upstream catalog ({})", self.url)
    }

    /// The beginning of the body, unless it may hold credentials: a catalog's good answers do.
    fn excerpt(&self) -> String {
        if self.status.is_success() && self.is_json() {
            return format!("{} bytes of JSON", self.body.len());
        }
        words(&String::from_utf8_lossy(&self.body[..self.body.len().min(600)]))
    }
}
