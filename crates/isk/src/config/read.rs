//! Reading the configuration: a TOML file, and the environment laid over it.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use toml::{Table, Value};

use super::{Config, check, secret_files};

/// Environment variables that set one key each.
const VARIABLES: &[(&str, &str)] = &[
    ("ISK_PORT", "s3.port"),
    ("ISK_S3_PORT", "s3.port"),
    ("ISK_CATALOG_PORT", "catalog.port"),
    ("ISK_SERVER_PLANNING", "catalog.server_planning"),
    ("ISK_EXTERNAL_HOSTNAME", "external_hostname"),
    ("ISK_EXTERNAL_URL", "s3.external_url"),
    ("ISK_BIND", "bind"),
    ("ISK_DATA_DIR", "data_dir"),
    ("ISK_SHARED_DIR", "shared_dir"),
    ("ISK_TLS_CERT_FILE", "tls.cert_file"),
    ("ISK_TLS_KEY_FILE", "tls.key_file"),
    ("ISK_TLS_CLIENT_CA_FILE", "tls.client_ca_file"),
    ("ISK_TLS_CLIENT_CERTIFICATE", "tls.client_certificate"),
    ("ISK_AUTH_TYPE", "auth.type"),
    ("ISK_AUTH_INSECURE_BIND", "auth.insecure_bind"),
    ("ISK_AUTH_ACCESS_FILE", "auth.access_file"),
    ("ISK_AUTH_CREDENTIALS", "auth.credentials"),
    ("ISK_AUTH_CREDENTIALS_FILE", "auth.credentials_file"),
    ("ISK_AUTH_SIGNING_KEY", "auth.signing_key"),
    ("ISK_AUTH_SIGNING_KEY_FILE", "auth.signing_key_file"),
    ("ISK_AUTH_TOKEN_SECONDS", "auth.token_seconds"),
    ("ISK_AUTH_KEY_SECONDS", "auth.key_seconds"),
    ("ISK_AUTH_OIDC_ISSUER", "auth.oidc_issuer"),
    ("ISK_AUTH_OIDC_AUDIENCE", "auth.oidc_audience"),
    ("ISK_AUTH_OIDC_PRINCIPAL_CLAIM", "auth.oidc_principal_claim"),
    ("ISK_AUTH_OIDC_GROUPS_CLAIM", "auth.oidc_groups_claim"),
    ("ISK_AUTH_OIDC_CA_FILE", "auth.oidc_ca_file"),
    ("ISK_AUTH_OPEN_METRICS", "auth.open_metrics"),
    ("ISK_AUDIT_FILE", "audit.file"),
    ("ISK_AUDIT_LOG", "audit.log"),
    ("ISK_AUDIT_GATHER_SECONDS", "audit.gather_seconds"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.endpoint"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "telemetry.traces_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "telemetry.headers"),
    ("ISK_TELEMETRY_HEADERS_FILE", "telemetry.headers_file"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "telemetry.ca_file"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "telemetry.protocol"),
    ("OTEL_SERVICE_NAME", "telemetry.service_name"),
    ("OTEL_RESOURCE_ATTRIBUTES", "telemetry.resource_attributes"),
    ("OTEL_TRACES_SAMPLER", "telemetry.sampler"),
    ("OTEL_TRACES_SAMPLER_ARG", "telemetry.sample_ratio"),
    ("OTEL_TRACES_EXPORTER", "telemetry.exporter"),
    ("OTEL_SDK_DISABLED", "telemetry.disabled"),
    ("ISK_REQUESTS_PER_PRINCIPAL", "limits.requests_per_principal"),
    ("ISK_PASS_THROUGH_CLIENTS", "limits.pass_through_clients"),
    ("ISK_CONNECTIONS", "limits.connections"),
    ("ISK_HEAD_BYTES", "limits.head_bytes"),
    ("ISK_HEAD_SECONDS", "limits.head_seconds"),
    ("ISK_IDLE_SECONDS", "limits.idle_seconds"),
    ("ISK_BODY_STALL_SECONDS", "limits.body_stall_seconds"),
    ("ISK_READER_STALL_SECONDS", "limits.reader_stall_seconds"),
    ("ISK_S3_REGION", "s3.region"),
    ("ISK_S3_ACCESS_KEY_ID", "s3.access_key_id"),
    ("ISK_S3_SECRET_ACCESS_KEY", "s3.secret_access_key"),
    ("ISK_REGISTRY_URL", "registry.url"),
    ("ISK_REGISTRY_USERNAME", "registry.username"),
    ("ISK_REGISTRY_PASSWORD", "registry.password"),
    ("ISK_REGISTRY_PASSWORD_FILE", "registry.password_file"),
    ("ISK_REGISTRY_TOKEN", "registry.token"),
    ("ISK_REGISTRY_TOKEN_FILE", "registry.token_file"),
    ("ISK_REGISTRY_CA_FILE", "registry.ca_file"),
    ("ISK_REGISTRY_IDENTITY_FILE", "registry.identity_file"),
    ("ISK_TOPICS_INCLUDE", "topics.include"),
    ("ISK_TOPICS_EXCLUDE", "topics.exclude"),
    ("ISK_DISCOVERY_ENABLED", "discovery.enabled"),
    ("ISK_DISCOVERY_TOPICS", "discovery.topics"),
    ("ISK_DISCOVERY_EXCLUDE", "discovery.exclude"),
    ("ISK_DISCOVERY_MAX_COLUMNS", "discovery.max_columns"),
    ("ISK_DISCOVERY_MAX_KEYS", "discovery.max_keys"),
    ("ISK_DISCOVERY_TEXT", "discovery.text"),
    ("ISK_ERRORS_POLICY", "errors.policy"),
    ("ISK_ERRORS_KEEP", "errors.keep"),
    ("ISK_ERRORS_SKIP", "errors.skip"),
    ("ISK_ERRORS_FAIL", "errors.fail"),
    ("ISK_PROVER_ENABLED", "prover.enabled"),
    ("ISK_PROVER_TOPICS", "prover.topics"),
    ("ISK_PROVER_RATE_BYTES_PER_SECOND", "prover.rate_bytes_per_second"),
    ("ISK_PROVER_BUDGET_BYTES_PER_DAY", "prover.budget_bytes_per_day"),
    ("ISK_PROVER_TIERED", "prover.tiered"),
    ("ISK_PROVER_SAMPLE_AHEAD", "prover.sample_ahead"),
    ("ISK_PROVER_INTERVAL_SECONDS", "prover.interval_seconds"),
    ("ISK_FOLLOW_TOPICS", "follow.topics"),
    ("ISK_FOLLOW_INTERVAL_MS", "follow.interval_ms"),
    ("ISK_CACHE_BYTES", "limits.cache_bytes"),
    ("ISK_RENDER_CONCURRENCY", "limits.render_concurrency"),
    ("ISK_READ_AHEAD", "limits.read_ahead"),
    ("ISK_ENCODING_MEMORY_BYTES", "limits.encoding_memory_bytes"),
    ("ISK_METADATA_RETENTION_SECONDS", "limits.metadata_retention_seconds"),
    ("ISK_HISTORY_KEEP_SECONDS", "history.keep_seconds"),
    ("ISK_HISTORY_ROUND_HOURS", "history.round_hours"),
    ("ISK_HISTORY_ROUND_DAYS", "history.round_days"),
    ("ISK_REQUEST_TIMEOUT_MS", "limits.request_timeout_ms"),
    ("ISK_FETCH_PROGRESS_TIMEOUT_MS", "limits.fetch_progress_timeout_ms"),
    ("ISK_COLDSET_NAMESPACE", "coldset.namespace"),
    ("ISK_COLDSET_WRITABLE", "coldset.writable"),
    ("ISK_COLDSET_DIRECT", "coldset.direct"),
    ("ISK_COLDSET_CA_FILE", "coldset.ca-file"),
    ("ISK_COLDSET_REQUEST_TIMEOUT_MS", "coldset.request-timeout-ms"),
    ("ISK_CONFIG_SERVICE_URL", "config_service_url"),
];

