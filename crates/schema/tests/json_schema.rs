//! JSON Schemas to Iceberg types: one line per rule.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference};
use isk_schema::{FieldIdMap, SchemaError, SchemaText, TableSchema, table_schema};

fn version(version: u32, text: &str) -> SchemaText {
    let id = RegistrySchemaId(version.try_into().unwrap());
    let format = SchemaFormat::Json;
    SchemaText { version, id, format, text: text.to_owned(), references: Vec::new() }
}

fn table(history: &[SchemaText]) -> Result<TableSchema, SchemaError> {
    table_schema(history, &[], &mut FieldIdMap::default())
}

/// The value's columns as `name type`.
fn columns(table: &TableSchema) -> Vec<String> {
    let fields = &table.iceberg.as_struct().fields()[..table.value_columns()];
    fields.iter().map(|f| format!("{} {}", f.name, plain(&f.field_type))).collect()
}

fn columns_of(text: &str) -> Vec<String> {
    columns(&table(&[version(1, text)]).unwrap())
}

fn plain(ty: &iceberg::spec::Type) -> String {
    use iceberg::spec::Type;
    match ty {
        Type::Primitive(p) => p.to_string().replace(", ", ","),
        Type::Struct(s) => {
            let fields: Vec<String> =
                s.fields().iter().map(|f| format!("{} {}", f.name, plain(&f.field_type))).collect();
            format!("struct<{}>", fields.join(", "))
        }
        Type::List(l) => format!("list<{}>", plain(&l.element_field.field_type)),
        Type::Map(m) => format!("map<string, {}>", plain(&m.value_field.field_type)),
    }
}

/// The column of a property that has this schema.
fn column_of(schema: &str) -> String {
    let definitions = r##""definitions":{
        "A":{"type":"object","properties":{"x":{"type":"integer"}}},
        "B":{"type":"object","properties":{"y":{"type":"string"}}},
        "Name":{"type":"string","minLength":1},
        "Tree":{"type":"object","properties":{
            "n":{"type":"integer"},"kids":{"type":"array","items":{"$ref":"#/definitions/Tree"}}}},
        "Loop":{"$ref":"#/definitions/Loop"}},
        "$defs":{"a/b":{"type":"boolean"},"Anchored":{"$anchor":"here","type":"number"}}"##;
    let text = format!(
        r#"{{"$id":"http://h/root.json",{definitions},"type":"object","properties":{{"f":{schema}}}}}"#
    );
    let columns = columns_of(&text);
    assert_eq!(columns.len(), 1, "{columns:?}");
    columns[0].strip_prefix("f ").unwrap().to_owned()
}

