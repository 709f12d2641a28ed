//! Connections of both ports: TLS with files that are read again (`tls`), and bounds on what a client may hold of the
//! service by being slow, many or long-winded (`stream`, `head`, `body`).
//!
//! [`serve`] runs an HTTP service on a listener. What a request says is for the service; what is decided here is whether
//! its head is one that nobody between could have read otherwise, how long each part of it may take, and how many
//! connections there may be.

mod body;
mod certificate;
mod exchange;
mod head;
mod limits;
mod serve;
mod stream;
mod tls;

pub use body::WatchedBody;
pub use certificate::ClientCertificate;
pub use exchange::{AnswerBody, ClientAddress};
pub use limits::{ConnectionLimits, Counters};
pub use serve::{Port, Served, serve, serve_stream};
pub use tls::{Tls, TlsError, TlsFiles};

/// What goes wrong in a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
