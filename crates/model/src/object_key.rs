//! Object keys: the one place that writes and reads the names of ISK's objects.
//!
//! ```text
//! <topic>/data/<topic id>/<partition>/<start>-<end>-e<epoch>-v<schema>-r<render>[-l<layout>][-x<covered>]-s<size>.parquet
//! <topic>/deletes/<topic id>/<partition>/<start>-<end>.parquet
//! <topic>/metadata/<file name>
//! ```
//!
//! What a caller under rules about columns may see of a topic lies in a folder of its own,
//! `<topic>~<digest of the rules>` (no topic has that sign in its name).
//!
//! A data key is a recipe: it holds all that is needed to make the file again. `epoch` is the leader
//! epoch at the range's end, `schema` the versions of the value's and the key's schema, `render` a
//! digest of every other input that changes bytes, and `size` the declared length of the object. A file
//! that stands beside a cold table's names two metadata files more by their digests: `layout`, the
//! columns it has under that table's field ids, and `covered`, the records that are not in it since the
//! cold table has them.
//! Numbers are padded so that keys sort as their offsets do.

use std::fmt;
use std::str::FromStr;

use crate::offset::{LeaderEpoch, Offset, OffsetRange};
use crate::topic::{KafkaPartition, TopicId, TopicName};

/// Why a string is no object key of ISK's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} is no object key of this service: {reason}")]
pub struct KeyError {
    /// The key as it was given, cut to a printable length.
    pub key: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The versions of the registry subjects `<topic>-value` and `<topic>-key` a file's columns follow;
/// 0 where there is no such subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SchemaVersion {
    /// The value subject's version.
    pub value: u32,
    /// The key subject's version.
    pub key: u32,
}

/// A digest of the render configuration: writer settings, layout, column set, error policy, type
/// mapping and overrides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RenderDigest(pub u64);

/// The digest of a metadata file's content, which is part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest(pub u128);

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for RenderDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The recipe of one virtual data file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataFileKey {
    /// The topic's name.
    pub topic: TopicName,
    /// The rules about columns that its folder is of.
    pub columns: Option<ContentDigest>,
    /// The topic's identity when the file was planned.
    pub topic_id: TopicId,
    /// The Kafka partition.
    pub partition: KafkaPartition,
    /// The offsets whose committed records are the file's rows.
    pub range: OffsetRange,
    /// The leader epoch at the range's end.
    pub leader_epoch: LeaderEpoch,
    /// The schema versions the columns follow.
    pub schema: SchemaVersion,
    /// Every other input that changes bytes.
    pub render: RenderDigest,
    /// The columns the file has, where they are not the topic's own.
    pub layout: Option<ContentDigest>,
    /// The records of the range that are left out, where there are any: a [`crate::LeftOut`].
    pub covered: Option<ContentDigest>,
    /// The object's length in bytes, hole included.
    pub declared_size: u64,
}

/// The name of the position-delete file that stands beside one unproven chunk.
///
/// All of them have the same content: one row that matches no file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeleteFileKey {
    /// The topic's name.
    pub topic: TopicName,
    /// The rules about columns that its folder is of.
    pub columns: Option<ContentDigest>,
    /// The topic's identity when the file was planned.
    pub topic_id: TopicId,
    /// The Kafka partition.
    pub partition: KafkaPartition,
    /// The offsets of the chunk it stands beside.
    pub range: OffsetRange,
}

/// The key of an object in ISK's bucket of live tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// A virtual data file.
    Data(DataFileKey),
    /// An empty position-delete file.
    Delete(DeleteFileKey),
    /// A metadata file, manifest list or manifest: immutable, looked up by name.
    Metadata {
        /// The topic's name.
        topic: TopicName,
        /// The rules about columns that its folder is of.
        columns: Option<ContentDigest>,
        /// The file's name within the topic's metadata folder: `[A-Za-z0-9._-]+`.
        file: String,
    },
}

impl ObjectKey {
    /// The topic the object belongs to.
    pub fn topic(&self) -> &TopicName {
        match self {
            Self::Data(key) => &key.topic,
            Self::Delete(key) => &key.topic,
            Self::Metadata { topic, .. } => topic,
        }
    }

