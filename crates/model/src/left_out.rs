//! Which records are left out of a file, since another table holds them.

use crate::offset_set::{InvalidOffsetSet, OffsetSet};

/// A moment between records, in milliseconds since the epoch: those with an earlier timestamp lie before
/// it, whatever their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Boundary(pub i64);

/// What the bytes of a [`LeftOut`] with a boundary begin with. No set of offsets does.
const WITH_BOUNDARY: &[u8; 8] = b"before/1";

/// The records that are left out of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LeftOut {
    /// Those at these offsets.
    pub offsets: OffsetSet,
    /// Those with a timestamp before this one.
    pub before: Option<Boundary>,
}

impl LeftOut {
    /// Equal ones give equal bytes: without a boundary those of the set of offsets, else the boundary, then
    /// the set.
    pub fn to_bytes(&self) -> Vec<u8> {
        let offsets = self.offsets.to_bytes();
        match self.before {
            None => offsets,
            Some(Boundary(ms)) => [&WITH_BOUNDARY[..], &ms.to_be_bytes(), &offsets].concat(),
        }
    }

    /// Reads what [`LeftOut::to_bytes`] wrote.
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidOffsetSet> {
        let with_boundary = bytes.strip_prefix(WITH_BOUNDARY);
        match with_boundary.and_then(|rest| rest.split_first_chunk()) {
            Some((ms, rest)) => Ok(Self {
                offsets: OffsetSet::from_bytes(rest)?,
                before: Some(Boundary(i64::from_be_bytes(*ms))),
            }),
            None => Ok(Self { offsets: OffsetSet::from_bytes(bytes)?, before: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offset::{Offset, OffsetRange};

    #[test]
    fn what_is_left_out_is_read_as_it_was_written() {
        let range = OffsetRange::new(Offset(5), Offset(900)).unwrap();
        let offsets: OffsetSet = [range].into_iter().collect();
        for before in [None, Some(Boundary(0)), Some(Boundary(-7)), Some(Boundary(i64::MAX))] {
            for offsets in [OffsetSet::new(), offsets.clone()] {
                let left_out = LeftOut { offsets, before };
                assert_eq!(LeftOut::from_bytes(&left_out.to_bytes()), Ok(left_out));
            }
        }
        // Files that are planned already name the set alone.
        let alone = LeftOut { offsets: offsets.clone(), before: None };
        assert_eq!(alone.to_bytes(), offsets.to_bytes());
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [&b"before/1"[..], b"before/1\0\0", b"before/1\0\0\0\0\0\0\0\0", b"none"] {
            assert!(LeftOut::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }
}
