//! The metadata columns: whole columns at a time, from the block's records.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, FieldRef};
use isk_model::{EARLIEST_TIMESTAMP_MS, KafkaPartition, KafkaRecord, RecordBlock};

use crate::vectors::{Binaries, Texts};

pub(crate) fn partitions(partition: KafkaPartition, rows: usize) -> ArrayRef {
    Arc::new(Int32Array::from(vec![partition.0; rows]))
}

pub(crate) fn offsets(block: &RecordBlock) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(block.iter().map(|r| r.offset.0)))
}

/// Timestamps in microseconds; null where Kafka has none, or one that cannot be told: too late for
/// microseconds, or before the year 1.
pub(crate) fn timestamps(block: &RecordBlock, ty: &DataType) -> ArrayRef {
    let told = |ms: &i64| *ms != -1 && *ms >= EARLIEST_TIMESTAMP_MS;
    let micros = |ms: i64| Some(ms).filter(told)?.checked_mul(1000);
    let array: TimestampMicrosecondArray = block.iter().map(|r| micros(r.timestamp_ms)).collect();
    let zone = match ty {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Arc::new(array.with_timezone_opt(zone))
}

pub(crate) fn timestamp_types(block: &RecordBlock) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(block.iter().map(|r| r.timestamp_type.as_str())))
}

/// Bytes as they are.
pub(crate) fn raw<'a>(
    block: &'a RecordBlock,
    part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
) -> Result<ArrayRef, ArrowError> {
    let mut column = Binaries::new();
    for record in block.iter() {
        match part(&record) {
            Some(bytes) => column.push(bytes),
            None => column.null(),
        }
    }
    Ok(Arc::new(column.finish()?))
}

/// `list<struct<key, value>>`, in the headers' order; an empty list where there are none.
pub(crate) fn headers(block: &RecordBlock, ty: &DataType) -> Result<ArrayRef, ArrowError> {
    let not_headers = || ArrowError::SchemaError(format!("{ty} is not the type of headers"));
    let DataType::List(element) = ty else { return Err(not_headers()) };
    let DataType::Struct(fields) = element.data_type() else { return Err(not_headers()) };
    let (mut keys, mut values) = (Texts::new(), Binaries::new());
    for record in block.iter() {
        for header in record.headers() {
            keys.push(String::from_utf8_lossy(header.key).as_bytes())
                .map_err(|fault| ArrowError::ComputeError(fault.to_string()))?;
            match header.value {
                Some(value) => values.push(value),
                None => values.null(),
            }
        }
    }
    let columns: Vec<ArrayRef> = vec![Arc::new(keys.finish()?), Arc::new(values.finish()?)];
    let entries = StructArray::try_new(fields.clone(), columns, None)?;
    let lengths = block.iter().map(|r| r.headers().len());
    let no_nulls: Option<NullBuffer> = None;
    let element: FieldRef = element.clone();
    let list = ListArray::try_new(
        element,
        OffsetBuffer::from_lengths(lengths),
        Arc::new(entries),
        no_nulls,
    )?;
    Ok(Arc::new(list))
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::TimestampMicrosecondType;
    use isk_model::{Offset, TimestampType};

    use super::*;

    #[test]
    fn no_timestamp_before_the_first_year_is_shown() {
        let mut block = RecordBlock::new();
        let times = [EARLIEST_TIMESTAMP_MS, EARLIEST_TIMESTAMP_MS - 1, i64::MIN, -1, -2];
        for (offset, ms) in (0..).zip(times) {
            block.push(Offset(offset), ms, TimestampType::CreateTime, None, None, []);
        }
        let shown =
            timestamps(&block, &DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None));
        let shown = shown.as_primitive::<TimestampMicrosecondType>();
        let earliest = Some(EARLIEST_TIMESTAMP_MS * 1000);
        assert_eq!(shown.iter().collect::<Vec<_>>(), [earliest, None, None, None, Some(-2000)]);
    }
}
