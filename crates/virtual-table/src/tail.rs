//! Where the growing end of a partition is cut into pieces, and when pieces become one. Pure.
//!
//! A chunk that still grows would have to be encoded again from its start for every new end. Instead
//! its end is cut wherever it was proven: `[start, e1) [e1, e2) …`, each a file of its own within the
//! chunk. So that a chunk does not end up as thousands of small files, neighbouring pieces are encoded
//! again as one: whenever at least [`FANOUT`] of them together are at least twice as long as the
//! longest of them. Every time a record is encoded again, its piece is twice as long as before, so `n`
//! records cost `O(n log n)`. A chunk that is full is encoded as a whole, and its cuts go.

use std::collections::BTreeSet;

use isk_model::{ChunkExponent, Offset, OffsetChunk, OffsetRange, chunks};

/// The fewest pieces that become one.
const FANOUT: usize = 4;

/// Pieces that are this short together become one however their lengths are.
const SMALL: u64 = 4096;

/// The most pieces of one chunk that are left as they are.
const MOST: usize = 32;

/// The offsets at which one partition is cut beside the borders of its chunks. Each is the end of a
/// piece and the start of the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cuts(BTreeSet<Offset>);

impl FromIterator<Offset> for Cuts {
    fn from_iter<I: IntoIterator<Item = Offset>>(offsets: I) -> Self {
        Self(offsets.into_iter().collect())
    }
}

impl Cuts {
    /// The cuts in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Offset> {
        self.0.iter().copied()
    }

    /// The cuts between the ends of a range.
    pub(crate) fn within(&self, range: OffsetRange) -> impl Iterator<Item = Offset> {
        self.0.range(range.start()..range.end()).copied().filter(move |&cut| inside(range, cut))
    }

    /// Cuts at `offset`. Returns whether there was no cut.
    pub(crate) fn add(&mut self, offset: Offset) -> bool {
        self.0.insert(offset)
    }

    /// Makes one piece of a range: the cuts between its ends go. Returns whether there were some.
    pub(crate) fn join(&mut self, range: OffsetRange) -> bool {
        let before = self.0.len();
        self.0.retain(|&cut| !inside(range, cut));
        self.0.len() < before
    }

    /// Forgets the cuts outside of `range`: the log does not hold these offsets any more.
    pub(crate) fn keep_within(&mut self, range: OffsetRange) -> bool {
        let before = self.0.len();
        self.0.retain(|&cut| range.start() < cut && cut <= range.end());
        self.0.len() < before
    }

    /// Whether a range is cut between its ends.
    pub(crate) fn cut(&self, range: OffsetRange) -> bool {
        self.within(range).next().is_some()
    }

    /// The pieces of a chunk, oldest first. They tile its range.
    pub(crate) fn pieces(&self, chunk: OffsetChunk) -> Vec<OffsetChunk> {
        let ranges = self.ranges(chunk.range);
        ranges.into_iter().map(|range| OffsetChunk { range, ..chunk }).collect()
    }

    /// The ranges that the cuts divide a range into.
    pub(crate) fn ranges(&self, range: OffsetRange) -> Vec<OffsetRange> {
        let mut ranges = Vec::new();
        let mut start = range.start();
        for end in self.within(range).chain([range.end()]) {
            if let Some(piece) = OffsetRange::new(start, end) {
                ranges.push(piece);
                start = end;
            }
        }
        ranges
    }

    /// The pieces of `range`, as one range, that are to be encoded as one next. They lie within one
    /// chunk.
    pub(crate) fn to_join(&self, range: OffsetRange) -> Option<OffsetRange> {
        let pieces = self.ranges(range);
        let joined = |pieces: &[OffsetRange]| {
            let (first, last) = (pieces.first()?, pieces.last()?);
            OffsetRange::new(first.start(), last.end())
        };
        let suffixes = (0..=pieces.len().checked_sub(FANOUT)?).rev().map(|from| &pieces[from..]);
        let mut worth_it = suffixes.filter(|suffix| {
            let total: u64 = suffix.iter().map(|piece| piece.span()).sum();
            let longest = suffix.iter().map(|piece| piece.span()).max().unwrap_or(0);
            longest.saturating_mul(2) <= total || total <= SMALL
        });
        if let Some(suffix) = worth_it.next() {
            return joined(suffix);
        }
        if pieces.len() <= MOST {
            return None;
        }
        let cheapest =
            pieces.windows(FANOUT).min_by_key(|w| w.iter().map(|p| p.span()).sum::<u64>());
        joined(cheapest?)
    }
}

