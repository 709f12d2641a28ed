//! What the tests share: tables from schema texts, blocks of framed records, rows as plain values.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use apache_avro::types::Value as Avro;
use arrow_array::cast::AsArray;
use arrow_array::types::*;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use isk_decode::{DecodedBatch, TopicDecoder, WriterSchema};
use isk_model::{
    KafkaPartition, Offset, RecordBlock, RegistrySchemaId, SchemaFormat, TimestampType,
};
use isk_schema::{Branches, FieldIdMap, Kind, SchemaText, TableSchema, ValueType, table_schema};

/// One value of a row, in a form both sides can be brought to.
#[derive(Debug, Clone, PartialEq)]
pub enum Plain {
    Null,
    Bool(bool),
    /// Numbers, dates, times and timestamps in microseconds, unscaled decimals.
    Int(i128),
    /// The bits of a double.
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Plain>),
    Map(Vec<(String, Plain)>),
    Struct(Vec<Plain>),
}

pub fn text(version: u32, text: &str) -> SchemaText {
    let id = RegistrySchemaId(version.try_into().unwrap());
    let format = SchemaFormat::Avro;
    SchemaText { version, id, format, text: text.to_owned(), references: Vec::new() }
}

/// A decoder for the last of these value schemas; their ids are 1, 2, ...
pub fn decoder(schemas: &[&str]) -> TopicDecoder {
    let history: Vec<SchemaText> = (1..).zip(schemas).map(|(v, t)| text(v, t)).collect();
    decoder_of(table_schema(&history, &[], &mut FieldIdMap::default()).unwrap(), &history)
}

pub fn decoder_of(table: TableSchema, writers: &[SchemaText]) -> TopicDecoder {
    let mut decoder = TopicDecoder::new(Arc::new(table), KafkaPartition(3)).unwrap();
    for writer in writers {
        decoder.add_writer(writer.id, WriterSchema::Known(writer.clone()));
    }
    decoder
}

/// The Confluent framing of a payload.
pub fn framed(id: i32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(id.to_be_bytes());
    out.extend(payload);
    out
}

pub fn block<V: AsRef<[u8]>>(values: impl IntoIterator<Item = Option<V>>) -> RecordBlock {
    let mut block = RecordBlock::new();
    for (offset, value) in (0..).zip(values) {
        let value = value.as_ref().map(AsRef::as_ref);
        block.push(Offset(offset), 1000 + offset, TimestampType::CreateTime, None, value, []);
    }
    block
}

/// The value's columns of a row.
pub fn row(batch: &DecodedBatch, i: usize) -> Vec<Plain> {
    let columns = batch.batch.columns();
    columns[..columns.len() - 6].iter().map(|column| plain(column, i)).collect()
}

pub fn rows(batch: &DecodedBatch) -> Vec<Vec<Plain>> {
    (0..batch.batch.num_rows()).map(|i| row(batch, i)).collect()
}

pub fn plain(array: &ArrayRef, i: usize) -> Plain {
    if array.is_null(i) {
        return Plain::Null;
    }
    let all = |values: ArrayRef| (0..values.len()).map(|j| plain(&values, j)).collect::<Vec<_>>();
    match array.data_type() {
        DataType::Boolean => Plain::Bool(array.as_boolean().value(i)),
        DataType::Int32 => Plain::Int(array.as_primitive::<Int32Type>().value(i).into()),
        DataType::Int64 => Plain::Int(array.as_primitive::<Int64Type>().value(i).into()),
        DataType::Date32 => Plain::Int(array.as_primitive::<Date32Type>().value(i).into()),
        DataType::Time64(_) => {
            Plain::Int(array.as_primitive::<Time64MicrosecondType>().value(i).into())
        }
        DataType::Timestamp(..) => {
            Plain::Int(array.as_primitive::<TimestampMicrosecondType>().value(i).into())
        }
        DataType::Decimal128(..) => Plain::Int(array.as_primitive::<Decimal128Type>().value(i)),
        DataType::Float32 => {
            Plain::Float(f64::from(array.as_primitive::<Float32Type>().value(i)).to_bits())
        }
        DataType::Float64 => Plain::Float(array.as_primitive::<Float64Type>().value(i).to_bits()),
        DataType::Utf8 => Plain::Text(array.as_string::<i32>().value(i).to_owned()),
        DataType::LargeBinary => Plain::Bytes(array.as_binary::<i64>().value(i).to_vec()),
        DataType::FixedSizeBinary(_) => {
            Plain::Bytes(array.as_fixed_size_binary().value(i).to_vec())
        }
        DataType::List(_) => Plain::List(all(array.as_list::<i32>().value(i))),
        DataType::Map(..) => {
            let entries = array.as_map().value(i);
            let values = all(entries.column(1).clone());
            let keys = entries.column(0).as_string::<i32>();
            Plain::Map(keys.iter().map(|k| k.unwrap().to_owned()).zip(values).collect())
        }
        DataType::Struct(_) => {
            Plain::Struct(array.as_struct().columns().iter().map(|c| plain(c, i)).collect())
        }
        other => panic!("no column has the type {other}"),
    }
}

