//! JSON payloads: every rule of strictness, poison, and whatever schemas and values proptest thinks of.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use isk_decode::TopicDecoder;
use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{FieldIdMap, Kind, Logical, SchemaText, ValueType, table_schema};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Plain, block, decoder_of, framed, row, rows, sorted};

fn version(version: i32, text: &str) -> SchemaText {
    let id = RegistrySchemaId(version);
    let format = SchemaFormat::Json;
    SchemaText {
        version: version.cast_unsigned(),
        id,
        format,
        text: text.to_owned(),
        references: Vec::new(),
    }
}

/// A decoder for the last of these schemas; their ids are 1, 2, ...
fn decoder(schemas: &[SchemaText]) -> TopicDecoder {
    let table = table_schema(schemas, &[], &mut FieldIdMap::default()).unwrap();
    decoder_of(table, schemas)
}

fn decoder_for(schema: &Value) -> TopicDecoder {
    decoder(&[version(1, &schema.to_string())])
}

/// The value's columns of one payload, or why it failed.
fn decoded(decoder: &mut TopicDecoder, payload: &[u8]) -> Result<Vec<Plain>, String> {
    let batch = decoder.decode(&block([Some(framed(1, payload))])).unwrap();
    match batch.failures.first() {
        None => Ok(row(&batch, 0)),
        Some(failure) => {
            assert!(row(&batch, 0).iter().all(|column| *column == Plain::Null));
            Err(failure.cause.clone())
        }
    }
}

