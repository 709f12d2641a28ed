//! Protobuf files to Iceberg types: one line per type.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference};
use isk_schema::{FieldIdMap, SchemaError, SchemaText, TableSchema, table_schema};

fn version(version: u32, text: &str) -> SchemaText {
    let id = RegistrySchemaId(version.try_into().unwrap());
    let format = SchemaFormat::Protobuf;
    SchemaText { version, id, format, text: text.to_owned(), references: Vec::new() }
}

fn table(history: &[SchemaText]) -> Result<TableSchema, SchemaError> {
    table_schema(history, &[], &mut FieldIdMap::default())
}

/// The value's columns as `name type`.
fn columns(schema: SchemaText) -> Vec<String> {
    let table = table(&[schema]).unwrap();
    let fields = &table.iceberg.as_struct().fields()[..table.value_columns()];
    fields.iter().map(|f| format!("{} {}", f.name, plain(&f.field_type))).collect()
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

#[test]
fn every_type_has_its_column() {
    let well_known = |name: &str| format!("google.protobuf.{name}");
    for (ty, column) in [
        ("double", "double"),
        ("float", "float"),
        ("int32", "int"),
        ("sint32", "int"),
        ("sfixed32", "int"),
        ("int64", "long"),
        ("sint64", "long"),
        ("sfixed64", "long"),
        ("uint32", "long"),
        ("fixed32", "long"),
        ("uint64", "decimal(20,0)"),
        ("fixed64", "decimal(20,0)"),
        ("bool", "boolean"),
        ("string", "string"),
        ("bytes", "binary"),
        ("E", "string"),
        ("H", "struct<a int, b list<string>>"),
        ("Nothing", "boolean"),
        ("repeated int32", "list<int>"),
        ("repeated H", "list<struct<a int, b list<string>>>"),
        ("map<int32, H>", "map<string, struct<a int, b list<string>>>"),
        ("optional int32", "int"),
        ("Tree", "struct<n int, kids list<string>>"),
        (&well_known("Timestamp"), "timestamptz"),
        (&well_known("Duration"), "struct<seconds long, nanos int>"),
        (&well_known("Any"), "struct<type_url string, value binary>"),
        (&well_known("Struct"), "string"),
        (&well_known("Value"), "string"),
        (&well_known("FieldMask"), "struct<paths list<string>>"),
        (&well_known("Empty"), "boolean"),
        (&well_known("BoolValue"), "boolean"),
        (&well_known("UInt64Value"), "decimal(20,0)"),
        (&well_known("StringValue"), "string"),
        (&well_known("BytesValue"), "binary"),
    ] {
        let text = format!(
            r#"syntax = "proto3"; package p;
            import "google/protobuf/timestamp.proto"; import "google/protobuf/duration.proto";
            import "google/protobuf/any.proto"; import "google/protobuf/struct.proto";
            import "google/protobuf/field_mask.proto"; import "google/protobuf/empty.proto";
            import "google/protobuf/wrappers.proto";
            message M {{ {ty} f = 1; }} enum E {{ A = 0; }} message Nothing {{}}
            message H {{ int32 a = 1; repeated string b = 2; }}
            message Tree {{ int32 n = 1; repeated Tree kids = 2; }}"#
        );
        assert_eq!(columns(version(1, &text)), [format!("f {column}")], "{ty}");
    }
}

#[test]
fn the_table_shows_the_message_that_no_other_holds() {
    for (text, column) in [
        ("message A { int32 a = 1; } message B { A b = 1; }", "b struct<a int>"),
        ("message A { int32 a = 1; } message B { int32 b = 1; }", "a int"),
        ("message A { B a = 1; } message B { A b = 1; }", "a struct<b string>"),
        ("message A { A a = 1; } message B { A b = 1; }", "b struct<a string>"),
    ] {
        let text = format!(r#"syntax = "proto3"; {text}"#);
        assert_eq!(columns(version(1, &text)), [column], "{text}");
    }
}

#[test]
fn imports_are_found_by_their_names_and_fields_keep_ids() {
    let mut main = version(
        1,
        r#"syntax = "proto3"; import "a/money.proto"; message M { x.Money price = 1; int32 n = 2; }"#,
    );
    main.references = vec![SchemaReference {
        name: "a/money.proto".to_owned(),
        text: r#"syntax = "proto2"; package x; message Money { required int64 units = 1; }"#
            .to_owned(),
    }];
    assert_eq!(columns(main.clone()), ["price struct<units long>", "n int"]);
    let more = version(2, r#"syntax = "proto3"; message M { string s = 3; int64 n = 2; }"#);
    let table = table(&[main.clone(), more]).unwrap();
    let ids: Vec<_> =
        table.iceberg.as_struct().fields()[..2].iter().map(|f| (&*f.name, f.id)).collect();
    assert_eq!(ids, [("n", 101), ("s", 103)]);

    main.references.clear();
    let error = self::table(&[main]).unwrap_err();
    assert!(matches!(&error, SchemaError::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("money.proto"), "{error}");
}

#[test]
fn a_field_is_its_number_whatever_it_is_called() {
    let versions = [
        "message M { int32 a = 1; P p = 2; repeated string l = 3; } message P { int32 x = 1; string y = 2; }",
        "message M { P other = 2; int64 b = 1; repeated string l = 4; } message P { string z = 2; int64 x = 1; }",
    ];
    let history: Vec<SchemaText> = (1..)
        .zip(versions)
        .map(|(v, text)| version(v, &format!(r#"syntax = "proto3"; {text}"#)))
        .collect();
    let ids = |n: usize| {
        let table = table(&history[..n]).unwrap();
        let all = table.iceberg.field_id_to_name_map().clone();
        all.into_iter().map(|(id, name)| (name, id)).collect::<std::collections::HashMap<_, _>>()
    };
    let (before, after) = (ids(1), ids(2));
    for (old, new) in [("a", "b"), ("p", "other"), ("p.x", "other.x"), ("p.y", "other.z")] {
        assert_eq!(before[old], after[new], "{old}");
    }
    assert!(!before.values().any(|id| *id == after["l"]));
}

#[test]
fn a_descriptor_in_base64_is_a_file_too() {
    // message M { int64 n = 1; } of t.proto, proto3.
    let descriptor = "Cgd0LnByb3RvIg4KAU0SCQoBbhgBIAEoA2IGcHJvdG8z";
    assert_eq!(columns(version(1, descriptor)), ["n long"]);
}

#[test]
fn what_is_no_file_or_too_large_is_an_error_and_no_crash() {
    // A descriptor of a syntax that the compiler does not know.
    let editions = "Cgd0LnByb3RvIg4KAU0SCQoBbhgBIAEoA2IIZWRpdGlvbnM=";
    for text in ["", "syntax = \"proto3\";", "message M {", "{}", "AAAA", editions] {
        let error = table(&[version(1, text)]).unwrap_err();
        assert!(matches!(error, SchemaError::Invalid { .. }), "{text}: {error}");
    }
    let mut text = r#"syntax = "proto3"; message M39 { int32 x = 1; }"#.to_owned();
    for i in 0..39 {
        let next = i + 1;
        text += &format!("message M{i} {{ M{next} a = 1; M{next} b = 2; }}");
    }
    let error = table(&[version(1, &text)]).unwrap_err();
    assert!(matches!(error, SchemaError::TooLarge { .. }), "{error}");
    let deep = format!("{} {}", "message M {".repeat(10_000), "}".repeat(10_000));
    assert!(table(&[version(1, &deep)]).is_err());
}
