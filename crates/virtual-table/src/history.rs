//! A topic's ticks, as snapshots that follow each other: what `FOR VERSION AS OF`, incremental reads and
//! streams go by.
//!
//! A tick that has more records than the last is an **append** of files that hold just those; one that has
//! the same is a **replacement**, which readers of increments pass over. The files that were there before
//! may be planned better in both: proven, as fewer pieces, or without what retention removed. The first of a
//! line adds all there is, so that a stream from the start sees everything.
//!
//! Ticks are kept in the store before anybody is told of them, and go by [`crate::thinning`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use iceberg::spec::Schema;
use isk_iceberg_table::{
    GroupManifests, Manifests, NamedFile, Operation, Snapshot, TableHead, build_metadata,
    build_snapshot, unknown_parent,
};
use isk_kafka::TopicDescription;
use isk_model::{KafkaPartition, Offset};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::ServiceError;
use crate::lineage::{Ends, Lineage, Log, Step};
use crate::manifests::{ManifestBook, build_error, fingerprints};
use crate::plan::{Inputs, head};
use crate::store::{Changes, Kind, Store};
use crate::thinning::{Moment, kept, new_beginning};
use crate::tick::{BACKDATED_MS, Tick, now_ms};

/// By how many milliseconds the timestamp of a tick lies before it, but for the first, which DuckDB must
/// find below the start of its transaction: one of a later tick that is too young is read as the tick before.
const TICK_BACKDATED_MS: i64 = 5_000;

/// New ticks at once, and how many more by the second. Beyond, a load is answered with the last tick.
const BURST: f64 = 60.0;
const TICKS_PER_SECOND: f64 = 1.0;

/// Partitions up to which earlier snapshots keep their offsets in their summaries.
const SUMMARIZED_PARTITIONS: usize = 32;

/// The summary's entries with an offset for each partition.
const VECTORS: [&str; 2] = ["isk.log-start-offsets", "isk.end-offsets"];

/// The newest tick, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    lineage: Lineage,
    /// Where the records began that the chain's first snapshot names.
    starts: Vec<(i32, i64)>,
    /// The number of the next snapshot.
    next: u64,
    /// The schemas of the snapshots.
    schemas: Vec<Schema>,
    /// The name of the metadata file.
    pub(crate) metadata: String,
}

/// A snapshot, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    number: u64,
    made_ms: i64,
    chained: bool,
    snapshot: Snapshot,
    /// What it names in the table's metadata folder.
    pub(crate) files: Vec<String>,
    /// Its end offsets.
    ends: Vec<(i32, i64)>,
}

impl Record {
    fn moment(&self) -> Moment {
        Moment { made_ms: self.made_ms, chained: self.chained }
    }
}

/// The history of one topic. Whoever holds it is the only one who makes ticks of the topic.
pub(crate) struct History {
    key: String,
    store: Arc<Store>,
    keep: Duration,
    line: Option<Line>,
    /// Oldest first, without files and offsets.
    records: Vec<Record>,
    last: Option<Arc<Tick>>,
    /// No load that began before has to be answered with a newer tick than the last.
    settled: Option<Instant>,
    bucket: Bucket,
}

impl History {
    /// The history as it was kept. Those of topics that had the same name are forgotten.
    pub(crate) fn open(
        topic: &TopicDescription,
        store: &Arc<Store>,
        keep: Duration,
    ) -> Result<Self, ServiceError> {
        let key = format!("{}/{}", topic.name, topic.id);
        let mut gone = Changes::default();
        let mut records = Vec::new();
        for (name, kept) in store.scan::<Value>(Kind::Snapshots, &format!("{}/", topic.name))? {
            let own = name.rsplit_once('/').is_some_and(|(of, _)| of == key);
            match serde_json::from_value::<Record>(kept) {
                Ok(record) if own => records.push(light(record)),
                // One of an older shape is none.
                _ => gone.remove(Kind::Snapshots, name),
            }
        }
        store.apply(&gone)?;
        records.sort_by_key(|record| record.snapshot.timestamp_ms);
        let line = store.get(Kind::Lineage, &key)?.filter(|_| !records.is_empty());
        if line.is_none() {
            records.clear();
        }
        let (store, bucket) = (Arc::clone(store), Bucket::new());
        Ok(Self { key, store, keep, line, records, last: None, settled: None, bucket })
    }

