//! One value of a Protobuf payload: what it is on the wire, and how it is shown.

use isk_schema::ProtoValue;

use super::plan::{Quick, Shown, ValuePlan};
use super::run::{Run, check, message};
use super::wire::{Wire, WireType, unzigzag};
use crate::error::{FailureStage, Fault, Read};
use crate::sink::{Sink, unfit};
use crate::vectors::Texts;

/// A number, text or bytes as it was on the wire.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'a> {
    Int(i64),
    Uint(u64),
    Bool(bool),
    Float(f32),
    Double(f64),
    Bytes(&'a [u8]),
}

pub(super) fn scalar_layout(value: &ProtoValue) -> WireType {
    match value {
        ProtoValue::Double | ProtoValue::Fixed64 | ProtoValue::Sfixed64 => WireType::Eight,
        ProtoValue::Float | ProtoValue::Fixed32 | ProtoValue::Sfixed32 => WireType::Four,
        ProtoValue::Group => WireType::Start,
        ProtoValue::String
        | ProtoValue::Bytes
        | ProtoValue::Message
        | ProtoValue::Json(_)
        | ProtoValue::Timestamp
        | ProtoValue::Wrapper(_) => WireType::Sized,
        _ => WireType::Varint,
    }
}

pub(super) fn packs(value: &ProtoValue) -> bool {
    matches!(scalar_layout(value), WireType::Varint | WireType::Eight | WireType::Four)
}

#[cold]
pub(super) fn layout_fault(layout: WireType) -> Fault {
    Fault::new(format!("its bytes are of another type than the writer's schema says ({layout:?})"))
}

#[expect(clippy::cast_possible_truncation, reason = "32-bit numbers may be written in 64 bits")]
pub(super) fn scalar<'a>(
    kind: &ProtoValue,
    layout: WireType,
    wire: &mut Wire<'a>,
) -> Read<Scalar<'a>> {
    if layout != scalar_layout(kind) {
        return Err(layout_fault(layout));
    }
    Ok(match kind {
        ProtoValue::Double => Scalar::Double(f64::from_le_bytes(wire.array()?)),
        ProtoValue::Float => Scalar::Float(f32::from_le_bytes(wire.array()?)),
        ProtoValue::Int32 | ProtoValue::Enum(_) => {
            Scalar::Int(i64::from(wire.varint()?.cast_signed() as i32))
        }
        ProtoValue::Int64 => Scalar::Int(wire.varint()?.cast_signed()),
        ProtoValue::Uint32 => Scalar::Int(i64::from(wire.varint()? as u32)),
        ProtoValue::Uint64 => Scalar::Uint(wire.varint()?),
        ProtoValue::Sint32 => Scalar::Int(i64::from(unzigzag(wire.varint()?) as i32)),
        ProtoValue::Sint64 => Scalar::Int(unzigzag(wire.varint()?)),
        ProtoValue::Fixed32 => Scalar::Int(i64::from(u32::from_le_bytes(wire.array()?))),
        ProtoValue::Fixed64 => Scalar::Uint(u64::from_le_bytes(wire.array()?)),
        ProtoValue::Sfixed32 => Scalar::Int(i64::from(i32::from_le_bytes(wire.array()?))),
        ProtoValue::Sfixed64 => Scalar::Int(i64::from_le_bytes(wire.array()?)),
        ProtoValue::Bool => Scalar::Bool(wire.varint()? != 0),
        ProtoValue::Group => return Err(unfit()),
        ProtoValue::String
        | ProtoValue::Bytes
        | ProtoValue::Message
        | ProtoValue::Json(_)
        | ProtoValue::Timestamp
        | ProtoValue::Wrapper(_) => Scalar::Bytes(wire.sized()?),
    })
}

