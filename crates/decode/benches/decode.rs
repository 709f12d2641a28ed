//! Records per second of this decoder, next to raw arrow-avro and for each format, on one thread:
//! `cargo bench -p isk-decode`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::types::Value;
use apache_avro::{Schema, to_avro_datum};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use isk_decode::{TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, TimestampType,
};
use isk_schema::{FieldIdMap, SchemaText, table_schema};

const ROWS: i64 = 8192;
const ID: i32 = 7;
const SECONDS: f64 = 3.0;

const NARROW: &str = r#"{"type":"record","name":"Transaction","fields":[
    {"name":"TransactionID","type":"string"},
    {"name":"AccountID","type":"string"},
    {"name":"TransactionType","type":"string"},
    {"name":"TransactionAmount","type":"double"},
    {"name":"BranchID","type":"string"},
    {"name":"CustomerFlaggedFraud","type":"boolean"},
    {"name":"TransactionTime","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

const WIDE: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"id","type":"long"},
    {"name":"user","type":{"type":"record","name":"User","fields":[
        {"name":"name","type":"string"},{"name":"mail","type":["null","string"]},
        {"name":"age","type":["null","int"]},
        {"name":"address","type":{"type":"record","name":"Address","fields":[
            {"name":"street","type":"string"},{"name":"zip","type":"string"},
            {"name":"lat","type":"double"},{"name":"lon","type":"double"}]}}]}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B","C"]}},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"scores","type":{"type":"array","items":"double"}},
    {"name":"attributes","type":{"type":"map","values":"string"}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"a","type":["null","long"]},{"name":"b","type":["null","long"]},
    {"name":"c","type":["null","string"]},{"name":"d","type":"float"}]}"#;

fn text(s: String) -> Value {
    Value::String(s)
}

