//! Fills a topic at the speed of librdkafka: `fill --help`.
//!
//! What the records hold was encoded before, by Confluent's rules and not here: values repeat, but for an id
//! of each record's own, so that nothing of them is alike throughout.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

/// Produces records to the partitions of a topic, one in each in turn.
#[derive(Parser)]
struct Options {
    /// The brokers as host:port
    #[arg(long)]
    brokers: String,
    /// The topic, which is there
    #[arg(long)]
    topic: String,
    /// Its partitions
    #[arg(long)]
    partitions: i32,
    /// How many records
    #[arg(long)]
    records: u64,
    /// A file of framed values that repeat, each after its length (4 bytes, little-endian); else there are no values
    #[arg(long)]
    values: Option<PathBuf>,
    /// Where the 36 characters of each value's own id are
    #[arg(long, requires = "values")]
    id_at: Option<usize>,
    /// A file of the records' timestamps (8 bytes each, little-endian milliseconds); else they are of now
    #[arg(long)]
    times: Option<PathBuf>,
    /// The last so many records are values of zeros,
    #[arg(long, default_value_t = 0)]
    large: u64,
    /// of so many bytes
    #[arg(long, default_value_t = 0)]
    large_bytes: usize,
    /// The producer's compression
    #[arg(long, default_value = "none")]
    compression: String,
}

/// Counts what was not delivered.
#[derive(Default)]
struct Failures(AtomicU64);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    anyhow::ensure!(options.partitions > 0, "--partitions is at least 1");
    let mut values = options.values.as_deref().map(values).transpose()?.unwrap_or_default();
    let times = options.times.as_deref().map(times).transpose()?;
    if let Some(times) = &times {
        anyhow::ensure!(times.len() as u64 >= options.records, "--times has fewer than --records");
    }
    if let Some(at) = options.id_at {
        anyhow::ensure!(values.iter().all(|v| v.len() >= at + 36), "a value ends within its id");
    }
    let producer: BaseProducer<Failures> = ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "1000000")
        .set("acks", "1")
        .set("compression.type", &options.compression)
        .create_with_context(Failures::default())?;
    let large = vec![0; options.large_bytes];
    let spread = values.len() as u64;
    let first_large = options.records.saturating_sub(options.large);
    for n in 0..options.records {
        let value = if n >= first_large {
            Some(&large[..])
        } else if spread > 0 {
            let value = &mut values[usize::try_from(n % spread)?];
            if let Some(at) = options.id_at {
                value[at..at + 36].copy_from_slice(&id(n));
            }
            Some(&value[..])
        } else {
            None
        };
        let partition = i32::try_from(n % u64::from(options.partitions.unsigned_abs()))?;
        let time = times.as_ref().map(|times| times[n as usize]);
        send(&producer, &options.topic, partition, time, value)?;
    }
    producer.flush(Duration::from_secs(300)).context("the last records were not acknowledged")?;
    let failed = producer.context().0.load(Ordering::Relaxed);
    anyhow::ensure!(failed == 0, "{failed} records were not delivered");
    Ok(())
}

/// Hands a record over; waits while the queue is full.
fn send(
    producer: &BaseProducer<Failures>,
    topic: &str,
    partition: i32,
    time: Option<i64>,
    value: Option<&[u8]>,
) -> anyhow::Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition);
    record.payload = value;
    record.timestamp = time;
    loop {
        record = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                producer.poll(Duration::from_millis(50));
                record
            }
            Err((error, _)) => return Err(error.into()),
        };
    }
}

fn values(file: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let (mut values, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((len, more)) = rest.split_first_chunk::<4>() {
        let (value, more) = more
            .split_at_checked(u32::from_le_bytes(*len) as usize)
            .context("the file of values ends within a value")?;
        values.push(value.to_vec());
        rest = more;
    }
    Ok(values)
}

fn times(file: &Path) -> anyhow::Result<Vec<i64>> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let (times, _) = bytes.as_chunks::<8>();
    Ok(times.iter().map(|time| i64::from_le_bytes(*time)).collect())
}

/// A UUID as text: the same for the same number, and as random to look at as others.
fn id(n: u64) -> [u8; 36] {
    let bits = (u128::from(mixed(2 * n)) << 64) | u128::from(mixed(2 * n + 1));
    let mut text = [b'-'; 36];
    let mut nibble = 0;
    for (at, byte) in text.iter_mut().enumerate() {
        if !matches!(at, 8 | 13 | 18 | 23) {
            *byte = b"0123456789abcdef"[(bits >> (4 * nibble)) as usize & 15];
            nibble += 1;
        }
    }
    text
}

/// SplitMix64's output function.
fn mixed(n: u64) -> u64 {
    let z = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
