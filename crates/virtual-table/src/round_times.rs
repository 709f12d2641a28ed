//! Round times before the first tick, by the records' own timestamps: how far each partition reached is asked of
//! the brokers once, in the background, and then offered as a snapshot that stays as it is.
//!
//! All its records are older than its time; one that is older too may be missing, where clocks went astray.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use isk_kafka::TopicDescription;
use isk_model::{KafkaPartition, Offset, PartitionOffsets, TopicName};

use crate::api::ServiceError;
use crate::lineage::Ends;
use crate::plan::View;
use crate::service::Service;
use crate::tick::now_ms;
use crate::topics::kafka_error;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// How often it is looked for topics that were loaded, and for the round times of one of them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const TOPIC_EVERY: Duration = Duration::from_secs(300);

/// Topics of more partitions have no round times: each is a snapshot of its own with a file by partition.
const MOST_PARTITIONS: usize = 128;

/// Round times that one plan offers: a load may wait for it.
const AT_ONCE: usize = 4;

/// Which round times are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTimes {
    /// So many starts of hours back from now (UTC).
    pub hours: u32,
    /// So many starts of days back from now (UTC).
    pub days: u32,
}

impl RoundTimes {
    /// The round times back from now, ascending: milliseconds since the epoch.
    pub(crate) fn wanted(self, now_ms: i64) -> Vec<i64> {
        let back = |step: i64, count: u32| {
            (0..i64::from(count)).map(move |n| (now_ms.div_euclid(step) - n) * step)
        };
        let mut all: Vec<i64> = back(HOUR, self.hours).chain(back(DAY, self.days)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether one that was offered is still wanted.
    pub(crate) fn keeps(self, time_ms: i64, now_ms: i64) -> bool {
        let within = |step: i64, count: u32| {
            let steps = now_ms.div_euclid(step) - time_ms.div_euclid(step);
            time_ms % step == 0 && steps < i64::from(count)
        };
        within(HOUR, self.hours) || within(DAY, self.days)
    }
}

/// The topics whose tables were loaded, and when their round times were last looked for.
#[derive(Default)]
pub(crate) struct LoadedTopics(Mutex<HashMap<TopicName, Option<Instant>>>);

impl LoadedTopics {
    /// Takes note that a topic was loaded.
    pub(crate) fn loaded(&self, topic: &TopicName) {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !topics.contains_key(topic) {
            topics.insert(topic.clone(), None);
        }
    }

    /// The topics to look at now. They are forgotten until they are loaded again, or their time has come.
    fn due(&self) -> Vec<TopicName> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody has loaded it since it was looked at: the next load brings it back.
        topics.retain(|_, looked| looked.is_none_or(|looked| looked.elapsed() < TOPIC_EVERY));
        let new = topics.iter_mut().filter(|(_, looked)| looked.is_none());
        new.map(|(topic, looked)| {
            *looked = Some(Instant::now());
            topic.clone()
        })
        .collect()
    }
}

impl Service {
    /// Offers round times of the topics that are loaded, until the task is dropped.
    pub async fn offer_round_times_forever(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for topic in self.loaded_topics.due() {
                if let Err(error) = self.offer_round_times(&topic).await {
                    tracing::debug!(%topic, %error, "round times cannot be offered now");
                }
            }
        }
    }

