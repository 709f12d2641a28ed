//! What groups have and are: OffsetCommit, OffsetFetch, DescribeGroups, ListGroups, DeleteGroups.

use std::time::Instant;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::group::{Committed, GroupState};
use crate::broker::state::{Broker, Topic, lock};

/// Kafka's `offset.metadata.max.bytes`.
const MAX_METADATA: usize = 4096;

pub(super) fn offset_commit(
    broker: &Broker,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let group = if request.group_id.is_empty() {
        Err(ResponseError::InvalidGroupId)
    } else {
        broker.groups.get_or_create(&request.group_id).ok_or(ResponseError::PolicyViolation)
    };
    let mut state = group.as_ref().map(|group| lock(&group.state));
    let generation = request.generation_id_or_member_epoch;
    let allowed = match &mut state {
        Err(error) => Err(**error),
        Ok(state) => state.may_commit(&request.member_id, generation, Instant::now()),
    };
    let topics = request.topics.into_iter().map(|asked| {
        let topic = broker.topic(&asked.name);
        let partitions = asked.partitions.into_iter().map(|p| {
            let answer =
                OffsetCommitResponsePartition::default().with_partition_index(p.partition_index);
            let result = match (&mut state, &topic) {
                _ if allowed.is_err() => allowed,
                (Ok(state), Some(topic)) => commit(state, topic, p, version),
                _ => Err(ResponseError::UnknownTopicOrPartition),
            };
            answer.with_error_code(result.err().map_or(0, |e| e.code()))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(asked.name).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn commit(
    state: &mut GroupState,
    topic: &Topic,
    asked: OffsetCommitRequestPartition,
    version: i16,
) -> Result<(), ResponseError> {
    if !(0..topic.partition_count()).contains(&asked.partition_index) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    if asked.committed_metadata.as_ref().is_some_and(|m| m.len() > MAX_METADATA) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let committed = Committed {
        offset: asked.committed_offset,
        leader_epoch: if version >= 6 { asked.committed_leader_epoch } else { -1 },
        // A copy, so that it does not keep its request alive.
        metadata: asked.committed_metadata.map(|m| StrBytes::from_string(m.to_string())),
    };
    state.offsets.insert((topic.name.to_string(), asked.partition_index), committed);
    Ok(())
}

/// `(topic, partitions)` as asked; `None` is everything the group has.
type Asked = Option<Vec<(TopicName, Vec<i32>)>>;

fn committed(
    broker: &Broker,
    group: &GroupId,
    asked: Asked,
) -> Vec<(TopicName, Vec<(i32, Committed)>)> {
    let nothing = || Committed { offset: -1, leader_epoch: -1, metadata: Some(StrBytes::new()) };
    let group = broker.groups.get(group);
    let state = group.as_ref().map(|group| lock(&group.state));
    let of = |topic: &TopicName, index: i32| {
        let found = state.as_ref()?.offsets.get(&(topic.to_string(), index));
        found.cloned()
    };
    let asked = asked.unwrap_or_else(|| {
        let mut all: Vec<(TopicName, Vec<i32>)> = Vec::new();
        let mut keys: Vec<_> =
            state.as_ref().map(|s| s.offsets.keys().collect()).unwrap_or_default();
        keys.sort();
        for (topic, index) in keys {
            match all.last_mut() {
                Some((last, indexes)) if **last == **topic => indexes.push(*index),
                _ => all.push((TopicName(StrBytes::from_string(topic.clone())), vec![*index])),
            }
        }
        all
    });
    let one = |(topic, indexes): (TopicName, Vec<i32>)| {
        let found = indexes.into_iter().map(|i| (i, of(&topic, i).unwrap_or_else(nothing)));
        let found = found.collect();
        (topic, found)
    };
    asked.into_iter().map(one).collect()
}

pub(super) fn offset_fetch(
    broker: &Broker,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|asked| {
            let wanted = asked
                .topics
                .map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
            let topics = committed(broker, &asked.group_id, wanted).into_iter().map(grouped);
            OffsetFetchResponseGroup::default()
                .with_topics(topics.collect())
                .with_group_id(asked.group_id)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let wanted =
        request.topics.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    let topics = committed(broker, &request.group_id, wanted).into_iter().map(|(name, found)| {
        let partitions = found.into_iter().map(|(index, c)| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(c.offset)
                .with_committed_leader_epoch(if version >= 5 { c.leader_epoch } else { -1 })
                .with_metadata(c.metadata)
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

fn grouped((name, found): (TopicName, Vec<(i32, Committed)>)) -> OffsetFetchResponseTopics {
    let partitions = found.into_iter().map(|(index, c)| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(c.offset)
            .with_committed_leader_epoch(c.leader_epoch)
            .with_metadata(c.metadata)
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
}

pub(super) fn describe(broker: &Broker, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|id| {
        let answer = DescribedGroup::default();
        let Some(group) = broker.groups.get(&id) else {
            // As Kafka does: a group nobody knows is dead, which is no error here.
            return answer.with_group_id(id).with_group_state(StrBytes::from_static_str("Dead"));
        };
        let state = lock(&group.state);
        let members = state.members.iter().map(|(member_id, member)| {
            let metadata = member.protocols.iter().find(|p| p.0 == state.protocol);
            DescribedGroupMember::default()
                .with_member_id(member_id.clone())
                .with_client_id(member.client_id.clone())
                .with_client_host(StrBytes::from_static_str("/127.0.0.1"))
                .with_member_metadata(metadata.map(|p| p.1.clone()).unwrap_or_default())
                .with_member_assignment(member.assignment.clone())
        });
        answer
            .with_group_id(id)
            .with_group_state(StrBytes::from_static_str(state.phase.name()))
            .with_protocol_type(state.protocol_type.clone())
            .with_protocol_data(state.protocol.clone())
            .with_members(members.collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn list(
    broker: &Broker,
    request: &ListGroupsRequest,
    version: i16,
) -> ListGroupsResponse {
    let groups = broker.groups.all().into_iter().filter_map(|(id, group)| {
        let state = lock(&group.state);
        let phase = state.phase.name();
        let filter = &request.states_filter;
        if !filter.is_empty() && !filter.iter().any(|f| f.eq_ignore_ascii_case(phase)) {
            return None;
        }
        let listed = ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(id)))
            .with_protocol_type(state.protocol_type.clone());
        let shown = StrBytes::from_static_str(phase);
        Some(if version >= 4 { listed.with_group_state(shown) } else { listed })
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn delete(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|id| {
        let error = broker.groups.delete(&id).err().map_or(0, |e| e.code());
        DeletableGroupResult::default().with_group_id(id).with_error_code(error)
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}
