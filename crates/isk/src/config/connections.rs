//! TLS and the bounds of connections, as configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use isk_listen::{ConnectionLimits, TlsFiles};
use serde::Deserialize;

use super::{Config, Limits};

/// TLS on both ports. Without a certificate, they speak plain HTTP. All files are PEM, and are read again when they
/// change.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The certificate, and those that lead to its authority.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// The authorities of clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    /// Whether clients need one.
    pub client_certificate: Option<ClientCertificates>,
}

/// Whether clients need a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Who shows one is known by it.
    Optional,
    /// Nobody comes in without one.
    Required,
}

impl Tls {
    /// What clients write before the address.
    pub fn scheme(&self) -> &'static str {
        if self.cert_file.is_some() { "https" } else { "http" }
    }

    fn files(&self) -> Result<Option<TlsFiles>> {
        let (cert_file, key_file) = match (self.cert_file.clone(), self.key_file.clone()) {
            (Some(cert_file), Some(key_file)) => (cert_file, key_file),
            (None, None) if self.client_ca_file.is_none() && self.client_certificate.is_none() => {
                return Ok(None);
            }
            _ => bail!(
                "configuration section [tls]: cert_file (ISK_TLS_CERT_FILE) and key_file (ISK_TLS_KEY_FILE) go \
                 together, and client certificates need both"
            ),
        };
        if self.client_certificate.is_some() && self.client_ca_file.is_none() {
            bail!(
                "configuration key \"tls.client_certificate\" (ISK_TLS_CLIENT_CERTIFICATE) needs the authorities of \
                 clients' certificates: tls.client_ca_file (ISK_TLS_CLIENT_CA_FILE)"
            );
        }
        Ok(Some(TlsFiles {
            cert_file,
            key_file,
            client_ca_file: self.client_ca_file.clone(),
            require_client_certificate: self.client_certificate
                == Some(ClientCertificates::Required),
        }))
    }
}

/// What is wrong with the settings, before anything starts.
pub fn check(config: &Config) -> Result<()> {
    config.tls.files()?;
    let limits = &config.limits;
    for (key, value) in [
        ("connections", limits.connections as u64),
        ("head_seconds", limits.head_seconds),
        ("idle_seconds", limits.idle_seconds),
        ("body_stall_seconds", limits.body_stall_seconds),
        ("reader_stall_seconds", limits.reader_stall_seconds),
    ] {
        if value == 0 {
            bail!("configuration key \"limits.{key}\" must be at least 1");
        }
    }
    // Session tokens of vended keys have up to 16 KiB.
    if !(20 << 10..=256 << 10).contains(&limits.head_bytes) {
        bail!("configuration key \"limits.head_bytes\" must be between 20480 and 262144");
    }
    Ok(())
}

/// The certificate that both ports serve with, where they speak TLS. Reads its files.
pub fn tls(config: &Config) -> Result<Option<Arc<isk_listen::Tls>>> {
    let files = config.tls.files()?;
    files.map(isk_listen::Tls::open).transpose().context("configuration section [tls]")
}

/// The bounds of one port's connections.
pub fn limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits {
        connections: limits.connections,
        head_bytes: limits.head_bytes,
        head: Duration::from_secs(limits.head_seconds),
        idle: Duration::from_secs(limits.idle_seconds),
        body_stall: Duration::from_secs(limits.body_stall_seconds),
        reader_stall: Duration::from_secs(limits.reader_stall_seconds),
    }
}
