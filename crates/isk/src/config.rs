//! The configuration: what can be set, its defaults, and what is checked before anything starts.

pub mod auth;
pub mod connections;
mod discovery;
mod errors;
mod merged;
mod read;
pub mod secret_files;
mod telemetry;
mod topics;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use isk_coldset::ColdsetConfig;
use serde::Deserialize;

use crate::formats::Formats;

pub use discovery::Discovery;
pub use errors::Errors;
pub use merged::Merged;
pub use read::load;
pub use telemetry::Telemetry;
pub use topics::Topics;

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
    /// Where metadata files, and secrets that are made here, live instead, for several isks that serve together.
    pub shared_dir: Option<PathBuf>,
    /// TLS on both ports.
    pub tls: connections::Tls,
    /// Who may in.
    pub auth: auth::Auth,
    /// Who read or changed what.
    pub audit: auth::AuditLog,
    /// Where traces are sent.
    pub telemetry: Telemetry,
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
    /// What topics' keys and values are, where the registry does not say.
    pub formats: Formats,
    /// What is found in the records of topics that neither describes.
    pub discovery: Discovery,
    /// What tables show of records that do not decode.
    pub errors: Errors,
    /// What is encoded in the background.
    pub prover: Prover,
    /// Which topics are proven to their ends.
    pub follow: Follow,
    /// Bounds of memory, disk and concurrency.
    pub limits: Limits,
    /// What is kept of a topic's past snapshots.
    pub history: History,
    /// The upstream catalog of cold tables, under the names that Iceberg's REST clients have for its
    /// properties; `uri` is required.
    pub coldset: Properties,
    /// How topics and cold tables belong together.
    pub merged: Merged,
    /// The configuration service. Accepted, not used by this version.
    pub config_service_url: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: IpAddr::from([127, 0, 0, 1]),
            external_hostname: "127.0.0.1".into(),
            data_dir: PathBuf::from("isk-data"),
            shared_dir: None,
            tls: connections::Tls::default(),
            auth: auth::Auth::default(),
            audit: auth::AuditLog::default(),
            telemetry: Telemetry::default(),
            catalog: Catalog::default(),
            s3: S3::default(),
            kafka: Properties::default(),
            registry: Registry::default(),
            topics: Topics::default(),
            formats: Formats::default(),
            discovery: Discovery::default(),
            errors: Errors::default(),
            prover: Prover::default(),
            follow: Follow::default(),
            limits: Limits::default(),
            history: History::default(),
            coldset: Properties::default(),
            merged: Merged::default(),
            config_service_url: None,
        }
    }
}

impl Config {
    /// The upstream catalog as configured, if one is. Reads its certificates, asks it nothing.
    pub fn upstream(&self) -> Result<Option<ColdsetConfig>> {
        ColdsetConfig::from_properties(&self.coldset.0)
            .context("configuration section [coldset] (ISK_COLDSET_CLIENT_*)")
    }

    /// Where secrets are kept that nobody configured.
    pub fn secrets_dir(&self) -> &Path {
        self.shared_dir.as_ref().unwrap_or(&self.data_dir)
    }
}

/// The Iceberg REST catalog.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Catalog {
    /// Its TCP port; 0 takes a free one.
    pub port: u16,
    /// Whether clients that can are told to have scans of `hotset` planned here.
    pub server_planning: bool,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { port: 11001, server_planning: false }
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
    /// The same from a file; read again when it changes.
    pub password_file: Option<PathBuf>,
    /// Bearer token.
    pub token: Option<Secret>,
    /// The same from a file; read again when it changes.
    pub token_file: Option<PathBuf>,
    /// A file of PEM certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A file of our own PEM certificate chain and its key, for mutual TLS.
    pub identity_file: Option<PathBuf>,
}

/// What is encoded in the background, though nobody has asked for it. The patterns are regular expressions
/// that match the whole name; there are none unless somebody names them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prover {
    /// Off: nothing is encoded in the background, whatever else is set here and in `follow`.
    pub enabled: bool,
    /// Topics whose chunks are proven.
    pub topics: Vec<String>,
    /// Bytes of records read a second at the most.
    pub rate_bytes_per_second: u64,
    /// Bytes of records read a day (UTC) at the most; 0 is no bound.
    pub budget_bytes_per_day: u64,
    /// Whether topics are read whose older segments lie in a remote store.
    pub tiered: bool,
    /// Whether the size of a topic's records is sampled before anybody asks for its table: up to 384 records
    /// at its end, once. Else its first plan waits for it.
    pub sample_ahead: bool,
    /// The pause between two looks for chunks to prove, in seconds.
    pub interval_seconds: u64,
}

