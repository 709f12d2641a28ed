//! What the tests against brokers share: topics, producers and whole-range reads.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use isk_kafka::{FetchError, FetchLimits, FetchPath, KafkaCluster, KafkaConfig};
use isk_model::{KafkaPartition, Offset, OffsetRange, TopicName, TopicPartition};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::TopicPartitionList;

pub type Writer = ThreadedProducer<DefaultProducerContext>;

/// The brokers to test against, or `None` with a line that says that the test did not run.
pub fn bootstrap(test: &str) -> Option<String> {
    let found = std::env::var("ISK_TEST_BOOTSTRAP").ok().filter(|b| !b.is_empty());
    if found.is_none() {
        eprintln!("NOT RUN: {test} needs a broker; set ISK_TEST_BOOTSTRAP=host:port");
    }
    found
}

/// Leaves the test when there is no broker.
#[macro_export]
macro_rules! brokers_or_return {
    () => {{
        fn here() {}
        match common::bootstrap(std::any::type_name_of_val(&here)) {
            Some(brokers) => brokers,
            None => return,
        }
    }};
}

/// Who fetches in this run: `ISK_TEST_FETCH`, or as it is by default.
pub fn path() -> FetchPath {
    std::env::var("ISK_TEST_FETCH").map_or(FetchPath::default(), |path| path.parse().unwrap())
}

pub fn config(brokers: &str) -> KafkaConfig {
    KafkaConfig { fetch_path: path(), ..KafkaConfig::new(brokers) }
}

pub fn cluster(brokers: &str) -> KafkaCluster {
    KafkaCluster::connect(config(brokers)).unwrap()
}

pub fn impatient(brokers: &str) -> KafkaCluster {
    let mut config = config(brokers);
    config.progress_timeout = Duration::from_secs(2);
    config.request_timeout = Duration::from_secs(5);
    KafkaCluster::connect(config).unwrap()
}

pub fn unique(what: &str) -> TopicName {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    TopicName::new(&format!("{what}-{nanos:x}-{n}")).unwrap()
}

pub fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

/// Makes a topic and waits until its leaders are known.
pub async fn create(
    brokers: &str,
    what: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> TopicName {
    let name = unique(what);
    create_named(brokers, &name, partitions, config).await;
    name
}

pub async fn create_named(
    brokers: &str,
    name: &TopicName,
    partitions: i32,
    config: &[(&str, &str)],
) {
    // The records' timestamps are of 1970.
    let topic = NewTopic::new(name.as_str(), partitions, TopicReplication::Fixed(1));
    let mut topic = topic.set("retention.ms", "-1");
    for (key, value) in config {
        topic = topic.set(key, value);
    }
    let made = admin(brokers).create_topics([&topic], &AdminOptions::new()).await.unwrap();
    made.into_iter().next().unwrap().unwrap();
    let cluster = cluster(brokers);
    let all: Vec<_> = (0..partitions).map(KafkaPartition).collect();
    eventually("the new topic's leaders", async || cluster.offsets(name, &all).await.is_ok()).await;
}

pub async fn delete_topic(brokers: &str, name: &TopicName) {
    let gone = admin(brokers).delete_topics(&[name.as_str()], &AdminOptions::new()).await.unwrap();
    gone.into_iter().next().unwrap().unwrap();
}

pub async fn delete_records(brokers: &str, tp: &TopicPartition, before: i64) {
    let mut list = TopicPartitionList::new();
    let offset = rdkafka::Offset::Offset(before);
    list.add_partition_offset(tp.topic.as_str(), tp.partition.0, offset).unwrap();
    admin(brokers).delete_records(&list, &AdminOptions::new()).await.unwrap();
}

/// Asks again and again until the answer is yes; fails after a minute.
pub async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not come true in a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn writer(brokers: &str, more: &[(&str, &str)]) -> Writer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "1000000")
        .set("message.max.bytes", "20000000")
        .set("linger.ms", "5");
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

/// What the tests know of record `n`.
pub fn value_of(n: i64) -> String {
    format!("value {n} {}", "x".repeat((n % 50) as usize))
}

/// Writes records `from..to`, the record's number as its key.
pub fn write(writer: &Writer, tp: &TopicPartition, from: i64, to: i64) {
    for n in from..to {
        let (key, value) = (n.to_string(), value_of(n));
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&key) });
        let record = BaseRecord::to(tp.topic.as_str())
            .partition(tp.partition.0)
            .key(&key)
            .payload(&value)
            .timestamp(1_000_000 + n)
            .headers(headers);
        writer.send(record).map_err(|(e, _)| e).unwrap();
    }
    writer.flush(Duration::from_secs(60)).unwrap();
}

pub fn tp(topic: &TopicName, partition: i32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: KafkaPartition(partition) }
}

pub fn range(start: i64, end: i64) -> OffsetRange {
    OffsetRange::new(Offset(start), Offset(end)).unwrap()
}

/// A record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub offset: i64,
    pub key: Option<String>,
    pub value: Option<String>,
}

pub async fn read(
    cluster: &KafkaCluster,
    tp: &TopicPartition,
    range: OffsetRange,
) -> Result<Vec<Read>, FetchError> {
    read_limited(cluster, tp, range, FetchLimits::default()).await
}

pub async fn read_limited(
    cluster: &KafkaCluster,
    tp: &TopicPartition,
    range: OffsetRange,
    limits: FetchLimits,
) -> Result<Vec<Read>, FetchError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut stream = cluster.fetch(tp, range, limits);
    let mut all = Vec::new();
    while let Some(block) = stream.next().await {
        all.extend(block?.iter().map(|r| Read {
            offset: r.offset.0,
            key: r.key.map(text),
            value: r.value.map(text),
        }));
    }
    Ok(all)
}

/// The blocks of a range, as they print.
pub async fn blocks(
    brokers: &str,
    path: FetchPath,
    tp: &TopicPartition,
    range: OffsetRange,
) -> Vec<String> {
    let config = KafkaConfig { fetch_path: path, ..KafkaConfig::new(brokers) };
    let cluster = KafkaCluster::connect(config).unwrap();
    let mut stream = cluster.fetch(tp, range, FetchLimits::default());
    let mut all = Vec::new();
    while let Some(block) = stream.next().await {
        all.push(format!("{:?}", block.unwrap()));
    }
    all
}
