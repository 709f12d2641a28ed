//! A topic's columns: from the registry's subjects, by version, with field ids that stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use isk_decode::WriterSchema;
use isk_kafka::{RegistryError, SchemaRegistry, TopicDescription};
use isk_model::{SchemaFormat, SchemaVersion, TopicId, TopicName, WriterId};
use isk_schema::{
    FieldIdMap, KeyKind, MAPPING_VERSION, SchemaText, TableSchema, ValueKind, json_text_schema,
    record_types_schema, table_schema,
};
use tokio::sync::Mutex;

use crate::api::ServiceError;
use crate::discovery::Discovery;
use crate::formats::{PartFormat, TopicFormats};
use crate::record_types::{self, Seen, TypeNames};
use crate::schema_record::{SchemaRecord, registered, remember};
use crate::store::{Kind, Store};
use crate::writers::{WriterBook, WriterState};

/// How long a look for a schema that was missing may take.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen of the types of record of a topic, and the number of the last version.
type LastSeen = (Arc<[String]>, u32);

/// All topics' schemas.
pub(crate) struct TopicSchemas {
    registry: Option<SchemaRegistry>,
    pub(crate) formats: TopicFormats,
    store: Arc<Store>,
    pub(crate) writers: WriterBook,
    pub(crate) discovery: Discovery,
    tables: moka::sync::Cache<(TopicId, TopicName, SchemaVersion), Arc<TableSchema>>,
    /// The columns of any topic that is shown raw, or as JSON text.
    pub(crate) raw: Arc<TableSchema>,
    pub(crate) json_text: Arc<TableSchema>,
    /// One topic's record is changed by one caller at a time; schemas change seldom.
    changing: Mutex<()>,
    /// The types of record of subjects' versions.
    type_names: TypeNames,
    /// What was seen last of topics with several types of record, and the number of its last version.
    seen_types: moka::sync::Cache<(TopicId, TopicName), LastSeen>,
    /// The tables of one type of record each.
    type_tables: moka::sync::Cache<(TopicId, TopicName, SchemaVersion, String), Arc<TableSchema>>,
    /// Why a newer version than the one that is shown cannot be.
    refused: moka::sync::Cache<TopicName, Arc<str>>,
}

