//! The CPU time of each stage between Kafka and Parquet, measured alone: `stages --help`.
//!
//! Every stage runs several times; its fastest run counts, being the one other processes disturbed
//! least. CPU time is that of the whole process, librdkafka's threads included. The last line is JSON.

mod poison;
mod raw;
mod stages;
mod time;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use isk_kafka::{FetchLimits, KafkaCluster, KafkaConfig};
use isk_model::{
    KafkaPartition, Offset, OffsetRange, RecordBlock, TimestampType, TopicName, TopicPartition,
};

/// Measures raw consumption, framing, decoding and encoding, each alone.
#[derive(Parser)]
struct Options {
    /// The brokers as host:port; without them records come from --values
    #[arg(long, requires = "topic", required_unless_present = "values")]
    brokers: Option<String>,
    /// The topic, of whose partition 0 the first records are read
    #[arg(long)]
    topic: Option<String>,
    /// Only consumes, and all records of so many partitions
    #[arg(long, requires = "topic")]
    consume_partitions: Option<i32>,
    /// A file of framed values, each after its length (4 bytes, little-endian)
    #[arg(long, conflicts_with = "brokers")]
    values: Option<PathBuf>,
    /// The Avro schema (JSON) all records were written with
    #[arg(long, required_unless_present = "consume_partitions")]
    schema: Option<PathBuf>,
    /// How many records
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Records per Parquet file
    #[arg(long, default_value_t = 1 << 20)]
    file_records: u64,
    /// Runs of each stage
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only stages whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut report = time::Report::new(options.records, options.runs, &options.only);
    if let (Some(partitions), Some(brokers), Some(topic)) =
        (options.consume_partitions, &options.brokers, &options.topic)
    {
        let count = i64::try_from(options.records)?;
        report.stage("librdkafka", || raw::consume(brokers, topic, partitions, count))?;
        println!("{}", report.json());
        return Ok(());
    }
    let file = options.schema.as_ref().context("give --schema")?;
    let schema =
        std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let blocks = match (&options.brokers, &options.topic, &options.values) {
        (Some(brokers), Some(topic), _) => consume(&options, brokers, topic, &mut report)?,
        (_, _, Some(file)) => load(file, options.records)?,
        _ => anyhow::bail!("give --brokers and --topic, or --values"),
    };
    stages::measure(&blocks, &schema, options.file_records, &mut report)?;
    println!("{}", report.json());
    Ok(())
}

/// The stages that need a broker; gives the records.
fn consume(
    options: &Options,
    brokers: &str,
    topic: &str,
    report: &mut time::Report,
) -> anyhow::Result<Vec<RecordBlock>> {
    let count = i64::try_from(options.records)?;
    report.stage("librdkafka", || raw::consume(brokers, topic, 1, count))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let topic = TopicName::new(topic)?;
    let tp = TopicPartition { topic, partition: KafkaPartition(0) };
    let range = OffsetRange::new(Offset(0), Offset(count)).context("no records")?;
    let mut blocks = Vec::new();
    runtime.block_on(async {
        let cluster = KafkaCluster::connect(KafkaConfig::new(brokers))?;
        let mut stream = cluster.fetch(&tp, range, FetchLimits::default());
        while let Some(block) = stream.next().await {
            blocks.push(block?);
        }
        anyhow::Ok(())
    })?;
    let cluster = runtime.block_on(async { KafkaCluster::connect(KafkaConfig::new(brokers)) })?;
    report.stage("fetch", || {
        runtime.block_on(async {
            let mut stream = cluster.fetch(&tp, range, FetchLimits::default());
            while let Some(block) = stream.next().await {
                block?;
            }
            Ok(())
        })
    })?;
    Ok(blocks)
}

fn load(file: &std::path::Path, records: u64) -> anyhow::Result<Vec<RecordBlock>> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    let mut values = Vec::new();
    let mut rest = &bytes[..];
    while let Some((len, more)) = rest.split_first_chunk::<4>() {
        let (value, more) = more
            .split_at_checked(u32::from_le_bytes(*len) as usize)
            .context("the file of values ends within a value")?;
        values.push(value);
        rest = more;
    }
    anyhow::ensure!(!values.is_empty(), "the file of values is empty");
    let mut blocks = Vec::new();
    for n in 0..records {
        if n % isk_kafka::BLOCK_MAX_RECORDS as u64 == 0 {
            blocks.push(RecordBlock::new());
        }
        let value = values[usize::try_from(n)? % values.len()];
        let offset = i64::try_from(n)?;
        let time = 1_750_000_000_000 + offset / 50;
        if let Some(block) = blocks.last_mut() {
            block.push(Offset(offset), time, TimestampType::CreateTime, None, Some(value), []);
        }
    }
    Ok(blocks)
}
