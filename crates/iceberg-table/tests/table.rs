//! The files of a plan, read by the `iceberg` crate: an implementation this crate does not write with.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use iceberg::spec::{
    DataContentType, Datum, FormatVersion, Manifest, ManifestContentType, ManifestList,
    ManifestStatus, NestedField, PrimitiveType, Schema, SchemaRef, TableMetadata, Type,
};
use isk_iceberg_table::{
    BuildError, ColumnMetrics, Evidence, ManifestWriter, NamedFile, Placement, PlannedFile,
    TableHead, groups,
};
use isk_model::{
    ChunkExponent, EARLIEST_TIMESTAMP_MS, KafkaPartition, Offset, OffsetChunk, OffsetRange, chunks,
};
use uuid::Uuid;

const K: u8 = 10;
const DELETE_FILE_SIZE: u64 = 576;

fn exponent() -> ChunkExponent {
    ChunkExponent::new(K).unwrap()
}

fn schema() -> SchemaRef {
    let field = |id, name, ty, required| {
        Arc::new(NestedField::new(id, name, Type::Primitive(ty), required))
    };
    let schema = Schema::builder().with_fields([
        field(100, "name", PrimitiveType::String, false),
        field(1, "kafka_partition", PrimitiveType::Int, true),
        field(2, "kafka_offset", PrimitiveType::Long, true),
        field(3, "kafka_timestamp", PrimitiveType::Timestamptz, false),
    ]);
    Arc::new(schema.build().unwrap())
}

fn unproven(partition: i32, chunk: OffsetChunk) -> PlannedFile {
    let name = format!("{partition}/{}-{}.parquet", chunk.range.start(), chunk.range.end());
    PlannedFile {
        data_uri: format!("s3://hotset/t/data/{name}"),
        partition: KafkaPartition(partition),
        chunk,
        declared_size: 1 << 26,
        evidence: Evidence::Unproven {
            delete_uri: format!("s3://hotset/t/deletes/{name}"),
            timestamp_upper_ms: Some(1_700_000_000_000),
        },
    }
}

fn proven(partition: i32, chunk: OffsetChunk, rows: u64) -> PlannedFile {
    let metrics = ColumnMetrics {
        value_count: rows,
        null_count: Some(2),
        column_size: 99,
        lower: Some(b"a".to_vec()),
        upper: Some(b"z".to_vec()),
    };
    let columns = BTreeMap::from([(100, metrics)]);
    let evidence = Evidence::Proven { rows, columns, keep_delete_entry: None };
    PlannedFile { evidence, ..unproven(partition, chunk) }
}

/// All chunks of the offsets `[start, end)`.
fn cut(start: i64, end: i64) -> Vec<OffsetChunk> {
    chunks(OffsetRange::new(Offset(start), Offset(end)).unwrap(), exponent()).collect()
}

/// A table and its files.
struct Plan {
    head: TableHead,
    files: Vec<PlannedFile>,
}

/// All files of a table's metadata folder.
struct TableFiles {
    metadata: NamedFile,
    manifest_list: NamedFile,
    manifests: Vec<NamedFile>,
    snapshot_id: i64,
}

