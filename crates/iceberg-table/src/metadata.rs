//! The metadata file of a table of hot files alone (specification, "Table Metadata", v2), as JSON in a
//! fixed order.

use std::collections::BTreeMap;

use iceberg::spec::Schema;
use serde::Serialize;
use uuid::Uuid;

use crate::partition::{Placement, Spec};

/// The whole file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Metadata<'a> {
    format_version: u8,
    table_uuid: Uuid,
    location: &'a str,
    last_sequence_number: i64,
    last_updated_ms: i64,
    last_column_id: i32,
    current_schema_id: i32,
    schemas: [&'a Schema; 1],
    default_spec_id: i32,
    partition_specs: [Spec; 1],
    last_partition_id: i32,
    default_sort_order_id: i32,
    sort_orders: [SortOrder; 1],
    properties: BTreeMap<String, String>,
    current_snapshot_id: i64,
    refs: Refs,
    snapshots: [Snapshot<'a>; 1],
    statistics: [(); 0],
    partition_statistics: [(); 0],
    snapshot_log: [SnapshotLogEntry; 1],
    metadata_log: [(); 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct SortOrder {
    order_id: i32,
    fields: [(); 0],
}

#[derive(Debug, Serialize)]
struct Refs {
    main: Ref,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ref {
    snapshot_id: i64,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot<'a> {
    sequence_number: i64,
    snapshot_id: i64,
    timestamp_ms: i64,
    summary: BTreeMap<String, String>,
    manifest_list: &'a str,
    schema_id: i32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct SnapshotLogEntry {
    timestamp_ms: i64,
    snapshot_id: i64,
}

/// What the metadata says of the one snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotFacts<'a> {
    pub(crate) id: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) summary: BTreeMap<String, String>,
    pub(crate) manifest_list: &'a str,
}

impl<'a> Metadata<'a> {
    pub(crate) fn new(
        table_uuid: Uuid,
        location: &'a str,
        schema: &'a Schema,
        placement: &Placement,
        spec: Spec,
        properties: BTreeMap<String, String>,
        snapshot: SnapshotFacts<'a>,
    ) -> Self {
        let SnapshotFacts { id, timestamp_ms, summary, manifest_list } = snapshot;
        let schema_id = schema.schema_id();
        Self {
            format_version: 2,
            table_uuid,
            location,
            last_sequence_number: placement.sequence_number,
            last_updated_ms: timestamp_ms,
            last_column_id: schema.highest_field_id(),
            current_schema_id: schema_id,
            schemas: [schema],
            default_spec_id: placement.spec_id,
            partition_specs: [spec],
            last_partition_id: placement.last_partition_field(),
            default_sort_order_id: 0,
            sort_orders: [SortOrder { order_id: 0, fields: [] }],
            properties,
            current_snapshot_id: id,
            refs: Refs { main: Ref { snapshot_id: id, kind: "branch" } },
            snapshots: [Snapshot {
                sequence_number: placement.sequence_number,
                snapshot_id: id,
                timestamp_ms,
                summary,
                manifest_list,
                schema_id,
            }],
            statistics: [],
            partition_statistics: [],
            snapshot_log: [SnapshotLogEntry { timestamp_ms, snapshot_id: id }],
            metadata_log: [],
        }
    }
}