#[test]
fn every_rule_has_its_column() {
    let decimal = r#""title":"org.apache.kafka.connect.data.Decimal","connect.type":"bytes""#;
    for (schema, column) in [
        (r#"{"type":"boolean"}"#, "boolean"),
        (r#"{"type":"integer"}"#, "long"),
        (r#"{"type":"number"}"#, "double"),
        (r#"{"type":"string"}"#, "string"),
        (r#"{"type":"null"}"#, "string"),
        (r#"{"type":"string","format":"date-time"}"#, "timestamptz"),
        (r#"{"type":"string","format":"date"}"#, "date"),
        (r#"{"type":"string","format":"uuid"}"#, "uuid"),
        (r#"{"type":"string","format":"time"}"#, "string"),
        (r#"{"type":"string","format":"email"}"#, "string"),
        // objects
        (r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#, "struct<a long>"),
        (r#"{"properties":{"a":{"type":"integer"}}}"#, "struct<a long>"),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":false}"#,
            "struct<a long>",
        ),
        (
            r#"{"type":"object","properties":{"a":{"type":"integer"}},"additionalProperties":true}"#,
            "struct<a long, additionalProperties map<string, string>>",
        ),
        (
            r#"{"type":"object","properties":{"additionalProperties":{"type":"integer"}},
                "additionalProperties":{"type":"number"}}"#,
            "struct<additionalProperties long, additionalProperties_ map<string, double>>",
        ),
        (r#"{"type":"object"}"#, "string"),
        (r#"{"type":"object","properties":{}}"#, "string"),
        (r#"{"type":"object","additionalProperties":true}"#, "string"),
        (r#"{"type":"object","additionalProperties":false}"#, "boolean"),
        (r#"{"type":"object","additionalProperties":{"type":"integer"}}"#, "map<string, long>"),
        (r#"{"type":"object","additionalProperties":{}}"#, "map<string, string>"),
        (
            r#"{"type":"object","patternProperties":{"^a":{"type":"integer"},"^b":{"type":"number"}},
                "additionalProperties":false}"#,
            "map<string, double>",
        ),
        (r#"{"type":"object","patternProperties":{"^a":{"type":"integer"}}}"#, "string"),
        // arrays
        (r#"{"type":"array","items":{"type":"integer"}}"#, "list<long>"),
        (r#"{"items":{"type":"integer"}}"#, "list<long>"),
        (r#"{"type":"array"}"#, "list<string>"),
        (r#"{"type":"array","items":[{"type":"integer"},{"type":"number"}]}"#, "list<double>"),
        (
            r#"{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}]}"#,
            "list<string>",
        ),
        (
            r#"{"type":"array","items":[{"type":"integer"}],"additionalItems":{"type":"integer"}}"#,
            "list<long>",
        ),
        // one type or null
        (r#"{"type":["null","integer"]}"#, "long"),
        (r#"{"type":["integer","number","null"]}"#, "double"),
        (r#"{"type":["integer","string"]}"#, "string"),
        (r#"{"oneOf":[{"type":"null"},{"type":"boolean"}]}"#, "boolean"),
        (r#"{"anyOf":[{"type":"boolean"},{"type":"null"}]}"#, "boolean"),
        (r#"{"oneOf":[{"type":"null"},{"type":"integer"},{"type":"string"}]}"#, "string"),
        (
            r#"{"anyOf":[{"type":"string","format":"date"},{"type":"string","format":"uuid"}]}"#,
            "string",
        ),
        (r#"{"type":"string","anyOf":[{"format":"date"},{"pattern":"x"}]}"#, "string"),
        (r##"{"oneOf":[{"$ref":"#/definitions/A"},{"$ref":"#/definitions/B"}]}"##, "string"),
        (
            r##"{"oneOf":[{"$ref":"#/definitions/A"},{"$ref":"#/definitions/A"}]}"##,
            "struct<x long>",
        ),
        // together
        (
            r##"{"allOf":[{"$ref":"#/definitions/A"},{"$ref":"#/definitions/B"},{"required":["x"]}]}"##,
            "struct<x long, y string>",
        ),
        (
            r##"{"type":"object","allOf":[{"$ref":"#/definitions/A"}],
                "properties":{"x":{"type":"number"},"z":{"type":"boolean"}}}"##,
            "struct<x long, z boolean>",
        ),
        (r#"{"type":"string","allOf":[{"maxLength":5}]}"#, "string"),
        (r#"{"allOf":[{"type":"string"},{"type":"integer"}]}"#, "string"),
        (
            r##"{"type":"object","properties":{"k":{"type":"string"}},
                "oneOf":[{"$ref":"#/definitions/A"},{"required":["k"]}],
                "if":{"properties":{"k":{"const":"b"}}},"then":{"$ref":"#/definitions/B"}}"##,
            "struct<k string, x long, y string>",
        ),
        // values
        (r#"{"enum":["a","b",null]}"#, "string"),
        (r#"{"const":1}"#, "long"),
        (r#"{"enum":[1,2.5]}"#, "double"),
        (r#"{"enum":[true]}"#, "boolean"),
        (r#"{"enum":[1,"a"]}"#, "string"),
        (r#"{"type":"integer","enum":[1,2]}"#, "long"),
        // references
        (r##"{"$ref":"#/definitions/Name"}"##, "string"),
        (r##"{"$ref":"#/definitions/A","type":"object"}"##, "struct<x long>"),
        (r##"{"$ref":"#/$defs/a~1b"}"##, "boolean"),
        (r##"{"$ref":"#here"}"##, "double"),
        (r##"{"$ref":"http://h/root.json#/definitions/A"}"##, "struct<x long>"),
        (r##"{"$ref":"root.json#/definitions/A"}"##, "struct<x long>"),
        (r##"{"$ref":"nowhere.json"}"##, "string"),
        (r##"{"$ref":"#/definitions/Loop"}"##, "string"),
        (r##"{"$ref":"#/definitions/Tree"}"##, "struct<n long, kids list<string>>"),
        // nothing said
        (r#"{}"#, "string"),
        (r#"true"#, "string"),
        (r#"{"description":"x"}"#, "string"),
        // Kafka Connect
        (r#"{"type":"integer","connect.type":"int16"}"#, "int"),
        (r#"{"type":"integer","connect.type":"int64"}"#, "long"),
        (r#"{"type":"number","connect.type":"float32"}"#, "float"),
        (r#"{"type":"string","connect.type":"bytes"}"#, "binary"),
        (
            r#"{"type":"integer","connect.type":"int32","title":"org.apache.kafka.connect.data.Date"}"#,
            "date",
        ),
        (
            r#"{"type":"integer","connect.type":"int32","title":"org.apache.kafka.connect.data.Time"}"#,
            "time",
        ),
        (
            r#"{"type":"integer","connect.type":"int64",
                "title":"org.apache.kafka.connect.data.Timestamp"}"#,
            "timestamptz",
        ),
        (
            &format!(r#"{{"type":"string",{decimal},"connect.parameters":{{"scale":"2"}}}}"#),
            "decimal(38,2)",
        ),
        (
            &format!(
                r#"{{"type":"number",{decimal},
                    "connect.parameters":{{"scale":"2","connect.decimal.precision":"9"}}}}"#
            ),
            "decimal(9,2)",
        ),
        (&format!(r#"{{"type":"string",{decimal}}}"#), "binary"),
    ] {
        assert_eq!(column_of(schema), column, "{schema}");
    }
}

#[test]
fn columns_are_in_the_order_of_the_text_or_of_connect() {
    let text = r#"{"type":"object","properties":{
        "z":{"type":"integer","connect.index":1},"a":{"type":"string","connect.index":0},
        "m":{"type":"boolean"},"b":{"type":"boolean","description":"says so"}}}"#;
    assert_eq!(columns_of(text), ["a string", "z long", "m boolean", "b boolean"]);
    let table = table(&[version(1, text)]).unwrap();
    assert_eq!(table.iceberg.field_by_name("b").unwrap().doc.as_deref(), Some("says so"));
}

#[test]
fn a_value_that_is_no_object_is_one_column() {
    for (text, column) in [
        (r#"{"type":"integer"}"#, "value long"),
        (r#"{"type":["null","string"]}"#, "value string"),
        (r#"{"type":"object"}"#, "value string"),
        ("true", "value string"),
    ] {
        assert_eq!(columns_of(text), [column], "{text}");
    }
}

#[test]
fn other_schemas_are_found_by_the_names_they_are_referred_to_by() {
    let mut main = version(
        1,
        r##"{"$id":"http://h/x/order.json","type":"object","properties":{
            "a":{"$ref":"http://h/x/money.json"},"b":{"$ref":"money.json#/definitions/C"},
            "c":{"$ref":"who.json"},"d":{"$ref":"who.json#/properties/name"}}}"##,
    );
    main.references = vec![
        SchemaReference {
            name: "http://h/x/money.json".to_owned(),
            text: r##"{"type":"object","properties":{"n":{"type":"number"},
                "c":{"$ref":"#/definitions/C"}},"definitions":{"C":{"type":"string"}}}"##
                .to_owned(),
        },
        SchemaReference {
            name: "who.json".to_owned(),
            text: r##"{"$id":"http://else/where.json","type":"object",
                "properties":{"name":{"type":"string"}}}"##
                .to_owned(),
        },
    ];
    let struct_a = "a struct<n double, c string>";
    assert_eq!(
        columns(&table(&[main]).unwrap()),
        [struct_a, "b string", "c struct<name string>", "d string"]
    );
}

#[test]
fn ids_stay_and_avro_before_json_is_no_obstacle() {
    let avro = SchemaText {
        format: SchemaFormat::Avro,
        ..version(1, r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#)
    };
    let property = |b: &str| {
        format!(r#"{{"type":"object","properties":{{"b":{b},"a":{{"type":"integer"}}}}}}"#)
    };
    let history = [
        avro,
        version(2, &property(r#"{"type":"string"}"#)),
        version(3, &property(r#"{"type":"boolean"}"#)),
    ];
    let ids = |n: usize| -> Vec<(String, i32)> {
        let table = table(&history[..n]).unwrap();
        let fields = table.iceberg.as_struct().fields()[..table.value_columns()].to_vec();
        fields.iter().map(|f| (f.name.clone(), f.id)).collect()
    };
    let named = |names: &[(&str, i32)]| -> Vec<(String, i32)> {
        names.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
    };
    assert_eq!(ids(1), named(&[("a", 100)]));
    assert_eq!(ids(2), named(&[("b", 101), ("a", 100)]));
    assert_eq!(ids(3), named(&[("b", 102), ("a", 100)]));
}

#[test]
fn what_is_no_schema_or_too_large_is_an_error_and_no_crash() {
    for text in ["", "{", "7", r#""x""#, r#"{"type":"object","properties":{"a":7}}"#] {
        let error = table(&[version(1, text)]).unwrap_err();
        assert!(matches!(error, SchemaError::Invalid { .. }), "{text}: {error}");
    }
    // Each definition uses the one before it twice.
    let mut definitions =
        r##""D0":{"type":"object","properties":{"x":{"type":"integer"}}}"##.to_owned();
    for i in 1..40 {
        let before = format!(r##"{{"$ref":"#/definitions/D{}"}}"##, i - 1);
        definitions +=
            &format!(r#","D{i}":{{"type":"object","properties":{{"a":{before},"b":{before}}}}}"#);
    }
    let doubling = format!(r##"{{"definitions":{{{definitions}}},"$ref":"#/definitions/D39"}}"##);
    let error = table(&[version(1, &doubling)]).unwrap_err();
    assert!(matches!(error, SchemaError::TooLarge { .. }), "{error}");

    // A chain of references that no nesting of the text bounds.
    let mut chain = r#""D0":{"type":"integer"}"#.to_owned();
    for i in 1..5000 {
        chain += &format!(r##","D{i}":{{"$ref":"#/definitions/D{}"}}"##, i - 1);
    }
    let chain = format!(r##"{{"definitions":{{{chain}}},"$ref":"#/definitions/D4999"}}"##);
    let error = table(&[version(1, &chain)]).unwrap_err();
    assert!(matches!(error, SchemaError::TooLarge { .. }), "{error}");

    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(table(&[version(1, &deep)]).is_err());
}
