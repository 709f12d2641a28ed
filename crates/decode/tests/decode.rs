//! Rows, framing, tombstones, keys, headers, poison records and hostile payloads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, TimestampMicrosecondType};
use isk_decode::{DecodeError, RecordPart, TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RecordHeader, RegistrySchemaId, TimestampType,
};
use isk_schema::{FieldIdMap, table_schema};
use support::{Plain, block, decoder, decoder_of, framed, row, rows, text};

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["NEW","PAID"]}},
    {"name":"note","type":["null","string"]},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"extra","type":{"type":"map","values":["int",{"type":"record","name":"P","fields":[
        {"name":"x","type":"double"},{"name":"y","type":"string"}]}]}}]}"#;

fn varint(value: i64) -> Vec<u8> {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
    out
}

fn string(s: &str) -> Vec<u8> {
    [varint(s.len() as i64), s.as_bytes().to_vec()].concat()
}

/// The payload of an order with something in every field.
fn order(id: i64) -> Vec<u8> {
    [
        varint(id),
        varint(1),
        varint(1),
        string("grün"),
        varint(2),
        string("a"),
        string("b"),
        varint(0),
        varint(1),
        string("k"),
        varint(1),
        2.5f64.to_le_bytes().to_vec(),
        string("y"),
        varint(0),
    ]
    .concat()
}

fn order_row(id: i64) -> Vec<Plain> {
    let text = |s: &str| Plain::Text(s.to_owned());
    vec![
        Plain::Int(id.into()),
        text("PAID"),
        text("grün"),
        Plain::List(vec![text("a"), text("b")]),
        Plain::Map(vec![(
            "k".to_owned(),
            Plain::Struct(vec![
                Plain::Null,
                Plain::Struct(vec![Plain::Float(2.5f64.to_bits()), text("y")]),
            ]),
        )]),
    ]
}

/// Decodes a bad value between good ones and checks that they are whole, and the bad one a null
/// row and a failure. Gives the failure's cause.
fn poison(schema: &str, good: &[u8], bad: &[u8]) -> String {
    let mut decoder = decoder(&[schema]);
    let alone = decoder.decode(&block([Some(good)])).unwrap();
    assert!(alone.failures.is_empty(), "{:?}", alone.failures);
    let batch = decoder
        .decode(&block([Some(good), Some(bad), Some(good), None, Some(bad), Some(bad), Some(good)]))
        .unwrap();
    let null = vec![Plain::Null; row(&alone, 0).len()];
    for i in 0..7 {
        let expected = if [0, 2, 6].contains(&i) { row(&alone, 0) } else { null.clone() };
        assert_eq!(row(&batch, i), expected, "row {i}, {bad:?}");
    }
    let offsets: Vec<i64> = batch.failures.iter().map(|f| f.offset.0).collect();
    assert_eq!(offsets, [1, 4, 5], "{bad:?}");
    assert!(batch.failures.iter().all(|f| f.part == RecordPart::Value));
    // The decoder goes on as if nothing had been.
    let after = decoder.decode(&block([Some(good)])).unwrap();
    assert_eq!(row(&after, 0), row(&alone, 0));
    batch.failures[0].cause.clone()
}

