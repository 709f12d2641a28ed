//! An operator's look at what cold tables cover, and the one way to take some of it back: on the local
//! store of a service that is stopped, or on what replicas share while all of them are.

use std::path::Path;
use std::sync::Arc;

use isk_model::{Boundary, KafkaPartition, OffsetRange, OffsetSet};

use crate::api::ServiceError;
use crate::coverage_book::{Book, BookTitle, Bookcase, offsets, text_of};
use crate::covered::Offsets;
use crate::shared_books::SharedBooks;
use crate::store::{Kind, Store};

/// The coverage that stopped services have kept.
pub struct CoverageStore {
    case: Bookcase,
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
    /// Opens the store below a service's data directory, or what replicas share.
    ///
    /// # Errors
    /// There is none, or the service is running. Of replicas, nobody can tell here whether they are.
    pub fn open(data_dir: &Path, shared_dir: Option<&Path>) -> Result<Self, ServiceError> {
        if let Some(shared_dir) = shared_dir {
            if !shared_dir.exists() {
                return Err(ServiceError::Unavailable {
                    what: format!("the folder that replicas share ({})", shared_dir.display()),
                    reason: "there is none; name the shared_dir of your isks (ISK_SHARED_DIR)"
                        .into(),
                });
            }
            return Ok(Self { case: Bookcase::Shared(SharedBooks::open(shared_dir)?) });
        }
        let path = data_dir.join("isk.redb");
        if !path.exists() {
            return Err(ServiceError::Unavailable {
                what: format!("the store {}", path.display()),
                reason: "there is none; name the data_dir of your isk (ISK_DATA_DIR)".into(),
            });
        }
        Ok(Self { case: Bookcase::Own(Arc::new(Store::open(&path)?)) })
    }

