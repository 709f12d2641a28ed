//! What is known of one cold table with respect to one topic, as the local store keeps it.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isk_model::{Boundary, KafkaPartition, OffsetSet, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::ServiceError;
use crate::covered::{Covered, Offsets};
use crate::store::{Changes, Kind, Store};

/// What a book is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BookName {
    pub topic: TopicId,
    pub table: Uuid,
}

impl fmt::Display for BookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.table)
    }
}

/// The names that topic and cold table had when they were last seen: for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BookTitle {
    pub topic: String,
    pub table: String,
}

/// What is known of one cold table with respect to one topic.
#[derive(Clone)]
pub(crate) struct Book {
    pub covered: Arc<Covered>,
    /// Snapshots, manifests and data files that were looked at.
    pub seen: HashSet<String>,
    /// Whether an operator has taken coverage back: what the table holds now is to be looked at again.
    pub anew: bool,
    title: Option<BookTitle>,
}

/// What was learnt.
pub(crate) struct Learnt {
    pub covered: Covered,
    /// The partitions of which more is covered than before.
    pub changed: BTreeSet<KafkaPartition>,
    pub seen: Vec<String>,
}

impl Learnt {
    /// Nothing yet, beyond what the book holds.
    pub(crate) fn of(book: &Book) -> Self {
        Self { covered: Covered::clone(&book.covered), changed: BTreeSet::new(), seen: Vec::new() }
    }
}

impl Book {
    /// The book as it was last kept.
    pub(crate) fn open(store: &Store, name: BookName) -> Result<Self, ServiceError> {
        let before: Option<i64> = store.get(Kind::Boundary, &name.to_string())?;
        let covered = Covered::new(offsets(store, &name.to_string())?, before.map(Boundary));
        let prefix = format!("{name}/");
        let seen = store.scan::<()>(Kind::ColdSeen, &prefix)?;
        let seen = seen.into_iter().filter_map(|(k, ())| Some(k.strip_prefix(&prefix)?.to_owned()));
        Ok(Self {
            covered: Arc::new(covered),
            seen: seen.collect(),
            anew: store.get::<()>(Kind::ColdAnew, &name.to_string())?.is_some(),
            title: store.get(Kind::ColdTitle, &name.to_string())?,
        })
    }

    /// Takes in what was learnt, all of it or nothing. It is on disk after the next [`Store::settle`].
    pub(crate) fn keep(
        &mut self,
        store: &Store,
        name: BookName,
        learnt: Learnt,
    ) -> Result<(), ServiceError> {
        let Learnt { covered, changed, seen } = learnt;
        let mut changes = Changes::default();
        for partition in &changed {
            let Some(set) = covered.offsets.get(partition) else { continue };
            let key = format!("{name}/{}", partition.0);
            changes.put(Kind::Coverage, key, &BASE64.encode(set.to_bytes()))?;
        }
        if let Some(Boundary(ms)) = covered.before.filter(|_| covered.before != self.covered.before)
        {
            changes.put(Kind::Boundary, name.to_string(), &ms)?;
        }
        for key in &seen {
            changes.put(Kind::ColdSeen, format!("{name}/{key}"), &())?;
        }
        store.apply_soon(&changes)?;
        self.covered = Arc::new(covered);
        self.seen.extend(seen);
        Ok(())
    }

    /// What the table holds now was looked at.
    pub(crate) fn looked_anew(
        &mut self,
        store: &Store,
        name: BookName,
    ) -> Result<(), ServiceError> {
        store.remove(Kind::ColdAnew, &name.to_string())?;
        self.anew = false;
        Ok(())
    }

    /// Notes what people call the two.
    pub(crate) fn entitle(
        &mut self,
        store: &Store,
        name: BookName,
        title: BookTitle,
    ) -> Result<(), ServiceError> {
        if self.title.as_ref() != Some(&title) {
            store.put(Kind::ColdTitle, &name.to_string(), &title)?;
            self.title = Some(title);
        }
        Ok(())
    }
}

/// The covered offsets of a book.
pub(crate) fn offsets(store: &Store, book: &str) -> Result<Offsets, ServiceError> {
    let prefix = format!("{book}/");
    let mut offsets = Offsets::new();
    for (key, text) in store.scan::<String>(Kind::Coverage, &prefix)? {
        let partition = key.strip_prefix(&prefix).and_then(|p| p.parse().ok());
        let set = BASE64.decode(&text).ok().and_then(|b| OffsetSet::from_bytes(&b).ok());
        match (partition, set) {
            (Some(partition), Some(set)) => {
                offsets.insert(KafkaPartition(partition), set);
            }
            _ => {
                return Err(ServiceError::Internal(format!(
                    "what cold tables cover is damaged in the local store, at {key}; move \
                     isk.redb below data_dir aside, and it is learnt again"
                )));
            }
        }
    }
    Ok(offsets)
}
