//! The schemas of topics of which nobody says what they are: found in their records, kept with what was counted,
//! and pinned by operators.
//!
//! Each schema that is found is a version of its own. They are numbered from [`FIRST`] on, beyond what registries
//! count to and below what types of record and configured schemas are numbered with, and no number is given twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isk_decode::{Looked, observe_json};
use isk_model::{SchemaFormat, TopicId, TopicName};
use isk_schema::{
    CONFIGURED, FieldIdMap, Limits, MAX_PLACES, Observed, SchemaError, SchemaText, Shape,
    table_schema,
};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::store::{Kind, Store};
use crate::topics::TopicFilter;

/// The numbers of the versions that are given out here.
const FIRST: u32 = 3_000;
const LAST: u32 = 4_999;

/// So many of a hundred values must be JSON objects for a topic to be one of JSON; or UTF-8, for one of texts.
const SURE: u64 = 95;

/// The pause between two looks at a topic that may have changed, at least.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The longest pause between two versions that come of what readers met.
const LONGEST_PAUSE_MS: i64 = 3_600_000;

/// What is discovered, and how.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// Whether anything is.
    pub enabled: bool,
    /// Of which topics.
    pub topics: TopicFilter,
    /// How many columns they may become.
    pub limits: Limits,
    /// Whether topics of UTF-8 that is no JSON are columns of texts.
    pub texts: bool,
}

impl DiscoveryConfig {
    /// Nothing is discovered.
    pub fn off() -> Self {
        let limits = Limits { columns: 0, keys: 0 };
        Self { enabled: false, topics: TopicFilter::none(), limits, texts: false }
    }
}

/// What was seen of a topic's values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Records, those without a value too.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Values that are JSON objects.
    pub objects: u64,
    /// Other JSON.
    pub other_json: u64,
    /// Other UTF-8.
    pub texts: u64,
    /// All other values.
    pub binary: u64,
    /// Records of these that readers met, after the topic was sampled, and that did not fit.
    pub noticed: u64,
    /// What is in the objects.
    pub observed: Observed,
}

impl Sample {
    /// What these values are; `None` is a record without one.
    pub(crate) fn of<'v>(values: impl IntoIterator<Item = Option<&'v [u8]>>) -> Self {
        let (mut sample, mut room) = (Self::default(), MAX_PLACES);
        for value in values {
            sample.look(value, &mut room);
        }
        sample
    }

    fn look(&mut self, value: Option<&[u8]>, room: &mut usize) {
        self.records += 1;
        let Some(value) = value else {
            self.tombstones += 1;
            return;
        };
        self.bytes += value.len() as u64;
        *match observe_json(value, &mut self.observed, room) {
            Looked::Object => &mut self.objects,
            Looked::OtherJson => &mut self.other_json,
            Looked::Text => &mut self.texts,
            Looked::Bytes => &mut self.binary,
        } += 1;
    }

    /// Values seen.
    pub fn values(&self) -> u64 {
        self.objects + self.other_json + self.texts + self.binary
    }

    fn merge(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.tombstones += other.tombstones;
        self.objects += other.objects;
        self.other_json += other.other_json;
        self.texts += other.texts;
        self.binary += other.binary;
        self.noticed += other.noticed;
        let mut room = MAX_PLACES.saturating_sub(self.observed.places());
        self.observed.merge(&other.observed, &mut room);
    }

    fn is_json(&self) -> bool {
        self.values() > 0 && self.objects * 100 >= self.values() * SURE
    }

    fn is_text(&self) -> bool {
        self.values() > 0 && (self.values() - self.binary) * 100 >= self.values() * SURE
    }
}

/// A schema with the number of its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Numbered {
    number: u32,
    format: String,
    text: String,
}

impl Numbered {
    fn text(&self) -> SchemaText {
        text(
            self.number,
            SchemaFormat::of_name(&self.format).unwrap_or(SchemaFormat::Plain),
            &self.text,
        )
    }

    fn is(&self, format: SchemaFormat, text: &str) -> bool {
        self.format == format.name() && self.text == text
    }
}

fn text(version: u32, format: SchemaFormat, text: &str) -> SchemaText {
    SchemaText { version, id: CONFIGURED, format, text: text.to_owned(), references: Vec::new() }
}