    /// What each cold table covers.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn tables(&self) -> Result<Vec<TableCoverage>, ServiceError> {
        let mut books = match &self.case {
            Bookcase::Own(store) => {
                // A table without a title was seen by an older version; one without coverage has a title.
                let titled = store.scan::<BookTitle>(Kind::ColdTitle, "")?;
                let mut books: Vec<String> = titled.into_iter().map(|(book, _)| book).collect();
                for (key, _) in store.scan::<String>(Kind::Coverage, "")? {
                    books.extend(key.rsplit_once('/').map(|(book, _partition)| book.to_owned()));
                }
                books
            }
            Bookcase::Shared(books) => books.all()?,
        };
        books.sort_unstable();
        books.dedup();
        books.iter().filter_map(|book| self.table(book).transpose()).collect()
    }

    fn table(&self, book: &str) -> Result<Option<TableCoverage>, ServiceError> {
        let Some((topic_id, table_uuid)) = book.split_once('/') else { return Ok(None) };
        let (title, before, offsets) = match &self.case {
            Bookcase::Own(store) => (
                store.get::<BookTitle>(Kind::ColdTitle, book)?,
                store.get::<i64>(Kind::Boundary, book)?.map(Boundary),
                offsets(store, book)?,
            ),
            Bookcase::Shared(books) => {
                let book = Book::of_pages(books, book)?;
                (book.title().cloned(), book.covered.before, book.covered.offsets.clone())
            }
        };
        let (table, topic) = title.map(|title| (title.table, title.topic)).unzip();
        Ok(Some(TableCoverage {
            table,
            table_uuid: table_uuid.to_owned(),
            topic,
            topic_id: topic_id.to_owned(),
            before,
            offsets,
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
        let mut left = table.clone();
        let mut changed = Vec::new();
        for (&partition, set) in &mut left.offsets {
            match what {
                Forget::All => *set = OffsetSet::new(),
                Forget::Partition(of) if of == partition => *set = OffsetSet::new(),
                Forget::Range(of, range) if of == partition => set.remove_range(range),
                Forget::Partition(_) | Forget::Range(..) => continue,
            }
            changed.push(partition);
        }
        if what == Forget::All {
            left.before = None;
        }
        self.keep(&left, &changed)?;
        Ok(left)
    }

    fn keep(&self, left: &TableCoverage, changed: &[KafkaPartition]) -> Result<(), ServiceError> {
        let book = left.book();
        match &self.case {
            Bookcase::Own(store) => {
                // First, since taking back alone would show rows twice that the table still has.
                store.put(Kind::ColdAnew, &book, &())?;
                for partition in changed {
                    let Some(set) = left.offsets.get(partition) else { continue };
                    store.put(Kind::Coverage, &format!("{book}/{}", partition.0), &text_of(set))?;
                }
                if left.before.is_none() {
                    store.remove(Kind::Boundary, &book)?;
                }
                Ok(())
            }
            Bookcase::Shared(books) => {
                let offsets = left.offsets.iter().map(|(p, set)| (p.0, text_of(set))).collect();
                let before = left.before.map(|Boundary(ms)| ms);
                Book::of_pages(books, &book)?.cut_back(books, &book, offsets, before)
            }
        }
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

    fn case(dir: &Path, shared: bool) -> Bookcase {
        if shared {
            return Bookcase::Shared(SharedBooks::open(dir).unwrap());
        }
        Bookcase::Own(Arc::new(Store::open(&dir.join("isk.redb")).unwrap()))
    }

    /// Of one service, or of replicas.
    fn what_is_forgotten_is_looked_at_again_and_the_rest_stays(shared: bool) {
        let dir = tempfile::tempdir().unwrap();
        let open = || CoverageStore::open(dir.path(), shared.then(|| dir.path()));
        assert!(shared || open().is_err());
        let name = BookName { topic: TopicId(7), table: Uuid::from_u128(9) };
        let kept = case(dir.path(), shared);
        let mut book = Book::open(&kept, name).unwrap();
        let mut learnt = Learnt::of(&book);
        for partition in [0, 1].map(KafkaPartition) {
            learnt.covered.insert(partition, range(0, 100));
            learnt.changed.insert(partition);
        }
        learnt.covered.before = Some(Boundary(5));
        learnt.seen.push("s/1".into());
        book.keep(&kept, name, learnt).unwrap();
        let title = BookTitle { topic: "t".into(), table: "c".into() };
        book.entitle(&kept, name, title).unwrap();
        assert!(shared || open().is_err(), "it is running");
        drop(kept);

        let admin = open().unwrap();
        let [table] = &admin.tables().unwrap()[..] else { panic!("not one table") };
        assert_eq!((table.table.as_deref(), table.len()), (Some("c"), 200));
        let left = admin.forget(table, Forget::Range(KafkaPartition(0), range(20, 30))).unwrap();
        assert_eq!((left.len(), left.before), (190, Some(Boundary(5))));
        let left = admin.forget(&left, Forget::Partition(KafkaPartition(1))).unwrap();
        assert_eq!(admin.tables().unwrap().first(), Some(&left));
        let mut book = Book::open(&admin.case, name).unwrap();
        assert!(book.anew && book.seen.contains("s/1"));
        assert!(book.covered.has(KafkaPartition(0), range(0, 20)));
        assert_eq!(book.covered.offsets[&KafkaPartition(0)].len(), 90);
        assert!(book.covered.offsets[&KafkaPartition(1)].is_empty());
        book.looked_anew(&admin.case, name).unwrap();
        assert!(!Book::open(&admin.case, name).unwrap().anew);
        assert!(admin.forget(&left, Forget::All).unwrap().is_empty());
        assert!(Book::open(&admin.case, name).unwrap().covered.is_empty());
    }

    #[test]
    fn what_one_service_forgets_is_looked_at_again() {
        what_is_forgotten_is_looked_at_again_and_the_rest_stays(false);
    }

    #[test]
    fn what_replicas_forget_is_looked_at_again() {
        what_is_forgotten_is_looked_at_again_and_the_rest_stays(true);
    }

    #[test]
    fn what_one_replica_learns_the_others_know() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (case(dir.path(), true), case(dir.path(), true));
        let name = BookName { topic: TopicId(7), table: Uuid::from_u128(9) };
        let mut left = Book::open(&one, name).unwrap();
        let mut right = Book::open(&other, name).unwrap();
        for n in 0..100 {
            let (case, book) = if n % 2 == 0 { (&one, &mut left) } else { (&other, &mut right) };
            book.refresh(case, name).unwrap();
            let mut learnt = Learnt::of(book);
            learnt.covered.insert(KafkaPartition(n % 3), range(i64::from(n), i64::from(n) + 1));
            learnt.changed.insert(KafkaPartition(n % 3));
            learnt.covered.before = Some(Boundary(i64::from(n)));
            learnt.seen.push(format!("f/{n}"));
            book.keep(case, name, learnt).unwrap();
        }
        left.refresh(&one, name).unwrap();
        right.refresh(&other, name).unwrap();
        for book in [left, right, Book::open(&one, name).unwrap()] {
            let sets: u64 = book.covered.offsets.values().map(OffsetSet::len).sum();
            assert_eq!((sets, book.seen.len()), (100, 100));
            assert_eq!(book.covered.before, Some(Boundary(99)));
        }
        assert_eq!(one.own(name.table, "one").unwrap(), "one");
        assert_eq!(other.own(name.table, "two").unwrap(), "one");
        assert_eq!(other.owner(name.table).unwrap().as_deref(), Some("one"));
        one.keep_fields(name, &[(1, 10), (2, 20)].into()).unwrap();
        other.keep_fields(name, &[(2, 21), (3, 30)].into()).unwrap();
        assert_eq!(one.fields(name).unwrap(), [(1, 10), (2, 20), (3, 30)].into());
    }
}
