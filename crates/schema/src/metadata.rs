//! The columns every hot table has beside its value fields, with their fixed field ids.

use std::sync::Arc;

use iceberg::spec::{ListType, NestedField, NestedFieldRef, PrimitiveType, StructType, Type};

use crate::ids::FieldId;

/// A metadata column's name and field id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataColumn {
    /// The column's name.
    pub name: &'static str,
    /// Its field id, the same in every table.
    pub id: FieldId,
}

pub(crate) const fn column(name: &'static str, id: i32) -> MetadataColumn {
    MetadataColumn { name, id: FieldId(id) }
}

/// `int`, required: the record's Kafka partition.
pub const KAFKA_PARTITION: MetadataColumn = column("kafka_partition", 1);
/// `long`, required: the record's offset.
pub const KAFKA_OFFSET: MetadataColumn = column("kafka_offset", 2);
/// `timestamptz`: the record's timestamp in microseconds; null where Kafka has none.
pub const KAFKA_TIMESTAMP: MetadataColumn = column("kafka_timestamp", 3);
/// `string`: where the timestamp came from.
pub const KAFKA_TIMESTAMP_TYPE: MetadataColumn = column("kafka_timestamp_type", 4);
/// The record's key: `binary`, or the type of the key's schema.
pub const KAFKA_KEY: MetadataColumn = column("kafka_key", 5);
/// `list<struct<key string, value binary>>`: the record's headers in order; empty where there are none.
pub const KAFKA_HEADERS: MetadataColumn = column("kafka_headers", 6);
/// The element of [`KAFKA_HEADERS`].
pub const KAFKA_HEADERS_ELEMENT: MetadataColumn = column("element", 7);
/// A header's key.
pub const KAFKA_HEADERS_KEY: MetadataColumn = column("key", 8);
/// A header's value.
pub const KAFKA_HEADERS_VALUE: MetadataColumn = column("value", 9);
/// The record's value as a whole: `binary`, as it is, where a topic has no value schema or is shown raw; `string`
/// where it is shown as JSON text.
pub const KAFKA_VALUE: MetadataColumn = column("kafka_value", 10);

/// Field ids of values' fields begin here; those below are the metadata columns' or kept for columns to
/// come.
pub const FIRST_VALUE_FIELD_ID: FieldId = FieldId(100);

/// Names no value field's column may have, compared ignoring case.
pub(crate) const RESERVED_NAMES: [&str; 7] = [
    KAFKA_PARTITION.name,
    KAFKA_OFFSET.name,
    KAFKA_TIMESTAMP.name,
    KAFKA_TIMESTAMP_TYPE.name,
    KAFKA_KEY.name,
    KAFKA_HEADERS.name,
    KAFKA_VALUE.name,
];

fn required(column: MetadataColumn, ty: Type) -> NestedFieldRef {
    Arc::new(NestedField::required(column.id.0, column.name, ty))
}

fn optional(column: MetadataColumn, ty: Type) -> NestedFieldRef {
    Arc::new(NestedField::optional(column.id.0, column.name, ty))
}

/// The column of the value as a whole.
pub(crate) fn value_column(ty: Type) -> NestedFieldRef {
    optional(KAFKA_VALUE, ty)
}

/// The metadata columns in table order, the key's with the given type.
pub(crate) fn columns(key_type: Type) -> Vec<NestedFieldRef> {
    let header = Type::Struct(StructType::new(vec![
        // Never null. It is optional for writers that copy a table: DuckDB 1.5 refuses lists that are
        // empty throughout where a field in them is required.
        optional(KAFKA_HEADERS_KEY, Type::Primitive(PrimitiveType::String)),
        optional(KAFKA_HEADERS_VALUE, Type::Primitive(PrimitiveType::Binary)),
    ]));
    let headers = Type::List(ListType::new(Arc::new(NestedField::list_element(
        KAFKA_HEADERS_ELEMENT.id.0,
        header,
        true,
    ))));
    vec![
        required(KAFKA_PARTITION, Type::Primitive(PrimitiveType::Int)),
        required(KAFKA_OFFSET, Type::Primitive(PrimitiveType::Long)),
        optional(KAFKA_TIMESTAMP, Type::Primitive(PrimitiveType::Timestamptz)),
        optional(KAFKA_TIMESTAMP_TYPE, Type::Primitive(PrimitiveType::String)),
        optional(KAFKA_KEY, key_type),
        optional(KAFKA_HEADERS, headers),
    ]
}
