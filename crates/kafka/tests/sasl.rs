//! Against a broker that asks who we are: set `ISK_TEST_SASL_BOOTSTRAP` (SASL/PLAIN without TLS; the
//! users admin/admin-pw, who may do all, and bob/bob-pw, who may do nothing).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use isk_kafka::{FetchError, FetchLimits, KafkaCluster, KafkaConfig, KafkaError};
use isk_model::{KafkaPartition, Offset, OffsetRange, TopicName, TopicPartition};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

fn cluster(brokers: &str, user: &str, password: &str) -> KafkaCluster {
    let mut config = KafkaConfig::new(brokers);
    config.request_timeout = Duration::from_secs(3);
    for (key, value) in properties(user, password) {
        config.properties.insert(key.into(), value.into());
    }
    KafkaCluster::connect(config).unwrap()
}

fn properties<'a>(user: &'a str, password: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("security.protocol", "sasl_plaintext"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", user),
        ("sasl.password", password),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_named_quickly_and_tell_no_password() {
    let brokers = std::env::var("ISK_TEST_SASL_BOOTSTRAP").unwrap_or_default();
    if brokers.is_empty() {
        eprintln!("NOT RUN: this test needs a broker with SASL; set ISK_TEST_SASL_BOOTSTRAP");
        return;
    }
    let topic = TopicName::new("guarded").unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    for (key, value) in properties("admin", "admin-pw") {
        config.set(key, value);
    }
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(topic.as_str(), 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let partition = KafkaPartition(0);
    let tp = TopicPartition { topic: topic.clone(), partition };
    let range = OffsetRange::new(Offset(0), Offset(1)).unwrap();

    let trusted = cluster(&brokers, "admin", "admin-pw");
    assert!(trusted.topic(&topic).await.unwrap().is_some());

    let wrong = cluster(&brokers, "admin", "not-the-password");
    let begun = Instant::now();
    for error in [
        wrong.topics().await.map(|_| ()).unwrap_err(),
        wrong.offsets(&topic, &[partition]).await.map(|_| ()).unwrap_err(),
    ] {
        eprintln!("{error}");
        assert!(matches!(error, KafkaError::Authentication { .. }), "{error}");
        assert!(!format!("{error} {error:?}").contains("not-the-password"));
    }
    let error = wrong.fetch(&tp, range, FetchLimits::default()).next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, FetchError::Kafka { source: KafkaError::Authentication { .. }, .. }),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(15));

    let bob = cluster(&brokers, "bob", "bob-pw");
    assert_eq!(bob.topics().await.unwrap(), []);
    let error = bob.topic(&topic).await.unwrap_err();
    assert!(matches!(error, KafkaError::NotAuthorized { .. }), "{error}");
    let error = bob.topic_config(&topic).await.unwrap_err();
    assert!(matches!(error, KafkaError::NotAuthorized { .. }), "{error}");
    let error = bob.offsets(&topic, &[partition]).await.unwrap_err();
    assert!(matches!(error, KafkaError::NotAuthorized { .. }), "{error}");
    let error = bob.fetch(&tp, range, FetchLimits::default()).next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, FetchError::Kafka { source: KafkaError::NotAuthorized { .. }, .. }),
        "{error}"
    );
}
