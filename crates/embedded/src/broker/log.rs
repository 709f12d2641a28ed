//! One partition's log: batches in offset order, bounded in bytes. Pure: no clock, no I/O.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;

use super::batch::{self, BatchHeader};
use super::timestamps;

/// The leader epoch of every partition: this broker is the only leader there ever is.
pub(crate) const LEADER_EPOCH: i32 = 0;

#[derive(Debug)]
struct StoredBatch {
    base: i64,
    last: i64,
    max_timestamp: i64,
    bytes: Bytes,
}

/// The batches of one partition. Offsets are dense: `[start, end)` can be read.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    start: i64,
    end: i64,
    bytes: usize,
    limit: usize,
    batches: VecDeque<StoredBatch>,
}

/// The asked offset lies outside the log (Kafka's OFFSET_OUT_OF_RANGE).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfRange;

impl PartitionLog {
    /// An empty log that keeps at most `limit` bytes, but always its newest batch.
    pub(crate) fn new(limit: usize) -> Self {
        Self { start: 0, end: 0, bytes: 0, limit, batches: VecDeque::new() }
    }

    /// The oldest offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset the next record gets: high watermark and last stable offset in one.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a checked batch behind the last one and answers its base offset. The oldest batches
    /// go while the log is over its limit.
    pub(crate) fn append(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        append_time: Option<i64>,
    ) -> i64 {
        let base = self.end;
        let bytes = batch::place(batch, base, LEADER_EPOCH, append_time);
        let last = base + i64::from(header.last_offset_delta);
        self.bytes += bytes.len();
        self.end = last + 1;
        let max_timestamp = append_time.unwrap_or(header.max_timestamp);
        self.batches.push_back(StoredBatch { base, last, max_timestamp, bytes });
        while self.bytes > self.limit && self.shed_oldest() > 0 {}
        base
    }

    /// Drops the oldest batch and answers its bytes; 0 when only the newest is left.
    pub(crate) fn shed_oldest(&mut self) -> usize {
        if self.batches.len() < 2 {
            return 0;
        }
        let Some(gone) = self.batches.pop_front() else { return 0 };
        self.bytes -= gone.bytes.len();
        self.start = self.start.max(gone.last + 1);
        gone.bytes.len()
    }

    /// Whole batches from the one that contains `offset`, at most `max_bytes` of them; the first
    /// comes whatever its size when `at_least_one`. Readers skip the records before `offset`.
    pub(crate) fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Vec<Bytes>, OutOfRange> {
        if offset < self.start || offset > self.end {
            return Err(OutOfRange);
        }
        let first = self.batches.partition_point(|b| b.last < offset);
        let mut found = Vec::new();
        let mut room = max_bytes;
        for stored in self.batches.range(first..) {
            let forced = at_least_one && found.is_empty();
            if stored.bytes.len() > room && !forced {
                break;
            }
            room = room.saturating_sub(stored.bytes.len());
            found.push(stored.bytes.clone());
        }
        Ok(found)
    }

    /// Bytes readable from `offset` on, up to `enough` (where counting stops).
    pub(crate) fn available(&self, offset: i64, enough: usize) -> usize {
        let first = self.batches.partition_point(|b| b.last < offset);
        let mut sum = 0;
        for stored in self.batches.range(first..) {
            sum += stored.bytes.len();
            if sum >= enough {
                break;
            }
        }
        sum
    }

    /// The first record, by offset, whose timestamp is at or past `timestamp`: `(offset, its
    /// timestamp)`. Right for timestamps in any order: every batch before the answer was excluded
    /// by its maximum.
    pub(crate) fn first_at_or_after(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        self.first_match(|batch| batch.max_timestamp >= timestamp, |t| t >= timestamp)
    }

