//! Field ids over a subject's history.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use isk_model::{RegistrySchemaId, SchemaFormat};
use isk_schema::{FieldIdMap, SchemaText, TableSchema, table_schema};
use proptest::prelude::*;

fn version(version: u32, text: &str) -> SchemaText {
    let id = RegistrySchemaId(version.try_into().unwrap());
    let format = SchemaFormat::Avro;
    SchemaText { version, id, format, text: text.to_owned(), references: Vec::new() }
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

/// Ids of the value's fields, nested ones too, by dotted name.
fn ids(table: &TableSchema) -> BTreeMap<String, i32> {
    let all = table.iceberg.field_id_to_name_map();
    all.iter().filter(|(id, _)| **id >= 100).map(|(id, name)| (name.clone(), *id)).collect()
}

/// Tables as of each version of a history.
fn tables(history: &[String]) -> Vec<BTreeMap<String, i32>> {
    let texts: Vec<SchemaText> = (1..).zip(history).map(|(v, text)| version(v, text)).collect();
    let mut map = FieldIdMap::default();
    (1..=texts.len()).map(|n| ids(&table_schema(&texts[..n], &[], &mut map).unwrap())).collect()
}

#[test]
fn reorders_removals_and_returns_keep_ids() {
    let (a, b, c) = (
        r#"{"name":"a","type":"int"}"#,
        r#"{"name":"b","type":"string"}"#,
        r#"{"name":"c","type":"long"}"#,
    );
    let t = tables(&[
        record(&[a, b].join(",")),
        record(&[c, b, a].join(",")),
        record(b),
        record(&[a, b].join(",")),
    ]);
    assert_eq!(t[1]["a"], t[0]["a"]);
    assert_eq!(t[1]["b"], t[0]["b"]);
    assert_eq!(t[1]["c"], 102);
    assert_eq!(t[3], t[0]);
}

#[test]
fn renames_by_alias_take_everything_nested_along() {
    let t = tables(&[
        record(r#"{"name":"a","type":{"type":"array","items":{"type":"map","values":"int"}}}"#),
        record(
            r#"{"name":"b","aliases":["a"],"type":{"type":"array","items":{"type":"map","values":"int"}}}"#,
        ),
        // The old name comes back as another field.
        record(
            r#"{"name":"a","type":"int"},
               {"name":"b","aliases":["a"],"type":{"type":"array","items":{"type":"map","values":"long"}}}"#,
        ),
    ]);
    for nested in ["", ".element", ".element.key", ".element.value"] {
        assert_eq!(t[1][&format!("b{nested}")], t[0][&format!("a{nested}")], "{nested}");
        assert_eq!(t[2][&format!("b{nested}")], t[0][&format!("a{nested}")], "{nested}");
    }
    assert!(!t[0].values().any(|id| *id == t[2]["a"]));
}

#[test]
fn an_incompatible_type_is_another_field() {
    let same = [("int", "long"), ("float", "double")];
    for (from, to) in same {
        let one = |ty: &str| record(&format!(r#"{{"name":"a","type":["null","{ty}"]}}"#));
        let t = tables(&[one(from), one(to), one(from)]);
        assert_eq!(t[0]["a"], t[1]["a"], "{from} to {to}");
        // Back is no widening; the first text has the ids it had.
        assert_eq!(t[2], t[0]);
    }
    let decimal = |p: u32, s: u32| {
        record(&format!(
            r#"{{"name":"a","type":{{"type":"bytes","logicalType":"decimal","precision":{p},"scale":{s}}}}}"#
        ))
    };
    let t = tables(&[decimal(5, 2), decimal(9, 2), decimal(9, 3)]);
    assert_eq!(t[0]["a"], t[1]["a"]);
    assert_ne!(t[1]["a"], t[2]["a"]);
    let t = tables(&[
        record(r#"{"name":"a","type":{"type":"array","items":"int"}}"#),
        record(r#"{"name":"a","type":{"type":"map","values":"int"}}"#),
        record(r#"{"name":"a","type":{"type":"array","items":["int","null"]}}"#),
    ]);
    assert!(t[1].values().chain(t[2].values()).all(|id| !t[0].values().any(|old| old == id)));
}

#[test]
fn union_branches_keep_ids_while_branches_are_added() {
    let t = tables(&[
        record(r#"{"name":"u","type":["int","string"]}"#),
        record(r#"{"name":"u","type":["null","boolean","string","int"]}"#),
    ]);
    for name in ["u", "u.int", "u.string"] {
        assert_eq!(t[0][name], t[1][name]);
    }
}

#[test]
fn the_older_of_two_alike_names_keeps_it_when_they_change_places() {
    let t = tables(&[
        record(r#"{"name":"ID","type":"int"},{"name":"id","type":"int"}"#),
        record(r#"{"name":"id","type":"int"},{"name":"ID","type":"int"}"#),
    ]);
    assert_eq!(t[0], t[1]);
    assert!(t[0].contains_key("id_2"));
}

#[test]
fn a_version_that_is_no_table_gives_no_ids_unless_it_is_the_last() {
    let history = [
        version(1, &record(r#"{"name":"a","type":"int"}"#)),
        version(2, &record(r#"{"name":"x","type":"int"},{"name":"r","type":"Nowhere"}"#)),
        version(3, &record(r#"{"name":"a","type":"int"},{"name":"b","type":"int"}"#)),
    ];
    let mut map = FieldIdMap::default();
    assert!(table_schema(&history[..2], &[], &mut map).is_err());
    let table = table_schema(&history, &[], &mut map).unwrap();
    assert_eq!(ids(&table), BTreeMap::from([("a".into(), 100), ("b".into(), 101)]));
}

#[test]
fn keys_and_values_do_not_take_each_others_ids() {
    let value = |n| {
        let fields = [r#"{"name":"a","type":"int"}"#, r#"{"name":"b","type":"int"}"#];
        version(n, &record(&fields[..n as usize].join(",")))
    };
    let key = version(1, &record(r#"{"name":"k","type":"int"}"#));
    let mut early = FieldIdMap::default();
    table_schema(&[value(1)], std::slice::from_ref(&key), &mut early).unwrap();
    let a = table_schema(&[value(1), value(2)], std::slice::from_ref(&key), &mut early).unwrap();
    let mut late = FieldIdMap::default();
    table_schema(&[value(1), value(2)], &[], &mut late).unwrap();
    let b = table_schema(&[value(1), value(2)], &[key], &mut late).unwrap();
    assert_eq!(a.iceberg, b.iceberg);
    assert_eq!(early, late);
}

#[test]
fn a_persisted_map_outlives_versions_the_registry_forgot() {
    let v1 = version(1, &record(r#"{"name":"a","type":"int"},{"name":"b","type":"int"}"#));
    let v2 = version(2, &record(r#"{"name":"b","type":"int"}"#));
    let mut map = FieldIdMap::default();
    let before = table_schema(&[v1, v2.clone()], &[], &mut map).unwrap();
    let json = serde_json::to_string(&map).unwrap();
    let mut restored: FieldIdMap = serde_json::from_str(&json).unwrap();
    assert_eq!(restored, map);
    let after = table_schema(&[v2], &[], &mut restored).unwrap();
    assert_eq!(after.iceberg, before.iceberg);
    assert_eq!(restored, map);
}

fn field_type() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec![r#""int""#, r#""long""#, r#""string""#, r#"["null","double"]"#]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| format!(r#"{{"type":"array","items":{t}}}"#)),
            inner.prop_map(|t| format!(r#"{{"type":"map","values":{t}}}"#)),
        ]
    })
}

fn history() -> impl Strategy<Value = Vec<String>> {
    let field =
        (prop::sample::select(vec!["a", "b", "c", "A"]), prop::option::of("[abc]"), field_type());
    let record_text = prop::collection::vec(field, 0..4).prop_map(|fields| {
        let mut seen = std::collections::BTreeSet::new();
        let fields: Vec<String> = fields
            .into_iter()
            .filter(|(name, _, _)| seen.insert(*name))
            .map(|(name, alias, ty)| {
                let aliases = alias.map(|a| format!(r#""aliases":["{a}"],"#)).unwrap_or_default();
                format!(r#"{{"name":"{name}",{aliases}"type":{ty}}}"#)
            })
            .collect();
        record(&fields.join(","))
    });
    prop::collection::vec(record_text, 1..6)
}

proptest! {
    #[test]
    fn the_same_history_gives_the_same_ids_walked_at_once_or_by_and_by(history in history()) {
        let by_and_by = tables(&history);
        let texts: Vec<SchemaText> = (1..).zip(&history).map(|(v, t)| version(v, t)).collect();
        let mut map = FieldIdMap::default();
        table_schema(&texts, &[], &mut map).unwrap();
        for n in 1..=texts.len() {
            // Ids are unique (Iceberg's schema builder refuses others), and old versions keep theirs.
            let table = table_schema(&texts[..n], &[], &mut map).unwrap();
            prop_assert_eq!(&ids(&table), &by_and_by[n - 1]);
        }
    }
}
