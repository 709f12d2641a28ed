//! Positions read back from data files as different writers make them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Schema as AvroSchema, Writer, ZstandardSettings};
use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use futures::StreamExt;
use isk_coldset::{
    ColdFile, ColdFormat, ColdStore, ColdsetError, FieldBounds, KafkaColumns, positions,
};
use isk_model::{Offset, OffsetRange};
use orc_rust::arrow_writer::ArrowWriterBuilder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};

fn columns() -> KafkaColumns {
    KafkaColumns { partition: (7, "kafka_partition".into()), offset: (8, "kafka_offset".into()) }
}

fn file(format: ColdFormat, bytes: &Bytes, records: u64) -> ColdFile {
    ColdFile {
        uri: "s3://lake/data/f".into(),
        format,
        records,
        size: bytes.len() as u64,
        live: true,
        partition: FieldBounds::default(),
        offset: FieldBounds::default(),
    }
}

async fn store_with(bytes: Bytes) -> ColdStore {
    let store = ColdStore::in_memory();
    let body = futures::stream::iter([Ok(bytes)]).boxed();
    store.put("lake", "data/f", None, body).await.unwrap();
    store
}

/// Runs of offsets by Kafka partition.
type Runs = BTreeMap<i32, Vec<(i64, i64)>>;

async fn read(file: &ColdFile, bytes: &Bytes) -> Result<Runs, ColdsetError> {
    let (store, file) = (store_with(bytes.clone()).await, file.clone());
    // Spawned, as whoever uses it will want to.
    let sets = tokio::spawn(async move { positions(&store, &file, &columns()).await });
    let all = OffsetRange::new(Offset(0), Offset(i64::MAX)).unwrap();
    Ok(sets
        .await
        .unwrap()?
        .into_iter()
        .map(|(p, set)| (p.0, set.runs(all).map(|r| (r.start().0, r.end().0)).collect()))
        .collect())
}

fn column(name: &str, id: Option<i32>, values: ArrayRef) -> (Field, ArrayRef) {
    let mut field = Field::new(name, values.data_type().clone(), true);
    if let Some(id) = id {
        let key = parquet::arrow::PARQUET_FIELD_ID_META_KEY;
        field = field.with_metadata(HashMap::from([(key.to_owned(), id.to_string())]));
    }
    (field, values)
}

fn parquet(columns: Vec<(Field, ArrayRef)>, properties: WriterProperties) -> Bytes {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

const ROWS: i64 = 8_000;

/// Two Kafka partitions in turns of a hundred, a hole at 1000..2000, and a few nulls.
fn rows() -> (Vec<Option<i32>>, Vec<Option<i64>>) {
    (0..ROWS)
        .map(|row| {
            let offset = if row < 1000 { row } else { row + 1000 };
            match row {
                50 => (None, Some(offset)),
                60 => (Some(0), None),
                _ => (Some((row / 100 % 2) as i32), Some(offset)),
            }
        })
        .unzip()
}

/// The same by a slower way.
fn expected() -> Runs {
    let mut runs = Runs::new();
    let (partitions, offsets) = rows();
    for (partition, offset) in partitions.into_iter().zip(offsets) {
        let (Some(partition), Some(offset)) = (partition, offset) else { continue };
        let runs = runs.entry(partition).or_default();
        match runs.last_mut() {
            Some((_, end)) if *end == offset => *end = offset + 1,
            _ => runs.push((offset, offset + 1)),
        }
    }
    runs
}

fn ints(values: &[Option<i32>]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

fn longs(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

#[tokio::test]
async fn every_encoding_codec_and_width_gives_the_same_offsets() {
    let (partitions, offsets) = rows();
    let wide: Vec<Option<i64>> = partitions.iter().map(|p| p.map(i64::from)).collect();
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..ROWS).map(|r| r.to_string())));
    let builder = || WriterProperties::builder().set_max_row_group_row_count(Some(3_001));
    for (name, properties) in [
        ("plain", builder().set_dictionary_enabled(false)),
        ("dictionary", builder().set_compression(Compression::SNAPPY)),
        (
            "delta",
            builder()
                .set_writer_version(WriterVersion::PARQUET_2_0)
                .set_dictionary_enabled(false)
                .set_encoding(Encoding::DELTA_BINARY_PACKED)
                .set_column_encoding("payload".into(), Encoding::PLAIN)
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(3).unwrap())),
        ),
        (
            "byte split",
            builder()
                .set_dictionary_enabled(false)
                .set_column_encoding("o".into(), Encoding::BYTE_STREAM_SPLIT)
                .set_compression(Compression::GZIP(Default::default())),
        ),
        ("lz4", builder().set_compression(Compression::LZ4_RAW)),
        ("brotli", builder().set_compression(Compression::BROTLI(Default::default()))),
        ("no metrics", builder().set_statistics_enabled(EnabledStatistics::None)),
    ] {
        let properties = properties.build();
        for (partition, reversed) in [(ints(&partitions), false), (longs(&wide), true)] {
            let mut all = vec![
                column("p", Some(7), partition),
                column("payload", Some(1), text.clone()),
                column("o", Some(8), longs(&offsets)),
            ];
            if reversed {
                all.reverse();
            }
            let bytes = parquet(all, properties.clone());
            let file = file(ColdFormat::Parquet, &bytes, ROWS as u64);
            assert_eq!(read(&file, &bytes).await.unwrap(), expected(), "{name} {reversed}");
        }
    }
}