/// The one property `f` of a schema.
fn field(schema: &str, json: &str) -> Result<Plain, String> {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let mut decoder = decoder_for(&json!({"type": "object", "properties": {"f": schema}}));
    let row = decoded(&mut decoder, format!(r#"{{"f":{json}}}"#).as_bytes())?;
    Ok(row[0].clone())
}

fn text(s: &str) -> Plain {
    Plain::Text(s.to_owned())
}

fn float(f: f64) -> Plain {
    Plain::Float(f.to_bits())
}

#[test]
fn values_are_shown_exactly() {
    let decimal = |base: &str| {
        format!(
            r#"{{"type":"{base}","connect.type":"bytes",
                "title":"org.apache.kafka.connect.data.Decimal",
                "connect.parameters":{{"scale":"2","connect.decimal.precision":"20"}}}}"#
        )
    };
    let connect = |ty: &str, name: &str| {
        format!(
            r#"{{"type":"integer","connect.type":"{ty}",
                "title":"org.apache.kafka.connect.data.{name}"}}"#
        )
    };
    let (integer, number) = (r#"{"type":"integer"}"#, r#"{"type":"number"}"#);
    let string = r#"{"type":"string"}"#;
    for (schema, json, shown) in [
        (integer, "-9223372036854775808", Plain::Int(i64::MIN.into())),
        (integer, "1.0", Plain::Int(1)),
        (integer, "null", Plain::Null),
        (number, "1", float(1.0)),
        (number, "-0.0", float(-0.0)),
        // serde_json's own number is one unit in the last place off here.
        (number, "122.416294033786585", float(122.416_294_033_786_59)),
        (number, "5e-324", float(5e-324)),
        (string, r#""""#, text("")),
        (string, r#""a\u00e9\n\ud83d\ude00ü""#, text("aé\n😀ü")),
        (r#"{"type":"boolean"}"#, "true", Plain::Bool(true)),
        (r#"{"type":"null"}"#, "null", Plain::Null),
        (r#"{}"#, r#" [1.10, {"a" : 12345678901234567890123}] "#, {
            text(r#"[1.10, {"a" : 12345678901234567890123}]"#)
        }),
        (r#"{}"#, r#""\ud800""#, text(r#""\ud800""#)),
        (r#"{}"#, "null", Plain::Null),
        (r#"{"type":"string","format":"date"}"#, r#""1970-01-03""#, Plain::Int(2)),
        (
            r#"{"type":"string","format":"date-time"}"#,
            r#""1970-01-01T01:00:00.000001+01:00""#,
            Plain::Int(1),
        ),
        (
            r#"{"type":"string","format":"uuid"}"#,
            r#""00000000-0000-0000-0000-0000000000fF""#,
            Plain::Bytes([vec![0; 15], vec![255]].concat()),
        ),
        (r#"{"type":"array","items":{"type":"integer"}}"#, "[]", Plain::List(vec![])),
        (
            r#"{"type":"array","items":{"type":"integer"}}"#,
            "[1,null]",
            Plain::List(vec![Plain::Int(1), Plain::Null]),
        ),
        (
            r#"{"type":"object","additionalProperties":{"type":"integer"}}"#,
            r#"{"b":1,"\u0061":2}"#,
            Plain::Map(vec![("b".to_owned(), Plain::Int(1)), ("a".to_owned(), Plain::Int(2))]),
        ),
        (r#"{"type":"object","additionalProperties":false}"#, r#"{"x":[1]}"#, Plain::Bool(true)),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":true}"#,
            r#"{"x":[1, 2],"a":7,"y":null}"#,
            Plain::Struct(vec![
                Plain::Int(7),
                Plain::Map(vec![("x".to_owned(), text("[1, 2]")), ("y".to_owned(), Plain::Null)]),
            ]),
        ),
        (r#"{"type":"integer","connect.type":"int32"}"#, "-2147483648", {
            Plain::Int(i32::MIN.into())
        }),
        (r#"{"type":"number","connect.type":"float32"}"#, "0.1", float(f64::from(0.1f32))),
        (r#"{"type":"string","connect.type":"bytes"}"#, r#""AP8=""#, Plain::Bytes(vec![0, 255])),
        (&connect("int32", "Date"), "-1", Plain::Int(-1)),
        (&connect("int32", "Time"), "1", Plain::Int(1000)),
        (&connect("int64", "Timestamp"), "-1", Plain::Int(-1000)),
        (&decimal("string"), r#""/w==""#, Plain::Int(-1)),
        (&decimal("number"), "-123456789012345678.90", Plain::Int(-12_345_678_901_234_567_890)),
        (&decimal("number"), "1e3", Plain::Int(100_000)),
    ] {
        assert_eq!(field(schema, json), Ok(shown), "{schema} {json}");
    }
}

#[test]
fn what_a_column_would_lie_about_fails_with_the_fields_path() {
    let nested = r#"{"type":"object","properties":{"g":{"type":"integer"}}}"#;
    for (schema, json, cause) in [
        (r#"{"type":"integer"}"#, r#""1""#, "field f: a text is found where a whole number"),
        (r#"{"type":"integer"}"#, "1.5", "fraction"),
        (r#"{"type":"integer"}"#, "9223372036854775808", "64 bits"),
        (r#"{"type":"integer"}"#, "true", "a boolean"),
        (r#"{"type":"integer","connect.type":"int8"}"#, "2147483648", "32-bit"),
        (r#"{"type":"number"}"#, "1e400", "a double"),
        (r#"{"type":"number"}"#, "NaN", "'N' at byte 5"),
        (r#"{"type":"string"}"#, "1", "a number is found where a text"),
        (r#"{"type":"string"}"#, r#""\ud800""#, "no character"),
        (r#"{"type":"boolean"}"#, "0", "a boolean belongs"),
        (r#"{"type":"null"}"#, "0", "null belongs"),
        (r#"{"type":"array"}"#, "{}", "an array belongs"),
        (r#"{"type":"object","additionalProperties":{}}"#, "[]", "an object belongs"),
        (r#"{"type":"string","format":"date"}"#, r#""2024-02-30""#, "no date"),
        (r#"{"type":"string","format":"date-time"}"#, r#""2024-02-03T04:05:06""#, "an offset"),
        (r#"{"type":"string","format":"date-time"}"#, "7", "a date-time"),
        (r#"{"type":"string","format":"uuid"}"#, r#""x""#, "no uuid"),
        (r#"{"type":"string","connect.type":"bytes"}"#, r#""A""#, "Base64"),
        (nested, r#"{"g":"x"}"#, "field f.g: "),
        (nested, r#"{"g":1,"g":1}"#, "field f.g: an object has it twice"),
        (nested, r#"[1]"#, "field f: an array is found where an object"),
        (
            r#"{"type":"object","additionalProperties":{}}"#,
            r#"{"k":1,"\u006b":2}"#,
            "field f.k: an object has it twice",
        ),
        (r#"{}"#, "[1,]", "a value"),
        (r#"{}"#, "1 2", "a comma"),
    ] {
        let error = field(schema, json).expect_err(json);
        assert!(error.contains(cause), "{schema} {json}: {error}");
    }
}

#[test]
fn rows_of_objects_and_of_other_values() {
    let mut object = decoder_for(&json!({"type":"object","properties":{"a":{"type":"integer"}}}));
    for (payload, row) in [
        (r#"{"a":1}"#, vec![Plain::Int(1)]),
        (" { } \n", vec![Plain::Null]),
        (r#"{"b":{"a":2},"\u0061":1,"c":[]}"#, vec![Plain::Int(1)]),
        ("null", vec![Plain::Null]),
    ] {
        assert_eq!(decoded(&mut object, payload.as_bytes()), Ok(row), "{payload}");
    }
    for payload in ["", " ", "1", "[]", "{} {}", r#"{"a":1"#, r#"{"b":tru}"#, "\u{feff}{}"] {
        assert!(decoded(&mut object, payload.as_bytes()).is_err(), "{payload}");
    }
    assert!(decoded(&mut object, b"{\"a\":1,\"b\":\"\xff\"}").unwrap_err().contains("UTF-8"));

    let mut number = decoder_for(&json!({"type":"number"}));
    assert_eq!(decoded(&mut number, b" 1.5 "), Ok(vec![float(1.5)]));
    assert!(decoded(&mut number, b"\"x\"").unwrap_err().starts_with("field value: "));
}

#[test]
fn poison_leaves_its_neighbours_whole() {
    let schema = json!({"type":"object","properties":{
        "id":{"type":"integer"},"note":{"type":"string"},
        "tags":{"type":"array","items":{"type":"string"}},
        "attributes":{"type":"object","additionalProperties":{"type":"number"}},
        "inner":{"type":"object","properties":{"x":{"type":"integer"}},"additionalProperties":true}}});
    let good = json!({"id":1,"note":"nö\n","tags":["a","b"],"attributes":{"k":1.5},
        "inner":{"x":1,"y":[true]}})
    .to_string();
    let mut decoder = decoder_for(&schema);
    let expected = decoded(&mut decoder, good.as_bytes()).unwrap();
    assert!(!expected.contains(&Plain::Null));
    // Every cut is a failure that leaves nothing behind, in a block with good records around it.
    for cut in 0..good.len() {
        let values = [good.as_bytes(), &good.as_bytes()[..cut], good.as_bytes()];
        let batch = decoder.decode(&block(values.map(|v| Some(framed(1, v))))).unwrap();
        let nulls = vec![Plain::Null; expected.len()];
        assert_eq!(rows(&batch), [expected.clone(), nulls, expected.clone()], "cut at {cut}");
        let failed: Vec<i64> = batch.failures.iter().map(|f| f.offset.0).collect();
        assert_eq!(failed, [1]);
    }
}

#[test]
fn a_writers_encoding_counts_and_the_tables_type_is_the_newest() {
    let decimal = |scale: u32| {
        format!(
            r#"{{"type":"object","properties":{{"f":{{"type":"string","connect.type":"bytes",
                "title":"org.apache.kafka.connect.data.Decimal",
                "connect.parameters":{{"scale":"{scale}"}}}}}}}}"#
        )
    };
    let mut decoder = decoder(&[version(1, &decimal(2)), version(2, &decimal(3))]);
    let payload = br#"{"f":"AQ=="}"#;
    let batch =
        decoder.decode(&block([Some(framed(1, payload)), Some(framed(2, payload))])).unwrap();
    assert_eq!(rows(&batch), [vec![Plain::Int(10)], vec![Plain::Int(1)]]);

    // A text that was none in Base64 does not become bytes, a number no time.
    let old = r#"{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"}}}"#;
    let new = r#"{"type":"object","properties":{"a":{"type":"string","connect.type":"bytes"},
        "b":{"type":"integer","connect.type":"int32","title":"org.apache.kafka.connect.data.Date"}}}"#;
    let mut decoder = self::decoder(&[version(1, old), version(2, new)]);
    for (payload, cause) in [(r#"{"a":"abcd"}"#, "Base64"), (r#"{"b":7}"#, "a date")] {
        let error = decoded(&mut decoder, payload.as_bytes()).unwrap_err();
        assert!(error.contains(cause), "{error}");
    }
}

#[test]
fn records_of_another_format_fail_and_others_do_not() {
    let avro = SchemaText { format: SchemaFormat::Avro, ..version(1, r#""long""#) };
    let json = version(2, r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#);
    let mut decoder = decoder(&[avro, json]);
    let batch =
        decoder.decode(&block([Some(framed(1, &[2])), Some(framed(2, br#"{"a":5}"#))])).unwrap();
    assert_eq!(rows(&batch), [vec![Plain::Null], vec![Plain::Int(5)]]);
    let cause = &batch.failures[0].cause;
    assert!(cause.contains("AVRO") && cause.contains("follows JSON"), "{cause}");
}

#[test]
fn a_few_bytes_do_not_unfold_to_many_cells() {
    let properties: serde_json::Map<String, Value> =
        (0..2000).map(|i| (format!("p{i}"), json!({"type":"integer"}))).collect();
    let schema = json!({"type":"array","items":{"type":"object","properties":properties}});
    let payload = format!("[{}{{}}]", "{},".repeat(50_000));
    let error = decoded(&mut decoder_for(&schema), payload.as_bytes()).unwrap_err();
    assert!(error.contains("more than its bytes can mean"), "{error}");
}

// ---- against serde_json ------------------------------------------------------------------------

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type":"boolean"})),
        Just(json!({"type":["integer","null"]})),
        Just(json!({"type":"number"})),
        Just(json!({"type":"string"})),
        Just(json!({"type":"string","format":"date"})),
        Just(json!({"type":"string","format":"date-time"})),
        Just(json!({"oneOf":[{"type":"null"},{"type":"integer","connect.type":"int32"}]})),
        Just(json!({"enum":["a","b"]})),
        Just(json!({})),
    ];
    let nested = leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type":"array","items":items})),
            inner.clone().prop_map(|v| json!({"type":"object","additionalProperties":v})),
            objects(inner),
        ]
    });
    objects(nested)
}

fn objects(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let properties = prop::collection::btree_map("[a-zA-Zé \"]{1,4}", inner, 1..5);
    (properties, any::<bool>()).prop_map(|(properties, open)| {
        let mut schema = json!({"type":"object","properties":properties});
        if open {
            schema["additionalProperties"] = json!(true);
        }
        schema
    })
}

fn values(schema: &Value) -> BoxedStrategy<Value> {
    let text = || any::<String>().prop_map(Value::from);
    if schema["oneOf"].is_array() {
        return prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from)].boxed();
    }
    if schema["enum"].is_array() {
        return Just(json!("a")).boxed();
    }
    let some = match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("boolean"), _) => any::<bool>().prop_map(Value::from).boxed(),
        (Some("number"), _) => {
            prop::num::f64::NORMAL.prop_union(prop::num::f64::ZERO).prop_map(Value::from).boxed()
        }
        (Some("string"), Some("date")) => (0..10_000i64, 1..13u8, 1..29u8)
            .prop_map(|(y, m, d)| json!(format!("{y:04}-{m:02}-{d:02}")))
            .boxed(),
        (Some("string"), Some(_)) => {
            (0..4_000_000_000i64, 0..1_000_000u32).prop_map(|(s, us)| json!(at(s, us))).boxed()
        }
        (Some("string"), None) => text().boxed(),
        (Some("array"), _) => {
            prop::collection::vec(values(&schema["items"]), 0..4).prop_map(Value::from).boxed()
        }
        (Some(_), _) if schema["properties"].is_object() => {
            let members = schema["properties"].as_object().unwrap();
            let members: Vec<_> = members
                .iter()
                .map(|(name, schema)| {
                    (Just(name.clone()), prop::option::of(values(schema))).boxed()
                })
                .collect();
            (members, prop::option::of(any::<i64>()))
                .prop_map(|(members, other)| {
                    let known = members.into_iter().filter_map(|(name, v)| Some((name, v?)));
                    let other = other.map(|v| ("~other".to_owned(), json!([v])));
                    Value::Object(known.chain(other).collect())
                })
                .boxed()
        }
        (Some(_), _) => prop::collection::hash_map(
            any::<String>(),
            values(&schema["additionalProperties"]),
            0..4,
        )
        .prop_map(|entries| Value::Object(entries.into_iter().collect()))
        .boxed(),
        // A list of types, or nothing.
        (None, _) if schema["type"].is_array() => any::<i64>().prop_map(Value::from).boxed(),
        (None, _) => prop_oneof![text(), Just(json!([1, {"a":"é"}])), Just(json!(1.25))].boxed(),
    };
    prop_oneof![9 => some, 1 => Just(Value::Null)].boxed()
}

/// RFC 3339 by division alone: days are found by counting, not by the decoder's formula.
fn at(seconds: i64, micros: u32) -> String {
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}.{micros:06}Z", month + 1, days + 1)
}

/// A value as serde_json has it, under a type, as columns show it. Times are checked by their own text.
fn expected(value: &Value, ty: &ValueType) -> Plain {
    match (value, &ty.kind, ty.logical) {
        (Value::Null, ..) => Plain::Null,
        (_, _, Some(Logical::Json)) => Plain::Text(value.to_string()),
        (Value::Bool(b), ..) => Plain::Bool(*b),
        (Value::Number(n), Kind::Double, _) => float(n.as_f64().unwrap()),
        (Value::Number(n), ..) => Plain::Int(n.as_i64().unwrap().into()),
        (Value::String(s), _, Some(logical)) => Plain::Text(format!("{logical:?} {s}")),
        (Value::String(s), ..) => text(s),
        (Value::Array(items), Kind::Array(element), _) => {
            Plain::List(items.iter().map(|item| expected(item, element)).collect())
        }
        (Value::Object(members), Kind::Map(value), _) => {
            Plain::Map(members.iter().map(|(k, v)| (k.clone(), expected(v, value))).collect())
        }
        (Value::Object(members), Kind::Record(record), _) => {
            let fields = record.fields.iter();
            let named = |name: &str| record.fields.iter().any(|f| f.name == name);
            Plain::Struct(
                fields
                    .map(|f| match (&f.ty.kind, f.ty.logical) {
                        (Kind::Map(value), Some(Logical::Rest)) => Plain::Map(
                            members
                                .iter()
                                .filter(|(k, _)| !named(k))
                                .map(|(k, v)| (k.clone(), expected(v, value)))
                                .collect(),
                        ),
                        _ => members.get(&f.name).map_or(Plain::Null, |v| expected(v, &f.ty)),
                    })
                    .collect(),
            )
        }
        (value, kind, _) => panic!("{value} is no {kind:?}"),
    }
}

/// Dates and timestamps of a row as the text they came from.
fn with_times(value: Plain, ty: &ValueType) -> Plain {
    let inner = |items: Vec<Plain>, ty: &ValueType| {
        items.into_iter().map(|item| with_times(item, ty)).collect()
    };
    match (value, &ty.kind, ty.logical) {
        (Plain::Int(days), _, Some(logical @ Logical::Date)) => {
            let seconds = i64::try_from(days).unwrap() * 86_400;
            // The test's calendar begins in 1970: earlier dates go by the 400 years they repeat in.
            let cycles = (-seconds).max(0) / (146_097 * 86_400) + 1;
            let shifted = at(seconds + cycles * 146_097 * 86_400, 0);
            let (year, rest) = shifted.split_once('-').unwrap();
            let year = year.parse::<i64>().unwrap() - 400 * cycles;
            Plain::Text(format!("{logical:?} {year:04}-{}", &rest[..5]))
        }
        (Plain::Int(micros), _, Some(logical @ Logical::Timestamp(_))) => {
            let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
            let text = at(seconds.try_into().unwrap(), micros.try_into().unwrap());
            Plain::Text(format!("{logical:?} {text}"))
        }
        (Plain::List(items), Kind::Array(element), _) => Plain::List(inner(items, element)),
        (Plain::Map(entries), Kind::Map(value), _) => {
            Plain::Map(entries.into_iter().map(|(k, v)| (k, with_times(v, value))).collect())
        }
        (Plain::Struct(columns), Kind::Record(record), _) => Plain::Struct(
            columns.into_iter().zip(&record.fields).map(|(v, f)| with_times(v, &f.ty)).collect(),
        ),
        (other, ..) => other,
    }
}

fn cases() -> impl Strategy<Value = (Value, Vec<Value>)> {
    schemas().prop_flat_map(|schema| {
        let values = prop::collection::vec(values(&schema), 1..6);
        (Just(schema), values)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_what_serde_json_reads((schema, values) in cases()) {
        let text = version(1, &schema.to_string());
        let ty = text.parse().unwrap();
        let Kind::Record(record) = &ty.kind else { panic!("{ty:?}") };
        let mut decoder = decoder(&[text]);
        let payloads: Vec<Vec<u8>> = values.iter().map(|v| framed(1, v.to_string().as_bytes())).collect();
        let batch = decoder.decode(&block(payloads.iter().map(Some))).unwrap();
        prop_assert!(batch.failures.is_empty(), "{:?}", batch.failures);
        for (i, value) in values.iter().enumerate() {
            let shown = with_times(Plain::Struct(row(&batch, i)), &ty);
            let expected = match expected(value, &ty) {
                Plain::Null => Plain::Struct(vec![Plain::Null; record.fields.len()]),
                other => other,
            };
            prop_assert_eq!(sorted(shown), sorted(expected), "{} {}", schema, value);
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_lose_a_neighbour(
        (schema, values) in cases(),
        change in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut decoder = decoder_for(&schema);
        let good = framed(1, values[0].to_string().as_bytes());
        let mut bad = good.clone();
        let at = 5 + change.index(bad.len() - 5);
        bad[at] = byte;
        let batch = decoder.decode(&block([Some(&good), Some(&bad), Some(&good)])).unwrap();
        let alone = decoder.decode(&block([Some(&good)])).unwrap();
        prop_assert_eq!(row(&batch, 0), row(&alone, 0));
        prop_assert_eq!(row(&batch, 2), row(&alone, 0));
        // As text: a number beyond a double and half a surrogate pair are valid JSON where nobody looks.
        let valid = serde_json::from_slice::<&serde_json::value::RawValue>(&bad[5..]).is_ok();
        let failed = !batch.failures.is_empty();
        prop_assert!(valid || failed, "{:?} was taken", String::from_utf8_lossy(&bad[5..]));
    }
}
