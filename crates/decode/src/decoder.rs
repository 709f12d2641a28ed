//! From a block of records to one Arrow batch: the entry point.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, Fields, SchemaRef};
use isk_model::{
    KafkaPartition, KafkaRecord, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, WriterId,
};
use isk_schema::{
    AvroType, CONFIGURED, KeyKind, PlainKind, SchemaError, SchemaText, TableSchema, ValueKind,
};

use crate::budget::{Budget, MAX_BLOCK_CELLS};
use crate::columns::arrow_schema;
use crate::cursor::Cursor;
use crate::error::{DecodeError, FailureStage, Fault, Read};
use crate::frame::{self, Framed};
use crate::json;
use crate::metadata;
use crate::parsed::Parsed;
use crate::plain;
use crate::plan::Plan;
use crate::protobuf::{self, Path};
use crate::resolve;
use crate::run;
use crate::sink::Sink;

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
            ValueKind::Framed(format, reader) => {
                PartDecoder::framed(RecordPart::Value, *format, reader, value_fields)?
            }
            ValueKind::Bare(text, reader) => {
                PartDecoder::bare(RecordPart::Value, text, reader, value_fields)?
            }
        };
        let key = match &table.key {
            KeyKind::Bytes => PartDecoder::Raw,
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
        let parsed = match schema {
            WriterSchema::Known(text) => {
                let refused = |e| (FailureStage::Resolution, format!("writer schema {id}: {e}"));
                Parsed::of(&text).map_err(refused)
            }
            WriterSchema::Missing { cause } => {
                Err((FailureStage::Lookup, format!("writer schema {id} does not exist: {cause}")))
            }
        };
        for part in [&mut self.value, &mut self.key] {
            part.add_writer(id, &parsed);
        }
    }

    /// Decodes a block: one row per record, in order.
    ///
    /// # Errors
    /// [`DecodeError::UnknownWriter`] where a schema was not given. Nothing of a failed call
    /// stays in the decoder.
    pub fn decode(&mut self, block: &RecordBlock) -> Result<DecodedBatch, DecodeError> {
        let mut failures = Vec::new();
        let mut columns = self.value.decode(block, |r| r.value, &mut failures)?;
        let key = self.key.decode(block, |r| r.key, &mut failures)?;
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
        Ok(DecodedBatch { batch, failures })
    }
}

/// Decodes values, or keys.
enum PartDecoder {
    /// One column of bytes.
    Raw,
    Framed(Box<FramedDecoder>),
}

struct FramedDecoder {
    part: RecordPart,
    format: SchemaFormat,
    reader: Arc<AvroType>,
    fields: Fields,
    /// The columns, as those of one struct.
    rows: Sink,
    writers: HashMap<WriterId, Writer>,
    /// Whether the bytes name no schema, being all written with one.
    bare: bool,
}

/// What the schema of bare bytes goes by.
const BARE: WriterId = WriterId::Id(CONFIGURED);

/// What is known of one writer schema: how to read its records, or why they cannot be read.
type Writer = Result<Rows, Refusal>;

/// Why the records of a writer schema cannot be read, and at which step that shows.
type Refusal = (FailureStage, String);

/// How to read one payload as a row.
enum Rows {
    Avro(Plan),
    Json(json::JsonRows),
    Protobuf(protobuf::ProtoRows),
    Plain(PlainKind),
}

/// Why decoding a block stopped.
enum Stop {
    Unknown(WriterId),
    /// Arrow refused a column; the most likely cause is text that is not UTF-8.
    Column(ArrowError),
}

impl PartDecoder {
    fn framed(
        part: RecordPart,
        format: SchemaFormat,
        reader: &Arc<AvroType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        let rows = Sink::rows(&fields).ok_or_else(|| {
            DecodeError::Schema(format!("no column can be made for one of {fields:?}"))
        })?;
        let (reader, writers, bare) = (reader.clone(), HashMap::new(), false);
        let decoder = FramedDecoder { part, format, reader, fields, rows, writers, bare };
        Ok(Self::Framed(Box::new(decoder)))
    }

    fn bare(
        part: RecordPart,
        text: &SchemaText,
        reader: &Arc<AvroType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        let mut made = Self::framed(part, text.format, reader, fields)?;
        let refused = |e: SchemaError| (FailureStage::Resolution, e.to_string());
        made.add_writer(BARE, &Parsed::of(text).map_err(refused));
        if let Self::Framed(decoder) = &mut made {
            decoder.bare = true;
        }
        Ok(made)
    }

