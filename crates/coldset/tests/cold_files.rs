//! Manifest lists and manifests of all format versions, as another implementation writes them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::{Schema as AvroSchema, Writer};
use bytes::Bytes;
use futures::StreamExt;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, Literal,
    ManifestContentType, ManifestFile, ManifestListWriter, ManifestWriterBuilder, NestedField,
    PartitionSpec, PrimitiveType, Schema, SchemaRef, Struct, Transform, Type,
};
use isk_coldset::{
    ColdFile, ColdFormat, ColdStore, ColdsetError, FieldBounds, KafkaColumns, cold_files,
    manifest_list,
};

fn columns() -> KafkaColumns {
    KafkaColumns { partition: (7, "kafka_partition".into()), offset: (8, "kafka_offset".into()) }
}

fn schema(required: bool) -> SchemaRef {
    let field = |id, name: &str, kind| {
        let kind = Type::Primitive(kind);
        Arc::new(if required {
            NestedField::required(id, name, kind)
        } else {
            NestedField::optional(id, name, kind)
        })
    };
    let fields = vec![
        field(7, "kafka_partition", PrimitiveType::Int),
        field(8, "kafka_offset", PrimitiveType::Long),
    ];
    Arc::new(Schema::builder().with_fields(fields).build().unwrap())
}

fn spec(schema: &SchemaRef, identity: bool) -> PartitionSpec {
    let mut spec = PartitionSpec::builder(schema.clone());
    if identity {
        spec = spec
            .add_partition_field("kafka_offset", "offsets", Transform::Truncate(100))
            .unwrap()
            .add_partition_field("kafka_partition", "kafka_partition", Transform::Identity)
            .unwrap();
    }
    spec.build().unwrap()
}

/// Ten rows of Kafka partition 3, from offset 10 on.
fn data(name: &str) -> DataFileBuilder {
    let mut file = DataFileBuilder::default();
    file.content(DataContentType::Data)
        .file_path(format!("s3://lake/data/{name}"))
        .file_format(DataFileFormat::Parquet)
        .record_count(10)
        .file_size_in_bytes(1234)
        .partition_spec_id(0)
        .partition(Struct::empty())
        .lower_bounds(HashMap::from([(7, Datum::int(3)), (8, Datum::long(10))]))
        .upper_bounds(HashMap::from([(7, Datum::int(3)), (8, Datum::long(19))]));
    file
}

/// Writes a manifest and its list, puts both into a store, and reads them back from there.
struct Written {
    store: ColdStore,
    list_uri: String,
}

async fn put(store: &ColdStore, io: &FileIO, path: &str, key: &str) {
    let bytes = io.new_input(path).unwrap().read().await.unwrap();
    let body = futures::stream::iter([Ok(bytes)]).boxed();
    store.put("lake", key, None, body).await.unwrap();
}

async fn written(
    version: u8,
    required: bool,
    identity: bool,
    files: Vec<(DataFile, bool)>,
) -> Written {
    let io = FileIO::new_with_memory();
    let schema = schema(required);
    let output = io.new_output("memory:/m.avro").unwrap();
    let builder =
        ManifestWriterBuilder::new(output, Some(1), schema.clone(), spec(&schema, identity));
    let mut writer = match version {
        1 => builder.build_v1(),
        2 => builder.build_v2_data(),
        _ => builder.build_v3_data(),
    };
    for (file, live) in files {
        if live {
            writer.add_file(file, 1).unwrap();
        } else {
            writer.add_delete_file(file, 1, Some(1)).unwrap();
        }
    }
    let mut manifest: ManifestFile = writer.write_manifest_file().await.unwrap();
    manifest.manifest_path = "s3a://lake/meta/m.avro".into();
    if version > 1 {
        manifest.sequence_number = 1;
        manifest.min_sequence_number = 1;
    }
    let output = io.new_output("memory:/l.avro").unwrap().writer().await.unwrap();
    let mut list = match version {
        1 => ManifestListWriter::v1(output, 1, None),
        2 => ManifestListWriter::v2(output, 1, None, 1),
        _ => ManifestListWriter::v3(output, 1, None, 1, Some(0)),
    };
    list.add_manifests(std::iter::once(manifest)).unwrap();
    list.close().await.unwrap();
    let store = ColdStore::in_memory();
    put(&store, &io, "memory:/m.avro", "meta/m.avro").await;
    put(&store, &io, "memory:/l.avro", "meta/l.avro").await;
    Written { store, list_uri: "s3://lake/meta/l.avro".into() }
}

impl Written {
    async fn files(&self, version: u8) -> Vec<ColdFile> {
        let list = manifest_list(&self.store, &self.list_uri, version).await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(list[0].content, ManifestContentType::Data);
        cold_files(&self.store, &list[0], &columns()).await.unwrap()
    }
}

