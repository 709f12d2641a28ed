//! Where a record's schema is: before its payload, in a header, or nowhere in it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use isk_decode::{DecodedBatch, TopicDecoder, WriterSchema};
use isk_model::{
    Offset, RecordBlock, RecordHeader, RegistrySchemaId, SchemaFormat, TimestampType, WriterId,
};
use isk_schema::{CONFIGURED, FieldIdMap, SchemaText, table_schema};
use support::{Plain, decoder_of, framed, plain, rows};

const GUID: [u8; 16] = [0xab; 16];
const AVRO: &str = r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"},{"name":"s","type":"string"}]}"#;
const JSON: &str =
    r#"{"type":"object","properties":{"n":{"type":"integer"},"s":{"type":"string"}}}"#;
const PROTO: &str = r#"syntax = "proto3"; message First { Second other = 1; } message Second { bool b = 1; }
    message R { int64 n = 1; string s = 2; First first = 3; }"#;

fn schema(id: RegistrySchemaId, format: SchemaFormat, text: &str) -> SchemaText {
    SchemaText { version: 1, id, format, text: text.to_owned(), references: Vec::new() }
}

/// Records of a key, a value and the value's or key's header.
type Record<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, Option<(&'a str, Option<&'a [u8]>)>);

fn block(records: &[Record<'_>]) -> RecordBlock {
    let mut block = RecordBlock::new();
    for (offset, (key, value, header)) in (0..).zip(records) {
        let headers = header.map(|(key, value)| RecordHeader { key: key.as_bytes(), value });
        let other = RecordHeader { key: b"trace", value: Some(b"\x01\x02") };
        let headers = [other].into_iter().chain(headers);
        block.push(Offset(offset), 1, TimestampType::CreateTime, *key, *value, headers);
    }
    block
}

fn decoder(value: &SchemaText) -> TopicDecoder {
    let writers = std::slice::from_ref(value);
    let table = table_schema(writers, &[], &mut FieldIdMap::default()).unwrap();
    decoder_of(table, if value.id == CONFIGURED { &[] } else { writers })
}

fn keys(batch: &DecodedBatch) -> Vec<Plain> {
    let columns = batch.batch.columns();
    (0..batch.batch.num_rows()).map(|i| plain(&columns[columns.len() - 2], i)).collect()
}

fn row(n: i128, s: &str) -> Vec<Plain> {
    vec![Plain::Int(n), Plain::Text(s.to_owned())]
}

/// The columns of which all three schemas have the same.
fn two_columns(batch: &DecodedBatch) -> Vec<Vec<Plain>> {
    rows(batch).into_iter().map(|row| row[..2].to_vec()).collect()
}

const NULLS: [Plain; 2] = [Plain::Null, Plain::Null];

#[test]
fn a_header_names_the_schema_by_id_or_guid_and_the_payload_is_bare() {
    let payloads: [(SchemaFormat, &str, &[u8], &[u8]); 3] = [
        (SchemaFormat::Avro, AVRO, b"\x02\x02a", b""),
        (SchemaFormat::Json, JSON, br#"{"n":1,"s":"a"}"#, b""),
        // The third message of its file: its path follows the id in the header.
        (SchemaFormat::Protobuf, PROTO, b"\x08\x01\x12\x01a", b"\x02\x04"),
    ];
    for (format, text, payload, path) in payloads {
        let writer = schema(RegistrySchemaId(7), format, text);
        let mut decoder = decoder(&writer);
        let name = "__value_schema_id";
        let by_id = [&[0, 0, 0, 0, 7], path].concat();
        let by_guid = [&[1][..], &GUID, path].concat();
        let prefixed = framed(7, &[path, payload].concat());
        let (payload, prefixed) = (Some(payload), Some(&prefixed[..]));
        let block = block(&[
            (None, payload, Some((name, Some(&by_id)))),
            (None, payload, Some((name, Some(&by_guid)))),
            // Without one that says something, the schema stands before the payload.
            (None, prefixed, None),
            (None, prefixed, Some((name, None))),
            (None, prefixed, Some(("__key_schema_id", Some(&by_id)))),
            (None, payload, Some((name, Some(&[2, 0, 0, 0, 7])))),
            (None, payload, Some((name, Some(&by_guid[..16])))),
            (None, payload, Some((name, Some(b"")))),
            (None, payload, None),
            (None, None, Some((name, Some(&by_id)))),
        ]);
        let missing: Vec<WriterId> = decoder.missing_writers(&block).into_iter().collect();
        assert_eq!(missing, [WriterId::Guid(GUID)], "{format}");
        assert_eq!(missing[0].to_string(), "abababab-abab-abab-abab-abababababab");
        decoder.add_writer(missing[0], WriterSchema::Known(writer));
        let batch = decoder.decode(&block).unwrap();
        let mut want = vec![row(1, "a"); 5];
        want.resize(10, NULLS.to_vec());
        assert_eq!(two_columns(&batch), want, "{format}: {:?}", batch.failures);
        let failed: Vec<i64> = batch.failures.iter().map(|f| f.offset.0).collect();
        assert_eq!(failed, [5, 6, 7, 8], "{format}");
        assert!(batch.failures[0].cause.contains("__value_schema_id"));
    }
}

#[test]
fn bare_values_are_read_under_the_configured_schema() {
    let bare: [(SchemaFormat, &str, &[u8]); 3] = [
        (SchemaFormat::Avro, AVRO, b"\x02\x02a"),
        (SchemaFormat::Json, JSON, br#" {"s":"a","n":1}"#),
        (SchemaFormat::Protobuf, PROTO, b"\x12\x01a\x08\x01"),
    ];
    for (format, text, payload) in bare {
        let mut decoder = decoder(&schema(CONFIGURED, format, text));
        // A header is a header like others here.
        let header = ("__value_schema_id", Some(&[0, 0, 0, 0, 9][..]));
        let block = block(&[
            (None, Some(payload), None),
            (None, None, None),
            (None, Some(payload), Some(header)),
            (None, Some(&payload[..payload.len() - 1]), None),
            (None, Some(payload), None),
        ]);
        assert!(decoder.missing_writers(&block).is_empty());
        let batch = decoder.decode(&block).unwrap();
        let (good, null) = (row(1, "a"), NULLS.to_vec());
        assert_eq!(batch.failures.len(), 1, "{format}: {:?}", batch.failures);
        assert_eq!((batch.failures[0].offset, batch.failures[0].schema_id), (Offset(3), None));
        let want = [good.clone(), null.clone(), good.clone(), null, good];
        assert_eq!(two_columns(&batch), want, "{format}");
    }
}

#[test]
fn plain_values_are_those_of_kafkas_own_serializers() {
    let uuid = b"123e4567-e89b-12d3-a456-426614174000";
    let parsed = uuid::Uuid::try_parse_ascii(uuid).unwrap();
    let kinds: [(&str, &[u8], Plain); 7] = [
        ("string", "sü".as_bytes(), Plain::Text("sü".to_owned())),
        ("short", &(-2i16).to_be_bytes(), Plain::Int(-2)),
        ("int", &i32::MIN.to_be_bytes(), Plain::Int(i32::MIN.into())),
        ("long", &i64::MAX.to_be_bytes(), Plain::Int(i64::MAX.into())),
        ("float", &0.5f32.to_be_bytes(), Plain::Float(0.5f64.to_bits())),
        ("double", &(-1e300f64).to_be_bytes(), Plain::Float((-1e300f64).to_bits())),
        ("uuid", uuid, Plain::Bytes(parsed.as_bytes().to_vec())),
    ];
    for (kind, bytes, want) in kinds {
        let plain = schema(CONFIGURED, SchemaFormat::Plain, kind);
        let both = std::slice::from_ref(&plain);
        let table = table_schema(both, both, &mut FieldIdMap::default()).unwrap();
        let mut decoder = decoder_of(table, &[]);
        let wrong: &[u8] = if kind == "string" { b"\xff" } else { b"\x01" };
        let (bytes, wrong) = (Some(bytes), Some(wrong));
        let block = block(&[(bytes, bytes, None), (None, None, None), (wrong, wrong, None)]);
        let batch = decoder.decode(&block).unwrap();
        let want = vec![want, Plain::Null, Plain::Null];
        assert_eq!(keys(&batch), want, "{kind}");
        assert_eq!(rows(&batch).concat(), want, "{kind}");
        assert_eq!(batch.failures.len(), 2, "{kind}: {:?}", batch.failures);
    }
    let none = schema(CONFIGURED, SchemaFormat::Plain, "number");
    assert!(table_schema(&[none], &[], &mut FieldIdMap::default()).is_err());
}
