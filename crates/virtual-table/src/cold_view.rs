//! A cold table's metadata file, read as far as showing it beside a topic needs.

use std::collections::HashMap;
use std::sync::Arc;

use iceberg::spec::Schema;
use isk_coldset::{ColdTable, KafkaColumns};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::api::ServiceError;
use crate::stated::Stated;

/// A cold table at one moment.
pub(crate) struct ColdView {
    /// Its name in the upstream namespace.
    pub name: String,
    pub metadata_location: String,
    pub uuid: Uuid,
    /// As the file says: 1 to 3.
    pub format_version: u8,
    /// The file without what grows with the table's history.
    pub metadata: Arc<Map<String, Value>>,
    /// The current schema.
    pub schema: Schema,
    /// The columns that say which record a row is; `None` where the table has none.
    pub columns: Option<KafkaColumns>,
    pub current: Option<i64>,
    /// What the table's properties state.
    pub stated: Stated,
    snapshots: HashMap<i64, ColdSnapshot>,
}

/// One snapshot of a cold table.
pub(crate) struct ColdSnapshot {
    pub id: i64,
    pub manifest_list: String,
    /// What its summary states.
    pub stated: Stated,
    parent: Option<i64>,
}

impl ColdSnapshot {
    /// What the snapshot is known by.
    pub(crate) fn key(&self) -> String {
        format!("s/{}", self.id)
    }
}

impl ColdView {
    /// Reads the metadata of a table.
    pub(crate) fn parse(name: &str, table: &ColdTable) -> Result<Self, ServiceError> {
        let broken = |reason: String| ServiceError::Unsupported {
            what: format!("cold table {name}"),
            reason: format!("its metadata {}: {reason}", table.metadata_location),
        };
        let mut metadata: Map<String, Value> = serde_json::from_slice(&table.metadata)
            .map_err(|e| broken(format!("is no JSON object: {e}")))?;
        let text = |key: &str| metadata.get(key).and_then(Value::as_str);
        let uuid = text("table-uuid")
            .and_then(|uuid| Uuid::parse_str(uuid).ok())
            .ok_or_else(|| broken("has no table-uuid".into()))?;
        let version = metadata.get("format-version").and_then(Value::as_u64);
        let format_version = version.and_then(|v| u8::try_from(v).ok()).unwrap_or(0);
        let schema = current_schema(&metadata).map_err(&broken)?;
        let stated = Stated::read(metadata.get("properties")).map_err(&broken)?;
        let current = metadata.get("current-snapshot-id").and_then(Value::as_i64);
        let current = current.filter(|&id| id >= 0);
        let snapshots = snapshots(&metadata).map_err(&broken)?;
        if let Some(id) = current.filter(|id| !snapshots.contains_key(id)) {
            return Err(broken(format!("does not list its current snapshot {id}")));
        }
        for grown in ["snapshots", "snapshot-log", "metadata-log", "statistics"] {
            metadata.remove(grown);
        }
        Ok(Self {
            name: name.to_owned(),
            metadata_location: table.metadata_location.clone(),
            uuid,
            format_version,
            columns: kafka_columns(&schema),
            schema,
            current,
            stated,
            snapshots,
            metadata: Arc::new(metadata),
        })
    }

    /// The current snapshot.
    pub(crate) fn current(&self) -> Option<&ColdSnapshot> {
        self.snapshots.get(&self.current?)
    }

    /// The current snapshot and those it came from, newest first, as far as they are kept. Snapshots
    /// off that line, staged or rolled back before they were ever current, are not the table's rows.
    pub(crate) fn lineage(&self) -> impl Iterator<Item = &ColdSnapshot> {
        let mut next = self.current();
        let mut left = self.snapshots.len();
        std::iter::from_fn(move || {
            let this = next?;
            // A chain that bites its tail ends too.
            left = left.checked_sub(1)?;
            next = this.parent.and_then(|id| self.snapshots.get(&id));
            Some(this)
        })
    }
}

