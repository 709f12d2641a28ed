//! Secrets that are only ever compared: kept as their SHA-256.

use std::fmt;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::principal::Stamp;

/// The SHA-256 of a secret. Secrets are long and random, so no slower digest is needed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

/// What should be the SHA-256 of a secret is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 is 64 hexadecimal digits (printf %s \"$SECRET\" | sha256sum)")]
pub struct BadDigest;

impl SecretDigest {
    /// The digest of a secret.
    pub fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(bytes)
    }

    /// A digest as it is written in a file.
    ///
    /// # Errors
    /// Where it is not 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, BadDigest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BadDigest);
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            let digits = text.get(2 * place..2 * place + 2).ok_or(BadDigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadDigest)?;
        }
        Ok(Self(bytes))
    }

    /// Whether it is the digest of what was given; takes as long whether or not it is.
    pub fn matches(&self, given: &Self) -> bool {
        self.0.ct_eq(&given.0).into()
    }

    /// What names this credential of this principal in tokens.
    pub(crate) fn stamp(&self, principal: &str) -> Stamp {
        let mut text = b"isk stamp\0".to_vec();
        text.extend_from_slice(&self.0);
        text.extend_from_slice(principal.as_bytes());
        let Self(digest) = Self::of(&text);
        Stamp(digest.iter().take(8).fold(0, |stamp, &byte| (stamp << 8) | u64::from(byte)))
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_compared_and_not_shown() {
        let hex = "2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824";
        let digest = SecretDigest::from_hex(hex).unwrap();
        assert!(digest.matches(&SecretDigest::of(b"hello")));
        assert!(!digest.matches(&SecretDigest::of(b"hello ")));
        assert_eq!(format!("{digest:?}"), "[hidden]");
        for bad in ["", "zz", &hex[1..], &format!("{}é", &hex[2..]), &hex.replace('2', "+")] {
            assert_eq!(SecretDigest::from_hex(bad), Err(BadDigest), "{bad}");
        }
        assert_ne!(digest.stamp("a"), digest.stamp("b"));
    }
}
