//! Reading: Fetch, with its wait for enough bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::time::{Instant, timeout_at};

use crate::broker::log::LEADER_EPOCH;
use crate::broker::state::{Broker, Partition};

/// The most bytes of one response (Kafka's `fetch.max.bytes` of a broker), whatever is asked.
const MAX_RESPONSE: usize = 55 << 20;
/// The longest wait, whatever is asked.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Answers at once with what there is when that is enough or something is wrong, else when enough
/// came or the wait is over. No fetch sessions: the session id is always 0, so that clients name
/// every partition every time (KIP-227).
pub(super) async fn fetch(broker: &Broker, request: FetchRequest) -> FetchResponse {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let mut appends = broker.subscribe_appends();
    loop {
        // Marked before looking: an append in between is not slept through.
        appends.borrow_and_update();
        if is_due(broker, &request) {
            break;
        }
        match timeout_at(deadline, appends.changed()).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    read(broker, request)
}

/// Whether there are `min_bytes`, or an error to report.
fn is_due(broker: &Broker, request: &FetchRequest) -> bool {
    let enough = usize::try_from(request.min_bytes).unwrap_or(0).min(MAX_RESPONSE);
    let mut sum = 0;
    for topic in &request.topics {
        let found = broker.topic(&topic.topic);
        for asked in &topic.partitions {
            let partition = found.as_ref().and_then(|t| t.partition(asked.partition));
            let Some(partition) = partition else { return true };
            if error_of(&partition, asked).is_some() {
                return true;
            }
            sum += partition.log.available(asked.fetch_offset, enough.max(1));
        }
    }
    sum >= enough
}

fn error_of(partition: &Partition, asked: &FetchPartition) -> Option<ResponseError> {
    match asked.current_leader_epoch {
        -1 | LEADER_EPOCH => {}
        epoch if epoch > LEADER_EPOCH => return Some(ResponseError::UnknownLeaderEpoch),
        _ => return Some(ResponseError::FencedLeaderEpoch),
    }
    let log = &partition.log;
    let inside = (log.start()..=log.end()).contains(&asked.fetch_offset);
    (!inside).then_some(ResponseError::OffsetOutOfRange)
}

fn read(broker: &Broker, request: FetchRequest) -> FetchResponse {
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0).min(MAX_RESPONSE);
    let mut empty = true;
    let topics = request.topics.into_iter().map(|topic: FetchTopic| {
        let found = broker.topic(&topic.topic);
        let partitions = topic.partitions.iter().map(|asked| {
            let partition = found.as_ref().and_then(|t| t.partition(asked.partition));
            let Some(partition) = partition else {
                return failed(asked, ResponseError::UnknownTopicOrPartition);
            };
            let data = read_partition(&partition, asked, room, empty);
            let size = data.records.as_ref().map_or(0, Bytes::len);
            room = room.saturating_sub(size);
            empty &= size == 0;
            data
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default().with_topic(topic.topic).with_partitions(partitions)
    });
    FetchResponse::default().with_responses(topics.collect())
}

fn failed(asked: &FetchPartition, error: ResponseError) -> PartitionData {
    PartitionData::default()
        .with_partition_index(asked.partition)
        .with_error_code(error.code())
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_records(Some(Bytes::new()))
}

/// One partition's batches. The first batch of a response comes whatever its size, so that a
/// client with small limits gets on.
fn read_partition(
    partition: &Partition,
    asked: &FetchPartition,
    room: usize,
    first: bool,
) -> PartitionData {
    let log = &partition.log;
    let answer = match error_of(partition, asked) {
        Some(error) => failed(asked, error),
        None => PartitionData::default().with_partition_index(asked.partition),
    };
    let answer = answer
        .with_high_watermark(log.end())
        .with_last_stable_offset(log.end())
        .with_log_start_offset(log.start())
        .with_aborted_transactions(None);
    if answer.error_code != 0 {
        return answer;
    }
    let most = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(room);
    let batches = log.read(asked.fetch_offset, most, first).unwrap_or_default();
    let mut records = BytesMut::with_capacity(batches.iter().map(Bytes::len).sum());
    for batch in &batches {
        records.extend_from_slice(batch);
    }
    answer.with_records(Some(records.freeze()))
}
