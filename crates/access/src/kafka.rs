//! Principals who are known to the brokers themselves: what Kafka lets them do, they may do here, and no more.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::principal::{Right, TableName};

/// The namespaces whose tables show a topic's records.
const OF_TOPICS: [&str; 2] = ["hotset", "errors"];

/// Properties that say who a client is: a login without any would be nobody's.
const CREDENTIALS: [&str; 6] = [
    "sasl.username",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.config",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.keystore.location",
];

/// How a principal is known to the brokers: librdkafka's properties. `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KafkaLogin(BTreeMap<String, String>);

impl KafkaLogin {
    /// A login of these properties.
    ///
    /// # Errors
    /// One of them is no part of a login, or none says who it is.
    pub fn new(properties: BTreeMap<String, String>) -> Result<Self, String> {
        let part = |key: &str| {
            key == "security.protocol" || key.starts_with("sasl.") || key.starts_with("ssl.")
        };
        if let Some(key) = properties.keys().find(|key| !part(key)) {
            return Err(format!(
                "{key:?} is no part of a login to Kafka: security.protocol, sasl.* and ssl.* are"
            ));
        }
        if !CREDENTIALS.iter().any(|key| properties.contains_key(*key)) {
            return Err(format!("a login to Kafka has one of {}", CREDENTIALS.join(", ")));
        }
        Ok(Self(properties))
    }

    /// The properties.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for KafkaLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KafkaLogin").field(&self.0.len()).finish()
    }
}

/// Why Kafka did not say. The text may be shown to the principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaSilent {
    /// The brokers do not let the principal in.
    #[error("{0}")]
    Refused(String),
    /// They do not answer.
    #[error("{0}")]
    Unavailable(String),
}

/// What may be done with each of some topics.
pub type TopicRights = Result<BTreeMap<String, Option<Right>>, KafkaSilent>;

/// Asks the brokers what a principal may do with topics.
pub trait AsksKafka: Send + Sync {
    /// The rights of a login on topics: to know of them is [`Right::List`], to read them any other.
    fn rights(
        &self,
        login: KafkaLogin,
        topics: Vec<String>,
    ) -> Pin<Box<dyn Future<Output = TopicRights> + Send + '_>>;
}

/// The brokers, for those who are known to them. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Brokers(pub Option<Arc<dyn AsksKafka>>);

impl fmt::Debug for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Brokers").field(&self.0.is_some()).finish()
    }
}

impl Brokers {
    /// The most that Kafka lets a login do with what each of these is made of. What is of no topic, Kafka has
    /// nothing to say of; of all topics together nobody asks it.
    pub(crate) async fn rights(
        &self,
        login: KafkaLogin,
        all: &[Vec<TableName>],
    ) -> Result<Vec<Option<Right>>, KafkaSilent> {
        let of_topic = |table: &&TableName| OF_TOPICS.contains(&table.namespace.as_str());
        let mut topics: Vec<String> =
            all.iter().flatten().filter(of_topic).map(|table| table.table.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics.retain(|topic| topic != "*");
        let rights = match (&self.0, topics.is_empty()) {
            (_, true) => BTreeMap::new(),
            (Some(brokers), false) => brokers.rights(login, topics).await?,
            (None, false) => {
                let why = "this service asks no brokers for others".to_owned();
                return Err(KafkaSilent::Unavailable(why));
            }
        };
        let of_one = |tables: &Vec<TableName>| {
            let each =
                tables.iter().map(|table| match of_topic(&table) || table.namespace == "*" {
                    true => rights.get(&table.table).copied().flatten(),
                    false => Some(Right::Write),
                });
            each.min().flatten()
        };
        Ok(all.iter().map(of_one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(key: &str) -> Result<KafkaLogin, String> {
        KafkaLogin::new(BTreeMap::from([(key.to_owned(), "hush".to_owned())]))
    }

    #[test]
    fn a_login_says_who_it_is_and_nothing_else() {
        assert!(login("sasl.username").is_ok() && login("ssl.certificate.location").is_ok());
        assert!(login("bootstrap.servers").unwrap_err().contains("no part of a login"));
        assert!(login("sasl.mechanism").unwrap_err().contains("has one of"));
        assert!(!format!("{:?}", login("sasl.username").unwrap()).contains("hush"));
    }

    struct Fixed;

    impl AsksKafka for Fixed {
        fn rights(
            &self,
            _: KafkaLogin,
            topics: Vec<String>,
        ) -> Pin<Box<dyn Future<Output = TopicRights> + Send + '_>> {
            let right = |topic: &str| match topic {
                "open" => Some(Right::Write),
                "seen" => Some(Right::List),
                _ => None,
            };
            let rights = topics.into_iter().map(|topic| (topic.clone(), right(&topic)));
            Box::pin(std::future::ready(Ok(rights.collect())))
        }
    }

    #[tokio::test]
    async fn the_least_right_of_all_parts_counts() {
        let brokers = Brokers(Some(Arc::new(Fixed)));
        let name = TableName::new;
        for (tables, expected) in [
            (vec![name("hotset", "open")], Some(Right::Write)),
            (vec![name("errors", "open")], Some(Right::Write)),
            (vec![name("hotset", "seen")], Some(Right::List)),
            (vec![name("hotset", "closed")], None),
            (vec![name("coldset", "closed")], Some(Right::Write)),
            (vec![name("hotset", "seen"), name("coldset", "x")], Some(Right::List)),
            (vec![name("hotset", "open"), name("hotset", "closed")], None),
            (vec![TableName::all_of("hotset")], None),
            (vec![TableName::everything()], None),
        ] {
            let login = login("sasl.username").unwrap();
            let seen = brokers.rights(login, std::slice::from_ref(&tables)).await.unwrap();
            assert_eq!(seen, [expected], "{tables:?}");
        }
        let nobody = Brokers::default();
        let asked = [vec![name("hotset", "open")]];
        assert!(nobody.rights(login("sasl.username").unwrap(), &asked).await.is_err());
    }
}
