//! Chunk facts: what is known of a chunk because it has been encoded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use isk_model::{ColumnMetrics, DataFileKey, KafkaPartition, Offset, OffsetRange, TopicId};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::shared_names::SharedNames;
use crate::store::{Changes, Kind, Store};

/// What one encoding of a chunk has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoding {
    /// The exact number of rows.
    pub rows: u64,
    /// The number of records that did not decode, among those that the file is of.
    pub errors: u64,
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
    /// Not known of files that were encoded before errors were counted.
    #[serde(default)]
    errors: Option<u64>,
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

    /// The number of records that did not decode, if it is known.
    pub(crate) fn errors(&self) -> Option<u64> {
        self.errors
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

    /// The Parquet file's true length in bytes.
    pub(crate) fn file_size(&self) -> u64 {
        self.file_size
    }

    /// BLAKE3 of the file.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The encoding that these facts are of.
    pub(crate) fn encoding(&self) -> Encoding {
        Encoding {
            rows: self.rows,
            errors: self.errors.unwrap_or(0),
            file_size: self.file_size,
            digest: self.digest,
            columns: self.columns(),
        }
    }

    /// The size to declare for the chunk: the true one, or the next that is not dead.
    pub(crate) fn size_to_declare(&self) -> u64 {
        let mut size = self.file_size;
        while self.dead.contains(&size) {
            size += 1;
        }
        size
    }

    fn first(encoding: &Encoding) -> Self {
        let mut facts = Self {
            rows: 0,
            errors: None,
            file_size: 0,
            digest: [0; 32],
            columns: Vec::new(),
            served: Vec::new(),
            dead: Vec::new(),
        };
        facts.take(encoding);
        facts
    }

    /// Takes the latest encoding in. The name that the next plan will give it is bound to its bytes
    /// from now on: engines answer from a plan's numbers without reading the file.
    fn take(&mut self, encoding: &Encoding) {
        self.rows = encoding.rows;
        self.errors = Some(encoding.errors);
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
        self.served.push(self.size_to_declare());
    }

    /// Takes a new encoding in: names that had other bytes are dead.
    fn prove(&mut self, encoding: &Encoding) {
        if encoding.digest != self.digest {
            self.dead.append(&mut self.served);
            self.take(encoding);
        }
        self.errors = Some(encoding.errors);
    }

    /// Takes a new encoding in. `Err` when `declared` names an object that had other bytes.
    fn learn(&mut self, encoding: &Encoding, declared: u64) -> Result<(), BytesChanged> {
        self.prove(encoding);
        if self.dead.contains(&declared) {
            return Err(BytesChanged);
        }
        if !self.served.contains(&declared) {
            self.served.push(declared);
        }
        Ok(())
    }
}