impl TopicSchemas {
    /// Without a registry, every topic is shown with its raw value.
    pub(crate) fn new(
        registry: Option<SchemaRegistry>,
        formats: TopicFormats,
        discovery: Discovery,
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
            discovery,
            tables,
            raw: Arc::new(raw),
            json_text: Arc::new(json_text),
            changing: Mutex::new(()),
            type_names: moka::sync::Cache::new(4096),
            seen_types: moka::sync::Cache::new(4096),
            type_tables: moka::sync::Cache::new(4096),
            refused,
        })
    }

    /// What is to be said of a topic's schema, as properties of its table.
    pub(crate) fn notes(
        &self,
        topic: &TopicName,
        id: TopicId,
        table: &TableSchema,
    ) -> Result<BTreeMap<String, String>, ServiceError> {
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
            ValueKind::OneOf(kind) => framed(kind.format),
            ValueKind::Several(kinds) => {
                let formats: BTreeSet<String> = kinds.iter().map(|k| framed(k.format)).collect();
                formats.into_iter().collect::<Vec<_>>().join(", ")
            }
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
        let types: Vec<&str> = table.record_kinds().iter().map(|k| k.name.as_str()).collect();
        let types = (!types.is_empty()).then(|| ("isk.record-types".to_owned(), types.join(", ")));
        let origin = self.origin(topic, id, table)?.name().to_owned();
        let origin = [("isk.schema-origin".to_owned(), origin)];
        Ok(formats.into_iter().chain(refused).chain(types).chain(origin).collect())
    }

    /// The topic's columns as of the newest versions of its subjects.
    pub(crate) async fn current(
        &self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let (value, key) = self.formats.of(topic);
        let pinned = self.discovered(topic, id, true)?;
        let history = async {
            match pinned.is_empty() {
                true => self.history(&value, topic, "value").await,
                false => Ok(pinned),
            }
        };
        let (value, seen, key) = tokio::join!(
            history,
            self.seen_types(&value, topic),
            self.history(&key, topic, "key"),
        );
        let (mut value, seen, key) = match (value, seen, key) {
            (Ok(value), Ok(seen), Ok(key)) => (value, seen, key),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                return self.last_known(topic, id, &error);
            }
        };
        if value.is_empty() {
            value = self.discovered(topic, id, false)?;
        }
        let origins: Arc<[String]> = seen.origins().into();
        let known_types = self.seen_types.get(&(id, topic.clone()));
        let known_types = known_types.filter(|(known, _)| *known == origins).map(|(_, last)| last);
        let mut newest = SchemaVersion {
            value: known_types.unwrap_or_else(|| value.last().map_or(0, |s| s.version)),
            key: key.last().map_or(0, |s| s.version),
        };
        if let Some(table) = self.tables.get(&(id, topic.clone(), newest))
            && (origins.is_empty() || known_types.is_some())
        {
            self.tell(topic, seen.refused);
            return Ok(table);
        }
        let _one_at_a_time = self.changing.lock().await;
        let mut record = self.record(topic, id)?;
        let mut values = value.iter().rev().skip(1).map(|schema| schema.version).collect();
        if !origins.is_empty() {
            newest.value = record.types.note(seen.types);
            values = record.types.before(newest.value);
            self.seen_types.insert((id, topic.clone()), (origins, newest.value));
        }
        let older = older(values, &key, newest);
        remember(&mut record.value, value);
        remember(&mut record.key, key);
        let refused = match self.derive(topic, id, &mut record, newest) {
            Ok(table) => {
                self.tell(topic, seen.refused);
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

    /// Keeps, or forgets, why some schema of a topic's is not shown.
    fn tell(&self, topic: &TopicName, refused: Option<String>) {
        match refused {
            None => self.refused.invalidate(topic),
            Some(why) if self.refused.get(topic).is_some_and(|known| *known == *why) => {}
            Some(why) => {
                tracing::warn!(%topic, error = why, "a schema can be no type of record");
                self.refused.insert(topic.clone(), why.into());
            }
        }
    }

    /// What the subjects of a topic with several types of record have.
    async fn seen_types(
        &self,
        format: &PartFormat,
        topic: &TopicName,
    ) -> Result<Seen, RegistryError> {
        match (format, &self.registry) {
            (PartFormat::Several(subjects), Some(registry)) => {
                record_types::seen(subjects, topic, registry, &self.type_names).await
            }
            _ => Ok(Seen { types: Vec::new(), refused: None }),
        }
    }

    /// Whether tables of one type of record each are listed for a topic.
    pub(crate) fn lists_types(&self, topic: &TopicName) -> bool {
        matches!(self.formats.of(topic).0, PartFormat::Several(subjects) if subjects.tables)
    }

    /// The table of one type of record of those that a topic's table has, by the type's column.
    pub(crate) fn of_type(
        &self,
        topic: &TopicDescription,
        table: &TableSchema,
        column: &str,
    ) -> Result<Option<Arc<TableSchema>>, ServiceError> {
        let key = (topic.id, topic.name.clone(), table.version, column.to_lowercase());
        if let Some(found) = self.type_tables.get(&key) {
            return Ok(Some(found));
        }
        let broken = |e| ServiceError::Internal(format!("a type of record has no columns: {e}"));
        let Some(found) = table.of_type(column).map_err(broken)? else { return Ok(None) };
        let found = Arc::new(found);
        self.type_tables.insert(key, Arc::clone(&found));
        Ok(Some(found))
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
        let table = match record.types.has(version.value) {
            true => {
                let types = record.types.up_to(version.value);
                record_types_schema(&types, &key, &mut record.ids)
            }
            false => table_schema(&value, &key, &mut record.ids),
        };
        let table = table.map_err(|error| {
            let of_types = record.types.origin(version.value).map(str::to_owned);
            let value =
                of_types.unwrap_or_else(|| format!("{topic}-value version {}", version.value));
            ServiceError::Unsupported {
                what: format!("topic {topic}"),
                reason: format!(
                    "subject {value} (or {topic}-key version {}): {error}",
                    version.key
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
fn older(values: Vec<u32>, key: &[SchemaText], newest: SchemaVersion) -> Vec<SchemaVersion> {
    let values = values.into_iter().map(|value| SchemaVersion { value, ..newest });
    let keys = key.iter().rev().skip(1);
    let keys = keys.map(|schema| SchemaVersion { key: schema.version, ..newest });
    values.chain(keys).collect()
}

fn record_key(topic: &TopicName, id: TopicId) -> String {
    format!("{topic}/{id}")
}

fn registry_error(error: &RegistryError) -> ServiceError {
    ServiceError::Unavailable { what: "the schema registry".into(), reason: error.to_string() }
}
