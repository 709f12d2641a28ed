//! What of the librdkafka properties the wire path understands; whoever sets more is served by librdkafka.

use std::collections::BTreeMap;
use std::fmt;

use super::connection::Address;

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

/// How brokers are told who we are. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    None,
    Plain { user: String, password: String },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Plain { user, .. } => f.debug_struct("Plain").field("user", user).finish(),
        }
    }
}

/// What the wire path goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) bootstrap: Vec<Address>,
    pub(crate) client_id: String,
    /// Empty where none is told.
    pub(crate) rack: String,
    pub(crate) login: Login,
    pub(crate) check_crcs: bool,
    pub(crate) max_answer: usize,
}

impl Settings {
    /// `Err` names the property that only librdkafka can serve.
    pub(crate) fn of(properties: &BTreeMap<String, String>) -> Result<Self, String> {
        let get = |key: &str| properties.get(key).map(String::as_str);
        let login = login(properties)?;
        let bootstrap = get("bootstrap.servers").or(get("metadata.broker.list"));
        let addresses = bootstrap.unwrap_or("").split(',').map(str::trim).filter(|a| !a.is_empty());
        let bootstrap: Option<Vec<Address>> = addresses.map(address).collect();
        let bootstrap = bootstrap
            .filter(|all| !all.is_empty())
            .ok_or_else(|| "bootstrap.servers".to_owned())?;
        let known = ["bootstrap.servers", "metadata.broker.list", "client.id", "client.rack"];
        let others = ["check.crcs", "receive.message.max.bytes", "security.protocol"];
        for key in properties.keys().map(String::as_str) {
            let understood = known.contains(&key)
                || others.contains(&key)
                || WITHOUT_EFFECT.contains(&key)
                || (login != Login::None && key.starts_with("sasl."));
            if !understood {
                return Err(key.to_owned());
            }
        }
        let max_answer = match get("receive.message.max.bytes").map(str::parse) {
            None => MAX_ANSWER,
            Some(Ok(bytes)) => bytes,
            Some(Err(_)) => return Err("receive.message.max.bytes".into()),
        };
        Ok(Self {
            bootstrap,
            client_id: get("client.id").unwrap_or("isk").to_owned(),
            rack: get("client.rack").unwrap_or("").to_owned(),
            login,
            check_crcs: !matches!(get("check.crcs"), Some("false" | "f" | "0")),
            max_answer,
        })
    }
}

fn login(properties: &BTreeMap<String, String>) -> Result<Login, String> {
    let get = |key: &str| properties.get(key).cloned();
    let protocol = get("security.protocol").unwrap_or_default().to_ascii_lowercase();
    match protocol.as_str() {
        "" | "plaintext" => return Ok(Login::None),
        "sasl_plaintext" => {}
        _ => return Err("security.protocol".into()),
    }
    let mechanism = get("sasl.mechanism").or(get("sasl.mechanisms")).unwrap_or_default();
    let (Some(user), Some(password)) = (get("sasl.username"), get("sasl.password")) else {
        return Err("sasl.mechanism".into());
    };
    let known = ["sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password"];
    let other = properties.keys().find(|k| k.starts_with("sasl.") && !known.contains(&k.as_str()));
    match (mechanism.as_str(), other) {
        (_, Some(other)) => Err(other.clone()),
        ("PLAIN", None) => Ok(Login::Plain { user, password }),
        _ => Err("sasl.mechanism".into()),
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
        Settings::of(&all)
    }

    #[test]
    fn addresses_are_librdkafkas() {
        let settings =
            of(&[("bootstrap.servers", "a, PLAINTEXT://b:1,[::1]:2,::1,[::2]")]).unwrap();
        let shown: Vec<_> = settings.bootstrap.iter().map(|a| (a.host.as_str(), a.port)).collect();
        assert_eq!(shown, [("a", 9092), ("b", 1), ("::1", 2), ("::1", 9092), ("::2", 9092)]);
        assert_eq!(of(&[("bootstrap.servers", "a:port")]), Err("bootstrap.servers".into()));
        assert_eq!(of(&[]), Err("bootstrap.servers".into()));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let base = ("bootstrap.servers", "a");
        for (key, value) in [
            ("security.protocol", "ssl"),
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", "/x"),
            ("socket.receive.buffer.bytes", "1"),
            ("sasl.username", "u"),
            ("an.invention", "1"),
        ] {
            assert_eq!(of(&[base, (key, value)]), Err(key.to_owned()));
        }
        let sasl = [base, ("security.protocol", "SASL_PLAINTEXT"), ("sasl.username", "u")];
        let [a, b, c] = sasl;
        let mechanism = |m| of(&[a, b, c, ("sasl.password", "hunter2"), ("sasl.mechanism", m)]);
        let plain = mechanism("PLAIN").unwrap();
        assert!(matches!(&plain.login, Login::Plain { user, .. } if user == "u"));
        assert!(!format!("{plain:?}").contains("hunter2"));
        assert_eq!(mechanism("GSSAPI"), Err("sasl.mechanism".into()));
    }
}