    async fn offer_round_times(&self, topic: &TopicName) -> Result<(), ServiceError> {
        let described = self.topics.get(topic.as_str()).await?;
        if described.partitions.len() > MOST_PARTITIONS {
            return Ok(());
        }
        let missing = {
            let history = self.histories.lock(&described).await?;
            history.as_ref().map(|known| known.missing_rounds(now_ms())).unwrap_or_default()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let rounds = self.ends_at(&described, &missing).await?;
        for some in rounds.chunks(AT_ONCE) {
            let some = some.iter().cloned().collect();
            self.tick_with(View::Hot, topic.as_str(), some).await?;
        }
        Ok(())
    }

    /// How far the partitions of a topic reached at these times, ascending, where that is known: the first
    /// offset of each whose timestamp is at or after the time.
    async fn ends_at(
        &self,
        topic: &TopicDescription,
        times: &[i64],
    ) -> Result<Vec<(i64, Ends)>, ServiceError> {
        let offsets = self.offsets(topic).await?;
        let partitions: Vec<KafkaPartition> = offsets.keys().copied().collect();
        let asked: Vec<(KafkaPartition, i64)> =
            times.iter().flat_map(|&time| partitions.iter().map(move |&p| (p, time))).collect();
        let (firsts, latest) = tokio::try_join!(
            self.kafka.first_offsets_at(&topic.name, &asked),
            self.kafka.max_timestamps(&topic.name, &partitions),
        )
        .map_err(|e| kafka_error(&e))?;
        // Of a tiered topic the broker names the latest of those on its own disk: later ones may lie elsewhere.
        let tiered = self.topics.settings(&topic.name).await.tiered;
        let latest = if tiered { BTreeMap::new() } else { latest };
        let answers =
            asked.chunks(partitions.len().max(1)).zip(firsts.chunks(partitions.len().max(1)));
        let mut rounds: Vec<(i64, Ends)> = Vec::new();
        for (asked, firsts) in answers {
            let Some(&(_, time)) = asked.first() else { continue };
            let answered: BTreeMap<_, _> = asked
                .iter()
                .zip(firsts)
                .map(|((partition, _), first)| (*partition, *first))
                .collect();
            let Some(ends) = ends(time, &offsets, &answered, &latest) else { continue };
            let some =
                ends.iter().any(|(p, &end)| offsets.get(p).is_some_and(|o| o.log_start < end));
            if some && rounds.last().is_none_or(|(_, before)| *before != ends) {
                rounds.push((time, ends));
            }
        }
        Ok(rounds)
    }
}

/// How far partitions reached at a time. A broker has no answer where all records are older, and also where it
/// cannot say: only the time of the latest record tells the two apart.
fn ends(
    time: i64,
    offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    firsts: &BTreeMap<KafkaPartition, Option<Offset>>,
    latest: &BTreeMap<KafkaPartition, Option<(Offset, i64)>>,
) -> Option<Ends> {
    let end = |(&partition, log): (&KafkaPartition, &PartitionOffsets)| {
        let first = firsts.get(&partition).copied().flatten();
        let end = match first {
            Some(first) => first.clamp(log.log_start, log.last_stable),
            None if log.readable().is_none() => log.last_stable,
            None => {
                let (_, latest) = (*latest.get(&partition)?)?;
                (latest < time).then_some(log.last_stable)?
            }
        };
        Some((partition, end))
    };
    offsets.iter().map(end).collect()
}

#[cfg(test)]
mod tests {
    use isk_model::LeaderEpoch;

    use super::*;

    #[test]
    fn round_times_are_starts_of_hours_and_days() {
        let rounds = RoundTimes { hours: 3, days: 2 };
        let now = 20 * DAY + 90 * 60_000;
        assert_eq!(rounds.wanted(now), [19 * DAY, 20 * DAY - HOUR, 20 * DAY, 20 * DAY + HOUR]);
        assert!(rounds.wanted(now).iter().all(|&time| rounds.keeps(time, now)));
        assert!(!rounds.keeps(20 * DAY - 2 * HOUR, now) && !rounds.keeps(18 * DAY, now));
        assert!(!rounds.keeps(20 * DAY + 1, now));
        assert!(RoundTimes { hours: 0, days: 0 }.wanted(now).is_empty());
    }

    #[test]
    fn no_answer_is_the_end_only_where_all_records_are_older() {
        let p = KafkaPartition(0);
        let log = |start, end| PartitionOffsets {
            log_start: Offset(start),
            last_stable: Offset(end),
            leader_epoch: LeaderEpoch(0),
        };
        let of = |first: Option<i64>, latest: Option<i64>, log| {
            let firsts = BTreeMap::from([(p, first.map(Offset))]);
            let latest = BTreeMap::from([(p, latest.map(|time| (Offset(9), time)))]);
            ends(100, &BTreeMap::from([(p, log)]), &firsts, &latest).map(|ends| ends[&p].0)
        };
        assert_eq!(of(Some(7), Some(200), log(0, 10)), Some(7));
        assert_eq!(of(Some(7), Some(200), log(8, 10)), Some(8), "it has expired since");
        assert_eq!(of(None, Some(99), log(0, 10)), Some(10));
        assert_eq!(of(None, Some(100), log(0, 10)), None, "a broker that cannot say");
        assert_eq!(of(None, None, log(0, 10)), None);
        assert_eq!(of(None, None, log(10, 10)), Some(10), "an empty partition");
    }
}
