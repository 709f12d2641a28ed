//! Which offsets of a topic a cold table has, or once had: learnt file by file, kept, never forgotten.
//!
//! Data files are immutable, so what a file covers is learnt once. The set only grows: a row that was
//! deleted from the cold table does not come back from Kafka. It belongs to one topic identity and
//! one cold table; a recreated topic begins with an empty one, and is refused where there is an older.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{ManifestContentType, ManifestFile};
use isk_coldset::{
    ColdFile, ColdStore, ColdsetError, KafkaColumns, cold_files, manifest_list, positions,
};
use isk_kafka::TopicDescription;
use isk_model::{KafkaPartition, OffsetRange, TopicId};
use uuid::Uuid;

use crate::api::{ServiceError, cold_error};
use crate::cold_view::{ColdSnapshot, ColdView};
use crate::coverage_book::{Book, BookName, BookTitle, Bookcase, FieldIds, Learnt};
use crate::covered::{Covered, Ranges};
use crate::stated::Stated;

/// Manifests, and data files, that are read at the same time.
const READ_AT_ONCE: usize = 8;

/// A book while nobody else has it; empty until it is opened.
type Shelf = Arc<tokio::sync::Mutex<Option<Book>>>;

/// The coverage of all cold tables.
pub(crate) struct Coverages {
    case: Bookcase,
    books: moka::sync::Cache<BookName, Shelf>,
    lists: moka::sync::Cache<String, Arc<Vec<ManifestFile>>>,
}

impl Coverages {
    pub(crate) fn new(case: Bookcase) -> Self {
        // A list of 100,000 manifests takes some tens of MiB; few tables have one of a thousand.
        let lists = moka::sync::Cache::builder()
            .weigher(|_, list: &Arc<Vec<ManifestFile>>| {
                u32::try_from(list.len()).unwrap_or(u32::MAX)
            })
            .max_capacity(200_000)
            .build();
        Self { case, books: moka::sync::Cache::new(10_000), lists }
    }

    /// The manifests of a snapshot.
    pub(crate) async fn manifests(
        &self,
        cold: &ColdView,
        snapshot: &ColdSnapshot,
        store: &ColdStore,
    ) -> Result<Arc<Vec<ManifestFile>>, ServiceError> {
        if let Some(list) = self.lists.get(&snapshot.manifest_list) {
            return Ok(list);
        }
        let read = manifest_list(store, &snapshot.manifest_list, cold.format_version).await;
        let list = Arc::new(read.map_err(|e| cold_error(&e))?);
        self.lists.insert(snapshot.manifest_list.clone(), Arc::clone(&list));
        Ok(list)
    }

    /// What is known to be covered before a cold table is looked at.
    pub(crate) async fn known(
        &self,
        topic: TopicId,
        table: Uuid,
    ) -> Result<Arc<Covered>, ServiceError> {
        let name = BookName { topic, table };
        let shelf = self.books.get_with(name, Arc::default);
        let mut place = shelf.lock().await;
        let book = self.take(&mut place, name)?;
        let covered = Arc::clone(&book.covered);
        *place = Some(book);
        Ok(covered)
    }

