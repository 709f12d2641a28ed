//! The Arrow schema of a table's batches.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_schema::extension::{EXTENSION_TYPE_NAME_KEY, ExtensionType, Uuid};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use iceberg::arrow::schema_to_arrow_schema;
use iceberg::spec::{NestedFieldRef, PrimitiveType, Type};
use isk_schema::TableSchema;

use crate::error::DecodeError;

/// The metadata key under which a field's Iceberg id stands.
const FIELD_ID: &str = "PARQUET:field_id";

/// The Arrow schema of a table's batches: Iceberg's own mapping, with `PARQUET:field_id` on every
/// nested field. UUIDs carry Arrow's extension type, without which Parquet would show them as any
/// sixteen bytes.
///
/// # Errors
/// [`DecodeError::Schema`] where Iceberg has no Arrow type for a column.
pub fn arrow_schema(table: &TableSchema) -> Result<SchemaRef, DecodeError> {
    let schema =
        schema_to_arrow_schema(&table.iceberg).map_err(|e| DecodeError::Schema(e.to_string()))?;
    let mut uuids = BTreeSet::new();
    for field in table.iceberg.as_struct().fields() {
        collect_uuids(field, &mut uuids);
    }
    if uuids.is_empty() {
        return Ok(Arc::new(schema));
    }
    let fields: Vec<FieldRef> = schema.fields().iter().map(|f| annotated(f, &uuids)).collect();
    Ok(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())))
}

fn collect_uuids(field: &NestedFieldRef, uuids: &mut BTreeSet<String>) {
    match field.field_type.as_ref() {
        Type::Primitive(PrimitiveType::Uuid) => {
            uuids.insert(field.id.to_string());
        }
        Type::Primitive(_) => {}
        Type::Struct(inner) => inner.fields().iter().for_each(|f| collect_uuids(f, uuids)),
        Type::List(list) => collect_uuids(&list.element_field, uuids),
        Type::Map(map) => {
            collect_uuids(&map.key_field, uuids);
            collect_uuids(&map.value_field, uuids);
        }
    }
}

fn annotated(field: &FieldRef, uuids: &BTreeSet<String>) -> FieldRef {
    let inside = match field.data_type() {
        DataType::Struct(fields) => {
            Some(DataType::Struct(fields.iter().map(|f| annotated(f, uuids)).collect()))
        }
        DataType::List(element) => Some(DataType::List(annotated(element, uuids))),
        DataType::Map(entries, sorted) => Some(DataType::Map(annotated(entries, uuids), *sorted)),
        _ => None,
    };
    let mut new: Field = field.as_ref().clone();
    if let Some(data_type) = inside {
        new = new.with_data_type(data_type);
    }
    if field.metadata().get(FIELD_ID).is_some_and(|id| uuids.contains(id)) {
        let mut metadata = new.metadata().clone();
        metadata.insert(EXTENSION_TYPE_NAME_KEY.to_owned(), Uuid::NAME.to_owned());
        new = new.with_metadata(metadata);
    }
    Arc::new(new)
}
