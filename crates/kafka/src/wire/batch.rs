//! Record batches of format 2 in the bytes of a Fetch answer (Kafka's protocol guide, "Record Batch").

use super::cursor::Cursor;

/// Bytes before those that a batch's length counts: base offset and length.
const PREFIX_LEN: usize = 12;
/// Bytes of the header behind the prefix, up to where the checksum begins: leader epoch, magic, checksum.
const UNCHECKED_LEN: usize = 9;
/// Bytes up to the end of the field that tells the format, which has one place in all formats.
const MAGIC_END: usize = 17;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// Why bytes are no records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("a batch's checksum (CRC-32C) does not match")]
    Checksum,
    #[error("a batch of message format {0}")]
    Magic(i8),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("a batch does not unpack ({codec}): {reason}")]
    Packed { codec: &'static str, reason: String },
}

/// One whole batch, its records still packed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) base_offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) last_offset: i64,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    /// How many records there are.
    pub(crate) count: u32,
    /// The records, packed by the codec.
    pub(crate) packed: &'a [u8],
    /// All bytes of the batch, on the network.
    pub(crate) len: usize,
    attributes: i16,
    crc: u32,
    checked: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Reads the batch that begins here; `None` when it was not sent whole.
    fn read(bytes: &'a [u8]) -> Result<Option<Self>, BatchError> {
        let mut cursor = Cursor::new(bytes);
        let (Some(base_offset), Some(len)) = (cursor.i64(), cursor.i32()) else { return Ok(None) };
        let Some(magic) = bytes.get(MAGIC_END - 1) else { return Ok(None) };
        if *magic != 2 {
            return Err(BatchError::Magic(magic.cast_signed()));
        }
        let len =
            usize::try_from(len).map_err(|_| BatchError::Invalid("a negative batch length"))?;
        let Some(body) = cursor.bytes(len) else { return Ok(None) };
        let short = BatchError::Invalid("a batch that is shorter than its header");
        let batch = Self::header(base_offset, body).ok_or(short)?;
        if base_offset < 0 || batch.last_offset < base_offset {
            return Err(BatchError::Invalid("a batch whose offsets make no range"));
        }
        Ok(Some(batch))
    }

    fn header(base_offset: i64, body: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(body);
        let leader_epoch = cursor.i32()?;
        cursor.u8()?;
        let crc = cursor.u32()?;
        let checked = body.get(UNCHECKED_LEN..)?;
        let attributes = cursor.i16()?;
        let last_offset = base_offset.checked_add(i64::from(cursor.i32()?))?;
        let (base_timestamp, max_timestamp) = (cursor.i64()?, cursor.i64()?);
        let producer_id = cursor.i64()?;
        let (_epoch, _sequence) = (cursor.i16()?, cursor.i32()?);
        let count = u32::try_from(cursor.i32()?).ok()?;
        Some(Self {
            base_offset,
            leader_epoch,
            last_offset,
            base_timestamp,
            max_timestamp,
            producer_id,
            count,
            packed: cursor.rest(),
            len: PREFIX_LEN + body.len(),
            attributes,
            crc,
            checked,
        })
    }

    /// Compares the checksum, which covers all but base offset, length, leader epoch and format.
    pub(crate) fn check(&self) -> Result<(), BatchError> {
        if crc32c::crc32c(self.checked) == self.crc { Ok(()) } else { Err(BatchError::Checksum) }
    }

    /// The number of the codec that the records are packed with.
    pub(crate) fn codec(&self) -> i16 {
        self.attributes & 0x7
    }

    /// Whether every record has the broker's time, which is then the greatest.
    pub(crate) fn has_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether it belongs to a transaction.
    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it holds a marker of Kafka's own instead of records.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }
}

/// The batches of a Fetch answer that were sent whole. An answer may end within one.
#[derive(Debug, Clone)]
pub(crate) struct Batches<'a> {
    rest: &'a [u8],
    last: i64,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(records: &'a [u8]) -> Self {
        Self { rest: records, last: -1 }
    }

    fn step(&mut self) -> Result<Option<Batch<'a>>, BatchError> {
        let Some(batch) = Batch::read(self.rest)? else { return Ok(None) };
        if batch.base_offset <= self.last {
            return Err(BatchError::Invalid("batches whose offsets do not grow"));
        }
        self.last = batch.last_offset;
        self.rest = &self.rest[batch.len..];
        Ok(Some(batch))
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            // Nothing behind an error can be found.
            self.rest = &[];
        }
        step
    }
}
