//! Avro values as JSON text, straight from their bytes: what a record inside of itself is shown as.
//!
//! Values look as they do everywhere in JSON text (`json_write.rs`), under the schema that they were written with.

use std::collections::HashMap;
use std::sync::Arc;

use isk_schema::{Kind, Logical, RecordType, ValueType};

use crate::cursor::Cursor;
use crate::error::{Fault, Read};
use crate::json_write::{self, base64, date, decimal, print, quoted, time, timestamp};
use crate::resolve::micros;
use crate::run;
use crate::skip::min_size;

/// How deep values may be within each other.
const MAX_DEPTH: usize = 200;

/// How many bytes of text a record may have for each of its bytes, and some more.
const TEXT_PER_BYTE: usize = 64;
const TEXT_BASE: usize = 4096;

/// The records that a schema defines, by their full names.
#[derive(Default)]
pub(crate) struct Definitions(HashMap<String, Arc<RecordType>>);

impl Definitions {
    /// Those of a whole schema.
    pub(crate) fn of(root: &ValueType) -> Self {
        let mut all = Self::default();
        all.add(root);
        all
    }

    fn add(&mut self, ty: &ValueType) {
        match &ty.kind {
            Kind::Array(inner) | Kind::Map(inner) => self.add(inner),
            Kind::Union(branches) => branches.iter().for_each(|branch| self.add(branch)),
            // A type that is used again is the same one.
            Kind::Record(record) if !self.0.contains_key(&record.name) => {
                self.0.insert(record.name.clone(), Arc::clone(record));
                record.fields.iter().for_each(|field| self.add(&field.ty));
            }
            _ => {}
        }
    }

    /// What a type is that is met within itself.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<RecordType>> {
        self.0.get(name)
    }
}

/// How values of a type become text.
pub(crate) struct TextPlan {
    pub ty: ValueType,
    pub definitions: Arc<Definitions>,
}

impl TextPlan {
    /// Reads one value and appends its text.
    pub(crate) fn run(&self, cur: &mut Cursor<'_>, out: &mut Vec<u8>) -> Read<()> {
        let most = cur.remaining().saturating_mul(TEXT_PER_BYTE).saturating_add(TEXT_BASE);
        let start = out.len();
        let end = start.saturating_add(most);
        let text = Text { definitions: &self.definitions, end };
        text.value(&self.ty, cur, out, 0)?;
        cur.budget.charge_block((out.len() - start) as u64 / 16)
    }
}

struct Text<'d> {
    definitions: &'d Definitions,
    /// How long the output may be.
    end: usize,
}

