//! The catalog's path: topic → columns → offsets → tick. `tick.rs` makes the metadata files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isk_kafka::TopicDescription;
use isk_model::{ColumnRules, KafkaPartition, PartitionOffsets};
use isk_schema::TableSchema;
use isk_traces::{Instrument, Span, count, span};
use tokio::sync::watch;
use tracing::field::Empty;

use crate::api::{COLDSET, ERRORS, HOTSET, LoadedTable, MERGED, ServiceError};
use crate::beside::relabelled;
use crate::lineage::{Ends, TickCuts};
use crate::metrics::add;
use crate::plan::{Inputs, View, render_digest};
use crate::restricted::restricted;
use crate::service::Service;
use crate::table_rules::RowLayout;
use crate::tick::Tick;
use crate::time_index_ask::TopicTimes;
use crate::topic_pin::TopicPin;
use crate::topics::{TopicSettings, kafka_error};
use crate::undecoded::{Decoding, Undecoded};

/// How long a request that is given up is waited for, to say why.
const OWN_WORDS: Duration = Duration::from_millis(250);

/// What the brokers say of a topic's log.
struct TopicLog {
    settings: TopicSettings,
    /// How far its partitions reach.
    offsets: BTreeMap<KafkaPartition, PartitionOffsets>,
    pin: TopicPin,
    /// How late its records can be.
    times: TopicTimes,
}

