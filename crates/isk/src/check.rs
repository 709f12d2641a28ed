//! `isk check`: tries every part of a configuration and says what does not work and why.

use anyhow::{Context, Result, bail};
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use isk_coldset::{ObjectUri, Upstream};
use isk_kafka::KafkaCluster;
use isk_virtual_table::{ErrorPolicy, PartFormat, TopicFilter};

use crate::config::{Config, connections};
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
    report.line(
        "tls",
        connections::tls(config).map(|tls| match tls {
            Some(_) => "its files can be used".to_owned(),
            None => "off: both ports speak plain HTTP".to_owned(),
        }),
    );
    match serve::kafka(config) {
        Err(error) => report.line("kafka", Err(error)),
        Ok(kafka) => {
            report.line("kafka", brokers(&kafka).await);
            report.line("topics", topics(config, &kafka).await);
            report.line("formats", formats(config, &kafka).await);
            report.line("transactions", transactions(config, &kafka).await);
            report.line("errors", errors(config, &kafka).await);
        }
    }
    report.line("registry", registry(config).await);
    match serve::upstream(config) {
        Err(error) => report.line("coldset", Err(error)),
        Ok(None) => report.line("coldset", Ok("none is configured; hotset alone is served".into())),
        Ok(Some(upstream)) => coldset(&mut report, &upstream).await,
    }
    if report.failed > 0 {
        bail!("{} of the checks failed", report.failed);
    }
    Ok(())
}

/// The catalog, its namespace, and the store of one of its tables; what comes behind a failure would
/// fail for the same reason.
async fn coldset(report: &mut Report, upstream: &Upstream) {
    let answers = upstream.ready().await.map_err(Into::into);
    let failed = answers.is_err();
    report.line("coldset catalog", answers.map(|()| "answers".to_owned()));
    if failed {
        return;
    }
    report.line("coldset namespace", namespace(upstream).await);
    match upstream.tables().await {
        Err(error) => report.line("coldset tables", Err(error.into())),
        Ok(tables) => report.line("coldset store", store(upstream, &tables).await),
    }
}

async fn namespace(upstream: &Upstream) -> Result<String> {
    let name = upstream.namespace();
    let path = isk_catalog_http::namespace_path(name);
    let answer = upstream.pass(Method::GET, &path, None, &HeaderMap::new(), Bytes::new()).await?;
    match answer.status() {
        status if status.is_success() => Ok(format!("{name} exists upstream")),
        StatusCode::NOT_FOUND if upstream.is_writable() => {
            Ok(format!("{name} does not exist upstream yet: its first table will make it"))
        }
        StatusCode::NOT_FOUND => bail!(
            "{name} does not exist upstream: create it there, or name another with \
             coldset.namespace (ISK_COLDSET_NAMESPACE)"
        ),
        status => bail!(
            "{name}: the upstream catalog answers with status {status}: {}",
            String::from_utf8_lossy(answer.body()).chars().take(300).collect::<String>()
        ),
    }
}

/// Reads one table's metadata file where the catalog says it lies.
async fn store(upstream: &Upstream, tables: &[String]) -> Result<String> {
    let Some(table) = tables.first() else {
        return Ok("not tried: the namespace has no tables".into());
    };
    let loaded = upstream.load_table(table).await?;
    let uri: ObjectUri = loaded.metadata_location.parse()?;
    let object = upstream.store().head(&uri.bucket, &uri.key).await.with_context(|| {
        format!("the metadata file of table {table} (see coldset.s3.endpoint and its keys)")
    })?;
    let tables = tables.len();
    Ok(format!("bucket {} answers ({table}: {} bytes); {tables} tables", uri.bucket, object.size))
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

/// Where open transactions hold tables back. It is no failure: most end by themselves.
async fn transactions(config: &Config, kafka: &KafkaCluster) -> Result<String> {
    let filter = TopicFilter::new(&config.topics.include, &config.topics.exclude)?;
    let mut held = Vec::new();
    for topic in kafka.topics().await?.iter().filter(|t| !t.internal && filter.serves(&t.name)) {
        // The watermarks first: what arrives in between is not taken for held back.
        let written = kafka.high_watermarks(&topic.name, &topic.partitions).await?;
        for (partition, now) in kafka.offsets(&topic.name, &topic.partitions).await? {
            let behind = written.get(&partition).map_or(0, |end| end.0) - now.last_stable.0;
            if behind > 0 {
                let place = format!("{partition}:{}", now.last_stable);
                held.push(format!("topic {} at {place} ({behind} offsets behind it)", topic.name));
            }
        }
    }
    if held.is_empty() {
        return Ok("none holds a table back".into());
    }
    Ok(format!(
        "open ones hold tables back: {}; those that are there at the next check too may hang: \
         kafka-transactions.sh find-hanging finds them, kafka-transactions.sh abort ends them",
        held.join(", ")
    ))
}

/// The topics whose policy for records that do not decode is another than the default.
async fn errors(config: &Config, kafka: &KafkaCluster) -> Result<String> {
    let filter = TopicFilter::new(&config.topics.include, &config.topics.exclude)?;
    let policies = config.errors.policies()?;
    let mut text = format!("records that do not decode: {}", config.errors.policy);
    let topics = kafka.topics().await?;
    let served = topics.iter().filter(|t| !t.internal && filter.serves(&t.name));
    let names: Vec<_> = served.map(|t| (policies.of(&t.name), t.name.as_str())).collect();
    for policy in [ErrorPolicy::Keep, ErrorPolicy::Skip, ErrorPolicy::Fail] {
        let other = policy.as_str() != config.errors.policy;
        let named: Vec<_> = names.iter().filter(|(of, _)| other && *of == policy).collect();
        if let [(_, first), ..] = named[..] {
            text.push_str(&format!("; {policy}: {} topics, {first} for one", named.len()));
        }
    }
    Ok(text)
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

/// What the configuration says that topics are.
async fn formats(config: &Config, kafka: &KafkaCluster) -> Result<String> {
    let filter = TopicFilter::new(&config.topics.include, &config.topics.exclude)?;
    let formats = crate::formats::formats(config)?;
    let mut named = Vec::new();
    for topic in kafka.topics().await?.iter().filter(|t| !t.internal && filter.serves(&t.name)) {
        let (value, key) = formats.of(&topic.name);
        if (&value, &key) != (&PartFormat::Registry, &PartFormat::Registry) {
            named.push(format!("topic {}: values {value}, keys {key}", topic.name));
        }
    }
    match named.is_empty() {
        true => Ok("all as the registry says".into()),
        false => Ok(format!("{}; all others as the registry says", named.join("; "))),
    }
}

async fn registry(config: &Config) -> Result<String> {
    let Some(registry) = serve::registry(config)? else {
        return Ok("none is configured; values are shown as raw bytes".into());
    };
    // Any subject will do: what is tried is whether the registry answers as one.
    registry.subject_history("isk-check-value").await?;
    Ok(format!("answers at {}", config.registry.url.as_deref().unwrap_or_default()))
}
