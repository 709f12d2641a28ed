//! Sampling topics that nobody describes: a few records at places spread over partitions, and over each partition's
//! log from its start to its end, which is over time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use isk_kafka::{FetchLimits, TopicDescription};
use isk_model::{KafkaPartition, Offset, OffsetRange, PartitionOffsets, TopicPartition};
use isk_schema::TableSchema;
use tokio::time::Instant;

use crate::api::ServiceError;
use crate::discovery::{LOOK_AGAIN, Sample};
use crate::service::Service;
use crate::tick::now_ms;

/// At how many places of a topic records are read, in all and in each partition at least.
const PLACES: usize = 32;
const PLACES_OF_PARTITION: usize = 4;
/// How many partitions are looked at.
const PARTITIONS: usize = PLACES / PLACES_OF_PARTITION;
/// How many offsets are read at a place, and how many bytes of values, one record more or less.
const OFFSETS: i64 = 64;
const BYTES: usize = 128 << 10;

/// Places that are read at the same time, and how long all may take. What was not read by then is not seen.
const AT_ONCE: usize = 4;
const TIME: Duration = Duration::from_secs(5);

/// The values of some records; `None` is a record without one.
type Values = Vec<Option<Vec<u8>>>;

impl Service {
    /// The columns of a topic by its fields: as somebody says, or as its records do.
    pub(crate) async fn flat_columns(
        &self,
        topic: &TopicDescription,
    ) -> Result<Arc<TableSchema>, ServiceError> {
        let table = self.schemas.current(&topic.name, topic.id).await?;
        if self.schemas.is_unknown(&topic.name, &table) && self.discover(topic).await? {
            return self.schemas.current(&topic.name, topic.id).await;
        }
        Ok(table)
    }

    /// Looks whether a topic that was discovered before has many records that were not seen then.
    pub(crate) async fn discover_more(&self, topic: &TopicDescription) -> Result<(), ServiceError> {
        let table = self.schemas.current(&topic.name, topic.id).await?;
        let open = self.schemas.is_unknown(&topic.name, &table)
            || self.schemas.was_discovered(topic, &table)?;
        match open {
            true => self.discover(topic).await.map(drop),
            false => self.schemas.discovery.looked(&topic.name, topic.id, None, now_ms()),
        }
    }

    /// Samples a topic, unless that was done lately, or little has come since. Whether it was done.
    pub(crate) async fn discover(&self, topic: &TopicDescription) -> Result<bool, ServiceError> {
        let discovery = &self.schemas.discovery;
        if !discovery.may_look(&topic.name, topic.id, LOOK_AGAIN)? {
            return Ok(false);
        }
        let one_at_a_time = self.discovering.get_with(topic.name.clone(), Arc::default);
        let _one_at_a_time = one_at_a_time.lock().await;
        if !discovery.may_look(&topic.name, topic.id, LOOK_AGAIN)? {
            // Somebody else did, and this caller waited for it.
            return Ok(true);
        }
        let offsets = self.offsets(topic).await?;
        let tiered = self.topics.settings(&topic.name).await.tiered;
        let kept = discovery.kept(&topic.name, topic.id)?;
        let places = places(&offsets, &kept.ends, tiered);
        if places.is_empty() {
            discovery.looked(&topic.name, topic.id, None, now_ms())?;
            return Ok(false);
        }
        let values = self.values_at(topic, places).await?;
        let sampled = tokio::task::spawn_blocking(move || {
            Sample::of(values.iter().map(|value| value.as_deref()))
        });
        let sample = sampled
            .await
            .map_err(|e| ServiceError::Internal(format!("looking at records: {e}")))?;
        let ends = offsets.iter().map(|(p, o)| (p.0, o.last_stable.0)).collect();
        discovery.looked(&topic.name, topic.id, Some((sample, ends)), now_ms())?;
        Ok(true)
    }

