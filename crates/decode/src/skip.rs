//! Skipping what a writer wrote and the table does not show.

use std::sync::Arc;

use isk_schema::{Kind, ValueType};

use crate::avro_text::{Definitions, TextPlan};
use crate::cursor::Cursor;
use crate::error::Read;

/// How to skip a value.
pub(crate) enum Skip {
    /// So many bytes.
    Bytes(usize),
    Varint,
    /// A length and bytes.
    Sized,
    Array {
        min_size: usize,
        element: Box<Skip>,
    },
    Map {
        min_size: usize,
        value: Box<Skip>,
    },
    Union(Vec<Skip>),
    Record(Vec<Skip>),
    /// What it would be as text.
    Text(TextPlan),
}

impl Skip {
    /// For values of a type within a schema.
    pub(crate) fn of(ty: &ValueType, definitions: &Arc<Definitions>) -> Self {
        let of = |ty| Self::of(ty, definitions);
        match &ty.kind {
            Kind::Null => Self::Bytes(0),
            Kind::Boolean => Self::Bytes(1),
            Kind::Int | Kind::Long | Kind::Enum(_) => Self::Varint,
            Kind::Float => Self::Bytes(4),
            Kind::Double => Self::Bytes(8),
            Kind::Bytes | Kind::String => Self::Sized,
            Kind::Fixed(t) => Self::Bytes(t.size),
            Kind::Array(element) => {
                Self::Array { min_size: min_size(element), element: Box::new(of(element)) }
            }
            Kind::Map(value) => {
                Self::Map { min_size: 1 + min_size(value), value: Box::new(of(value)) }
            }
            Kind::Union(branches) => Self::Union(branches.iter().map(of).collect()),
            Kind::Record(record) => Self::Record(record.fields.iter().map(|f| of(&f.ty)).collect()),
            Kind::Recursive(_) => {
                Self::Text(TextPlan { ty: ty.clone(), definitions: Arc::clone(definitions) })
            }
        }
    }

    pub(crate) fn run(&self, cur: &mut Cursor<'_>) -> Read<()> {
        match self {
            Self::Bytes(n) => cur.take(*n).map(drop),
            Self::Varint => cur.long().map(drop),
            Self::Sized => cur.bytes().map(drop),
            Self::Array { min_size, element } => cur.skip_blocks(*min_size, |cur| element.run(cur)),
            Self::Map { min_size, value } => cur.skip_blocks(*min_size, |cur| {
                cur.bytes()?;
                value.run(cur)
            }),
            Self::Union(branches) => {
                let index = cur.index(branches.len(), "union branch")?;
                branches[index].run(cur)
            }
            Self::Text(plan) => plan.run(cur, &mut Vec::new()),
            Self::Record(fields) => fields.iter().try_for_each(|field| field.run(cur)),
        }
    }
}

/// The least bytes a value takes. Where it is 0, every value takes none.
pub(crate) fn min_size(ty: &ValueType) -> usize {
    match &ty.kind {
        Kind::Null => 0,
        Kind::Float => 4,
        Kind::Double => 8,
        Kind::Fixed(t) => t.size,
        Kind::Record(record) => {
            record.fields.iter().fold(0, |sum, f| usize::saturating_add(sum, min_size(&f.ty)))
        }
        Kind::Boolean
        | Kind::Int
        | Kind::Long
        | Kind::Bytes
        | Kind::String
        | Kind::Enum(_)
        | Kind::Array(_)
        | Kind::Map(_)
        | Kind::Union(_)
        // It ends in a union, an array or a map.
        | Kind::Recursive(_) => 1,
    }
}
