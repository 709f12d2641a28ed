//! Why a registered schema gives no table schema.

use isk_model::SchemaFormat;

/// Why a registered schema gives no table schema. Every one of these is final for that schema text:
/// trying again does not help, registering another version does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is no schema of its kind.
    #[error("the schema is no valid {format} schema: {reason} (at {at})")]
    Invalid {
        /// What it should be.
        format: SchemaFormat,
        /// What is wrong.
        reason: String,
        /// Where: a dotted path of field names from the top, or `the top`.
        at: String,
    },
    /// The schema has more columns, or nests deeper, than a table can bear.
    #[error("the schema is too large for a table: {reason}")]
    TooLarge {
        /// Which limit was passed.
        reason: String,
    },
    /// A field's name cannot be a column's name.
    #[error("field {name:?} (at {at}) cannot be a column: {reason}; rename it")]
    BadName {
        /// The field's name.
        name: String,
        /// The record that holds it.
        at: String,
        /// What is wrong with the name.
        reason: &'static str,
    },
    /// The field ids of a table are used up.
    #[error("no field ids are left for this table; recreate the topic under another name")]
    IdsExhausted,
    /// Iceberg's own checks refused the table schema.
    #[error("Iceberg refuses the table schema: {0}")]
    Iceberg(String),
}

impl SchemaError {
    pub(crate) fn invalid(at: &str, reason: impl Into<String>) -> Self {
        Self::of(SchemaFormat::Avro, at, reason)
    }

    pub(crate) fn of(format: SchemaFormat, at: &str, reason: impl Into<String>) -> Self {
        Self::Invalid { format, reason: reason.into(), at: at.to_owned() }
    }
}