impl Default for Prover {
    fn default() -> Self {
        Self {
            enabled: true,
            topics: Vec::new(),
            rate_bytes_per_second: 32 << 20,
            budget_bytes_per_day: 0,
            tiered: false,
            sample_ahead: true,
            interval_seconds: 10,
        }
    }
}

/// Which topics are proven to their ends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Follow {
    /// Patterns, as those of the prover. These topics are proven whole.
    pub topics: Vec<String>,
    /// The pause between two looks at the ends of a topic, in milliseconds.
    pub interval_ms: u64,
}

impl Default for Follow {
    fn default() -> Self {
        Self { topics: Vec::new(), interval_ms: 400 }
    }
}

/// One encoding may hold so much.
const LEAST_ENCODING_MEMORY: u64 = 96 << 20;

/// Bounds of memory, disk and concurrency.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Encoded files kept on disk below `data_dir`, in bytes.
    pub cache_bytes: u64,
    /// Chunks encoded at the same time for readers: one for each core, unless it is set.
    pub render_concurrency: usize,
    /// Whether the next chunk of a Kafka partition is encoded while a reader that scans it is busy with the one before,
    /// where no reader waits.
    pub read_ahead: bool,
    /// What all encodings together hold in memory at the most, in bytes: records, columns and pages. Those for
    /// which there is no room wait.
    pub encoding_memory_bytes: u64,
    /// How long metadata files that no plan names any more are kept, in seconds.
    pub metadata_retention_seconds: u64,
    /// Time-out of one question to the brokers or the registry, in milliseconds.
    pub request_timeout_ms: u64,
    /// How long a read may wait for the next record before it fails, in milliseconds.
    pub fetch_progress_timeout_ms: u64,
    /// Requests of one principal that may be under way on each port together; 0 is no bound.
    pub requests_per_principal: usize,
    /// Kafka clients of principals with logins of their own, at a time.
    pub pass_through_clients: u64,
    /// Connections of each port at a time.
    pub connections: usize,
    /// The bytes of a request's head.
    pub head_bytes: usize,
    /// How long a request's head may take, in seconds.
    pub head_seconds: u64,
    /// How long a connection may be without a request, in seconds.
    pub idle_seconds: u64,
    /// How long a request's body may give next to nothing, in seconds.
    pub body_stall_seconds: u64,
    /// How long a client may take next to nothing of an answer, in seconds.
    pub reader_stall_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes: 8 << 30,
            render_concurrency: std::thread::available_parallelism().map_or(2, NonZero::get),
            read_ahead: true,
            encoding_memory_bytes: 256 << 20,
            metadata_retention_seconds: 24 * 3600,
            request_timeout_ms: 10_000,
            fetch_progress_timeout_ms: 30_000,
            requests_per_principal: 1000,
            pass_through_clients: 64,
            connections: 4000,
            head_bytes: 64 << 10,
            head_seconds: 20,
            idle_seconds: 75,
            body_stall_seconds: 30,
            reader_stall_seconds: 120,
        }
    }
}

/// What is kept of a topic's past snapshots.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// How long each snapshot is kept, and linked to the one before it, in seconds: for how long a
    /// stream may rest and go on. Older ones are kept for time travel, the fewer the older.
    pub keep_seconds: u64,
    /// So many starts of hours back from now (UTC), before the first snapshot, are offered for time travel,
    /// by the records' own timestamps. 0: none.
    pub round_hours: u32,
    /// So many starts of days, likewise.
    pub round_days: u32,
}

