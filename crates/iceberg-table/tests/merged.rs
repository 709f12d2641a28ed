//! Tables of cold and hot files, read by the `iceberg` crate: an implementation this crate does not
//! write with.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use iceberg::spec::{
    FieldSummary, FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestList,
    ManifestStatus, NestedField, PrimitiveType, Schema, TableMetadata, Type,
};
use isk_iceberg_table::{
    BuildError, ColdTable, Evidence, ManifestWriter, NamedFile, Placement, PlannedFile, TableFiles,
    TableHead, format_version, last_sequence_number, row_id,
};
use isk_model::{ChunkExponent, KafkaPartition, Offset, OffsetRange, chunks};
use serde_json::{Map, Value, json};
use uuid::Uuid;

const HOT_SPEC: i32 = 1_000_000;

fn schema() -> Schema {
    let field = |id, name, ty| Arc::new(NestedField::optional(id, name, Type::Primitive(ty)));
    let fields = [
        field(5, "name", PrimitiveType::String),
        field(6, "kafka_partition", PrimitiveType::Int),
        field(7, "kafka_offset", PrimitiveType::Long),
        field(1_000_000_003, "kafka_timestamp", PrimitiveType::Timestamptz),
    ];
    Schema::builder().with_fields(fields).build().unwrap()
}

fn cold_schema(id: i32) -> Value {
    json!({"type": "struct", "schema-id": id, "fields": [
        {"id": 5, "name": "name", "required": true, "type": "string"},
        {"id": 6, "name": "kafka_partition", "required": false, "type": "int"},
        {"id": 7, "name": "kafka_offset", "required": false, "type": "long"}]})
}

fn cold_v2(version: u8) -> Value {
    let mut cold = json!({
        "format-version": version, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
        "location": "s3://lake/t", "last-sequence-number": 34, "last-updated-ms": 1,
        "last-column-id": 9, "current-schema-id": 1, "schemas": [cold_schema(0), cold_schema(1)],
        "default-spec-id": 2, "partition-specs": [
            {"spec-id": 0, "fields": []},
            {"spec-id": 2, "fields": [
                {"source-id": 5, "field-id": 1000, "name": "name", "transform": "identity"}]}],
        "last-partition-id": 1000, "default-sort-order-id": 0,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "properties": {"owner": "lake", "isk.view": "other"}});
    if version == 3 {
        cold["next-row-id"] = 77.into();
    }
    cold
}

fn cold_v1() -> Value {
    let mut schema = cold_schema(0);
    schema.as_object_mut().unwrap().remove("schema-id");
    json!({
        "format-version": 1, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
        "location": "s3://lake/t", "last-updated-ms": 1, "last-column-id": 9, "schema": schema,
        "partition-spec": [{"source-id": 5, "name": "name", "transform": "identity"}],
        "properties": {}})
}

fn cold_manifest() -> ManifestFile {
    let bound = || Some(b"x".to_vec().into());
    ManifestFile {
        manifest_path: "s3://lake/t/metadata/m0.avro".into(),
        manifest_length: 1234,
        partition_spec_id: 2,
        content: ManifestContentType::Deletes,
        sequence_number: 30,
        min_sequence_number: 29,
        added_snapshot_id: 99,
        added_files_count: Some(1),
        existing_files_count: Some(2),
        deleted_files_count: Some(3),
        added_rows_count: Some(4),
        existing_rows_count: Some(5),
        deleted_rows_count: Some(6),
        partitions: Some(vec![FieldSummary {
            contains_null: true,
            contains_nan: Some(false),
            lower_bound: bound(),
            upper_bound: bound(),
        }]),
        key_metadata: Some(vec![1, 2]),
        first_row_id: None,
    }
}