fn maybe(index: u32, value: Value) -> Value {
    Value::Union(index, Box::new(value))
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn narrow(i: i64) -> Value {
    record(vec![
        ("TransactionID", text(format!("8f14e45f-ceea-467f-a{:03x}-{i:012x}", i % 4096))),
        ("AccountID", text(format!("A{:05}", i * 7919 % 100_000))),
        ("TransactionType", text(["DEBIT", "CREDIT"][(i % 2) as usize].to_owned())),
        ("TransactionAmount", Value::Double(i as f64 / 7.0)),
        ("BranchID", text(format!("B{:03}", i % 500))),
        ("CustomerFlaggedFraud", Value::Boolean(i % 50 == 0)),
        ("TransactionTime", Value::TimestampMillis(1_700_000_000_000 + i)),
    ])
}

fn wide(i: i64) -> Value {
    let address = record(vec![
        ("street", text(format!("{} Long Street", i % 900))),
        ("zip", text(format!("{:05}", i % 99_999))),
        ("lat", Value::Double(i as f64 / 3.0)),
        ("lon", Value::Double(i as f64 / 5.0)),
    ]);
    let mail =
        if i % 3 == 0 { maybe(0, Value::Null) } else { maybe(1, text(format!("u{i}@mail.org"))) };
    let user = record(vec![
        ("name", text(format!("user {i}"))),
        ("mail", mail),
        ("age", maybe(1, Value::Int((i % 90) as i32))),
        ("address", address),
    ]);
    let kind = (i % 3) as u32;
    record(vec![
        ("id", Value::Long(i)),
        ("user", user),
        ("kind", Value::Enum(kind, ["A", "B", "C"][kind as usize].to_owned())),
        ("tags", Value::Array(vec![text("alpha".into()), text(format!("t{}", i % 10))])),
        ("scores", Value::Array((0..3).map(|j| Value::Double((i + j) as f64)).collect())),
        (
            "attributes",
            Value::Map(
                [("k1".to_owned(), text("v1".into())), ("k2".to_owned(), text(format!("{i}")))]
                    .into(),
            ),
        ),
        ("at", Value::TimestampMicros(1_700_000_000_000_000 + i)),
        ("day", Value::Date(19_000 + (i % 400) as i32)),
        ("a", maybe(1, Value::Long(i * 3))),
        ("b", maybe(0, Value::Null)),
        ("c", maybe(1, text(format!("comment {i}")))),
        ("d", Value::Float(i as f32)),
    ])
}

/// Prints the speed of the fastest batch: the one other processes disturbed least.
fn measure(what: &str, bytes: usize, mut batch: impl FnMut()) {
    batch();
    let start = Instant::now();
    let mut fastest = Duration::MAX;
    while start.elapsed() < Duration::from_secs_f64(SECONDS) {
        let began = Instant::now();
        batch();
        fastest = fastest.min(began.elapsed());
    }
    let rows = ROWS as f64 / fastest.as_secs_f64() / 1e6;
    let megabytes = bytes as f64 / fastest.as_secs_f64() / 1e6;
    println!("{what:40} {rows:8.2} M rows/s {megabytes:8.0} MB/s");
}

fn compare(name: &str, schema: &str, value: fn(i64) -> Value) {
    let apache = Schema::parse_str(schema).unwrap();
    let values: Vec<Vec<u8>> = (0..ROWS)
        .map(|i| {
            let mut framed = vec![0];
            framed.extend(ID.to_be_bytes());
            framed.extend(to_avro_datum(&apache, value(i)).unwrap());
            framed
        })
        .collect();
    let bytes: usize = values.iter().map(Vec::len).sum();
    println!("{name}: {} B a record", bytes / ROWS as usize);

    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    let fingerprint = Fingerprint::Id(ID.cast_unsigned());
    store.set(fingerprint, AvroSchema::new(schema.to_owned())).unwrap();
    let mut raw = ReaderBuilder::new()
        .with_batch_size(ROWS as usize)
        .with_writer_schema_store(store)
        .with_active_fingerprint(fingerprint)
        .build_decoder()
        .unwrap();
    measure("  arrow-avro, unchecked", bytes, || {
        for value in &values {
            raw.decode(value).unwrap();
        }
        black_box(raw.flush().unwrap());
    });

    let id = RegistrySchemaId(ID);
    let writer = SchemaText {
        version: 1,
        id,
        format: SchemaFormat::Avro,
        text: schema.to_owned(),
        references: vec![],
    };
    let table =
        table_schema(std::slice::from_ref(&writer), &[], &mut FieldIdMap::default()).unwrap();
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    decoder.add_writer(id, WriterSchema::Known(writer));
    let block = |poison: Option<usize>| {
        let mut block = RecordBlock::new();
        for (i, value) in values.iter().enumerate() {
            let value = if poison == Some(i) { &value[..value.len() - 3] } else { value };
            let offset = Offset(i as i64);
            block.push(offset, 1, TimestampType::CreateTime, Some(b"key"), Some(value), []);
        }
        block
    };
    let (good, poisoned) = (block(None), block(Some(4000)));
    measure("  this decoder, metadata columns too", bytes, || {
        black_box(decoder.decode(&good).unwrap());
    });
    measure("  the same, one poison record of 8192", bytes, || {
        let batch = decoder.decode(&poisoned).unwrap();
        assert_eq!(black_box(batch).failures.len(), 1);
    });
}

const NARROW_JSON: &str = r#"{"type":"object","properties":{
    "TransactionID":{"type":"string"},"AccountID":{"type":"string"},
    "TransactionType":{"type":"string"},"TransactionAmount":{"type":"number"},
    "BranchID":{"type":"string"},"CustomerFlaggedFraud":{"type":"boolean"},
    "TransactionTime":{"type":"integer"}}}"#;

const WIDE_JSON: &str = r#"{"type":"object","properties":{
    "id":{"type":"integer"},
    "user":{"type":"object","properties":{
        "name":{"type":"string"},"mail":{"type":["null","string"]},
        "age":{"type":["null","integer"]},
        "address":{"type":"object","properties":{
            "street":{"type":"string"},"zip":{"type":"string"},
            "lat":{"type":"number"},"lon":{"type":"number"}}}}},
    "kind":{"enum":["A","B","C"]},
    "tags":{"type":"array","items":{"type":"string"}},
    "scores":{"type":"array","items":{"type":"number"}},
    "attributes":{"type":"object","additionalProperties":{"type":"string"}},
    "at":{"type":"integer"},"day":{"type":"integer"},
    "a":{"type":["null","integer"]},"b":{"type":["null","integer"]},
    "c":{"type":["null","string"]},"d":{"type":"number"}}}"#;

/// The same rows as JSON, members in the schema's order.
fn json(name: &str, schema: &str, value: fn(i64) -> Value) {
    let payload = |value: Value| {
        let mut out = String::new();
        write_json(value, &mut out);
        out.into_bytes()
    };
    let payloads = (0..ROWS).map(|i| payload(value(i))).collect();
    other(name, SchemaFormat::Json, schema, payloads);
}

