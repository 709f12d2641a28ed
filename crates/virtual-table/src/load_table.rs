//! The catalog's path: topic → columns → offsets → plan → metadata files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use isk_iceberg_table::{BuildError, TablePlan};
use isk_kafka::{FetchLimits, TopicDescription};
use isk_model::{KafkaPartition, ObjectKey, Offset, OffsetRange, PartitionOffsets, TopicPartition};

use crate::api::{COLDSET, ListedObject, LoadedTable, MERGED, ServiceError, UNMOVED};
use crate::beside::{Attachment, relabelled};
use crate::metadata_store::MetadataStore;
use crate::metrics::add;
use crate::plan::{Inputs, Planned, View, location, plan, render_digest, uri};
use crate::read_object::{constant_info, info_of};
use crate::service::Service;
use crate::store::Kind;
use crate::topic_pin::{SAMPLE_OFFSETS, SAMPLE_PARTITIONS, TopicPin};
use crate::topics::kafka_error;

/// By how many milliseconds a snapshot's timestamp lies before the moment it was planned at.
///
/// DuckDB up to 1.5 reads a table as of its transaction's start, and refuses one whose only snapshot
/// is younger; a query's own start is always a little before its `loadTable`, and clocks differ.
const BACKDATED_MS: i64 = 60_000;

/// The last plan of a topic, and what came of it. The same plan is the same snapshot.
pub(crate) struct Tick {
    plan: TablePlan,
    made: Instant,
    pub(crate) loaded: LoadedTable,
    /// All objects of the snapshot, sorted by key.
    pub(crate) objects: Vec<ListedObject>,
}

impl Service {
    /// The table as it is at this moment.
    pub async fn load_table(
        &self,
        namespace: &str,
        table: &str,
    ) -> Result<LoadedTable, ServiceError> {
        self.check_namespace(namespace)?;
        match namespace {
            COLDSET => self.load_cold(COLDSET, table).await,
            MERGED => self.load_merged(table).await,
            _ => {
                let (view, topic) = hot_table(table);
                Ok(self.tick(view, topic).await?.loaded.clone())
            }
        }
    }

    /// A topic and its cold table; either alone where there is no other.
    async fn load_merged(&self, table: &str) -> Result<LoadedTable, ServiceError> {
        let Some(topic) = self.topic_of(table).await? else {
            return self.load_cold(MERGED, table).await;
        };
        match self.tick(View::Merged, topic.as_str()).await {
            Err(ServiceError::NoSuchTable { namespace, .. }) if namespace == COLDSET => {
                Ok(self.tick(View::Hot, topic.as_str()).await?.loaded.clone())
            }
            tick => Ok(tick?.loaded.clone()),
        }
    }

    /// A view of a topic, planned anew, or found not to have changed since the last plan.
    pub(crate) async fn tick(&self, view: View, topic: &str) -> Result<Arc<Tick>, ServiceError> {
        add(&self.metrics.tables_loaded, 1);
        let topic = self.topics.get(topic).await?;
        let (columns, offsets, cluster_id, settings) = tokio::join!(
            self.schemas.current(&topic.name, topic.id),
            self.kafka.offsets(&topic.name, &topic.partitions),
            self.kafka.cluster_id(),
            self.topics.settings(&topic.name),
        );
        let (mut columns, mut offsets) = (columns?, offsets.map_err(|e| kafka_error(&e))?);
        let cluster_id = cluster_id.map_err(|e| kafka_error(&e))?;
        let beside = match view {
            View::Hot => None,
            // Behind the offsets: what moved and left Kafka in between must be in one of the two.
            View::Unmoved | View::Merged => {
                self.beside(view, &topic, &columns, &mut offsets).await?
            }
        };
        if let Some(merged) = beside.as_ref().and_then(|beside| beside.merged.as_ref()) {
            let file = self.layout(&topic.name, &merged.layout)?;
            columns = Arc::new(relabelled(&columns, file));
        }
        let pin = self.pin(&topic, &offsets).await?;
        let epochs = self.epochs.observe(&topic, &offsets)?;
        let planned = plan(
            &Inputs {
                view,
                cluster_id: &cluster_id,
                topic: &topic,
                table: &columns,
                render: render_digest(&columns, self.renders.profile())?,
                offsets: &offsets,
                epochs: &epochs,
                pin,
                max_message_bytes: settings.max_message_bytes,
                compacted: settings.compacted,
                facts: &self.facts,
                beside: beside.as_ref(),
            },
            now_ms() - BACKDATED_MS,
        );
        match self.ticks.get(&(view, topic.name.clone())) {
            // Files that are not named again are swept away some day.
            Some(last)
                if last.made.elapsed() < self.metadata_retention / 2
                    && same_snapshot(&last.plan, &planned.table) =>
            {
                Ok(last)
            }
            _ => self.publish(view, &topic, planned).await,
        }
    }

