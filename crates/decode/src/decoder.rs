//! From a block of records to one Arrow batch: the entry point.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{Fields, SchemaRef};
use isk_model::{
    KafkaPartition, KafkaRecord, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, WriterId,
};
use isk_schema::{KeyKind, SchemaText, TableSchema, ValueKind, ValueType};

use crate::columns::arrow_schema;
use crate::error::{DecodeError, FailureStage};
use crate::frame;
use crate::framed::{FramedDecoder, Parsed, Refusal};
use crate::json_text::JsonTexts;
use crate::metadata;

/// What the registry said of a schema id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterSchema {
    /// The schema.
    Known(SchemaText),
    /// There is no such id, and there will not be: its records fail.
    Missing {
        /// What the registry said.
        cause: String,
    },
}

/// A part of a record that is decoded by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordPart {
    /// The key: on failure `kafka_key` is null.
    Key,
    /// The value: on failure all its columns are null.
    Value,
}

/// A record that could not be decoded. It is a row all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeFailure {
    /// The record's offset.
    pub offset: Offset,
    /// Its place in the block, and so its row's in the batch.
    pub row: usize,
    /// Which part of it.
    pub part: RecordPart,
    /// At which step it failed.
    pub stage: FailureStage,
    /// What is wrong with it, and in which field. It quotes no data but numbers and names.
    pub cause: String,
    /// The schema id it names, where it names one.
    pub schema_id: Option<RegistrySchemaId>,
}

/// The rows of one block.
#[derive(Debug)]
pub struct DecodedBatch {
    /// One row per record, in order, under [`arrow_schema`].
    pub batch: RecordBatch,
    /// The records that could not be decoded, by offset.
    pub failures: Vec<DecodeFailure>,
    /// The rows, all null, of records that are not the table's, where it shows one of several types of record: of
    /// another type, or nothing tells of which.
    pub others: Vec<usize>,
}

/// The place of the key among the columns behind the value's.
const KEY_COLUMN: usize = 4;

/// Decodes records of one Kafka partition into rows of one table schema.
pub struct TopicDecoder {
    partition: KafkaPartition,
    schema: SchemaRef,
    value: PartDecoder,
    key: PartDecoder,
}

impl TopicDecoder {
    /// A decoder that knows no writer schema yet.
    ///
    /// # Errors
    /// [`DecodeError::Schema`] where the table has columns Arrow cannot show.
    pub fn new(table: Arc<TableSchema>, partition: KafkaPartition) -> Result<Self, DecodeError> {
        let schema = arrow_schema(&table)?;
        let columns = table.value_columns();
        let value_fields: Fields = schema.fields().iter().take(columns).cloned().collect();
        // By its place: a table may show its columns under other names.
        let key_fields: Fields =
            schema.fields().iter().skip(columns + KEY_COLUMN).take(1).cloned().collect();
        let value = match &table.value {
            ValueKind::None => PartDecoder::Raw,
            ValueKind::JsonText => PartDecoder::JsonText(JsonTexts::new(RecordPart::Value)),
            ValueKind::Framed(format, reader) => {
                PartDecoder::framed(RecordPart::Value, *format, reader, value_fields)?
            }
            ValueKind::Bare(text, reader) => {
                PartDecoder::bare(RecordPart::Value, text, reader, value_fields)?
            }
            ValueKind::Several(kinds) => {
                PartDecoder::Framed(Box::new(FramedDecoder::several(kinds, value_fields)?))
            }
            ValueKind::OneOf(kind) => {
                PartDecoder::Framed(Box::new(FramedDecoder::one_of(kind, value_fields)?))
            }
        };
        let key = match &table.key {
            KeyKind::Bytes => PartDecoder::Raw,
            KeyKind::JsonText => PartDecoder::JsonText(JsonTexts::new(RecordPart::Key)),
            KeyKind::Framed(format, reader) => {
                PartDecoder::framed(RecordPart::Key, *format, reader, key_fields)?
            }
            KeyKind::Bare(text, reader) => {
                PartDecoder::bare(RecordPart::Key, text, reader, key_fields)?
            }
        };
        Ok(Self { partition, schema, value, key })
    }

    /// The schema of all batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The schemas the block names that have not been given yet.
    pub fn missing_writers(&self, block: &RecordBlock) -> BTreeSet<WriterId> {
        let mut missing = BTreeSet::new();
        self.value.missing(block, |r| r.value, &mut missing);
        self.key.missing(block, |r| r.key, &mut missing);
        missing
    }

