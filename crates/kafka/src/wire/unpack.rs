//! Batches out of their codecs, each once, into one buffer that is used again.

use std::io::{self, Read};

use zstd::stream::raw::{Decoder as Zstd, InBuffer, Operation, OutBuffer};

use super::batch::{Batch, BatchError};

/// A batch that unpacks to more than this is refused. Producers limit a batch before they pack it: to
/// the size of one request, a MiB by default.
pub(crate) const MAX_UNPACKED: usize = 256 << 20;
/// The buffer is not kept if it grew beyond this.
const KEEP: usize = 16 << 20;
/// The framing of snappy-java: this, two versions of four bytes, then blocks behind their lengths.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;

/// What unpacking needs again and again.
#[derive(Default)]
pub(crate) struct Unpacker {
    buffer: Vec<u8>,
    zstd: Option<Zstd<'static>>,
}

impl Unpacker {
    /// The batch's records: as they lie there, or unpacked.
    pub(crate) fn unpack<'a>(&'a mut self, batch: &Batch<'a>) -> Result<&'a [u8], BatchError> {
        self.unpack_up_to(batch, MAX_UNPACKED)
    }

    pub(super) fn unpack_up_to<'a>(
        &'a mut self,
        batch: &Batch<'a>,
        limit: usize,
    ) -> Result<&'a [u8], BatchError> {
        if batch.codec() == 0 {
            return Ok(batch.packed);
        }
        if self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        let (codec, done) = match batch.codec() {
            1 => ("gzip", self.read(flate2::read::MultiGzDecoder::new(batch.packed), limit)),
            2 => ("snappy", self.snappy(batch.packed, limit)),
            3 => ("lz4", self.lz4(batch.packed, limit)),
            4 => ("zstd", self.zstd(batch.packed, limit)),
            _ => return Err(BatchError::Invalid("a batch with an unknown codec")),
        };
        done.map_err(|e| BatchError::Packed { codec, reason: e.to_string() })?;
        Ok(&self.buffer)
    }

    fn read(&mut self, from: impl Read, limit: usize) -> io::Result<()> {
        from.take(limit as u64 + 1).read_to_end(&mut self.buffer)?;
        within(self.buffer.len(), limit)
    }

    fn lz4(&mut self, packed: &[u8], limit: usize) -> io::Result<()> {
        let mut decoder = lz4::Decoder::new(packed)?;
        decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut self.buffer)?;
        within(self.buffer.len(), limit)?;
        let (rest, ended) = decoder.finish();
        ended?;
        if rest.is_empty() { Ok(()) } else { Err(invalid("bytes behind the end of the frame")) }
    }

    fn zstd(&mut self, packed: &[u8], limit: usize) -> io::Result<()> {
        let decoder = match &mut self.zstd {
            Some(decoder) => decoder,
            none => none.insert(Zstd::new()?),
        };
        decoder.reinit()?;
        let mut input = InBuffer::around(packed);
        // Typical of text and numbers; the buffer keeps its size from batch to batch.
        let mut room = packed.len().saturating_mul(4).clamp(64 << 10, 4 << 20);
        loop {
            self.buffer.reserve(room.min(limit.saturating_add(1)));
            let start = self.buffer.len();
            let mut output = OutBuffer::around_pos(&mut self.buffer, start);
            let hint = decoder.run(&mut input, &mut output)?;
            let full = output.pos() == output.capacity();
            within(self.buffer.len(), limit)?;
            if hint == 0 {
                if input.pos == packed.len() {
                    return Ok(());
                }
                decoder.reinit()?;
            } else if input.pos == packed.len() && !full {
                return Err(invalid("the frame is cut"));
            }
            room = self.buffer.len().clamp(64 << 10, 4 << 20);
        }
    }

    fn snappy(&mut self, packed: &[u8], limit: usize) -> io::Result<()> {
        if !packed.starts_with(XERIAL_MAGIC) {
            return self.snappy_block(packed, limit);
        }
        let mut rest = packed.get(XERIAL_HEADER..).ok_or_else(|| invalid("the header is cut"))?;
        while !rest.is_empty() {
            let (len, behind) =
                rest.split_first_chunk::<4>().ok_or_else(|| invalid("a block is cut"))?;
            let len = u32::from_be_bytes(*len) as usize;
            let (block, behind) =
                behind.split_at_checked(len).ok_or_else(|| invalid("a block is cut"))?;
            self.snappy_block(block, limit)?;
            rest = behind;
        }
        Ok(())
    }

    fn snappy_block(&mut self, packed: &[u8], limit: usize) -> io::Result<()> {
        let len = snap::raw::decompress_len(packed).map_err(io::Error::other)?;
        // No byte of snappy stands for more than 64, so a longer promise cannot be kept.
        within(len, packed.len().saturating_mul(64))?;
        let start = self.buffer.len();
        within(start.saturating_add(len), limit)?;
        self.buffer.resize(start + len, 0);
        let written = snap::raw::Decoder::new()
            .decompress(packed, &mut self.buffer[start..])
            .map_err(io::Error::other)?;
        if written == len { Ok(()) } else { Err(invalid("a block is shorter than it says")) }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn within(len: usize, limit: usize) -> io::Result<()> {
    if len <= limit { Ok(()) } else { Err(invalid("it claims or holds too many bytes")) }
}