    /// Builds the plan's metadata files and keeps them.
    async fn publish(
        &self,
        view: View,
        topic: &Arc<TopicDescription>,
        planned: Planned,
    ) -> Result<Arc<Tick>, ServiceError> {
        add(&self.metrics.plans_built, 1);
        let (topic, metadata) = (Arc::clone(topic), Arc::clone(&self.metadata));
        let name = topic.name.clone();
        let built = tokio::task::spawn_blocking(move || {
            for Attachment { name, bytes, .. } in &planned.attachments {
                metadata.put(&topic.name, name, bytes)?;
            }
            publish(view, &topic, planned.table, &metadata)
        });
        let tick = built
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("planning panicked: {e}"))))?;
        self.ticks.insert((view, name), Arc::clone(&tick));
        Ok(tick)
    }

    /// The topic's pin; sampled from a few records when the topic is first seen with some.
    async fn pin(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<TopicPin, ServiceError> {
        let key = pin_key(topic);
        if let Some(pin) = self.pins.get(&key) {
            return Ok(pin);
        }
        let kept = match self.store.get::<TopicPin>(Kind::TopicPin, &key)? {
            Some(pin) => Some(pin),
            None => self.sample(topic, offsets).await?,
        };
        let Some(pin) = kept else { return Ok(TopicPin::guess()) };
        self.keep_pin(topic, pin)?;
        Ok(pin)
    }

    /// Pins a topic.
    pub(crate) fn keep_pin(
        &self,
        topic: &TopicDescription,
        pin: TopicPin,
    ) -> Result<(), ServiceError> {
        let key = pin_key(topic);
        self.store.put(Kind::TopicPin, &key, &pin)?;
        self.pins.insert(key, pin);
        Ok(())
    }

    /// The pin as it stands, if the topic has one.
    pub(crate) fn pinned(&self, topic: &TopicDescription) -> Option<TopicPin> {
        self.pins.get(&pin_key(topic))
    }

    /// Reads the last few records of the longest partitions. `None` when there are none.
    async fn sample(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<Option<TopicPin>, ServiceError> {
        let mut longest: Vec<(KafkaPartition, OffsetRange)> =
            offsets.iter().filter_map(|(&p, o)| Some((p, o.readable()?))).collect();
        longest.sort_by_key(|(_, range)| std::cmp::Reverse(range.span()));
        let (mut records, mut bytes) = (0, 0);
        for (partition, range) in longest.into_iter().take(SAMPLE_PARTITIONS) {
            let start = Offset(range.start().0.max(range.end().0 - SAMPLE_OFFSETS));
            let Some(tail) = OffsetRange::new(start, range.end()) else { continue };
            let tp = TopicPartition { topic: topic.name.clone(), partition };
            let mut blocks = self.kafka.fetch(&tp, tail, FetchLimits::default());
            while let Some(block) = blocks.next().await {
                let block = block.map_err(|e| ServiceError::Unavailable {
                    what: "Kafka".into(),
                    reason: format!("sampling the size of records: {e}"),
                })?;
                records += block.len() as u64;
                bytes += block.payload_bytes() as u64;
            }
        }
        Ok((records > 0).then(|| TopicPin::new(bytes.div_ceil(records))))
    }
}

/// Builds a plan's metadata files and puts them into the store.
fn publish(
    view: View,
    topic: &TopicDescription,
    plan: TablePlan,
    metadata: &MetadataStore,
) -> Result<Arc<Tick>, ServiceError> {
    let files = isk_iceberg_table::build(&plan).map_err(|e| match e {
        BuildError::Cold(_) => ServiceError::Unsupported {
            what: format!("the merged table of topic {}", topic.name),
            reason: e.to_string(),
        },
        e => ServiceError::Internal(format!("the metadata of {}: {e}", topic.name)),
    })?;
    let mut objects = Vec::new();
    let metadata_files = [&files.metadata, &files.manifest_list];
    for file in metadata_files.into_iter().chain(&files.manifests) {
        metadata.put(&topic.name, &file.name, &file.bytes)?;
        let key = metadata_key(topic, &file.name);
        let info = constant_info(&key, file.bytes.len() as u64);
        objects.push(ListedObject { key: key.to_string(), info });
    }
    for file in &plan.files {
        let uris = [Some(file.data_uri.as_str()), file.evidence.delete_uri()];
        for key in uris.into_iter().flatten().filter_map(key_of) {
            let info = info_of(&key);
            objects.extend(info.map(|info| ListedObject { key: key.to_string(), info }));
        }
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    let location = location(view, &topic.name);
    let mut credential_prefixes = vec![location.clone()];
    let cold = plan.cold.as_ref().and_then(|cold| cold.metadata.get("location")?.as_str());
    credential_prefixes.extend(cold.map(bucket_of));
    let loaded = LoadedTable {
        metadata_location: uri(view.bucket(), &metadata_key(topic, &files.metadata.name)),
        metadata: files.metadata.bytes.clone(),
        location,
        credential_prefixes,
    };
    Ok(Arc::new(Tick { plan, made: Instant::now(), loaded, objects }))
}

/// The view and the topic that a table of the hotset's is.
pub(crate) fn hot_table(table: &str) -> (View, &str) {
    match table.strip_suffix(UNMOVED) {
        Some(topic) => (View::Unmoved, topic),
        None => (View::Hot, table),
    }
}

/// `s3://bucket/` of a URI: a cold table's files may lie anywhere in its bucket.
pub(crate) fn bucket_of(uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}/", rest.split('/').next().unwrap_or_default())
        }
        None => uri.to_owned(),
    }
}

/// Two plans are one snapshot when they differ in nothing but the moment they were made.
fn same_snapshot(a: &TablePlan, b: &TablePlan) -> bool {
    *a == TablePlan { timestamp_ms: a.timestamp_ms, ..b.clone() }
}

fn pin_key(topic: &TopicDescription) -> String {
    format!("{}/{}", topic.name, topic.id)
}

fn metadata_key(topic: &TopicDescription, file: &str) -> ObjectKey {
    ObjectKey::Metadata { topic: topic.name.clone(), file: file.to_owned() }
}

fn key_of(uri: &str) -> Option<ObjectKey> {
    uri.strip_prefix("s3://")?.split_once('/')?.1.parse().ok()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
