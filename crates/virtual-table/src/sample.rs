//! The sample that a topic's pin is made of: the last records of a few partitions, read once. It is taken before
//! anybody asks for the table, so that planning reads no record; a plan that comes first takes it itself.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use isk_kafka::{FetchLimits, TopicDescription};
use isk_model::{KafkaPartition, Offset, OffsetRange, PartitionOffsets, TopicName, TopicPartition};

use crate::api::ServiceError;
use crate::service::Service;
use crate::store::Kind;
use crate::topic_pin::TopicPin;

/// How many offsets at a partition's end are sampled: few where they hold bytes enough, else many.
const SAMPLE_OFFSETS: [i64; 2] = [16, 128];

/// Large records need not be many.
const ENOUGH_BYTES: u64 = 64 << 10;

/// From how many partitions a sample is taken.
const SAMPLE_PARTITIONS: usize = 3;

/// The pause between two looks for topics that were never sampled, and its least length in looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_SELDOM: u32 = 20;

/// The pause between two looks for records of a topic whose schema was found in its records.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);

impl Service {
    /// Samples topics that nobody has asked for yet, one after the other, until the task is dropped.
    pub async fn sample_ahead_forever(&self) {
        if !(self.prover.config.enabled && self.prover.config.sample_ahead) {
            return;
        }
        let mut sampled = HashSet::new();
        loop {
            let begun = Instant::now();
            // Nothing is known of topics while the brokers are away.
            let topics = self.topics.names().await.unwrap_or_default();
            sampled.retain(|topic| topics.contains(topic));
            for topic in topics {
                if sampled.contains(&topic) {
                    if let Err(error) = self.discover_again(&topic).await {
                        tracing::debug!(%topic, %error, "cannot be looked at again");
                    }
                    continue;
                }
                match self.sample_ahead(&topic).await {
                    Ok(false) => {}
                    Ok(true) => {
                        sampled.insert(topic);
                    }
                    Err(error) => tracing::debug!(%topic, %error, "cannot be sampled ahead"),
                }
            }
            let store = Arc::clone(&self.store);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.settle()).await {
                tracing::warn!(%error, "what was sampled is not kept");
            }
            tokio::time::sleep(LOOK_EVERY.max(begun.elapsed() * LOOK_SELDOM)).await;
        }
    }

    /// Pins a topic, if it has records. Returns whether it is pinned.
    async fn sample_ahead(&self, topic: &TopicName) -> Result<bool, ServiceError> {
        let topic = self.topics.get(topic.as_str()).await?;
        if self.pinned(&topic).is_none() {
            let offsets = self.offsets(&topic).await?;
            self.pin(&topic, &offsets).await?;
        }
        let pinned = self.pinned(&topic).is_some();
        if pinned {
            self.discover_more(&topic).await?;
        }
        Ok(pinned)
    }

    /// Looks at a topic that was sampled before, should its schema have been found in its records.
    async fn discover_again(&self, topic: &TopicName) -> Result<(), ServiceError> {
        if !self.schemas.discovery.serves(topic) {
            return Ok(());
        }
        let topic = self.topics.get(topic.as_str()).await?;
        if !self.schemas.discovery.may_look(&topic.name, topic.id, DISCOVER_EVERY)? {
            return Ok(());
        }
        self.discover_more(&topic).await
    }

    /// The topic's pin; sampled from a few records when the topic is first seen with some.
    pub(crate) async fn pin(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<TopicPin, ServiceError> {
        let key = pin_key(topic);
        if let Some(pin) = self.pins.get(&key) {
            return Ok(pin);
        }
        let kept = match self.store.get::<TopicPin>(Kind::TopicPin, &key)? {
            Some(pin) => Some(pin),
            None => self.sample(topic, offsets).await?,
        };
        let Some(pin) = kept else { return Ok(TopicPin::guess()) };
        // Of those who sample at the same time, the first is right.
        let pin = self.pins.get_with(key.clone(), || pin);
        // One that is not kept would be another one after a restart.
        let kept = self.store.put_soon(Kind::TopicPin, &key, &pin);
        kept.inspect_err(|_| self.pins.invalidate(&key))?;
        Ok(pin)
    }

    /// Pins a topic.
    pub(crate) fn keep_pin(
        &self,
        topic: &TopicDescription,
        pin: TopicPin,
    ) -> Result<(), ServiceError> {
        let key = pin_key(topic);
        self.store.put_soon(Kind::TopicPin, &key, &pin)?;
        self.pins.insert(key, pin);
        Ok(())
    }

    /// The pin as it stands, if the topic has one.
    pub(crate) fn pinned(&self, topic: &TopicDescription) -> Option<TopicPin> {
        self.pins.get(&pin_key(topic))
    }

    /// Reads the last few records of the longest partitions. `None` when there are none.
    async fn sample(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<Option<TopicPin>, ServiceError> {
        let mut pin = None;
        for most in SAMPLE_OFFSETS {
            let (records, bytes) = self.tails(topic, offsets, most).await?;
            pin = (records > 0).then(|| TopicPin::new(bytes.div_ceil(records)));
            if bytes >= ENOUGH_BYTES {
                break;
            }
        }
        Ok(pin)
    }

    /// How many records the last `most` offsets of the longest partitions hold, and how many bytes.
    async fn tails(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
        most: i64,
    ) -> Result<(u64, u64), ServiceError> {
        let mut longest: Vec<(KafkaPartition, OffsetRange)> =
            offsets.iter().filter_map(|(&p, o)| Some((p, o.readable()?))).collect();
        longest.sort_by_key(|(_, range)| std::cmp::Reverse(range.span()));
        let tails = longest.into_iter().take(SAMPLE_PARTITIONS).filter_map(|(partition, range)| {
            let start = Offset(range.start().0.max(range.end().0 - most));
            Some((partition, OffsetRange::new(start, range.end())?))
        });
        let sampled = tails.map(|(partition, tail)| async move {
            let tp = TopicPartition { topic: topic.name.clone(), partition };
            let mut blocks = self.kafka.fetch(&tp, tail, FetchLimits::default());
            let (mut records, mut bytes) = (0, 0);
            while let Some(block) = blocks.next().await {
                let block = block.map_err(|e| ServiceError::Unavailable {
                    what: "Kafka".into(),
                    reason: format!("sampling the size of records: {e}"),
                })?;
                records += block.len() as u64;
                bytes += block.payload_bytes() as u64;
            }
            Ok::<_, ServiceError>((records, bytes))
        });
        let sampled = try_join_all(sampled).await?;
        let records: u64 = sampled.iter().map(|(records, _)| records).sum();
        let bytes: u64 = sampled.iter().map(|(_, bytes)| bytes).sum();
        Ok((records, bytes))
    }
}

fn pin_key(topic: &TopicDescription) -> String {
    format!("{}/{}", topic.name, topic.id)
}
