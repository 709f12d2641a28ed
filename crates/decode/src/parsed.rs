//! A writer's schema, read from its text, of whatever format.

use isk_model::SchemaFormat;
use isk_schema::{AvroType, PlainKind, ProtoSchema, SchemaError, SchemaText};

/// A writer's schema, read.
pub(crate) enum Parsed {
    Avro(AvroType),
    Json(AvroType),
    Protobuf(ProtoSchema),
    Plain(PlainKind),
}

impl Parsed {
    pub(crate) fn of(text: &SchemaText) -> Result<Self, SchemaError> {
        Ok(match text.format {
            SchemaFormat::Avro => Self::Avro(text.parse()?),
            SchemaFormat::Json => Self::Json(text.parse()?),
            SchemaFormat::Protobuf => {
                Self::Protobuf(ProtoSchema::parse(&text.text, &text.references)?)
            }
            SchemaFormat::Plain => match PlainKind::of_name(&text.text) {
                Some(kind) => Self::Plain(kind),
                // It says so.
                None => text.parse().map(Self::Avro)?,
            },
        })
    }

    pub(crate) fn format(&self) -> SchemaFormat {
        match self {
            Self::Avro(_) => SchemaFormat::Avro,
            Self::Json(_) => SchemaFormat::Json,
            Self::Protobuf(_) => SchemaFormat::Protobuf,
            Self::Plain(_) => SchemaFormat::Plain,
        }
    }
}
