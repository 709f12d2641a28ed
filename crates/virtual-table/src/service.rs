//! The service behind both HTTP edges: what it is made of, and what the catalog lists.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use iceberg::spec::Manifest;
use isk_coldset::{ColdTable, ColdsetError, Upstream};
use isk_kafka::{KafkaCluster, KafkaError, SchemaRegistry};
use isk_model::{ContentDigest, KafkaPartition, PartitionOffsets, TopicName};

use crate::api::{COLDSET, ERRORS, HOTSET, Listing, MERGED, ServiceError, cold_error};
use crate::bursts::Bursts;
use crate::cache::FileCache;
use crate::cleaning::Cleanings;
use crate::cold_view::ColdView;
use crate::coverage::Coverages;
use crate::coverage_book::Bookcase;
use crate::discovery::{Discovery, DiscoveryConfig};
use crate::epochs::Epochs;
use crate::facts::FactBook;
use crate::formats::TopicFormats;
use crate::histories::Histories;
use crate::layout::Layout;
use crate::listing::{Page, Room};
use crate::manifests::ManifestBook;
use crate::metadata_store::MetadataStore;
use crate::metrics::Metrics;
use crate::open_transactions::OpenTransactions;
use crate::plan::View;
use crate::prover::{Prover, ProverConfig};
use crate::read_ahead::ReadAhead;
use crate::render::Renders;
use crate::round_times::{LoadedTopics, RoundTimes};
use crate::shared_books::SharedBooks;
use crate::shared_names::SharedNames;
use crate::store::Store;
use crate::table_mapping::TableMapping;
use crate::table_rules::TableRules;
use crate::tick::Tick;
use crate::time_index_ask::TimeIndex;
use crate::tips::Tips;
use crate::topic_pin::TopicPin;
use crate::topic_schema::TopicSchemas;
use crate::topics::{TopicFilter, Topics, kafka_error};
use crate::undecoded::ErrorPolicies;

/// How long after its tick a followed topic's end is shown: a tick and the encoding of what is new.
const FRESH: Duration = Duration::from_millis(500);

/// Entries of parsed manifests that are kept for scans planned here: a few tens of MiB.
const PARSED_ENTRIES: u64 = 20_000;

/// Cold tables that are remembered as they were last seen.
const COLD_TABLES: u64 = 1000;

/// What a [`Service`] is made of.
#[derive(Debug)]
pub struct ServiceConfig {
    /// The brokers.
    pub kafka: KafkaCluster,
    /// The schema registry, if there is one.
    pub registry: Option<SchemaRegistry>,
    /// Which topics are served.
    pub topics: TopicFilter,
    /// What their keys and values are, where the registry does not say.
    pub formats: TopicFormats,
    /// What is discovered, where nobody says.
    pub discovery: DiscoveryConfig,
    /// What is encoded without anybody asking for it.
    pub prover: ProverConfig,
    /// The upstream catalog of cold tables, if there is one.
    pub coldset: Option<Upstream>,
    /// Which cold tables the topics are one with.
    pub tables: TableMapping,
    /// What tables show of records that do not decode.
    pub errors: ErrorPolicies,
    /// What holds for some topics only.
    pub rules: TableRules,
    /// Where the store, metadata files and the cache live. One process at a time.
    pub data_dir: PathBuf,
    /// Where metadata files live instead, and what names stand for, when several processes serve together.
    pub shared_dir: Option<PathBuf>,
    /// Encoded files kept on disk, in bytes.
    pub cache_bytes: u64,
    /// Chunks encoded at the same time.
    pub render_concurrency: usize,
    /// Whether the chunk that a reader will ask for next is encoded while the reader is busy.
    pub read_ahead: bool,
    /// What all encodings together hold in memory at the most, in bytes.
    pub encoding_memory_bytes: u64,
    /// How long metadata files that no plan names any more are kept.
    pub metadata_retention: Duration,
    /// How long each tick of a topic is kept as a snapshot that streams can go on from.
    pub history_keep: Duration,
    /// Which round times before the first tick are offered for time travel.
    pub round_times: RoundTimes,
}

