//! What of the librdkafka properties the wire path understands; whoever sets more is served by librdkafka.

use std::sync::Arc;

use super::connection::Address;
use super::login::Login;
use super::tls::Encryption;
use crate::config::KafkaConfig;
use crate::tokens::{HTTPS, Tokens, is_of_tokens};

/// Answers with records are never longer unless `receive.message.max.bytes` allows it: librdkafka's default.
const MAX_ANSWER: usize = 100_000_000;
/// Kafka's usual port.
const DEFAULT_PORT: u16 = 9092;

/// Properties that change nothing about what is read over a connection that stands: how librdkafka
/// waits, logs and looks about.
const WITHOUT_EFFECT: &[&str] = &[
    "api.version.request",
    "api.version.request.timeout.ms",
    "broker.address.ttl",
    "broker.version.fallback",
    "client.software.name",
    "client.software.version",
    "connections.max.idle.ms",
    "debug",
    "enable.metrics.push",
    "fetch.error.backoff.ms",
    "log.connection.close",
    "log.queue",
    "log_level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.timeout.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
];

/// What the wire path goes by.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) bootstrap: Vec<Address>,
    pub(crate) client_id: String,
    /// Empty where none is told.
    pub(crate) rack: String,
    pub(crate) encryption: Option<Encryption>,
    pub(crate) login: Option<Login>,
    pub(crate) check_crcs: bool,
    pub(crate) max_answer: usize,
}

impl Settings {
    /// `Err` names the property that only librdkafka can serve.
    pub(crate) fn of(config: &KafkaConfig, tokens: Option<&Arc<Tokens>>) -> Result<Self, String> {
        let properties = &config.properties;
        let get = |key: &str| properties.get(key).map(String::as_str);
        let protocol = get("security.protocol").unwrap_or_default().to_ascii_lowercase();
        let (encrypts, logs_in) = match protocol.as_str() {
            "" | "plaintext" => (false, false),
            "sasl_plaintext" => (false, true),
            "ssl" => (true, false),
            "sasl_ssl" => (true, true),
            _ => return Err("security.protocol".into()),
        };
        let login = logs_in.then(|| Login::of(properties, config.password_file.as_ref(), tokens));
        let login = login.transpose()?;
        let bootstrap = get("bootstrap.servers").or(get("metadata.broker.list"));
        let addresses = bootstrap.unwrap_or("").split(',').map(str::trim).filter(|a| !a.is_empty());
        let bootstrap: Option<Vec<Address>> = addresses.map(address).collect();
        let bootstrap = bootstrap
            .filter(|all| !all.is_empty())
            .ok_or_else(|| "bootstrap.servers".to_owned())?;
        let known = ["bootstrap.servers", "metadata.broker.list", "client.id", "client.rack"];
        let others = ["check.crcs", "receive.message.max.bytes", "security.protocol"];
        for (key, value) in properties {
            let key = key.as_str();
            let understood = known.contains(&key)
                || others.contains(&key)
                || WITHOUT_EFFECT.contains(&key)
                || (logs_in && key.starts_with("sasl."))
                || key.starts_with(HTTPS)
                || (tokens.is_some() && is_of_tokens(key))
                || (encrypts && Encryption::understands(key, value));
            if !understood {
                return Err(key.to_owned());
            }
        }
        let encryption = encrypts.then(|| Encryption::of(properties)).transpose()?;
        let max_answer = match get("receive.message.max.bytes").map(str::parse) {
            None => MAX_ANSWER,
            Some(Ok(bytes)) => bytes,
            Some(Err(_)) => return Err("receive.message.max.bytes".into()),
        };
        Ok(Self {
            bootstrap,
            client_id: get("client.id").unwrap_or("isk").to_owned(),
            rack: get("client.rack").unwrap_or("").to_owned(),
            encryption,
            login,
            check_crcs: !matches!(get("check.crcs"), Some("false" | "f" | "0")),
            max_answer,
        })
    }
}

