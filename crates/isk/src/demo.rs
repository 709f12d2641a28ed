//! `isk demo`: an embedded broker, registry and lake, sample topics with a live producer, and a SQL
//! engine that queries them through the catalog and moves rows from hot to cold.

mod banner;
mod engine;
mod verify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use isk_embedded::{
    BrokerConfig, EmbeddedBroker, EmbeddedLake, EmbeddedRegistry, LakeConfig, RegistryConfig,
    SampleConfig, SampleData,
};
use isk_model::TopicName;
use tokio_util::sync::CancellationToken;

use self::engine::Engine;
use crate::config::{Config, Secret};
use crate::serve::{Server, stop_signal};

/// The topic whose rows are moved.
const TOPIC: &str = "transactions";

/// Which rows the moves take of those that are not moved yet: the old ones, then all.
const MOVES: [&str; 2] = ["kafka_timestamp < now() - INTERVAL 1 DAY", ""];

/// Queries are shown so many times from one move to the next.
const SHOWN_PER_MOVE: usize = 6;

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
    /// Port of the embedded lake: the catalog and the object store of cold tables
    #[arg(long, default_value_t = 8181, env = "ISK_DEMO_LAKE_PORT")]
    lake_port: u16,
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
    /// SQL client: a program that takes the commands of deploy/demo/query.py
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
    let folder = tempfile::tempdir().context("a temporary folder is needed")?;
    let services = Services::start(&options, folder.path()).await?;
    let server = Server::start(&services.config(&options, folder.path()), Arc::default()).await?;
    let samples = SampleConfig { transactions: options.transactions, ..SampleConfig::default() };
    let data = SampleData::load(&services.broker, &services.registry, samples).await?;
    let engine = options.engine.clone().map(|program| Engine {
        program,
        catalog: server.catalog_uri.clone(),
        lake: services.lake.uri(),
    });

    println!("{}", banner::text(&server, &services));
    let stop = CancellationToken::new();
    let live = data.run_live(options.rate, stop.clone());
    let story = async {
        let outcome = match &engine {
            None => {
                println!("No SQL client was named (--engine): connect one of the above.");
                stop_signal().await
            }
            Some(engine) if options.once => {
                verify::while_live(engine, &services.broker, &data).await
            }
            Some(engine) => tokio::select! {
                interrupted = stop_signal() => interrupted,
                shown = show(engine, &services.broker, options.every) => shown,
            },
        };
        stop.cancel();
        outcome
    };
    let (produced, outcome) = tokio::join!(live, story);
    produced?;
    outcome?;
    if let Some(engine) = engine.filter(|_| options.once) {
        verify::at_rest(&engine, &data).await?;
        println!(
            "demo: the SQL client's counts equal the broker's, with and without a live producer; \
             moves from hot to cold changed no row of merged"
        );
    }
    server.stop().await;
    services.shutdown().await;
    Ok(())
}

/// What stands around ISK: a broker, a registry and a lake.
struct Services {
    broker: EmbeddedBroker,
    registry: EmbeddedRegistry,
    lake: EmbeddedLake,
}

impl Services {
    async fn start(options: &Options, folder: &Path) -> Result<Self> {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let other = |flag| {
            move || format!("choose another port with {flag} (make demo DEMO_FLAGS=\"{flag} N\")")
        };
        let broker = BrokerConfig { listen: loopback(options.kafka_port), ..Default::default() };
        let broker = EmbeddedBroker::start(broker).await.with_context(other("--kafka-port"))?;
        let registry = RegistryConfig { listen: loopback(options.registry_port) };
        let registry =
            EmbeddedRegistry::start(registry).await.with_context(other("--registry-port"))?;
        let files = folder.join("lake");
        std::fs::create_dir(&files).context("a temporary folder is needed")?;
        let lake = LakeConfig { listen: loopback(options.lake_port), ..LakeConfig::new(files) };
        let lake = EmbeddedLake::start(lake).await.with_context(other("--lake-port"))?;
        Ok(Self { broker, registry, lake })
    }

    fn config(&self, options: &Options, folder: &Path) -> Config {
        let mut config = Config { data_dir: folder.join("isk"), ..Config::default() };
        config.catalog.port = options.catalog_port;
        config.s3.port = options.s3_port;
        config.s3.secret_access_key = Some(Secret::new("isk-demo-secret".into()));
        config.kafka.0.insert("bootstrap.servers".into(), self.broker.bootstrap().to_string());
        config.registry.url = Some(self.registry.url());
        for (key, value) in [
            ("uri", self.lake.uri().as_str()),
            ("writable", "true"),
            ("s3.endpoint", self.lake.uri().as_str()),
            ("s3.region", self.lake.region()),
            ("s3.access-key-id", self.lake.access_key_id()),
            ("s3.secret-access-key", self.lake.secret_access_key()),
        ] {
            config.coldset.0.insert(key.into(), value.into());
        }
        config
    }

    async fn shutdown(self) {
        self.lake.shutdown().await;
        self.registry.shutdown().await;
        self.broker.shutdown().await;
    }
}

/// Shows queries and their answers again and again, and a move now and then.
async fn show(engine: &Engine, broker: &EmbeddedBroker, every: u64) -> Result<()> {
    let topic = TopicName::new(TOPIC)?;
    println!("{}\n", engine.create_cold(TOPIC).await?);
    let mut moves = MOVES.iter();
    for round in 0usize.. {
        if round.is_multiple_of(SHOWN_PER_MOVE) {
            let filter = moves.next().unwrap_or(&"");
            let ends = broker.handle().offsets(&topic);
            println!("{}\n", engine.move_to_cold(TOPIC, &ends, filter).await?);
        }
        println!("{}", engine.analysis().await?);
        println!(
            "(hotset and merged are counted a moment apart; again in {every} s, with what was produced \
             meanwhile; Ctrl-C ends)\n"
        );
        tokio::time::sleep(Duration::from_secs(every)).await;
    }
    Ok(())
}
