//! The small embedded store for what must outlive a restart: pins, field ids, chunk facts.
//!
//! Values are JSON under a text key. Losing the store costs time, not correctness: field ids are
//! assigned again from the registry's history in the same order, and facts are learnt again.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, DatabaseError, Durability, ReadableDatabase, StorageError, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// An open store. All calls block for as long as a local disk takes.
pub(crate) struct Store {
    db: Database,
    /// How many values were put that may not be on disk yet, ever, and how many of them are.
    put_soon: AtomicU64,
    settled: AtomicU64,
}

impl Store {
    /// Opens or makes the store at `path`. A damaged one is set aside, and a new one begun.
    pub(crate) fn open(path: &Path) -> Result<Self, ServiceError> {
        let db = match Database::create(path) {
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
            Err(error) => Self::begin_anew(path, &error)?,
        };
        Ok(Self { db, put_soon: AtomicU64::new(0), settled: AtomicU64::new(0) })
    }

    fn begin_anew(path: &Path, error: &DatabaseError) -> Result<Database, ServiceError> {
        let aside = path.with_extension("damaged");
        tracing::warn!(
            store = %path.display(), aside = %aside.display(), %error,
            "the store is damaged; it is set aside and learnt again"
        );
        std::fs::rename(path, &aside).map_err(|e| unavailable(path, &e))?;
        Database::create(path).map_err(|e| unavailable(path, &e))
    }

    /// The value under `key`, or `None`. A value of an older shape counts as not there.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        kind: Kind,
        key: &str,
    ) -> Result<Option<T>, ServiceError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            match self.db.begin_read()?.open_table(kind.table()) {
                Ok(table) => Ok(table.get(key)?.map(|v| v.value().to_vec())),
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let bytes = read().map_err(|e| failed("read", &e))?;
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

    /// Waits until all that was put is on disk.
    pub(crate) fn settle(&self) -> Result<(), ServiceError> {
        if self.settled.load(Ordering::Acquire) < self.put_soon.load(Ordering::Acquire) {
            self.write(&Changes::default(), Durability::Immediate)?;
        }
        Ok(())
    }

    /// Carries changes out, all of them or none; they are on disk when this returns.
    pub(crate) fn apply(&self, changes: &Changes) -> Result<(), ServiceError> {
        if changes.0.is_empty() { Ok(()) } else { self.write(changes, Durability::Immediate) }
    }

    fn write(&self, changes: &Changes, durability: Durability) -> Result<(), ServiceError> {
        let write = || -> Result<(), redb::Error> {
            let mut tx = self.db.begin_write()?;
            tx.set_durability(durability)?;
            for (kind, key, value) in &changes.0 {
                let mut table = tx.open_table(kind.table())?;
                match value {
                    Some(bytes) => table.insert(key.as_str(), bytes.as_slice())?,
                    None => table.remove(key.as_str())?,
                };
            }
            // Whoever writes is alone until it has committed.
            let soon = u64::from(matches!(durability, Durability::None));
            let put = self.put_soon.fetch_add(soon, Ordering::AcqRel) + soon;
            tx.commit()?;
            if soon == 0 {
                self.settled.fetch_max(put, Ordering::AcqRel);
            }
            Ok(())
        };
        write().map_err(|e| failed("write", &e))
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
        let read = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let table = match self.db.begin_read()?.open_table(kind.table()) {
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
        };
        let found = read().map_err(|e| failed("read", &e))?;
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
        let mut read = || -> Result<(), redb::Error> {
            let table = match self.db.begin_read()?.open_table(kind.table()) {
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
        };
        read().map_err(|e| failed("read", &e))
    }

    /// Removes the value under `key`, if there is one.
    pub(crate) fn remove(&self, kind: Kind, key: &str) -> Result<(), ServiceError> {
        let remove = || -> Result<(), redb::Error> {
            let tx = self.db.begin_write()?;
            tx.open_table(kind.table())?.remove(key)?;
            tx.commit()?;
            Ok(())
        };
        remove().map_err(|e| failed("write", &e))
    }

    /// Removes the values of a kind that are not to be kept; one of an older shape goes too.
    pub(crate) fn retain<T: DeserializeOwned>(
        &self,
        kind: Kind,
        keep: impl Fn(&T) -> bool,
    ) -> Result<(), ServiceError> {
        let sweep = || -> Result<(), redb::Error> {
            let tx = self.db.begin_write()?;
            tx.open_table(kind.table())?
                .retain(|_, bytes| serde_json::from_slice(bytes).is_ok_and(|value| keep(&value)))?;
            tx.commit()?;
            Ok(())
        };
        sweep().map_err(|e| failed("sweep", &e))
    }
}

/// Changes of several kinds that belong together.
#[derive(Default)]
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

fn failed(verb: &str, error: &redb::Error) -> ServiceError {
    ServiceError::Unavailable {
        what: "the local store".into(),
        reason: format!("{verb} failed: {error}"),
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
        assert_eq!(
            (store.put_soon.load(Ordering::Acquire), store.settled.load(Ordering::Acquire)),
            (1, 0)
        );
        store.settle().unwrap();
        assert_eq!(store.settled.load(Ordering::Acquire), 1);
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
}