fn nulls(partition: u64, offset: u64) -> HashMap<i32, u64> {
    HashMap::from([(7, partition), (8, offset)])
}

#[tokio::test]
async fn every_format_version_says_the_same() {
    for version in [1, 2, 3] {
        let mut files = vec![
            (data("a.parquet").null_value_counts(nulls(0, 0)).build().unwrap(), true),
            (data("b.avro").file_format(DataFileFormat::Avro).build().unwrap(), true),
        ];
        if version > 1 {
            let gone = data("c.orc").file_format(DataFileFormat::Orc).build().unwrap();
            files.push((gone, false));
        }
        let written = written(version, false, false, files).await;
        let files = written.files(version).await;
        let exact =
            |lower, upper, nulls| FieldBounds { lower: Some(lower), upper: Some(upper), nulls };
        assert_eq!(
            files[0],
            ColdFile {
                uri: "s3://lake/data/a.parquet".into(),
                format: ColdFormat::Parquet,
                records: 10,
                size: 1234,
                live: true,
                partition: exact(3, 3, Some(0)),
                offset: exact(10, 19, Some(0)),
            },
            "v{version}"
        );
        assert_eq!(files[0].proven_range().unwrap().1.to_string(), "[10, 20)");
        assert_eq!((files[1].format, files[1].offset), (ColdFormat::Avro, exact(10, 19, None)));
        assert_eq!(files[1].proven_range(), None, "nulls were not counted");
        if version > 1 {
            assert_eq!((files[2].format, files[2].live), (ColdFormat::Orc, false));
        }
    }
}

#[tokio::test]
async fn a_list_from_before_an_upgrade_is_read() {
    for (was, is) in [(1, 2), (1, 3), (2, 3)] {
        let file = data("a.parquet").null_value_counts(nulls(0, 0)).build().unwrap();
        let written = written(was, false, false, vec![(file, true)]).await;
        assert_eq!(written.files(is).await.len(), 1, "v{was} as v{is}");
    }
}

#[tokio::test]
async fn an_identity_partition_value_is_better_than_bounds() {
    let tuple = |partition| Struct::from_iter([Some(Literal::long(0)), partition]);
    let build = |name: &str, partition| {
        let mut file = data(name);
        file.partition(tuple(partition)).null_value_counts(nulls(9, 0));
        // As a writer leaves it that keeps no metrics of partition columns.
        file.lower_bounds(HashMap::from([(8, Datum::long(10))]));
        file.upper_bounds(HashMap::from([(8, Datum::long(19))]));
        (file.build().unwrap(), true)
    };
    let files = vec![build("five", Some(Literal::int(5))), build("null", None)];
    let files = written(2, false, true, files).await.files(2).await;
    let five = FieldBounds { lower: Some(5), upper: Some(5), nulls: Some(0) };
    assert_eq!(files[0].partition, five);
    assert_eq!(files[0].proven_range().unwrap().0.0, 5);
    // The truncated offset is no identity: its bounds stay what they were.
    assert_eq!((files[0].offset.lower, files[0].offset.upper), (Some(10), Some(19)));
    assert_eq!(files[1].partition, FieldBounds { nulls: Some(10), ..FieldBounds::default() });
    assert_eq!(files[1].proven_range(), None);
}

#[tokio::test]
async fn a_required_column_has_no_nulls() {
    let files = vec![(data("a.parquet").build().unwrap(), true)];
    let files = written(2, true, false, files).await.files(2).await;
    assert_eq!((files[0].partition.nulls, files[0].offset.nulls), (Some(0), Some(0)));
    assert!(files[0].proven_range().is_some());
}

