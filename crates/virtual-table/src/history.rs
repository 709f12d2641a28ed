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
    GroupManifests, Manifests, NamedFile, Operation, Snapshot, TableHead, build_snapshot,
    unknown_parent,
};
use isk_kafka::TopicDescription;
use isk_model::{KafkaPartition, Offset};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::ServiceError;
use crate::lineage::{Ends, Lineage, Log, Step};
use crate::manifests::{Fingerprint, ManifestBook, build_error, fingerprints};
use crate::plan::{Inputs, head};
use crate::round_times::RoundTimes;
use crate::store::{Changes, Kind, Store};
use crate::thinning::{Moment, new_beginning};
use crate::tick::{BACKDATED_MS, Tick, now_ms};

mod bucket;
mod next;
use bucket::Bucket;
use next::{Next, SUMMARIZED_PARTITIONS, starts, without_vectors};

/// By how many milliseconds the timestamp of a tick lies before it, but for the first, which DuckDB must
/// find below the start of its transaction: one of a later tick that is too young is read as the tick before.
const TICK_BACKDATED_MS: i64 = 5_000;

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
    /// How the newest snapshot was made.
    #[serde(default)]
    made: Option<Made>,
}

/// How a snapshot was made of the groups of its files: what makes the same one again, if nothing has changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Made {
    /// Whether it is a replacement.
    replaced: bool,
    parent: Option<i64>,
    /// The ends of what was there before, where it added what lies behind them.
    before: Option<Vec<(i32, i64)>>,
}

impl Line {
    /// Whether records are gone that the chain's first snapshot names.
    fn trimmed(&self, starts: &[(i32, i64)]) -> bool {
        starts.iter().zip(&self.starts).any(|(now, then)| now > then)
    }
}

/// A snapshot, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    number: u64,
    made_ms: i64,
    chained: bool,
    /// Whether it is of a round time, by the records' own timestamps, and not of a moment it was asked for.
    #[serde(default)]
    round: bool,
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

/// The manifests of groups.
type GroupList = Vec<Arc<GroupManifests>>;

/// A snapshot to be published, and all that it was planned with.
struct Plan {
    inputs: Inputs,
    head: TableHead,
    manifests: GroupList,
    fingerprint: Fingerprint,
    list: NamedFile,
}

/// Inputs that are the newest snapshot.
enum Unchanged {
    /// As the last tick has it.
    Last(Arc<Tick>),
    /// Made once more.
    Made { head: Box<TableHead>, manifests: GroupList, list: NamedFile },
}