/// The offsets of a topic's partitions.
type TopicOffsets = BTreeMap<KafkaPartition, PartitionOffsets>;

/// Topics as tables and objects. Cheap to share behind an `Arc`.
pub struct Service {
    pub(crate) kafka: KafkaCluster,
    pub(crate) topics: Topics,
    pub(crate) coldset: Option<Upstream>,
    pub(crate) tables: TableMapping,
    pub(crate) error_policies: ErrorPolicies,
    pub(crate) rules: TableRules,
    pub(crate) coverages: Arc<Coverages>,
    pub(crate) cold_views: moka::sync::Cache<String, Arc<ColdView>>,
    pub(crate) layouts: moka::sync::Cache<ContentDigest, Arc<Layout>>,
    pub(crate) schemas: Arc<TopicSchemas>,
    /// Held by who samples a topic to find its schema.
    pub(crate) discovering: moka::sync::Cache<TopicName, Arc<tokio::sync::Mutex<()>>>,
    pub(crate) store: Arc<Store>,
    pub(crate) pins: moka::sync::Cache<String, TopicPin>,
    pub(crate) epochs: Epochs,
    pub(crate) times: TimeIndex,
    pub(crate) cleanings: Cleanings,
    pub(crate) transactions: OpenTransactions,
    pub(crate) facts: Arc<FactBook>,
    pub(crate) manifests: Arc<ManifestBook>,
    pub(crate) renders: Arc<Renders>,
    pub(crate) metadata: Arc<MetadataStore>,
    pub(crate) parsed: moka::sync::Cache<String, Arc<Manifest>>,
    pub(crate) histories: Histories,
    pub(crate) loaded_topics: LoadedTopics,
    pub(crate) ticks: moka::sync::Cache<(View, TopicName), Arc<Tick>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) metadata_retention: Duration,
    pub(crate) offset_bursts: Bursts<(TopicName, usize), Result<TopicOffsets, KafkaError>>,
    pub(crate) cold_bursts: Bursts<String, Result<Arc<ColdTable>, ColdsetError>>,
    pub(crate) tips: Tips,
    pub(crate) prover: Prover,
    pub(crate) ahead: ReadAhead,
    pub(crate) sweeping: AtomicBool,
}

