//! From a plan to files: the one path through this crate.

use std::collections::BTreeMap;

use bytes::Bytes;
use iceberg::spec::{PrimitiveType, Schema, Type};
use isk_model::OffsetChunk;

use crate::digest::{Parts, hex128, sha256};
use crate::group::groups;
use crate::list::{List, ListedManifest};
use crate::manifest::{Content, ManifestContext, entry_schema, row_count};
use crate::merged::{self, format_version};
use crate::metadata::{Metadata, SnapshotFacts};
use crate::partition::PartitionBounds;
use crate::plan::{Evidence, PlannedFile, TablePlan};

/// A file of the table's metadata folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The name within `<location>/metadata/`. It holds a digest of the content.
    pub name: String,
    /// The content.
    pub bytes: Bytes,
}

/// All files of one table version.
#[derive(Debug, Clone)]
pub struct TableFiles {
    /// The table metadata, JSON. Its name is of the form `00001-<uuid>.metadata.json`.
    pub metadata: NamedFile,
    /// The manifest list.
    pub manifest_list: NamedFile,
    /// The manifests, in the list's order.
    pub manifests: Vec<NamedFile>,
    /// The id of the current and only snapshot.
    pub snapshot_id: i64,
}

/// Why a plan is no table: always a defect of the plan.
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

/// Builds metadata, manifest list and manifests. The cost is linear in the number of files.
///
/// The snapshot's id is a digest of everything in the plan but its timestamp.
pub fn build(plan: &TablePlan) -> Result<TableFiles, BuildError> {
    let schema = checked_schema(plan)?;
    plan.files.iter().try_for_each(|file| check_file(plan, file))?;
    let schema_json = serde_json::to_string(&schema)?;
    let placement = &plan.placement;
    let spec = placement.spec(plan.chunk_exponent);
    let spec_fields = serde_json::to_string(&spec.fields)?;
    let origin_snapshot = Parts::new("origin").add(plan.table_uuid.as_bytes()).snapshot_id();
    let context = ManifestContext {
        schema: &schema_json,
        schema_id: plan.schema_id,
        spec_fields: &spec_fields,
        placement,
        entry_schema: &entry_schema(placement),
        origin_snapshot,
        delete_file_size: plan.delete_file_size,
    };
    let (manifests, listed) = manifests(plan, &context);

    let properties = properties(plan);
    let summary = summary(plan);
    let snapshot_id = snapshot_id(plan, &schema_json, &manifests, &properties, &summary)?;
    let format_version = plan.cold.as_ref().map_or(Ok(2), |cold| format_version(&cold.metadata))?;
    let list = List {
        format_version,
        cold: plan.cold.as_ref().map_or(&[], |cold| cold.manifests.as_slice()),
        hot: &listed,
        placement,
        origin_snapshot,
    };
    let manifest_list = list.encode(snapshot_id);
    let manifest_list = NamedFile {
        name: format!("snap-{snapshot_id}-{}.avro", hex128(&manifest_list)),
        bytes: manifest_list.into(),
    };
    let facts = SnapshotFacts {
        id: snapshot_id,
        timestamp_ms: plan.timestamp_ms,
        summary,
        manifest_list: &metadata_uri(plan, &manifest_list.name),
    };
    let metadata = match &plan.cold {
        None => {
            let (uuid, location) = (plan.table_uuid, &plan.location);
            let hot = Metadata::new(uuid, location, &schema, placement, spec, properties, facts);
            serde_json::to_vec(&hot)?
        }
        Some(cold) => {
            let merged = merged::metadata(plan, cold, &schema, &spec, properties, facts)?;
            serde_json::to_vec(&merged)?
        }
    };
    let metadata = NamedFile { name: metadata_name(&metadata), bytes: metadata.into() };
    Ok(TableFiles { metadata, manifest_list, manifests, snapshot_id })
}

/// The schema under the plan's id, with the columns that the partition spec needs.
fn checked_schema(plan: &TablePlan) -> Result<Schema, BuildError> {
    for (id, expected) in [
        (plan.placement.partition_column, PrimitiveType::Int),
        (plan.placement.offset_column, PrimitiveType::Long),
    ] {
        let field = plan.schema.as_struct().field_by_id(id);
        if !field.is_some_and(|f| *f.field_type == Type::Primitive(expected.clone())) {
            return Err(BuildError::Column { id, expected });
        }
    }
    let renamed = plan.schema.as_ref().clone().into_builder().with_schema_id(plan.schema_id);
    renamed
        .build()
        .map_err(|source| BuildError::SchemaId { id: plan.schema_id, source: Box::new(source) })
}

