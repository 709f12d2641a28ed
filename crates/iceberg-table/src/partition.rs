//! The partition spec of hot files: `identity(kafka_partition)`, `truncate[2^k](kafka_offset)`; and
//! under which ids it and the Kafka columns stand in a table.

use isk_model::{ChunkExponent, KafkaPartition, Offset};
use serde::Serialize;

use crate::plan::PlannedFile;

/// Where hot files stand in a table: the ids that differ between a table of hot files
/// alone and one that adds them to a cold table's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The field id of the column `kafka_partition`, an int.
    pub partition_column: i32,
    /// The field id of the column `kafka_offset`, a long.
    pub offset_column: i32,
    /// The field id of the column `kafka_timestamp`, if the table has one of type `timestamptz`.
    pub timestamp_column: Option<i32>,
    /// The id of the partition spec.
    pub spec_id: i32,
    /// The id of the spec's first field; the second follows it.
    pub first_partition_field: i32,
    /// The names of the spec's fields.
    pub partition_field_names: [&'static str; 2],
}

impl Placement {
    /// A table of hot files alone.
    pub const HOT: Self = Self {
        partition_column: 1,
        offset_column: 2,
        timestamp_column: Some(3),
        spec_id: 0,
        first_partition_field: 1000,
        partition_field_names: ["kafka_partition", "kafka_offset_trunc"],
    };

    /// The id of the spec's last field.
    pub(crate) fn last_partition_field(&self) -> i32 {
        self.first_partition_field + 1
    }

    /// The spec for chunks of 2^k offsets.
    pub(crate) fn spec(&self, k: ChunkExponent) -> Spec {
        let [partition, offset] = self.partition_field_names;
        let partition = SpecField {
            source_id: self.partition_column,
            field_id: self.first_partition_field,
            name: partition,
            transform: "identity".to_owned(),
        };
        let offset = SpecField {
            source_id: self.offset_column,
            field_id: self.last_partition_field(),
            name: offset,
            transform: format!("truncate[{}]", k.width()),
        };
        Spec { spec_id: self.spec_id, fields: [partition, offset] }
    }
}

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
