//! A topic's columns: from the registry's subjects, by version, with field ids that stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use isk_decode::WriterSchema;
use isk_kafka::{RegisteredSchema, RegistryError, SchemaRegistry};
use isk_model::{
    RegistrySchemaId, SchemaFormat, SchemaReference, SchemaVersion, TopicId, TopicName,
};
use isk_schema::{FieldIdMap, MAPPING_VERSION, SchemaText, TableSchema, table_schema};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::api::ServiceError;
use crate::store::{Kind, Store};

/// What is kept of a topic's schemas across restarts. The field ids are the truth; the histories
/// allow to read a file of an older schema version without asking the registry again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct SchemaRecord {
    mapping_version: u32,
    value: BTreeMap<u32, StoredSchema>,
    key: BTreeMap<u32, StoredSchema>,
    ids: FieldIdMap,
}

/// A registered schema as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredSchema {
    id: i32,
    /// The registry's name of its type; what was kept before there were several is Avro.
    #[serde(default = "avro")]
    format: String,
    text: String,
    /// The texts of the schemas it refers to, and what it calls them.
    references: Vec<String>,
    #[serde(default)]
    reference_names: Vec<String>,
}

fn avro() -> String {
    SchemaFormat::Avro.name().to_owned()
}

impl StoredSchema {
    fn new(schema: RegisteredSchema) -> Self {
        let (references, reference_names) =
            schema.references.into_iter().map(|reference| (reference.text, reference.name)).unzip();
        let format = schema.format.name().to_owned();
        Self { id: schema.id.0, format, text: schema.text, references, reference_names }
    }

    fn text(&self, version: u32) -> SchemaText {
        // Only Avro, which goes by the names in the texts, was ever kept without names.
        let names = self.reference_names.iter().map(String::as_str).chain(std::iter::repeat(""));
        let references = self.references.iter().zip(names);
        SchemaText {
            version,
            id: RegistrySchemaId(self.id),
            format: SchemaFormat::of_name(&self.format).unwrap_or(SchemaFormat::Avro),
            text: self.text.clone(),
            references: references
                .map(|(text, name)| SchemaReference { name: name.to_owned(), text: text.clone() })
                .collect(),
        }
    }
}

impl SchemaRecord {
    /// The histories up to a version.
    fn histories(&self, version: SchemaVersion) -> (Vec<SchemaText>, Vec<SchemaText>) {
        (up_to(&self.value, version.value), up_to(&self.key, version.key))
    }

    fn newest(&self) -> SchemaVersion {
        let last = |history: &BTreeMap<u32, StoredSchema>| history.keys().next_back().copied();
        SchemaVersion { value: last(&self.value).unwrap_or(0), key: last(&self.key).unwrap_or(0) }
    }
}

fn up_to(history: &BTreeMap<u32, StoredSchema>, version: u32) -> Vec<SchemaText> {
    history.range(..=version).map(|(&version, schema)| schema.text(version)).collect()
}

/// All topics' schemas.
pub(crate) struct TopicSchemas {
    registry: Option<SchemaRegistry>,
    store: Arc<Store>,
    tables: moka::sync::Cache<(TopicId, TopicName, SchemaVersion), Arc<TableSchema>>,
    /// One topic's record is changed by one caller at a time; schemas change seldom.
    changing: Mutex<()>,
}

impl TopicSchemas {
    /// Without a registry, every topic is shown with its raw value.
    pub(crate) fn new(registry: Option<SchemaRegistry>, store: Arc<Store>) -> Self {
        let tables = moka::sync::Cache::new(4096);
        Self { registry, store, tables, changing: Mutex::new(()) }
    }

    /// The topic's columns as of the newest versions of its subjects.
    pub(crate) async fn current(
        &self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let (value, key) = tokio::join!(
            self.history(format!("{topic}-value")),
            self.history(format!("{topic}-key")),
        );
        let (value, key) = match (value, key) {
            (Ok(value), Ok(key)) => (value, key),
            (Err(error), _) | (_, Err(error)) => return self.last_known(topic, id, &error),
        };
        let newest = SchemaVersion {
            value: value.last().map_or(0, |s| s.version),
            key: key.last().map_or(0, |s| s.version),
        };
        if let Some(table) = self.tables.get(&(id, topic.clone(), newest)) {
            return Ok(table);
        }
        let _one_at_a_time = self.changing.lock().await;
        let mut record = self.record(topic, id)?;
        remember(&mut record.value, value);
        remember(&mut record.key, key);
        self.derive(topic, id, &mut record, newest)
    }

    /// The topic's columns as of given versions: for a file that was planned then.
    pub(crate) async fn at(
        &self,
        topic: &TopicName,
        id: TopicId,
        version: SchemaVersion,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        if let Some(table) = self.tables.get(&(id, topic.clone(), version)) {
            return Ok(table);
        }
        let known = self.record(topic, id)?.newest();
        if known.value < version.value || known.key < version.key {
            // Planned by another replica, or before the store was lost.
            self.current(topic, id).await?;
        }
        let _one_at_a_time = self.changing.lock().await;
        let mut record = self.record(topic, id)?;
        self.derive(topic, id, &mut record, version)
    }