impl ChunkFacts {
    /// Binds the names that are new since `known`, by their sizes. One that `bind` knows with other bytes is dead here, too.
    fn agree(
        &mut self,
        known: Option<&Self>,
        bind: impl Fn(u64, [u8; 32]) -> Result<bool, ServiceError>,
    ) -> Result<(), ServiceError> {
        let same = known.filter(|known| known.digest == self.digest);
        let mut at = 0;
        while let Some(&size) = self.served.get(at) {
            if same.is_some_and(|known| known.served.contains(&size)) || bind(size, self.digest)? {
                at += 1;
                continue;
            }
            self.served.remove(at);
            self.dead.push(size);
            let next = self.size_to_declare();
            if !self.served.contains(&next) {
                self.served.push(next);
            }
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

/// Bytes of facts held in memory, about.
const MEMORY_BYTES: u64 = 64 << 20;
/// How long they are held for nobody. A topic's growing end leaves facts behind with every new record that are of no use
/// to any later plan.
const IDLE: Duration = Duration::from_secs(300);

/// All facts, by recipe. They are on disk before the first byte they describe is served: what was once
/// served under a name must be known after a restart, or other bytes could follow under the same name.
pub(crate) struct FactBook {
    store: Arc<Store>,
    memory: moka::sync::Cache<String, Option<Arc<ChunkFacts>>>,
    writing: std::sync::Mutex<()>,
    generations: std::sync::Mutex<HashMap<(TopicId, KafkaPartition), BTreeMap<i64, u64>>>,
    /// Counts changes, so that what was read before one is not remembered after it.
    changes: std::sync::Mutex<u64>,
    /// What other replicas have bound names to.
    shared: Option<SharedNames>,
}

/// The number of the stretch of offsets that a chunk lies in: the widest chunks have 2^22 offsets.
fn stretch(offset: Offset) -> i64 {
    offset.0 >> 22
}

/// The name of a recipe: the object key without its declared size.
pub(crate) fn recipe(key: &DataFileKey) -> String {
    DataFileKey { declared_size: 0, ..key.clone() }.to_string()
}

impl FactBook {
    /// Opens the book on a store.
    pub(crate) fn new(store: Arc<Store>) -> Self {
        let weight = |recipe: &String, facts: &Option<Arc<ChunkFacts>>| {
            // A column's metrics with their bounds take about 150 bytes.
            let columns = facts.as_ref().map_or(0, |facts| facts.columns.len());
            u32::try_from(2 * recipe.len() + 200 + columns * 150).unwrap_or(u32::MAX)
        };
        let memory = moka::sync::Cache::builder().weigher(weight).max_capacity(MEMORY_BYTES);
        let memory = memory.time_to_idle(IDLE).build();
        let (writing, generations, changes, shared) = Default::default();
        Self { store, memory, writing, generations, changes, shared }
    }

    /// The same, for one of several replicas, which serve no name with different bytes.
    pub(crate) fn among(self, shared: Option<SharedNames>) -> Self {
        Self { shared, ..self }
    }

    /// The facts of a recipe, if it has been encoded. Those that cannot be read are not known.
    pub(crate) fn get(&self, recipe: &str) -> Option<Arc<ChunkFacts>> {
        self.read(recipe).ok().flatten()
    }

    /// The same for who adds to them: what was served before must not be forgotten for a disk that fails.
    fn read(&self, recipe: &str) -> Result<Option<Arc<ChunkFacts>>, ServiceError> {
        if let Some(known) = self.memory.get(recipe) {
            return Ok(known);
        }
        let changes = *self.changes();
        let read = match self.store.get::<ChunkFacts>(Kind::Facts, recipe)? {
            Some(full) => Some(full),
            None => {
                let growing = self.store.get::<GrowingFacts>(Kind::GrowingFacts, recipe)?;
                growing.map(|growing| growing.facts)
            }
        };
        let read = read.map(Arc::new);
        let now = self.changes();
        if *now == changes {
            self.memory.insert(recipe.to_owned(), read.clone());
        }
        Ok(read)
    }

    /// The facts of a Kafka partition's files in a folder that begin within a range, by recipe: one look into the store,
    /// however many chunks the range has.
    pub(crate) fn within(
        &self,
        folder: &str,
        topic: TopicId,
        partition: KafkaPartition,
        range: OffsetRange,
    ) -> HashMap<String, Arc<ChunkFacts>> {
        let name = |offset| DataFileKey::names_from(folder, topic, partition, offset);
        let (from, to) = (name(range.start()), name(range.end()));
        let changes = *self.changes();
        let mut read = HashMap::new();
        let mut take = |recipe: &str, decode: fn(&[u8]) -> Option<ChunkFacts>, bytes: &[u8]| {
            let known = match self.memory.get(recipe) {
                Some(known) => known,
                None => decode(bytes).map(Arc::new),
            };
            if let Some(known) = known {
                read.insert(recipe.to_owned(), known);
            }
            true
        };
        let growing = |bytes: &[u8]| {
            serde_json::from_slice::<GrowingFacts>(bytes).ok().map(|growing| growing.facts)
        };
        let full = |bytes: &[u8]| serde_json::from_slice(bytes).ok();
        // Facts that cannot be read are facts not known. Those of a full chunk win, as they come last.
        let _ = self.store.between(Kind::GrowingFacts, &from, &to, |r, b| take(r, growing, b));
        let _ = self.store.between(Kind::Facts, &from, &to, |r, b| take(r, full, b));
        let now = self.changes();
        if *now == changes {
            for (recipe, known) in &read {
                if !self.memory.contains_key(recipe) {
                    self.memory.insert(recipe.clone(), Some(Arc::clone(known)));
                }
            }
        }
        read
    }

    fn changes(&self) -> std::sync::MutexGuard<'_, u64> {
        self.changes.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A number that grows whenever something new is known of a chunk in this range of a Kafka partition,
    /// or near it. It is asked for before the facts are: what is learnt in between is at worst planned
    /// twice.
    pub(crate) fn generation(
        &self,
        topic: TopicId,
        partition: KafkaPartition,
        range: OffsetRange,
    ) -> u64 {
        let generations = self.generations.lock().unwrap_or_else(|e| e.into_inner());
        let Some(stretches) = generations.get(&(topic, partition)) else { return 0 };
        let last = Offset(range.end().0 - 1);
        stretches.range(stretch(range.start())..=stretch(last)).map(|(_, count)| count).sum()
    }

    /// Forgets the facts of growing chunks that were learnt longer ago than `retention`.
    pub(crate) fn sweep(&self, retention: Duration) -> Result<(), ServiceError> {
        let oldest = now_ms().saturating_sub(retention.as_millis() as u64);
        self.store.retain(Kind::GrowingFacts, |growing: &GrowingFacts| growing.learnt_ms >= oldest)
    }

    /// Where the facts are kept.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Forgets the facts of these recipes: of records that are gone.
    pub(crate) fn forget(&self, recipes: Vec<String>) -> Result<(), ServiceError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let mut gone = Changes::default();
        recipes.iter().for_each(|recipe| gone.remove(Kind::Facts, recipe.clone()));
        self.store.apply(&gone)?;
        *self.changes() += 1;
        recipes.iter().for_each(|recipe| self.memory.invalidate(recipe));
        Ok(())
    }

    /// Takes an encoding in that nobody may have been served yet. `full` says whether the chunk has
    /// stopped growing: its facts are kept for good.
    pub(crate) fn prove(
        &self,
        key: &DataFileKey,
        encoding: &Encoding,
        full: bool,
    ) -> Result<(), ServiceError> {
        self.change(key, encoding, full, |facts| facts.prove(encoding))?;
        Ok(())
    }

    /// Whether it is known that `key` names these bytes: [`Self::learn`] would wait for the disk to learn nothing.
    pub(crate) fn knows(&self, key: &DataFileKey, encoding: &Encoding) -> bool {
        self.get(&recipe(key)).is_some_and(|known| {
            known.digest == encoding.digest && known.served.contains(&key.declared_size)
        })
    }

    /// Takes an encoding of `key` in.
    pub(crate) fn learn(
        &self,
        key: &DataFileKey,
        encoding: &Encoding,
        full: bool,
    ) -> Result<Result<(), BytesChanged>, ServiceError> {
        let declared = key.declared_size;
        let facts = self.change(key, encoding, full, |facts| {
            // What is dead is seen below: it may have died in another replica.
            let _ = facts.learn(encoding, declared);
        })?;
        Ok(if facts.dead.contains(&declared) { Err(BytesChanged) } else { Ok(()) })
    }

    fn change(
        &self,
        key: &DataFileKey,
        encoding: &Encoding,
        full: bool,
        change: impl FnOnce(&mut ChunkFacts),
    ) -> Result<ChunkFacts, ServiceError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let recipe = recipe(key);
        let known = self.read(&recipe)?;
        let mut facts = match &known {
            Some(facts) => (**facts).clone(),
            None => ChunkFacts::first(encoding),
        };
        change(&mut facts);
        if let Some(shared) = &self.shared {
            facts.agree(known.as_deref(), |size, digest| {
                shared.bind(&DataFileKey { declared_size: size, ..key.clone() }, digest)
            })?;
        }
        if known.as_deref() != Some(&facts) {
            if full {
                self.store.put(Kind::Facts, &recipe, &facts)?;
            } else {
                let growing = GrowingFacts { learnt_ms: now_ms(), facts: facts.clone() };
                self.store.put(Kind::GrowingFacts, &recipe, &growing)?;
            }
            let mut changes = self.changes();
            *changes += 1;
            self.memory.insert(recipe, Some(Arc::new(facts.clone())));
            drop(changes);
            let mut generations = self.generations.lock().unwrap_or_else(|e| e.into_inner());
            let stretches = generations.entry((key.topic_id, key.partition)).or_default();
            *stretches.entry(stretch(key.range.start())).or_default() += 1;
        }
        Ok(facts)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use isk_model::{LeaderEpoch, RenderDigest, SchemaVersion, TopicName};

    use super::*;

    /// Some key of a topic of this name.
    pub(crate) fn key(topic: &str) -> DataFileKey {
        DataFileKey {
            topic: TopicName::new(topic).unwrap(),
            columns: None,
            topic_id: TopicId(1),
            partition: KafkaPartition(0),
            range: OffsetRange::new(Offset(0), Offset(16)).unwrap(),
            leader_epoch: LeaderEpoch(0),
            schema: SchemaVersion::default(),
            render: RenderDigest(0),
            layout: None,
            covered: None,
            declared_size: 0,
        }
    }

    pub(crate) fn encoding(fill: u8, file_size: u64) -> Encoding {
        Encoding { rows: 3, errors: 0, file_size, digest: [fill; 32], columns: BTreeMap::new() }
    }

    #[test]
    fn a_name_whose_bytes_changed_is_dead_and_the_next_plan_has_another() {
        let mut facts = ChunkFacts::first(&encoding(1, 100));
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

    #[test]
    fn a_name_that_a_plan_has_counted_by_is_bound_to_its_bytes_before_anybody_reads_it() {
        let mut facts = ChunkFacts::first(&encoding(1, 100));
        let planned = facts.size_to_declare();
        // The cleaner runs between the plan and the first read of the file.
        assert_eq!(facts.learn(&encoding(2, 90), planned), Err(BytesChanged));
        assert_eq!(facts.learn(&encoding(2, 90), facts.size_to_declare()), Ok(()));
    }

    #[test]
    fn facts_outlive_the_book_and_growing_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("isk.redb")).unwrap());
        let book = FactBook::new(Arc::clone(&store));
        let (full, growing) = (key("full"), key("growing"));
        assert_eq!(book.get(&recipe(&full)), None);
        book.prove(&full, &encoding(1, 100), true).unwrap();
        book.prove(&growing, &encoding(2, 200), false).unwrap();
        assert_eq!(book.get(&recipe(&full)).unwrap().encoding(), encoding(1, 100));
        let again = FactBook::new(Arc::clone(&store));
        assert_eq!(again.get(&recipe(&full)).unwrap().encoding(), encoding(1, 100));
        assert_eq!(again.get(&recipe(&growing)).unwrap().encoding(), encoding(2, 200));
        assert_eq!(again.get(&recipe(&key("unknown"))), None);
        std::thread::sleep(Duration::from_millis(20));
        again.sweep(Duration::from_millis(1)).unwrap();
        let swept = FactBook::new(store);
        assert!(swept.get(&recipe(&full)).is_some() && swept.get(&recipe(&growing)).is_none());
    }

