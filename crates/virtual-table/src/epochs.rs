//! Which leader epoch a range of offsets is named under.
//!
//! A failover raises the partition's epoch but changes no record below the offsets seen before, so
//! their files keep their names. Offsets at or past what had been seen belong to the new epoch. Where
//! an unclean election cut the log back, the cut offsets get the new epoch too, and with it new names:
//! how far the new leader's log is the old one is found out by reading (`failover.rs`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use isk_kafka::TopicDescription;
use isk_model::{
    KafkaPartition, LeaderEpoch, Offset, OffsetRange, PartitionOffsets, TopicId, TopicName,
};
use serde::{Deserialize, Serialize};

use crate::api::ServiceError;
use crate::store::{Kind, Store};

/// The epochs of one partition as this service has seen them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochHistory {
    /// `(first offset, epoch)`, both growing.
    starts: Vec<(i64, i32)>,
    /// The last stable offset at the last look. Not kept across restarts: one that is too low
    /// only renames files.
    #[serde(skip)]
    seen_end: i64,
}

impl EpochHistory {
    /// Takes note of the partition's epoch and end, and of the offset up to which the log is still the one
    /// that was seen. Returns whether there is something new to keep.
    pub(crate) fn observe(
        &mut self,
        epoch: LeaderEpoch,
        end: Offset,
        same: Option<Offset>,
    ) -> bool {
        let known = self.starts.last().map(|&(_, e)| e);
        let changed = known.is_none_or(|known| epoch.0 > known);
        if changed {
            let seen = self.seen_end.min(end.0);
            let same = same.map_or(seen, |same| same.0.min(seen));
            self.rewritten_from(Offset(if known.is_none() { 0 } else { same }), epoch);
        }
        self.seen_end = end.0;
        changed
    }

    /// Where the leader has changed: the epoch that was known, and what had been seen of what is there now.
    pub(crate) fn seen_before(&self, now: &PartitionOffsets) -> Option<(LeaderEpoch, OffsetRange)> {
        let &(_, known) = self.starts.last()?;
        let end = Offset(self.seen_end.min(now.last_stable.0));
        let seen = OffsetRange::new(now.log_start, end)?;
        (known >= 0 && now.leader_epoch.0 > known).then_some((LeaderEpoch(known), seen))
    }

    /// All offsets from `from` on were written, or written again, under `epoch` or later.
    pub(crate) fn rewritten_from(&mut self, from: Offset, epoch: LeaderEpoch) {
        self.starts.retain(|&(start, _)| start < from.0);
        self.starts.push((from.0, epoch.0));
    }

    /// All that names the epochs of files that end at or before `end`.
    pub(crate) fn below(&self, end: Offset) -> impl Iterator<Item = (i64, i32)> + '_ {
        self.starts.iter().copied().filter(move |&(start, _)| start < end.0)
    }

    /// The epoch that a file ending before `end` is named under.
    pub(crate) fn at_end(&self, end: Offset) -> LeaderEpoch {
        let below = self.starts.iter().rev().find(|&&(start, _)| start < end.0);
        LeaderEpoch(below.map_or(-1, |&(_, epoch)| epoch))
    }
}

/// One topic's histories by partition: what is kept in the store.
pub(crate) type TopicEpochs = BTreeMap<KafkaPartition, EpochHistory>;

/// The epoch histories of all topics.
pub(crate) struct Epochs {
    store: Arc<Store>,
    topics: Mutex<HashMap<(TopicName, TopicId), TopicEpochs>>,
}