fn current_schema(metadata: &Map<String, Value>) -> Result<Schema, String> {
    let id = metadata.get("current-schema-id").and_then(Value::as_i64);
    let by_id = metadata.get("schemas").and_then(Value::as_array).and_then(|schemas| {
        schemas.iter().find(|s| s.get("schema-id").and_then(Value::as_i64) == id)
    });
    let schema = by_id.or(metadata.get("schema")).ok_or("has no current schema")?;
    let mut schema = schema.clone();
    if let Value::Object(schema) = &mut schema {
        schema.entry("schema-id").or_insert_with(|| 0.into());
        // They say what is unique, which rows of two sources together need not be.
        schema.remove("identifier-field-ids");
    }
    serde_json::from_value(schema)
        .map_err(|e| format!("has a schema this version cannot read: {e}"))
}

fn snapshots(metadata: &Map<String, Value>) -> Result<HashMap<i64, ColdSnapshot>, String> {
    let all = metadata.get("snapshots").and_then(Value::as_array);
    let mut snapshots = HashMap::new();
    for snapshot in all.into_iter().flatten() {
        let number = |key: &str| snapshot.get(key).and_then(Value::as_i64);
        let id = number("snapshot-id").ok_or("has a snapshot without an id")?;
        let manifest_list = snapshot.get("manifest-list").and_then(Value::as_str);
        let manifest_list = manifest_list
            .ok_or_else(|| {
                format!(
                    "has a snapshot {id} without a manifest list; rewrite the table's manifests"
                )
            })?
            .to_owned();
        let stated = Stated::read(snapshot.get("summary"))?;
        let parent = number("parent-snapshot-id");
        snapshots.insert(id, ColdSnapshot { id, manifest_list, stated, parent });
    }
    Ok(snapshots)
}

/// The two columns by name, ignoring case where no column has the very name.
fn kafka_columns(schema: &Schema) -> Option<KafkaColumns> {
    let column = |name: &str| {
        let field = schema.field_by_name(name).or(schema.field_by_name_case_insensitive(name))?;
        Some((field.id, field.name.clone()))
    };
    Some(KafkaColumns {
        partition: column(isk_schema::KAFKA_PARTITION.name)?,
        offset: column(isk_schema::KAFKA_OFFSET.name)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(metadata: &str) -> Result<ColdView, ServiceError> {
        ColdView::parse(
            "t",
            &ColdTable {
                metadata_location: "s3://lake/t/metadata/v1.metadata.json".into(),
                metadata: metadata.to_owned().into(),
                location: "s3://lake/t/".into(),
            },
        )
    }

    const SCHEMA: &str = r#"{"type":"struct","schema-id":3,"fields":[
        {"id":1,"name":"KAFKA_PARTITION","required":true,"type":"int"},
        {"id":2,"name":"kafka_offset","required":false,"type":"long"}]}"#;

    #[test]
    fn the_lineage_is_what_the_current_snapshot_came_from() {
        let view = parse(&format!(
            r#"{{"format-version":2,"table-uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1",
            "current-schema-id":3,"schemas":[{SCHEMA}],"current-snapshot-id":30,
            "properties":{{"isk.covered-offsets":"0:5"}},
            "snapshots":[
              {{"snapshot-id":10,"manifest-list":"a"}},
              {{"snapshot-id":20,"parent-snapshot-id":10,"manifest-list":"staged"}},
              {{"snapshot-id":30,"parent-snapshot-id":10,"manifest-list":"c",
                "summary":{{"isk.covered-offsets":"1:7"}}}}]}}"#
        ))
        .unwrap();
        let ids: Vec<i64> = view.lineage().map(|s| s.id).collect();
        assert_eq!(ids, [30, 10]);
        assert_eq!(view.stated.ranges.len() + view.current().unwrap().stated.ranges.len(), 2);
        let columns = view.columns.unwrap();
        assert_eq!(columns.partition, (1, "KAFKA_PARTITION".to_owned()));
        assert!(!view.metadata.contains_key("snapshots"));
    }

    #[test]
    fn broken_metadata_is_named() {
        for (metadata, expected) in [
            ("[]", "no JSON object"),
            ("{}", "table-uuid"),
            (r#"{"table-uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1"}"#, "no current schema"),
            (
                &format!(
                    r#"{{"table-uuid":"9c12d441-03fe-4693-9a96-a0705ddf69c1",
                    "current-schema-id":3,"schemas":[{SCHEMA}],"current-snapshot-id":30}}"#
                ),
                "does not list its current snapshot 30",
            ),
        ] {
            let error = parse(metadata).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("v1.metadata.json"), "{error}");
        }
    }
}
