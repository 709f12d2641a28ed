//! Values or keys as JSON text, each under the schema it was written with.
//!
//! Every writer's records are decoded into the columns that a table of its schema alone would have; what
//! is in them is then written as JSON (`json_write.rs`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::Fields;
use isk_model::{KafkaRecord, Offset, RecordBlock, WriterId};
use isk_schema::{FieldIdMap, SchemaText, ValueKind, ValueType, table_schema};

use crate::budget::MAX_BLOCK_CELLS;
use crate::columns::arrow_schema;
use crate::decoder::{DecodeFailure, RecordPart, WriterSchema};
use crate::error::{DecodeError, FailureStage, Fault, Read};
use crate::frame;
use crate::framed::{FramedDecoder, Parsed, Refusal};
use crate::json::Scanner;
use crate::json_write::{self, Row};
use crate::vectors::Texts;

/// The most bytes that the texts of one block may have. Names can make a text much longer than its record.
const MAX_BLOCK_TEXT: usize = 256 << 20;

/// Makes one column of text.
pub(crate) struct JsonTexts {
    part: RecordPart,
    writers: HashMap<WriterId, Result<Writer, Refusal>>,
}

/// How the records of one schema become text.
enum Writer {
    /// They are JSON.
    Json,
    Columns(Box<Columns>),
}

/// The columns of one writer's records.
struct Columns {
    decoder: FramedDecoder,
    ty: Arc<ValueType>,
}

/// The rows of one writer in a block.
struct Decoded<'w> {
    ty: &'w ValueType,
    columns: Vec<ArrayRef>,
}

impl JsonTexts {
    pub(crate) fn new(part: RecordPart) -> Self {
        Self { part, writers: HashMap::new() }
    }

    pub(crate) fn part(&self) -> RecordPart {
        self.part
    }

    pub(crate) fn knows(&self, id: WriterId) -> bool {
        self.writers.contains_key(&id)
    }

    pub(crate) fn add_writer(
        &mut self,
        id: WriterId,
        schema: &WriterSchema,
        parsed: &Result<Parsed, Refusal>,
    ) {
        let writer = match (schema, parsed) {
            (WriterSchema::Known(_), Ok(Parsed::Json(..))) => Ok(Writer::Json),
            (WriterSchema::Known(text), Ok(_)) => Columns::new(self.part, text, parsed, id)
                .map(|columns| Writer::Columns(Box::new(columns)))
                .map_err(|why| (FailureStage::Resolution, format!("writer schema {id}: {why}"))),
            (_, Err(refusal)) => Err(refusal.clone()),
            (WriterSchema::Missing { cause }, Ok(_)) => Err((FailureStage::Lookup, cause.clone())),
        };
        self.writers.insert(id, writer);
    }

