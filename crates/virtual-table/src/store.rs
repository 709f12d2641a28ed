//! The small embedded store for what must outlive a restart: pins, field ids, chunk facts.
//!
//! Values are JSON under a text key. Losing the store costs time, not correctness: field ids are
//! assigned again from the registry's history in the same order, and facts are learnt again.
//!
//! After an error of the disk the database takes nothing any more until it is opened again. That is done here, so that a disk
//! that was full needs no restart. What it had taken and not yet put on disk is kept until it is there, and put again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, StorageError, TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::api::ServiceError;

/// The kinds of things kept, one table each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// [`crate::topic_pin::TopicPin`] by topic id.
    TopicPin,
    /// [`crate::topic_schema::SchemaRecord`] by topic id.
    Schema,
    /// [`crate::facts::ChunkFacts`] of full chunks, by recipe.
    Facts,
    /// The facts of chunks that still grow, by recipe, with the time they were learnt.
    GrowingFacts,
    /// [`crate::epochs::EpochHistory`] by topic id and partition.
    Epochs,
    /// [`crate::time_index::PartitionTimes`] by topic id and partition.
    Times,
    /// [`crate::cleaning::Cleaned`] by topic id.
    Cleaned,
    /// The offsets that a cold table covers, by topic id, table UUID and partition.
    Coverage,
    /// The snapshots, manifests and data files of cold tables whose coverage was learnt.
    ColdSeen,
    /// The id of the topic whose rows a cold table holds, by its UUID.
    ColdOwner,
    /// Which cold fields a topic's fields are, by topic id and table UUID.
    ColdFields,
    /// The moment, in milliseconds, before which a cold table has all records, by topic id and table
    /// UUID.
    Boundary,
    /// The cold tables that are to be looked at again, by topic id and table UUID.
    ColdAnew,
    /// [`crate::coverage_book::BookTitle`] by topic id and table UUID.
    ColdTitle,
    /// Where the end of a followed partition is cut, by topic id and partition.
    Cuts,
    /// [`crate::history::Line`] by topic.
    Lineage,
    /// [`crate::history::Record`]s by topic and number.
    Snapshots,
    /// Where the partitions of a topic began at a sweep, by topic id.
    Starts,
    /// The writer schemas that the registry did not have, by topic id.
    MissingWriters,
    /// [`crate::discovery::Kept`] by topic id.
    Discovered,
}

impl Kind {
    fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::TopicPin => "topic_pins",
            Self::Schema => "schemas",
            Self::Facts => "chunk_facts",
            Self::GrowingFacts => "growing_chunk_facts",
            Self::Epochs => "epochs",
            Self::Times => "times",
            Self::Cleaned => "cleaned",
            Self::Coverage => "coverage",
            Self::ColdSeen => "cold_seen",
            Self::ColdOwner => "cold_owners",
            Self::ColdFields => "cold_fields",
            Self::Boundary => "cold_boundaries",
            Self::ColdAnew => "cold_anew",
            Self::ColdTitle => "cold_titles",
            Self::Cuts => "cuts",
            Self::Lineage => "lineages",
            Self::Snapshots => "snapshots",
            Self::Starts => "log_starts",
            Self::MissingWriters => "missing_writers",
            Self::Discovered => "discovered",
        })
    }
}

/// Pages that the database keeps in memory, in bytes: it would keep a gibibyte by itself.
const CACHE_BYTES: usize = 8 << 20;

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// How long a database that failed is left alone before it is opened again.
const REST: Duration = Duration::from_secs(1);

/// An open store. All calls block for as long as a local disk takes.
pub(crate) struct Store {
    path: PathBuf,
    db: Mutex<Opened>,
    /// Whether the disk has failed the database since it was opened.
    failed: AtomicBool,
    soon: Mutex<Soon>,
    settling: Mutex<()>,
}

/// The database, unless it could not be opened again, and when that was last tried.
struct Opened {
    db: Option<Arc<Database>>,
    tried: Instant,
}

/// What was put and may not be on disk yet.
#[derive(Default)]
struct Soon {
    /// How many changes were carried out so, ever, and how many of them are on disk.
    put: u64,
    settled: u64,
    /// Those that are not, by their numbers.
    waiting: BTreeMap<u64, Changes>,
}