impl Text<'_> {
    fn value(
        &self,
        ty: &ValueType,
        cur: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Read<()> {
        if out.len() > self.end {
            return Err(Fault::new("it is too long as JSON text"));
        }
        if depth > MAX_DEPTH {
            return Err(Fault::conversion(format!(
                "its values nest deeper than {MAX_DEPTH} levels"
            )));
        }
        match &ty.kind {
            Kind::Union(branches) => {
                let branch = &branches[cur.index(branches.len(), "union branch")?];
                self.value(branch, cur, out, depth + 1)
            }
            Kind::Record(record) => self.record(record, cur, out, depth),
            Kind::Recursive(named) => match self.definitions.get(&named.name) {
                Some(record) => self.record(record, cur, out, depth),
                None => Err(Fault::new(format!("type {} is not defined", named.name))),
            },
            Kind::Array(element) => {
                out.push(b'[');
                let mut first = true;
                self.blocks(min_size(element), cur, |cur| {
                    comma(&mut first, out);
                    self.value(element, cur, out, depth + 1)
                })?;
                out.push(b']');
                Ok(())
            }
            Kind::Map(value) => {
                out.push(b'{');
                let mut first = true;
                self.blocks(1 + min_size(value), cur, |cur| {
                    comma(&mut first, out);
                    text(cur.bytes()?, out)?;
                    out.push(b':');
                    self.value(value, cur, out, depth + 1)
                })?;
                out.push(b'}');
                Ok(())
            }
            _ => scalar(ty, cur, out),
        }
    }

    fn record(
        &self,
        record: &RecordType,
        cur: &mut Cursor<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Read<()> {
        out.push(b'{');
        let mut first = true;
        for field in &record.fields {
            comma(&mut first, out);
            json_write::string(out, &field.name)?;
            out.push(b':');
            let read = self.value(&field.ty, cur, out, depth + 1);
            read.map_err(|fault| fault.within(&field.name))?;
        }
        out.push(b'}');
        Ok(())
    }

    fn blocks<'a>(
        &self,
        min_size: usize,
        cur: &mut Cursor<'a>,
        mut element: impl FnMut(&mut Cursor<'a>) -> Read<()>,
    ) -> Read<()> {
        loop {
            match cur.block(min_size)? {
                0 => return Ok(()),
                count => (0..count).try_for_each(|_| element(cur))?,
            }
        }
    }
}

fn comma(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

fn text(bytes: &[u8], out: &mut Vec<u8>) -> Read<()> {
    let text = std::str::from_utf8(bytes);
    json_write::string(out, text.map_err(|e| Fault::new(format!("a text is not UTF-8: {e}")))?)
}

fn scalar(ty: &ValueType, cur: &mut Cursor<'_>, out: &mut Vec<u8>) -> Read<()> {
    match &ty.kind {
        Kind::Null => out.extend_from_slice(b"null"),
        Kind::Boolean => print(out, format_args!("{}", cur.boolean()?)),
        Kind::Int => number(i64::from(cur.int()?), ty.logical, out)?,
        Kind::Long => number(cur.long()?, ty.logical, out)?,
        Kind::Float => json_write::float(out, f32::from_le_bytes(cur.array()?))?,
        Kind::Double => json_write::double(out, f64::from_le_bytes(cur.array()?))?,
        Kind::String => {
            let bytes = cur.bytes()?;
            match ty.logical {
                Some(Logical::Uuid) => {
                    let uuid = uuid::Uuid::try_parse_ascii(bytes)
                        .map_err(|e| Fault::conversion(format!("a text is no uuid: {e}")))?;
                    print(out, format_args!("\"{uuid}\""));
                }
                _ => text(bytes, out)?,
            }
        }
        Kind::Bytes => bytes(cur.bytes()?, ty.logical, out)?,
        Kind::Fixed(fixed) => bytes(cur.take(fixed.size)?, ty.logical, out)?,
        Kind::Enum(symbols) => {
            let index = cur.index(symbols.symbols.len(), "enum symbol")?;
            json_write::string(out, &symbols.symbols[index])?;
        }
        Kind::Array(_) | Kind::Map(_) | Kind::Union(_) | Kind::Record(_) | Kind::Recursive(_) => {
            return Err(crate::sink::unfit());
        }
    }
    Ok(())
}

fn bytes(bytes: &[u8], logical: Option<Logical>, out: &mut Vec<u8>) -> Read<()> {
    match (logical, bytes) {
        (Some(Logical::Decimal { precision, scale }), _) => {
            let unscaled = run::decimal(bytes, precision, 0)?;
            decimal(out, unscaled, i8::try_from(scale).unwrap_or(0));
        }
        (Some(Logical::Uuid), _) if bytes.len() == 16 => {
            let uuid = uuid::Uuid::from_slice(bytes).unwrap_or_default();
            print(out, format_args!("\"{uuid}\""));
        }
        (Some(Logical::Duration), &[a, b, c, d, e, f, g, h, i, j, k, l]) => {
            let part = |bytes| u32::from_le_bytes(bytes);
            let (months, days) = (part([a, b, c, d]), part([e, f, g, h]));
            let millis = part([i, j, k, l]);
            print(
                out,
                format_args!("{{\"months\":{months},\"days\":{days},\"milliseconds\":{millis}}}"),
            );
        }
        _ => base64(out, bytes),
    }
    Ok(())
}

const DAY: i64 = 86_400_000_000;

fn number(number: i64, logical: Option<Logical>, out: &mut Vec<u8>) -> Read<()> {
    let in_micros = |unit| {
        let (mul, div) = micros(unit);
        let wide = number.checked_mul(mul).map(|wide| wide.div_euclid(div));
        wide.ok_or_else(|| {
            Fault::conversion(format!("the time {number} is out of range in microseconds"))
        })
    };
    match logical {
        Some(Logical::Date) => quoted(out, |out| date(out, number)),
        Some(Logical::Time(unit)) => {
            let micros = in_micros(unit)?;
            if !(0..DAY).contains(&micros) {
                return Err(Fault::conversion(format!("{micros} microseconds is no time of day")));
            }
            quoted(out, |out| time(out, micros));
        }
        Some(logical @ (Logical::Timestamp(unit) | Logical::LocalTimestamp(unit))) => {
            timestamp(out, in_micros(unit)?, matches!(logical, Logical::Timestamp(_)));
        }
        _ => print(out, format_args!("{number}")),
    }
    Ok(())
}