fn write_json(value: Value, out: &mut String) {
    let list = |out: &mut String, ends: [char; 2], items: Vec<(Option<String>, Value)>| {
        out.push(ends[0]);
        for (i, (key, item)) in items.into_iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            if let Some(key) = key {
                out.push_str(&format!("{key:?}:"));
            }
            write_json(item, out);
        }
        out.push(ends[1]);
    };
    match value {
        Value::Null => out.push_str("null"),
        Value::String(s) | Value::Enum(_, s) => out.push_str(&format!("{s:?}")),
        Value::Long(n) | Value::TimestampMillis(n) | Value::TimestampMicros(n) => {
            out.push_str(&n.to_string());
        }
        Value::Int(n) | Value::Date(n) => out.push_str(&n.to_string()),
        Value::Double(n) => out.push_str(&n.to_string()),
        Value::Float(n) => out.push_str(&n.to_string()),
        Value::Boolean(b) => out.push_str(&b.to_string()),
        Value::Union(_, inner) => write_json(*inner, out),
        Value::Array(items) => {
            list(out, ['[', ']'], items.into_iter().map(|item| (None, item)).collect());
        }
        Value::Map(entries) => {
            list(out, ['{', '}'], entries.into_iter().map(|(k, v)| (Some(k), v)).collect());
        }
        Value::Record(fields) => {
            list(out, ['{', '}'], fields.into_iter().map(|(k, v)| (Some(k), v)).collect());
        }
        other => unreachable!("{other:?}"),
    }
}

const NARROW_PROTO: &str = r#"syntax = "proto3"; message Transaction {
    string TransactionID = 1; string AccountID = 2; string TransactionType = 3;
    double TransactionAmount = 4; string BranchID = 5; bool CustomerFlaggedFraud = 6;
    int64 TransactionTime = 7; }"#;

fn narrow_proto(i: i64) -> Vec<u8> {
    let mut out = vec![0];
    let Value::Record(fields) = narrow(i) else { return out };
    for (number, (_, value)) in (1u8..).zip(fields) {
        match value {
            Value::String(s) => {
                out.extend([number << 3 | 2, s.len() as u8]);
                out.extend(s.as_bytes());
            }
            Value::Double(d) => {
                out.push(number << 3 | 1);
                out.extend(d.to_le_bytes());
            }
            Value::Boolean(true) => out.extend([number << 3, 1]),
            Value::TimestampMillis(mut n) => {
                out.push(number << 3);
                while n >= 0x80 {
                    out.push(n as u8 | 0x80);
                    n >>= 7;
                }
                out.push(n as u8);
            }
            _ => {}
        }
    }
    out
}

/// This decoder on payloads of another format.
fn other(name: &str, format: SchemaFormat, schema: &str, payloads: Vec<Vec<u8>>) {
    let id = RegistrySchemaId(ID);
    let writer = SchemaText { version: 1, id, format, text: schema.to_owned(), references: vec![] };
    let table =
        table_schema(std::slice::from_ref(&writer), &[], &mut FieldIdMap::default()).unwrap();
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    decoder.add_writer(id, WriterSchema::Known(writer));
    let mut block = RecordBlock::new();
    let mut bytes = 0;
    for (offset, payload) in (0..).zip(payloads) {
        let mut framed = vec![0];
        framed.extend(ID.to_be_bytes());
        framed.extend(payload);
        bytes += framed.len();
        let (key, value) = (Some(&b"key"[..]), Some(&framed[..]));
        block.push(Offset(offset), 1, TimestampType::CreateTime, key, value, []);
    }
    println!("{name}, {format}: {} B a record", bytes / ROWS as usize);
    measure("  this decoder, metadata columns too", bytes, || {
        let batch = decoder.decode(&block).unwrap();
        assert!(black_box(batch).failures.is_empty());
    });
}

fn main() {
    compare("narrow", NARROW, narrow);
    json("narrow", NARROW_JSON, narrow);
    other("narrow", SchemaFormat::Protobuf, NARROW_PROTO, (0..ROWS).map(narrow_proto).collect());
    compare("wide nested", WIDE, wide);
    json("wide nested", WIDE_JSON, wide);
}
