//! An operator's look at what cold tables cover, and the one way to take some of it back: on the local
//! store of a service that is stopped.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use isk_model::{Boundary, KafkaPartition, OffsetRange, OffsetSet};

use crate::api::ServiceError;
use crate::coverage_book::{BookTitle, offsets};
use crate::covered::Offsets;
use crate::store::{Kind, Store};

/// The coverage that a stopped service has kept.
pub struct CoverageStore {
    store: Store,
}

/// What one cold table covers of one topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TableCoverage {
    /// The cold table's name, as it was last seen; none in a store of an older version.
    pub table: Option<String>,
    /// The cold table's UUID.
    pub table_uuid: String,
    /// The topic's name, as it was last seen.
    pub topic: Option<String>,
    /// The topic's id.
    pub topic_id: String,
    /// All records with an earlier timestamp are covered.
    pub before: Option<Boundary>,
    /// The covered offsets.
    pub offsets: Offsets,
}

/// What is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forget {
    /// All that a table covers, its boundary too.
    All,
    /// The offsets of one Kafka partition.
    Partition(KafkaPartition),
    /// Some of them.
    Range(KafkaPartition, OffsetRange),
}

impl TableCoverage {
    fn book(&self) -> String {
        format!("{}/{}", self.topic_id, self.table_uuid)
    }

    /// How many offsets are covered.
    pub fn len(&self) -> u64 {
        self.offsets.values().map(OffsetSet::len).sum()
    }

    /// Whether none is, and no boundary either.
    pub fn is_empty(&self) -> bool {
        self.before.is_none() && self.len() == 0
    }
}

impl CoverageStore {
    /// Opens the store below a service's data directory.
    ///
    /// # Errors
    /// There is none, or the service is running.
    pub fn open(data_dir: &Path) -> Result<Self, ServiceError> {
        let path = data_dir.join("isk.redb");
        if !path.exists() {
            return Err(ServiceError::Unavailable {
                what: format!("the store {}", path.display()),
                reason: "there is none; name the data_dir of your isk (ISK_DATA_DIR)".into(),
            });
        }
        Ok(Self { store: Store::open(&path)? })
    }

    /// What each cold table covers.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn tables(&self) -> Result<Vec<TableCoverage>, ServiceError> {
        // A table without a title was seen by an older version; one without coverage has a title.
        let mut books: Vec<String> = Vec::new();
        let titled = self.store.scan::<BookTitle>(Kind::ColdTitle, "")?;
        books.extend(titled.into_iter().map(|(book, _)| book));
        for (key, _) in self.store.scan::<String>(Kind::Coverage, "")? {
            books.extend(key.rsplit_once('/').map(|(book, _partition)| book.to_owned()));
        }
        books.sort_unstable();
        books.dedup();
        books.iter().filter_map(|book| self.table(book).transpose()).collect()
    }

    fn table(&self, book: &str) -> Result<Option<TableCoverage>, ServiceError> {
        let Some((topic_id, table_uuid)) = book.split_once('/') else { return Ok(None) };
        let title: Option<BookTitle> = self.store.get(Kind::ColdTitle, book)?;
        let (table, topic) = title.map(|title| (title.table, title.topic)).unzip();
        Ok(Some(TableCoverage {
            table,
            table_uuid: table_uuid.to_owned(),
            topic,
            topic_id: topic_id.to_owned(),
            before: self.store.get::<i64>(Kind::Boundary, book)?.map(Boundary),
            offsets: offsets(&self.store, book)?,
        }))
    }

    /// Takes coverage back. What the table holds when it is loaded next is covered again, so no row
    /// is shown twice; what it once held is not. Returns what is left.
    ///
    /// # Errors
    /// The store cannot be written to.
    pub fn forget(
        &self,
        table: &TableCoverage,
        what: Forget,
    ) -> Result<TableCoverage, ServiceError> {
        let book = table.book();
        // First, since taking back alone would show rows twice that the table still has.
        self.store.put(Kind::ColdAnew, &book, &())?;
        let mut left = table.clone();
        for (&partition, set) in &mut left.offsets {
            match what {
                Forget::All => *set = OffsetSet::new(),
                Forget::Partition(of) if of == partition => *set = OffsetSet::new(),
                Forget::Range(of, range) if of == partition => set.remove_range(range),
                Forget::Partition(_) | Forget::Range(..) => continue,
            }
            let key = format!("{book}/{}", partition.0);
            self.store.put(Kind::Coverage, &key, &BASE64.encode(set.to_bytes()))?;
        }
        if what == Forget::All {
            self.store.remove(Kind::Boundary, &book)?;
            left.before = None;
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use isk_model::{Offset, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::coverage_book::{Book, BookName, Learnt};

    fn range(start: i64, end: i64) -> OffsetRange {
        OffsetRange::new(Offset(start), Offset(end)).unwrap()
    }

    #[test]
    fn what_is_forgotten_is_looked_at_again_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert!(CoverageStore::open(dir.path()).is_err());
        let path = dir.path().join("isk.redb");
        let name = BookName { topic: TopicId(7), table: Uuid::from_u128(9) };
        let store = Store::open(&path).unwrap();
        let mut book = Book::open(&store, name).unwrap();
        let mut learnt = Learnt::of(&book);
        for partition in [0, 1].map(KafkaPartition) {
            learnt.covered.insert(partition, range(0, 100));
            learnt.changed.insert(partition);
        }
        learnt.covered.before = Some(Boundary(5));
        learnt.seen.push("s/1".into());
        book.keep(&store, name, learnt).unwrap();
        let title = BookTitle { topic: "t".into(), table: "c".into() };
        book.entitle(&store, name, title).unwrap();
        assert!(CoverageStore::open(dir.path()).is_err(), "it is running");
        drop(store);

        let admin = CoverageStore::open(dir.path()).unwrap();
        let [table] = &admin.tables().unwrap()[..] else { panic!("not one table") };
        assert_eq!((table.table.as_deref(), table.len()), (Some("c"), 200));
        let left = admin.forget(table, Forget::Range(KafkaPartition(0), range(20, 30))).unwrap();
        assert_eq!((left.len(), left.before), (190, Some(Boundary(5))));
        let left = admin.forget(&left, Forget::Partition(KafkaPartition(1))).unwrap();
        assert_eq!(admin.tables().unwrap().first(), Some(&left));
        let book = Book::open(&admin.store, name).unwrap();
        assert!(book.anew && book.seen.contains("s/1"));
        assert!(book.covered.has(KafkaPartition(0), range(0, 20)));
        assert_eq!(book.covered.offsets[&KafkaPartition(0)].len(), 90);
        assert!(book.covered.offsets[&KafkaPartition(1)].is_empty());
        assert!(admin.forget(&left, Forget::All).unwrap().is_empty());
        assert!(Book::open(&admin.store, name).unwrap().covered.is_empty());
    }
}