    /// The last tick, if it was asked for after `begun`: it is as new as a load that began then may ask for.
    pub(crate) fn since(&self, begun: Instant) -> Option<Arc<Tick>> {
        self.last.clone().filter(|_| self.settled.is_some_and(|settled| settled > begun))
    }

    /// The tick of these inputs, asked for by a load that began at `begun`: the last one where nothing
    /// changed since, else a new one, published. And whether it is new.
    pub(crate) fn settle(
        &mut self,
        inputs: Inputs,
        begun: Instant,
        book: &ManifestBook,
    ) -> Result<(Arc<Tick>, bool), ServiceError> {
        let tick = self.tick(inputs, book)?;
        self.settled = self.settled.max(Some(begun));
        let new = !self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &tick));
        self.last = Some(Arc::clone(&tick));
        Ok((tick, new))
    }

    fn tick(&mut self, mut inputs: Inputs, book: &ManifestBook) -> Result<Arc<Tick>, ServiceError> {
        let (step, lineage) = self.step(&mut inputs);
        inputs.tick_cuts = lineage.cuts();
        // The ends of followed partitions are cut where they were proven.
        let Inputs { tick_cuts, cuts, .. } = &mut inputs;
        tick_cuts.retain(|partition, _| !cuts.contains_key(partition));
        let head = head(&inputs, self.timestamp(step));
        let (groups, fingerprint) = fingerprints(&inputs, &head, inputs.groups())?;
        if let Some(last) = &self.last
            && !matches!(step, Step::Broken(_))
            && ((step == Step::Same && last.is(fingerprint)) || !self.bucket.take())
        {
            return Ok(Arc::clone(last));
        }
        let (known, added) = match step {
            Step::Same => (book.manifests(&inputs, &head, &groups)?, Vec::new()),
            Step::Broken(_) => (Vec::new(), book.manifests(&inputs, &head, &groups)?),
            Step::Grown => {
                let before = self.line.as_ref().map(|line| line.lineage.ends()).unwrap_or_default();
                let known = inputs.groups_between(None, Some(&before));
                let added = inputs.groups_between(Some(&before), None);
                (book.of(&inputs, &head, known)?, book.of(&inputs, &head, added)?)
            }
        };
        if let Some(last) = &self.last
            && step == Step::Same
            && last.holds(&head, &known)
        {
            return Ok(last.known_anew(inputs, known, fingerprint));
        }
        let parent = self.records.last().map(|last| last.snapshot.snapshot_id);
        let (operation, parent) = match step {
            Step::Same => (Operation::Replace, parent),
            Step::Grown => (Operation::Append, parent),
            Step::Broken(_) => (Operation::Append, Some(unknown_parent(&head, parent))),
        };
        let manifests = Manifests { known: &known, added: &added };
        let (snapshot, list) = build_snapshot(&head, manifests, operation, parent)
            .map_err(|e| build_error(&inputs, &e))?;
        book.put(&inputs.topic, &list.name, &list.bytes)?;
        let mut next = self.next(&inputs, &head, step, lineage);
        next.push(snapshot, &known, &added);
        next.begin_anew(self.keep, &inputs, &head, book, |number| self.kept(number))?;
        next.thin();
        let metadata = next.metadata(&inputs, &head, book)?;
        self.keep(next, &metadata)?;
        let all = known.into_iter().chain(added).collect();
        Ok(Arc::new(Tick::published(inputs, head, all, fingerprint, [&metadata, &list])))
    }

    /// What a tick of these inputs is to the last, and the lineage after it.
    fn step(&self, inputs: &mut Inputs) -> (Step, Lineage) {
        let chunk_exponent = inputs.pin.chunk_exponent();
        let last = self.line.as_ref().map(|line| &line.lineage);
        if let Some(last) = last {
            last.catch_up(&mut inputs.offsets, &inputs.epochs);
        }
        let log = Log { offsets: &inputs.offsets, epochs: &inputs.epochs, chunk_exponent };
        match last.map(|last| (last.step(log), last)) {
            Some((Step::Same, last)) => (Step::Same, last.clone()),
            Some((Step::Grown, last)) => (Step::Grown, last.advance(log)),
            Some((Step::Broken(reason), _)) => {
                let topic = &inputs.topic.name;
                tracing::warn!(%topic, reason, "a new line of snapshots begins; streams stop");
                (Step::Broken(reason), Lineage::begin(log))
            }
            None => (Step::Broken("there is no tick yet"), Lineage::begin(log)),
        }
    }

    /// Later than all ticks before, and earlier than now.
    fn timestamp(&self, step: Step) -> i64 {
        match (step, self.records.last()) {
            (Step::Broken(_), _) | (_, None) => now_ms() - BACKDATED_MS,
            (_, Some(last)) => (now_ms() - TICK_BACKDATED_MS).max(last.snapshot.timestamp_ms + 1),
        }
    }

    fn next(&self, inputs: &Inputs, head: &TableHead, step: Step, lineage: Lineage) -> Next {
        let ends = lineage.ends();
        let line = self.line.as_ref().filter(|_| !matches!(step, Step::Broken(_)));
        let mut schemas = line.map(|line| line.schemas.clone()).unwrap_or_default();
        schemas.retain(|schema| schema.schema_id() != head.schema_id);
        let schema = head.schema.as_ref().clone().into_builder();
        // One that cannot be made is no earlier schema: the build of this very tick would have failed.
        schemas.extend(schema.with_schema_id(head.schema_id).build());
        let (records, gone) = match line {
            Some(_) => (self.records.clone(), Vec::new()),
            None => (Vec::new(), self.records.iter().map(|record| record.number).collect()),
        };
        Next {
            line: Line {
                lineage,
                starts: line.map_or_else(|| starts(inputs), |line| line.starts.clone()),
                next: self.line.as_ref().map_or(0, |line| line.next),
                schemas,
                metadata: String::new(),
            },
            ends,
            records,
            changed: Vec::new(),
            gone,
        }
    }

    /// A snapshot's whole record.
    fn kept(&self, number: u64) -> Result<Option<Record>, ServiceError> {
        self.store.get(Kind::Snapshots, &record_key(&self.key, number))
    }

    /// Takes a tick over once it is on disk.
    fn keep(&mut self, mut next: Next, metadata: &NamedFile) -> Result<(), ServiceError> {
        next.line.metadata = metadata.name.clone();
        let mut changes = Changes::default();
        changes.put(Kind::Lineage, self.key.clone(), &next.line)?;
        for number in next.gone {
            changes.remove(Kind::Snapshots, record_key(&self.key, number));
        }
        for record in &next.changed {
            changes.put(Kind::Snapshots, record_key(&self.key, record.number), record)?;
        }
        self.store.apply(&changes)?;
        self.line = Some(next.line);
        self.records = next.records;
        Ok(())
    }
}

