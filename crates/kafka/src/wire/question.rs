//! The question for batches of one partition.

use isk_model::TopicPartition;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};
use kafka_protocol::protocol::StrBytes;

/// The versions of Fetch that are spoken. Later ones name topics by id only, and other than by that do not
/// differ for a consumer; a topic's identity is confirmed when its range was read.
pub(super) const VERSIONS: (i16, i16) = (4, 12);
/// How long a broker may wait for records, where there are none yet.
const MAX_WAIT_MS: i32 = 500;
/// `isolation.level=read_committed`.
const READ_COMMITTED: i8 = 1;

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub(super) tp: &'a TopicPartition,
    /// The first offset.
    pub(super) offset: i64,
    /// No more than this, unless the first batch alone is larger.
    pub(super) bytes: usize,
    /// What the leader's epoch is believed to be: the broker objects if it knows another.
    pub(super) leader_epoch: i32,
    /// The epoch of what was read last, for a broker that may have another history.
    pub(super) fetched_epoch: Option<i32>,
    /// Where we are, to be sent to a replica that is near. Empty: anywhere.
    pub(super) rack: &'a str,
}

/// The request, outside of any fetch session (KIP-227).
pub(super) fn of(wanted: &Wanted<'_>) -> FetchRequest {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let bytes = i32::try_from(wanted.bytes).unwrap_or(i32::MAX);
    let partition = FetchPartition::default()
        .with_partition(wanted.tp.partition.0)
        .with_current_leader_epoch(wanted.leader_epoch)
        .with_fetch_offset(wanted.offset)
        .with_last_fetched_epoch(wanted.fetched_epoch.unwrap_or(-1))
        .with_log_start_offset(-1)
        .with_partition_max_bytes(bytes);
    let topic = FetchTopic::default()
        .with_topic(text(wanted.tp.topic.as_str()).into())
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(MAX_WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(bytes)
        .with_isolation_level(READ_COMMITTED)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_rack_id(text(wanted.rack))
        .with_topics(vec![topic])
}
