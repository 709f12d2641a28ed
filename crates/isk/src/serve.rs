//! `isk serve`: wires the parts together and runs until told to stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use isk_catalog_http::{CatalogSettings, MoreMetrics, VendedS3};
use isk_coldset::Upstream;
use isk_kafka::{KafkaCluster, KafkaConfig, RegistryAuth, RegistryConfig, SchemaRegistry};
use isk_listen::{Counters, Port, Tls};
use isk_outbound::{Secret, SecretFile};
use isk_s3_http::{ColdBuckets, Gateway, GatewayCredentials, GatewaySettings};
use isk_traces::SpanCounters;
use isk_virtual_table::{
    ProverConfig, RoundTimes, Service, ServiceConfig, TableMapping, TableRules, TopicFilter,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::secret_files::{CLIENT_SECRET_FILE, PASSWORD_FILE};
use crate::config::{Config, Registry, auth, connections};
use crate::pass_through::PassThrough;

/// Where the brokers are configured.
const KAFKA: &str = "configuration section [kafka] (ISK_KAFKA_*, e.g. ISK_KAFKA_BOOTSTRAP_SERVERS)";

/// How long open requests may take to end after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGINT or SIGTERM.
pub async fn run(config: &Config, spans: Arc<SpanCounters>) -> Result<()> {
    let server = Server::start(config, spans).await?;
    tracing::info!(
        catalog = %server.catalog_uri, s3 = %server.s3_endpoint,
        kafka = config.kafka.0.get("bootstrap.servers").map_or("", String::as_str),
        registry = config.registry.url.as_deref().unwrap_or("none"),
        coldset = upstream(config)?.map_or_else(|| "none".to_owned(), |cold| {
            let writable = if cold.is_writable() { "writable" } else { "read-only" };
            format!("{} ({writable})", cold.namespace())
        }),
        "isk {} is serving", env!("CARGO_PKG_VERSION")
    );
    stop_signal().await?;
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// A running catalog and gateway.
pub struct Server {
    /// The catalog's URI, as clients reach it.
    pub catalog_uri: String,
    /// The gateway's endpoint, as clients reach it.
    pub s3_endpoint: String,
    /// What clients sign with.
    pub credentials: GatewayCredentials,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

impl Server {
    /// Binds both ports and serves in the background.
    pub async fn start(config: &Config, spans: Arc<SpanCounters>) -> Result<Self> {
        warn_of_unused(config);
        let s3 = bind(config, config.s3.port, "S3 gateway", "s3.port (ISK_PORT)").await?;
        let catalog = bind(
            config,
            config.catalog.port,
            "Iceberg REST catalog",
            "catalog.port (ISK_CATALOG_PORT)",
        )
        .await?;
        let scheme = config.tls.scheme();
        let catalog_uri =
            format!("{scheme}://{}:{}", config.external_hostname, catalog.local_addr()?.port());
        let s3_endpoint = match &config.s3.external_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{scheme}://{}:{}", config.external_hostname, s3.local_addr()?.port()),
        };
        let credentials = credentials(config)?;
        let brokers = PassThrough::new(kafka_config(config)?, config.limits.pass_through_clients);
        let access = auth::access(config)?.with_kafka(Arc::new(brokers));
        let cold = upstream(config)?;
        let service = Arc::new(open_service(config, cold.clone())?);
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        let ports = Ports::new(config)?;

        let gateway = isk_s3_http::gateway(
            Arc::clone(&service),
            &GatewaySettings {
                external_hostname: config.external_hostname.clone(),
                region: config.s3.region.clone(),
                credentials: credentials.clone(),
                access: access.clone(),
            },
            cold.clone().map(|cold| ColdBuckets {
                store: cold.store().clone(),
                writable: cold.is_writable(),
            }),
        );
        let gateway = gateway.context("the S3 gateway cannot be set up")?;
        let more_metrics = ports.metrics(gateway.clone(), spans);
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(isk_s3_http::serve(s3, gateway, ports.s3, stopped));

        let router = isk_catalog_http::router(
            Arc::clone(&service),
            CatalogSettings {
                more_metrics,
                ..catalog_settings(config, &s3_endpoint, &credentials)
            },
            cold,
            access.clone(),
        );
        let stopped = stop.clone().cancelled_owned();
        tasks.spawn(isk_catalog_http::serve(catalog, router, ports.catalog, stopped));

        let stopped = stop.clone();
        tasks.spawn(async move {
            let work = async {
                tokio::join!(
                    service.sweep_forever(),
                    service.prove_forever(),
                    service.follow_forever(),
                    service.offer_round_times_forever(),
                    service.sample_ahead_forever(),
                    service.read_ahead_forever(),
                    access.watch_forever(),
                    watch(ports.tls),
                )
            };
            tokio::select! {
                _ = work => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Self { catalog_uri, s3_endpoint, credentials, stop, tasks })
    }

    /// Takes no new connections and gives the open requests some time to end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
    }
}

/// What holds of the connections of both ports.
struct Ports {
    catalog: Port,
    s3: Port,
    tls: Option<Arc<Tls>>,
}

impl Ports {
    fn new(config: &Config) -> Result<Self> {
        let tls = connections::tls(config)?;
        let port = || Port {
            limits: connections::limits(&config.limits),
            tls: tls.clone(),
            ..Port::default()
        };
        Ok(Self { catalog: port(), s3: port(), tls })
    }

    fn metrics(&self, gateway: Gateway, spans: Arc<SpanCounters>) -> MoreMetrics {
        let (catalog, s3) = (Arc::clone(&self.catalog.counters), Arc::clone(&self.s3.counters));
        let tls = self.tls.clone();
        MoreMetrics(Arc::new(move || {
            let connections = Counters::text(&[("catalog", &catalog), ("s3", &s3)]);
            let tls = Tls::metrics_text(tls.as_deref());
            connections + &tls + &gateway.metrics_text() + &spans.metrics_text()
        }))
    }
}

/// Looks for new certificates, where there are any.
async fn watch(tls: Option<Arc<Tls>>) {
    match tls {
        Some(tls) => tls.watch_forever().await,
        None => std::future::pending().await,
    }
}

fn warn_of_unused(config: &Config) {
    if config.config_service_url.is_some() {
        tracing::warn!("config_service_url is accepted, but this version does not use it");
    }
    if !config.auth.is_on() && config.bind.is_loopback() {
        tracing::info!(
            "everybody on this machine may read every table: [auth] says who may in (see `isk serve --help`)"
        );
    } else if !config.auth.is_on() {
        tracing::warn!(
            bind = %config.bind,
            "auth.insecure_bind: whoever reaches this address can read every served topic, and what the \
             coldset's keys open; with coldset.writable, write there too"
        );
    }
}

/// Listens on a port, or says what to do about it.
pub async fn bind(config: &Config, port: u16, what: &str, key: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(config.bind, port);
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow!(
            "{address} is taken, and the {what} wants it: choose another with {key}, or stop what \
             listens there"
        ),
        _ => anyhow!("the {what} cannot listen on {address}: {error} (see {key} and bind)"),
    })
}

/// The brokers as configured. Asks nothing of them.
pub fn kafka(config: &Config) -> Result<KafkaCluster> {
    KafkaCluster::connect(kafka_config(config)?).context(KAFKA)
}

fn kafka_config(config: &Config) -> Result<KafkaConfig> {
    let limits = &config.limits;
    let mut properties = config.kafka.0.clone();
    // The keys of the section that are no properties of librdkafka's.
    let mut file = |key: &str| {
        let path = properties.remove(key);
        path.map(|path| SecretFile::open(Path::new(&path))).transpose().context(KAFKA)
    };
    let (password_file, secret_file) = (file(PASSWORD_FILE)?, file(CLIENT_SECRET_FILE)?);
    let fetch_path = properties.remove("fetch").map(|path| path.parse()).transpose();
    Ok(KafkaConfig {
        properties,
        password_file,
        secret_file,
        fetch_path: fetch_path.context(KAFKA)?.unwrap_or_default(),
        request_timeout: Duration::from_millis(limits.request_timeout_ms),
        progress_timeout: Duration::from_millis(limits.fetch_progress_timeout_ms),
        ..KafkaConfig::default()
    })
}

/// The schema registry as configured, if one is.
pub fn registry(config: &Config) -> Result<Option<SchemaRegistry>> {
    let settings = &config.registry;
    let Some(url) = &settings.url else { return Ok(None) };
    let auth = registry_auth(settings).context("configuration section [registry]")?;
    let pem = |key: &str, path: &Option<std::path::PathBuf>| match path {
        None => Ok(None),
        Some(path) => std::fs::read(path).map(Some).with_context(|| {
            format!("configuration key \"registry.{key}\": cannot read {}", path.display())
        }),
    };
    let ca_pem = pem("ca_file", &settings.ca_file)?;
    let identity_pem = pem("identity_file", &settings.identity_file)?;
    let urls: Vec<String> = url.split(',').map(|one| one.trim().to_owned()).collect();
    let request_timeout = Duration::from_millis(config.limits.request_timeout_ms);
    let registry = RegistryConfig {
        urls,
        auth,
        ca_pem,
        identity_pem,
        request_timeout,
        ..RegistryConfig::default()
    };
    Ok(Some(SchemaRegistry::new(registry).context("configuration section [registry]")?))
}

fn registry_auth(settings: &Registry) -> Result<RegistryAuth> {
    let user = settings.username.clone();
    let file = |path: &Option<PathBuf>| {
        let opened = path.as_deref().map(SecretFile::open).transpose();
        opened.map(|file| file.map(Secret::File))
    };
    let password = settings.password.as_ref().map(|given| Secret::from(given.expose()));
    let token = settings.token.as_ref().map(|given| Secret::from(given.expose()));
    match (user, password, file(&settings.password_file)?, token, file(&settings.token_file)?) {
        (None, None, None, None, None) => Ok(RegistryAuth::None),
        (Some(user), Some(password), None, None, None)
        | (Some(user), None, Some(password), None, None) => {
            Ok(RegistryAuth::Basic { user, password })
        }
        (None, None, None, Some(token), None) | (None, None, None, None, Some(token)) => {
            Ok(RegistryAuth::Bearer(token))
        }
        _ => Err(anyhow!(
            "give username and password (or password_file), or token (or token_file), not both and not one half"
        )),
    }
}

fn catalog_settings(
    config: &Config,
    s3_endpoint: &str,
    credentials: &GatewayCredentials,
) -> CatalogSettings {
    let vended = VendedS3 {
        // With a slash at its end: ClickHouse doubles a table's path otherwise.
        endpoint: format!("{s3_endpoint}/"),
        region: config.s3.region.clone(),
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret_access_key.clone(),
        session_token: credentials.session_token.clone(),
        path_style: true,
        expires_at_ms: String::new(),
        refresh_endpoint: String::new(),
    };
    CatalogSettings {
        server_planning: config.catalog.server_planning,
        open_metrics: config.auth.open_metrics,
        ..CatalogSettings::new(vended)
    }
}

/// The upstream catalog and its store as configured, if they are. Asks nothing of them.
pub fn upstream(config: &Config) -> Result<Option<Upstream>> {
    let Some(coldset) = config.upstream()? else { return Ok(None) };
    let upstream = Upstream::new(&coldset);
    Ok(Some(upstream.context("configuration section [coldset] (ISK_COLDSET_CLIENT_*)")?))
}

fn prover(config: &Config) -> Result<ProverConfig> {
    let (prover, follow) = (&config.prover, &config.follow);
    let only = |patterns: &[String]| TopicFilter::new(patterns, &[]);
    Ok(ProverConfig {
        enabled: prover.enabled,
        topics: only(&prover.topics).context("configuration key \"prover.topics\"")?,
        followed: only(&follow.topics).context("configuration key \"follow.topics\"")?,
        bytes_per_second: prover.rate_bytes_per_second,
        bytes_per_day: Some(prover.budget_bytes_per_day).filter(|&bytes| bytes > 0),
        tiered: prover.tiered,
        sample_ahead: prover.sample_ahead,
        interval: Duration::from_secs(prover.interval_seconds),
        follow_interval: Duration::from_millis(follow.interval_ms),
    })
}

pub fn open_service(config: &Config, coldset: Option<Upstream>) -> Result<Service> {
    let topics = TopicFilter::new(&config.topics.include, &config.topics.exclude)
        .context("configuration section [topics]")?;
    let tables: Vec<_> =
        config.merged.topics.iter().map(|rule| (&rule.topic, &rule.table)).collect();
    let tables = TableMapping::new(&tables).context("configuration key \"merged.topics\"")?;
    let rules = config.topics.settings.iter().map(|settings| settings.rule());
    let rules = TableRules(rules.collect::<Result<_>>()?);
    let service = Service::open(ServiceConfig {
        kafka: kafka(config)?,
        registry: registry(config)?,
        topics,
        formats: crate::formats::formats(config)?,
        discovery: config.discovery.config()?,
        prover: prover(config)?,
        coldset,
        tables,
        errors: config.errors.policies()?,
        rules,
        data_dir: config.data_dir.clone(),
        shared_dir: config.shared_dir.clone(),
        cache_bytes: config.limits.cache_bytes,
        render_concurrency: config.limits.render_concurrency,
        read_ahead: config.limits.read_ahead,
        encoding_memory_bytes: config.limits.encoding_memory_bytes,
        metadata_retention: Duration::from_secs(config.limits.metadata_retention_seconds),
        history_keep: Duration::from_secs(config.history.keep_seconds),
        round_times: RoundTimes {
            // A year is more than anybody asks for, and still a list that engines read.
            hours: config.history.round_hours.min(24 * 366),
            days: config.history.round_days.min(366),
        },
    })?;
    Ok(service)
}

/// The key pair clients sign with. A secret that is not configured is made once and kept below data_dir (or shared_dir):
/// clients that loaded a table before a restart go on reading after it. The session token follows from
/// the secret, so that replicas with the same secret take each other's clients.
fn credentials(config: &Config) -> Result<GatewayCredentials> {
    let secret_access_key = match &config.s3.secret_access_key {
        Some(secret) => secret.expose().to_owned(),
        None => auth::kept_secret(config.secrets_dir(), "s3-secret-access-key")?,
    };
    let mut token = Sha256::new();
    for part in ["isk session token", &config.s3.access_key_id, &secret_access_key] {
        token.update(part);
        token.update([0]);
    }
    let session_token = token.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(GatewayCredentials {
        access_key_id: config.s3.access_key_id.clone(),
        secret_access_key,
        session_token,
    })
}

/// Waits for SIGINT or SIGTERM.
pub async fn stop_signal() -> Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
