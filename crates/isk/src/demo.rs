//! `isk demo`: an embedded broker and registry, sample topics with a live producer, and a SQL engine
//! that queries them through the catalog.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use isk_embedded::{
    BrokerConfig, EmbeddedBroker, EmbeddedRegistry, RegistryConfig, SampleConfig, SampleData,
};
use isk_model::TopicName;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Secret};
use crate::serve::{Server, stop_signal};

/// How long one run of the SQL client may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(120);

/// Options of the demo.
#[derive(Args)]
pub struct Options {
    /// Verify the SQL client's answers against the broker, then exit 0, or not
    #[arg(long)]
    once: bool,
    /// Port of the embedded Kafka broker
    #[arg(long, default_value_t = 9092, env = "ISK_DEMO_KAFKA_PORT")]
    kafka_port: u16,
    /// Port of the embedded schema registry
    #[arg(long, default_value_t = 8081, env = "ISK_DEMO_REGISTRY_PORT")]
    registry_port: u16,
    /// Port of the S3 gateway
    #[arg(long, default_value_t = 11000, env = "ISK_PORT")]
    s3_port: u16,
    /// Port of the Iceberg REST catalog
    #[arg(long, default_value_t = 11001, env = "ISK_CATALOG_PORT")]
    catalog_port: u16,
    /// Transactions produced per second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Transactions there are at the start
    #[arg(long, default_value_t = 20_000)]
    transactions: u32,
    /// SQL client: a program that answers `sql URI` and `counts URI TABLE...`
    #[arg(long, value_name = "PROGRAM")]
    engine: Option<PathBuf>,
    /// Seconds between two queries shown
    #[arg(long, default_value_t = 10)]
    every: u64,
}

/// Runs the demo until Ctrl-C, or once.
pub async fn run(options: Options) -> Result<()> {
    ensure!(
        !options.once || options.engine.is_some(),
        "--once verifies what a SQL client answers: name one with --engine (make demo does)"
    );
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let broker = EmbeddedBroker::start(BrokerConfig {
        listen: loopback(options.kafka_port),
        ..BrokerConfig::default()
    })
    .await
    .context("choose another port with --kafka-port (make demo DEMO_FLAGS=\"--kafka-port N\")")?;
    let registry =
        EmbeddedRegistry::start(RegistryConfig { listen: loopback(options.registry_port) })
            .await
            .context(
            "choose another port with --registry-port (make demo DEMO_FLAGS=\"--registry-port N\")",
        )?;
    let folder = tempfile::tempdir().context("a temporary folder is needed")?;
    let config = config(&options, &broker, &registry, folder.path());
    let server = Server::start(&config).await?;
    let samples = SampleConfig { transactions: options.transactions, ..SampleConfig::default() };
    let data = SampleData::load(&broker, &registry, samples).await?;

    println!("{}", banner(&server, &broker, &registry));
    let stop = CancellationToken::new();
    let live = data.run_live(options.rate, stop.clone());
    let story = async {
        let outcome = if options.once {
            verify_while_live(&options, &server, &data).await
        } else {
            tokio::select! {
                interrupted = stop_signal() => interrupted,
                shown = show_queries(&options, &server) => shown,
            }
        };
        stop.cancel();
        outcome
    };
    let (produced, outcome) = tokio::join!(live, story);
    produced?;
    outcome?;
    if options.once {
        verify(&options, &server, &data.expected(), &data.expected()).await?;
        println!(
            "demo: the SQL client's counts equal the broker's, with and without a live producer"
        );
    }
    server.stop().await;
    registry.shutdown().await;
    broker.shutdown().await;
    Ok(())
}

fn config(
    options: &Options,
    broker: &EmbeddedBroker,
    registry: &EmbeddedRegistry,
    data_dir: &Path,
) -> Config {
    let mut config = Config { data_dir: data_dir.to_owned(), ..Config::default() };
    config.catalog.port = options.catalog_port;
    config.s3.port = options.s3_port;
    config.s3.secret_access_key = Some(Secret::new("isk-demo-secret".into()));
    config.kafka.0.insert("bootstrap.servers".into(), broker.bootstrap().to_string());
    config.registry.url = Some(registry.url());
    config
}

/// Shows a query and its answer again and again.
async fn show_queries(options: &Options, server: &Server) -> Result<()> {
    let Some(engine) = &options.engine else {
        println!("No SQL client was named (--engine): connect one of the above.");
        return std::future::pending().await;
    };
    loop {
        println!("{}", ask(engine, &["sql", &server.catalog_uri]).await?);
        println!("(again in {} s, with what was produced meanwhile; Ctrl-C ends)\n", options.every);
        tokio::time::sleep(Duration::from_secs(options.every)).await;
    }
}

/// While records arrive, a count lies between what was acknowledged before and after it; and it grows.
async fn verify_while_live(options: &Options, server: &Server, data: &SampleData) -> Result<()> {
    let Some(engine) = &options.engine else { bail!("no SQL client") };
    println!("{}", ask(engine, &["sql", &server.catalog_uri]).await?);
    let mut last = None;
    for _ in 0..2 {
        let before = data.expected();
        let counts = verify_between(options, server, &before, data).await?;
        if let Some(last) = last {
            ensure!(counts > last, "the count of transactions did not grow: {last}, then {counts}");
        }
        last = Some(counts);
        wait_for_more(data, counts).await?;
    }
    Ok(())
}