fn plan(metadata: Value, manifests: Vec<ManifestFile>) -> TableHead {
    let Value::Object(metadata) = metadata else { panic!("no object") };
    let sequence_number = last_sequence_number(&metadata) + 1;
    TableHead {
        table_uuid: Uuid::from_u128(42),
        location: "s3://merged/t".into(),
        schema: Arc::new(schema()),
        schema_id: 1_000_000_001,
        placement: Placement {
            partition_column: 6,
            offset_column: 7,
            timestamp_column: Some(1_000_000_003),
            spec_id: HOT_SPEC,
            first_partition_field: HOT_SPEC,
            partition_field_names: ["hot_kafka_partition", "hot_kafka_offset_trunc"],
        },
        sequence_number,
        cold: Some(ColdTable {
            metadata_location: "s3://lake/t/metadata/v3.metadata.json".into(),
            metadata: Arc::new(metadata),
            manifests: Arc::new(manifests),
        }),
        chunk_exponent: exponent(),
        properties: BTreeMap::from([("isk.view".into(), "merged".into())]),
        timestamp_ms: 1_700_000_000_123,
        delete_file_size: 576,
        summary: BTreeMap::new(),
    }
}

fn exponent() -> ChunkExponent {
    ChunkExponent::new(10).unwrap()
}

/// One unproven chunk.
fn hot_file() -> PlannedFile {
    let range = OffsetRange::new(Offset(0), Offset(100)).unwrap();
    PlannedFile {
        data_uri: "s3://merged/t/data/a.parquet".into(),
        partition: KafkaPartition(3),
        chunk: chunks(range, exponent()).next().unwrap(),
        declared_size: 1000,
        evidence: Evidence::Unproven {
            delete_uri: "s3://merged/t/deletes/a.parquet".into(),
            timestamp_upper_ms: Some(5),
        },
    }
}

/// The table with one hot file, and the manifests of that.
fn build_with_manifests(head: &TableHead) -> Result<(TableFiles, Vec<NamedFile>), BuildError> {
    let (group, manifests) = ManifestWriter::new(head)?.group(vec![hot_file()])?;
    Ok((isk_iceberg_table::build(head, &[Arc::new(group)])?, manifests))
}

fn build(head: &TableHead) -> Result<TableFiles, BuildError> {
    Ok(build_with_manifests(head)?.0)
}

fn metadata(table: &TableFiles) -> TableMetadata {
    serde_json::from_slice(&table.metadata.bytes).unwrap()
}

#[test]
fn cold_manifests_are_named_as_they_are_and_hot_ones_follow() {
    let (table, manifests) =
        build_with_manifests(&plan(cold_v2(2), vec![cold_manifest()])).unwrap();
    let list = ManifestList::parse_with_version(&table.manifest_list.bytes, FormatVersion::V2);
    let list = list.unwrap();
    assert_eq!(list.entries()[0], cold_manifest());
    assert_eq!(list.entries().len(), 3);
    for (entry, file) in list.entries()[1..].iter().zip(&manifests) {
        assert_eq!(entry.sequence_number, 35);
        assert_eq!(entry.partition_spec_id, HOT_SPEC);
        let manifest = Manifest::parse_avro(&file.bytes).unwrap();
        // What is not said is inherited: added under the list's number, in the list's snapshot.
        let one = &manifest.entries()[0];
        assert_eq!((one.status(), one.snapshot_id()), (ManifestStatus::Added, None));
        assert_eq!((one.sequence_number(), one.file_sequence_number), (None, None));
        assert_eq!(manifest.entries()[0].data_file().record_count() % 99, 1);
    }
}

#[test]
fn schemas_specs_and_properties_of_cold_stay() {
    let metadata = metadata(&build(&plan(cold_v2(2), vec![])).unwrap());
    assert_eq!(metadata.format_version(), FormatVersion::V2);
    assert_eq!(metadata.last_sequence_number(), 35);
    assert_eq!(metadata.last_column_id(), 1_000_000_003);
    for id in [0, 1, 1_000_000_001] {
        assert!(metadata.schema_by_id(id).is_some(), "{id}");
    }
    assert_eq!(metadata.current_schema().as_struct(), schema().as_struct());
    for id in [0, 2, HOT_SPEC] {
        assert!(metadata.partition_spec_by_id(id).is_some(), "{id}");
    }
    assert_eq!(metadata.default_partition_spec_id(), 2);
    assert_eq!(metadata.properties()["owner"], "lake");
    assert_eq!(metadata.properties()["isk.view"], "merged");
    assert_eq!(metadata.location(), "s3://merged/t");
}

