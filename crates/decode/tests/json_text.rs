//! Keys and values as JSON text: what each format's types become, and what is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use apache_avro::types::Value as Avro;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use isk_decode::{DecodedBatch, RecordPart, TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, TimestampType,
};
use isk_schema::{SchemaText, json_text_schema};
use support::{block, decoder_of, framed};

fn schema(id: i32, format: SchemaFormat, text: &str) -> SchemaText {
    let (id, text) = (RegistrySchemaId(id), text.to_owned());
    SchemaText { version: 0, id, format, text, references: Vec::new() }
}

fn decoder(writers: &[SchemaText]) -> TopicDecoder {
    decoder_of(json_text_schema().unwrap(), writers)
}

/// The column of values (0) or keys (5).
fn column(batch: &DecodedBatch, at: usize) -> Vec<Option<String>> {
    let texts = batch.batch.column(at).as_string::<i32>();
    (0..texts.len()).map(|i| texts.is_valid(i).then(|| texts.value(i).to_owned())).collect()
}

fn one(writer: &SchemaText, payload: &[u8]) -> Result<Option<String>, String> {
    let batch = decoder(std::slice::from_ref(writer));
    let mut decoder = batch;
    let batch = decoder.decode(&block([Some(framed(writer.id.0, payload))])).unwrap();
    match batch.failures.first() {
        Some(failure) => Err(failure.cause.clone()),
        None => Ok(column(&batch, 0).remove(0)),
    }
}

const AVRO: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":"long"},
    {"name":"f","type":"float"},{"name":"d","type":"double"},{"name":"raw","type":"bytes"},
    {"name":"s","type":"string"},{"name":"e","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
    {"name":"fx","type":{"type":"fixed","name":"F","size":2}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"local","type":{"type":"long","logicalType":"local-timestamp-micros"}},
    {"name":"time","type":{"type":"long","logicalType":"time-micros"}},
    {"name":"dec","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":3}},
    {"name":"uid","type":{"type":"string","logicalType":"uuid"}},
    {"name":"none","type":["null","string"]},{"name":"un","type":["null","string","long"]},
    {"name":"list","type":{"type":"array","items":["null","double"]}},
    {"name":"map","type":{"type":"map","values":{"type":"record","name":"In","fields":[]}}},
    {"name":"Key.With_dot","aliases":[],"type":"int"}]}"#;

#[test]
fn every_avro_type_has_its_text() {
    let text = AVRO.replace("Key.With_dot", "Key");
    let parsed = apache_avro::Schema::parse_str(&text).unwrap();
    let record = |name: &str, value: Avro| (name.to_owned(), value);
    let some = |branch, value| Avro::Union(branch, Box::new(value));
    let value = Avro::Record(vec![
        record("b", Avro::Boolean(true)),
        record("i", Avro::Int(-1)),
        record("l", Avro::Long(i64::MAX)),
        record("f", Avro::Float(0.1)),
        record("d", Avro::Double(f64::NEG_INFINITY)),
        record("raw", Avro::Bytes(vec![0, 255])),
        record("s", Avro::String("ä\"\n".to_owned())),
        record("e", Avro::Enum(1, "Y".to_owned())),
        record("fx", Avro::Fixed(2, vec![1, 2])),
        record("day", Avro::Date(0)),
        record("at", Avro::TimestampMillis(-1)),
        record("local", Avro::LocalTimestampMicros(1_000_001)),
        record("time", Avro::TimeMicros(3_600_000_000)),
        record("dec", Avro::Decimal(vec![0xff, 0x85].into())),
        record("uid", Avro::Uuid(apache_avro::Uuid::from_u128(1))),
        record("none", some(0, Avro::Null)),
        record("un", some(2, Avro::Long(7))),
        record(
            "list",
            Avro::Array(vec![
                some(0, Avro::Null),
                some(1, Avro::Double(1e300)),
                some(1, Avro::Double(f64::NAN)),
            ]),
        ),
        record(
            "map",
            Avro::Map([("k".to_owned(), Avro::Record(Vec::new()))].into_iter().collect()),
        ),
        record("Key", Avro::Int(3)),
    ]);
    let payload = apache_avro::to_avro_datum(&parsed, value).unwrap();
    let shown = one(&schema(1, SchemaFormat::Avro, &text), &payload).unwrap().unwrap();
    assert_eq!(
        shown,
        r#"{"b":true,"i":-1,"l":9223372036854775807,"f":0.1,"d":"-Infinity","raw":"AP8=","s":"ä\"\n","#
            .to_owned()
            + r#""e":"Y","fx":"AQI=","day":"1970-01-01","at":"1969-12-31T23:59:59.999Z","#
            + r#""local":"1970-01-01T00:00:01.000001","time":"01:00:00","dec":-0.123,"#
            + r#""uid":"00000000-0000-0000-0000-000000000001","none":null,"un":7,"#
            + r#""list":[null,1e+300,"NaN"],"map":{"k":{}},"Key":3}"#
    );
    // A cut payload is a failure, and no row of its neighbours'.
    assert!(one(&schema(1, SchemaFormat::Avro, &text), &payload[..payload.len() - 1]).is_err());
}

