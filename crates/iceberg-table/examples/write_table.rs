//! Writes small static tables into a directory, for clients that nobody here wrote:
//! `cargo run -p isk-iceberg-table --example write_table -- DIR`.
//!
//! Two Kafka partitions of a compacted topic (every third offset is gone), in chunks of 2^10 offsets,
//! as padded Parquet files with real holes. `DIR/unproven` claims the spans and has delete entries,
//! `DIR/proven` claims exact rows, `DIR/mixed` has both, `DIR/empty` is a topic without records, and
//! `DIR/history` has two snapshots, the second of which adds the second Kafka partition.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::{
    ArrayRef, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use iceberg::spec::{NestedField, PrimitiveType, Schema as IcebergSchema, Type};
use isk_iceberg_table::{
    Evidence, ManifestWriter, Manifests, Operation, Placement, PlannedFile, TableHead, build,
    build_metadata, build_snapshot,
};
use isk_model::{ChunkExponent, KafkaPartition, Offset, OffsetChunk, OffsetRange, chunks};
use isk_parquet_file::{PaddedLayout, ParquetRenderer, RenderProfile, Rendered, empty_delete_file};

const DECLARED: u64 = 64 << 20;
const EXPONENT: u8 = 10;
const ENDS: [i64; 2] = [5_000, 3_500];
const START: i64 = 700;
/// 2026-01-01T00:00:00Z; each offset is one second later.
const EPOCH_MS: i64 = 1_767_225_600_000;

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("the directory to write to is missing")?;
    let dir = Path::new(&dir);
    type Proves = fn(usize) -> bool;
    let tables: [(&str, bool, Proves); 5] = [
        ("unproven", true, |_| false),
        ("proven", true, |_| true),
        ("mixed", true, |index| index % 2 == 0),
        ("empty", false, |_| true),
        ("history", true, |index| index % 2 == 0),
    ];
    for (name, filled, proven) in tables {
        let root = dir.join(name);
        for folder in ["data", "deletes", "metadata"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let location = format!("file://{}", root.canonicalize()?.display());
        let mut files = Vec::new();
        for (partition, end) in (0..).zip(ENDS).take(if filled { 2 } else { 0 }) {
            let readable = OffsetRange::new(Offset(START), Offset(end)).context("empty")?;
            let k = ChunkExponent::new(EXPONENT).context("exponent")?;
            for (index, chunk) in chunks(readable, k).enumerate() {
                let partition = KafkaPartition(partition);
                files.push(data_file(&root, &location, partition, chunk, proven(index))?);
            }
        }
        write_metadata(&root, location, files)?;
    }
    Ok(())
}

fn write_metadata(root: &Path, location: String, files: Vec<PlannedFile>) -> Result<()> {
    let head = TableHead {
        table_uuid: uuid::Uuid::from_u128(0x1234),
        location,
        schema: Arc::new(iceberg_schema()?),
        schema_id: 3,
        placement: Placement::HOT,
        sequence_number: 1,
        cold: None,
        chunk_exponent: ChunkExponent::new(EXPONENT).context("exponent")?,
        properties: BTreeMap::new(),
        timestamp_ms: EPOCH_MS,
        delete_file_size: empty_delete_file().len() as u64,
        summary: BTreeMap::new(),
    };
    let history = root.ends_with("history");
    let (first, rest): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|file| !history || file.partition == KafkaPartition(0));
    let writer = ManifestWriter::new(&head)?;
    let (group, mut named) = writer.group(first)?;
    let known = [Arc::new(group)];
    let metadata = if history {
        let (group, more) = writer.group(rest)?;
        let later = TableHead { timestamp_ms: EPOCH_MS + 1000, ..head.clone() };
        let one = Manifests { known: &[], added: &known };
        let two = Manifests { known: &known, added: &[Arc::new(group)] };
        let (one, one_list) = build_snapshot(&head, one, Operation::Append, None)?;
        let parent = Some(one.snapshot_id);
        let (two, two_list) = build_snapshot(&later, two, Operation::Append, parent)?;
        named.extend(more.into_iter().chain([one_list, two_list]));
        build_metadata(&later, &[], [&one, &two])?
    } else {
        let table = build(&head, &known)?;
        named.push(table.manifest_list);
        table.metadata
    };
    for file in named.iter().chain([&metadata]) {
        fs::write(root.join("metadata").join(&file.name), &file.bytes)?;
    }
    println!("{}", root.join("metadata").join(&metadata.name).display());
    Ok(())
}

