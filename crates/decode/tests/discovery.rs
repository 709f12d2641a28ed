//! Columns that are found in JSON without a schema: the order of what is seen makes no difference, more of it only
//! widens them, and all that was seen decodes under them, with nothing lost.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use isk_decode::{Looked, TopicDecoder, observe_json};
use isk_model::SchemaFormat;
use isk_schema::{
    CONFIGURED, FieldIdMap, Limits, MAX_PLACES, Observed, REST, SchemaText, Shape, TableSchema,
    table_schema,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use support::{Plain, block, decoder_of, row, rows};

const LIMITS: Limits = Limits { columns: 500, keys: 100 };

fn observed<'v>(values: impl IntoIterator<Item = &'v str>) -> Observed {
    let (mut observed, mut room) = (Observed::default(), MAX_PLACES);
    for value in values {
        assert_eq!(
            observe_json(value.as_bytes(), &mut observed, &mut room),
            Looked::Object,
            "{value}"
        );
    }
    observed
}

fn shape(values: &[&str]) -> Shape {
    Shape::of_records(&observed(values.iter().copied()), None, LIMITS)
}

fn version(version: u32, shape: &Shape) -> SchemaText {
    SchemaText {
        version,
        id: CONFIGURED,
        format: SchemaFormat::Json,
        text: shape.json_schema(),
        references: Vec::new(),
    }
}

fn table(shape: &Shape) -> TableSchema {
    table_schema(&[version(1, shape)], &[], &mut FieldIdMap::default()).unwrap()
}

fn decoder(shape: &Shape) -> TopicDecoder {
    decoder_of(table(shape), &[])
}

/// The names of a table's columns before Kafka's.
fn names(table: &TableSchema) -> Vec<String> {
    let fields = table.iceberg.as_struct().fields().iter().take(table.value_columns());
    fields.map(|field| field.name.clone()).collect()
}

fn check(values: &[&str], columns: &str) {
    let table = table(&shape(values));
    let fields = table.iceberg.as_struct().fields().iter().take(table.value_columns());
    let shown: Vec<String> = fields.map(|f| format!("{}: {}", f.name, ty(&f.field_type))).collect();
    assert_eq!(shown.join(", "), format!("{columns}{REST}: string"), "{values:?}");
}