#[test]
fn a_row_has_all_columns() {
    let history = [text(1, ORDER)];
    let key = [text(9, r#"{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}"#)];
    let table = table_schema(&history, &key, &mut FieldIdMap::default()).unwrap();
    let mut decoder = decoder_of(table, &[history[0].clone(), key[0].clone()]);
    let mut records = RecordBlock::new();
    let headers = [
        RecordHeader { key: b"h", value: Some(b"\xff") },
        RecordHeader { key: b"\xff", value: None },
    ];
    let (key, value) = (framed(9, &varint(5)), framed(1, &order(-7)));
    records.push(Offset(40), 1234, TimestampType::LogAppendTime, Some(&key), Some(&value), headers);
    records.push(Offset(42), -1, TimestampType::NotAvailable, None, None, []);
    records.push(Offset(43), i64::MAX, TimestampType::CreateTime, Some(b"x"), Some(&value), []);
    let batch = decoder.decode(&records).unwrap();
    assert_eq!(row(&batch, 0), order_row(-7));
    assert_eq!(row(&batch, 1), vec![Plain::Null; 5]);
    assert_eq!(row(&batch, 2), order_row(-7));

    let column = |name| batch.batch.column_by_name(name).unwrap();
    let partition = column("kafka_partition").as_primitive::<Int32Type>();
    assert!(partition.iter().all(|p| p == Some(3)));
    let offset = column("kafka_offset").as_primitive::<Int64Type>();
    assert_eq!(offset.values().as_ref(), &[40, 42, 43]);
    let time = column("kafka_timestamp").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(time.iter().collect::<Vec<_>>(), [Some(1_234_000), None, None]);
    assert_eq!(time.timezone(), Some("+00:00"));
    let types = column("kafka_timestamp_type").as_string::<i32>();
    assert_eq!(
        types.iter().flatten().collect::<Vec<_>>(),
        ["LogAppendTime", "NoTimestampType", "CreateTime"]
    );
    let keys = column("kafka_key");
    assert_eq!(support::plain(keys, 0), Plain::Struct(vec![Plain::Int(5)]));
    assert!(keys.is_null(1) && keys.is_null(2));
    let header = |key: &str, value: Plain| Plain::Struct(vec![Plain::Text(key.to_owned()), value]);
    assert_eq!(
        support::plain(column("kafka_headers"), 0),
        Plain::List(vec![header("h", Plain::Bytes(vec![255])), header("\u{fffd}", Plain::Null)])
    );
    assert_eq!(support::plain(column("kafka_headers"), 1), Plain::List(vec![]));
    assert_eq!(batch.failures.len(), 1);
    assert_eq!((batch.failures[0].offset, batch.failures[0].part), (Offset(43), RecordPart::Key));
}

#[test]
fn a_topic_without_schema_shows_bytes() {
    let table = table_schema(&[], &[], &mut FieldIdMap::default()).unwrap();
    let mut decoder = decoder_of(table, &[]);
    let records = block([Some(&b"anything"[..]), None, Some(b"")]);
    assert!(decoder.missing_writers(&records).is_empty());
    let batch = decoder.decode(&records).unwrap();
    let column = batch.batch.column_by_name("kafka_value").unwrap().as_binary::<i64>();
    assert_eq!(column.iter().collect::<Vec<_>>(), [Some(&b"anything"[..]), None, Some(b"")]);
    assert!(batch.failures.is_empty());
}

#[test]
fn an_empty_block_is_an_empty_batch() {
    let batch = decoder(&[ORDER]).decode(&RecordBlock::new()).unwrap();
    assert_eq!(batch.batch.num_rows(), 0);
}

#[test]
fn writers_must_be_given_and_may_be_missing() {
    let history = [text(1, ORDER)];
    let table = table_schema(&history, &[], &mut FieldIdMap::default()).unwrap();
    let mut decoder = TopicDecoder::new(table.into(), KafkaPartition(0)).unwrap();
    let (one, two) = (RegistrySchemaId(1), RegistrySchemaId(2));
    let good = framed(1, &order(1));
    let records =
        block([Some(good.clone()), Some(framed(2, &order(1))), Some(good), Some(vec![7]), None]);
    assert_eq!(decoder.missing_writers(&records), [one.into(), two.into()].into());
    decoder.add_writer(one, WriterSchema::Known(history[0].clone()));
    assert_eq!(decoder.missing_writers(&records), [two.into()].into());
    assert!(
        matches!(decoder.decode(&records), Err(DecodeError::UnknownWriter(id)) if id == two.into())
    );
    decoder.add_writer(two, WriterSchema::Missing { cause: "40403 Schema not found".into() });
    assert!(decoder.missing_writers(&records).is_empty());
    let batch = decoder.decode(&records).unwrap();
    assert_eq!(batch.batch.num_rows(), 5);
    assert_eq!((row(&batch, 0), row(&batch, 2)), (order_row(1), order_row(1)));
    let ids: Vec<_> = batch.failures.iter().map(|f| (f.offset.0, f.schema_id)).collect();
    assert_eq!(ids, [(1, Some(two)), (3, None)]);
    assert!(batch.failures[0].cause.contains("40403"));
}

#[test]
fn a_record_cut_anywhere_or_grown_is_one_failure_and_no_row_of_its_own() {
    let good = framed(1, &order(300));
    for cut in 0..good.len() {
        poison(ORDER, &good, &good[..cut]);
    }
    for tail in [&b"\0"[..], b"\0\0\0\0\x01", &good] {
        let cause = poison(ORDER, &good, &[&good[..], tail].concat());
        assert!(cause.contains("left behind its end"), "{cause}");
    }
    let cause = poison(ORDER, &good, &[&[1], &good[1..]].concat());
    assert!(cause.contains("0x01"), "{cause}");
    let negative = [&[0, 0xff], &good[2..]].concat();
    assert!(decoder(&[ORDER]).missing_writers(&block([Some(&negative)])).is_empty());
    let cause = poison(ORDER, &good, &negative);
    assert!(cause.contains("schema id is -"), "{cause}");
}

#[test]
fn every_flipped_byte_fails_alone_or_is_another_row() {
    let good = framed(1, &order(300));
    let mut decoder = decoder(&[ORDER]);
    for i in 5..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[i] ^= 1 << bit;
            let batch = decoder.decode(&block([Some(&good), Some(&bad), Some(&good)])).unwrap();
            assert_eq!(batch.batch.num_rows(), 3);
            assert_eq!((row(&batch, 0), row(&batch, 2)), (order_row(300), order_row(300)));
            assert!(batch.failures.iter().all(|f| f.offset.0 == 1));
        }
    }
}

