//! The catalog's path: topic → columns → offsets → plan → metadata files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use isk_iceberg_table::TablePlan;
use isk_kafka::{FetchLimits, TopicDescription};
use isk_model::{KafkaPartition, ObjectKey, Offset, OffsetRange, PartitionOffsets, TopicPartition};

use crate::api::{ListedObject, LoadedTable, ServiceError};
use crate::metrics::add;
use crate::plan::{Inputs, location, plan, render_digest, uri};
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
        Ok(self.tick(table).await?.loaded.clone())
    }

    /// Plans the topic anew, or finds that nothing changed since the last plan.
    pub(crate) async fn tick(&self, table: &str) -> Result<Arc<Tick>, ServiceError> {
        add(&self.metrics.tables_loaded, 1);
        let topic = self.topics.get(table).await?;
        let (columns, offsets, cluster_id, settings) = tokio::join!(
            self.schemas.current(&topic.name, topic.id),
            self.kafka.offsets(&topic.name, &topic.partitions),
            self.kafka.cluster_id(),
            self.topics.settings(&topic.name),
        );
        let (columns, offsets) = (columns?, offsets.map_err(|e| kafka_error(&e))?);
        let cluster_id = cluster_id.map_err(|e| kafka_error(&e))?;
        let pin = self.pin(&topic, &offsets).await?;
        let epochs = self.epochs.observe(&topic, &offsets)?;
        let planned = plan(
            &Inputs {
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
            },
            now_ms() - BACKDATED_MS,
        );
        match self.ticks.get(&topic.name) {
            Some(last) if same_snapshot(&last.plan, &planned) => Ok(last),
            _ => self.publish(&topic, planned).await,
        }
    }

    /// Builds the plan's metadata files and keeps them.
    async fn publish(
        &self,
        topic: &Arc<TopicDescription>,
        planned: TablePlan,
    ) -> Result<Arc<Tick>, ServiceError> {
        add(&self.metrics.plans_built, 1);
        let (topic, metadata) = (Arc::clone(topic), Arc::clone(&self.metadata));
        let name = topic.name.clone();
        let built = tokio::task::spawn_blocking(move || {
            let files = isk_iceberg_table::build(&planned).map_err(|e| {
                ServiceError::Internal(format!("the metadata of {} : {e}", topic.name))
            })?;
            let mut objects = Vec::new();
            let metadata_files = [&files.metadata, &files.manifest_list];
            for file in metadata_files.into_iter().chain(&files.manifests) {
                metadata.put(&topic.name, &file.name, &file.bytes)?;
                let key = metadata_key(&topic, &file.name);
                let info = constant_info(&key, file.bytes.len() as u64);
                objects.push(ListedObject { key: key.to_string(), info });
            }
            for file in &planned.files {
                let uris = [Some(file.data_uri.as_str()), file.evidence.delete_uri()];
                for key in uris.into_iter().flatten().filter_map(key_of) {
                    let info = info_of(&key);
                    objects.extend(info.map(|info| ListedObject { key: key.to_string(), info }));
                }
            }
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            let loaded = LoadedTable {
                metadata_location: uri(&metadata_key(&topic, &files.metadata.name)),
                metadata: files.metadata.bytes.clone(),
                location: location(&topic.name),
            };
            Ok::<_, ServiceError>(Arc::new(Tick { plan: planned, loaded, objects }))
        });
        let tick = built
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("planning panicked: {e}"))))?;
        self.ticks.insert(name, Arc::clone(&tick));
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