    /// The first record that has the largest timestamp of the log.
    pub(crate) fn newest(&self) -> io::Result<Option<(i64, i64)>> {
        // DeleteRecords may have cut into the first batch: its header's maximum may be of a record
        // that is gone, so the maximum is taken over what is left of that batch.
        let mut max = self.batches.iter().skip(1).map(|b| b.max_timestamp).max();
        if let Some(first) = self.batches.front() {
            self.find_in(first, |timestamp| {
                max = max.max(Some(timestamp));
                false
            })?;
        }
        match max {
            Some(max) => self.first_match(|batch| batch.max_timestamp >= max, |t| t >= max),
            None => Ok(None),
        }
    }

    fn first_match(
        &self,
        batch_may: impl Fn(&StoredBatch) -> bool,
        record_does: impl Fn(i64) -> bool,
    ) -> io::Result<Option<(i64, i64)>> {
        for stored in self.batches.iter().filter(|b| batch_may(b)) {
            let found = self.find_in(stored, &record_does)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first readable record of a batch whose timestamp is wanted: `(offset, timestamp)`.
    fn find_in(
        &self,
        stored: &StoredBatch,
        mut wanted: impl FnMut(i64) -> bool,
    ) -> io::Result<Option<(i64, i64)>> {
        let offset = |delta| stored.base + i64::from(delta);
        let found = timestamps::find(&stored.bytes, |delta, timestamp| {
            offset(delta) >= self.start && wanted(timestamp)
        })?;
        Ok(found.map(|(delta, timestamp)| (offset(delta), timestamp)))
    }

    /// Forgets every record before `offset` (DeleteRecords; -1 is the end) and answers the new log
    /// start. A batch that is only partly before stays, as in Kafka: readers skip into it.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Result<i64, OutOfRange> {
        let offset = if offset == -1 { self.end } else { offset };
        if offset < 0 || offset > self.end {
            return Err(OutOfRange);
        }
        self.start = self.start.max(offset);
        while self.batches.front().is_some_and(|b| b.last < self.start) {
            if let Some(gone) = self.batches.pop_front() {
                self.bytes -= gone.bytes.len();
            }
        }
        Ok(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::batch::tests::batch_of;
    use kafka_protocol::records::Compression;
    use proptest::prelude::*;

    fn append(log: &mut PartitionLog, timestamps: &[i64]) -> i64 {
        let batch = batch_of(timestamps, Compression::None);
        let header = batch::check(&batch).unwrap();
        log.append(&batch, &header, None)
    }

    fn bases(batches: &[Bytes]) -> Vec<i64> {
        batches.iter().map(|b| i64::from_be_bytes(b[..8].try_into().unwrap())).collect()
    }

    fn log_of(batches: &[&[i64]]) -> PartitionLog {
        let mut log = PartitionLog::new(usize::MAX);
        for timestamps in batches {
            append(&mut log, timestamps);
        }
        log
    }

    #[test]
    fn reads_from_the_middle_of_a_batch() {
        let log = log_of(&[&[1, 2, 3], &[4], &[5, 6]]);
        let read = |offset| log.read(offset, usize::MAX, true).map(|b| bases(&b));
        assert_eq!(read(0), Ok(vec![0, 3, 4]));
        assert_eq!(read(2), Ok(vec![0, 3, 4]));
        assert_eq!(read(3), Ok(vec![3, 4]));
        assert_eq!(read(5), Ok(vec![4]));
        assert_eq!(read(6), Ok(vec![]));
        assert_eq!(read(7), Err(OutOfRange));
        assert_eq!(read(-1), Err(OutOfRange));
    }

    #[test]
    fn max_bytes_holds_but_for_the_first_batch() {
        let log = log_of(&[&[1, 2, 3], &[4], &[5, 6]]);
        assert_eq!(bases(&log.read(0, 1, true).unwrap()), [0]);
        assert!(log.read(0, 1, false).unwrap().is_empty());
        let two = log.batches[0].bytes.len() + log.batches[1].bytes.len();
        assert_eq!(bases(&log.read(0, two, true).unwrap()), [0, 3]);
        assert_eq!(log.available(0, 1), log.batches[0].bytes.len());
        assert_eq!(log.available(1, usize::MAX), log.bytes());
        assert_eq!(log.available(6, usize::MAX), 0);
    }

    #[test]
    fn looks_times_up_in_any_order() {
        let log = log_of(&[&[10, 50, 20], &[5], &[60, 40]]);
        let at = |t| log.first_at_or_after(t).unwrap();
        assert_eq!(at(0), Some((0, 10)));
        assert_eq!(at(11), Some((1, 50)));
        assert_eq!(at(51), Some((4, 60)));
        assert_eq!(at(61), None);
        assert_eq!(log.newest().unwrap(), Some((4, 60)));
        assert_eq!(PartitionLog::new(9).newest().unwrap(), None);
    }

    #[test]
    fn delete_records_cuts_into_a_batch() {
        let mut log = log_of(&[&[90, 50, 20], &[5], &[60, 40]]);
        assert_eq!(log.delete_before(1), Ok(1));
        assert_eq!(log.read(0, 9, true), Err(OutOfRange));
        assert_eq!(bases(&log.read(1, usize::MAX, true).unwrap()), [0, 3, 4]);
        assert_eq!(log.first_at_or_after(0).unwrap(), Some((1, 50)));
        assert_eq!(log.newest().unwrap(), Some((4, 60)), "90 is gone");
        assert_eq!(log.delete_before(0), Ok(1), "the start never moves back");
        assert_eq!(log.delete_before(7), Err(OutOfRange));
        assert_eq!(log.delete_before(-2), Err(OutOfRange));
        assert_eq!(log.delete_before(-1), Ok(6));
        assert_eq!((log.bytes(), log.start(), log.end()), (0, 6, 6));
        assert_eq!(append(&mut log, &[1]), 6);
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let one = batch_of(&[1, 2], Compression::None).len();
        let mut log = PartitionLog::new(3 * one);
        for t in 0..10 {
            append(&mut log, &[t, t]);
        }
        assert_eq!((log.bytes(), log.start(), log.end()), (3 * one, 14, 20));
        let mut tiny = PartitionLog::new(1);
        append(&mut tiny, &[1, 2]);
        append(&mut tiny, &[3, 4]);
        assert_eq!((tiny.start(), tiny.end()), (2, 4), "the newest batch always stays");
    }

    proptest! {
        /// The log against a plain list of `(offset, timestamp)`.
        #[test]
        fn behaves_like_a_list(
            steps in prop::collection::vec((prop::collection::vec(0i64..40, 1..6), 0u8..8, 0i64..60), 1..25),
            limit in 1usize..4000,
        ) {
            let mut log = PartitionLog::new(limit);
            let mut list: Vec<(i64, i64)> = Vec::new();
            for (timestamps, action, argument) in steps {
                if action == 0 {
                    let end = log.end();
                    prop_assert_eq!(log.delete_before(argument).is_ok(), argument <= end);
                } else {
                    let base = append(&mut log, &timestamps);
                    prop_assert_eq!(base, list.len() as i64);
                    list.extend((base..).zip(timestamps));
                }
                let left: Vec<_> = list.iter().copied().filter(|r| r.0 >= log.start()).collect();
                prop_assert_eq!(log.end(), list.len() as i64);
                let wanted = left.iter().copied().find(|r| r.1 >= argument);
                prop_assert_eq!(log.first_at_or_after(argument).unwrap(), wanted);
                let max = left.iter().map(|r| r.1).max();
                let wanted = left.iter().copied().find(|r| Some(r.1) == max);
                prop_assert_eq!(log.newest().unwrap(), wanted);
                for offset in log.start()..log.end() {
                    let read = log.read(offset, usize::MAX, true).unwrap();
                    let mut seen = Vec::new();
                    for (base, batch) in bases(&read).iter().zip(&read) {
                        for (delta, t) in timestamps::scan(batch).unwrap() {
                            seen.push((base + i64::from(delta), t));
                        }
                    }
                    seen.retain(|r| r.0 >= offset);
                    prop_assert_eq!(&seen[..], &list[offset as usize..]);
                }
                prop_assert_eq!(log.bytes(), log.batches.iter().map(|b| b.bytes.len()).sum::<usize>());
                prop_assert!(log.bytes() <= limit || log.batches.len() == 1);
            }
        }
    }
}
