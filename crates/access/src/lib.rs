//! Who may in, and who may what: shared by both HTTP edges.
//!
//! [`Access`] is the one value that the edges ask. It knows callers by bearer tokens of its own (`tokens`), of an
//! external issuer (`oidc`, `issuer_keys`) or by API keys, and S3 clients by keys that it vends (`vended`) or that are configured.
//! Principals and rules stand in one file (`file`), which is read again when it changes; what a caller may do is
//! decided by [`Rules`], which do no I/O.
//!
//! Nothing here is shared between replicas but the signing key: tokens and vended keys carry what is needed to
//! check them.

mod access;
mod answers;
mod audit;
mod book;
mod credentials;
mod file;
mod issuer_keys;
mod kafka;
mod keys;
mod known;
mod limit;
mod oidc;
mod principal;
mod ring_provider;
mod rules;
mod secret;
mod signers;
mod sigv4;
mod tokens;
mod vended;

pub use access::{Access, AccessSettings};
pub use answers::{GrantError, Granted, Refused, S3Caller, S3Refused};
pub use audit::{Audit, AuditSettings, Event};
pub use book::{Book, ConfiguredPrincipal, S3Key};
pub use credentials::{BadCredential, credentials};
pub use file::{AccessFile, FileError};
pub use issuer_keys::IssuerKeys;
pub use kafka::{AsksKafka, KafkaLogin, KafkaSilent, TopicRights};
pub use keys::{SigningKey, WeakKey};
pub use limit::Permit;
pub use oidc::{Oidc, OidcSettings};
pub use principal::{Caller, Right, Source, Stamp, TableName};
pub use rules::{Reach, Rules};
pub use secret::{BadDigest, SecretDigest};
pub use sigv4::Claimed;
pub use vended::{Scope, VendedKey};
