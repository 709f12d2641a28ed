//! The public keys of an issuer, and what its tokens say. No I/O: `oidc` fetches the keys.

use std::collections::HashMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::oidc::OidcSettings;
use crate::principal::{Caller, Source};
use crate::ring_provider;

/// How far the issuer's clock may be off, in seconds.
const LEEWAY: u64 = 60;

/// An issuer's public keys by their names.
#[derive(Default)]
pub struct IssuerKeys(HashMap<String, (Algorithm, DecodingKey)>);

impl std::fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl IssuerKeys {
    /// The keys of a JWK set (RFC 7517) that signatures can be checked with.
    ///
    /// # Errors
    /// It is no such set, or has none of them.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        ring_provider::install();
        let set: JwkSet = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let keys: HashMap<_, _> = set.keys.iter().filter_map(usable).collect();
        match keys.is_empty() {
            true => Err("it has no key for RS256, ES256 or EdDSA".to_owned()),
            false => Ok(Self(keys)),
        }
    }

    /// The caller of a token that one of these keys signed, at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Why there is none, in a text that may be shown.
    pub fn caller(&self, token: &str, settings: &OidcSettings, now: u64) -> Result<Caller, String> {
        let header = header_of(token)?;
        let key = self.find(header.kid.as_deref()).ok_or("the token's key is not known")?;
        checked(token, &header, &key, settings, now)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn find(&self, id: Option<&str>) -> Option<(Algorithm, DecodingKey)> {
        match id {
            Some(id) => self.0.get(id).cloned(),
            // An issuer with one key need not name it.
            None if self.0.len() == 1 => self.0.values().next().cloned(),
            None => None,
        }
    }
}

/// What a token says of itself, before anything of it is believed.
pub(crate) fn header_of(token: &str) -> Result<Header, String> {
    decode_header(token).map_err(|_| "the token is no JWT".to_owned())
}

/// The caller of a token, if this is the key that signed it.
pub(crate) fn checked(
    token: &str,
    header: &Header,
    (algorithm, key): &(Algorithm, DecodingKey),
    settings: &OidcSettings,
    now: u64,
) -> Result<Caller, String> {
    // The key decides how tokens are signed with it, and not what a token says of itself.
    if header.alg != *algorithm {
        return Err("the token is signed in another way than its key is for".to_owned());
    }
    let mut validation = Validation::new(*algorithm);
    validation.set_issuer(&[&settings.issuer]);
    validation.set_audience(&[&settings.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    // Times are checked below, by the clock that was handed in.
    (validation.validate_exp, validation.validate_nbf) = (false, false);
    let claims = decode::<Map<String, Value>>(token, key, &validation)
        .map_err(|error| format!("the token is refused: {error}"))?
        .claims;
    check_times(&claims, now)?;
    caller(&claims, settings)
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