fn data_file(
    root: &Path,
    location: &str,
    partition: KafkaPartition,
    chunk: OffsetChunk,
    proven: bool,
) -> Result<PlannedFile> {
    let name = format!("{partition}-{}-{}", chunk.range.start(), chunk.range.end());
    let data = format!("data/{name}.parquet");
    let rendered = render(partition, chunk)?;
    pad(&root.join(&data), &rendered)?;
    let deletes = format!("deletes/{name}.parquet");
    fs::write(root.join(&deletes), empty_delete_file())?;
    let evidence = if proven {
        Evidence::Proven { rows: rendered.rows, columns: rendered.columns, keep_delete_entry: None }
    } else {
        Evidence::Unproven {
            delete_uri: format!("{location}/{deletes}"),
            timestamp_upper_ms: Some(EPOCH_MS + chunk.range.end().0 * 1000),
        }
    };
    let data_uri = format!("{location}/{data}");
    Ok(PlannedFile { data_uri, partition, chunk, declared_size: DECLARED, evidence })
}

/// Writes the body at the start, the footer at the end, and nothing between.
fn pad(path: &Path, rendered: &Rendered<Vec<u8>>) -> Result<()> {
    let layout = PaddedLayout::new(rendered.body_len, rendered.footer_len, DECLARED)?;
    let body_len = usize::try_from(rendered.body_len)?;
    let mut file = File::create(path)?;
    file.write_all(&rendered.sink[..body_len])?;
    file.seek(SeekFrom::Start(layout.footer_start()))?;
    file.write_all(&rendered.sink[body_len..])?;
    ensure!(file.metadata()?.len() == DECLARED, "the file has not its declared length");
    Ok(())
}

fn render(partition: KafkaPartition, chunk: OffsetChunk) -> Result<Rendered<Vec<u8>>> {
    let schema = arrow_schema();
    let profile = RenderProfile::default().with_row_group_rows(300);
    let mut renderer = ParquetRenderer::new(Vec::new(), schema.clone(), &profile)?;
    let offsets: Vec<i64> =
        (chunk.range.start().0..chunk.range.end().0).filter(|offset| offset % 3 != 0).collect();
    for offsets in offsets.chunks(500) {
        renderer.write(&batch(schema.clone(), partition, offsets)?)?;
    }
    Ok(renderer.finish()?)
}

fn batch(schema: SchemaRef, partition: KafkaPartition, offsets: &[i64]) -> Result<RecordBatch> {
    let name = |o: &i64| (o % 7 != 0).then(|| format!("a customer's name of some length {o}"));
    let names: StringArray = offsets.iter().map(name).collect();
    let amounts: Float64Array = offsets.iter().map(|o| Some(*o as f64 / 4.0)).collect();
    let ids = offsets.iter().map(|o| (*o as u128).to_be_bytes());
    let prices: Decimal128Array = offsets.iter().map(|o| Some(i128::from(*o) - 2000)).collect();
    let times = offsets.iter().map(|o| Some((EPOCH_MS + o * 1000) * 1000));
    let times: TimestampMicrosecondArray = times.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(names),
        Arc::new(amounts),
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids)?),
        Arc::new(prices.with_precision_and_scale(9, 2)?),
        Arc::new(Int32Array::from(vec![partition.0; offsets.len()])),
        Arc::new(Int64Array::from(offsets.to_vec())),
        Arc::new(times.with_timezone("UTC")),
    ];
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn arrow_schema() -> SchemaRef {
    let field = |name: &str, data_type, nullable, id: i32| {
        let id = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
        Field::new(name, data_type, nullable).with_metadata(id)
    };
    let mut uuid = field("customer_id", DataType::FixedSizeBinary(16), true, 102);
    uuid.metadata_mut().insert("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned());
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        field("name", DataType::Utf8, true, 100),
        field("amount", DataType::Float64, true, 101),
        uuid,
        field("price", DataType::Decimal128(9, 2), true, 103),
        field("kafka_partition", DataType::Int32, false, 1),
        field("kafka_offset", DataType::Int64, false, 2),
        field("kafka_timestamp", timestamp, true, 3),
    ]))
}

fn iceberg_schema() -> Result<IcebergSchema> {
    let optional = |id, name, ty| NestedField::optional(id, name, Type::Primitive(ty)).into();
    let required = |id, name, ty| NestedField::required(id, name, Type::Primitive(ty)).into();
    let price = PrimitiveType::Decimal { precision: 9, scale: 2 };
    Ok(IcebergSchema::builder()
        .with_fields([
            optional(100, "name", PrimitiveType::String),
            optional(101, "amount", PrimitiveType::Double),
            optional(102, "customer_id", PrimitiveType::Uuid),
            optional(103, "price", price),
            required(1, "kafka_partition", PrimitiveType::Int),
            required(2, "kafka_offset", PrimitiveType::Long),
            optional(3, "kafka_timestamp", PrimitiveType::Timestamptz),
        ])
        .build()?)
}
