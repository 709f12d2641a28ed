//! Column metrics for manifests, from the statistics that the Parquet writer keeps anyway.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use isk_model::ColumnMetrics;
use parquet::basic::{LogicalType, TimeUnit, Type as PhysicalType};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

/// The length at which bounds of strings (code points) and binaries (bytes) are cut: Iceberg's
/// default metrics mode `truncate(16)`.
const BOUND_LENGTH: usize = 16;

/// Which float columns are known to hold no NaN. Bounds leave NaN out, so an engine that answers MAX
/// from them would be wrong on a column that has one: such a column gets no bounds.
#[derive(Debug)]
pub(crate) struct NanWatch {
    clean: BTreeSet<(String, usize)>,
}

impl NanWatch {
    /// Watches the float columns at the top level; nested ones count as not known.
    pub(crate) fn new(schema: &Schema) -> Self {
        let clean = schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, f)| matches!(f.data_type(), DataType::Float32 | DataType::Float64))
            .map(|(index, field)| (field.name().clone(), index))
            .collect();
        Self { clean }
    }

    /// Strikes the columns in which this batch holds a NaN.
    pub(crate) fn look_at(&mut self, batch: &RecordBatch) {
        self.clean.retain(|(_, index)| {
            batch.columns().get(*index).is_some_and(|column| !has_nan(column.as_ref()))
        });
    }

    fn is_clean(&self, column: &ColumnChunkMetaData) -> bool {
        match column.column_path().parts() {
            [name] => self.clean.iter().any(|(clean, _)| clean == name),
            _ => false,
        }
    }
}

fn has_nan(array: &dyn Array) -> bool {
    if let Some(floats) = array.as_primitive_opt::<Float32Type>() {
        floats.values().iter().any(|v| v.is_nan())
    } else if let Some(doubles) = array.as_primitive_opt::<Float64Type>() {
        doubles.values().iter().any(|v| v.is_nan())
    } else {
        true
    }
}

/// The metrics of all leaf columns that carry a field id.
pub(crate) fn column_metrics(
    groups: &[RowGroupMetaData],
    nans: &NanWatch,
) -> BTreeMap<i32, ColumnMetrics> {
    let mut metrics: BTreeMap<i32, ColumnMetrics> = BTreeMap::new();
    let mut unbounded: BTreeSet<i32> = BTreeSet::new();
    let mut raw_bounds: BTreeMap<i32, (Kind, RawBounds)> = BTreeMap::new();
    for column in groups.iter().flat_map(RowGroupMetaData::columns) {
        let info = column.column_descr().self_type().get_basic_info();
        if !info.has_id() {
            continue;
        }
        let id = info.id();
        // In lists and maps a value's definition is not a row's, so only sizes are certain.
        let repeated = column.column_descr().max_rep_level() > 0;
        let nulls = column.statistics().filter(|_| !repeated).and_then(Statistics::null_count_opt);
        let entry = metrics
            .entry(id)
            .or_insert_with(|| ColumnMetrics { null_count: Some(0), ..Default::default() });
        entry.value_count += column.num_values().unsigned_abs();
        entry.column_size += column.compressed_size().unsigned_abs();
        entry.null_count = entry.null_count.zip(nulls).map(|(a, b)| a + b);
        let all_null = nulls == Some(column.num_values().unsigned_abs());
        match Kind::of(column, nans).filter(|_| !repeated).zip(RawBounds::of(column)) {
            Some((kind, bounds)) => match raw_bounds.get_mut(&id) {
                Some((_, known)) => known.widen(kind, bounds),
                None => {
                    raw_bounds.insert(id, (kind, bounds));
                }
            },
            None if all_null => {}
            None => {
                unbounded.insert(id);
            }
        }
    }
    for (id, (kind, bounds)) in raw_bounds {
        if let Some(entry) = metrics.get_mut(&id).filter(|_| !unbounded.contains(&id)) {
            entry.lower = kind.lower(&bounds.min);
            entry.upper = kind.upper(&bounds.max);
        }
    }
    metrics
}

/// The smallest and largest value as Parquet's statistics write them.
struct RawBounds {
    min: Vec<u8>,
    max: Vec<u8>,
}

impl RawBounds {
    fn of(column: &ColumnChunkMetaData) -> Option<Self> {
        let statistics = column.statistics().filter(|s| !s.is_min_max_deprecated())?;
        let (min, max) = (statistics.min_bytes_opt()?, statistics.max_bytes_opt()?);
        Some(Self { min: min.to_vec(), max: max.to_vec() })
    }

    fn widen(&mut self, kind: Kind, other: Self) {
        if kind.less(&other.min, &self.min) {
            self.min = other.min;
        }
        if kind.less(&self.max, &other.max) {
            self.max = other.max;
        }
    }
}

/// The kinds of columns whose bounds are certain.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    /// A decimal whose unscaled value is stored little-endian in 4 or 8 bytes.
    DecimalInt,
    /// A decimal whose unscaled value is stored big-endian.
    DecimalBytes,
    String,
    Binary,
}