    /// The column of a block.
    pub(crate) fn decode<'a>(
        &mut self,
        block: &'a RecordBlock,
        part: impl Fn(&KafkaRecord<'a>) -> Option<&'a [u8]>,
        failures: &mut Vec<DecodeFailure>,
    ) -> Result<Vec<ArrayRef>, DecodeError> {
        let before = failures.len();
        let part_of = self.part;
        let framed = |record: &KafkaRecord<'a>| {
            Some(frame::of_record(record, part_of, part(record)?).ok()?.writer)
        };
        let ids: HashSet<WriterId> = block.iter().filter_map(|record| framed(&record)).collect();
        if let Some(unknown) = ids.iter().find(|id| !self.knows(**id)) {
            return Err(DecodeError::UnknownWriter(*unknown));
        }
        let mut decoded: HashMap<WriterId, Result<Option<Decoded<'_>>, &Refusal>> = HashMap::new();
        for (id, writer) in self.writers.iter_mut().filter(|(id, _)| ids.contains(id)) {
            let rows = match writer {
                Ok(Writer::Json) => Ok(None),
                Err(refusal) => Err(&*refusal),
                Ok(Writer::Columns(writer)) => {
                    let Columns { decoder, ty } = writer.as_mut();
                    let own = |record: &KafkaRecord<'a>| {
                        part(record).filter(|_| framed(record) == Some(*id))
                    };
                    Ok(Some(Decoded {
                        ty,
                        columns: decoder.decode(block, own, failures, &mut Vec::new())?,
                    }))
                }
            };
            decoded.insert(*id, rows);
        }
        let failed: HashSet<Offset> = failures[before..].iter().map(|f| f.offset).collect();

        let mut texts = Texts::new();
        let mut room = Room { cells: MAX_BLOCK_CELLS, bytes: MAX_BLOCK_TEXT };
        for (at, record) in block.iter().enumerate() {
            let bytes = match part(&record) {
                Some(bytes) if !failed.contains(&record.offset) => bytes,
                _ => {
                    texts.null();
                    continue;
                }
            };
            let framed = frame::of_record(&record, self.part, bytes);
            let schema_id = framed.as_ref().ok().and_then(|framed| framed.writer.id());
            let written = match framed {
                Ok(framed) => match decoded.get(&framed.writer) {
                    Some(Ok(Some(rows))) => written(rows, at, &mut room, &mut texts),
                    Some(Ok(None)) => as_it_is(framed.payload, &mut room, &mut texts),
                    Some(Err((stage, cause))) => Err(Fault::at(*stage, cause.as_str())),
                    None => return Err(DecodeError::UnknownWriter(framed.writer)),
                },
                // A zero byte begins no JSON and no text: it was to be framed.
                Err(fault) if bytes.first() == Some(&0) => Err(fault),
                Err(_) => match (as_it_is(bytes, &mut room, &mut texts), self.part) {
                    (Err(_), RecordPart::Key) => quoted(bytes, at, &mut room, &mut texts),
                    (written, _) => written,
                },
            };
            if let Err(fault) = written {
                texts.truncate(at);
                texts.null();
                failures.push(DecodeFailure {
                    offset: record.offset,
                    row: at,
                    part: self.part,
                    stage: fault.stage(),
                    cause: fault.to_string(),
                    schema_id,
                });
            }
        }
        Ok(vec![Arc::new(texts.finish()?)])
    }
}

impl Columns {
    /// The columns of a table of this schema alone.
    fn new(
        part: RecordPart,
        text: &SchemaText,
        parsed: &Result<Parsed, Refusal>,
        id: WriterId,
    ) -> Result<Self, String> {
        let alone = SchemaText { version: 1, ..text.clone() };
        let table = table_schema(&[alone], &[], &mut FieldIdMap::default());
        let table = table.map_err(|e| e.to_string())?;
        let schema = arrow_schema(&table).map_err(|e| e.to_string())?;
        let fields: Fields = schema.fields().iter().take(table.value_columns()).cloned().collect();
        let ValueKind::Framed(format, ty) = table.value else {
            return Err("it has no columns".to_owned());
        };
        let decoder = FramedDecoder::new(part, format, &ty, fields).map_err(|e| e.to_string())?;
        let mut decoder = decoder.spread();
        decoder.add_writer(id, parsed);
        Ok(Self { decoder, ty })
    }
}

/// What the texts of a block may still take.
struct Room {
    /// Of elements that are looked at.
    cells: u64,
    bytes: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) -> Read<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            Fault::new(format!(
                "its block of records has more than {MAX_BLOCK_TEXT} bytes as JSON text"
            ))
        })?;
        Ok(())
    }
}

/// A row as JSON.
fn written(rows: &Decoded<'_>, at: usize, room: &mut Room, texts: &mut Texts) -> Read<()> {
    let row = Row { columns: &rows.columns, ty: rows.ty };
    if row.is_null(at) {
        texts.null();
        return Ok(());
    }
    texts.push_with(|data| {
        let start = data.len();
        json_write::row(data, row, at, room.bytes)?;
        room.take(data.len() - start)
    })
}

/// A payload that is JSON: its own text. `null` is null, as in columns.
fn as_it_is(payload: &[u8], room: &mut Room, texts: &mut Texts) -> Read<()> {
    let mut scanner = Scanner::new(payload, room.cells)?;
    let text = scanner.any()?;
    scanner.end()?;
    if text == "null" {
        texts.null();
        return Ok(());
    }
    room.take(text.len())?;
    texts.push(text.as_bytes())
}

/// Text that is no JSON, as a JSON string.
fn quoted(bytes: &[u8], at: usize, room: &mut Room, texts: &mut Texts) -> Read<()> {
    texts.truncate(at);
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Fault::new("it is neither framed, nor JSON, nor UTF-8"))?;
    room.take(text.len())?;
    texts.push_with(|data| json_write::string(data, text))
}
