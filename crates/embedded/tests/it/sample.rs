//! The sample data: what is expected is what a consumer counts.

use std::time::Duration;

use isk_embedded::{SampleConfig, SampleData};
use rdkafka::consumer::Consumer;
use tokio_util::sync::CancellationToken;

use super::clients::{consumer, read_all};
use super::{broker, registry_here, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_counts_what_is_expected() {
    let (broker, registry) = (broker().await, registry_here().await);
    let config = SampleConfig { transactions: 3_000, ..SampleConfig::default() };
    let data = SampleData::load(&broker, &registry, config.clone()).await.unwrap();
    assert_eq!(data.expected()[&topic("transactions")], 3_000);
    let stop = CancellationToken::new();
    let live = tokio::spawn({
        let (data, stop) = (data.clone(), stop.clone());
        async move { data.run_live(500, stop).await }
    });
    let more = async {
        while data.expected()[&topic("transactions")] < 3_100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), more).await.unwrap();
    stop.cancel();
    live.await.unwrap().unwrap();
    for (name, count) in data.expected() {
        let read = read_all(&broker, name.as_str());
        assert_eq!(read.len() as u64, count, "{name}");
        let held: u64 = broker.handle().offsets(&name).values().map(|range| range.span()).sum();
        assert_eq!(held, count, "{name}");
        let mut last = std::collections::BTreeMap::new();
        for record in &read {
            let newest = last.insert(record.partition, record.timestamp);
            assert!(newest <= Some(record.timestamp), "{name}: times in order");
        }
    }
    assert!(broker.handle().offsets(&topic("nobody")).is_empty());
    let again = SampleData::load(&broker, &registry, config).await.unwrap_err();
    assert!(again.to_string().contains("transactions"));
    let metadata = consumer(&broker, "none").fetch_metadata(None, Duration::from_secs(10)).unwrap();
    assert_eq!(metadata.topics().len(), 4);
}
