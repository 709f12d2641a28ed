//! A stream of a topic over a broker in this process: its ticks are read as they come, file by file, while
//! records arrive, chunks fill up, and the service starts anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by failing")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use iceberg::spec::{FormatVersion, Manifest, ManifestContentType, ManifestList, TableMetadata};
use isk_embedded::{BrokerConfig, EmbeddedBroker, ProducedRecord};
use isk_kafka::{KafkaCluster, KafkaConfig};
use isk_model::{DataFileKey, KafkaPartition, ObjectKey, OffsetSet, TopicName};
use isk_virtual_table::{
    DiscoveryConfig, ErrorPolicies, HOTSET, ProverConfig, RoundTimes, Service, ServiceConfig,
    TableMapping, TableRules, TopicFilter, TopicFormats,
};

/// Chunks follow from the records' size: these make them of 64 offsets.
const RECORD: usize = 600 << 10;

const PARTITIONS: i32 = 2;

struct World {
    dir: tempfile::TempDir,
    broker: EmbeddedBroker,
    topic: TopicName,
    produced: u64,
}

impl World {
    async fn new() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let broker = EmbeddedBroker::start(BrokerConfig { listen, ..BrokerConfig::default() });
        let (broker, topic) = (broker.await.unwrap(), TopicName::new("beats").unwrap());
        broker.create_topic(&topic, PARTITIONS, &[("retention.ms", "-1")]).unwrap();
        let mut world = Self { dir: tempfile::tempdir().unwrap(), broker, topic, produced: 0 };
        // One by one: a batch holds no more than a MiB.
        for _ in 0..3 {
            world.produce(1, RECORD);
        }
        world
    }

    /// So many more records in every partition.
    fn produce(&mut self, records: usize, bytes: usize) {
        let value = Some(vec![7; bytes].into());
        let record = ProducedRecord { timestamp_ms: 1, key: None, value };
        for partition in (0..PARTITIONS).map(KafkaPartition) {
            self.broker.append(&self.topic, partition, &vec![record.clone(); records]).unwrap();
            self.produced += records as u64;
        }
    }

    /// Opens the service over what an earlier one has left, once that has let go of it.
    async fn start(&self) -> Service {
        let begun = Instant::now();
        loop {
            let mut kafka = KafkaConfig::default();
            let bootstrap = self.broker.bootstrap().to_string();
            kafka.properties.insert("bootstrap.servers".into(), bootstrap);
            let opened = Service::open(ServiceConfig {
                kafka: KafkaCluster::connect(kafka).unwrap(),
                registry: None,
                topics: TopicFilter::new(&[".*"], &[]).unwrap(),
                formats: TopicFormats::default(),
                discovery: DiscoveryConfig::off(),
                prover: off(),
                coldset: None,
                tables: TableMapping::new::<&str>(&[]).unwrap(),
                errors: ErrorPolicies::default(),
                rules: TableRules::default(),
                data_dir: self.dir.path().to_owned(),
                shared_dir: None,
                cache_bytes: 1 << 30,
                render_concurrency: 2,
                read_ahead: true,
                encoding_memory_bytes: 256 << 20,
                metadata_retention: Duration::from_secs(3600),
                history_keep: Duration::from_secs(600),
                round_times: RoundTimes { hours: 24, days: 30 },
            });
            match opened {
                Ok(service) => return service,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Nothing is proven unasked.
fn off() -> ProverConfig {
    let none = || TopicFilter::new::<&str>(&[], &[]).unwrap();
    ProverConfig {
        enabled: false,
        topics: none(),
        followed: none(),
        bytes_per_second: 1,
        bytes_per_day: None,
        tiered: false,
        sample_ahead: false,
        interval: Duration::from_secs(1),
        follow_interval: Duration::from_secs(1),
    }
}

async fn load(service: &Service) -> TableMetadata {
    let loaded = service.load_table(HOTSET, "beats", None).await.unwrap();
    serde_json::from_slice(&loaded.metadata).unwrap()
}

/// A whole object by its URI.
async fn object(service: &Service, uri: &str) -> Vec<u8> {
    let key = uri.strip_prefix("s3://hotset/").unwrap();
    let size = service.head_object(HOTSET, key, None).await.unwrap().size;
    let read = service.read_object(HOTSET, key, None, 0..size).await.unwrap();
    let pieces: Vec<_> = read.try_collect().await.unwrap();
    let bytes = pieces.concat();
    assert_eq!(bytes.len() as u64, size);
    bytes
}

/// A reader of increments: the last snapshot it has read, and the data files it has come by.
#[derive(Default)]
struct Stream {
    last: Option<i64>,
    files: Vec<DataFileKey>,
}

impl Stream {
    /// Reads what was added since.
    async fn go_on(&mut self, service: &Service) {
        let table = load(service).await;
        let mut new = Vec::new();
        let mut next = table.current_snapshot().cloned();
        while let Some(snapshot) = next.filter(|one| Some(one.snapshot_id()) != self.last) {
            let parent = snapshot.parent_snapshot_id().and_then(|id| table.snapshot_by_id(id));
            assert!(parent.is_some() || self.last.is_none(), "where it was is not known any more");
            next = parent.cloned();
            new.push(snapshot);
        }
        for snapshot in new.into_iter().filter(|one| one.summary().operation.as_str() == "append") {
            let list = object(service, snapshot.manifest_list()).await;
            let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
            let own = |id| id == snapshot.snapshot_id();
            for listed in list.entries().iter().filter(|one| own(one.added_snapshot_id)) {
                if listed.content == ManifestContentType::Data {
                    let manifest = object(service, &listed.manifest_path).await;
                    for entry in Manifest::parse_avro(&manifest).unwrap().entries() {
                        let file = object(service, entry.file_path()).await;
                        assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1"));
                        let path = entry.file_path().strip_prefix("s3://hotset/").unwrap();
                        let Ok(ObjectKey::Data(key)) = path.parse() else { panic!("{path}") };
                        self.files.push(key);
                    }
                }
            }
        }
        self.last = table.current_snapshot_id();
    }

    /// The offsets read; none may have come twice.
    fn offsets(&self) -> u64 {
        let mut all = 0;
        for partition in (0..PARTITIONS).map(KafkaPartition) {
            let mut seen = OffsetSet::new();
            for range in self.files.iter().filter(|f| f.partition == partition).map(|f| f.range) {
                assert_eq!(seen.len_within(range), 0, "{range} of {partition:?} came twice");
                seen.insert_range(range);
            }
            all += seen.len();
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reads_each_record_once() {
    let mut world = World::new().await;
    let mut service = world.start().await;
    let mut stream = Stream::default();
    for step in 0..24usize {
        stream.go_on(&service).await;
        assert_eq!(stream.offsets(), world.produced, "in step {step}");
        if step % 8 == 5 {
            drop(service);
            service = world.start().await;
        }
        world.produce(1 + 11 * (step % 3), 100);
    }
    stream.go_on(&service).await;
    let mut fresh = Stream::default();
    fresh.go_on(&service).await;
    assert_eq!((stream.offsets(), fresh.offsets()), (world.produced, world.produced));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_is_proven_and_older_versions_stay_as_they_were() {
    let mut world = World::new().await;
    let service = world.start().await;
    let mut stream = Stream::default();
    stream.go_on(&service).await;
    world.produce(5, 100);
    stream.go_on(&service).await;
    let before = load(&service).await;
    // All pieces were read, so what the table holds is known exactly.
    let current = before.current_snapshot().unwrap();
    assert_eq!(current.summary().operation.as_str(), "replace");
    let total = current.summary().additional_properties.get("total-records");
    assert_eq!(total, Some(&world.produced.to_string()));
    world.produce(1, 100);
    let after = load(&service).await;
    for snapshot in before.snapshots() {
        assert_eq!(after.snapshot_by_id(snapshot.snapshot_id()), Some(snapshot));
        object(&service, snapshot.manifest_list()).await;
    }
    assert_eq!(load(&service).await.current_snapshot_id(), after.current_snapshot_id());
}
