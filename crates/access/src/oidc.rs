//! Tokens of an external issuer: OpenID Connect discovery, its keys and their rotation.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::principal::{Caller, Source};
use crate::ring_provider;

/// How old the keys may be before they are asked for again.
const REFRESH: Duration = Duration::from_secs(300);

/// How long keys are good while the issuer does not answer.
const KEPT: Duration = Duration::from_secs(12 * 3600);

/// How long one answer of the issuer may take, and how long it may be.
const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 1 << 20;

/// How far the issuer's clock may be off, in seconds.
const LEEWAY: u64 = 60;

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

/// The issuer's public keys.
#[derive(Default)]
struct Keys {
    by_id: HashMap<String, (Algorithm, DecodingKey)>,
    fetched: Option<Instant>,
}

/// The issuer: its keys are fetched when first needed.
pub struct Oidc {
    settings: OidcSettings,
    client: reqwest::Client,
    keys: RwLock<Arc<Keys>>,
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
    pub fn new(settings: OidcSettings) -> Result<Self, reqwest::Error> {
        ring_provider::install();
        let mut client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(3));
        for certificate in
            reqwest::Certificate::from_pem_bundle(settings.ca_pem.as_deref().unwrap_or_default())?
        {
            client = client.add_root_certificate(certificate);
        }
        Ok(Self {
            settings,
            client: client.build()?,
            keys: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
        })
    }

    /// The caller of a token, or why it is none.
    pub(crate) async fn check(self: &Arc<Self>, token: &str, now: u64) -> Result<Caller, String> {
        let header = decode_header(token).map_err(|_| "the token is no JWT".to_owned())?;
        let (algorithm, key) = self.key(header.kid.as_deref()).await?;
        // The key decides how tokens are signed with it, and not what a token says of itself.
        if header.alg != algorithm {
            return Err("the token is signed in another way than its key is for".to_owned());
        }
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Times are checked below, by the clock that was handed in.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        let claims = decode::<Map<String, Value>>(token, &key, &validation)
            .map_err(|error| format!("the token is refused: {error}"))?
            .claims;
        check_times(&claims, now)?;
        caller(&claims, &self.settings)
    }

    async fn key(self: &Arc<Self>, id: Option<&str>) -> Result<(Algorithm, DecodingKey), String> {
        let keys = self.known();
        let age = keys.fetched.map(|fetched| fetched.elapsed());
        if let Some(key) = keys.find(id).filter(|_| age.is_some_and(|age| age < KEPT)) {
            if age.is_some_and(|age| age > REFRESH) {
                // Nobody waits for an issuer that may be down while its keys are known.
                let issuer = Arc::clone(self);
                tokio::spawn(async move { issuer.refresh().await });
            }
            return Ok(key);
        }
        self.refresh().await;
        let keys = self.known();
        let fresh = keys.fetched.is_some_and(|fetched| fetched.elapsed() < KEPT);
        keys.find(id).filter(|_| fresh).ok_or_else(|| {
            let why = if fresh { "has no such key" } else { "does not answer" };
            format!("the token's key is not known: the issuer {why}")
        })
    }

    fn known(&self) -> Arc<Keys> {
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
                tracing::debug!(issuer = self.settings.issuer, keys = keys.by_id.len(), "keys");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
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

    async fn fetch(&self) -> Result<Keys, String> {
        let issuer = &self.settings.issuer;
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery: Discovery = self.get(&place).await?;
        if discovery.issuer != *issuer {
            return Err(format!("{place} is of the issuer {:?}", discovery.issuer));
        }
        // Keys that do not come over TLS are only as good as the network; where the issuer itself is asked over
        // TLS, its keys must be, too.
        if issuer.starts_with("https://") && !discovery.jwks_uri.starts_with("https://") {
            return Err(format!("its keys lie at {:?}, without TLS", discovery.jwks_uri));
        }
        let set: JwkSet = self.get(&discovery.jwks_uri).await?;
        let keys: HashMap<_, _> = set.keys.iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err("it has no key for RS256, ES256 or EdDSA".to_owned());
        }
        Ok(Keys { by_id: keys, fetched: Some(Instant::now()) })
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
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
        serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
    }
}

impl Keys {
    fn find(&self, id: Option<&str>) -> Option<(Algorithm, DecodingKey)> {
        match id {
            Some(id) => self.by_id.get(id).cloned(),
            // An issuer with one key need not name it.
            None if self.by_id.len() == 1 => self.by_id.values().next().cloned(),
            None => None,
        }
    }
}

/// A key that signatures are checked with, its name and its algorithm.
fn usable(jwk: &Jwk) -> Option<(String, (Algorithm, DecodingKey))> {
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let said = jwk.common.key_algorithm.as_ref().map(ToString::to_string);
    if said.is_some_and(|said| said != format!("{algorithm:?}")) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((jwk.common.key_id.clone().unwrap_or_default(), (algorithm, key)))
}

fn check_times(claims: &Map<String, Value>, now: u64) -> Result<(), String> {
    // Some issuers write fractions of seconds.
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(time) if time >= 0.0 => Ok(Some(time as u64)),
            _ => Err(format!("the token's {name} is no time")),
        },
    };
    if time("exp")?.is_none_or(|expires| expires.saturating_add(LEEWAY) <= now) {
        return Err("the token has expired".to_owned());
    }
    if time("nbf")?.is_some_and(|from| from > now.saturating_add(LEEWAY)) {
        return Err("the token is not good yet".to_owned());
    }
    Ok(())
}

fn caller(claims: &Map<String, Value>, settings: &OidcSettings) -> Result<Caller, String> {
    let claim = &settings.principal_claim;
    let name = claims.get(claim).and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("the token has no claim {claim:?} with a name"))?;
    let groups = match claims.get(&settings.groups_claim) {
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(group)) => vec![group.as_str()],
        _ => Vec::new(),
    };
    let groups = groups.into_iter().map(str::to_owned).collect();
    Ok(Caller { name: name.to_owned(), groups, source: Source::Issuer })
}
