//! Reading Avro's binary encoding from bytes nobody vouches for.

use crate::budget::Budget;
use crate::error::{Fault, Read};

/// Bytes being read.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// Whether each text is checked to be UTF-8 as it is read.
    pub check_utf8: bool,
    pub budget: Budget,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(payload: &'a [u8], check_utf8: bool, block_cells: u64) -> Self {
        Self { rest: payload, check_utf8, budget: Budget::new(payload.len(), block_cells) }
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes exactly `n` bytes.
    #[inline(always)]
    pub(crate) fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        match self.rest.split_at_checked(n) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.short(n)),
        }
    }

    #[cold]
    fn short(&self, n: usize) -> Fault {
        Fault::new(format!("{n} bytes are needed, {} are left", self.rest.len()))
    }

    #[inline(always)]
    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(self.short(N)),
        }
    }

    pub(crate) fn boolean(&mut self) -> Read<bool> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Fault::new(format!("a boolean is 0 or 1, not {other}"))),
        }
    }

    /// A zig-zag varint of 64 bits.
    #[inline(always)]
    pub(crate) fn long(&mut self) -> Read<i64> {
        let raw = match self.rest {
            [a, rest @ ..] if *a < 0x80 => {
                self.rest = rest;
                u64::from(*a)
            }
            [a, b, rest @ ..] if *b < 0x80 => {
                self.rest = rest;
                u64::from(*a & 0x7f) | (u64::from(*b) << 7)
            }
            _ => self.long_varint()?,
        };
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == 9 && bits > 1 {
                return Err(Fault::new("a number has more than 64 bits"));
            }
            value |= bits << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(Fault::new(if self.rest.len() < 10 {
            "the data ends within a number"
        } else {
            "a number has more than ten bytes"
        }))
    }

    /// A zig-zag varint of 32 bits.
    #[inline(always)]
    pub(crate) fn int(&mut self) -> Read<i32> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| Fault::new(format!("{value} is no 32-bit number")))
    }

    /// A length and that many bytes.
    #[inline(always)]
    pub(crate) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.long()?;
        match usize::try_from(len) {
            Ok(len) => self.take(len),
            Err(_) => Err(Fault::new(format!("a length is {len}"))),
        }
    }

    /// An index into `n` things.
    #[inline(always)]
    pub(crate) fn index(&mut self, n: usize, what: &str) -> Read<usize> {
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(i) if i < n => Ok(i),
            _ => Err(Fault::new(format!("{what} {index} of {n}"))),
        }
    }

    /// The number of elements in the next block of an array or map, 0 at its end. `min_size` is the
    /// least an element takes, in bytes.
    pub(crate) fn block(&mut self, min_size: usize) -> Read<u64> {
        let count = self.long()?;
        if count < 0 {
            // The block's length in bytes, for readers that skip it.
            self.long()?;
        }
        let count = count.unsigned_abs();
        if count.saturating_mul(min_size as u64) > self.rest.len() as u64 {
            return Err(Fault::new(format!(
                "a block is said to have {count} elements, in {} bytes",
                self.rest.len()
            )));
        }
        Ok(count)
    }

    /// Skips the blocks of an array or map, reading elements where their length is not given.
    pub(crate) fn skip_blocks(
        &mut self,
        min_size: usize,
        mut element: impl FnMut(&mut Self) -> Read<()>,
    ) -> Read<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                self.bytes()?;
            } else if min_size > 0 {
                for _ in 0..count {
                    element(self)?;
                }
            }
        }
    }
}
