//! Sets of offsets of one Kafka partition: what another table already holds.

use roaring::{RoaringBitmap, RoaringTreemap};

use crate::offset::{Offset, OffsetRange};

/// A set of non-negative offsets. Long runs cost next to nothing, scattered offsets two bytes each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OffsetSet(RoaringTreemap);

/// Bytes that are no set of offsets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no set of offsets: {0}")]
pub struct InvalidOffsetSet(String);

impl OffsetSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one offset; a negative one is no offset of a record and is passed over.
    pub fn insert(&mut self, offset: Offset) {
        if let Ok(offset) = u64::try_from(offset.0) {
            self.0.insert(offset);
        }
    }

    /// Adds all offsets of a range.
    pub fn insert_range(&mut self, range: OffsetRange) {
        self.0.insert_range(bits(range));
    }

    /// Takes all offsets of a range away.
    pub fn remove_range(&mut self, range: OffsetRange) {
        self.0.remove_range(bits(range));
    }

    /// Adds all offsets of another set.
    pub fn union_with(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// Whether the offset is in the set.
    pub fn contains(&self, offset: Offset) -> bool {
        u64::try_from(offset.0).is_ok_and(|offset| self.0.contains(offset))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of offsets in the set.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// How many offsets of the range are in the set.
    pub fn len_within(&self, range: OffsetRange) -> u64 {
        self.0.range_cardinality(bits(range))
    }

    /// The largest offset in the set.
    pub fn last(&self) -> Option<Offset> {
        self.0.max().and_then(|max| i64::try_from(max).ok()).map(Offset)
    }

    /// The offsets of the range that are in the set.
    pub fn within(&self, range: OffsetRange) -> Self {
        let mut part = Self::new();
        for run in self.runs(range) {
            part.insert_range(run);
        }
        part
    }

    /// The runs of the range that are **not** in the set, in order.
    pub fn missing(&self, range: OffsetRange) -> impl Iterator<Item = OffsetRange> + '_ {
        let mut runs = self.runs(range);
        let mut next = Some(range.start());
        std::iter::from_fn(move || {
            loop {
                let start = next?;
                let Some(run) = runs.next() else {
                    next = None;
                    return OffsetRange::new(start, range.end());
                };
                next = Some(run.end());
                if let Some(gap) = OffsetRange::new(start, run.start()) {
                    return Some(gap);
                }
            }
        })
    }

    /// The runs of the range that are in the set, in order. Neighbouring runs may touch.
    pub fn runs(&self, range: OffsetRange) -> impl Iterator<Item = OffsetRange> + '_ {
        let (first, last) = (*bits(range).start(), *bits(range).end());
        let parts = self
            .0
            .bitmaps()
            .filter(move |(high, _)| (high_part(first)..=high_part(last)).contains(high));
        parts.flat_map(move |(high, bitmap)| {
            let base = u64::from(high) << 32;
            let low = u32::try_from(first.saturating_sub(base)).unwrap_or(u32::MAX);
            let top = u32::try_from(last - base).unwrap_or(u32::MAX);
            runs_of(bitmap, low, top).filter_map(move |(start, end)| {
                let at = |low: u32| i64::try_from(base + u64::from(low)).ok();
                OffsetRange::new(Offset(at(start)?), Offset(at(end)?.checked_add(1)?))
            })
        })
    }

    /// The set in the portable Roaring format for 64-bit integers. Equal sets give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut set = self.0.clone();
        set.optimize();
        let mut bytes = Vec::with_capacity(set.serialized_size());
        // Writing to memory does not fail.
        let _ = set.serialize_into(&mut bytes);
        bytes
    }

    /// Reads what [`OffsetSet::to_bytes`] wrote.
    ///
    /// # Errors
    /// The bytes are something else, or hold numbers that are no offsets.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidOffsetSet> {
        let set =
            RoaringTreemap::deserialize_from(bytes).map_err(|e| InvalidOffsetSet(e.to_string()))?;
        match set.max() {
            Some(max) if i64::try_from(max).is_err() => {
                Err(InvalidOffsetSet(format!("{max} is no offset")))
            }
            _ => Ok(Self(set)),
        }
    }
}

impl FromIterator<OffsetRange> for OffsetSet {
    fn from_iter<T: IntoIterator<Item = OffsetRange>>(ranges: T) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert_range(range));
        set
    }
}

/// The range as inclusive bounds of bits: an [`OffsetRange`] is neither empty nor negative.
fn bits(range: OffsetRange) -> std::ops::RangeInclusive<u64> {
    range.start().0.cast_unsigned()..=(range.end().0 - 1).cast_unsigned()
}

fn high_part(bit: u64) -> u32 {
    (bit >> 32) as u32
}

/// The runs of a bitmap between two bounds, both in them.
fn runs_of(bitmap: &RoaringBitmap, low: u32, top: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
    let mut bits = bitmap.range(low..=top);
    std::iter::from_fn(move || bits.next_range().map(|run| (*run.start(), (*run.end()).min(top))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset(start), Offset(end)).unwrap()
    }

    proptest! {
        #[test]
        fn runs_and_gaps_are_what_membership_says(
            runs in prop::collection::vec((0i64..2000, 1i64..80), 0..12),
            around in prop::sample::select(vec![0i64, 65_536 - 900, (1 << 32) - 1000]),
            start in 0i64..1500, span in 1i64..800,
        ) {
            let set: OffsetSet =
                runs.iter().map(|&(s, n)| range(around + s, around + s + n)).collect();
            let asked = range(around + start, around + start + span);
            let of = |found: Vec<OffsetRange>| {
                found.into_iter().flat_map(|r| r.start().0..r.end().0).collect::<Vec<_>>()
            };
            let all = asked.start().0..asked.end().0;
            let (inside, outside): (Vec<i64>, Vec<i64>) =
                all.partition(|&o| runs.iter().any(|&(s, n)| o >= around + s && o < around + s + n));
            prop_assert_eq!(of(set.runs(asked).collect()), inside.clone());
            prop_assert_eq!(of(set.missing(asked).collect()), outside);
            prop_assert_eq!(set.len_within(asked), inside.len() as u64);
            let part = set.within(asked);
            prop_assert_eq!(part.len(), inside.len() as u64);
            prop_assert_eq!(OffsetSet::from_bytes(&part.to_bytes()), Ok(part));
        }
    }

    #[test]
    fn equal_sets_have_equal_bytes_however_they_were_made() {
        let whole: OffsetSet = [range(0, 1000)].into_iter().collect();
        let mut grown = OffsetSet::new();
        (0..1000).rev().for_each(|o| grown.insert(Offset(o)));
        assert_eq!(whole.to_bytes(), grown.to_bytes());
        assert!(whole.contains(Offset(999)) && !whole.contains(Offset(1000)));
        assert!(!whole.contains(Offset(-1)));
    }

    #[test]
    fn garbage_is_refused() {
        assert!(OffsetSet::from_bytes(b"no set").is_err());
    }

    #[test]
    fn the_end_of_the_number_range_is_an_offset_like_others() {
        let last = range(i64::MAX - 2, i64::MAX);
        let set: OffsetSet = [last].into_iter().collect();
        assert_eq!(set.runs(last).collect::<Vec<_>>(), [last]);
        assert_eq!(set.missing(last).next(), None);
        assert_eq!(set.last(), Some(Offset(i64::MAX - 1)));
    }
}
