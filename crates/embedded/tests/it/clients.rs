//! librdkafka against the broker: produce, consume, groups, lookups by time, deletions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isk_embedded::{EmbeddedBroker, ProducedRecord};
use isk_model::KafkaPartition;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{broker, broker_with, topic};

const PATIENCE: Duration = Duration::from_secs(30);

fn client(broker: &EmbeddedBroker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap().to_string());
    config
}

pub(super) fn consumer(broker: &EmbeddedBroker, group: &str) -> BaseConsumer {
    let mut config = client(broker);
    config.set("group.id", group).set("auto.offset.reset", "earliest");
    config.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
    config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "200");
    config.create().unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) value: Vec<u8>,
}

fn read_of(message: &impl Message) -> Read {
    Read {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        value: message.payload().unwrap_or_default().to_vec(),
    }
}

/// Every record of assigned partitions from the given offsets to their ends.
fn read_from(consumer: &BaseConsumer, topic: &str, from: &BTreeMap<i32, i64>) -> Vec<Read> {
    let mut assignment = TopicPartitionList::new();
    for (&partition, &offset) in from {
        assignment.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut read, mut ended) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while ended < from.len() {
        assert!(Instant::now() < deadline, "only {} records, {ended} ends", read.len());
        match consumer.poll(Duration::from_millis(500)) {
            None => {}
            Some(Ok(message)) => read.push(read_of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(cause)) => panic!("{cause}"),
        }
    }
    read
}

/// Every record of a topic.
pub(super) fn read_all(broker: &EmbeddedBroker, topic: &str) -> Vec<Read> {
    let consumer = consumer(broker, "none");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    let mut from = BTreeMap::new();
    for partition in metadata.topics()[0].partitions() {
        let (low, _) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
        from.insert(partition.id(), low);
    }
    read_from(&consumer, topic, &from)
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &str, timestamp: i64) {
    let mut record = BaseRecord::<str, str>::to(topic)
        .partition(partition)
        .payload(value)
        .key("key")
        .timestamp(timestamp);
    while let Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) =
        producer.send(record)
    {
        producer.poll(Duration::from_millis(5));
        record = back;
    }
}

