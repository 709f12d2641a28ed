//! The nouns of ISK: topics, offsets, chunks, records and object keys.
//!
//! This crate does no I/O, knows no clock and no randomness, and names neither Arrow, Iceberg nor a
//! Kafka client. Everything else depends on it.

pub mod chunk;
pub mod columns;
pub mod facts;
pub mod histogram;
pub mod left_out;
pub mod object_key;
pub mod offset;
pub mod offset_set;
pub mod record;
pub mod registry;
pub mod topic;

pub use chunk::{ChunkExponent, OffsetChunk, chunks};
pub use columns::{ColumnRule, ColumnRules, InvalidColumns, Seen};
pub use facts::ColumnMetrics;
pub use histogram::Histogram;
pub use left_out::{Boundary, LeftOut};
pub use object_key::{
    ContentDigest, DataFileKey, DeleteFileKey, KeyError, ObjectKey, RenderDigest, SchemaVersion,
    folder, split_folder,
};
pub use offset::{LeaderEpoch, Offset, OffsetRange, PartitionOffsets};
pub use offset_set::{InvalidOffsetSet, OffsetSet};
pub use record::{EARLIEST_TIMESTAMP_MS, KafkaRecord, RecordBlock, RecordHeader, TimestampType};
pub use registry::{SchemaFormat, SchemaReference};
pub use topic::{KafkaPartition, RegistrySchemaId, TopicId, TopicName, TopicPartition, WriterId};
