//! The ends of followed partitions: how far they are proven, and where they are cut.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isk_kafka::TopicDescription;
use isk_model::{KafkaPartition, Offset, OffsetRange, PartitionOffsets, TopicId, TopicName};

use crate::api::ServiceError;
use crate::facts::FactBook;
use crate::look::Look;
use crate::store::{Kind, Store};
use crate::tail::{Cuts, to_join, to_prove};

/// The end of one partition.
#[derive(Debug, Default)]
struct Tip {
    cuts: Cuts,
    /// Up to where the partition was proven, and when that was its end.
    proven: Option<(Offset, Instant)>,
    /// The furthest end that was shown to anybody: no later table ends before it.
    shown: Option<Offset>,
}

type Place = (TopicName, TopicId);

/// All followed partitions. The cuts are kept across restarts, by topic id and partition. Under which
/// leader epoch a piece was written is part of its recipe: pieces of a log that was written anew are not
/// proven, and what is not proven is encoded again.
pub(crate) struct Tips {
    store: Arc<Store>,
    /// How old an end may be to be shown as the partition's.
    fresh: Duration,
    topics: Mutex<HashMap<Place, BTreeMap<KafkaPartition, Tip>>>,
}

impl Tips {
    pub(crate) fn new(store: Arc<Store>, fresh: Duration) -> Self {
        Self { store, fresh, topics: Mutex::default() }
    }

    /// The cuts of a followed topic's partitions, and with them the ends to be shown: where a partition
    /// was proven to its end a moment ago, that end. Else the end stays as it is, and what lies behind
    /// the last cut is a piece that is not proven.
    pub(crate) fn show(
        &self,
        topic: &TopicDescription,
        offsets: &mut BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> BTreeMap<KafkaPartition, Cuts> {
        let mut topics = self.lock();
        let Some(tips) = topics.get_mut(&place(topic)) else { return BTreeMap::new() };
        let mut cuts = BTreeMap::new();
        for (partition, tip) in tips {
            let Some(log) = offsets.get_mut(partition) else { continue };
            if let Some((end, at)) = tip.proven
                && at.elapsed() < self.fresh
                && tip.shown.is_none_or(|shown| shown <= end)
                && log.log_start < end
                && end < log.last_stable
            {
                log.last_stable = end;
            }
            tip.shown = tip.shown.max(Some(log.last_stable));
            let mut shown = tip.cuts.clone();
            if let Some(readable) = log.readable() {
                shown.keep_within(readable);
                cuts.insert(*partition, shown);
            }
        }
        cuts
    }

    /// What has to be encoded so that all partitions are proven to the ends of this look.
    pub(crate) fn to_prove(
        &self,
        look: &Look,
        facts: &FactBook,
    ) -> Result<Vec<(KafkaPartition, Vec<OffsetRange>)>, ServiceError> {
        let mut topics = self.lock();
        let tips = match topics.entry(place(&look.topic)) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(kept(&self.store, &look.topic)?)
            }
        };
        let mut todo = Vec::new();
        for (&partition, log) in &look.offsets {
            let tip = tips.entry(partition).or_default();
            let is_proven = |range| look.is_proven(facts, partition, range);
            let ranges = match log.readable() {
                Some(readable) => to_prove(&mut tip.cuts, readable, look.k, is_proven),
                None => Vec::new(),
            };
            todo.push((partition, ranges));
        }
        Ok(todo)
    }

    /// A partition has been proven to the end of this look, these ranges last.
    pub(crate) fn proven(
        &self,
        look: &Look,
        partition: KafkaPartition,
        ranges: &[OffsetRange],
    ) -> Result<(), ServiceError> {
        let mut topics = self.lock();
        let Some(tips) = topics.get_mut(&place(&look.topic)) else { return Ok(()) };
        let Some(log) = look.offsets.get(&partition) else { return Ok(()) };
        let tip = tips.entry(partition).or_default();
        let mut changed = false;
        for range in ranges {
            // Chunks are cut at their borders anyway.
            if range.end() != look.k.align(range.end()) {
                changed |= tip.cuts.add(range.end());
            }
        }
        tip.proven = Some((log.last_stable, look.at));
        let cuts = changed.then(|| tip.cuts.clone());
        drop(topics);
        self.keep(&look.topic, partition, cuts)
    }

    /// The pieces that are to be encoded as one next.
    pub(crate) fn to_join(&self, look: &Look) -> Option<(KafkaPartition, OffsetRange)> {
        let topics = self.lock();
        topics.get(&place(&look.topic))?.iter().find_map(|(&partition, tip)| {
            let log = look.offsets.get(&partition)?;
            let (end, _) = tip.proven?;
            let proven = OffsetRange::new(log.log_start, end)?;
            Some((partition, to_join(&tip.cuts, proven, look.k)?))
        })
    }

    /// These pieces were encoded as one.
    pub(crate) fn joined(
        &self,
        topic: &TopicDescription,
        partition: KafkaPartition,
        range: OffsetRange,
    ) -> Result<(), ServiceError> {
        let mut topics = self.lock();
        let tip = topics.get_mut(&place(topic)).and_then(|tips| tips.get_mut(&partition));
        let Some(tip) = tip else { return Ok(()) };
        let cuts = tip.cuts.join(range).then(|| tip.cuts.clone());
        drop(topics);
        self.keep(topic, partition, cuts)
    }

    /// How old the end is that was proven longest ago, of all partitions followed.
    pub(crate) fn age(&self) -> Duration {
        let topics = self.lock();
        let ages = topics.values().flat_map(BTreeMap::values);
        ages.filter_map(|tip| Some(tip.proven?.1.elapsed())).max().unwrap_or_default()
    }

    /// Follows a topic no more.
    pub(crate) fn forget(&self, topic: &TopicDescription) {
        self.lock().remove(&place(topic));
    }

    /// Keeps cuts that have changed. Every load looks at the tips, so none waits for this: it may come late, or behind
    /// what changed later. Cuts that are lost cost no more than an encoding.
    fn keep(
        &self,
        topic: &TopicDescription,
        partition: KafkaPartition,
        cuts: Option<Cuts>,
    ) -> Result<(), ServiceError> {
        let Some(cuts) = cuts else { return Ok(()) };
        let ends: Vec<i64> = cuts.iter().map(|cut| cut.0).collect();
        self.store.put(Kind::Cuts, &format!("{}{}", prefix(topic), partition.0), &ends)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, BTreeMap<KafkaPartition, Tip>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(topic: &TopicDescription) -> Place {
    (topic.name.clone(), topic.id)
}

fn prefix(topic: &TopicDescription) -> String {
    format!("{}/{}/", topic.name, topic.id)
}

/// The cuts of an earlier run.
fn kept(
    store: &Store,
    topic: &TopicDescription,
) -> Result<BTreeMap<KafkaPartition, Tip>, ServiceError> {
    let prefix = prefix(topic);
    let mut tips = BTreeMap::new();
    for (key, ends) in store.scan::<Vec<i64>>(Kind::Cuts, &prefix)? {
        if let Some(partition) = key.strip_prefix(&prefix).and_then(|p| p.parse().ok()) {
            let cuts = ends.into_iter().map(Offset).collect();
            tips.insert(KafkaPartition(partition), Tip { cuts, ..Tip::default() });
        }
    }
    Ok(tips)
}
