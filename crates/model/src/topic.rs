//! Topics and partitions, as Kafka names them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Why a string is no topic name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no Kafka topic name: 1 to 249 of the characters a-z A-Z 0-9 . _ -, and neither \".\" nor \"..\""
)]
pub struct InvalidTopicName(pub String);

/// A Kafka topic name: 1 to 249 characters of `[a-zA-Z0-9._-]`, not `.` or `..`.
///
/// These characters are safe in an S3 key and in a URL path, so a topic name is never escaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks a name by Kafka's rules.
    pub fn new(name: &str) -> Result<Self, InvalidTopicName> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let ok = (1..=249).contains(&name.len())
            && name != "."
            && name != ".."
            && name.bytes().all(legal);
        if ok { Ok(Self(name.into())) } else { Err(InvalidTopicName(name.to_owned())) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TopicName {
    type Err = InvalidTopicName;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::new(s)
    }
}

/// The identity of a topic: Kafka's topic id (KIP-516). A topic that is deleted and created again
/// under the same name has another one. Zero where the broker gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub u128);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A Kafka partition number within its topic. ("Partition" alone is Iceberg's word.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KafkaPartition(pub i32);

impl fmt::Display for KafkaPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number.
    pub partition: KafkaPartition,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// The global id a schema registry gave a schema (the four bytes of the Confluent wire format).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrySchemaId(pub i32);

/// How a record names the schema that it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriterId {
    /// By the id that its registry gave it.
    Id(RegistrySchemaId),
    /// By what is the same in all registries: the 16 bytes of a UUID.
    Guid([u8; 16]),
}

impl WriterId {
    /// The registry's id, where that is what the record names.
    pub fn id(self) -> Option<RegistrySchemaId> {
        match self {
            Self::Id(id) => Some(id),
            Self::Guid(_) => None,
        }
    }
}

impl From<RegistrySchemaId> for WriterId {
    fn from(id: RegistrySchemaId) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for WriterId {
    /// The id, or the GUID as a UUID is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Guid(bytes) => {
                for (i, byte) in bytes.iter().enumerate() {
                    let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for RegistrySchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
