//! The configuration: a TOML file, overlaid by `ISK_*` environment variables.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use toml::{Table, Value};

/// All that can be configured. `Debug` hides secrets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address both ports listen on.
    pub bind: IpAddr,
    /// The host name under which clients reach both ports.
    pub external_hostname: String,
    /// Where pins, facts and metadata files live.
    pub data_dir: PathBuf,
    /// The Iceberg REST catalog.
    pub catalog: Catalog,
    /// The S3 gateway.
    pub s3: S3,
    /// librdkafka properties; `bootstrap.servers` is required.
    pub kafka: Properties,
    /// The schema registry.
    pub registry: Registry,
    /// Which topics are tables.
    pub topics: Topics,
    /// Bounds of memory, disk and concurrency.
    pub limits: Limits,
    /// The upstream catalog of cold tables. Accepted, not used by this version.
    pub coldset: Properties,
    /// The configuration service. Accepted, not used by this version.
    pub config_service_url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: IpAddr::from([127, 0, 0, 1]),
            external_hostname: "127.0.0.1".into(),
            data_dir: PathBuf::from("isk-data"),
            catalog: Catalog::default(),
            s3: S3::default(),
            kafka: Properties::default(),
            registry: Registry::default(),
            topics: Topics::default(),
            limits: Limits::default(),
            coldset: Properties::default(),
            config_service_url: None,
        }
    }
}

/// The Iceberg REST catalog.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// Its TCP port; 0 takes a free one.
    pub port: u16,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { port: 11001 }
    }
}

/// The S3 gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3 {
    /// Its TCP port; 0 takes a free one.
    pub port: u16,
    /// The URL clients reach it at; derived from the host name and port when not set.
    pub external_url: Option<String>,
    /// The region clients are told and sign for.
    pub region: String,
    /// The access key that clients sign with.
    pub access_key_id: String,
    /// Its secret; made at the first start and kept below `data_dir` when not set.
    pub secret_access_key: Option<Secret>,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            port: 11000,
            external_url: None,
            region: "us-east-1".into(),
            access_key_id: "isk".into(),
            secret_access_key: None,
        }
    }
}

/// The schema registry.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    /// Its base URL, or several of one cluster separated by commas. Without one, every topic is
    /// shown with its raw value.
    pub url: Option<String>,
    /// User name of basic authentication.
    pub username: Option<String>,
    /// Password of basic authentication.
    pub password: Option<Secret>,
    /// Bearer token.
    pub token: Option<Secret>,
    /// A file of PEM certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Which topics are tables. The patterns are regular expressions that match the whole name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// A topic is a table when one of these matches ...
    pub include: Vec<String>,
    /// ... and none of these. Kafka's internal topics are never tables.
    pub exclude: Vec<String>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { include: vec![".*".into()], exclude: vec!["_schemas".into(), "_confluent.*".into()] }
    }
}

/// Bounds of memory, disk and concurrency.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Encoded files kept on disk below `data_dir`, in bytes.
    pub cache_bytes: u64,
    /// Chunks encoded at the same time; each takes up to about 100 MiB of memory.
    pub render_concurrency: usize,
    /// How long metadata files that no plan names any more are kept, in seconds.
    pub metadata_retention_seconds: u64,
    /// Time-out of one question to the brokers or the registry, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long a read may wait for the next record before it fails, in milliseconds.
    pub fetch_progress_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 30,
            render_concurrency: 2,
            metadata_retention_seconds: 24 * 3600,
            request_timeout_ms: 10_000,
            fetch_progress_timeout_ms: 30_000,
        }
    }
}

