//! What to do with a writer's messages: one plan per message of a writer's schema and table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use isk_schema::{
    Kind, Logical, ProtoMessage, ProtoSchema, ProtoValue, RecordField, RecordKind, RecordType,
    ValueType,
};

use crate::plan::Place;
use crate::resolve::cells;

/// How payloads become rows: by the path of the message they say they are.
pub(crate) struct ProtoRows {
    pub messages: Vec<Message>,
    /// The messages the table shows, for messages.
    pub shown: String,
}

/// A message that the table shows.
pub(crate) struct Message {
    pub path: Vec<i32>,
    pub place: Place,
    pub plan: Result<MessagePlan, String>,
}

pub(crate) struct MessagePlan {
    /// The writer's fields that the table has, by number.
    pub fields: Vec<FieldPlan>,
    /// What a column is when the message has nothing for it, for each column.
    pub absent: Vec<Absent>,
}

pub(crate) struct FieldPlan {
    pub number: u32,
    pub name: String,
    pub column: usize,
    pub many: Many,
    pub value: ValuePlan,
    /// How its value is read where it is one by itself, as plain as most are.
    pub quick: Option<Quick>,
    /// The columns of the other fields of its group, of which only one is set.
    pub others: Vec<usize>,
    /// Their numbers.
    pub other_numbers: Vec<u32>,
    /// How many cells one value unfolds to.
    pub cells: u64,
}

/// A plain value in a column of its own type.
#[derive(Clone, Copy)]
pub(crate) enum Quick {
    Text,
    Binary,
    Double,
    Float,
    Bool,
    Long,
    Int,
}

impl Quick {
    fn of(many: &Many, value: &ValuePlan) -> Option<Self> {
        Some(match (many, &value.shown, &value.wire) {
            (Many::One, Shown::Scalar, ProtoValue::String) => Self::Text,
            (Many::One, Shown::Scalar, ProtoValue::Bytes) => Self::Binary,
            (Many::One, Shown::Scalar, ProtoValue::Double) => Self::Double,
            (Many::One, Shown::Scalar, ProtoValue::Float) => Self::Float,
            (Many::One, Shown::Scalar, ProtoValue::Bool) => Self::Bool,
            (Many::One, Shown::Scalar, ProtoValue::Int64) => Self::Long,
            (Many::One, Shown::Scalar, ProtoValue::Int32) => Self::Int,
            _ => return None,
        })
    }
}

/// How many values a column has for a row.
#[derive(Clone)]
pub(crate) enum Many {
    One,
    List,
    /// And what the keys are.
    Map(ProtoValue),
}

/// One value.
pub(crate) struct ValuePlan {
    /// What it is on the wire.
    pub wire: ProtoValue,
    pub shown: Shown,
}

