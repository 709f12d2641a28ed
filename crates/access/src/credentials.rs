//! OAuth2 clients as `id:secret`, for set-ups without an access file.

use std::path::PathBuf;

use crate::book::ConfiguredPrincipal;
use crate::file::FileError;
use crate::secret::SecretDigest;
use crate::signers::read;

/// A client is not of the form `id:secret`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("one is not of the form id:secret")]
pub struct BadCredential;

/// The clients of a text, one a line. Several lines of one id are its several secrets.
///
/// # Errors
/// [`BadCredential`], which shows none.
pub fn credentials(text: &str) -> Result<Vec<ConfiguredPrincipal>, BadCredential> {
    let mut principals: Vec<ConfiguredPrincipal> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (id, secret) = line
            .split_once(':')
            .filter(|(id, secret)| !id.is_empty() && !secret.is_empty())
            .ok_or(BadCredential)?;
        let secret = SecretDigest::of(secret.as_bytes());
        match principals.iter_mut().find(|known| known.name == id) {
            Some(known) => known.secrets.push(secret),
            None => principals.push(ConfiguredPrincipal {
                name: id.to_owned(),
                secrets: vec![secret],
                ..ConfiguredPrincipal::default()
            }),
        }
    }
    Ok(principals)
}

/// A file of clients, read anew each time.
#[derive(Debug, Clone)]
pub(crate) struct CredentialsFile(pub PathBuf);

impl CredentialsFile {
    pub(crate) fn read(&self) -> Result<Vec<ConfiguredPrincipal>, FileError> {
        credentials(&read(&self.0)?).map_err(|error| FileError::new(&self.0, error.to_string()))
    }
}