impl Epochs {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store, topics: Mutex::default() }
    }

    /// The partitions whose leader has changed, as [`EpochHistory::seen_before`] says of each.
    pub(crate) fn failed_over(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<Vec<(KafkaPartition, LeaderEpoch, OffsetRange)>, ServiceError> {
        let histories = self.change(topic, |_| false)?;
        let seen = |(&partition, now): (&KafkaPartition, &PartitionOffsets)| {
            let (known, seen) = histories.get(&partition)?.seen_before(now)?;
            Some((partition, known, seen))
        };
        Ok(offsets.iter().filter_map(seen).collect())
    }

    /// Takes note of the partitions' epochs and ends, and returns the topic's histories. `same` says up to
    /// where the logs of new leaders are those that were seen.
    pub(crate) fn observe(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
        same: &BTreeMap<KafkaPartition, Offset>,
    ) -> Result<TopicEpochs, ServiceError> {
        self.change(topic, |histories| {
            let mut changed = false;
            for (&partition, now) in offsets {
                let history = histories.entry(partition).or_default();
                let same = same.get(&partition).copied();
                changed |= history.observe(now.leader_epoch, now.last_stable, same);
            }
            changed
        })
    }

    /// How far the partition's log reached when it was last looked at since the start.
    pub(crate) fn seen_end(
        &self,
        topic: &TopicDescription,
        partition: KafkaPartition,
    ) -> Option<Offset> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let history = topics.get(&(topic.name.clone(), topic.id))?.get(&partition)?;
        Some(Offset(history.seen_end))
    }

    /// A file that begins at `from` could not be made as it was planned: what is there now was
    /// written under the partition's present epoch.
    pub(crate) fn rewritten(
        &self,
        topic: &TopicDescription,
        partition: KafkaPartition,
        from: Offset,
    ) -> Result<(), ServiceError> {
        let change = |histories: &mut TopicEpochs| match histories.get_mut(&partition) {
            Some(history) => {
                let present = history.at_end(Offset(i64::MAX));
                history.rewritten_from(from, present);
                true
            }
            None => false,
        };
        self.change(topic, change).map(|_| ())
    }

    fn change(
        &self,
        topic: &TopicDescription,
        change: impl FnOnce(&mut TopicEpochs) -> bool,
    ) -> Result<TopicEpochs, ServiceError> {
        let key = format!("{}/{}", topic.name, topic.id);
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let histories = topics.entry((topic.name.clone(), topic.id)).or_insert_with(|| {
            // Histories that cannot be read only rename files.
            let kept: Option<Vec<(i32, EpochHistory)>> =
                self.store.get(Kind::Epochs, &key).ok().flatten();
            kept.unwrap_or_default().into_iter().map(|(p, h)| (KafkaPartition(p), h)).collect()
        });
        if change(histories) {
            let kept: Vec<(i32, &EpochHistory)> = histories.iter().map(|(p, h)| (p.0, h)).collect();
            self.store.put_soon(Kind::Epochs, &key, &kept)?;
        }
        Ok(histories.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(looks: &[(i32, i64)]) -> EpochHistory {
        let mut h = EpochHistory::default();
        for &(epoch, end) in looks {
            h.observe(LeaderEpoch(epoch), Offset(end), None);
        }
        h
    }

    #[test]
    fn a_clean_failover_renames_nothing_that_was_seen() {
        let h = history(&[(3, 100), (4, 150)]);
        assert_eq!(h.at_end(Offset(100)), LeaderEpoch(3));
        assert_eq!(h.at_end(Offset(101)), LeaderEpoch(4));
    }

    #[test]
    fn a_log_cut_back_renames_what_was_cut() {
        let h = history(&[(3, 100), (4, 60), (4, 120)]);
        assert_eq!(h.at_end(Offset(60)), LeaderEpoch(3));
        assert_eq!(h.at_end(Offset(61)), LeaderEpoch(4));
    }

    #[test]
    fn a_log_cut_back_that_has_grown_past_its_old_end_renames_what_was_cut() {
        let mut h = history(&[(3, 100)]);
        let now = |start, end, epoch| PartitionOffsets {
            log_start: Offset(start),
            last_stable: Offset(end),
            leader_epoch: LeaderEpoch(epoch),
        };
        assert_eq!(h.seen_before(&now(0, 120, 3)), None);
        assert_eq!(h.seen_before(&now(100, 120, 4)), None);
        let (known, seen) = h.seen_before(&now(10, 120, 4)).unwrap();
        assert_eq!((known, seen.start(), seen.end()), (LeaderEpoch(3), Offset(10), Offset(100)));
        h.observe(LeaderEpoch(4), Offset(120), Some(Offset(60)));
        assert_eq!(h.at_end(Offset(60)), LeaderEpoch(3));
        assert_eq!(h.at_end(Offset(61)), LeaderEpoch(4));
        assert_eq!(h.seen_before(&now(10, 120, 4)), None);
    }

    #[test]
    fn a_record_of_a_later_epoch_renames_its_range() {
        let mut h = history(&[(3, 100), (5, 100)]);
        h.rewritten_from(Offset(40), LeaderEpoch(5));
        assert_eq!(h.at_end(Offset(40)), LeaderEpoch(3));
        assert_eq!(h.at_end(Offset(90)), LeaderEpoch(5));
    }

    #[test]
    fn brokers_without_epochs_have_one_name() {
        let h = history(&[(-1, 10), (-1, 20)]);
        assert_eq!(h.at_end(Offset(20)), LeaderEpoch(-1));
    }
}
