//! Carrying out a plan: from a Protobuf payload into columns.

use isk_schema::ProtoValue;

use super::plan::{Absent, FieldPlan, Many, MessagePlan, ProtoRows, Shown, ValuePlan};
use super::wire::{Wire, WireType, unzigzag};
use crate::budget::Budget;
use crate::error::{Fault, Read};
use crate::sink::{Maps, Sink, Structs, unfit};
use crate::vectors::Texts;

/// How deep the message of a payload may be defined within others.
const MAX_PATH: i64 = 64;

/// What goes along with one payload.
pub(crate) struct Run<'b> {
    pub budget: &'b mut Budget,
    pub check_utf8: bool,
}

/// Reads one payload, which begins with the path of its message, as one row.
pub(crate) fn row(
    rows: &ProtoRows,
    payload: &[u8],
    run: &mut Run<'_>,
    sink: &mut Sink,
) -> Read<()> {
    let mut wire = Wire(payload);
    let path = path(&mut wire)?;
    let plan = match rows.messages.get(&path) {
        Some(Ok(plan)) => plan,
        Some(Err(why)) => return Err(Fault::new(why.as_str())),
        None => {
            return Err(Fault::new(format!(
                "it is message {path:?} of its schema, and the table shows {}",
                rows.shown
            )));
        }
    };
    let Sink::Struct(columns) = sink else { return Err(unfit()) };
    match &rows.column {
        None => message(plan, wire.0, run, columns),
        Some(name) => {
            let column = columns.columns.first_mut().ok_or_else(unfit)?;
            match column {
                Sink::Struct(s) => message(plan, wire.0, run, s),
                Sink::Boolean(s) => check(wire.0).map(|()| s.push(true)),
                _ => Err(unfit()),
            }
            .map_err(|fault| fault.within(name))?;
            columns.end();
            Ok(())
        }
    }
}

/// Where a payload's message is defined: indexes, outermost first. One zero byte is the first message.
fn path(wire: &mut Wire<'_>) -> Read<Vec<i32>> {
    let count = wire.zigzag()?;
    match count {
        0 => Ok(vec![0]),
        1..=MAX_PATH => (0..count)
            .map(|_| {
                let index = wire.zigzag()?;
                i32::try_from(index)
                    .map_err(|_| Fault::new(format!("there is no message {index} in its schema")))
            })
            .collect(),
        _ => Err(Fault::new(format!("its message is {count} levels deep in its schema"))),
    }
}

/// Whether bytes are a message, of whatever fields.
fn check(bytes: &[u8]) -> Read<()> {
    let mut wire = Wire(bytes);
    while !wire.0.is_empty() {
        let (number, layout) = wire.tag()?;
        wire.skip(number, layout)?;
    }
    Ok(())
}

fn message(plan: &MessagePlan, bytes: &[u8], run: &mut Run<'_>, s: &mut Structs) -> Read<()> {
    let row = s.len();
    let mut wire = Wire(bytes);
    let mut expected = 0;
    while !wire.0.is_empty() {
        let (number, layout) = wire.tag()?;
        let found = match plan.fields.get(expected) {
            Some(field) if field.number == number => Ok(expected),
            _ => plan.fields.binary_search_by_key(&number, |field| field.number),
        };
        let Ok(at) = found else {
            wire.skip(number, layout)?;
            continue;
        };
        let field = &plan.fields[at];
        // The next one is most likely this one's successor, or itself where it is repeated.
        expected = if matches!(field.many, Many::One) { at + 1 } else { at };
        let read = one_field(field, layout, bytes, &mut wire, row, run, s);
        read.map_err(|fault| fault.within(&field.name))?;
    }
    for (column, (sink, absent)) in s.columns.iter_mut().zip(&plan.absent).enumerate() {
        finish(plan, column, *absent, row, run, sink).map_err(|fault| {
            match plan.fields.iter().find(|field| field.column == column) {
                Some(field) => fault.within(&field.name),
                None => fault,
            }
        })?;
    }
    s.end();
    Ok(())
}