    /// The rules about columns that the object's folder is of.
    pub fn columns(&self) -> Option<ContentDigest> {
        match self {
            Self::Data(key) => key.columns,
            Self::Delete(key) => key.columns,
            Self::Metadata { columns, .. } => *columns,
        }
    }
}

/// The folder of a topic's objects, or of those that are made for callers under rules about columns.
pub fn folder(topic: &TopicName, columns: Option<ContentDigest>) -> String {
    match columns {
        None => topic.to_string(),
        Some(digest) => format!("{topic}{OF_RULES}{digest}"),
    }
}

/// The topic and the rules of a folder: the other way round. What stands behind the sign is not looked at closely.
pub fn split_folder(folder: &str) -> (&str, Option<&str>) {
    match folder.split_once(OF_RULES) {
        None => (folder, None),
        Some((topic, rules)) => (topic, Some(rules)),
    }
}

/// Stands between a topic's name and the digest of rules.
const OF_RULES: char = '~';

impl fmt::Display for DataFileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/data/{}/{:05}/{:019}-{:019}-e{}-v{}.{}-r{}",
            folder(&self.topic, self.columns),
            self.topic_id,
            self.partition.0,
            self.range.start().0,
            self.range.end().0,
            self.leader_epoch.0,
            self.schema.value,
            self.schema.key,
            self.render,
        )?;
        for (tag, digest) in [('l', self.layout), ('x', self.covered)] {
            if let Some(digest) = digest {
                write!(f, "-{tag}{digest}")?;
            }
        }
        write!(f, "-s{}.parquet", self.declared_size)
    }
}

impl DataFileKey {
    /// Where the names of a Kafka partition's data files in a folder that begin at `start` or behind it begin, in
    /// the order of names: it is less than all of theirs, and greater than those of all that begin before.
    pub fn names_from(
        folder: &str,
        id: TopicId,
        partition: KafkaPartition,
        start: Offset,
    ) -> String {
        format!("{folder}/data/{id}/{:05}/{:019}-", partition.0, start.0)
    }
}

impl fmt::Display for DeleteFileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/deletes/{}/{:05}/{:019}-{:019}.parquet",
            folder(&self.topic, self.columns),
            self.topic_id,
            self.partition.0,
            self.range.start().0,
            self.range.end().0,
        )
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(key) => key.fmt(f),
            Self::Delete(key) => key.fmt(f),
            Self::Metadata { topic, columns, file } => {
                write!(f, "{}/metadata/{file}", folder(topic, *columns))
            }
        }
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(s: &str) -> Result<Self, KeyError> {
        let parsed =
            parse(s).map_err(|reason| KeyError { key: s.chars().take(300).collect(), reason })?;
        // One object, one name: what does not print back as it was given is not a name of ours.
        if parsed.to_string() == s {
            Ok(parsed)
        } else {
            Err(KeyError {
                key: s.chars().take(300).collect(),
                reason: "its numbers are not written as this service writes them",
            })
        }
    }
}

