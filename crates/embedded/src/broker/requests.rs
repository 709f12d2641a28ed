//! Produce requests, decoded here: the only requests that may be large.
//!
//! The slices point into the frame, nothing is reserved on a length's word, and the number of
//! entries is bounded.

use bytes::{Buf, Bytes};
use kafka_protocol::protocol::StrBytes;

use super::frame::FrameError;

/// The most partitions one Produce request may name.
const MAX_ENTRIES: usize = 20_000;

/// A Produce request (versions 3 to 11).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Produce {
    pub(crate) transactional: bool,
    pub(crate) acks: i16,
    pub(crate) topics: Vec<(StrBytes, Vec<(i32, Bytes)>)>,
}

/// The first version of Produce in the flexible encoding (compact lengths, tagged fields).
const FLEXIBLE: i16 = 9;

struct Reader {
    rest: Bytes,
    flexible: bool,
}

type Read<T> = Result<T, FrameError>;

fn malformed(what: &str) -> FrameError {
    FrameError::Malformed(format!("Produce: {what}"))
}

impl Reader {
    fn i16(&mut self) -> Read<i16> {
        self.rest.try_get_i16().map_err(|_| malformed("it is cut"))
    }
    fn i32(&mut self) -> Read<i32> {
        self.rest.try_get_i32().map_err(|_| malformed("it is cut"))
    }
    fn varint(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.rest.try_get_u8().map_err(|_| malformed("it is cut"))?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed("a varint is too long"))
    }
    /// A length; `None` is null. `wide` lengths have four bytes, others two.
    fn length(&mut self, wide: bool) -> Read<Option<usize>> {
        let length = match (self.flexible, wide) {
            (true, _) => self.varint()?.cast_signed() - 1,
            (false, true) => i64::from(self.i32()?),
            (false, false) => i64::from(self.i16()?),
        };
        Ok(usize::try_from(length).ok())
    }
    fn bytes(&mut self, wide: bool) -> Read<Option<Bytes>> {
        match self.length(wide)? {
            None => Ok(None),
            Some(n) if n > self.rest.len() => Err(malformed("it is cut")),
            Some(n) => Ok(Some(self.rest.split_to(n))),
        }
    }
    fn tags(&mut self) -> Read<()> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            match usize::try_from(size) {
                Ok(n) if n <= self.rest.len() => self.rest.advance(n),
                _ => return Err(malformed("a tagged field is cut")),
            }
        }
        Ok(())
    }
    fn array<T>(&mut self, mut item: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let count = self.length(true)?.unwrap_or(0);
        if count > MAX_ENTRIES {
            return Err(malformed("it names too many topics or partitions"));
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Decodes a Produce body.
pub(crate) fn produce(body: &Bytes, version: i16) -> Result<Produce, FrameError> {
    let mut reader = Reader { rest: body.clone(), flexible: version >= FLEXIBLE };
    let transactional = reader.bytes(false)?.is_some();
    let acks = reader.i16()?;
    let _timeout = reader.i32()?;
    let mut entries = 0;
    let topics = reader.array(|reader| {
        let name = reader.bytes(false)?.ok_or_else(|| malformed("a topic without a name"))?;
        let name = StrBytes::from_utf8(name).map_err(|_| malformed("a topic name is no UTF-8"))?;
        let partitions = reader.array(|reader| {
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(malformed("it names too many partitions"));
            }
            let index = reader.i32()?;
            let records = reader.bytes(true)?.unwrap_or_default();
            reader.tags()?;
            Ok((index, records))
        })?;
        reader.tags()?;
        Ok((name, partitions))
    })?;
    reader.tags()?;
    Ok(Produce { transactional, acks, topics })
}