/// What is kept of a topic across restarts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    pub sample: Sample,
    /// How far each partition was looked through.
    pub ends: BTreeMap<i32, i64>,
    /// When it was sampled last, in milliseconds since 1970.
    pub looked_ms: i64,
    /// The columns that were found: later ones are no narrower.
    shape: Option<Shape>,
    current: Option<Numbered>,
    /// What was current before all was forgotten: the same columns again are the same version.
    before: Option<Numbered>,
    pinned: Option<Numbered>,
    /// How many numbers were given out.
    given: u32,
    /// When the last was, and how many were since the topic was first looked at, or discovered anew.
    changed_ms: i64,
    changes: u32,
}

impl Kept {
    /// Takes the columns that follow from what was seen. Whether they are others than before.
    fn adopt(&mut self, config: &DiscoveryConfig, now_ms: i64) -> bool {
        if self.shape.is_some() || self.sample.is_json() {
            let observed = &self.sample.observed;
            let shape = Shape::of_records(observed, self.shape.as_ref(), config.limits);
            let adopted = self.shape.as_ref() != Some(&shape)
                && self.take(SchemaFormat::Json, &shape.json_schema(), now_ms);
            if adopted {
                self.shape = Some(shape);
            }
            return adopted;
        }
        config.texts && self.sample.is_text() && self.take(SchemaFormat::Plain, "string", now_ms)
    }

    /// Makes a schema the current one. Whether another one was.
    fn take(&mut self, format: SchemaFormat, schema: &str, now_ms: i64) -> bool {
        if self.current.as_ref().is_some_and(|current| current.is(format, schema)) {
            return false;
        }
        let before = self.before.take().filter(|before| before.is(format, schema));
        let Some(numbered) = before.or_else(|| self.number(format, schema)) else { return false };
        self.current = Some(numbered);
        self.changed_ms = now_ms;
        self.changes = self.changes.saturating_add(1);
        true
    }

    /// A schema as a version of its own; `None` where no number is left, or no table can follow it.
    fn number(&mut self, format: SchemaFormat, schema: &str) -> Option<Numbered> {
        let number = FIRST + self.given;
        if number > LAST {
            return None;
        }
        if let Err(error) = check(&text(number, format, schema)) {
            tracing::warn!(%error, "a schema that was discovered can be no table");
            return None;
        }
        self.given += 1;
        Some(Numbered { number, format: format.name().to_owned(), text: schema.to_owned() })
    }

    /// When what readers met may make a new version: seldom, where there were many, as each is encoded anew.
    fn due_ms(&self) -> i64 {
        let pause = 1000i64 << self.changes.min(12);
        self.changed_ms.saturating_add(pause.min(LONGEST_PAUSE_MS))
    }
}

/// Whether a table can follow a schema.
fn check(text: &SchemaText) -> Result<(), SchemaError> {
    table_schema(std::slice::from_ref(text), &[], &mut FieldIdMap::default()).map(drop)
}

/// A topic as it is held in memory.
struct Held {
    kept: Kept,
    /// What readers met and is not in the columns yet.
    pending: Sample,
    looked: Option<Instant>,
}

/// The schema of a topic that nobody else described.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub text: SchemaText,
    pub pinned: bool,
}

/// Why a schema cannot be pinned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PinError {
    /// It is none that a table can follow.
    #[error("{0}")]
    Invalid(String),
    /// Somebody else says what the topic is, or there is nothing to pin.
    #[error("{0}")]
    Conflict(String),
    /// Anything else.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// All topics' discovered schemas.
pub(crate) struct Discovery {
    config: DiscoveryConfig,
    store: Arc<Store>,
    topics: Mutex<HashMap<String, Held>>,
}

impl Discovery {
    pub(crate) fn new(config: DiscoveryConfig, store: Arc<Store>) -> Self {
        Self { config, store, topics: Mutex::default() }
    }

    /// Whether a topic's schema is to be discovered, should nobody say it.
    pub(crate) fn serves(&self, topic: &TopicName) -> bool {
        self.config.enabled && self.config.topics.serves(topic)
    }

    /// Whether a number is that of a version from here.
    pub(crate) fn gave(version: u32) -> bool {
        (FIRST..=LAST).contains(&version)
    }

