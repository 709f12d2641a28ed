//! `isk doctor <table>`: why a topic's table is slow or fails. It asks everything on the way from the brokers to a file,
//! in order, with a service of its own that remembers nothing; and the one that runs, for what that has learnt.

mod service;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use futures::StreamExt;
use isk_kafka::KafkaCluster;
use isk_model::{KafkaPartition, PartitionOffsets, TopicName};
use isk_virtual_table::{Filter, HOTSET, ScanRequest, Service, TopicFilter};
use serde_json::Value;

use crate::Configuration;
use crate::config::Config;
use crate::serve;

/// A load of a table that takes longer is slow.
const SLOW_LOAD: Duration = Duration::from_secs(2);

/// A chunk that takes longer to be made is slow.
const SLOW_CHUNK: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Options {
    /// The table: a topic, or hotset.<topic>
    pub table: String,
    #[command(flatten)]
    pub configuration: Configuration,
    /// The catalog of the service that runs; else where the configuration has it
    #[arg(long, value_name = "URL")]
    catalog: Option<String>,
    /// A bearer token for it
    #[arg(long, value_name = "TOKEN", env = "ISK_DOCTOR_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What was found at one place, and what to do about it.
enum Verdict {
    Good(String),
    /// Slow, or soon to fail.
    Poor {
        seen: String,
        remedy: String,
    },
    Bad {
        seen: String,
        remedy: String,
    },
}

use Verdict::{Bad, Good, Poor};

fn poor(seen: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Poor { seen: seen.into(), remedy: remedy.into() }
}

fn bad(seen: impl std::fmt::Display, remedy: impl Into<String>) -> Verdict {
    // Errors name their remedies themselves, most of them.
    Bad { seen: format!("{seen:#}"), remedy: remedy.into() }
}

#[derive(Default)]
struct Report {
    bad: usize,
    poor: usize,
}

impl Report {
    fn line(&mut self, what: &str, verdict: Verdict) {
        let (mark, seen, remedy) = match verdict {
            Good(seen) => ("ok  ", seen, String::new()),
            Poor { seen, remedy } => {
                self.poor += 1;
                ("WARN", seen, remedy)
            }
            Bad { seen, remedy } => {
                self.bad += 1;
                ("FAIL", seen, remedy)
            }
        };
        println!("{mark}  {what}: {seen}");
        if !remedy.is_empty() {
            println!("      -> {remedy}");
        }
    }
}

/// Looks at a table; fails where something of it does.
pub async fn run(config: &Config, options: &Options) -> Result<()> {
    let name = match options.table.split_once('.') {
        Some((HOTSET, topic)) => topic,
        Some((namespace @ ("merged" | "coldset" | "errors"), topic)) => bail!(
            "isk doctor looks at topics, and {namespace}.{topic} is more or less than one: ask for {HOTSET}.<topic>, \
             and `isk check` for the coldset"
        ),
        _ => options.table.as_str(),
    };
    let topic = TopicName::new(name).map_err(|error| anyhow!("{name:?}: {error}"))?;
    let mut report = Report::default();
    look(config, options, &topic, &mut report).await?;
    match (report.bad, report.poor) {
        (0, 0) => println!("nothing is wrong with {HOTSET}.{topic}"),
        (0, poor) => println!("{HOTSET}.{topic} can be read; {poor} things could be better"),
        (bad, _) => bail!("{bad} of the things that {HOTSET}.{topic} needs do not work"),
    }
    Ok(())
}

/// What comes behind a failure would fail for the same reason, and is not looked at.
async fn look(
    config: &Config,
    options: &Options,
    topic: &TopicName,
    report: &mut Report,
) -> Result<()> {
    let kafka = serve::kafka(config)?;
    let begun = Instant::now();
    match kafka.cluster_id().await {
        Ok(id) => report.line("kafka", Good(format!("cluster {id} answers, {}", ms(begun)))),
        Err(error) => {
            report.line("kafka", bad(error, "see [kafka] of the configuration, and docs/kafka.md"));
            return Ok(());
        }
    }
    report.line("registry", registry(config, topic).await);
    let filter = TopicFilter::new(&config.topics.include, &config.topics.exclude)?;
    if !filter.serves(topic) {
        let remedy = "look at topics.include and topics.exclude";
        report.line("topic", bad(format!("{topic} is left out by the configuration"), remedy));
        return Ok(());
    }
    let Some(offsets) = log(&kafka, topic, report).await else { return Ok(()) };
    report.line("retention", retention(&kafka, topic, &offsets).await);
    one_chunk(config, topic, report).await?;
    service::running(config, options, topic, report).await;
    Ok(())
}

async fn registry(config: &Config, topic: &TopicName) -> Verdict {
    let registry = match serve::registry(config) {
        Ok(Some(registry)) => registry,
        Ok(None) => return Good("none is configured".into()),
        Err(error) => return bad(error, "see [registry] of the configuration"),
    };
    let begun = Instant::now();
    match registry.subject_history(&format!("{topic}-value")).await {
        Ok(history) => {
            Good(format!("answers, {}: {} versions of {topic}-value", ms(begun), history.len()))
        }
        Err(error) => bad(
            error,
            "a registry that does not answer fails reads of topics whose schema is not known yet: see [registry]",
        ),
    }
}

/// The topic's log: whether it is there, and what of it is held back.
async fn log(
    kafka: &KafkaCluster,
    topic: &TopicName,
    report: &mut Report,
) -> Option<BTreeMap<KafkaPartition, PartitionOffsets>> {
    let found = match kafka.topic(topic).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let remedy = "is its name right, and may the service's login DESCRIBE it? Topics have large and small letters";
            report.line("topic", bad(format!("Kafka has no topic {topic}"), remedy));
            return None;
        }
        Err(error) => {
            report.line("topic", bad(error, "grant DESCRIBE and READ to the service's login"));
            return None;
        }
    };
    let begun = Instant::now();
    // The watermarks first: what arrives in between is not taken for held back.
    let written = kafka.high_watermarks(topic, &found.partitions).await;
    let offsets = match kafka.offsets(topic, &found.partitions).await {
        Ok(offsets) => offsets,
        Err(error) => {
            report.line(
                "topic",
                bad(
                    error,
                    "a partition without a leader fails the whole table: look at the brokers",
                ),
            );
            return None;
        }
    };
    let records: i64 = offsets.values().map(|o| o.last_stable.0 - o.log_start.0).sum();
    let partitions = offsets.len();
    report.line("topic", match ms_of(begun.elapsed()) {
        took if took > 1000 => poor(
            format!("{partitions} partitions, up to {records} records; the brokers took {took} ms to tell their ends"),
            "each load asks for them: look at the brokers' load and at the network between",
        ),
        took => Good(format!("{partitions} partitions, up to {records} records; their ends took {took} ms")),
    });
    let behind = |(partition, now): (&KafkaPartition, &PartitionOffsets)| {
        let end = written.as_ref().ok()?.get(partition)?.0;
        (end > now.last_stable.0)
            .then(|| format!("{partition}:{} by {}", now.last_stable, end - now.last_stable.0))
    };
    let held: Vec<String> = offsets.iter().filter_map(behind).collect();
    report.line("transactions", match held.is_empty() {
        true => Good("none holds the table back".into()),
        false => poor(
            format!("open ones hold it back at {}", held.join(", ")),
            "most end by themselves; kafka-transactions.sh find-hanging and abort find and end those that hang",
        ),
    });
    Some(offsets)
}

