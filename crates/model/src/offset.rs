//! Offsets and half-open offset ranges.

use std::fmt;

/// A position in a Kafka partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leader epoch under which a record was written (KIP-101); -1 where the broker gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaderEpoch(pub i32);

/// A half-open range of offsets: `start` is in it, `end` is not. Never empty, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OffsetRange {
    start: Offset,
    end: Offset,
}

impl OffsetRange {
    /// The range `[start, end)`, or `None` when it would be empty or begin below zero.
    pub fn new(start: Offset, end: Offset) -> Option<Self> {
        (start.0 >= 0 && start < end).then_some(Self { start, end })
    }

    /// The first offset in the range.
    pub fn start(self) -> Offset {
        self.start
    }

    /// The first offset behind the range.
    pub fn end(self) -> Offset {
        self.end
    }

    /// The number of offsets in the range: an upper bound of its records.
    pub fn span(self) -> u64 {
        // Both ends are non-negative and ordered, so the difference fits.
        (self.end.0 - self.start.0).unsigned_abs()
    }

    /// Whether `offset` lies in the range.
    pub fn contains(self, offset: Offset) -> bool {
        self.start <= offset && offset < self.end
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// What a broker says of one partition's log at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartitionOffsets {
    /// The oldest offset that can still be read.
    pub log_start: Offset,
    /// The end for a reader of committed records: no record at or past it is shown.
    pub last_stable: Offset,
    /// The partition's leader epoch when it was asked.
    pub leader_epoch: LeaderEpoch,
}

impl PartitionOffsets {
    /// The offsets a committed reader can see, or `None` when there are none.
    pub fn readable(&self) -> Option<OffsetRange> {
        OffsetRange::new(self.log_start, self.last_stable)
    }
}