fn parse(s: &str) -> Result<ObjectKey, &'static str> {
    let parts: Vec<&str> = s.splitn(6, '/').collect();
    match parts[..] {
        [topic, "metadata", file] => {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if file.is_empty() || file.len() > 255 || !file.bytes().all(legal) {
                return Err("a metadata file's name is 1 to 255 of A-Z a-z 0-9 . _ -");
            }
            let (topic, columns) = parse_folder(topic)?;
            Ok(ObjectKey::Metadata { topic, columns, file: file.to_owned() })
        }
        [topic, "data", id, partition, file] => {
            let (range, rest) = parse_range(parquet_stem(file)?)?;
            let mut tags = rest.split('-');
            let leader_epoch = LeaderEpoch(number(epoch_tag(&mut tags)?)?);
            let schema = tag(tags.next(), 'v')?;
            let (value, key) = schema.split_once('.').ok_or("the schema tag is v<value>.<key>")?;
            let schema = SchemaVersion { value: number(value)?, key: number(key)? };
            let render = tag(tags.next(), 'r')?;
            let render = u64::from_str_radix(render, 16)
                .map(RenderDigest)
                .map_err(|_| "the render tag is no digest")?;
            let mut next = tags.next();
            let mut optional = |letter| match next.and_then(|part| part.strip_prefix(letter)) {
                None => Ok(None),
                Some(digits) => {
                    next = tags.next();
                    let digest = u128::from_str_radix(digits, 16);
                    digest.map(|d| Some(ContentDigest(d))).map_err(|_| "a tag is no digest")
                }
            };
            let (layout, covered) = (optional('l')?, optional('x')?);
            let declared_size = number(tag(next, 's')?)?;
            let (topic, columns) = parse_folder(topic)?;
            if tags.next().is_some() {
                return Err("there is more after the size tag");
            }
            Ok(ObjectKey::Data(DataFileKey {
                topic,
                columns,
                topic_id: parse_topic_id(id)?,
                partition: parse_partition(partition)?,
                range,
                leader_epoch,
                schema,
                render,
                layout,
                covered,
                declared_size,
            }))
        }
        [topic, "deletes", id, partition, file] => {
            let (range, rest) = parse_range(parquet_stem(file)?)?;
            if !rest.is_empty() {
                return Err("there is more after the offset range");
            }
            let (topic, columns) = parse_folder(topic)?;
            Ok(ObjectKey::Delete(DeleteFileKey {
                topic,
                columns,
                topic_id: parse_topic_id(id)?,
                partition: parse_partition(partition)?,
                range,
            }))
        }
        _ => Err("it is none of <topic>/data/…, <topic>/deletes/…, <topic>/metadata/…"),
    }
}

fn parse_folder(s: &str) -> Result<(TopicName, Option<ContentDigest>), &'static str> {
    let (topic, rules) = split_folder(s);
    let topic = TopicName::new(topic).map_err(|_| "it does not begin with a topic name")?;
    let digest = rules.map(|digits| u128::from_str_radix(digits, 16)).transpose();
    let digest = digest.map_err(|_| "the rules behind the topic name are no digest")?;
    Ok((topic, digest.map(ContentDigest)))
}

fn parse_topic_id(s: &str) -> Result<TopicId, &'static str> {
    let id = u128::from_str_radix(s, 16).map_err(|_| "the topic id is not 32 hex digits")?;
    Ok(TopicId(id))
}

fn parse_partition(s: &str) -> Result<KafkaPartition, &'static str> {
    let partition: i32 = number(s)?;
    if partition < 0 { Err("the partition is negative") } else { Ok(KafkaPartition(partition)) }
}

fn parquet_stem(file: &str) -> Result<&str, &'static str> {
    file.strip_suffix(".parquet").ok_or("it does not end in .parquet")
}

/// Reads `<start>-<end>` and returns what stands behind the dash that follows, if anything.
fn parse_range(stem: &str) -> Result<(OffsetRange, &str), &'static str> {
    let (start, rest) = stem.split_once('-').ok_or("the file name is no offset range")?;
    let (end, rest) = rest.split_once('-').unwrap_or((rest, ""));
    let range = OffsetRange::new(Offset(number(start)?), Offset(number(end)?))
        .ok_or("the offset range is empty or negative")?;
    Ok((range, rest))
}

/// The epoch is the one number that may be negative (-1), so its own dash splits off an empty tag.
fn epoch_tag<'a>(tags: &mut std::str::Split<'a, char>) -> Result<&'a str, &'static str> {
    match tag(tags.next(), 'e')? {
        "" => match tags.next() {
            Some("1") => Ok("-1"),
            _ => Err("the epoch tag is no number"),
        },
        digits => Ok(digits),
    }
}

fn tag(part: Option<&str>, letter: char) -> Result<&str, &'static str> {
    part.and_then(|p| p.strip_prefix(letter))
        .ok_or("the file name's tags are not -e<epoch>-v<schema>-r<render>[-l<layout>][-x<covered>]-s<size>")
}

