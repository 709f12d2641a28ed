//! What the broker holds: topics, partitions, and the bound on all their bytes together.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use isk_model::TopicName;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::watch;
use uuid::Uuid;

use super::BrokerConfig;
use super::batch::{self, BatchError};
use super::group::Groups;
use super::log::PartitionLog;
use super::producers::{Producers, Verdict};
use super::topic_config::TopicConfig;

/// The id of this only broker.
pub(crate) const BROKER_ID: i32 = 1;
const MAX_TOPICS: usize = 10_000;
const MAX_PARTITIONS: i32 = 10_000;

/// A refusal in Kafka's terms: the code for the client, the text for people.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
    pub(crate) fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) log: PartitionLog,
    producers: Producers,
    /// The topic is gone; whoever still holds it may not append.
    deleted: bool,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: TopicName,
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    partitions: Vec<Mutex<Partition>>,
}

impl Topic {
    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    pub(crate) fn partition(&self, index: i32) -> Option<MutexGuard<'_, Partition>> {
        let partition = self.partitions.get(usize::try_from(index).ok()?)?;
        Some(lock(partition))
    }
}

/// Where an append landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    pub(crate) log_start: i64,
    /// The broker's time, for topics that use it; else -1.
    pub(crate) append_time: i64,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: BrokerConfig,
    pub(crate) addr: SocketAddr,
    pub(crate) cluster_id: String,
    pub(crate) groups: Groups,
    topics: RwLock<BTreeMap<TopicName, Arc<Topic>>>,
    total_bytes: AtomicUsize,
    next_producer_id: AtomicI64,
    /// Ticks at every append; waiting fetches look again.
    appended: watch::Sender<u64>,
}

