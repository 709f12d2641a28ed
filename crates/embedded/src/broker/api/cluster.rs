//! Who is there: ApiVersions, Metadata, DescribeCluster, FindCoordinator.

use std::sync::Arc;

use isk_model::TopicName;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    self, ApiVersionsResponse, BrokerId, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::OFFERED;
use crate::broker::log::LEADER_EPOCH;
use crate::broker::state::{BROKER_ID, Broker, Topic};

pub(super) fn api_versions() -> ApiVersionsResponse {
    let offered = OFFERED.iter().map(|&(api, first, last)| {
        let version = ApiVersion::default().with_api_key(api as i16);
        version.with_min_version(first).with_max_version(last)
    });
    ApiVersionsResponse::default().with_api_keys(offered.collect())
}

/// For an ApiVersions request in a version newer than ours: the same list, in version 0.
pub(super) fn unsupported_version() -> ApiVersionsResponse {
    api_versions().with_error_code(ResponseError::UnsupportedVersion.code())
}

pub(super) fn metadata(
    broker: &Broker,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    // In version 0 an empty list means all topics; from 1 on null does.
    let all = request.topics.as_ref().is_none_or(|t| t.is_empty() && version == 0);
    let topics = if all {
        broker.topics().iter().map(|topic| describe(topic)).collect()
    } else {
        let create = request.allow_auto_topic_creation || version < 4;
        let asked = request.topics.unwrap_or_default().into_iter();
        asked.map(|t| one_topic(broker, t.name, t.topic_id, create)).collect()
    };
    let (host, port) = broker.advertised();
    let me = MetadataResponseBroker::default()
        .with_node_id(BrokerId(BROKER_ID))
        .with_host(host)
        .with_port(port);
    MetadataResponse::default()
        .with_brokers(vec![me])
        .with_cluster_id(Some(StrBytes::from_string(broker.cluster_id.clone())))
        .with_controller_id(BrokerId(BROKER_ID))
        .with_topics(topics)
}

fn one_topic(
    broker: &Broker,
    name: Option<messages::TopicName>,
    id: uuid::Uuid,
    create: bool,
) -> MetadataResponseTopic {
    let Some(name) = name else {
        return match broker.topic_by_id(id) {
            Some(topic) => describe(&topic),
            None => MetadataResponseTopic::default()
                .with_topic_id(id)
                .with_error_code(ResponseError::UnknownTopicId.code()),
        };
    };
    let failed = |error: ResponseError| {
        MetadataResponseTopic::default().with_name(Some(name.clone())).with_error_code(error.code())
    };
    match find_or_create(broker, &name.0, create) {
        Ok(topic) => describe(&topic),
        Err(error) => failed(error),
    }
}

fn find_or_create(broker: &Broker, name: &str, create: bool) -> Result<Arc<Topic>, ResponseError> {
    if let Some(topic) = broker.topic(name) {
        return Ok(topic);
    }
    TopicName::new(name).map_err(|_| ResponseError::InvalidTopicException)?;
    if !(create && broker.config.auto_create_topics) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    match broker.create_topic(name, -1, &[], false) {
        Ok(topic) => {
            tracing::info!(topic = name, "topic created because a client asked for it");
            Ok(topic)
        }
        // Somebody else was faster.
        Err(refused) => broker.topic(name).ok_or(refused.error),
    }
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let me = || vec![BrokerId(BROKER_ID)];
    let partitions = (0..topic.partition_count()).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(BROKER_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(me())
            .with_isr_nodes(me())
    });
    MetadataResponseTopic::default()
        .with_name(Some(messages::TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}

pub(super) fn describe_cluster(broker: &Broker) -> DescribeClusterResponse {
    let (host, port) = broker.advertised();
    let me = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(BROKER_ID))
        .with_host(host)
        .with_port(port);
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(broker.cluster_id.clone()))
        .with_controller_id(BrokerId(BROKER_ID))
        .with_brokers(vec![me])
}

pub(super) fn find_coordinator(
    broker: &Broker,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let (host, port) = broker.advertised();
    // 0 is a group; 1 would be a transaction. Clients retry on most codes, but take this one as
    // final, and their users get to read the text.
    let refused = (request.key_type != 0).then(|| {
        let text = "the embedded broker coordinates consumer groups only: no transactions";
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        (error.code(), Some(StrBytes::from_static_str(text)))
    });
    let (code, text) = refused.unwrap_or((0, None));
    let (node, host, port) =
        if code == 0 { (BROKER_ID, host, port) } else { (-1, StrBytes::new(), -1) };
    if version >= 4 {
        let one = |key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(node))
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(code)
                .with_error_message(text.clone())
        };
        let all = request.coordinator_keys.into_iter().map(one).collect();
        return FindCoordinatorResponse::default().with_coordinators(all);
    }
    FindCoordinatorResponse::default()
        .with_error_code(code)
        .with_error_message(text)
        .with_node_id(BrokerId(node))
        .with_host(host)
        .with_port(port)
}