    /// Gives a writer schema. A schema that cannot be read as the table's makes its records failures.
    pub fn add_writer(&mut self, id: impl Into<WriterId>, schema: WriterSchema) {
        let id = id.into();
        let parsed = match &schema {
            WriterSchema::Known(text) => {
                let refused = |e| (FailureStage::Resolution, format!("writer schema {id}: {e}"));
                Parsed::of(text).map_err(refused)
            }
            WriterSchema::Missing { cause } => {
                Err((FailureStage::Lookup, format!("writer schema {id} does not exist: {cause}")))
            }
        };
        for part in [&mut self.value, &mut self.key] {
            part.add_writer(id, &schema, &parsed);
        }
    }

    /// Decodes a block: one row per record, in order.
    ///
    /// # Errors
    /// [`DecodeError::UnknownWriter`] where a schema was not given. Nothing of a failed call
    /// stays in the decoder.
    pub fn decode(&mut self, block: &RecordBlock) -> Result<DecodedBatch, DecodeError> {
        let mut failures = Vec::new();
        let mut others = Vec::new();
        let mut columns = self.value.decode(block, |r| r.value, &mut failures, &mut others)?;
        let key = self.key.decode(block, |r| r.key, &mut failures, &mut Vec::new())?;
        failures.sort_by_key(|failure| (failure.offset, failure.part));

        let timestamp = columns.len() + 2;
        let headers = columns.len() + 5;
        columns.push(metadata::partitions(self.partition, block.len()));
        columns.push(metadata::offsets(block));
        columns.push(metadata::timestamps(block, self.schema.field(timestamp).data_type()));
        columns.push(metadata::timestamp_types(block));
        columns.extend(key);
        columns.push(metadata::headers(block, self.schema.field(headers).data_type())?);
        let options = RecordBatchOptions::new().with_row_count(Some(block.len()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?;
        Ok(DecodedBatch { batch, failures, others })
    }
}

/// Decodes values, or keys.
enum PartDecoder {
    /// One column of bytes.
    Raw,
    /// One column of JSON text.
    JsonText(JsonTexts),
    Framed(Box<FramedDecoder>),
}

impl PartDecoder {
    fn framed(
        part: RecordPart,
        format: SchemaFormat,
        reader: &Arc<ValueType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        Ok(Self::Framed(Box::new(FramedDecoder::new(part, format, reader, fields)?)))
    }

    fn bare(
        part: RecordPart,
        text: &SchemaText,
        reader: &Arc<ValueType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        Ok(Self::Framed(Box::new(FramedDecoder::bare(part, text, reader, fields)?)))
    }

    fn missing<'a>(
        &self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        missing: &mut BTreeSet<WriterId>,
    ) {
        let part_of = match self {
            Self::Raw => return,
            Self::Framed(decoder) if decoder.is_bare() => return,
            Self::JsonText(decoder) => decoder.part(),
            Self::Framed(decoder) => decoder.part(),
        };
        let mut last = None;
        for record in block.iter() {
            let Some(bytes) = part(&record) else { continue };
            let Ok(framed) = frame::of_record(&record, part_of, bytes) else { continue };
            let id = framed.writer;
            if last != Some(id) && !self.knows(id) {
                missing.insert(id);
            }
            last = Some(id);
        }
    }

    fn knows(&self, id: WriterId) -> bool {
        match self {
            Self::Raw => true,
            Self::JsonText(decoder) => decoder.knows(id),
            Self::Framed(decoder) => decoder.knows(id),
        }
    }

    fn add_writer(
        &mut self,
        id: WriterId,
        schema: &WriterSchema,
        parsed: &Result<Parsed, Refusal>,
    ) {
        match self {
            Self::Raw => {}
            Self::JsonText(decoder) => decoder.add_writer(id, schema, parsed),
            Self::Framed(decoder) => decoder.add_writer(id, parsed),
        }
    }

    fn decode<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        failures: &mut Vec<DecodeFailure>,
        others: &mut Vec<usize>,
    ) -> Result<Vec<ArrayRef>, DecodeError> {
        match self {
            Self::Raw => Ok(vec![metadata::raw(block, part)?]),
            Self::JsonText(decoder) => decoder.decode(block, part, failures),
            Self::Framed(decoder) => decoder.decode(block, part, failures, others),
        }
    }
}