    fn missing<'a>(
        &self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        missing: &mut BTreeSet<WriterId>,
    ) {
        let Self::Framed(decoder) = self else { return };
        if decoder.bare {
            return;
        }
        let mut last = None;
        for record in block.iter() {
            let Some(bytes) = part(&record) else { continue };
            let Ok(framed) = frame::of_record(&record, decoder.part, bytes) else { continue };
            let id = framed.writer;
            if last != Some(id) && !decoder.writers.contains_key(&id) {
                missing.insert(id);
            }
            last = Some(id);
        }
    }

    fn add_writer(&mut self, id: WriterId, parsed: &Result<Parsed, Refusal>) {
        if let Self::Framed(decoder) = self {
            let writer = match parsed {
                Ok(parsed) => decoder.plan(parsed).map_err(|why| {
                    (FailureStage::Resolution, format!("writer schema {id}: {why}"))
                }),
                Err(refusal) => Err(refusal.clone()),
            };
            decoder.writers.insert(id, writer);
        }
    }

    fn decode<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        failures: &mut Vec<DecodeFailure>,
    ) -> Result<Vec<ArrayRef>, DecodeError> {
        let decoder = match self {
            Self::Raw => return Ok(vec![metadata::raw(block, part)?]),
            Self::Framed(decoder) => decoder,
        };
        let before = failures.len();
        let mut result = decoder.attempt(block, &part, false, failures);
        if matches!(result, Err(Stop::Column(_))) {
            failures.truncate(before);
            decoder.rows.truncate(0);
            result = decoder.attempt(block, &part, true, failures);
        }
        result.map_err(|stop| {
            decoder.rows.truncate(0);
            match stop {
                Stop::Unknown(id) => DecodeError::UnknownWriter(id),
                Stop::Column(error) => DecodeError::Batch(error),
            }
        })
    }
}

impl FramedDecoder {
    fn plan(&self, writer: &Parsed) -> Result<Rows, String> {
        let format = writer.format();
        if format != self.format {
            return Err(format!("it is of type {format}, and the table follows {}", self.format));
        }
        let (name, spread) = match self.part {
            RecordPart::Value => ("value", true),
            RecordPart::Key => (isk_schema::KAFKA_KEY.name, false),
        };
        Ok(match writer {
            Parsed::Avro(writer) => Rows::Avro(resolve::rows(writer, &self.reader, name, spread)?),
            Parsed::Json(writer) => Rows::Json(json::rows(writer, &self.reader, name, spread)),
            Parsed::Protobuf(writer) => {
                let column = (!spread).then_some(name);
                Rows::Protobuf(protobuf::rows(writer, &self.reader, column))
            }
            Parsed::Plain(kind) => Rows::Plain(*kind),
        })
    }

    /// Decodes the block once. `check_utf8`: each text by itself.
    fn attempt<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        check_utf8: bool,
        failures: &mut Vec<DecodeFailure>,
    ) -> Result<Vec<ArrayRef>, Stop> {
        let mut cells = MAX_BLOCK_CELLS;
        // Most blocks have one writer: it is looked up once.
        let mut last: Option<(WriterId, &Writer)> = None;
        for (row_number, record) in block.iter().enumerate() {
            let Some(bytes) = part(&record) else {
                self.rows.null();
                continue;
            };
            let rows = self.rows.len();
            let framed = match self.bare {
                true => Ok(Framed { writer: BARE, path: Path::Unsaid, payload: bytes }),
                false => frame::of_record(&record, self.part, bytes),
            };
            let fault = match framed {
                Err(fault) => Some((None, fault)),
                Ok(framed) => {
                    let id = framed.writer;
                    let writer = match last {
                        Some((last_id, writer)) if last_id == id => writer,
                        _ => self.writers.get(&id).ok_or(Stop::Unknown(id))?,
                    };
                    last = Some((id, writer));
                    let result = row(writer, &framed, check_utf8, &mut cells, &mut self.rows);
                    result.err().map(|fault| (id.id().filter(|_| !self.bare), fault))
                }
            };
            if let Some((schema_id, fault)) = fault {
                self.rows.truncate(rows);
                self.rows.null();
                failures.push(DecodeFailure {
                    offset: record.offset,
                    row: row_number,
                    part: self.part,
                    stage: fault.stage(),
                    cause: fault.to_string(),
                    schema_id,
                });
            }
        }
        self.rows.finish_rows(&self.fields).map_err(Stop::Column)
    }
}

/// Reads one payload to its end, as one row. `cells` is what the block may still unfold to.
fn row(
    writer: &Writer,
    framed: &Framed<'_>,
    check_utf8: bool,
    cells: &mut u64,
    rows: &mut Sink,
) -> Read<()> {
    let payload = framed.payload;
    match writer {
        Ok(Rows::Avro(plan)) => {
            let mut cur = Cursor::new(payload, check_utf8, *cells);
            let result = run::run(plan, &mut cur, rows);
            *cells = cur.budget.block;
            result?;
            match cur.remaining() {
                0 => Ok(()),
                more => Err(Fault::new(format!("{more} bytes are left behind its end"))),
            }
        }
        Ok(Rows::Json(plan)) => {
            let mut scanner = json::Scanner::new(payload, *cells)?;
            let result = json::row(plan, &mut scanner, rows);
            *cells = scanner.budget.block;
            result
        }
        Ok(Rows::Protobuf(plan)) => {
            let mut budget = Budget::new(payload.len(), *cells);
            let mut run = protobuf::Run { budget: &mut budget, check_utf8 };
            let result = protobuf::row(plan, framed.path, payload, &mut run, rows);
            *cells = budget.block;
            result
        }
        Ok(Rows::Plain(kind)) => plain::row(*kind, payload, check_utf8, rows),
        Err((stage, cause)) => Err(Fault::at(*stage, cause.as_str())),
    }
}