    /// The values of the records at some places, as far as they come in time.
    async fn values_at(
        &self,
        topic: &TopicDescription,
        places: Vec<(KafkaPartition, OffsetRange)>,
    ) -> Result<Values, ServiceError> {
        let deadline = Instant::now() + TIME;
        let read = places.into_iter().map(|(partition, range)| async move {
            let tp = TopicPartition { topic: topic.name.clone(), partition };
            let limits = FetchLimits { topic_id: Some(topic.id), ..FetchLimits::default() };
            let mut blocks = self.kafka.fetch_without_headers(&tp, range, limits);
            let (mut values, mut bytes) = (Values::new(), 0);
            while let Some(block) = blocks.next().await {
                for record in block?.iter() {
                    bytes += record.value.map_or(0, <[u8]>::len);
                    values.push(record.value.map(<[u8]>::to_vec));
                    if bytes >= BYTES {
                        return Ok(values);
                    }
                }
            }
            Ok::<_, isk_kafka::FetchError>(values)
        });
        let mut read = stream::iter(read).buffer_unordered(AT_ONCE);
        let (mut all, mut answered, mut failed) = (Values::new(), false, None);
        while let Ok(Some(values)) = tokio::time::timeout_at(deadline, read.next()).await {
            match values {
                Ok(values) => {
                    answered = true;
                    all.extend(values);
                }
                // Retention may have been there first.
                Err(error) => failed = Some(error.to_string()),
            }
        }
        match answered {
            true => Ok(all),
            false => Err(ServiceError::Unavailable {
                what: "Kafka".into(),
                reason: format!(
                    "sampling topic {}, of which no schema is known: {}",
                    topic.name,
                    failed.unwrap_or_else(|| format!("no record came within {TIME:?}"))
                ),
            }),
        }
    }

    /// The last few records of a topic, as samples of its values.
    pub(crate) async fn last_values(
        &self,
        topic: &TopicDescription,
        most: usize,
    ) -> Result<Vec<(KafkaPartition, Offset, Vec<u8>)>, ServiceError> {
        let offsets = self.offsets(topic).await?;
        let mut found = Vec::new();
        for (partition, log) in offsets {
            let Some(range) = log.readable() else { continue };
            let start = Offset(range.start().0.max(range.end().0 - most as i64));
            let Some(tail) = OffsetRange::new(start, range.end()) else { continue };
            let tp = TopicPartition { topic: topic.name.clone(), partition };
            let limits = FetchLimits::default();
            let mut blocks = self.kafka.fetch_without_headers(&tp, tail, limits);
            while let Some(Ok(block)) = blocks.next().await {
                let valued = block.iter().filter_map(|r| Some((r.offset, r.value?.to_vec())));
                found.extend(valued.map(|(offset, value)| (partition, offset, value)));
            }
            if found.len() >= most {
                break;
            }
        }
        found.truncate(most);
        Ok(found)
    }
}

