//! Traces, as configured: in the file, or by the variables that all of OpenTelemetry's SDKs read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use isk_outbound::SecretFile;
use isk_traces::{Headers, Sampler, TraceSettings};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::Secret;

/// How long one attempt to send a batch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where traces are sent. Nothing is traced unless there is an endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The base URL of a collector that takes OTLP over HTTP; `/v1/traces` is added.
    pub endpoint: Option<Secret>,
    /// The whole URL, in place of the base.
    pub traces_endpoint: Option<Secret>,
    /// What is sent with each batch: `name=value`, separated by commas, percent-encoded.
    pub headers: Option<Secret>,
    /// The same from a file, or one a line; read again when it changes.
    pub headers_file: Option<PathBuf>,
    /// A file of PEM certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// What this service is called; `isk` where neither this nor the attributes say.
    pub service_name: Option<String>,
    /// Attributes of this service, as headers are written.
    pub resource_attributes: String,
    /// Which traces are kept, by the names of OTEL_TRACES_SAMPLER.
    pub sampler: String,
    /// The share of traces that a ratio sampler keeps, from 0 to 1.
    pub sample_ratio: Ratio,
    /// Nothing is traced, whatever else is set.
    pub disabled: bool,
    /// `none` does as much; `otlp` is what there is.
    pub exporter: String,
    /// `http/protobuf` is what there is.
    pub protocol: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            headers: None,
            headers_file: None,
            ca_file: None,
            service_name: None,
            resource_attributes: String::new(),
            sampler: "parentbased_traceidratio".into(),
            sample_ratio: Ratio(1.0),
            disabled: false,
            exporter: "otlp".into(),
            protocol: "http/protobuf".into(),
        }
    }
}

/// A number, or its text: the environment knows nothing else.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub struct Ratio(f64);

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl TryFrom<NumberOrText> for Ratio {
    type Error = String;

    fn try_from(given: NumberOrText) -> Result<Self, String> {
        let ratio = match &given {
            NumberOrText::Number(number) => Some(*number),
            NumberOrText::Text(text) => text.trim().parse().ok(),
        };
        match ratio.filter(|ratio| (0.0..=1.0).contains(ratio)) {
            Some(ratio) => Ok(Self(ratio)),
            None => Err("a ratio lies between 0 and 1 (OTEL_TRACES_SAMPLER_ARG)".into()),
        }
    }
}

impl Telemetry {
    /// How to send traces, if they are to be sent. Reads files.
    pub fn settings(&self) -> Result<Option<TraceSettings>> {
        let sampler = self.sampler()?;
        let Some(endpoint) = self.url()? else { return Ok(None) };
        if self.disabled || self.exporter == "none" {
            return Ok(None);
        }
        if self.exporter != "otlp" {
            bail!(
                "telemetry.exporter (OTEL_TRACES_EXPORTER) is {:?}: otlp and none are known",
                self.exporter
            );
        }
        if self.protocol != "http/protobuf" {
            bail!(
                "telemetry.protocol (OTEL_EXPORTER_OTLP_PROTOCOL) is {:?}: traces are sent as http/protobuf, which \
                 collectors take on port 4318; set it to that, and the endpoint",
                self.protocol
            );
        }
        let ca_pem = self.ca_file.as_ref().map(|path| {
            std::fs::read(path).with_context(|| {
                format!("configuration key \"telemetry.ca_file\": cannot read {}", path.display())
            })
        });
        Ok(Some(TraceSettings {
            endpoint,
            headers: self.sent_headers()?,
            ca_pem: ca_pem.transpose()?,
            timeout: TIMEOUT,
            resource: self.resource()?,
            sampler,
        }))
    }

