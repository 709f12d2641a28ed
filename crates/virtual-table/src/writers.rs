//! The writer schemas that records name and the registry does not have: a part of what their rows are.
//!
//! That a schema is missing makes errors of its records, and somebody may register it later. So what is
//! missing is noted, and stays missing for the files that are planned, until a later look finds it. Then the
//! topic has a new **state**, which its recipes name: rows of the topic's table and of its table of errors
//! change together, and what was encoded before is not served under a name of now.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isk_model::{RegistrySchemaId, TopicId, TopicName, WriterId};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::store::{Kind, Store};

/// How often missing schemas of a topic are looked for again, at the most.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How many of them at once.
const AT_ONCE: usize = 32;

/// How many ids of a topic are noted. Records may name any number of others: these stay missing until
/// a noted one is found.
const NOTED: usize = 1000;

/// Which of the schemas that were missing have been found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WriterState {
    /// Counts the looks that found some.
    number: u32,
    /// Their ids in order, comma-separated.
    found: Arc<str>,
}

impl WriterState {
    /// The ids of the schemas found, comma-separated.
    pub(crate) fn found(&self) -> &str {
        &self.found
    }
}

/// A schema that was missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// What the registry said.
    cause: String,
    /// The state as of which it is there.
    found: Option<u32>,
}

/// What is kept of a topic across restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Missing {
    /// By how records name them: ids in decimal, GUIDs as UUIDs are written.
    noted: BTreeMap<String, Noted>,
    states: u32,
}

impl Missing {
    fn state(&self, number: u32) -> WriterState {
        let found =
            self.noted.iter().filter(|(_, noted)| noted.found.is_some_and(|at| at <= number));
        let found: Vec<String> = found.map(|(id, _)| id.clone()).collect();
        WriterState { number, found: found.join(",").into() }
    }
}

/// A topic as it is held in memory.
struct Held {
    missing: Missing,
    current: WriterState,
    looked: Option<Instant>,
    /// The id from which the next look goes on.
    next: String,
}

/// All topics' missing schemas.
pub(crate) struct WriterBook {
    store: Arc<Store>,
    topics: Mutex<HashMap<String, Held>>,
}

impl WriterBook {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, topics: Mutex::default() }
    }

    /// The topic's state as of now.
    pub(crate) fn current(
        &self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<WriterState, ServiceError> {
        self.with(topic, id, |held| held.current.clone())
    }

    /// The topic's states, the newest first.
    pub(crate) fn states(
        &self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<Vec<WriterState>, ServiceError> {
        self.with(topic, id, |held| {
            let missing = &held.missing;
            (0..=missing.states).rev().map(|number| missing.state(number)).collect()
        })
    }

    /// Why a schema is missing in a state of the topic's, where it is.
    pub(crate) fn missing(
        &self,
        topic: &TopicName,
        id: TopicId,
        state: &WriterState,
        writer: WriterId,
    ) -> Result<Option<String>, ServiceError> {
        self.with(topic, id, |held| {
            let noted = held.missing.noted.get(&writer.to_string())?;
            noted.found.is_none_or(|at| at > state.number).then(|| noted.cause.clone())
        })
    }

    /// Notes that the registry does not have a schema.
    pub(crate) fn note(
        &self,
        topic: &TopicName,
        id: TopicId,
        writer: WriterId,
        cause: &str,
    ) -> Result<(), ServiceError> {
        let key = key(topic, id);
        let mut topics = self.held(&key)?;
        let Some(held) = topics.get_mut(&key) else { return Ok(()) };
        if held.missing.noted.contains_key(&writer.to_string()) || held.missing.noted.len() >= NOTED
        {
            return Ok(());
        }
        let noted = Noted { cause: cause.to_owned(), found: None };
        held.missing.noted.insert(writer.to_string(), noted);
        self.store.put(Kind::MissingWriters, &key, &held.missing)
    }

    /// The schemas that are to be looked for again now, by one caller: at most [`AT_ONCE`].
    pub(crate) fn to_look_for(
        &self,
        topic: &TopicName,
        id: TopicId,
    ) -> Result<Vec<WriterId>, ServiceError> {
        self.with(topic, id, |held| {
            if held.looked.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN) {
                return Vec::new();
            }
            held.looked = Some(Instant::now());
            let noted = &held.missing.noted;
            let missing =
                |(id, noted): (&String, &Noted)| noted.found.is_none().then(|| id.clone());
            let behind = noted.range(held.next.clone()..).chain(noted.range(..held.next.clone()));
            let ids: Vec<String> = behind.filter_map(missing).take(AT_ONCE).collect();
            // A space sorts before all that ids have.
            held.next = ids.last().map(|last| format!("{last} ")).unwrap_or_default();
            ids.iter().filter_map(|id| named(id)).collect()
        })
    }

    /// The topic has a new state, in which these schemas are there.
    pub(crate) fn found(
        &self,
        topic: &TopicName,
        id: TopicId,
        ids: &[WriterId],
    ) -> Result<(), ServiceError> {
        let key = key(topic, id);
        let mut topics = self.held(&key)?;
        let Some(held) = topics.get_mut(&key) else { return Ok(()) };
        let mut missing = held.missing.clone();
        missing.states += 1;
        let mut new = false;
        for id in ids {
            if let Some(noted) = missing.noted.get_mut(&id.to_string())
                && noted.found.is_none()
            {
                noted.found = Some(missing.states);
                new = true;
            }
        }
        if new {
            self.store.put(Kind::MissingWriters, &key, &missing)?;
            held.current = missing.state(missing.states);
            held.missing = missing;
        }
        Ok(())
    }

    fn with<T>(
        &self,
        topic: &TopicName,
        id: TopicId,
        of: impl FnOnce(&mut Held) -> T,
    ) -> Result<T, ServiceError> {
        let key = key(topic, id);
        let mut topics = self.held(&key)?;
        match topics.get_mut(&key) {
            Some(held) => Ok(of(held)),
            None => Err(ServiceError::Internal("what was read of a topic is not there".into())),
        }
    }

    /// All topics, this one among them.
    fn held(&self, key: &str) -> Result<MutexGuard<'_, HashMap<String, Held>>, ServiceError> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if !topics.contains_key(key) {
            let missing: Missing = self.store.get(Kind::MissingWriters, key)?.unwrap_or_default();
            let current = missing.state(missing.states);
            topics.insert(
                key.to_owned(),
                Held { missing, current, looked: None, next: String::new() },
            );
        }
        Ok(topics)
    }
}

