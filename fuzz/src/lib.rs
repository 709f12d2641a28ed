//! What is fuzzed: each target takes any bytes and must neither panic nor break what it promises.
//!
//! `make fuzz` runs each under libFuzzer. The inputs it found worth keeping are in `fuzz/corpus`, and a test runs
//! them all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "to panic is what a fuzzer is told by")]

mod access_file;
mod discovery;
mod edge;
mod json_text;
mod object_keys;
mod record_types;
mod tokens;

use std::cell::RefCell;
use std::sync::Arc;
use std::thread::LocalKey;

use isk_decode::{DecodedBatch, TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RecordHeader, RegistrySchemaId, SchemaFormat,
    TimestampType,
};
use isk_schema::{CONFIGURED, FieldIdMap, SchemaText, table_schema};

/// The targets.
pub const NAMES: [&str; 24] = [
    "avro",
    "json",
    "protobuf",
    "framing",
    "avro-text",
    "protobuf-json",
    "json-text",
    "record-types",
    "discovery",
    "avro-schema",
    "json-schema",
    "protobuf-schema",
    "record-types-schema",
    "registry",
    "access-file",
    "catalog",
    "http-head",
    "object-key",
    "s3",
    "s3-xml",
    "scan-filter",
    "signature",
    "table-name",
    "token",
];

/// The target of a name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    Some(match name {
        "avro" => |data| with(&AVRO_DECODER, data),
        "json" => |data| with(&JSON_DECODER, data),
        "protobuf" => |data| with(&PROTOBUF_DECODER, data),
        "framing" => framing,
        "avro-text" => json_text::avro,
        "protobuf-json" => json_text::protobuf,
        "json-text" => json_text::layout,
        "record-types" => record_types::records,
        "discovery" => discovery::sample,
        "avro-schema" => |data| schema(SchemaFormat::Avro, data),
        "json-schema" => |data| schema(SchemaFormat::Json, data),
        "protobuf-schema" => {
            let_caught_panics_pass();
            |data| schema(SchemaFormat::Protobuf, data)
        }
        "record-types-schema" => {
            let_caught_panics_pass();
            record_types::schemas
        }
        "registry" => isk_kafka::read_any_answer,
        "access-file" => access_file::files,
        "catalog" => edge::catalog::requests,
        "http-head" => edge::heads::heads,
        "object-key" => object_keys::keys,
        "s3" => edge::gateway::requests,
        "s3-xml" => edge::xml::documents,
        "scan-filter" => edge::filters::predicates,
        "signature" => edge::signatures::requests,
        "table-name" => object_keys::tables,
        "token" => tokens::tokens,
        _ => return None,
    })
}

/// libFuzzer would end at panics of the Protobuf compiler's, which are caught; others still end it.
fn let_caught_panics_pass() {
    std::panic::set_hook(Box::new(|_| {}));
}

const AVRO: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"a","type":"long"},{"name":"b","type":["null","string"]},
    {"name":"c","type":{"type":"array","items":{"type":"record","name":"I","fields":[
        {"name":"x","type":"int"},{"name":"y","type":{"type":"map","values":["null","double"]}}]}}},
    {"name":"d","type":{"type":"enum","name":"E","symbols":["A","B"]}},
    {"name":"e","type":{"type":"fixed","name":"F","size":3}},
    {"name":"f","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}},
    {"name":"g","type":{"type":"int","logicalType":"time-millis"}},
    {"name":"h","type":{"type":"long","logicalType":"timestamp-nanos"}},
    {"name":"i","type":{"type":"string","logicalType":"uuid"}},
    {"name":"j","type":["long","boolean","bytes","float"]}]}"#;

const JSON: &str = r#"{"type":"object","additionalProperties":{"type":"number"},"properties":{
    "a":{"type":"integer"},"b":{"type":["null","string"]},"c":{"type":"array","items":{"type":"object",
    "properties":{"x":{"type":"boolean"},"y":{"type":"object","additionalProperties":{"type":"string"}}}}},
    "d":{"type":"string","format":"date-time"},"e":{"type":"string","format":"date"},
    "f":{"type":"string","format":"uuid"},"g":{},"h":{"type":"number"},
    "i":{"title":"org.apache.kafka.connect.data.Decimal","type":"number","connect.type":"bytes",
        "connect.parameters":{"scale":"2"}},
    "j":{"type":"string","connect.type":"bytes"}}}"#;

