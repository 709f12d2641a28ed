//! Kafka records in bulk: many records' bytes in one allocation.

use crate::offset::{LeaderEpoch, Offset};

/// The earliest timestamp that is shown, in milliseconds since the epoch: the first day of the year 1. Many
/// engines have no earlier one; a record that is dated before it is shown without a timestamp.
pub const EARLIEST_TIMESTAMP_MS: i64 = -62_135_596_800_000;

/// Where a record's timestamp came from (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The broker gave none (message format v0).
    NotAvailable,
    /// Set by the producer.
    CreateTime,
    /// Set by the broker when it appended the record.
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's own name of the type, as shown in the column `kafka_timestamp_type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAvailable => "NoTimestampType",
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// The header's key. Kafka promises UTF-8; what is not is shown with replacement characters.
    pub key: &'a [u8],
    /// The header's value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
}

/// One record, borrowed from its block.
#[derive(Debug, Clone, Copy)]
pub struct KafkaRecord<'a> {
    /// The record's offset.
    pub offset: Offset,
    /// Milliseconds since the epoch; -1 where there is none.
    pub timestamp_ms: i64,
    /// Where the timestamp came from.
    pub timestamp_type: TimestampType,
    /// The key's bytes; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [HeaderSpan],
    arena: &'a [u8],
}

impl<'a> KafkaRecord<'a> {
    /// The record's headers in their order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = RecordHeader<'a>> + use<'a> {
        let arena = self.arena;
        self.headers.iter().map(move |h| RecordHeader {
            key: h.key.slice(arena),
            value: h.value.map(|v| v.slice(arena)),
        })
    }
}

/// Many records of one partition in offset order, their bytes in one arena.
///
/// Copying out of the Kafka client's buffers costs a memcpy a record, frees those buffers at once
/// and leaves no allocation per record.
#[derive(Debug, Default)]
pub struct RecordBlock {
    arena: Vec<u8>,
    rows: Vec<Row>,
    headers: Vec<HeaderSpan>,
    last_leader_epoch: Option<LeaderEpoch>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
}

impl Span {
    #[inline]
    fn slice(self, arena: &[u8]) -> &[u8] {
        &arena[self.start..self.start + self.len]
    }
}

#[derive(Debug, Clone, Copy)]
struct HeaderSpan {
    key: Span,
    value: Option<Span>,
}

#[derive(Debug)]
struct Row {
    offset: Offset,
    timestamp_ms: i64,
    timestamp_type: TimestampType,
    key: Option<Span>,
    value: Option<Span>,
    headers_start: usize,
    headers_len: usize,
}

impl RecordBlock {
    /// An empty block.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty block with room for so many records, of so many bytes together.
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self {
            arena: Vec::with_capacity(bytes),
            rows: Vec::with_capacity(records),
            ..Self::default()
        }
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the block holds no record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The bytes of keys, values and headers together.
    pub fn payload_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Appends a record. Offsets must grow from push to push.
    pub fn push<'h>(
        &mut self,
        offset: Offset,
        timestamp_ms: i64,
        timestamp_type: TimestampType,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = RecordHeader<'h>>,
    ) {
        debug_assert!(self.rows.last().is_none_or(|last| last.offset < offset));
        let key = key.map(|b| self.store(b));
        let value = value.map(|b| self.store(b));
        let headers_start = self.headers.len();
        for header in headers {
            let span = HeaderSpan {
                key: self.store(header.key),
                value: header.value.map(|b| self.store(b)),
            };
            self.headers.push(span);
        }
        self.rows.push(Row {
            offset,
            timestamp_ms,
            timestamp_type,
            key,
            value,
            headers_start,
            headers_len: self.headers.len() - headers_start,
        });
    }

    /// Notes the highest leader epoch a record of this block was written under.
    pub fn note_leader_epoch(&mut self, epoch: LeaderEpoch) {
        self.last_leader_epoch = self.last_leader_epoch.max(Some(epoch));
    }

    /// The highest leader epoch noted, if the broker gave any.
    pub fn last_leader_epoch(&self) -> Option<LeaderEpoch> {
        self.last_leader_epoch
    }

    /// The record at `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<KafkaRecord<'_>> {
        self.rows.get(index).map(|row| self.view(row))
    }

    /// The records in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = KafkaRecord<'_>> {
        self.rows.iter().map(|row| self.view(row))
    }

    /// Forgets all records and keeps the allocations.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.rows.clear();
        self.headers.clear();
        self.last_leader_epoch = None;
    }

    fn store(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        Span { start, len: bytes.len() }
    }

    #[inline]
    fn view<'a>(&'a self, row: &Row) -> KafkaRecord<'a> {
        KafkaRecord {
            offset: row.offset,
            timestamp_ms: row.timestamp_ms,
            timestamp_type: row.timestamp_type,
            key: row.key.map(|s| s.slice(&self.arena)),
            value: row.value.map(|s| s.slice(&self.arena)),
            headers: &self.headers[row.headers_start..row.headers_start + row.headers_len],
            arena: &self.arena,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_back_what_was_pushed() {
        let mut block = RecordBlock::new();
        let headers = [
            RecordHeader { key: b"trace", value: Some(b"1") },
            RecordHeader { key: b"none", value: None },
        ];
        block.push(Offset(7), 10, TimestampType::CreateTime, Some(b"k"), None, headers);
        block.push(Offset(9), 11, TimestampType::CreateTime, None, Some(b"value"), []);
        assert_eq!(block.len(), 2);
        let first = block.get(0).unwrap();
        assert_eq!((first.offset, first.key, first.value), (Offset(7), Some(&b"k"[..]), None));
        assert_eq!(first.headers().collect::<Vec<_>>(), headers);
        let second = block.get(1).unwrap();
        assert_eq!((second.key, second.value), (None, Some(&b"value"[..])));
        assert_eq!(second.headers().len(), 0);
        assert!(block.get(2).is_none());
    }
}