fn one_field(ty: &str) -> String {
    format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"before","type":"string"}},{{"name":"f","type":{ty}}}]}}"#
    )
}

#[test]
fn values_that_cannot_be_fail_and_name_their_field() {
    let array_of_null = r#"{"type":"array","items":"null"}"#;
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":3,"scale":1}"#;
    let cases: &[(&str, Vec<u8>, Vec<u8>, &str)] = &[
        (r#""boolean""#, vec![1], vec![2], "boolean"),
        (r#""int""#, varint(1), varint(1 << 40), "32-bit"),
        (r#""long""#, varint(1), vec![0xff; 10], "64 bits"),
        (r#""long""#, varint(1), vec![0xff; 11], "64 bits"),
        (r#""string""#, string("é"), vec![2, 0xff], "UTF-8"),
        (r#""string""#, string("é"), vec![2, 0xc3], "UTF-8"),
        (r#""bytes""#, string("a"), varint(-1), "length is -1"),
        (r#""bytes""#, string("a"), varint(i64::MAX), "bytes are needed"),
        (r#"["null","int"]"#, vec![2, 2], varint(2), "union branch 2 of 2"),
        (r#"["null","int"]"#, vec![0], varint(-1), "union branch -1"),
        (
            r#"{"type":"enum","name":"E","symbols":["A"]}"#,
            varint(0),
            varint(1),
            "enum symbol 1 of 1",
        ),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, varint(0), varint(-1), "enum symbol -1"),
        (r#"{"type":"array","items":"int"}"#, vec![2, 2, 0], varint(1 << 60), "elements"),
        (r#"{"type":"array","items":"int"}"#, vec![0], varint(i64::MIN), "ends within"),
        (r#"{"type":"map","values":"null"}"#, vec![0], varint(1 << 60), "elements"),
        (array_of_null, vec![4, 0], [varint(1 << 60), vec![0]].concat(), "elements"),
        (array_of_null, vec![4, 0], [varint(i64::MIN), vec![0, 0]].concat(), "elements"),
        (decimal, vec![2, 5], vec![4, 0x7f, 0xff], "3 digits"),
        (decimal, vec![2, 5], [varint(20), vec![1; 20]].concat(), "3 digits"),
        (
            r#"{"type":"string","logicalType":"uuid"}"#,
            string("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            string("f81d4fae"),
            "uuid",
        ),
        (
            r#"{"type":"int","logicalType":"time-millis"}"#,
            varint(0),
            varint(86_400_000),
            "time of day",
        ),
        (r#"{"type":"int","logicalType":"time-millis"}"#, varint(0), varint(-1), "time of day"),
        (
            r#"{"type":"long","logicalType":"timestamp-millis"}"#,
            varint(0),
            varint(i64::MAX),
            "range",
        ),
    ];
    for (ty, good, bad, why) in cases {
        let of = |value: &[u8]| framed(1, &[string("b"), value.to_vec()].concat());
        let cause = poison(&one_field(ty), &of(good), &of(bad));
        assert!(cause.contains(why), "{ty}: {cause}");
        assert!(cause.contains("field f"), "{ty}: {cause}");
    }
}

#[test]
fn decimals_of_any_length_that_fit_are_read() {
    let schema = one_field(r#"{"type":"bytes","logicalType":"decimal","precision":3,"scale":1}"#);
    let cases: [(&[u8], i128); 5] =
        [(&[], 0), (&[5], 5), (&[0xff], -1), (&[0; 30], 0), (&[0xff; 30], -1)];
    for (bytes, value) in cases {
        let payload = [string("b"), varint(bytes.len() as i64), bytes.to_vec()].concat();
        let batch = decoder(&[&schema]).decode(&block([Some(framed(1, &payload))])).unwrap();
        assert_eq!(row(&batch, 0)[1], Plain::Int(value), "{bytes:?}");
    }
}

#[test]
fn text_that_is_utf8_only_when_joined_is_two_failures() {
    let schema = one_field(r#""string""#);
    let of = |byte: u8| Some(framed(1, &[string("b"), vec![2, byte]].concat()));
    let batch = decoder(&[&schema]).decode(&block([of(0xc3), of(0xa9), of(b'x')])).unwrap();
    assert_eq!(batch.failures.len(), 2);
    assert_eq!(row(&batch, 2)[1], Plain::Text("x".into()));
}

#[test]
fn few_bytes_do_not_unfold_to_many_columns() {
    // The writer's items are one byte, the reader's have a long default besides.
    let writer = one_field(
        r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"a","type":"int"}]}}"#,
    );
    let default = "x".repeat(100_000);
    let reader = one_field(&format!(
        r#"{{"type":"array","items":{{"type":"record","name":"I","fields":[{{"name":"a","type":"int"}},
           {{"name":"d","type":"string","default":"{default}"}}]}}}}"#
    ));
    let items = |n: i64| [varint(n), vec![2; n as usize], vec![0]].concat();
    let payload = framed(1, &[string("b"), items(1_000_000)].concat());
    let batch = decoder(&[&writer, &reader]).decode(&block([Some(payload)])).unwrap();
    assert_eq!(batch.failures.len(), 1);
    assert!(batch.failures[0].cause.contains("columns each"), "{}", batch.failures[0].cause);
}

#[test]
fn blocks_may_say_their_length() {
    let schema = one_field(r#"{"type":"array","items":"int"}"#);
    let payload = [string("b"), varint(-2), varint(2), vec![2, 4], varint(1), vec![6, 0]].concat();
    let batch = decoder(&[&schema]).decode(&block([Some(framed(1, &payload))])).unwrap();
    assert_eq!(row(&batch, 0)[1], Plain::List([1, 2, 3].map(Plain::Int).to_vec()));
    // And are skipped by it where the table has no such column.
    let reader = r#"{"type":"record","name":"R","fields":[{"name":"before","type":"string"}]}"#;
    let batch = decoder(&[&schema, reader]).decode(&block([Some(framed(1, &payload))])).unwrap();
    assert_eq!(rows(&batch), [[Plain::Text("b".into())]]);
}

#[test]
fn a_value_that_is_no_record_is_one_column() {
    let mut decoder = decoder(&[r#"["null","int","string"]"#]);
    let values =
        [vec![2, 6], [vec![4], string("s")].concat(), vec![0]].map(|v| Some(framed(1, &v)));
    let batch = decoder.decode(&block(values)).unwrap();
    assert!(batch.failures.is_empty());
    assert_eq!(
        rows(&batch),
        [
            [Plain::Struct(vec![Plain::Int(3), Plain::Null])],
            [Plain::Struct(vec![Plain::Null, Plain::Text("s".into())])],
            [Plain::Null],
        ]
    );
}

#[test]
fn a_record_without_fields_is_a_row() {
    let mut decoder = decoder(&[r#"{"type":"record","name":"R","fields":[]}"#]);
    let batch = decoder.decode(&block([Some(framed(1, &[])), Some(framed(1, &[1]))])).unwrap();
    assert_eq!(batch.batch.num_rows(), 2);
    assert_eq!(batch.failures.len(), 1);
}