/// A poisoned lock is taken all the same: every change under these locks is complete or not begun.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Broker {
    pub(crate) fn new(config: BrokerConfig, addr: SocketAddr) -> Self {
        Self {
            config,
            addr,
            cluster_id: Uuid::new_v4().simple().to_string(),
            groups: Groups::default(),
            topics: RwLock::default(),
            total_bytes: AtomicUsize::new(0),
            next_producer_id: AtomicI64::new(1),
            appended: watch::Sender::new(0),
        }
    }

    /// The host and port clients are sent to.
    pub(crate) fn advertised(&self) -> (StrBytes, i32) {
        let host = match &self.config.advertised_host {
            Some(host) => host.clone(),
            None => self.addr.ip().to_string(),
        };
        (StrBytes::from_string(host), i32::from(self.addr.port()))
    }

    pub(crate) fn new_producer_id(&self) -> i64 {
        self.next_producer_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn subscribe_appends(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    pub(crate) fn topics(&self) -> Vec<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let name = TopicName::new(name).ok()?;
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.topics().into_iter().find(|t| t.id == id)
    }

    /// Creates a topic; -1 partitions is the default number. `dry_run` checks only.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[(String, String)],
        dry_run: bool,
    ) -> Result<Arc<Topic>, Refusal> {
        let name = TopicName::new(name)
            .map_err(|e| Refusal::new(ResponseError::InvalidTopicException, e.to_string()))?;
        let count = if partitions == -1 { self.config.default_partitions } else { partitions };
        if !(1..=MAX_PARTITIONS).contains(&count) {
            let text = format!("{count} partitions; 1 to {MAX_PARTITIONS} are possible");
            return Err(Refusal::new(ResponseError::InvalidPartitions, text));
        }
        let config = TopicConfig::new(configs, self.config.max_message_bytes)
            .map_err(|text| Refusal::new(ResponseError::InvalidConfig, text))?;
        let limit = config.retention_bytes.unwrap_or(usize::MAX).min(self.config.partition_bytes);
        let new = || {
            let log = PartitionLog::new(limit);
            Mutex::new(Partition { log, producers: Producers::default(), deleted: false })
        };
        let partitions = (0..count).map(|_| new()).collect();
        let topic = Arc::new(Topic { name: name.clone(), id: Uuid::new_v4(), config, partitions });
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if topics.contains_key(&name) {
            let text = format!("topic {name} exists already");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, text));
        }
        if topics.len() >= MAX_TOPICS {
            let text = format!("there are {MAX_TOPICS} topics already");
            return Err(Refusal::new(ResponseError::PolicyViolation, text));
        }
        if !dry_run {
            topics.insert(name, topic.clone());
        }
        Ok(topic)
    }

    /// Removes a topic and answers it.
    pub(crate) fn delete_topic(&self, name: &TopicName) -> Option<Arc<Topic>> {
        let gone = self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name)?;
        for index in 0..gone.partition_count() {
            if let Some(mut partition) = gone.partition(index) {
                partition.deleted = true;
                self.change_total(partition.log.bytes(), 0);
                partition.log = PartitionLog::new(0);
            }
        }
        self.groups.forget_topic(name.as_str());
        self.appended.send_modify(|tick| *tick += 1);
        Some(gone)
    }

    fn change_total(&self, before: usize, after: usize) -> usize {
        if after >= before {
            let more = after - before;
            self.total_bytes.fetch_add(more, Ordering::Relaxed) + more
        } else {
            let less = before - after;
            self.total_bytes.fetch_sub(less, Ordering::Relaxed) - less
        }
    }

    /// Checks and appends one batch as a producer sent it.
    pub(crate) fn append(
        &self,
        topic: &Topic,
        index: i32,
        bytes: &[u8],
    ) -> Result<Appended, Refusal> {
        let name = &topic.name;
        let header = batch::check(bytes).map_err(|e| {
            let error = match e {
                BatchError::Magic(_) => ResponseError::UnsupportedForMessageFormat,
                BatchError::Invalid(_) => ResponseError::InvalidRecord,
                _ => ResponseError::CorruptMessage,
            };
            Refusal::new(error, format!("{name}-{index}: {e}"))
        })?;
        let most = topic.config.max_message_bytes;
        if bytes.len() > most {
            let text = format!(
                "{name}-{index}: a batch of {} bytes; the topic takes at most {most}",
                bytes.len()
            );
            return Err(Refusal::new(ResponseError::MessageTooLarge, text));
        }
        let mut partition = topic.partition(index).filter(|p| !p.deleted).ok_or_else(|| {
            let text = format!("topic {name} has no partition {index}");
            Refusal::new(ResponseError::UnknownTopicOrPartition, text)
        })?;
        let append_time = topic.config.log_append_time.then(now_ms);
        let base_offset = match partition.producers.judge(&header) {
            Verdict::Repeated { base_offset } => base_offset,
            Verdict::Refused(error) => {
                return Err(Refusal::new(error, format!("{name}-{index}: {error}")));
            }
            Verdict::New => {
                let before = partition.log.bytes();
                let base = partition.log.append(bytes, &header, append_time);
                partition.producers.remember(&header, base);
                self.change_total(before, partition.log.bytes());
                base
            }
        };
        let log_start = partition.log.start();
        drop(partition);
        self.shed();
        self.appended.send_modify(|tick| *tick += 1);
        Ok(Appended { base_offset, log_start, append_time: append_time.unwrap_or(-1) })
    }

    /// Forgets records before an offset, for DeleteRecords.
    pub(crate) fn delete_records(
        &self,
        topic: &Topic,
        index: i32,
        before: i64,
    ) -> Result<i64, ResponseError> {
        let mut partition = topic.partition(index).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let bytes = partition.log.bytes();
        let start =
            partition.log.delete_before(before).map_err(|_| ResponseError::OffsetOutOfRange)?;
        self.change_total(bytes, partition.log.bytes());
        Ok(start)
    }

    /// Brings all partitions together under the total bound: the largest one gives first.
    fn shed(&self) {
        while self.total_bytes.load(Ordering::Relaxed) > self.config.total_bytes {
            let mut sizes: HashMap<(TopicName, i32), usize> = HashMap::new();
            for topic in self.topics() {
                for index in 0..topic.partition_count() {
                    let bytes = topic.partition(index).map_or(0, |p| p.log.bytes());
                    sizes.insert((topic.name.clone(), index), bytes);
                }
            }
            let Some(((name, index), _)) = sizes.into_iter().max_by_key(|(_, bytes)| *bytes) else {
                return;
            };
            let Some(topic) = self.topic(name.as_str()) else { return };
            let Some(mut partition) = topic.partition(index) else { return };
            // A sixteenth at once, so that not every append looks through all partitions.
            let mut wanted = self.config.total_bytes / 16 + 1;
            let before = partition.log.bytes();
            while wanted > 0 {
                match partition.log.shed_oldest() {
                    0 => break,
                    freed => wanted = wanted.saturating_sub(freed),
                }
            }
            let after = partition.log.bytes();
            self.change_total(before, after);
            if after == before {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::batch::tests::batch_of;
    use kafka_protocol::records::Compression;

    fn broker(total_bytes: usize) -> Broker {
        let config = BrokerConfig { total_bytes, ..BrokerConfig::default() };
        Broker::new(config, SocketAddr::from(([127, 0, 0, 1], 9092)))
    }

    /// The counter of all bytes is what the logs say.
    fn check_total(broker: &Broker) -> usize {
        let mut sum = 0;
        for topic in broker.topics() {
            for index in 0..topic.partition_count() {
                sum += topic.partition(index).unwrap().log.bytes();
            }
        }
        assert_eq!(broker.total_bytes.load(Ordering::Relaxed), sum);
        sum
    }

    #[test]
    fn all_topics_together_stay_under_the_bound() {
        let broker = broker(10_000);
        let batch = batch_of(&[1, 2, 3], Compression::None);
        let small = broker.create_topic("small", 1, &[], false).unwrap();
        let large = broker.create_topic("large", 2, &[], false).unwrap();
        broker.append(&small, 0, &batch).unwrap();
        for i in 0..500 {
            broker.append(&large, i % 2, &batch).unwrap();
            assert!(check_total(&broker) <= 10_000);
        }
        assert_eq!(small.partition(0).unwrap().log.start(), 0, "the largest give first");
        broker.delete_records(&large, 0, -1).unwrap();
        check_total(&broker);
        broker.delete_topic(&large.name).unwrap();
        assert_eq!(check_total(&broker), batch.len());
        let late = broker.append(&large, 0, &batch).unwrap_err();
        assert_eq!(late.error, ResponseError::UnknownTopicOrPartition);
        assert_eq!(check_total(&broker), batch.len());
    }

    #[test]
    fn refusals_name_the_topic_and_the_bound() {
        let broker = broker(usize::MAX);
        let configs = [("max.message.bytes".to_owned(), "100".to_owned())];
        let topic = broker.create_topic("t", 1, &configs, false).unwrap();
        let refused =
            broker.append(&topic, 0, &batch_of(&[1, 2, 3], Compression::None)).unwrap_err();
        assert_eq!(refused.error, ResponseError::MessageTooLarge);
        assert!(refused.message.contains("t-0") && refused.message.contains("100"));
        let again = broker.create_topic("t", 1, &[], false).unwrap_err();
        assert_eq!(again.error, ResponseError::TopicAlreadyExists);
        for (name, partitions) in [("", 1), ("a/b", 1), ("u", 0), ("u", -2), ("u", 1_000_000)] {
            assert!(broker.create_topic(name, partitions, &[], false).is_err(), "{name}");
        }
        assert!(broker.create_topic("dry", 1, &[], true).is_ok());
        assert!(broker.topic("dry").is_none());
    }
}