#[tokio::test]
async fn ids_come_before_names_and_names_serve_where_there_are_no_ids() {
    let properties = || WriterProperties::builder().build();
    let (p, o) = (ints(&[Some(1), Some(1)]), longs(&[Some(4), Some(5)]));
    let wrong = longs(&[Some(100), Some(101)]);
    let read = |columns| async move {
        let bytes = parquet(columns, properties());
        let mut file = file(ColdFormat::Parquet, &bytes, 2);
        let plain = read(&file, &bytes).await.unwrap();
        file.partition = FieldBounds { lower: Some(9), upper: Some(9), nulls: Some(0) };
        (plain, read(&file, &bytes).await.unwrap())
    };
    let found = Runs::from([(1, vec![(4, 6)])]);
    let by_name =
        vec![column("kafka_partition", None, p.clone()), column("kafka_offset", None, o.clone())];
    assert_eq!(read(by_name).await.0, found);
    // Renamed, and the old names given to other columns.
    let by_id = vec![
        column("kafka_partition", Some(1), wrong.clone()),
        column("kafka_offset", Some(2), wrong.clone()),
        column("p", Some(7), p.clone()),
        column("o", Some(8), o.clone()),
    ];
    assert_eq!(read(by_id).await.0, found);
    // One id anywhere makes names meaningless; the manifest may say what the column would hold.
    let only_offset = vec![column("kafka_partition", None, p), column("o", Some(8), o.clone())];
    assert_eq!(read(only_offset).await, (Runs::new(), Runs::from([(9, vec![(4, 6)])])));
    let no_offset = vec![column("kafka_offset", Some(2), wrong)];
    assert_eq!(read(no_offset).await, (Runs::new(), Runs::new()));
}

