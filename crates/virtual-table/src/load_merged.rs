//! What the catalog's path needs of the coldset: a cold table alone, and one beside a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use iceberg::spec::{ManifestFile, SchemaRef};
use isk_coldset::Upstream;
use isk_kafka::TopicDescription;
use isk_model::{
    Boundary, ContentDigest, KafkaPartition, LeftOut, Offset, OffsetRange, PartitionOffsets,
    TopicName,
};
use isk_schema::{TableSchema, merge_schemas};

use crate::api::{COLDSET, LoadedTable, ServiceError, cold_error};
use crate::beside::{
    Attachment, Beside, Merged, covered_name, hole_properties, layout_name, named,
};
use crate::cold_view::ColdView;
use crate::covered::Covered;
use crate::layout::Layout;
use crate::load_table::bucket_of;
use crate::plan::View;
use crate::service::Service;
use crate::topics::kafka_error;

/// How often a cold table is looked at that changes each time.
const LOOKS: usize = 10;

/// A cold table as it was at one moment.
struct LookedAt {
    cold: Arc<ColdView>,
    manifests: Arc<Vec<ManifestFile>>,
    covered: Arc<Covered>,
}

impl Service {
    /// The upstream catalog; an error where none is configured.
    fn upstream(&self) -> Result<&Upstream, ServiceError> {
        self.coldset.as_ref().ok_or_else(|| ServiceError::NoSuchNamespace(COLDSET.into()))
    }

    /// A cold table as the upstream catalog has it. `namespace` is the one it was asked for in.
    pub(crate) async fn load_cold(
        &self,
        namespace: &str,
        table: &str,
    ) -> Result<LoadedTable, ServiceError> {
        let loaded =
            self.upstream()?.load_table(table).await.map_err(|e| match cold_error(&e) {
                ServiceError::NoSuchTable { table, .. } => {
                    ServiceError::NoSuchTable { namespace: namespace.into(), table }
                }
                error => error,
            })?;
        let location = loaded.location.trim_end_matches('/').to_owned();
        Ok(LoadedTable {
            metadata_location: loaded.metadata_location.clone(),
            metadata: loaded.metadata.clone(),
            credential_prefixes: vec![location.clone(), bucket_of(&location)],
            location,
        })
    }

