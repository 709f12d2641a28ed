//! The plain columns: vectors of values with their nulls, to be cut back and handed over.

use arrow_array::{
    ArrowPrimitiveType, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray, PrimitiveArray,
    StringArray,
};
use arrow_buffer::{
    ArrowNativeType, BooleanBufferBuilder, Buffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer,
};
use arrow_schema::ArrowError;

use crate::error::{Fault, Read};
use crate::sink::unfit;

/// Nulls of a column that has none so far: it allocates at the first.
pub(crate) fn nulls() -> NullBufferBuilder {
    NullBufferBuilder::new(0)
}

/// Hands over a vector, and leaves one with room for as much again.
fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(values.len());
    std::mem::replace(values, next)
}

/// Arrow's 32-bit offsets, the leading 0 included.
pub(crate) struct Offsets(Vec<i32>);

impl Offsets {
    pub(crate) fn new() -> Self {
        Self(vec![0])
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, end: usize) -> Read<()> {
        match i32::try_from(end) {
            Ok(end) => {
                self.0.push(end);
                Ok(())
            }
            Err(_) => Err(Fault::new("a column of one batch would pass 2^31 bytes or elements")),
        }
    }

    pub(crate) fn repeat_last(&mut self) {
        self.0.push(self.0.last().copied().unwrap_or_default());
    }

    /// Where the last row ends.
    pub(crate) fn last(&self) -> usize {
        self.0.last().map_or(0, |end| end.as_usize())
    }

    /// Where a row begins and ends.
    pub(crate) fn range(&self, row: usize) -> (usize, usize) {
        let at = |i: usize| self.0.get(i).map_or(0, |end| end.as_usize());
        (at(row), at(row + 1))
    }

    /// Cuts to `rows` rows; gives where the last of them ends.
    pub(crate) fn truncate(&mut self, rows: usize) -> usize {
        self.0.truncate(rows + 1);
        self.0.last().map_or(0, |end| end.as_usize())
    }

    pub(crate) fn finish(&mut self) -> OffsetBuffer<i32> {
        let offsets = take(&mut self.0);
        self.0.push(0);
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }
}

/// Numbers of one width, and what is made of them: dates, times, decimals.
pub(crate) struct Numbers<T> {
    values: Vec<T>,
    nulls: NullBufferBuilder,
}

impl<T: ArrowNativeType> Numbers<T> {
    pub(crate) fn new() -> Self {
        Self { values: Vec::new(), nulls: nulls() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, value: T) {
        self.values.push(value);
        self.nulls.append_non_null();
    }

    pub(crate) fn null(&mut self) {
        self.values.push(T::default());
        self.nulls.append_null();
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    pub(crate) fn finish<A: ArrowPrimitiveType<Native = T>>(
        &mut self,
    ) -> Result<PrimitiveArray<A>, ArrowError> {
        let values = ScalarBuffer::from(take(&mut self.values));
        PrimitiveArray::try_new(values, self.nulls.finish())
    }
}

/// Truth values.
pub(crate) struct Booleans {
    values: BooleanBufferBuilder,
    nulls: NullBufferBuilder,
}

impl Booleans {
    pub(crate) fn new() -> Self {
        Self { values: BooleanBufferBuilder::new(0), nulls: nulls() }
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, value: bool) {
        self.values.append(value);
        self.nulls.append_non_null();
    }

    pub(crate) fn null(&mut self) {
        self.values.append(false);
        self.nulls.append_null();
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.nulls.truncate(rows);
    }

    pub(crate) fn finish(&mut self) -> BooleanArray {
        BooleanArray::new(self.values.finish(), self.nulls.finish())
    }
}

/// Texts.
pub(crate) struct Texts {
    ends: Offsets,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Texts {
    pub(crate) fn new() -> Self {
        Self { ends: Offsets::new(), data: Vec::new(), nulls: nulls() }
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Appends what should be UTF-8; if it is not, `finish` fails.
    #[inline(always)]
    pub(crate) fn push(&mut self, text: &[u8]) -> Read<()> {
        self.data.extend_from_slice(text);
        self.ends.push(self.data.len())?;
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends what `write` appends to the bytes of all texts.
    pub(crate) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Read<()>) -> Read<()> {
        write(&mut self.data)?;
        self.push(&[])
    }

    /// The text of a row.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let (start, end) = self.ends.range(row);
        self.data.get(start..end).unwrap_or_default()
    }

    pub(crate) fn null(&mut self) {
        self.ends.repeat_last();
        self.nulls.append_null();
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        let end = self.ends.truncate(rows);
        self.data.truncate(end);
        self.nulls.truncate(rows);
    }

    /// Fails where a text is not UTF-8.
    pub(crate) fn finish(&mut self) -> Result<StringArray, ArrowError> {
        let (ends, data) = (self.ends.finish(), take(&mut self.data));
        StringArray::try_new(ends, Buffer::from_vec(data), self.nulls.finish())
    }
}

/// Bytes of any length.
pub(crate) struct Binaries {
    /// The offsets, the leading 0 included.
    offsets: Vec<i64>,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl Binaries {
    pub(crate) fn new() -> Self {
        Self { offsets: vec![0], data: Vec::new(), nulls: nulls() }
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.end();
        self.nulls.append_non_null();
    }

    pub(crate) fn null(&mut self) {
        self.end();
        self.nulls.append_null();
    }

    fn end(&mut self) {
        // A vector's length fits 63 bits.
        self.offsets.push(self.data.len() as i64);
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.data.truncate(self.offsets.last().map_or(0, |end| end.as_usize()));
        self.nulls.truncate(rows);
    }

    pub(crate) fn finish(&mut self) -> Result<LargeBinaryArray, ArrowError> {
        let offsets = take(&mut self.offsets);
        self.offsets.push(0);
        let data = Buffer::from_vec(take(&mut self.data));
        LargeBinaryArray::try_new(
            OffsetBuffer::new(ScalarBuffer::from(offsets)),
            data,
            self.nulls.finish(),
        )
    }
}

/// Bytes of one length.
pub(crate) struct FixedBytes {
    size: usize,
    data: Vec<u8>,
    nulls: NullBufferBuilder,
}

impl FixedBytes {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, data: Vec::new(), nulls: nulls() }
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Read<()> {
        if bytes.len() != self.size {
            return Err(unfit());
        }
        self.data.extend_from_slice(bytes);
        self.nulls.append_non_null();
        Ok(())
    }

    pub(crate) fn null(&mut self) {
        self.data.resize(self.data.len() + self.size, 0);
        self.nulls.append_null();
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.data.truncate(rows * self.size);
        self.nulls.truncate(rows);
    }

    /// `size` is the column's length as Arrow has it.
    pub(crate) fn finish(&mut self, size: i32) -> Result<FixedSizeBinaryArray, ArrowError> {
        let data = Buffer::from_vec(take(&mut self.data));
        FixedSizeBinaryArray::try_new(size, data, self.nulls.finish())
    }
}
