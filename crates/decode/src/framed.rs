//! Keys or values of one table type, each read by the plan of the schema it was written with.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, Fields};
use isk_model::{KafkaRecord, RecordBlock, SchemaFormat, WriterId};
use isk_schema::{AvroType, CONFIGURED, PlainKind, ProtoSchema, SchemaError, SchemaText};

use crate::budget::{Budget, MAX_BLOCK_CELLS};
use crate::cursor::Cursor;
use crate::decoder::{DecodeFailure, RecordPart};
use crate::error::{DecodeError, FailureStage, Fault, Read};
use crate::frame::{self, Framed};
use crate::json;
use crate::plain;
use crate::plan::Plan;
use crate::protobuf::{self, Path};
use crate::resolve;
use crate::run;
use crate::sink::Sink;

/// Fills the columns of one type.
pub(crate) struct FramedDecoder {
    part: RecordPart,
    /// Whether the fields of a record are the columns; else there is one.
    spread: bool,
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
pub(crate) type Refusal = (FailureStage, String);

/// How to read one payload as a row.
enum Rows {
    Avro(Plan),
    Json(json::JsonRows),
    Protobuf(protobuf::ProtoRows),
    Plain(PlainKind),
}

/// A writer's schema, read.
pub(crate) enum Parsed {
    Avro(AvroType),
    Json(AvroType),
    Protobuf(ProtoSchema),
    Plain(PlainKind),
}

impl Parsed {
    pub(crate) fn of(text: &SchemaText) -> Result<Self, SchemaError> {
        Ok(match text.format {
            SchemaFormat::Avro => Self::Avro(text.parse()?),
            SchemaFormat::Json => Self::Json(text.parse()?),
            SchemaFormat::Protobuf => {
                Self::Protobuf(ProtoSchema::parse(&text.text, &text.references)?)
            }
            SchemaFormat::Plain => match PlainKind::of_name(&text.text) {
                Some(kind) => Self::Plain(kind),
                // It says so.
                None => text.parse().map(Self::Avro)?,
            },
        })
    }

    fn format(&self) -> SchemaFormat {
        match self {
            Self::Avro(_) => SchemaFormat::Avro,
            Self::Json(_) => SchemaFormat::Json,
            Self::Protobuf(_) => SchemaFormat::Protobuf,
            Self::Plain(_) => SchemaFormat::Plain,
        }
    }
}

/// Why decoding a block stopped.
enum Stop {
    Unknown(WriterId),
    /// Arrow refused a column; the most likely cause is text that is not UTF-8.
    Column(ArrowError),
}

impl FramedDecoder {
    /// One of bytes that name no schema, all written with this one.
    pub(crate) fn bare(
        part: RecordPart,
        text: &SchemaText,
        reader: &Arc<AvroType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        let mut decoder = Self::new(part, text.format, reader, fields)?;
        let refused = |e: SchemaError| (FailureStage::Resolution, e.to_string());
        decoder.add_writer(BARE, &Parsed::of(text).map_err(refused));
        decoder.bare = true;
        Ok(decoder)
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.bare
    }

    pub(crate) fn part(&self) -> RecordPart {
        self.part
    }

    pub(crate) fn knows(&self, id: WriterId) -> bool {
        self.writers.contains_key(&id)
    }

    /// An empty decoder for values of type `reader` in these columns.
    pub(crate) fn new(
        part: RecordPart,
        format: SchemaFormat,
        reader: &Arc<AvroType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        let rows = Sink::rows(&fields).ok_or_else(|| {
            DecodeError::Schema(format!("no column can be made for one of {fields:?}"))
        })?;
        let spread = part == RecordPart::Value;
        let (reader, writers, bare) = (reader.clone(), HashMap::new(), false);
        Ok(Self { part, spread, format, reader, fields, rows, writers, bare })
    }

    /// One whose records are rows of their own, keys too.
    pub(crate) fn spread(self) -> Self {
        Self { spread: true, ..self }
    }

    pub(crate) fn add_writer(&mut self, id: WriterId, parsed: &Result<Parsed, Refusal>) {
        let writer = match parsed {
            Ok(parsed) => self
                .plan(parsed)
                .map_err(|why| (FailureStage::Resolution, format!("writer schema {id}: {why}"))),
            Err(refusal) => Err(refusal.clone()),
        };
        self.writers.insert(id, writer);
    }

    /// Decodes the values that `part` gives; records without one are null rows.
    pub(crate) fn decode<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        failures: &mut Vec<DecodeFailure>,
    ) -> Result<Vec<ArrayRef>, DecodeError> {
        let before = failures.len();
        let mut result = self.attempt(block, &part, false, failures);
        if matches!(result, Err(Stop::Column(_))) {
            failures.truncate(before);
            self.rows.truncate(0);
            result = self.attempt(block, &part, true, failures);
        }
        result.map_err(|stop| {
            self.rows.truncate(0);
            match stop {
                Stop::Unknown(id) => DecodeError::UnknownWriter(id),
                Stop::Column(error) => DecodeError::Batch(error),
            }
        })
    }

    fn plan(&self, writer: &Parsed) -> Result<Rows, String> {
        let format = writer.format();
        if format != self.format {
            return Err(format!("it is of type {format}, and the table follows {}", self.format));
        }
        let spread = self.spread;
        let name = match self.part {
            RecordPart::Value => "value",
            RecordPart::Key => isk_schema::KAFKA_KEY.name,
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
