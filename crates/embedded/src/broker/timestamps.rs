//! The timestamps inside a stored batch, read as a stream so that memory stays constant.
//!
//! A lookup by time needs the one record whose timestamp matches, so a batch is decompressed here,
//! and only here; the broker never looks at keys or values.

use std::io::{self, BufReader, Cursor, Read};

use bytes::Bytes;

use super::batch::{self, HEADER_LEN};

/// The most a snappy block may claim to hold; snappy cannot be read as a stream.
const MAX_SNAPPY_BLOCK: usize = 64 << 20;
/// The most a batch may decompress to: a bomb ends here instead of keeping the broker busy.
const MAX_PLAIN: u64 = 1 << 30;
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";

/// Shows `(offset delta, timestamp)` of every record, in order, until `wanted` says yes; answers
/// that record.
///
/// # Errors
/// When the batch cannot be decompressed or its records do not parse.
pub(crate) fn find(
    batch: &Bytes,
    mut wanted: impl FnMut(i32, i64) -> bool,
) -> io::Result<Option<(i32, i64)>> {
    let header = batch::header(batch);
    if header.log_append_time() {
        let found = (0..header.record_count).find(|&delta| wanted(delta, header.max_timestamp));
        return Ok(found.map(|delta| (delta, header.max_timestamp)));
    }
    let body = batch.slice(HEADER_LEN.min(batch.len())..);
    let plain = decompress(header.compression(), body)?;
    let mut reader = BufReader::new(plain.take(MAX_PLAIN));
    for _ in 0..header.record_count {
        let (delta, since_base) = record(&mut reader)?;
        let timestamp = header.base_timestamp.wrapping_add(since_base);
        if wanted(delta, timestamp) {
            return Ok(Some((delta, timestamp)));
        }
    }
    Ok(None)
}

/// `(offset delta, timestamp)` of every record, in order.
#[cfg(test)]
pub(crate) fn scan(batch: &Bytes) -> io::Result<Vec<(i32, i64)>> {
    let mut all = Vec::new();
    find(batch, |delta, timestamp| {
        all.push((delta, timestamp));
        false
    })?;
    Ok(all)
}

fn decompress(codec: i16, body: Bytes) -> io::Result<Box<dyn Read>> {
    let body = Cursor::new(body);
    Ok(match codec {
        0 => Box::new(body),
        1 => Box::new(flate2::read::MultiGzDecoder::new(body)),
        2 => Box::new(Cursor::new(snappy(body.get_ref())?)),
        3 => Box::new(lz4::Decoder::new(body)?),
        4 => Box::new(zstd::Decoder::new(body)?),
        other => return Err(invalid(format!("unknown compression codec {other}"))),
    })
}

/// Raw snappy (librdkafka) or the framing of snappy-java: a 16-byte header, then blocks, each
/// behind its length.
fn snappy(body: &[u8]) -> io::Result<Vec<u8>> {
    let block = |bytes: &[u8], out: &mut Vec<u8>| {
        let len = snap::raw::decompress_len(bytes).map_err(invalid)?;
        if len > MAX_SNAPPY_BLOCK || out.len() + len > MAX_SNAPPY_BLOCK {
            return Err(invalid("a snappy block claims too many bytes"));
        }
        out.extend(snap::raw::Decoder::new().decompress_vec(bytes).map_err(invalid)?);
        Ok(())
    };
    let mut out = Vec::new();
    if !body.starts_with(XERIAL_MAGIC) {
        block(body, &mut out)?;
        return Ok(out);
    }
    let mut rest = body.get(16..).ok_or_else(|| invalid("a snappy header is cut"))?;
    while !rest.is_empty() {
        let (len, behind) =
            rest.split_first_chunk::<4>().ok_or_else(|| invalid("a snappy block is cut"))?;
        let len = u32::from_be_bytes(*len) as usize;
        let bytes = behind.get(..len).ok_or_else(|| invalid("a snappy block is cut"))?;
        block(bytes, &mut out)?;
        rest = &behind[len..];
    }
    Ok(out)
}

/// One record: its offset delta and timestamp delta; the rest of it is skipped.
fn record(reader: &mut impl Read) -> io::Result<(i32, i64)> {
    let length = u64::try_from(varint(reader)?).map_err(invalid)?;
    let mut inside = reader.take(length);
    let mut attributes = [0];
    inside.read_exact(&mut attributes)?;
    let timestamp = varint(&mut inside)?;
    let offset = i32::try_from(varint(&mut inside)?).map_err(invalid)?;
    io::copy(&mut inside, &mut io::sink())?;
    if inside.limit() != 0 {
        return Err(invalid("a record is cut"));
    }
    Ok((offset, timestamp))
}

fn varint(reader: &mut impl Read) -> io::Result<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(invalid("a varint is too long"))
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::batch::tests::batch_of;
    use kafka_protocol::records::Compression;

    #[test]
    fn reads_every_codec() {
        let times = [100, 90, 4_000_000_000_000, 100, -1];
        let wanted: Vec<(i32, i64)> = (0..).zip(times).collect();
        for codec in [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ] {
            assert_eq!(scan(&batch_of(&times, codec)).unwrap(), wanted, "{codec:?}");
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let mut raw = snap::raw::Encoder::new();
        assert_eq!(snappy(&raw.compress_vec(b"hello hello").unwrap()).unwrap(), b"hello hello");
    }

    #[test]
    fn cut_or_hostile_batches_are_errors() {
        let good = batch_of(&[1, 2, 3], Compression::None);
        for end in HEADER_LEN..good.len() {
            assert!(scan(&good.slice(..end)).is_err(), "cut at {end}");
        }
        // A block that claims 4 GiB.
        assert!(snappy(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).is_err());
        assert!(snappy(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\xff\xff").is_err());
    }
}
