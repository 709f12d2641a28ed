//! Plain values: what Kafka's own serializers write, without any schema.

use isk_model::SchemaFormat;

use crate::avro::{Kind, Logical, ValueType};
use crate::error::SchemaError;

/// What one plain value is. Numbers are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainKind {
    /// UTF-8.
    String,
    /// Two bytes.
    Short,
    /// Four bytes.
    Int,
    /// Eight bytes.
    Long,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// A UUID's text of 36 characters.
    Uuid,
}

impl PlainKind {
    const ALL: [(&str, Self); 7] = [
        ("string", Self::String),
        ("short", Self::Short),
        ("int", Self::Int),
        ("long", Self::Long),
        ("float", Self::Float),
        ("double", Self::Double),
        ("uuid", Self::Uuid),
    ];

    /// The kind of a name: `string`, `short`, `int`, `long`, `float`, `double` or `uuid`.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }

    fn ty(self) -> ValueType {
        let kind = match self {
            Self::String | Self::Uuid => Kind::String,
            Self::Short | Self::Int => Kind::Int,
            Self::Long => Kind::Long,
            Self::Float => Kind::Float,
            Self::Double => Kind::Double,
        };
        ValueType { kind, logical: (self == Self::Uuid).then_some(Logical::Uuid) }
    }
}

/// The type of plain values of a name.
pub(crate) fn parse(name: &str) -> Result<ValueType, SchemaError> {
    PlainKind::of_name(name).map(PlainKind::ty).ok_or_else(|| {
        SchemaError::of(SchemaFormat::Plain, "the top", format!("{name:?} is none of its types"))
    })
}
