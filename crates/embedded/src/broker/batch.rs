//! Record batches (magic 2) as opaque bytes: header fields, checks, and where they land in a log.
//!
//! The layout is that of Kafka's protocol guide, "Record Batch". The checksum covers everything
//! from the attributes on, so base offset and leader epoch can be set without touching it.

use bytes::{Bytes, BytesMut};

/// Bytes of a batch before its records.
pub(crate) const HEADER_LEN: usize = 61;
/// Bytes of a batch before the ones its length field counts.
const PREFIX_LEN: usize = 12;
/// Bytes of the shortest record: seven fields of one byte each.
const MIN_RECORD_LEN: usize = 7;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;
/// Attribute bit: timestamps are the broker's.
const LOG_APPEND_TIME: i16 = 1 << 3;

/// Why bytes are no record batch that this broker takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("a record batch of {0} bytes is shorter than its header")]
    Short(usize),
    #[error("the record batch says {said} bytes and {got} were sent; one batch per partition")]
    Length { said: i64, got: usize },
    #[error("message format {0}; only format 2 is taken")]
    Magic(i8),
    #[error("the record batch's checksum does not match")]
    Checksum,
    #[error("{0}")]
    Invalid(&'static str),
}

/// The header fields this broker goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl BatchHeader {
    /// Whether every record carries the broker's time, which is then the maximum.
    pub(crate) fn log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// The compression codec's number (attribute bits 0 to 2).
    pub(crate) fn compression(&self) -> i16 {
        self.attributes & 0x7
    }

    /// The sequence number of the last record; it wraps to 0 behind the largest `i32`.
    pub(crate) fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(found) = bytes.get(at..at + N) {
        out.copy_from_slice(found);
    }
    out
}

/// Reads the header of a batch; the caller has checked that there are [`HEADER_LEN`] bytes.
pub(crate) fn header(bytes: &[u8]) -> BatchHeader {
    BatchHeader {
        attributes: i16::from_be_bytes(array(bytes, ATTRIBUTES_AT)),
        last_offset_delta: i32::from_be_bytes(array(bytes, 23)),
        base_timestamp: i64::from_be_bytes(array(bytes, 27)),
        max_timestamp: i64::from_be_bytes(array(bytes, MAX_TIMESTAMP_AT)),
        producer_id: i64::from_be_bytes(array(bytes, 43)),
        producer_epoch: i16::from_be_bytes(array(bytes, 51)),
        base_sequence: i32::from_be_bytes(array(bytes, 53)),
        record_count: i32::from_be_bytes(array(bytes, 57)),
    }
}

/// Checks bytes that a producer sent: exactly one whole batch of format 2, right checksum, dense
/// offsets, no control and no transactional records. The records themselves stay unread.
pub(crate) fn check(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    if bytes.len() < HEADER_LEN {
        return Err(BatchError::Short(bytes.len()));
    }
    let magic = i8::from_be_bytes(array(bytes, MAGIC_AT));
    if magic != 2 {
        return Err(BatchError::Magic(magic));
    }
    let said = i64::from(i32::from_be_bytes(array(bytes, 8))) + PREFIX_LEN as i64;
    if usize::try_from(said).ok() != Some(bytes.len()) {
        return Err(BatchError::Length { said, got: bytes.len() });
    }
    let crc = u32::from_be_bytes(array(bytes, CRC_AT));
    if crc32c::crc32c(&bytes[ATTRIBUTES_AT..]) != crc {
        return Err(BatchError::Checksum);
    }
    let header = header(bytes);
    // record_count is taken from the wire: the subtraction must not overflow on i32::MIN.
    if header.record_count < 1 || header.last_offset_delta != header.record_count - 1 {
        return Err(BatchError::Invalid("the batch's record count and last offset disagree"));
    }
    if header.attributes & (1 << 5) != 0 {
        return Err(BatchError::Invalid("producers cannot write control batches"));
    }
    if header.attributes & (1 << 4) != 0 {
        return Err(BatchError::Invalid("this broker offers no transactions"));
    }
    if header.compression() > 4 {
        return Err(BatchError::Invalid("unknown compression codec"));
    }
    let room = (bytes.len() - HEADER_LEN) / MIN_RECORD_LEN;
    if header.compression() == 0 && usize::try_from(header.record_count).is_ok_and(|n| n > room) {
        return Err(BatchError::Invalid("the batch is too short for its record count"));
    }
    Ok(header)
}

