//! Several types of record in one topic: a record is of one type at the most, and the same in its column as in its table.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use isk_decode::{TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, TimestampType,
};
use isk_schema::{FieldIdMap, SchemaText, TableSchema, TypedSchema, record_types_schema};

use crate::text;

/// What records are written with. The last ones are of no type of the table's, or of no named type.
const WRITERS: [(SchemaFormat, &str); 9] = [
    (
        SchemaFormat::Avro,
        r#"{"type":"record","name":"a.Order","fields":[{"name":"a","type":"long"},
            {"name":"b","type":["null","string"]},{"name":"c","type":{"type":"array","items":"int"}}]}"#,
    ),
    // One that was called otherwise before, and grew.
    (
        SchemaFormat::Avro,
        r#"{"type":"record","name":"b.Order","aliases":["a.Order"],"fields":[{"name":"a","type":"double"},
            {"name":"d","type":{"type":"map","values":"long"},"default":{}}]}"#,
    ),
    (SchemaFormat::Avro, r#"{"type":"enum","name":"Colour","symbols":["RED","BLUE"]}"#),
    (
        SchemaFormat::Json,
        r#"{"title":"Payment","type":"object","isk.rest":"_rest","properties":{"sum":{"type":"number"},
            "at":{"type":"string","format":"date-time"},"who":{"type":"object","properties":{"x":{"type":"integer"}}}}}"#,
    ),
    (
        SchemaFormat::Protobuf,
        r#"syntax = "proto3"; package p; message Sent { string to = 1; repeated int32 n = 2;
            message Inner { bytes b = 1; } Inner inner = 3; } message Lost { int64 id = 1; Lost more = 2; }"#,
    ),
    (SchemaFormat::Avro, r#"{"type":"record","name":"Other","fields":[]}"#),
    (SchemaFormat::Json, r#"{"type":"object","properties":{"sum":{"type":"number"}}}"#),
    (SchemaFormat::Avro, r#"["null","long"]"#),
    (SchemaFormat::Protobuf, r#"syntax = "proto3"; message Elsewhere { int32 x = 1; }"#),
];

/// How many of them the table's types are of.
const KNOWN: usize = 5;

struct Tables {
    several: TopicDecoder,
    one_of: Vec<TopicDecoder>,
}

thread_local! {
    static TABLES: RefCell<Tables> = RefCell::new(tables());
}

fn id(writer: usize) -> RegistrySchemaId {
    RegistrySchemaId(i32::try_from(writer).unwrap())
}

fn typed(texts: impl IntoIterator<Item = SchemaText>) -> Vec<TypedSchema> {
    let mut history = Vec::new();
    for schema in texts {
        for record_type in schema.record_types("t-value").unwrap_or_default() {
            let version = u32::try_from(history.len() + 1).unwrap();
            let schema = SchemaText { version, ..schema.clone() };
            history.push(TypedSchema { record_type, schema });
        }
    }
    history
}

fn tables() -> Tables {
    let known = WRITERS.iter().enumerate().take(KNOWN);
    let history = typed(known.map(|(at, (format, schema))| text(id(at), *format, schema)));
    let table = record_types_schema(&history, &[], &mut FieldIdMap::default()).unwrap();
    let kinds = table.record_kinds().iter();
    let one_of = kinds.map(|kind| table.of_type(&kind.column).unwrap().unwrap());
    let one_of = one_of.map(decoder).collect();
    Tables { several: decoder(table), one_of }
}

fn decoder(table: TableSchema) -> TopicDecoder {
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    for (at, (format, schema)) in WRITERS.iter().enumerate() {
        decoder.add_writer(id(at), WriterSchema::Known(text(id(at), *format, schema)));
    }
    let missing = WriterSchema::Missing { cause: "it is not there".to_owned() };
    decoder.add_writer(id(WRITERS.len()), missing);
    decoder
}

/// Cuts the bytes into records, whose first byte names a writer.
pub(crate) fn records(data: &[u8]) {
    let mut block = RecordBlock::new();
    for (offset, record) in (0..).zip(data.split(|byte| *byte == 0xfe)) {
        let value = record.split_first().map(|(first, payload)| {
            let writer = usize::from(*first) % (WRITERS.len() + 2);
            match writer <= WRITERS.len() {
                true => [&[0][..], &id(writer).0.to_be_bytes(), payload].concat(),
                false => payload.to_vec(),
            }
        });
        // Bare bytes may name any schema.
        let value = value.filter(|value| value.first() != Some(&0) || names_a_writer(value));
        block.push(Offset(offset), 1, TimestampType::CreateTime, None, value.as_deref(), []);
    }
    TABLES.with_borrow_mut(|tables| compare(tables, &block));
}

fn names_a_writer(value: &[u8]) -> bool {
    let id = value.get(1..5).and_then(|id| id.try_into().ok()).map(i32::from_be_bytes);
    id.is_none_or(|id| usize::try_from(id).is_ok_and(|id| id <= WRITERS.len()))
}

fn compare(tables: &mut Tables, block: &RecordBlock) {
    let several = tables.several.decode(block).unwrap();
    assert_eq!(several.batch.num_rows(), block.len());
    assert!(several.others.is_empty());
    let failed: HashSet<usize> = several.failures.iter().map(|failure| failure.row).collect();
    let mut shown: HashSet<usize> = HashSet::new();
    for (at, decoder) in tables.one_of.iter_mut().enumerate() {
        let one = decoder.decode(block).unwrap();
        let other: HashSet<usize> = one.others.iter().copied().collect();
        let failed_here: HashSet<usize> = one.failures.iter().map(|failure| failure.row).collect();
        // What fails for one type fails for all: it is not shown.
        assert!(failed_here.is_subset(&failed));
        let column = several.batch.column(at);
        for row in 0..block.len() {
            let here = !other.contains(&row) && !failed_here.contains(&row);
            assert!(!here || (shown.insert(row) && !failed.contains(&row)));
            let cell = column.slice(row, 1);
            match column.as_struct_opt() {
                _ if !here => assert!(cell.is_null(0)),
                Some(fields) => {
                    for (inner, own) in fields.columns().iter().zip(one.batch.columns()) {
                        let (inner, own) = (inner.slice(row, 1), own.slice(row, 1));
                        assert_eq!(format!("{inner:?}"), format!("{own:?}"));
                    }
                }
                None => {
                    let own = one.batch.column(0).slice(row, 1);
                    assert_eq!(format!("{cell:?}"), format!("{own:?}"));
                }
            }
        }
    }
}

/// The bytes are schemas between zero bytes, whose first byte is the format: the versions of types of record.
pub(crate) fn schemas(data: &[u8]) {
    let formats = [SchemaFormat::Avro, SchemaFormat::Json, SchemaFormat::Protobuf];
    let texts = data.split(|byte| *byte == 0).filter_map(|part| {
        let (first, schema) = part.split_first()?;
        let format = formats[usize::from(*first) % formats.len()];
        Some(text(RegistrySchemaId(1), format, std::str::from_utf8(schema).ok()?))
    });
    let history = typed(texts);
    let mut ids = FieldIdMap::default();
    let Ok(table) = record_types_schema(&history, &[], &mut ids) else { return };
    let again = record_types_schema(&history, &[], &mut ids).unwrap();
    assert_eq!(table.iceberg, again.iceberg);
    // Two columns of one name would be told apart by nobody.
    let columns: HashSet<String> =
        table.record_kinds().iter().map(|kind| kind.column.to_lowercase()).collect();
    assert_eq!(columns.len(), table.record_kinds().len());
    for kind in table.record_kinds() {
        let one = table.of_type(&kind.column).unwrap().unwrap();
        TopicDecoder::new(Arc::new(one), KafkaPartition(0)).unwrap();
    }
    TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
}
