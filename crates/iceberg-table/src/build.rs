//! From a table's head and the manifests of its groups to metadata and manifest list.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::{PrimitiveType, Schema, Type};
use isk_model::OffsetChunk;

use crate::digest::{Parts, hex128, sha256};
use crate::list::List;
use crate::manifest::GroupManifests;
use crate::merged::{self, format_version};
use crate::metadata::Metadata;
use crate::plan::TableHead;
use crate::snapshot::{Operation, Snapshot};

/// A file of the table's metadata folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The name within `<location>/metadata/`. It holds a digest of the content.
    pub name: String,
    /// The content.
    pub bytes: Bytes,
}

/// The files of one table version, but for its manifests.
#[derive(Debug, Clone)]
pub struct TableFiles {
    /// The table metadata, JSON. Its name is of the form `00001-<uuid>.metadata.json`.
    pub metadata: NamedFile,
    /// The manifest list.
    pub manifest_list: NamedFile,
    /// The id of the current and only snapshot.
    pub snapshot_id: i64,
}

/// Why a plan is no table: always a defect of the head.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The schema lacks a column that the partition spec is built on.
    #[error(
        "the schema has no field {id} of type {expected}: the Kafka columns must be among its columns"
    )]
    Column {
        /// The field id.
        id: i32,
        /// Its type.
        expected: PrimitiveType,
    },
    /// The schema cannot be given its id.
    #[error("the schema cannot be named by id {id}: {source}")]
    SchemaId {
        /// The id.
        id: i32,
        /// Iceberg's reason.
        #[source]
        source: Box<iceberg::Error>,
    },
    /// A file does not lie within one chunk of the plan's width.
    #[error("the file {uri} of offsets {range} lies in no chunk that starts at {start}", range = chunk.range, start = chunk.aligned_start)]
    Chunk {
        /// The data file.
        uri: String,
        /// What was planned for it.
        chunk: Box<OffsetChunk>,
    },
    /// A size or a count does not fit Iceberg's `long`.
    #[error("the file {uri} has a size or a row count of 2^63 or more")]
    Long {
        /// The data file.
        uri: String,
    },
    /// The cold table's metadata lacks something, or has something that hot files cannot stand beside.
    #[error("the metadata of the cold table: {0}")]
    Cold(String),
    /// A part of the metadata could not be written as JSON.
    #[error("table metadata could not be written: {0}")]
    Json(#[from] serde_json::Error),
}

/// The manifests of a snapshot's groups, in the manifest list's order.
#[derive(Debug, Clone, Copy)]
pub struct Manifests<'a> {
    /// What was in the table before.
    pub known: &'a [Arc<GroupManifests>],
    /// What the snapshot adds.
    pub added: &'a [Arc<GroupManifests>],
}

impl<'a> Manifests<'a> {
    fn groups(self) -> impl Iterator<Item = &'a GroupManifests> {
        self.known.iter().chain(self.added).map(Arc::as_ref)
    }
}

/// Builds metadata and manifest list of a table with one snapshot, over the manifests of these groups, in
/// their order. The cost is linear in the number of manifests.
///
/// The snapshot's id is a digest of everything in the table but its timestamp.
///
/// # Errors
/// The head is no table's: see [`BuildError`].
pub fn build(head: &TableHead, groups: &[Arc<GroupManifests>]) -> Result<TableFiles, BuildError> {
    let manifests = Manifests { known: groups, added: &[] };
    let (snapshot, manifest_list) = build_snapshot(head, manifests, Operation::Append, None)?;
    let metadata = match &head.cold {
        None => build_metadata(head, &[], [&snapshot])?,
        Some(cold) => {
            let schema = checked_schema(head)?;
            let spec = head.placement.spec(head.chunk_exponent);
            let properties = properties(head);
            let merged = merged::metadata(head, cold, &schema, &spec, properties, &snapshot)?;
            named_metadata(&serde_json::to_vec(&merged)?)
        }
    };
    Ok(TableFiles { metadata, manifest_list, snapshot_id: snapshot.snapshot_id })
}

/// Builds one snapshot and its manifest list.
///
/// # Errors
/// The head is no table's: see [`BuildError`].
pub fn build_snapshot(
    head: &TableHead,
    manifests: Manifests<'_>,
    operation: Operation,
    parent: Option<i64>,
) -> Result<(Snapshot, NamedFile), BuildError> {
    let schema = checked_schema(head)?;
    let summary = summary(head, manifests, operation);
    let snapshot_id = snapshot_id(head, &schema, manifests, parent, &summary)?;
    let format_version = head.cold.as_ref().map_or(Ok(2), |cold| format_version(&cold.metadata))?;
    let origin = Parts::new("origin").add(head.table_uuid.as_bytes()).snapshot_id();
    let mut hot = Vec::new();
    for (groups, added_by) in [(manifests.known, origin), (manifests.added, snapshot_id)] {
        hot.extend(groups.iter().flat_map(|group| &group.listed).map(|one| (one, added_by)));
    }
    let list = List {
        format_version,
        cold: head.cold.as_ref().map_or(&[], |cold| cold.manifests.as_slice()),
        hot: &hot,
        placement: &head.placement,
        sequence_number: head.sequence_number,
        parent,
    };
    let manifest_list = list.encode(snapshot_id);
    let manifest_list = NamedFile {
        name: format!("snap-{snapshot_id}-{}.avro", hex128(&manifest_list)),
        bytes: manifest_list.into(),
    };
    let snapshot = Snapshot {
        sequence_number: head.sequence_number,
        snapshot_id,
        parent_snapshot_id: parent,
        timestamp_ms: head.timestamp_ms,
        summary,
        manifest_list: metadata_uri(&head.location, &manifest_list.name),
        schema_id: head.schema_id,
    };
    Ok((snapshot, manifest_list))
}