/// Appends a plain value if that is what is next, as its plan expects it: most values of most messages.
#[inline]
pub(super) fn quick(
    quick: Quick,
    layout: WireType,
    wire: &mut Wire<'_>,
    check_utf8: bool,
    sink: &mut Sink,
) -> Read<bool> {
    match (quick, layout, sink) {
        (Quick::Text, WireType::Sized, Sink::Text(s)) if !check_utf8 => s.push(wire.sized()?)?,
        (Quick::Binary, WireType::Sized, Sink::Binary(s)) => s.push(wire.sized()?),
        (Quick::Double, WireType::Eight, Sink::Double(s)) => {
            s.push(f64::from_le_bytes(wire.array()?));
        }
        (Quick::Float, WireType::Four, Sink::Float(s)) => s.push(f32::from_le_bytes(wire.array()?)),
        (Quick::Bool, WireType::Varint, Sink::Boolean(s)) => s.push(wire.varint()? != 0),
        (Quick::Long, WireType::Varint, Sink::Long(s)) => s.push(wire.varint()?.cast_signed()),
        (Quick::Int, WireType::Varint, Sink::Int(s)) => s.push(low(wire.varint()?)),
        _ => return Ok(false),
    }
    Ok(true)
}

/// A 32-bit number, which may be written in 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "that is what the format says")]
fn low(wide: u64) -> i32 {
    wide.cast_signed() as i32
}

/// What a value is that is not there.
pub(super) fn nothing(kind: &ProtoValue) -> Scalar<'static> {
    match kind {
        ProtoValue::Double => Scalar::Double(0.0),
        ProtoValue::Float => Scalar::Float(0.0),
        ProtoValue::Uint64 | ProtoValue::Fixed64 => Scalar::Uint(0),
        ProtoValue::Bool => Scalar::Bool(false),
        _ if scalar_layout(kind) == WireType::Sized => Scalar::Bytes(&[]),
        _ => Scalar::Int(0),
    }
}

/// How many bytes of JSON text a message may have for each of its bytes, and some more.
const TEXT_PER_BYTE: usize = 64;
const TEXT_BASE: usize = 4096;

pub(super) fn default(plan: &ValuePlan, run: &mut Run<'_>, sink: &mut Sink) -> Read<()> {
    show(plan, nothing(&plan.wire), run, sink)
}

/// Reads one value whose tag was read, and appends it.
pub(super) fn value(
    plan: &ValuePlan,
    layout: WireType,
    number: u32,
    wire: &mut Wire<'_>,
    run: &mut Run<'_>,
    sink: &mut Sink,
) -> Read<()> {
    let read = match plan.wire {
        ProtoValue::Group if layout == WireType::Start => Scalar::Bytes(wire.group(number)?),
        ProtoValue::Group => return Err(layout_fault(layout)),
        _ => scalar(&plan.wire, layout, wire)?,
    };
    show(plan, read, run, sink)
}

/// Appends a value as its column shows it.
pub(super) fn show(
    plan: &ValuePlan,
    read: Scalar<'_>,
    run: &mut Run<'_>,
    sink: &mut Sink,
) -> Read<()> {
    match (&plan.shown, read, sink) {
        (Shown::Scalar, read, sink) => push(read, run, sink)?,
        (Shown::Message(plan), Scalar::Bytes(bytes), Sink::Struct(s)) => {
            message(plan, bytes, run, s)?;
        }
        (Shown::Json(message), Scalar::Bytes(bytes), Sink::Text(s)) => {
            let most = bytes.len().saturating_mul(TEXT_PER_BYTE).saturating_add(TEXT_BASE);
            let text = message.json(bytes, most).map_err(Fault::new)?;
            run.budget.charge_block(text.len() as u64 / 16)?;
            match &*text {
                // As in all columns of JSON text.
                b"null" => s.null(),
                text => s.push(text)?,
            }
        }
        (Shown::Symbol(names), Scalar::Int(number), Sink::Text(s)) => {
            match i32::try_from(number).ok().and_then(|number| names.get(&number)) {
                Some(name) => s.push(name.as_bytes())?,
                // Who wrote it knew a name that its schema does not.
                None => s.push(number.to_string().as_bytes())?,
            }
        }
        (Shown::Timestamp, Scalar::Bytes(bytes), Sink::Long(s)) => s.push(timestamp(bytes)?),
        (Shown::Present, Scalar::Bytes(bytes), Sink::Boolean(s)) => {
            check(bytes)?;
            s.push(true);
        }
        (Shown::Wrapper(inner), Scalar::Bytes(bytes), sink) => {
            let (mut wire, mut last) = (Wire(bytes), nothing(&inner.wire));
            while !wire.0.is_empty() {
                match wire.tag()? {
                    (1, layout) => last = scalar(&inner.wire, layout, &mut wire)?,
                    (number, layout) => wire.skip(number, layout)?,
                }
            }
            show(inner, last, run, sink)?;
        }
        (Shown::Refuse(why), ..) => {
            return Err(Fault::at(FailureStage::Resolution, why.as_str()));
        }
        _ => return Err(unfit()),
    }
    Ok(())
}

