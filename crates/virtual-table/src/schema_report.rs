//! What a topic's schema is and where it comes from, for operators: reports, pins, and discovering anew.

use std::sync::Arc;

use iceberg::spec::{NestedField, Type};
use isk_kafka::TopicDescription;
use isk_model::{SchemaFormat, SchemaVersion};
use isk_schema::{Branches, JsonKind, Kind, Logical, Observed, TableSchema, ValueKind, ValueType};

use crate::api::ServiceError;
use crate::discovery::{PinError, Sample};
use crate::origin::Origin;
use crate::service::Service;

/// How many records are shown as samples, and how many bytes of each.
const SAMPLES: usize = 3;
const SAMPLE_BYTES: usize = 1000;

/// The square of the 97.5th percentile of the normal distribution.
const Z2: f64 = 3.8415;

/// A topic's schema.
#[derive(Debug, Clone)]
pub struct SchemaReport {
    /// The topic's name.
    pub topic: String,
    /// Who says what its values are.
    pub origin: Origin,
    /// The version that is shown; 0 where there is none.
    pub version: SchemaVersion,
    /// The schema's format and text, where its values follow one that they do not name.
    pub schema: Option<(SchemaFormat, String)>,
    /// The columns of the values, each before what is nested in it.
    pub columns: Vec<ColumnReport>,
    /// What was seen of the topic's values, where they were looked at.
    pub sample: Option<Sample>,
    /// When they were sampled last, in milliseconds since 1970.
    pub sampled_ms: i64,
    /// The last records' values, where they were asked for.
    pub samples: Vec<SampledValue>,
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnReport {
    /// The names from the table down to it.
    pub path: Vec<String>,
    /// Its field id.
    pub field_id: i32,
    /// Its Iceberg type; `struct`, `list` or `map` where others are nested in it.
    pub ty: String,
    /// Whether it is text of JSON.
    pub json: bool,
    /// What was seen of it.
    pub seen: Option<Counted>,
}

/// What was seen at one place of sampled values.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The objects, or lists' elements, that could have had a value here.
    pub of: u64,
    /// How many values of each type there were.
    pub kinds: Vec<(JsonKind, u64)>,
    /// Whether a value that is not null was there each time.
    pub always: bool,
    /// How sure it is that the next value fits the column: see [`at_least`].
    pub confidence: f64,
}

/// A record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledValue {
    /// Its Kafka partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The value's first bytes.
    pub value: Vec<u8>,
}

/// The share that values of a kind have at least, with a confidence of 95 %, where `some` of `all` were of it: the
/// lower bound of Wilson's interval. It is 0 where none were seen.
pub fn at_least(some: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    let (n, p) = (all as f64, some as f64 / all as f64);
    let spread = (Z2 * (p * (1.0 - p) / n + Z2 / (4.0 * n * n))).sqrt();
    ((p + Z2 / (2.0 * n) - spread) / (1.0 + Z2 / n)).max(0.0)
}

impl Service {
    /// What a topic's schema is; with the values of its last records, if these are asked for.
    ///
    /// # Errors
    /// There is no such topic, or Kafka or the registry does not answer.
    pub async fn topic_schema(
        &self,
        topic: &str,
        samples: bool,
    ) -> Result<SchemaReport, ServiceError> {
        let topic = self.topics.get(topic).await?;
        let table = self.flat_columns(&topic).await?;
        let mut report = self.report(&topic, &table)?;
        if samples {
            let values = self.last_values(&topic, SAMPLES).await?;
            let values = values.into_iter().map(|(partition, offset, mut value)| {
                value.truncate(SAMPLE_BYTES);
                SampledValue { partition: partition.0, offset: offset.0, value }
            });
            report.samples = values.collect();
        }
        Ok(report)
    }

    /// Pins a schema as what a topic's values are, from the next plan on: this one, or without one that which was
    /// discovered.
    ///
    /// # Errors
    /// It is no schema that a table can follow, or the registry or the configuration says what the topic is.
    pub async fn pin_schema(
        &self,
        topic: &str,
        schema: Option<(SchemaFormat, String)>,
    ) -> Result<SchemaReport, PinError> {
        let found = self.open_topic(topic, "pinned").await?;
        let schema = schema.as_ref().map(|(format, text)| (*format, text.as_str()));
        self.schemas.discovery.pin(&found.name, found.id, schema)?;
        tracing::info!(%topic, overridden = schema.is_some(), "the topic's schema is pinned");
        Ok(self.topic_schema(topic, false).await?)
    }

    /// Takes a pin away, and discovers the topic's schema anew.
    ///
    /// # Errors
    /// The registry or the configuration says what the topic is.
    pub async fn discover_anew(&self, topic: &str) -> Result<SchemaReport, PinError> {
        let found = self.open_topic(topic, "discovered").await?;
        self.schemas.discovery.forget(&found.name, found.id)?;
        tracing::info!(%topic, "the topic's schema is discovered anew");
        Ok(self.topic_schema(topic, false).await?)
    }

