//! TLS: the certificate, its key, and whose certificates clients may show, from files that are read again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::certificate::ClientCertificate;
use crate::limits::count;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Where the files are, all of them PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, and those that lead to its authority.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authorities of clients' certificates; without it, clients are asked for none.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub require_client_certificate: bool,
}

/// The files are not what they should be. Shows nothing of what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, String),
    /// One has not what it should have.
    #[error("{0} has no {1} in PEM")]
    Nothing(String, &'static str),
    /// They do not go together.
    #[error("{certificate} and {key} cannot be used: {reason}")]
    Unusable {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The clients' authorities cannot be used.
    #[error("{0}: {1}")]
    Authorities(String, String),
}

/// What was in the files.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

/// What is served with.
pub struct Tls {
    files: TlsFiles,
    seen: Mutex<Contents>,
    config: RwLock<Arc<ServerConfig>>,
    not_after: AtomicU64,
    errors: AtomicU64,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let contents = files.read()?;
        let (config, not_after) = files.config(&contents)?;
        Ok(Arc::new(Self {
            files,
            seen: Mutex::new(contents),
            config: RwLock::new(Arc::new(config)),
            not_after: AtomicU64::new(not_after),
            errors: AtomicU64::new(0),
        }))
    }

    /// What new connections are accepted with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&config))
    }

    /// Looks at the files again, from time to time, until the task is dropped. Files that cannot be used change
    /// nothing; connections that are there stay as they are.
    pub async fn watch_forever(self: Arc<Self>) {
        let mut last_error = None;
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || tls.look()).await {
                Ok(Ok(())) => last_error = None,
                Ok(Err(error)) => {
                    count(&self.errors);
                    if last_error.as_ref() != Some(&error) {
                        tracing::error!(
                            %error,
                            "the certificate's files are not taken; what they said before holds"
                        );
                        last_error = Some(error);
                    }
                }
                Err(error) => tracing::warn!(%error, "the certificate's files cannot be looked at"),
            }
        }
    }

    fn look(&self) -> Result<(), TlsError> {
        let contents = self.files.read()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == contents {
            return Ok(());
        }
        let (config, not_after) = self.files.config(&contents)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.not_after.store(not_after, Ordering::Relaxed);
        *seen = contents;
        tracing::info!("the certificate's files have changed and hold for new connections");
        Ok(())
    }

    /// Gauges and counters in the Prometheus text format; without TLS, zeros.
    pub fn metrics_text(tls: Option<&Self>) -> String {
        let of = |counter: fn(&Self) -> &AtomicU64| {
            tls.map_or(0, |tls| counter(tls).load(Ordering::Relaxed))
        };
        format!(
            "# HELP isk_tls_not_after_seconds When the certificate in use ends, in seconds since 1970.\n\
             # TYPE isk_tls_not_after_seconds gauge\n\
             isk_tls_not_after_seconds {}\n\
             # HELP isk_tls_file_errors_total Looks at certificate files that could not be taken.\n\
             # TYPE isk_tls_file_errors_total counter\n\
             isk_tls_file_errors_total {}\n",
            of(|tls| &tls.not_after),
            of(|tls| &tls.errors)
        )
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|e| TlsError::Unreadable(path.display().to_string(), e.to_string()))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let nothing = || TlsError::Nothing(path.display().to_string(), "certificate");
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(nothing)
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            certificate: read(&self.cert_file)?,
            key: read(&self.key_file)?,
            authorities: self.client_ca_file.as_deref().map(read).transpose()?,
        })
    }

    /// What is served with, and when the certificate ends.
    fn config(&self, contents: &Contents) -> Result<(ServerConfig, u64), TlsError> {
        let unusable = |error: &dyn fmt::Display| TlsError::Unusable {
            certificate: self.cert_file.display().to_string(),
            key: self.key_file.display().to_string(),
            reason: error.to_string(),
        };
        let chain = certificates(&self.cert_file, &contents.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key);
        let nothing = || TlsError::Nothing(self.key_file.display().to_string(), "private key");
        let key = key.map_err(|_| nothing())?;
        let own = chain.first().map(|der| ClientCertificate::read(der)).transpose();
        let not_after = own.map_err(|e| unusable(&e))?.map_or(0, |own| own.not_after);
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(&e))?;
        let builder = match (&self.client_ca_file, &contents.authorities) {
            (Some(path), Some(pem)) => {
                let failed = |error: &dyn fmt::Display| {
                    TlsError::Authorities(path.display().to_string(), error.to_string())
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, pem)? {
                    roots.add(certificate).map_err(|e| failed(&e))?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match self.require_client_certificate {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| failed(&e))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| unusable(&e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok((config, not_after))
    }
}
