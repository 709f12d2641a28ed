//! Which chunks stand together in a manifest.
//!
//! Grouped so that partition summaries prune, that few manifests change from snapshot to snapshot,
//! and that a topic of many partitions does not become hundreds of tiny manifests:
//!
//! - **sealed**: an aligned run of 256 chunks of one Kafka partition that the log has grown past. Such
//!   a manifest changes only when its chunks are proven or expire.
//! - **filling**: full chunks of the newest, not yet sealed runs, of 8 neighbouring Kafka partitions.
//!   It changes when one more chunk is full.
//! - **tail**: the open chunks of all partitions. It changes with every new record.
//!
//! Groups are told from the partitions' ends alone: their number, not that of the chunks, is what it
//! costs to see that a table has hardly changed.

use std::collections::BTreeMap;

use isk_model::{ChunkExponent, KafkaPartition, Offset, OffsetRange};

/// Chunks in a sealed run.
const RUN_CHUNKS: i64 = 256;

/// Kafka partitions whose full chunks share a manifest until their run is sealed.
const FILLING_PARTITIONS: i32 = 8;

/// Where a group stands; the order is the manifest list's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The run with this number of one Kafka partition.
    Sealed(KafkaPartition, i64),
    /// The Kafka partitions whose numbers divide to this.
    Filling(i32),
    /// The open chunks.
    Tail,
}

/// The offsets whose chunks stand together in one manifest (and their deletes in another).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Where it stands in the manifest list.
    pub place: Place,
    /// Offsets by Kafka partition, ascending. A range begins and ends where files do.
    pub parts: Vec<(KafkaPartition, OffsetRange)>,
}

/// Sorts what is readable of each Kafka partition into groups, in the manifest list's order. All its
/// chunks are in exactly one of them. A partition may come in several ranges that do not overlap.
pub fn groups(
    readable: impl IntoIterator<Item = (KafkaPartition, OffsetRange)>,
    k: ChunkExponent,
) -> Vec<Group> {
    let mut groups: BTreeMap<Place, Vec<(KafkaPartition, OffsetRange)>> = BTreeMap::new();
    for (partition, range) in readable {
        let mut put = |place, start: i64, end: i64| {
            let start = Offset(start.max(range.start().0));
            if let Some(part) = OffsetRange::new(start, Offset(end)) {
                groups.entry(place).or_default().push((partition, part));
            }
        };
        let end = range.end().0;
        let run_width = RUN_CHUNKS * k.width();
        let open_run = end / run_width;
        for run in range.start().0 / run_width..open_run {
            put(Place::Sealed(partition, run), run * run_width, (run + 1) * run_width);
        }
        let open_chunk = k.align(range.end()).0;
        put(Place::Filling(partition.0 / FILLING_PARTITIONS), open_run * run_width, open_chunk);
        put(Place::Tail, open_chunk, end);
    }
    let group = |(place, mut parts): (_, Vec<(KafkaPartition, OffsetRange)>)| {
        parts.sort_by_key(|&(partition, range)| (partition, range.start()));
        Group { place, parts }
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use isk_model::chunks;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_chunk_is_in_one_group(
            logs in prop::collection::vec((0i64..400_000, 1i64..400_000), 1..20), k in 4u8..12,
        ) {
            let k = ChunkExponent::new(k).unwrap();
            let logs: BTreeMap<_, _> = (0..).map(KafkaPartition).zip(logs).map(|(p, (start, span))| {
                (p, OffsetRange::new(Offset(start), Offset(start + span)).unwrap())
            }).collect();
            let groups = groups(logs.clone(), k);
            let mut found = BTreeMap::<KafkaPartition, Vec<_>>::new();
            for group in &groups {
                for &(partition, range) in &group.parts {
                    prop_assert_eq!(
                        matches!(group.place, Place::Tail),
                        chunks(range, k).any(|chunk| !chunk.full)
                    );
                    found.entry(partition).or_default().extend(chunks(range, k));
                }
            }
            for (partition, range) in logs {
                prop_assert_eq!(&found[&partition], &chunks(range, k).collect::<Vec<_>>());
            }
            prop_assert!(groups.windows(2).all(|pair| pair[0].place < pair[1].place));
        }
    }

    #[test]
    fn the_last_offsets_of_the_number_range_do_not_overflow() {
        let range = OffsetRange::new(Offset(i64::MAX - 3), Offset(i64::MAX)).unwrap();
        let groups = groups([(KafkaPartition(0), range)], ChunkExponent::MAX);
        assert_eq!(groups, [Group { place: Place::Tail, parts: vec![(KafkaPartition(0), range)] }]);
    }
}
