//! Readers of increments over the histories of imagined topics, with metadata read by the `iceberg` crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use iceberg::spec::{
    FormatVersion, Manifest, ManifestContentType, ManifestList, ManifestStatus, SnapshotRef,
    TableMetadata,
};
use isk_model::{DataFileKey, ObjectKey, OffsetSet};

use super::*;
use crate::simulation::ImaginedTopic;

const KEEP: Duration = Duration::from_secs(600);

const ROUNDS: RoundTimes = RoundTimes { hours: 24, days: 30 };

const HOUR: i64 = 3_600_000;

/// An imagined topic with its history.
struct World {
    folder: PathBuf,
    topic: ImaginedTopic,
    store: Arc<Store>,
    history: History,
}

impl World {
    fn new(folder: &Path, partitions: i32, chunks: i64, keep: Duration) -> Self {
        let topic = ImaginedTopic::new(folder, partitions, chunks).unwrap();
        let store = Arc::new(Store::open(&folder.join("history.redb")).unwrap());
        let history = History::open(&topic.inputs().topic, &store, keep, ROUNDS).unwrap();
        Self { folder: folder.join("metadata/imagined"), topic, store, history }
    }

    fn load(&mut self) -> TableMetadata {
        self.load_with(BTreeMap::new()).0
    }

    /// The table, and its metadata's location.
    fn load_with(&mut self, rounds: BTreeMap<i64, Ends>) -> (TableMetadata, String) {
        let (inputs, begun) = (Inputs { rounds, ..self.topic.inputs() }, Instant::now());
        let (tick, _) = self.history.settle(inputs, begun, &self.topic.book).unwrap();
        let loaded = &tick.loaded;
        (serde_json::from_slice(&loaded.metadata).unwrap(), loaded.metadata_location.clone())
    }

    fn restart(&mut self) {
        let topic = self.topic.inputs().topic;
        self.history = History::open(&topic, &self.store, self.history.keep, ROUNDS).unwrap();
    }

    fn file(&self, uri: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(uri.rsplit('/').next().unwrap())).unwrap()
    }

    /// The data files of a snapshot; with `added`, those that it added itself.
    fn data_files(&self, snapshot: &SnapshotRef, added: bool) -> Vec<DataFileKey> {
        let list = self.file(snapshot.manifest_list());
        let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
        let own = |id| !added || id == snapshot.snapshot_id();
        let mut files = Vec::new();
        for listed in list.entries().iter().filter(|l| l.content == ManifestContentType::Data) {
            if own(listed.added_snapshot_id) {
                let manifest = Manifest::parse_avro(&self.file(&listed.manifest_path)).unwrap();
                for entry in manifest.entries() {
                    assert_eq!(entry.status(), ManifestStatus::Added);
                    let path = entry.file_path().strip_prefix("s3://hotset/").unwrap();
                    let Ok(ObjectKey::Data(key)) = path.parse() else { panic!("{path}") };
                    files.push(key);
                }
            }
        }
        files
    }

    /// The offsets of the first partition in these files; each may be there once.
    fn offsets(files: &[DataFileKey]) -> OffsetSet {
        let first: Vec<_> = files.iter().filter(|f| f.partition.0 == 0).map(|f| f.range).collect();
        let spans: u64 = first.iter().map(|range| range.span()).sum();
        let set: OffsetSet = first.into_iter().collect();
        assert_eq!(set.len(), spans, "an offset is there twice");
        set
    }

    /// What a stream reads that has read all up to `last`: `None` where it is told that it cannot go on.
    fn stream(&self, table: &TableMetadata, last: Option<i64>) -> Option<Vec<DataFileKey>> {
        let mut chain = vec![table.current_snapshot().unwrap().clone()];
        while let Some(parent) = chain.last()?.parent_snapshot_id() {
            if Some(parent) == last || Some(chain.last()?.snapshot_id()) == last {
                break;
            }
            match table.snapshot_by_id(parent) {
                Some(parent) => chain.push(parent.clone()),
                None if last.is_none() => break,
                None => return None,
            }
        }
        let new = chain.iter().filter(|snapshot| Some(snapshot.snapshot_id()) != last);
        let appends = new.filter(|one| one.summary().operation.as_str() == "append");
        Some(appends.flat_map(|one| self.data_files(one, true)).collect())
    }

    fn expected(&self) -> OffsetSet {
        self.topic.offsets[&KafkaPartition(0)].readable().into_iter().collect()
    }
}

