//! The catalog's path: topic → columns → offsets → tick. `tick.rs` makes the metadata files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use isk_kafka::{FetchLimits, TopicDescription};
use isk_model::{KafkaPartition, Offset, OffsetRange, PartitionOffsets, TopicPartition};

use crate::api::{COLDSET, LoadedTable, MERGED, ServiceError, UNMOVED};
use crate::beside::relabelled;
use crate::lineage::TickCuts;
use crate::metrics::add;
use crate::plan::{Inputs, View, render_digest};
use crate::service::Service;
use crate::store::Kind;
use crate::tick::Tick;
use crate::time_index_ask::TopicTimes;
use crate::topic_pin::{SAMPLE_OFFSETS, SAMPLE_PARTITIONS, TopicPin};
use crate::topics::kafka_error;

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
        let begun = Instant::now();
        let topic = self.topics.get(topic).await?;
        let (columns, offsets, cluster_id, settings) = tokio::join!(
            self.schemas.current(&topic.name, topic.id),
            self.offsets(&topic),
            self.kafka.cluster_id(),
            self.topics.settings(&topic.name),
        );
        let (mut columns, mut offsets) = (columns?, offsets?);
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
        let epochs = self.epochs(&topic, &offsets).await?;
        let cleaning = self.cleanings.observe(&topic, settings.compacted, &offsets)?;
        let k = pin.chunk_exponent();
        let times = self.times.observe(&topic, &offsets, k, settings.tiered).await;
        let mut notes = self.notes(&topic, &offsets, &times, settings.tiered);
        notes.extend(self.schemas.notes(&topic.name, &columns));
        // A followed topic ends where it is proven.
        let cuts = match view {
            View::Hot => self.tips.show(&topic, &mut offsets),
            View::Unmoved | View::Merged => BTreeMap::new(),
        };
        let inputs = Inputs {
            notes,
            view,
            cluster_id,
            render: render_digest(&columns, self.renders.profile())?,
            topic,
            table: columns,
            offsets,
            epochs,
            pin,
            max_message_bytes: settings.max_message_bytes,
            cleaning,
            times,
            facts: Arc::clone(&self.facts),
            cuts,
            beside,
            tick_cuts: TickCuts::new(),
        };
        match view {
            View::Hot => self.settle_history(inputs, begun).await,
            View::Unmoved | View::Merged => self.settle(inputs).await,
        }
    }

    /// The topic's last tick if the inputs are the same, else one that follows it.
    async fn settle_history(
        &self,
        inputs: Inputs,
        begun: Instant,
    ) -> Result<Arc<Tick>, ServiceError> {
        let mut history = self.histories.lock(&inputs.topic).await?;
        let Some(known) = history.as_ref() else {
            return Err(ServiceError::Internal("a history that was opened is not there".into()));
        };
        if let Some(tick) = known.since(begun) {
            return Ok(tick);
        }
        let (manifests, metrics) = (Arc::clone(&self.manifests), Arc::clone(&self.metrics));
        let settled = tokio::task::spawn_blocking(move || {
            let Some(history) = history.as_mut() else {
                return Err(ServiceError::Internal("a history vanished".into()));
            };
            let (tick, new) = history.settle(inputs, begun, &manifests)?;
            if new {
                add(&metrics.plans_built, 1);
            }
            Ok(tick)
        });
        settled
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("planning panicked: {e}"))))
    }

    /// What of the topic's log holds readers back, as properties of the table.
    fn notes(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
        times: &TopicTimes,
        tiered: bool,
    ) -> BTreeMap<String, String> {
        let ahead = times.dated_ahead().map(|named| ("isk.future-dated".to_owned(), named));
        let tiered = tiered.then(|| ("isk.tiered".to_owned(), "true".to_owned()));
        let held_back = self.transactions.observe(topic, offsets);
        ahead.into_iter().chain(tiered).chain(held_back).collect()
    }

    /// The log starts and ends of a topic's partitions, asked after this was called. Those who ask at
    /// the same time share an answer.
    pub(crate) async fn offsets(
        &self,
        topic: &TopicDescription,
    ) -> Result<BTreeMap<KafkaPartition, PartitionOffsets>, ServiceError> {
        let key = (topic.name.clone(), topic.partitions.len());
        let ask = || self.kafka.offsets(&topic.name, &topic.partitions);
        self.offset_bursts.ask(key, ask).await.map_err(|e| kafka_error(&e))
    }

    /// The last tick if the inputs are the same, else a new one.
    async fn settle(&self, inputs: Inputs) -> Result<Arc<Tick>, ServiceError> {
        let key = (inputs.view, inputs.topic.name.clone());
        // Files that are not named again are swept away some day.
        let half = self.metadata_retention / 2;
        let last = self.ticks.get(&key).filter(|last| last.age() < half);
        let manifests = Arc::clone(&self.manifests);
        let before = last.clone();
        let settled =
            tokio::task::spawn_blocking(move || Tick::settle(inputs, before.as_ref(), &manifests));
        let tick = settled
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("planning panicked: {e}"))))?;
        if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &tick)) {
            add(&self.metrics.plans_built, 1);
            self.ticks.insert(key, Arc::clone(&tick));
        }
        Ok(tick)
    }

    /// The topic's pin; sampled from a few records when the topic is first seen with some.
    pub(crate) async fn pin(
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

fn pin_key(topic: &TopicDescription) -> String {
    format!("{}/{}", topic.name, topic.id)
}