    /// The schema that some record was written with.
    pub(crate) async fn writer(&self, id: RegistrySchemaId) -> Result<WriterSchema, ServiceError> {
        let Some(registry) = &self.registry else {
            return Ok(WriterSchema::Missing { cause: "no schema registry is configured".into() });
        };
        match registry.schema(id).await {
            Ok(Some(schema)) => Ok(WriterSchema::Known(SchemaText {
                version: schema.version,
                id: schema.id,
                format: schema.format,
                text: schema.text,
                references: schema.references,
            })),
            Ok(None) => Ok(WriterSchema::Missing {
                cause: format!("the schema registry knows no schema with id {id}"),
            }),
            // The registry answered, and what it has cannot decode the record.
            Err(error) if error.is_deterministic() => {
                Ok(WriterSchema::Missing { cause: error.to_string() })
            }
            Err(error) => Err(registry_error(&error)),
        }
    }

    /// A subject's versions. One whose schemas are not understood is as good as none: the topic is
    /// shown with its raw bytes.
    async fn history(&self, subject: String) -> Result<Vec<RegisteredSchema>, RegistryError> {
        match &self.registry {
            Some(registry) => match registry.subject_history(&subject).await {
                Err(error) if error.is_deterministic() => {
                    tracing::warn!(subject, %error, "the subject's records are shown as raw bytes");
                    Ok(Vec::new())
                }
                answer => answer,
            },
            None => Ok(Vec::new()),
        }
    }

    /// While the registry is away, a topic that was seen before keeps its columns.
    fn last_known(
        &self,
        topic: &TopicName,
        id: TopicId,
        error: &RegistryError,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let newest = self.record(topic, id)?.newest();
        match self.tables.get(&(id, topic.clone(), newest)) {
            Some(table) if newest != SchemaVersion::default() => {
                tracing::warn!(%topic, %error, "the registry does not answer; the last known schema is used");
                Ok(table)
            }
            _ => Err(registry_error(error)),
        }
    }

    fn record(&self, topic: &TopicName, id: TopicId) -> Result<SchemaRecord, ServiceError> {
        let record: Option<SchemaRecord> = self.store.get(Kind::Schema, &record_key(topic, id))?;
        Ok(record.filter(|r| r.mapping_version == MAPPING_VERSION).unwrap_or_default())
    }

    /// Computes the columns and keeps the record with the field ids they got.
    fn derive(
        &self,
        topic: &TopicName,
        id: TopicId,
        record: &mut SchemaRecord,
        version: SchemaVersion,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let (value, key) = record.histories(version);
        record.mapping_version = MAPPING_VERSION;
        let table = table_schema(&value, &key, &mut record.ids).map_err(|error| {
            ServiceError::Unsupported {
                what: format!("topic {topic}"),
                reason: format!(
                    "subject {topic}-value version {} (or {topic}-key version {}): {error}",
                    version.value, version.key
                ),
            }
        })?;
        let table = Arc::new(table);
        self.store.put_soon(Kind::Schema, &record_key(topic, id), record)?;
        self.tables.insert((id, topic.clone(), version), Arc::clone(&table));
        Ok(table)
    }
}

fn remember(known: &mut BTreeMap<u32, StoredSchema>, history: Vec<RegisteredSchema>) {
    for schema in history {
        // A version never changes; one that was deleted for good is remembered.
        known.entry(schema.version).or_insert_with(|| StoredSchema::new(schema));
    }
}

fn record_key(topic: &TopicName, id: TopicId) -> String {
    format!("{topic}/{id}")
}

fn registry_error(error: &RegistryError) -> ServiceError {
    ServiceError::Unavailable { what: "the schema registry".into(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_was_kept_before_there_were_formats_is_avro() {
        let old: StoredSchema =
            serde_json::from_str(r#"{"id":3,"text":"T","references":["R"]}"#).unwrap();
        let text = old.text(2);
        assert_eq!((text.version, text.id.0, text.format), (2, 3, SchemaFormat::Avro));
        assert_eq!(text.references[0].text, "R");

        let schema = RegisteredSchema {
            version: 4,
            id: RegistrySchemaId(5),
            format: SchemaFormat::Protobuf,
            text: "P".to_owned(),
            references: vec![SchemaReference { name: "a.proto".to_owned(), text: "A".to_owned() }],
        };
        let kept = serde_json::to_string(&StoredSchema::new(schema.clone())).unwrap();
        let text = serde_json::from_str::<StoredSchema>(&kept).unwrap().text(4);
        assert_eq!((text.format, text.text), (schema.format, schema.text));
        assert_eq!(text.references, schema.references);
    }
}