/// Ends a column's row, or fills it.
fn finish(
    plan: &MessagePlan,
    column: usize,
    absent: Absent,
    row: usize,
    run: &mut Run<'_>,
    sink: &mut Sink,
) -> Read<()> {
    match (absent, sink) {
        (Absent::Empty, Sink::List(list)) => list.end(),
        (Absent::Empty, Sink::Map(map)) => map.end_distinct(),
        (Absent::Default(place), sink) if sink.len() == row => {
            let field = plan.fields.get(place).filter(|f| f.column == column).ok_or_else(unfit)?;
            default(&field.value, run, sink)
        }
        (Absent::Null, sink) if sink.len() == row => {
            sink.null();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn one_field(
    field: &FieldPlan,
    layout: WireType,
    whole: &[u8],
    wire: &mut Wire<'_>,
    row: usize,
    run: &mut Run<'_>,
    s: &mut Structs,
) -> Read<()> {
    for other in &field.others {
        let column = s.columns.get_mut(*other).ok_or_else(unfit)?;
        if column.len() > row {
            run.budget.charge(1, field.cells)?;
            column.truncate(row);
        }
    }
    let column = s.columns.get_mut(field.column).ok_or_else(unfit)?;
    match (&field.many, column) {
        (Many::One, column) => {
            if column.len() > row {
                run.budget.charge(1, field.cells)?;
                column.truncate(row);
                if let (Shown::Message(plan), Sink::Struct(inner)) =
                    (&field.value.shown, &mut *column)
                {
                    wire.skip(field.number, layout)?;
                    let read = whole.len() - wire.0.len();
                    run.budget.charge(read as u64, 1)?;
                    return message(plan, &parts(field, &whole[..read])?, run, inner);
                }
            }
            // Of a writer that has many, the last.
            each(field, layout, wire, |layout, wire| {
                column.truncate(row);
                value(&field.value, layout, field.number, wire, run, column)
            })
        }
        (Many::List, Sink::List(list)) => each(field, layout, wire, |layout, wire| {
            run.budget.charge(1, field.cells)?;
            value(&field.value, layout, field.number, wire, run, &mut list.element)
        }),
        (Many::Map(key), Sink::Map(map)) if layout == WireType::Sized => {
            run.budget.charge(1, field.cells)?;
            entry(key, &field.value, wire.sized()?, run, map)
        }
        (Many::Map(_), Sink::Map(_)) => Err(layout_fault(layout)),
        _ => Err(unfit()),
    }
}

/// Reads the values behind one tag: one, or all that are packed.
fn each<'a>(
    field: &FieldPlan,
    layout: WireType,
    wire: &mut Wire<'a>,
    mut one: impl FnMut(WireType, &mut Wire<'a>) -> Read<()>,
) -> Read<()> {
    let kind = &field.value.wire;
    if layout != WireType::Sized || !packs(kind) {
        return one(layout, wire);
    }
    let mut packed = Wire(wire.sized()?);
    while !packed.0.is_empty() {
        one(scalar_layout(kind), &mut packed)?;
    }
    Ok(())
}

/// The parts of a message that is in several, put together: which is the same as one of all their fields.
fn parts(field: &FieldPlan, whole: &[u8]) -> Read<Vec<u8>> {
    let (mut wire, mut out) = (Wire(whole), Vec::new());
    while !wire.0.is_empty() {
        let (number, layout) = wire.tag()?;
        if number != field.number {
            wire.skip(number, layout)?;
            if field.other_numbers.contains(&number) {
                out.clear();
            }
            continue;
        }
        out.extend_from_slice(match layout {
            WireType::Sized => wire.sized()?,
            WireType::Start => wire.group(number)?,
            other => return Err(layout_fault(other)),
        });
    }
    Ok(out)
}

fn entry(
    key: &ProtoValue,
    plan: &ValuePlan,
    bytes: &[u8],
    run: &mut Run<'_>,
    map: &mut Maps,
) -> Read<()> {
    let (mut keys, mut values) = (None, None);
    let mut wire = Wire(bytes);
    while !wire.0.is_empty() {
        let (number, layout) = wire.tag()?;
        let at = wire;
        wire.skip(number, layout)?;
        match number {
            1 => keys = Some((at, layout)),
            2 => values = Some((at, layout)),
            _ => {}
        }
    }
    let key = match keys {
        Some((mut at, layout)) => scalar(key, layout, &mut at)?,
        None => nothing(key),
    };
    key_text(key, run, &mut map.keys)?;
    match values {
        Some((mut at, layout)) => value(plan, layout, 2, &mut at, run, &mut map.values),
        None => default(plan, run, &mut map.values),
    }
}

fn key_text(key: Scalar<'_>, run: &Run<'_>, keys: &mut Texts) -> Read<()> {
    match key {
        Scalar::Int(value) => keys.push(value.to_string().as_bytes()),
        Scalar::Uint(value) => keys.push(value.to_string().as_bytes()),
        Scalar::Bool(value) => keys.push(if value { b"true" } else { b"false" }),
        Scalar::Bytes(bytes) => keys.push(text(bytes, run)?),
        Scalar::Float(_) | Scalar::Double(_) => Err(unfit()),
    }
}

/// A number, text or bytes as it was on the wire.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Int(i64),
    Uint(u64),
    Bool(bool),
    Float(f32),
    Double(f64),
    Bytes(&'a [u8]),
}

fn scalar_layout(value: &ProtoValue) -> WireType {
    match value {
        ProtoValue::Double | ProtoValue::Fixed64 | ProtoValue::Sfixed64 => WireType::Eight,
        ProtoValue::Float | ProtoValue::Fixed32 | ProtoValue::Sfixed32 => WireType::Four,
        ProtoValue::Group => WireType::Start,
        ProtoValue::String
        | ProtoValue::Bytes
        | ProtoValue::Message
        | ProtoValue::Opaque
        | ProtoValue::Timestamp
        | ProtoValue::Wrapper(_) => WireType::Sized,
        _ => WireType::Varint,
    }
}

fn packs(value: &ProtoValue) -> bool {
    matches!(scalar_layout(value), WireType::Varint | WireType::Eight | WireType::Four)
}

#[cold]
fn layout_fault(layout: WireType) -> Fault {
    Fault::new(format!("its bytes are of another type than the writer's schema says ({layout:?})"))
}

#[expect(clippy::cast_possible_truncation, reason = "32-bit numbers may be written in 64 bits")]
fn scalar<'a>(kind: &ProtoValue, layout: WireType, wire: &mut Wire<'a>) -> Read<Scalar<'a>> {
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
        | ProtoValue::Opaque
        | ProtoValue::Timestamp
        | ProtoValue::Wrapper(_) => Scalar::Bytes(wire.sized()?),
    })
}

