//! Several types of record in one topic: a column for each, and tables of one type alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use isk_decode::TopicDecoder;
use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{FieldIdMap, SchemaText, TableSchema, TypedSchema, record_types_schema};
use support::{Plain, block, decoder_of, framed, row, rows};

const PAYMENT: &str = r#"{"type":"record","name":"Payment","namespace":"shop","fields":[{"name":"id","type":"long"}]}"#;
const REFUND: &str = r#"{"type":"record","name":"Refund","namespace":"shop",
    "fields":[{"name":"id","type":"long"},{"name":"why","type":"string"}]}"#;
const PING: &str = r#"{"type":"record","name":"Ping","fields":[]}"#;
const JSON: &str = r#"{"title":"Note","type":"object","properties":{"text":{"type":"string"}}}"#;
const PROTO: &str = r#"syntax = "proto3"; package shop;
    message Line { int32 n = 1; } message Bill { Line line = 1; } message Memo { string text = 1; }"#;

/// The versions of subjects; their ids are 1, 2, ...
fn texts(schemas: &[(SchemaFormat, &str)]) -> Vec<SchemaText> {
    let text = |(version, (format, text)): (u32, &(SchemaFormat, &str))| SchemaText {
        version,
        id: RegistrySchemaId(version.cast_signed()),
        format: *format,
        text: (*text).to_owned(),
        references: Vec::new(),
    };
    (1..).zip(schemas).map(text).collect()
}

fn typed(texts: &[SchemaText]) -> Vec<TypedSchema> {
    let types = texts.iter().flat_map(|schema| {
        let names = schema.record_types("events-value").unwrap();
        names.into_iter().map(|record_type| TypedSchema { record_type, schema: schema.clone() })
    });
    types.collect()
}

fn table(texts: &[SchemaText]) -> TableSchema {
    record_types_schema(&typed(texts), &[], &mut FieldIdMap::default()).unwrap()
}

fn columns(table: &TableSchema) -> Vec<(String, i32)> {
    let fields = table.iceberg.as_struct().fields();
    fields.iter().take(table.value_columns()).map(|f| (f.name.clone(), f.id)).collect()
}

