//! What topics' keys and values are, from the configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use isk_model::SchemaFormat;
use isk_virtual_table::{PartFormat, TopicFormats, TypeSubjects};
use serde::Deserialize;

use crate::config::Config;

/// Topics whose keys or values the registry does not describe, or not under their own name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Formats {
    /// The first pattern that matches counts.
    pub topics: Vec<TopicFormat>,
}

/// What the keys and values of some topics are. A part that is not named goes by the registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicFormat {
    /// A regular expression that matches the topic's whole name.
    pub topic: String,
    /// `registry`, `bytes`, `avro`, `json` or `protobuf` without framing, or a plain `string`, `short`, `int`, `long`,
    /// `float`, `double`, `uuid`.
    #[serde(default)]
    pub value: Option<String>,
    /// The schema of values that are `avro`, `json` or `protobuf`.
    #[serde(default)]
    pub value_schema_file: Option<PathBuf>,
    /// The subject of values that go by the registry.
    #[serde(default)]
    pub value_subject: Option<String>,
    /// The subjects of values that are of several types of record; `{topic}` is the topic's name.
    #[serde(default)]
    pub value_subjects: Vec<String>,
    /// Or a regular expression that matches the whole names of such subjects.
    #[serde(default)]
    pub value_subject_pattern: Option<String>,
    /// What is listed of several types of record: `columns`, the topic's own table alone with a column for each; or
    /// `tables`, a table for each too.
    #[serde(default)]
    pub record_types: Option<String>,
    /// As `value`.
    #[serde(default)]
    pub key: Option<String>,
    /// As `value_schema_file`.
    #[serde(default)]
    pub key_schema_file: Option<PathBuf>,
    /// As `value_subject`.
    #[serde(default)]
    pub key_subject: Option<String>,
}

/// The formats as configured. Reads the schemas' files.
pub fn formats(config: &Config) -> Result<TopicFormats> {
    let rules = config.formats.topics.iter().map(|rule| {
        let value = match several(rule) {
            Ok(Some(types)) => Ok(types),
            Ok(None) => part(&rule.value, &rule.value_schema_file, &rule.value_subject),
            Err(error) => Err(error),
        };
        let key = part(&rule.key, &rule.key_schema_file, &rule.key_subject);
        let named = |part: &str| {
            format!("configuration key \"formats.topics\", topic {:?}: {part}", rule.topic)
        };
        Ok((
            rule.topic.clone(),
            value.with_context(|| named("value"))?,
            key.with_context(|| named("key"))?,
        ))
    });
    let rules = rules.collect::<Result<Vec<_>>>()?;
    TopicFormats::new(rules).context("configuration key \"formats.topics\"")
}

/// Values of several types of record, where the rule says so.
fn several(rule: &TopicFormat) -> Result<Option<PartFormat>> {
    let (names, pattern) = (rule.value_subjects.clone(), rule.value_subject_pattern.clone());
    if names.is_empty() && pattern.is_none() {
        if rule.record_types.is_some() {
            bail!("record_types is for values of value_subjects or value_subject_pattern");
        }
        return Ok(None);
    }
    if rule.value.as_deref().is_some_and(|value| value != "registry")
        || rule.value_schema_file.is_some()
        || rule.value_subject.is_some()
    {
        bail!(
            "value_subjects and value_subject_pattern stand for themselves, without value, value_schema_file and \
             value_subject"
        );
    }
    let tables = match rule.record_types.as_deref() {
        None | Some("columns") => false,
        Some("tables") => true,
        Some(other) => bail!("record_types is columns or tables, not {other:?}"),
    };
    let types = TypeSubjects { names, pattern, tables };
    types.pattern("topic").context("value_subject_pattern")?;
    Ok(Some(PartFormat::Several(types)))
}

fn part(
    name: &Option<String>,
    file: &Option<PathBuf>,
    subject: &Option<String>,
) -> Result<PartFormat> {
    let name = name.as_deref().unwrap_or("registry");
    if let Some(format) = SchemaFormat::of_name(name) {
        let Some(file) = file else {
            bail!("{name:?} without framing needs its schema's file (…_schema_file)");
        };
        if subject.is_some() {
            bail!("a subject is for what goes by the registry, and {name:?} does not");
        }
        return schema(format, file);
    }
    if file.is_some() {
        bail!("a schema's file is for \"avro\", \"json\" or \"protobuf\", not for {name:?}");
    }
    match (name, subject) {
        ("registry", None) => Ok(PartFormat::Registry),
        ("registry", Some(subject)) => Ok(PartFormat::Subject(subject.clone())),
        (_, Some(_)) => bail!("a subject is for what goes by the registry, and {name:?} does not"),
        ("bytes", None) => Ok(PartFormat::Bytes),
        (plain, None) => PartFormat::plain(plain).with_context(|| {
            format!(
                "{plain:?} is none of registry, bytes, avro, json, protobuf, string, short, int, long, float, \
                 double, uuid"
            )
        }),
    }
}

fn schema(format: SchemaFormat, file: &Path) -> Result<PartFormat> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the schema's file {}", file.display()))?;
    PartFormat::schema(format, &text).with_context(|| format!("the schema in {}", file.display()))
}
