//! A topic's columns: from the registry's subjects, by version, with field ids that stay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use isk_decode::WriterSchema;
use isk_kafka::{RegisteredSchema, RegistryError, SchemaRegistry};
use isk_model::{
    RegistrySchemaId, SchemaFormat, SchemaReference, SchemaVersion, TopicId, TopicName, WriterId,
};
use isk_schema::{
    FieldIdMap, KeyKind, MAPPING_VERSION, SchemaText, TableSchema, ValueKind, json_text_schema,
    table_schema,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::api::ServiceError;
use crate::formats::{PartFormat, TopicFormats};
use crate::store::{Kind, Store};
use crate::writers::{WriterBook, WriterState};

/// How long a look for a schema that was missing may take.
const LOOK: Duration = Duration::from_secs(1);

/// What is kept of a topic's schemas across restarts. The field ids are the truth; the histories
/// allow to read a file of an older schema version without asking the registry again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct SchemaRecord {
    mapping_version: u32,
    value: BTreeMap<u32, StoredSchema>,
    key: BTreeMap<u32, StoredSchema>,
    ids: FieldIdMap,
    /// The versions that the columns followed last.
    #[serde(default)]
    shown: (u32, u32),
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
    fn new(schema: SchemaText) -> Self {
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
            format: match SchemaFormat::of_name(&self.format) {
                Some(format) => format,
                None if self.format == SchemaFormat::Plain.name() => SchemaFormat::Plain,
                None => SchemaFormat::Avro,
            },
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

    /// Whether the schemas of a version are known.
    fn has(&self, version: SchemaVersion) -> bool {
        let known = |history: &BTreeMap<u32, StoredSchema>, v| v == 0 || history.contains_key(&v);
        known(&self.value, version.value) && known(&self.key, version.key)
    }
}

fn up_to(history: &BTreeMap<u32, StoredSchema>, version: u32) -> Vec<SchemaText> {
    history.range(..=version).map(|(&version, schema)| schema.text(version)).collect()
}

/// All topics' schemas.
pub(crate) struct TopicSchemas {
    registry: Option<SchemaRegistry>,
    formats: TopicFormats,
    store: Arc<Store>,
    pub(crate) writers: WriterBook,
    tables: moka::sync::Cache<(TopicId, TopicName, SchemaVersion), Arc<TableSchema>>,
    /// The columns of any topic that is shown raw, or as JSON text.
    pub(crate) raw: Arc<TableSchema>,
    pub(crate) json_text: Arc<TableSchema>,
    /// One topic's record is changed by one caller at a time; schemas change seldom.
    changing: Mutex<()>,
    /// Why a newer version than the one that is shown cannot be.
    refused: moka::sync::Cache<TopicName, Arc<str>>,
}

impl TopicSchemas {
    /// Without a registry, every topic is shown with its raw value.
    pub(crate) fn new(
        registry: Option<SchemaRegistry>,
        formats: TopicFormats,
        store: Arc<Store>,
    ) -> Result<Self, ServiceError> {
        let (tables, refused) = (moka::sync::Cache::new(4096), moka::sync::Cache::new(4096));
        let writers = WriterBook::new(Arc::clone(&store));
        let broken = |e| ServiceError::Internal(format!("a layout has no columns: {e}"));
        let raw = table_schema(&[], &[], &mut FieldIdMap::default()).map_err(broken)?;
        let json_text = json_text_schema().map_err(broken)?;
        Ok(Self {
            registry,
            formats,
            store,
            writers,
            tables,
            raw: Arc::new(raw),
            json_text: Arc::new(json_text),
            changing: Mutex::new(()),
            refused,
        })
    }

    /// What is to be said of a topic's schema, as properties of its table.
    pub(crate) fn notes(&self, topic: &TopicName, table: &TableSchema) -> BTreeMap<String, String> {
        let framed = |format: SchemaFormat| format.name().to_ascii_lowercase();
        let bare = |text: &SchemaText| match text.format {
            SchemaFormat::Plain => text.text.clone(),
            format => format!("bare {}", framed(format)),
        };
        let value = match &table.value {
            ValueKind::Framed(format, _) => framed(*format),
            ValueKind::Bare(text, _) => bare(text),
            ValueKind::None => "bytes".to_owned(),
            ValueKind::JsonText => "json text".to_owned(),
        };
        let key = match &table.key {
            KeyKind::Framed(format, _) => framed(*format),
            KeyKind::Bare(text, _) => bare(text),
            KeyKind::Bytes => "bytes".to_owned(),
            KeyKind::JsonText => "json text".to_owned(),
        };
        let refused = self.refused.get(topic);
        let refused = refused.map(|why| ("isk.schema-refused".to_owned(), why.to_string()));
        let formats = [("isk.value-format".to_owned(), value), ("isk.key-format".to_owned(), key)];
        formats.into_iter().chain(refused).collect()
    }

    /// The topic's columns as of the newest versions of its subjects.
    pub(crate) async fn current(
        &self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let (value, key) = self.formats.of(topic);
        let (value, key) =
            tokio::join!(self.history(&value, topic, "value"), self.history(&key, topic, "key"),);
        let (value, key) = match (value, key) {
            (Ok(value), Ok(key)) => (value, key),
            (Err(error), _) | (_, Err(error)) => return self.last_known(topic, id, &error),
        };
        let newest = SchemaVersion {
            value: value.last().map_or(0, |s| s.version),
            key: key.last().map_or(0, |s| s.version),
        };
        if let Some(table) = self.tables.get(&(id, topic.clone(), newest)) {
            self.refused.invalidate(topic);
            return Ok(table);
        }
        let _one_at_a_time = self.changing.lock().await;
        let mut record = self.record(topic, id)?;
        let older = older(&value, &key, newest);
        remember(&mut record.value, value);
        remember(&mut record.key, key);
        let refused = match self.derive(topic, id, &mut record, newest) {
            Ok(table) => {
                self.refused.invalidate(topic);
                return self.shown(topic, id, record, table);
            }
            Err(error) => error,
        };
        // A version that can be no table leaves the table as it was before; that version's records fail.
        for version in older {
            let known = self.tables.get(&(id, topic.clone(), version));
            let table = match known {
                Some(table) => table,
                None => match self.derive(topic, id, &mut record, version) {
                    Ok(table) => table,
                    Err(_) => continue,
                },
            };
            if self.refused.get(topic).is_none_or(|known| *known != *refused.to_string()) {
                tracing::warn!(
                    %topic, value = version.value, key = version.key, error = %refused,
                    "the newest schema can be no table; an older version is shown"
                );
                self.refused.insert(topic.clone(), refused.to_string().into());
            }
            return self.shown(topic, id, record, table);
        }
        Err(refused)
    }

    /// Keeps which version a topic's columns follow, for the time that the registry is away.
    fn shown(
        &self,
        topic: &TopicName,
        id: TopicId,
        mut record: SchemaRecord,
        table: Arc<TableSchema>,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let shown = (table.version.value, table.version.key);
        if record.shown != shown {
            record.shown = shown;
            self.store.put(Kind::Schema, &record_key(topic, id), &record)?;
        }
        Ok(table)
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
        if !self.record(topic, id)?.has(version) {
            // Planned by another replica, or before the store was lost.
            self.current(topic, id).await?;
        }
        let _one_at_a_time = self.changing.lock().await;
        let mut record = self.record(topic, id)?;
        self.derive(topic, id, &mut record, version)
    }

    /// The schema that some record of a topic was written with, in a state of the topic's: one that was
    /// missing then is.
    pub(crate) async fn writer(
        &self,
        (topic, topic_id): (&TopicName, TopicId),
        state: &WriterState,
        id: WriterId,
    ) -> Result<WriterSchema, ServiceError> {
        let Some(registry) = &self.registry else {
            return Ok(WriterSchema::Missing { cause: "no schema registry is configured".into() });
        };
        let missing = || self.writers.missing(topic, topic_id, state, id);
        if let Some(cause) = missing()? {
            return Ok(WriterSchema::Missing { cause });
        }
        let cause = match registry.schema(id).await {
            Ok(Some(schema)) => {
                return Ok(match missing()? {
                    // Somebody who asked before noted that it is not there.
                    Some(cause) => WriterSchema::Missing { cause },
                    None => WriterSchema::Known(registered(schema)),
                });
            }
            Ok(None) => format!("the schema registry knows no schema with id {id}"),
            // The registry answered, and what it has cannot decode the record.
            Err(error) if error.is_deterministic() => error.to_string(),
            Err(error) => return Err(registry_error(&error)),
        };
        self.writers.note(topic, topic_id, id, &cause)?;
        Ok(WriterSchema::Missing { cause })
    }

    /// The state of a topic's missing schemas. From time to time they are looked for again; what is found
    /// makes a new state. A registry that does not answer leaves the state as it is.
    pub(crate) async fn writer_state(
        &self,
        topic: &TopicName,
        topic_id: TopicId,
    ) -> Result<WriterState, ServiceError> {
        if let Some(registry) = &self.registry {
            let ids = self.writers.to_look_for(topic, topic_id)?;
            let look = |id| async move {
                let answer = tokio::time::timeout(LOOK, registry.schema_anew(id)).await;
                matches!(answer, Ok(Ok(Some(_)))).then_some(id)
            };
            let found: Vec<WriterId> =
                join_all(ids.into_iter().map(look)).await.into_iter().flatten().collect();
            if !found.is_empty() {
                let ids: Vec<String> = found.iter().map(WriterId::to_string).collect();
                tracing::info!(%topic, ?ids, "schemas that were missing are registered now");
                self.writers.found(topic, topic_id, &found)?;
            }
        }
        self.writers.current(topic, topic_id)
    }

    /// A subject's versions. One whose schemas are not understood is as good as none: the topic is
    /// shown with its raw bytes.
    async fn history(
        &self,
        format: &PartFormat,
        topic: &TopicName,
        part: &str,
    ) -> Result<Vec<SchemaText>, RegistryError> {
        if let PartFormat::Bare(text) = format {
            return Ok(vec![text.clone()]);
        }
        let registry = self.registry.as_ref();
        match registry.and_then(|registry| Some((registry, format.subject(topic, part)?))) {
            Some((registry, subject)) => match registry.subject_history(&subject).await {
                Err(error) if error.is_deterministic() => {
                    tracing::warn!(subject, %error, "the subject's records are shown as raw bytes");
                    Ok(Vec::new())
                }
                answer => Ok(answer?.into_iter().map(registered).collect()),
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
        let (value, key) = self.record(topic, id)?.shown;
        let newest = SchemaVersion { value, key };
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

/// What may be shown instead of the newest versions, the newest first: an older version of the value, or of the key.
fn older(value: &[SchemaText], key: &[SchemaText], newest: SchemaVersion) -> Vec<SchemaVersion> {
    let before = |history: &[SchemaText]| -> Vec<u32> {
        history.iter().rev().skip(1).map(|schema| schema.version).collect()
    };
    let values = before(value).into_iter().map(|value| SchemaVersion { value, ..newest });
    let keys = before(key).into_iter().map(|key| SchemaVersion { key, ..newest });
    values.chain(keys).collect()
}

fn registered(schema: RegisteredSchema) -> SchemaText {
    let RegisteredSchema { version, id, format, text, references } = schema;
    SchemaText { version, id, format, text, references }
}

fn remember(known: &mut BTreeMap<u32, StoredSchema>, history: Vec<SchemaText>) {
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
        let kept = serde_json::to_string(&StoredSchema::new(registered(schema.clone()))).unwrap();
        let text = serde_json::from_str::<StoredSchema>(&kept).unwrap().text(4);
        assert_eq!((text.format, text.text), (schema.format, schema.text));
        assert_eq!(text.references, schema.references);
    }
}
