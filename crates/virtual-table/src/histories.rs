//! The histories of all topics: each is made by one load at a time, and kept while somebody asks for it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isk_kafka::TopicDescription;
use isk_model::{TopicId, TopicName};
use tokio::sync::OwnedMutexGuard;

use crate::api::ServiceError;
use crate::history::{History, Line, Record};
use crate::metadata_store::MetadataStore;
use crate::round_times::RoundTimes;
use crate::store::{Changes, Kind, Store};
use crate::tick::Tick;

/// After how long a history that nobody asked for leaves the memory.
const IDLE: Duration = Duration::from_secs(3600);

type Shared = Arc<tokio::sync::Mutex<Option<History>>>;

/// The histories of all topics.
pub(crate) struct Histories {
    store: Arc<Store>,
    keep: Duration,
    rounds: RoundTimes,
    topics: Mutex<HashMap<(TopicName, TopicId), (Instant, Shared)>>,
}

impl Histories {
    /// The newest ticks are kept whole for `keep`.
    pub(crate) fn new(store: Arc<Store>, keep: Duration, rounds: RoundTimes) -> Self {
        Self { store, keep, rounds, topics: Mutex::default() }
    }

    /// The topic's history, for one load alone.
    pub(crate) async fn lock(
        &self,
        topic: &TopicDescription,
    ) -> Result<OwnedMutexGuard<Option<History>>, ServiceError> {
        let shared = {
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = topics.entry((topic.name.clone(), topic.id));
            let (used, shared) = entry.or_insert_with(|| (Instant::now(), Shared::default()));
            *used = Instant::now();
            Arc::clone(shared)
        };
        let mut history = shared.lock_owned().await;
        if history.is_none() {
            *history = Some(History::open(topic, &self.store, self.keep, self.rounds)?);
        }
        Ok(history)
    }

    /// The topic's last tick, if it was made or asked for since the start.
    pub(crate) async fn last(&self, topic: &TopicDescription) -> Option<Arc<Tick>> {
        let shared = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&topics.get(&(topic.name.clone(), topic.id))?.1)
        };
        let history = shared.lock().await;
        history.as_ref()?.last()
    }

    /// Lets go of what nobody asked for of late.
    pub(crate) fn rest(&self) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.retain(|_, (used, shared)| used.elapsed() < IDLE || Arc::strong_count(shared) > 1);
    }

    /// Forgets the histories of topics that are not among these any more.
    pub(crate) fn forget_others(&self, topics: &[TopicName]) -> Result<(), ServiceError> {
        let served: BTreeSet<&str> = topics.iter().map(TopicName::as_str).collect();
        let other = |key: &String| !key.split('/').next().is_some_and(|name| served.contains(name));
        let mut gone = Changes::default();
        for (key, _) in self.store.scan::<Line>(Kind::Lineage, "")? {
            if other(&key) {
                for (record, _) in self.store.scan::<Record>(Kind::Snapshots, &format!("{key}/"))? {
                    gone.remove(Kind::Snapshots, record);
                }
                gone.remove(Kind::Lineage, key);
            }
        }
        self.store.apply(&gone)
    }

    /// Keeps all that the histories name from being swept away.
    pub(crate) fn touch(&self, metadata: &MetadataStore) -> Result<(), ServiceError> {
        for (key, line) in self.store.scan::<Line>(Kind::Lineage, "")? {
            let Some(topic) = key.split('/').next().and_then(|name| TopicName::new(name).ok())
            else {
                continue;
            };
            let mut files = BTreeSet::from([line.metadata]);
            for (_, record) in self.store.scan::<Record>(Kind::Snapshots, &format!("{key}/"))? {
                files.extend(record.files);
            }
            files.iter().for_each(|file| metadata.touch(topic.as_str(), file));
        }
        Ok(())
    }
}
