//! A plan of chunks to Iceberg table metadata: metadata file, manifest list and manifests; of hot
//! files alone (format v2), or of hot files beside a cold table's.
//!
//! The path: [`groups`] tells which chunks stand together, a [`ManifestWriter`] makes the manifests of
//! the groups that changed, [`build`] the rest over all of them.
//!
//! No I/O, no clock, no randomness: the same plan gives the same names and the same bytes, and a
//! manifest whose files did not change keeps its name from snapshot to snapshot.

mod avro;
mod build;
mod digest;
mod group;
mod list;
mod manifest;
mod merged;
mod metadata;
mod partition;
mod plan;
mod row_id;
mod snapshot;

pub use build::{
    BuildError, Manifests, NamedFile, TableFiles, build, build_metadata, build_snapshot,
};
pub use group::{Group, Place, groups};
pub use isk_model::ColumnMetrics;
pub use manifest::{GroupManifests, ManifestWriter};
pub use merged::{format_version, last_sequence_number};
pub use plan::{ColdTable, Evidence, Placement, PlannedFile, TableHead};
pub use row_id::{ROW_ID_FIELD, ROW_ID_NAME, row_id};
pub use snapshot::{Operation, Snapshot, unknown_parent};