/// How much of the log is soon gone.
async fn retention(
    kafka: &KafkaCluster,
    topic: &TopicName,
    offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
) -> Verdict {
    let settings = match kafka.topic_config(topic).await {
        Ok(settings) => settings,
        Err(error) => {
            return poor(
                format!(
                    "the topic's settings are not known ({error}): it is taken for compacted, and counted by reading"
                ),
                "grant DESCRIBE_CONFIGS to the service's login",
            );
        }
    };
    let says = |key: &str| settings.get(key).map_or("", String::as_str);
    let keep = says("retention.ms").parse::<i64>().unwrap_or(-1);
    if says("cleanup.policy").contains("compact") {
        return poor(
            "the topic is compacted: files keep a delete entry, and COUNT(*) reads",
            "nothing to mend; follow.topics makes such counts no cheaper",
        );
    }
    if keep < 0 {
        return Good("records are kept for ever".into());
    }
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let soon = i64::try_from(now.as_millis()).unwrap_or(i64::MAX) - keep / 10 * 9;
    let asked: Vec<_> = offsets.keys().map(|partition| (*partition, soon)).collect();
    let first = kafka.first_offsets_at(topic, &asked).await.unwrap_or_default();
    let (mut all, mut going) = (0, 0);
    for (log, first) in offsets.values().zip(first) {
        all += log.last_stable.0 - log.log_start.0;
        let first = first.map_or(log.last_stable.0, |first| first.0.min(log.last_stable.0));
        going += (first - log.log_start.0).max(0);
    }
    let hours = keep / 3_600_000;
    let seen = format!(
        "records are kept for {hours} h; {going} of {all} offsets are in its last tenth or past it"
    );
    match all > 0 && going * 2 > all {
        true => poor(
            seen,
            "queries that are planned now may find them gone (410, RecordsExpired): run them again, or keep records longer",
        ),
        false => Good(seen),
    }
}

