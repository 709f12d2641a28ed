//! Whole files: their bytes are pinned, they read back padded, and their metrics are true.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    Float32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use isk_parquet_file::{
    ColumnMetrics, PaddedLayout, ParquetRenderer, RenderError, RenderProfile, Rendered, Segment,
    empty_delete_file,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::LogicalType;
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn field(name: &str, data_type: DataType, nullable: bool, id: i32) -> Field {
    let id = HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
    Field::new(name, data_type, nullable).with_metadata(id)
}

fn topic_schema() -> SchemaRef {
    let mut uuid = field("account", DataType::FixedSizeBinary(16), true, 102);
    uuid.metadata_mut().insert("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned());
    let tag = Arc::new(field("element", DataType::Utf8, true, 104));
    Arc::new(Schema::new(vec![
        field("kind", DataType::Utf8, true, 100),
        field("amount", DataType::Float64, true, 101),
        uuid,
        field("tags", DataType::List(tag), true, 103),
        field("kafka_partition", DataType::Int32, false, 1),
        field("kafka_offset", DataType::Int64, false, 2),
        field(
            "kafka_timestamp",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
            3,
        ),
        field("kafka_key", DataType::Binary, true, 5),
    ]))
}

fn topic_batch(start: i64, rows: i64) -> RecordBatch {
    let offsets: Vec<i64> = (start..start + rows).collect();
    let kinds: StringArray =
        offsets.iter().map(|o| (o % 5 != 0).then(|| format!("kind {}", o % 3))).collect();
    let amounts: Float64Array = offsets.iter().map(|o| Some(*o as f64 * 0.5)).collect();
    let ids = offsets.iter().map(|o| ((*o as u128) << 64).to_be_bytes());
    let mut tags = ListBuilder::new(StringBuilder::new()).with_field(Arc::new(field(
        "element",
        DataType::Utf8,
        true,
        104,
    )));
    for offset in &offsets {
        tags.append_value((0..offset % 3).map(|n| Some(format!("tag {n}"))));
    }
    let times: TimestampMicrosecondArray =
        offsets.iter().map(|o| (o % 11 != 0).then_some(1_700_000_000_000_000 + o * 1000)).collect();
    let keys: Vec<String> =
        offsets.iter().map(|o| format!("a key longer than 16 {o:08}")).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(kinds),
        Arc::new(amounts),
        Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap()),
        Arc::new(tags.finish()),
        Arc::new(Int32Array::from(vec![7; offsets.len()])),
        Arc::new(Int64Array::from(offsets)),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(keys.iter().map(|key| Some(key.as_bytes())).collect::<BinaryArray>()),
    ];
    RecordBatch::try_new(topic_schema(), columns).unwrap()
}

fn render(profile: &RenderProfile, batches: &[RecordBatch]) -> Rendered<Vec<u8>> {
    let schema = batches[0].schema();
    let mut renderer = ParquetRenderer::new(Vec::new(), schema, profile).unwrap();
    for batch in batches {
        renderer.write(batch).unwrap();
    }
    renderer.finish().unwrap()
}

fn topic_file(profile: &RenderProfile) -> Rendered<Vec<u8>> {
    let batches: Vec<_> = (0..5).map(|n| topic_batch(1000 + n * 4000, 4000)).collect();
    render(profile, &batches)
}

/// A changed digest means that files encoded by two builds differ. If that is wanted (a new library
/// version, a new rule), raise `PROFILE_VERSION` where the render digest would not change by itself,
/// and note the new digest here.
#[test]
fn the_bytes_are_pinned() {
    let profile = RenderProfile::default();
    let file = topic_file(&profile);
    assert_eq!(
        (sha256(&file.sink).as_str(), profile.digest_input().as_str()),
        (
            "015f9af6ae3a2dc1a5d21a318d9c87cd82950dbf5b0ba5ab00f278946b66e671",
            "render-profile 2; parquet-rs version 58.4.1; zstd 1; row group 131072 rows 50331648 \
             bytes; page 20000 rows 1048576 bytes",
        )
    );
}