/// Groups the files, writes the groups' manifests and builds the rest.
fn build(plan: &Plan) -> Result<TableFiles, BuildError> {
    let writer = ManifestWriter::new(&plan.head)?;
    let mut logs = BTreeMap::<KafkaPartition, OffsetRange>::new();
    for PlannedFile { partition, chunk, .. } in &plan.files {
        let log = logs.entry(*partition).or_insert(chunk.range);
        let (start, end) = (log.start().min(chunk.range.start()), log.end().max(chunk.range.end()));
        *log = OffsetRange::new(start, end).unwrap();
    }
    let (mut all, mut manifests, mut placed) = (Vec::new(), Vec::new(), 0);
    for group in groups(logs, plan.head.chunk_exponent) {
        let inside = |file: &&PlannedFile| {
            let start = file.chunk.range.start();
            let holds = |range: OffsetRange| range.start() <= start && start < range.end();
            group.parts.iter().any(|&(p, range)| p == file.partition && holds(range))
        };
        let files: Vec<PlannedFile> = plan.files.iter().filter(inside).cloned().collect();
        placed += files.len();
        let (group, named) = writer.group(files)?;
        all.push(Arc::new(group));
        manifests.extend(named);
    }
    assert_eq!(placed, plan.files.len());
    let named: Vec<_> = all.iter().flat_map(|group| group.files()).collect();
    let made: Vec<_> = manifests.iter().map(|f| (f.name.as_str(), f.bytes.len() as u64)).collect();
    assert_eq!(named, made);
    let built = isk_iceberg_table::build(&plan.head, &all)?;
    let (metadata, manifest_list) = (built.metadata, built.manifest_list);
    Ok(TableFiles { metadata, manifest_list, manifests, snapshot_id: built.snapshot_id })
}

fn plan(files: Vec<PlannedFile>) -> Plan {
    let head = TableHead {
        table_uuid: Uuid::from_u128(42),
        location: "s3://hotset/t".to_owned(),
        schema: schema(),
        schema_id: 7,
        placement: Placement::HOT,
        sequence_number: 1,
        cold: None,
        chunk_exponent: exponent(),
        properties: BTreeMap::from([("owner".to_owned(), "me".to_owned())]),
        timestamp_ms: 1_700_000_000_123,
        delete_file_size: DELETE_FILE_SIZE,
        summary: BTreeMap::from([("isk.offsets".to_owned(), "0:5000".to_owned())]),
    };
    Plan { head, files }
}

/// A built table, as the other implementation reads it.
struct Read {
    metadata: TableMetadata,
    list: ManifestList,
    manifests: Vec<Manifest>,
}

fn read(table: &TableFiles) -> Read {
    let metadata: TableMetadata = serde_json::from_slice(&table.metadata.bytes).unwrap();
    let snapshot = metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.snapshot_id(), table.snapshot_id);
    let uri = |name: &str| format!("s3://hotset/t/metadata/{name}");
    assert_eq!(snapshot.manifest_list(), uri(&table.manifest_list.name));
    let list =
        ManifestList::parse_with_version(&table.manifest_list.bytes, FormatVersion::V2).unwrap();
    let by_uri: HashMap<_, _> =
        table.manifests.iter().map(|file| (uri(&file.name), &file.bytes)).collect();
    let manifests = list.entries().iter().map(|entry| {
        let bytes = by_uri[&entry.manifest_path];
        assert_eq!(entry.manifest_length, bytes.len() as i64);
        Manifest::parse_avro(bytes).unwrap()
    });
    let manifests = manifests.collect();
    Read { metadata, list, manifests }
}

fn rows_listed(read: &Read, content: ManifestContentType) -> u64 {
    let entries = read.list.entries().iter().filter(|entry| entry.content == content);
    entries.map(|e| e.added_rows_count.unwrap() + e.existing_rows_count.unwrap()).sum()
}

#[test]
fn the_metadata_names_schema_spec_and_snapshot() {
    let files = cut(0, 5000).into_iter().map(|chunk| unproven(0, chunk)).collect();
    let table = build(&plan(files)).unwrap();
    let metadata = read(&table).metadata;
    assert_eq!(metadata.format_version(), FormatVersion::V2);
    assert_eq!(metadata.uuid(), Uuid::from_u128(42));
    assert_eq!(metadata.current_schema_id(), 7);
    assert_eq!(metadata.current_schema().as_struct(), schema().as_struct());
    assert_eq!(metadata.last_column_id(), 100);
    let spec = metadata.default_partition_spec();
    let fields: Vec<_> = spec
        .fields()
        .iter()
        .map(|f| (f.source_id, f.field_id, f.name.as_str(), f.transform.to_string()))
        .collect();
    assert_eq!(
        fields,
        [
            (1, 1000, "kafka_partition", "identity".to_owned()),
            (2, 1001, "kafka_offset_trunc", "truncate[1024]".to_owned()),
        ]
    );
    assert_eq!(metadata.last_partition_id(), 1001);
    assert_eq!(metadata.properties()["owner"], "me");
    assert_eq!(metadata.properties()["write.metadata.metrics.column.kafka_offset"], "full");
    let snapshot = metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.schema_id(), Some(7));
    let summary = &snapshot.summary().additional_properties;
    assert_eq!(summary["isk.offsets"], "0:5000");
    assert!(!summary.contains_key("total-records"));
    assert!(table.metadata.name.starts_with("00001-"));
    let (_, rest) = table.metadata.name.split_once('-').unwrap();
    assert!(Uuid::parse_str(rest.strip_suffix(".metadata.json").unwrap()).is_ok());
}

