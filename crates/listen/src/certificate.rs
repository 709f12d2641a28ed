//! Whose a client's certificate is. That it is signed by an authority that is trusted, TLS has seen to.

use std::fmt::Display;

use x509_cert::Certificate;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The names that a client's certificate has, as an access file writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// `subject:` and the subject by RFC 4514 (`CN=spark,OU=etl`), and the alternative names: `dns:`, `uri:` and
    /// `email:` with what follows.
    pub names: Vec<String>,
    /// Its last second, since 1970.
    pub not_after: u64,
}

impl ClientCertificate {
    /// Reads a certificate in DER.
    pub(crate) fn read(der: &[u8]) -> Result<Self, der::Error> {
        let certificate = Certificate::from_der(der)?;
        let certificate = certificate.tbs_certificate();
        let mut names = Vec::new();
        let mut add = |kind: &str, name: &dyn Display| names.push(format!("{kind}:{name}"));
        if !certificate.subject().is_empty() {
            add("subject", certificate.subject());
        }
        let alternative = certificate.get_extension::<SubjectAltName>()?;
        for name in alternative.iter().flat_map(|(_, names)| &names.0) {
            match name {
                GeneralName::DnsName(name) => add("dns", name),
                GeneralName::UniformResourceIdentifier(name) => add("uri", name),
                GeneralName::Rfc822Name(name) => add("email", name),
                // Nobody is known by these.
                _ => {}
            }
        }
        let not_after = certificate.validity().not_after.to_unix_duration().as_secs();
        Ok(Self { names, not_after })
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Subject `O=Example, Inc., CN=spark+x`, the names below, and `1.2.3.4`.
    const PEM: &[u8] = include_bytes!("certificate/client.pem");

    #[test]
    fn names_are_read_as_an_access_file_writes_them() {
        let der = CertificateDer::from_pem_slice(PEM).unwrap();
        let certificate = ClientCertificate::read(&der).unwrap();
        assert_eq!(
            certificate.names,
            [
                "subject:CN=spark\\+x,O=Example\\, Inc.",
                "dns:spark.example.com",
                "uri:spiffe://example/spark",
                "email:spark@example.com",
            ]
        );
        assert_eq!(certificate.not_after, 4_949_306_012);
        assert!(ClientCertificate::read(b"junk").is_err());
    }
}
