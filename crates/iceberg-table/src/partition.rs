//! The partition spec of hot tables: `identity(kafka_partition)`, `truncate[2^k](kafka_offset)`.

use isk_model::{ChunkExponent, KafkaPartition, Offset};
use serde::Serialize;

use crate::plan::PlannedFile;

/// The field id of the column `kafka_partition`.
pub(crate) const KAFKA_PARTITION: i32 = 1;
/// The field id of the column `kafka_offset`.
pub(crate) const KAFKA_OFFSET: i32 = 2;
/// The field id of the column `kafka_timestamp`.
pub(crate) const KAFKA_TIMESTAMP: i32 = 3;

/// The id of the one partition spec.
pub(crate) const SPEC_ID: i32 = 0;
/// The id of the partition field `kafka_partition`.
pub(crate) const PARTITION_FIELD: i32 = 1000;
/// The id of the partition field `kafka_offset_trunc`.
pub(crate) const OFFSET_FIELD: i32 = 1001;

/// A partition spec, as metadata and manifest headers write it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Spec {
    spec_id: i32,
    /// The spec's fields: all that a manifest's header names of it.
    pub(crate) fields: [SpecField; 2],
}

/// One field of the spec.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SpecField {
    source_id: i32,
    field_id: i32,
    name: &'static str,
    transform: String,
}

/// The spec for chunks of 2^k offsets.
pub(crate) fn spec(k: ChunkExponent) -> Spec {
    let partition = SpecField {
        source_id: KAFKA_PARTITION,
        field_id: PARTITION_FIELD,
        name: "kafka_partition",
        transform: "identity".to_owned(),
    };
    let offset = SpecField {
        source_id: KAFKA_OFFSET,
        field_id: OFFSET_FIELD,
        name: "kafka_offset_trunc",
        transform: format!("truncate[{}]", k.width()),
    };
    Spec { spec_id: SPEC_ID, fields: [partition, offset] }
}

/// What the manifest list says of a manifest's partitions: the smallest and largest value of each
/// field. Neither is ever null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionBounds {
    pub(crate) partition: (KafkaPartition, KafkaPartition),
    pub(crate) offset: (Offset, Offset),
}

impl PartitionBounds {
    /// The bounds over some files; `None` for no file.
    pub(crate) fn of<'a>(files: impl Iterator<Item = &'a PlannedFile>) -> Option<Self> {
        files.fold(None, |bounds: Option<Self>, file| {
            let (p, o) = (file.partition, file.chunk.aligned_start);
            let (low, high) = bounds.map_or(((p, o), (p, o)), |b| {
                ((b.partition.0, b.offset.0), (b.partition.1, b.offset.1))
            });
            Some(Self {
                partition: (low.0.min(p), high.0.max(p)),
                offset: (low.1.min(o), high.1.max(o)),
            })
        })
    }
}