#[test]
fn names_are_the_schemas_own_and_a_value_that_is_no_record_stands_alone() {
    let names = r#"{"type":"record","name":"R","fields":[
        {"name":"kafka_offset","type":"int"},{"name":"KAFKA_OFFSET","type":"int"}]}"#;
    let shown = one(&schema(1, SchemaFormat::Avro, names), &[2, 4]).unwrap();
    assert_eq!(shown.as_deref(), Some(r#"{"kafka_offset":1,"KAFKA_OFFSET":2}"#));
    let long = schema(1, SchemaFormat::Avro, r#"["null","long"]"#);
    assert_eq!(one(&long, &[2, 8]).unwrap().as_deref(), Some("4"));
    assert_eq!(one(&long, &[0]).unwrap(), None);
}

/// Each type looks within a record within itself as it does elsewhere.
#[test]
fn recursion_is_written_as_all_else() {
    let all = r#"{"name":"d","type":{"type":"int","logicalType":"date"}},
        {"name":"t","type":{"type":"long","logicalType":"time-micros"}},
        {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"local","type":{"type":"long","logicalType":"local-timestamp-nanos"}},
        {"name":"m","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"u","type":{"type":"string","logicalType":"uuid"}},
        {"name":"f","type":{"type":"fixed","name":"F","size":2}},
        {"name":"p","type":{"type":"fixed","name":"P","size":12,"logicalType":"duration"}},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
        {"name":"x","type":"double"},{"name":"y","type":"float"},{"name":"b","type":"bytes"},
        {"name":"ok","type":"boolean"},{"name":"no","type":"null"},
        {"name":"s","type":{"type":"map","values":{"type":"array","items":"string"}}}"#;
    let node = format!(
        r#"{{"type":"record","name":"N","fields":[{all},{{"name":"next","type":["null","N"]}}]}}"#
    );
    let uuid = "00000000-0000-0000-0000-00000000000A";
    let values: Vec<u8> = [
        &[2][..],
        &[2],
        &[0xd0, 0x0f],
        &[1],
        &[2, 5],
        &[72],
        uuid.as_bytes(),
        &[1, 2],
        &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
        &[2],
        &f64::NAN.to_le_bytes(),
        &1.5f32.to_le_bytes(),
        &[2, 7],
        &[1],
        &[2, 2, b'k', 2, 2, b'"', 0, 0],
    ]
    .concat();
    let payload = [&values[..], &[2], &values, &[0]].concat();
    let text = one(&schema(1, SchemaFormat::Avro, &node), &payload).unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut outer = json.clone();
    let mut inner = outer["next"].take();
    assert!(inner["next"].is_null());
    assert_eq!(inner, outer);
    inner["next"].take();
    assert!(text.contains(
        r#""next":{"d":"1970-01-02","t":"00:00:00.000001","at":"1970-01-01T00:00:01Z","local":"1969-12-31T23:59:59.999999","m":0.05,"u":"00000000-0000-0000-0000-00000000000a","f":"AQI=","p":{"months":1,"days":2,"milliseconds":3},"e":"B","x":"NaN","y":1.5,"b":"Bw==","ok":true,"no":null,"s":{"k":["\""]},"next":null}"#
    ), "{text}");
}

#[test]
fn protobuf_is_written_under_the_names_of_its_file() {
    let file = r#"syntax = "proto3"; import "google/protobuf/timestamp.proto";
        message M { uint64 big = 1; repeated string words = 2; google.protobuf.Timestamp at = 3;
                    oneof o { int32 a = 4; M.In b = 5; } E e = 6; message In { bytes raw = 1; } }
        enum E { ZERO = 0; ONE = 1; }"#;
    let payload = [
        &[0, 0x08][..],
        &[0xff; 9],
        &[0x01, 0x12, 0x01, b'w', 0x2a, 0x03, 0x0a, 0x01, 0x07, 0x30, 0x01],
    ];
    let shown = one(&schema(1, SchemaFormat::Protobuf, file), &payload.concat()).unwrap();
    let expected = r#"{"big":18446744073709551615,"words":["w"],"at":null,"a":null,"b":{"raw":"Bw=="},"e":"ONE"}"#;
    assert_eq!(shown.as_deref(), Some(expected));
}

#[test]
fn json_is_shown_as_written_and_writers_alternate() {
    let writers = [
        schema(1, SchemaFormat::Json, r#"{"type":"object"}"#),
        schema(2, SchemaFormat::Avro, r#""string""#),
    ];
    let mut decoder = decoder(&writers);
    decoder.add_writer(RegistrySchemaId(3), WriterSchema::Missing { cause: "gone".to_owned() });
    let values: Vec<Option<Vec<u8>>> = vec![
        Some(framed(1, br#" {"a" : 1.0, "b":12345678901234567890123} "#)),
        Some(framed(2, &[2, b'x'])),
        None,
        Some(br#"{"bare":[1, 2]}"#.to_vec()),
        Some(b"no json".to_vec()),
        Some(framed(1, b"{")),
        Some(framed(2, &[4, 0xff, 0xfe])),
        Some(framed(3, b"{}")),
        Some(b"null".to_vec()),
        Some(framed(2, &[2, b'y'])),
        Some(vec![0, 1]),
        Some(b"\xff\xfe".to_vec()),
    ];
    let batch = decoder.decode(&block(values)).unwrap();
    let text = |t: &str| Some(t.to_owned());
    let expected = [
        text(r#"{"a" : 1.0, "b":12345678901234567890123}"#),
        text(r#""x""#),
        None,
        text(r#"{"bare":[1, 2]}"#),
        None,
        None,
        None,
        None,
        None,
        text(r#""y""#),
        None,
        None,
    ];
    assert_eq!(column(&batch, 0), expected);
    let mut failed: Vec<i64> = batch.failures.iter().map(|failure| failure.offset.0).collect();
    failed.sort_unstable();
    assert_eq!(failed, [4, 5, 6, 7, 10, 11]);
}

#[test]
fn keys_of_plain_text_are_json_strings() {
    let mut decoder =
        TopicDecoder::new(json_text_schema().unwrap().into(), KafkaPartition(0)).unwrap();
    let mut block = RecordBlock::new();
    let keys: [Option<&[u8]>; 6] =
        [Some(b"order-1"), Some(b"17"), Some(br#"{"id":1}"#), Some(b"\xff"), None, Some(b"")];
    for (offset, key) in (0..).zip(keys) {
        block.push(Offset(offset), 0, TimestampType::CreateTime, key, None, []);
    }
    let batch = decoder.decode(&block).unwrap();
    let text = |t: &str| Some(t.to_owned());
    let shown = [text("\"order-1\""), text("17"), text(r#"{"id":1}"#), None, None, text("\"\"")];
    assert_eq!(column(&batch, 5), shown);
    let [failure] = &batch.failures[..] else { panic!("{:?}", batch.failures) };
    assert_eq!((failure.offset, failure.part), (Offset(3), RecordPart::Key));
}
