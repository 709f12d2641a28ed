//! Records of random schemas, as Confluent's serializers wrote them, against what the producer's own library reads.
//!
//! `tests/differential.py` makes the file of them. A small one is here; `make differential` makes a large one, and
//! names it with `ISK_TEST_DIFFERENTIAL`.
//!
//! Beside them lies a file of records that Java programs wrote, and what they read back, in the same form: Avro and JSON by
//! Apicurio's serializers 2.6.13 in Confluent's framing, against its registry 3.3.3, Protobuf by Google's own library 3.25.5,
//! framed by hand. (Confluent's serializers for Java are in no public repository but their own.)
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::io::BufRead;

use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{FieldIdMap, SchemaText, table_schema};
use serde_json::{Value, json};
use support::{Plain, block, decoder_of, rows, sorted};

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/differential.jsonl");

const JAVA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/java.jsonl");

fn bytes(digits: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).unwrap() as u8;
    digits.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// A row's value as the file has it.
fn shown(value: &Plain) -> Value {
    let all = |items: &[Plain]| items.iter().map(shown).collect::<Vec<_>>();
    match value {
        Plain::Null => Value::Null,
        Plain::Bool(b) => json!(b),
        Plain::Int(n) => json!({ "i": n.to_string() }),
        Plain::Float(bits) => json!({ "f": bits.to_string() }),
        Plain::Text(text) => json!({ "t": text }),
        Plain::Bytes(bytes) => {
            json!({ "b": bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() })
        }
        Plain::List(items) => json!({ "l": all(items) }),
        Plain::Map(entries) => {
            json!({ "m": entries.iter().map(|(k, v)| json!([k, shown(v)])).collect::<Vec<_>>() })
        }
        Plain::Struct(items) => json!({ "s": all(items) }),
    }
}

/// Whether a row's value is what the file says. JSON text is compared as JSON.
fn same(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            if let (Some(Value::String(text)), Some(want)) = (got.get("t"), want.get("j")) {
                return serde_json::from_str::<Value>(text).is_ok_and(|got| got == *want);
            }
            got.len() == want.len()
                && got.iter().all(|(key, got)| want.get(key).is_some_and(|want| same(got, want)))
        }
        (Value::Array(got), Value::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| same(got, want))
        }
        (got, want) => got == want,
    }
}

#[test]
fn records_are_read_as_the_producers_own_library_reads_them() {
    let large = std::env::var("ISK_TEST_DIFFERENTIAL").ok();
    let enough = if large.is_some() { 100_000 } else { 90 };
    compare(large.as_deref().unwrap_or(SMALL), enough);
}

#[test]
fn records_of_java_programs_are_read_as_they_read_them() {
    compare(JAVA, 30);
}

/// Compares all records of a file, which are `enough` of each format.
fn compare(file: &str, enough: usize) {
    let file = std::fs::File::open(file).unwrap();
    let (mut counts, mut wrong) = (BTreeMap::<String, (usize, usize)>::new(), Vec::new());
    for line in std::io::BufReader::new(file).lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let format = line["format"].as_str().unwrap();
        let records = line["records"].as_array().unwrap();
        let count = counts.entry(format.to_owned()).or_default();
        *count = (count.0 + 1, count.1 + records.len());
        let values: Vec<Vec<u8>> =
            records.iter().map(|record| bytes(record[0].as_str().unwrap())).collect();
        let id = RegistrySchemaId(i32::from_be_bytes(values[0][1..5].try_into().unwrap()));
        let text = line["schema"].as_str().unwrap().to_owned();
        let format = SchemaFormat::of_name(format).unwrap();
        let writer = SchemaText { version: 1, id, format, text, references: Vec::new() };
        let writers = std::slice::from_ref(&writer);
        let table = match table_schema(writers, &[], &mut FieldIdMap::default()) {
            Ok(table) => table,
            Err(e) => {
                wrong.push(format!("{format}: {}: {e}", writer.text));
                continue;
            }
        };
        let batch = decoder_of(table, writers).decode(&block(values.iter().map(Some))).unwrap();
        for failure in &batch.failures {
            wrong.push(format!("{format}: {}: {failure:?}", writer.text));
        }
        for (row, record) in rows(&batch).into_iter().zip(records) {
            let row: Vec<Value> = row.into_iter().map(|value| shown(&sorted(value))).collect();
            let row = Value::Array(row);
            if !same(&row, &record[1]) {
                wrong.push(format!("{format}: {}: {row} is not {}", writer.text, record[1]));
            }
        }
    }
    eprintln!("{} schemas and records by format: {counts:?}", counts.len());
    assert!(wrong.is_empty(), "{} differ; the first: {}", wrong.len(), wrong[0]);
    assert!(counts.len() == 3 && counts.values().all(|count| count.1 >= enough), "{counts:?}");
}
