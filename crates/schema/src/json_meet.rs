//! What several JSON Schemas mean together: all of them (`allOf`), or one or another (`oneOf`).

use std::sync::Arc;

use crate::avro::{Kind, Logical, RecordField, RecordType, ValueType};

/// What a schema says of the type of its values, whether they may be null aside.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meaning {
    /// Nothing.
    Any,
    /// That they are null.
    Null,
    Type(ValueType),
}

impl Meaning {
    /// The type of the column.
    pub(crate) fn ty(self) -> ValueType {
        match self {
            Self::Any => json(),
            Self::Null => ValueType::plain(Kind::Null),
            Self::Type(ty) => ty,
        }
    }

    pub(crate) fn is_record(&self) -> bool {
        matches!(self, Self::Type(ValueType { kind: Kind::Record(_), .. }))
    }
}

/// Values that have no one type: their JSON text.
pub(crate) fn json() -> ValueType {
    ValueType { kind: Kind::String, logical: Some(Logical::Json) }
}

/// A record of JSON: equal fields make it equal, so it has no name of its own.
pub(crate) fn record(fields: Vec<RecordField>) -> Kind {
    let (name, aliases) = ("object".to_owned(), Vec::new());
    Kind::Record(Arc::new(RecordType { name, aliases, fields }))
}

/// The field of the members that `fields` do not name.
pub(crate) fn rest_field(fields: &[RecordField], value: ValueType) -> RecordField {
    let mut name = "additionalProperties".to_owned();
    while fields.iter().any(|field| field.name == name) {
        name.push('_');
    }
    let ty = ValueType { kind: Kind::Map(Arc::new(value)), logical: Some(Logical::Rest) };
    RecordField { name, aliases: Vec::new(), doc: None, ty, default: None, proto: None }
}

/// The field of a record's JSON text that holds all that has no field, however deep it lies.
pub(crate) fn rest_text_field(name: &str) -> RecordField {
    let ty = ValueType { kind: Kind::String, logical: Some(Logical::Rest) };
    RecordField {
        name: name.to_owned(),
        aliases: Vec::new(),
        doc: Some("What has no column of its own, as JSON in the shape of the value".to_owned()),
        ty,
        default: None,
        proto: None,
    }
}

/// The one type that values of any of these types can be shown under.
pub(crate) fn unify(types: Vec<ValueType>) -> ValueType {
    let mut types = types.into_iter().filter(|ty| !ty.is_null());
    let Some(first) = types.next() else { return ValueType::plain(Kind::Null) };
    types.fold(first, |a, b| match (&a, &b) {
        _ if a == b => a,
        _ if is_number(&a) && is_number(&b) => ValueType::plain(wider(&a.kind, &b.kind)),
        _ if is_text(&a) && is_text(&b) => ValueType::plain(Kind::String),
        _ => json(),
    })
}

fn is_number(ty: &ValueType) -> bool {
    ty.logical.is_none() && matches!(ty.kind, Kind::Int | Kind::Long | Kind::Float | Kind::Double)
}

fn wider(a: &Kind, b: &Kind) -> Kind {
    match (a, b) {
        (Kind::Int | Kind::Long, Kind::Int | Kind::Long) => Kind::Long,
        _ => Kind::Double,
    }
}

fn is_text(ty: &ValueType) -> bool {
    ty.kind == Kind::String && ty.logical != Some(Logical::Json)
}

/// What two schemas say of the same values.
pub(crate) fn meet(a: Meaning, b: Meaning) -> Meaning {
    match (a, b) {
        (Meaning::Any, other) | (other, Meaning::Any) => other,
        (Meaning::Null, other) | (other, Meaning::Null) => other,
        (Meaning::Type(a), Meaning::Type(b)) => Meaning::Type(both(a, b)),
    }
}