/// The history of one topic. Whoever holds it is the only one who makes ticks of the topic.
pub(crate) struct History {
    key: String,
    store: Arc<Store>,
    keep: Duration,
    rounds: RoundTimes,
    line: Option<Line>,
    /// Oldest first, without files, and without the offsets of those that are no round times.
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
        rounds: RoundTimes,
    ) -> Result<Self, ServiceError> {
        let key = format!("{}/{}", topic.name, topic.id);
        let mut gone = Changes::default();
        let mut records = Vec::new();
        for (name, kept) in store.scan::<Value>(Kind::Snapshots, &format!("{}/", topic.name))? {
            let own = name.rsplit_once('/').is_some_and(|(of, _)| of == key);
            match serde_json::from_value::<Record>(kept) {
                Ok(record) if own => records.push(record),
                // One of an older shape is none.
                _ => gone.remove(Kind::Snapshots, name),
            }
        }
        store.apply(&gone)?;
        records.sort_by_key(|record| record.snapshot.timestamp_ms);
        let newest = records.len().saturating_sub(1);
        for (at, record) in records.iter_mut().enumerate() {
            if at < newest && record.ends.len() > SUMMARIZED_PARTITIONS {
                without_vectors(record);
            }
        }
        let mut records: Vec<Record> = records.into_iter().map(light).collect();
        let line = store.get(Kind::Lineage, &key)?.filter(|_| !records.is_empty());
        if line.is_none() {
            records.clear();
        }
        let (store, bucket) = (Arc::clone(store), Bucket::new());
        Ok(Self { key, store, keep, rounds, line, records, last: None, settled: None, bucket })
    }

    /// The last tick, if it was asked for after `begun`: it is as new as a load that began then may ask for.
    pub(crate) fn since(&self, begun: Instant) -> Option<Arc<Tick>> {
        self.last.clone().filter(|_| self.settled.is_some_and(|settled| settled > begun))
    }

    /// The last tick, however old.
    pub(crate) fn last(&self) -> Option<Arc<Tick>> {
        self.last.clone()
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
        match self.unchanged(step, &inputs, &head, fingerprint, book)? {
            Some(Unchanged::Last(tick)) => return Ok(tick),
            Some(Unchanged::Made { head, manifests, list }) => {
                let mut next = self.next(&inputs, &head, step, lineage);
                if self.is_to_change(&inputs) {
                    self.amend(&mut next, &inputs, &head, book)?;
                }
                let plan = Plan { inputs, head: *head, manifests, fingerprint, list };
                return self.publish(next, plan, book);
            }
            None => {}
        }
        if let Some(last) = &self.last
            && !matches!(step, Step::Broken(_))
            && !self.bucket.take()
        {
            return Ok(Arc::clone(last));
        }
        let before = self.line.as_ref().filter(|_| step == Step::Grown).map(|l| l.lineage.ends());
        let (known, added) = match (step, &before) {
            (Step::Same, _) => (book.manifests(&inputs, &head, &groups)?, Vec::new()),
            (_, None) => (Vec::new(), book.manifests(&inputs, &head, &groups)?),
            (_, Some(before)) => known_and_added(&inputs, &head, before, book)?,
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
        book.put(&inputs, &list.name, &list.bytes)?;
        let mut next = self.next(&inputs, &head, step, lineage);
        next.line.made = Some(Made {
            replaced: step == Step::Same,
            parent,
            before: before.map(|ends| ends.iter().map(|(p, end)| (p.0, end.0)).collect()),
        });
        next.push(snapshot, &known, &added);
        self.amend(&mut next, &inputs, &head, book)?;
        let manifests = known.into_iter().chain(added).collect();
        self.publish(next, Plan { inputs, head, manifests, fingerprint, list }, book)
    }

    /// Changes what stands before the newest snapshot: what streams begin with, round times, what is let go.
    fn amend(
        &self,
        next: &mut Next,
        inputs: &Inputs,
        head: &TableHead,
        book: &ManifestBook,
    ) -> Result<(), ServiceError> {
        next.begin_anew(self.keep, inputs, head, book, |number| self.kept(number))?;
        next.offer(inputs, head, book)?;
        next.thin(self.rounds, &starts(inputs));
        Ok(())
    }

    /// Takes a history over as the one that is, and gives its newest snapshot as a tick.
    fn publish(
        &mut self,
        next: Next,
        plan: Plan,
        book: &ManifestBook,
    ) -> Result<Arc<Tick>, ServiceError> {
        let Plan { inputs, head, manifests, fingerprint, list } = plan;
        let metadata = next.metadata(&inputs, &head, book)?;
        self.keep(next, &metadata)?;
        let files = [&metadata, &list];
        Ok(Arc::new(Tick::published(inputs, head, manifests, fingerprint, files)))
    }

    /// The newest snapshot, where a tick of these inputs would be just that. After a restart it is made again,
    /// to see whether it is; and so where snapshots before it are to be others, which is another metadata file.
    fn unchanged(
        &self,
        step: Step,
        inputs: &Inputs,
        head: &TableHead,
        fingerprint: Fingerprint,
        book: &ManifestBook,
    ) -> Result<Option<Unchanged>, ServiceError> {
        if step != Step::Same || self.last.as_ref().is_some_and(|last| !last.is(fingerprint)) {
            return Ok(None);
        }
        if let Some(last) = self.last.as_ref().filter(|_| !self.is_to_change(inputs)) {
            return Ok(Some(Unchanged::Last(Arc::clone(last))));
        }
        let made = self.line.as_ref().and_then(|line| line.made.as_ref());
        let (Some(made), Some(newest)) = (made, self.records.last()) else { return Ok(None) };
        let (known, added) = match (&made.before, made.replaced) {
            (Some(before), _) => {
                let before = before.iter().map(|&(p, end)| (KafkaPartition(p), Offset(end)));
                known_and_added(inputs, head, &before.collect(), book)?
            }
            (None, true) => (book.of(inputs, head, inputs.groups())?, Vec::new()),
            (None, false) => (Vec::new(), book.of(inputs, head, inputs.groups())?),
        };
        let operation = if made.replaced { Operation::Replace } else { Operation::Append };
        let head = TableHead { timestamp_ms: newest.snapshot.timestamp_ms, ..head.clone() };
        let manifests = Manifests { known: &known, added: &added };
        let (snapshot, list) = build_snapshot(&head, manifests, operation, made.parent)
            .map_err(|e| build_error(inputs, &e))?;
        if snapshot.snapshot_id != newest.snapshot.snapshot_id {
            return Ok(None);
        }
        book.put(inputs, &list.name, &list.bytes)?;
        let manifests = known.into_iter().chain(added).collect();
        Ok(Some(Unchanged::Made { head: Box::new(head), manifests, list }))
    }

    /// Whether snapshots before the newest are to be others: the chain's first names records that are gone, or
    /// there are round times that are not offered yet.
    fn is_to_change(&self, inputs: &Inputs) -> bool {
        let lacks = |time: &i64| !self.records.iter().any(|r| r.snapshot.timestamp_ms == *time);
        if inputs.rounds.keys().any(lacks) {
            return true;
        }
        let trimmed = self.line.as_ref().is_some_and(|line| line.trimmed(&starts(inputs)));
        let moments = || self.records.iter().map(Record::moment).collect::<Vec<_>>();
        trimmed && new_beginning(&moments(), now_ms(), self.keep, true).is_some()
    }

    /// The round times that are to be offered and are not yet, ascending.
    pub(crate) fn missing_rounds(&self, now_ms: i64) -> Vec<i64> {
        let Some(first) = self.records.iter().find(|record| !record.round) else {
            return Vec::new();
        };
        let mut wanted = self.rounds.wanted(now_ms);
        let offered = |time: &i64| self.records.iter().any(|r| r.snapshot.timestamp_ms == *time);
        wanted.retain(|time| *time < first.snapshot.timestamp_ms && !offered(time));
        wanted
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
                made: line.and_then(|line| line.made.clone()),
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

/// The manifests of what is readable before these ends, and of what lies behind them.
fn known_and_added(
    inputs: &Inputs,
    head: &TableHead,
    before: &Ends,
    book: &ManifestBook,
) -> Result<(GroupList, GroupList), ServiceError> {
    let known = inputs.groups_between(None, Some(before));
    let added = inputs.groups_between(Some(before), None);
    Ok((book.of(inputs, head, known)?, book.of(inputs, head, added)?))
}

/// A record as it is held in memory.
fn light(record: Record) -> Record {
    let ends = if record.round { record.ends } else { Vec::new() };
    Record { files: Vec::new(), ends, ..record }
}

/// Keys sort by topic, then number.
fn record_key(topic: &str, number: u64) -> String {
    format!("{topic}/{number:020}")
}

#[cfg(test)]
mod tests;