#[test]
fn an_unproven_chunk_tells_what_is_certain_and_has_a_delete_entry() {
    let chunk = cut(1500, 2048).remove(0);
    let read = read(&build(&plan(vec![unproven(3, chunk)])).unwrap());
    let [data, deletes] = &read.manifests[..] else { panic!("two manifests expected") };
    let entry = &data.entries()[0];
    assert_eq!(entry.status(), ManifestStatus::Added);
    // Inherited from the manifest list.
    assert_eq!((entry.sequence_number(), entry.file_sequence_number), (None, None));
    assert!(read.list.entries().iter().all(|listed| listed.sequence_number == 1));
    let file = entry.data_file();
    assert_eq!((file.record_count(), file.file_size_in_bytes()), (548, 1 << 26));
    assert_eq!(file.split_offsets(), Some(&[4][..]));
    // DuckDB goes by an upper bound only where there is a lower one, which here is the least there can be.
    let earliest = Datum::timestamptz_micros(EARLIEST_TIMESTAMP_MS * 1000);
    assert_eq!(
        file.lower_bounds(),
        &HashMap::from([(1, Datum::int(3)), (2, Datum::long(1500)), (3, earliest)])
    );
    assert_eq!(
        file.upper_bounds(),
        &HashMap::from([
            (1, Datum::int(3)),
            (2, Datum::long(2047)),
            (3, Datum::timestamptz_micros(1_700_000_000_000_999)),
        ])
    );
    assert_eq!(file.null_value_counts(), &HashMap::from([(1, 0), (2, 0)]));
    assert!(file.value_counts().is_empty());

    let entry = &deletes.entries()[0];
    let delete = entry.data_file();
    assert_eq!(delete.content_type(), DataContentType::PositionDeletes);
    assert_eq!((delete.record_count(), delete.file_size_in_bytes()), (1, DELETE_FILE_SIZE));
    assert_eq!(delete.partition(), file.partition());
    assert!(delete.lower_bounds().is_empty() && delete.upper_bounds().is_empty());
    assert_eq!(delete.referenced_data_file(), None);
    // The same as the data's: deletes apply to data of their own number.
    assert_eq!((entry.status(), entry.sequence_number()), (ManifestStatus::Added, None));
    assert_ne!(delete.file_path(), file.file_path());
}

#[test]
fn a_time_bound_that_does_not_fit_is_left_out() {
    for (ms, expected) in [(None, None), (Some(i64::MAX), None), (Some(-1), Some(-1))] {
        let mut file = unproven(0, cut(0, 10).remove(0));
        file.evidence = Evidence::Unproven {
            delete_uri: "s3://hotset/t/deletes/d.parquet".to_owned(),
            timestamp_upper_ms: ms,
        };
        let read = read(&build(&plan(vec![file])).unwrap());
        let file = read.manifests[0].entries()[0].data_file();
        let bound = file.upper_bounds().get(&3);
        assert_eq!(bound, expected.map(Datum::timestamptz_micros).as_ref());
        assert_eq!(file.lower_bounds().contains_key(&3), bound.is_some());
    }
}

