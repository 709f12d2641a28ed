//! The tables of `docs/type-mapping.md` against what the code does: one check a row.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{FieldIdMap, MAPPING_VERSION, SchemaText, table_schema};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/type-mapping.md"));

fn shown(ty: &iceberg::spec::Type) -> String {
    use iceberg::spec::Type;
    match ty {
        Type::Primitive(p) => p.to_string().replace(", ", ","),
        Type::Struct(s) => {
            let field =
                |f: &iceberg::spec::NestedFieldRef| format!("{} {}", f.name, shown(&f.field_type));
            format!("struct<{}>", s.fields().iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Type::List(l) => format!("list<{}>", shown(&l.element_field.field_type)),
        Type::Map(m) => {
            let [key, value] = [&m.key_field, &m.value_field].map(|f| shown(&f.field_type));
            format!("map<{key}, {value}>")
        }
    }
}

/// The type of the one column of a schema.
fn column(format: SchemaFormat, text: String) -> String {
    let id = RegistrySchemaId(1);
    let schema = SchemaText { version: 1, id, format, text, references: Vec::new() };
    match table_schema(&[schema], &[], &mut FieldIdMap::default()) {
        Ok(table) => {
            assert_eq!(table.value_columns(), 1);
            shown(&table.iceberg.as_struct().fields()[0].field_type)
        }
        Err(_) => "refused".to_owned(),
    }
}

fn of_field(section: &str, field: &str) -> String {
    match section {
        "Avro" => column(
            SchemaFormat::Avro,
            format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{field}}}]}}"#),
        ),
        "JSON Schema" => column(
            SchemaFormat::Json,
            format!(r#"{{"type":"object","properties":{{"f":{field}}}}}"#),
        ),
        "Protobuf" => {
            let imports: String =
                ["any", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers"]
                    .map(|name| format!("import \"google/protobuf/{name}.proto\"; "))
                    .concat();
            column(
                SchemaFormat::Protobuf,
                format!(
                    "syntax = \"proto3\"; {imports} message R {{ {field} }} message Point {{ int32 x = 1; \
                     int32 y = 2; }} message Nothing {{}} message Chain {{ int32 n = 1; Chain next = 2; }} \
                     enum Color {{ RED = 0; }}"
                ),
            )
        }
        "Plain values" => column(SchemaFormat::Plain, field.to_owned()),
        other => panic!("there is no section {other}"),
    }
}

#[test]
fn each_row_of_the_document_is_what_the_code_does() {
    assert!(DOCUMENT.starts_with(&format!("# What types become (version {MAPPING_VERSION} of")));
    let (mut section, mut rows, mut wrong) = ("", 0, Vec::new());
    for line in DOCUMENT.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            section = name;
        }
        let Some(rest) = line.strip_prefix("| `") else { continue };
        if section == "When a schema changes" {
            continue;
        }
        let (field, rest) = rest.split_once("` | ").unwrap();
        let Some((want, _)) = rest.split_once(" |") else { panic!("{line}") };
        rows += 1;
        let found = of_field(section, field);
        if found != want.trim_matches('`') {
            wrong.push(format!("{section}: {field} is {found}, not {want}"));
        }
    }
    assert!(rows > 100, "only {rows} rows were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
