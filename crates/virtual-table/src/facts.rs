//! Chunk facts: what is known of a chunk because it has been encoded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isk_model::{ColumnMetrics, DataFileKey, KafkaPartition, TopicId};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::store::{Kind, Store};

/// What one encoding of a chunk has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// The exact number of rows.
    pub rows: u64,
    /// The Parquet file's true length in bytes.
    pub file_size: u64,
    /// BLAKE3 of the file.
    pub digest: [u8; 32],
    /// Metrics by field id.
    pub columns: BTreeMap<i32, ColumnMetrics>,
}

/// The facts of one recipe: its latest encoding, and under which declared sizes it was served.
///
/// The declared size is part of an object's name. When the log no longer encodes to the same bytes
/// (the cleaner ran), the names served so far are dead, and the next plan must use another: one whose
/// size is not among the dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChunkFacts {
    rows: u64,
    file_size: u64,
    digest: [u8; 32],
    columns: Vec<StoredMetrics>,
    served: Vec<u64>,
    dead: Vec<u64>,
}

/// [`ColumnMetrics`] as the store keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredMetrics {
    field_id: i32,
    value_count: u64,
    null_count: Option<u64>,
    column_size: u64,
    lower: Option<Vec<u8>>,
    upper: Option<Vec<u8>>,
}

/// An object was served with other bytes before: it must not be served again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BytesChanged;

impl ChunkFacts {
    /// The exact number of rows.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Metrics by field id.
    pub(crate) fn columns(&self) -> BTreeMap<i32, ColumnMetrics> {
        let column = |s: &StoredMetrics| ColumnMetrics {
            value_count: s.value_count,
            null_count: s.null_count,
            column_size: s.column_size,
            lower: s.lower.clone(),
            upper: s.upper.clone(),
        };
        self.columns.iter().map(|s| (s.field_id, column(s))).collect()
    }

    /// The size to declare for the chunk: the true one, or the next that is not dead.
    pub(crate) fn size_to_declare(&self) -> u64 {
        let mut size = self.file_size;
        while self.dead.contains(&size) {
            size += 1;
        }
        size
    }

    fn first(encoding: &Encoding, declared: u64) -> Self {
        let mut facts = Self {
            rows: 0,
            file_size: 0,
            digest: [0; 32],
            columns: Vec::new(),
            served: vec![declared],
            dead: Vec::new(),
        };
        facts.take(encoding);
        facts
    }

    fn take(&mut self, encoding: &Encoding) {
        self.rows = encoding.rows;
        self.file_size = encoding.file_size;
        self.digest = encoding.digest;
        let stored = |(&field_id, m): (&i32, &ColumnMetrics)| StoredMetrics {
            field_id,
            value_count: m.value_count,
            null_count: m.null_count,
            column_size: m.column_size,
            lower: m.lower.clone(),
            upper: m.upper.clone(),
        };
        self.columns = encoding.columns.iter().map(stored).collect();
    }

    /// Takes a new encoding in. `Err` when `declared` names an object that had other bytes.
    fn learn(&mut self, encoding: &Encoding, declared: u64) -> Result<(), BytesChanged> {
        if encoding.digest != self.digest {
            self.dead.append(&mut self.served);
            self.take(encoding);
        }
        if self.dead.contains(&declared) {
            return Err(BytesChanged);
        }
        if !self.served.contains(&declared) {
            self.served.push(declared);
        }
        Ok(())
    }
}

/// Facts of a chunk that still grows: superseded with its next record, so they are kept only for as
/// long as a query may be planned on them.
#[derive(Debug, Serialize, Deserialize)]
struct GrowingFacts {
    learnt_ms: u64,
    facts: ChunkFacts,
}

/// All facts, by recipe. They are on disk before the first byte they describe is served: what was once
/// served under a name must be known after a restart, or other bytes could follow under the same name.
pub(crate) struct FactBook {
    store: Arc<Store>,
    memory: moka::sync::Cache<String, Option<Arc<ChunkFacts>>>,
    writing: std::sync::Mutex<()>,
    generations: std::sync::Mutex<HashMap<(TopicId, KafkaPartition), u64>>,
}

