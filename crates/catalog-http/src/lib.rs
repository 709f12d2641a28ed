//! The Iceberg REST catalog: topics as tables, read-only.
//!
//! [`router`] is built from one table of routes ([`routes::ROUTES`]); the same table gives the list of
//! endpoints that clients are told of, and is held against `openapi/isk-catalog.yaml` by a test.
//! What no route names is refused in the error model of the specification, as are all writes.
//! Wire types live in `wire`, and the status of each service error in `error`.

mod error;
mod handlers;
mod load;
mod names;
mod paging;
pub mod routes;
mod service;
mod settings;
mod trace;
mod wire;

pub use routes::router;
pub use service::CatalogService;
pub use settings::{CatalogSettings, VendedS3};

/// The description of this catalog's HTTP interface, as served at `/openapi.yaml`.
pub const OPENAPI: &str = include_str!("../../../openapi/isk-catalog.yaml");
