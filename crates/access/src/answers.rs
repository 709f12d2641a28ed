//! What [`crate::Access`] answers, but for what may be done.

use std::fmt;

use crate::principal::Caller;
use crate::vended::Scope;

/// Why somebody is not let in. The text may be shown to them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Why a signature that is right is not enough. The text may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum S3Refused {
    /// The key's time is over.
    #[error("the session token has expired; load the table again")]
    Expired,
    /// The key and its token are not good together, or not any more.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A token of ours, as the token endpoint answers it.
#[derive(Clone, PartialEq, Eq)]
pub struct Granted {
    /// The token.
    pub token: String,
    /// For how many seconds it is good.
    pub expires_in: u64,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The client is not known, or its secret is wrong, or the token it had is.
    #[error("the client is not known, or its secret or token is not good (any more)")]
    InvalidClient,
    /// It cannot be signed.
    #[error("the token cannot be signed")]
    Unsigned,
}

/// Who signed a request to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Caller {
    /// A principal, with a key of its own.
    Principal(Caller),
    /// A vended key.
    Vended(Scope),
}

impl S3Caller {
    /// The principal.
    pub fn caller(&self) -> &Caller {
        match self {
            Self::Principal(caller) => caller,
            Self::Vended(scope) => &scope.caller,
        }
    }
}
