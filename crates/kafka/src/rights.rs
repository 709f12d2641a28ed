//! What a client's principal may do with topics, as the brokers say it.

use std::collections::BTreeMap;
use std::time::Duration;

use isk_model::TopicName;

use crate::cluster::KafkaCluster;
use crate::config::KafkaConfig;
use crate::error::KafkaError;
use crate::fetch::is_retriable;

/// Topics that are asked about in one request.
const AT_ONCE: usize = 500;

/// What a principal may do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRight {
    /// It may not know of it, or there is none.
    Nothing,
    /// To know of it: DESCRIBE.
    Describe,
    /// To read its records: READ.
    Read,
}

impl KafkaConfig {
    /// The same brokers as somebody else: with these properties (`security.protocol`, `sasl.*`, `ssl.*`), and nothing
    /// of what this configuration is known by.
    pub fn known_by(&self, login: &BTreeMap<String, String>) -> Self {
        let mut properties = self.properties.clone();
        properties.retain(|key, _| !is_of_login(key));
        properties.extend(login.clone());
        Self { properties, password_file: None, secret_file: None, ..self.clone() }
    }
}

/// Whether a property says who a client is. Which authorities and mechanisms it takes does not.
fn is_of_login(key: &str) -> bool {
    let tells = ["sasl.", "ssl.certificate", "ssl.key", "ssl.keystore", "enable.sasl"];
    let does_not = ["sasl.mechanism", "sasl.mechanisms"];
    tells.iter().any(|begin| key.starts_with(begin)) && !does_not.contains(&key)
}

impl KafkaCluster {
    /// What the client's own principal may do with these topics.
    ///
    /// # Errors
    /// See [`KafkaError`]: the brokers do not answer, or do not let it in.
    pub async fn rights(
        &self,
        topics: &[TopicName],
    ) -> Result<BTreeMap<TopicName, TopicRight>, KafkaError> {
        let mut rights = BTreeMap::new();
        for some in topics.chunks(AT_ONCE) {
            let what = format!("what may be done with {} topics", some.len());
            let answer = self.ask(&what, None, |queue, timeout: Duration| async move {
                let names: Vec<&str> = some.iter().map(TopicName::as_str).collect();
                let described = queue.describe_topics(&names, true, timeout).await?;
                // What is said of a topic while its leader moves is no right.
                let mut errors = described.iter().filter_map(|topic| topic.error.as_ref());
                match errors.find(|error| is_retriable(error.code)) {
                    Some(passing) => Err(passing.clone()),
                    None => Ok(described),
                }
            });
            for topic in answer.await? {
                let Ok(name) = TopicName::new(&topic.name) else { continue };
                let right = match (topic.error, topic.readable) {
                    (Some(_), _) => TopicRight::Nothing,
                    (None, false) => TopicRight::Describe,
                    (None, true) => TopicRight::Read,
                };
                rights.insert(name, right);
            }
        }
        Ok(rights)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_services_own_login_is_left() {
        let properties = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let mut own = KafkaConfig::new("b:9092");
        own.properties.extend(properties(&[
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "isk"),
            ("sasl.password", "x"),
            ("sasl.oauthbearer.config", "principal=isk"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("ssl.ca.location", "/ca"),
            ("https.ca.location", "/ca"),
            ("ssl.certificate.location", "/isk.crt"),
            ("ssl.key.pem", "k"),
            ("ssl.keystore.location", "/isk.p12"),
        ]));
        let theirs = own.known_by(&properties(&[("sasl.username", "alice")]));
        assert_eq!(
            theirs.properties,
            properties(&[
                ("bootstrap.servers", "b:9092"),
                ("https.ca.location", "/ca"),
                ("sasl.mechanism", "PLAIN"),
                ("sasl.username", "alice"),
                ("security.protocol", "SASL_SSL"),
                ("ssl.ca.location", "/ca"),
            ])
        );
    }
}