/// `host`, `host:port` or `PROTOCOL://host:port`; an IPv6 address with a port in brackets.
fn address(text: &str) -> Option<Address> {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return None,
        };
        return Some(Address { host: host.into(), port });
    }
    match text.rsplit_once(':') {
        None => Some(Address { host: text.into(), port: DEFAULT_PORT }),
        Some((host, _)) if host.contains(':') => {
            Some(Address { host: text.into(), port: DEFAULT_PORT })
        }
        Some((host, port)) => Some(Address { host: host.into(), port: port.parse().ok()? }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(properties: &[(&str, &str)]) -> Result<Settings, String> {
        let all = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let config = KafkaConfig { properties: all, ..KafkaConfig::default() };
        let tokens = Tokens::of(&config).map_err(|e| e.to_string())?.map(Arc::new);
        Settings::of(&config, tokens.as_ref())
    }

    #[test]
    fn addresses_are_librdkafkas() {
        let settings =
            of(&[("bootstrap.servers", "a, PLAINTEXT://b:1,[::1]:2,::1,[::2]")]).unwrap();
        let shown: Vec<_> = settings.bootstrap.iter().map(|a| (a.host.as_str(), a.port)).collect();
        assert_eq!(shown, [("a", 9092), ("b", 1), ("::1", 2), ("::1", 9092), ("::2", 9092)]);
        assert_eq!(of(&[("bootstrap.servers", "a:port")]).unwrap_err(), "bootstrap.servers");
        assert_eq!(of(&[]).unwrap_err(), "bootstrap.servers");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let base = ("bootstrap.servers", "a");
        for (key, value) in [
            ("security.protocol", "gssapi"),
            ("ssl.ca.location", "/x"),
            ("socket.receive.buffer.bytes", "1"),
            ("sasl.username", "u"),
            ("an.invention", "1"),
        ] {
            assert_eq!(of(&[base, (key, value)]).unwrap_err(), key);
        }
        for (key, value) in [
            ("ssl.ca.location", "/no/such/file"),
            ("ssl.ca.pem", "no certificate"),
            ("ssl.key.password", "x"),
            ("ssl.keystore.location", "/x"),
            ("ssl.endpoint.identification.algorithm", "none"),
            ("enable.ssl.certificate.verification", "false"),
        ] {
            let tls = ("security.protocol", "ssl");
            assert_eq!(of(&[base, tls, (key, value)]).unwrap_err(), key);
        }
    }

    #[test]
    fn logins_are_shown_without_their_secrets() {
        let base = ("bootstrap.servers", "a");
        let sasl = [base, ("security.protocol", "SASL_PLAINTEXT"), ("sasl.username", "u")];
        let [a, b, c] = sasl;
        let mechanism = |m| of(&[a, b, c, ("sasl.password", "hunter2"), ("sasl.mechanism", m)]);
        for known in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let shown = format!("{:?}", mechanism(known).unwrap());
            assert!(shown.contains(known) && !shown.contains("hunter2"), "{shown}");
        }
        for other in ["GSSAPI", "OAUTHBEARER", "SCRAM-SHA-1"] {
            assert_eq!(mechanism(other).unwrap_err(), "sasl.mechanism");
        }
        let id = ("sasl.oauthbearer.client.id", "isk");
        let secret = ("sasl.oauthbearer.client.secret", "hunter2");
        let url = ("sasl.oauthbearer.token.endpoint.url", "http://id");
        let [d, e] = [("sasl.mechanism", "OAUTHBEARER"), ("sasl.oauthbearer.method", "oidc")];
        let token = of(&[a, b, d, e, id, secret, url, ("https.ca.location", "probe")]).unwrap();
        let shown = format!("{token:?}");
        assert!(shown.contains("http://id") && !shown.contains("hunter2"), "{shown}");
        let more = ("sasl.oauthbearer.config", "x");
        assert_eq!(of(&[a, b, c, more]).unwrap_err(), "sasl.oauthbearer.config");
    }
}
