//! The S3 gateway: virtual files over the S3 protocol, read-only.
//!
//! [`gateway`] makes the service, [`serve`] runs it on a listener. The protocol's edge (parsing, SigV4,
//! XML) is `s3s`; what this crate adds is who may do what (`access`), the listing and reading
//! operations (`listing`, `reading`), and the status of each service error (`error`).
//!
//! What is absent on purpose: no operation writes, SigV2 is refused, and a browser's form upload is
//! refused before its body is read.

mod access;
mod body;
mod conditions;
mod error;
mod gateway;
mod host;
mod listing;
mod objects;
mod reading;
mod server;
mod settings;

pub use gateway::{Gateway, gateway};
pub use objects::ObjectService;
pub use server::serve;
pub use settings::{GatewayCredentials, GatewaySettings, InvalidSettings};

/// What to add to a log filter: the protocol library logs whole requests, their signatures and session
/// tokens with them, and every refusal as an error. The gateway writes its own line per request.
pub const LOG_DIRECTIVE: &str = "s3s=off";