/// What a name that was kept stands for.
fn named(name: &str) -> Option<WriterId> {
    match name.parse() {
        Ok(id) => Some(WriterId::Id(RegistrySchemaId(id))),
        Err(_) => uuid::Uuid::parse_str(name).ok().map(|guid| WriterId::Guid(guid.into_bytes())),
    }
}

fn key(topic: &TopicName, id: TopicId) -> String {
    format!("{topic}/{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(n: i32) -> WriterId {
        WriterId::Id(RegistrySchemaId(n))
    }

    #[test]
    fn what_is_missing_stays_so_in_the_states_before_it_was_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("isk.redb")).unwrap());
        let book = WriterBook::new(Arc::clone(&store));
        let (topic, id) = (TopicName::new("t").unwrap(), TopicId(1));
        let (five, nine) = (id_of(5), WriterId::Guid([0xab; 16]));
        let guid = "abababab-abab-abab-abab-abababababab";
        let first = book.current(&topic, id).unwrap();
        assert_eq!((first.found(), book.to_look_for(&topic, id).unwrap()), ("", vec![]));
        book.note(&topic, id, nine, "none").unwrap();
        book.note(&topic, id, five, "none").unwrap();
        // What is missing is of no other state: files keep their names.
        assert_eq!(book.current(&topic, id).unwrap(), first);
        assert_eq!(book.missing(&topic, id, &first, five).unwrap().as_deref(), Some("none"));
        book.found(&topic, id, &[nine, id_of(77)]).unwrap();
        // After a restart all is as it was.
        let book = WriterBook::new(store);
        assert_eq!(book.to_look_for(&topic, id).unwrap(), [five]);
        assert_eq!(book.to_look_for(&topic, id).unwrap(), [], "not again at once");
        let second = book.current(&topic, id).unwrap();
        assert_eq!(second.found(), guid);
        assert!(book.missing(&topic, id, &first, nine).unwrap().is_some());
        assert!(book.missing(&topic, id, &second, nine).unwrap().is_none());
        assert!(book.missing(&topic, id, &second, five).unwrap().is_some());
        book.found(&topic, id, &[]).unwrap();
        assert_eq!(book.current(&topic, id).unwrap(), second);
        book.found(&topic, id, &[five]).unwrap();
        let third = book.current(&topic, id).unwrap();
        assert_eq!(
            (third.found(), book.states(&topic, id).unwrap()),
            (&*format!("5,{guid}"), vec![third.clone(), second, first])
        );
        // Another topic of the name begins anew.
        assert_eq!(book.current(&topic, TopicId(2)).unwrap(), WriterState::default());
    }

    #[test]
    fn as_many_ids_as_records_can_name_are_not_noted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("isk.redb")).unwrap());
        let (topic, id) = (TopicName::new("t").unwrap(), TopicId(1));
        let noted = |n: i32| (n.to_string(), Noted { cause: "none".to_owned(), found: None });
        let missing = Missing { noted: (1..NOTED as i32).map(noted).collect(), states: 0 };
        store.put(Kind::MissingWriters, &key(&topic, id), &missing).unwrap();
        let book = WriterBook::new(store);
        for n in [NOTED as i32, NOTED as i32 + 1] {
            book.note(&topic, id, id_of(n), "none").unwrap();
        }
        let state = book.current(&topic, id).unwrap();
        let missing = |n: i32| book.missing(&topic, id, &state, id_of(n)).unwrap();
        assert!(missing(NOTED as i32).is_some() && missing(NOTED as i32 + 1).is_none());
        assert_eq!(book.to_look_for(&topic, id).unwrap().len(), AT_ONCE);
    }
}
