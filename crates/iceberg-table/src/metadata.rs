//! The metadata file of a table of hot files alone (specification, "Table Metadata", v2), as JSON in a
//! fixed order.

use std::collections::BTreeMap;

use iceberg::spec::Schema;
use serde::Serialize;
use uuid::Uuid;

use crate::partition::Spec;
use crate::plan::TableHead;
use crate::snapshot::Snapshot;

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
    schemas: Vec<&'a Schema>,
    default_spec_id: i32,
    partition_specs: [Spec; 1],
    last_partition_id: i32,
    default_sort_order_id: i32,
    sort_orders: [SortOrder; 1],
    properties: BTreeMap<String, String>,
    current_snapshot_id: i64,
    refs: Refs,
    snapshots: Vec<&'a Snapshot>,
    statistics: [(); 0],
    partition_statistics: [(); 0],
    snapshot_log: Vec<SnapshotLogEntry>,
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
struct SnapshotLogEntry {
    timestamp_ms: i64,
    snapshot_id: i64,
}

impl<'a> Metadata<'a> {
    /// `snapshots` are in the order of their times, and the last one is current; `schemas` are those of
    /// earlier ones.
    pub(crate) fn new(
        head: &'a TableHead,
        schema: &'a Schema,
        schemas: &'a [Schema],
        properties: BTreeMap<String, String>,
        snapshots: Vec<&'a Snapshot>,
    ) -> Self {
        let placement = &head.placement;
        let schema_id = schema.schema_id();
        let earlier = schemas.iter().filter(|earlier| earlier.schema_id() != schema_id);
        let schemas: Vec<&Schema> = earlier.chain([schema]).collect();
        let current = snapshots.last().map_or(-1, |last| last.snapshot_id);
        let log = |one: &&Snapshot| SnapshotLogEntry {
            timestamp_ms: one.timestamp_ms,
            snapshot_id: one.snapshot_id,
        };
        Self {
            format_version: 2,
            table_uuid: head.table_uuid,
            location: &head.location,
            last_sequence_number: head.sequence_number,
            last_updated_ms: snapshots.last().map_or(head.timestamp_ms, |last| last.timestamp_ms),
            last_column_id: schemas.iter().map(|one| one.highest_field_id()).max().unwrap_or(0),
            current_schema_id: schema_id,
            schemas,
            default_spec_id: placement.spec_id,
            partition_specs: [placement.spec(head.chunk_exponent)],
            last_partition_id: placement.last_partition_field(),
            default_sort_order_id: 0,
            sort_orders: [SortOrder { order_id: 0, fields: [] }],
            properties,
            current_snapshot_id: current,
            refs: Refs { main: Ref { snapshot_id: current, kind: "branch" } },
            snapshot_log: snapshots.iter().map(log).collect(),
            snapshots,
            statistics: [],
            partition_statistics: [],
            metadata_log: [],
        }
    }
}
