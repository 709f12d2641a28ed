//! The columns of the table of a topic's records that do not decode.

use std::sync::Arc;

use iceberg::spec::{NestedField, PrimitiveType, Schema, Type};

use crate::error::SchemaError;
use crate::metadata::{self, MetadataColumn};
use crate::table::TableSchema;

/// `string`: the part that failed: `value`, `key`, or `value, key`.
pub const ERROR_PART: MetadataColumn = metadata::column("part", 30);
/// `string`: the step at which it failed: `framing`, `lookup`, `resolution`, `decode` or `conversion`. The
/// value's where both parts failed.
pub const ERROR_STAGE: MetadataColumn = metadata::column("stage", 31);
/// `string`: what is wrong, and in which field.
pub const ERROR_CAUSE: MetadataColumn = metadata::column("cause", 32);
/// `int`: the registry's id of the schema that the part names; null where it names none.
pub const ERROR_SCHEMA_ID: MetadataColumn = metadata::column("schema_id", 33);
/// `string`: the registry's GUID of that schema, where a header of the record has it.
pub const ERROR_SCHEMA_GUID: MetadataColumn = metadata::column("schema_guid", 34);

/// The table of a topic's records that do not decode under `topic`: where they are, why, and their bytes.
/// Its [`TableSchema::value`] and [`TableSchema::key`] are the topic's, by which they are told.
///
/// # Errors
/// [`SchemaError::Iceberg`] where the columns make no schema: a defect of this crate.
pub fn error_table(topic: &TableSchema) -> Result<TableSchema, SchemaError> {
    let kafka = metadata::columns(Type::Primitive(PrimitiveType::Binary));
    let kafka = |column: MetadataColumn| kafka.iter().find(|f| f.id == column.id.0).cloned();
    let primitive = |column: MetadataColumn, ty| {
        Some(Arc::new(NestedField::optional(column.id.0, column.name, Type::Primitive(ty))))
    };
    let fields = [
        kafka(metadata::KAFKA_PARTITION),
        kafka(metadata::KAFKA_OFFSET),
        kafka(metadata::KAFKA_TIMESTAMP),
        primitive(ERROR_PART, PrimitiveType::String),
        primitive(ERROR_STAGE, PrimitiveType::String),
        primitive(ERROR_CAUSE, PrimitiveType::String),
        primitive(ERROR_SCHEMA_ID, PrimitiveType::Int),
        primitive(ERROR_SCHEMA_GUID, PrimitiveType::String),
        kafka(metadata::KAFKA_KEY),
        Some(metadata::value_column(Type::Primitive(PrimitiveType::Binary))),
        kafka(metadata::KAFKA_HEADERS),
    ];
    let iceberg = Schema::builder()
        .with_fields(fields.into_iter().flatten())
        .build()
        .map_err(|e| SchemaError::Iceberg(e.to_string()))?;
    Ok(TableSchema { iceberg: Arc::new(iceberg), ..topic.clone() })
}