#[test]
fn the_same_batches_give_the_same_bytes() {
    let profile = RenderProfile::default().with_row_group_bytes(100_000);
    assert_eq!(topic_file(&profile).sink, topic_file(&profile).sink);
}

#[test]
fn row_groups_end_by_rows_and_by_bytes() {
    let groups = |profile: RenderProfile| {
        let file = topic_file(&profile);
        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file.sink)).unwrap();
        let sizes = reader.metadata().row_groups().iter().map(|group| group.num_rows());
        sizes.collect::<Vec<_>>()
    };
    let profile = RenderProfile::default();
    assert_eq!(groups(profile.clone()), [20_000]);
    let small = profile.clone().with_row_group_rows(9000);
    assert_ne!(small.digest_input(), profile.digest_input());
    assert_eq!(groups(small), [9000, 9000, 2000]);
    assert_eq!(groups(profile.with_row_group_bytes(1)), [4000; 5]);
}

/// Lays the file into `declared` bytes, small enough to hold in memory.
fn padded(file: &Rendered<Vec<u8>>, declared: u64) -> Bytes {
    let layout = PaddedLayout::new(file.body_len, file.footer_len, declared).unwrap();
    let (body, footer) = file.sink.split_at(file.body_len as usize);
    let mut bytes = Vec::new();
    for segment in layout.segments(0..declared) {
        match segment {
            Segment::Body(range) => {
                bytes.extend_from_slice(&body[range.start as usize..range.end as usize]);
            }
            Segment::Hole(len) => bytes.resize(bytes.len() + len as usize, 0),
            Segment::Footer(range) => {
                bytes.extend_from_slice(&footer[range.start as usize..range.end as usize]);
            }
        }
    }
    bytes.into()
}

#[test]
fn a_padded_file_opens_and_has_all_rows_and_its_page_index() {
    let file = topic_file(&RenderProfile::default().with_row_group_rows(6000));
    let size = file.body_len + file.footer_len;
    assert_eq!(size, file.sink.len() as u64);
    for declared in [size, size + 1, size + 3_000_000] {
        let options = parquet::arrow::arrow_reader::ArrowReaderOptions::new()
            .with_page_index_policy(parquet::file::metadata::PageIndexPolicy::Required);
        let reader =
            ParquetRecordBatchReaderBuilder::try_new_with_options(padded(&file, declared), options)
                .unwrap();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let offsets: Vec<i64> = batches
            .iter()
            .flat_map(|b| b["kafka_offset"].as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(offsets, (1000..21_000).collect::<Vec<i64>>());
        let times = batches[0]["kafka_timestamp"].as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.value(0), 1_700_000_001_000_000);
    }
}

#[test]
fn a_uuid_is_a_parquet_uuid_and_every_column_has_its_id() {
    let file = topic_file(&RenderProfile::default());
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file.sink)).unwrap();
    let columns = reader.parquet_schema().columns();
    let ids: Vec<i32> = columns.iter().map(|c| c.self_type().get_basic_info().id()).collect();
    assert_eq!(ids, [100, 101, 102, 104, 1, 2, 3, 5]);
    assert_eq!(columns[2].logical_type_ref(), Some(&LogicalType::Uuid));
    assert!(reader.metadata().file_metadata().key_value_metadata().is_none());
}

