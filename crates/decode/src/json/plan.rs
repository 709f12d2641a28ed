//! What to do with JSON values: one plan per writer schema and table.
//!
//! JSON says itself what a value is, so the plan follows the table's type. The writer's type is asked only
//! where one JSON value can mean several: a number that is a time, a text that is Base64.

use std::collections::HashMap;

use isk_schema::{Kind, Logical, RecordType, ValueType};

use super::rest::Brackets;
use crate::plan::Place;
use crate::resolve::{cells, micros};

/// Reads one value that is not null, and appends it to a column. Null is null in every column.
pub(crate) enum JsonPlan {
    /// Nothing but null.
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    /// Base64.
    Binary,
    Decimal {
        precision: u32,
        scale: u32,
        /// The column's scale less that of the writer's unscaled numbers in Base64, where it has such.
        shift: Option<i32>,
    },
    /// `YYYY-MM-DD`, or a number of days where the writer has such.
    Date {
        days: bool,
    },
    /// A number of milliseconds.
    Time,
    /// RFC 3339, or a number: times `mul`, by `div`, it is microseconds.
    Timestamp {
        number: Option<(i64, i64)>,
    },
    Uuid,
    /// Any value's own text.
    Json,
    List(JsonElements),
    Map(JsonElements),
    Record(JsonRecord),
    /// An object into a column of true values.
    Present,
    /// What the writer means cannot be shown in the column.
    Refuse(&'static str),
}

impl JsonPlan {
    /// What a value is set in, where there may be members in it that have no place.
    fn opens(&self) -> Option<Brackets> {
        match self {
            Self::Record(_) => Some(Brackets::Object),
            Self::List(elements) => elements.opens.map(|_| Brackets::List),
            Self::Map(elements) => elements.opens.map(|_| Brackets::Object),
            _ => None,
        }
    }
}

/// The elements of an array, or the values of an object without fixed keys.
pub(crate) struct JsonElements {
    pub plan: Box<JsonPlan>,
    /// Whether there may be members without a place in an element.
    pub opens: Option<Brackets>,
    /// How many cells an element unfolds to.
    pub cells: u64,
}

/// The members of an object.
#[derive(Default)]
pub(crate) struct JsonRecord {
    /// In the columns' order.
    pub fields: Vec<JsonField>,
    pub by_name: HashMap<String, usize>,
    /// The column of the members that are not among the fields.
    pub rest: Option<(usize, JsonElements)>,
    /// The column of their JSON text, together with that of nested objects' members without a place.
    pub rest_text: Option<usize>,
}

pub(crate) struct JsonField {
    pub name: String,
    /// The name as JSON text has it between quotes.
    pub key: String,
    /// The key as producers write it, in its quotes; empty where there is something to escape in it.
    pub quoted: Vec<u8>,
    /// Whether there may be members without a place in its value.
    pub opens: Option<Brackets>,
    /// Its column: fields and columns are in the same order, but for the one of the rest.
    pub plan: JsonPlan,
}

/// The plan for payloads as whole rows of a table.
pub(crate) fn rows(w: &ValueType, r: &ValueType, place: Place) -> JsonRows {
    match (&r.kind, place) {
        (_, Place::Column { at, name, .. }) => JsonRows::One { at, name, plan: plan(Some(w), r) },
        (Kind::Record(record), Place::Spread) => JsonRows::Spread(fields(Some(w), record)),
        (_, Place::Spread) => JsonRows::Spread(JsonRecord::default()),
    }
}

/// See [`rows`].
pub(crate) enum JsonRows {
    Spread(JsonRecord),
    One { at: usize, name: String, plan: JsonPlan },
}

fn plan(w: Option<&ValueType>, r: &ValueType) -> JsonPlan {
    let w = w.unwrap_or(r);
    if let Some(logical) = r.logical {
        match logical {
            Logical::Decimal { precision, scale } => return decimal(w, precision, scale),
            Logical::Date => return JsonPlan::Date { days: w.kind == Kind::Int && has_logical(w) },
            Logical::Time(_) if w.kind == Kind::Int && has_logical(w) => return JsonPlan::Time,
            Logical::Time(_) => return JsonPlan::Refuse("the writer's are no times"),
            Logical::Timestamp(_) => {
                let number = match (&w.kind, w.logical) {
                    (Kind::Long, Some(Logical::Timestamp(unit))) => Some(micros(unit)),
                    _ => None,
                };
                return JsonPlan::Timestamp { number };
            }
            Logical::Uuid => return JsonPlan::Uuid,
            Logical::Json => return JsonPlan::Json,
            Logical::Rest | Logical::LocalTimestamp(_) | Logical::Duration => {}
        }
    }
    match &r.kind {
        Kind::Boolean => JsonPlan::Boolean,
        Kind::Int | Kind::Long if has_logical(w) => {
            JsonPlan::Refuse("the writer's number is a time")
        }
        Kind::Int => JsonPlan::Int,
        Kind::Long => JsonPlan::Long,
        Kind::Float => JsonPlan::Float,
        Kind::Double => JsonPlan::Double,
        Kind::String | Kind::Enum(_) => JsonPlan::Text,
        Kind::Bytes if w.kind == Kind::Bytes => JsonPlan::Binary,
        Kind::Bytes | Kind::Fixed(_) => JsonPlan::Refuse("the writer's text is no Base64"),
        Kind::Array(element) => {
            let w = if let Kind::Array(w) = &w.kind { Some(w.as_ref()) } else { None };
            JsonPlan::List(elements(w, element, 0))
        }
        Kind::Map(value) => {
            let w = if let Kind::Map(w) = &w.kind { Some(w.as_ref()) } else { None };
            JsonPlan::Map(elements(w, value, 1))
        }
        Kind::Record(record) if record.fields.is_empty() => JsonPlan::Present,
        Kind::Record(record) => JsonPlan::Record(fields(Some(w), record)),
        Kind::Null | Kind::Union(_) | Kind::Recursive(_) => JsonPlan::Null,
    }
}

/// Whether a number is a time of some kind: without being told, it cannot be seen.
fn has_logical(w: &ValueType) -> bool {
    w.logical.is_some() && matches!(w.kind, Kind::Int | Kind::Long)
}

fn decimal(w: &ValueType, precision: u32, scale: u32) -> JsonPlan {
    let shift = match (&w.kind, w.logical) {
        (Kind::Bytes, Some(Logical::Decimal { scale: from, .. })) => {
            i32::try_from(i64::from(scale) - i64::from(from)).ok()
        }
        _ => None,
    };
    JsonPlan::Decimal { precision, scale, shift }
}

fn elements(w: Option<&ValueType>, r: &ValueType, key: u64) -> JsonElements {
    let plan = plan(w, r);
    JsonElements { opens: plan.opens(), plan: Box::new(plan), cells: cells(r) + key }
}

fn quoted(name: &str) -> Vec<u8> {
    match name.bytes().any(|b| matches!(b, b'"' | b'\\' | 0..0x20)) {
        true => Vec::new(),
        false => format!("\"{name}\"").into_bytes(),
    }
}

fn escaped(name: &str) -> String {
    let text = serde_json::Value::from(name).to_string();
    text.get(1..text.len() - 1).unwrap_or_default().to_owned()
}

fn fields(w: Option<&ValueType>, r: &RecordType) -> JsonRecord {
    let writers: HashMap<&str, &ValueType> = match w.map(|w| &w.kind) {
        Some(Kind::Record(w)) => w.fields.iter().map(|f| (f.name.as_str(), &f.ty)).collect(),
        _ => HashMap::new(),
    };
    let (mut named, mut rest, mut rest_text) = (Vec::with_capacity(r.fields.len()), None, None);
    for (column, field) in r.fields.iter().enumerate() {
        match (&field.ty.kind, field.ty.logical) {
            (Kind::Map(value), Some(Logical::Rest)) => {
                rest = Some((column, elements(None, value, 1)));
            }
            (Kind::String, Some(Logical::Rest)) => rest_text = Some(column),
            _ => {
                let w = writers.get(field.name.as_str()).copied();
                let (name, plan) = (field.name.clone(), plan(w, &field.ty));
                let opens = plan.opens();
                let key = escaped(&name);
                named.push(JsonField { quoted: quoted(&name), name, key, opens, plan });
            }
        }
    }
    let by_name = named.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect();
    JsonRecord { fields: named, by_name, rest, rest_text }
}
