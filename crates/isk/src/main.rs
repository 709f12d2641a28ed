//! `isk`: Kafka topics as Iceberg tables.

mod check;
mod config;
mod coverage;
mod demo;
mod formats;
mod serve;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Iceberg Service for Kafka: every topic is an Apache Iceberg table, live, with nothing copied.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the Iceberg REST catalog and the S3 gateway
    #[command(after_long_help = SETTINGS)]
    Serve(Configuration),
    /// Try every part of a configuration, and say what cannot be reached and why
    #[command(after_long_help = SETTINGS)]
    Check(Configuration),
    /// Look at what cold tables cover of their topics, and take some of it back
    #[command(subcommand)]
    Coverage(coverage::Coverage),
    /// Serve sample topics from an embedded broker: nothing else to install
    Demo(demo::Options),
}

#[derive(Args)]
struct Configuration {
    /// Configuration file (TOML)
    #[arg(short, long, value_name = "FILE", env = "ISK_CONFIG")]
    config: Option<PathBuf>,
}

/// The settings, for `--help`.
const SETTINGS: &str = r#"SETTINGS (a TOML file; each can also be set, and is overridden, by an environment variable)

  bind = "127.0.0.1"                 ISK_BIND               address both ports listen on
  external_hostname = "127.0.0.1"    ISK_EXTERNAL_HOSTNAME  host name clients reach them under
  data_dir = "isk-data"              ISK_DATA_DIR           pins, facts, metadata files, cache

  [auth]                             who may in; with none of these, everybody, over loopback alone
  type                               ISK_AUTH_TYPE          "none" or "tokens"; else as the rest says
  insecure_bind = false              ISK_AUTH_INSECURE_BIND everybody, over bind, whatever it is
  credentials = "id:secret"          ISK_AUTH_CREDENTIALS   OAuth2 clients, comma-separated; or
  credentials_file                   ISK_AUTH_CREDENTIALS_FILE  one a line
  access_file                        ISK_AUTH_ACCESS_FILE   principals and rules (docs/security.md), read
                                                            again when it changes; what no rule allows is
                                                            denied then
  oidc_issuer = "https://host/realm" ISK_AUTH_OIDC_ISSUER   tokens of an OpenID Connect issuer, for
  oidc_audience                      ISK_AUTH_OIDC_AUDIENCE this audience
  oidc_principal_claim = "sub"       ISK_AUTH_OIDC_PRINCIPAL_CLAIM
  oidc_groups_claim = "groups"       ISK_AUTH_OIDC_GROUPS_CLAIM
  oidc_ca_file                       ISK_AUTH_OIDC_CA_FILE  PEM
  signing_key                        ISK_AUTH_SIGNING_KEY   the same on all replicas; made once, kept in
  signing_key_file                   ISK_AUTH_SIGNING_KEY_FILE  data_dir
  token_seconds = 3600               ISK_AUTH_TOKEN_SECONDS how long tokens are good
  key_seconds = 3600                 ISK_AUTH_KEY_SECONDS   how long S3 keys that come with a table are,
                                                            and up to a quarter more
  open_metrics = false               ISK_AUTH_OPEN_METRICS  /metrics for everybody; else for who may
                                                            list all tables

  [catalog]
  port = 11001                       ISK_CATALOG_PORT       Iceberg REST catalog
  server_planning = false            ISK_SERVER_PLANNING    tell clients to have scans of hotset planned
                                                            by this catalog (scan-planning-mode)

  [s3]
  port = 11000                       ISK_PORT               S3 gateway
  external_url                       ISK_EXTERNAL_URL       its URL, where a proxy stands before it
  region = "us-east-1"               ISK_S3_REGION
  access_key_id = "isk"              ISK_S3_ACCESS_KEY_ID
  secret_access_key                  ISK_S3_SECRET_ACCESS_KEY  made once, kept in data_dir; without [auth]

  [kafka]                            any librdkafka property, also SASL and TLS
  bootstrap.servers = "host:9092"    ISK_KAFKA_BOOTSTRAP_SERVERS
  security.protocol = "SASL_SSL"     ISK_KAFKA_SECURITY_PROTOCOL, and so on: "_" is the dot
  client.rack = "zone-a"             ISK_KAFKA_CLIENT_RACK  read from the nearest replica (KIP-392)
  fetch = "batches"                  ISK_KAFKA_FETCH        "librdkafka": it fetches all records, as it does
                                                            anyhow where TLS or other properties ask for it

  [registry]                         a Confluent-compatible schema registry; without one, values are raw
  url = "http://host:8081"           ISK_REGISTRY_URL       a path is kept; several: comma-separated
  username, password                 ISK_REGISTRY_USERNAME, ISK_REGISTRY_PASSWORD
  token                              ISK_REGISTRY_TOKEN
  ca_file                            ISK_REGISTRY_CA_FILE   PEM
  identity_file                      ISK_REGISTRY_IDENTITY_FILE  our certificates and key, PEM

  [topics]                           regular expressions over whole names
  include = [".*"]                   ISK_TOPICS_INCLUDE     comma-separated
  exclude = ["_schemas", "_confluent.*"]  ISK_TOPICS_EXCLUDE
  settings = []                      what holds for some topics: [{ topic = 'logs\..*', layout = "json" }];
                                     layout is flat, raw or json

  [formats]                          what the registry does not say of keys and values, or not by topic
  topics = []                        [{ topic = 'prod\..*', value = "avro", key = "long",
                                        value_schema_file = "/etc/isk/order.avsc" }]
                                     value, key: registry (as where nothing is said), bytes; avro, json,
                                     protobuf without framing, with …_schema_file; string, short, int,
                                     long, float, double, uuid. value_subject, key_subject: another subject

  [errors]                           what tables show of records that do not decode; errors.<topic> has them
  policy = "keep"                    ISK_ERRORS_POLICY      keep: a row with nulls; skip: no row; fail: the
                                                            read fails
  keep, skip, fail = []              ISK_ERRORS_KEEP, ISK_ERRORS_SKIP, ISK_ERRORS_FAIL   topics with another
                                                            policy: regular expressions, comma-separated

  [prover]                           encodes chunks before anybody reads them: off until topics are named
  enabled = true                     ISK_PROVER_ENABLED     false: nothing in the background, nor follow
  topics = []                        ISK_PROVER_TOPICS      regular expressions, comma-separated
  rate_bytes_per_second = 33554432   ISK_PROVER_RATE_BYTES_PER_SECOND
  budget_bytes_per_day = 0           ISK_PROVER_BUDGET_BYTES_PER_DAY   0: no bound
  tiered = false                     ISK_PROVER_TIERED      topics with remote storage, too
  sample_ahead = true                ISK_PROVER_SAMPLE_AHEAD  the last records of every topic, once, so that
                                     its first plan reads none
  interval_seconds = 10              ISK_PROVER_INTERVAL_SECONDS

  [follow]                           topics proven to their ends: COUNT(*) is metadata, a second old
  topics = []                        ISK_FOLLOW_TOPICS
  interval_ms = 400                  ISK_FOLLOW_INTERVAL_MS

  [limits]
  cache_bytes = 8589934592           ISK_CACHE_BYTES        encoded files kept on disk
  render_concurrency = 2             ISK_RENDER_CONCURRENCY chunks encoded at once, ~100 MiB each
  metadata_retention_seconds = 86400 ISK_METADATA_RETENTION_SECONDS
  request_timeout_ms = 10000         ISK_REQUEST_TIMEOUT_MS
  fetch_progress_timeout_ms = 30000  ISK_FETCH_PROGRESS_TIMEOUT_MS
  requests_per_principal = 1000      ISK_REQUESTS_PER_PRINCIPAL  under way at once; 0: no bound

  [history]
  keep_seconds = 600                 ISK_HISTORY_KEEP_SECONDS  how long a stream may rest and go on
  round_hours = 24                   ISK_HISTORY_ROUND_HOURS  starts of hours and days (UTC) before the
  round_days = 30                    ISK_HISTORY_ROUND_DAYS   first snapshot, for time travel by the
                                     records' own timestamps; 0: none

  [coldset]                          an upstream Iceberg REST catalog, shown as namespace coldset and,
                                     with the topics, as namespace merged. Its properties have the
                                     names of Iceberg's REST clients; in the environment, "_", "-"
                                     and "." are the same: ISK_COLDSET_CLIENT_S3_ACCESS_KEY_ID
  uri = "http://host:8181"           ISK_COLDSET_CLIENT_URI
  warehouse, prefix                  ISK_COLDSET_CLIENT_WAREHOUSE, ..._PREFIX
  token                              ..._TOKEN              bearer token; or
  credential = "id:secret"           ..._CREDENTIAL         OAuth2 client credentials, with
  oauth2-server-uri, scope           ..._OAUTH2_SERVER_URI, ..._SCOPE; or
  rest.sigv4-enabled = true          ..._REST_SIGV4_ENABLED AWS signatures, with rest.signing-region,
                                     rest.signing-name, rest.access-key-id, rest.secret-access-key,
                                     rest.session-token
  header.<Name>                      ..._HEADER_<NAME>      sent with each request
  s3.endpoint = "http://host:9000"   ..._S3_ENDPOINT        its store; AWS where not set
  s3.access-key-id, s3.secret-access-key, s3.session-token  ..._S3_ACCESS_KEY_ID, and so on
  s3.region (or client.region) = "us-east-1"  ..._S3_REGION
  s3.path-style-access = true        ..._S3_PATH_STYLE_ACCESS
  namespace = "coldset"              ISK_COLDSET_NAMESPACE  its namespace there, levels joined by "."
  writable = false                   ISK_COLDSET_WRITABLE   tables may be written through ISK
  direct = false                     ISK_COLDSET_DIRECT     clients get the upstream's own storage
                                                            settings instead of this gateway's; in
                                                            merged beside them, by prefix
  ca-file                            ISK_COLDSET_CA_FILE    PEM
  request-timeout-ms = 30000         ISK_COLDSET_REQUEST_TIMEOUT_MS

  [merged]
  topics = []                        the cold tables of topics, where their names differ:
                                     [{ topic = 'prod\.(.*)', table = '${1}_v1' }]

  Accepted for later versions and not used by this one: ISK_CONFIG_SERVICE_URL.

  ISK_LOG sets the log level: error, warn, info (default), debug, or a filter such as
  "info,isk_kafka=debug". ISK_LOG_FORMAT=json writes one JSON object a line."#;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What `check` and the demo have to say they print themselves.
    init_logging(match cli.command {
        Command::Serve(_) => "info",
        Command::Check(_) | Command::Coverage(_) => "error",
        Command::Demo(_) => "warn",
    });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("isk: the async runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(c) => serve::run(&load(&c)?).await,
            Command::Check(c) => check::run(&load(&c)?).await,
            Command::Coverage(command) => command.run(&load(command.configuration())?),
            Command::Demo(options) => demo::run(options).await,
        }
    });
    // Blocking threads may still wait for a broker; nobody waits for them.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isk: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn load(configuration: &Configuration) -> anyhow::Result<config::Config> {
    config::load(configuration.config.as_deref(), std::env::vars())
}

/// Logs go to stderr, by default from the given level on.
fn init_logging(default: &str) {
    let mut filter = EnvFilter::try_from_env("ISK_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // It would log signatures and session tokens.
    if let Ok(directive) = isk_s3_http::LOG_DIRECTIVE.parse() {
        filter = filter.add_directive(directive);
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var("ISK_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.init();
    }
}