/// Free-form properties, some of which are secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A value that is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one who must have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// Environment variables that set one key each.
const VARIABLES: &[(&str, &str)] = &[
    ("ISK_PORT", "s3.port"),
    ("ISK_S3_PORT", "s3.port"),
    ("ISK_CATALOG_PORT", "catalog.port"),
    ("ISK_EXTERNAL_HOSTNAME", "external_hostname"),
    ("ISK_EXTERNAL_URL", "s3.external_url"),
    ("ISK_BIND", "bind"),
    ("ISK_DATA_DIR", "data_dir"),
    ("ISK_S3_REGION", "s3.region"),
    ("ISK_S3_ACCESS_KEY_ID", "s3.access_key_id"),
    ("ISK_S3_SECRET_ACCESS_KEY", "s3.secret_access_key"),
    ("ISK_REGISTRY_URL", "registry.url"),
    ("ISK_REGISTRY_USERNAME", "registry.username"),
    ("ISK_REGISTRY_PASSWORD", "registry.password"),
    ("ISK_REGISTRY_TOKEN", "registry.token"),
    ("ISK_REGISTRY_CA_FILE", "registry.ca_file"),
    ("ISK_TOPICS_INCLUDE", "topics.include"),
    ("ISK_TOPICS_EXCLUDE", "topics.exclude"),
    ("ISK_CACHE_BYTES", "limits.cache_bytes"),
    ("ISK_RENDER_CONCURRENCY", "limits.render_concurrency"),
    ("ISK_METADATA_RETENTION_SECONDS", "limits.metadata_retention_seconds"),
    ("ISK_REQUEST_TIMEOUT_MS", "limits.request_timeout_ms"),
    ("ISK_FETCH_PROGRESS_TIMEOUT_MS", "limits.fetch_progress_timeout_ms"),
    ("ISK_CONFIG_SERVICE_URL", "config_service_url"),
];

/// Prefixes whose rest names a property: `_` stands for the dot.
const FAMILIES: &[(&str, &str)] = &[("ISK_KAFKA_", "kafka"), ("ISK_COLDSET_CLIENT_", "coldset")];

/// Variables that are read elsewhere.
const OTHER: &[&str] = &["ISK_CONFIG", "ISK_LOG", "ISK_LOG_FORMAT", "ISK_BIN"];

/// Reads the file, if one is given, lays the environment over it and checks the result.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config> {
    let mut table = match file {
        None => Table::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| {
                format!("cannot read the configuration file {}", path.display())
            })?;
            toml::from_str(&text)
                .with_context(|| format!("{} is not valid TOML", path.display()))?
        }
    };
    join_dotted(&mut table, "kafka");
    join_dotted(&mut table, "coldset");
    for (name, value) in environment {
        overlay(&mut table, &name, &value)?;
    }
    let config: Config = serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
        let key = e.path().to_string();
        anyhow!("configuration key {key:?}: {}", e.inner().to_string().trim())
    })?;
    check(&config)?;
    Ok(config)
}

/// `bootstrap.servers = "…"` without quotes is a nested table in TOML: flattens it back, and turns
/// numbers and booleans into the text that librdkafka takes.
fn join_dotted(table: &mut Table, section: &str) {
    fn walk(prefix: &str, value: Value, out: &mut Table) {
        match value {
            Value::Table(inner) => {
                for (key, value) in inner {
                    let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                    walk(&key, value, out);
                }
            }
            Value::String(_) | Value::Array(_) => {
                out.insert(prefix.to_owned(), value);
            }
            scalar => {
                out.insert(prefix.to_owned(), Value::String(scalar.to_string()));
            }
        }
    }
    if let Some(value @ Value::Table(_)) = table.get_mut(section) {
        let mut flat = Table::new();
        walk("", std::mem::replace(value, Value::Boolean(false)), &mut flat);
        *value = Value::Table(flat);
    }
}

fn overlay(table: &mut Table, name: &str, value: &str) -> Result<()> {
    if !name.starts_with("ISK_") || name.starts_with("ISK_TEST_") || OTHER.contains(&name) {
        return Ok(());
    }
    if value.starts_with("tcp://") {
        // Kubernetes sets ISK_PORT=tcp://… in every pod beside a Service named "isk".
        tracing::warn!(name, "ignored: this is a Kubernetes service link, not a setting");
        return Ok(());
    }
    if let Some((_, key)) = VARIABLES.iter().find(|(variable, _)| *variable == name) {
        return set(table, key, parse(key, name, value)?);
    }
    for (prefix, section) in FAMILIES {
        if let Some(rest) = name.strip_prefix(prefix).filter(|r| !r.is_empty()) {
            let key = rest.to_ascii_lowercase().replace('_', ".");
            let entry = table.entry(*section).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(properties) = entry else {
                bail!("configuration key {section:?} must be a table of properties");
            };
            properties.insert(key, Value::String(value.to_owned()));
            return Ok(());
        }
    }
    tracing::warn!(name, "ignored: no setting has this name (see `isk serve --help`)");
    Ok(())
}

/// Text from the environment as the kind of value its key takes.
fn parse(key: &str, name: &str, value: &str) -> Result<Value> {
    let is_number = key.ends_with("port") || key.starts_with("limits.");
    if is_number {
        let number = value.trim().parse::<i64>();
        return number.map(Value::Integer).map_err(|_| {
            anyhow!("{name}={value:?} is not a whole number (configuration key {key})")
        });
    }
    if key.starts_with("topics.") {
        let patterns = value.split(',').map(|p| Value::String(p.trim().to_owned()));
        return Ok(Value::Array(patterns.collect()));
    }
    Ok(Value::String(value.to_owned()))
}