/// Plans the table from nothing, and makes its last whole file.
async fn one_chunk(config: &Config, topic: &TopicName, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for what is tried")?;
    let own = Config { data_dir: folder.path().to_owned(), shared_dir: None, ..config.clone() };
    let service = serve::open_service(&own, serve::upstream(config)?)?;
    let begun = Instant::now();
    let loaded = match service.load_table(HOTSET, topic.as_str(), None).await {
        Ok(loaded) => loaded,
        Err(error) => {
            report.line("table", bad(error, ""));
            return Ok(());
        }
    };
    let took = begun.elapsed();
    let seen = format!("planned from nothing in {} ms", ms_of(took));
    report.line("table", match took > SLOW_LOAD {
        true => poor(seen, "the first load samples records and looks times up; are the brokers slow, or far away?"),
        false => Good(seen),
    });
    let metadata: Value = serde_json::from_slice(&loaded.metadata).unwrap_or_default();
    schema(&metadata["properties"], report);
    let plan = service.plan_scan(HOTSET, topic.as_str(), None, &everything(None)).await;
    let file = match plan.map(|plan| {
        plan.files.into_iter().max_by_key(|file| (file.file.records, file.file.partition))
    }) {
        Ok(Some(file)) => file.file,
        Ok(None) => {
            report.line("chunk", Good("there is none to try".into()));
            return Ok(());
        }
        Err(error) => {
            report.line("chunk", bad(error, ""));
            return Ok(());
        }
    };
    let key = file
        .uri
        .split_once("//")
        .and_then(|(_, path)| path.split_once('/'))
        .map_or("", |(_, key)| key);
    report.line("chunk", match read(&service, key, file.size).await {
        Err(error) => bad(error, ""),
        Ok(took) => {
            let text = service.metrics_text();
            let stage = |name: &str| {
                let line = format!("isk_chunk_seconds_sum{{stage=\"{name}\"}} ");
                text.lines().find_map(|l| l.strip_prefix(&line)).unwrap_or("?").to_owned()
            };
            let seen = format!(
                "offsets {}:{} and on, {} records at the most, took {} ms to be made (seconds: fetch {}, decode {}, encode {})",
                file.partition.0, file.partition.1, file.records, ms_of(took), stage("fetch"), stage("decode"), stage("encode"),
            );
            match took > SLOW_CHUNK {
                true => poor(seen, "readers wait for that once for each file: prover.topics makes files before they are asked for"),
                false => Good(seen),
            }
        }
    });
    let text = service.metrics_text();
    let failures = text.lines().filter(|line| line.starts_with("isk_decode_failures_total{"));
    let failures: f64 =
        failures.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    report.line(
        "records",
        match failures > 0.0 {
            true => poor(
                format!("{failures} keys or values of that chunk do not decode"),
                format!(
                    "errors.{topic} shows them and why; what the table shows of them says [errors]"
                ),
            ),
            false => Good("all of that chunk decode".into()),
        },
    );
    Ok(())
}

/// What the table's properties say of its schema.
fn schema(properties: &Value, report: &mut Report) {
    let says = |key: &str| properties[key].as_str().unwrap_or_default();
    let (format, origin) = (says("isk.value-format"), says("isk.schema-origin"));
    report.line(
        "schema",
        match (says("isk.schema-refused"), format) {
            ("", "bytes") => poor(
                "nobody says what the values are: they are one column of bytes",
                "register a schema, or name one in [formats]; docs/schemas.md",
            ),
            ("", _) => Good(format!("{format}, by {origin}")),
            (refused, _) => poor(
                format!("the newest version is not shown: {refused}"),
                "an older version is; mend the schema, or see docs/type-mapping.md",
            ),
        },
    );
    for (key, remedy) in [
        (
            "isk.future-dated",
            "such records spoil pruning by time of what lies behind them, until their time has come",
        ),
        (
            "isk.tiered",
            "older segments lie in a remote store: reading them costs more, and the prover leaves them alone",
        ),
    ] {
        if !says(key).is_empty() {
            report.line("log", poor(format!("{key} = {}", says(key)), remedy));
        }
    }
}

fn everything(part: Option<(usize, usize)>) -> ScanRequest {
    ScanRequest {
        snapshot_id: None,
        filter: Filter::Constant(true),
        case_sensitive: true,
        stats_fields: Vec::new(),
        part,
    }
}

async fn read(service: &Service, key: &str, size: u64) -> Result<Duration> {
    let begun = Instant::now();
    // The end of a file is what readers ask for first, and takes the whole chunk to be made.
    let mut bytes = service.read_object(HOTSET, key, None, size.saturating_sub(8)..size).await?;
    while let Some(piece) = bytes.next().await {
        piece?;
    }
    Ok(begun.elapsed())
}

fn ms_of(took: Duration) -> u128 {
    took.as_millis()
}

fn ms(begun: Instant) -> String {
    format!("{} ms", begun.elapsed().as_millis())
}
