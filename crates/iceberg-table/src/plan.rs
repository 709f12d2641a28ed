//! What a table is to hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{ManifestFile, SchemaRef};
use isk_model::{ChunkExponent, ColumnMetrics, KafkaPartition, OffsetChunk};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use crate::partition::Placement;

/// One snapshot of one topic, as a table, but for its files; of a topic and a cold table, where there
/// is a `cold`.
#[derive(Debug, Clone, PartialEq)]
pub struct TableHead {
    /// The table's identity; it stays while the topic's does.
    pub table_uuid: Uuid,
    /// The table's location, without a slash at its end: `s3://hotset/<topic>`.
    pub location: String,
    /// The columns, those of the placement among them.
    pub schema: SchemaRef,
    /// The id under which the metadata names the schema.
    pub schema_id: i32,
    /// Where the hot files stand in the table.
    pub placement: Placement,
    /// The sequence number of all hot files: deletes apply to data of the same number. Manifests do not
    /// say it: readers inherit it from the manifest list, so it may rise without making them anew.
    pub sequence_number: i64,
    /// The cold table whose files the table has too.
    pub cold: Option<ColdTable>,
    /// The exponent of the topic's chunks: the width of the second partition field.
    pub chunk_exponent: ChunkExponent,
    /// Table properties. The metrics modes of the Kafka columns are added where they are not set.
    pub properties: BTreeMap<String, String>,
    /// When the snapshot was taken: milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The length in bytes of the delete file that all delete entries name a copy of.
    pub delete_file_size: u64,
    /// Entries for the snapshot's summary beside those that are computed, such as its offset vector.
    pub summary: BTreeMap<String, String>,
}

/// One snapshot of a cold table, to be shown together with hot files.
#[derive(Debug, Clone)]
pub struct ColdTable {
    /// Where its metadata lies: it stands for all that follows.
    pub metadata_location: String,
    /// Its metadata file (specification, "Table Metadata", any version).
    pub metadata: Arc<Map<String, Value>>,
    /// The manifests of its current snapshot, in the list's order. They are named as they are.
    pub manifests: Arc<Vec<ManifestFile>>,
}

/// The same metadata location is the same table at the same moment.
impl PartialEq for ColdTable {
    fn eq(&self, other: &Self) -> bool {
        self.metadata_location == other.metadata_location
    }
}

/// One chunk, as a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// The data file's whole URI.
    pub data_uri: String,
    /// The Kafka partition it is cut from.
    pub partition: KafkaPartition,
    /// The offsets it covers. The aligned start is that of [`TableHead::chunk_exponent`].
    pub chunk: OffsetChunk,
    /// The object's length in bytes, hole included.
    pub declared_size: u64,
    /// What is known of its rows.
    pub evidence: Evidence,
}

/// What is known of a chunk's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// The chunk was never read: it has at most one row per offset.
    Unproven {
        /// The whole URI of the empty delete file that makes engines count by reading: each chunk's
        /// own.
        delete_uri: String,
        /// Milliseconds since the epoch that no record's timestamp is above, if known.
        timestamp_upper_ms: Option<i64>,
    },
    /// The chunk was encoded. One without rows is left out of the table.
    Proven {
        /// The exact number of rows.
        rows: u64,
        /// Metrics by field id.
        columns: BTreeMap<i32, ColumnMetrics>,
        /// An empty delete file to keep beside it all the same, where the log's cleaner may remove
        /// rows before the file is read.
        keep_delete_entry: Option<String>,
    },
}

impl Evidence {
    /// The URI of the empty delete file beside the chunk, if it has one.
    pub fn delete_uri(&self) -> Option<&str> {
        match self {
            Self::Unproven { delete_uri, .. } => Some(delete_uri),
            Self::Proven { keep_delete_entry, .. } => keep_delete_entry.as_deref(),
        }
    }
}