/// Where to read: nowhere, unless as many records came as had been looked through. Where older ones lie in a remote
/// store, only at the ends.
fn places(
    offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    seen: &BTreeMap<i32, i64>,
    tiered: bool,
) -> Vec<(KafkaPartition, OffsetRange)> {
    let readable = || offsets.iter().filter_map(|(&p, o)| Some((p, o.readable()?)));
    let new = readable().filter_map(|(partition, range)| {
        let start = seen.get(&partition.0).map_or(range.start(), |&end| Offset(end));
        Some((partition, OffsetRange::new(start.max(range.start()), range.end())?))
    });
    let mut new: Vec<_> = new.collect();
    let all = readable().fold(0u64, |all, (_, range)| all.saturating_add(range.span()));
    let more = new.iter().fold(0u64, |all, (_, range)| all.saturating_add(range.span()));
    if more == 0 || more < all - more {
        return Vec::new();
    }
    if tiered {
        for (_, range) in &mut new {
            let start = range.start().max(Offset(range.end().0 - OFFSETS));
            *range = OffsetRange::new(start, range.end()).unwrap_or(*range);
        }
    }
    let step = new.len().div_ceil(PARTITIONS).max(1);
    new = new.into_iter().step_by(step).collect();
    let each = (PLACES / new.len().max(1)).max(PLACES_OF_PARTITION) as i64;
    let mut places = Vec::new();
    // The ends first, should time be short.
    for at in (0..each).rev() {
        for &(partition, range) in &new {
            let (start, span) = (range.start().0, range.end().0 - range.start().0);
            let first = match span <= OFFSETS * each {
                true => start + at * OFFSETS,
                false => {
                    let last = i128::from(span - OFFSETS);
                    start + i64::try_from(last * i128::from(at) / i128::from(each - 1)).unwrap_or(0)
                }
            };
            let end = range.end().0.min(first.saturating_add(OFFSETS));
            let place = OffsetRange::new(Offset(first), Offset(end));
            places.extend(place.map(|place| (partition, place)));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use isk_model::LeaderEpoch;

    use super::*;

    fn log(start: i64, end: i64) -> PartitionOffsets {
        PartitionOffsets {
            log_start: Offset(start),
            last_stable: Offset(end),
            leader_epoch: LeaderEpoch(0),
        }
    }

    fn logs(logs: &[(i64, i64)]) -> BTreeMap<KafkaPartition, PartitionOffsets> {
        (0..).map(KafkaPartition).zip(logs.iter().map(|&(start, end)| log(start, end))).collect()
    }

    #[test]
    fn a_short_log_is_read_whole_and_once() {
        for end in [1, 7, 64, 100, 2048] {
            let mut offsets: Vec<i64> = places(&logs(&[(0, end)]), &BTreeMap::new(), false)
                .into_iter()
                .flat_map(|(_, range)| range.start().0..range.end().0)
                .collect();
            offsets.sort_unstable();
            assert_eq!(offsets, (0..end).collect::<Vec<_>>());
        }
        assert!(places(&logs(&[(5, 5), (0, 0)]), &BTreeMap::new(), false).is_empty());
    }

    #[test]
    fn a_long_log_is_read_from_start_to_end_and_bounded() {
        let many = logs(&[(1000, i64::MAX / 2); 100]);
        let read = places(&many, &BTreeMap::new(), false);
        assert!(read.len() <= 2 * PLACES, "{}", read.len());
        assert!(read.iter().all(|(_, range)| range.span() <= OFFSETS.unsigned_abs()));
        let of_first: Vec<_> = read.iter().filter(|(p, _)| p.0 == 0).collect();
        assert!(of_first.iter().any(|(_, range)| range.start().0 == 1000));
        assert!(of_first.iter().any(|(_, range)| range.end().0 == i64::MAX / 2));
        let partitions: std::collections::BTreeSet<_> = read.iter().map(|(p, _)| p.0).collect();
        assert!(partitions.len() >= 5 && partitions.iter().any(|p| *p > 80), "{partitions:?}");
        let tiered = places(&many, &BTreeMap::new(), true);
        assert!(!tiered.is_empty());
        assert!(tiered.iter().all(|(_, range)| range.end().0 == i64::MAX / 2));
    }

    #[test]
    fn what_was_seen_is_not_read_again_and_little_more_is_no_reason_to_look() {
        let seen = BTreeMap::from([(0, 1000)]);
        assert!(places(&logs(&[(0, 1100)]), &seen, false).is_empty());
        let read = places(&logs(&[(0, 2000), (0, 50)]), &seen, false);
        assert!(read.iter().any(|(p, _)| p.0 == 1));
        assert!(read.iter().filter(|(p, _)| p.0 == 0).all(|(_, range)| range.start().0 >= 1000));
        // The log was cut back, or is another one.
        assert!(places(&logs(&[(0, 10)]), &seen, false).is_empty());
    }
}
