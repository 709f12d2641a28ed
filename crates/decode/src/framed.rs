//! Keys or values of one table type, each read by the plan of the schema it was written with.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{ArrowError, Fields};
use isk_model::{KafkaRecord, RecordBlock, SchemaFormat, WriterId};
use isk_schema::{
    CONFIGURED, Kind, PlainKind, ProtoSchema, RecordKind, SchemaError, SchemaText, ValueType,
    json_title,
};

use crate::budget::{Budget, MAX_BLOCK_CELLS};
use crate::cursor::Cursor;
use crate::decoder::{DecodeFailure, RecordPart};
use crate::error::{DecodeError, FailureStage, Fault, Read};
use crate::frame::{self, Framed};
use crate::json;
use crate::plain;
use crate::plan::{Place, Plan};
use crate::protobuf::{self, Path};
use crate::resolve;
use crate::run;
use crate::sink::Sink;

/// Fills the columns of one type.
pub(crate) struct FramedDecoder {
    part: RecordPart,
    /// Whether the fields of a record are the columns; else there is one.
    spread: bool,
    reader: Reader,
    fields: Fields,
    /// The columns, as those of one struct.
    rows: Sink,
    writers: HashMap<WriterId, Writer>,
    /// Whether the bytes name no schema, being all written with one.
    bare: bool,
}

/// What the columns are.
enum Reader {
    /// Those of one type.
    One(SchemaFormat, Arc<ValueType>),
    /// Each those of a type of record.
    Several(Arc<[RecordKind]>),
    /// Those of one of several types of record: those of others have no rows.
    OneOf(RecordKind),
}

/// What the schema of bare bytes goes by.
const BARE: WriterId = WriterId::Id(CONFIGURED);

/// What is known of one writer schema: how to read its records, or why they cannot be read.
type Writer = Result<Rows, Refusal>;

/// Why records cannot be read that are of the table's type, or of no type of it.
enum Mismatch {
    Type(String),
    OfAnotherType(String),
}

/// Why the records of a writer schema cannot be read, and at which step that shows.
pub(crate) type Refusal = (FailureStage, String);

/// How to read one payload as a row.
enum Rows {
    Avro(Plan),
    Json(json::JsonRows),
    Protobuf(protobuf::ProtoRows),
    Plain(PlainKind),
    Refused(Mismatch),
}

/// A writer's schema, read.
pub(crate) enum Parsed {
    Avro(ValueType),
    /// And its title.
    Json(ValueType, Option<String>),
    Protobuf(ProtoSchema),
    Plain(PlainKind),
}