impl Default for History {
    fn default() -> Self {
        Self { keep_seconds: 600, round_hours: 24, round_days: 30 }
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
    for (key, patterns) in [
        ("topics.include", &config.topics.include),
        ("topics.exclude", &config.topics.exclude),
        ("discovery.topics", &config.discovery.topics),
        ("discovery.exclude", &config.discovery.exclude),
        ("errors.keep", &config.errors.keep),
        ("errors.skip", &config.errors.skip),
        ("errors.fail", &config.errors.fail),
        ("prover.topics", &config.prover.topics),
        ("follow.topics", &config.follow.topics),
    ] {
        for pattern in patterns {
            regex::Regex::new(pattern).map_err(|e| {
                anyhow!("configuration key {key:?}: {pattern:?} is no regular expression: {e}")
            })?;
        }
    }
    config.errors.policies()?;
    config.discovery.config()?;
    auth::check(config)?;
    connections::check(config)?;
    config.telemetry.settings()?;
    merged::check(config)?;
    for settings in &config.topics.settings {
        settings.rule()?;
    }
    crate::formats::formats(config)?;
    for (key, value) in [
        ("prover.rate_bytes_per_second", config.prover.rate_bytes_per_second),
        ("prover.interval_seconds", config.prover.interval_seconds),
        ("follow.interval_ms", config.follow.interval_ms),
    ] {
        if value == 0 {
            bail!(
                "configuration key {key:?} must be at least 1; to have nothing encoded in the \
                 background, set prover.enabled = false or name no topics"
            );
        }
    }
    if config.limits.render_concurrency == 0 {
        bail!("configuration key \"limits.render_concurrency\" must be at least 1");
    }
    if config.limits.encoding_memory_bytes < LEAST_ENCODING_MEMORY {
        bail!(
            "configuration key \"limits.encoding_memory_bytes\" must be at least {LEAST_ENCODING_MEMORY}: \
             one encoding may need it"
        );
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
                ("ISK_PROVER_ENABLED", "false"),
                ("ISK_PROVER_TOPICS", "orders.*, users"),
                ("ISK_FOLLOW_INTERVAL_MS", "250"),
                ("ISK_ERRORS_POLICY", "skip"),
                ("ISK_ERRORS_FAIL", "orders.*, users"),
                ("ISK_DISCOVERY_EXCLUDE", "logs.*, users"),
                ("ISK_DISCOVERY_TEXT", "true"),
                ("ISK_DISCOVERY_MAX_KEYS", "7"),
            ],
        )
        .unwrap();
        let policy = |topic| {
            let topic = isk_model::TopicName::new(topic).unwrap();
            config.errors.policies().unwrap().of(&topic)
        };
        assert_eq!(
            (policy("orders.eu"), policy("x")),
            (isk_virtual_table::ErrorPolicy::Fail, isk_virtual_table::ErrorPolicy::Skip)
        );
        let discovery = config.discovery.config().unwrap();
        assert!(discovery.enabled && discovery.texts);
        assert_eq!((discovery.limits.columns, discovery.limits.keys), (500, 7));
        assert_eq!(config.discovery.exclude, ["logs.*", "users"]);
        assert!(!config.prover.enabled && config.follow.topics.is_empty());
        assert_eq!(config.prover.topics, ["orders.*", "users"]);
        assert_eq!(config.follow.interval_ms, 250);
        assert_eq!(config.s3.port, 12000);
        assert_eq!(config.external_hostname, "isk.example");
        assert_eq!(config.kafka.0["bootstrap.servers"], "one:9092");
        assert_eq!(config.kafka.0["fetch.error.backoff.ms"], "5");
        assert_eq!(config.kafka.0["sasl.mechanism"], "PLAIN");
        assert_eq!(config.topics.include, ["orders.*", "users"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, env, named) in [
            ("ports = 1", &[][..], "ports"),
            ("[s3]\nport = \"x\"", &[], "s3.port"),
            ("[s3]\nport = 70000", &[], "s3.port"),
            ("[topics]\ninclude = [\"(\"]", &[], "topics.include"),
            ("[prover]\ntopics = [\"(\"]", &[], "prover.topics"),
            ("[errors]\nskip = [\"(\"]", &[], "errors.skip"),
            ("[discovery]\ntopics = [\"(\"]", &[], "discovery.topics"),
            ("[discovery]\nmax_column = 5", &[], "max_column"),
            ("", &[("ISK_DISCOVERY_ENABLED", "perhaps")], "ISK_DISCOVERY_ENABLED"),
            ("", &[("ISK_DISCOVERY_MAX_COLUMNS", "many")], "ISK_DISCOVERY_MAX_COLUMNS"),
            ("", &[("ISK_DISCOVERY_MAX_COLUMNS", "1")], "from 2 to 5000"),
            ("", &[("ISK_ERRORS_POLICY", "drop")], "ISK_ERRORS_POLICY"),
            ("[follow]\ntopics = [\"(\"]", &[], "follow.topics"),
            ("[follow]\ninterval_ms = 0", &[], "follow.interval_ms"),
            ("", &[("ISK_PROVER_ENABLED", "perhaps")], "ISK_PROVER_ENABLED"),
            ("[registry]\nurl = \"localhost:8081\"", &[], "registry.url"),
            ("[[formats.topics]]\ntopic = \"a\"\nvalue = \"number\"", &[], "number"),
            ("[[formats.topics]]\ntopic = \"a\"\nvalue = \"avro\"", &[], "schema_file"),
            ("[[formats.topics]]\ntopic = \"(\"", &[], "formats.topics"),
            (
                "[[formats.topics]]\ntopic = \"a\"\nkey = \"json\"\nkey_schema_file = \"/none\"",
                &[],
                "/none",
            ),
            (
                "[[formats.topics]]\ntopic = \"a\"\nkey = \"long\"\nkey_subject = \"s\"",
                &[],
                "subject",
            ),
            ("", &[("ISK_PORT", "eleven")], "ISK_PORT"),
            ("", &[("ISK_SERVER_PLANNING", "perhaps")], "ISK_SERVER_PLANNING"),
            ("", &[("ISK_EXTERNAL_HOSTNAME", "http://a/")], "external_hostname"),
            ("[limits]\nrender_concurrency = 0", &[], "limits.render_concurrency"),
            ("", &[("ISK_ENCODING_MEMORY_BYTES", "1000")], "limits.encoding_memory_bytes"),
            ("kafka = 3", &[("ISK_KAFKA_BOOTSTRAP_SERVERS", "x")], "kafka"),
            ("[coldset]\nuri = \"http://c\"\nuris = \"x\"", &[], "uris"),
            ("[coldset]\nwarehouse = \"w\"", &[], "coldset"),
            ("[coldset]\nuri = \"c:8181\"", &[], "http://"),
            ("", &[("ISK_COLDSET_CLIENT_S3_ENDPOINT", "http://s")], "ISK_COLDSET_CLIENT_"),
            ("[coldset]\nuri = \"http://c\"\nwritable = 1", &[], "writable"),
            ("[coldset]\nuri = \"http://c\"\ntoken = \"a\"\ncredential = \"b\"", &[], "credential"),
            ("[[merged.topics]]\ntopic = \"a\"\ntable = \"b\"", &[], "coldset.uri"),
            (
                "[coldset]\nuri = \"http://c\"\n[[merged.topics]]\ntopic = \"(\"\ntable = \"b\"",
                &[],
                "merged.topics",
            ),
            (
                "[coldset]\nuri = \"http://c\"\n[[merged.topics]]\ntopic = \"(.*)\"\n\
                 table = \"$1_b\"",
                &[],
                "1_b",
            ),
            ("[[merged.topics]]\ntopic = \"a\"", &[], "merged.topics"),
            ("[merged]\nboundaries = 1", &[], "boundaries"),
        ] {
            let error = format!("{:#}", from(text, env).unwrap_err());
            assert!(error.contains(named), "{text} {env:?}: {error}");
        }
    }