/// Builds the metadata file of a table of hot files alone over its snapshots, oldest first; the last one is
/// the table's current one. `schemas` are those that earlier snapshots were planned with.
///
/// # Errors
/// The head is no table's: see [`BuildError`].
pub fn build_metadata<'a>(
    head: &TableHead,
    schemas: &[Schema],
    snapshots: impl IntoIterator<Item = &'a Snapshot>,
) -> Result<NamedFile, BuildError> {
    let schema = checked_schema(head)?;
    let snapshots: Vec<&Snapshot> = snapshots.into_iter().collect();
    let metadata = Metadata::new(head, &schema, schemas, properties(head), snapshots);
    Ok(named_metadata(&serde_json::to_vec(&metadata)?))
}

/// The schema under the plan's id, with the columns that the partition spec needs.
pub(crate) fn checked_schema(head: &TableHead) -> Result<Schema, BuildError> {
    for (id, expected) in [
        (head.placement.partition_column, PrimitiveType::Int),
        (head.placement.offset_column, PrimitiveType::Long),
    ] {
        let field = head.schema.as_struct().field_by_id(id);
        if !field.is_some_and(|f| *f.field_type == Type::Primitive(expected.clone())) {
            return Err(BuildError::Column { id, expected });
        }
    }
    let renamed = head.schema.as_ref().clone().into_builder().with_schema_id(head.schema_id);
    renamed
        .build()
        .map_err(|source| BuildError::SchemaId { id: head.schema_id, source: Box::new(source) })
}

pub(crate) fn metadata_uri(location: &str, name: &str) -> String {
    format!("{location}/metadata/{name}")
}

/// The caller's properties, and the metrics modes that keep the Kafka columns' bounds exact in tables
/// that are written from this one.
fn properties(head: &TableHead) -> BTreeMap<String, String> {
    let mut properties = head.properties.clone();
    for column in ["kafka_partition", "kafka_offset", "kafka_timestamp"] {
        let key = format!("write.metadata.metrics.column.{column}");
        properties.entry(key).or_insert_with(|| "full".to_owned());
    }
    properties
}

/// The computed entries win over the caller's. There is no total of records unless all are proven:
/// some clients answer COUNT(*) from it.
fn summary(
    head: &TableHead,
    manifests: Manifests<'_>,
    operation: Operation,
) -> BTreeMap<String, String> {
    let mut summary = head.summary.clone();
    let total = |of: fn(&GroupManifests) -> u64| {
        manifests.groups().fold(0u64, |n, group| n.saturating_add(of(group))).to_string()
    };
    summary.insert("operation".to_owned(), operation.name().to_owned());
    summary.insert("total-data-files".to_owned(), total(|group| group.data_files));
    summary.insert("total-delete-files".to_owned(), total(|group| group.delete_files));
    if !manifests.added.is_empty() {
        let added: u64 = manifests.added.iter().map(|group| group.data_files).sum();
        summary.insert("added-data-files".to_owned(), added.to_string());
    }
    summary.remove("total-records");
    // A cold table's own total does not know of its deletes.
    if head.cold.is_none() && manifests.groups().all(|group| group.exact) {
        summary.insert("total-records".to_owned(), total(|group| group.rows));
    }
    summary
}

/// Manifest names are digests of all that the manifests hold, so they stand for the files.
fn snapshot_id(
    head: &TableHead,
    schema: &Schema,
    manifests: Manifests<'_>,
    parent: Option<i64>,
    summary: &BTreeMap<String, String>,
) -> Result<i64, BuildError> {
    let fixed = Parts::new("snapshot")
        .add(head.table_uuid.as_bytes())
        .add(head.location.as_bytes())
        .add(&serde_json::to_vec(schema)?)
        .add(&[head.chunk_exponent.get()])
        .add(&serde_json::to_vec(&properties(head))?)
        .add(&serde_json::to_vec(summary)?)
        .add(&parent.unwrap_or(0).to_be_bytes());
    let mut parts = match &head.cold {
        Some(cold) => fixed.add(cold.metadata_location.as_bytes()),
        None => fixed,
    };
    for groups in [manifests.known, manifests.added] {
        for manifest in groups.iter().flat_map(|group| &group.listed) {
            parts = parts.add(manifest.uri.as_bytes());
        }
        parts = parts.add(&[]);
    }
    Ok(parts.snapshot_id())
}

/// A name that all clients accept: a version, and a UUID made of the content's digest.
fn named_metadata(bytes: &[u8]) -> NamedFile {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256(bytes);
    let uuid = uuid::Builder::from_custom_bytes(digest).into_uuid();
    NamedFile { name: format!("00001-{uuid}.metadata.json"), bytes: bytes.to_vec().into() }
}