fn number<T: FromStr>(s: &str) -> Result<T, &'static str> {
    s.parse().map_err(|_| "a number is malformed or too large")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data_key() -> impl Strategy<Value = DataFileKey> {
        (
            "[a-zA-Z0-9._-]{3,40}",
            any::<u128>(),
            0..i32::MAX,
            (0..i64::MAX - 1, 1i64..1 << 30),
            -1..i32::MAX,
            (any::<u32>(), any::<u32>()),
            any::<u64>(),
            (any::<Option<u128>>(), any::<Option<u128>>(), any::<Option<u128>>()),
            any::<u64>(),
        )
            .prop_map(
                |(
                    topic,
                    id,
                    p,
                    (start, span),
                    epoch,
                    (value, key),
                    render,
                    (layout, covered, columns),
                    size,
                )| DataFileKey {
                    topic: TopicName::new(&topic).unwrap(),
                    columns: columns.map(ContentDigest),
                    topic_id: TopicId(id),
                    partition: KafkaPartition(p),
                    range: OffsetRange::new(Offset(start), Offset(start.saturating_add(span)))
                        .unwrap(),
                    leader_epoch: LeaderEpoch(epoch),
                    schema: SchemaVersion { value, key },
                    render: RenderDigest(render),
                    layout: layout.map(ContentDigest),
                    covered: covered.map(ContentDigest),
                    declared_size: size,
                },
            )
    }

    proptest! {
        #[test]
        fn data_keys_round_trip(key in data_key()) {
            let key = ObjectKey::Data(key);
            prop_assert_eq!(key.to_string().parse::<ObjectKey>(), Ok(key));
        }

        #[test]
        fn delete_keys_round_trip(key in data_key()) {
            let key = ObjectKey::Delete(DeleteFileKey {
                topic: key.topic, columns: key.columns, topic_id: key.topic_id, partition: key.partition, range: key.range,
            });
            prop_assert_eq!(key.to_string().parse::<ObjectKey>(), Ok(key));
        }

        #[test]
        fn keys_of_a_partition_sort_as_their_offsets(a in 0i64..i64::MAX - 1, b in 0i64..i64::MAX - 1, key in data_key()) {
            let at = |start| {
                let range = OffsetRange::new(Offset(start), Offset(start + 1)).unwrap();
                DataFileKey { range, ..key.clone() }.to_string()
            };
            prop_assert_eq!(a.cmp(&b), at(a).cmp(&at(b)));
        }

        #[test]
        fn any_text_is_refused_or_prints_back_the_same(s in "(orders/(data|deletes|metadata)/)?[ -~]{0,80}") {
            if let Ok(key) = s.parse::<ObjectKey>() {
                prop_assert_eq!(key.to_string(), s);
            }
        }
    }

    #[test]
    fn a_key_reads_as_its_recipe() {
        let key = DataFileKey {
            topic: TopicName::new("orders.eu").unwrap(),
            columns: None,
            topic_id: TopicId(0xabc),
            partition: KafkaPartition(3),
            range: OffsetRange::new(Offset(0), Offset(1 << 20)).unwrap(),
            leader_epoch: LeaderEpoch(-1),
            schema: SchemaVersion { value: 2, key: 0 },
            render: RenderDigest(0xf00d),
            layout: None,
            covered: None,
            declared_size: 12345,
        };
        assert_eq!(
            key.to_string(),
            "orders.eu/data/00000000000000000000000000000abc/00003/\
             0000000000000000000-0000000000001048576-e-1-v2.0-r000000000000f00d-s12345.parquet"
        );
        let ruled = DataFileKey { columns: Some(ContentDigest(0xc0)), ..key }.to_string();
        assert!(ruled.starts_with("orders.eu~000000000000000000000000000000c0/data/"), "{ruled}");
        assert_eq!(split_folder("orders.eu~c0"), ("orders.eu", Some("c0")));
        assert_eq!(split_folder("orders.eu"), ("orders.eu", None));
    }

    #[test]
    fn a_second_spelling_of_a_key_is_refused() {
        let good = "t/metadata/v1.metadata.json";
        assert!(good.parse::<ObjectKey>().is_ok());
        for bad in [
            "",
            "t",
            "/metadata/x",
            "t/metadata/",
            "t/metadata/a/b",
            "t/metadata/%2e",
            "t~/metadata/x",
            "t~c0/metadata/x",
            "~000000000000000000000000000000c0/metadata/x",
            "t/data/0/0/0-1-e0-v1.0-r0-s1.parquet",
            "t/deletes/00000000000000000000000000000abc/00000/0000000000000000005-0000000000000000005.parquet",
        ] {
            assert!(bad.parse::<ObjectKey>().is_err(), "{bad}");
        }
    }
}
