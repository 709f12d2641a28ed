//! A plan of chunks to Iceberg v2 table metadata: metadata file, manifest list and manifests.
//!
//! No I/O, no clock, no randomness: the same plan gives the same names and the same bytes, and a
//! manifest whose files did not change keeps its name from snapshot to snapshot.

mod avro;
mod build;
mod digest;
mod group;
mod list;
mod manifest;
mod metadata;
mod partition;
mod plan;

pub use build::{BuildError, NamedFile, TableFiles, build};
pub use isk_model::ColumnMetrics;
pub use plan::{Evidence, PlannedFile, TablePlan};