fn admin(broker: &EmbeddedBroker) -> AdminClient<DefaultClientContext> {
    client(broker).create().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_records_in_every_codec_and_none_lost() {
    let broker = broker().await;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let name = format!("codec-{codec}");
        broker.create_topic(&topic(&name), 2, &[]).unwrap();
        let mut config = client(&broker);
        config.set("compression.codec", codec).set("linger.ms", "2");
        config.set("enable.idempotence", if codec == "gzip" { "false" } else { "true" });
        let producer: BaseProducer = config.create().unwrap();
        for i in 0..50_000i64 {
            send(&producer, &name, (i % 2) as i32, &format!("value {i}"), 1_000_000 + i);
        }
        producer.flush(PATIENCE).unwrap();
        let read = read_all(&broker, &name);
        assert_eq!(read.len(), 50_000, "{codec}");
        for record in &read {
            let i = record.offset * 2 + i64::from(record.partition);
            assert_eq!(record.value, format!("value {i}").into_bytes());
            assert_eq!(record.timestamp, 1_000_000 + i);
        }
        // From the middle of a batch, and by time.
        let consumer = consumer(&broker, "none");
        let rest = read_from(&consumer, &name, &BTreeMap::from([(0, 12_345)]));
        assert_eq!((rest.len(), rest[0].offset), (25_000 - 12_345, 12_345), "{codec}");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&name, 1, Offset::Offset(1_000_000 + 30_000)).unwrap();
        let found = consumer.offsets_for_times(asked, PATIENCE).unwrap();
        assert_eq!(found.elements()[0].offset(), Offset::Offset(15_000), "{codec}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn times_out_of_order_are_found() {
    let broker = broker().await;
    let name = topic("times");
    broker.create_topic(&name, 1, &[]).unwrap();
    let record = |timestamp_ms| ProducedRecord { timestamp_ms, key: None, value: None };
    for batch in [[50, 10], [20, 90], [30, 40]] {
        let records: Vec<_> = batch.into_iter().map(|t| record(t * 1_000)).collect();
        broker.append(&name, KafkaPartition(0), &records).unwrap();
    }
    let consumer = consumer(&broker, "none");
    for (time, wanted) in [(0, Some(0)), (51_000, Some(3)), (90_000, Some(3)), (90_001, None)] {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset("times", 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(asked, PATIENCE).unwrap();
        let wanted = wanted.map_or(Offset::End, Offset::Offset);
        assert_eq!(found.elements()[0].offset(), wanted, "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_described_cut_and_deleted() {
    let broker = broker().await;
    let (admin, options) = (admin(&broker), AdminOptions::new());
    let new = NewTopic::new("made", 3, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let bad = NewTopic::new("bad", 1, TopicReplication::Fixed(3));
    let made = admin.create_topics([&new, &bad], &options).await.unwrap();
    assert_eq!(made[0], Ok("made".to_owned()));
    assert_eq!(made[1], Err(("bad".to_owned(), RDKafkaErrorCode::InvalidReplicationFactor)));
    let found =
        admin.describe_configs([&ResourceSpecifier::Topic("made")], &options).await.unwrap();
    let found = found[0].as_ref().unwrap();
    assert_eq!(found.get("cleanup.policy").unwrap().value.as_deref(), Some("compact"));
    assert_eq!(found.get("max.message.bytes").unwrap().value.as_deref(), Some("1048588"));

    let producer: BaseProducer = client(&broker).create().unwrap();
    for i in 0..100 {
        send(&producer, "made", 1, &i.to_string(), i);
    }
    producer.flush(PATIENCE).unwrap();
    let mut cut = TopicPartitionList::new();
    cut.add_partition_offset("made", 1, Offset::Offset(37)).unwrap();
    admin.delete_records(&cut, &options).await.unwrap();
    let consumer = consumer(&broker, "none");
    assert_eq!(consumer.fetch_watermarks("made", 1, PATIENCE).unwrap(), (37, 100));
    let read = read_from(&consumer, "made", &BTreeMap::from([(1, 37)]));
    assert_eq!((read.len(), read[0].offset), (63, 37));

    let gone = admin.delete_topics(&["made", "never"], &options).await.unwrap();
    assert_eq!(gone[0], Ok("made".to_owned()));
    assert!(gone[1].is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_go_and_reading_them_fails() {
    let broker = broker_with(|config| config.partition_bytes = 100_000).await;
    let producer: BaseProducer = client(&broker).set("linger.ms", "1").create().unwrap();
    broker.create_topic(&topic("short"), 1, &[]).unwrap();
    for i in 0..10_000 {
        send(&producer, "short", 0, &format!("{i:0100}"), i);
    }
    producer.flush(PATIENCE).unwrap();
    let consumer = consumer(&broker, "none");
    let (low, high) = consumer.fetch_watermarks("short", 0, PATIENCE).unwrap();
    assert!(low > 0 && high == 10_000, "{low}..{high}");
    assert_eq!(read_all(&broker, "short").len() as i64, high - low);
    let mut config = client(&broker);
    config.set("group.id", "g").set("auto.offset.reset", "error");
    let strict: BaseConsumer = config.create().unwrap();
    let mut at = TopicPartitionList::new();
    at.add_partition_offset("short", 0, Offset::Offset(0)).unwrap();
    strict.assign(&at).unwrap();
    let seen = strict.poll(PATIENCE).unwrap();
    assert!(seen.is_err(), "offset 0 is gone: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_a_message_and_transactions_are_refused() {
    let broker = broker().await;
    broker.create_topic(&topic("large"), 1, &[("max.message.bytes", "2000000")]).unwrap();
    broker.create_topic(&topic("usual"), 1, &[]).unwrap();
    let producer: BaseProducer =
        client(&broker).set("message.max.bytes", "50000000").create().unwrap();
    for name in ["large", "usual"] {
        send(&producer, name, 0, &"x".repeat(1_500_000), 0);
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(read_all(&broker, "large").len(), 1);
    assert_eq!(read_all(&broker, "usual").len(), 0);
    let transactional: BaseProducer =
        client(&broker).set("transactional.id", "t").create().unwrap();
    let refused = transactional.init_transactions(PATIENCE).unwrap_err();
    assert_eq!(
        refused.rdkafka_error_code(),
        Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed)
    );
}

/// Polls all consumers until `done` says so of what each has read.
fn poll_until(
    consumers: &[&BaseConsumer],
    mut done: impl FnMut(&[Vec<Read>]) -> bool,
) -> Vec<Vec<Read>> {
    let mut read = vec![Vec::new(); consumers.len()];
    let deadline = Instant::now() + PATIENCE;
    while !done(&read) {
        assert!(Instant::now() < deadline, "{:?}", read.iter().map(Vec::len).collect::<Vec<_>>());
        for (consumer, read) in consumers.iter().zip(&mut read) {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(10)) {
                read.push(read_of(&message));
            }
        }
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_share_partitions_rebalance_and_remember() {
    let broker = broker().await;
    let name = topic("shared");
    broker.create_topic(&name, 4, &[]).unwrap();
    let fill = |count: i64| {
        for i in 0..count {
            let value = bytes::Bytes::from(i.to_string());
            let record = ProducedRecord { timestamp_ms: i, key: None, value: Some(value) };
            broker.append(&name, KafkaPartition((i % 4) as i32), &[record]).unwrap();
        }
    };
    fill(400);
    let (a, b) = (consumer(&broker, "group"), consumer(&broker, "group"));
    a.subscribe(&["shared"]).unwrap();
    b.subscribe(&["shared"]).unwrap();
    let owned = |c: &BaseConsumer| c.assignment().unwrap().count();
    // What a rebalance makes come twice counts once: nothing is committed yet. Each ends with two
    // partitions, read to their ends.
    let at_ends = |consumer: &BaseConsumer| {
        let position = consumer.position().unwrap();
        let ends = position.elements().iter().filter(|e| e.offset() == Offset::Offset(100)).count();
        ends == 2 && owned(consumer) == 2
    };
    let mut seen = std::collections::BTreeSet::new();
    poll_until(&[&a, &b], |read| {
        seen.extend(read.iter().flatten().map(|r| (r.partition, r.offset)));
        seen.len() == 400 && at_ends(&a) && at_ends(&b)
    });
    a.commit_consumer_state(CommitMode::Sync).unwrap();
    b.commit_consumer_state(CommitMode::Sync).unwrap();
    // One leaves: the other gets everything, from where the group had come.
    drop(b);
    poll_until(&[&a], |_| owned(&a) == 4);
    fill(40);
    let read = poll_until(&[&a], |read| read[0].len() >= 40);
    assert!(read[0].iter().all(|r| r.offset >= 100), "nothing twice");
    let committed = a.committed(PATIENCE).unwrap();
    assert!(committed.elements().iter().all(|e| e.offset() == Offset::Offset(100)));
    let groups = a.fetch_group_list(Some("group"), PATIENCE).unwrap();
    assert_eq!((groups.groups()[0].state(), groups.groups()[0].members().len()), ("Stable", 1));
}
