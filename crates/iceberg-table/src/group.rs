//! Which files stand together in a manifest.
//!
//! Grouped so that partition summaries prune, that few manifests change from snapshot to snapshot,
//! and that a topic of many partitions does not become hundreds of tiny manifests:
//!
//! - **sealed**: an aligned run of 256 chunks of one Kafka partition that the log has grown past. Such
//!   a manifest changes only when its chunks are proven or expire.
//! - **filling**: full chunks of the newest, not yet sealed runs, of 8 neighbouring Kafka partitions.
//!   It changes when one more chunk is full.
//! - **tail**: the open chunks of all partitions. It changes with every new record.

use std::collections::BTreeMap;

use isk_model::{ChunkExponent, KafkaPartition, Offset};

use crate::plan::PlannedFile;

/// Chunks in a sealed run.
const RUN_CHUNKS: i64 = 256;
/// Kafka partitions whose full chunks share a manifest until their run is sealed.
const FILLING_PARTITIONS: i32 = 8;

/// A manifest's place; the order is the manifest list's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// The run with this number of one Kafka partition.
    Sealed(KafkaPartition, i64),
    /// The Kafka partitions whose numbers divide to this.
    Filling(i32),
    /// The open chunks.
    Tail,
}

/// Sorts files into groups; within a group they stand by partition and offset.
pub(crate) fn groups(
    files: &[PlannedFile],
    k: ChunkExponent,
) -> BTreeMap<Group, Vec<&PlannedFile>> {
    let mut ends: BTreeMap<KafkaPartition, Offset> = BTreeMap::new();
    for file in files {
        let end = ends.entry(file.partition).or_insert(Offset(0));
        *end = (*end).max(file.chunk.range.end());
    }
    let mut groups: BTreeMap<Group, Vec<&PlannedFile>> = BTreeMap::new();
    for file in files {
        let run = (file.chunk.aligned_start.0 / k.width()) / RUN_CHUNKS;
        let run_end = (run + 1).saturating_mul(RUN_CHUNKS).saturating_mul(k.width());
        let group = if ends.get(&file.partition).is_some_and(|end| end.0 >= run_end) {
            Group::Sealed(file.partition, run)
        } else if file.chunk.full {
            Group::Filling(file.partition.0 / FILLING_PARTITIONS)
        } else {
            Group::Tail
        };
        groups.entry(group).or_default().push(file);
    }
    for files in groups.values_mut() {
        files.sort_by_key(|file| (file.partition, file.chunk.range.start()));
    }
    groups
}
