//! Topics come, shrink and go: CreateTopics, DeleteTopics, DeleteRecords, CreatePartitions.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    self, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::configs;
use crate::broker::state::{Broker, Refusal};

pub(super) fn create_topics(
    broker: &Broker,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let dry_run = request.validate_only;
    let topics = request.topics.into_iter().map(|t| create_topic(broker, t, dry_run, version));
    CreateTopicsResponse::default().with_topics(topics.collect())
}

fn create_topic(
    broker: &Broker,
    asked: CreatableTopic,
    dry_run: bool,
    version: i16,
) -> CreatableTopicResult {
    let answer = CreatableTopicResult::default().with_name(asked.name.clone());
    let settings: Vec<_> = asked
        .configs
        .iter()
        .filter_map(|c| Some((c.name.to_string(), c.value.as_ref()?.to_string())))
        .collect();
    let partitions = match i32::try_from(asked.assignments.len()) {
        Ok(assigned) if assigned > 0 => assigned,
        _ => asked.num_partitions,
    };
    let replicas = asked.replication_factor;
    let result = if matches!(replicas, -1 | 1) || !asked.assignments.is_empty() {
        broker.create_topic(&asked.name, partitions, &settings, dry_run)
    } else {
        let text = format!("replication factor {replicas}: the embedded broker is alone, use 1");
        Err(Refusal::new(ResponseError::InvalidReplicationFactor, text))
    };
    match result {
        Ok(topic) => {
            let idle = topic.config.idle();
            if !idle.is_empty() {
                tracing::warn!(topic = %topic.name, ?idle, "stored, but not acted on here");
            }
            let answer = answer.with_topic_id(topic.id);
            if version < 5 {
                return answer;
            }
            answer
                .with_num_partitions(topic.partition_count())
                .with_replication_factor(1)
                .with_configs(Some(configs::created(&topic.config)))
        }
        Err(refused) => {
            answer.with_error_code(refused.error.code()).with_error_message(refused.text())
        }
    }
}

pub(super) fn delete_topics(
    broker: &Broker,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), uuid::Uuid::nil()));
    let by_state = request.topics.into_iter().map(|t| (t.name, t.topic_id));
    let responses = by_name.chain(by_state).map(|(name, id)| {
        let unknown = match &name {
            Some(_) => ResponseError::UnknownTopicOrPartition,
            None => ResponseError::UnknownTopicId,
        };
        let found = match &name {
            Some(name) => broker.topic(name),
            None => broker.topic_by_id(id),
        };
        let gone = found.and_then(|topic| broker.delete_topic(&topic.name));
        let answer = DeletableTopicResult::default();
        let name_of = |text: String| Some(messages::TopicName(StrBytes::from_string(text)));
        match gone {
            Some(topic) => {
                tracing::info!(topic = %topic.name, "topic deleted");
                answer.with_name(name_of(topic.name.to_string())).with_topic_id(topic.id)
            }
            // Before version 6 the name cannot be null; there it is always given.
            None => {
                let name = if version < 6 { name.or(name_of(String::new())) } else { name };
                answer.with_name(name).with_topic_id(id).with_error_code(unknown.code())
            }
        }
    });
    DeleteTopicsResponse::default().with_responses(responses.collect())
}

pub(super) fn delete_records(
    broker: &Broker,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|asked| {
        let topic = broker.topic(&asked.name);
        let partitions = asked.partitions.iter().map(|p| {
            let index = p.partition_index;
            let result = match &topic {
                Some(topic) => broker.delete_records(topic, index, p.offset),
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
            match result {
                Ok(start) => answer.with_low_watermark(start),
                Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// Refused with a text: topics here keep the partitions they were made with.
pub(super) fn create_partitions(
    broker: &Broker,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let results = request.topics.into_iter().map(|asked| {
        let (error, text) = match broker.topic(&asked.name) {
            None => (ResponseError::UnknownTopicOrPartition, "there is no such topic"),
            Some(_) => (
                ResponseError::PolicyViolation,
                "the embedded broker adds no partitions; delete the topic and create it anew",
            ),
        };
        CreatePartitionsTopicResult::default()
            .with_name(asked.name)
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(text)))
    });
    CreatePartitionsResponse::default().with_results(results.collect())
}