impl Parsed {
    pub(crate) fn of(text: &SchemaText) -> Result<Self, SchemaError> {
        Ok(match text.format {
            SchemaFormat::Avro => Self::Avro(text.parse()?),
            SchemaFormat::Json => Self::Json(text.parse()?, json_title(&text.text)),
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
            Self::Json(..) => SchemaFormat::Json,
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
        reader: &Arc<ValueType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        let reader = Reader::One(text.format, Arc::clone(reader));
        let mut decoder = Self::reading(part, reader, fields)?;
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
        reader: &Arc<ValueType>,
        fields: Fields,
    ) -> Result<Self, DecodeError> {
        Self::reading(part, Reader::One(format, Arc::clone(reader)), fields)
    }

    /// One of values of several types of record, each in a column.
    pub(crate) fn several(kinds: &Arc<[RecordKind]>, fields: Fields) -> Result<Self, DecodeError> {
        Self::reading(RecordPart::Value, Reader::Several(Arc::clone(kinds)), fields)
    }

    /// One of values of one of several types of record.
    pub(crate) fn one_of(kind: &RecordKind, fields: Fields) -> Result<Self, DecodeError> {
        Self::reading(RecordPart::Value, Reader::OneOf(kind.clone()), fields)
    }

    fn reading(part: RecordPart, reader: Reader, fields: Fields) -> Result<Self, DecodeError> {
        let rows = Sink::rows(&fields).ok_or_else(|| {
            DecodeError::Schema(format!("no column can be made for one of {fields:?}"))
        })?;
        let spread = part == RecordPart::Value;
        let (writers, bare) = (HashMap::new(), false);
        Ok(Self { part, spread, reader, fields, rows, writers, bare })
    }

    /// One whose records are rows of their own, keys too.
    pub(crate) fn spread(self) -> Self {
        Self { spread: true, ..self }
    }

    pub(crate) fn add_writer(&mut self, id: WriterId, parsed: &Result<Parsed, Refusal>) {
        let writer = match parsed {
            Ok(parsed) => Ok(self.plan(parsed).unwrap_or_else(|why| {
                let named = |why| format!("writer schema {id}: {why}");
                Rows::Refused(match why {
                    Mismatch::Type(why) => Mismatch::Type(named(why)),
                    Mismatch::OfAnotherType(why) => Mismatch::OfAnotherType(named(why)),
                })
            })),
            Err(refusal) => Err(refusal.clone()),
        };
        self.writers.insert(id, writer);
    }

    /// Decodes the values that `part` gives; records without one are null rows. `others` gets the rows of records
    /// that are not of the one type that is shown of several, or that nothing can be told of.
    pub(crate) fn decode<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        failures: &mut Vec<DecodeFailure>,
        others: &mut Vec<usize>,
    ) -> Result<Vec<ArrayRef>, DecodeError> {
        let before = (failures.len(), others.len());
        let mut result = self.attempt(block, &part, false, (failures, others));
        if matches!(result, Err(Stop::Column(_))) {
            failures.truncate(before.0);
            others.truncate(before.1);
            self.rows.truncate(0);
            result = self.attempt(block, &part, true, (failures, others));
        }
        result.map_err(|stop| {
            self.rows.truncate(0);
            match stop {
                Stop::Unknown(id) => DecodeError::UnknownWriter(id),
                Stop::Column(error) => DecodeError::Batch(error),
            }
        })
    }

    fn plan(&self, writer: &Parsed) -> Result<Rows, Mismatch> {
        let spread = |ty: &ValueType| self.spread && matches!(ty.kind, Kind::Record(_));
        let whole = |ty: &ValueType, name: &str| match spread(ty) {
            true => Place::Spread,
            false => Place::Column { at: 0, of: 1, name: name.to_owned() },
        };
        let (kinds, places): (&[RecordKind], Vec<Place>) = match &self.reader {
            Reader::One(format, reader) => {
                let name = match self.part {
                    RecordPart::Value => "value",
                    RecordPart::Key => isk_schema::KAFKA_KEY.name,
                };
                return rows(writer, *format, reader, whole(reader, name)).map_err(Mismatch::Type);
            }
            Reader::Several(kinds) => {
                let column = |(at, kind): (usize, &RecordKind)| Place::Column {
                    at,
                    of: kinds.len(),
                    name: kind.column.clone(),
                };
                (kinds, kinds.iter().enumerate().map(column).collect())
            }
            Reader::OneOf(kind) => (std::slice::from_ref(kind), vec![whole(&kind.ty, "value")]),
        };
        let name = match writer {
            Parsed::Protobuf(writer) => {
                let messages = kinds.iter().zip(places);
                let messages = messages.filter(|(kind, _)| kind.format == SchemaFormat::Protobuf);
                return Ok(Rows::Protobuf(protobuf::typed(writer, messages)));
            }
            Parsed::Avro(ty) => Some(ty.full_name().unwrap_or(ty.short_name())),
            Parsed::Json(_, title) => title.as_deref(),
            Parsed::Plain(_) => None,
        };
        let at = name.and_then(|name| RecordKind::find(kinds, name));
        let (Some(kind), Some(place)) =
            (at.and_then(|at| kinds.get(at)), at.and_then(|at| places.get(at)))
        else {
            let shown: Vec<&str> = kinds.iter().map(|kind| kind.name.as_str()).collect();
            return Err(Mismatch::OfAnotherType(format!(
                "its records are of type {}, and the table shows {}",
                name.unwrap_or("none"),
                shown.join(", ")
            )));
        };
        rows(writer, kind.format, &kind.ty, place.clone()).map_err(Mismatch::Type)
    }

    /// Decodes the block once. `check_utf8`: each text by itself.
    fn attempt<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        check_utf8: bool,
        (failures, others): (&mut Vec<DecodeFailure>, &mut Vec<usize>),
    ) -> Result<Vec<ArrayRef>, Stop> {
        let mut cells = MAX_BLOCK_CELLS;
        // Whether a record that is not seen to be of the table's type has no row.
        let alone = matches!(self.reader, Reader::OneOf(_));
        // Most blocks have one writer: it is looked up once.
        let mut last: Option<(WriterId, &Writer)> = None;
        for (row_number, record) in block.iter().enumerate() {
            let Some(bytes) = part(&record) else {
                self.rows.null();
                others.extend(alone.then_some(row_number));
                continue;
            };
            let rows = self.rows.len();
            let framed = match self.bare {
                true => Ok(Framed { writer: BARE, path: Path::Unsaid, payload: bytes }),
                false => frame::of_record(&record, self.part, bytes),
            };
            let fault = match framed {
                Err(fault) => {
                    others.extend(alone.then_some(row_number));
                    Some((None, fault))
                }
                Ok(framed) => {
                    let id = framed.writer;
                    let writer = match last {
                        Some((last_id, writer)) if last_id == id => writer,
                        _ => self.writers.get(&id).ok_or(Stop::Unknown(id))?,
                    };
                    last = Some((id, writer));
                    others.extend((alone && writer.is_err()).then_some(row_number));
                    let result = row(writer, &framed, check_utf8, &mut cells, &mut self.rows);
                    result.err().map(|fault| (id.id().filter(|_| !self.bare), fault))
                }
            };
            if let Some((schema_id, fault)) = fault {
                self.rows.truncate(rows);
                self.rows.null();
                if alone && fault.is_of_another_type() {
                    others.push(row_number);
                    continue;
                }
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

/// How to read what a schema has written as a value of a type.
fn rows(
    writer: &Parsed,
    format: SchemaFormat,
    reader: &ValueType,
    place: Place,
) -> Result<Rows, String> {
    if writer.format() != format {
        return Err(format!("it is of type {}, and the table follows {format}", writer.format()));
    }
    Ok(match writer {
        Parsed::Avro(writer) => Rows::Avro(resolve::rows(writer, reader, place)?),
        Parsed::Json(writer, _) => Rows::Json(json::rows(writer, reader, place)),
        Parsed::Protobuf(writer) => Rows::Protobuf(protobuf::rows(writer, reader, &place)),
        Parsed::Plain(kind) => Rows::Plain(*kind),
    })
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
        Ok(Rows::Refused(Mismatch::Type(cause))) => {
            Err(Fault::at(FailureStage::Resolution, cause.as_str()))
        }
        Ok(Rows::Refused(Mismatch::OfAnotherType(cause))) => {
            Err(Fault::at(FailureStage::Resolution, cause.as_str()).of_another_type())
        }
        Err((stage, cause)) => Err(Fault::at(*stage, cause.as_str())),
    }
}