#[test]
fn lists_have_no_statistics() {
    let file = topic_file(&RenderProfile::default());
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file.sink)).unwrap();
    let group = reader.metadata().row_group(0);
    let seen = group
        .columns()
        .iter()
        .map(|column| (column.column_path().string(), column.statistics().is_some()));
    let expected = [
        ("kind", true),
        ("amount", true),
        ("account", true),
        ("tags.list.element", false),
        ("kafka_partition", true),
        ("kafka_offset", true),
        ("kafka_timestamp", true),
        ("kafka_key", true),
    ];
    let expected = expected.map(|(path, bounds)| (path.to_owned(), bounds));
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[test]
fn metrics_tell_what_is_in_the_file() {
    // Several row groups, so that bounds are merged.
    let file = topic_file(&RenderProfile::default().with_row_group_rows(3000));
    assert_eq!(file.rows, 20_000);
    let of = |id: i32| &file.columns[&id];
    assert_eq!(of(100).null_count, Some(4000));
    assert_eq!(of(100).value_count, 20_000);
    assert_eq!(of(100).lower.as_deref(), Some(&b"kind 0"[..]));
    assert_eq!(of(100).upper.as_deref(), Some(&b"kind 2"[..]));
    assert_eq!(of(101).lower.as_deref(), Some(&500f64.to_le_bytes()[..]));
    assert_eq!(of(1).upper.as_deref(), Some(&7i32.to_le_bytes()[..]));
    assert_eq!(of(2).lower.as_deref(), Some(&1000i64.to_le_bytes()[..]));
    assert_eq!(of(2).upper.as_deref(), Some(&20_999i64.to_le_bytes()[..]));
    assert_eq!(of(3).lower.as_deref(), Some(&1_700_000_001_000_000i64.to_le_bytes()[..]));
    assert_eq!(of(3).null_count, Some((1000..21_000).filter(|o| o % 11 == 0).count() as u64));
    assert_eq!(of(5).lower.as_deref(), Some(&b"a key longer tha"[..]));
    assert_eq!(of(5).upper.as_deref(), Some(&b"a key longer thb"[..]));
    // UUIDs are ordered differently by different clients; values in lists belong to no row.
    assert_eq!((&of(102).lower, &of(102).upper), (&None, &None));
    assert_eq!((of(104).null_count, &of(104).lower), (None, &None));
    assert!(file.columns.values().all(|column| column.column_size > 0));
}

fn metrics_of(data: ArrayRef) -> ColumnMetrics {
    let schema = Arc::new(Schema::new(vec![field("c", data.data_type().clone(), true, 100)]));
    let batch = RecordBatch::try_new(schema, vec![data]).unwrap();
    let mut columns: BTreeMap<_, _> = render(&RenderProfile::default(), &[batch]).columns;
    columns.remove(&100).unwrap()
}

fn bounds_of(data: ArrayRef) -> Option<(Vec<u8>, Vec<u8>)> {
    let metrics = metrics_of(data);
    assert_eq!(metrics.lower.is_some(), metrics.upper.is_some());
    metrics.lower.zip(metrics.upper)
}

#[test]
fn bounds_are_icebergs_single_values() {
    let decimals = |values: Vec<i128>, precision| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, 2).unwrap())
    };
    let cases: Vec<(ArrayRef, &[u8], &[u8])> = vec![
        (Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), &[0], &[1]),
        (Arc::new(Int32Array::from(vec![-1, 256])), &[255; 4], &[0, 1, 0, 0]),
        (Arc::new(Date32Array::from(vec![1])), &[1, 0, 0, 0], &[1, 0, 0, 0]),
        (Arc::new(Float32Array::from(vec![1.5])), &[0, 0, 0xc0, 0x3f], &[0, 0, 0xc0, 0x3f]),
        // Decimals: two's complement in the fewest bytes, big-endian, whatever Parquet stores.
        (decimals(vec![-1, 127], 9), &[0xff], &[0x7f]),
        (decimals(vec![-129, 128], 18), &[0xff, 0x7f], &[0, 0x80]),
        (decimals(vec![0, 1 << 80], 38), &[0], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (decimals(vec![-128, -128], 20), &[0x80], &[0x80]),
    ];
    for (data, lower, upper) in cases {
        let kind = data.data_type().clone();
        assert_eq!(bounds_of(data), Some((lower.to_vec(), upper.to_vec())), "{kind}");
    }
}

