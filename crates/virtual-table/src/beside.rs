//! A topic seen beside a cold table: what that table covers, and how the two are one table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use iceberg::spec::{ManifestFile, PrimitiveType, Schema, SchemaRef, Type};
use isk_iceberg_table::{ColdTable, Placement, format_version, last_sequence_number};
use isk_model::{ContentDigest, KafkaPartition, LeftOut, OffsetRange};
use isk_schema::{FIRST_HOT_ONLY_ID, MergedSchema, TableSchema};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::ServiceError;
use crate::cold_view::ColdView;
use crate::covered::Covered;
use crate::layout::Layout;

/// The id of hot files' partition spec, and of its first field, in a merged table: above those of a
/// cold table, so that they stay while it evolves.
const HOT_SPEC: i32 = 1_000_000;

/// How many holes the table's properties name one by one.
const NAMED_HOLES: usize = 32;

/// A metadata file that a data file's recipe names by its digest.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub digest: ContentDigest,
    pub name: String,
    pub bytes: Bytes,
}

impl Attachment {
    /// The records that are left out of a file.
    pub(crate) fn left_out(records: &LeftOut) -> Self {
        let bytes = records.to_bytes();
        let digest = digest(&bytes);
        Self { digest, name: covered_name(digest), bytes: bytes.into() }
    }

    /// The columns of hot files in a merged table.
    fn layout(layout: &Layout) -> Result<Self, ServiceError> {
        let bytes = layout
            .to_bytes()
            .map_err(|e| ServiceError::Internal(format!("a table schema has no JSON: {e}")))?;
        let digest = digest(&bytes);
        Ok(Self { digest, name: layout_name(digest), bytes: bytes.into() })
    }
}

/// The name of what is left out of a file in the metadata store.
pub(crate) fn covered_name(digest: ContentDigest) -> String {
    format!("covered-{digest}.roaring")
}

/// The name of a file's columns in the metadata store.
pub(crate) fn layout_name(digest: ContentDigest) -> String {
    format!("layout-{digest}.json")
}

