//! What is shown as JSON text must be JSON, whatever bytes it was made of.

use std::cell::RefCell;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{RecordBatch, StringArray};
use isk_decode::{TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, TimestampType,
};
use isk_schema::json_text_schema;
use serde::de::IgnoredAny;

use crate::{AVRO, JSON, PROTOBUF, decode, decoder, text};

/// A record within itself, of all kinds of types.
const AVRO_WITHIN: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"next","type":["null","R"]},
    {"name":"kids","type":{"type":"array","items":"R"}},
    {"name":"named","type":{"type":"map","values":"R"}},
    {"name":"a","type":["null","int","string","boolean",{"type":"enum","name":"E","symbols":["A","B"]},
        {"type":"fixed","name":"F","size":2},"float","double","bytes"]},
    {"name":"b","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":4}},
    {"name":"c","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"d","type":{"type":"int","logicalType":"date"}},
    {"name":"e","type":{"type":"long","logicalType":"time-micros"}},
    {"name":"f","type":{"type":"string","logicalType":"uuid"}},
    {"name":"g","type":{"type":"fixed","name":"D","size":12,"logicalType":"duration"}},
    {"name":"h","type":{"type":"long","logicalType":"local-timestamp-nanos"}}]}"#;

const PROTOBUF_WITHIN: &str = r#"syntax = "proto3"; import "google/protobuf/struct.proto";
    import "google/protobuf/any.proto"; import "google/protobuf/timestamp.proto";
    import "google/protobuf/duration.proto"; import "google/protobuf/field_mask.proto";
    import "google/protobuf/wrappers.proto";
    message R { R next = 1; repeated R kids = 2; map<string, R> named = 3; google.protobuf.Struct s = 4;
        google.protobuf.Value v = 5; google.protobuf.ListValue l = 6; google.protobuf.Any any = 7;
        google.protobuf.Timestamp t = 8; google.protobuf.Duration d = 9; google.protobuf.FieldMask m = 10;
        google.protobuf.DoubleValue w = 11; bytes b = 12; uint64 u = 13; float f = 14; E e = 15;
        map<bool, sint64> z = 16; oneof o { string j = 17; double k = 18; } google.protobuf.BytesValue x = 19;
        google.protobuf.Int64Value y = 20; map<fixed32, google.protobuf.Value> zz = 21; }
    enum E { ZERO = 0; ONE = 1; }"#;

thread_local! {
    static AVRO_DECODER: RefCell<TopicDecoder> =
        RefCell::new(decoder(SchemaFormat::Avro, AVRO_WITHIN));
    static PROTOBUF_DECODER: RefCell<TopicDecoder> =
        RefCell::new(decoder(SchemaFormat::Protobuf, PROTOBUF_WITHIN));
    static LAYOUT_DECODER: RefCell<TopicDecoder> = RefCell::new(layout_decoder());
}

/// The writers of the layout of JSON text.
const WRITERS: [(i32, SchemaFormat, &str); 5] = [
    (0, SchemaFormat::Avro, AVRO),
    (1, SchemaFormat::Json, JSON),
    (2, SchemaFormat::Protobuf, PROTOBUF),
    (3, SchemaFormat::Avro, AVRO_WITHIN),
    (4, SchemaFormat::Protobuf, PROTOBUF_WITHIN),
];

fn layout_decoder() -> TopicDecoder {
    let table = json_text_schema().unwrap();
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(0)).unwrap();
    for (id, format, schema) in WRITERS {
        let id = RegistrySchemaId(id);
        decoder.add_writer(id, WriterSchema::Known(text(id, format, schema)));
    }
    decoder
}

/// A framed value, and a bare key, of a record within itself.
pub(crate) fn avro(data: &[u8]) {
    texts_are_json(&decode(&AVRO_DECODER, data).batch, &["next", "kids", "named"]);
}

/// The same of a message within itself, and of what is JSON by its nature.
pub(crate) fn protobuf(data: &[u8]) {
    let columns = ["next", "kids", "named", "s", "v", "l"];
    texts_are_json(&decode(&PROTOBUF_DECODER, data).batch, &columns);
}

/// The first byte names a writer; key and value are what follows it, framed and bare.
pub(crate) fn layout(data: &[u8]) {
    let Some((first, payload)) = data.split_first() else { return };
    let writer = usize::from(*first) % (WRITERS.len() + 1);
    let framed = match WRITERS.get(writer) {
        Some((id, ..)) => [&[0][..], &id.to_be_bytes(), payload].concat(),
        None => payload.to_vec(),
    };
    let mut block = RecordBlock::new();
    block.push(Offset(0), 1, TimestampType::CreateTime, Some(payload), Some(&framed), []);
    block.push(Offset(1), 1, TimestampType::CreateTime, Some(&framed), Some(payload), []);
    LAYOUT_DECODER.with_borrow_mut(|decoder| {
        // What is bare may name a schema of its own.
        for id in decoder.missing_writers(&block) {
            decoder.add_writer(id, WriterSchema::Missing { cause: "it is not there".to_owned() });
        }
        let once = decoder.decode(&block).unwrap();
        let again = decoder.decode(&block).unwrap();
        assert_eq!((&once.batch, &once.failures), (&again.batch, &again.failures));
        texts_are_json(&once.batch, &["kafka_value", "kafka_key"]);
    });
}

fn texts_are_json(batch: &RecordBatch, columns: &[&str]) {
    for name in columns {
        let column = batch.column_by_name(name).unwrap();
        let texts: &StringArray = match (column.as_list_opt::<i32>(), column.as_map_opt()) {
            (Some(list), _) => list.values().as_string(),
            (_, Some(map)) => map.values().as_string(),
            (None, None) => column.as_string(),
        };
        for text in texts.iter().flatten() {
            if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
                panic!("{name} has {text:?}: {error}");
            }
        }
    }
}
