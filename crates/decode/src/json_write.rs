//! Values of columns as JSON text. The crate's own page says what becomes what.

use std::io::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use base64::Engine as _;
use isk_schema::{Branches, Kind, Logical, RecordType, ValueType};

use crate::error::{Fault, Read};
use crate::sink::unfit;

/// A row of a table's value columns: a record's fields, or one column of anything else.
#[derive(Clone, Copy)]
pub(crate) struct Row<'r> {
    pub columns: &'r [ArrayRef],
    pub ty: &'r ValueType,
}

impl Row<'_> {
    /// Whether there is nothing at all. A record is there, whatever its fields.
    pub(crate) fn is_null(&self, at: usize) -> bool {
        match &self.ty.kind {
            Kind::Record(_) => false,
            _ => self.columns.first().is_none_or(|column| column.is_null(at)),
        }
    }
}

/// Writes a row, of `most` bytes at the most.
pub(crate) fn row(out: &mut Vec<u8>, row: Row<'_>, at: usize, most: usize) -> Read<()> {
    let end = out.len().saturating_add(most);
    match (&row.ty.kind, row.columns) {
        (Kind::Record(record), columns) => object(out, record, columns, at, end),
        (_, [column, ..]) => value(out, column.as_ref(), at, row.ty, end),
        _ => Err(unfit()),
    }
}

/// Writes a text in quotes.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) -> Read<()> {
    serde_json::to_writer(out, text).map_err(|e| Fault::new(e.to_string()))
}

fn object(
    out: &mut Vec<u8>,
    record: &RecordType,
    columns: &[ArrayRef],
    at: usize,
    end: usize,
) -> Read<()> {
    let members = record.fields.iter().zip(columns);
    let members = members.map(|(field, column)| (field.name.as_str(), column, &field.ty));
    out.push(b'{');
    for (i, (name, column, ty)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, name)?;
        out.push(b':');
        value(out, column.as_ref(), at, ty, end)?;
    }
    out.push(b'}');
    Ok(())
}

fn value(out: &mut Vec<u8>, array: &dyn Array, at: usize, ty: &ValueType, end: usize) -> Read<()> {
    if out.len() > end {
        return Err(Fault::new("it is too long as JSON text"));
    }
    if array.is_null(at) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match (&ty.kind, array.data_type()) {
        (Kind::Union(branches), data_type) => match (Branches::of(branches), data_type) {
            (Branches::One(branch), _) => value(out, array, at, branch, end),
            (Branches::Many, DataType::Struct(_)) => {
                let real = branches.iter().filter(|branch| !branch.is_null());
                let columns = array.as_struct().columns().iter().zip(real);
                let set = columns.into_iter().find(|(column, _)| column.is_valid(at));
                let (column, branch) = set.ok_or_else(unfit)?;
                value(out, column.as_ref(), at, branch, end)
            }
            _ => Err(unfit()),
        },
        (_, DataType::Struct(fields)) if ty.logical == Some(Logical::Duration) => {
            let columns = array.as_struct().columns();
            for (i, (field, column)) in fields.iter().zip(columns).enumerate() {
                let part = column.as_primitive::<Int64Type>().value(at);
                let mark = if i == 0 { '{' } else { ',' };
                print(out, format_args!("{mark}\"{}\":{part}", field.name()));
            }
            out.push(b'}');
            Ok(())
        }
        (Kind::Record(record), DataType::Struct(_)) => {
            object(out, record, array.as_struct().columns(), at, end)
        }
        // A record without fields, that is there.
        (Kind::Record(_), DataType::Boolean) => {
            out.extend_from_slice(b"{}");
            Ok(())
        }
        (Kind::Array(element), DataType::List(_)) => {
            let elements = array.as_list::<i32>().value(at);
            out.push(b'[');
            for i in 0..elements.len() {
                if i > 0 {
                    out.push(b',');
                }
                value(out, elements.as_ref(), i, element, end)?;
            }
            out.push(b']');
            Ok(())
        }
        (Kind::Map(inner), DataType::Map(..)) => {
            let entries = array.as_map().value(at);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            out.push(b'{');
            for i in 0..entries.len() {
                if i > 0 {
                    out.push(b',');
                }
                string(out, keys.value(i))?;
                out.push(b':');
                value(out, values.as_ref(), i, inner, end)?;
            }
            out.push(b'}');
            Ok(())
        }
        _ => scalar(out, array, at, ty),
    }
}

