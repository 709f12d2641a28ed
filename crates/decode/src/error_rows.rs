//! The records that did not decode, as rows of their own table.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, RecordBatch, RecordBatchOptions, StringArray};
use arrow_schema::SchemaRef;
use isk_model::{KafkaPartition, KafkaRecord, RecordBlock, RegistrySchemaId, WriterId};

use crate::decoder::{DecodeFailure, RecordPart};
use crate::error::DecodeError;
use crate::metadata;

/// The headers that name a part's schema, in Confluent's clients.
const KEY_SCHEMA_HEADER: &[u8] = b"__key_schema_id";
const VALUE_SCHEMA_HEADER: &[u8] = b"__value_schema_id";

/// One row for each record of a block that has a failure, in the block's order, under the Arrow schema of
/// [`isk_schema::error_table`]. `failures` are those of [`crate::TopicDecoder::decode`]: by offset, then part.
///
/// # Errors
/// [`DecodeError::Batch`] where the schema is another table's.
pub fn error_rows(
    block: &RecordBlock,
    failures: &[DecodeFailure],
    partition: KafkaPartition,
    schema: &SchemaRef,
) -> Result<RecordBatch, DecodeError> {
    let mut records = RecordBlock::new();
    let (mut parts, mut stages, mut causes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut ids, mut guids) = (Vec::new(), Vec::new());
    for of_record in failures.chunk_by(|a, b| a.row == b.row) {
        // The value's comes last.
        let (Some(main), Some(record)) =
            (of_record.last(), of_record.first().and_then(|first| block.get(first.row)))
        else {
            continue;
        };
        let KafkaRecord { offset, timestamp_ms, timestamp_type, key, value, .. } = record;
        records.push(offset, timestamp_ms, timestamp_type, key, value, record.headers());
        let named = named_by_header(&record, main.part);
        let both = of_record.len() > 1;
        parts.push(match (both, main.part) {
            (true, _) => "value, key",
            (false, RecordPart::Value) => "value",
            (false, RecordPart::Key) => "key",
        });
        stages.push(main.stage.as_str());
        causes.push(if both { causes_of(of_record) } else { main.cause.clone() });
        ids.push(main.schema_id.or(named.id).map(|id| id.0));
        guids.push(named.guid);
    }
    let timestamp = schema.field(2).data_type();
    let headers = schema.field(10).data_type();
    let columns: Vec<ArrayRef> = vec![
        metadata::partitions(partition, records.len()),
        metadata::offsets(&records),
        metadata::timestamps(&records, timestamp),
        Arc::new(StringArray::from(parts)),
        Arc::new(StringArray::from(stages)),
        Arc::new(StringArray::from(causes)),
        Arc::new(Int32Array::from(ids)),
        Arc::new(StringArray::from(guids)),
        metadata::raw(&records, |r| r.key)?,
        metadata::raw(&records, |r| r.value)?,
        metadata::headers(&records, headers)?,
    ];
    let options = RecordBatchOptions::new().with_row_count(Some(records.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The causes of several parts, the value's first.
fn causes_of(failures: &[DecodeFailure]) -> String {
    let cause = |failure: &DecodeFailure| match failure.part {
        RecordPart::Value => format!("value: {}", failure.cause),
        RecordPart::Key => format!("key: {}", failure.cause),
    };
    failures.iter().rev().map(cause).collect::<Vec<_>>().join("; ")
}

/// What a header says of a part's schema.
#[derive(Default)]
struct Named {
    id: Option<RegistrySchemaId>,
    guid: Option<String>,
}

/// A header of this kind is a byte 0 and an id of four bytes, or a byte 1 and a GUID of sixteen.
fn named_by_header(record: &KafkaRecord<'_>, part: RecordPart) -> Named {
    let wanted = match part {
        RecordPart::Key => KEY_SCHEMA_HEADER,
        RecordPart::Value => VALUE_SCHEMA_HEADER,
    };
    let header = record.headers().filter(|header| header.key == wanted).last();
    match header.and_then(|header| header.value) {
        Some([0, id @ ..]) => {
            let id = id.first_chunk().copied().map(i32::from_be_bytes).filter(|id| *id >= 0);
            Named { id: id.map(RegistrySchemaId), guid: None }
        }
        Some([1, guid @ ..]) => {
            let guid = guid.first_chunk::<16>().map(|guid| WriterId::Guid(*guid).to_string());
            Named { id: None, guid }
        }
        _ => Named::default(),
    }
}