/// A copy of a checked batch with its place in the log: base offset, leader epoch and, for topics
/// that say so, the broker's time instead of the producer's.
///
/// A copy, so that a small batch never keeps the whole request it came in alive.
pub(crate) fn place(bytes: &[u8], base: i64, epoch: i32, append_time: Option<i64>) -> Bytes {
    let mut placed = BytesMut::from(bytes);
    placed[0..8].copy_from_slice(&base.to_be_bytes());
    placed[12..MAGIC_AT].copy_from_slice(&epoch.to_be_bytes());
    let attributes = i16::from_be_bytes(array(bytes, ATTRIBUTES_AT));
    let wanted = match append_time {
        Some(_) => attributes | LOG_APPEND_TIME,
        // A producer may not claim the broker's time.
        None => attributes & !LOG_APPEND_TIME,
    };
    if append_time.is_some() || wanted != attributes {
        placed[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&wanted.to_be_bytes());
        if let Some(now) = append_time {
            placed[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now.to_be_bytes());
        }
        let crc = crc32c::crc32c(&placed[ATTRIBUTES_AT..]);
        placed[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    }
    placed.freeze()
}

/// Test batches, built by the library's own encoder.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kafka_protocol::records::{
        Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };

    pub(crate) fn batch_of(timestamps: &[i64], compression: Compression) -> Bytes {
        let records: Vec<Record> = (0i32..)
            .zip(timestamps)
            .map(|(i, &timestamp)| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(i),
                sequence: i - 1,
                timestamp,
                key: None,
                value: Some(Bytes::from(format!("value {i} {}", "x".repeat(40)))),
                headers: Default::default(),
            })
            .collect();
        let mut out = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression };
        RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
        out.freeze()
    }

    #[test]
    fn takes_a_good_batch_and_places_it() {
        let batch = batch_of(&[5, 9, 7], Compression::None);
        let header = check(&batch).unwrap();
        assert_eq!((header.record_count, header.max_timestamp), (3, 9));
        let placed = place(&batch, 1000, 3, None);
        assert_eq!(check(&placed), Ok(header));
        assert_eq!(i64::from_be_bytes(array(&placed, 0)), 1000);
        assert_eq!(i32::from_be_bytes(array(&placed, 12)), 3);
    }

    #[test]
    fn append_time_is_checksummed() {
        let placed = place(&batch_of(&[5, 9], Compression::None), 0, 0, Some(77));
        let header = check(&placed).unwrap();
        assert!(header.log_append_time());
        assert_eq!(header.max_timestamp, 77);
    }

    #[test]
    fn refuses_what_is_not_a_batch() {
        let good = batch_of(&[1, 2], Compression::None).to_vec();
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            check(&bad)
        };
        assert_eq!(check(&good[..60]), Err(BatchError::Short(60)));
        assert_eq!(with(MAGIC_AT, 1), Err(BatchError::Magic(1)));
        assert_eq!(with(HEADER_LEN + 3, 0xee), Err(BatchError::Checksum));
        assert!(matches!(with(11, 1), Err(BatchError::Length { .. })));
        let two = [good.clone(), good.clone()].concat();
        assert!(matches!(check(&two), Err(BatchError::Length { .. })));
        let resealed = |edit: fn(&mut Vec<u8>)| {
            let mut bad = good.clone();
            edit(&mut bad);
            let crc = crc32c::crc32c(&bad[ATTRIBUTES_AT..]);
            bad[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
            check(&bad)
        };
        assert!(resealed(|b| b[57..61].copy_from_slice(&i32::MIN.to_be_bytes())).is_err());
        assert!(resealed(|b| b[57..61].copy_from_slice(&3i32.to_be_bytes())).is_err());
        assert!(resealed(|b| b[22] |= 1 << 5).is_err());
        assert!(resealed(|b| b[22] |= 1 << 4).is_err());
        assert!(resealed(|b| b[22] |= 7).is_err());
        assert!(resealed(|_| ()).is_ok());
    }

    #[test]
    fn sequences_wrap() {
        let mut header = header(&batch_of(&[1, 2, 3], Compression::None));
        header.base_sequence = i32::MAX - 1;
        assert_eq!(header.last_sequence(), 0);
    }
}