    fn url(&self) -> Result<Option<String>> {
        let whole = self.traces_endpoint.as_ref().map(|url| url.expose().trim().to_owned());
        let base = self.endpoint.as_ref().map(|url| url.expose().trim().trim_end_matches('/'));
        let base = base.filter(|base| !base.is_empty()).map(|base| format!("{base}/v1/traces"));
        let Some(url) = whole.filter(|whole| !whole.is_empty()).or(base) else { return Ok(None) };
        // It may hold a password.
        let parsed = Url::parse(&url).ok();
        if !parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            bail!(
                "configuration key \"telemetry.endpoint\" (OTEL_EXPORTER_OTLP_ENDPOINT) must begin with http:// or \
                 https:// and name a host"
            );
        }
        Ok(Some(url))
    }

    fn sampler(&self) -> Result<Sampler> {
        let ratio = || Sampler::TraceIdRatioBased(self.sample_ratio.0);
        let by_parent = |else_by| Sampler::ParentBased(Box::new(else_by));
        Ok(match self.sampler.as_str() {
            "always_on" => Sampler::AlwaysOn,
            "always_off" => Sampler::AlwaysOff,
            "traceidratio" => ratio(),
            "parentbased_always_on" => by_parent(Sampler::AlwaysOn),
            "parentbased_always_off" => by_parent(Sampler::AlwaysOff),
            "parentbased_traceidratio" => by_parent(ratio()),
            other => bail!(
                "configuration key \"telemetry.sampler\" (OTEL_TRACES_SAMPLER) is {other:?}: always_on, always_off and \
                 traceidratio are known, each also behind parentbased_"
            ),
        })
    }

    /// Attributes of this service. One of several replicas is told from the others.
    fn resource(&self) -> Result<Vec<(String, String)>> {
        let mut attributes = BTreeMap::from([
            ("service.name".to_owned(), "isk".to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), uuid::Uuid::new_v4().to_string()),
        ]);
        attributes.extend(pairs(&self.resource_attributes).map_err(|why| {
            anyhow!("telemetry.resource_attributes (OTEL_RESOURCE_ATTRIBUTES): {why}")
        })?);
        if let Some(name) = self.service_name.as_ref().filter(|name| !name.is_empty()) {
            attributes.insert("service.name".to_owned(), name.clone());
        }
        Ok(attributes.into_iter().collect())
    }

    fn sent_headers(&self) -> Result<Headers> {
        let key = "telemetry.headers (OTEL_EXPORTER_OTLP_HEADERS)";
        let text = self.headers.as_ref().map(Secret::expose).unwrap_or_default();
        match (&self.headers_file, text) {
            (None, text) => {
                let headers = headers(text).map_err(|why| anyhow!("{key}: {why}"))?;
                Ok(Arc::new(move || Ok(headers.clone())))
            }
            (Some(path), "") => {
                let key = "telemetry.headers_file (ISK_TELEMETRY_HEADERS_FILE)";
                let file = SecretFile::open(path).context(key)?;
                headers(&file.text()).map_err(|why| anyhow!("{key}: {why}"))?;
                Ok(Arc::new(move || {
                    headers(&file.text()).map_err(|why| format!("telemetry.headers_file: {why}"))
                }))
            }
            (Some(_), _) => bail!("{key} and telemetry.headers_file: give one"),
        }
    }
}

