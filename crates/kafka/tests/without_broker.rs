//! What needs no real broker: refused configurations, and librdkafka's mock cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod common;

use std::time::Duration;

use common::{range, read_limited, tp, write, writer};
use isk_kafka::{FetchError, FetchLimits, KafkaCluster, KafkaConfig, KafkaError};
use isk_model::{LeaderEpoch, Offset, TopicName};
use rdkafka::mocking::MockCluster;

fn refused(key: &str, value: &str) -> String {
    let mut config = KafkaConfig::new("127.0.0.1:1");
    config.properties.insert(key.into(), value.into());
    match KafkaCluster::connect(config) {
        Ok(_) => panic!("{key}={value} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn bad_properties_are_named_and_secrets_are_not_told() {
    for (key, value) in [
        ("no.such.property", "1"),
        ("socket.timeout.ms", "soon"),
        ("isolation.level", "read_uncommitted"),
        ("security.protocol", "magic"),
    ] {
        let text = refused(key, value);
        assert!(text.contains(key), "{text}");
    }
    let text = refused("ssl.key.pem", "hunter2\0");
    assert!(text.contains("ssl.key.pem") && !text.contains("hunter2"), "{text}");
    let mut config = KafkaConfig::new("127.0.0.1:1");
    for (key, value) in [("security.protocol", "ssl"), ("ssl.ca.location", "/no/such/file")] {
        config.properties.insert(key.into(), value.into());
    }
    let text = KafkaCluster::connect(config).unwrap_err().to_string();
    assert!(text.contains("ssl.ca.location"), "{text}");
}

#[tokio::test]
async fn no_broker_is_an_error_that_names_the_address_in_time() {
    let mut config = KafkaConfig::new("127.0.0.1:1");
    config.request_timeout = Duration::from_millis(500);
    let cluster = KafkaCluster::connect(config).unwrap();
    for error in [
        cluster.topics().await.map(|_| ()).unwrap_err(),
        cluster.topic(&TopicName::new("t").unwrap()).await.map(|_| ()).unwrap_err(),
        cluster.cluster_id().await.map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, KafkaError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_leader_epoch_inside_the_range_fails_the_fetch() {
    let mock = MockCluster::new(2).unwrap();
    let brokers = mock.bootstrap_servers();
    let topic = TopicName::new("epochs").unwrap();
    mock.create_topic(topic.as_str(), 1, 2).unwrap();
    mock.partition_leader(topic.as_str(), 0, Some(1)).unwrap();
    let tp = tp(&topic, 0);
    let cluster = common::impatient(&brokers);
    let epoch = async || {
        cluster.offsets(&topic, &[tp.partition]).await.unwrap()[&tp.partition].leader_epoch
    };
    write(&writer(&brokers, &[]), &tp, 0, 10);
    let first = cluster.fetch(&tp, range(0, 10), FetchLimits::default()).next().await;
    let before = first.unwrap().unwrap().last_leader_epoch().unwrap();
    mock.partition_leader(topic.as_str(), 0, Some(2)).unwrap();
    write(&writer(&brokers, &[]), &tp, 10, 20);
    let limit = |epoch| FetchLimits { max_epoch: Some(epoch), ..FetchLimits::default() };
    let error = read_limited(&cluster, &tp, range(0, 20), limit(before)).await.unwrap_err();
    assert!(matches!(error, FetchError::LeaderEpochChanged { offset: Offset(10), .. }), "{error}");
    // A record past the range may be of any epoch.
    assert_eq!(read_limited(&cluster, &tp, range(0, 10), limit(before)).await.unwrap().len(), 10);
    let now = LeaderEpoch(before.0 + 1);
    assert_eq!(read_limited(&cluster, &tp, range(0, 20), limit(now)).await.unwrap().len(), 20);
    assert!(epoch().await.0 >= -1);
}