fn digest(bytes: &[u8]) -> ContentDigest {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [half @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = digest;
    ContentDigest(u128::from_be_bytes(half))
}

/// A cold table, as far as planning a topic beside it needs.
pub(crate) struct Beside {
    pub table_uuid: Uuid,
    pub covered: Arc<Covered>,
    /// How the two are one table, where they are shown as one.
    pub merged: Option<Merged>,
    /// Properties for the table.
    pub properties: BTreeMap<String, String>,
}

/// A topic and a cold table as one.
pub(crate) struct Merged {
    pub cold: ColdTable,
    pub schema: SchemaRef,
    pub schema_id: i32,
    /// The columns of hot files.
    pub layout: Attachment,
    pub placement: Placement,
    /// Above all of cold's: none of its equality deletes applies to hot rows.
    pub sequence_number: i64,
    /// The columns whose type is wider than hot files have it.
    pub widened: BTreeSet<i32>,
}

impl Merged {
    /// Lays a topic's columns over a cold table's.
    pub(crate) fn new(
        cold: &ColdView,
        manifests: Arc<Vec<ManifestFile>>,
        both: MergedSchema,
    ) -> Result<Self, ServiceError> {
        let unsupported = |reason: String| ServiceError::Unsupported {
            what: format!("merged table {}", cold.name),
            reason,
        };
        let version = format_version(&cold.metadata).map_err(|e| unsupported(e.to_string()))?;
        let counted = |m: &ManifestFile| {
            let files = m.added_files_count.and(m.existing_files_count);
            files.is_some() && m.added_rows_count.and(m.existing_rows_count).is_some()
        };
        if let Some(manifest) = manifests.iter().find(|manifest| !counted(manifest)) {
            return Err(unsupported(format!(
                "its manifest list does not say how many files and rows {} has: rewrite the cold \
                 table's manifests",
                manifest.manifest_path
            )));
        }
        let hot_id = |id: i32| both.matched.get(&id).copied().unwrap_or(FIRST_HOT_ONLY_ID + id);
        let column = |id: i32, expected: PrimitiveType, name: &str| {
            let field = both.table.field_by_id(id).map(|field| field.field_type.as_ref());
            match field {
                Some(Type::Primitive(ty)) if *ty == expected => Ok(id),
                Some(ty) => Err(unsupported(format!(
                    "its column {name} is {ty} and has to be {expected}: change the cold table's"
                ))),
                None => Err(unsupported(format!("it has no column {name}"))),
            }
        };
        let hot = Placement::HOT;
        let timestamp = hot.timestamp_column.map(hot_id);
        let placement = Placement {
            partition_column: column(
                hot_id(hot.partition_column),
                PrimitiveType::Int,
                "kafka_partition",
            )?,
            offset_column: column(hot_id(hot.offset_column), PrimitiveType::Long, "kafka_offset")?,
            timestamp_column: timestamp
                .filter(|&id| column(id, PrimitiveType::Timestamptz, "kafka_timestamp").is_ok()),
            spec_id: HOT_SPEC,
            first_partition_field: HOT_SPEC,
            partition_field_names: ["hot_kafka_partition", "hot_kafka_offset_trunc"],
        };
        let widened = widened(&both.table, &both.hot_file);
        let layout = Layout { columns: both.hot_file, row_ids: version >= 3 };
        let layout = Attachment::layout(&layout)?;
        let columns = serde_json::to_vec(&both.table)
            .map_err(|e| ServiceError::Internal(format!("a table schema has no JSON: {e}")))?;
        // An id from the hot range that differs with the columns.
        let tail = u32::try_from(digest(&columns).0 % 1_000_000_000).unwrap_or(0);
        Ok(Self {
            cold: ColdTable {
                metadata_location: cold.metadata_location.clone(),
                metadata: Arc::clone(&cold.metadata),
                manifests,
            },
            schema_id: FIRST_HOT_ONLY_ID + tail.cast_signed(),
            widened,
            schema: Arc::new(both.table),
            layout,
            placement,
            sequence_number: last_sequence_number(&cold.metadata).saturating_add(1),
        })
    }
}

/// The columns, at any depth, that a file has in a narrower type than the table.
fn widened(table: &Schema, file: &Schema) -> BTreeSet<i32> {
    let mut ids = BTreeSet::new();
    for (id, field) in file.field_id_to_fields() {
        let other = table.field_by_id(*id).map(|field| field.field_type.as_ref());
        if let (Type::Primitive(a), Some(Type::Primitive(b))) = (field.field_type.as_ref(), other)
            && a != b
        {
            ids.insert(*id);
        }
    }
    ids
}

/// A topic's columns under the names and ids that its files have in a merged table.
pub(crate) fn relabelled(table: &TableSchema, file: SchemaRef) -> TableSchema {
    TableSchema { iceberg: file, ..table.clone() }
}

/// The properties that report holes.
pub(crate) fn hole_properties(holes: &[(KafkaPartition, OffsetRange)]) -> BTreeMap<String, String> {
    if holes.is_empty() {
        return BTreeMap::new();
    }
    let offsets: u64 = holes.iter().map(|(_, range)| range.span()).sum();
    BTreeMap::from([
        ("isk.hole-offsets".to_owned(), offsets.to_string()),
        ("isk.holes".to_owned(), named(holes)),
    ])
}

/// The ranges in words, as many as a property may name.
pub(crate) fn named(ranges: &[(KafkaPartition, OffsetRange)]) -> String {
    let one = |(partition, range): &(KafkaPartition, OffsetRange)| {
        format!("{}:{}-{}", partition.0, range.start(), range.end())
    };
    let named: Vec<String> = ranges.iter().take(NAMED_HOLES).map(one).collect();
    named.join(",")
}

#[cfg(test)]
mod tests {
    use isk_model::Offset;

    use super::*;

    #[test]
    fn holes_are_counted_and_named() {
        let hole =
            |start, end| (KafkaPartition(0), OffsetRange::new(Offset(start), Offset(end)).unwrap());
        let properties = hole_properties(&[hole(50, 60), hole(70, 100)]);
        assert_eq!(properties["isk.hole-offsets"], "40");
        assert_eq!(properties["isk.holes"], "0:50-60,0:70-100");
        assert_eq!(hole_properties(&[]), BTreeMap::new());
    }
}