#[tokio::test]
async fn broken_parquet_is_an_error_that_names_the_file() {
    let (partitions, offsets) = rows();
    let good = parquet(
        vec![column("p", Some(7), ints(&partitions)), column("o", Some(8), longs(&offsets))],
        WriterProperties::builder().set_dictionary_enabled(false).build(),
    );
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let text = parquet(
        vec![column("p", Some(7), ints(&[Some(1)])), column("o", Some(8), names)],
        WriterProperties::builder().build(),
    );
    let mut holed = good.to_vec();
    holed[4..2000].fill(0xff);
    let cases = [
        ("text", text.clone(), text.len()),
        ("shorter than said", good.clone(), good.len() + 100),
        ("longer than said", good.clone(), good.len() - 100),
        ("no footer", good.slice(..good.len() / 2), good.len() / 2),
        ("tiny", Bytes::from_static(b"PAR1"), 4),
        ("empty", Bytes::new(), 0),
        ("garbage", Bytes::from(vec![b'x'; 100_000]), 100_000),
        ("broken pages", holed.into(), good.len()),
    ];
    for (what, bytes, size) in cases {
        let mut file = file(ColdFormat::Parquet, &bytes, ROWS as u64);
        file.size = size as u64;
        let error = read(&file, &bytes).await.unwrap_err();
        assert!(error.to_string().contains("s3://lake/data/f"), "{what}: {error}");
    }
    let gone = file(ColdFormat::Parquet, &good, ROWS as u64);
    let error = positions(&ColdStore::in_memory(), &gone, &columns()).await.unwrap_err();
    assert_eq!(error, ColdsetError::NoSuchObject { uri: gone.uri });
}

/// Without attributes, as writers other than Iceberg's make it: names are all there is.
fn orc(columns: Vec<(&str, ArrayRef)>) -> Bytes {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let writer = ArrowWriterBuilder::new(&mut bytes, batch.schema()).with_batch_size(1_000);
    let mut writer = writer.with_stripe_byte_size(20_000).try_build().unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes.into()
}

#[tokio::test]
async fn orc_files_are_read_stripe_by_stripe() {
    let (partitions, offsets) = rows();
    let wide: Vec<Option<i64>> = partitions.iter().map(|p| p.map(i64::from)).collect();
    let text = (0..ROWS).map(|row| format!("{row:032}"));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(text));
    for (partition, reversed) in [(ints(&partitions), false), (longs(&wide), true)] {
        let mut all = vec![
            ("kafka_partition", partition),
            ("payload", text.clone()),
            ("kafka_offset", longs(&offsets)),
        ];
        if reversed {
            all.reverse();
        }
        let bytes = orc(all);
        assert!(bytes.len() > 64 << 10, "more than the tail: {}", bytes.len());
        let file = file(ColdFormat::Orc, &bytes, ROWS as u64);
        assert_eq!(read(&file, &bytes).await.unwrap(), expected(), "{reversed}");
    }
    let bytes = orc(vec![("kafka_offset", longs(&[Some(4), Some(5)]))]);
    let mut file = file(ColdFormat::Orc, &bytes, 2);
    assert_eq!(read(&file, &bytes).await.unwrap(), Runs::new());
    file.partition = FieldBounds { lower: Some(9), upper: Some(9), nulls: Some(0) };
    assert_eq!(read(&file, &bytes).await.unwrap(), Runs::from([(9, vec![(4, 6)])]));
}

/// Spark wrote it into an Iceberg table whose columns were renamed since: `kafka_partition` and `kafka_offset`
/// were `p` and `o`, and the old names belonged to other columns.
#[tokio::test]
async fn columns_of_an_orc_file_are_found_by_icebergs_ids() {
    let bytes = Bytes::from_static(include_bytes!("spark.orc"));
    let file = file(ColdFormat::Orc, &bytes, 1000);
    let found = read(&file, &bytes).await.unwrap();
    let every_third = |rest| (0..1000).filter(move |n| n % 3 == rest).map(|n| (n, n + 1)).collect();
    assert_eq!(found, Runs::from([(0, every_third(0)), (1, every_third(1))]));
}

