//! The prover, followed topics and the cache of encoded files over a broker in this process: what metadata
//! says before anybody reads, and what is left of it after a restart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by failing")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use iceberg::spec::{DataContentType, FormatVersion, Manifest, ManifestList};
use isk_embedded::{BrokerConfig, EmbeddedBroker, ProducedRecord};
use isk_kafka::{KafkaCluster, KafkaConfig};
use isk_model::{KafkaPartition, TopicName};
use isk_virtual_table::{
    DiscoveryConfig, ErrorPolicies, HOTSET, ProverConfig, RoundTimes, Service, ServiceConfig,
    TableMapping, TableRules, TopicFilter, TopicFormats,
};
use tokio::task::JoinHandle;

/// How wide a chunk is follows from the last records: these make it one of 512 offsets.
const FILLERS: usize = 32;
const FILLER: usize = 30 << 10;

const PARTITIONS: i32 = 2;

struct Fixture {
    dir: tempfile::TempDir,
    broker: EmbeddedBroker,
    topic: TopicName,
    total: u64,
}

/// A service, and what works in its background.
struct Running {
    service: Arc<Service>,
    tasks: Vec<JoinHandle<()>>,
}

impl Fixture {
    async fn new() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let broker = EmbeddedBroker::start(BrokerConfig { listen, ..BrokerConfig::default() });
        let (broker, topic) = (broker.await.unwrap(), TopicName::new("beats").unwrap());
        broker.create_topic(&topic, PARTITIONS, &[("retention.ms", "-1")]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut fixture = Self { dir, broker, topic, total: 0 };
        fixture.append(700, 10);
        for _ in 0..FILLERS {
            fixture.append(1, FILLER);
        }
        fixture
    }

    /// So many more records in every partition.
    fn append(&mut self, records: usize, bytes: usize) {
        let value: Vec<u8> = (0..bytes).map(|n| (n * 31 % 251) as u8).collect();
        let record = ProducedRecord { timestamp_ms: 1, key: None, value: Some(value.into()) };
        for partition in 0..PARTITIONS {
            let batch = vec![record.clone(); records];
            self.broker.append(&self.topic, KafkaPartition(partition), &batch).unwrap();
            self.total += records as u64;
        }
    }

