//! The embedded schema registry: the part of Confluent's API that serializers and ISK use.
//!
//! Schemas are checked for syntax, not for meaning. Compatibility is `NONE`: other levels can be
//! set and read back, and are not enforced.

mod http;
mod store;

use std::future::IntoFuture;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use isk_model::RegistrySchemaId;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::http::Shared;
use self::store::Schema;
use crate::EmbeddedError;

/// Where the registry listens.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where to listen; port 0 takes a free one. Default 127.0.0.1:8081.
    pub listen: SocketAddr,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081) }
    }
}

/// A running registry. Dropping it stops it too, but [`EmbeddedRegistry::shutdown`] waits.
#[derive(Debug)]
pub struct EmbeddedRegistry {
    addr: SocketAddr,
    store: Shared,
    stop: DropGuard,
    serving: JoinHandle<std::io::Result<()>>,
}

impl EmbeddedRegistry {
    /// Listens and serves until shut down.
    ///
    /// # Errors
    /// [`EmbeddedError::PortTaken`] or [`EmbeddedError::Listen`].
    pub async fn start(config: RegistryConfig) -> Result<Self, EmbeddedError> {
        let failed = |cause| EmbeddedError::bind("schema registry", config.listen, cause);
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let store = Shared::default();
        let stop = CancellationToken::new();
        let server = axum::serve(listener, http::router(store.clone()))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = tokio::spawn(server.into_future());
        tracing::info!(
            %addr,
            "embedded schema registry listening: for trying out, in memory, compatibility NONE"
        );
        Ok(Self { addr, store, stop: stop.drop_guard(), serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL (`schema.registry.url`), without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Registers an Avro schema under a subject, as `POST /subjects/{subject}/versions` does.
    ///
    /// # Errors
    /// [`EmbeddedError::Registry`] when the text is no Avro schema.
    pub fn register(
        &self,
        subject: &str,
        avro_schema: &str,
    ) -> Result<RegistrySchemaId, EmbeddedError> {
        match self.store.lock().register(subject, Schema::avro(avro_schema)) {
            Ok(id) => Ok(RegistrySchemaId(id)),
            Err(refused) => Err(EmbeddedError::Registry(format!("{subject}: {}", refused.message))),
        }
    }

    /// Stops listening. Connections that clients keep open idle are not waited for.
    pub async fn shutdown(self) {
        drop(self.stop);
        self.serving.abort();
        let _ = self.serving.await;
    }
}
