//! After a change of leaders: how far the new leader's log is the one that was seen.
//!
//! An unclean election cuts a log back, and new records may have taken its place by the time somebody looks.
//! A record's leader epoch tells: logs that have a record of the same offset and epoch are the same up to there
//! (KIP-101). So of each partition that has a new leader one of the last records is looked at, and earlier
//! ones where that is a new one.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use isk_kafka::{FetchError, FetchLimits, TopicDescription};
use isk_model::{
    KafkaPartition, LeaderEpoch, Offset, OffsetRange, PartitionOffsets, TopicPartition,
};

use crate::api::ServiceError;
use crate::epochs::TopicEpochs;
use crate::service::Service;

/// How many offsets are read for one look, and how much further back the second look is.
const LOOK: i64 = 64;
/// By how much each further look is further back than the last.
const FURTHER: i64 = 8;
/// Partitions looked at at the same time.
const AT_ONCE: usize = 16;

impl Service {
    /// The epochs of a topic's partitions, as of these offsets. Reads records only where a leader changed.
    pub(crate) async fn epochs(
        &self,
        topic: &TopicDescription,
        offsets: &BTreeMap<KafkaPartition, PartitionOffsets>,
    ) -> Result<TopicEpochs, ServiceError> {
        let failed_over = self.epochs.failed_over(topic, offsets)?;
        let same = stream::iter(failed_over).map(|(partition, known, seen)| async move {
            let tp = TopicPartition { topic: topic.name.clone(), partition };
            let same = self.same_up_to(&tp, known, seen).await?;
            if same < seen.end() {
                tracing::info!(%tp, seen = %seen.end(), %same, "the log has a new leader");
            }
            Ok::<_, ServiceError>((partition, same))
        });
        let same = same.buffer_unordered(AT_ONCE).try_collect().await?;
        self.epochs.observe(topic, offsets, &same)
    }

    /// Up to where the log holds records of no later epoch than the known one. Too low an answer gives
    /// files other names and no more.
    async fn same_up_to(
        &self,
        tp: &TopicPartition,
        known: LeaderEpoch,
        seen: OffsetRange,
    ) -> Result<Offset, ServiceError> {
        let (mut end, mut back) = (seen.end(), LOOK);
        while let Some(look) = OffsetRange::new(seen.start().max(Offset(end.0 - LOOK)), end) {
            if let Some(last) = self.last_record_of(tp, known, look).await? {
                return Ok(Offset(last.0 + 1));
            }
            end = Offset(look.start().0.saturating_sub(back));
            back = back.saturating_mul(FURTHER);
        }
        Ok(seen.start())
    }

    /// The last record of a range, unless one of the range is of a later epoch, or there is none.
    async fn last_record_of(
        &self,
        tp: &TopicPartition,
        known: LeaderEpoch,
        range: OffsetRange,
    ) -> Result<Option<Offset>, ServiceError> {
        let limits = FetchLimits { max_epoch: Some(known), ..FetchLimits::default() };
        let mut blocks = self.kafka.fetch(tp, range, limits);
        let mut last = None;
        while let Some(block) = blocks.next().await {
            match block {
                Ok(block) => last = block.iter().last().map(|record| record.offset).or(last),
                Err(FetchError::LeaderEpochChanged { .. } | FetchError::Expired { .. }) => {
                    return Ok(None);
                }
                Err(e) => {
                    return Err(ServiceError::Unavailable {
                        what: "Kafka".into(),
                        reason: format!("comparing the log of a new leader: {e}"),
                    });
                }
            }
        }
        Ok(last)
    }
}
