//! Who says what a topic's values are: the registry, the configuration, an operator, or its records.

use isk_kafka::TopicDescription;
use isk_model::{TopicId, TopicName};
use isk_schema::{SchemaText, TableSchema, ValueKind};

use crate::api::ServiceError;
use crate::discovery::Discovery;
use crate::formats::PartFormat;
use crate::tick::now_ms;
use crate::topic_schema::TopicSchemas;

/// Who says what a topic's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The schema registry.
    Registry,
    /// The configuration.
    Configuration,
    /// The topic's records.
    Discovered,
    /// An operator.
    Pinned,
    /// Nobody: they are bytes.
    Raw,
}

impl Origin {
    /// Its name in reports, and in the property `isk.schema-origin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Configuration => "configuration",
            Self::Discovered => "discovered",
            Self::Pinned => "pinned",
            Self::Raw => "raw",
        }
    }
}

impl TopicSchemas {
    /// Who says what a table's values are.
    pub(crate) fn origin(
        &self,
        topic: &TopicName,
        id: TopicId,
        table: &TableSchema,
    ) -> Result<Origin, ServiceError> {
        Ok(match &table.value {
            ValueKind::None | ValueKind::JsonText => Origin::Raw,
            ValueKind::Framed(..) | ValueKind::Several(_) | ValueKind::OneOf(_) => Origin::Registry,
            ValueKind::Bare(..) if !Discovery::gave(table.version.value) => Origin::Configuration,
            ValueKind::Bare(..) => match self.discovery.found(topic, id, now_ms())? {
                Some(found) if found.pinned => Origin::Pinned,
                _ => Origin::Discovered,
            },
        })
    }

    /// Whether nobody says what a topic's values are, and its records may be asked.
    pub(crate) fn is_unknown(&self, topic: &TopicName, table: &TableSchema) -> bool {
        table.value == ValueKind::None && self.is_open(topic) && self.discovery.serves(topic)
    }

    /// Whether a topic's columns were found in its records, and are not pinned.
    pub(crate) fn was_discovered(
        &self,
        topic: &TopicDescription,
        table: &TableSchema,
    ) -> Result<bool, ServiceError> {
        Ok(self.origin(&topic.name, topic.id, table)? == Origin::Discovered)
    }

    /// Whether the configuration leaves it to the registry what a topic's values are.
    pub(crate) fn is_open(&self, topic: &TopicName) -> bool {
        self.formats.of(topic).0 == PartFormat::Registry
    }

    /// What a topic's values are, where neither the registry nor the configuration says it.
    pub(crate) fn discovered(
        &self,
        topic: &TopicName,
        id: TopicId,
        pinned: bool,
    ) -> Result<Vec<SchemaText>, ServiceError> {
        if !self.is_open(topic) {
            return Ok(Vec::new());
        }
        let found = self.discovery.found(topic, id, now_ms())?;
        Ok(found
            .filter(|found| !pinned || found.pinned)
            .map(|found| found.text)
            .into_iter()
            .collect())
    }
}
