//! Defaults of a reader's fields, encoded as the reader would encode them.

use isk_schema::{Kind, ValueType};
use serde_json::Value;

/// Encodes a default from its JSON form (Avro 1.12 specification, "Complex Types"), or gives `None` where
/// it does not fit the type.
pub(crate) fn encode(json: &Value, ty: &ValueType) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    write(json, ty, &mut out)?;
    Some(out)
}

fn write(json: &Value, ty: &ValueType, out: &mut Vec<u8>) -> Option<()> {
    match &ty.kind {
        Kind::Null => json.as_null()?,
        Kind::Boolean => out.push(u8::from(json.as_bool()?)),
        Kind::Int => long(i64::from(i32::try_from(json.as_i64()?).ok()?), out),
        Kind::Long => long(json.as_i64()?, out),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a float's default is written in decimal"
        )]
        Kind::Float => out.extend((json.as_f64()? as f32).to_le_bytes()),
        Kind::Double => out.extend(json.as_f64()?.to_le_bytes()),
        Kind::String => sized(json.as_str()?.as_bytes(), out)?,
        Kind::Bytes => sized(&code_points(json)?, out)?,
        Kind::Fixed(t) => {
            let bytes = code_points(json)?;
            (bytes.len() == t.size).then_some(())?;
            out.extend(bytes);
        }
        Kind::Enum(t) => {
            let symbol = json.as_str()?;
            let index = t.symbols.iter().position(|s| s == symbol)?;
            long(i64::try_from(index).ok()?, out);
        }
        Kind::Array(element) => {
            let items = json.as_array()?;
            block_start(items.len(), out)?;
            items.iter().try_for_each(|item| write(item, element, out))?;
            out.push(0);
        }
        Kind::Map(value) => {
            let entries = json.as_object()?;
            block_start(entries.len(), out)?;
            for (key, item) in entries {
                sized(key.as_bytes(), out)?;
                write(item, value, out)?;
            }
            out.push(0);
        }
        Kind::Union(branches) => {
            let start = out.len();
            let fits = branches.iter().enumerate().find_map(|(i, branch)| {
                out.truncate(start);
                long(i64::try_from(i).ok()?, out);
                write(json, branch, out)
            });
            fits?;
        }
        // Nobody writes one that is not null.
        Kind::Recursive(_) => return None,
        Kind::Record(record) => {
            let object = json.as_object()?;
            for field in &record.fields {
                let value = object.get(&field.name).or(field.default.as_ref())?;
                write(value, &field.ty, out)?;
            }
        }
    }
    Some(())
}

fn long(value: i64, out: &mut Vec<u8>) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    long(i64::try_from(bytes.len()).ok()?, out);
    out.extend(bytes);
    Some(())
}

fn block_start(len: usize, out: &mut Vec<u8>) -> Option<()> {
    if len > 0 {
        long(i64::try_from(len).ok()?, out);
    }
    Some(())
}

/// Bytes are written as the code points U+0000 to U+00FF.
fn code_points(json: &Value) -> Option<Vec<u8>> {
    json.as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}