    /// Opens the service over what an earlier one has left, once that has let go of it.
    async fn start(&self, prover: ProverConfig) -> Running {
        let begun = Instant::now();
        let service = loop {
            let mut kafka = KafkaConfig::default();
            let bootstrap = self.broker.bootstrap().to_string();
            kafka.properties.insert("bootstrap.servers".into(), bootstrap);
            let opened = Service::open(ServiceConfig {
                kafka: KafkaCluster::connect(kafka).unwrap(),
                registry: None,
                topics: only(&[".*"]),
                formats: TopicFormats::default(),
                discovery: DiscoveryConfig::off(),
                prover: prover.clone(),
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
                Ok(service) => break Arc::new(service),
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(10), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let (proving, following) = (Arc::clone(&service), Arc::clone(&service));
        let tasks = vec![
            tokio::spawn(async move { proving.prove_forever().await }),
            tokio::spawn(async move { following.follow_forever().await }),
        ];
        Running { service, tasks }
    }

    fn cached(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.dir.path().join("cache")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

fn only(patterns: &[&str]) -> TopicFilter {
    TopicFilter::new(patterns, &[]).unwrap()
}

fn off() -> ProverConfig {
    ProverConfig {
        enabled: true,
        topics: only(&[]),
        followed: only(&[]),
        bytes_per_second: 1 << 40,
        bytes_per_day: None,
        tiered: false,
        sample_ahead: false,
        interval: Duration::from_millis(200),
        follow_interval: Duration::from_millis(100),
    }
}

/// What a table's manifests say.
#[derive(Debug)]
struct Planned {
    rows: u64,
    files: Vec<String>,
    deletes: usize,
}

impl Running {
    async fn bytes(&self, key: &str) -> Vec<u8> {
        let info = self.service.head_object(HOTSET, key, None).await.unwrap();
        let stream = self.service.read_object(HOTSET, key, None, 0..info.size).await.unwrap();
        let pieces: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
        pieces.concat()
    }

    async fn planned(&self) -> Planned {
        let key = |uri: &str| uri.strip_prefix("s3://hotset/").unwrap().to_owned();
        let loaded = self.service.load_table(HOTSET, "beats", None).await.unwrap();
        let metadata: serde_json::Value = serde_json::from_slice(&loaded.metadata).unwrap();
        let current = &metadata["current-snapshot-id"];
        let snapshots = metadata["snapshots"].as_array().unwrap();
        let snapshot = snapshots.iter().find(|s| s["snapshot-id"] == *current).unwrap();
        let list = snapshot["manifest-list"].as_str().unwrap();
        let list = self.bytes(&key(list)).await;
        let list = ManifestList::parse_with_version(&list, FormatVersion::V2).unwrap();
        let mut planned = Planned { rows: 0, files: Vec::new(), deletes: 0 };
        for manifest in list.entries() {
            let bytes = self.bytes(&key(&manifest.manifest_path)).await;
            for entry in Manifest::parse_avro(&bytes).unwrap().entries() {
                let file = entry.data_file();
                if file.content_type() == DataContentType::Data {
                    planned.rows += file.record_count();
                    planned.files.push(key(file.file_path()));
                } else {
                    planned.deletes += 1;
                }
            }
        }
        planned
    }

    /// Waits until metadata counts all rows, and nothing stands beside the data.
    async fn proven(&self, rows: u64) -> Planned {
        let begun = Instant::now();
        loop {
            let planned = self.planned().await;
            if planned.deletes == 0 && planned.rows == rows {
                return planned;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{rows} rows: {planned:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.service.metrics_text();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("isk_{name} ")));
        value.unwrap_or_else(|| panic!("no metric {name}")).parse().unwrap()
    }

    async fn stop(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_topic_is_proven_to_its_end_in_few_pieces() {
    let mut fixture = Fixture::new().await;
    let followed = ProverConfig { followed: only(&["beats"]), ..off() };
    let running = fixture.start(followed.clone()).await;
    running.proven(fixture.total).await;
    let mut most = 0;
    for _ in 0..12 {
        fixture.append(100, 10);
        most = most.max(running.proven(fixture.total).await.files.len());
    }
    // 1,932 offsets are four chunks of each partition.
    assert!(most <= 2 * (4 + 8), "{most} files");
    assert!(running.metric("follow_pieces_total") >= 24);
    assert!(running.metric("follow_joins_total") > 0);
    // The chunks that are full are files again.
    let begun = Instant::now();
    while running.planned().await.files.iter().filter(|file| is_whole(file)).count() < 6 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", running.planned().await.files);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.proven(fixture.total).await;
    running.stop().await;

    // After a restart all of it is known, and nothing is encoded again.
    let running = fixture.start(followed).await;
    running.proven(fixture.total).await;
    assert_eq!(running.metric("chunks_rendered_total"), 0);
    running.stop().await;
}

/// Whether a file holds a whole chunk.
fn is_whole(file: &str) -> bool {
    let range = file.rsplit('/').next().unwrap();
    let mut ends = range.split('-').map(|end| end.parse::<u64>().unwrap_or(1));
    let (start, end) = (ends.next().unwrap(), ends.next().unwrap());
    start % 512 == 0 && end - start == 512
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_topic_is_proven_whole_and_a_switch_turns_it_off() {
    let fixture = Fixture::new().await;
    let on = ProverConfig { topics: only(&["beats"]), ..off() };
    for idle in [off(), ProverConfig { enabled: false, ..on.clone() }] {
        let running = fixture.start(idle).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let planned = running.planned().await;
        assert_eq!(planned.deletes, planned.files.len());
        assert_eq!(running.metric("chunks_rendered_total"), 0);
        running.stop().await;
    }
    let running = fixture.start(on).await;
    let planned = running.proven(fixture.total).await;
    assert_eq!(running.metric("prover_chunks_total"), planned.files.len() as u64);
    assert!(running.metric("prover_bytes_total") > (FILLERS * FILLER) as u64);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encoded_files_outlive_a_restart_and_damage_costs_time_only() {
    let fixture = Fixture::new().await;
    let running = fixture.start(off()).await;
    let file = running.planned().await.files.remove(0);
    running.bytes(&file).await;
    // The name with the true size: the same at every plan from now on.
    let file = running.planned().await.files.remove(0);
    let served = running.bytes(&file).await;
    assert_eq!(running.metric("chunks_rendered_total"), 1);
    running.stop().await;

    let running = fixture.start(off()).await;
    assert!(running.bytes(&file).await == served);
    assert_eq!(running.metric("chunks_rendered_total"), 0);
    running.stop().await;

    let [path] = <[PathBuf; 1]>::try_from(fixture.cached()).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let running = fixture.start(off()).await;
    assert!(running.bytes(&file).await == served);
    assert_eq!(running.metric("chunks_rendered_total"), 1);

    // Damage and loss while the file is in use.
    std::fs::write(&path, b"short").unwrap();
    assert!(running.bytes(&file).await == served);
    assert_eq!(running.metric("chunks_rendered_total"), 2);
    std::fs::remove_dir_all(fixture.dir.path().join("cache")).unwrap();
    assert!(running.bytes(&file).await == served);
    running.stop().await;
}
