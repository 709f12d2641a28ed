//! A topic of several types of record: which the registry's subjects have, and how their versions are counted.
//!
//! The versions of all types are one history, in the order of the registry's ids, which is that of registration. A
//! version that is seen once keeps its number: what is seen later, of whatever subject, comes behind it.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt};
use isk_kafka::{RegistryError, SchemaRegistry};
use isk_model::TopicName;
use isk_schema::{SchemaText, TypedSchema};
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::schema_record::{StoredSchema, registered};

/// The number before the first one. Versions of subjects are smaller, those of configured schemas are not.
const BEFORE_FIRST: u32 = 5_000;

/// Where numbers end: versions in ids of table schemas stay below.
const END: u32 = 100_000;

/// The most subjects of one topic.
const MAX_SUBJECTS: usize = 256;

/// How many of them are asked for at the same time.
const AT_ONCE: usize = 8;

/// The subjects that a topic's types of record are registered under.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TypeSubjects {
    /// Their names; `{topic}` stands for the topic's.
    pub names: Vec<String>,
    /// A regular expression that matches whole names of others; `{topic}` stands for the topic's name.
    pub pattern: Option<String>,
    /// Whether tables of one type each are listed beside the topic's own.
    pub tables: bool,
}

impl TypeSubjects {
    /// The pattern for a topic.
    ///
    /// # Errors
    /// It is no regular expression, and why.
    pub fn pattern(&self, topic: &str) -> Result<Option<Regex>, regex::Error> {
        let of = |pattern: &String| {
            Regex::new(&format!("^(?:{})$", pattern.replace("{topic}", &regex::escape(topic))))
        };
        self.pattern.as_ref().map(of).transpose()
    }

    /// The names of those that there are, or may be.
    async fn of(
        &self,
        topic: &TopicName,
        registry: &SchemaRegistry,
    ) -> Result<Vec<String>, RegistryError> {
        let mut names: Vec<String> =
            self.names.iter().map(|name| name.replace("{topic}", topic.as_str())).collect();
        let wrong = |e: regex::Error| RegistryError::Config(e.to_string());
        if let Some(pattern) = self.pattern(topic.as_str()).map_err(wrong)? {
            let all = registry.subjects().await?;
            names.extend(all.iter().filter(|name| pattern.is_match(name)).cloned());
        }
        names.sort_unstable();
        names.dedup();
        match names.len() {
            0..=MAX_SUBJECTS => Ok(names),
            many => Err(RegistryError::Config(format!(
                "topic {topic} has {many} subjects of types of record; there may be {MAX_SUBJECTS}"
            ))),
        }
    }
}

/// A version of one type, as a subject has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeenType {
    /// The subject, its version and the type: what it is known by.
    origin: String,
    record_type: String,
    schema: SchemaText,
}

/// A version of one type as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredType {
    origin: String,
    record_type: String,
    schema: StoredSchema,
}

/// The versions of all types, numbered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TypeHistory(BTreeMap<u32, StoredType>);

impl TypeHistory {
    /// Numbers what was not seen before. Gives the number of the last one, 0 where there is none.
    pub(crate) fn note(&mut self, seen: Vec<SeenType>) -> u32 {
        let known: HashSet<&str> = self.0.values().map(|k| k.origin.as_str()).collect();
        let fresh = seen.into_iter().filter(|seen| !known.contains(seen.origin.as_str()));
        let fresh: Vec<SeenType> = fresh.collect();
        let last = self.0.last_key_value().map_or(BEFORE_FIRST, |(last, _)| *last);
        let numbered = (last + 1..END).zip(fresh);
        self.0.extend(numbered.map(|(number, SeenType { origin, record_type, schema })| {
            (number, StoredType { origin, record_type, schema: StoredSchema::new(schema) })
        }));
        self.0.last_key_value().map_or(0, |(last, _)| *last)
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.0.contains_key(&number)
    }

    /// What a number stands for, for messages.
    pub(crate) fn origin(&self, number: u32) -> Option<&str> {
        self.0.get(&number).map(|stored| stored.origin.as_str())
    }

    /// The numbers before one, the newest first.
    pub(crate) fn before(&self, number: u32) -> Vec<u32> {
        self.0.range(..number).rev().map(|(number, _)| *number).collect()
    }

