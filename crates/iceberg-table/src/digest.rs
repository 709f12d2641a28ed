//! Digests: file names, ids and sync markers are derived from contents.

use sha2::{Digest, Sha256};

/// The SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The first 16 bytes of the SHA-256, as 32 hex digits: enough to name a file by its content.
pub(crate) fn hex128(bytes: &[u8]) -> String {
    sha256(bytes)[..16].iter().map(|b| format!("{b:02x}")).collect()
}

/// A digest over parts that cannot run into each other.
pub(crate) struct Parts(Sha256);

impl Parts {
    pub(crate) fn new(domain: &str) -> Self {
        Self(Sha256::new()).add(domain.as_bytes())
    }

    pub(crate) fn add(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    /// A snapshot id: positive and below 2^63, as Iceberg wants it.
    pub(crate) fn snapshot_id(self) -> i64 {
        let digest: [u8; 32] = self.0.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        (i64::from_be_bytes([a, b, c, d, e, f, g, h]) & i64::MAX).max(1)
    }
}