impl Kind {
    /// `None` for what Iceberg has no type for, and for UUIDs (clients order them differently).
    fn of(column: &ColumnChunkMetaData, nans: &NanWatch) -> Option<Self> {
        let descriptor = column.column_descr();
        let micros = |unit: &TimeUnit| matches!(unit, TimeUnit::MICROS);
        match (descriptor.physical_type(), descriptor.logical_type_ref()) {
            (PhysicalType::BOOLEAN, None) => Some(Self::Boolean),
            (PhysicalType::INT32 | PhysicalType::INT64, Some(LogicalType::Decimal { .. })) => {
                Some(Self::DecimalInt)
            }
            (PhysicalType::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Decimal { .. })) => {
                Some(Self::DecimalBytes)
            }
            (
                PhysicalType::INT32,
                None | Some(LogicalType::Date | LogicalType::Integer { is_signed: true, .. }),
            ) => Some(Self::Int),
            (PhysicalType::INT64, None) => Some(Self::Long),
            (
                PhysicalType::INT64,
                Some(LogicalType::Timestamp { unit, .. } | LogicalType::Time { unit, .. }),
            ) if micros(unit) => Some(Self::Long),
            (PhysicalType::INT64, Some(LogicalType::Integer { is_signed: true, .. })) => {
                Some(Self::Long)
            }
            (PhysicalType::FLOAT, None) if nans.is_clean(column) => Some(Self::Float),
            (PhysicalType::DOUBLE, None) if nans.is_clean(column) => Some(Self::Double),
            (PhysicalType::BYTE_ARRAY, Some(LogicalType::String)) => Some(Self::String),
            (PhysicalType::BYTE_ARRAY, None) => Some(Self::Binary),
            _ => None,
        }
    }

    /// Whether the statistics value `a` is below `b`. Values of unexpected length are not.
    fn less(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Boolean | Self::String | Self::Binary => a < b,
            Self::Int | Self::Long | Self::DecimalInt => little_endian(a) < little_endian(b),
            Self::DecimalBytes => big_endian(a) < big_endian(b),
            Self::Float => matches!((f32_of(a), f32_of(b)), (Some(a), Some(b)) if a < b),
            Self::Double => matches!((f64_of(a), f64_of(b)), (Some(a), Some(b)) if a < b),
        }
    }

    fn lower(self, min: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::String => {
                let text = std::str::from_utf8(min).ok()?;
                Some(text.chars().take(BOUND_LENGTH).collect::<String>().into_bytes())
            }
            Self::Binary => Some(min[..min.len().min(BOUND_LENGTH)].to_vec()),
            _ => self.exact(min),
        }
    }

    fn upper(self, max: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::String => upper_string(std::str::from_utf8(max).ok()?),
            Self::Binary => upper_binary(max),
            _ => self.exact(max),
        }
    }

    fn exact(self, value: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::DecimalInt => little_endian(value).map(minimal_big_endian),
            Self::DecimalBytes => big_endian(value).map(minimal_big_endian),
            _ => Some(value.to_vec()),
        }
    }
}

/// Cuts to 16 code points and raises the last that can be raised, so that the result is above all
/// strings with the cut prefix. `None` where no code point can be raised.
fn upper_string(max: &str) -> Option<Vec<u8>> {
    if max.chars().count() <= BOUND_LENGTH {
        return Some(max.as_bytes().to_vec());
    }
    let mut kept: Vec<char> = max.chars().take(BOUND_LENGTH).collect();
    while let Some(last) = kept.pop() {
        // Surrogates lie between two ranges of characters; char's own successor skips them.
        if let Some(next) = (last..=char::MAX).nth(1) {
            kept.push(next);
            return Some(kept.into_iter().collect::<String>().into_bytes());
        }
    }
    None
}

fn upper_binary(max: &[u8]) -> Option<Vec<u8>> {
    if max.len() <= BOUND_LENGTH {
        return Some(max.to_vec());
    }
    let mut kept = max[..BOUND_LENGTH].to_vec();
    while let Some(last) = kept.pop() {
        if let Some(next) = last.checked_add(1) {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

fn little_endian(bytes: &[u8]) -> Option<i128> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(|b| i128::from(i32::from_le_bytes(b))),
        8 => bytes.try_into().ok().map(|b| i128::from(i64::from_le_bytes(b))),
        _ => None,
    }
}

/// Decimals of up to 38 digits take 16 bytes at most.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let negative = *bytes.first()? & 0x80 != 0;
    let mut wide = if negative { [0xff; 16] } else { [0; 16] };
    let start = wide.len().checked_sub(bytes.len())?;
    wide[start..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

/// Two's complement, big-endian, in as few bytes as hold the value and its sign.
fn minimal_big_endian(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let fill = if value < 0 { 0xff } else { 0x00 };
    let redundant = bytes
        .windows(2)
        .take_while(|pair| pair[0] == fill && (pair[0] ^ pair[1]) & 0x80 == 0)
        .count();
    bytes[redundant..].to_vec()
}

fn f32_of(bytes: &[u8]) -> Option<f32> {
    bytes.try_into().ok().map(f32::from_le_bytes)
}

fn f64_of(bytes: &[u8]) -> Option<f64> {
    bytes.try_into().ok().map(f64::from_le_bytes)
}
