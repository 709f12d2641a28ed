//! What a cold table covers of a topic at one moment, and what that leaves of the topic.
//!
//! A value of it never changes. What is worked out from it is kept with it, so that a plan beside a
//! cold snapshot that was seen before costs nothing for each covered offset.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use isk_model::{
    Boundary, KafkaPartition, LeftOut, Offset, OffsetChunk, OffsetRange, OffsetSet,
    PartitionOffsets,
};

use crate::beside::Attachment;

/// The most pieces that a chunk is cut into around covered offsets. Beyond, it stays one file, and the
/// covered records are left out while encoding.
const MAX_PIECES: usize = 8;

/// Fingerprints that are kept. There is one for each part of a group of chunks.
const MOST_FINGERPRINTS: usize = 100_000;

/// Sets of offsets by Kafka partition.
pub(crate) type Offsets = BTreeMap<KafkaPartition, OffsetSet>;

/// Ranges of offsets and the Kafka partitions they are of.
pub(crate) type Ranges = Vec<(KafkaPartition, OffsetRange)>;

/// Digests of what is left of a range, by where the range begins.
type Fingerprints = HashMap<(KafkaPartition, Offset), (OffsetRange, [u8; 32])>;

/// What a cold table covers.
#[derive(Default)]
pub(crate) struct Covered {
    /// The offsets that it has, or once had.
    pub offsets: Offsets,
    /// It has every record with an earlier timestamp, too.
    pub before: Option<Boundary>,
    /// The partitions in which all that lies before the first record at or past the boundary is among
    /// the offsets. Behind it, records may be out of order.
    pub bounded: BTreeSet<KafkaPartition>,
    fingerprints: Mutex<Fingerprints>,
    holes: Mutex<Option<Holes>>,
}

/// The holes that there were with these starts of Kafka's logs.
struct Holes {
    starts: Vec<(KafkaPartition, Offset)>,
    holes: Arc<Ranges>,
}

/// A part of a chunk that is one file: a chunk of its own.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub chunk: OffsetChunk,
    /// The records that are left out of it.
    pub left_out: Option<Attachment>,
}

impl Clone for Covered {
    /// What was worked out stays behind: the clone is there to be changed.
    fn clone(&self) -> Self {
        Self {
            offsets: self.offsets.clone(),
            before: self.before,
            bounded: self.bounded.clone(),
            ..Self::default()
        }
    }
}

impl Covered {
    /// What is known of a table without asking Kafka anything.
    pub(crate) fn new(offsets: Offsets, before: Option<Boundary>) -> Self {
        Self { offsets, before, ..Self::default() }
    }

