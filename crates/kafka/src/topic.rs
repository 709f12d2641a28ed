//! What the brokers say of a topic.

use isk_model::{KafkaPartition, TopicId, TopicName};

use crate::ffi::DescribedTopic;

/// What the brokers say of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its identity (KIP-516); zero from brokers before 2.8.
    pub id: TopicId,
    /// Its partitions in order.
    pub partitions: Vec<KafkaPartition>,
    /// Whether it is Kafka's own, such as `__consumer_offsets`.
    pub internal: bool,
}

/// What a listing without ids says of a topic.
pub(crate) fn without_id((name, partitions): (String, Vec<i32>)) -> DescribedTopic {
    let internal = name.starts_with("__");
    DescribedTopic { name, id: 0, internal, partitions, error: None, readable: false }
}

/// `None` for a name that Kafka does not allow today (very old topics).
pub(crate) fn description(topic: DescribedTopic) -> Option<TopicDescription> {
    let name = TopicName::new(&topic.name).ok()?;
    let mut partitions: Vec<_> = topic.partitions.into_iter().map(KafkaPartition).collect();
    partitions.sort_unstable();
    Some(TopicDescription { name, id: TopicId(topic.id), partitions, internal: topic.internal })
}
