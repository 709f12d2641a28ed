//! What may be configured of the Kafka client, and what ISK keeps for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error::KafkaError;
use crate::tokens::{HTTPS, asks_for_tokens, is_of_tokens};
use isk_outbound::SecretFile;

/// How the brokers are reached and how much may be fetched at once.
///
/// `Debug` hides the values of properties that hold secrets.
#[derive(Clone)]
pub struct KafkaConfig {
    /// librdkafka properties as its CONFIGURATION.md names them; `bootstrap.servers` is required.
    /// Properties whose value decides whether reads are right are ISK's own and are refused.
    pub properties: BTreeMap<String, String>,
    /// Where `sasl.password` comes from and is renewed: what the file says when a connection logs in.
    pub password_file: Option<SecretFile>,
    /// Where `sasl.oauthbearer.client.secret` comes from and is renewed: what the file says when a token is asked for.
    pub secret_file: Option<SecretFile>,
    /// How many fetches run at the same time; more wait. Each holds one client with its own
    /// connections and up to [`Self::fetch_buffer_bytes`].
    pub max_concurrent_fetches: usize,
    /// Bytes of records that the client may hold fetched ahead, per running fetch. What is left of
    /// it when a range's end is reached was fetched in vain.
    pub fetch_buffer_bytes: usize,
    /// How long one question to the brokers (topics, offsets, configuration) may take.
    pub request_timeout: Duration,
    /// How long a fetch may see no record and no progress before it fails.
    pub progress_timeout: Duration,
    /// Who fetches records.
    pub fetch_path: FetchPath,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            properties: BTreeMap::new(),
            password_file: None,
            secret_file: None,
            max_concurrent_fetches: 8,
            fetch_buffer_bytes: 8 << 20,
            request_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(30),
            fetch_path: FetchPath::default(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(k, v)| (k.as_str(), if is_secret(k) { "[hidden]" } else { v.as_str() }))
            .collect();
        f.debug_struct("KafkaConfig")
            .field("properties", &shown)
            .field("max_concurrent_fetches", &self.max_concurrent_fetches)
            .field("fetch_buffer_bytes", &self.fetch_buffer_bytes)
            .field("request_timeout", &self.request_timeout)
            .field("progress_timeout", &self.progress_timeout)
            .field("fetch_path", &self.fetch_path)
            .finish()
    }
}

/// Who fetches records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FetchPath {
    /// ISK itself, by record batches; librdkafka where properties say what ISK does not understand.
    #[default]
    Batches,
    /// librdkafka, record by record.
    Librdkafka,
}

impl std::str::FromStr for FetchPath {
    type Err = KafkaError;

    fn from_str(text: &str) -> Result<Self, KafkaError> {
        match text {
            "batches" => Ok(Self::Batches),
            "librdkafka" => Ok(Self::Librdkafka),
            _ => Err(KafkaError::Config {
                key: "fetch".into(),
                reason: format!("{text:?} is neither \"batches\" nor \"librdkafka\""),
            }),
        }
    }
}

/// The property that may change.
const PASSWORD: &str = "sasl.password";

/// Properties a user may not set, and why.
const OWNED: &[(&str, &str)] = &[
    ("isolation.level", "only committed records are ever read"),
    ("auto.offset.reset", "a missing offset must fail the read, not move it"),
    ("enable.auto.commit", "no offsets are committed"),
    ("auto.commit.enable", "no offsets are committed"),
    ("auto.commit.interval.ms", "no offsets are committed"),
    ("auto.commit.max.ms", "no offsets are committed"),
    ("enable.auto.offset.store", "no offsets are stored"),
    ("offset.store.method", "no offsets are stored"),
    ("enable.partition.eof", "the end of a partition must be seen"),
    ("group.id", "no consumer group is joined"),
    ("group.instance.id", "no consumer group is joined"),
    ("group.protocol", "no consumer group is joined"),
    ("partition.assignment.strategy", "no consumer group is joined"),
    ("allow.auto.create.topics", "reading must not create topics"),
    ("statistics.interval.ms", "ISK counts by itself; see its metrics"),
    ("queued.min.messages", "it follows from ISK's own fetch buffer setting"),
    ("queued.max.messages.kbytes", "it follows from ISK's own fetch buffer setting"),
    ("fetch.message.max.bytes", "it follows from ISK's own fetch buffer setting"),
    ("max.partition.fetch.bytes", "it follows from ISK's own fetch buffer setting"),
    ("fetch.max.bytes", "it follows from ISK's own fetch buffer setting"),
    ("fetch.min.bytes", "it is part of ISK's own fetch pacing"),
    ("fetch.wait.max.ms", "it is part of ISK's own fetch pacing"),
    ("fetch.queue.backoff.ms", "it is part of ISK's own fetch pacing"),
    ("consume.callback.max.messages", "records are taken in blocks"),
];