fn check_file(plan: &TablePlan, file: &PlannedFile) -> Result<(), BuildError> {
    let (k, chunk) = (plan.chunk_exponent, &file.chunk);
    let last = isk_model::Offset(chunk.range.end().0 - 1);
    if k.align(chunk.range.start()) != chunk.aligned_start || k.align(last) != chunk.aligned_start {
        return Err(BuildError::Chunk { uri: file.data_uri.clone(), chunk: Box::new(file.chunk) });
    }
    let fits = |n: u64| i64::try_from(n).is_ok();
    if fits(file.declared_size) && fits(row_count(file)) {
        Ok(())
    } else {
        Err(BuildError::Long { uri: file.data_uri.clone() })
    }
}

/// The manifests and what the list says of each: data first, then the deletes beside them.
fn manifests(
    plan: &TablePlan,
    context: &ManifestContext<'_>,
) -> (Vec<NamedFile>, Vec<ListedManifest>) {
    let mut manifests = Vec::new();
    let mut listed = Vec::new();
    for files in groups(&plan.files, plan.chunk_exponent).into_values() {
        // An entry of no rows is pruned by some clients and trips others: nothing is missed.
        let files: Vec<_> = files.into_iter().filter(|file| row_count(file) > 0).collect();
        let deletes = files.iter().copied().filter(|file| file.evidence.delete_uri().is_some());
        let deletes: Vec<_> = deletes.collect();
        for (content, files) in [(Content::Data, files), (Content::Deletes, deletes)] {
            let Some(bounds) = PartitionBounds::of(files.iter().copied()) else { continue };
            let bytes = context.encode(content, &files);
            let name = format!("{}-{}.avro", content.name(), hex128(&bytes));
            let rows = match content {
                Content::Data => files.iter().fold(0u64, |n, f| n.saturating_add(row_count(f))),
                Content::Deletes => files.len() as u64,
            };
            listed.push(ListedManifest {
                uri: metadata_uri(plan, &name),
                length: bytes.len() as u64,
                content,
                files: files.len(),
                rows,
                bounds,
            });
            manifests.push(NamedFile { name, bytes: bytes.into() });
        }
    }
    (manifests, listed)
}

fn metadata_uri(plan: &TablePlan, name: &str) -> String {
    format!("{}/metadata/{name}", plan.location)
}

/// The caller's properties, and the metrics modes that keep the Kafka columns' bounds exact in tables
/// that are written from this one.
fn properties(plan: &TablePlan) -> BTreeMap<String, String> {
    let mut properties = plan.properties.clone();
    for column in ["kafka_partition", "kafka_offset", "kafka_timestamp"] {
        let key = format!("write.metadata.metrics.column.{column}");
        properties.entry(key).or_insert_with(|| "full".to_owned());
    }
    properties
}

/// The computed entries win over the caller's. There is no total of records unless all are proven:
/// some clients answer COUNT(*) from it.
fn summary(plan: &TablePlan) -> BTreeMap<String, String> {
    let mut summary = plan.summary.clone();
    let shown = || plan.files.iter().filter(|file| row_count(file) > 0);
    let deletes = shown().filter(|file| file.evidence.delete_uri().is_some()).count();
    summary.insert("operation".to_owned(), "append".to_owned());
    summary.insert("total-data-files".to_owned(), shown().count().to_string());
    summary.insert("total-delete-files".to_owned(), deletes.to_string());
    summary.remove("total-records");
    let certain = |file: &PlannedFile| {
        matches!(&file.evidence, Evidence::Proven { keep_delete_entry: None, .. })
    };
    // A cold table's own total does not know of its deletes.
    if plan.cold.is_none() && shown().all(certain) {
        let rows = shown().fold(0u64, |n, file| n.saturating_add(row_count(file)));
        summary.insert("total-records".to_owned(), rows.to_string());
    }
    summary
}

/// Manifest names are digests of all that the manifests hold, so they stand for the files.
fn snapshot_id(
    plan: &TablePlan,
    schema_json: &str,
    manifests: &[NamedFile],
    properties: &BTreeMap<String, String>,
    summary: &BTreeMap<String, String>,
) -> Result<i64, BuildError> {
    let fixed = Parts::new("snapshot")
        .add(plan.table_uuid.as_bytes())
        .add(plan.location.as_bytes())
        .add(schema_json.as_bytes())
        .add(&[plan.chunk_exponent.get()])
        .add(&serde_json::to_vec(properties)?)
        .add(&serde_json::to_vec(summary)?);
    let fixed = match &plan.cold {
        Some(cold) => fixed.add(cold.metadata_location.as_bytes()),
        None => fixed,
    };
    let all = manifests.iter().fold(fixed, |parts, file| parts.add(file.name.as_bytes()));
    Ok(all.snapshot_id())
}

/// A name that all clients accept: a version, and a UUID made of the content's digest.
fn metadata_name(bytes: &[u8]) -> String {
    let [digest @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = sha256(bytes);
    format!("00001-{}.metadata.json", uuid::Builder::from_custom_bytes(digest).as_uuid())
}