    /// A topic of which nobody else says what its values are.
    async fn open_topic(&self, topic: &str, verb: &str) -> Result<Arc<TopicDescription>, PinError> {
        let topic = self.topics.get(topic).await?;
        if !self.schemas.is_open(&topic.name) {
            return Err(PinError::Conflict(format!(
                "the schema of topic {} cannot be {verb}: the configuration (formats.topics) says what its \
                 values are; change it there",
                topic.name
            )));
        }
        let table = self.schemas.current(&topic.name, topic.id).await?;
        if let ValueKind::Framed(..) = table.value {
            return Err(PinError::Conflict(format!(
                "the schema of topic {0} cannot be {verb}: the schema registry has it; register another \
                 version of {0}-value, or delete that subject",
                topic.name
            )));
        }
        Ok(topic)
    }

    fn report(
        &self,
        topic: &TopicDescription,
        table: &TableSchema,
    ) -> Result<SchemaReport, ServiceError> {
        let kept = self.schemas.discovery.kept(&topic.name, topic.id)?;
        let seen = (kept.sample.records > 0).then_some(kept.sample);
        let (schema, ty) = match &table.value {
            ValueKind::Bare(text, ty) => {
                (Some((text.format, text.text.clone())), Some(ty.as_ref()))
            }
            ValueKind::Framed(_, ty) => (None, Some(ty.as_ref())),
            ValueKind::None | ValueKind::JsonText | ValueKind::Several(_) | ValueKind::OneOf(_) => {
                (None, None)
            }
        };
        let observed = seen.as_ref().map(|sample| (&sample.observed, sample.objects));
        let mut columns = Vec::new();
        let fields = table.iceberg.as_struct().fields().iter().take(table.value_columns());
        for (at, field) in fields.enumerate() {
            let part = ty.and_then(|ty| part(ty, at));
            let seen = match (part, observed) {
                (Some((Some(name), _)), Some((seen, of))) => seen.get(name).map(|seen| (seen, of)),
                _ => None,
            };
            column(field, part.map(|(_, ty)| ty), seen, &[], &mut columns);
        }
        Ok(SchemaReport {
            topic: topic.name.to_string(),
            origin: self.schemas.origin(&topic.name, topic.id, table)?,
            version: table.version,
            schema,
            columns,
            sample: seen,
            sampled_ms: kept.looked_ms,
            samples: Vec::new(),
        })
    }
}

/// The field of a record behind a column, by its place; of another type, the type itself.
fn part(ty: &ValueType, at: usize) -> Option<(Option<&str>, &ValueType)> {
    match &ty.kind {
        Kind::Record(record) => {
            record.fields.get(at).map(|field| (Some(field.name.as_str()), &field.ty))
        }
        Kind::Union(branches) => match Branches::of(branches) {
            Branches::One(branch) => part(branch, at),
            _ => None,
        },
        Kind::Array(element) => Some((None, element)),
        _ => Some((None, ty)),
    }
}

fn column(
    field: &NestedField,
    ty: Option<&ValueType>,
    seen: Option<(&Observed, u64)>,
    above: &[String],
    out: &mut Vec<ColumnReport>,
) {
    let mut path = above.to_vec();
    path.push(field.name.clone());
    let name = match field.field_type.as_ref() {
        Type::Primitive(primitive) => primitive.to_string(),
        Type::Struct(_) => "struct".to_owned(),
        Type::List(_) => "list".to_owned(),
        Type::Map(_) => "map".to_owned(),
    };
    let is_json = |logical| matches!(logical, Some(Logical::Json | Logical::Rest));
    out.push(ColumnReport {
        path: path.clone(),
        field_id: field.id,
        ty: name,
        json: ty.is_some_and(|ty| ty.kind == Kind::String && is_json(ty.logical)),
        seen: seen.map(|(observed, of)| counted(observed, of)),
    });
    match field.field_type.as_ref() {
        Type::Primitive(_) => {}
        Type::Struct(fields) => {
            for (at, field) in fields.fields().iter().enumerate() {
                let part = ty.and_then(|ty| part(ty, at));
                let seen = match (part, seen) {
                    (Some((Some(name), _)), Some((seen, _))) => {
                        seen.get(name).map(|inner| (inner, seen.count(JsonKind::Object)))
                    }
                    _ => None,
                };
                column(field, part.map(|(_, ty)| ty), seen, &path, out);
            }
        }
        Type::List(list) => {
            let elements = seen.and_then(|(seen, _)| seen.elements());
            let seen = elements.map(|elements| (elements, elements.total()));
            let part = ty.and_then(|ty| part(ty, 0));
            column(&list.element_field, part.map(|(_, ty)| ty), seen, &path, out);
        }
        Type::Map(map) => column(&map.value_field, None, None, &path, out),
    }
}

fn counted(observed: &Observed, of: u64) -> Counted {
    let kinds = JsonKind::ALL.into_iter().map(|kind| (kind, observed.count(kind)));
    let values = observed.total() - observed.count(JsonKind::Null);
    Counted {
        of,
        kinds: kinds.filter(|(_, count)| *count > 0).collect(),
        always: values >= of,
        confidence: at_least(values, values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_of_the_same_is_surer_and_never_certain() {
        assert_eq!(at_least(0, 0), 0.0);
        assert_eq!(at_least(0, 10), 0.0);
        let sure: Vec<f64> = [1, 10, 100, 10_000].map(|n| at_least(n, n)).into();
        assert!(sure.is_sorted() && sure[0] > 0.1 && sure[2] > 0.96 && sure[3] < 1.0, "{sure:?}");
        assert!(at_least(95, 100) < 0.95 && at_least(95, 100) > 0.88);
    }
}