#[tokio::test]
async fn broken_orc_is_an_error_that_names_the_file() {
    let (partitions, offsets) = rows();
    let good = orc(vec![("kafka_partition", ints(&partitions)), ("kafka_offset", longs(&offsets))]);
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let text = orc(vec![("kafka_partition", ints(&[Some(1)])), ("kafka_offset", names)]);
    let mut holed = good.to_vec();
    holed[3..1000].fill(0xff);
    let mut tail = good.to_vec();
    let end = tail.len();
    tail[end - 40..end - 1].fill(0xff);
    let cases = [
        ("text", text.clone(), text.len()),
        ("shorter than said", good.clone(), good.len() + 100),
        ("longer than said", good.clone(), good.len() - 100),
        ("no footer", good.slice(..good.len() / 2), good.len() / 2),
        ("tiny", Bytes::from_static(b"ORC"), 3),
        ("one byte", Bytes::from_static(b"\xff"), 1),
        ("empty", Bytes::new(), 0),
        ("garbage", Bytes::from(vec![b'x'; 100_000]), 100_000),
        ("broken stripes", holed.into(), good.len()),
        ("broken tail", tail.into(), good.len()),
    ];
    for (what, bytes, size) in cases {
        let mut file = file(ColdFormat::Orc, &bytes, ROWS as u64);
        file.size = size as u64;
        let error = read(&file, &bytes).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Unreadable { .. }), "{what}: {error}");
        assert!(error.to_string().contains("s3://lake/data/f"), "{what}: {error}");
    }
    let few = file(ColdFormat::Orc, &good, ROWS as u64 + 1);
    assert!(read(&few, &good).await.unwrap_err().to_string().contains("8000 rows"));
    let gone = positions(&ColdStore::in_memory(), &few, &columns()).await.unwrap_err();
    assert_eq!(gone, ColdsetError::NoSuchObject { uri: few.uri });
}

fn avro(ids: bool, codec: Codec) -> Bytes {
    let id = |id: u32| if ids { format!(r#","field-id":{id}"#) } else { String::new() };
    let names = if ids { ("p", "o") } else { ("kafka_partition", "kafka_offset") };
    let schema = format!(
        r#"{{"type":"record","name":"r","fields":[
            {{"name":"payload","type":"string"{}}},
            {{"name":"{}","type":["null","int"],"default":null{}}},
            {{"name":"{}","type":["null","long"],"default":null{}}}]}}"#,
        id(1),
        names.0,
        id(7),
        names.1,
        id(8)
    );
    let schema = AvroSchema::parse_str(&schema).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), codec);
    let (partitions, offsets) = rows();
    for (partition, offset) in partitions.into_iter().zip(offsets) {
        let union = |value: Option<Value>| match value {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(value) => Value::Union(1, Box::new(value)),
        };
        let record = Value::Record(vec![
            ("payload".into(), Value::String("x".into())),
            (names.0.into(), union(partition.map(Value::Int))),
            (names.1.into(), union(offset.map(Value::Long))),
        ]);
        writer.append(record).unwrap();
    }
    writer.into_inner().unwrap().into()
}

#[tokio::test]
async fn avro_files_are_read_block_by_block() {
    for codec in [
        Codec::Null,
        Codec::Deflate(DeflateSettings::default()),
        Codec::Snappy,
        Codec::Zstandard(ZstandardSettings::default()),
    ] {
        for ids in [true, false] {
            let bytes = avro(ids, codec);
            let file = file(ColdFormat::Avro, &bytes, ROWS as u64);
            assert_eq!(read(&file, &bytes).await.unwrap(), expected(), "{codec:?} {ids}");
        }
    }
}

#[tokio::test]
async fn an_avro_file_that_is_not_whole_is_an_error() {
    let whole = avro(true, Codec::Null);
    // The first block's end: a header, then blocks that each end with the header's marker.
    let marker = whole.slice(whole.len() - 16..);
    let ends: Vec<usize> =
        (16..=whole.len()).filter(|end| whole[end - 16..*end] == marker[..]).collect();
    assert!(ends.len() > 3, "the file has several blocks");
    for (what, bytes) in [
        ("cut in a block", whole.slice(..whole.len() - 40)),
        ("cut between blocks", whole.slice(..ends[2])),
        ("only a header", whole.slice(..ends[0])),
        ("empty", Bytes::new()),
        ("garbage", Bytes::from_static(b"Obj\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
    ] {
        let file = file(ColdFormat::Avro, &bytes, ROWS as u64);
        let error = read(&file, &bytes).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Unreadable { .. }), "{what}: {error}");
        assert!(error.to_string().contains("s3://lake/data/f"), "{what}: {error}");
    }
}
