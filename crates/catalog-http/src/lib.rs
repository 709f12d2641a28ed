//! The Iceberg REST catalog: topics as tables, read-only; and the tables of an upstream catalog, where
//! one is configured.
//!
//! [`router`] is built from one table of routes ([`routes::ROUTES`]); the same table gives the list of
//! endpoints that clients are told of, and is held against `openapi/isk-catalog.yaml` and `openapi/isk-api.yaml` by a
//! test. What is no catalog lies below `/api/v1`: the schemas of topics (`topic_schema`).
//! What no route names is refused in the error model of the specification, as are all writes but those
//! of `coldset`, where the configuration allows them: these are passed to the upstream (`cold`), under
//! this catalog's names (`coldset`), or under the upstream's own (`warehouse`).
//! Wire types live in `wire`, and the status of each service error in `error`.

mod audit;
mod cold;
mod cold_answer;
mod cold_names;
mod cold_rights;
mod coldset;
mod error;
mod guard;
mod handlers;
mod load;
mod measures;
mod names;
mod paging;
mod plan;
mod plan_wire;
pub mod routes;
mod server;
mod service;
mod settings;
mod tokens;
mod topic_schema;
mod trace;
mod vending;
mod warehouse;
mod wire;

pub use routes::router;
pub use server::serve;
pub use service::CatalogService;
pub use settings::{CatalogSettings, MoreMetrics, VendedS3};
pub use topic_schema::SchemaService;

/// The path of an upstream namespace, its levels joined by `.`, behind the catalog's prefix.
pub fn namespace_path(namespace: &str) -> String {
    cold_names::namespace_path(&cold_names::upstream_levels(namespace))
}

/// The description of this catalog's HTTP interface, as served at `/openapi.yaml`.
pub const OPENAPI: &str = include_str!("../../../openapi/isk-catalog.yaml");

/// The description of what is no catalog: how topics are looked at and steered. Served at `/api/openapi.yaml`.
pub const API: &str = include_str!("../../../openapi/isk-api.yaml");