fn ty(ty: &iceberg::spec::Type) -> String {
    use iceberg::spec::Type;
    match ty {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::List(list) => format!("[{}]", self::ty(&list.element_field.field_type)),
        Type::Struct(fields) => {
            let fields = fields.fields().iter();
            let fields: Vec<_> =
                fields.map(|f| format!("{}: {}", f.name, self::ty(&f.field_type))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Type::Map(_) => "map".to_owned(),
    }
}

#[test]
fn types_are_the_narrowest_that_hold_what_was_seen() {
    for (values, columns) in [
        (
            &[r#"{"a":1,"b":"x","c":true,"d":1.5}"#][..],
            "a: long, b: string, c: boolean, d: double, ",
        ),
        (&[r#"{"a":1}"#, r#"{"a":1.0}"#], "a: double, "),
        (&[r#"{"a":1}"#, r#"{"a":null}"#, "{}"], "a: long, "),
        (&[r#"{"a":1}"#, r#"{"a":"1"}"#], "a: string, "),
        (&[r#"{"a":9223372036854775807}"#], "a: long, "),
        // A double would lose its digits.
        (&[r#"{"a":9223372036854775808}"#], "a: string, "),
        (&[r#"{"a":1e400}"#], "a: string, "),
        (&[r#"{"a":"2024-01-01T00:00:00Z"}"#], "a: string, "),
        (&[r#"{"a":{"b":{"c":1}}}"#], "a: {b: {c: long}}, "),
        (&[r#"{"a":[1,2.5,null]}"#], "a: [double], "),
        (&[r#"{"a":[{"b":1},{"c":"x"}]}"#], "a: [{b: long, c: string}], "),
        (&[r#"{"a":[1,"x"]}"#], "a: [string], "),
        (&[r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#], "a: string, "),
        // Nothing is known of these yet.
        (&[r#"{"a":null,"b":[],"c":{},"d":[{}],"e":{"f":null},"z":1}"#], "z: long, "),
        (&["{}"], ""),
        // No columns can have these names, or this one has it.
        (&[r#"{"":1,"a\nb":2,"_rest":3,"_REST":4,"ok":{"_rest":5}}"#], "ok: {_rest: long}, "),
        (&[r#"{"id":1,"ID":2,"kafka_offset":3}"#], "id: long, ID_2: long, kafka_offset_2: long, "),
        // Columns are in the order that producers write them in.
        (&[r#"{"z":1,"m":1}"#, r#"{"z":1,"a":1}"#], "z: long, a: long, m: long, "),
    ] {
        check(values, columns);
    }
}

#[test]
fn what_has_no_column_is_in_the_rest_in_the_shape_of_the_value() {
    let mut decoder = decoder(&shape(&[
        r#"{"id":1,"user":{"name":"x"},"items":[{"n":1}],"deep":[[{"n":1}]],"q\"":{"a":1}}"#,
    ]));
    for (value, rest) in [
        (r#"{"id":1,"user":{"name":"x"},"items":[{"n":1},{"n":2}]}"#, None),
        (r#"{"id":1,"new":{"a":[1, 2]}}"#, Some(r#"{"new":{"a":[1, 2]}}"#)),
        (r#"{"user":{"name":"x","age":3,"mail":null}}"#, Some(r#"{"user":{"age":3,"mail":null}}"#)),
        (r#"{"new":1,"user":{"age":3},"x":2}"#, Some(r#"{"new":1,"user":{"age":3},"x":2}"#)),
        (
            r#"{"items":[{"n":1},{"m":2},{},null,{"m":3,"n":4}]}"#,
            Some(r#"{"items":[null,{"m":2},null,null,{"m":3}]}"#),
        ),
        (
            r#"{"deep":[[{"n":1}],[],[{"n":1},{"k":1}]]}"#,
            Some(r#"{"deep":[null,null,[null,{"k":1}]]}"#),
        ),
        (r#"{"q\"":{"b":1},"\u0041":2}"#, Some(r#"{"q\"":{"b":1},"\u0041":2}"#)),
    ] {
        let batch = decoder.decode(&block([Some(value)])).unwrap();
        assert!(batch.failures.is_empty(), "{value}: {:?}", batch.failures);
        let expected = rest.map_or(Plain::Null, |rest| Plain::Text(rest.to_owned()));
        assert_eq!(row(&batch, 0).last(), Some(&expected), "{value}");
    }
    // A record that fails leaves nothing behind.
    let batch = decoder
        .decode(&block([Some(r#"{"new":1,"id":"x"}"#), Some("poison"), None, Some(r#"{"id":7}"#)]))
        .unwrap();
    assert_eq!(batch.failures.iter().map(|f| f.row).collect::<Vec<_>>(), [0, 1]);
    let rows = rows(&batch);
    assert!(rows[..3].iter().flatten().all(|column| *column == Plain::Null));
    assert_eq!(rows[3][0], Plain::Int(7));
}

#[test]
fn many_keys_are_no_columns() {
    let map: Map<String, Value> = (0..101).map(|n| (format!("k{n}"), json!(n))).collect();
    let many = format!(r#"{{"id":1,"by_user":{},"few":{{"a":1}}}}"#, json!(map));
    check(&[&many], "id: long, by_user: string, few: {a: long}, ");
    // At the top, those that few records have.
    let records: Vec<String> = (0..1000).map(|n| format!(r#"{{"id":1,"key{n}":{n}}}"#)).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    check(&records, "id: long, ");
}

#[test]
fn columns_are_bounded_and_stay() {
    let wide: Map<String, Value> = (0..50).map(|n| (format!("c{n:02}"), json!(n))).collect();
    let limits = Limits { columns: 20, keys: 100 };
    let (wide, often) = (json!(wide).to_string(), r#"{"c49":1,"n":{"a":1,"b":1}}"#);
    let seen = observed([wide.as_str(), often, often]);
    let shape = Shape::of_records(&seen, None, limits);
    let first = names(&table(&shape));
    assert_eq!(first.len(), 20 - 2, "two are nested: {first:?}");
    assert!(first.contains(&"c49".to_owned()) && first.contains(&"n".to_owned()));
    assert_eq!(Shape::of_records(&seen, Some(&shape), limits), shape);
    // Later, others are seen more often; and there is no room for what is nested in "n" now.
    let mut more = seen.clone();
    let other = r#"{"c48":1,"n":{"a":1.5,"z":1}}"#;
    more.merge(&observed([other; 100]), &mut { MAX_PLACES });
    let next = Shape::of_records(&more, Some(&shape), limits);
    assert_eq!(names(&table(&next)), first);
    let n = format!("{next:?}");
    assert!(n.contains(r#"("n", Object([("a", Double), ("b", Long)]))"#), "{n}");
}

#[test]
fn what_lies_too_deep_is_text_and_is_kept() {
    for (open, close) in [(r#"{"n":"#, "}"), ("[", "]")] {
        let deep = format!(r#"{{"a":{}1{}}}"#, open.repeat(120), close.repeat(120));
        let seen = observed([deep.as_str()]);
        // Parsers of what is kept go as deep as 128 levels.
        let kept = serde_json::to_string(&json!([[[[seen]]]])).unwrap();
        assert!(serde_json::from_str::<Value>(&kept).is_ok());
        let shape = Shape::of_records(&seen, None, LIMITS);
        let kept = serde_json::to_string(&shape).unwrap();
        assert_eq!(serde_json::from_str::<Shape>(&kept).unwrap(), shape);
        let batch = decoder(&shape).decode(&block([Some(&deep)])).unwrap();
        assert!(batch.failures.is_empty() && row(&batch, 0)[1] == Plain::Null);
    }
}

#[test]
fn what_is_no_object_is_told_apart() {
    let mut seen = Observed::default();
    for (value, looked) in [
        (&b"{}"[..], Looked::Object),
        (b" {\"a\":1}\n", Looked::Object),
        (b"[1]", Looked::OtherJson),
        (b"17", Looked::OtherJson),
        (b"null", Looked::OtherJson),
        (b"{\"a\":1", Looked::Text),
        (b"{\"a\":1}{\"a\":1}", Looked::Text),
        // Parsers differ about what it means.
        (br#"{"a":1,"\u0061":2}"#, Looked::Text),
        (b"plain text", Looked::Text),
        (b"", Looked::Bytes),
        (b"\x00\x00\x00\x00\x01{}", Looked::Bytes),
        (b"\xff\xfe", Looked::Bytes),
    ] {
        assert_eq!(observe_json(value, &mut seen, &mut { MAX_PLACES }), looked, "{value:?}");
    }
    assert_eq!(seen.total(), 2);
}

#[test]
fn a_field_keeps_its_id_while_columns_grow() {
    let (mut ids, mut history) = (FieldIdMap::default(), Vec::new());
    let mut seen = Observed::default();
    let mut before: Option<(Shape, TableSchema)> = None;
    for (n, value) in [
        r#"{"b":1,"s":{"y":1}}"#,
        r#"{"a":"x","b":2,"s":{"x":1}}"#,
        r#"{"b":1.5}"#,
        r#"{"b":"text","c":[1]}"#,
    ]
    .into_iter()
    .enumerate()
    {
        seen.merge(&observed([value]), &mut { MAX_PLACES });
        let shape = Shape::of_records(&seen, before.as_ref().map(|(shape, _)| shape), LIMITS);
        history.push(version(5000 + u32::try_from(n).unwrap(), &shape));
        let table = table_schema(&history, &[], &mut ids).unwrap();
        if let Some((_, old)) = &before {
            for path in ["b", "s", "s.y", REST] {
                let (old, new) =
                    (old.iceberg.field_by_name(path), table.iceberg.field_by_name(path));
                let (old, new) = (old.unwrap(), new.unwrap());
                // Iceberg has no way from whole numbers to others: that is another column.
                let same = path != "b" || old.field_type == new.field_type;
                assert_eq!(old.id == new.id, same, "{path} after {value}");
            }
        }
        before = Some((shape, table));
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        "[a-c\"\\\\é\u{1f600}]{0,3}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            members(inner),
        ]
    })
}

fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let name = prop_oneof!["[a-d]", "[A-B\\.\"]{0,2}", Just("_rest".to_owned())];
    proptest::collection::btree_map(name, value, 0..5)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// The leaves of a value: their paths and texts. What is in lists is counted, wherever it is.
fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(name, value)| leaves(value, &format!("{path}/{name:?}"), out));
        }
        Value::Array(elements) => elements.iter().for_each(|value| leaves(value, path, out)),
        Value::Null => {}
        scalar => out.push(format!("{path}={scalar}")),
    }
}

/// The leaves of a row, found by the shape of its columns.
fn shown(shape: &Shape, plain: &Plain, path: &str, out: &mut Vec<String>) {
    match (shape, plain) {
        (_, Plain::Null) => {}
        (Shape::Object(fields), Plain::Struct(columns)) => {
            for ((name, shape), column) in fields.iter().zip(columns) {
                shown(shape, column, &format!("{path}/{name:?}"), out);
            }
        }
        (Shape::List(element), Plain::List(elements)) => {
            elements.iter().for_each(|plain| shown(element, plain, path, out));
        }
        (Shape::Json, Plain::Text(text)) => leaves(&serde_json::from_str(text).unwrap(), path, out),
        (Shape::Text, Plain::Text(text)) => leaves(&json!(text), path, out),
        (Shape::Boolean, Plain::Bool(value)) => leaves(&json!(value), path, out),
        (Shape::Long, Plain::Int(value)) => {
            leaves(&json!(i64::try_from(*value).unwrap()), path, out)
        }
        // Whole numbers are doubles among others.
        (Shape::Double, Plain::Float(bits)) => leaves(&json!(f64::from_bits(*bits)), path, out),
        other => panic!("{path}: {other:?}"),
    }
}

/// Numbers as doubles, where a whole one may be shown as one.
fn loosely(leaf: &str) -> String {
    let (path, value) = leaf.rsplit_once('=').unwrap();
    match value.parse::<f64>() {
        Ok(number) => format!("{path}={number}"),
        Err(_) => leaf.to_owned(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_that_was_seen_decodes_and_nothing_is_lost(
        values in proptest::collection::vec(members(any_value()), 1..12),
        few in any::<bool>(),
    ) {
        let limits = if few { Limits { columns: 6, keys: 2 } } else { LIMITS };
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let shape = Shape::of_records(&observed(texts.iter().map(String::as_str)), None, limits);
        let Shape::Object(fields) = &shape else { panic!("{shape:?}") };
        let batch = decoder(&shape).decode(&block(texts.iter().map(Some))).unwrap();
        prop_assert!(batch.failures.is_empty(), "{shape:?}: {:?}", batch.failures);
        for (value, row) in values.iter().zip(rows(&batch)) {
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            leaves(value, "", &mut expected);
            for ((name, shape), column) in fields.iter().zip(&row) {
                shown(shape, column, &format!("/{name:?}"), &mut found);
            }
            shown(&Shape::Json, row.last().unwrap(), "", &mut found);
            let sorted = |leaves: Vec<String>| {
                let mut leaves: Vec<String> = leaves.iter().map(|leaf| loosely(leaf)).collect();
                leaves.sort();
                leaves
            };
            prop_assert_eq!(sorted(found), sorted(expected), "{:?} {}", shape, value);
        }
    }

    #[test]
    fn the_order_makes_no_difference_and_parts_add_up(
        values in proptest::collection::vec(members(any_value()), 1..12),
        cut in 0usize..12,
        seed in any::<u64>(),
    ) {
        let texts: Vec<String> = values.iter().map(Value::to_string).collect();
        let whole = observed(texts.iter().map(String::as_str));
        let mut order: Vec<&str> = texts.iter().map(String::as_str).collect();
        order.sort_by_key(|text| text.len() as u64 ^ seed);
        prop_assert_eq!(&observed(order.iter().copied()), &whole);
        let (a, b) = order.split_at(cut.min(order.len()));
        let mut merged = observed(b.iter().copied());
        merged.merge(&observed(a.iter().copied()), &mut { MAX_PLACES });
        prop_assert_eq!(&merged, &whole);
        let kept: Observed = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        prop_assert_eq!(kept, whole);
    }

    #[test]
    fn more_only_widens(
        first in proptest::collection::vec(members(any_value()), 1..8),
        more in proptest::collection::vec(members(any_value()), 1..8),
        few in any::<bool>(),
    ) {
        let limits = if few { Limits { columns: 6, keys: 2 } } else { LIMITS };
        let text = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>();
        let (first, more) = (text(&first), text(&more));
        let mut seen = observed(first.iter().map(String::as_str));
        let before = Shape::of_records(&seen, None, limits);
        seen.merge(&observed(more.iter().map(String::as_str)), &mut { MAX_PLACES });
        let after = Shape::of_records(&seen, Some(&before), limits);
        // What was seen in the end includes what was seen before, and all of it decodes.
        let all = first.iter().chain(&more);
        let batch = decoder(&after).decode(&block(all.map(Some))).unwrap();
        prop_assert!(batch.failures.is_empty(), "{before:?} {after:?}: {:?}", batch.failures);
        // No column went away, and none but those that must take more room than there is.
        let (Shape::Object(old), Shape::Object(new)) = (&before, &after) else { panic!() };
        let names = |fields: &[(String, Shape)]| {
            fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        prop_assert_eq!(&names(new)[..old.len()], &names(old)[..]);
        prop_assert_eq!(Shape::of_records(&seen, Some(&after), limits), after.clone());
        // Without limits that bite, one look at all of it finds the same types.
        if !few {
            let once = Shape::of_records(&seen, None, limits);
            let Shape::Object(once) = once else { panic!() };
            for (name, shape) in once {
                let found = new.iter().find(|(n, _)| *n == name).map(|(_, s)| sorted(s));
                prop_assert_eq!(found, Some(sorted(&shape)), "{}", name);
            }
        }
    }
}

/// A shape without the order of its fields.
fn sorted(shape: &Shape) -> Shape {
    match shape {
        Shape::List(element) => Shape::List(Box::new(sorted(element))),
        Shape::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().map(|(n, s)| (n.clone(), sorted(s))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Shape::Object(fields)
        }
        other => other.clone(),
    }
}
