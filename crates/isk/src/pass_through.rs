//! What Kafka lets principals do who are known to it themselves: asked with their own logins, and remembered briefly.
//!
//! Records are fetched by the service's own clients, once for all who read them. So before a principal gets anything of
//! a topic, the brokers are asked with its login whether it may read that.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use isk_access::{AsksKafka, KafkaLogin, KafkaSilent, Right, TopicRights};
use isk_kafka::{KafkaCluster, KafkaConfig, KafkaError, TopicRight};
use isk_model::TopicName;
use moka::policy::EvictionPolicy;
use tokio::sync::Mutex;

/// How long an answer of the brokers is good.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How long a login's client is kept without being used.
const IDLE: Duration = Duration::from_secs(600);

/// Answers that are remembered.
const ANSWERS: u64 = 100_000;

/// One login's client. Its questions come one after the other: who waited finds the answer there.
struct Known {
    cluster: KafkaCluster,
    asking: Mutex<()>,
}

/// The brokers as principals see them.
pub struct PassThrough {
    own: KafkaConfig,
    clients: moka::sync::Cache<KafkaLogin, Arc<Known>>,
    answers: moka::sync::Cache<(KafkaLogin, String), Option<Right>>,
}

impl PassThrough {
    /// The brokers of this configuration, with at most so many logins' clients at a time.
    pub fn new(own: KafkaConfig, clients: u64) -> Self {
        let lru = EvictionPolicy::lru();
        Self {
            own,
            clients: moka::sync::Cache::builder()
                .max_capacity(clients.max(1))
                .eviction_policy(lru.clone())
                .time_to_idle(IDLE)
                .build(),
            answers: moka::sync::Cache::builder()
                .max_capacity(ANSWERS)
                .eviction_policy(lru)
                .time_to_live(REMEMBERED)
                .build(),
        }
    }

    async fn ask(&self, login: KafkaLogin, topics: Vec<String>) -> TopicRights {
        let known = |topic: &String| self.answers.get(&(login.clone(), topic.clone()));
        let mut rights = BTreeMap::new();
        let mut unknown = Vec::new();
        for topic in topics {
            match known(&topic) {
                Some(right) => drop(rights.insert(topic, right)),
                None => unknown.push(topic),
            }
        }
        if unknown.is_empty() {
            return Ok(rights);
        }
        let client = self.client(&login)?;
        let _one_at_a_time = client.asking.lock().await;
        unknown.retain(|topic| match known(topic) {
            Some(right) => {
                rights.insert(topic.clone(), right);
                false
            }
            None => true,
        });
        let names: Vec<TopicName> =
            unknown.iter().filter_map(|topic| TopicName::new(topic).ok()).collect();
        let answers = client.cluster.rights(&names).await.map_err(|error| silent(&error))?;
        for topic in unknown {
            // What is no name of a topic, and what the brokers left out, is nobody's.
            let answer = TopicName::new(&topic).ok().and_then(|name| answers.get(&name).copied());
            let right = match answer {
                Some(TopicRight::Read) => Some(Right::Write),
                Some(TopicRight::Describe) => Some(Right::List),
                Some(TopicRight::Nothing) | None => None,
            };
            self.answers.insert((login.clone(), topic.clone()), right);
            rights.insert(topic, right);
        }
        Ok(rights)
    }

    fn client(&self, login: &KafkaLogin) -> Result<Arc<Known>, KafkaSilent> {
        let made = self.clients.try_get_with_by_ref(login, || {
            let cluster = KafkaCluster::connect(self.own.known_by(login.properties()))?;
            Ok(Arc::new(Known { cluster, asking: Mutex::default() }))
        });
        made.map_err(|error: Arc<KafkaError>| silent(&error))
    }
}

impl AsksKafka for PassThrough {
    fn rights(
        &self,
        login: KafkaLogin,
        topics: Vec<String>,
    ) -> Pin<Box<dyn Future<Output = TopicRights> + Send + '_>> {
        Box::pin(self.ask(login, topics))
    }
}

/// Why the brokers did not say. What librdkafka says of a login may name its user, and is for the log alone.
fn silent(error: &KafkaError) -> KafkaSilent {
    tracing::warn!(%error, "a principal's own login to Kafka");
    match error {
        KafkaError::Unreachable { .. }
        | KafkaError::Leaderless { .. }
        | KafkaError::Token { refused: false, .. }
        | KafkaError::Broker { .. } => KafkaSilent::Unavailable(
            "Kafka does not say now what the principal may read; try again".to_owned(),
        ),
        KafkaError::Config { .. }
        | KafkaError::Create(_)
        | KafkaError::Authentication { .. }
        | KafkaError::Token { refused: true, .. }
        | KafkaError::NotAuthorized { .. }
        | KafkaError::NoSuchTopic { .. } => KafkaSilent::Refused(
            "Kafka does not let the principal in with the login that the access file has for it"
                .to_owned(),
        ),
    }
}
