//! Where a log begins and ends, and what lies at a time: ListOffsets, OffsetForLeaderEpoch.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
};

use crate::broker::log::{LEADER_EPOCH, PartitionLog};
use crate::broker::state::Broker;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734, version 7).
const MAX_TIMESTAMP: i64 = -3;

pub(super) fn list_offsets(
    broker: &Broker,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let found = broker.topic(&topic.name);
        let partitions = topic.partitions.iter().map(|asked| {
            let partition = found.as_ref().and_then(|t| t.partition(asked.partition_index));
            let result = match partition {
                None => Err(ResponseError::UnknownTopicOrPartition),
                Some(partition) => lookup(&partition.log, asked),
            };
            let answer =
                ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            match result {
                Ok((offset, timestamp)) => {
                    let epoch = if version >= 4 && offset >= 0 { LEADER_EPOCH } else { -1 };
                    answer.with_offset(offset).with_timestamp(timestamp).with_leader_epoch(epoch)
                }
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// `(offset, timestamp)`; both -1 where no record matches.
fn lookup(log: &PartitionLog, asked: &ListOffsetsPartition) -> Result<(i64, i64), ResponseError> {
    check_epoch(asked.current_leader_epoch)?;
    let found = match asked.timestamp {
        LATEST => return Ok((log.end(), -1)),
        EARLIEST => return Ok((log.start(), -1)),
        MAX_TIMESTAMP => log.newest(),
        at if at >= 0 => log.first_at_or_after(at),
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    // A producer's batch was stored unread; this is the first look inside.
    found.map(|record| record.unwrap_or((-1, -1))).map_err(|cause| {
        tracing::warn!(%cause, "a stored batch cannot be read for its timestamps");
        ResponseError::CorruptMessage
    })
}

fn check_epoch(epoch: i32) -> Result<(), ResponseError> {
    match epoch {
        -1 | LEADER_EPOCH => Ok(()),
        newer if newer > LEADER_EPOCH => Err(ResponseError::UnknownLeaderEpoch),
        _ => Err(ResponseError::FencedLeaderEpoch),
    }
}

/// There is one epoch, and it ends where the log does.
pub(super) fn offset_for_leader_epoch(
    broker: &Broker,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let found = broker.topic(&topic.topic);
        let partitions = topic.partitions.iter().map(|asked| {
            let partition = found.as_ref().and_then(|t| t.partition(asked.partition));
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            let checked = check_epoch(asked.current_leader_epoch);
            match (partition, checked) {
                (None, _) => answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
                (_, Err(error)) => answer.with_error_code(error.code()),
                (Some(partition), Ok(())) if asked.leader_epoch == LEADER_EPOCH => {
                    answer.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.log.end())
                }
                (Some(_), Ok(())) => answer.with_leader_epoch(-1).with_end_offset(-1),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}
