//! Protobuf payloads against prost-reflect's own reading of them, and what the wire format allows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use isk_decode::{DecodedBatch, TopicDecoder};
use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{
    FieldIdMap, Kind, Logical, RecordField, RecordType, SchemaText, ValueType, table_schema,
};
use proptest::prelude::*;
use prost_reflect::prost::Message;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as Wire, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use support::{Plain, block, decoder_of, framed, row, rows, sorted};

const PROTO3: &str = r#"syntax = "proto3"; package shop;
    import "google/protobuf/timestamp.proto"; import "google/protobuf/wrappers.proto";
    message Helper { int32 n = 1; string s = 2; }
    message Order {
        double d = 1; float f = 2; int32 i32 = 3; int64 i64 = 4; uint32 u32 = 5; uint64 u64 = 6;
        sint32 s32 = 7; sint64 s64 = 8; fixed32 f32 = 9; fixed64 f64 = 10; sfixed32 sf32 = 11;
        sfixed64 sf64 = 12; bool b = 13; string text = 14; bytes raw = 15;
        Color color = 16; Helper helper = 17; repeated Helper helpers = 18; repeated int32 packed = 19;
        repeated sint64 loose = 20 [packed = false]; repeated string texts = 21;
        map<string, int64> counts = 22; map<int32, Helper> by_number = 23; map<bool, Color> flags = 24;
        oneof choice { int64 number = 25; string word = 26; Helper thing = 27; }
        optional int32 maybe = 28; optional string perhaps = 29;
        google.protobuf.Timestamp at = 30; google.protobuf.Int64Value wrapped = 31;
        google.protobuf.StringValue note = 32; repeated Color colors = 33;
        Inner inner = 1000; Order parent = 1001;
        message Inner { Deep deep = 1; repeated Deep deeps = 2; message Deep { uint64 x = 1; } }
    }
    enum Color { RED = 0; GREEN = 1; BLUE = -5; }"#;

const PROTO2: &str = r#"syntax = "proto2";
    message Old {
        required int32 id = 1; optional string name = 2 [default = "x"]; repeated int32 many = 3;
        repeated int32 packed = 4 [packed = true]; optional Kind kind = 5;
        optional group Part = 6 { optional int32 a = 1; repeated string b = 2; }
        repeated group Parts = 7 { optional int32 c = 1; }
        extensions 100 to 200;
    }
    enum Kind { ONE = 1; TWO = 2; }"#;

fn version(version: i32, text: &str) -> SchemaText {
    SchemaText {
        version: version.cast_unsigned(),
        id: RegistrySchemaId(version),
        format: SchemaFormat::Protobuf,
        text: text.to_owned(),
        references: Vec::new(),
    }
}

fn decoder(schemas: &[SchemaText]) -> TopicDecoder {
    let table = table_schema(schemas, &[], &mut FieldIdMap::default()).unwrap();
    decoder_of(table, schemas)
}