const PROTOBUF: &str = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    message R { int64 a = 1; sint32 b = 2; fixed64 c = 3; float d = 4; string e = 5; bytes f = 6; E g = 7;
        repeated int32 h = 8; map<string, R2> i = 9; oneof o { string j = 10; R2 k = 11; bool l = 12; }
        google.protobuf.Timestamp m = 13; google.protobuf.Int64Value n = 14; optional uint64 p = 15; }
    message R2 { repeated R2 more = 1; int32 x = 2; repeated R3 y = 3; map<bool, sint64> z = 4; }
    message R3 { double q = 1; string r = 2; }
    enum E { ZERO = 0; ONE = 1; }"#;

const ID: RegistrySchemaId = RegistrySchemaId(7);

fn text(id: RegistrySchemaId, format: SchemaFormat, text: &str) -> SchemaText {
    SchemaText { version: 1, id, format, text: text.to_owned(), references: Vec::new() }
}

fn decoder(format: SchemaFormat, schema: &str) -> TopicDecoder {
    let (writer, bare) = (text(ID, format, schema), text(CONFIGURED, format, schema));
    let table =
        table_schema(std::slice::from_ref(&writer), &[bare], &mut FieldIdMap::default()).unwrap();
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    decoder.add_writer(ID, WriterSchema::Known(writer));
    decoder
}

thread_local! {
    static AVRO_DECODER: RefCell<TopicDecoder> = RefCell::new(decoder(SchemaFormat::Avro, AVRO));
    static JSON_DECODER: RefCell<TopicDecoder> = RefCell::new(decoder(SchemaFormat::Json, JSON));
    static PROTOBUF_DECODER: RefCell<TopicDecoder> =
        RefCell::new(decoder(SchemaFormat::Protobuf, PROTOBUF));
}

/// Decodes the bytes as a framed value's payload and as a bare key, a good record on both sides.
fn with(decoder: &'static LocalKey<RefCell<TopicDecoder>>, data: &[u8]) {
    decode(decoder, data);
}

fn decode(decoder: &'static LocalKey<RefCell<TopicDecoder>>, data: &[u8]) -> DecodedBatch {
    let mut framed = vec![0];
    framed.extend(ID.0.to_be_bytes());
    framed.extend(data);
    let mut block = RecordBlock::new();
    block.push(Offset(0), 1, TimestampType::CreateTime, None, None, []);
    block.push(Offset(1), 1, TimestampType::CreateTime, Some(data), Some(&framed), []);
    block.push(Offset(2), 1, TimestampType::CreateTime, None, None, []);
    decoder.with_borrow_mut(|decoder| {
        let once = decoder.decode(&block).unwrap();
        // A row is a row whatever it is made of, neighbours are let alone, and twice is the same.
        assert_eq!(once.batch.num_rows(), 3);
        assert!(once.failures.iter().all(|failure| failure.offset == Offset(1)));
        let again = decoder.decode(&block).unwrap();
        assert!(once.batch == again.batch || format!("{:?}", once.batch).contains("NaN"));
        assert_eq!(once.failures, again.failures);
        once
    })
}

/// Cuts the bytes into records with keys, values and headers that may name schemas.
fn framing(data: &[u8]) {
    let names: [&[u8]; 3] = [b"__value_schema_id", b"__key_schema_id", b"other"];
    let mut block = RecordBlock::new();
    for (offset, record) in (0..).zip(data.split(|byte| *byte == 0xfe)) {
        let mut parts = record.split(|byte| *byte == 0xfd);
        let (key, value) = (parts.next(), parts.next());
        let headers =
            names.iter().zip(parts).map(|(key, value)| RecordHeader { key, value: Some(value) });
        block.push(Offset(offset), 1, TimestampType::CreateTime, key, value, headers);
    }
    let writer = text(ID, SchemaFormat::Protobuf, PROTOBUF);
    let both = [writer.clone()];
    let table = table_schema(&both, &both, &mut FieldIdMap::default()).unwrap();
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    for id in decoder.missing_writers(&block) {
        decoder.add_writer(id, WriterSchema::Known(writer.clone()));
    }
    let batch = decoder.decode(&block).unwrap();
    assert_eq!(batch.batch.num_rows(), block.len());
}

/// Up to a zero byte a schema, then a value; and the same ids whenever the schema is walked.
fn schema(format: SchemaFormat, data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let Some(Ok(schema)) = parts.next().map(std::str::from_utf8) else { return };
    let history = [text(CONFIGURED, format, schema)];
    let mut ids = FieldIdMap::default();
    let Ok(table) = table_schema(&history, &[], &mut ids) else { return };
    let again = table_schema(&history, &[], &mut ids).unwrap();
    assert_eq!(table.iceberg, again.iceberg);
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    let mut block = RecordBlock::new();
    let value = parts.next();
    block.push(Offset(0), 1, TimestampType::CreateTime, None, value, []);
    assert_eq!(decoder.decode(&block).unwrap().batch.num_rows(), 1);
}