fn all() -> Vec<SchemaText> {
    texts(&[
        (SchemaFormat::Avro, PAYMENT),
        (SchemaFormat::Avro, REFUND),
        (SchemaFormat::Avro, PING),
        (SchemaFormat::Json, JSON),
        (SchemaFormat::Protobuf, PROTO),
        // Of no subject of the topic's.
        (SchemaFormat::Avro, r#"{"type":"record","name":"Stranger","fields":[]}"#),
    ])
}

/// Records of each type, one of none, a tombstone, one that is cut, one that names no schema.
fn records() -> Vec<Option<Vec<u8>>> {
    vec![
        Some(framed(1, &[2])),
        Some(framed(2, &[4, 2, b'x'])),
        Some(framed(3, &[])),
        Some(framed(4, br#"{"text":"t"}"#)),
        // The second message of its file, then the third.
        Some(framed(5, &[2, 2, 10, 2, 8, 7])),
        Some(framed(5, &[2, 4, 10, 1, b'm'])),
        Some(framed(6, &[])),
        None,
        Some(framed(2, &[4])),
        Some(b"?".to_vec()),
        // The first message: it is held by the second, so it is no type.
        Some(framed(5, &[0, 8, 7])),
        Some(framed(1, &[8])),
    ]
}

fn int(n: i128) -> Plain {
    Plain::Int(n)
}

fn text(s: &str) -> Plain {
    Plain::Text(s.to_owned())
}

fn all_types() -> (TableSchema, TopicDecoder) {
    let all = all();
    let table = table(&all[..5]);
    (table.clone(), decoder_of(table, &all))
}

#[test]
fn each_type_is_a_column_of_its_own() {
    let (table, mut decoder) = all_types();
    let names: Vec<String> = columns(&table).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Payment", "Refund", "Ping", "Note", "Bill", "Memo"]);
    let batch = decoder.decode(&block(records())).unwrap();
    let at = |column: usize, value: Plain| {
        let mut row = vec![Plain::Null; 6];
        row[column] = value;
        row
    };
    let nulls = vec![Plain::Null; 6];
    assert_eq!(
        rows(&batch),
        [
            at(0, Plain::Struct(vec![int(1)])),
            at(1, Plain::Struct(vec![int(2), text("x")])),
            at(2, Plain::Bool(true)),
            at(3, Plain::Struct(vec![text("t")])),
            at(4, Plain::Struct(vec![Plain::Struct(vec![int(7)])])),
            at(5, Plain::Struct(vec![text("m")])),
            nulls.clone(),
            nulls.clone(),
            nulls.clone(),
            nulls.clone(),
            nulls,
            at(0, Plain::Struct(vec![int(4)])),
        ]
    );
    assert!(batch.others.is_empty());
    let failed: Vec<(usize, &str)> =
        batch.failures.iter().map(|f| (f.row, f.cause.as_str())).collect();
    let [(6, stranger), (8, cut), (9, _), (10, held)] = failed[..] else { panic!("{failed:?}") };
    assert!(
        stranger.contains("of type Stranger") && stranger.contains("shop.Refund"),
        "{stranger}"
    );
    assert!(cut.starts_with("field Refund.why: "), "{cut}");
    assert!(held.contains("message [0]") && held.contains("shop.Bill"), "{held}");
}

#[test]
fn a_table_of_one_type_has_its_records_alone() {
    let (table, _) = all_types();
    for (column, mine, failing) in [
        ("Payment", vec![0, 11], vec![9]),
        ("refund", vec![1, 8], vec![8, 9]),
        ("PING", vec![2], vec![9]),
        ("note", vec![3], vec![9]),
        ("bill", vec![4], vec![9]),
        ("memo", vec![5], vec![9]),
    ] {
        let one = table.of_type(column).unwrap().unwrap();
        let mut decoder = decoder_of(one, &all());
        let batch = decoder.decode(&block(records())).unwrap();
        let rows: Vec<usize> = (0..12).filter(|row| !batch.others.contains(row)).collect();
        assert_eq!(rows, mine, "{column}");
        // What nothing tells the type of has no row, and fails where the policy says so.
        assert_eq!(batch.failures.iter().map(|f| f.row).collect::<Vec<_>>(), failing, "{column}");
    }
    assert!(table.of_type("Stranger").unwrap().is_none());
    let refunds = table.of_type("Refund").unwrap().unwrap();
    assert_eq!(refunds.value_columns(), 2);
    let mut decoder = decoder_of(refunds, &all());
    let batch = decoder.decode(&block(records())).unwrap();
    assert_eq!(row(&batch, 1), [int(2), text("x")]);
}

/// The records of both versions under the newer one, whatever other types did in between.
#[test]
fn versions_of_a_type_follow_each_other_and_ids_stay() {
    let grown = PAYMENT.replace(
        r#"{"name":"id","type":"long"}"#,
        r#"{"name":"note","type":"string","default":"-"},{"name":"id","type":"long"}"#,
    );
    let renamed =
        PAYMENT.replace(r#""name":"Payment","#, r#""name":"Payout","aliases":["Payment"],"#);
    let history = texts(&[
        (SchemaFormat::Avro, PAYMENT),
        (SchemaFormat::Avro, REFUND),
        (SchemaFormat::Avro, &grown),
        (SchemaFormat::Avro, &renamed),
    ]);
    let mut ids = FieldIdMap::default();
    let typed = typed(&history);
    let mut at = |n: usize| record_types_schema(&typed[..n], &[], &mut ids).unwrap();
    let (two, three, four) = (at(2), at(3), at(4));
    assert_eq!(columns(&two), columns(&three));
    let inner = |table: &TableSchema, column: &str| {
        let one = table.of_type(column).unwrap().unwrap();
        columns(&one).into_iter().collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(inner(&two, "Payment")["id"], inner(&three, "Payment")["id"]);
    assert_eq!(inner(&two, "Refund"), inner(&three, "Refund"));
    // A type that is renamed by an alias is the same column.
    let renamed: Vec<(String, i32)> = columns(&four);
    assert_eq!(
        renamed.iter().map(|c| c.1).collect::<Vec<_>>(),
        [columns(&two)[0].1, columns(&two)[1].1]
    );
    assert_eq!(renamed[0].0, "Payout");
    assert_eq!(inner(&four, "Payout")["id"], inner(&two, "Payment")["id"]);

    let mut decoder = decoder_of(three, &history);
    let values = [framed(1, &[2]), framed(3, &[2, b'n', 4]), framed(2, &[6, 0])].map(Some);
    let batch = decoder.decode(&block(values)).unwrap();
    assert!(batch.failures.is_empty());
    assert_eq!(row(&batch, 0), [Plain::Struct(vec![text("-"), int(1)]), Plain::Null]);
    assert_eq!(row(&batch, 1), [Plain::Struct(vec![text("n"), int(2)]), Plain::Null]);
    let mut decoder = decoder_of(four, &history);
    let batch = decoder.decode(&block([Some(framed(1, &[2]))])).unwrap();
    assert_eq!(row(&batch, 0), [Plain::Struct(vec![int(1)]), Plain::Null]);
}

#[test]
fn types_of_one_short_name_and_names_of_metadata_columns_are_told_apart() {
    let other = PAYMENT.replace("shop", "bank");
    let kafka =
        r#"{"type":"record","name":"kafka_offset","fields":[{"name":"kafka_key","type":"int"}]}"#;
    let table = table(&texts(&[
        (SchemaFormat::Avro, PAYMENT),
        (SchemaFormat::Avro, &other),
        (SchemaFormat::Avro, kafka),
    ]));
    let names: Vec<String> = columns(&table).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Payment", "Payment_2", "kafka_offset_2"]);
    assert_eq!(table.record_kinds()[1].name, "bank.Payment");
    let one = table.of_type("kafka_offset_2").unwrap().unwrap();
    assert_eq!(columns(&one)[0].0, "kafka_key_2");
}

#[test]
fn subjects_say_which_types_they_have() {
    let [avro, json, proto] = [
        (SchemaFormat::Avro, PAYMENT),
        (SchemaFormat::Json, JSON),
        (SchemaFormat::Protobuf, PROTO),
    ]
    .map(|schema| texts(&[schema]).remove(0));
    assert_eq!(avro.record_types("any").unwrap(), ["shop.Payment"]);
    assert_eq!(json.record_types("any").unwrap(), ["Note"]);
    assert_eq!(proto.record_types("t-value").unwrap(), ["shop.Bill", "shop.Memo"]);
    for subject in ["shop.Line", "t-shop.Line"] {
        assert_eq!(proto.record_types(subject).unwrap(), ["shop.Line"]);
    }
    let nameless = texts(&[(SchemaFormat::Json, r#"{"type":"object"}"#)]).remove(0);
    assert!(nameless.record_types("t").unwrap_err().to_string().contains("title"));
    // A type's last version is refused by name; an older one leaves the type as it was.
    let bad = PAYMENT.replace(r#""name":"id""#, r#""name":"""#);
    let history = texts(&[
        (SchemaFormat::Avro, PAYMENT),
        (SchemaFormat::Avro, &bad),
        (SchemaFormat::Avro, REFUND),
    ]);
    let all: Vec<TypedSchema> = history
        .iter()
        .zip(["shop.Payment", "shop.Payment", "shop.Refund"])
        .map(|(schema, name)| TypedSchema { record_type: name.into(), schema: schema.clone() })
        .collect();
    let mut ids = FieldIdMap::default();
    assert!(record_types_schema(&all[..2], &[], &mut ids).is_err());
    let table = record_types_schema(&all, &[], &mut ids);
    assert_eq!(columns(&table.unwrap()).len(), 2);
}

#[test]
fn what_has_no_column_is_in_the_rest_of_its_type() {
    let note = r#"{"title":"Note","type":"object","isk.rest":"_rest","properties":{
        "text":{"type":"string"},"at":{"type":"object","properties":{"x":{"type":"integer"}}}}}"#;
    let all = texts(&[(SchemaFormat::Avro, PAYMENT), (SchemaFormat::Json, note)]);
    let record = framed(2, br#"{"text":"t","at":{"x":1,"y":2},"more":[3]}"#);
    let shown = vec![text("t"), Plain::Struct(vec![int(1)]), text(r#"{"at":{"y":2},"more":[3]}"#)];
    let several = decoder_of(table(&all), &all).decode(&block([Some(&record)])).unwrap();
    assert_eq!(rows(&several), [vec![Plain::Null, Plain::Struct(shown.clone())]]);
    let alone = table(&all).of_type("note").unwrap().unwrap();
    let alone = decoder_of(alone, &all).decode(&block([Some(&record)])).unwrap();
    assert_eq!(rows(&alone), [shown]);
}
