//! Offsets by time: where in a log records of a time begin, and how late its latest record is.

use std::collections::{BTreeMap, HashMap};

use futures::stream::{self, StreamExt, TryStreamExt};
use isk_model::{KafkaPartition, Offset, TopicName};

use crate::cluster::KafkaCluster;
use crate::error::KafkaError;
use crate::ffi::ListedOffset;
use crate::offsets::Asking;

/// ListOffsets' wire value for the record with the greatest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;

/// Questions of one topic that are on their way at the same time.
const CONCURRENT: usize = 16;

impl KafkaCluster {
    /// For each partition the first offset whose timestamp is at or after the one given
    /// (milliseconds since the epoch), or `None` where there is none or the broker cannot say: that
    /// is no bound.
    ///
    /// # Errors
    /// As [`Self::offsets`].
    pub async fn offsets_for_times(
        &self,
        topic: &TopicName,
        times_ms: &[(KafkaPartition, i64)],
    ) -> Result<BTreeMap<KafkaPartition, Option<Offset>>, KafkaError> {
        let specs = times_ms.iter().map(|(p, ms)| (p.0, on_the_wire(*ms)));
        let found = self.list_offsets(topic, specs, Asking::COMMITTED).await?;
        Ok(found.into_iter().map(|(partition, listed)| (partition, offset_of(&listed))).collect())
    }

    /// As [`Self::offsets_for_times`] for many times of each partition: as many requests per leader
    /// as the partition with the most times has, sent together. Answers stand in the order of the
    /// questions. A partition that fails has no answer; the others have theirs.
    ///
    /// # Errors
    /// [`KafkaError::NoSuchTopic`] when the topic does not exist; see [`KafkaError`].
    pub async fn first_offsets_at(
        &self,
        topic: &TopicName,
        asked: &[(KafkaPartition, i64)],
    ) -> Result<Vec<Option<Offset>>, KafkaError> {
        // A request names each partition once.
        let mut layers: Vec<Vec<usize>> = Vec::new();
        let mut depth: HashMap<KafkaPartition, usize> = HashMap::new();
        for (at, (partition, _)) in asked.iter().enumerate() {
            let depth = depth.entry(*partition).or_default();
            match layers.get_mut(*depth) {
                Some(layer) => layer.push(at),
                None => layers.push(vec![at]),
            }
            *depth += 1;
        }
        let questions = layers.into_iter().map(|layer| async move {
            let of_layer = layer.iter().filter_map(|&at| asked.get(at));
            let specs = of_layer.map(|(p, ms)| (p.0, on_the_wire(*ms)));
            let found = self.list_offsets(topic, specs, Asking::LENIENT).await?;
            Ok::<_, KafkaError>((layer, found))
        });
        let mut answers = vec![None; asked.len()];
        let mut layers = stream::iter(questions).buffer_unordered(CONCURRENT);
        while let Some((layer, found)) = layers.try_next().await? {
            for at in layer {
                let answer = asked.get(at).and_then(|(partition, _)| found.get(partition));
                if let Some(place) = answers.get_mut(at) {
                    *place = answer.and_then(offset_of);
                }
            }
        }
        Ok(answers)
    }

    /// For each partition the offset and the timestamp (milliseconds since the epoch) of the record
    /// with the greatest timestamp (KIP-734), or `None` for an empty partition, and for one that
    /// fails.
    ///
    /// # Errors
    /// As [`Self::offsets`]; brokers before 3.0 answer [`KafkaError::Broker`].
    pub async fn max_timestamps(
        &self,
        topic: &TopicName,
        partitions: &[KafkaPartition],
    ) -> Result<BTreeMap<KafkaPartition, Option<(Offset, i64)>>, KafkaError> {
        let specs = partitions.iter().map(|p| (p.0, MAX_TIMESTAMP));
        let found = self.list_offsets(topic, specs, Asking::LENIENT).await?;
        Ok(found
            .into_iter()
            .map(|(partition, listed)| {
                let latest = offset_of(&listed).filter(|_| listed.timestamp_ms >= 0);
                (partition, latest.map(|offset| (offset, listed.timestamp_ms)))
            })
            .collect())
    }
}

/// Negative numbers mean something else on the wire; no record is older than 0 for Kafka.
fn on_the_wire(ms: i64) -> i64 {
    ms.max(0)
}

fn offset_of(listed: &ListedOffset) -> Option<Offset> {
    (listed.error == 0 && listed.offset >= 0).then_some(Offset(listed.offset))
}
