//! How far partitions reach, as their leaders say.

use std::collections::BTreeMap;

use isk_model::{KafkaPartition, LeaderEpoch, Offset, PartitionOffsets, TopicName};

use crate::cluster::KafkaCluster;
use crate::error::KafkaError;
use crate::ffi::{Code, ListedOffset, code};
use crate::metrics::add;
use crate::topic::TopicDescription;

/// ListOffsets' wire values of what is asked.
const LOG_START: i64 = -2;
const LOG_END: i64 = -1;

/// How offsets are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    /// Whether records of open transactions are left out.
    committed: bool,
    /// Whether one partition's error fails the question, which is then asked again while leaders move.
    strict: bool,
}

impl Asking {
    /// Committed records; every partition must answer.
    pub(crate) const COMMITTED: Self = Self { committed: true, strict: true };
    /// All records; every partition must answer.
    pub(crate) const UNCOMMITTED: Self = Self { committed: false, strict: true };
    /// Committed records; partitions that fail answer with their error.
    pub(crate) const LENIENT: Self = Self { committed: true, strict: false };
}

impl KafkaCluster {
    /// The log start and the last stable offset of the partitions named: two requests per leader,
    /// however many partitions. The two are not read at one instant.
    ///
    /// # Errors
    /// [`KafkaError::NoSuchTopic`] when the topic or one of the partitions does not exist; see
    /// [`KafkaError`].
    pub async fn offsets(
        &self,
        topic: &TopicName,
        partitions: &[KafkaPartition],
    ) -> Result<BTreeMap<KafkaPartition, PartitionOffsets>, KafkaError> {
        let ask = |what| {
            let specs = partitions.iter().map(move |p| (p.0, what));
            self.list_offsets(topic, specs, Asking::COMMITTED)
        };
        let (ends, starts) = tokio::try_join!(ask(LOG_END), ask(LOG_START))?;
        // A log has a start and an end. While a broker goes away, librdkafka may answer without an
        // error and without an offset; an empty table must not come of that.
        let unknown = |listed: &&ListedOffset| listed.offset < 0;
        if ends.values().chain(starts.values()).find(unknown).is_some() {
            add(&self.metrics().admin_errors, 1);
            let failed = Code::new(code::TRANSPORT);
            let what = format!("the offsets of topic {topic}");
            return Err(self.error(what, &failed, self.config().request_timeout, Some(topic)));
        }
        Ok(ends
            .into_iter()
            .filter_map(|(partition, end)| {
                let start = starts.get(&partition)?;
                let offsets = PartitionOffsets {
                    log_start: Offset(start.offset),
                    // The end may have been read a moment before records were deleted up to a later
                    // one; it never lies before the start.
                    last_stable: Offset(end.offset.max(start.offset)),
                    leader_epoch: LeaderEpoch(end.leader_epoch),
                };
                Some((partition, offsets))
            })
            .collect())
    }

    /// The high watermarks of the partitions named: where their logs end, records of open
    /// transactions included.
    ///
    /// # Errors
    /// As [`Self::offsets`].
    pub async fn high_watermarks(
        &self,
        topic: &TopicName,
        partitions: &[KafkaPartition],
    ) -> Result<BTreeMap<KafkaPartition, Offset>, KafkaError> {
        let specs = partitions.iter().map(|p| (p.0, LOG_END));
        let ends = self.list_offsets(topic, specs, Asking::UNCOMMITTED).await?;
        let known = ends.into_iter().filter(|(_, end)| end.offset >= 0);
        Ok(known.map(|(partition, end)| (partition, Offset(end.offset))).collect())
    }

    pub(crate) async fn list_offsets(
        &self,
        topic: &TopicName,
        specs: impl Iterator<Item = (i32, i64)>,
        asking: Asking,
    ) -> Result<BTreeMap<KafkaPartition, ListedOffset>, KafkaError> {
        let specs: Vec<(i32, i64)> = specs.collect();
        if specs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let what = format!("the offsets of topic {topic}");
        let listed = self
            .ask(&what, Some(topic), |queue, timeout| {
                let (topic, specs) = (topic.clone(), specs.clone());
                async move {
                    let Asking { committed, strict } = asking;
                    let listed =
                        queue.list_offsets(topic.as_str(), &specs, committed, timeout).await?;
                    match listed.iter().find(|l| l.error != 0 && strict) {
                        None => Ok(listed),
                        Some(first) => Err(Code::new(first.error)),
                    }
                }
            })
            .await;
        match listed {
            Ok(listed) => {
                Ok(listed.into_iter().map(|l| (KafkaPartition(l.partition), l)).collect())
            }
            Err(error @ KafkaError::Leaderless { .. }) => {
                Err(self.why_leaderless(topic, &specs, error).await)
            }
            Err(error) => Err(error),
        }
    }

    /// The client finds no leader either where there is no such topic or partition, or where it may
    /// not look.
    async fn why_leaderless(
        &self,
        topic: &TopicName,
        specs: &[(i32, i64)],
        error: KafkaError,
    ) -> KafkaError {
        let all_in = |now: &TopicDescription| {
            specs.iter().all(|(p, _)| now.partitions.contains(&KafkaPartition(*p)))
        };
        match self.topic(topic).await {
            Ok(Some(now)) if all_in(&now) => error,
            Ok(_) => KafkaError::NoSuchTopic { topic: topic.clone() },
            Err(denied @ KafkaError::NotAuthorized { .. }) => denied,
            Err(_) => error,
        }
    }
}