    /// Whether both cover the same.
    pub(crate) fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        let of = |covered: &Self| (covered.before, covered.bounded.clone());
        Arc::ptr_eq(self, other) || (of(self) == of(other) && self.offsets == other.offsets)
    }

    /// Whether nothing is covered.
    pub(crate) fn is_empty(&self) -> bool {
        self.before.is_none() && self.offsets.values().all(OffsetSet::is_empty)
    }

    /// Whether all offsets of the range are covered.
    pub(crate) fn has(&self, partition: KafkaPartition, range: OffsetRange) -> bool {
        self.offsets.get(&partition).is_some_and(|set| set.len_within(range) == range.span())
    }

    /// Adds a range.
    pub(crate) fn insert(&mut self, partition: KafkaPartition, range: OffsetRange) {
        self.offsets.entry(partition).or_default().insert_range(range);
    }

    /// What of a chunk is not covered, as files.
    pub(crate) fn pieces(&self, partition: KafkaPartition, chunk: OffsetChunk) -> Vec<Piece> {
        let nothing = OffsetSet::new();
        cut(chunk, self.offsets.get(&partition).unwrap_or(&nothing), self.before)
    }

    /// A digest of all that decides the pieces of a range's chunks.
    pub(crate) fn fingerprint(&self, partition: KafkaPartition, range: OffsetRange) -> [u8; 32] {
        let key = (partition, range.start());
        let mut known = self.fingerprints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, print)) = known.get(&key).filter(|(of, _)| *of == range) {
            return *print;
        }
        let offsets = self.offsets.get(&partition).map(|set| set.within(range));
        let left_out = LeftOut { offsets: offsets.unwrap_or_default(), before: self.before };
        let print = *blake3::hash(&left_out.to_bytes()).as_bytes();
        // Ranges begin elsewhere as the log's start moves on.
        if known.len() >= MOST_FINGERPRINTS {
            known.clear();
        }
        known.insert(key, (range, print));
        print
    }

    /// The offsets that neither side has any more: below Kafka's start, behind the first that cold
    /// covers. Offsets that never were records (transaction markers, compacted ones) look the same.
    pub(crate) fn holes(&self, logs: &BTreeMap<KafkaPartition, PartitionOffsets>) -> Arc<Ranges> {
        let starts: Vec<_> = logs.iter().map(|(&p, log)| (p, log.log_start)).collect();
        let mut kept = self.holes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.as_ref().filter(|known| known.starts == starts) {
            return Arc::clone(&known.holes);
        }
        let mut holes = Vec::new();
        for &(partition, log_start) in &starts {
            let Some(set) = self.offsets.get(&partition) else { continue };
            let below = OffsetRange::new(Offset(0), log_start);
            let first = below.and_then(|below| set.runs(below).next());
            let behind = first.and_then(|first| OffsetRange::new(first.start(), log_start));
            holes.extend(behind.into_iter().flat_map(|r| set.missing(r)).map(|r| (partition, r)));
        }
        let holes = Arc::new(holes);
        *kept = Some(Holes { starts, holes: Arc::clone(&holes) });
        holes
    }

    /// The offsets of which nobody can tell whether cold has them: Kafka has lost what lies before its
    /// start, and its first record is no earlier than the boundary.
    pub(crate) fn unknown(&self, logs: &BTreeMap<KafkaPartition, PartitionOffsets>) -> Ranges {
        if self.before.is_none() {
            return Ranges::new();
        }
        let lost = |(&partition, log): (&KafkaPartition, &PartitionOffsets)| {
            let lost = OffsetRange::new(Offset(0), log.log_start)?;
            let set = self.offsets.get(&partition);
            // Up to the first covered offset, Kafka's order speaks for their being earlier.
            let earlier = set.is_some_and(|set| !set.is_empty());
            (self.bounded.contains(&partition) && !earlier).then_some((partition, lost))
        };
        logs.iter().filter_map(lost).collect()
    }

    /// A partition of which cold covers offsets that Kafka has not come to: the partition, the last
    /// covered offset and Kafka's end.
    pub(crate) fn beyond_the_end(
        &self,
        logs: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Option<(KafkaPartition, Offset, Offset)> {
        self.offsets.iter().find_map(|(&partition, set)| {
            let end = logs.get(&partition).map_or(Offset(0), |log| log.last_stable);
            let last = set.last()?;
            (last >= end).then_some((partition, last, end))
        })
    }
}

/// As few pieces as can be, or one and the offsets to leave out of it. A piece that ends before its chunk
/// can no longer grow.
fn cut(chunk: OffsetChunk, covered: &OffsetSet, before: Option<Boundary>) -> Vec<Piece> {
    let piece = |range: OffsetRange, offsets: OffsetSet| {
        let full = chunk.full || range.end() < chunk.range.end();
        let left_out = LeftOut { offsets, before };
        Piece {
            chunk: OffsetChunk { range, full, ..chunk },
            left_out: (left_out != LeftOut::default()).then(|| Attachment::left_out(&left_out)),
        }
    };
    let missing: Vec<OffsetRange> = covered.missing(chunk.range).collect();
    let (Some(first), Some(last)) = (missing.first(), missing.last()) else { return Vec::new() };
    if missing.len() <= MAX_PIECES {
        return missing.into_iter().map(|range| piece(range, OffsetSet::new())).collect();
    }
    let whole = OffsetRange::new(first.start(), last.end()).unwrap_or(chunk.range);
    vec![piece(whole, covered.within(whole))]
}

#[cfg(test)]
mod tests {
    use isk_model::{ChunkExponent, LeaderEpoch, chunks};

    use super::*;

