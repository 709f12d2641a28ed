//! Transactions that are left open: they hold back the last stable offset, and with it the table's end.
//!
//! What lies behind the start of an open transaction is written, but not yet to be read. A producer that
//! died leaves it so until the broker's time-out; a transaction that hangs, for ever.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use isk_kafka::{KafkaCluster, TopicDescription};
use isk_model::{KafkaPartition, Offset, PartitionOffsets, TopicId, TopicName};

use crate::metrics::Metrics;

/// How often a topic is looked at, while its table is loaded.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A last stable offset that was held back for so long is told of.
const HELD_FOR: Duration = Duration::from_secs(30);

/// What to do about it.
const REMEDY: &str = "a transaction is open: end or restart its producer; if it hangs, find it with \
                      kafka-transactions.sh find-hanging and abort it with kafka-transactions.sh abort";

/// A partition whose end is held back.
#[derive(Debug, Clone, Copy)]
struct Held {
    last_stable: Offset,
    since: Instant,
    told: bool,
}

#[derive(Default)]
struct Topic {
    looked: Option<Instant>,
    held: BTreeMap<KafkaPartition, Held>,
}

/// What is known of all topics. Clones share it.
#[derive(Clone)]
pub(crate) struct OpenTransactions {
    kafka: KafkaCluster,
    metrics: Arc<Metrics>,
    topics: moka::sync::Cache<(TopicName, TopicId), Arc<Mutex<Topic>>>,
}

impl OpenTransactions {
    pub(crate) fn new(kafka: KafkaCluster, metrics: Arc<Metrics>) -> Self {
        Self { kafka, metrics, topics: moka::sync::Cache::new(10_000) }
    }

    /// What a table says of its topic's open transactions: nothing, or where it is held back and what
    /// helps. Looks again in the background.
    pub(crate) fn observe(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Vec<(String, String)> {
        let state = self.topics.get_with((topic.name.clone(), topic.id), Arc::default);
        let mut known = lock(&state);
        if known.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            known.looked = Some(Instant::now());
            let (this, topic, state) = (self.clone(), topic.clone(), Arc::clone(&state));
            tokio::spawn(async move { this.look(&topic, &state).await });
        }
        let held = known.held.iter().filter(|(partition, held)| {
            let still = offsets.get(partition).map(|now| now.last_stable) == Some(held.last_stable);
            still && held.since.elapsed() >= HELD_FOR
        });
        let named: Vec<String> =
            held.map(|(partition, held)| format!("{partition}:{}", held.last_stable)).collect();
        if named.is_empty() {
            return Vec::new();
        }
        vec![
            ("isk.held-back".to_owned(), named.join(",")),
            ("isk.held-back.remedy".to_owned(), REMEDY.to_owned()),
        ]
    }

    /// Takes note of where the last stable offset lies behind the high watermark. The watermark is asked
    /// for first, so that records that arrive in between are not taken for held back.
    async fn look(&self, topic: &TopicDescription, state: &Mutex<Topic>) {
        let asked = async {
            let written = self.kafka.high_watermarks(&topic.name, &topic.partitions).await?;
            let offsets = self.kafka.offsets(&topic.name, &topic.partitions).await?;
            Ok::<_, isk_kafka::KafkaError>((written, offsets))
        };
        let (written, offsets) = match asked.await {
            Ok(asked) => asked,
            Err(error) => {
                tracing::debug!(topic = %topic.name, %error, "the high watermarks are not known");
                return;
            }
        };
        let mut known = lock(state);
        let mut behind = 0;
        for (partition, now) in offsets {
            let end = written.get(&partition).map_or(0, |end| end.0);
            let offsets = u64::try_from(end - now.last_stable.0).unwrap_or(0);
            behind += offsets;
            known.note(&topic.name, partition, now.last_stable, offsets);
        }
        self.metrics.set_behind_transactions(topic.name.as_str(), behind);
    }
}

impl Topic {
    fn note(&mut self, topic: &TopicName, partition: KafkaPartition, at: Offset, behind: u64) {
        if behind == 0 {
            self.held.remove(&partition);
            return;
        }
        let begins = Held { last_stable: at, since: Instant::now(), told: false };
        let held = self.held.entry(partition).or_insert(begins);
        if held.last_stable != at {
            *held = begins;
        }
        if held.since.elapsed() >= HELD_FOR && !held.told {
            held.told = true;
            tracing::warn!(
                %topic, %partition, last_stable_offset = %at, behind,
                "records are written but cannot be read: {REMEDY}"
            );
        }
    }
}

fn lock(topic: &Mutex<Topic>) -> MutexGuard<'_, Topic> {
    topic.lock().unwrap_or_else(PoisonError::into_inner)
}