#[test]
fn strings_are_cut_to_16_code_points_and_upper_bounds_raised() {
    let upper = |text: &str| {
        let bounds = bounds_of(Arc::new(StringArray::from(vec![text])));
        bounds.map(|(_, upper)| String::from_utf8(upper).unwrap())
    };
    let ae = "ä".repeat(16);
    assert_eq!(upper(&ae), Some(ae.clone()));
    assert_eq!(upper(&format!("{ae}x")), Some(format!("{}å", "ä".repeat(15))));
    // The last character before the surrogates is followed by the first one behind them.
    let edge = "a".repeat(15) + "\u{d7ff}";
    assert_eq!(upper(&format!("{edge}x")), Some("a".repeat(15) + "\u{e000}"));
    // The greatest character cannot be raised: the one before it is.
    let full = "a".repeat(15) + "\u{10ffff}";
    assert_eq!(upper(&format!("{full}x")), Some("a".repeat(14) + "b"));
    let greatest = metrics_of(Arc::new(StringArray::from(vec!["\u{10ffff}".repeat(17)])));
    assert_eq!(greatest.upper, None);
    let bytes = metrics_of(Arc::new(BinaryArray::from(vec![&[0xff; 20][..]])));
    assert_eq!((bytes.lower, bytes.upper), (Some(vec![0xff; 16]), None));
}

#[test]
fn what_is_not_certain_has_no_bounds() {
    let nan: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NAN]));
    assert_eq!(bounds_of(nan), None);
    let nulls = metrics_of(Arc::new(Int64Array::from(vec![None, None])));
    assert_eq!(nulls.null_count, Some(2));
    assert_eq!((nulls.lower, nulls.upper), (None, None));
}

#[test]
fn a_group_of_nulls_does_not_hide_the_bounds_of_the_others() {
    let schema = Arc::new(Schema::new(vec![field("c", DataType::Int64, true, 100)]));
    let batch = |values: Vec<Option<i64>>| {
        let column: ArrayRef = Arc::new(Int64Array::from(values));
        RecordBatch::try_new(schema.clone(), vec![column]).unwrap()
    };
    let batches = [batch(vec![Some(9)]), batch(vec![None]), batch(vec![Some(-3)])];
    let file = render(&RenderProfile::default().with_row_group_rows(1), &batches);
    let metrics = &file.columns[&100];
    assert_eq!(metrics.lower.as_deref(), Some(&(-3i64).to_le_bytes()[..]));
    assert_eq!(metrics.upper.as_deref(), Some(&9i64.to_le_bytes()[..]));
    assert_eq!(metrics.null_count, Some(1));
}

#[test]
fn a_file_without_rows_opens() {
    let renderer =
        ParquetRenderer::new(Vec::new(), topic_schema(), &RenderProfile::default()).unwrap();
    let file = renderer.finish().unwrap();
    assert_eq!((file.rows, file.columns.len()), (0, 0));
    let reader = ParquetRecordBatchReaderBuilder::try_new(padded(&file, 10_000)).unwrap();
    assert_eq!(reader.build().unwrap().count(), 0);
}

#[test]
fn a_batch_of_other_columns_is_refused() {
    let mut renderer =
        ParquetRenderer::new(Vec::new(), topic_schema(), &RenderProfile::default()).unwrap();
    let schema = Arc::new(Schema::new(vec![field("c", DataType::Int64, true, 100)]));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let other = RecordBatch::try_new(schema, vec![column]).unwrap();
    assert!(matches!(renderer.write(&other), Err(RenderError::Write(_))));
}

#[test]
fn a_sink_that_fails_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let profile = RenderProfile::default();
    let failed = ParquetRenderer::new(Full, topic_schema(), &profile).and_then(|mut renderer| {
        renderer.write(&topic_batch(0, 10))?;
        renderer.finish()
    });
    assert!(failed.is_err());
}

#[test]
fn the_empty_delete_file_is_what_it_always_was() {
    let bytes = empty_delete_file();
    assert_eq!(sha256(bytes), "56d6076bea02a271aed933edce695f894c5c7199027b1971883cb4c21e52c7c3");
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from_static(bytes)).unwrap();
    let columns = reader.parquet_schema().columns().iter();
    let ids: Vec<i32> = columns.map(|c| c.self_type().get_basic_info().id()).collect();
    assert_eq!(ids, [2_147_483_546, 2_147_483_545]);
    let rows: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["file_path"].as_string::<i32>().value(0), "isk:no-such-file");
    assert_eq!(rows[0]["pos"].as_primitive::<Int64Type>().values(), &[0]);
}
