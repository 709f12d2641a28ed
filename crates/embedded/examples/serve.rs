//! The embedded broker, registry and sample data alone, until Ctrl-C:
//! `cargo run -p isk-embedded --example serve -- [KAFKA_PORT] [REGISTRY_PORT]`.

use std::net::{Ipv4Addr, SocketAddr};

use isk_embedded::{
    BrokerConfig, EmbeddedBroker, EmbeddedRegistry, RegistryConfig, SampleConfig, SampleData,
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    let mut ports = std::env::args().skip(1).map(|port| port.parse::<u16>());
    let mut listen = |default| {
        let port = ports.next().transpose().map(|port| port.unwrap_or(default));
        port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    };
    let config = BrokerConfig { listen: listen(9092)?, ..BrokerConfig::default() };
    let broker = EmbeddedBroker::start(config).await?;
    let registry = EmbeddedRegistry::start(RegistryConfig { listen: listen(8081)? }).await?;
    let data = SampleData::load(&broker, &registry, SampleConfig::default()).await?;
    println!("Kafka {}, registry {}", broker.bootstrap(), registry.url());
    let stop = CancellationToken::new();
    let live = tokio::spawn({
        let (data, stop) = (data.clone(), stop.clone());
        async move { data.run_live(50, stop).await }
    });
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    live.await??;
    for (topic, count) in data.expected() {
        println!("{topic}: {count} records");
    }
    registry.shutdown().await;
    broker.shutdown().await;
    Ok(())
}
