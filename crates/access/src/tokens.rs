//! Bearer tokens of our own: JWTs that every replica with the same signing key checks.

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::{Deserialize, Serialize};

use crate::keys::SigningKey;
use crate::principal::Stamp;
use crate::ring_provider;

/// Who signs them.
const ISSUER: &str = "isk";

/// What our tokens say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    /// The principal's name.
    pub sub: String,
    /// In seconds since 1970.
    pub iat: u64,
    /// In seconds since 1970.
    pub exp: u64,
    /// The credential that the token was got with.
    pub stamp: Stamp,
}

/// Signs tokens and checks them.
pub(crate) struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
}

impl Tokens {
    pub(crate) fn new(key: &SigningKey) -> Self {
        ring_provider::install();
        let bytes = key.bytes_for("bearer tokens");
        Self {
            signing: EncodingKey::from_secret(&bytes),
            checking: DecodingKey::from_secret(&bytes),
        }
    }

    /// A token of a principal for the time from `now` to `expires`.
    pub(crate) fn sign(
        &self,
        sub: &str,
        stamp: Stamp,
        now: u64,
        expires: u64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims =
            Claims { iss: ISSUER.to_owned(), sub: sub.to_owned(), iat: now, exp: expires, stamp };
        encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
    }

    /// The claims of a token that was signed here, whether or not it has expired.
    pub(crate) fn check(&self, token: &str) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        // Checked by whoever asks, against its own clock.
        validation.validate_exp = false;
        decode::<Claims>(token, &self.checking, &validation).ok().map(|token| token.claims)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens([hidden])")
    }
}

/// What a bearer token looks like, before anything of it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Three parts with a header that says our algorithm.
    Ours,
    /// Three parts with another algorithm.
    Foreign,
    /// Anything else: an API key.
    Plain,
}

impl Shape {
    pub(crate) fn of(token: &str) -> Self {
        if token.bytes().filter(|&byte| byte == b'.').count() != 2 {
            return Self::Plain;
        }
        match decode_header(token) {
            Ok(header) if header.alg == Algorithm::HS256 => Self::Ours,
            Ok(_) => Self::Foreign,
            // An algorithm that is none, or no header at all.
            Err(_) => Self::Plain,
        }
    }
}
