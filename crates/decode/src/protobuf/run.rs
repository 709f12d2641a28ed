//! Carrying out a plan: from a Protobuf payload into columns.

use isk_schema::ProtoValue;

use super::plan::{Absent, FieldPlan, Many, MessagePlan, ProtoRows, Shown, ValuePlan};
use super::value::{
    Scalar, default, key_text, layout_fault, nothing, packs, quick, scalar, scalar_layout, show,
    value,
};
use super::wire::{Wire, WireType};
use crate::budget::Budget;
use crate::error::{FailureStage, Fault, Read};
use crate::plan::Place;
use crate::sink::{Maps, Sink, Structs, unfit};

/// How deep the message of a payload may be defined within others.
const MAX_PATH: usize = 64;

/// What goes along with one payload.
pub(crate) struct Run<'b> {
    pub budget: &'b mut Budget,
    pub check_utf8: bool,
}

/// Which message of its schema a payload is.
#[derive(Clone, Copy)]
pub(crate) enum Path<'a> {
    /// It begins with the message's path.
    Leading,
    /// The path stands elsewhere.
    Apart(&'a [u8]),
    /// There is none: it is the message that its schema by itself would be shown as.
    Unsaid,
}

/// Reads one payload as one row.
pub(crate) fn row(
    rows: &ProtoRows,
    at: Path<'_>,
    payload: &[u8],
    run: &mut Run<'_>,
    sink: &mut Sink,
) -> Read<()> {
    let mut indexes = [0; MAX_PATH];
    let (path, payload) = match at {
        Path::Leading => path(payload, &mut indexes)?,
        Path::Apart(head) => (path(head, &mut indexes)?.0, payload),
        Path::Unsaid => (rows.messages.first().map_or(&[][..], |m| m.path.as_slice()), payload),
    };
    // There is one, or a few where messages of the shown one's kind are within each other.
    let Some(found) = rows.messages.iter().find(|known| known.path == path) else {
        let reason =
            format!("it is message {path:?} of its schema, and the table shows {}", rows.shown);
        return Err(Fault::at(FailureStage::Resolution, reason).of_another_type());
    };
    let plan = match &found.plan {
        Ok(plan) => plan,
        Err(why) => return Err(Fault::at(FailureStage::Resolution, why.as_str())),
    };
    let Sink::Struct(columns) = sink else { return Err(unfit()) };
    match &found.place {
        Place::Spread => message(plan, payload, run, columns),
        Place::Column { at, name, .. } => {
            let column = columns.columns.get_mut(*at).ok_or_else(unfit)?;
            match column {
                Sink::Struct(s) => message(plan, payload, run, s),
                Sink::Boolean(s) => check(payload).map(|()| s.push(true)),
                _ => Err(unfit()),
            }
            .map_err(|fault| fault.within(name))?;
            columns.end_beside(*at);
            Ok(())
        }
    }
}

/// Where a payload's message is defined: indexes, outermost first. One zero byte is the first message. And what
/// follows them.
fn path<'p, 'w>(bytes: &'w [u8], indexes: &'p mut [i32; MAX_PATH]) -> Read<(&'p [i32], &'w [u8])> {
    let mut wire = Wire(bytes);
    let count = match wire.zigzag()? {
        0 => return Ok((&indexes[..1], wire.0)),
        count => count,
    };
    let path = usize::try_from(count).ok().and_then(|count| indexes.get_mut(..count));
    let Some(path) = path else {
        return Err(Fault::new(format!("its message is {count} levels deep in its schema")));
    };
    for place in &mut *path {
        let index = wire.zigzag()?;
        *place = i32::try_from(index)
            .map_err(|_| Fault::new(format!("there is no message {index} in its schema")))?;
    }
    Ok((path, wire.0))
}

/// Whether bytes are a message, of whatever fields.
pub(super) fn check(bytes: &[u8]) -> Read<()> {
    let mut wire = Wire(bytes);
    while !wire.0.is_empty() {
        let (number, layout) = wire.tag()?;
        wire.skip(number, layout)?;
    }
    Ok(())
}

pub(super) fn message(
    plan: &MessagePlan,
    bytes: &[u8],
    run: &mut Run<'_>,
    s: &mut Structs,
) -> Read<()> {
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
        if let Some(plain) = field.quick
            && let Some(column) = s.columns.get_mut(field.column)
            && column.len() == row
            && quick(plain, layout, &mut wire, run.check_utf8, column)
                .map_err(|fault| fault.within(&field.name))?
        {
            continue;
        }
        let read = one_field(field, layout, bytes, &mut wire, row, run, s);
        read.map_err(|fault| fault.within(&field.name))?;
    }
    for (column, (sink, absent)) in s.columns.iter_mut().zip(&plan.absent).enumerate() {
        if *absent != Absent::Empty && sink.len() > row {
            continue;
        }
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
                if matches!(field.value.shown, Shown::Message(_) | Shown::Json(_)) {
                    wire.skip(field.number, layout)?;
                    let read = whole.len() - wire.0.len();
                    run.budget.charge(read as u64, 1)?;
                    let all = parts(field, &whole[..read])?;
                    return show(&field.value, Scalar::Bytes(&all), run, column);
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
