//! Tokens of an external issuer: OpenID Connect discovery, its keys and their rotation.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use isk_outbound::{Authorities, NoClient};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use crate::issuer_keys::{IssuerKeys, checked, header_of};
use crate::principal::Caller;
use crate::ring_provider;

/// How old the keys may be before they are asked for again.
const REFRESH: Duration = Duration::from_secs(300);

/// How long keys are good while the issuer does not answer.
const KEPT: Duration = Duration::from_secs(12 * 3600);

/// How long one answer of the issuer may take, and how long it may be.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 1 << 20;

/// How an external issuer is configured.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// The issuer, as its tokens name it; `<issuer>/.well-known/openid-configuration` tells the rest.
    pub issuer: String,
    /// The audience that tokens must be for.
    pub audience: String,
    /// The claim that names the principal.
    pub principal_claim: String,
    /// The claim that names its groups.
    pub groups_claim: String,
    /// Certificates to trust besides the system's, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// How long to wait between two questions to the issuer, whoever asks with whatever key's name.
    pub pause: Duration,
}

/// The issuer's public keys, and when they were fetched.
#[derive(Default)]
struct Fetched {
    keys: IssuerKeys,
    at: Option<Instant>,
}

/// The issuer: its keys are fetched when first needed.
pub struct Oidc {
    settings: OidcSettings,
    client: reqwest::Client,
    keys: RwLock<Arc<Fetched>>,
    /// When the issuer was last asked; one at a time asks it.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Oidc {
    /// An issuer; asks it nothing yet.
    ///
    /// # Errors
    /// Where the certificates are no PEM.
    pub fn new(settings: OidcSettings) -> Result<Self, NoClient> {
        ring_provider::install();
        let client = Authorities::new(settings.ca_pem.as_deref())?
            .client()?
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(3));
        Ok(Self {
            settings,
            client: client.build()?,
            keys: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
        })
    }

    /// The caller of a token, or why it is none.
    pub(crate) async fn check(self: &Arc<Self>, token: &str, now: u64) -> Result<Caller, String> {
        let header = header_of(token)?;
        let key = self.key(header.kid.as_deref()).await?;
        checked(token, &header, &key, &self.settings, now)
    }

    async fn key(self: &Arc<Self>, id: Option<&str>) -> Result<(Algorithm, DecodingKey), String> {
        let known = self.known();
        let age = known.at.map(|at| at.elapsed());
        if let Some(key) = known.keys.find(id).filter(|_| age.is_some_and(|age| age < KEPT)) {
            if age.is_some_and(|age| age > REFRESH) {
                // Nobody waits for an issuer that may be down while its keys are known.
                let issuer = Arc::clone(self);
                tokio::spawn(async move { issuer.refresh().await });
            }
            return Ok(key);
        }
        self.refresh().await;
        let known = self.known();
        let fresh = known.at.is_some_and(|at| at.elapsed() < KEPT);
        known.keys.find(id).filter(|_| fresh).ok_or_else(|| {
            let why = if fresh { "has no such key" } else { "does not answer" };
            format!("the token's key is not known: the issuer {why}")
        })
    }

    fn known(&self) -> Arc<Fetched> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks the issuer for its keys, unless it was asked just now. What is known stays where it does not answer.
    async fn refresh(&self) {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|asked| asked.elapsed() < self.settings.pause) {
            return;
        }
        let fetched = self.fetch().await;
        *asked = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                tracing::debug!(issuer = self.settings.issuer, keys = keys.len(), "keys");
                let fetched = Arc::new(Fetched { keys, at: Some(Instant::now()) });
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = fetched;
            }
            Err(error) => {
                tracing::warn!(
                    issuer = self.settings.issuer,
                    error,
                    "the issuer's keys cannot be fetched; those that are known stay good for 12 h"
                );
            }
        }
    }

    async fn fetch(&self) -> Result<IssuerKeys, String> {
        let issuer = &self.settings.issuer;
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery: Discovery = serde_json::from_slice(&self.get(&place).await?)
            .map_err(|error| format!("{place}: {error}"))?;
        if discovery.issuer != *issuer {
            return Err(format!("{place} is of the issuer {:?}", discovery.issuer));
        }
        // Keys that do not come over TLS are only as good as the network; where the issuer itself is asked over
        // TLS, its keys must be, too.
        if issuer.starts_with("https://") && !discovery.jwks_uri.starts_with("https://") {
            return Err(format!("its keys lie at {:?}, without TLS", discovery.jwks_uri));
        }
        let set = self.get(&discovery.jwks_uri).await?;
        IssuerKeys::read(&set).map_err(|error| format!("{}: {error}", discovery.jwks_uri))
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| format!("{url}: {}", error.without_url());
        let mut answer = self.client.get(url).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(format!("{url}: status {}", answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(bytes) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_ANSWER {
                return Err(format!("{url}: the answer is longer than {MAX_ANSWER} bytes"));
            }
        }
        Ok(body)
    }
}