    #[test]
    fn the_upstream_has_the_names_of_its_clients_in_any_spelling() {
        let file = "[coldset]\nuri = \"http://file\"\nwritable = true\n\
                    s3.path-style-access = false\n\"s3.access-key-id\" = \"file\"\n";
        for (id, secret, region) in [
            ("S3_ACCESS-KEY-ID", "S3_SECRET-ACCESS-KEY", "CLIENT_REGION"),
            ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY", "S3_REGION"),
            ("s3.access-key-id", "s3.secret-access-key", "client.region"),
        ] {
            let names = [id, secret, region].map(|name| format!("ISK_COLDSET_CLIENT_{name}"));
            let config = from(
                file,
                &[
                    (&names[0], "key"),
                    (&names[1], "secret"),
                    (&names[2], "eu-west-1"),
                    ("ISK_COLDSET_CLIENT_URI", "http://environment/v1"),
                    ("ISK_COLDSET_CLIENT_HEADER_X-Tenant", "t"),
                    ("ISK_COLDSET_CLIENT_CREDENTIAL", "id:se:cret"),
                    ("ISK_COLDSET_CLIENT_OAUTH2-SERVER-URI", "http://tokens"),
                    ("ISK_COLDSET_NAMESPACE", "lake.cold"),
                    ("ISK_COLDSET_DIRECT", "true"),
                ],
            );
            let upstream = config.unwrap().upstream().unwrap().unwrap();
            assert_eq!(upstream.uri, "http://environment/v1");
            let keys = upstream.s3.keys.unwrap();
            assert_eq!(keys.id.text(), "key", "{id}");
            assert_eq!(keys.secret.text(), "secret", "{secret}");
            assert_eq!(upstream.s3.region, "eu-west-1", "{region}");
            assert_eq!(upstream.namespace, "lake.cold");
            assert_eq!(upstream.headers["x-tenant"], "t");
            assert!(upstream.writable && upstream.direct && !upstream.s3.path_style);
            assert!(matches!(upstream.auth, isk_coldset::UpstreamAuth::OAuth2 { .. }));
        }
        assert!(from("", &[]).unwrap().upstream().unwrap().is_none());
    }

