//! A history to be: the snapshots that stay, those that are new or changed, and the metadata file over them.

use std::sync::Arc;
use std::time::Duration;

use isk_iceberg_table::{
    GroupManifests, Manifests, NamedFile, Operation, Snapshot, TableHead, build_metadata,
    build_snapshot, unknown_parent,
};
use isk_model::{KafkaPartition, Offset};

use super::{Line, Record, light};
use crate::api::ServiceError;
use crate::lineage::Ends;
use crate::manifests::{ManifestBook, build_error};
use crate::plan::Inputs;
use crate::round_times::RoundTimes;
use crate::thinning::{Moment, kept, new_beginning};
use crate::tick::now_ms;

/// Partitions up to which earlier snapshots keep their offsets in their summaries.
pub(super) const SUMMARIZED_PARTITIONS: usize = 32;

/// The summary's entries with an offset for each partition.
const VECTORS: [&str; 2] = ["isk.log-start-offsets", "isk.end-offsets"];

/// The summary's entry of a snapshot that is no tick: its records are those before the first one, in the log's
/// order, whose own timestamp is the snapshot's or later.
const BY_RECORD_TIMESTAMP: &str = "isk.by-record-timestamp";

/// A history to be: what it will hold, and what of it is to be written.
pub(super) struct Next {
    pub(super) line: Line,
    pub(super) ends: Ends,
    pub(super) records: Vec<Record>,
    pub(super) changed: Vec<Record>,
    pub(super) gone: Vec<u64>,
}

impl Next {
    /// Adds a snapshot as the newest.
    pub(super) fn push(
        &mut self,
        snapshot: Snapshot,
        known: &[Arc<GroupManifests>],
        added: &[Arc<GroupManifests>],
    ) {
        let files = names(&snapshot, known.iter().chain(added));
        let ends = self.ends.iter().map(|(partition, end)| (partition.0, end.0)).collect();
        let (number, made_ms) = (self.line.next, now_ms());
        self.line.next += 1;
        let record = Record { number, made_ms, chained: true, round: false, snapshot, files, ends };
        if self.ends.len() > SUMMARIZED_PARTITIONS
            && let Some(before) = self.records.last_mut()
        {
            without_vectors(before);
        }
        self.records.push(light(record.clone()));
        self.changed.push(record);
    }

    /// Begins the chain anew where it has become long or its beginning is gone.
    pub(super) fn begin_anew(
        &mut self,
        keep: Duration,
        inputs: &Inputs,
        head: &TableHead,
        book: &ManifestBook,
        kept: impl Fn(u64) -> Result<Option<Record>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let starts = starts(inputs);
        let moments: Vec<Moment> = self.records.iter().map(Record::moment).collect();
        let trimmed = self.line.trimmed(&starts);
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

    /// Offers the round times that are not offered yet. They are linked to nothing: no stream comes by them.
    pub(super) fn offer(
        &mut self,
        inputs: &Inputs,
        head: &TableHead,
        book: &ManifestBook,
    ) -> Result<(), ServiceError> {
        for (&time, ends) in &inputs.rounds {
            let first = self.records.iter().find(|record| !record.round);
            let before_all = first.is_some_and(|first| time < first.snapshot.timestamp_ms);
            let at = self.records.partition_point(|record| record.snapshot.timestamp_ms < time);
            let offered = self.records.get(at).is_some_and(|r| r.snapshot.timestamp_ms == time);
            let stored: Vec<_> = ends.iter().map(|(partition, end)| (partition.0, end.0)).collect();
            let before = at.checked_sub(1).and_then(|before| self.records.get(before));
            // No record came in between two of them.
            let same = before.is_some_and(|before| before.round && before.ends == stored);
            if !before_all || offered || same {
                continue;
            }
            let mut head = TableHead { timestamp_ms: time, ..head.clone() };
            let each = ends.iter().map(|(partition, end)| format!("{}:{}", partition.0, end.0));
            let vector = each.collect::<Vec<_>>().join(",");
            head.summary.insert(VECTORS[1].to_owned(), vector);
            head.summary.insert(BY_RECORD_TIMESTAMP.to_owned(), "true".to_owned());
            let (snapshot, files) = all_added(ends, Some(time), inputs, &head, book)?;
            let number = self.line.next;
            self.line.next += 1;
            let (made_ms, chained, round, ends) = (time, false, true, stored);
            let mut record = Record { number, made_ms, chained, round, snapshot, files, ends };
            if record.ends.len() > SUMMARIZED_PARTITIONS {
                without_vectors(&mut record);
            }
            self.records.insert(at, light(record.clone()));
            self.changed.push(record);
        }
        Ok(())
    }

    /// Lets go of older snapshots.
    pub(super) fn thin(&mut self, rounds: RoundTimes, starts: &[(i32, i64)]) {
        let moments: Vec<Moment> =
            self.records.iter().filter(|record| !record.round).map(Record::moment).collect();
        let now = now_ms();
        let mut stays = kept(&moments, now).into_iter();
        let gone = &mut self.gone;
        self.records.retain(|record| {
            let stays = match record.round {
                true => {
                    rounds.keeps(record.snapshot.timestamp_ms, now)
                        && any_left(&record.ends, starts)
                }
                false => stays.next().unwrap_or(true),
            };
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
    pub(super) fn metadata(
        &self,
        inputs: &Inputs,
        head: &TableHead,
        book: &ManifestBook,
    ) -> Result<NamedFile, ServiceError> {
        let snapshots = self.records.iter().map(|record| &record.snapshot);
        let metadata = build_metadata(head, &self.line.schemas, snapshots)
            .map_err(|e| build_error(inputs, &e))?;
        book.put(inputs, &metadata.name, &metadata.bytes)?;
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
    let (snapshot, files) = all_added(&ends, Some(old.snapshot.snapshot_id), inputs, &head, book)?;
    Ok(Record { snapshot, files, ..old.clone() })
}

/// A snapshot that adds all records before these ends, with the names of its files. No snapshot is the one
/// before it.
fn all_added(
    ends: &Ends,
    in_place_of: Option<i64>,
    inputs: &Inputs,
    head: &TableHead,
    book: &ManifestBook,
) -> Result<(Snapshot, Vec<String>), ServiceError> {
    let added = book.of(inputs, head, inputs.groups_between(None, Some(ends)))?;
    let manifests = Manifests { known: &[], added: &added };
    let parent = unknown_parent(head, in_place_of);
    let (snapshot, list) = build_snapshot(head, manifests, Operation::Append, Some(parent))
        .map_err(|e| build_error(inputs, &e))?;
    book.put(inputs, &list.name, &list.bytes)?;
    let files = names(&snapshot, added.iter());
    Ok((snapshot, files))
}

/// Whether the log has any of the records before these ends.
fn any_left(ends: &[(i32, i64)], starts: &[(i32, i64)]) -> bool {
    let start = |of: i32| starts.iter().find(|&&(partition, _)| partition == of);
    ends.iter().any(|&(partition, end)| start(partition).is_some_and(|&(_, start)| start < end))
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
pub(super) fn starts(inputs: &Inputs) -> Vec<(i32, i64)> {
    inputs.offsets.iter().map(|(partition, log)| (partition.0, log.log_start.0)).collect()
}

/// Takes the offsets of many partitions out of a snapshot's summary.
pub(super) fn without_vectors(record: &mut Record) {
    VECTORS.iter().for_each(|entry| {
        record.snapshot.summary.remove(*entry);
    });
}
