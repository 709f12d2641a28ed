//! What a table is to hold.

use std::collections::BTreeMap;

use iceberg::spec::SchemaRef;
use isk_model::{ChunkExponent, ColumnMetrics, KafkaPartition, OffsetChunk};
use uuid::Uuid;

/// One snapshot of one topic, as a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TablePlan {
    /// The table's identity; it stays while the topic's does.
    pub table_uuid: Uuid,
    /// The table's location, without a slash at its end: `s3://hotset/<topic>`.
    pub location: String,
    /// The columns. Fields 1 (`kafka_partition`, int) and 2 (`kafka_offset`, long) are among them.
    pub schema: SchemaRef,
    /// The id under which the metadata names the schema.
    pub schema_id: i32,
    /// The exponent of the topic's chunks: the width of the second partition field.
    pub chunk_exponent: ChunkExponent,
    /// Table properties. The metrics modes of the Kafka columns are added where they are not set.
    pub properties: BTreeMap<String, String>,
    /// When the snapshot was taken: milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The data files, in any order.
    pub files: Vec<PlannedFile>,
    /// The length in bytes of the delete file that all delete entries name a copy of.
    pub delete_file_size: u64,
    /// Entries for the snapshot's summary beside those that are computed, such as its offset vector.
    pub summary: BTreeMap<String, String>,
}

/// One chunk, as a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// The data file's whole URI.
    pub data_uri: String,
    /// The Kafka partition it is cut from.
    pub partition: KafkaPartition,
    /// The offsets it covers. The aligned start is that of [`TablePlan::chunk_exponent`].
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
