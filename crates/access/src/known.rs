//! What is known of callers at a moment, and the files that say so, which are read again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::answers::{GrantError, Granted};
use crate::book::Book;
use crate::credentials::CredentialsFile;
use crate::file::{AccessFile, FileError};
use crate::oidc::Oidc;
use crate::principal::{Caller, Source};
use crate::secret::SecretDigest;
use crate::signers::{Signers, SigningKeyFile};

/// Who comes in, where anybody is told apart.
pub(crate) struct Known {
    pub book: RwLock<Arc<Book>>,
    pub outside: Book,
    pub file: Option<AccessFile>,
    pub oidc: Option<Arc<Oidc>>,
    pub clients: Option<CredentialsFile>,
    pub signing: Option<SigningKeyFile>,
    pub signers: RwLock<Arc<Signers>>,
    /// The signing keys' file as it was when it was taken.
    pub signed: Mutex<Option<SecretDigest>>,
    pub token_lifetime: u64,
    pub key_lifetime: u64,
    pub clock: fn() -> u64,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("file", &self.file).field("oidc", &self.oidc).finish()
    }
}

impl Known {
    pub(crate) fn now(&self) -> u64 {
        (self.clock)()
    }

    pub(crate) fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn signers(&self) -> Arc<Signers> {
        Arc::clone(&self.signers.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn has_files(&self) -> bool {
        self.file.is_some() || self.clients.is_some() || self.signing.is_some()
    }

    /// The principals of the files and those outside of them, and the access file's rules.
    pub(crate) fn read(&self) -> Result<Book, FileError> {
        let mut book = match &self.file {
            Some(file) => file.read()?,
            None => Book { principals: Vec::new(), rules: self.outside.rules.clone() },
        };
        let clients = self.clients.as_ref().map(CredentialsFile::read).transpose()?;
        // A name that the access file has too is that one's; one of the clients' file, before the configuration's.
        let outside = self.outside.principals.iter().cloned();
        for one in clients.unwrap_or_default().into_iter().chain(outside) {
            if !book.has(&one.name) {
                book.principals.push(one);
            }
        }
        Ok(book)
    }

    pub(crate) fn take_signing_keys(&self) -> Result<(), FileError> {
        let Some(file) = &self.signing else { return Ok(()) };
        let (text, first, others) = file.read()?;
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if signed.as_ref() != Some(&text) {
            if signed.is_some() {
                tracing::info!(accepted = others.len() + 1, "the signing keys have changed");
            }
            let signers = Arc::new(Signers::new(&first, &others));
            *self.signers.write().unwrap_or_else(PoisonError::into_inner) = signers;
            *signed = Some(text);
        }
        Ok(())
    }

    pub(crate) fn take(&self, book: Book) {
        if *self.book() != book {
            tracing::info!(
                principals = book.principals.len(),
                "the access file has changed and holds from now on"
            );
            *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
        }
    }

    pub(crate) fn grant(&self, caller: &Caller) -> Result<Granted, GrantError> {
        let Source::Configured(stamp) = caller.source else {
            return Err(GrantError::InvalidClient);
        };
        let (now, expires_in) = (self.now(), self.token_lifetime);
        let token = self.signers().sign(&caller.name, stamp, now, now + expires_in);
        Ok(Granted { token: token.map_err(|_| GrantError::Unsigned)?, expires_in })
    }
}