fn simple(fields: &str) -> SchemaText {
    version(1, &format!(r#"syntax = "proto3"; message M {{ {fields} }}"#))
}

/// One payload without its path, under the first message.
fn decode(decoder: &mut TopicDecoder, payload: &[u8]) -> DecodedBatch {
    let payload = [&[0], payload].concat();
    decoder.decode(&block([Some(framed(1, &payload))])).unwrap()
}

fn decoded(schema: &SchemaText, payload: &[u8]) -> Result<Vec<Plain>, String> {
    let batch = decode(&mut decoder(std::slice::from_ref(schema)), payload);
    match batch.failures.first() {
        None => Ok(row(&batch, 0)),
        Some(failure) => Err(failure.cause.clone()),
    }
}

fn text(s: &str) -> Plain {
    Plain::Text(s.to_owned())
}

#[test]
fn the_last_value_counts_and_messages_are_put_together() {
    let schema = simple(
        "int32 n = 1; H h = 2; oneof o { int32 a = 3; H b = 4; } repeated int32 l = 5; \
         message H { int32 x = 1; int32 y = 2; repeated int32 z = 3; }",
    );
    let h = |x: Plain, y: Plain, z: &[i128]| {
        Plain::Struct(vec![x, y, Plain::List(z.iter().map(|z| Plain::Int(*z)).collect())])
    };
    let int = Plain::Int;
    let empty = Plain::List(vec![]);
    for (payload, shown) in [
        (&[][..], vec![int(0), Plain::Null, Plain::Null, Plain::Null, empty.clone()]),
        (&[8, 1, 8, 2], vec![int(2), Plain::Null, Plain::Null, Plain::Null, empty.clone()]),
        (
            // h = {x: 1, z: [5]}, then h = {y: 2, z: [6, 7]}
            &[18, 5, 8, 1, 26, 1, 5, 18, 6, 16, 2, 26, 2, 6, 7],
            vec![int(0), h(int(1), int(2), &[5, 6, 7]), Plain::Null, Plain::Null, empty.clone()],
        ),
        (
            // b = {x: 1}, a = 9, b = {y: 2}: what was before another of the group is gone
            &[34, 2, 8, 1, 24, 9, 34, 2, 16, 2],
            vec![int(0), Plain::Null, Plain::Null, h(int(0), int(2), &[]), empty.clone()],
        ),
        (
            // one by one, packed, one by one; an unknown field and an unknown group between
            &[40, 1, 98, 1, 0, 42, 2, 2, 3, 107, 8, 1, 108, 40, 4],
            vec![
                int(0),
                Plain::Null,
                Plain::Null,
                Plain::Null,
                Plain::List([1, 2, 3, 4].map(Plain::Int).to_vec()),
            ],
        ),
    ] {
        assert_eq!(decoded(&schema, payload), Ok(shown), "{payload:?}");
    }
}

#[test]
fn what_is_no_message_fails_with_the_fields_path() {
    let schema = simple(
        "int32 n = 1; string s = 2; M2 m = 3; message M2 { int64 x = 1; } map<string, int32> k = 4;",
    );
    for (payload, cause) in [
        (&[8][..], "field n: the data ends within a number"),
        (&[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], "more than ten bytes"),
        (&[13, 0, 0, 0, 0], "field n: its bytes are of another type"),
        (&[18, 5, b'a'], "field s: 5 bytes are needed, 1 are left"),
        (&[18, 1, 0xff], "not UTF-8"),
        (&[26, 2, 8, 0x80], "field m.x: the data ends"),
        (&[0], "no field number 0"),
        (&[15], "no wire type 7"),
        (&[12], "its bytes are of another type"),
        (&[43, 8, 1], "the data ends within a number"),
        (&[43, 52], "group 6 ends and is not open"),
        (&[34, 3, 10, 1, b'a', 34, 3, 10, 1, b'a'], "field k.a: an object has it twice"),
    ] {
        let error = decoded(&schema, payload).expect_err(&format!("{payload:?}"));
        assert!(error.contains(cause), "{payload:?}: {error}");
    }
    let groups = [vec![43u8; 1000], vec![44; 1000]].concat();
    assert!(decoded(&schema, &groups).unwrap_err().contains("deeper"));
}

#[test]
fn the_path_names_the_message() {
    let schema = version(
        1,
        r#"syntax = "proto3"; message Helper { int32 n = 1; }
           message Top { Helper h = 1; message In { string s = 1; } int32 k = 2; }"#,
    );
    let mut decoder = decoder(std::slice::from_ref(&schema));
    let records: [&[u8]; 6] =
        [&[2, 2, 16, 7], &[0, 8, 7], &[4, 2, 0], &[2, 9], &[], &[0xfe, 0xff, 0xff, 0xff, 0x0f]];
    let batch = decoder.decode(&block(records.map(|r| Some(framed(1, r))))).unwrap();
    assert_eq!(row(&batch, 0), [Plain::Null, Plain::Int(7)]);
    let failed: Vec<i64> = batch.failures.iter().map(|f| f.offset.0).collect();
    assert_eq!(failed, [1, 2, 3, 4, 5]);
    assert!(batch.failures[0].cause.contains("the table shows Top"), "{:?}", batch.failures[0]);
}

#[test]
fn a_field_is_known_by_its_number_and_widened() {
    let old = version(
        1,
        r#"syntax = "proto3"; message M { int32 a = 1; uint64 b = 2; int32 gone = 3; string s = 4; }"#,
    );
    let new = version(
        2,
        r#"syntax = "proto3"; message M { int64 renamed = 1; int64 b = 2; repeated string s = 4; int32 more = 5; }"#,
    );
    let mut decoder = decoder(&[old, new]);
    let payload = |b: u8| vec![0, 8, 5, 16, b, 24, 1, 34, 1, b'x'];
    let mut large = payload(1);
    large.splice(4..5, [255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    let batch = decoder
        .decode(&block([
            Some(framed(1, &payload(7))),
            Some(framed(2, &payload(7))),
            Some(framed(1, &large)),
        ]))
        .unwrap();
    let list = || Plain::List(vec![text("x")]);
    assert_eq!(row(&batch, 0), [Plain::Int(5), Plain::Int(7), list(), Plain::Null]);
    assert_eq!(row(&batch, 1), [Plain::Int(5), Plain::Int(7), list(), Plain::Int(0)]);
    assert!(batch.failures[0].cause.contains("field b: a number is beyond its column"));
}

#[test]
fn parts_of_messages_cost_what_they_unfold_to() {
    // Each part makes the message be read again from its first.
    let schema = simple("H h = 1; message H { int32 x = 1; }");
    let payload = [10, 2, 8, 1].repeat(200_000);
    let error = decoded(&schema, &payload).unwrap_err();
    assert!(error.contains("unfold to more than"), "{error}");
    assert!(decoded(&schema, &[10, 2, 8, 1].repeat(10)).is_ok());
}

#[test]
fn a_message_within_itself_and_structs_are_json_text() {
    let schema = version(
        1,
        r#"syntax = "proto3"; import "google/protobuf/struct.proto"; import "google/protobuf/any.proto";
        message M { google.protobuf.Struct s = 1; google.protobuf.Value v = 2; Tree t = 3; repeated google.protobuf.Value l = 4; }
        message Tree { int64 big_number = 1; repeated Tree kids = 2; Color c = 3; bytes b = 4; google.protobuf.Any any = 5; }
        enum Color { RED = 0; GREEN = 1; }"#,
    );
    let sized = |tag: u8, bytes: &[u8]| [&[tag, bytes.len() as u8], bytes].concat();
    let number = [&[0x11][..], &1.5f64.to_le_bytes()].concat();
    let entry = [sized(0x0a, b"a"), sized(0x12, &number)].concat();
    let s = sized(0x0a, &sized(0x0a, &entry));
    let null = sized(0x12, &[0x08, 0]);
    let list =
        [sized(0x22, &number), sized(0x22, &[0x08, 0]), sized(0x22, &sized(0x1a, b"x"))].concat();
    // 2^53 + 1
    let big = [0x08, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 0x18, 1, 0x22, 1, 7];
    let any = sized(0x2a, &sized(0x0a, b"t/x"));
    let kids = [sized(0x12, &big), sized(0x12, &sized(0x12, &[])), sized(0x12, &any)].concat();
    let whole = [s.clone(), null, sized(0x1a, &[&[8, 1], &kids[..]].concat()), list].concat();
    let row = decoded(&schema, &whole).unwrap();
    assert_eq!(row[0], text(r#"{"a":1.5}"#));
    assert_eq!(row[1], Plain::Null);
    let Plain::Struct(tree) = &row[2] else { panic!("{row:?}") };
    assert_eq!(
        tree[1],
        Plain::List(vec![
            text(r#"{"big_number":9007199254740993,"c":"GREEN","b":"Bw=="}"#),
            text(r#"{"kids":[{}]}"#),
            // Whatever its type is.
            text(r#"{"any":{"type_url":"t/x"}}"#),
        ])
    );
    assert_eq!(row[3], Plain::List(vec![text("1.5"), Plain::Null, text(r#""x""#)]));
    // In two parts, which are put together.
    let other = sized(0x0a, &sized(0x0a, &[sized(0x0a, b"b"), sized(0x12, &number)].concat()));
    let Plain::Text(both) = &decoded(&schema, &[s, other].concat()).unwrap()[0] else { panic!() };
    let both: serde_json::Value = serde_json::from_str(both).unwrap();
    assert_eq!(both, serde_json::json!({"a": 1.5, "b": 1.5}));
    for (bad, why) in [
        (sized(0x0a, &[0x0a, 9]), "is no message google.protobuf.Struct"),
        (sized(0x22, &sized(0x1a, &[0xff])), "is no message google.protobuf.Value"),
    ] {
        let error = decoded(&schema, &bad).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    // Lists within lists: a hundred messages may be within each other.
    let deep = |n: usize| {
        (0..n).fold(vec![], |inner: Vec<u8>, _| {
            let mut out = vec![0x12];
            let mut len = inner.len();
            while len >= 0x80 {
                out.push(len as u8 | 0x80);
                len >>= 7;
            }
            out.push(len as u8);
            out.extend(inner);
            out
        })
    };
    let tree = simple("message Tree { repeated Tree kids = 2; } Tree t = 2;");
    assert!(decoded(&tree, &deep(90)).is_ok());
    assert!(decoded(&tree, &deep(50_000)).is_err());
}

// ---- against prost-reflect ---------------------------------------------------------------------

/// The message a table of this file shows, as prost-reflect knows it.
fn descriptor(proto: &str, name: &str) -> MessageDescriptor {
    struct One(String);
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "one.proto" => protox::file::File::from_source(name, &self.0),
                _ => protox::file::GoogleFileResolver::new().open_file(name),
            }
        }
    }
    let mut compiler = protox::Compiler::with_file_resolver(One(proto.to_owned()));
    compiler.include_imports(true).open_file("one.proto").unwrap();
    compiler.descriptor_pool().get_message_by_name(name).unwrap()
}

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = self.0 ^ (self.0 >> 29);
        // Small ones are as likely as large ones.
        mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (mixed % 64)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn some_message(descriptor: &MessageDescriptor, dice: &mut Dice, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    if descriptor.full_name() == "google.protobuf.Timestamp" {
        message.set_field_by_number(1, Value::I64(dice.below(1 << 37) as i64 - (1 << 35)));
        message.set_field_by_number(2, Value::I32(dice.below(1_000_000_000) as i32));
        return message;
    }
    for field in descriptor.fields() {
        if dice.below(4) == 0 && field.cardinality() != prost_reflect::Cardinality::Required {
            continue;
        }
        if depth > 3 && matches!(field.kind(), Wire::Message(_)) {
            continue;
        }
        let value = if field.is_map() {
            let Wire::Message(entry) = field.kind() else { unreachable!() };
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let entries = (0..dice.below(4)).map(|_| {
                let key = match some_value(&key, dice, depth) {
                    Value::Bool(b) => MapKey::Bool(b),
                    Value::I32(i) => MapKey::I32(i),
                    Value::String(s) => MapKey::String(s),
                    other => panic!("{other:?}"),
                };
                (key, some_value(&value, dice, depth))
            });
            Value::Map(entries.collect())
        } else if field.is_list() {
            Value::List((0..dice.below(4)).map(|_| some_value(&field, dice, depth)).collect())
        } else {
            some_value(&field, dice, depth)
        };
        message.set_field(&field, value);
    }
    message
}

fn some_value(field: &FieldDescriptor, dice: &mut Dice, depth: usize) -> Value {
    match field.kind() {
        Wire::Double => Value::F64(dice.next() as i64 as f64 / 7.0),
        Wire::Float => Value::F32(dice.next() as i32 as f32 / 7.0),
        Wire::Int32 | Wire::Sint32 | Wire::Sfixed32 => Value::I32(dice.next() as i32),
        Wire::Int64 | Wire::Sint64 | Wire::Sfixed64 => Value::I64(dice.next() as i64),
        Wire::Uint32 | Wire::Fixed32 => Value::U32(dice.next() as u32),
        Wire::Uint64 | Wire::Fixed64 => Value::U64(dice.next()),
        Wire::Bool => Value::Bool(dice.below(2) == 1),
        Wire::String => Value::String(["", "a", "grün", "😀"][dice.below(4) as usize].to_owned()),
        Wire::Bytes => Value::Bytes(dice.next().to_le_bytes().to_vec().into()),
        // 77 is nobody's name.
        Wire::Enum(_) => Value::EnumNumber([0, 1, 2, -5, 77][dice.below(5) as usize]),
        Wire::Message(message) => Value::Message(some_message(&message, dice, depth + 1)),
    }
}

fn expected(message: &DynamicMessage, record: &RecordType) -> Vec<Plain> {
    let fields = record.fields.iter();
    fields
        .map(|field| {
            let descriptor = message.descriptor().get_field_by_name(&field.name).unwrap();
            if descriptor.supports_presence() && !message.has_field(&descriptor) {
                return Plain::Null;
            }
            let value = message.get_field(&descriptor);
            match (value.as_ref(), &field.ty.kind) {
                (Value::List(items), Kind::Array(element)) => {
                    Plain::List(items.iter().map(|i| one(i, &descriptor, element)).collect())
                }
                (Value::Map(entries), Kind::Map(ty)) => {
                    let Wire::Message(entry) = descriptor.kind() else { unreachable!() };
                    let of = entry.map_entry_value_field();
                    let key = |key: &MapKey| match key {
                        MapKey::Bool(b) => b.to_string(),
                        MapKey::I32(i) => i.to_string(),
                        MapKey::String(s) => s.clone(),
                        other => panic!("{other:?}"),
                    };
                    Plain::Map(entries.iter().map(|(k, v)| (key(k), one(v, &of, ty))).collect())
                }
                (value, _) => one(value, &descriptor, &field.ty),
            }
        })
        .collect()
}

/// JSON text with all members in order.
fn json(text: String) -> Plain {
    Plain::Text(serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string())
}

/// The rows of these columns, members of JSON in order.
fn in_order(row: Vec<Plain>, record: &RecordType) -> Vec<Plain> {
    let ordered = |(value, field): (Plain, &RecordField)| match (value, field.ty.logical) {
        (Plain::Text(text), Some(Logical::Json)) => json(text),
        (value, _) => value,
    };
    row.into_iter().zip(&record.fields).map(ordered).collect()
}

fn one(value: &Value, field: &FieldDescriptor, ty: &ValueType) -> Plain {
    match value {
        Value::Bool(b) => Plain::Bool(*b),
        Value::I32(i) => Plain::Int((*i).into()),
        Value::I64(i) => Plain::Int((*i).into()),
        Value::U32(i) => Plain::Int((*i).into()),
        Value::U64(i) => Plain::Int((*i).into()),
        Value::F32(f) => Plain::Float(f64::from(*f).to_bits()),
        Value::F64(f) => Plain::Float(f.to_bits()),
        Value::String(s) => text(s),
        Value::Bytes(b) => Plain::Bytes(b.to_vec()),
        Value::EnumNumber(n) => {
            let Wire::Enum(names) = field.kind() else { unreachable!() };
            names.get_value(*n).map_or(text(&n.to_string()), |v| text(v.name()))
        }
        Value::Message(message) => match &ty.kind {
            Kind::Record(record) => Plain::Struct(expected(message, record)),
            // A message within itself.
            Kind::String if ty.logical == Some(Logical::Json) => {
                let options = prost_reflect::SerializeOptions::new()
                    .stringify_64_bit_integers(false)
                    .use_proto_field_name(true);
                let mut out = serde_json::Serializer::new(Vec::new());
                message.serialize_with_options(&mut out, &options).unwrap();
                json(String::from_utf8(out.into_inner()).unwrap())
            }
            _ if message.descriptor().full_name() == "google.protobuf.Timestamp" => {
                let part = |n| match *message.get_field_by_number(n).unwrap() {
                    Value::I64(i) => i128::from(i),
                    Value::I32(i) => i128::from(i),
                    _ => unreachable!(),
                };
                Plain::Int(part(1) * 1_000_000 + part(2) / 1000)
            }
            _ => {
                let wrapped = message.descriptor().get_field(1).unwrap();
                one(&message.get_field(&wrapped), &wrapped, ty)
            }
        },
        other => panic!("{other:?}"),
    }
}

fn agrees(proto: &str, name: &str, path: &[u8], seed: u64) {
    let schema = version(1, proto);
    let ty = schema.parse().unwrap();
    let Kind::Record(record) = &ty.kind else { panic!("{ty:?}") };
    assert_eq!(record.name, name);
    let descriptor = descriptor(proto, name);
    let mut dice = Dice(seed);
    let messages: Vec<DynamicMessage> =
        (0..4).map(|_| some_message(&descriptor, &mut dice, 0)).collect();
    let mut decoder = decoder(std::slice::from_ref(&schema));
    let payloads: Vec<Vec<u8>> =
        messages.iter().map(|m| framed(1, &[path, &m.encode_to_vec()].concat())).collect();
    let batch = decoder.decode(&block(payloads.iter().map(Some))).unwrap();
    assert!(batch.failures.is_empty(), "{:?}", batch.failures);
    for (i, message) in messages.iter().enumerate() {
        let expected = sorted(Plain::Struct(expected(message, record)));
        assert_eq!(sorted(Plain::Struct(in_order(row(&batch, i), record))), expected, "{message}");
    }
    // Every change and cut is a failure or another row, and never touches a neighbour.
    let good = &payloads[0];
    let whole = row(&batch, 0);
    for _ in 0..20 {
        let mut bad = good.clone();
        let at = 5 + dice.below((bad.len() - 5) as u64) as usize;
        if dice.below(2) == 0 {
            bad.truncate(at)
        } else {
            bad[at] = dice.next() as u8
        }
        let batch = decoder.decode(&block([Some(good), Some(&bad), Some(good)])).unwrap();
        let all = rows(&batch);
        assert_eq!((&all[0], &all[2]), (&whole, &whole));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn proto3_rows_are_what_prost_reflect_reads(seed in any::<u64>()) {
        // The second message at the top: zig-zag 1, then zig-zag 1.
        agrees(PROTO3, "shop.Order", &[2, 2], seed);
    }

    #[test]
    fn proto2_rows_are_what_prost_reflect_reads(seed in any::<u64>()) {
        agrees(PROTO2, "Old", &[0], seed);
    }
}