#[test]
fn a_proven_chunk_tells_all_its_metrics_and_has_no_delete_entry() {
    let read = read(&build(&plan(vec![proven(0, cut(0, 1024).remove(0), 1000)])).unwrap());
    assert_eq!(read.manifests.len(), 1);
    let file = read.manifests[0].entries()[0].data_file().clone();
    assert_eq!(file.record_count(), 1000);
    assert_eq!(file.value_counts(), &HashMap::from([(100, 1000)]));
    assert_eq!(file.null_value_counts(), &HashMap::from([(100, 2)]));
    assert_eq!(file.column_sizes(), &HashMap::from([(100, 99)]));
    assert_eq!(file.lower_bounds(), &HashMap::from([(100, Datum::string("a"))]));
    assert_eq!(file.upper_bounds(), &HashMap::from([(100, Datum::string("z"))]));
    let snapshot = read.metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.summary().additional_properties["total-records"], "1000");
}

#[test]
fn a_proven_chunk_that_the_cleaner_may_thin_keeps_its_delete_entry() {
    let mut file = proven(0, cut(0, 1024).remove(0), 1000);
    if let Evidence::Proven { keep_delete_entry, .. } = &mut file.evidence {
        *keep_delete_entry = Some("s3://hotset/t/deletes/d.parquet".to_owned());
    }
    let read = read(&build(&plan(vec![file])).unwrap());
    assert_eq!(rows_listed(&read, ManifestContentType::Deletes), 1);
    let snapshot = read.metadata.current_snapshot().unwrap();
    assert!(!snapshot.summary().additional_properties.contains_key("total-records"));
}

#[test]
fn a_proven_chunk_without_rows_is_left_out() {
    let all = cut(0, 2048);
    let read = read(&build(&plan(vec![proven(0, all[0], 0), proven(0, all[1], 5)])).unwrap());
    assert_eq!(read.manifests[0].entries().len(), 1);
    assert_eq!(rows_listed(&read, ManifestContentType::Data), 5);
}

#[test]
fn an_empty_topic_is_a_snapshot_of_no_manifests() {
    let read = read(&build(&plan(Vec::new())).unwrap());
    assert!(read.list.entries().is_empty());
    let snapshot = read.metadata.current_snapshot().unwrap();
    assert_eq!(snapshot.summary().additional_properties["total-records"], "0");
}

#[test]
fn the_manifest_list_counts_and_bounds_each_manifest() {
    let mut files = Vec::new();
    for partition in [2, 9] {
        files.extend(cut(900, 300_000).into_iter().map(|chunk| unproven(partition, chunk)));
    }
    let read = read(&build(&plan(files)).unwrap());
    assert_eq!(rows_listed(&read, ManifestContentType::Data), 2 * (300_000 - 900));
    let mut seen = BTreeSet::new();
    for (listed, manifest) in read.list.entries().iter().zip(&read.manifests) {
        assert_eq!(listed.added_files_count, Some(manifest.entries().len() as u32));
        assert_eq!(manifest.metadata().schema_id(), 7);
        let of = |n: usize, upper: bool| {
            let summary = &listed.partitions.as_ref().unwrap()[n];
            let bound = if upper { &summary.upper_bound } else { &summary.lower_bound };
            let mut bytes = bound.clone().unwrap().into_vec();
            bytes.resize(8, 0);
            i64::from_le_bytes(bytes.try_into().unwrap())
        };
        for entry in manifest.entries() {
            let file = entry.data_file();
            assert!(seen.insert(file.file_path().to_owned()));
            let values: Vec<i64> = file
                .partition()
                .iter()
                .map(|value| match value.unwrap().as_primitive_literal().unwrap() {
                    iceberg::spec::PrimitiveLiteral::Int(n) => i64::from(n),
                    iceberg::spec::PrimitiveLiteral::Long(n) => n,
                    other => panic!("unexpected partition value {other:?}"),
                })
                .collect();
            for (n, value) in values.into_iter().enumerate() {
                assert!(of(n, false) <= value && value <= of(n, true));
            }
        }
    }
    assert_eq!(seen.len(), 2 * 2 * cut(900, 300_000).len());
}