impl Service {
    /// Opens the stores below the data directory. Asks nothing of Kafka or the registry.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] names the folder that cannot be used, and why.
    pub fn open(config: ServiceConfig) -> Result<Self, ServiceError> {
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|e| ServiceError::Unavailable {
            what: format!("data_dir {}", data_dir.display()),
            reason: format!("{e}; name a folder that can be written to (ISK_DATA_DIR)"),
        })?;
        let store = Arc::new(Store::open(&data_dir.join("isk.redb"))?);
        let shared_dir = config.shared_dir.as_deref();
        let names = shared_dir.map(SharedNames::open).transpose()?;
        let bookcase = match shared_dir {
            Some(shared_dir) => Bookcase::Shared(SharedBooks::open(shared_dir)?),
            None => Bookcase::Own(Arc::clone(&store)),
        };
        let metadata = Arc::new(MetadataStore::open(shared_dir.unwrap_or(data_dir))?);
        let metrics = Arc::new(Metrics::default());
        let discovery = Discovery::new(config.discovery, Arc::clone(&store));
        let schemas =
            TopicSchemas::new(config.registry, config.formats, discovery, Arc::clone(&store))?;
        let schemas = Arc::new(schemas);
        let kafka = config.kafka;
        let facts = Arc::new(FactBook::new(Arc::clone(&store)).among(names));
        let known = |recipe: &str| facts.get(recipe);
        let cache = FileCache::open(&data_dir.join("cache"), config.cache_bytes, known)?;
        let renders = Renders::new(
            kafka.clone(),
            Arc::clone(&schemas),
            Arc::clone(&metrics),
            Arc::clone(&facts),
            cache,
            config.render_concurrency,
            config.encoding_memory_bytes,
        );
        Ok(Self {
            topics: Topics::new(kafka.clone(), config.topics),
            kafka: kafka.clone(),
            coldset: config.coldset,
            tables: config.tables,
            error_policies: config.errors,
            rules: config.rules,
            coverages: Arc::new(Coverages::new(bookcase)),
            cold_views: moka::sync::Cache::new(COLD_TABLES),
            layouts: moka::sync::Cache::new(10_000),
            schemas,
            discovering: moka::sync::Cache::new(10_000),
            pins: moka::sync::Cache::new(10_000),
            epochs: Epochs::new(Arc::clone(&store)),
            times: TimeIndex::new(kafka.clone(), Arc::clone(&store), Arc::clone(&metrics)),
            cleanings: Cleanings::new(Arc::clone(&store)),
            transactions: OpenTransactions::new(kafka, Arc::clone(&metrics)),
            parsed: moka::sync::Cache::builder()
                .weigher(|_, manifest: &Arc<Manifest>| {
                    u32::try_from(manifest.entries().len()).unwrap_or(u32::MAX)
                })
                .max_capacity(PARSED_ENTRIES)
                .build(),
            facts,
            manifests: Arc::new(ManifestBook::new(
                Arc::clone(&metadata),
                config.metadata_retention,
            )),
            renders: Arc::new(renders),
            metadata,
            offset_bursts: Bursts::new(10_000),
            cold_bursts: Bursts::new(COLD_TABLES),
            tips: Tips::new(Arc::clone(&store), config.prover.follow_interval + FRESH),
            prover: Prover::new(config.prover),
            ahead: ReadAhead::new(config.read_ahead && shared_dir.is_none()),
            histories: Histories::new(Arc::clone(&store), config.history_keep, config.round_times),
            loaded_topics: LoadedTopics::default(),
            store,
            ticks: moka::sync::Cache::new(10_000),
            metrics,
            metadata_retention: config.metadata_retention,
            sweeping: AtomicBool::new(false),
        })
    }

    /// The namespaces of the catalog, sorted.
    pub fn namespaces(&self) -> Vec<String> {
        let all: &[&str] = if self.coldset.is_some() {
            &[COLDSET, ERRORS, HOTSET, MERGED]
        } else {
            &[ERRORS, HOTSET]
        };
        all.iter().map(|&name| name.to_owned()).collect()
    }

    /// The tables of a namespace, sorted by name.
    pub async fn tables(&self, namespace: &str) -> Result<Vec<String>, ServiceError> {
        self.check_namespace(namespace)?;
        let mut tables = Vec::new();
        if [COLDSET, MERGED].contains(&namespace)
            && let Some(coldset) = &self.coldset
        {
            tables = coldset.tables().await.map_err(|e| cold_error(&e))?;
        }
        if namespace != COLDSET {
            let topics = self.topics.names().await?;
            tables.extend(topics.iter().map(|topic| match namespace {
                MERGED => self.tables.table_of(topic),
                _ => topic.to_string(),
            }));
            if namespace == HOTSET {
                tables.extend(self.type_tables(&topics).await);
            }
        }
        tables.sort_unstable();
        tables.dedup();
        Ok(tables)
    }

    /// The tables of one type of record each of those topics that list them. A topic whose schemas nobody tells of
    /// now lists none.
    async fn type_tables(&self, topics: &[TopicName]) -> Vec<String> {
        let mut tables = Vec::new();
        for topic in topics.iter().filter(|topic| self.schemas.lists_types(topic)) {
            let columns = async {
                let topic = self.topics.get(topic.as_str()).await?;
                self.columns(&View::Hot, &topic).await
            };
            match columns.await {
                Ok(table) => tables.extend(
                    table.record_kinds().iter().map(|kind| format!("{topic}${}", kind.column)),
                ),
                Err(error) => tracing::warn!(%topic, %error, "its types of record are not listed"),
            }
        }
        tables
    }

    /// Whether a table exists; asks for no offsets.
    pub async fn table_exists(&self, namespace: &str, table: &str) -> Result<(), ServiceError> {
        self.check_namespace(namespace)?;
        if [HOTSET, ERRORS].contains(&namespace) {
            let topic = self.topics.get(self.topic_of_table(namespace, table)).await?;
            return match self.hot_table(table) {
                (view @ View::Type(_), _) if namespace == HOTSET => {
                    self.columns(&view, &topic).await.map(|_| ())
                }
                _ => Ok(()),
            };
        }
        if namespace == MERGED && self.topic_of(table).await?.is_some() {
            return Ok(());
        }
        let missing =
            || ServiceError::NoSuchTable { namespace: namespace.into(), table: table.into() };
        let coldset = self.coldset.as_ref().ok_or_else(missing)?;
        match coldset.table_exists(table).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(missing()),
            Err(error) => Err(cold_error(&error)),
        }
    }

    pub(crate) fn check_namespace(&self, namespace: &str) -> Result<(), ServiceError> {
        if self.namespaces().iter().any(|known| known == namespace) {
            Ok(())
        } else {
            Err(ServiceError::NoSuchNamespace(namespace.to_owned()))
        }
    }

    /// The buckets of virtual objects, sorted.
    pub fn buckets(&self) -> Vec<String> {
        self.namespaces().into_iter().filter(|name| name != COLDSET).collect()
    }

    /// The view whose objects a bucket holds.
    pub(crate) fn view_of(&self, bucket: &str) -> Result<View, ServiceError> {
        match bucket {
            HOTSET => Ok(View::Hot),
            ERRORS => Ok(View::Errors),
            MERGED if self.coldset.is_some() => Ok(View::Merged),
            _ => Err(ServiceError::NoSuchNamespace(bucket.to_owned())),
        }
    }

    /// The objects whose keys begin with `prefix` and sort behind `after`, at most `limit` entries
    /// (objects and common prefixes together).
    pub async fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, ServiceError> {
        let view = self.view_of(bucket)?;
        let mut folders: Vec<String> =
            self.topics.names().await?.iter().map(|name| format!("{name}/")).collect();
        // In the order of keys: "a-b/" sorts before "a/".
        folders.sort_unstable();
        let mut page = Page::new(prefix, delimiter, after, limit);
        let mut room = Room::More;
        for folder in folders.iter().filter(|folder| page.may_hold(folder)).collect::<Vec<_>>() {
            room = match page.group_of(folder) {
                // All of the topic's objects are one group: no need to plan it.
                Some(group) => page.push_group(group),
                None => self.list_topic(view.clone(), &mut page, folder, prefix).await?,
            };
            if room == Room::Full {
                break;
            }
        }
        Ok(page.finish(room))
    }

    async fn list_topic(
        &self,
        view: View,
        page: &mut Page<'_>,
        folder: &str,
        prefix: &str,
    ) -> Result<Room, ServiceError> {
        let tick = match self.tick(view, folder.trim_end_matches('/')).await {
            Ok(tick) => tick,
            // Without a cold table, the merged one is the hot one, whose objects are the hotset's.
            Err(ServiceError::NoSuchTable { namespace, .. }) if namespace == COLDSET => {
                return Ok(Room::More);
            }
            // One topic that cannot be shown does not hide the others.
            Err(error @ (ServiceError::Unsupported { .. } | ServiceError::NoSuchTable { .. }))
                if !prefix.starts_with(folder) =>
            {
                tracing::warn!(folder, %error, "left out of a listing");
                return Ok(Room::More);
            }
            Err(error) => return Err(error),
        };
        let listed = Arc::clone(&tick);
        // Naming all files of a large topic takes its time.
        let _ = tokio::task::spawn_blocking(move || listed.objects().len()).await;
        for object in tick.objects() {
            if page.push(object) == Room::Full {
                return Ok(Room::Full);
            }
        }
        Ok(Room::More)
    }

    /// Whether Kafka answers: what `/readyz` says.
    pub async fn ready(&self) -> Result<(), ServiceError> {
        self.kafka.cluster_id().await.map(|_| ()).map_err(|e| kafka_error(&e))
    }

    /// Counters and gauges in the Prometheus text format.
    pub fn metrics_text(&self) -> String {
        let kafka = self.kafka.metrics().snapshot();
        let served = self.metrics.render(&kafka, self.renders.cached_bytes());
        served + &self.prover.render(self.tips.age())
    }
}