/// As Spark leaves a manifest of format v1 behind when a partition field is dropped, which then is void but
/// keeps its name; and as one of a later format may be.
#[tokio::test]
async fn what_else_a_manifest_speaks_of_does_not_matter() {
    let schema = r#"{"type":"struct","schema-id":2,"fields":[
        {"id":1,"name":"note","required":false,"type":"string"},
        {"id":2,"name":"shape","required":false,"type":"geometry(srid:4326)"},
        {"id":7,"name":"kafka_partition","required":false,"type":"int"},
        {"id":8,"name":"kafka_offset","required":true,"type":"long"}]}"#;
    let spec = r#"[{"name":"note","transform":"void","source-id":1,"field-id":1000},
        {"name":"gone","transform":"day","source-id":99,"field-id":1001},
        {"name":"both","transform":"zorder","source-ids":[1,2],"field-id":1002},
        {"name":"kafka_partition","transform":"identity","source-id":7,"field-id":1003}]"#;
    let map = |key: u32, value: u32, kind: &str| {
        format!(
            r#"["null",{{"type":"array","items":{{"type":"record","name":"k{key}_v{value}","fields":[
            {{"name":"key","type":"int"}},{{"name":"value","type":"{kind}"}}]}}}}]"#
        )
    };
    let entry = format!(
        r#"{{"type":"record","name":"manifest_entry","fields":[{{"name":"status","type":"int"}},
        {{"name":"data_file","type":{{"type":"record","name":"r2","fields":[
        {{"name":"file_path","type":"string"}},{{"name":"file_format","type":"string"}},
        {{"name":"partition","type":{{"type":"record","name":"r102","fields":[
          {{"name":"note","type":["null","string"]}},{{"name":"gone","type":["null","int"]}},
          {{"name":"both","type":["null","bytes"]}},{{"name":"kafka_partition","type":["null","int"]}}]}}}},
        {{"name":"record_count","type":"long"}},{{"name":"file_size_in_bytes","type":"long"}},
        {{"name":"lower_bounds","type":{}}},{{"name":"upper_bounds","type":{}}}]}}}}]}}"#,
        map(126, 127, "bytes"),
        map(129, 130, "bytes")
    );
    let avro = AvroSchema::parse_str(&entry).unwrap();
    let some = |value| Value::Union(1, Box::new(value));
    let null = || Value::Union(0, Box::new(Value::Null));
    // The column was an int when this was written.
    let bounds = |offset: i32| {
        let pair = [("key", Value::Int(8)), ("value", Value::Bytes(offset.to_le_bytes().into()))];
        some(Value::Array(vec![record(pair)]))
    };
    let file = record([
        ("file_path", Value::String("s3://lake/a.parquet".into())),
        ("file_format", Value::String("parquet".into())),
        (
            "partition",
            record([
                ("note", null()),
                ("gone", some(Value::Int(3))),
                ("both", some(Value::Bytes(vec![1]))),
                ("kafka_partition", some(Value::Int(5))),
            ]),
        ),
        ("record_count", Value::Long(10)),
        ("file_size_in_bytes", Value::Long(1234)),
        ("lower_bounds", bounds(10)),
        ("upper_bounds", bounds(19)),
    ]);
    let mut writer = Writer::new(&avro, Vec::new());
    writer.add_user_metadata("schema".into(), schema).unwrap();
    writer.add_user_metadata("partition-spec".into(), spec).unwrap();
    writer.append(record([("status", Value::Int(1)), ("data_file", file)])).unwrap();
    let bytes = Bytes::from(writer.into_inner().unwrap());

    let files = vec![(data("a.parquet").build().unwrap(), true)];
    let written = written(2, false, false, files).await;
    let mut manifest = manifest_list(&written.store, &written.list_uri, 2).await.unwrap().remove(0);
    let body = futures::stream::iter([Ok(bytes)]).boxed();
    written.store.put("lake", "meta/other.avro", None, body).await.unwrap();
    manifest.manifest_path = "s3://lake/meta/other.avro".into();
    let files = cold_files(&written.store, &manifest, &columns()).await.unwrap();
    let (partition, range) = files[0].proven_range().unwrap();
    assert_eq!((partition.0, range.to_string().as_str()), (5, "[10, 20)"));
}

fn record<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let file = data("a.parquet").build().unwrap();
    let written = written(2, false, false, vec![(file, true)]).await;
    let store = &written.store;
    let mut manifest = manifest_list(store, &written.list_uri, 2).await.unwrap().remove(0);
    let error = manifest_list(store, &written.list_uri, 4).await.unwrap_err();
    assert!(error.to_string().contains("format version 4"), "{error}");
    let error = manifest_list(store, "s3://lake/none.avro", 2).await.unwrap_err();
    assert_eq!(error, ColdsetError::NoSuchObject { uri: "s3://lake/none.avro".into() });
    let error = manifest_list(store, "gs://lake/l.avro", 2).await.unwrap_err();
    assert!(matches!(error, ColdsetError::Unreadable { .. }), "{error}");

    let whole = store.get_uri("s3://lake/meta/m.avro", None, 1 << 20).await.unwrap();
    for (name, bytes) in [
        ("garbage", Bytes::from_static(b"Obj\x01 but nothing else")),
        ("half", whole.slice(..whole.len() / 2)),
        ("empty", Bytes::new()),
    ] {
        let key = format!("meta/{name}.avro");
        let body = futures::stream::iter([Ok(bytes)]).boxed();
        store.put("lake", &key, None, body).await.unwrap();
        let uri = format!("s3://lake/{key}");
        for error in [manifest_list(store, &uri, 2).await.unwrap_err(), {
            manifest.manifest_path.clone_from(&uri);
            cold_files(store, &manifest, &columns()).await.unwrap_err()
        }] {
            assert!(matches!(error, ColdsetError::Unreadable { .. }), "{error}");
            assert!(error.to_string().contains(&uri), "{error}");
        }
    }
    manifest.content = ManifestContentType::Deletes;
    let error = cold_files(store, &manifest, &columns()).await.unwrap_err();
    assert!(error.to_string().contains("delete files"), "{error}");
}
