//! DescribeConfigs, for topics and for the broker.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::state::{BROKER_ID, Broker, Refusal};
use crate::broker::topic_config::TopicConfig;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a value comes from: set for the topic, or the default.
const FROM_TOPIC: i8 = 1;
const FROM_DEFAULT: i8 = 5;

/// `(name, value, source)` of every setting of a resource.
type Settings = Vec<(&'static str, String, i8)>;

fn of_topic(config: &TopicConfig) -> Settings {
    let source = |set| if set { FROM_TOPIC } else { FROM_DEFAULT };
    let entries = config.entries.iter();
    entries.map(|(name, (value, set))| (*name, value.clone(), source(*set))).collect()
}

fn of_broker(broker: &Broker) -> Settings {
    let config = &broker.config;
    vec![
        ("auto.create.topics.enable", config.auto_create_topics.to_string(), FROM_DEFAULT),
        ("broker.id", BROKER_ID.to_string(), FROM_DEFAULT),
        ("log.retention.bytes", config.partition_bytes.to_string(), FROM_DEFAULT),
        ("message.max.bytes", config.max_message_bytes.to_string(), FROM_DEFAULT),
        ("num.partitions", config.default_partitions.to_string(), FROM_DEFAULT),
        ("socket.request.max.bytes", config.max_frame_bytes.to_string(), FROM_DEFAULT),
    ]
}

/// The settings as CreateTopics shows them.
pub(super) fn created(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let one = |(name, value, source)| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_config_source(source)
    };
    of_topic(config).into_iter().map(one).collect()
}

pub(super) fn describe_configs(
    broker: &Broker,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        let result = settings(broker, &resource);
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match result {
            Ok(settings) => answer.with_configs(shown(settings, &resource)),
            Err(refused) => {
                answer.with_error_code(refused.error.code()).with_error_message(refused.text())
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn settings(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Settings, Refusal> {
    let name = &*resource.resource_name;
    match resource.resource_type {
        TOPIC => match broker.topic(name) {
            Some(topic) => Ok(of_topic(&topic.config)),
            None => Err(Refusal::new(
                ResponseError::UnknownTopicOrPartition,
                format!("there is no topic {name}"),
            )),
        },
        BROKER if name.is_empty() || name == BROKER_ID.to_string() => Ok(of_broker(broker)),
        other => Err(Refusal::new(
            ResponseError::InvalidRequest,
            format!("no configurations of resource type {other} named {name:?} here"),
        )),
    }
}

/// The settings that were asked for; null and an empty list mean all.
fn shown(
    settings: Settings,
    resource: &DescribeConfigsResource,
) -> Vec<DescribeConfigsResourceResult> {
    let keys = resource.configuration_keys.as_deref().unwrap_or_default();
    let wanted = settings
        .into_iter()
        .filter(|(name, ..)| keys.is_empty() || keys.iter().any(|key| &**key == *name));
    let one = |(name, value, source): (&'static str, String, i8)| {
        DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_read_only(resource.resource_type == BROKER)
            .with_config_source(source)
    };
    wanted.map(one).collect()
}
