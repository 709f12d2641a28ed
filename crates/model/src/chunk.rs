//! Aligned offset chunks: how a partition's log is cut into virtual data files.

use crate::offset::{Offset, OffsetRange};

/// The exponent `k` of a topic's chunks of 2^k offsets, 0 to 30 (Iceberg's `truncate` width is an
/// `int`). It is chosen when a topic is first seen, and pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkExponent(u8);

impl ChunkExponent {
    /// The largest exponent.
    pub const MAX: Self = Self(30);

    /// Accepts 0 to 30.
    pub fn new(k: u8) -> Option<Self> {
        (k <= Self::MAX.0).then_some(Self(k))
    }

    /// The exponent itself.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The number of offsets in a full chunk.
    pub fn width(self) -> i64 {
        1 << self.0
    }

    /// The aligned offset at or below `offset`: Iceberg's `truncate` for non-negative values.
    pub fn align(self, offset: Offset) -> Offset {
        Offset(offset.0 & !(self.width() - 1))
    }
}

/// The part of one aligned chunk that can be read: one virtual data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetChunk {
    /// The aligned start: the value of the partition field `truncate[2^k](kafka_offset)`.
    pub aligned_start: Offset,
    /// The offsets of the file, within the aligned chunk.
    pub range: OffsetRange,
    /// Whether the log has reached the chunk's aligned end, so that it can no longer grow.
    pub full: bool,
}

/// Cuts what is readable of a partition into chunks, oldest first.
///
/// The first chunk starts at the log start offset, the last one ends at the last stable offset; all
/// cuts between lie at multiples of 2^k, so a full chunk keeps its range (and with it its file's
/// name) while the log grows.
pub fn chunks(readable: OffsetRange, k: ChunkExponent) -> impl Iterator<Item = OffsetChunk> {
    let mut next = Some(readable.start());
    std::iter::from_fn(move || {
        let start = next?;
        let aligned_start = k.align(start);
        let aligned_end = aligned_start.0.saturating_add(k.width());
        let end = Offset(aligned_end.min(readable.end().0));
        let range = OffsetRange::new(start, end)?;
        next = (end < readable.end()).then_some(end);
        Some(OffsetChunk { aligned_start, range, full: end.0 == aligned_end })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_cover_the_range_once_and_are_aligned(
            start in 0i64..5_000_000, span in 1i64..2_000_000, k in 12u8..24,
        ) {
            let readable = OffsetRange::new(Offset(start), Offset(start + span)).unwrap();
            let k = ChunkExponent::new(k).unwrap();
            let all: Vec<_> = chunks(readable, k).collect();
            prop_assert_eq!(all[0].range.start(), readable.start());
            prop_assert_eq!(all[all.len() - 1].range.end(), readable.end());
            for pair in all.windows(2) {
                prop_assert_eq!(pair[0].range.end(), pair[1].range.start());
                prop_assert!(pair[0].full);
                prop_assert_eq!(pair[1].range.start().0 % k.width(), 0);
            }
            for chunk in &all {
                prop_assert_eq!(chunk.aligned_start.0 % k.width(), 0);
                prop_assert!(chunk.range.end().0 - chunk.aligned_start.0 <= k.width());
                prop_assert_eq!(chunk.full, chunk.range.end().0 % k.width() == 0);
            }
        }

        #[test]
        fn a_full_chunk_keeps_its_range_while_the_log_grows(
            start in 0i64..100_000, span in 1i64..100_000, more in 1i64..100_000, k in 8u8..16,
        ) {
            let k = ChunkExponent::new(k).unwrap();
            let cut = |end| {
                chunks(OffsetRange::new(Offset(start), Offset(end)).unwrap(), k).collect::<Vec<_>>()
            };
            let (before, after) = (cut(start + span), cut(start + span + more));
            for chunk in before.iter().filter(|c| c.full) {
                prop_assert!(after.contains(chunk));
            }
        }
    }

    #[test]
    fn the_last_offsets_of_the_number_range_do_not_overflow() {
        let readable = OffsetRange::new(Offset(i64::MAX - 3), Offset(i64::MAX)).unwrap();
        assert_eq!(chunks(readable, ChunkExponent::MAX).count(), 1);
    }
}