fn set(table: &mut Table, key: &str, value: Value) -> Result<()> {
    let Some((section, field)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(fields) = entry else {
        bail!("configuration key {section:?} must be a table");
    };
    fields.insert(field.to_owned(), value);
    Ok(())
}

fn check(config: &Config) -> Result<()> {
    if config.external_hostname.is_empty() || config.external_hostname.contains(['/', ' ']) {
        bail!(
            "configuration key \"external_hostname\" (ISK_EXTERNAL_HOSTNAME) is {:?}: give a bare \
             host name or address, without a scheme or path",
            config.external_hostname
        );
    }
    if let Some(url) = &config.registry.url {
        for one in url.split(',') {
            if !one.trim().starts_with("http://") && !one.trim().starts_with("https://") {
                bail!(
                    "configuration key \"registry.url\" (ISK_REGISTRY_URL) holds {one:?}: it must \
                     begin with http:// or https://"
                );
            }
        }
    }
    for (key, patterns) in
        [("topics.include", &config.topics.include), ("topics.exclude", &config.topics.exclude)]
    {
        for pattern in patterns {
            regex::Regex::new(pattern).map_err(|e| {
                anyhow!("configuration key {key:?}: {pattern:?} is no regular expression: {e}")
            })?;
        }
    }
    if config.limits.render_concurrency == 0 {
        bail!("configuration key \"limits.render_concurrency\" must be at least 1");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, env: &[(&str, &str)]) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("isk.toml");
        std::fs::write(&path, text).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        load(Some(&path), env.collect::<Vec<_>>())
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let config = from(
            "external_hostname = \"a\"\n[kafka]\nbootstrap.servers = \"one:9092\"\n\
             \"fetch.error.backoff.ms\" = 5\n",
            &[
                ("ISK_PORT", "12000"),
                ("ISK_KAFKA_SASL_MECHANISM", "PLAIN"),
                ("ISK_EXTERNAL_HOSTNAME", "isk.example"),
                ("ISK_TOPICS_INCLUDE", "orders.*, users"),
                ("ISK_COLDSET_CLIENT_S3_ACCESS-KEY-ID", "x"),
            ],
        )
        .unwrap();
        assert_eq!(config.s3.port, 12000);
        assert_eq!(config.external_hostname, "isk.example");
        assert_eq!(config.kafka.0["bootstrap.servers"], "one:9092");
        assert_eq!(config.kafka.0["fetch.error.backoff.ms"], "5");
        assert_eq!(config.kafka.0["sasl.mechanism"], "PLAIN");
        assert_eq!(config.coldset.0["s3.access-key-id"], "x");
        assert_eq!(config.topics.include, ["orders.*", "users"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, env, named) in [
            ("ports = 1", &[][..], "ports"),
            ("[s3]\nport = \"x\"", &[], "s3.port"),
            ("[s3]\nport = 70000", &[], "s3.port"),
            ("[topics]\ninclude = [\"(\"]", &[], "topics.include"),
            ("[registry]\nurl = \"localhost:8081\"", &[], "registry.url"),
            ("", &[("ISK_PORT", "eleven")], "ISK_PORT"),
            ("", &[("ISK_EXTERNAL_HOSTNAME", "http://a/")], "external_hostname"),
            ("[limits]\nrender_concurrency = 0", &[], "limits.render_concurrency"),
            ("kafka = 3", &[("ISK_KAFKA_BOOTSTRAP_SERVERS", "x")], "kafka"),
        ] {
            let error = format!("{:#}", from(text, env).unwrap_err());
            assert!(error.contains(named), "{text} {env:?}: {error}");
        }
    }

    #[test]
    fn a_kubernetes_service_link_is_no_port() {
        let config = from("", &[("ISK_PORT", "tcp://10.0.0.7:11000")]).unwrap();
        assert_eq!(config.s3.port, 11000);
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = from(
            "[s3]\nsecret_access_key = \"hunter2\"\n[kafka]\nsasl.password = \"hunter2\"\n\
             [registry]\npassword = \"hunter2\"\n",
            &[("ISK_COLDSET_CLIENT_S3_SECRET-ACCESS-KEY", "hunter2")],
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