impl Service {
    /// The table as it is at this moment; for a caller under rules about its columns, what it may see of it.
    pub async fn load_table(
        &self,
        namespace: &str,
        table: &str,
        columns: Option<&Arc<ColumnRules>>,
    ) -> Result<LoadedTable, ServiceError> {
        self.check_namespace(namespace)?;
        if let Some(columns) = columns {
            let (view, topic) = self.restricted_view(namespace, table, columns)?;
            return Ok(self.tick(view, topic).await?.loaded.clone());
        }
        match namespace {
            COLDSET => self.load_cold(COLDSET, table).await,
            MERGED => self.load_merged(table).await,
            ERRORS => Ok(self.tick(View::Errors, table).await?.loaded.clone()),
            _ => {
                let (view, topic) = self.hot_table(table);
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
        if view == View::Errors {
            let hot = self.tick_with(View::Hot, topic, BTreeMap::new()).await?;
            return self.settle(hot.inputs().errors(self.renders.profile())?).await;
        }
        let tick = self.tick_with(view, topic, BTreeMap::new()).await?;
        if tick.inputs().view == View::Hot {
            self.loaded_topics.loaded(tick.topic());
        }
        Ok(tick)
    }

    /// As [`Self::tick`], with round times to offer.
    pub(crate) async fn tick_with(
        &self,
        view: View,
        topic: &str,
        rounds: BTreeMap<i64, Ends>,
    ) -> Result<Arc<Tick>, ServiceError> {
        let span = span!(
            "plan",
            otel.status_code = Empty,
            error.type = Empty,
            messaging.destination.name = Empty,
            isk.view = view.word(),
            isk.partitions = Empty,
        );
        let tick = self.planned(view, topic, rounds).instrument(span.clone()).await;
        tick.inspect_err(|error| isk_traces::failed(&span, error))
    }

    async fn planned(
        &self,
        view: View,
        topic: &str,
        rounds: BTreeMap<i64, Ends>,
    ) -> Result<Arc<Tick>, ServiceError> {
        add(&self.metrics.tables_loaded, 1);
        let begun = Instant::now();
        let topic = self.in_time(begun, self.topics.get(topic)).await?;
        let span = Span::current();
        span.record("messaging.destination.name", topic.name.as_str());
        span.record("isk.partitions", count(topic.partitions.len()));
        let (columns, log, cluster_id, decoding) = tokio::join!(
            self.columns(&view, &topic),
            self.log(&topic, begun),
            self.in_time(begun, async {
                self.kafka.cluster_id().await.map_err(|error| kafka_error(&error))
            }),
            self.decoding(&topic),
        );
        let (mut columns, log, cluster_id, decoding) = (columns?, log?, cluster_id?, decoding?);
        let TopicLog { settings, mut offsets, pin, times } = log;
        let asked = begun.elapsed();
        let beside = match view {
            View::Hot | View::As(_) | View::Type(_) | View::Restricted(_) | View::Errors => None,
            // Behind the offsets: what moved and left Kafka in between must be in one of the two.
            View::Unmoved | View::Merged => {
                self.beside(&view, &topic, &columns, &mut offsets).await?
            }
        };
        if let Some(merged) = beside.as_ref().and_then(|beside| beside.merged.as_ref()) {
            let file = self.layout(&topic.name, &merged.layout)?;
            columns = Arc::new(relabelled(&columns, file));
        }
        let epochs = self.in_time(begun, self.epochs(&topic, &offsets)).await?;
        let cleaning = self.cleanings.observe(&topic, settings.compacted, &offsets)?;
        let mut notes = self.notes(&topic, &offsets, &times, settings.tiered);
        notes.extend(self.schemas.notes(&topic.name, topic.id, &columns)?);
        if let View::Restricted(_) = view {
            // It may name what is hidden.
            notes.remove("isk.schema-refused");
        }
        notes.insert("isk.errors".to_owned(), self.error_policies.of(&topic.name).to_string());
        // A followed topic ends where it is proven.
        let cuts = match view {
            View::Hot => self.tips.show(&topic, &mut offsets),
            View::As(_)
            | View::Type(_)
            | View::Restricted(_)
            | View::Unmoved
            | View::Merged
            | View::Errors => BTreeMap::new(),
        };
        let named = view.clone();
        let inputs = Inputs {
            layout: view.layout(&self.rules, &topic.name),
            notes,
            view,
            cluster_id,
            render: render_digest(&columns, self.renders.profile(), &decoding)?,
            hot_render: None,
            decoding,
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
            rounds,
        };
        let topic = Arc::clone(&inputs.topic);
        let tick = match named {
            View::Hot => self.settle_history(inputs, begun).await,
            View::As(_)
            | View::Type(_)
            | View::Restricted(_)
            | View::Unmoved
            | View::Merged
            | View::Errors => self.settle(inputs).await,
        }?;
        tracing::debug!(
            topic = %topic.name, view = ?tick.inputs().view, asked_us = asked.as_micros(),
            planned_us = begun.elapsed().saturating_sub(asked).as_micros(), "planned"
        );
        Ok(tick)
    }

    /// What the brokers answer, or an error once a load has waited for them as long as one request may take:
    /// it asks several things one after the other.
    async fn in_time<T>(
        &self,
        begun: Instant,
        asked: impl Future<Output = Result<T, ServiceError>>,
    ) -> Result<T, ServiceError> {
        let bound = self.kafka.config().request_timeout;
        // The request itself knows more of why there is no answer.
        let left = (bound + OWN_WORDS).saturating_sub(begun.elapsed());
        tokio::time::timeout(left, asked).await.unwrap_or_else(|_| {
            Err(ServiceError::Unavailable {
                what: "Kafka".into(),
                reason: format!(
                    "the brokers have not answered all that a table needs within {} ms \
                     (limits.request_timeout_ms); do they answer slowly?",
                    bound.as_millis()
                ),
            })
        })
    }

    /// What the brokers say of a topic's log. Where a topic is first seen, its records are sampled while
    /// times are looked up.
    async fn log(
        &self,
        topic: &TopicDescription,
        begun: Instant,
    ) -> Result<TopicLog, ServiceError> {
        let settings = async { Ok(self.topics.settings(&topic.name).await) };
        let (offsets, settings) = tokio::try_join!(
            self.in_time(begun, self.offsets(topic)),
            self.in_time(begun, settings),
        )?;
        let (tell, exponent) = watch::channel(None);
        let pin = async {
            let pin = self.pin(topic, &offsets).await;
            tell.send_replace(pin.as_ref().ok().map(TopicPin::chunk_exponent));
            pin
        };
        let times = self.times.observe(topic, &offsets, exponent, settings.tiered);
        let (pin, times) = tokio::join!(pin, times);
        Ok(TopicLog { settings, offsets, pin: pin?, times })
    }

    /// How the records of a topic become rows, as of now.
    pub(crate) async fn decoding(
        &self,
        topic: &TopicDescription,
    ) -> Result<Decoding, ServiceError> {
        let undecoded = Undecoded::By(self.error_policies.of(&topic.name));
        let writers = self.schemas.writer_state(&topic.name, topic.id).await?;
        Ok(Decoding { undecoded, writers })
    }

    /// The columns of a topic's table.
    pub(crate) async fn columns(
        &self,
        view: &View,
        topic: &TopicDescription,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        match view.layout(&self.rules, &topic.name) {
            RowLayout::Flat => {
                let table = self.flat_columns(topic).await?;
                if let View::Restricted(rules) = view {
                    return Ok(Arc::new(restricted(&table, &topic.name, rules)?));
                }
                let View::Type(column) = view else { return Ok(table) };
                self.schemas.of_type(topic, &table, column)?.ok_or_else(|| {
                    let table = format!("{}${column}", topic.name);
                    ServiceError::NoSuchTable { namespace: HOTSET.into(), table }
                })
            }
            RowLayout::Raw => Ok(Arc::clone(&self.schemas.raw)),
            RowLayout::Json => Ok(Arc::clone(&self.schemas.json_text)),
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
        let store = Arc::clone(&self.store);
        let span = span!("tick", isk.new = Empty);
        let settled = tokio::task::spawn_blocking(move || {
            let _entered = span.enter();
            let Some(history) = history.as_mut() else {
                return Err(ServiceError::Internal("a history vanished".into()));
            };
            let (tick, new) = history.settle(inputs, begun, &manifests)?;
            store.settle()?;
            span.record("isk.new", new);
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
        let key = (inputs.view.clone(), inputs.topic.name.clone());
        // Files that are not named again are swept away some day.
        let half = self.metadata_retention / 2;
        let last = self.ticks.get(&key).filter(|last| last.age() < half);
        let manifests = Arc::clone(&self.manifests);
        let (before, store) = (last.clone(), Arc::clone(&self.store));
        let span = span!("tick", isk.new = Empty);
        let settled = tokio::task::spawn_blocking(move || {
            let _entered = span.enter();
            let tick = Tick::settle(inputs, before.as_ref(), &manifests)?;
            store.settle()?;
            let new = !before.is_some_and(|before| Arc::ptr_eq(&before, &tick));
            span.record("isk.new", new);
            Ok(tick)
        });
        let tick = settled
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("planning panicked: {e}"))))?;
        if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &tick)) {
            add(&self.metrics.plans_built, 1);
            self.ticks.insert(key, Arc::clone(&tick));
        }
        Ok(tick)
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
