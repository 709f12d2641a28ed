//! The records of an unpacked batch, in place.

use isk_model::RecordHeader;

use super::batch::{Batch, BatchError};
use super::cursor::Cursor;

/// One record: slices of the batch it is in.
#[derive(Debug, Clone)]
pub(crate) struct Record<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

/// Headers that were looked through once.
#[derive(Debug, Clone)]
pub(crate) struct Headers<'a> {
    rest: Cursor<'a>,
    left: u64,
}

impl Headers<'_> {
    /// None at all.
    pub(crate) fn none() -> Self {
        Self { rest: Cursor::new(&[]), left: 0 }
    }
}

impl<'a> Headers<'a> {
    /// Looks through all headers, which must end where the record does.
    fn check(rest: Cursor<'a>, left: u64) -> Option<Self> {
        let headers = Self { rest, left };
        let mut walk = headers.clone();
        while walk.left > 0 {
            walk.step()?;
        }
        walk.rest.is_empty().then_some(headers)
    }

    fn step(&mut self) -> Option<RecordHeader<'a>> {
        let key = self.rest.nullable()??;
        let value = self.rest.nullable()?;
        self.left -= 1;
        Some(RecordHeader { key, value })
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = RecordHeader<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordHeader<'a>> {
        if self.left == 0 { None } else { self.step() }
    }
}

/// The records of one batch. What is not exactly as many as its header says is an error.
pub(crate) struct Records<'a> {
    rest: Cursor<'a>,
    left: u32,
    base_offset: i64,
    last_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
    previous: i64,
}

impl<'a> Records<'a> {
    /// `unpacked`: the batch's records behind its codec.
    pub(crate) fn new(batch: &Batch<'_>, unpacked: &'a [u8]) -> Self {
        Self {
            rest: Cursor::new(unpacked),
            left: batch.count,
            base_offset: batch.base_offset,
            last_offset: batch.last_offset,
            base_timestamp: batch.base_timestamp,
            append_time: batch.has_append_time().then_some(batch.max_timestamp),
            previous: batch.base_offset - 1,
        }
    }

    /// How many were not read yet.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    #[inline]
    fn step(&mut self) -> Option<Record<'a>> {
        let len = usize::try_from(self.rest.varint()?).ok()?;
        let mut record = Cursor::new(self.rest.bytes(len)?);
        record.u8()?;
        let timestamp_ms = self.base_timestamp.wrapping_add(record.varint()?);
        let offset = self.base_offset.checked_add(record.varint()?)?;
        let (key, value) = (record.nullable()?, record.nullable()?);
        let count = u64::try_from(record.varint()?).ok()?;
        let headers = Headers::check(record, count)?;
        if offset <= self.previous || offset > self.last_offset {
            return None;
        }
        self.previous = offset;
        self.left -= 1;
        let timestamp_ms = self.append_time.unwrap_or(timestamp_ms);
        Some(Record { offset, timestamp_ms, key, value, headers })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let surplus = !self.rest.is_empty();
            self.rest = Cursor::new(&[]);
            let error = BatchError::Invalid("a batch with bytes behind its last record");
            return surplus.then_some(Err(error));
        }
        match self.step() {
            Some(record) => Some(Ok(record)),
            None => {
                (self.left, self.rest) = (0, Cursor::new(&[]));
                Some(Err(BatchError::Invalid("a record that does not parse")))
            }
        }
    }
}