impl Store {
    /// Opens or makes the store at `path`. A damaged one is set aside, and a new one begun.
    pub(crate) fn open(path: &Path) -> Result<Self, ServiceError> {
        let db = match builder().create(path) {
            Ok(db) => db,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(ServiceError::Unavailable {
                    what: format!("the store {}", path.display()),
                    reason: "another process has it open; give each isk its own data_dir".into(),
                });
            }
            // A file that is no database is reported as invalid data; other I/O errors are the disk's.
            Err(DatabaseError::Storage(StorageError::Io(error)))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                return Err(unavailable(path, &error));
            }
            Err(error @ DatabaseError::Storage(StorageError::PreviousIo)) => {
                return Err(unavailable(path, &error));
            }
            Err(error) => Self::begin_anew(path, &error)?,
        };
        Ok(Self {
            path: path.to_owned(),
            db: Mutex::new(Opened { db: Some(Arc::new(db)), tried: Instant::now() }),
            failed: AtomicBool::new(false),
            soon: Mutex::default(),
            settling: Mutex::default(),
        })
    }

    fn begin_anew(path: &Path, error: &DatabaseError) -> Result<Database, ServiceError> {
        let aside = path.with_extension("damaged");
        tracing::warn!(
            store = %path.display(), aside = %aside.display(), %error,
            "the store is damaged; it is set aside and learnt again"
        );
        std::fs::rename(path, &aside).map_err(|e| unavailable(path, &e))?;
        builder().create(path).map_err(|e| unavailable(path, &e))
    }

    /// The database, opened again where it had failed.
    fn opened(&self) -> Result<Arc<Database>, ServiceError> {
        let mut opened = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.load(Ordering::Acquire) && opened.tried.elapsed() >= REST {
            self.open_again(&mut opened)?;
        }
        let closed = || unavailable(&self.path, &"it could not be opened again after an error");
        opened.db.clone().ok_or_else(closed)
    }

    fn open_again(&self, opened: &mut Opened) -> Result<(), ServiceError> {
        opened.tried = Instant::now();
        // It is closed once those who are using it have come to their end. Until then it is still taken.
        opened.db = None;
        let db = builder().open(&self.path).map_err(|e| unavailable(&self.path, &e))?;
        let db = Arc::clone(opened.db.insert(Arc::new(db)));
        let waiting: Vec<Changes> = self.soon().waiting.values().cloned().collect();
        let lost = Changes(waiting.into_iter().flat_map(|changes| changes.0).collect());
        if !lost.0.is_empty() {
            self.commit(&db, &lost, Durability::Immediate)
                .map_err(|e| unavailable(&self.path, &e))?;
        }
        self.failed.store(false, Ordering::Release);
        tracing::info!(store = %self.path.display(), changes = lost.0.len(), "the store is open again after an error of its disk");
        Ok(())
    }

    /// Does something with the database, and notes where its disk fails it.
    fn with<T>(
        &self,
        verb: &str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, ServiceError> {
        let db = self.opened()?;
        work(&db).map_err(|error| {
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                self.failed.store(true, Ordering::Release);
            }
            unavailable(&self.path, &format_args!("{verb} failed: {error}"))
        })
    }

    fn soon(&self) -> MutexGuard<'_, Soon> {
        self.soon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value under `key`, or `None`. A value of an older shape counts as not there.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        kind: Kind,
        key: &str,
    ) -> Result<Option<T>, ServiceError> {
        let bytes = self.with("reading", |db| match db.begin_read()?.open_table(kind.table()) {
            Ok(table) => Ok(table.get(key)?.map(|v| v.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
    }

    /// Puts a value; it is on disk when this returns.
    pub(crate) fn put<T: Serialize>(
        &self,
        kind: Kind,
        key: &str,
        value: &T,
    ) -> Result<(), ServiceError> {
        let mut changes = Changes::default();
        changes.put(kind, key.to_owned(), value)?;
        self.apply(&changes)
    }

    /// Puts a value that is on disk after the next [`Self::settle`] or any other change: waiting for the
    /// disk is most of what a small change takes. Nobody may be told of it before.
    pub(crate) fn put_soon<T: Serialize>(
        &self,
        kind: Kind,
        key: &str,
        value: &T,
    ) -> Result<(), ServiceError> {
        let mut changes = Changes::default();
        changes.put(kind, key.to_owned(), value)?;
        self.apply_soon(&changes)
    }

    /// Carries changes out as [`Self::put_soon`], all of them or none.
    pub(crate) fn apply_soon(&self, changes: &Changes) -> Result<(), ServiceError> {
        if changes.0.is_empty() { Ok(()) } else { self.write(changes, Durability::None) }
    }

    /// Waits until all that was put is on disk. Those who come while others wait for the disk are done with the next
    /// time it is waited for, all together.
    pub(crate) fn settle(&self) -> Result<(), ServiceError> {
        let put = {
            let soon = self.soon();
            if soon.waiting.is_empty() {
                return Ok(());
            }
            soon.put
        };
        let _one_at_a_time = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if self.soon().settled >= put {
            return Ok(());
        }
        self.write(&Changes::default(), Durability::Immediate)
    }

    /// Carries changes out, all of them or none; they are on disk when this returns.
    pub(crate) fn apply(&self, changes: &Changes) -> Result<(), ServiceError> {
        if changes.0.is_empty() { Ok(()) } else { self.write(changes, Durability::Immediate) }
    }

    fn write(&self, changes: &Changes, durability: Durability) -> Result<(), ServiceError> {
        waiting(|| self.with("writing", |db| self.commit(db, changes, durability)))
    }

    fn commit(
        &self,
        db: &Database,
        changes: &Changes,
        durability: Durability,
    ) -> Result<(), redb::Error> {
        let mut tx = db.begin_write()?;
        tx.set_durability(durability)?;
        for (kind, key, value) in &changes.0 {
            let mut table = tx.open_table(kind.table())?;
            match value {
                Some(bytes) => table.insert(key.as_str(), bytes.as_slice())?,
                None => table.remove(key.as_str())?,
            };
        }
        // Whoever writes is alone until it has committed.
        let later = matches!(durability, Durability::None);
        let number = {
            let mut soon = self.soon();
            soon.put += u64::from(later);
            soon.put
        };
        tx.commit()?;
        let mut soon = self.soon();
        if !later {
            soon.settled = soon.settled.max(number);
            soon.waiting = soon.waiting.split_off(&(number + 1));
        } else if number > soon.settled {
            soon.waiting.insert(number, changes.clone());
        }
        Ok(())
    }

    /// The values whose keys begin with `prefix`, in the order of keys.
    ///
    /// # Errors
    /// Also where a value is not of this shape: it is not one that can be learnt again in passing.
    pub(crate) fn scan<T: DeserializeOwned>(
        &self,
        kind: Kind,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, ServiceError> {
        let found = self.with("reading", |db| {
            let table = match db.begin_read()?.open_table(kind.table()) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut found = Vec::new();
            for entry in table.range(prefix..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })?;
        let decode = |(key, bytes): (String, Vec<u8>)| match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((key, value)),
            Err(e) => Err(ServiceError::Internal(format!("{key} in the local store: {e}"))),
        };
        found.into_iter().map(decode).collect()
    }

    /// Shows the values whose keys lie in `[from, to)`, in the order of keys, as they are kept (JSON), for as
    /// long as `show` asks for the next.
    pub(crate) fn between(
        &self,
        kind: Kind,
        from: &str,
        to: &str,
        mut show: impl FnMut(&str, &[u8]) -> bool,
    ) -> Result<(), ServiceError> {
        self.with("reading", |db| {
            let table = match db.begin_read()?.open_table(kind.table()) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for entry in table.range(from..to)? {
                let (key, value) = entry?;
                if !show(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Removes the value under `key`, if there is one.
    pub(crate) fn remove(&self, kind: Kind, key: &str) -> Result<(), ServiceError> {
        let mut changes = Changes::default();
        changes.remove(kind, key.to_owned());
        self.apply(&changes)
    }

    /// Removes the values of a kind that are not to be kept; one of an older shape goes too.
    pub(crate) fn retain<T: DeserializeOwned>(
        &self,
        kind: Kind,
        keep: impl Fn(&T) -> bool,
    ) -> Result<(), ServiceError> {
        let sweep = |db: &Database| {
            let tx = db.begin_write()?;
            tx.open_table(kind.table())?
                .retain(|_, bytes| serde_json::from_slice(bytes).is_ok_and(|value| keep(&value)))?;
            tx.commit()?;
            Ok(())
        };
        waiting(|| self.with("sweeping", sweep))
    }
}

/// Does what waits for the disk, and for others who do. One of tokio's workers leaves what else it has to do to others.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Changes of several kinds that belong together.
#[derive(Clone, Default)]
pub(crate) struct Changes(Vec<(Kind, String, Option<Vec<u8>>)>);

impl Changes {
    pub(crate) fn put<T: Serialize>(
        &mut self,
        kind: Kind,
        key: String,
        value: &T,
    ) -> Result<(), ServiceError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|e| ServiceError::Internal(format!("a stored value has no JSON: {e}")))?;
        self.0.push((kind, key, Some(bytes)));
        Ok(())
    }

    pub(crate) fn remove(&mut self, kind: Kind, key: String) {
        self.0.push((kind, key, None));
    }
}

fn unavailable(path: &Path, error: &dyn std::fmt::Display) -> ServiceError {
    ServiceError::Unavailable {
        what: format!("the store {}", path.display()),
        reason: format!("{error}; is data_dir writable and the disk not full?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outlive_the_store_and_garbage_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("isk.redb");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.get::<u32>(Kind::Facts, "a").unwrap(), None);
        store.put(Kind::Facts, "a", &7u32).unwrap();
        assert!(matches!(Store::open(&path), Err(ServiceError::Unavailable { .. })));
        store.put(Kind::Facts, "b", &8u32).unwrap();
        let mut changes = Changes::default();
        for (key, value) in [("x/1", 1u32), ("x/2", 2), ("y", 3)] {
            changes.put(Kind::Epochs, key.to_owned(), &value).unwrap();
        }
        store.apply(&changes).unwrap();
        let scanned = store.scan::<u32>(Kind::Epochs, "x/").unwrap();
        assert_eq!(scanned, [("x/1".to_owned(), 1), ("x/2".to_owned(), 2)]);
        assert!(store.scan::<String>(Kind::Epochs, "x/").is_err());
        store.put_soon(Kind::Times, "t", &9u32).unwrap();
        assert_eq!(store.get::<u32>(Kind::Times, "t").unwrap(), Some(9));
        let settled_and_waiting = || {
            let soon = store.soon();
            (soon.settled, soon.waiting.len())
        };
        assert_eq!(settled_and_waiting(), (0, 1));
        store.settle().unwrap();
        assert_eq!(settled_and_waiting(), (1, 0));
        let mut between = Vec::new();
        store
            .between(Kind::Epochs, "x/", "y", |key, _| {
                between.push(key.to_owned());
                false
            })
            .unwrap();
        assert_eq!(between, ["x/1"]);
        store.retain(Kind::Facts, |n: &u32| *n == 7).unwrap();
        store.remove(Kind::Epochs, "y").unwrap();
        assert_eq!(store.get::<u32>(Kind::Epochs, "y").unwrap(), None);
        assert_eq!(store.get::<u32>(Kind::Facts, "b").unwrap(), None);
        drop(store);
        assert_eq!(Store::open(&path).unwrap().get::<u32>(Kind::Facts, "a").unwrap(), Some(7));

        std::fs::write(&path, b"this is no database").unwrap();
        let anew = Store::open(&path).unwrap();
        assert_eq!(anew.get::<u32>(Kind::Facts, "a").unwrap(), None);
        assert!(path.with_extension("damaged").exists());
    }

    #[test]
    fn a_database_that_failed_is_opened_again_with_what_was_not_on_disk_yet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("isk.redb");
        let store = Store::open(&path).unwrap();
        store.put(Kind::Facts, "settled", &1u32).unwrap();
        let on_disk = std::fs::read(&path).unwrap();
        store.put_soon(Kind::Facts, "soon", &2u32).unwrap();
        store.put_soon(Kind::Facts, "soon", &3u32).unwrap();
        // The disk fails it, and has only what was settled.
        let fail = || {
            let mut opened = store.db.lock().unwrap();
            opened.db = None;
            std::fs::write(&path, &on_disk).unwrap();
            store.failed.store(true, Ordering::Release);
            opened.tried = Instant::now();
        };
        fail();
        let refused = store.get::<u32>(Kind::Facts, "settled").unwrap_err().to_string();
        assert!(refused.contains("isk.redb") && refused.contains("full"), "{refused}");
        assert!(store.settle().is_err(), "it is not on disk");
        std::thread::sleep(REST);
        let both = || ["settled", "soon"].map(|key| store.get::<u32>(Kind::Facts, key).unwrap());
        assert_eq!(both(), [Some(1), Some(3)]);
        assert!(store.soon().waiting.is_empty(), "they are on disk now");
        // What was settled before is not put again.
        fail();
        std::thread::sleep(REST);
        assert_eq!(both(), [Some(1), None]);
    }
}
