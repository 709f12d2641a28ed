//! Stages of failures, and the rows of the table of records that do not decode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::sync::Arc;

use isk_decode::{FailureStage, TopicDecoder, WriterSchema, arrow_schema, error_rows};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RecordHeader, RegistrySchemaId, TimestampType, WriterId,
};
use isk_schema::{FieldIdMap, error_table, table_schema};
use support::{Plain, block, framed, plain, text};

const READER: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"int"},
    {"name":"at","type":{"type":"int","logicalType":"time-millis"}}]}"#;
const OTHER: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"string"}]}"#;

fn decoder() -> (TopicDecoder, Arc<isk_schema::TableSchema>) {
    let (value, key) = ([text(1, READER)], [text(1, READER)]);
    let table = Arc::new(table_schema(&value, &key, &mut FieldIdMap::default()).unwrap());
    let mut decoder = TopicDecoder::new(Arc::clone(&table), KafkaPartition(3)).unwrap();
    decoder.add_writer(RegistrySchemaId(1), WriterSchema::Known(value[0].clone()));
    decoder.add_writer(RegistrySchemaId(2), WriterSchema::Known(text(2, OTHER)));
    let missing = WriterSchema::Missing { cause: "40403".into() };
    decoder.add_writer(RegistrySchemaId(7), missing.clone());
    decoder.add_writer(WriterId::Guid([0xab; 16]), missing);
    decoder.add_writer(RegistrySchemaId(9), WriterSchema::Missing { cause: "40403".into() });
    (decoder, table)
}

#[test]
fn every_failure_has_its_stage() {
    for (value, stage) in [
        (vec![], FailureStage::Framing),
        (vec![0, 0], FailureStage::Framing),
        (vec![1, 0, 0, 0, 1, 2, 2], FailureStage::Framing),
        (framed(9, &[2, 2]), FailureStage::Lookup),
        (framed(2, &[2, 2]), FailureStage::Resolution),
        (framed(1, &[2]), FailureStage::Decode),
        (framed(1, &[2, 2, 2]), FailureStage::Decode),
        // A time of day of -1 ms.
        (framed(1, &[2, 1]), FailureStage::Conversion),
    ] {
        let failures = decoder().0.decode(&block([Some(&value)])).unwrap().failures;
        let stages: Vec<_> = failures.iter().map(|f| (f.row, f.stage)).collect();
        assert_eq!(stages, [(0, stage)], "{value:?}: {failures:?}");
    }
}

#[test]
fn a_record_that_fails_is_one_row_with_its_bytes() {
    let (mut decoder, table) = decoder();
    let (good, lost) = (framed(1, &[2, 2]), framed(9, &[2, 2]));
    let guid = [&[1][..], &[0xab; 16]].concat();
    let id = [0, 0, 0, 0, 7];
    let mut block = RecordBlock::new();
    let mut push = |offset, key: Option<&[u8]>, value: Option<&[u8]>, header: &[u8]| {
        let key_header = RecordHeader { key: b"__key_schema_id", value: Some(&id) };
        let value_header = RecordHeader { key: b"__value_schema_id", value: Some(header) };
        let headers = if header.is_empty() { vec![] } else { vec![key_header, value_header] };
        block.push(Offset(offset), 1000, TimestampType::CreateTime, key, value, headers);
    };
    push(1, Some(&good), Some(&good), &[]);
    push(2, Some(b"k"), None, &guid);
    push(5, None, Some(&lost), &[]);
    push(6, Some(b""), Some(b"v"), &guid);
    push(7, None, None, &[]);
    let failures = decoder.decode(&block).unwrap().failures;
    assert_eq!(failures.len(), 4);
    let errors = error_table(&table).unwrap();
    let schema = arrow_schema(&errors).unwrap();
    let rows = error_rows(&block, &failures, KafkaPartition(3), &schema).unwrap();
    let texts = |name: &str| -> Vec<Plain> {
        let column = rows.column_by_name(name).unwrap();
        (0..rows.num_rows()).map(|row| plain(column, row)).collect()
    };
    let text = |text: &str| Plain::Text(text.to_owned());
    let bytes = |bytes: &[u8]| Plain::Bytes(bytes.to_vec());
    assert_eq!(texts("kafka_offset"), [2, 5, 6].map(Plain::Int));
    assert_eq!(texts("kafka_partition"), [3, 3, 3].map(Plain::Int));
    assert_eq!(texts("part"), ["key", "value", "value, key"].map(text));
    assert_eq!(texts("stage"), ["lookup", "lookup", "lookup"].map(text));
    assert_eq!(texts("schema_id"), [Plain::Int(7), Plain::Int(9), Plain::Null]);
    let guid = "abababab-abab-abab-abab-abababababab";
    assert_eq!(texts("schema_guid"), [Plain::Null, Plain::Null, text(guid)]);
    assert_eq!(texts("kafka_key"), [bytes(b"k"), Plain::Null, bytes(b"")]);
    assert_eq!(texts("kafka_value"), [Plain::Null, bytes(&lost), bytes(b"v")]);
    let Plain::Text(both) = &texts("cause")[2] else { panic!("no cause") };
    assert!(both.starts_with("value: ") && both.contains("; key: ") && both.contains("40403"));
    // Nothing fails: nothing is shown.
    let none = error_rows(&block, &[], KafkaPartition(3), &schema).unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (0, 11));
}