/// Headers that logs do not show.
fn headers(text: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (index, (name, value)) in pairs(text)?.into_iter().enumerate() {
        let bad = || format!("header {} is none that HTTP knows", index + 1);
        let name: HeaderName = name.parse().map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// `name=value` pairs, separated by commas or lines. An error does not repeat them.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let written = text.split([',', '\n']).map(str::trim).filter(|pair| !pair.is_empty());
    let pairs = written.enumerate().map(|(index, pair)| {
        let bad = || format!("pair {} is not name=value, percent-encoded", index + 1);
        let (name, value) = pair.split_once('=').ok_or_else(bad)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| bad())?;
        match name.trim() {
            "" => Err(bad()),
            name => Ok((name.to_owned(), value.into_owned())),
        }
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn settings(file: &str, env: &[(&str, &str)]) -> Result<Option<TraceSettings>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("isk.toml");
        std::fs::write(&path, format!("{file}\n[kafka]\nbootstrap.servers = \"a:1\"\n")).unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&path), env.collect::<Vec<_>>())?.telemetry.settings()
    }

    fn error(file: &str, env: &[(&str, &str)]) -> String {
        format!("{:#}", settings(file, env).unwrap_err())
    }

    const HERE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn nothing_is_traced_without_an_endpoint_or_where_that_is_said() {
        assert!(settings("", &[]).unwrap().is_none());
        assert!(settings("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().is_none());
        assert!(settings("", &[HERE]).unwrap().is_some());
        assert!(settings("", &[HERE, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        assert!(settings("", &[HERE, ("OTEL_TRACES_EXPORTER", "none")]).unwrap().is_none());
    }

    #[test]
    fn the_standard_variables_lie_over_the_file() {
        let file =
            "[telemetry]\nendpoint = \"http://other:1\"\nheaders = \"a=b\"\nsample_ratio = 1\n";
        let env = [
            HERE,
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=it%20is%3Dthis, x=y"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=one"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let found = settings(file, &env).unwrap().unwrap();
        assert_eq!(found.endpoint, "http://collector:4318/v1/traces");
        let headers = (found.headers)().unwrap();
        assert_eq!(headers["api-key"], "it is=this");
        assert_eq!((headers.len(), &headers["x"]), (2, &HeaderValue::from_static("y")));
        let of = |name: &str, found: &TraceSettings| {
            found.resource.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        assert_eq!(of("service.name", &found).as_deref(), Some("one"));
        assert_eq!(of("deployment.environment.name", &found).as_deref(), Some("test"));
        assert!(format!("{:?}", found.sampler).contains("0.25"), "{:?}", found.sampler);
        let named = settings(file, &[env[2], ("OTEL_SERVICE_NAME", "two")]).unwrap().unwrap();
        assert_eq!(of("service.name", &named).as_deref(), Some("two"));
        assert_eq!(named.endpoint, "http://other:1/v1/traces");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c/otlp/traces");
        assert_eq!(settings(file, &[HERE, whole]).unwrap().unwrap().endpoint, whole.1);
    }

    #[test]
    fn what_cannot_be_is_named_and_secrets_are_not() {
        for (env, named) in [
            (("OTEL_TRACES_SAMPLER", "jaeger_remote"), "OTEL_TRACES_SAMPLER"),
            (("OTEL_TRACES_SAMPLER_ARG", "2"), "OTEL_TRACES_SAMPLER_ARG"),
            (("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), "4318"),
            (("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"), "OTEL_EXPORTER_OTLP_ENDPOINT"),
            (("OTEL_EXPORTER_OTLP_HEADERS", "hush"), "OTEL_EXPORTER_OTLP_HEADERS"),
            (("OTEL_EXPORTER_OTLP_HEADERS", "a b=hush"), "header 1"),
            (("OTEL_RESOURCE_ATTRIBUTES", "=x"), "OTEL_RESOURCE_ATTRIBUTES"),
            (("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none.pem"), "/none.pem"),
        ] {
            let text = error("", &[HERE, env]);
            assert!(text.contains(named), "{env:?}: {text}");
            assert!(!text.contains("hush"), "{text}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        std::fs::write(&path, "api-key=hush\nx=y\n").unwrap();
        let file = ("ISK_TELEMETRY_HEADERS_FILE", path.to_str().unwrap());
        let found = settings("", &[HERE, file]).unwrap().unwrap();
        assert_eq!((found.headers)().unwrap()["api-key"], "hush");
        assert!(!format!("{found:?} {:?}", (found.headers)()).contains("hush"));
        assert!(
            error("", &[HERE, file, ("OTEL_EXPORTER_OTLP_HEADERS", "a=b")]).contains("give one")
        );
    }
}
