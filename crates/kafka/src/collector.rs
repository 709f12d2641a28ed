//! Records of one range into blocks, whoever fetched them: each is judged, and the blocks are cut.

use isk_model::{
    LeaderEpoch, Offset, OffsetRange, RecordBlock, RecordHeader, TimestampType, TopicPartition,
};
use isk_traces::{Span, count};
use tokio::sync::mpsc;

use crate::cluster::KafkaCluster;
use crate::error::FetchError;
use crate::fetch::{
    BLOCK_MAX_BYTES, BLOCK_MAX_RECORDS, FetchLimits, Item, Step, Stop, WithHeaders,
};
use crate::metrics::add;

/// One record as it was fetched.
pub(crate) struct Fetched<'a, H> {
    pub(crate) offset: Offset,
    /// The leader epoch of its batch, where the broker gives one.
    pub(crate) epoch: Option<LeaderEpoch>,
    pub(crate) timestamp_ms: i64,
    pub(crate) timestamp_type: TimestampType,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: H,
}

/// The blocks of one range, as far as they have come.
pub(crate) struct Collector {
    pub(crate) cluster: KafkaCluster,
    pub(crate) tp: TopicPartition,
    pub(crate) range: OffsetRange,
    pub(crate) headers: WithHeaders,
    limits: FetchLimits,
    sender: mpsc::Sender<Item>,
    /// The least offset that the next record can have.
    next: Offset,
    block: RecordBlock,
    handed_on: HandedOn,
}

/// What was handed on, for the fetch's span when it ends.
#[derive(Default)]
struct HandedOn {
    records: u64,
    bytes: u64,
}

impl Drop for HandedOn {
    fn drop(&mut self) {
        if self.records == 0 {
            return;
        }
        let span = Span::current();
        span.record("isk.records", count(self.records));
        span.record("isk.bytes", count(self.bytes));
    }
}

impl Collector {
    /// Nothing yet.
    pub(crate) fn new(
        cluster: &KafkaCluster,
        tp: &TopicPartition,
        range: OffsetRange,
        limits: FetchLimits,
        headers: WithHeaders,
        sender: &mpsc::Sender<Item>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            tp: tp.clone(),
            range,
            headers,
            limits,
            sender: sender.clone(),
            next: range.start(),
            block: RecordBlock::new(),
            handed_on: HandedOn::default(),
        }
    }

    /// The least offset that the next record can have.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Whether no record was taken yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.next == self.range.start()
    }

    /// Whether nobody waits for the records any more.
    pub(crate) fn is_left(&self) -> bool {
        self.sender.is_closed()
    }

    /// Takes one record. `true` when it proves the range complete.
    #[inline]
    pub(crate) fn take<'a, H>(&mut self, record: Fetched<'a, H>) -> Result<bool, Stop>
    where
        H: Iterator<Item = RecordHeader<'a>> + Clone,
    {
        let offset = record.offset;
        if offset >= self.range.end() {
            return Ok(true);
        }
        if offset < self.next {
            return Err(self.out_of_order(offset).into());
        }
        if let (Some(found), Some(planned)) = (record.epoch, self.limits.max_epoch)
            && planned.0 >= 0
            && found > planned
        {
            let tp = self.tp.clone();
            return Err(FetchError::LeaderEpochChanged { tp, offset, found, planned }.into());
        }
        let size = record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + record
                .headers
                .clone()
                .map(|h| h.key.len() + h.value.map_or(0, <[u8]>::len))
                .sum::<usize>();
        if self.block.len() >= BLOCK_MAX_RECORDS
            || (!self.block.is_empty() && self.block.payload_bytes() + size > BLOCK_MAX_BYTES)
        {
            self.flush()?;
        }
        let Fetched { timestamp_ms, timestamp_type, key, value, headers, .. } = record;
        self.block.push(offset, timestamp_ms, timestamp_type, key, value, headers);
        if let Some(epoch) = record.epoch {
            self.block.note_leader_epoch(epoch);
        }
        self.next = Offset(offset.0 + 1);
        // Records come in order: behind the last offset there is nothing to wait for.
        Ok(self.next >= self.range.end())
    }

    #[cold]
    fn out_of_order(&self, offset: Offset) -> FetchError {
        FetchError::Rewritten {
            tp: self.tp.clone(),
            offset,
            reason: format!("a record at or past {} was expected", self.next),
        }
    }

    /// Hands the block on; waits while the reader is busy.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        if self.block.is_empty() {
            return Ok(());
        }
        // The next block will be much like this one.
        let next = RecordBlock::with_capacity(self.block.len(), self.block.payload_bytes() * 9 / 8);
        let block = std::mem::replace(&mut self.block, next);
        let metrics = self.cluster.metrics();
        let (records, bytes) = (block.len() as u64, block.payload_bytes() as u64);
        add(&metrics.records_delivered, records);
        add(&metrics.bytes_delivered, bytes);
        self.handed_on.records += records;
        self.handed_on.bytes += bytes;
        self.sender.blocking_send(Ok(Step::Block(block))).map_err(|_| Stop::ReaderGone)
    }
}
