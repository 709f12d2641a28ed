//! What those who encode unasked, the prover and the followers, know of a topic at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use isk_kafka::TopicDescription;
use isk_model::{
    ChunkExponent, DataFileKey, KafkaPartition, OffsetRange, PartitionOffsets, RenderDigest,
};
use isk_schema::TableSchema;

use crate::api::ServiceError;
use crate::encode::Rows;
use crate::epochs::EpochHistory;
use crate::facts::{FactBook, recipe};
use crate::manners::Errand;
use crate::plan::{View, render_digest};
use crate::render::Order;
use crate::service::Service;
use crate::topics::TopicSettings;
use crate::undecoded::Decoding;

/// A topic of the hotset's, with its offsets as of a moment.
pub(crate) struct Look {
    pub topic: Arc<TopicDescription>,
    pub table: Arc<TableSchema>,
    pub decoding: Decoding,
    pub render: RenderDigest,
    pub offsets: BTreeMap<KafkaPartition, PartitionOffsets>,
    pub epochs: BTreeMap<KafkaPartition, EpochHistory>,
    pub k: ChunkExponent,
    pub settings: TopicSettings,
    /// When the offsets were asked for: what was committed before is below them.
    pub at: Instant,
}

impl Look {
    /// The key of a range, its size not declared: the same recipe that a plan has for it.
    pub(crate) fn key(&self, partition: KafkaPartition, range: OffsetRange) -> DataFileKey {
        let unknown = EpochHistory::default();
        DataFileKey {
            topic: self.topic.name.clone(),
            columns: None,
            topic_id: self.topic.id,
            partition,
            range,
            leader_epoch: self.epochs.get(&partition).unwrap_or(&unknown).at_end(range.end()),
            schema: self.table.version,
            render: self.render,
            layout: None,
            covered: None,
            declared_size: 0,
        }
    }

    /// Whether a range was encoded as a file.
    pub(crate) fn is_proven(
        &self,
        facts: &FactBook,
        partition: KafkaPartition,
        range: OffsetRange,
    ) -> bool {
        facts.get(&recipe(&self.key(partition, range))).is_some()
    }
}

impl Service {
    /// Looks at a topic. Reads no record, but for the sample of a topic never seen before.
    pub(crate) async fn look(&self, topic: &str) -> Result<Look, ServiceError> {
        let topic = self.topics.get(topic).await?;
        let at = Instant::now();
        let (table, offsets, settings, decoding) = tokio::join!(
            self.columns(&View::Hot, &topic),
            self.offsets(&topic),
            self.topics.settings(&topic.name),
            self.decoding(&topic),
        );
        let (table, offsets, decoding) = (table?, offsets?, decoding?);
        let k = self.pin(&topic, &offsets).await?.chunk_exponent();
        let epochs = self.epochs(&topic, &offsets).await?;
        let render = render_digest(&table, self.renders.profile(), &decoding)?;
        Ok(Look { topic, table, decoding, render, offsets, epochs, k, settings, at })
    }

    /// Encodes a range of a topic as one file, if that was never done, so that its facts are known.
    pub(crate) async fn prove(
        &self,
        look: &Look,
        partition: KafkaPartition,
        range: OffsetRange,
        errand: Errand,
    ) -> Result<(), ServiceError> {
        if look.is_proven(&self.facts, partition, range) {
            return Ok(());
        }
        let order = Order {
            key: look.key(partition, range),
            rows: Rows {
                table: Arc::clone(&look.table),
                row_ids: false,
                left_out: None,
                columns: None,
                decoding: look.decoding.clone(),
            },
            full: range.end().0 % look.k.width() == 0,
            errand,
        };
        self.encoded(&look.topic, order).await.map(drop)
    }
}