/// A history to be: what it will hold, and what of it is to be written.
struct Next {
    line: Line,
    ends: Ends,
    records: Vec<Record>,
    changed: Vec<Record>,
    gone: Vec<u64>,
}

impl Next {
    /// Adds a snapshot as the newest.
    fn push(
        &mut self,
        snapshot: Snapshot,
        known: &[Arc<GroupManifests>],
        added: &[Arc<GroupManifests>],
    ) {
        let files = names(&snapshot, known.iter().chain(added));
        let ends = self.ends.iter().map(|(partition, end)| (partition.0, end.0)).collect();
        let (number, made_ms) = (self.line.next, now_ms());
        self.line.next += 1;
        let record = Record { number, made_ms, chained: true, snapshot, files, ends };
        if self.ends.len() > SUMMARIZED_PARTITIONS
            && let Some(before) = self.records.last_mut()
        {
            VECTORS.iter().for_each(|entry| {
                before.snapshot.summary.remove(*entry);
            });
        }
        self.records.push(light(record.clone()));
        self.changed.push(record);
    }

    /// Begins the chain anew where it has become long or its beginning is gone.
    fn begin_anew(
        &mut self,
        keep: Duration,
        inputs: &Inputs,
        head: &TableHead,
        book: &ManifestBook,
        kept: impl Fn(u64) -> Result<Option<Record>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let starts = starts(inputs);
        let moments: Vec<Moment> = self.records.iter().map(Record::moment).collect();
        let trimmed = starts.iter().zip(&self.line.starts).any(|(now, then)| now > then);
        let Some(place) = new_beginning(&moments, now_ms(), keep, trimmed) else { return Ok(()) };
        let Some(old) = kept(self.records[place].number)? else { return Ok(()) };
        let new = beginning(&old, inputs, head, book)?;
        let before = self.records[..place].iter().filter(|record| record.chained);
        for number in before.map(|record| record.number).collect::<Vec<_>>() {
            self.change(number, &kept, |record| record.chained = false)?;
        }
        let parent = Some(new.snapshot.snapshot_id);
        if let Some(child) = self.records.get(place + 1).map(|child| child.number) {
            self.change(child, &kept, |child| child.snapshot.parent_snapshot_id = parent)?;
        }
        self.records[place] = light(new.clone());
        self.changed.push(new);
        self.line.starts = starts;
        Ok(())
    }

