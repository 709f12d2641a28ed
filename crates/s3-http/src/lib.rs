//! The S3 gateway: virtual files over the S3 protocol, read-only; and, in buckets that are not ours, the
//! objects of the upstream's store, where one is configured.
//!
//! [`gateway`] makes the service, [`serve`] runs it on a listener. The protocol's edge (parsing, SigV4,
//! XML) is `s3s`; what this crate adds is who may do what (`access`), the listing and reading
//! operations (`listing`, `reading`), and the status of each service error (`error`). Buckets of the
//! coldset are read by `cold` and written by `cold_writing`, through `upload` and `guard`.
//!
//! What is absent on purpose: no operation writes to our buckets, SigV2 is refused, and a browser's form
//! upload is refused before its body is read.

mod access;
mod audit;
mod body;
mod cold;
mod cold_writing;
mod conditions;
mod error;
mod gateway;
mod guard;
mod host;
mod listing;
mod objects;
mod reading;
mod request_times;
mod scope;
mod server;
mod settings;
mod upload;

pub use cold::ColdBuckets;
pub use gateway::{Gateway, gateway};
pub use objects::ObjectService;
pub use server::serve;
pub use settings::{GatewayCredentials, GatewaySettings, InvalidSettings};

/// What to add to a log filter: the protocol library logs whole requests, their signatures and session
/// tokens with them, and every refusal as an error. The gateway writes its own line per request.
pub const LOG_DIRECTIVE: &str = "s3s=off";