    /// The served topic of a merged table, if it has one.
    pub(crate) async fn topic_of(&self, table: &str) -> Result<Option<TopicName>, ServiceError> {
        let name = match self.tables.own_name(table) {
            Some(name) => name,
            None => {
                let names = self.topics.names().await?;
                names.into_iter().find(|n| self.tables.table_of(n) == table)
            }
        };
        let Some(name) = name else { return Ok(None) };
        match self.topics.get(name.as_str()).await {
            Ok(_) => Ok(Some(name)),
            Err(ServiceError::NoSuchTable { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The cold table beside a topic. For the unmoved records of a topic without one: `None`.
    pub(crate) async fn beside(
        &self,
        view: &View,
        topic: &TopicDescription,
        columns: &TableSchema,
        offsets: &mut BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<Option<Beside>, ServiceError> {
        let upstream = match (&self.coldset, view) {
            (None, View::Unmoved) => return Ok(None),
            _ => self.upstream()?,
        };
        let looked = match self.look_at_cold(upstream, topic, offsets).await {
            Ok(looked) => looked,
            Err(ServiceError::NoSuchTable { .. }) if *view == View::Unmoved => return Ok(None),
            Err(error) => return Err(error),
        };
        let LookedAt { cold, manifests, covered } = looked;
        if cold.columns.is_none() && !manifests.is_empty() && covered.is_empty() {
            return Err(ServiceError::Unsupported {
                what: format!("cold table {} beside topic {}", cold.name, topic.name),
                reason: "it has no columns kafka_partition and kafka_offset, so which records it \
                    holds cannot be told: add them, or state what it holds in its property \
                    isk.boundary-timestamp (\"2026-01-31T00:00:00Z\": every record with an earlier \
                    timestamp) or isk.covered-offsets (\"0:1000,1:2000\": the end offset of each Kafka \
                    partition)"
                    .into(),
            });
        }
        if covered.beyond_the_end(offsets).is_some() {
            // Records may have come and been moved since the offsets were asked for.
            self.renew_ends(topic, offsets).await?;
        }
        if let Some((partition, last, end)) = covered.beyond_the_end(offsets) {
            return Err(ServiceError::Unsupported {
                what: format!("cold table {} beside topic {}", cold.name, topic.name),
                reason: format!(
                    "it holds offset {last} of Kafka partition {}, and the topic ends at {end}: the \
                     topic was recreated, or the table is another cluster's. Map the topic to \
                     another cold table (merged.topics in the configuration)",
                    partition.0
                ),
            });
        }
        let mut properties = self.report_holes(&cold, &covered, offsets);
        let merged = match view {
            View::Merged => Some(self.merge(topic, columns, &cold, manifests)?),
            View::Hot
            | View::As(_)
            | View::Type(_)
            | View::Restricted(_)
            | View::Unmoved
            | View::Errors => None,
        };
        properties.insert("isk.cold-table".to_owned(), cold.name.clone());
        properties.insert("isk.cold-table-uuid".to_owned(), cold.uuid.to_string());
        let snapshot = cold.current.map(|id| ("isk.cold-snapshot-id".to_owned(), id.to_string()));
        properties.extend(snapshot);
        Ok(Some(Beside { table_uuid: cold.uuid, covered, merged, properties }))
    }

    /// A cold table and what it covers.
    ///
    /// All loads share what is known to be covered. While this one was asking for the table, rows may have moved, and another
    /// load may have learnt of it first: they are covered, and this one's snapshot does not hold them. So what is known
    /// must be the same before and after, but for what this very snapshot adds; else the table is asked for again.
    async fn look_at_cold(
        &self,
        upstream: &Upstream,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<LookedAt, ServiceError> {
        let table = self.tables.table_of(&topic.name);
        let mut seen = self.cold_views.get(table.as_str()).map(|cold| cold.uuid);
        for _ in 0..LOOKS {
            let begun = Instant::now();
            let known = match seen {
                Some(uuid) => Some((uuid, self.coverages.known(topic.id, uuid).await?)),
                None => None,
            };
            let cold = self.cold_view(upstream, &table).await?;
            seen = Some(cold.uuid);
            let asked = begun.elapsed();
            let manifests = match cold.current() {
                Some(snapshot) => {
                    self.coverages.manifests(&cold, snapshot, upstream.store()).await?
                }
                None => Arc::default(),
            };
            let listed = begun.elapsed();
            let known = known.filter(|(uuid, _)| *uuid == cold.uuid);
            let known = known.map(|(_, known)| known).unwrap_or_default();
            let covered = self.coverages.of(topic, &cold, upstream.store(), known).await?;
            tracing::debug!(
                table = %cold.name, asked_us = asked.as_micros(),
                listed_us = listed.saturating_sub(asked).as_micros(),
                learnt_us = begun.elapsed().saturating_sub(listed).as_micros(),
                again = covered.is_none(), "looked at cold"
            );
            let Some(covered) = covered else { continue };
            if let Some(covered) = self.bounded(topic, &cold, covered, offsets).await? {
                return Ok(LookedAt { cold, manifests, covered });
            }
        }
        Err(ServiceError::Unavailable {
            what: format!("cold table {table}"),
            reason: format!("rows were moved to it each of the {LOOKS} times it was looked at"),
        })
    }

    /// Asks Kafka what lies before the cold table's boundary, where that is not known yet. It is no more
    /// than a way not to plan files without rows: behind it, rows are told by their own timestamps. `None` where others have
    /// learnt more of what is covered meanwhile.
    async fn bounded(
        &self,
        topic: &TopicDescription,
        cold: &ColdView,
        covered: Arc<Covered>,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<Option<Arc<Covered>>, ServiceError> {
        let Some(Boundary(ms)) = covered.before else { return Ok(Some(covered)) };
        let ask = offsets.keys().filter(|partition| !covered.bounded.contains(partition));
        let ask: Vec<_> = ask.map(|&partition| (partition, ms)).collect();
        if ask.is_empty() {
            return Ok(Some(covered));
        }
        let found = self.kafka.offsets_for_times(&topic.name, &ask).await;
        let found = found.map_err(|e| kafka_error(&e))?;
        let (mut bounded, mut ranges, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for (partition, first) in found {
            let Some(log) = offsets.get(&partition) else { continue };
            let Some(first) = first else {
                silent.push(partition);
                continue;
            };
            bounded.push(partition);
            // Where Kafka has earlier records, those that it has lost were earlier too.
            let some = first > log.log_start;
            let earlier = OffsetRange::new(Offset(0), first.min(log.last_stable));
            ranges.extend(earlier.filter(|_| some).map(|range| (partition, range)));
        }
        if !silent.is_empty() {
            // No record is at or past it, or the broker has not found it.
            let latest = self.kafka.max_timestamps(&topic.name, &silent).await;
            for (partition, latest) in latest.unwrap_or_default() {
                let all = offsets.get(&partition).and_then(PartitionOffsets::readable);
                let all = all.and_then(|all| OffsetRange::new(Offset(0), all.end()));
                let all_earlier = latest.is_some_and(|(_, latest)| latest < ms);
                ranges.extend(all.filter(|_| all_earlier).map(|range| (partition, range)));
            }
        }
        self.coverages.bound(topic.id, cold, &covered, bounded, ranges).await
    }

    /// Reports, in properties, metric and log, what neither side has.
    fn report_holes(
        &self,
        cold: &ColdView,
        covered: &Covered,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> BTreeMap<String, String> {
        let holes = covered.holes(offsets);
        let mut properties = hole_properties(&holes);
        let missing = holes.iter().map(|(_, range)| range.span()).sum();
        let holes = properties.get("isk.holes").map_or("", String::as_str);
        self.metrics.set_holes(&cold.name, missing, holes);
        let unknown = covered.unknown(offsets);
        if !unknown.is_empty() {
            properties.insert("isk.possible-holes".to_owned(), named(&unknown));
        }
        properties
    }

    /// The end offsets as they are now. The start offsets stay: what has expired since was in neither
    /// of the two, and must fail the read instead of being missed.
    async fn renew_ends(
        &self,
        topic: &TopicDescription,
        offsets: &mut BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<(), ServiceError> {
        let newer = self.kafka.offsets(&topic.name, &topic.partitions).await;
        for (partition, newer) in newer.map_err(|e| kafka_error(&e))? {
            let log_start = offsets.get(&partition).map_or(newer.log_start, |o| o.log_start);
            offsets.insert(partition, PartitionOffsets { log_start, ..newer });
        }
        Ok(())
    }

    /// One table of both. Which fields are the same is remembered: cold may rename them later.
    fn merge(
        &self,
        topic: &TopicDescription,
        columns: &TableSchema,
        cold: &ColdView,
        manifests: Arc<Vec<ManifestFile>>,
    ) -> Result<Merged, ServiceError> {
        let mut known = self.coverages.fields(topic.id, cold.uuid)?;
        let both = loop {
            let both = merge_schemas(&cold.schema, &columns.iceberg, &known).map_err(|e| {
                ServiceError::Unsupported {
                    what: format!("cold table {} and topic {} as one table", cold.name, topic.name),
                    reason: e.to_string(),
                }
            })?;
            let mut matched = known.clone();
            matched.extend(both.matched.iter().map(|(&hot, &cold)| (hot, cold)));
            if matched == known {
                break both;
            }
            // Another replica may have matched them first, and otherwise.
            known = self.coverages.keep_fields(topic.id, cold.uuid, &matched)?;
            if known == matched {
                break both;
            }
        };
        Merged::new(cold, manifests, both)
    }

    /// The metadata of a cold table as it is now.
    async fn cold_view(
        &self,
        upstream: &Upstream,
        table: &str,
    ) -> Result<Arc<ColdView>, ServiceError> {
        let ask = || upstream.load_table(table);
        let loaded = self.cold_bursts.ask(table.to_owned(), ask).await;
        let loaded = loaded.map_err(|e| cold_error(&e))?;
        if let Some(known) = self.cold_views.get(table)
            && known.metadata_location == loaded.metadata_location
        {
            return Ok(known);
        }
        let name = table.to_owned();
        let parsed = tokio::task::spawn_blocking(move || ColdView::parse(&name, &loaded));
        let parsed = parsed
            .await
            .unwrap_or_else(|e| Err(ServiceError::Internal(format!("parsing panicked: {e}"))))?;
        let view = Arc::new(parsed);
        self.cold_views.insert(table.to_owned(), Arc::clone(&view));
        Ok(view)
    }

    /// The columns of hot files of a merged table, as its plan has them.
    pub(crate) fn layout(
        &self,
        topic: &TopicName,
        layout: &Attachment,
    ) -> Result<SchemaRef, ServiceError> {
        if let Some(known) = self.layouts.get(&layout.digest) {
            return Ok(Arc::clone(&known.columns));
        }
        let parsed = parse_layout(topic, layout.digest, &layout.bytes)?;
        self.layouts.insert(layout.digest, Arc::clone(&parsed));
        Ok(Arc::clone(&parsed.columns))
    }

    /// The columns of hot files that a recipe names; `None` where they are not kept any more.
    pub(crate) fn kept_layout(
        &self,
        topic: &TopicName,
        digest: ContentDigest,
    ) -> Result<Option<Arc<Layout>>, ServiceError> {
        if let Some(known) = self.layouts.get(&digest) {
            return Ok(Some(known));
        }
        let Some(bytes) = self.metadata.get(topic.as_str(), &layout_name(digest))? else {
            return Ok(None);
        };
        let parsed = parse_layout(topic, digest, &bytes)?;
        self.layouts.insert(digest, Arc::clone(&parsed));
        Ok(Some(parsed))
    }

    /// The records that a recipe leaves out; `None` where they are not kept any more.
    pub(crate) fn kept_left_out(
        &self,
        topic: &TopicName,
        digest: ContentDigest,
    ) -> Result<Option<Arc<LeftOut>>, ServiceError> {
        let name = covered_name(digest);
        let Some(bytes) = self.metadata.get(topic.as_str(), &name)? else { return Ok(None) };
        let left_out = LeftOut::from_bytes(&bytes)
            .map_err(|e| ServiceError::Internal(format!("{name} of topic {topic}: {e}")))?;
        Ok(Some(Arc::new(left_out)))
    }
}

fn parse_layout(
    topic: &TopicName,
    digest: ContentDigest,
    bytes: &[u8],
) -> Result<Arc<Layout>, ServiceError> {
    let layout = Layout::from_bytes(bytes).map_err(|e| {
        ServiceError::Internal(format!("{} of topic {topic}: {e}", layout_name(digest)))
    })?;
    Ok(Arc::new(layout))
}
