//! How the registry is reached.

use std::fmt;
use std::time::Duration;

use isk_outbound::Secret;

/// Who we are to the registry.
#[derive(Clone, Default)]
pub enum RegistryAuth {
    /// Nobody.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// The user, or an API key.
        user: String,
        /// The password, or the API key's secret.
        password: Secret,
    },
    /// A bearer token.
    Bearer(Secret),
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic([hidden])",
            Self::Bearer(_) => "Bearer([hidden])",
        })
    }
}

/// Configuration of a [`crate::SchemaRegistry`]. `Debug` hides secrets.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Base URLs, tried in order from the one that last answered. A path prefix is kept (Apicurio's
    /// `/apis/ccompat/v7`); `user:password@` in one serves when [`Self::auth`] is `None`.
    pub urls: Vec<String>,
    /// Who we are.
    pub auth: RegistryAuth,
    /// PEM certificates trusted besides the system's own.
    pub ca_pem: Option<Vec<u8>>,
    /// Our PEM certificate chain and key, for mutual TLS.
    pub identity_pem: Option<Vec<u8>>,
    /// How long one connection attempt may take.
    pub connect_timeout: Duration,
    /// How long one request may take, answer included.
    pub request_timeout: Duration,
    /// How long an id that the registry does not know is not asked for again.
    pub negative_ttl: Duration,
    /// How long a failed request is not repeated, so that a struggling registry is left in peace.
    pub failure_ttl: Duration,
    /// How old an answer about a subject's versions may be.
    pub subject_ttl: Duration,
    /// A longer answer is an error, in bytes.
    pub max_response_bytes: usize,
    /// How many schemas (and ids found missing) are kept.
    pub max_schemas: u64,
    /// How many subjects are kept.
    pub max_subjects: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            auth: RegistryAuth::None,
            ca_pem: None,
            identity_pem: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            negative_ttl: Duration::from_secs(30),
            failure_ttl: Duration::from_secs(1),
            subject_ttl: Duration::from_secs(1),
            max_response_bytes: 16 << 20,
            max_schemas: 10_000,
            max_subjects: 10_000,
        }
    }
}

impl RegistryConfig {
    /// A configuration with one URL and defaults.
    pub fn new(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ..Self::default() }
    }
}

impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What stands before an @ may be a password.
        let urls: Vec<_> = self
            .urls
            .iter()
            .map(|url| url.rsplit_once('@').map_or(url.as_str(), |(_, host)| host))
            .collect();
        f.debug_struct("RegistryConfig")
            .field("urls", &urls)
            .field("auth", &self.auth)
            .field("request_timeout", &self.request_timeout)
            .field("negative_ttl", &self.negative_ttl)
            .field("subject_ttl", &self.subject_ttl)
            .finish_non_exhaustive()
    }
}