    /// What the cold table covers of the topic, as of its current snapshot. What was not seen before
    /// is looked at now, and goes on to be looked at when the caller leaves.
    ///
    /// `known` is what was known before the table was asked for. `None` where others have learnt more since: maybe of a
    /// later snapshot, whose rows this one does not hold.
    pub(crate) async fn of(
        self: &Arc<Self>,
        topic: &TopicDescription,
        cold: &Arc<ColdView>,
        store: &ColdStore,
        known: Arc<Covered>,
    ) -> Result<Option<Arc<Covered>>, ServiceError> {
        let (this, cold, store) = (Arc::clone(self), Arc::clone(cold), store.clone());
        let name = BookName { topic: topic.id, table: cold.uuid };
        let title = BookTitle { topic: topic.name.to_string(), table: cold.name.clone() };
        let learning = tokio::spawn(async move {
            let shelf = this.books.get_with(name, Arc::default);
            let mut place = shelf.lock().await;
            let mut book = this.take(&mut place, name)?;
            if !known.is(&book.covered) {
                *place = Some(book);
                return Ok(None);
            }
            let learnt = this.learn(name, &mut book, &cold, &store).await;
            let entitled = book.entitle(&this.case, name, title);
            let covered = Arc::clone(&book.covered);
            *place = Some(book);
            learnt.and(entitled)?;
            this.own(name.topic, &cold, &covered)?;
            Ok(Some(covered))
        });
        learning
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("learning coverage: {e}"))))
    }

    /// Notes what lies before the boundary that `seen` has, in these partitions, by Kafka's order. `None` where others have
    /// learnt more than `seen` since, as in [`Self::of`].
    pub(crate) async fn bound(
        &self,
        topic: TopicId,
        cold: &ColdView,
        seen: &Arc<Covered>,
        bounded: Vec<KafkaPartition>,
        ranges: Ranges,
    ) -> Result<Option<Arc<Covered>>, ServiceError> {
        let name = BookName { topic, table: cold.uuid };
        let shelf = self.books.get_with(name, Arc::default);
        let mut place = shelf.lock().await;
        let mut book = self.take(&mut place, name)?;
        if !seen.is(&book.covered) {
            *place = Some(book);
            return Ok(None);
        }
        let mut learnt = Learnt::of(&book);
        learnt.covered.bounded.extend(bounded);
        let new = ranges.into_iter().filter(|&(p, range)| !book.covered.has(p, range));
        for (partition, range) in new.collect::<Vec<_>>() {
            learnt.covered.insert(partition, range);
            learnt.changed.insert(partition);
        }
        let news = !learnt.changed.is_empty() || learnt.covered.bounded != book.covered.bounded;
        let kept = if news { book.keep(&self.case, name, learnt) } else { Ok(()) };
        let covered = Arc::clone(&book.covered);
        *place = Some(book);
        kept?;
        self.own(topic, cold, &covered)?;
        Ok(Some(covered))
    }

    /// The book on its shelf, with what other replicas have learnt since, or as it was before the last restart.
    fn take(&self, place: &mut Option<Book>, name: BookName) -> Result<Book, ServiceError> {
        match place.take() {
            Some(mut book) => {
                book.refresh(&self.case, name)?;
                Ok(book)
            }
            None => Book::open(&self.case, name),
        }
    }

    /// Which cold fields a topic's fields were found to be.
    pub(crate) fn fields(&self, topic: TopicId, table: Uuid) -> Result<FieldIds, ServiceError> {
        self.case.fields(BookName { topic, table })
    }

    /// Notes which cold fields a topic's fields are; what holds now, which another replica may have said first.
    pub(crate) fn keep_fields(
        &self,
        topic: TopicId,
        table: Uuid,
        fields: &FieldIds,
    ) -> Result<FieldIds, ServiceError> {
        let name = BookName { topic, table };
        self.case.keep_fields(name, fields)?;
        self.case.fields(name)
    }

    /// Looks at what was not seen yet; each snapshot is kept as soon as it is done.
    async fn learn(
        &self,
        name: BookName,
        book: &mut Book,
        cold: &ColdView,
        store: &ColdStore,
    ) -> Result<(), ServiceError> {
        if book.anew {
            self.learn_anew(name, book, cold, store).await?;
        }
        let mut unseen: Vec<&ColdSnapshot> = Vec::new();
        for snapshot in cold.lineage() {
            if book.seen.contains(&snapshot.key()) {
                break;
            }
            unseen.push(snapshot);
        }
        for snapshot in unseen.into_iter().rev() {
            let manifests = match self.manifests(cold, snapshot, store).await {
                Ok(manifests) => manifests,
                // An old snapshot whose files are gone says nothing any more.
                Err(ServiceError::NoSuchKey { .. }) if Some(snapshot.id) != cold.current => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            match learn_snapshot(book, cold, snapshot, &manifests, store).await {
                Err(ServiceError::NoSuchKey { .. }) if Some(snapshot.id) != cold.current => {}
                learnt => book.keep(&self.case, name, learnt?)?,
            }
        }
        // A table's properties change without a snapshot.
        if !cold.stated.is_in(&book.covered) {
            let mut learnt = Learnt::of(book);
            take_stated(&mut learnt, &cold.stated);
            book.keep(&self.case, name, learnt)?;
        }
        Ok(())
    }

    /// Looks at all that the table holds now, and at nothing that it once held.
    async fn learn_anew(
        &self,
        name: BookName,
        book: &mut Book,
        cold: &ColdView,
        store: &ColdStore,
    ) -> Result<(), ServiceError> {
        if let Some(snapshot) = cold.current() {
            let manifests = self.manifests(cold, snapshot, store).await?;
            let mut learnt = learn_snapshot(book, cold, snapshot, &manifests, store).await?;
            learnt.seen.extend(cold.lineage().map(ColdSnapshot::key));
            book.keep(&self.case, name, learnt)?;
        }
        book.looked_anew(&self.case, name)
    }

    /// Notes whose rows the cold table holds, and refuses another topic's: offsets that began anew
    /// would be taken for those that were moved before.
    fn own(&self, topic: TopicId, cold: &ColdView, covered: &Covered) -> Result<(), ServiceError> {
        let own = topic.to_string();
        let owner = match self.case.owner(cold.uuid)? {
            None if covered.is_empty() => return Ok(()),
            None => self.case.own(cold.uuid, &own)?,
            Some(owner) => owner,
        };
        if owner == own {
            return Ok(());
        }
        Err(ServiceError::Unsupported {
            what: format!("cold table {}", cold.name),
            reason: format!(
                "it holds rows of a topic with the id {owner}, and the topic's id is now \
                 {topic}: the topic was recreated, and its offsets began anew. Map the new topic \
                 to another cold table (merged.topics in the configuration)"
            ),
        })
    }
}

