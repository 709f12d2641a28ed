//! What a topic's keys and values are, where the registry does not say.

use std::fmt;

use isk_model::{SchemaFormat, TopicName};
use isk_schema::{CONFIGURED, PlainKind, SchemaError, SchemaText};
use regex::Regex;
use sha2::{Digest, Sha256};

use crate::record_types::TypeSubjects;

/// What the keys, or the values, of a topic are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PartFormat {
    /// What the registry has under the subject that is named, or else under the topic's name with `-key` or
    /// `-value`; without such a subject, bytes.
    #[default]
    Registry,
    /// What the registry has under this subject.
    Subject(String),
    /// Several types of record side by side, which the registry has under these subjects.
    Several(TypeSubjects),
    /// Bytes, whatever the registry has.
    Bytes,
    /// Written with one schema, which the bytes do not name.
    Bare(SchemaText),
}

impl PartFormat {
    /// Written with a schema of this text: of Avro, JSON Schema or Protobuf.
    ///
    /// # Errors
    /// The text is no such schema, or no table can follow it.
    pub fn schema(format: SchemaFormat, text: &str) -> Result<Self, SchemaError> {
        Self::bare(format, text)
    }

    /// One plain value: `string`, `short`, `int`, `long`, `float`, `double` or `uuid`, as Kafka's own serializers write
    /// them. `None` for any other name.
    pub fn plain(name: &str) -> Option<Self> {
        PlainKind::of_name(name)?;
        Self::bare(SchemaFormat::Plain, name).ok()
    }

    fn bare(format: SchemaFormat, text: &str) -> Result<Self, SchemaError> {
        let text = SchemaText {
            version: version(format, text),
            id: CONFIGURED,
            format,
            text: text.to_owned(),
            references: Vec::new(),
        };
        text.parse()?;
        Ok(Self::Bare(text))
    }

    /// The subject to ask the registry for, where it is to be asked.
    pub(crate) fn subject(&self, topic: &TopicName, part: &str) -> Option<String> {
        match self {
            Self::Registry => Some(format!("{topic}-{part}")),
            Self::Subject(subject) => Some(subject.clone()),
            Self::Several(_) | Self::Bytes | Self::Bare(_) => None,
        }
    }
}

impl fmt::Display for PartFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("as the registry says"),
            Self::Subject(subject) => write!(f, "of subject {subject}"),
            Self::Several(TypeSubjects { names, pattern, .. }) => {
                let all: Vec<&str> =
                    names.iter().chain(pattern.iter()).map(String::as_str).collect();
                write!(f, "of the types of record of subjects {}", all.join(", "))
            }
            Self::Bytes => f.write_str("bytes"),
            Self::Bare(text) if text.format == SchemaFormat::Plain => f.write_str(&text.text),
            Self::Bare(text) => write!(f, "bare {}", text.format.name().to_ascii_lowercase()),
        }
    }
}

/// The version of a configured schema: what follows from its text alone, so that each replica has the same. It stays
/// below 100,000, as versions in ids of table schemas do.
fn version(format: SchemaFormat, text: &str) -> u32 {
    let mut hash = Sha256::new();
    hash.update(format.name());
    hash.update([0]);
    hash.update(text);
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    u32::from_be_bytes([a, b, c, d]) % 90_000 + 10_000
}

/// The formats of topics; those that no rule names go by the registry.
#[derive(Debug, Clone, Default)]
pub struct TopicFormats {
    rules: Vec<(Regex, PartFormat, PartFormat)>,
}

impl TopicFormats {
    /// Rules of a regular expression that matches a topic's whole name, what its values and what its keys are. The
    /// first that matches counts.
    ///
    /// # Errors
    /// A pattern that is no regular expression, and why.
    pub fn new(
        rules: impl IntoIterator<Item = (String, PartFormat, PartFormat)>,
    ) -> Result<Self, regex::Error> {
        let rule = |(topic, value, key): (String, PartFormat, PartFormat)| {
            Ok((Regex::new(&format!("^(?:{topic})$"))?, value, key))
        };
        Ok(Self { rules: rules.into_iter().map(rule).collect::<Result<_, _>>()? })
    }

    /// What a topic's values and keys are.
    pub fn of(&self, topic: &TopicName) -> (PartFormat, PartFormat) {
        let rule = self.rules.iter().find(|(pattern, ..)| pattern.is_match(topic.as_str()));
        rule.map(|(_, value, key)| (value.clone(), key.clone())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_first_rule_that_matches_says_what_a_topic_is() {
        let long = PartFormat::plain("long").unwrap();
        let avro = PartFormat::schema(SchemaFormat::Avro, "\"int\"").unwrap();
        let formats = TopicFormats::new([
            ("a.*".to_owned(), avro.clone(), long.clone()),
            (".*".to_owned(), PartFormat::Bytes, PartFormat::Registry),
        ])
        .unwrap();
        let of = |topic| formats.of(&TopicName::new(topic).unwrap());
        assert_eq!(of("ab"), (avro, long));
        assert_eq!(of("ba"), (PartFormat::Bytes, PartFormat::Registry));
        let topic = TopicName::new("t").unwrap();
        assert_eq!(PartFormat::Registry.subject(&topic, "key").as_deref(), Some("t-key"));
        assert_eq!(PartFormat::Bytes.subject(&topic, "key"), None);
        assert!(PartFormat::plain("number").is_none());
        assert!(PartFormat::schema(SchemaFormat::Avro, "{").is_err());
    }

    #[test]
    fn a_version_follows_from_the_text_and_tells_formats_apart() {
        let all = [
            version(SchemaFormat::Avro, "\"string\""),
            version(SchemaFormat::Json, "\"string\""),
            version(SchemaFormat::Avro, "\"int\""),
        ];
        assert!(all.iter().all(|version| (10_000..100_000).contains(version)), "{all:?}");
        assert_eq!(all[0], version(SchemaFormat::Avro, "\"string\""));
        assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
    }
}