/// What a value is that is not there.
fn nothing(kind: &ProtoValue) -> Scalar<'static> {
    match kind {
        ProtoValue::Double => Scalar::Double(0.0),
        ProtoValue::Float => Scalar::Float(0.0),
        ProtoValue::Uint64 | ProtoValue::Fixed64 => Scalar::Uint(0),
        ProtoValue::Bool => Scalar::Bool(false),
        _ if scalar_layout(kind) == WireType::Sized => Scalar::Bytes(&[]),
        _ => Scalar::Int(0),
    }
}

fn default(plan: &ValuePlan, run: &mut Run<'_>, sink: &mut Sink) -> Read<()> {
    show(plan, nothing(&plan.wire), run, sink)
}

/// Reads one value whose tag was read, and appends it.
fn value(
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

fn show(plan: &ValuePlan, read: Scalar<'_>, run: &mut Run<'_>, sink: &mut Sink) -> Read<()> {
    match (&plan.shown, read, sink) {
        (Shown::Scalar, read, sink) => push(read, run, sink)?,
        (Shown::Message(plan), Scalar::Bytes(bytes), Sink::Struct(s)) => {
            message(plan, bytes, run, s)?;
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
        (Shown::Refuse(why), ..) => return Err(Fault::new(why.as_str())),
        _ => return Err(unfit()),
    }
    Ok(())
}

fn push(read: Scalar<'_>, run: &Run<'_>, sink: &mut Sink) -> Read<()> {
    let beyond = || Fault::new("a number is beyond its column");
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
        _ => Err(Fault::new(format!("{seconds} s and {nanos} ns is no timestamp"))),
    }
}
