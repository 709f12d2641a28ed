//! How a topic's ticks follow each other: when the next one adds records to the last, and where the open
//! chunks are cut so that what a tick added stays a file of its own. Pure.

use std::collections::BTreeMap;

use isk_model::{
    ChunkExponent, KafkaPartition, LeaderEpoch, Offset, OffsetRange, PartitionOffsets,
};
use serde::{Deserialize, Serialize};

use crate::epochs::EpochHistory;

/// Pieces of an open chunk beyond which some of them become one.
const MAX_CUTS: usize = 8;

/// End offsets by Kafka partition: what a tick is.
pub(crate) type Ends = BTreeMap<KafkaPartition, Offset>;

/// Offsets by Kafka partition at which files are cut beside the chunks' own bounds, ascending.
pub(crate) type TickCuts = BTreeMap<KafkaPartition, Vec<Offset>>;

/// Where one partition stood at the last tick.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    end: Offset,
    /// The epoch that a file ending there was named under.
    epoch: LeaderEpoch,
    cuts: Vec<Offset>,
}

/// What the next tick is to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It has the same records, or fewer where the log's beginning was removed.
    Same,
    /// It has more.
    Grown,
    /// They cannot be compared, for this reason: a new line of ticks begins.
    Broken(&'static str),
}

/// The last tick of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub(crate) struct Lineage {
    chunk_exponent: ChunkExponent,
    partitions: BTreeMap<KafkaPartition, Position>,
}

/// A lineage as the store has it: for each partition its end, epoch and cuts.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    k: u8,
    partitions: Vec<(i32, i64, i32, Vec<i64>)>,
}

impl From<Stored> for Lineage {
    fn from(stored: Stored) -> Self {
        let partitions = stored.partitions.into_iter().map(|(partition, end, epoch, cuts)| {
            let cuts = cuts.into_iter().map(Offset).collect();
            let position = Position { end: Offset(end), epoch: LeaderEpoch(epoch), cuts };
            (KafkaPartition(partition), position)
        });
        Self {
            chunk_exponent: ChunkExponent::new(stored.k).unwrap_or(ChunkExponent::MAX),
            partitions: partitions.collect(),
        }
    }
}

impl From<Lineage> for Stored {
    fn from(lineage: Lineage) -> Self {
        let partitions = lineage.partitions.into_iter().map(|(partition, position)| {
            let cuts = position.cuts.iter().map(|cut| cut.0).collect();
            (partition.0, position.end.0, position.epoch.0, cuts)
        });
        Self { k: lineage.chunk_exponent.get(), partitions: partitions.collect() }
    }
}

/// What is known of a topic's log at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Log<'a> {
    pub offsets: &'a BTreeMap<KafkaPartition, PartitionOffsets>,
    pub epochs: &'a BTreeMap<KafkaPartition, EpochHistory>,
    pub chunk_exponent: ChunkExponent,
}

impl Log<'_> {
    fn epoch(&self, partition: KafkaPartition, end: Offset) -> LeaderEpoch {
        let unknown = EpochHistory::default();
        self.epochs.get(&partition).unwrap_or(&unknown).at_end(end)
    }
}

impl Lineage {
    /// The first tick of a line.
    pub(crate) fn begin(log: Log<'_>) -> Self {
        let partitions = log.offsets.iter().map(|(&partition, offsets)| {
            let end = offsets.last_stable;
            (partition, Position { end, epoch: log.epoch(partition, end), cuts: Vec::new() })
        });
        Self { chunk_exponent: log.chunk_exponent, partitions: partitions.collect() }
    }

    /// What a tick at this moment would be.
    pub(crate) fn step(&self, log: Log<'_>) -> Step {
        if log.chunk_exponent != self.chunk_exponent {
            return Step::Broken("the topic's chunks have another width");
        }
        let mut step = Step::Same;
        for (&partition, last) in &self.partitions {
            let Some(offsets) = log.offsets.get(&partition) else {
                return Step::Broken("a partition is gone");
            };
            if log.epoch(partition, last.end) != last.epoch {
                return Step::Broken("the end of the log was, or may have been, written again");
            }
            if offsets.log_start > last.end {
                return Step::Broken("records were removed before any tick had them");
            }
            if offsets.last_stable > last.end {
                step = Step::Grown;
            }
        }
        let unseen = |p: &KafkaPartition| !self.partitions.contains_key(p);
        if log.offsets.iter().any(|(p, offsets)| unseen(p) && offsets.readable().is_some()) {
            step = Step::Grown;
        }
        step
    }