    const P: KafkaPartition = KafkaPartition(0);

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset(start), Offset(end)).unwrap()
    }

    fn chunk(start: i64, end: i64) -> OffsetChunk {
        let k = ChunkExponent::new(10).unwrap();
        chunks(range(start, end), k).next().unwrap()
    }

    fn covered(ranges: &[OffsetRange]) -> Covered {
        let offsets = BTreeMap::from([(P, ranges.iter().copied().collect())]);
        Covered { offsets, ..Covered::default() }
    }

    fn log(start: i64, end: i64) -> BTreeMap<KafkaPartition, PartitionOffsets> {
        let log = PartitionOffsets {
            log_start: Offset(start),
            last_stable: Offset(end),
            leader_epoch: LeaderEpoch(0),
        };
        BTreeMap::from([(P, log)])
    }

    fn ranges(pieces: &[Piece]) -> Vec<(OffsetRange, bool)> {
        pieces.iter().map(|piece| (piece.chunk.range, piece.chunk.full)).collect()
    }

    #[test]
    fn covered_offsets_are_cut_out_of_a_chunk() {
        let cold = covered(&[range(0, 100), range(200, 300)]);
        let cut = cold.pieces(P, chunk(0, 5000));
        assert_eq!(ranges(&cut), [(range(100, 200), true), (range(300, 1024), true)]);
        assert!(cut.iter().all(|p| p.left_out.is_none() && p.chunk.aligned_start == Offset(0)));
        assert!(covered(&[range(0, 1024)]).pieces(P, chunk(0, 5000)).is_empty());
        assert_eq!(
            ranges(&cold.pieces(KafkaPartition(1), chunk(0, 5000))),
            [(range(0, 1024), true)]
        );
    }

    #[test]
    fn a_piece_before_the_end_grows_no_more() {
        let cut = covered(&[range(10, 20)]).pieces(P, chunk(0, 500));
        assert_eq!(ranges(&cut), [(range(0, 10), true), (range(20, 500), false)]);
    }

    #[test]
    fn scattered_offsets_are_left_out_of_one_file() {
        let scattered: Vec<_> = (0..40).map(|n| range(n * 10 + 3, n * 10 + 4)).collect();
        let cut = covered(&scattered).pieces(P, chunk(0, 5000));
        let [Piece { chunk, left_out: Some(left_out) }] = &cut[..] else { panic!("{cut:?}") };
        let read = LeftOut::from_bytes(&left_out.bytes).unwrap();
        assert_eq!((chunk.range, read.offsets.len(), read.before), (range(0, 1024), 40, None));
    }

    #[test]
    fn a_fingerprint_is_of_the_range_and_of_what_is_covered_there() {
        let cold = covered(&[range(10, 20), range(900, 950)]);
        let print = |cold: &Covered, to| cold.fingerprint(P, range(0, to));
        let first = print(&cold, 500);
        assert_eq!((first, first), (print(&cold, 500), print(&Covered::clone(&cold), 500)));
        assert_ne!(print(&cold, 910), first);
        assert_eq!((print(&cold, 500), cold.fingerprints.lock().unwrap().len()), (first, 1));
        let mut more = Covered::clone(&cold);
        more.insert(P, range(0, 10));
        assert_ne!(print(&more, 500), first);
        let mut later = Covered::clone(&cold);
        later.before = Some(Boundary(7));
        assert_ne!(print(&later, 500), first);
        let mut elsewhere = Covered::clone(&cold);
        elsewhere.insert(P, range(500, 600));
        assert_eq!(print(&elsewhere, 500), first);
    }

    #[test]
    fn before_a_boundary_records_are_left_out_by_their_timestamps() {
        let mut cold = covered(&[range(0, 100)]);
        cold.before = Some(Boundary(7_000));
        let cut = cold.pieces(P, chunk(0, 500));
        let [Piece { chunk, left_out: Some(left_out) }] = &cut[..] else { panic!("{cut:?}") };
        assert_eq!(chunk.range, range(100, 500));
        let read = LeftOut::from_bytes(&left_out.bytes).unwrap();
        assert_eq!(read, LeftOut { before: Some(Boundary(7_000)), ..LeftOut::default() });
    }

    #[test]
    fn a_hole_is_what_neither_side_has() {
        let cold = covered(&[range(10, 50), range(60, 70)]);
        for _ in 0..2 {
            assert_eq!(*cold.holes(&log(100, 200)), [(P, range(50, 60)), (P, range(70, 100))]);
            assert_eq!(*cold.holes(&log(60, 200)), [(P, range(50, 60))]);
        }
        assert_eq!(*cold.holes(&log(0, 200)), []);
        assert_eq!(*Covered::default().holes(&log(100, 200)), []);
    }

    #[test]
    fn what_a_boundary_cannot_tell_is_named() {
        let mut cold = Covered { before: Some(Boundary(0)), ..Covered::default() };
        assert_eq!(cold.unknown(&log(40, 200)), [], "nobody has looked yet");
        cold.bounded.insert(P);
        assert_eq!(cold.unknown(&log(40, 200)), [(P, range(0, 40))]);
        assert_eq!(cold.unknown(&log(0, 200)), []);
        cold.insert(P, range(40, 50));
        assert_eq!(cold.unknown(&log(60, 200)), []);
        assert_eq!(*cold.holes(&log(60, 200)), [(P, range(50, 60))]);
    }

    #[test]
    fn offsets_kafka_has_not_come_to_are_noticed() {
        let cold = covered(&[range(10, 50)]);
        assert_eq!(cold.beyond_the_end(&log(0, 50)), None);
        assert_eq!(cold.beyond_the_end(&log(0, 49)), Some((P, Offset(49), Offset(49))));
        assert!(cold.beyond_the_end(&BTreeMap::new()).is_some());
    }
}