    /// Changes a snapshot's record, in memory and as it is to be written.
    fn change(
        &mut self,
        number: u64,
        kept: impl Fn(u64) -> Result<Option<Record>, ServiceError>,
        change: impl Fn(&mut Record),
    ) -> Result<(), ServiceError> {
        if !self.changed.iter().any(|record| record.number == number) {
            self.changed.extend(kept(number)?);
        }
        let all = self.records.iter_mut().chain(&mut self.changed);
        all.filter(|record| record.number == number).for_each(change);
        Ok(())
    }

    /// Lets go of older snapshots.
    fn thin(&mut self) {
        let moments: Vec<Moment> = self.records.iter().map(Record::moment).collect();
        let mut stays = kept(&moments, now_ms()).into_iter();
        let gone = &mut self.gone;
        self.records.retain(|record| {
            let stays = stays.next().unwrap_or(true);
            if !stays {
                gone.push(record.number);
            }
            stays
        });
        self.changed.retain(|record| !gone.contains(&record.number));
        let named = |id: i32| self.records.iter().any(|record| record.snapshot.schema_id == id);
        self.line.schemas.retain(|schema| named(schema.schema_id()));
    }

    /// Builds the metadata file and puts it into the store.
    fn metadata(
        &self,
        inputs: &Inputs,
        head: &TableHead,
        book: &ManifestBook,
    ) -> Result<NamedFile, ServiceError> {
        let snapshots = self.records.iter().map(|record| &record.snapshot);
        let metadata = build_metadata(head, &self.line.schemas, snapshots)
            .map_err(|e| build_error(inputs, &e))?;
        book.put(&inputs.topic, &metadata.name, &metadata.bytes)?;
        Ok(metadata)
    }
}

/// A snapshot of the same records as this one that adds them all, to stand in its place.
fn beginning(
    old: &Record,
    inputs: &Inputs,
    head: &TableHead,
    book: &ManifestBook,
) -> Result<Record, ServiceError> {
    let ends: Ends = old.ends.iter().map(|&(p, end)| (KafkaPartition(p), Offset(end))).collect();
    let mut head = TableHead { timestamp_ms: old.snapshot.timestamp_ms, ..head.clone() };
    let end_offsets = old.snapshot.summary.get(VECTORS[1]).cloned();
    head.summary.remove(VECTORS[1]);
    head.summary.extend(end_offsets.map(|offsets| (VECTORS[1].to_owned(), offsets)));
    let added = book.of(inputs, &head, inputs.groups_between(None, Some(&ends)))?;
    let manifests = Manifests { known: &[], added: &added };
    let parent = unknown_parent(&head, Some(old.snapshot.snapshot_id));
    let (snapshot, list) = build_snapshot(&head, manifests, Operation::Append, Some(parent))
        .map_err(|e| build_error(inputs, &e))?;
    book.put(&inputs.topic, &list.name, &list.bytes)?;
    let files = names(&snapshot, added.iter());
    Ok(Record { snapshot, files, ..old.clone() })
}

/// The names of a snapshot's manifest list and manifests.
fn names<'a>(
    snapshot: &Snapshot,
    groups: impl Iterator<Item = &'a Arc<GroupManifests>>,
) -> Vec<String> {
    let manifests = groups.flat_map(|group| group.files()).map(|(name, _)| name.to_owned());
    manifests.chain([snapshot.list_name().to_owned()]).collect()
}

/// Where the log of each partition begins.
fn starts(inputs: &Inputs) -> Vec<(i32, i64)> {
    inputs.offsets.iter().map(|(partition, log)| (partition.0, log.log_start.0)).collect()
}

/// A record as it is held in memory.
fn light(record: Record) -> Record {
    Record { files: Vec::new(), ends: Vec::new(), ..record }
}

/// Keys sort by topic, then number.
fn record_key(topic: &str, number: u64) -> String {
    format!("{topic}/{number:020}")
}

/// How many ticks may be made now.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new() -> Self {
        Self { tokens: BURST, filled: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let more = now.duration_since(self.filled).as_secs_f64() * TICKS_PER_SECOND;
        (self.tokens, self.filled) = ((self.tokens + more).min(BURST), now);
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests;