#[test]
fn a_stream_reads_each_record_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 3, 1, KEEP);
    let first = world.load();
    let mut seen = world.stream(&first, None).unwrap();
    let mut last = first.current_snapshot_id();
    for step in 0i32..30 {
        match step % 6 {
            0 => world.topic.prove_first_chunk(KafkaPartition(step / 6 % 3)).unwrap(),
            3 => world.restart(),
            _ => world.topic.produce(1 + 40_000 * i64::from(step), 1),
        }
        let table = world.load();
        let current = table.current_snapshot().unwrap();
        assert_eq!(World::offsets(&world.data_files(current, false)), world.expected());
        if step % 4 == 0 {
            seen.extend(world.stream(&table, last).unwrap());
            last = table.current_snapshot_id();
            assert_eq!(World::offsets(&seen), world.expected(), "in step {step}");
        }
        assert_eq!(World::offsets(&world.stream(&table, None).unwrap()), world.expected());
        assert_eq!(world.load().current_snapshot_id(), table.current_snapshot_id());
    }
}

#[test]
fn a_version_keeps_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 1, 0, KEEP);
    let mut versions = Vec::new();
    for _ in 0..20 {
        let table = world.load();
        versions.push((table.current_snapshot().unwrap().clone(), world.expected()));
        world.topic.produce(1000, 1);
    }
    world.restart();
    let table = world.load();
    for (snapshot, expected) in versions {
        assert_eq!(table.snapshot_by_id(snapshot.snapshot_id()), Some(&snapshot));
        assert_eq!(World::offsets(&world.data_files(&snapshot, false)), expected);
    }
    let log: Vec<_> = table.history().iter().map(|entry| entry.timestamp_ms).collect();
    assert!(log.windows(2).all(|pair| pair[0] < pair[1]), "{log:?}");
}

#[test]
fn a_stream_that_rested_too_long_is_told_and_a_new_one_sees_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 2, 1, Duration::ZERO);
    let rested = world.load().current_snapshot_id();
    for step in 0..20 {
        world.topic.produce(1 + step * 30_000, 1);
        let table = world.load();
        assert_eq!(World::offsets(&world.stream(&table, None).unwrap()), world.expected());
        assert!(table.snapshots().len() <= 4, "{}", table.snapshots().len());
    }
    let table = world.load();
    assert_eq!(world.stream(&table, rested), None);
}

#[test]
fn removed_records_are_replaced_and_leave_the_beginning_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 1, 2, KEEP);
    let before = world.load();
    world.topic.offsets.values_mut().for_each(|log| log.log_start = Offset(1000));
    let after = world.load();
    let current = after.current_snapshot().unwrap();
    assert_eq!(current.summary().operation.as_str(), "replace");
    assert_eq!(World::offsets(&world.data_files(current, false)), world.expected());
    assert!(world.stream(&after, before.current_snapshot_id()).unwrap().is_empty());
    // Behind the last tick, and so never offered: no stream may pass over it.
    let end = world.topic.offsets[&KafkaPartition(0)].last_stable;
    world.topic.produce(100, 1);
    world.topic.offsets.values_mut().for_each(|log| log.log_start = Offset(end.0 + 50));
    let anew = world.load();
    assert_eq!(world.stream(&anew, after.current_snapshot_id()), None);
    assert_eq!(World::offsets(&world.stream(&anew, None).unwrap()), world.expected());
}

#[test]
fn loads_beyond_the_rate_get_the_last_tick() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 1, 0, KEEP);
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..200 {
        world.topic.produce(1, 1);
        ids.extend(world.load().current_snapshot_id());
    }
    assert!((60..100).contains(&ids.len()), "{}", ids.len());
    let last = world.history.last.as_ref().unwrap();
    let bytes = last.loaded.metadata.len();
    assert!(bytes < 700 * ids.len(), "{bytes} bytes of metadata for {} snapshots", ids.len());
    println!("{bytes} bytes of metadata for {} snapshots", ids.len());
    world.history.bucket = Bucket::new();
    let table = world.load();
    let current = table.current_snapshot().unwrap();
    assert_eq!(World::offsets(&world.data_files(current, false)), world.expected());
}

