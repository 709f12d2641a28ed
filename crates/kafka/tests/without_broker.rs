//! What needs no real broker: refused configurations, and librdkafka's mock cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod common;

use std::time::Duration;

use common::{range, read_limited, tp, write, writer};
use isk_kafka::{FetchError, FetchLimits, FetchPath, KafkaCluster, KafkaConfig, KafkaError};
use isk_model::{LeaderEpoch, Offset, TopicName};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

const PATHS: [FetchPath; 2] = [FetchPath::Batches, FetchPath::Librdkafka];

fn impatient(brokers: &str, path: FetchPath) -> KafkaCluster {
    let mut config = KafkaConfig { fetch_path: path, ..KafkaConfig::new(brokers) };
    config.progress_timeout = Duration::from_secs(2);
    config.request_timeout = Duration::from_secs(5);
    KafkaCluster::connect(config).unwrap()
}

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
    for path in PATHS {
        a_later_leader_epoch_fails(path).await;
    }
}

async fn a_later_leader_epoch_fails(path: FetchPath) {
    let mock = MockCluster::new(2).unwrap();
    let brokers = mock.bootstrap_servers();
    let topic = TopicName::new("epochs").unwrap();
    mock.create_topic(topic.as_str(), 1, 2).unwrap();
    mock.partition_leader(topic.as_str(), 0, Some(1)).unwrap();
    let tp = tp(&topic, 0);
    let cluster = impatient(&brokers, path);
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

#[tokio::test(flavor = "multi_thread")]
async fn passing_errors_are_waited_out() {
    for path in PATHS {
        let mock = MockCluster::new(1).unwrap();
        let brokers = mock.bootstrap_servers();
        let topic = TopicName::new("passing").unwrap();
        mock.create_topic(topic.as_str(), 1, 1).unwrap();
        write(&writer(&brokers, &[]), &tp(&topic, 0), 0, 100);
        let cluster = impatient(&brokers, path);
        mock.request_errors(
            RDKafkaApiKey::Fetch,
            &[
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
            ],
        );
        let rows = common::read(&cluster, &tp(&topic, 0), range(0, 100)).await.unwrap();
        assert_eq!(rows.len(), 100, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_when_its_leader_moves_and_when_its_broker_comes_back() {
    for path in PATHS {
        let mock = MockCluster::new(2).unwrap();
        let brokers = mock.bootstrap_servers();
        let topic = TopicName::new("moving").unwrap();
        mock.create_topic(topic.as_str(), 1, 2).unwrap();
        mock.partition_leader(topic.as_str(), 0, Some(1)).unwrap();
        let tp = tp(&topic, 0);
        let writer = writer(&brokers, &[("batch.size", "5000")]);
        write(&writer, &tp, 0, 20_000);
        let mut config = KafkaConfig { fetch_path: path, ..KafkaConfig::new(&brokers) };
        config.fetch_buffer_bytes = 1 << 20;
        let cluster = KafkaCluster::connect(config).unwrap();
        // The stream holds few blocks, so the fetch waits in the middle of its range.
        let mut stream = cluster.fetch(&tp, range(0, 40_000), FetchLimits::default());
        let mut rows = stream.next().await.unwrap().unwrap().len();
        mock.partition_leader(topic.as_str(), 0, Some(2)).unwrap();
        write(&writer, &tp, 20_000, 30_000);
        rows += stream.next().await.unwrap().unwrap().len();
        mock.broker_down(2).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        mock.broker_up(2).unwrap();
        write(&writer, &tp, 30_000, 40_000);
        let mut next = rows as i64;
        while let Some(block) = stream.next().await {
            for record in block.unwrap().iter() {
                assert_eq!(record.offset.0, next);
                assert_eq!(record.value, Some(common::value_of(next).as_bytes()));
                next += 1;
            }
        }
        assert_eq!(next, 40_000, "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_replica_is_read_from() {
    for path in PATHS {
        let mock = MockCluster::new(2).unwrap();
        let brokers = mock.bootstrap_servers();
        let topic = TopicName::new("near").unwrap();
        mock.create_topic(topic.as_str(), 1, 2).unwrap();
        mock.partition_leader(topic.as_str(), 0, Some(1)).unwrap();
        mock.broker_rack(1, "far").unwrap();
        mock.broker_rack(2, "near").unwrap();
        mock.partition_follower(topic.as_str(), 0, 2).unwrap();
        let tp = tp(&topic, 0);
        write(&writer(&brokers, &[]), &tp, 0, 1_000);
        let mut config = KafkaConfig { fetch_path: path, ..KafkaConfig::new(&brokers) };
        config.properties.insert("client.rack".into(), "near".into());
        let cluster = KafkaCluster::connect(config).unwrap();
        let rows = common::read(&cluster, &tp, range(0, 1_000)).await.unwrap();
        assert_eq!(rows.len(), 1_000, "{path:?}");
    }
}
