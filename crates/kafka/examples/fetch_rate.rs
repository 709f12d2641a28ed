//! Measures fetching beside raw `rd_kafka_consume_batch_queue`, on partition 0 of a topic, or on one of
//! 80-byte records made for it:
//! `cargo run --release -p isk-kafka --example fetch_rate -- host:port [records [topic]]`.
//! The last line is JSON: the best rate of each, in records per second.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use isk_kafka::{FetchLimits, KafkaCluster, KafkaConfig};
use isk_model::{KafkaPartition, Offset, OffsetRange, TopicName, TopicPartition};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings as rd;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().ok_or("give the brokers as host:port")?;
    let records: i64 = arguments.next().map_or(Ok(5_000_000), |n| n.parse())?;
    let topic = match arguments.next() {
        Some(name) => TopicName::new(&name)?,
        None => {
            let topic = TopicName::new("fetch-rate-80")?;
            fill(&brokers, &topic, records).await?;
            topic
        }
    };
    let (mut best_raw, mut best_ours) = (0.0, 0.0);
    let mut config = KafkaConfig::new(&brokers);
    for _ in 0..3 {
        best_raw = raw(&brokers, &topic, records)?.max(best_raw);
        let cluster = KafkaCluster::connect(config.clone())?;
        best_ours = ours(&cluster, &topic, records).await?.max(best_ours);
    }
    config.properties.insert("check.crcs".into(), "false".into());
    println!("without CRC checks:");
    ours(&KafkaCluster::connect(config)?, &topic, records).await?;
    println!("{{\"raw_records_per_s\": {best_raw:.0}, \"fetch_records_per_s\": {best_ours:.0}}}");
    Ok(())
}

async fn fill(brokers: &str, topic: &TopicName, records: i64) -> Result<(), Failure> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let new = NewTopic::new(topic.as_str(), 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await?;
    let cluster = KafkaCluster::connect(KafkaConfig::new(brokers))?;
    let mut there = None;
    for _ in 0..50 {
        let partition = KafkaPartition(0);
        if let Ok(found) = cluster.offsets(topic, &[partition]).await {
            there = found.get(&partition).map(|o| o.last_stable.0);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if there.ok_or("the topic did not appear")? >= records {
        return Ok(());
    }
    let writer: ThreadedProducer<DefaultProducerContext> =
        config.set("linger.ms", "20").set("queue.buffering.max.messages", "2000000").create()?;
    for n in 0..records {
        let value = format!("{n:080}");
        let mut record = BaseRecord::<(), _>::to(topic.as_str()).partition(0).payload(&value);
        while let Err((_, back)) = writer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    writer.flush(Duration::from_secs(120))?;
    Ok(())
}

fn report(what: &str, records: i64, bytes: usize, begun: Instant) -> f64 {
    let seconds = begun.elapsed().as_secs_f64();
    let (records, mib) = (records as f64 / 1e6, bytes as f64 / f64::from(1 << 20));
    println!("{what}: {:.2} M records/s, {:.0} MiB/s", records / seconds, mib / seconds);
    records * 1e6 / seconds
}

async fn ours(cluster: &KafkaCluster, topic: &TopicName, records: i64) -> Result<f64, Failure> {
    let tp = TopicPartition { topic: topic.clone(), partition: KafkaPartition(0) };
    let range = OffsetRange::new(Offset(0), Offset(records)).ok_or("no records")?;
    let begun = Instant::now();
    let mut stream = cluster.fetch(&tp, range, FetchLimits::default());
    let (mut count, mut bytes, mut first) = (0, 0, None);
    while let Some(block) = stream.next().await {
        let block = block?;
        first.get_or_insert_with(|| begun.elapsed());
        count += block.len() as i64;
        bytes += block.payload_bytes();
    }
    assert_eq!(count, records);
    let rate = report("isk-kafka fetch, cold client", count, bytes, begun);
    let plain = Instant::now();
    let mut stream = cluster.fetch_without_headers(&tp, range, FetchLimits::default());
    let mut bytes = 0;
    while let Some(block) = stream.next().await {
        bytes += block?.payload_bytes();
    }
    report("isk-kafka fetch, without headers", records, bytes, plain);
    let begun = Instant::now();
    let small = OffsetRange::new(Offset(records / 2), Offset(records / 2 + 100)).ok_or("few")?;
    for _ in 0..20 {
        let mut stream = cluster.fetch(&tp, small, FetchLimits::default());
        while let Some(block) = stream.next().await {
            block?;
        }
    }
    let each = begun.elapsed() / 20;
    println!("  first block after {first:?}; 100 records of a warm client: {each:?} each");
    println!("  {:?}", cluster.metrics().snapshot());
    Ok(rate)
}

/// The client's own limit: messages taken and freed, nothing looked at but their length.
fn raw(brokers: &str, topic: &TopicName, records: i64) -> Result<f64, Failure> {
    let properties = [
        ("bootstrap.servers", brokers),
        ("fetch.queue.backoff.ms", "2"),
        ("queued.min.messages", "10000000"),
        ("check.crcs", "true"),
    ];
    let topic = CString::new(topic.as_str())?;
    let mut reason = [0; 512];
    // SAFETY: a straight use of librdkafka's C interface; all strings outlive their calls.
    unsafe {
        let conf = rd::rd_kafka_conf_new();
        for (key, value) in properties {
            let (key, value) = (CString::new(key)?, CString::new(value)?);
            rd::rd_kafka_conf_set(conf, key.as_ptr(), value.as_ptr(), reason.as_mut_ptr(), 512);
        }
        let kind = rd::rd_kafka_type_t::RD_KAFKA_CONSUMER;
        let client = rd::rd_kafka_new(kind, conf, reason.as_mut_ptr(), 512);
        if client.is_null() {
            return Err(CStr::from_ptr(reason.as_ptr()).to_string_lossy().into());
        }
        let handle = rd::rd_kafka_topic_new(client, topic.as_ptr(), std::ptr::null_mut());
        let queue = rd::rd_kafka_queue_new(client);
        let begun = Instant::now();
        rd::rd_kafka_consume_start_queue(handle, 0, 0, queue);
        let mut messages = vec![std::ptr::null_mut(); 4096];
        let (mut count, mut bytes) = (0, 0);
        while count < records {
            let got =
                rd::rd_kafka_consume_batch_queue(queue, 10, messages.as_mut_ptr(), messages.len());
            for &message in &messages[..usize::try_from(got).unwrap_or(0)] {
                count += 1;
                bytes += (*message).len;
                rd::rd_kafka_message_destroy(message);
            }
        }
        let rate = report("raw consume_batch_queue", count, bytes, begun);
        rd::rd_kafka_consume_stop(handle, 0);
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_topic_destroy(handle);
        rd::rd_kafka_destroy(client);
        Ok(rate)
    }
}
