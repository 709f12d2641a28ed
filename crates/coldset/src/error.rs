//! What can go wrong with the coldset, classed by what the caller should do about it.

/// An error of the upstream catalog or its object store. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColdsetError {
    /// The upstream catalog has no such table.
    #[error("the upstream catalog has no table {0:?}")]
    NoSuchTable(String),
    /// The upstream catalog has no such namespace.
    #[error("the upstream catalog has no namespace {0:?}")]
    NoSuchNamespace(String),
    /// The object store has no such object.
    #[error("the coldset's object store has no object {uri}")]
    NoSuchObject {
        /// The object's URI.
        uri: String,
    },
    /// The upstream understood and said no: repeating the request does not help.
    #[error("the coldset refused: {message} (status {status})")]
    Refused {
        /// The HTTP status, upstream's own where it sent one.
        status: u16,
        /// What was refused, why, and what to do.
        message: String,
    },
    /// The upstream cannot be reached or is not able to answer now: worth repeating later.
    #[error("{what} is not available: {reason}")]
    Unavailable {
        /// What was asked.
        what: String,
        /// Why there is no answer.
        reason: String,
    },
    /// An answer or a file is not what it should be.
    #[error("{what} cannot be read: {reason}")]
    Unreadable {
        /// The answer or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration is wrong.
    #[error("configuration key {key:?}: {reason}")]
    Config {
        /// The key below `coldset`.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

impl ColdsetError {
    /// A [`Self::Config`].
    pub(crate) fn config(key: &str, reason: impl Into<String>) -> Self {
        Self::Config { key: key.to_owned(), reason: reason.into() }
    }

    /// A [`Self::Unreadable`].
    pub(crate) fn unreadable(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unreadable { what: what.into(), reason: reason.into() }
    }

    /// A [`Self::Unavailable`].
    pub(crate) fn unavailable(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into(), reason: reason.into() }
    }
}
