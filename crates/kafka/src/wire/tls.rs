//! TLS to brokers, as librdkafka's own properties ask for it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What is read here. Keys with a password, key stores, lists of revoked certificates and ciphers are librdkafka's.
const UNDERSTOOD: [&str; 6] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
];
/// What is understood with this value only: the default.
const AS_EVER: [(&str, &str); 2] = [
    ("ssl.endpoint.identification.algorithm", "https"),
    ("enable.ssl.certificate.verification", "true"),
];

/// Whom we believe, and who we are.
#[derive(Clone)]
pub(crate) struct Encryption(Arc<ClientConfig>);

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encryption")
    }
}

impl Encryption {
    /// Whether a property means here what it means to librdkafka.
    pub(crate) fn understands(key: &str, value: &str) -> bool {
        UNDERSTOOD.contains(&key) || AS_EVER.contains(&(key, value))
    }

    /// `Err` names the property that only librdkafka may make something of.
    pub(crate) fn of(properties: &BTreeMap<String, String>) -> Result<Self, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| "security.protocol".to_owned())?
            .with_root_certificates(authorities(properties)?);
        let certificate = certificates(properties, "ssl.certificate");
        let certificate = certificate.map_err(|wrong| wrong.property)?.map(|(_, found)| found);
        let key = match (properties.get("ssl.key.pem"), properties.get("ssl.key.location")) {
            (Some(text), _) => Some(
                PrivateKeyDer::from_pem_slice(text.as_bytes())
                    .map_err(|_| "ssl.key.pem".to_owned())?,
            ),
            (None, Some(path)) => Some(
                PrivateKeyDer::from_pem_file(path).map_err(|_| "ssl.key.location".to_owned())?,
            ),
            (None, None) => None,
        };
        let config = match (certificate, key) {
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificate, key)
                .map_err(|_| "ssl.key.location".to_owned())?,
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err("ssl.certificate.location".into()),
            (None, Some(_)) => return Err("ssl.key.location".into()),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands on a socket whose reads time out now and then.
    pub(crate) fn around(
        &self,
        mut socket: TcpStream,
        host: &str,
        timeout: Duration,
    ) -> io::Result<Stream> {
        let begun = Instant::now();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "the host's name is none"))?;
        let mut session =
            ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            match session.complete_io(&mut socket) {
                Ok(_) => {}
                Err(e) if is_pause(&e) && begun.elapsed() < timeout => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Stream::Tls(Box::new(StreamOwned::new(session, socket))))
    }
}

/// The authorities that are named, or the system's.
fn authorities(properties: &BTreeMap<String, String>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let named = certificates(properties, "ssl.ca").map_err(|wrong| wrong.property)?;
    let (property, certificates) = named.unwrap_or_else(|| {
        ("security.protocol".to_owned(), rustls_native_certs::load_native_certs().certs)
    });
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(property) } else { Ok(roots) }
}

/// Certificates, and the property that they come from.
pub(crate) type Named = (String, Vec<CertificateDer<'static>>);

/// A property that holds no certificates, and why it does not.
pub(crate) struct NoCertificates {
    pub(crate) property: String,
    pub(crate) reason: String,
}

/// Certificates in PEM, from the property itself or the file that is named.
pub(crate) fn certificates(
    properties: &BTreeMap<String, String>,
    what: &str,
) -> Result<Option<Named>, NoCertificates> {
    let (text, location) = (format!("{what}.pem"), format!("{what}.location"));
    let (read, property) = match (properties.get(&text), properties.get(&location)) {
        (Some(pem), _) => {
            (CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>(), text)
        }
        // A folder of certificates is librdkafka's.
        (None, Some(path)) => {
            (CertificateDer::pem_file_iter(path).and_then(Iterator::collect), location)
        }
        (None, None) => return Ok(None),
    };
    match read {
        Ok(found) if !found.is_empty() => Ok(Some((property, found))),
        Ok(_) => Err(NoCertificates { property, reason: "there is none in it".into() }),
        Err(error) => Err(NoCertificates { property, reason: error.to_string() }),
    }
}

/// Whether a read or write only took too long, and may be tried again.
pub(crate) fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Whether the two sides did not come to terms about TLS.
pub(crate) fn is_about_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

/// The bytes of a connection, encrypted or not.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
