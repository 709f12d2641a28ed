//! Protobuf's wire format from bytes nobody vouches for.

use crate::error::{Fault, Read};

/// How deep groups that are passed over may nest.
const MAX_GROUPS: usize = 100;

/// Bytes being read.
#[derive(Clone, Copy)]
pub(crate) struct Wire<'a>(pub &'a [u8]);

/// How a field's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Eight,
    Sized,
    Start,
    End,
    Four,
}

impl<'a> Wire<'a> {
    #[inline]
    pub(crate) fn varint(&mut self) -> Read<u64> {
        if let [first, rest @ ..] = self.0
            && *first < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        let mut value = 0u64;
        for (i, &byte) in self.0.iter().take(10).enumerate() {
            // What passes 64 bits is dropped, as all readers do.
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(Fault::new(match self.0.len() {
            0..10 => "the data ends within a number",
            _ => "a number has more than ten bytes",
        }))
    }

    pub(crate) fn zigzag(&mut self) -> Read<i64> {
        self.varint().map(unzigzag)
    }

    pub(crate) fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        match self.0.split_at_checked(n) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => Err(Fault::new(format!("{n} bytes are needed, {} are left", self.0.len()))),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        match self.0.split_first_chunk::<N>() {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(*taken)
            }
            None => Err(Fault::new(format!("{N} bytes are needed, {} are left", self.0.len()))),
        }
    }

    /// A length and that many bytes.
    #[inline]
    pub(crate) fn sized(&mut self) -> Read<&'a [u8]> {
        let len = self.varint()?;
        match usize::try_from(len) {
            Ok(len) => self.take(len),
            Err(_) => Err(Fault::new(format!("a length is {len}"))),
        }
    }

    /// A field's number and layout.
    #[inline]
    pub(crate) fn tag(&mut self) -> Read<(u32, WireType)> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => WireType::Varint,
            1 => WireType::Eight,
            2 => WireType::Sized,
            3 => WireType::Start,
            4 => WireType::End,
            5 => WireType::Four,
            other => return Err(Fault::new(format!("there is no wire type {other}"))),
        };
        match u32::try_from(tag >> 3) {
            Ok(number @ 1..=0x1fff_ffff) => Ok((number, wire)),
            _ => Err(Fault::new(format!("there is no field number {}", tag >> 3))),
        }
    }

    /// Passes over a field whose tag was read.
    pub(crate) fn skip(&mut self, number: u32, wire: WireType) -> Read<()> {
        match wire {
            WireType::Varint => self.varint().map(drop),
            WireType::Eight => self.array::<8>().map(drop),
            WireType::Sized => self.sized().map(drop),
            WireType::Four => self.array::<4>().map(drop),
            WireType::Start => self.group(number).map(drop),
            WireType::End => Err(Fault::new(format!("group {number} ends and did not begin"))),
        }
    }

    /// What is in a group whose first tag was read; its last tag is read too.
    pub(crate) fn group(&mut self, number: u32) -> Read<&'a [u8]> {
        let start = self.0;
        let mut open = vec![number];
        loop {
            let before = self.0.len();
            match self.tag()? {
                (number, WireType::Start) if open.len() < MAX_GROUPS => open.push(number),
                (_, WireType::Start) => {
                    return Err(Fault::new(format!("groups nest deeper than {MAX_GROUPS} levels")));
                }
                (number, WireType::End) => {
                    if open.pop() != Some(number) {
                        return Err(Fault::new(format!("group {number} ends and is not open")));
                    }
                    if open.is_empty() {
                        return Ok(&start[..start.len() - before]);
                    }
                }
                (number, wire) => self.skip(number, wire)?,
            }
        }
    }
}

pub(crate) fn unzigzag(raw: u64) -> i64 {
    (raw >> 1).cast_signed() ^ -((raw & 1).cast_signed())
}
