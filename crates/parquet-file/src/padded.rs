//! The padded file: a Parquet file laid out in a space that was declared before its size was known.
//!
//! ```text
//! 0            body_len                 declared - footer_len        declared
//! | body ......| hole of zeros .........| footer: Thrift, length, PAR1 |
//! ```
//!
//! A Parquet reader begins at the end and then goes by absolute offsets, all of which point into the
//! body; nothing points into the hole.

use std::ops::Range;

/// The encoded file is larger than what was declared for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the encoded file has {actual} bytes, but {declared} were declared for it: plan it again with its \
     true size"
)]
pub struct TooLarge {
    /// The bytes of body and footer together.
    pub actual: u64,
    /// The declared size.
    pub declared: u64,
}

/// Where the bytes of a padded file come from. Pure arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PaddedLayout {
    body_len: u64,
    footer_len: u64,
    declared: u64,
}

/// A part of a padded file. The ranges count within the body and within the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Bytes of the body.
    Body(Range<u64>),
    /// So many zeros.
    Hole(u64),
    /// Bytes of the footer, counted from its first byte.
    Footer(Range<u64>),
}

impl Segment {
    /// The segment's length in bytes.
    pub fn byte_len(&self) -> u64 {
        match self {
            Self::Body(range) | Self::Footer(range) => range.end - range.start,
            Self::Hole(len) => *len,
        }
    }
}

impl PaddedLayout {
    /// Lays a body and a footer of these lengths into `declared` bytes.
    pub fn new(body_len: u64, footer_len: u64, declared: u64) -> Result<Self, TooLarge> {
        let actual = body_len.saturating_add(footer_len);
        if actual > declared {
            return Err(TooLarge { actual, declared });
        }
        Ok(Self { body_len, footer_len, declared })
    }

    /// The length of the whole virtual file.
    pub fn declared(&self) -> u64 {
        self.declared
    }

    /// Where the footer begins in the virtual file.
    pub fn footer_start(&self) -> u64 {
        self.declared - self.footer_len
    }

    /// The segments whose concatenation is the slice `bytes` of the virtual file, none of them
    /// empty. What lies past the end of the file is left out.
    pub fn segments(&self, bytes: Range<u64>) -> impl Iterator<Item = Segment> + use<> {
        let Self { body_len, footer_len, declared } = *self;
        let footer_start = declared - footer_len;
        let body = overlap(&bytes, 0..body_len).map(Segment::Body);
        let hole = overlap(&bytes, body_len..footer_start).map(|r| Segment::Hole(r.end - r.start));
        let footer = overlap(&bytes, footer_start..declared)
            .map(|r| Segment::Footer(r.start - footer_start..r.end - footer_start));
        [body, hole, footer].into_iter().flatten()
    }
}

fn overlap(a: &Range<u64>, b: Range<u64>) -> Option<Range<u64>> {
    let range = a.start.max(b.start)..a.end.min(b.end);
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn virtual_file(body: &[u8], footer: &[u8], hole: usize) -> Vec<u8> {
        [body, &vec![0; hole], footer].concat()
    }

    fn materialise(segments: impl Iterator<Item = Segment>, body: &[u8], footer: &[u8]) -> Vec<u8> {
        let slice = |of: &[u8], r: Range<u64>| of[r.start as usize..r.end as usize].to_vec();
        segments
            .flat_map(|segment| {
                assert_ne!(segment.byte_len(), 0);
                match segment {
                    Segment::Body(range) => slice(body, range),
                    Segment::Hole(len) => vec![0; len as usize],
                    Segment::Footer(range) => slice(footer, range),
                }
            })
            .collect()
    }

    proptest! {
        #[test]
        fn any_range_is_the_slice_of_the_virtual_file(
            body in prop::collection::vec(1u8..=255, 0..60),
            footer in prop::collection::vec(1u8..=255, 0..30),
            hole in 0usize..60,
            start in 0u64..200,
            len in 0u64..200,
        ) {
            let file = virtual_file(&body, &footer, hole);
            let layout =
                PaddedLayout::new(body.len() as u64, footer.len() as u64, file.len() as u64)
                    .unwrap();
            let got = materialise(layout.segments(start..start + len), &body, &footer);
            let clamp = |n: u64| (n as usize).min(file.len());
            prop_assert_eq!(got, &file[clamp(start)..clamp(start + len)]);
        }
    }

    #[test]
    fn a_file_that_outgrew_its_declaration_is_refused() {
        assert_eq!(PaddedLayout::new(90, 11, 100), Err(TooLarge { actual: 101, declared: 100 }));
        assert!(PaddedLayout::new(90, 10, 100).is_ok());
        assert!(PaddedLayout::new(u64::MAX, 10, 100).is_err());
    }

    #[test]
    fn a_reversed_range_is_empty() {
        let layout = PaddedLayout::new(10, 10, 100).unwrap();
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = layout.segments(50..20);
        assert_eq!(reversed.count(), 0);
    }
}
