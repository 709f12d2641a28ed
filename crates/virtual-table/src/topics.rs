//! Which topics are served, and what the brokers say of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use isk_kafka::{KafkaCluster, KafkaError, TopicDescription};
use isk_model::TopicName;
use regex::RegexSet;

use crate::api::{HOTSET, ServiceError};

/// How long a topic's description is believed: a new partition or a recreated topic shows after it.
const DESCRIPTION_TTL: Duration = Duration::from_secs(1);

/// How long a topic's configuration is believed: for so long, a topic that begins to be compacted may
/// still be planned as one that is not.
const CONFIG_TTL: Duration = Duration::from_secs(5);

/// Kafka's default of `max.message.bytes`, with its batch overhead.
const DEFAULT_MAX_MESSAGE_BYTES: u64 = 1_048_588;

/// Include and exclude patterns over whole topic names.
#[derive(Debug, Clone)]
pub struct TopicFilter {
    include: RegexSet,
    exclude: RegexSet,
}

impl TopicFilter {
    /// A topic is served when an include pattern matches its whole name and no exclude pattern does.
    ///
    /// # Errors
    /// The text of the pattern that is no regular expression, and why.
    pub fn new<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, regex::Error> {
        let whole = |patterns: &[S]| {
            RegexSet::new(patterns.iter().map(|p| format!("^(?:{})$", p.as_ref())))
        };
        Ok(Self { include: whole(include)?, exclude: whole(exclude)? })
    }

    /// One that serves no topic.
    pub fn none() -> Self {
        Self { include: RegexSet::empty(), exclude: RegexSet::empty() }
    }

    /// Whether no topic at all is served.
    pub(crate) fn is_empty(&self) -> bool {
        self.include.is_empty()
    }

    /// Whether a topic of this name is served. Kafka's internal topics never are.
    pub fn serves(&self, name: &TopicName) -> bool {
        let name = name.as_str();
        !name.starts_with("__") && self.include.is_match(name) && !self.exclude.is_match(name)
    }
}

/// What of a topic's configuration matters for planning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopicSettings {
    /// `max.message.bytes`.
    pub max_message_bytes: u64,
    /// Whether `cleanup.policy` holds `compact`.
    pub compacted: Compacted,
    /// Whether older segments lie in a remote store (`remote.storage.enable`), where reading them costs
    /// money and time. What reads by itself leaves such topics alone, unless it is told to.
    pub tiered: bool,
}

/// Whether a topic's log is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compacted {
    /// It is not.
    No,
    /// It is.
    Yes,
    /// The configuration was not to be seen: it may be.
    Unknown,
}

/// The topics of a cluster, as far as they are served.
pub(crate) struct Topics {
    kafka: KafkaCluster,
    filter: TopicFilter,
    described: moka::future::Cache<TopicName, Arc<TopicDescription>>,
    settings: moka::future::Cache<TopicName, TopicSettings>,
}

impl Topics {
    pub(crate) fn new(kafka: KafkaCluster, filter: TopicFilter) -> Self {
        let described =
            moka::future::Cache::builder().max_capacity(10_000).time_to_live(DESCRIPTION_TTL);
        let settings = moka::future::Cache::builder().max_capacity(10_000).time_to_live(CONFIG_TTL);
        Self { kafka, filter, described: described.build(), settings: settings.build() }
    }

    /// The served topics' names, sorted.
    pub(crate) async fn names(&self) -> Result<Vec<TopicName>, ServiceError> {
        let topics = self.kafka.topics().await.map_err(|e| kafka_error(&e))?;
        let served = topics.into_iter().filter(|t| !t.internal && self.filter.serves(&t.name));
        Ok(served.map(|t| t.name).collect())
    }

    /// A served topic by the name of its table.
    pub(crate) async fn get(&self, table: &str) -> Result<Arc<TopicDescription>, ServiceError> {
        let missing =
            || ServiceError::NoSuchTable { namespace: HOTSET.into(), table: table.into() };
        let name = TopicName::new(table).map_err(|_| missing())?;
        if !self.filter.serves(&name) {
            return Err(missing());
        }
        let asked = self.described.try_get_with(name.clone(), async {
            match self.kafka.topic(&name).await {
                Ok(Some(topic)) if !topic.internal => Ok(Arc::new(topic)),
                Ok(_) => Err(missing()),
                Err(error) => Err(kafka_error(&error)),
            }
        });
        asked.await.map_err(|e| (*e).clone())
    }

    /// The topic's settings. A principal that may not see them gets Kafka's defaults.
    pub(crate) async fn settings(&self, name: &TopicName) -> TopicSettings {
        let asked = self.settings.try_get_with(name.clone(), async {
            self.kafka.topic_config(name).await.map(|config| settings(&config))
        });
        asked.await.unwrap_or_else(|error| {
            tracing::warn!(topic = %name, %error, "the topic's configuration is unknown; it is taken for compacted");
            TopicSettings {
                max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
                compacted: Compacted::Unknown,
                tiered: false,
            }
        })
    }
}

fn settings(config: &BTreeMap<String, String>) -> TopicSettings {
    let max = config.get("max.message.bytes").and_then(|v| v.parse().ok());
    let policy = config.get("cleanup.policy").map_or("", String::as_str);
    let compacted = policy.split(',').any(|p| p.trim() == "compact");
    TopicSettings {
        max_message_bytes: max.unwrap_or(DEFAULT_MAX_MESSAGE_BYTES),
        compacted: if compacted { Compacted::Yes } else { Compacted::No },
        tiered: config.get("remote.storage.enable").is_some_and(|v| v == "true"),
    }
}

/// A question to the brokers that failed, as the service's error.
pub(crate) fn kafka_error(error: &KafkaError) -> ServiceError {
    match error {
        KafkaError::NoSuchTopic { topic } => {
            ServiceError::NoSuchTable { namespace: HOTSET.into(), table: topic.to_string() }
        }
        KafkaError::NotAuthorized { .. } => ServiceError::Denied { reason: error.to_string() },
        _ => ServiceError::Unavailable { what: "Kafka".into(), reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let filter = TopicFilter::new(&["orders.*", "users"], &["orders-internal"]).unwrap();
        let serves = |name| filter.serves(&TopicName::new(name).unwrap());
        assert!(serves("orders") && serves("orders.eu") && serves("users"));
        assert!(!serves("users2") && !serves("my-orders") && !serves("orders-internal"));
        let all = TopicFilter::new(&[".*"], &[]).unwrap();
        assert!(!all.serves(&TopicName::new("__consumer_offsets").unwrap()));
    }

    #[test]
    fn a_policy_of_two_is_compacted_too() {
        let compacted = |policy: &str| of("cleanup.policy", policy).compacted;
        for policy in ["compact,delete", "delete, compact", "compact"] {
            assert_eq!(compacted(policy), Compacted::Yes, "{policy}");
        }
        assert_eq!(compacted("delete"), Compacted::No);
    }

    #[test]
    fn tiered_topics_are_known() {
        assert!(of("remote.storage.enable", "true").tiered);
        assert!(!of("remote.storage.enable", "false").tiered);
        // Brokers before 2.8 do not have the setting.
        assert!(!of("cleanup.policy", "delete").tiered);
    }

    fn of(key: &str, value: &str) -> TopicSettings {
        settings(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }
}