    #[test]
    fn replicas_serve_no_name_with_different_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let replica = |name: &str| {
            let store = Store::open(&dir.path().join(name)).unwrap();
            let names = SharedNames::open(&dir.path().join("shared")).unwrap();
            FactBook::new(Arc::new(store)).among(Some(names))
        };
        let (one, other) = (replica("one"), replica("other"));
        let of = |declared_size| DataFileKey { declared_size, ..key("t") };
        let learn = |book: &FactBook, fill, size, declared| {
            book.learn(&of(declared), &encoding(fill, size), true).unwrap()
        };
        // A query reads the footer of one, and the cleaner runs before the other is asked for pages.
        assert_eq!(learn(&one, 1, 100, 500), Ok(()));
        assert_eq!(learn(&other, 1, 100, 500), Ok(()), "the same bytes are");
        let late = replica("late");
        assert_eq!(learn(&late, 2, 100, 500), Err(BytesChanged));
        // What the first one plans by is bound, too, and the next plan has another name.
        assert_eq!(learn(&late, 2, 100, 100), Err(BytesChanged));
        let next = late.get(&recipe(&of(0))).unwrap().size_to_declare();
        assert_eq!((next, learn(&late, 2, 100, next)), (101, Ok(())));
        // Which the first takes over once it encodes again, and its own old names stay dead.
        assert_eq!(learn(&one, 2, 100, 101), Ok(()));
        assert_eq!(learn(&one, 2, 100, 500), Err(BytesChanged));
        assert_eq!(learn(&one, 1, 100, 101), Err(BytesChanged));
        drop(other);
        assert_eq!(learn(&replica("other"), 3, 100, 101), Err(BytesChanged), "after a restart");
    }

    #[test]
    fn what_is_learnt_at_the_end_of_a_log_leaves_plans_of_its_beginning_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&dir.path().join("isk.redb")).unwrap());
        let book = FactBook::new(store);
        let range = |start, end| OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let all = [range(0, 1 << 22), range(1 << 22, 1 << 23), range(5, 1 << 30)];
        let numbers = || all.map(|range| book.generation(TopicId(1), KafkaPartition(0), range));
        assert_eq!(numbers(), [0, 0, 0]);
        let end = DataFileKey { range: range((1 << 23) - 16, 1 << 23), ..key("t") };
        book.prove(&end, &encoding(1, 100), true).unwrap();
        book.prove(&end, &encoding(1, 100), true).unwrap();
        assert_eq!(numbers(), [0, 1, 1]);
    }
}