fn both(a: ValueType, b: ValueType) -> ValueType {
    match (&a.kind, &b.kind) {
        _ if a == b => a,
        // One leaves the type open, the other says it.
        _ if a.logical == Some(Logical::Json) => b,
        _ if b.logical == Some(Logical::Json) => a,
        (Kind::Record(x), Kind::Record(y)) => ValueType::plain(merged(x, y, both)),
        (Kind::Array(x), Kind::Array(y)) => {
            let element = both(x.as_ref().clone(), y.as_ref().clone());
            ValueType::plain(Kind::Array(Arc::new(element)))
        }
        // The narrower one holds for both.
        (Kind::Int | Kind::Long, Kind::Float | Kind::Double) => a,
        (Kind::Float | Kind::Double, Kind::Int | Kind::Long) => b,
        (Kind::String, Kind::String) if a.logical.is_none() => b,
        (Kind::String, Kind::String) if b.logical.is_none() => a,
        _ => json(),
    }
}

/// The fields of two records as those of one. What both have becomes what `same` makes of it.
fn merged(a: &RecordType, b: &RecordType, same: fn(ValueType, ValueType) -> ValueType) -> Kind {
    let is_rest = |field: &&RecordField| field.ty.logical == Some(Logical::Rest);
    let named = |record: &RecordType| -> Vec<RecordField> {
        record.fields.iter().filter(|field| !is_rest(field)).cloned().collect()
    };
    let mut fields = named(a);
    let places: std::collections::HashMap<String, usize> =
        fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect();
    for field in named(b) {
        match places.get(&field.name) {
            Some(&at) => {
                let had = std::mem::replace(&mut fields[at].ty, ValueType::plain(Kind::Null));
                fields[at].ty = same(had, field.ty);
            }
            None => fields.push(field),
        }
    }
    let rests = a.fields.iter().chain(&b.fields).filter(is_rest);
    let text = rests.clone().find(|field| field.ty.kind == Kind::String);
    if let Some(text) = text {
        // It holds what a map of others would.
        fields.push(text.clone());
        return record(fields);
    }
    let values: Vec<ValueType> = rests
        .filter_map(|field| match &field.ty.kind {
            Kind::Map(value) => Some(value.as_ref().clone()),
            _ => None,
        })
        .collect();
    if !values.is_empty() {
        fields.push(rest_field(&fields, unify(values)));
    }
    record(fields)
}

/// What `base` says, where one or another of these parts holds too.
pub(crate) fn alternatives(base: Meaning, parts: Vec<Meaning>) -> Meaning {
    let had_null = parts.contains(&Meaning::Null);
    let any = parts.contains(&Meaning::Any);
    let types: Vec<ValueType> = parts
        .into_iter()
        .filter_map(|part| if let Meaning::Type(ty) = part { Some(ty) } else { None })
        .collect();
    if let Meaning::Type(ValueType { kind: Kind::Record(record), .. }) = &base {
        // It is an object in any case: the parts only add columns that are sometimes there.
        let mut fields = Arc::clone(record);
        for ty in types {
            let Kind::Record(part) = &ty.kind else { continue };
            if let Kind::Record(more) = merged(&fields, part, |a, b| unify(vec![a, b])) {
                fields = more;
            }
        }
        return Meaning::Type(ValueType::plain(Kind::Record(fields)));
    }
    match (types.is_empty(), any) {
        (true, _) if had_null && !any => meet(base, Meaning::Null),
        // A part that says nothing leaves what the base says.
        (true, _) | (false, true) => base,
        (false, false) => meet(base, Meaning::Type(unify(types))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_unify_to_what_shows_both() {
        let plain = ValueType::plain;
        let date = ValueType { kind: Kind::String, logical: Some(Logical::Date) };
        let text = plain(Kind::String);
        for (a, b, shown) in [
            (plain(Kind::Int), plain(Kind::Int), plain(Kind::Int)),
            (plain(Kind::Int), plain(Kind::Long), plain(Kind::Long)),
            (plain(Kind::Long), plain(Kind::Double), plain(Kind::Double)),
            (plain(Kind::Null), plain(Kind::Boolean), plain(Kind::Boolean)),
            (date.clone(), date.clone(), date.clone()),
            (date.clone(), text.clone(), text.clone()),
            (json(), text.clone(), json()),
            (text, plain(Kind::Long), json()),
        ] {
            assert_eq!(unify(vec![a.clone(), b.clone()]), shown, "{a:?} {b:?}");
            assert_eq!(unify(vec![b, a]), shown);
        }
    }
}
