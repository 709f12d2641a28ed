//! `isk check`: tries every part of a configuration and says what does not work and why.

use anyhow::{Result, bail};
use isk_kafka::KafkaCluster;
use isk_virtual_table::TopicFilter;

use crate::config::Config;
use crate::serve;

/// Prints a line for each part; fails when one of them does.
pub async fn run(config: &Config) -> Result<()> {
    let mut report = Report::default();
    report.line("data_dir", data_dir(config));
    for (name, port, key) in [
        ("s3.port", config.s3.port, "s3.port (ISK_PORT)"),
        ("catalog.port", config.catalog.port, "catalog.port (ISK_CATALOG_PORT)"),
    ] {
        let bound = serve::bind(config, port, name, key).await;
        report.line(name, bound.map(|_| format!("{}:{port} is free", config.bind)));
    }
    match serve::kafka(config) {
        Err(error) => report.line("kafka", Err(error)),
        Ok(kafka) => {
            report.line("kafka", brokers(&kafka).await);
            report.line("topics", topics(config, &kafka).await);
        }
    }
    report.line("registry", registry(config).await);
    if report.failed > 0 {
        bail!("{} of the checks failed", report.failed);
    }
    Ok(())
}

#[derive(Default)]
struct Report {
    failed: usize,
}

impl Report {
    fn line(&mut self, name: &str, outcome: Result<String>) {
        match outcome {
            Ok(text) => println!("ok    {name}: {text}"),
            Err(error) => {
                self.failed += 1;
                println!("FAIL  {name}: {error:#}");
            }
        }
    }
}

fn data_dir(config: &Config) -> Result<String> {
    let dir = &config.data_dir;
    let probe = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join(".isk-check");
        std::fs::write(&file, b"probe")?;
        std::fs::remove_file(file)
    };
    match probe() {
        Ok(()) => Ok(format!("{} can be written to", dir.display())),
        Err(error) => bail!("{}: {error}; choose another with ISK_DATA_DIR", dir.display()),
    }
}

async fn brokers(kafka: &KafkaCluster) -> Result<String> {
    let id = kafka.cluster_id().await?;
    Ok(format!("cluster {id} answers at {}", kafka.config().bootstrap_servers()))
}

async fn topics(config: &Config, kafka: &KafkaCluster) -> Result<String> {
    let filter = TopicFilter::new(&config.topics.include, &config.topics.exclude)?;
    let all = kafka.topics().await?;
    let served: Vec<_> = all.iter().filter(|t| !t.internal && filter.serves(&t.name)).collect();
    for topic in &served {
        kafka.offsets(&topic.name, &topic.partitions).await?;
    }
    if served.is_empty() {
        bail!(
            "none of the {} topics this principal can see is served: look at topics.include, \
             topics.exclude and the principal's ACLs (DESCRIBE and READ)",
            all.len()
        );
    }
    let partitions: usize = served.iter().map(|t| t.partitions.len()).sum();
    Ok(format!("{} topics with {partitions} partitions are served", served.len()))
}

async fn registry(config: &Config) -> Result<String> {
    let Some(registry) = serve::registry(config)? else {
        return Ok("none is configured; values are shown as raw bytes".into());
    };
    // Any subject will do: what is tried is whether the registry answers as one.
    registry.subject_history("isk-check-value").await?;
    Ok(format!("answers at {}", config.registry.url.as_deref().unwrap_or_default()))
}