    /// The schema that is pinned, or was discovered. What readers met since may make a new one.
    pub(crate) fn found(
        &self,
        topic: &TopicName,
        id: TopicId,
        now_ms: i64,
    ) -> Result<Option<Found>, ServiceError> {
        self.change(topic, id, |held| {
            let kept = &mut held.kept;
            if let Some(pinned) = &kept.pinned {
                return (Some(Found { text: pinned.text(), pinned: true }), false);
            }
            if !self.serves(topic) {
                return (None, false);
            }
            let changed = held.pending.records > 0 && now_ms >= kept.due_ms() && {
                let mut next = kept.clone();
                next.sample.merge(&std::mem::take(&mut held.pending));
                let changed = next.adopt(&self.config, now_ms);
                if changed {
                    *kept = next;
                }
                changed
            };
            let current = kept.current.as_ref();
            (current.map(|current| Found { text: current.text(), pinned: false }), changed)
        })
    }

    /// Whether a topic was never looked at, or so long ago.
    pub(crate) fn may_look(
        &self,
        topic: &TopicName,
        id: TopicId,
        ago: Duration,
    ) -> Result<bool, ServiceError> {
        self.change(topic, id, |held| {
            (held.looked.is_none_or(|looked| looked.elapsed() >= ago), false)
        })
    }

    /// Notes that a topic was looked at, and what was seen up to these ends.
    pub(crate) fn looked(
        &self,
        topic: &TopicName,
        id: TopicId,
        seen: Option<(Sample, BTreeMap<i32, i64>)>,
        now_ms: i64,
    ) -> Result<(), ServiceError> {
        self.change(topic, id, |held| {
            held.looked = Some(Instant::now());
            let Some((sample, ends)) = seen else { return ((), false) };
            held.kept.sample.merge(&sample);
            held.kept.ends = ends;
            held.kept.looked_ms = now_ms;
            if held.kept.adopt(&self.config, now_ms) {
                let version = held.kept.current.as_ref().map(|current| current.number);
                tracing::info!(%topic, version, records = held.kept.sample.records, "a schema was discovered");
            }
            ((), true)
        })
    }

    /// Notes records that do not fit the columns.
    pub(crate) fn notice(
        &self,
        topic: &TopicName,
        id: TopicId,
        mut sample: Sample,
    ) -> Result<(), ServiceError> {
        sample.noticed = sample.records;
        self.change(topic, id, |held| {
            if held.kept.pinned.is_none() {
                held.pending.merge(&sample);
            }
            ((), false)
        })
    }

    /// All that is known of a topic.
    pub(crate) fn kept(&self, topic: &TopicName, id: TopicId) -> Result<Kept, ServiceError> {
        self.change(topic, id, |held| (held.kept.clone(), false))
    }

    /// Pins a schema, or without one what was discovered. Nothing else is shown then, whatever is seen.
    pub(crate) fn pin(
        &self,
        topic: &TopicName,
        id: TopicId,
        schema: Option<(SchemaFormat, &str)>,
    ) -> Result<(), PinError> {
        if let Some((format, schema)) = schema {
            check(&text(FIRST, format, schema)).map_err(|e| PinError::Invalid(e.to_string()))?;
        }
        self.change(topic, id, |held| {
            let kept = &mut held.kept;
            let known = [kept.pinned.clone(), kept.current.clone()];
            let mut known = known.into_iter().flatten();
            let pinned = match schema {
                None => {
                    known.next().ok_or("no schema was discovered that could be pinned; give one")
                }
                Some((format, schema)) => known
                    .find(|known| known.is(format, schema))
                    .or_else(|| kept.number(format, schema))
                    .ok_or("the topic's versions are used up; recreate it under another name"),
            };
            match pinned {
                Ok(pinned) => {
                    kept.pinned = Some(pinned);
                    (Ok(()), true)
                }
                Err(why) => (Err(PinError::Conflict(format!("topic {topic}: {why}"))), false),
            }
        })?
    }