async fn verify_between(
    options: &Options,
    server: &Server,
    before: &BTreeMap<TopicName, u64>,
    data: &SampleData,
) -> Result<u64> {
    let answered = counts(options, server, before).await?;
    check(&answered, before, &data.expected())?;
    Ok(answered.get("transactions").map_or(0, |[count, _]| *count))
}

/// Waits until more than `count` transactions have been acknowledged.
async fn wait_for_more(data: &SampleData, count: u64) -> Result<()> {
    let begun = Instant::now();
    let transactions = || {
        data.expected().iter().find(|(t, _)| t.as_str() == "transactions").map_or(0, |(_, &n)| n)
    };
    while transactions() <= count {
        ensure!(begun.elapsed() < Duration::from_secs(30), "the live producer stands still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn verify(
    options: &Options,
    server: &Server,
    least: &BTreeMap<TopicName, u64>,
    most: &BTreeMap<TopicName, u64>,
) -> Result<()> {
    let answered = counts(options, server, least).await?;
    check(&answered, least, most)?;
    for (topic, [count, _]) in answered {
        println!("  {topic}: {count} rows, {count} records acknowledged");
    }
    Ok(())
}

fn check(
    answered: &BTreeMap<String, [u64; 2]>,
    least: &BTreeMap<TopicName, u64>,
    most: &BTreeMap<TopicName, u64>,
) -> Result<()> {
    for (topic, &least) in least {
        let most = most.get(topic).copied().unwrap_or(least);
        let Some(counts) = answered.get(topic.as_str()) else {
            bail!("the SQL client gave no count of {topic}");
        };
        for count in counts {
            ensure!(
                (least..=most).contains(count),
                "the SQL client counts {count} rows in {topic}; the broker acknowledged {least} to {most}"
            );
        }
    }
    Ok(())
}

async fn counts(
    options: &Options,
    server: &Server,
    topics: &BTreeMap<TopicName, u64>,
) -> Result<BTreeMap<String, [u64; 2]>> {
    let Some(engine) = &options.engine else { bail!("no SQL client") };
    let mut arguments = vec!["counts", server.catalog_uri.as_str()];
    arguments.extend(topics.keys().map(TopicName::as_str));
    let answer = ask(engine, &arguments).await?;
    serde_json::from_str(&answer).with_context(|| format!("the SQL client answered {answer:?}"))
}

/// Runs the SQL client and returns what it printed.
async fn ask(engine: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = tokio::process::Command::new(engine);
    command.args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(QUERY_TIMEOUT, command.output())
        .await
        .with_context(|| format!("{} did not answer in time", engine.display()))?
        .with_context(|| format!("{} cannot be run", engine.display()))?;
    ensure!(
        output.status.success(),
        "{} failed:\n{}",
        engine.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// What to type to join in.
fn banner(server: &Server, broker: &EmbeddedBroker, registry: &EmbeddedRegistry) -> String {
    let (catalog, s3) = (&server.catalog_uri, &server.s3_endpoint);
    let (key, secret) = (&server.credentials.access_key_id, &server.credentials.secret_access_key);
    let (kafka, registry) = (broker.bootstrap(), registry.url());
    format!(
        r#"isk demo: topics customers, accounts, branches and transactions are Iceberg tables.

  Iceberg REST catalog  {catalog}
  S3 gateway            {s3}   (access key {key}, secret {secret})
  Kafka                 {kafka}   (in memory, for trying out: produce with any client)
  Schema registry       {registry}

Connect:
  PyIceberg   from pyiceberg.catalog.rest import RestCatalog
              RestCatalog("isk", uri="{catalog}").load_table("hotset.transactions").scan().to_arrow()
  DuckDB      INSTALL iceberg; LOAD iceberg;
              ATTACH 'demo' AS isk (TYPE iceberg, ENDPOINT '{catalog}', AUTHORIZATION_TYPE 'none');
              SELECT count(*) FROM isk.hotset.transactions;
  Spark       spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.10.1,org.apache.iceberg:iceberg-aws-bundle:1.10.1 \
                --conf spark.sql.catalog.isk=org.apache.iceberg.spark.SparkCatalog \
                --conf spark.sql.catalog.isk.type=rest --conf spark.sql.catalog.isk.uri={catalog} \
                --conf spark.sql.catalog.isk.io-impl=org.apache.iceberg.aws.s3.S3FileIO \
                --conf spark.sql.catalog.isk.cache-enabled=false
  Trino       connector.name=iceberg
              iceberg.catalog.type=rest
              iceberg.rest-catalog.uri={catalog}
              iceberg.rest-catalog.vended-credentials-enabled=true
              fs.native-s3.enabled=true
              s3.endpoint={s3}
              s3.region=us-east-1
              s3.path-style-access=true
  S3          AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret} AWS_REGION=us-east-1 \
                aws --endpoint-url {s3} s3 ls --recursive s3://hotset/transactions/data/
"#
    )
}