/// What has to be encoded so that the end of a partition is proven, oldest first: what lies behind the
/// last cut. Where a piece of the open chunk is not proven any more (its columns have changed, say), the
/// chunk's cuts go and all of it is encoded anew; chunks before the last but one are left alone.
pub(crate) fn to_prove(
    cuts: &mut Cuts,
    readable: OffsetRange,
    k: ChunkExponent,
    is_proven: impl Fn(OffsetRange) -> bool,
) -> Vec<OffsetRange> {
    cuts.keep_within(readable);
    let aligned = k.align(Offset(readable.end().0 - 1));
    let within = |from: Offset| OffsetRange::new(from.max(readable.start()), readable.end());
    let Some(open) = within(aligned) else { return Vec::new() };
    let pieces = cuts.ranges(open).into_iter().filter(|piece| cuts.0.contains(&piece.end()));
    if !pieces.into_iter().all(&is_proven) {
        cuts.0.retain(|&cut| cut <= open.start());
    }
    let before = Offset(aligned.0 - k.width());
    let from = cuts.0.last().copied().filter(|&cut| cut > before).unwrap_or(open.start());
    let missing = within(from).into_iter().flat_map(|rest| chunks(rest, k));
    missing.map(|chunk| chunk.range).filter(|&range| !is_proven(range)).collect()
}

/// The range that is to be encoded as one next, to take the place of several pieces: a whole chunk where
/// it has been proven to its end, else what [`Cuts::to_join`] says. `proven` has no offset that is not.
pub(crate) fn to_join(cuts: &Cuts, proven: OffsetRange, k: ChunkExponent) -> Option<OffsetRange> {
    let mut next = cuts.0.first().copied();
    while let Some(cut) = next {
        let aligned = k.align(cut);
        let end = Offset(aligned.0.saturating_add(k.width()));
        let chunk = OffsetRange::new(aligned.max(proven.start()), end.min(proven.end()))
            .filter(|&c| cuts.cut(c));
        let found = chunk.and_then(|c| if c.end() == end { Some(c) } else { cuts.to_join(c) });
        if found.is_some() {
            return found;
        }
        next = cuts.0.range(end..).next().copied();
    }
    None
}