fn scalar(out: &mut Vec<u8>, array: &dyn Array, at: usize, ty: &ValueType) -> Read<()> {
    match array.data_type() {
        DataType::Boolean => print(out, format_args!("{}", array.as_boolean().value(at))),
        DataType::Int32 => {
            print(out, format_args!("{}", array.as_primitive::<Int32Type>().value(at)));
        }
        DataType::Int64 => {
            print(out, format_args!("{}", array.as_primitive::<Int64Type>().value(at)));
        }
        DataType::Float32 => return float(out, array.as_primitive::<Float32Type>().value(at)),
        DataType::Float64 => return double(out, array.as_primitive::<Float64Type>().value(at)),
        DataType::Decimal128(_, scale) => {
            decimal(out, array.as_primitive::<Decimal128Type>().value(at), *scale);
        }
        DataType::Utf8
            if ty.logical == Some(Logical::Json) || matches!(ty.kind, Kind::Recursive(_)) =>
        {
            out.extend_from_slice(array.as_string::<i32>().value(at).as_bytes());
        }
        DataType::Utf8 => return string(out, array.as_string::<i32>().value(at)),
        DataType::LargeBinary => base64(out, array.as_binary::<i64>().value(at)),
        DataType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary().value(at);
            match (ty.logical, uuid::Uuid::from_slice(bytes)) {
                (Some(Logical::Uuid), Ok(uuid)) => print(out, format_args!("\"{uuid}\"")),
                _ => base64(out, bytes),
            }
        }
        DataType::Date32 => {
            let days = array.as_primitive::<Date32Type>().value(at);
            quoted(out, |out| date(out, days.into()));
        }
        DataType::Time64(_) => {
            let micros = array.as_primitive::<Time64MicrosecondType>().value(at);
            quoted(out, |out| time(out, micros));
        }
        DataType::Timestamp(_, zone) => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(at);
            timestamp(out, micros, zone.is_some());
        }
        _ => return Err(unfit()),
    }
    Ok(())
}

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// What is written, in quotes.
pub(crate) fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

pub(crate) fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

pub(crate) fn float(out: &mut Vec<u8>, number: f32) -> Read<()> {
    match number.is_finite() {
        true => shortest(out, &number),
        false => not_finite(out, number.into()),
    }
}

pub(crate) fn double(out: &mut Vec<u8>, number: f64) -> Read<()> {
    match number.is_finite() {
        true => shortest(out, &number),
        false => not_finite(out, number),
    }
}

/// The shortest digits that are this number.
fn shortest<T: serde::Serialize>(out: &mut Vec<u8>, number: &T) -> Read<()> {
    serde_json::to_writer(out, number).map_err(|e| Fault::new(e.to_string()))
}

fn not_finite(out: &mut Vec<u8>, number: f64) -> Read<()> {
    out.extend_from_slice(match number {
        f64::INFINITY => b"\"Infinity\"",
        f64::NEG_INFINITY => b"\"-Infinity\"",
        _ => b"\"NaN\"",
    });
    Ok(())
}

pub(crate) fn decimal(out: &mut Vec<u8>, unscaled: i128, scale: i8) {
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>1$}", unscaled.unsigned_abs(), scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    let point = if scale > 0 { "." } else { "" };
    print(out, format_args!("{sign}{whole}{point}{fraction}"));
}

pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    print(out, format_args!("\"{text}\""));
}

/// A day since 1970-01-01 in the Gregorian calendar. Years beyond four digits have a sign (ISO 8601).
pub(crate) fn date(out: &mut Vec<u8>, days: i64) {
    // Years begin in March, so that the day a leap year adds is its last. 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + i64::from(month <= 2);
    match year {
        0..=9999 => print(out, format_args!("{year:04}-{month:02}-{day:02}")),
        _ => print(out, format_args!("{year:+07}-{month:02}-{day:02}")),
    }
}

/// A moment in microseconds since 1970, in UTC or of no zone.
pub(crate) fn timestamp(out: &mut Vec<u8>, micros: i64, utc: bool) {
    quoted(out, |out| {
        date(out, micros.div_euclid(DAY));
        out.push(b'T');
        time(out, micros.rem_euclid(DAY));
        if utc {
            out.push(b'Z');
        }
    });
}

/// A time of day, with as many digits of its fraction as it needs.
pub(crate) fn time(out: &mut Vec<u8>, micros: i64) {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    print(out, format_args!("{hour:02}:{minute:02}:{second:02}"));
    if fraction > 0 {
        let digits = format!("{fraction:06}");
        print(out, format_args!(".{}", digits.trim_end_matches('0')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_keep_their_digits() {
        for (unscaled, scale, shown) in [
            (0, 0, "0"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (1500, 2, "15.00"),
            (-12, 0, "-12"),
            (10i128.pow(37), 38, "0.10000000000000000000000000000000000000"),
        ] {
            assert_eq!(text(|out| decimal(out, unscaled, scale)), shown);
        }
    }

    #[test]
    fn dates_are_the_calendars_as_the_reader_of_dates_has_them() {
        for (days, shown) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+010000-01-01"),
            (-719_529, "-000001-12-31"),
        ] {
            assert_eq!(text(|out| date(out, days)), shown);
        }
        for days in (-719_528..2_932_896).step_by(97) {
            let shown = text(|out| date(out, days));
            assert_eq!(i64::from(crate::json::date(shown.as_bytes()).ok().unwrap()), days);
        }
    }

    #[test]
    fn times_have_the_digits_they_need() {
        for (micros, shown) in
            [(0, "00:00:00"), (86_399_500_000, "23:59:59.5"), (1, "00:00:00.000001")]
        {
            assert_eq!(text(|out| time(out, micros)), shown);
        }
    }
}