#[test]
fn the_same_table_is_the_same_snapshot_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    // More partitions than earlier snapshots name the offsets of.
    let mut world = World::new(dir.path(), 40, 2, KEEP);
    let load = |world: &mut World| world.load_with(BTreeMap::new()).1;
    let changes: [&dyn Fn(&mut World); 4] = [
        &|_| {},
        &|world| world.topic.produce(300_000, 3),
        &|world| world.topic.prove_first_chunk(KafkaPartition(1)).unwrap(),
        &|world| {
            world.topic.produce(1, 1);
            load(world);
            world.topic.produce(1, 1);
        },
    ];
    for change in changes {
        change(&mut world);
        let before = load(&mut world);
        world.restart();
        assert_eq!(load(&mut world), before);
        assert_eq!(load(&mut world), before);
        world.restart();
        world.topic.produce(1, 1);
        assert_ne!(load(&mut world), before);
    }
    world.topic.prove_first_chunk(KafkaPartition(2)).unwrap();
    let before = world.history.line.as_ref().unwrap().metadata.clone();
    world.restart();
    assert!(!load(&mut world).ends_with(&before), "a chunk was proven in between");
}

#[test]
fn round_times_stand_before_all_ticks_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 2, 1, KEEP);
    let first = world.load();
    let hour = now_ms().div_euclid(HOUR) * HOUR;
    let at = |end: i64| (0..2).map(|p| (KafkaPartition(p), Offset(end))).collect::<Ends>();
    let rounds = BTreeMap::from([
        (hour - 5 * HOUR, at(7)),
        (hour - 4 * HOUR, at(7)),
        (hour - 3 * HOUR, at(130_000)),
        (hour + HOUR, at(130_001)),
    ]);
    assert_eq!(world.history.missing_rounds(now_ms()).len(), ROUNDS.wanted(now_ms()).len());
    let (table, location) = world.load_with(rounds.clone());
    assert_eq!(table.current_snapshot_id(), first.current_snapshot_id());
    let log: Vec<_> = table.history().iter().map(|entry| entry.timestamp_ms).collect();
    assert_eq!(log[..2], [hour - 5 * HOUR, hour - 3 * HOUR], "nothing came in between");
    assert_eq!(log.len(), 3, "a time after the first tick is none");
    for (entry, end) in table.history().iter().zip([7, 130_000]) {
        let snapshot = table.snapshot_by_id(entry.snapshot_id).unwrap();
        let label = snapshot.summary().additional_properties.get("isk.by-record-timestamp");
        assert_eq!(label.map(String::as_str), Some("true"));
        assert_eq!(World::offsets(&world.data_files(snapshot, false)).len(), end);
        assert!(table.snapshot_by_id(snapshot.parent_snapshot_id().unwrap()).is_none());
    }
    assert_eq!(world.load_with(rounds.clone()).1, location);
    assert_eq!(World::offsets(&world.stream(&table, None).unwrap()), world.expected());
    world.restart();
    assert_eq!(world.load_with(BTreeMap::new()).1, location);
    world.topic.produce(5, 1);
    let after = world.load();
    for entry in table.history() {
        assert_eq!(
            after.snapshot_by_id(entry.snapshot_id),
            table.snapshot_by_id(entry.snapshot_id)
        );
    }
    assert_eq!(World::offsets(&world.stream(&after, None).unwrap()), world.expected());
    // All that a round time holds has expired.
    world.topic.offsets.values_mut().for_each(|log| log.log_start = Offset(10));
    let expired = world.load();
    assert_eq!(expired.history()[0].timestamp_ms, hour - 3 * HOUR);
}

#[test]
fn a_beginning_whose_records_are_gone_is_renewed_without_anything_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), 1, 2, KEEP);
    world.load();
    world.topic.offsets.values_mut().for_each(|log| log.log_start = Offset(1000));
    let trimmed = world.load();
    assert_ne!(World::offsets(&world.stream(&trimmed, None).unwrap()), world.expected());
    // As if the replacement had been made longer ago.
    for record in &mut world.history.records {
        record.made_ms -= 61_000;
    }
    let (renewed, location) = world.load_with(BTreeMap::new());
    assert_eq!(renewed.current_snapshot_id(), trimmed.current_snapshot_id());
    assert_eq!(World::offsets(&world.stream(&renewed, None).unwrap()), world.expected());
    assert_eq!(world.load_with(BTreeMap::new()).1, location);
}