#[test]
fn a_table_of_format_v1_is_one_of_v2() {
    let metadata = metadata(&build(&plan(cold_v1(), vec![])).unwrap());
    assert_eq!(metadata.format_version(), FormatVersion::V2);
    assert_eq!(metadata.last_sequence_number(), 1);
    let spec = metadata.partition_spec_by_id(0).unwrap();
    assert_eq!((spec.fields()[0].field_id, spec.fields()[0].name.as_str()), (1000, "name"));
}

#[test]
fn a_table_of_format_v3_keeps_its_row_ids() {
    let cold = ManifestFile {
        content: ManifestContentType::Data,
        first_row_id: Some(11),
        ..cold_manifest()
    };
    let table = build(&plan(cold_v2(3), vec![cold.clone()])).unwrap();
    let list = ManifestList::parse_with_version(&table.manifest_list.bytes, FormatVersion::V3);
    let list = list.unwrap();
    assert_eq!(list.entries()[0], cold);
    let json: Value = serde_json::from_slice(&table.metadata.bytes).unwrap();
    assert_eq!(json["format-version"], 3);
    let snapshot = &json["snapshots"][0];
    assert_eq!((&snapshot["first-row-id"], &snapshot["added-rows"]), (&json!(77), &json!(0)));
}

#[test]
fn hot_files_of_a_table_of_format_v3_have_row_ids_of_their_own() {
    let head = plan(cold_v2(3), vec![]);
    let (table, manifests) = build_with_manifests(&head).unwrap();
    let first = row_id(KafkaPartition(3), Offset(0)).unwrap();
    assert_eq!(first_row_ids(&table), [Some(first.cast_unsigned()), None], "data, then deletes");
    for (file, id) in manifests.iter().zip([Some(first), None]) {
        let manifest = Manifest::parse_avro(&file.bytes).unwrap();
        assert_eq!(manifest.entries()[0].data_file().first_row_id(), id);
    }
    let json: Value = serde_json::from_slice(&table.metadata.bytes).unwrap();
    assert!(json["next-row-id"].as_i64().unwrap() > first + 100);
}

#[test]
fn hot_files_beyond_the_range_of_row_ids_have_none() {
    let head = plan(cold_v2(3), vec![]);
    let range = OffsetRange::new(Offset(1 << 50), Offset((1 << 50) + 100)).unwrap();
    let far = PlannedFile { chunk: chunks(range, exponent()).next().unwrap(), ..hot_file() };
    let writer = ManifestWriter::new(&head).unwrap();
    let (group, _) = writer.group(vec![hot_file(), far]).unwrap();
    let table = isk_iceberg_table::build(&head, &[Arc::new(group)]).unwrap();
    assert_eq!(first_row_ids(&table), [None, None]);
}

fn first_row_ids(table: &TableFiles) -> Vec<Option<u64>> {
    let list = ManifestList::parse_with_version(&table.manifest_list.bytes, FormatVersion::V3);
    list.unwrap().entries().iter().map(|manifest| manifest.first_row_id).collect()
}

#[test]
fn another_cold_metadata_is_another_snapshot() {
    let first = plan(cold_v2(2), vec![cold_manifest()]);
    let mut second = first.clone();
    assert_eq!(build(&first).unwrap().snapshot_id, build(&second).unwrap().snapshot_id);
    second.cold.as_mut().unwrap().metadata_location.push('x');
    assert_ne!(first, second);
    assert_ne!(build(&first).unwrap().snapshot_id, build(&second).unwrap().snapshot_id);
}

#[test]
fn a_commit_to_cold_leaves_the_manifests_of_hot_files_as_they_are() {
    for version in [2, 3] {
        let mut later = cold_v2(version);
        later["last-sequence-number"] = 36.into();
        let build = |cold| build_with_manifests(&plan(cold, vec![cold_manifest()])).unwrap();
        let ((before, hot), (after, same)) = (build(cold_v2(version)), build(later));
        assert_eq!(hot, same);
        assert_ne!(before.manifest_list, after.manifest_list);
        assert_eq!(metadata(&after).last_sequence_number(), 37);
    }
}

#[test]
fn an_unknown_format_version_is_refused() {
    let unknown: Map<String, Value> = Map::from_iter([("format-version".to_owned(), 4.into())]);
    let error = format_version(&unknown).unwrap_err();
    assert!(matches!(error, BuildError::Cold(_)) && error.to_string().contains('4'), "{error}");
    assert!(format_version(&Map::new()).is_err());
}