pub(crate) enum Shown {
    /// A number, text or bytes.
    Scalar,
    Symbol(Arc<BTreeMap<i32, String>>),
    Timestamp,
    Message(MessagePlan),
    /// A message as JSON text.
    Json(ProtoMessage),
    /// A message without fields.
    Present,
    Wrapper(Box<ValuePlan>),
    Refuse(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    Null,
    /// The type's default: what the field of this place in the plan makes of nothing.
    Default(usize),
    Empty,
}

/// The plans of a writer's messages that a table of type `r` can show.
pub(crate) fn rows(w: &ProtoSchema, r: &ValueType, place: &Place) -> ProtoRows {
    let shown = r.full_name().unwrap_or_default();
    let messages = w.paths(shown).into_iter().map(|path| planned(w, path, r, place.clone()));
    ProtoRows { messages: messages.collect(), shown: shown.to_owned() }
}

/// As [`rows`], of each of several types the message of its name.
pub(crate) fn typed<'k>(
    w: &ProtoSchema,
    kinds: impl Iterator<Item = (&'k RecordKind, Place)>,
) -> ProtoRows {
    let (mut messages, mut shown) = (Vec::new(), Vec::new());
    for (kind, place) in kinds {
        shown.push(kind.name.as_str());
        if let Some(path) = w.path(&kind.name) {
            messages.push(planned(w, path, &kind.ty, place));
        }
    }
    ProtoRows { messages, shown: shown.join(", ") }
}

fn planned(w: &ProtoSchema, path: Vec<i32>, r: &ValueType, place: Place) -> Message {
    let plan = match w.message(&path) {
        Some(Ok(ty)) => match (&ty.kind, &r.kind) {
            (Kind::Record(w), Kind::Record(r)) => Ok(message(w, r)),
            _ => Err("the table shows no message".to_owned()),
        },
        Some(Err(error)) => Err(error.to_string()),
        None => Err("there is no such message".to_owned()),
    };
    Message { path, place, plan }
}

/// A field keeps its column by its number, whatever it is called.
fn message(w: &RecordType, r: &RecordType) -> MessagePlan {
    let number = |field: &RecordField| field.proto.as_ref().map(|proto| proto.number);
    let mut fields = Vec::new();
    let mut absent = vec![Absent::Null; r.fields.len()];
    for (column, target) in r.fields.iter().enumerate() {
        let Some(field) = w.fields.iter().find(|f| number(f) == number(target)) else { continue };
        let Some(proto) = &field.proto else { continue };
        let (many, value) = field_plan(field, target);
        absent[column] = match many {
            Many::List | Many::Map(_) => Absent::Empty,
            Many::One if proto.presence || matches!(field.ty.kind, Kind::Array(_)) => Absent::Null,
            Many::One => Absent::Default(fields.len()),
        };
        fields.push(FieldPlan {
            number: proto.number,
            name: target.name.clone(),
            column,
            quick: Quick::of(&many, &value),
            many,
            value,
            others: Vec::new(),
            other_numbers: Vec::new(),
            cells: cells(&target.ty),
        });
    }
    note_oneofs(w, &mut fields);
    // The plan is searched by number, and defaults are found by place.
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_by_key(|i| fields[*i].number);
    let mut places = vec![0; fields.len()];
    order.iter().enumerate().for_each(|(new, old)| places[*old] = new);
    for absent in &mut absent {
        if let Absent::Default(place) = absent {
            *place = places[*place];
        }
    }
    fields.sort_by_key(|field| field.number);
    MessagePlan { fields, absent }
}

/// Notes for each field what else is in its group.
fn note_oneofs(w: &RecordType, fields: &mut [FieldPlan]) {
    let groups: HashMap<u32, usize> = w
        .fields
        .iter()
        .filter_map(|f| f.proto.as_ref())
        .filter_map(|p| Some((p.number, p.oneof?)))
        .collect();
    let columns: Vec<(usize, u32)> = fields.iter().map(|f| (f.column, f.number)).collect();
    for field in fields {
        let Some(group) = groups.get(&field.number) else { continue };
        let other = |number: &u32| *number != field.number && groups.get(number) == Some(group);
        // What is set before is to be taken back.
        field.quick = None;
        field.others =
            columns.iter().filter(|(_, n)| other(n)).map(|(column, _)| *column).collect();
        field.other_numbers = groups.keys().copied().filter(other).collect();
    }
}

fn field_plan(w: &RecordField, r: &RecordField) -> (Many, ValuePlan) {
    let (Some(wp), Some(rp)) = (&w.proto, &r.proto) else {
        return (Many::One, refuse(ProtoValue::Bytes, "it is of no message"));
    };
    let element = |ty: &ValueType| match &ty.kind {
        Kind::Array(inner) | Kind::Map(inner) => inner.as_ref().clone(),
        _ => ty.clone(),
    };
    let (we, re) = (element(&w.ty), element(&r.ty));
    let plan = value(&wp.value, &we, &rp.value, &re);
    match (&wp.key, &rp.key) {
        (Some(key), Some(_)) => (Many::Map(key.clone()), plan),
        (None, None) if matches!(r.ty.kind, Kind::Array(_)) => (Many::List, plan),
        (None, None) => (Many::One, plan),
        (None, Some(_)) => (Many::One, refuse(ProtoValue::Bytes, "the writer's is no map")),
        (Some(_), None) => (Many::One, refuse(ProtoValue::Bytes, "the writer's is a map")),
    }
}

fn refuse(wire: ProtoValue, why: &str) -> ValuePlan {
    ValuePlan { wire, shown: Shown::Refuse(why.to_owned()) }
}

fn value(w: &ProtoValue, wt: &ValueType, r: &ProtoValue, rt: &ValueType) -> ValuePlan {
    let is_time = matches!(rt.logical, Some(Logical::Timestamp(_)));
    let shown = match (w, &wt.kind, &rt.kind) {
        (ProtoValue::Wrapper(inner), ..) => {
            let r = if let ProtoValue::Wrapper(r) = r { r } else { r };
            Shown::Wrapper(Box::new(value(inner, wt, r, rt)))
        }
        (ProtoValue::Timestamp, ..) if is_time => Shown::Timestamp,
        _ if is_time => Shown::Refuse("the writer's is no Timestamp".to_owned()),
        (ProtoValue::Timestamp, ..) => Shown::Refuse("the writer's is a Timestamp".to_owned()),
        (ProtoValue::Message | ProtoValue::Group, Kind::Record(_), Kind::Record(r))
            if r.fields.is_empty() =>
        {
            Shown::Present
        }
        (ProtoValue::Message | ProtoValue::Group, Kind::Record(w), Kind::Record(r)) => {
            Shown::Message(message(w, r))
        }
        (ProtoValue::Json(message), ..) if rt.logical == Some(Logical::Json) => {
            Shown::Json(message.clone())
        }
        // It was no message within itself when this was written.
        (ProtoValue::Message, ..) if rt.logical == Some(Logical::Json) => match r {
            ProtoValue::Json(message) => Shown::Json(message.clone()),
            _ => Shown::Refuse("the table's is no message".to_owned()),
        },
        (ProtoValue::Message | ProtoValue::Json(_), _, Kind::Bytes) => Shown::Scalar,
        (ProtoValue::Message | ProtoValue::Group | ProtoValue::Json(_), ..)
        | (_, _, Kind::Record(_)) => {
            Shown::Refuse("of writer and table, one alone has a message".to_owned())
        }
        (ProtoValue::Enum(names), _, Kind::Enum(_)) => Shown::Symbol(Arc::clone(names)),
        (_, _, Kind::Enum(_)) => match r {
            ProtoValue::Enum(names) => Shown::Symbol(Arc::clone(names)),
            _ => Shown::Scalar,
        },
        _ => Shown::Scalar,
    };
    ValuePlan { wire: w.clone(), shown }
}