    /// Raises ends that are below those of the last tick under the same epoch: they were asked for before.
    pub(crate) fn catch_up(
        &self,
        offsets: &mut BTreeMap<KafkaPartition, PartitionOffsets>,
        epochs: &BTreeMap<KafkaPartition, EpochHistory>,
    ) {
        for (partition, last) in &self.partitions {
            let epoch = epochs.get(partition).map(|history| history.at_end(last.end));
            if let Some(offsets) = offsets.get_mut(partition)
                && epoch == Some(last.epoch)
            {
                offsets.last_stable = offsets.last_stable.max(last.end);
            }
        }
    }

    /// The lineage after a tick at this moment that has more records.
    pub(crate) fn advance(&self, log: Log<'_>) -> Self {
        let partitions = log.offsets.iter().map(|(&partition, offsets)| {
            let end = offsets.last_stable;
            let epoch = log.epoch(partition, end);
            let mut cuts = Vec::new();
            if let Some(last) = self.partitions.get(&partition) {
                cuts = last.cuts.clone();
                if end > last.end {
                    cuts.push(last.end);
                    tidy(&mut cuts, offsets.log_start, self.chunk_exponent);
                }
            }
            (partition, Position { end, epoch, cuts })
        });
        Self { chunk_exponent: self.chunk_exponent, partitions: partitions.collect() }
    }

    /// The ends of the last tick.
    pub(crate) fn ends(&self) -> Ends {
        self.partitions.iter().map(|(&partition, last)| (partition, last.end)).collect()
    }

    /// Where the last tick's files are cut.
    pub(crate) fn cuts(&self) -> TickCuts {
        let cut = self.partitions.iter().filter(|(_, last)| !last.cuts.is_empty());
        cut.map(|(&partition, last)| (partition, last.cuts.clone())).collect()
    }
}

/// Leaves out the cuts that are not needed any more: those of chunks that were full before the last cut,
/// and, where there are too many, those between pieces at the end that are not much smaller than what
/// stands before them. So a chunk has few pieces, and a record is in few files one after the other.
fn tidy(cuts: &mut Vec<Offset>, log_start: Offset, k: ChunkExponent) {
    let Some(&last) = cuts.last() else { return };
    let begin = k.align(last).max(log_start);
    cuts.retain(|&cut| cut > begin);
    if cuts.len() <= MAX_CUTS {
        return;
    }
    let mut bounds = vec![begin];
    bounds.append(cuts);
    while let [.., a, b, c] = bounds[..]
        && (c.0 - b.0).saturating_mul(2) >= b.0 - a.0
    {
        bounds.remove(bounds.len() - 2);
    }
    cuts.extend(bounds.into_iter().skip(1));
}