    /// The versions up to a number.
    pub(crate) fn up_to(&self, number: u32) -> Vec<TypedSchema> {
        let typed = |(&number, stored): (&u32, &StoredType)| TypedSchema {
            record_type: stored.record_type.clone(),
            schema: stored.schema.text(number),
        };
        self.0.range(..=number).map(typed).collect()
    }
}

/// What a topic's subjects have, and why some of it can be no type of record.
pub(crate) struct Seen {
    pub types: Vec<SeenType>,
    pub refused: Option<String>,
}

impl Seen {
    /// What it is known by: equal ones are of equal types.
    pub(crate) fn origins(&self) -> Vec<String> {
        self.types.iter().map(|seen| seen.origin.clone()).collect()
    }
}

/// The names of the types of a subject's version, kept: a version never changes.
pub(crate) type TypeNames = moka::sync::Cache<(String, u32), Result<Vec<String>, String>>;

/// All versions of all types that a topic's subjects have, in the order of their ids.
pub(crate) async fn seen(
    subjects: &TypeSubjects,
    topic: &TopicName,
    registry: &SchemaRegistry,
    names: &TypeNames,
) -> Result<Seen, RegistryError> {
    let mut refused = None;
    let histories: Vec<(String, Vec<SchemaText>)> = futures::stream::iter(
        subjects.of(topic, registry).await?,
    )
    .map(|subject| async {
        let history = match registry.subject_history(&subject).await {
            Err(error) if error.is_deterministic() => {
                tracing::warn!(subject, %error, "the subject's records are no types of record");
                Vec::new()
            }
            answer => answer?.into_iter().map(registered).collect(),
        };
        Ok::<_, RegistryError>((subject, history))
    })
    .buffered(AT_ONCE)
    .try_collect()
    .await?;
    let mut types = Vec::new();
    for (subject, history) in histories {
        for schema in history {
            let of_version = || schema.record_types(&subject).map_err(|error| error.to_string());
            match names.get_with((subject.clone(), schema.version), of_version) {
                Ok(found) => types.extend(found.into_iter().map(|record_type| SeenType {
                    origin: format!("{subject} version {} ({record_type})", schema.version),
                    record_type,
                    schema: schema.clone(),
                })),
                Err(why) => {
                    refused = Some(format!("subject {subject} version {}: {why}", schema.version));
                }
            }
        }
    }
    types.sort_by(|a, b| (a.schema.id, &a.origin).cmp(&(b.schema.id, &b.origin)));
    Ok(Seen { types, refused })
}

#[cfg(test)]
mod tests {
    use isk_model::{RegistrySchemaId, SchemaFormat};

    use super::*;

    fn seen(id: i32, origin: &str) -> SeenType {
        SeenType {
            origin: origin.to_owned(),
            record_type: origin.to_owned(),
            schema: SchemaText {
                version: 1,
                id: RegistrySchemaId(id),
                format: SchemaFormat::Avro,
                text: origin.to_owned(),
                references: Vec::new(),
            },
        }
    }

    #[test]
    fn what_is_seen_once_keeps_its_number() {
        let mut history = TypeHistory::default();
        assert_eq!(history.note(vec![]), 0);
        assert_eq!(history.note(vec![seen(3, "a"), seen(7, "b")]), 5_002);
        // An older id, seen later, comes behind; what the registry has forgotten stays.
        assert_eq!(history.note(vec![seen(5, "c"), seen(7, "b")]), 5_003);
        assert_eq!(history.note(vec![]), 5_003);
        let texts = |number| -> Vec<String> {
            history.up_to(number).iter().map(|typed| typed.schema.text.clone()).collect()
        };
        assert_eq!(texts(5_003), ["a", "b", "c"]);
        assert_eq!(texts(5_001), ["a"]);
        assert_eq!(history.up_to(5_002)[1].schema.version, 5_002);
        assert_eq!(history.before(5_003), [5_002, 5_001]);
        assert_eq!(history.origin(5_003), Some("c"));
        let kept = serde_json::to_string(&history).unwrap();
        assert_eq!(serde_json::from_str::<TypeHistory>(&kept).unwrap(), history);
    }

    #[test]
    fn the_topics_name_stands_in_patterns_as_it_is() {
        let subjects = TypeSubjects { pattern: Some("{topic}-x.*".into()), ..Default::default() };
        let pattern = subjects.pattern("a.b").unwrap().unwrap();
        assert!(pattern.is_match("a.b-xy") && !pattern.is_match("acb-xy"));
        assert!(TypeSubjects { pattern: Some("(".into()), ..subjects }.pattern("t").is_err());
    }
}