/// Prefixes whose rest names a property: `_` stands for the dot. (In `coldset`, dots, dashes and
/// underscores are the same.)
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
    let mut config: Config =
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            let key = e.path().to_string();
            anyhow!("configuration key {key:?}: {}", e.inner().to_string().trim())
        })?;
    secret_files::read(&mut config)?;
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
    // OpenTelemetry's variables are for many programs: empty ones are as good as none, others are not ours.
    if name.starts_with("OTEL_") {
        let known = VARIABLES.iter().find(|(variable, _)| *variable == name);
        return match known.filter(|_| !value.trim().is_empty()) {
            Some((_, key)) => set(table, key, parse(key, name, value)?),
            None => Ok(()),
        };
    }
    if !name.starts_with("ISK_") || name.starts_with("ISK_TEST_") || OTHER.contains(&name) {
        return Ok(());
    }
    if value.starts_with("tcp://") {
        // Kubernetes sets ISK_PORT=tcp://… in every pod beside a Service named "isk".
        tracing::warn!(name, "ignored: this is a Kubernetes service link, not a setting");
        return Ok(());
    }
    if let Some((_, key)) = VARIABLES.iter().find(|(variable, _)| *variable == name) {
        if let Some(("coldset", property)) = key.split_once('.') {
            return set_property(table, "coldset", property.to_owned(), value);
        }
        return set(table, key, parse(key, name, value)?);
    }
    for (prefix, section) in FAMILIES {
        if let Some(rest) = name.strip_prefix(prefix).filter(|r| !r.is_empty()) {
            let key = rest.to_ascii_lowercase().replace('_', ".");
            return set_property(table, section, key, value);
        }
    }
    tracing::warn!(name, "ignored: no setting has this name (see `isk serve --help`)");
    Ok(())
}

