//! The metadata file of a table of cold and hot files: the cold table's own, with a schema, a spec and
//! a snapshot added.
//!
//! All that the cold table's manifests name must be there under its own id: schemas, specs, sort
//! orders. What is added has ids that the plan chooses, far above those a cold table comes to.

use std::collections::BTreeMap;

use iceberg::spec::Schema;
use serde_json::{Map, Value, json};

use crate::build::BuildError;
use crate::partition::Spec;
use crate::plan::{ColdTable, TableHead};
use crate::row_id::NEXT_ROW_ID;
use crate::snapshot::Snapshot;

/// The id that the first field of a partition spec has, where old metadata names none.
const FIRST_PARTITION_FIELD: i64 = 1000;

/// The format version a table with these cold files has: that of the cold table, but at least 2, since
/// hot files have deletes beside them.
///
/// # Errors
/// The metadata has no version, or one newer than 3.
pub fn format_version(cold: &Map<String, Value>) -> Result<u8, BuildError> {
    match cold.get("format-version").and_then(Value::as_u64) {
        Some(1 | 2) => Ok(2),
        Some(3) => Ok(3),
        Some(other) => Err(BuildError::Cold(format!(
            "format-version {other} is not known to this version of ISK; it reads 1 to 3"
        ))),
        None => Err(BuildError::Cold("it has no format-version".to_owned())),
    }
}

/// The sequence number of the last change to a cold table; 0 in format v1.
pub fn last_sequence_number(cold: &Map<String, Value>) -> i64 {
    cold.get("last-sequence-number").and_then(Value::as_i64).unwrap_or(0)
}

/// The metadata of the plan's table.
pub(crate) fn metadata(
    head: &TableHead,
    cold: &ColdTable,
    schema: &Schema,
    spec: &Spec,
    properties: BTreeMap<String, String>,
    snapshot: &Snapshot,
) -> Result<Value, BuildError> {
    let old = &cold.metadata;
    let version = format_version(old)?;
    let largest = |key: &str, own: i64| old.get(key).and_then(Value::as_i64).unwrap_or(0).max(own);
    let mut new = Map::new();
    let mut put = |key: &str, value: Value| new.insert(key.to_owned(), value);
    put("format-version", version.into());
    put("table-uuid", head.table_uuid.to_string().into());
    put("location", head.location.as_str().into());
    put("last-sequence-number", head.sequence_number.into());
    put("last-updated-ms", snapshot.timestamp_ms.into());
    put("last-column-id", largest("last-column-id", schema.highest_field_id().into()).into());
    put("current-schema-id", schema.schema_id().into());
    put("schemas", with(schemas(old), serde_json::to_value(schema)?));
    put("default-spec-id", old.get("default-spec-id").cloned().unwrap_or_else(|| 0.into()));
    put("partition-specs", with(specs(old), serde_json::to_value(spec)?));
    let last_field = i64::from(head.placement.last_partition_field());
    put("last-partition-id", largest("last-partition-id", last_field).into());
    let order = old.get("default-sort-order-id").cloned();
    put("default-sort-order-id", order.unwrap_or_else(|| 0.into()));
    let orders = old.get("sort-orders").cloned();
    put("sort-orders", orders.unwrap_or_else(|| json!([{"order-id": 0, "fields": []}])));
    put("properties", merged_properties(old, properties));
    put("current-snapshot-id", snapshot.snapshot_id.into());
    put("refs", json!({"main": {"snapshot-id": snapshot.snapshot_id, "type": "branch"}}));
    let log = json!([{"timestamp-ms": snapshot.timestamp_ms, "snapshot-id": snapshot.snapshot_id}]);
    put("snapshot-log", log);
    let mut only = serde_json::to_value(snapshot)?;
    if version >= 3 {
        // No file is an added one, and all have ids already: this snapshot gives out none.
        only["first-row-id"] = old.get("next-row-id").cloned().unwrap_or_else(|| 0.into());
        only["added-rows"] = 0.into();
        put("next-row-id", NEXT_ROW_ID.into());
        // Cold manifests may be encrypted under these.
        old.get("encryption-keys").cloned().map(|keys| put("encryption-keys", keys));
    }
    put("snapshots", json!([only]));
    for key in ["statistics", "partition-statistics", "metadata-log"] {
        put(key, json!([]));
    }
    Ok(Value::Object(new))
}

/// The cold table's schemas; the one that oldest metadata has gets the id 0.
fn schemas(cold: &Map<String, Value>) -> Vec<Value> {
    match (cold.get("schemas"), cold.get("schema")) {
        (Some(Value::Array(schemas)), _) => schemas.clone(),
        (_, Some(Value::Object(schema))) => {
            let mut schema = schema.clone();
            schema.entry("schema-id").or_insert_with(|| 0.into());
            vec![Value::Object(schema)]
        }
        _ => Vec::new(),
    }
}

/// The cold table's partition specs; the one that oldest metadata has gets the id 0.
fn specs(cold: &Map<String, Value>) -> Vec<Value> {
    let mut specs = match (cold.get("partition-specs"), cold.get("partition-spec")) {
        (Some(Value::Array(specs)), _) => specs.clone(),
        (_, Some(fields)) => vec![json!({"spec-id": 0, "fields": fields})],
        _ => vec![json!({"spec-id": 0, "fields": []})],
    };
    // Format v1 may leave the ids of partition fields out: they count up.
    for spec in &mut specs {
        let fields = spec.get_mut("fields").and_then(Value::as_array_mut);
        for (field, id) in fields.into_iter().flatten().zip(FIRST_PARTITION_FIELD..) {
            if let Value::Object(field) = field {
                field.entry("field-id").or_insert_with(|| id.into());
            }
        }
    }
    specs
}

fn merged_properties(cold: &Map<String, Value>, own: BTreeMap<String, String>) -> Value {
    let mut all = cold.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    all.extend(own.into_iter().map(|(key, value)| (key, Value::String(value))));
    Value::Object(all)
}

fn with(mut all: Vec<Value>, one: Value) -> Value {
    all.push(one);
    Value::Array(all)
}
