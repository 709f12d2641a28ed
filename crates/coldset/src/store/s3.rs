//! The real store: S3, or what speaks its language.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use isk_outbound::{Authorities, chain};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{BackoffConfig, Certificate, ClientOptions, RetryConfig};
use reqwest::Url;

use super::Bucket;
use crate::keys::CurrentKeys;
use crate::{ColdS3, ColdsetConfig, ColdsetError};

/// How often a request that may be repeated is repeated.
const MAX_RETRIES: usize = 3;

/// How the buckets' clients are made.
pub(super) struct S3Settings {
    s3: ColdS3,
    keys: Option<Arc<CurrentKeys>>,
    endpoint: Option<Url>,
    certificates: Vec<Certificate>,
    timeout: Duration,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.s3.fmt(f)
    }
}

impl S3Settings {
    pub(super) fn new(config: &ColdsetConfig) -> Result<Self, ColdsetError> {
        let s3 = config.s3.clone();
        let keys = s3.keys.clone().map(|keys| CurrentKeys::new(keys, "s3.access-key-id"));
        let keys = keys.transpose()?.map(Arc::new);
        let endpoint = s3.endpoint.as_deref().map(parse_endpoint).transpose()?;
        let bad = |error: &dyn std::error::Error| ColdsetError::config("ca-file", chain(error));
        let authorities = Authorities::new(config.ca_pem.as_deref()).map_err(|e| bad(&e))?;
        let certificates = authorities.certificates().map(Certificate::from_der);
        let certificates = certificates.collect::<Result<_, _>>().map_err(|e| bad(&e))?;
        let settings = Self { s3, keys, endpoint, certificates, timeout: config.request_timeout };
        // Whatever else is wrong is better said at the start than at the first read.
        settings.open("probe")?;
        Ok(settings)
    }

    /// The client of one bucket. No I/O.
    pub(super) fn open(&self, bucket: &str) -> Result<Bucket, ColdsetError> {
        let store: Arc<AmazonS3> = Arc::new(self.builder(bucket)?.build().map_err(|error| {
            ColdsetError::config("s3", format!("no client can be made: {}", chain(&error)))
        })?);
        Ok(Bucket { objects: store.clone(), parts: store.clone(), pages: store })
    }

    fn builder(&self, bucket: &str) -> Result<AmazonS3Builder, ColdsetError> {
        // On AWS without keys the machine's own role signs, which the library finds through the
        // environment; anywhere else nobody does.
        let role = self.keys.is_none() && self.endpoint.is_none();
        let mut builder = if role { AmazonS3Builder::from_env() } else { AmazonS3Builder::new() };
        builder = builder
            .with_bucket_name(bucket)
            .with_region(&self.s3.region)
            .with_virtual_hosted_style_request(!self.s3.path_style)
            .with_retry(self.retry())
            .with_client_options(self.client_options())
            .with_disable_tagging(true);
        if let Some(url) = &self.endpoint {
            builder = builder
                .with_endpoint(self.bucket_endpoint(url, bucket)?)
                .with_allow_http(url.scheme() == "http")
                .with_skip_signature(self.keys.is_none());
        }
        if let Some(keys) = &self.keys {
            builder = builder.with_credentials(keys.clone());
        }
        Ok(builder)
    }

    /// The library wants the bucket in an endpoint's host where it shall not be in the path.
    fn bucket_endpoint(&self, url: &Url, bucket: &str) -> Result<String, ColdsetError> {
        let mut url = url.clone();
        if !self.s3.path_style {
            let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host)).map_err(|error| {
                ColdsetError::config(
                    "s3.path-style-access",
                    format!("{host:?} is no host name ({error}); set this to true"),
                )
            })?;
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }

    fn retry(&self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(100),
                max_backoff: Duration::from_secs(2),
                base: 2.0,
            },
            max_retries: MAX_RETRIES,
            retry_timeout: self.timeout,
        }
    }

    /// A client's own time-out would count a slow reader's pauses: time is kept around each request
    /// and each wait for bytes instead.
    fn client_options(&self) -> ClientOptions {
        let options = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(self.timeout.min(Duration::from_secs(5)))
            .with_pool_idle_timeout(Duration::from_secs(60))
            .with_allow_http(self.endpoint.as_ref().is_some_and(|url| url.scheme() == "http"));
        // The system's are among ours.
        let options = options.with_no_system_certificates(true);
        self.certificates.iter().cloned().fold(options, ClientOptions::with_root_certificate)
    }
}

fn parse_endpoint(text: &str) -> Result<Url, ColdsetError> {
    let bad = |why: String| ColdsetError::config("s3.endpoint", why);
    let url = Url::parse(text.trim()).map_err(|error| bad(format!("it is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(bad("it must begin with http:// or https:// and name a host".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials belong in s3.access-key-id and s3.secret-access-key".into()));
    }
    Ok(url)
}