/// Sets a property, in place of one that is spelled otherwise.
fn set_property(table: &mut Table, section: &str, key: String, value: &str) -> Result<()> {
    let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(properties) = entry else {
        bail!("configuration key {section:?} must be a table of properties");
    };
    if section == "coldset" {
        let plain = |key: &str| key.to_ascii_lowercase().replace(['-', '_'], ".");
        properties.retain(|other, _| plain(other) != plain(&key));
    }
    properties.insert(key, Value::String(value.to_owned()));
    Ok(())
}

/// Text from the environment as the kind of value its key takes.
fn parse(key: &str, name: &str, value: &str) -> Result<Value> {
    const SWITCHES: [&str; 11] = [
        "discovery.enabled",
        "discovery.text",
        "prover.enabled",
        "prover.tiered",
        "prover.sample_ahead",
        "catalog.server_planning",
        "limits.read_ahead",
        "auth.insecure_bind",
        "auth.open_metrics",
        "audit.log",
        "telemetry.disabled",
    ];
    if SWITCHES.contains(&key) {
        let switch = value.trim().parse::<bool>();
        return switch.map(Value::Boolean).map_err(|_| {
            anyhow!("{name}={value:?} is neither true nor false (configuration key {key})")
        });
    }
    let is_list = key.ends_with(".topics")
        || key.starts_with("topics.")
        || matches!(key, "errors.keep" | "errors.skip" | "errors.fail" | "discovery.exclude");
    if is_list {
        let patterns = value.split(',').map(str::trim).filter(|p| !p.is_empty());
        return Ok(Value::Array(patterns.map(|p| Value::String(p.to_owned())).collect()));
    }
    let is_number = key.ends_with("port")
        || matches!(key, "auth.token_seconds" | "auth.key_seconds" | "audit.gather_seconds")
        || ["limits.", "prover.", "follow.", "history.", "discovery."]
            .iter()
            .any(|section| key.starts_with(section));
    if is_number {
        let number = value.trim().parse::<i64>();
        return number.map(Value::Integer).map_err(|_| {
            anyhow!("{name}={value:?} is not a whole number (configuration key {key})")
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
    }

    #[test]
    fn the_text_of_settings_names_what_is_read_and_nothing_else() {
        let text = include_str!("../settings.txt");
        for (variable, key) in VARIABLES {
            // An older name of the same port.
            if *variable == "ISK_S3_PORT" {
                continue;
            }
            let line = text.lines().find(|line| words(line).any(|word| word == *variable));
            let line = line.unwrap_or_else(|| panic!("settings.txt does not name {variable}"));
            let key = key.rsplit('.').next().unwrap();
            assert!(line.contains(key), "settings.txt: {key} does not stand beside {variable}");
        }
        for name in words(text).filter(|word| word.starts_with("ISK_")) {
            let known = VARIABLES.iter().any(|(variable, _)| *variable == name)
                || FAMILIES.iter().any(|(prefix, _)| name.starts_with(prefix))
                || OTHER.contains(&name);
            assert!(known, "settings.txt names {name}, which nothing reads");
        }
    }
}
