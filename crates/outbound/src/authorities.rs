//! Whom HTTP clients trust, and with which cryptography.
//!
//! They trust the system's authorities (those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, where these are set), and those
//! that are configured for what they ask. All cryptography is `ring`'s.

use std::sync::Once;

use reqwest::{Certificate, ClientBuilder};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_native_certs::load_native_certs;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum NoClient {
    /// The text of configured certificates is damaged.
    #[error("it is no PEM: {0}")]
    NoPem(String),
    /// There is nothing in it.
    #[error("it holds no PEM certificate")]
    NoCertificate,
    /// A certificate can be nobody's authority; the first is 1.
    #[error("certificate {0} cannot be used: {1}")]
    BadCertificate(usize, String),
    /// The library refuses.
    #[error(transparent)]
    Refused(#[from] reqwest::Error),
}

/// Whom clients trust.
#[derive(Debug, Clone)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// The system's, and those of a PEM text. Reads the system's; those that cannot be read are left out, and the log
    /// says so once.
    ///
    /// # Errors
    /// What is wrong with the PEM text.
    pub fn new(pem: Option<&[u8]>) -> Result<Self, NoClient> {
        has_cryptography();
        let found = load_native_certs();
        let mut trusted = found.certs;
        trusted.retain(|certificate| check(certificate).is_ok());
        tell_once(&found.errors, trusted.len());
        if let Some(pem) = pem {
            let named = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let named = named.map_err(|error| NoClient::NoPem(error.to_string()))?;
            trusted.extend(Self::only(named)?.0);
        }
        Ok(Self(trusted))
    }

    /// These, and not the system's.
    ///
    /// # Errors
    /// Where there is none, or one that can be nobody's authority.
    pub fn only(named: Vec<CertificateDer<'static>>) -> Result<Self, NoClient> {
        has_cryptography();
        if named.is_empty() {
            return Err(NoClient::NoCertificate);
        }
        for (index, certificate) in named.iter().enumerate() {
            check(certificate)
                .map_err(|error| NoClient::BadCertificate(index + 1, error.to_string()))?;
        }
        Ok(Self(named))
    }

    /// Their certificates, in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Clients that trust these and nobody else.
    ///
    /// # Errors
    /// [`NoClient::Refused`].
    pub fn client(&self) -> Result<ClientBuilder, NoClient> {
        let trusted = self.certificates().map(Certificate::from_der).collect::<Result<Vec<_>, _>>();
        Ok(ClientBuilder::new().tls_certs_only(trusted?))
    }
}

/// Without a provider, clients (those that other libraries make for these authorities, too) have no cryptography. It fails
/// where it is done.
fn has_cryptography() {
    let _ = default_provider().install_default();
}

/// Says what is wrong with the system's authorities, of which so many are trusted: once, as clients are made often, and not
/// before there is a log that takes it.
fn tell_once(errors: &[rustls_native_certs::Error], trusted: usize) {
    static TOLD: Once = Once::new();
    let Some(reason) = trouble(errors, trusted) else { return };
    if tracing::enabled!(tracing::Level::WARN) {
        TOLD.call_once(|| {
            tracing::warn!(
                trusted,
                reason,
                "not all of the system's certificate authorities are known here, and TLS with those whom they vouch for \
                 fails; check SSL_CERT_FILE and SSL_CERT_DIR where they are set, else install the system's certificates"
            );
        });
    }
}

fn trouble(errors: &[rustls_native_certs::Error], trusted: usize) -> Option<String> {
    match errors {
        [] if trusted == 0 => Some("there are none".to_owned()),
        [] => None,
        [only] => Some(only.to_string()),
        [first, more @ ..] => Some(format!("{first}, and {} more", more.len())),
    }
}

fn check(certificate: &CertificateDer<'static>) -> Result<(), rustls::Error> {
    RootCertStore::empty().add(certificate.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_told_apart() {
        let refused = |pem: &str| Authorities::new(Some(pem.as_bytes())).unwrap_err();
        assert!(matches!(refused(""), NoClient::NoCertificate));
        assert!(matches!(refused("certificates"), NoClient::NoCertificate));
        let begun = "-----BEGIN CERTIFICATE-----\nMAAA\n";
        assert!(matches!(refused(begun), NoClient::NoPem(_)));
        let empty = format!("{begun}-----END CERTIFICATE-----\n");
        assert!(matches!(refused(&empty), NoClient::BadCertificate(1, _)));
    }

    #[test]
    fn what_is_wrong_with_the_systems_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| {
            let path = folder.path().join(name);
            let found = rustls_native_certs::load_certs_from_paths(Some(&path), None);
            trouble(&found.errors, found.certs.len())
        };
        assert!(read("missing").unwrap().contains("missing"));
        std::fs::write(folder.path().join("other"), "no certificate").unwrap();
        assert_eq!(read("other").unwrap(), "there are none");
        let begun = "-----BEGIN CERTIFICATE-----\nMAAA\n";
        std::fs::write(folder.path().join("cut"), begun).unwrap();
        assert!(read("cut").unwrap().contains("PEM"));
        std::fs::write(folder.path().join("whole"), format!("{begun}-----END CERTIFICATE-----\n"))
            .unwrap();
        assert!(read("whole").is_none());
    }

    #[test]
    fn clients_need_nothing_but_authorities() {
        Authorities::new(None).unwrap().client().unwrap().build().unwrap();
    }
}
