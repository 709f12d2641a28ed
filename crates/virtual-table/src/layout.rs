//! The columns of hot files in a merged table, as the metadata file that their recipes name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{
    ArrowError, DataType, Field, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef,
};
use iceberg::spec::{Schema, SchemaRef};
use isk_iceberg_table::{ROW_ID_FIELD, ROW_ID_NAME, row_id};
use isk_model::{KafkaPartition, Offset};
use serde_json::{Value, json};

/// The columns of hot files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    /// The topic's columns, under the table's field ids.
    pub columns: SchemaRef,
    /// Whether a column of row ids follows them.
    pub row_ids: bool,
}

impl Layout {
    /// The columns as the JSON of a schema.
    pub(crate) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        if !self.row_ids {
            return serde_json::to_vec(self.columns.as_ref());
        }
        let mut schema = serde_json::to_value(self.columns.as_ref())?;
        if let Some(fields) = schema.get_mut("fields").and_then(Value::as_array_mut) {
            fields.push(json!({
                "id": ROW_ID_FIELD, "name": ROW_ID_NAME, "required": false, "type": "long"
            }));
        }
        serde_json::to_vec(&schema)
    }

    /// Reads what [`Layout::to_bytes`] wrote.
    pub(crate) fn from_bytes(bytes: &[u8]) -> serde_json::Result<Self> {
        let mut schema: Value = serde_json::from_slice(bytes)?;
        let mut row_ids = false;
        if let Some(fields) = schema.get_mut("fields").and_then(Value::as_array_mut) {
            let columns = fields.len();
            fields.retain(|field| field.get("id") != Some(&ROW_ID_FIELD.into()));
            row_ids = fields.len() < columns;
        }
        let columns: Schema = serde_json::from_value(schema)?;
        Ok(Self { columns: Arc::new(columns), row_ids })
    }
}

/// The schema of a file whose rows have ids.
pub(crate) fn with_row_ids(columns: &ArrowSchema) -> ArrowSchemaRef {
    let id = HashMap::from([("PARQUET:field_id".to_owned(), ROW_ID_FIELD.to_string())]);
    let column = Field::new(ROW_ID_NAME, DataType::Int64, true).with_metadata(id);
    let fields: Vec<_> = columns.fields().iter().cloned().chain([Arc::new(column)]).collect();
    Arc::new(ArrowSchema::new_with_metadata(fields, columns.metadata().clone()))
}

/// The batch with its rows' ids, under the schema of [`with_row_ids`].
pub(crate) fn add_row_ids(
    batch: &RecordBatch,
    partition: KafkaPartition,
    offset_column: usize,
    schema: &ArrowSchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let offsets = batch.column(offset_column).as_primitive::<Int64Type>();
    let ids: Int64Array = offsets.values().iter().map(|&o| row_id(partition, Offset(o))).collect();
    let ids: ArrayRef = Arc::new(ids);
    let columns = batch.columns().iter().cloned().chain([ids]).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{NestedField, PrimitiveType, Type};

    use super::*;

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        let field = NestedField::optional(7, "kafka_offset", Type::Primitive(PrimitiveType::Long));
        let schema = Schema::builder().with_fields([Arc::new(field)]).build().unwrap();
        let columns = Arc::new(schema);
        for row_ids in [false, true] {
            let layout = Layout { columns: Arc::clone(&columns), row_ids };
            let bytes = layout.to_bytes().unwrap();
            assert_eq!(Layout::from_bytes(&bytes).unwrap(), layout);
            assert_eq!(String::from_utf8(bytes).unwrap().contains("_row_id"), row_ids);
        }
        let plain = Layout { columns: Arc::clone(&columns), row_ids: false };
        assert_eq!(plain.to_bytes().unwrap(), serde_json::to_vec(columns.as_ref()).unwrap());
        assert!(Layout::from_bytes(b"{").is_err());
    }

    #[test]
    fn an_id_is_that_of_the_record_whatever_rows_stand_before_it() {
        let columns = ArrowSchema::new(vec![Field::new("o", DataType::Int64, false)]);
        let schema = with_row_ids(&columns);
        let batch = |offsets: Vec<i64>| {
            let offsets: ArrayRef = Arc::new(Int64Array::from(offsets));
            let batch = RecordBatch::try_new(Arc::new(columns.clone()), vec![offsets]).unwrap();
            let with_ids = add_row_ids(&batch, KafkaPartition(1), 0, &schema).unwrap();
            with_ids.column(1).as_primitive::<Int64Type>().values().to_vec()
        };
        assert_eq!(batch(vec![3, 9])[1], batch(vec![9])[0]);
        assert_eq!(Some(batch(vec![9])[0]), row_id(KafkaPartition(1), Offset(9)));
    }
}
