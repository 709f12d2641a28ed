//! Positions out of record batches that have the two columns of a file, or one of them.

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};

use super::gather::Gather;

/// Where a row's value of one column comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A column, by its number in the file.
    Column(usize),
    /// All rows have it: the file lacks the column, and its manifest says what it would hold.
    Constant(i64),
    /// All rows are null.
    Nowhere,
}

impl Source {
    /// The column's number in the file.
    pub(super) fn column(self) -> Option<usize> {
        match self {
            Self::Column(column) => Some(column),
            Self::Constant(_) | Self::Nowhere => None,
        }
    }
}

/// Gathers the positions of a batch that has the columns of the two sources and no others, in the file's order.
pub(super) fn gather_batch(
    gather: &mut Gather,
    batch: &RecordBatch,
    partition: Source,
    offset: Source,
) -> Result<(), String> {
    let place = |own: Source, other: Source| match (own, other) {
        (Source::Column(own), Source::Column(other)) if other < own => 1,
        _ => 0,
    };
    let partitions = values(batch, partition, place(partition, offset))?;
    let offsets = values(batch, offset, place(offset, partition))?;
    (0..batch.num_rows()).try_for_each(|row| gather.row(partitions(row), offsets(row)))
}

/// A column's value by row.
fn values(
    batch: &RecordBatch,
    source: Source,
    place: usize,
) -> Result<Box<dyn Fn(usize) -> Option<i64>>, String> {
    match source {
        Source::Constant(value) => return Ok(Box::new(move |_| Some(value))),
        Source::Nowhere => return Ok(Box::new(|_| None)),
        Source::Column(_) => {}
    }
    let column = batch.columns().get(place).ok_or("a projected column is missing")?;
    if let Some(ints) = column.as_primitive_opt::<Int32Type>().cloned() {
        return Ok(Box::new(move |row| ints.is_valid(row).then(|| i64::from(ints.value(row)))));
    }
    if let Some(longs) = column.as_primitive_opt::<Int64Type>().cloned() {
        return Ok(Box::new(move |row| longs.is_valid(row).then(|| longs.value(row))));
    }
    Err(format!("a Kafka column is {}; it must be an int or a long", column.data_type()))
}
