//! The signing key that replicas share, and the keys that are made of it for one purpose each.

use std::fmt;

use ring::hmac;

/// The fewest bytes of a signing key.
const MIN_BYTES: usize = 32;

/// The signing key is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the signing key has {0} characters and needs {MIN_BYTES}: make one with `openssl rand -hex 32`"
)]
pub struct WeakKey(usize);

/// What tokens and vended keys are signed with.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// Takes the text of a key, blanks around it left out.
    ///
    /// # Errors
    /// Where it is shorter than 32 characters.
    pub fn new(text: &str) -> Result<Self, WeakKey> {
        let text = text.trim();
        if text.len() < MIN_BYTES {
            return Err(WeakKey(text.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }

    /// The bytes of the key for one purpose.
    pub(crate) fn bytes_for(&self, purpose: &str) -> Vec<u8> {
        hmac::sign(&self.0, purpose.as_bytes()).as_ref().to_vec()
    }

    /// The key for one purpose.
    pub(crate) fn key_for(&self, purpose: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.bytes_for(purpose))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([hidden])")
    }
}