    /// Forgets what is pinned and what was seen: the topic is to be discovered anew.
    pub(crate) fn forget(&self, topic: &TopicName, id: TopicId) -> Result<(), ServiceError> {
        self.change(topic, id, |held| {
            let Kept { given, current, before, .. } = std::mem::take(&mut held.kept);
            held.kept = Kept { given, before: current.or(before), ..Kept::default() };
            held.looked = None;
            held.pending = Sample::default();
            ((), true)
        })
    }

    /// Looks at or changes what is held of a topic; a change is on disk when this returns.
    fn change<T>(
        &self,
        topic: &TopicName,
        id: TopicId,
        change: impl FnOnce(&mut Held) -> (T, bool),
    ) -> Result<T, ServiceError> {
        let key = format!("{topic}/{id}");
        let mut topics = self.held(&key)?;
        let Some(held) = topics.get_mut(&key) else {
            return Err(ServiceError::Internal("what was discovered is not held".into()));
        };
        let (answer, changed) = change(held);
        if changed {
            self.store.put(Kind::Discovered, &key, &held.kept)?;
        }
        Ok(answer)
    }

    fn held(&self, key: &str) -> Result<MutexGuard<'_, HashMap<String, Held>>, ServiceError> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if !topics.contains_key(key) {
            let kept = self.store.get::<Kept>(Kind::Discovered, key)?.unwrap_or_default();
            let held = Held { kept, pending: Sample::default(), looked: None };
            topics.insert(key.to_owned(), held);
        }
        Ok(topics)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config() -> DiscoveryConfig {
        DiscoveryConfig {
            enabled: true,
            topics: TopicFilter::new(&[".*"], &["raw"]).unwrap(),
            limits: Limits { columns: 500, keys: 100 },
            texts: false,
        }
    }

    fn store(dir: &tempfile::TempDir) -> Arc<Store> {
        Arc::new(Store::open(&dir.path().join("isk.redb")).unwrap())
    }

    fn sample(values: &[&str]) -> Sample {
        Sample::of(values.iter().map(|value| Some(value.as_bytes())))
    }

    fn topic(name: &str) -> (TopicName, TopicId) {
        (TopicName::new(name).unwrap(), TopicId(1))
    }

    #[test]
    fn a_topic_is_json_only_where_that_is_sure() {
        let (json, other) = ("{\"a\":1}", "text");
        for (objects, others, found) in [(1, 0, true), (19, 1, true), (18, 1, false), (0, 5, false)]
        {
            let dir = tempfile::tempdir().unwrap();
            let discovery = Discovery::new(config(), store(&dir));
            let (name, id) = topic("t");
            assert!(discovery.may_look(&name, id, LOOK_AGAIN).unwrap());
            let values = [vec![json; objects], vec![other; others]].concat();
            let seen = (sample(&values), BTreeMap::from([(0, 20)]));
            discovery.looked(&name, id, Some(seen), 0).unwrap();
            assert!(!discovery.may_look(&name, id, LOOK_AGAIN).unwrap());
            let schema = discovery.found(&name, id, 0).unwrap();
            assert_eq!(schema.is_some(), found, "{objects} of {}", objects + others);
            assert!(
                schema.is_none_or(|found| !found.pinned && Discovery::gave(found.text.version))
            );
            assert_eq!(discovery.kept(&name, id).unwrap().ends, BTreeMap::from([(0, 20)]));
        }
        // What it once was, it stays: the others are errors.
        let dir = tempfile::tempdir().unwrap();
        let discovery = Discovery::new(config(), store(&dir));
        let (name, id) = topic("t");
        for values in [[json; 9], [other; 9]] {
            discovery.looked(&name, id, Some((sample(&values), BTreeMap::new())), 0).unwrap();
            assert!(discovery.found(&name, id, 0).unwrap().is_some());
        }
        assert!(discovery.serves(&name) && !discovery.serves(&topic("raw").0));
    }

    #[test]
    fn texts_are_a_column_only_where_that_is_asked_for() {
        for texts in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let discovery = Discovery::new(DiscoveryConfig { texts, ..config() }, store(&dir));
            let (name, id) = topic("t");
            for _ in 0..2 {
                let seen = (sample(&["some text", "17"]), BTreeMap::new());
                discovery.looked(&name, id, Some(seen), 0).unwrap();
                let found = discovery.found(&name, id, 0).unwrap().map(|found| found.text);
                let plain = found.map(|text| (text.version, text.format, text.text));
                assert_eq!(plain, texts.then(|| (FIRST, SchemaFormat::Plain, "string".to_owned())));
            }
        }
    }

    #[test]
    fn what_readers_meet_makes_a_version_and_then_another_only_later() {
        let dir = tempfile::tempdir().unwrap();
        let discovery = Discovery::new(config(), store(&dir));
        let (name, id) = topic("t");
        let version = |discovery: &Discovery, now| {
            discovery
                .found(&name, id, now)
                .unwrap()
                .map(|found| (found.text.version, found.text.text))
        };
        let seen = (sample(&["{\"a\":1}"]), BTreeMap::new());
        discovery.looked(&name, id, Some(seen), 0).unwrap();
        let (first, text) = version(&discovery, 0).unwrap();
        assert!(first == FIRST && !text.contains("\"b\""));
        discovery.notice(&name, id, sample(&["{\"a\":1}"])).unwrap();
        assert_eq!(version(&discovery, 10_000).unwrap().0, first, "it fits");
        discovery.notice(&name, id, sample(&["{\"b\":1}"])).unwrap();
        assert_eq!(version(&discovery, 1_000).unwrap().0, first, "it is too soon");
        let (second, text) = version(&discovery, 2_000).unwrap();
        assert!(second == FIRST + 1 && text.contains("\"b\""));
        let sample_of = |discovery: &Discovery| discovery.kept(&name, id).unwrap().sample;
        assert_eq!(sample_of(&discovery).noticed, 1);
        discovery.notice(&name, id, sample(&["{\"c\":1}"])).unwrap();
        assert_eq!(version(&discovery, 5_999).unwrap().0, second, "the pauses grow");
        assert_eq!(version(&discovery, 6_000).unwrap().0, second + 1);
        // It outlives the process.
        let before = sample_of(&discovery);
        drop(discovery);
        let discovery = Discovery::new(config(), store(&dir));
        assert_eq!(version(&discovery, 6_000).unwrap().0, second + 1);
        assert_eq!(sample_of(&discovery), before);
    }

    #[test]
    fn a_pin_holds_until_it_is_taken_away_and_numbers_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let discovery = Discovery::new(config(), store(&dir));
        let (name, id) = topic("t");
        let found = |now| {
            let found = discovery.found(&name, id, now).unwrap();
            found.map(|found| (found.text.version, found.pinned))
        };
        let nothing = discovery.pin(&name, id, None).unwrap_err();
        assert!(matches!(nothing, PinError::Conflict(_)), "{nothing}");
        let look = |values: &[&str]| {
            let seen = (sample(values), BTreeMap::new());
            discovery.looked(&name, id, Some(seen), 0).unwrap();
        };
        look(&["{\"a\":1}"]);
        discovery.pin(&name, id, None).unwrap();
        assert_eq!(found(0), Some((FIRST, true)));
        discovery.notice(&name, id, sample(&["{\"b\":1}"])).unwrap();
        assert_eq!(found(1_000_000), Some((FIRST, true)));
        let avro = |name: &str| format!(r#"{{"type":"record","name":"{name}","fields":[]}}"#);
        for (text, named) in [("{", "valid"), (r#"{"type":"recor"}"#, "recor")] {
            let error = discovery.pin(&name, id, Some((SchemaFormat::Avro, text))).unwrap_err();
            assert!(matches!(&error, PinError::Invalid(why) if why.contains(named)), "{error}");
        }
        for (text, number) in [(avro("A"), 1), (avro("A"), 1), (avro("B"), 2), (avro("A"), 3)] {
            discovery.pin(&name, id, Some((SchemaFormat::Avro, &text))).unwrap();
            assert_eq!(found(0), Some((FIRST + number, true)), "{text}");
        }
        discovery.forget(&name, id).unwrap();
        assert_eq!(found(0), None);
        assert!(discovery.may_look(&name, id, LOOK_AGAIN).unwrap());
        look(&["{\"a\":1}"]);
        assert_eq!(found(0), Some((FIRST, false)), "the same columns as before");
        discovery.forget(&name, id).unwrap();
        look(&["{\"z\":1}"]);
        assert_eq!(found(0), Some((FIRST + 4, false)));
    }
}
