//! What planning costs by the number of chunks, on topics that are imagined: `planning --help`.
//!
//! The last line is JSON: for each topic its partitions, chunks and records, and milliseconds of the first
//! plan, of one where nothing changed, of one after a record in one partition and after one in each, and of
//! one after a chunk was proven. Each but the first is the median of several.

use std::time::Instant;

use clap::Parser;
use isk_model::KafkaPartition;
use isk_virtual_table::simulation::ImaginedTopic;
use serde_json::{Value, json};

/// Times planning, from offsets to metadata files, without a broker.
#[derive(Parser)]
struct Options {
    /// Topics as PARTITIONSxCHUNKS, chunks by partition
    #[arg(default_values = ["1x1000", "100x10", "1000x20", "100x1000", "1000x1000"])]
    topics: Vec<String>,
    /// Plans of each kind
    #[arg(long, default_value_t = 9)]
    runs: i32,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut all = Vec::new();
    for topic in &options.topics {
        let parts =
            topic.split_once('x').and_then(|(p, c)| Some((p.parse().ok()?, c.parse().ok()?)));
        let Some((partitions, chunks)) = parts.filter(|&(p, c): &(i32, i64)| p > 0 && c >= 0)
        else {
            anyhow::bail!("{topic:?} is not of the form PARTITIONSxCHUNKS, such as 1000x20");
        };
        let line = measure(partitions, chunks, options.runs)?;
        println!("{line}");
        all.push(line);
    }
    println!("{}", Value::Array(all));
    Ok(())
}

fn measure(partitions: i32, chunks: i64, runs: i32) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir()?;
    let mut topic = ImaginedTopic::new(folder.path(), partitions, chunks)?;
    let first = timed(&mut topic)?;
    let mut median = |change: fn(&mut ImaginedTopic, i32) -> anyhow::Result<()>| {
        let mut times = Vec::new();
        for run in 0..runs.max(1) {
            change(&mut topic, run)?;
            times.push(timed(&mut topic)?);
        }
        times.sort_by(f64::total_cmp);
        anyhow::Ok(times[times.len() / 2])
    };
    let unchanged = median(|_, _| Ok(()))?;
    let one = median(|topic, _| {
        topic.produce(1, usize::MAX);
        Ok(())
    })?;
    let each = median(|topic, _| {
        topic.produce(1, 1);
        Ok(())
    })?;
    let proven = if chunks > 0 && partitions >= runs {
        Some(median(|topic, run| Ok(topic.prove_first_chunk(KafkaPartition(run))?))?)
    } else {
        None
    };
    Ok(json!({
        "partitions": partitions,
        "chunks": i64::from(partitions) * (chunks + 1),
        "records": i64::from(partitions) * ((chunks << 19) + 1),
        "first_ms": first,
        "unchanged_ms": unchanged,
        "a_record_in_one_partition_ms": one,
        "a_record_in_each_partition_ms": each,
        "a_chunk_proven_ms": proven,
    }))
}

/// Milliseconds of one plan.
fn timed(topic: &mut ImaginedTopic) -> anyhow::Result<f64> {
    let begun = Instant::now();
    topic.load()?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