    #[test]
    fn requests_to_the_upstream_are_signed_when_asked_for() {
        let config = from(
            "",
            &[
                ("ISK_COLDSET_CLIENT_URI", "https://glue.eu-west-1.amazonaws.com/iceberg"),
                ("ISK_COLDSET_CLIENT_REST_SIGV4-ENABLED", "true"),
                ("ISK_COLDSET_CLIENT_REST_SIGNING-NAME", "glue"),
                ("ISK_COLDSET_CLIENT_REST_SIGNING-REGION", "eu-west-1"),
                ("ISK_COLDSET_CLIENT_REST_ACCESS-KEY-ID", "id"),
                ("ISK_COLDSET_CLIENT_REST_SECRET-ACCESS-KEY", "secret"),
                ("ISK_COLDSET_CLIENT_WAREHOUSE", "123456789012"),
            ],
        );
        let upstream = config.unwrap().upstream().unwrap().unwrap();
        let isk_coldset::UpstreamAuth::SigV4 { region, name, keys } = upstream.auth else {
            panic!("not signed");
        };
        assert_eq!([region, name, keys.id.text()], ["eu-west-1", "glue", "id"]);
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
            &[
                ("ISK_COLDSET_CLIENT_URI", "http://c"),
                ("ISK_COLDSET_CLIENT_TOKEN", "hunter2"),
                ("ISK_COLDSET_CLIENT_S3_ACCESS-KEY-ID", "id"),
                ("ISK_COLDSET_CLIENT_S3_SECRET-ACCESS-KEY", "hunter2"),
            ],
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{:?}", config.upstream().unwrap()).contains("hunter2"));
    }

    #[test]
    fn tables_of_topics_are_named_by_their_groups() {
        let config = from(
            "[coldset]\nuri = \"http://c\"\n\
             [merged]\ntopics = [{ topic = \"prod\\\\.(.*)\", table = \"${1}_$$\" }]\n",
            &[],
        );
        let topics = config.unwrap().merged.topics;
        assert_eq!(
            (topics[0].topic.as_str(), topics[0].table.as_str()),
            ("prod\\.(.*)", "${1}_$$")
        );
        let unknown =
            |topic, table| merged::unknown_group(&regex::Regex::new(topic).unwrap(), table);
        assert_eq!(unknown("(?<n>a)(b)", "$n-$2.${1}${0}$$3"), None);
        assert_eq!(unknown("(a)", "$2").as_deref(), Some("2"));
        assert_eq!(unknown("(a)", "$1x").as_deref(), Some("1x"));
        assert_eq!(unknown("(a)", "${m}").as_deref(), Some("m"));
        assert_eq!(unknown("(a)", "x$").as_deref(), Some(""));
    }
}
