//! The embedded services, tried through their ports.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by failing")]

mod clients;
mod lake;
mod protocol;
mod registry;
mod sample;
mod signer;

use std::net::{Ipv4Addr, SocketAddr};

use isk_embedded::{BrokerConfig, EmbeddedBroker, EmbeddedRegistry, RegistryConfig};
use isk_model::TopicName;
use isk_outbound::Authorities;

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

async fn broker_with(change: impl FnOnce(&mut BrokerConfig)) -> EmbeddedBroker {
    let mut config = BrokerConfig { listen: any_port(), ..BrokerConfig::default() };
    change(&mut config);
    EmbeddedBroker::start(config).await.unwrap()
}

async fn broker() -> EmbeddedBroker {
    broker_with(|_| ()).await
}

async fn registry_here() -> EmbeddedRegistry {
    EmbeddedRegistry::start(RegistryConfig { listen: any_port() }).await.unwrap()
}

fn http_client() -> reqwest::Client {
    Authorities::new(None).unwrap().client().unwrap().build().unwrap()
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_purpose_and_the_remedy() {
    let first = broker().await;
    let config = BrokerConfig { listen: first.bootstrap(), ..BrokerConfig::default() };
    let text = EmbeddedBroker::start(config).await.unwrap_err().to_string();
    let port = first.bootstrap().port().to_string();
    for part in [port.as_str(), "Kafka broker", "another port"] {
        assert!(text.contains(part), "{text}");
    }
    let text = EmbeddedRegistry::start(RegistryConfig { listen: first.bootstrap() }).await;
    assert!(text.unwrap_err().to_string().contains("schema registry"));
    first.shutdown().await;
}

#[tokio::test]
async fn a_port_is_free_again_after_shutdown() {
    let first = broker().await;
    let listen = first.bootstrap();
    // An open connection does not hold it up.
    let _idle = tokio::net::TcpStream::connect(listen).await.unwrap();
    first.shutdown().await;
    let config = BrokerConfig { listen, ..BrokerConfig::default() };
    EmbeddedBroker::start(config).await.unwrap().shutdown().await;
}
