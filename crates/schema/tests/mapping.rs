//! Avro types to Iceberg types: one line per type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference};
use isk_schema::{FieldIdMap, KeyKind, SchemaError, SchemaText, ValueKind, table_schema};

fn version(version: u32, text: &str) -> SchemaText {
    let id = RegistrySchemaId(version.try_into().unwrap());
    let format = SchemaFormat::Avro;
    SchemaText { version, id, format, text: text.to_owned(), references: Vec::new() }
}

fn reference(text: String) -> SchemaReference {
    SchemaReference { name: String::new(), text }
}

fn error(text: &str) -> SchemaError {
    table_schema(&[version(1, text)], &[], &mut FieldIdMap::default()).unwrap_err()
}

/// The value's columns as `name: type` lines, without ids and the optional marks of nested fields.
fn columns(text: &str) -> Vec<String> {
    let table = table_schema(&[version(1, text)], &[], &mut FieldIdMap::default()).unwrap();
    let fields = table.iceberg.as_struct().fields();
    fields[..table.value_columns()]
        .iter()
        .inspect(|field| assert!(!field.required, "{} is required", field.name))
        .map(|field| format!("{}: {}", field.name, plain(&field.field_type)))
        .collect()
}

fn plain(ty: &iceberg::spec::Type) -> String {
    use iceberg::spec::Type;
    match ty {
        Type::Primitive(p) => p.to_string().replace(", ", ","),
        Type::Struct(s) => {
            let fields: Vec<String> = s
                .fields()
                .iter()
                .inspect(|field| assert!(!field.required))
                .map(|f| format!("{} {}", f.name, plain(&f.field_type)))
                .collect();
            format!("struct<{}>", fields.join(", "))
        }
        Type::List(l) => format!("list<{}>", plain(&l.element_field.field_type)),
        Type::Map(m) => {
            format!("map<{}, {}>", plain(&m.key_field.field_type), plain(&m.value_field.field_type))
        }
    }
}

fn column_of(ty: &str) -> String {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{ty}}}]}}"#);
    let columns = columns(&text);
    assert_eq!(columns.len(), 1);
    columns[0].strip_prefix("f: ").unwrap().to_owned()
}

