//! What is fixed for a topic when it is first seen: its chunk width and the size of its records.

use isk_model::{ChunkExponent, OffsetRange};
use serde::{Deserialize, Serialize};

/// Raw record bytes (keys, values, headers) that a full chunk should hold, about. The first file that an engine opens
/// waits for its whole chunk, and all files of a scan wait for theirs: small chunks answer `LIMIT` sooner, and let the
/// engine work while the next ones are encoded. Each costs a manifest entry and a footer: 10^9 records of 80 bytes are
/// 8,000 files.
const CHUNK_BYTES: u64 = 16 << 20;

/// What the metadata columns of a record take at most, encoded, beside its own bytes.
const ROW_OVERHEAD: u64 = 32;

/// The pinned properties of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicPin {
    k: u8,
    /// Mean raw bytes of a record; raised when a chunk turns out larger than that promised.
    bytes_per_record: u64,
}

impl TopicPin {
    /// The pin of a topic whose sampled records have this many bytes on average.
    pub(crate) fn new(bytes_per_record: u64) -> Self {
        let records = CHUNK_BYTES / (bytes_per_record + ROW_OVERHEAD);
        // 16 to 4,194,304 offsets.
        let k = records.max(1).ilog2().clamp(4, 22);
        Self { k: k as u8, bytes_per_record }
    }

    /// A pin for a topic in which no record was found yet. It is not kept.
    pub(crate) fn guess() -> Self {
        Self::new(512)
    }

    /// The exponent of the chunk width.
    pub(crate) fn chunk_exponent(&self) -> ChunkExponent {
        ChunkExponent::new(self.k).unwrap_or(ChunkExponent::MAX)
    }

    /// An upper bound of the encoded size of the offsets of `range`, in bytes.
    ///
    /// A chunk's records may be larger than the sampled ones, which are few: the bound is four times what the sample
    /// says, and one message of the largest size the topic allows fits on top.
    pub(crate) fn size_bound(&self, range: OffsetRange, max_message_bytes: u64) -> u64 {
        let per_record = self.bytes_per_record.saturating_add(ROW_OVERHEAD);
        let records = range.span().saturating_mul(per_record).saturating_mul(4);
        records.saturating_add(max_message_bytes).saturating_add(64 << 10)
    }

    /// The pin after a file outgrew its bound: the same chunks, larger records.
    pub(crate) fn outgrown(&self, file_size: u64, range: OffsetRange) -> Self {
        let seen = file_size.div_ceil(range.span());
        Self { bytes_per_record: self.bytes_per_record.max(seen), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isk_model::Offset;

    #[test]
    fn chunks_hold_some_mebibytes() {
        for (bytes, k) in [(0, 19), (80, 17), (1_000, 13), (10_000_000, 4), (u64::MAX / 2, 4)] {
            assert_eq!(TopicPin::new(bytes).chunk_exponent().get(), k, "{bytes}");
        }
    }

    #[test]
    fn the_bound_learns() {
        let range = OffsetRange::new(Offset(0), Offset(1000)).unwrap();
        let pin = TopicPin::new(100);
        let outgrown = pin.outgrown(5_000_000, range);
        assert_eq!(outgrown.chunk_exponent(), pin.chunk_exponent());
        assert!(pin.size_bound(range, 0) < 5_000_000);
        assert!(outgrown.size_bound(range, 0) > 5_000_000);
        assert_eq!(TopicPin::new(u64::MAX / 2).size_bound(range, u64::MAX), u64::MAX);
    }
}