/// An apache-avro value of a type, as columns show it.
pub fn expected(value: &Avro, ty: &ValueType) -> Plain {
    let float = |f: f64| Plain::Float(f.to_bits());
    match (value, &ty.kind) {
        (Avro::Union(index, value), Kind::Union(branches)) => {
            let branch = &branches[*index as usize];
            let shown = expected(value, branch);
            match Branches::of(branches) {
                _ if branch.is_null() => Plain::Null,
                Branches::Many => {
                    let real = branches.iter().filter(|b| !b.is_null());
                    Plain::Struct(
                        real.map(
                            |b| {
                                if std::ptr::eq(b, branch) { shown.clone() } else { Plain::Null }
                            },
                        )
                        .collect(),
                    )
                }
                _ => shown,
            }
        }
        (value, Kind::Union(branches)) => panic!("{value:?} in {branches:?}"),
        (Avro::Null, _) => Plain::Null,
        (Avro::Boolean(b), _) => Plain::Bool(*b),
        (Avro::Int(i) | Avro::Date(i), _) => Plain::Int((*i).into()),
        (Avro::TimeMillis(i), _) => Plain::Int(i128::from(*i) * 1000),
        (
            Avro::Long(i)
            | Avro::TimeMicros(i)
            | Avro::TimestampMicros(i)
            | Avro::LocalTimestampMicros(i),
            _,
        ) => Plain::Int((*i).into()),
        (Avro::TimestampMillis(i) | Avro::LocalTimestampMillis(i), _) => {
            Plain::Int(i128::from(*i) * 1000)
        }
        (Avro::TimestampNanos(i) | Avro::LocalTimestampNanos(i), _) => {
            Plain::Int(i128::from(*i).div_euclid(1000))
        }
        (Avro::Float(f), _) => float(f64::from(*f)),
        (Avro::Double(f), _) => float(*f),
        (Avro::String(s) | Avro::Enum(_, s), _) => Plain::Text(s.clone()),
        (Avro::Bytes(b) | Avro::Fixed(_, b), _) => Plain::Bytes(b.clone()),
        (Avro::Decimal(d), _) => {
            let bytes = <Vec<u8>>::try_from(d).unwrap();
            let sign = if bytes.first().is_some_and(|b| *b >= 128) { 255 } else { 0 };
            let mut word = vec![sign; 16 - bytes.len()];
            word.extend(bytes);
            Plain::Int(i128::from_be_bytes(word.try_into().unwrap()))
        }
        (Avro::Uuid(uuid), _) => Plain::Bytes(uuid.as_bytes().to_vec()),
        (Avro::Duration(d), _) => {
            let parts = [u32::from(d.months()), u32::from(d.days()), u32::from(d.millis())];
            Plain::Struct(parts.map(|p| Plain::Int(p.into())).to_vec())
        }
        (Avro::Array(items), Kind::Array(element)) => {
            Plain::List(items.iter().map(|item| expected(item, element)).collect())
        }
        (Avro::Map(entries), Kind::Map(value)) => {
            let mut entries: Vec<_> =
                entries.iter().map(|(k, v)| (k.clone(), expected(v, value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Plain::Map(entries)
        }
        (Avro::Record(fields), Kind::Record(_)) if fields.is_empty() => Plain::Bool(true),
        (Avro::Record(fields), Kind::Record(record)) => Plain::Struct(
            fields.iter().zip(&record.fields).map(|((_, v), f)| expected(v, &f.ty)).collect(),
        ),
        (value, kind) => panic!("{value:?} is no {kind:?}"),
    }
}

/// Maps have no order: sort them by key.
pub fn sorted(value: Plain) -> Plain {
    match value {
        Plain::List(items) => Plain::List(items.into_iter().map(sorted).collect()),
        Plain::Struct(items) => Plain::Struct(items.into_iter().map(sorted).collect()),
        Plain::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Plain::Map(entries)
        }
        other => other,
    }
}