/// A range in pieces, cut at those of these offsets that lie within it.
pub(crate) fn split(range: OffsetRange, cuts: &[Offset]) -> Vec<OffsetRange> {
    let mut pieces = Vec::new();
    let mut start = range.start();
    for &end in cuts.iter().filter(|&&cut| cut < range.end()).chain([&range.end()]) {
        if let Some(piece) = OffsetRange::new(start, end) {
            pieces.push(piece);
            start = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: KafkaPartition = KafkaPartition(0);

    fn offsets(log_start: i64, end: i64) -> BTreeMap<KafkaPartition, PartitionOffsets> {
        let (log_start, last_stable) = (Offset(log_start), Offset(end));
        BTreeMap::from([(
            P,
            PartitionOffsets { log_start, last_stable, leader_epoch: LeaderEpoch(1) },
        )])
    }

    fn epochs(looks: &[(i32, i64)]) -> BTreeMap<KafkaPartition, EpochHistory> {
        let mut history = EpochHistory::default();
        for &(epoch, end) in looks {
            history.observe(LeaderEpoch(epoch), Offset(end), None);
        }
        BTreeMap::from([(P, history)])
    }

    fn log<'a>(
        offsets: &'a BTreeMap<KafkaPartition, PartitionOffsets>,
        epochs: &'a BTreeMap<KafkaPartition, EpochHistory>,
    ) -> Log<'a> {
        Log { offsets, epochs, chunk_exponent: ChunkExponent::new(10).unwrap() }
    }

    #[test]
    fn a_log_that_grows_is_one_line_and_others_are_not() {
        let same = epochs(&[(1, 100)]);
        let lineage = Lineage::begin(log(&offsets(0, 100), &same));
        let step = |start, end, epochs: &BTreeMap<KafkaPartition, EpochHistory>| {
            lineage.step(log(&offsets(start, end), epochs))
        };
        assert_eq!(step(0, 100, &same), Step::Same);
        assert_eq!(step(50, 100, &same), Step::Same);
        assert_eq!(step(50, 101, &same), Step::Grown);
        assert!(matches!(step(101, 120, &same), Step::Broken(_)), "[100, 101) was never offered");
        assert_eq!(step(0, 120, &epochs(&[(1, 100), (2, 110)])), Step::Grown, "a clean failover");
        assert!(matches!(step(0, 120, &epochs(&[(1, 100), (2, 90)])), Step::Broken(_)));
        assert!(matches!(lineage.step(log(&BTreeMap::new(), &same)), Step::Broken(_)));
        let mut more = offsets(0, 100);
        more.insert(KafkaPartition(1), offsets(0, 1)[&P]);
        assert_eq!(lineage.step(log(&more, &same)), Step::Grown);
    }

    #[test]
    fn ends_that_were_asked_for_too_early_are_raised() {
        let lineage = Lineage::begin(log(&offsets(0, 100), &epochs(&[(1, 100)])));
        let mut early = offsets(0, 90);
        lineage.catch_up(&mut early, &epochs(&[(1, 100), (1, 90)]));
        assert_eq!(early, offsets(0, 100));
        let mut cut_back = offsets(0, 90);
        lineage.catch_up(&mut cut_back, &epochs(&[(1, 100), (2, 90)]));
        assert_eq!(cut_back, offsets(0, 90));
    }

    #[test]
    fn lineages_outlive_the_store() {
        let same = epochs(&[(1, 100)]);
        let lineage = Lineage::begin(log(&offsets(0, 100), &same));
        let lineage = lineage.advance(log(&offsets(0, 120), &same));
        assert_eq!(lineage.cuts(), TickCuts::from([(P, vec![Offset(100)])]));
        let json = serde_json::to_string(&lineage).unwrap();
        assert_eq!(serde_json::from_str::<Lineage>(&json).unwrap(), lineage);
    }

    proptest! {
        #[test]
        fn what_a_tick_adds_is_files_of_its_own(steps in prop::collection::vec(1i64..200, 1..200)) {
            let same = epochs(&[(1, 0)]);
            let k = ChunkExponent::new(10).unwrap();
            let mut lineage = Lineage::begin(log(&offsets(3, 3), &same));
            let mut end = 3;
            for step in steps {
                let before = end;
                end += step;
                lineage = lineage.advance(log(&offsets(3, end), &same));
                let cuts = lineage.cuts().remove(&P).unwrap_or_default();
                let all = OffsetRange::new(Offset(3), Offset(end)).unwrap();
                let files: Vec<OffsetRange> = split(all, &cuts)
                    .into_iter()
                    .flat_map(|piece| isk_model::chunks(piece, k).map(|chunk| chunk.range))
                    .collect();
                prop_assert_eq!(files.iter().map(|file| file.span()).sum::<u64>(), all.span());
                prop_assert!(files.windows(2).all(|pair| pair[0].end() == pair[1].start()));
                prop_assert!(files.iter().any(|file| file.start() == Offset(before)));
                prop_assert!(cuts.len() <= MAX_CUTS + 10, "{cuts:?}");
                let full = k.align(Offset(before)).0;
                prop_assert!(cuts.iter().all(|cut| cut.0 > full), "full chunks are whole: {cuts:?}");
            }
        }
    }
}
