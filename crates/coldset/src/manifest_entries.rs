//! The entries of a data manifest, as far as coverage needs them.
//!
//! They are read by the writer's own schema. Nothing is asked of partition specs and columns but of the two
//! that count: a manifest may name fields that were dropped, or transforms and types that are newer than we are.

use apache_avro::Reader;
use apache_avro::types::Value;
use isk_outbound::chain;
use serde::Deserialize;

use crate::cold_files::{ColdFile, ColdFormat, FieldBounds};

/// The status of an entry whose file was taken out of the table.
const DELETED: i64 = 2;

/// A record's fields, by name.
type Fields = [(String, Value)];

/// Reads a manifest, given the field ids of Kafka's partition and offset.
pub(crate) fn parse(bytes: &[u8], ids: (i32, i32)) -> Result<Vec<ColdFile>, String> {
    let reader = Reader::new(bytes).map_err(|error| chain(&error))?;
    let header = |key: &str| reader.user_metadata().get(key).map(Vec::as_slice);
    let schema: HeaderSchema = json(header("schema"), "schema")?;
    let spec: Vec<HeaderPartitionField> = json(header("partition-spec"), "partition-spec")?;
    let column = |id| Column::new(&schema, &spec, id);
    let (partition, offset) = (column(ids.0), column(ids.1));
    reader
        .map(|entry| {
            let entry = entry.map_err(|error| chain(&error))?;
            cold_file(fields(&entry).ok_or("an entry is no record")?, &partition, &offset)
        })
        .collect()
}

fn json<'a, T: Deserialize<'a>>(bytes: Option<&'a [u8]>, key: &str) -> Result<T, String> {
    let bytes = bytes.ok_or_else(|| format!("its header has no {key}"))?;
    serde_json::from_slice(bytes).map_err(|error| format!("the {key} of its header: {error}"))
}

/// The table's schema at the time, in the header.
#[derive(Deserialize)]
struct HeaderSchema {
    #[serde(default)]
    fields: Vec<HeaderField>,
}

#[derive(Deserialize)]
struct HeaderField {
    id: i32,
    #[serde(default)]
    required: bool,
    #[serde(rename = "type")]
    kind: serde_json::Value,
}

#[derive(Deserialize)]
struct HeaderPartitionField {
    #[serde(rename = "source-id")]
    source: Option<i32>,
    transform: String,
}

/// Where one of the Kafka columns is found in a manifest's entries.
struct Column {
    id: i64,
    /// Its place in the partition tuple, where it is an identity partition field.
    identity: Option<usize>,
    /// Whether the manifest's schema forbids nulls.
    required: bool,
    /// Whether bounds are those of whole numbers.
    whole: bool,
}

impl Column {
    fn new(schema: &HeaderSchema, spec: &[HeaderPartitionField], id: i32) -> Self {
        let field = schema.fields.iter().find(|field| field.id == id);
        let identity = |f: &HeaderPartitionField| f.source == Some(id) && f.transform == "identity";
        Self {
            id: id.into(),
            identity: spec.iter().position(identity),
            required: field.is_some_and(|field| field.required),
            whole: field.is_some_and(|field| field.kind == "int" || field.kind == "long"),
        }
    }

    fn bounds(&self, file: &Fields, records: u64) -> FieldBounds {
        if !self.whole {
            return FieldBounds::default();
        }
        let tuple = get(file, "partition").and_then(fields);
        if let Some((_, value)) = self.identity.zip(tuple).and_then(|(at, tuple)| tuple.get(at)) {
            let value = present(value);
            return match value {
                None => FieldBounds { nulls: Some(records), ..FieldBounds::default() },
                Some(value) => {
                    let value = number(value);
                    FieldBounds { lower: value, upper: value, nulls: value.map(|_| 0) }
                }
            };
        }
        let bound = |name| self.of(file, name).and_then(bytes).and_then(little_endian);
        let nulls = self.of(file, "null_value_counts").and_then(number);
        FieldBounds {
            lower: bound("lower_bounds"),
            upper: bound("upper_bounds"),
            nulls: nulls.and_then(|n| u64::try_from(n).ok()).or(self.required.then_some(0)),
        }
    }

    /// The column's value in a map by field ids, which is an array of keys and values.
    fn of<'v>(&self, file: &'v Fields, name: &str) -> Option<&'v Value> {
        let Value::Array(pairs) = get(file, name)? else { return None };
        let mut pairs = pairs.iter().filter_map(fields);
        let pair = pairs.find(|pair| get(pair, "key").and_then(number) == Some(self.id))?;
        get(pair, "value")
    }
}

fn cold_file(entry: &Fields, partition: &Column, offset: &Column) -> Result<ColdFile, String> {
    let lacks = |name: &str| format!("an entry has no {name} that can be read");
    let status = get(entry, "status").and_then(number).ok_or_else(|| lacks("status"))?;
    let file = get(entry, "data_file").and_then(fields).ok_or_else(|| lacks("data_file"))?;
    let text = |name: &str| match get(file, name) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(lacks(name)),
    };
    let count = |name: &str| {
        let count = get(file, name).and_then(number).and_then(|n| u64::try_from(n).ok());
        count.ok_or_else(|| lacks(name))
    };
    let (uri, format) = (text("file_path")?, text("file_format")?);
    let format = match format.to_ascii_lowercase().as_str() {
        "parquet" => ColdFormat::Parquet,
        "avro" => ColdFormat::Avro,
        "orc" => ColdFormat::Orc,
        _ => return Err(format!("it names {uri} as data, which is {format}")),
    };
    let records = count("record_count")?;
    Ok(ColdFile {
        uri,
        format,
        records,
        size: count("file_size_in_bytes")?,
        live: status != DELETED,
        partition: partition.bounds(file, records),
        offset: offset.bounds(file, records),
    })
}

/// A value that is not null, out of its union.
fn present(value: &Value) -> Option<&Value> {
    match value {
        Value::Null => None,
        Value::Union(_, inner) => present(inner),
        other => Some(other),
    }
}

fn fields(value: &Value) -> Option<&Fields> {
    if let Value::Record(fields) = present(value)? { Some(fields) } else { None }
}

fn get<'v>(fields: &'v Fields, name: &str) -> Option<&'v Value> {
    present(&fields.iter().find(|(own, _)| own == name)?.1)
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some((*value).into()),
        Value::Long(value) => Some(*value),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::Bytes(bytes) = value { Some(bytes) } else { None }
}

/// An int or a long (specification, "Binary single-value serialization"). A column that was widened has
/// bounds of both kinds.
fn little_endian(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => Some(i32::from_le_bytes(bytes.try_into().ok()?).into()),
        8 => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}