fn names(table: &TableFiles) -> BTreeSet<String> {
    table.manifests.iter().map(|file| file.name.clone()).collect()
}

#[test]
fn one_more_record_changes_the_tail_manifests_only() {
    let at = |end: i64| {
        let files = (0..20).flat_map(|partition| {
            let end = if partition == 7 { end } else { 700_000 };
            cut(0, end).into_iter().map(move |chunk| unproven(partition, chunk))
        });
        build(&plan(files.collect())).unwrap()
    };
    let (before, after, again) = (at(700_000), at(700_001), at(700_000));
    assert_eq!(before.metadata, again.metadata);
    assert_eq!(before.snapshot_id, again.snapshot_id);
    assert_ne!(before.snapshot_id, after.snapshot_id);
    assert_ne!(before.metadata.name, after.metadata.name);
    // Two sealed runs of each of 20 partitions, three groups that fill, and the tail; all of them twice.
    assert_eq!(before.manifests.len(), 2 * (20 * 2 + 3 + 1));
    let changed: Vec<_> = names(&after).difference(&names(&before)).cloned().collect();
    assert_eq!(changed.len(), 2, "{changed:?}");
    let changed_entries = after
        .manifests
        .iter()
        .filter(|file| changed.contains(&file.name))
        .map(|file| Manifest::parse_avro(&file.bytes).unwrap().entries().len());
    assert_eq!(changed_entries.collect::<Vec<_>>(), [20, 20]);
}

#[test]
fn the_snapshot_id_does_not_depend_on_the_time_but_on_all_else() {
    let base = || plan(vec![unproven(0, cut(0, 1024).remove(0))]);
    let id = |change: fn(&mut Plan)| {
        let mut plan = base();
        change(&mut plan);
        build(&plan).unwrap().snapshot_id
    };
    let original = id(|_| {});
    assert!(original > 0);
    assert_eq!(original, id(|plan| plan.head.timestamp_ms += 1));
    let others: BTreeSet<i64> = [
        id(|plan| plan.head.schema_id += 1),
        id(|plan| plan.head.location.push('x')),
        id(|plan| plan.head.table_uuid = Uuid::from_u128(1)),
        id(|plan| plan.files[0].declared_size += 1),
        id(|plan| plan.files.clear()),
        id(|plan| plan.head.delete_file_size += 1),
        id(|plan| plan.head.properties.clear()),
        id(|plan| plan.head.summary.clear()),
        original,
    ]
    .into();
    assert_eq!(others.len(), 9);
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    let mut files: Vec<_> = cut(0, 9000).into_iter().map(|chunk| unproven(1, chunk)).collect();
    let forwards = build(&plan(files.clone())).unwrap();
    files.reverse();
    assert_eq!(forwards.metadata, build(&plan(files)).unwrap().metadata);
}

#[test]
fn a_plan_that_is_no_table_is_refused() {
    let mut misplaced = unproven(0, cut(0, 1024).remove(0));
    misplaced.chunk.aligned_start = Offset(1024);
    assert!(matches!(build(&plan(vec![misplaced])), Err(BuildError::Chunk { .. })));
    let mut wide = unproven(0, cut(0, 1024).remove(0));
    wide.chunk.range = OffsetRange::new(Offset(0), Offset(1025)).unwrap();
    assert!(matches!(build(&plan(vec![wide])), Err(BuildError::Chunk { .. })));
    let mut large = unproven(0, cut(0, 1024).remove(0));
    large.declared_size = u64::MAX;
    assert!(matches!(build(&plan(vec![large])), Err(BuildError::Long { .. })));
    let mut without = plan(Vec::new());
    without.head.schema = Arc::new(Schema::builder().build().unwrap());
    assert!(matches!(build(&without), Err(BuildError::Column { id: 1, .. })));
}
