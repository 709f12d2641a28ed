//! Which offsets of a topic a cold table has, or once had: learnt file by file, kept, never forgotten.
//!
//! Data files are immutable, so what a file covers is learnt once. The set only grows: a row that was
//! deleted from the cold table does not come back from Kafka. It belongs to one topic identity and
//! one cold table; a recreated topic begins with an empty one, and is refused where there is an older.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{ManifestContentType, ManifestFile};
use isk_coldset::{ColdFile, ColdStore, ColdsetError, cold_files, manifest_list, positions};
use isk_model::{KafkaPartition, Offset, OffsetRange, OffsetSet, TopicId};

use crate::api::{ServiceError, cold_error};
use crate::cold_view::{ColdSnapshot, ColdView};
use crate::store::{Kind, Store};

/// Manifests, and data files, that are read at the same time.
const READ_AT_ONCE: usize = 8;

/// The offsets of a topic that a cold table covers, by Kafka partition.
pub(crate) type Covered = BTreeMap<KafkaPartition, OffsetSet>;

/// The coverage of all cold tables.
pub(crate) struct Coverages {
    store: Arc<Store>,
    books: moka::sync::Cache<String, Arc<tokio::sync::Mutex<Option<Book>>>>,
    lists: moka::sync::Cache<String, Arc<Vec<ManifestFile>>>,
}

/// What is known of one cold table with respect to one topic.
#[derive(Clone)]
struct Book {
    covered: Arc<Covered>,
    /// Snapshots, manifests and data files that were looked at.
    seen: HashSet<String>,
}

impl Coverages {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        // A list of 100,000 manifests takes some tens of MiB; few tables have one of a thousand.
        let lists = moka::sync::Cache::builder()
            .weigher(|_, list: &Arc<Vec<ManifestFile>>| {
                u32::try_from(list.len()).unwrap_or(u32::MAX)
            })
            .max_capacity(200_000)
            .build();
        Self { store, books: moka::sync::Cache::new(10_000), lists }
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

    /// What the cold table covers of the topic, as of its current snapshot. What was not seen before
    /// is looked at now, and goes on to be looked at when the caller leaves.
    pub(crate) async fn of(
        self: &Arc<Self>,
        topic: TopicId,
        cold: &Arc<ColdView>,
        store: &ColdStore,
    ) -> Result<Arc<Covered>, ServiceError> {
        let (this, cold, store) = (Arc::clone(self), Arc::clone(cold), store.clone());
        let learning = tokio::spawn(async move { this.learn(topic, &cold, &store).await });
        learning
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("learning coverage: {e}"))))
    }

    async fn learn(
        &self,
        topic: TopicId,
        cold: &ColdView,
        store: &ColdStore,
    ) -> Result<Arc<Covered>, ServiceError> {
        let name = format!("{topic}/{}", cold.uuid);
        let book = self.books.get_with(name.clone(), Arc::default);
        let mut book = book.lock().await;
        let mut known = match book.take() {
            Some(known) => known,
            None => self.open(&name)?,
        };
        let learnt = self.learn_unseen(&name, &mut known, cold, store).await;
        let covered = Arc::clone(&known.covered);
        *book = Some(known);
        learnt?;
        self.own(topic, cold, &covered)?;
        Ok(covered)
    }

    /// Looks at the snapshots that were not seen yet, oldest first; each is kept as soon as it is done.
    async fn learn_unseen(
        &self,
        name: &str,
        book: &mut Book,
        cold: &ColdView,
        store: &ColdStore,
    ) -> Result<(), ServiceError> {
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
            match self.learn_snapshot(name, book, cold, snapshot, &manifests, store).await {
                Err(ServiceError::NoSuchKey { .. }) if Some(snapshot.id) != cold.current => {}
                learnt => learnt?,
            }
        }
        Ok(())
    }

    async fn learn_snapshot(
        &self,
        name: &str,
        book: &mut Book,
        cold: &ColdView,
        snapshot: &ColdSnapshot,
        manifests: &[ManifestFile],
        store: &ColdStore,
    ) -> Result<(), ServiceError> {
        let mut covered = Covered::clone(&book.covered);
        let mut changed = BTreeSet::new();
        let mut seen = vec![snapshot.key()];
        for (partition, range) in cold.stated.iter().chain(&snapshot.stated) {
            covered.entry(*partition).or_default().insert_range(*range);
            changed.insert(*partition);
        }
        if let Some(columns) = &cold.columns {
            let unseen = manifests.iter().filter(|manifest| {
                manifest.content == ManifestContentType::Data
                    && !book.seen.contains(&manifest_key(manifest))
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
                seen.push(key);
                for file in files {
                    match file.proven_range() {
                        Some((partition, range)) if undisputed(&covered, partition, range) => {
                            covered.entry(partition).or_default().insert_range(range);
                            changed.insert(partition);
                        }
                        _ if book.seen.contains(&file_key(&file)) => {}
                        _ => to_read.push(file),
                    }
                }
            }
            let read_positions = |file: ColdFile| {
                let (store, columns) = (store.clone(), columns.clone());
                async move {
                    let found = positions(&store, &file, &columns).await;
                    (file, found)
                }
            };
            let reads: Vec<_> = to_read.into_iter().map(read_positions).collect();
            let mut reads = stream::iter(reads).buffer_unordered(READ_AT_ONCE);
            while let Some((file, found)) = reads.next().await {
                let found = match found {
                    Ok(found) => found,
                    // The file was deleted from the table, and then from the store.
                    Err(ColdsetError::NoSuchObject { .. }) if !file.live => continue,
                    Err(error) => return Err(cold_error(&error)),
                };
                for (partition, offsets) in found {
                    covered.entry(partition).or_default().union_with(&offsets);
                    changed.insert(partition);
                }
                seen.push(file_key(&file));
            }
        }
        self.keep(name, &covered, &changed, &seen)?;
        book.covered = Arc::new(covered);
        book.seen.extend(seen);
        Ok(())
    }

    /// What was learnt before the last restart.
    fn open(&self, name: &str) -> Result<Book, ServiceError> {
        let prefix = format!("{name}/");
        let mut covered = Covered::new();
        for (key, text) in self.store.scan::<String>(Kind::Coverage, &prefix)? {
            let partition = key.strip_prefix(&prefix).and_then(|p| p.parse().ok());
            let set = BASE64.decode(&text).ok().and_then(|b| OffsetSet::from_bytes(&b).ok());
            match (partition, set) {
                (Some(partition), Some(set)) => {
                    covered.insert(KafkaPartition(partition), set);
                }
                _ => {
                    return Err(ServiceError::Internal(format!(
                        "what cold tables cover is damaged in the local store, at {key}; move \
                         isk.redb below data_dir aside, and it is learnt again"
                    )));
                }
            }
        }
        let seen = self.store.scan::<()>(Kind::ColdSeen, &prefix)?;
        let seen = seen.into_iter().filter_map(|(k, ())| Some(k.strip_prefix(&prefix)?.to_owned()));
        Ok(Book { covered: Arc::new(covered), seen: seen.collect() })
    }

    /// Coverage first: what was seen without being kept would be lost, what is kept twice is not.
    fn keep(
        &self,
        name: &str,
        covered: &Covered,
        changed: &BTreeSet<KafkaPartition>,
        seen: &[String],
    ) -> Result<(), ServiceError> {
        let sets = changed.iter().filter_map(|partition| {
            let set = covered.get(partition)?;
            Some((format!("{name}/{}", partition.0), BASE64.encode(set.to_bytes())))
        });
        self.store.put_all(Kind::Coverage, sets)?;
        self.store.put_all(Kind::ColdSeen, seen.iter().map(|key| (format!("{name}/{key}"), ())))
    }

    /// Notes whose rows the cold table holds, and refuses another topic's: offsets that began anew
    /// would be taken for those that were moved before.
    fn own(&self, topic: TopicId, cold: &ColdView, covered: &Covered) -> Result<(), ServiceError> {
        let key = cold.uuid.to_string();
        let owner: Option<String> = self.store.get(Kind::ColdOwner, &key)?;
        match owner {
            Some(owner) if owner == topic.to_string() => Ok(()),
            Some(owner) => Err(ServiceError::Unsupported {
                what: format!("cold table {}", cold.name),
                reason: format!(
                    "it holds rows of a topic with the id {owner}, and the topic's id is now \
                     {topic}: the topic was recreated, and its offsets began anew. Map the new topic \
                     to another cold table (merged.topics in the configuration)"
                ),
            }),
            None if covered.values().all(OffsetSet::is_empty) => Ok(()),
            None => self.store.put(Kind::ColdOwner, &key, &topic.to_string()),
        }
    }
}