#[test]
fn every_type_has_its_column() {
    let cases = [
        (r#""boolean""#, "boolean"),
        (r#""int""#, "int"),
        (r#""long""#, "long"),
        (r#""float""#, "float"),
        (r#""double""#, "double"),
        (r#""string""#, "string"),
        (r#""bytes""#, "binary"),
        (r#""null""#, "string"),
        (r#"["null"]"#, "string"),
        (r#"[]"#, "string"),
        (r#"["int"]"#, "int"),
        (r#"["null","long"]"#, "long"),
        (r#"["long","null"]"#, "long"),
        (r#"{"type":"enum","name":"E","symbols":["A"]}"#, "string"),
        (r#"{"type":"fixed","name":"F","size":7}"#, "fixed(7)"),
        (r#"{"type":"fixed","name":"F","size":0}"#, "binary"),
        (r#"{"type":"array","items":"int"}"#, "list<int>"),
        (r#"{"type":"map","values":["null","double"]}"#, "map<string, double>"),
        (r#"{"type":"record","name":"I","fields":[{"name":"a","type":"int"}]}"#, "struct<a int>"),
        (r#"{"type":"record","name":"I","fields":[]}"#, "boolean"),
        (r#"{"type":"int","logicalType":"date"}"#, "date"),
        (r#"{"type":"int","logicalType":"time-millis"}"#, "time"),
        (r#"{"type":"long","logicalType":"time-micros"}"#, "time"),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "timestamptz"),
        (r#"{"type":"long","logicalType":"timestamp-micros"}"#, "timestamptz"),
        (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, "timestamptz"),
        (r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, "timestamp"),
        (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, "timestamp"),
        (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, "timestamp"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#, "decimal(9,2)"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":38}"#, "decimal(38,0)"),
        (
            r#"{"type":"fixed","name":"F","size":5,"logicalType":"decimal","precision":11,"scale":11}"#,
            "decimal(11,11)",
        ),
        (r#"{"type":"string","logicalType":"uuid"}"#, "uuid"),
        (r#"{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}"#, "uuid"),
        (
            r#"{"type":"fixed","name":"F","size":12,"logicalType":"duration"}"#,
            "struct<months long, days long, milliseconds long>",
        ),
        (r#"{"type":"bytes","logicalType":"big-decimal"}"#, "binary"),
        // Not valid where they stand: the underlying type.
        (r#"{"type":"long","logicalType":"date"}"#, "long"),
        (r#"{"type":"string","logicalType":"timestamp-millis"}"#, "string"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":39,"scale":2}"#, "binary"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":5}"#, "binary"),
        (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":-1}"#, "binary"),
        (r#"{"type":"bytes","logicalType":"decimal","scale":1}"#, "binary"),
        (
            r#"{"type":"fixed","name":"F","size":2,"logicalType":"decimal","precision":5}"#,
            "fixed(2)",
        ),
        (r#"{"type":"fixed","name":"F","size":15,"logicalType":"uuid"}"#, "fixed(15)"),
        (r#"{"type":"int","logicalType":"of-another-world"}"#, "int"),
        // Real unions: one column per branch.
        (r#"["null","int","string"]"#, "struct<int int, string string>"),
        (
            r#"[{"type":"array","items":"int"},{"type":"map","values":"int"},
               {"type":"record","name":"a.X","fields":[{"name":"q","type":"int"}]},
               {"type":"record","name":"b.X","fields":[]}, {"type":"enum","name":"x","symbols":["A"]}]"#,
            "struct<array list<int>, map map<string, int>, X struct<q int>, X_2 boolean, x_3 string>",
        ),
    ];
    for (avro, iceberg) in cases {
        assert_eq!(column_of(avro), iceberg, "{avro}");
    }
}

#[test]
fn a_value_that_is_no_record_is_one_column() {
    assert_eq!(columns(r#""string""#), ["value: string"]);
    assert_eq!(columns(r#"{"type":"int","logicalType":"date"}"#), ["value: date"]);
    assert_eq!(columns(r#"["null","int","long"]"#), ["value: struct<int int, long long>"]);
    assert_eq!(columns(r#"{"type":"record","name":"R","fields":[]}"#), Vec::<String>::new());
}

#[test]
fn names_that_engines_could_not_tell_apart_get_a_suffix() {
    let record = |names: &[&str]| {
        let fields: Vec<String> =
            names.iter().map(|n| format!(r#"{{"name":"{n}","type":"int"}}"#)).collect();
        format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","))
    };
    assert_eq!(columns(&record(&["ID", "id"])), ["ID: int", "id_2: int"]);
    assert_eq!(columns(&record(&["Kafka_Offset"])), ["Kafka_Offset_2: int"]);
    assert_eq!(columns(&record(&["a.b", "a_b"])), ["a_b: int", "a_b_2: int"]);
    assert_eq!(columns(&record(&["mit Raum", "größe"])), ["mit Raum: int", "größe: int"]);
    let message = error(&record(&[""])).to_string();
    assert!(message.contains("empty"), "{message}");
}

#[test]
fn named_types_are_found_by_full_name_and_in_references() {
    let text = r#"{"type":"record","name":"R","namespace":"n","fields":[
        {"name":"a","type":{"type":"enum","name":"E","symbols":["X"]}},
        {"name":"b","type":"E"}, {"name":"c","type":"n.E"}, {"name":"d","type":["null","Money"]}]}"#;
    let money = r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":1}"#;
    let money =
        format!(r#"{{"type":"record","name":"n.Money","fields":[{{"name":"m","type":{money}}}]}}"#);
    let mut with_reference = version(1, text);
    with_reference.references.push(reference(money));
    let table = table_schema(&[with_reference], &[], &mut FieldIdMap::default()).unwrap();
    assert_eq!(
        plain(&table.iceberg.field_by_name("d").unwrap().field_type),
        "struct<m decimal(5,1)>"
    );
    let message = error(text).to_string();
    assert!(message.contains("Money") && message.contains("at d"), "{message}");
}

#[test]
fn a_record_within_itself_is_text() {
    let text = r#"{"type":"record","name":"tree.Node","fields":[{"name":"n","type":"int"},
        {"name":"kids","type":["null",{"type":"array","items":"Node"}]},
        {"name":"other","type":["null","Node","string"]}]}"#;
    assert_eq!(
        columns(text),
        ["n: int", "kids: list<string>", "other: struct<Node string, string string>"]
    );
}

#[test]
fn schemas_that_unfold_without_bound_are_refused() {
    // Each record holds the one before it twice: 2^30 columns.
    let mut text =
        r#"{"type":"record","name":"R0","fields":[{"name":"x","type":"int"}]}"#.to_owned();
    let mut references = Vec::new();
    for i in 1..30 {
        references.push(reference(text));
        let before = i - 1;
        text = format!(
            r#"{{"type":"record","name":"R{i}","fields":[{{"name":"a","type":"R{before}"}},{{"name":"b","type":"R{before}"}}]}}"#
        );
    }
    let schema = SchemaText { text, references, ..version(1, "") };
    let result = table_schema(&[schema], &[], &mut FieldIdMap::default());
    assert!(matches!(result, Err(SchemaError::TooLarge { .. })));
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(100), "}".repeat(100));
    assert!(table_schema(&[version(1, &deep)], &[], &mut FieldIdMap::default()).is_err());
}

#[test]
fn texts_that_are_no_schema_are_refused() {
    for text in [
        "",
        "{",
        "17",
        r#"{"name":"R"}"#,
        r#""nothing""#,
        r#"{"type":"record","name":"R"}"#,
        r#"{"type":"record","fields":[]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
        r#"{"type":"array"}"#,
        r#"{"type":"fixed","name":"F","size":-1}"#,
        r#"{"type":"fixed","name":"F","size":9999999999}"#,
        r#"{"type":"enum","name":"E","symbols":[]}"#,
        r#"["int",["null","int"]]"#,
        r#"["int","int"]"#,
    ] {
        assert!(matches!(error(text), SchemaError::Invalid { .. }), "{text}");
    }
}

#[test]
fn metadata_columns_follow_with_fixed_ids() {
    let table = table_schema(&[], &[], &mut FieldIdMap::default()).unwrap();
    assert_eq!(table.value, ValueKind::None);
    assert_eq!(table.key, KeyKind::Bytes);
    let columns: Vec<(i32, &str, bool)> = table
        .iceberg
        .as_struct()
        .fields()
        .iter()
        .map(|f| (f.id, f.name.as_str(), f.required))
        .collect();
    assert_eq!(
        columns,
        [
            (10, "kafka_value", false),
            (1, "kafka_partition", true),
            (2, "kafka_offset", true),
            (3, "kafka_timestamp", false),
            (4, "kafka_timestamp_type", false),
            (5, "kafka_key", false),
            (6, "kafka_headers", false),
        ]
    );
    let key = version(4, r#"{"type":"record","name":"K","fields":[{"name":"id","type":"long"}]}"#);
    let table = table_schema(&[], &[key], &mut FieldIdMap::default()).unwrap();
    assert_eq!((table.version.value, table.version.key), (0, 4));
    assert_eq!(plain(&table.iceberg.field_by_id(5).unwrap().field_type), "struct<id long>");
}