fn push(read: Scalar<'_>, run: &Run<'_>, sink: &mut Sink) -> Read<()> {
    let beyond = || Fault::conversion("a number is beyond its column");
    match (read, sink) {
        (Scalar::Int(v), Sink::Long(s)) => s.push(v),
        (Scalar::Int(v), Sink::Int(s)) => s.push(i32::try_from(v).map_err(|_| beyond())?),
        (Scalar::Int(v), Sink::Decimal(s)) => s.push(i128::from(v)),
        (Scalar::Uint(v), Sink::Decimal(s)) => s.push(i128::from(v)),
        (Scalar::Uint(v), Sink::Long(s)) => s.push(i64::try_from(v).map_err(|_| beyond())?),
        (Scalar::Uint(v), Sink::Int(s)) => s.push(i32::try_from(v).map_err(|_| beyond())?),
        (Scalar::Bool(v), Sink::Boolean(s)) => s.push(v),
        (Scalar::Double(v), Sink::Double(s)) => s.push(v),
        (Scalar::Float(v), Sink::Float(s)) => s.push(v),
        (Scalar::Float(v), Sink::Double(s)) => s.push(f64::from(v)),
        (Scalar::Bytes(v), Sink::Text(s)) => s.push(text(v, run)?)?,
        (Scalar::Bytes(v), Sink::Binary(s)) => s.push(v),
        _ => return Err(Fault::new("the writer's type cannot be shown in the table's column")),
    }
    Ok(())
}

fn text<'a>(bytes: &'a [u8], run: &Run<'_>) -> Read<&'a [u8]> {
    if run.check_utf8
        && let Err(e) = std::str::from_utf8(bytes)
    {
        return Err(Fault::new(format!("a text is not UTF-8: {e}")));
    }
    Ok(bytes)
}

/// Seconds and nanoseconds as microseconds, rounded down.
fn timestamp(bytes: &[u8]) -> Read<i64> {
    let (mut wire, mut seconds, mut nanos) = (Wire(bytes), 0, 0);
    while !wire.0.is_empty() {
        match wire.tag()? {
            (1, WireType::Varint) => seconds = wire.varint()?.cast_signed(),
            (2, WireType::Varint) => nanos = wire.varint()?.cast_signed(),
            (1 | 2, other) => return Err(layout_fault(other)),
            (number, layout) => wire.skip(number, layout)?,
        }
    }
    let micros = seconds.checked_mul(1_000_000).and_then(|m| m.checked_add(nanos / 1000));
    match micros {
        Some(micros) if (0..1_000_000_000).contains(&nanos) => Ok(micros),
        _ => Err(Fault::conversion(format!("{seconds} s and {nanos} ns is no timestamp"))),
    }
}

pub(super) fn key_text(key: Scalar<'_>, run: &Run<'_>, keys: &mut Texts) -> Read<()> {
    match key {
        Scalar::Int(value) => keys.push(value.to_string().as_bytes()),
        Scalar::Uint(value) => keys.push(value.to_string().as_bytes()),
        Scalar::Bool(value) => keys.push(if value { b"true" } else { b"false" }),
        Scalar::Bytes(bytes) => keys.push(text(bytes, run)?),
        Scalar::Float(_) | Scalar::Double(_) => Err(unfit()),
    }
}