/// The name of a recipe: the object key without its declared size.
pub(crate) fn recipe(key: &DataFileKey) -> String {
    DataFileKey { declared_size: 0, ..key.clone() }.to_string()
}

impl FactBook {
    /// Opens the book on a store.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let memory = moka::sync::Cache::new(200_000);
        Self { store, memory, writing: Default::default(), generations: Default::default() }
    }

    /// The facts of a recipe, if it has been encoded.
    pub(crate) fn get(&self, recipe: &str) -> Option<Arc<ChunkFacts>> {
        self.memory.get_with_by_ref(recipe, || {
            // Facts that cannot be read are facts not known.
            let full = self.store.get::<ChunkFacts>(Kind::Facts, recipe).ok().flatten();
            let growing = || {
                let kept: Option<GrowingFacts> =
                    self.store.get(Kind::GrowingFacts, recipe).ok().flatten();
                kept.map(|growing| growing.facts)
            };
            full.or_else(growing).map(Arc::new)
        })
    }

    /// A number that grows whenever something new is known of a chunk of this Kafka partition. It is
    /// asked for before the facts are: what is learnt in between is at worst planned twice.
    pub(crate) fn generation(&self, topic: TopicId, partition: KafkaPartition) -> u64 {
        let generations = self.generations.lock().unwrap_or_else(|e| e.into_inner());
        generations.get(&(topic, partition)).copied().unwrap_or(0)
    }

    /// Forgets the facts of growing chunks that were learnt longer ago than `retention`.
    pub(crate) fn sweep(&self, retention: Duration) -> Result<(), ServiceError> {
        let oldest = now_ms().saturating_sub(retention.as_millis() as u64);
        self.store.retain(Kind::GrowingFacts, |growing: &GrowingFacts| growing.learnt_ms >= oldest)
    }

    /// Takes an encoding of `key` in.
    pub(crate) fn learn(
        &self,
        key: &DataFileKey,
        encoding: &Encoding,
        full: bool,
    ) -> Result<Result<(), BytesChanged>, ServiceError> {
        let recipe = recipe(key);
        let _one_at_a_time = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let known = self.get(&recipe);
        let mut facts = match &known {
            Some(facts) => (**facts).clone(),
            None => ChunkFacts::first(encoding, key.declared_size),
        };
        let verdict = facts.learn(encoding, key.declared_size);
        if known.as_deref() != Some(&facts) {
            if full {
                self.store.put(Kind::Facts, &recipe, &facts)?;
            } else {
                let growing = GrowingFacts { learnt_ms: now_ms(), facts: facts.clone() };
                self.store.put(Kind::GrowingFacts, &recipe, &growing)?;
            }
            self.memory.insert(recipe, Some(Arc::new(facts)));
            let mut generations = self.generations.lock().unwrap_or_else(|e| e.into_inner());
            *generations.entry((key.topic_id, key.partition)).or_default() += 1;
        }
        Ok(verdict)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(fill: u8, file_size: u64) -> Encoding {
        Encoding { rows: 3, file_size, digest: [fill; 32], columns: BTreeMap::new() }
    }

    #[test]
    fn a_name_whose_bytes_changed_is_dead_and_the_next_plan_has_another() {
        let mut facts = ChunkFacts::first(&encoding(1, 100), 500);
        assert_eq!(facts.learn(&encoding(1, 100), 500), Ok(()));
        assert_eq!(facts.learn(&encoding(1, 100), 100), Ok(()));
        assert_eq!(facts.size_to_declare(), 100);
        // The cleaner ran: the same recipe gives other bytes, by chance of the same length.
        assert_eq!(facts.learn(&encoding(2, 100), 500), Err(BytesChanged));
        assert_eq!(facts.learn(&encoding(2, 100), 100), Err(BytesChanged));
        let next = facts.size_to_declare();
        assert_eq!(next, 101);
        assert_eq!(facts.learn(&encoding(2, 100), next), Ok(()));
        // The old bytes do not come back to life under the old name either.
        assert_eq!(facts.learn(&encoding(1, 100), 100), Err(BytesChanged));
    }
}
