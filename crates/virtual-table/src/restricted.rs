//! Tables for callers under rules about columns: hidden columns are not in them, masked ones hold nulls.
//!
//! Such a table is a view of its own, in a folder of its own (see `isk_model::ColumnRules`). Its files are decoded as
//! the topic's are, and lose what is not shown before anything is encoded: neither bounds nor counts of them can be in
//! footers, facts or manifests.

use std::sync::Arc;

use arrow_array::{RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Schema as ArrowSchema, SchemaRef};
use iceberg::spec::{NestedField, Schema};
use isk_model::{ColumnRules, Seen, TopicName};
use isk_schema::{TableSchema, ValueKind};

use crate::api::{HOTSET, ServiceError};
use crate::plan::View;
use crate::service::Service;
use crate::table_rules::RowLayout;

impl Service {
    /// The view of a table of the hotset's for a caller under rules about its columns.
    ///
    /// # Errors
    /// [`ServiceError::Withheld`]: the table cannot be shown without what the rules hide.
    pub(crate) fn restricted_view<'t>(
        &self,
        namespace: &str,
        table: &'t str,
        columns: &Arc<ColumnRules>,
    ) -> Result<(View, &'t str), ServiceError> {
        let refused = |reason: &str| Err(withheld(format!("{namespace}.{table}"), reason));
        if namespace != HOTSET {
            return refused("its files and records are shown as they are, or not at all");
        }
        let (view, topic) = self.hot_table(table);
        let own = TopicName::new(topic).map(|name| self.rules.layout(&name)).unwrap_or_default();
        match (view, own) {
            (View::Hot, RowLayout::Flat) => Ok((View::Restricted(Arc::clone(columns)), topic)),
            (View::Hot | View::As(_), _) => refused(
                "it shows records as a whole: only a topic's own table, with a column per field, can be shown",
            ),
            _ => refused("only the topic's own table can be shown without some of its columns"),
        }
    }
}

pub(crate) fn withheld(what: String, reason: &str) -> ServiceError {
    ServiceError::Withheld { what, reason: reason.to_owned() }
}

/// The columns of a table as they are under rules.
///
/// # Errors
/// [`ServiceError::Withheld`] where the rules cannot say what is to be hidden.
pub(crate) fn restricted(
    table: &TableSchema,
    topic: &TopicName,
    rules: &ColumnRules,
) -> Result<TableSchema, ServiceError> {
    if let ValueKind::Several(_) = &table.value {
        let reason = "it has a column for each of its types of record, and rules about columns cannot tell what is in \
                      them";
        return Err(withheld(format!("{HOTSET}.{topic}"), reason));
    }
    let fields = table.iceberg.as_struct().fields().iter();
    let fields = fields.filter_map(|field| match rules.seen(&field.name) {
        Seen::Hidden => None,
        Seen::Shown => Some(Arc::clone(field)),
        Seen::Masked if !field.required => Some(Arc::clone(field)),
        Seen::Masked => Some(Arc::new(NestedField { required: false, ..field.as_ref().clone() })),
    });
    let schema = Schema::builder().with_fields(fields).build();
    let schema = schema
        .map_err(|e| ServiceError::Internal(format!("columns of {topic} under rules: {e}")))?;
    Ok(TableSchema { iceberg: Arc::new(schema), ..table.clone() })
}

/// What a file's batches lose.
pub(crate) struct Restriction {
    /// The places of the columns that stay, and whether they are masked.
    stay: Vec<(usize, bool)>,
    schema: SchemaRef,
}

impl Restriction {
    /// What batches of this schema lose under rules.
    pub(crate) fn new(rules: &ColumnRules, schema: &ArrowSchema) -> Self {
        let (mut stay, mut fields) = (Vec::new(), Vec::new());
        for (place, field) in schema.fields().iter().enumerate() {
            match rules.seen(field.name()) {
                Seen::Hidden => {}
                Seen::Shown => {
                    stay.push((place, false));
                    fields.push(Arc::clone(field));
                }
                Seen::Masked => {
                    stay.push((place, true));
                    fields.push(Arc::new(field.as_ref().clone().with_nullable(true)));
                }
            }
        }
        let schema = ArrowSchema::new_with_metadata(fields, schema.metadata().clone());
        Self { stay, schema: Arc::new(schema) }
    }

    /// The schema of what is left.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What is left of a batch.
    pub(crate) fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = self.stay.iter().map(|&(place, masked)| {
            let column = batch.column(place);
            match masked {
                true => new_null_array(column.data_type(), batch.num_rows()),
                false => Arc::clone(column),
            }
        });
        RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, ArrayRef, Int64Array, StringArray};
    use arrow_schema::{DataType, Field};
    use isk_model::ColumnRule;

    use super::*;

    #[test]
    fn what_is_hidden_is_gone_and_what_is_masked_is_null() {
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let rule = ColumnRule::new(None, &names(&["CARD"]), &names(&["email"])).unwrap();
        let rules = ColumnRules::new([rule]).unwrap();
        let schema = Arc::new(ArrowSchema::new(vec![
            Field::new("card", DataType::Utf8, true),
            Field::new("email", DataType::Utf8, false),
            Field::new("kafka_offset", DataType::Int64, false),
        ]));
        let text = |text: &str| Arc::new(StringArray::from(vec![text; 2])) as ArrayRef;
        let offsets: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
        let columns = vec![text("4111"), text("a@b"), offsets];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let left = Restriction::new(&rules, &schema).apply(&batch).unwrap();
        let fields: Vec<&str> =
            left.schema_ref().fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(fields, ["email", "kafka_offset"]);
        assert_eq!((left.column(0).null_count(), left.column(1).null_count()), (2, 0));
    }
}