/// What a snapshot's summary states and its data files hold, as far as the book does not have it.
async fn learn_snapshot(
    book: &Book,
    cold: &ColdView,
    snapshot: &ColdSnapshot,
    manifests: &[ManifestFile],
    store: &ColdStore,
) -> Result<Learnt, ServiceError> {
    let mut learnt = Learnt::of(book);
    learnt.seen.push(snapshot.key());
    take_stated(&mut learnt, &snapshot.stated);
    if let Some(columns) = &cold.columns {
        let to_read = learn_manifests(book, &mut learnt, manifests, columns, store).await?;
        learn_positions(&mut learnt, to_read, columns, store).await?;
    }
    Ok(learnt)
}

fn take_stated(learnt: &mut Learnt, stated: &Stated) {
    for &(partition, range) in &stated.ranges {
        learnt.covered.insert(partition, range);
        learnt.changed.insert(partition);
    }
    if stated.before > learnt.covered.before {
        learnt.covered.before = stated.before;
        learnt.covered.bounded.clear();
    }
}

/// Takes in what the manifests prove of their data files. The others are to be read.
async fn learn_manifests(
    book: &Book,
    learnt: &mut Learnt,
    manifests: &[ManifestFile],
    columns: &KafkaColumns,
    store: &ColdStore,
) -> Result<Vec<ColdFile>, ServiceError> {
    let is_new = |key: &String| book.anew || !book.seen.contains(key);
    let unseen = manifests.iter().filter(|manifest| {
        manifest.content == ManifestContentType::Data && is_new(&manifest_key(manifest))
    });
    let read_manifest = |manifest: &ManifestFile| {
        let (store, manifest, columns) = (store.clone(), manifest.clone(), columns.clone());
        async move {
            let files = cold_files(&store, &manifest, &columns).await;
            Ok::<_, ColdsetError>((manifest_key(&manifest), files?))
        }
    };
    let reads: Vec<_> = unseen.map(read_manifest).collect();
    let read: Vec<_> = stream::iter(reads)
        .buffer_unordered(READ_AT_ONCE)
        .try_collect()
        .await
        .map_err(|e| cold_error(&e))?;
    let mut to_read = Vec::new();
    for (key, files) in read {
        learnt.seen.push(key);
        for file in files.into_iter().filter(|file| file.live || !book.anew) {
            match file.proven_range() {
                Some((partition, range)) if undisputed(&learnt.covered, partition, range) => {
                    learnt.covered.insert(partition, range);
                    learnt.changed.insert(partition);
                }
                _ if is_new(&file_key(&file)) => to_read.push(file),
                _ => {}
            }
        }
    }
    Ok(to_read)
}

/// Reads the Kafka columns of data files.
async fn learn_positions(
    learnt: &mut Learnt,
    files: Vec<ColdFile>,
    columns: &KafkaColumns,
    store: &ColdStore,
) -> Result<(), ServiceError> {
    let read_positions = |file: ColdFile| {
        let (store, columns) = (store.clone(), columns.clone());
        async move {
            let found = positions(&store, &file, &columns).await;
            (file, found)
        }
    };
    let reads: Vec<_> = files.into_iter().map(read_positions).collect();
    let mut reads = stream::iter(reads).buffer_unordered(READ_AT_ONCE);
    while let Some((file, found)) = reads.next().await {
        let found = match found {
            Ok(found) => found,
            // The file was deleted from the table, and then from the store.
            Err(ColdsetError::NoSuchObject { .. }) if !file.live => continue,
            Err(error) => return Err(cold_error(&error)),
        };
        for (partition, offsets) in found {
            learnt.covered.offsets.entry(partition).or_default().union_with(&offsets);
            learnt.changed.insert(partition);
        }
        learnt.seen.push(file_key(&file));
    }
    Ok(())
}

/// Whether a file's metadata is proof enough of the range it seems to hold: none of the range was known
/// before, or all of it. Where rows were moved twice and then compacted, a file may have as many rows as
/// offsets and yet lack some.
fn undisputed(covered: &Covered, partition: KafkaPartition, range: OffsetRange) -> bool {
    let known = covered.offsets.get(&partition).map_or(0, |set| set.len_within(range));
    known == 0 || known == range.span()
}

fn manifest_key(manifest: &ManifestFile) -> String {
    format!("m/{}", manifest.manifest_path)
}

fn file_key(file: &ColdFile) -> String {
    format!("f/{}", file.uri)
}

#[cfg(test)]
mod tests {
    use isk_model::Offset;

    use super::*;

    #[test]
    fn a_range_that_is_known_in_part_is_no_proof() {
        let range = |start, end| OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let p = KafkaPartition(0);
        let mut covered = Covered::default();
        covered.insert(p, range(10, 20));
        assert!(undisputed(&covered, p, range(20, 30)) && undisputed(&covered, p, range(12, 15)));
        assert!(!undisputed(&covered, p, range(15, 25)));
        assert!(undisputed(&covered, KafkaPartition(1), range(15, 25)));
    }
}