fn inside(range: OffsetRange, cut: Offset) -> bool {
    range.start() < cut && cut < range.end()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset(start), Offset(end)).unwrap()
    }

    fn cuts(offsets: &[i64]) -> Cuts {
        offsets.iter().map(|&offset| Offset(offset)).collect()
    }

    proptest! {
        #[test]
        fn pieces_tile_every_chunk(
            start in 0i64..3000, span in 1i64..5000, k in 4u8..12,
            at in prop::collection::vec(0i64..9000, 0..40),
        ) {
            let cuts = cuts(&at);
            let k = ChunkExponent::new(k).unwrap();
            for chunk in chunks(range(start, start + span), k) {
                let pieces = cuts.pieces(chunk);
                let mut next = chunk.range.start();
                for piece in &pieces {
                    prop_assert_eq!(piece.range.start(), next);
                    prop_assert_eq!((piece.aligned_start, piece.full), (chunk.aligned_start, chunk.full));
                    next = piece.range.end();
                }
                prop_assert_eq!(next, chunk.range.end());
                prop_assert_eq!(pieces.len() > 1, cuts.cut(chunk.range));
            }
        }

        #[test]
        fn joining_costs_n_log_n_and_leaves_few_pieces(
            steps in prop::collection::vec(prop_oneof![1u64..30, 1u64..30, 1u64..3000, 1u64..60_000], 1..300),
        ) {
            let mut cuts = Cuts::default();
            let (mut end, mut encoded) = (0u64, 0u64);
            for step in &steps {
                end += step;
                encoded += step;
                cuts.add(Offset(end.cast_signed()));
                let all = range(0, end.cast_signed());
                while let Some(join) = cuts.to_join(all) {
                    encoded += join.span();
                    prop_assert!(cuts.join(join), "{:?} is one piece already", join);
                }
                prop_assert!(cuts.ranges(all).len() <= MOST);
            }
            // The small ones cost their sum once for each FANOUT - 1 steps.
            let small = SMALL * (steps.len() as u64 / (FANOUT as u64 - 1) + 1);
            let doublings = u64::from(end.ilog2()) + 1;
            prop_assert!(encoded <= end * doublings + small, "{} for {} records", encoded, end);
        }
    }

    #[test]
    fn equal_steps_become_a_few_pieces_of_growing_length() {
        let mut cuts = Cuts::default();
        let all = |n: i64| range(0, n * 10_000);
        for n in 1..=100 {
            cuts.add(Offset(n * 10_000));
            while let Some(join) = cuts.to_join(all(n)) {
                cuts.join(join);
            }
        }
        let spans: Vec<u64> = cuts.ranges(all(100)).iter().map(|r| r.span() / 10_000).collect();
        assert_eq!(spans, [94, 4, 1, 1]);
    }

    #[test]
    fn a_log_that_lost_its_ends_loses_its_cuts() {
        let mut some = cuts(&[10, 20, 30, 40]);
        assert!(some.keep_within(range(10, 30)));
        assert_eq!(some, cuts(&[20, 30]));
        assert!(!some.keep_within(range(10, 30)) && !some.cut(range(20, 30)));
    }

    /// 16 offsets to a chunk.
    fn k() -> ChunkExponent {
        ChunkExponent::new(4).unwrap()
    }

    #[test]
    fn what_lies_behind_the_last_cut_is_to_be_proven() {
        let proven = |ranges: &'static [(i64, i64)]| {
            move |asked: OffsetRange| ranges.iter().any(|&(start, end)| range(start, end) == asked)
        };
        let check = |at: &[i64], readable, known, todo: &[(i64, i64)], left: &[i64]| {
            let mut cuts = cuts(at);
            let found = to_prove(&mut cuts, readable, k(), proven(known));
            let todo: Vec<_> = todo.iter().map(|&(start, end)| range(start, end)).collect();
            assert_eq!((found, cuts), (todo, super::tests::cuts(left)), "{at:?} {readable}");
        };
        // A partition never looked at: the open chunk, from the log's start.
        check(&[], range(3, 40), &[], &[(32, 40)], &[]);
        check(&[], range(35, 40), &[], &[(35, 40)], &[]);
        check(&[], range(3, 48), &[], &[(32, 48)], &[]);
        // One that has grown, within its chunk and beyond it.
        check(&[36], range(0, 40), &[(32, 36)], &[(36, 40)], &[36]);
        check(&[36, 40], range(0, 40), &[(32, 36), (36, 40)], &[], &[36, 40]);
        check(&[36], range(0, 50), &[(32, 36)], &[(36, 48), (48, 50)], &[36]);
        check(&[36], range(0, 70), &[(32, 36)], &[(64, 70)], &[36]);
        // One with nothing new.
        check(&[36], range(0, 40), &[(32, 36), (36, 40)], &[], &[36]);
        check(&[36], range(0, 48), &[(32, 36), (36, 48)], &[], &[36]);
        // The columns have changed, or the log was cut back or has lost its start.
        check(&[34, 36], range(0, 40), &[(32, 34)], &[(32, 40)], &[]);
        check(&[34, 36], range(0, 35), &[(32, 34)], &[(34, 35)], &[34]);
        check(&[34, 36], range(34, 40), &[(32, 34), (34, 36)], &[(36, 40)], &[36]);
        // The same where nothing is new behind the last cut.
        check(&[34, 36], range(0, 36), &[(32, 34)], &[(32, 36)], &[]);
        check(&[36], range(0, 36), &[], &[(32, 36)], &[]);
        check(&[34, 36], range(33, 36), &[(32, 34), (34, 36)], &[(33, 36)], &[]);
    }

    #[test]
    fn a_chunk_proven_to_its_end_becomes_one() {
        assert_eq!(to_join(&cuts(&[3, 20]), range(0, 30), k()), Some(range(0, 16)));
        assert_eq!(to_join(&cuts(&[20]), range(2, 30), k()), None);
        assert_eq!(to_join(&cuts(&[18, 20, 22]), range(2, 30), k()), Some(range(16, 30)));
        assert_eq!(to_join(&cuts(&[18, 20, 22]), range(2, 22), k()), None);
        assert_eq!(to_join(&cuts(&[18]), range(17, 32), k()), Some(range(17, 32)));
        assert_eq!(to_join(&Cuts::default(), range(0, 64), k()), None);
    }
}