/// Where ISK's default differs from librdkafka's; a user's value wins.
const DEFAULTS: &[(&str, &str)] = &[
    ("client.id", "isk"),
    ("check.crcs", "true"),
    ("enable.metrics.push", "false"),
    ("fetch.error.backoff.ms", "100"),
    ("log.connection.close", "false"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("topic.metadata.propagation.max.ms", "3000"),
];

/// What every client of ours has, whatever else is configured.
const FIXED: &[(&str, &str)] = &[
    ("isolation.level", "read_committed"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("auto.commit.enable", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
    // A stopped fetch's long poll blocks the next fetch through the same connection, so it is short.
    ("fetch.wait.max.ms", "5"),
    // librdkafka's default of a second makes bulk reads nine times slower.
    ("fetch.queue.backoff.ms", "2"),
];

/// One Fetch answer stays below librdkafka's default of what it receives at once.
const MAX_REQUEST_BYTES: usize = 32 << 20;

/// What one librdkafka client is for: it decides how far it fetches ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ClientKind {
    /// Asks for topics, offsets and configuration.
    Admin,
    /// Fetches ranges of few records; fetches hardly ahead.
    Small,
    /// Fetches long ranges at full speed.
    Bulk,
}

impl KafkaConfig {
    /// A configuration with `bootstrap.servers` and defaults.
    pub fn new(bootstrap_servers: &str) -> Self {
        let mut config = Self::default();
        config.properties.insert("bootstrap.servers".into(), bootstrap_servers.into());
        config
    }

    /// The user and its password as they are now, where the password may change.
    pub(crate) fn renewed_login(&self) -> Option<(&str, String)> {
        let user = self.properties.get("sasl.username")?;
        Some((user, self.password_file.as_ref()?.text()))
    }

    /// The brokers as configured, for messages.
    pub fn bootstrap_servers(&self) -> &str {
        ["bootstrap.servers", "metadata.broker.list"]
            .iter()
            .find_map(|key| self.properties.get(*key))
            .map_or("", String::as_str)
    }

    /// Refuses what is ISK's own, and a configuration without brokers.
    pub(crate) fn validate(&self) -> Result<(), KafkaError> {
        let refuse =
            |key: &str, reason: String| Err(KafkaError::Config { key: key.to_owned(), reason });
        for key in self.properties.keys() {
            if let Some((_, why)) = OWNED.iter().find(|(owned, _)| owned == key) {
                return refuse(key, format!("it cannot be set, because {why}; remove it"));
            }
        }
        if self.bootstrap_servers().trim().is_empty() {
            let reason = "it is missing; give the brokers as host:port, comma-separated";
            return refuse("bootstrap.servers", reason.into());
        }
        if self.max_concurrent_fetches == 0 {
            return refuse("max_concurrent_fetches", "it must be at least 1".into());
        }
        if self.fetch_buffer_bytes < 1 << 20 {
            return refuse("fetch_buffer_bytes", "it must be at least 1 MiB (1048576)".into());
        }
        Ok(())
    }

    /// The properties of one client in the order they are to be set.
    pub(crate) fn client_properties(&self, kind: ClientKind) -> BTreeMap<String, String> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        let mut all: BTreeMap<String, String> = DEFAULTS.iter().map(owned).collect();
        all.extend(self.properties.iter().map(|(k, v)| (k.clone(), v.clone())));
        if let Some(file) = &self.password_file {
            all.insert(PASSWORD.to_owned(), file.text());
        }
        // The librdkafka that is built in speaks no HTTPS and refuses to be told of it.
        let tokens = asks_for_tokens(&self.properties);
        all.retain(|key, _| !(key.starts_with(HTTPS) || tokens && is_of_tokens(key)));
        all.extend(FIXED.iter().map(owned));
        // One fetch answer in flight besides what is queued: the two share the buffer.
        let (request, queue, min_messages) = match kind {
            ClientKind::Bulk | ClientKind::Admin => {
                // An answer ends within a batch, which is sent again with the next: with batches of a
                // megabyte, small answers are sent half in vain.
                let request = (self.fetch_buffer_bytes / 2).min(MAX_REQUEST_BYTES);
                (request, self.fetch_buffer_bytes / 4, 10_000_000)
            }
            // With one message as the low-water mark nothing is fetched while anything is queued.
            ClientKind::Small => (128 << 10, 1 << 20, 1),
        };
        for (key, value) in [
            ("fetch.message.max.bytes", request),
            ("fetch.max.bytes", request.max(1_000_000)),
            ("queued.max.messages.kbytes", queue / 1024),
            ("queued.min.messages", min_messages),
        ] {
            all.insert(key.to_owned(), value.to_string());
        }
        all
    }
}

/// Whether a property's value must never be shown.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token", "jaas", "oauthbearer.config", ".pem", "private.key", "key.pem"]
        .iter()
        .any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> KafkaConfig {
        let mut config = KafkaConfig::new("localhost:9092");
        config.properties.insert(key.into(), value.into());
        config
    }

    #[test]
    fn owned_properties_are_refused_by_name() {
        for (key, _) in OWNED {
            let error = with(key, "x").validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(with("security.protocol", "sasl_ssl").validate().is_ok());
    }

    #[test]
    fn what_is_fixed_cannot_be_set() {
        for (key, _) in FIXED {
            assert!(OWNED.iter().any(|(owned, _)| owned == key), "{key}");
        }
    }

    #[test]
    fn no_brokers_is_an_error_that_names_the_key() {
        let error = KafkaConfig::default().validate().unwrap_err().to_string();
        assert!(error.contains("bootstrap.servers"), "{error}");
    }

    #[test]
    fn a_user_can_override_a_default_but_nothing_that_is_fixed() {
        let properties = with("check.crcs", "false").client_properties(ClientKind::Bulk);
        assert_eq!(properties["check.crcs"], "false");
        assert_eq!(properties["isolation.level"], "read_committed");
    }

    #[test]
    fn whom_to_believe_over_https_is_none_of_librdkafkas_business() {
        let mut config = with("https.ca.location", "/ca");
        assert!(!config.client_properties(ClientKind::Admin).contains_key("https.ca.location"));
        config.properties.insert("sasl.oauthbearer.method".into(), "oidc".into());
        let left = config.client_properties(ClientKind::Admin);
        // It says itself why it does not take what nobody else here takes.
        assert!(left.contains_key("sasl.oauthbearer.method"));
        config.properties.insert("security.protocol".into(), "sasl_ssl".into());
        config.properties.insert("sasl.mechanism".into(), "OAUTHBEARER".into());
        let left = config.client_properties(ClientKind::Admin);
        assert!(
            !left.contains_key("sasl.oauthbearer.method") && left.contains_key("sasl.mechanism")
        );
    }

    #[test]
    fn a_rack_reaches_the_clients_that_fetch() {
        for kind in [ClientKind::Small, ClientKind::Bulk] {
            assert_eq!(with("client.rack", "a").client_properties(kind)["client.rack"], "a");
        }
    }

    #[test]
    fn paths_have_names() {
        assert_eq!("batches".parse::<FetchPath>().unwrap(), FetchPath::Batches);
        assert_eq!("librdkafka".parse::<FetchPath>().unwrap(), FetchPath::Librdkafka);
        let error = "batch".parse::<FetchPath>().unwrap_err().to_string();
        assert!(error.contains("\"fetch\"") && error.contains("librdkafka"), "{error}");
    }

    #[test]
    fn debug_hides_secrets() {
        let mut config = with("sasl.password", "hunter2");
        config.properties.insert("ssl.key.pem".into(), "hunter2".into());
        config.properties.insert("sasl.oauthbearer.client.secret".into(), "hunter2".into());
        config.properties.insert("ssl.keystore.password".into(), "hunter2".into());
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
