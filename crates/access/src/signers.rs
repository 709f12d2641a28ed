//! What is signed with the signing keys: the first one signs, the others are still believed, so that one can take another's
//! place while clients have tokens of both.

use std::path::{Path, PathBuf};

use crate::file::FileError;
use crate::keys::SigningKey;
use crate::principal::Stamp;
use crate::secret::SecretDigest;
use crate::tokens::{Claims, Tokens};
use crate::vended::{Scope, VendedKey, Vendor};

/// Tokens and vended keys of one signing key.
struct Signer {
    tokens: Tokens,
    vendor: Vendor,
}

impl Signer {
    fn new(key: &SigningKey) -> Self {
        Self { tokens: Tokens::new(key), vendor: Vendor::new(key) }
    }
}

/// Those of all signing keys.
pub(crate) struct Signers {
    first: Signer,
    others: Vec<Signer>,
}

impl Signers {
    pub(crate) fn new(first: &SigningKey, others: &[SigningKey]) -> Self {
        Self { first: Signer::new(first), others: others.iter().map(Signer::new).collect() }
    }

    fn all(&self) -> impl Iterator<Item = &Signer> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(crate) fn sign(
        &self,
        sub: &str,
        stamp: Stamp,
        now: u64,
        expires: u64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        self.first.tokens.sign(sub, stamp, now, expires)
    }

    pub(crate) fn check(&self, token: &str) -> Option<Claims> {
        self.all().find_map(|signer| signer.tokens.check(token))
    }

    pub(crate) fn vend(&self, scope: &Scope) -> Result<VendedKey, serde_json::Error> {
        self.first.vendor.vend(scope)
    }

    pub(crate) fn secret(&self, access_key_id: &str) -> Option<String> {
        self.all().find_map(|signer| signer.vendor.secret(access_key_id))
    }

    pub(crate) fn open(&self, access_key_id: &str, token: &str) -> Option<Scope> {
        self.all().find_map(|signer| signer.vendor.open(access_key_id, token))
    }
}

/// A file of signing keys, one a line, the first of which signs.
#[derive(Debug, Clone)]
pub(crate) struct SigningKeyFile(pub PathBuf);

impl SigningKeyFile {
    /// The digest of its text, the key that signs, and the others.
    pub(crate) fn read(&self) -> Result<(SecretDigest, SigningKey, Vec<SigningKey>), FileError> {
        let text = read(&self.0)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys = lines.map(SigningKey::new).collect::<Result<Vec<_>, _>>();
        let mut keys =
            keys.map_err(|error| FileError::new(&self.0, error.to_string()))?.into_iter();
        let first = keys.next().ok_or_else(|| FileError::new(&self.0, "it is empty".to_owned()))?;
        Ok((SecretDigest::of(text.as_bytes()), first, keys.collect()))
    }
}

pub(crate) fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|error| FileError::new(path, error.to_string()))
}
