//! What can go wrong when the embedded services are started or filled.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an embedded service could not be started, or refused what it was given in-process.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Somebody else listens there: choose another port.
    #[error(
        "port {port} on {ip} is taken; the embedded {service} wants it. Stop what listens there \
         (`ss -ltnp | grep {port}` names it) or choose another port for the {service}; port 0 takes any free one",
        port = .addr.port(), ip = .addr.ip()
    )]
    PortTaken {
        /// What the port is for, e.g. `Kafka broker`.
        service: &'static str,
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The address cannot be listened on for another reason (no such interface, no permission).
    #[error("the embedded {service} cannot listen on {addr}: {source}")]
    Listen {
        /// What the address is for.
        service: &'static str,
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The broker refused a topic or an append; the text names the topic and why.
    #[error("the embedded Kafka broker refused: {0}")]
    Broker(String),
    /// The registry refused a schema; the text names the subject and why.
    #[error("the embedded schema registry refused: {0}")]
    Registry(String),
    /// The lake cannot keep its files where it was told to.
    #[error("the embedded lake cannot use the folder {folder}: {source}", folder = .folder.display())]
    Lake {
        /// The folder it was given.
        folder: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl EmbeddedError {
    /// Classes a failed bind.
    pub(crate) fn bind(service: &'static str, addr: SocketAddr, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::AddrInUse {
            Self::PortTaken { service, addr }
        } else {
            Self::Listen { service, addr, source }
        }
    }
}