/// Whether a file's metadata is proof enough of the range it seems to hold: none of the range was known
/// before, or all of it. Where rows were moved twice and then compacted, a file may have as many rows as
/// offsets and yet lack some.
fn undisputed(covered: &Covered, partition: KafkaPartition, range: OffsetRange) -> bool {
    let known = covered.get(&partition).map_or(0, |set| set.len_within(range));
    known == 0 || known == range.span()
}

fn manifest_key(manifest: &ManifestFile) -> String {
    format!("m/{}", manifest.manifest_path)
}

fn file_key(file: &ColdFile) -> String {
    format!("f/{}", file.uri)
}

/// Reads a vector of end offsets, `partition:offset,…`: all offsets below each are covered.
pub(crate) fn stated_offsets(text: &str) -> Option<Vec<(KafkaPartition, OffsetRange)>> {
    let one = |part: &str| {
        let (partition, end) = part.trim().split_once(':')?;
        let end: i64 = end.parse().ok()?;
        let partition = KafkaPartition(partition.parse().ok()?);
        // Nothing is stated of a partition that ends at 0.
        Some(OffsetRange::new(Offset(0), Offset(end)).map(|range| (partition, range)))
    };
    let parts = text.split(',').filter(|part| !part.trim().is_empty());
    let parts: Option<Vec<_>> = parts.map(one).collect();
    Some(parts?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_is_known_in_part_is_no_proof() {
        let range = |start, end| OffsetRange::new(Offset(start), Offset(end)).unwrap();
        let p = KafkaPartition(0);
        let covered = Covered::from([(p, [range(10, 20)].into_iter().collect())]);
        assert!(undisputed(&covered, p, range(20, 30)) && undisputed(&covered, p, range(12, 15)));
        assert!(!undisputed(&covered, p, range(15, 25)));
        assert!(undisputed(&covered, KafkaPartition(1), range(15, 25)));
    }

    #[test]
    fn vectors_of_end_offsets_are_read_or_refused() {
        let range = |end| OffsetRange::new(Offset(0), Offset(end)).unwrap();
        assert_eq!(
            stated_offsets("0:10, 2:7,1:0"),
            Some(vec![(KafkaPartition(0), range(10)), (KafkaPartition(2), range(7))])
        );
        assert_eq!(stated_offsets(""), Some(vec![]));
        for bad in ["0", "a:1", "0:x", "0:1;1:2"] {
            assert_eq!(stated_offsets(bad), None, "{bad}");
        }
    }
}
