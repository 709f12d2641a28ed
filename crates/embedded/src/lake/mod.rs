//! The embedded lake: an Iceberg REST catalog and its object store on one port, over a folder.
//!
//! The catalog (`http`, on `catalog`) keeps its tables in memory and their metadata files in the
//! store (`store`), where clients put theirs; paths below `/v1` are the catalog's, all others are S3
//! requests. `names` and `budget` are pure.
//!
//! Absent on purpose: authentication of the catalog, views, renames, and a memory of its tables after a
//! restart.

mod budget;
mod catalog;
mod http;
mod names;
mod refusal;
mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::future::IntoFuture;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::budget::Budget;
use self::catalog::Catalog;
use self::http::Shared;
use crate::EmbeddedError;

/// The bucket all tables lie in.
const BUCKET: &str = "lake";

/// Where the lake listens, where its files lie and how many bytes it takes.
#[derive(Clone)]
pub struct LakeConfig {
    /// Where to listen; port 0 takes a free one. Default 127.0.0.1:8181.
    pub listen: SocketAddr,
    /// The folder its files go to; it must exist, and is left behind.
    pub folder: PathBuf,
    /// The access key id that S3 requests are signed with. Default `lake`.
    pub access_key_id: String,
    /// Its secret; made anew at each start by default.
    pub secret_access_key: String,
    /// The region clients are told and sign for. Default `us-east-1`.
    pub region: String,
    /// Most bytes taken from the start to the end, what was deleted included. Default 4 GiB.
    pub max_bytes: u64,
}

impl LakeConfig {
    /// The defaults, with files below `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8181),
            folder,
            access_key_id: "lake".to_owned(),
            secret_access_key: uuid::Uuid::new_v4().simple().to_string(),
            region: "us-east-1".to_owned(),
            max_bytes: 4 << 30,
        }
    }
}

impl fmt::Debug for LakeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LakeConfig")
            .field("listen", &self.listen)
            .field("folder", &self.folder)
            .field("access_key_id", &self.access_key_id)
            .field("region", &self.region)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// A running lake. Dropping it stops it too, but [`EmbeddedLake::shutdown`] waits.
#[derive(Debug)]
pub struct EmbeddedLake {
    addr: SocketAddr,
    config: LakeConfig,
    stop: DropGuard,
    serving: JoinHandle<std::io::Result<()>>,
}

impl EmbeddedLake {
    /// Listens and serves until shut down.
    ///
    /// # Errors
    /// [`EmbeddedError::PortTaken`], [`EmbeddedError::Listen`], or [`EmbeddedError::Lake`] where the
    /// folder cannot be used.
    pub async fn start(config: LakeConfig) -> Result<Self, EmbeddedError> {
        let failed = |cause| EmbeddedError::bind("lake", config.listen, cause);
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let router = router(&config, addr)
            .map_err(|source| EmbeddedError::Lake { folder: config.folder.clone(), source })?;
        let stop = CancellationToken::new();
        // Answers are written in whole pieces already; waiting to fill packets only adds delay.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let server =
            axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = tokio::spawn(server.into_future());
        tracing::info!(
            %addr,
            "embedded lake listening: an Iceberg REST catalog and its object store, for trying out"
        );
        Ok(Self { addr, config, stop: stop.drop_guard(), serving })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URI of its catalog and the endpoint of its store, without a slash at the end.
    pub fn uri(&self) -> String {
        uri(self.addr)
    }

    /// The access key id that S3 requests are signed with.
    pub fn access_key_id(&self) -> &str {
        &self.config.access_key_id
    }

    /// The secret of that key.
    pub fn secret_access_key(&self) -> &str {
        &self.config.secret_access_key
    }

    /// The region S3 requests are signed for.
    pub fn region(&self) -> &str {
        &self.config.region
    }

    /// Stops listening. Connections that clients keep open idle are not waited for.
    pub async fn shutdown(self) {
        drop(self.stop);
        self.serving.abort();
        let _ = self.serving.await;
    }
}

fn uri(addr: SocketAddr) -> String {
    format!("http://{addr}")
}

fn router(config: &LakeConfig, addr: SocketAddr) -> std::io::Result<Router> {
    std::fs::create_dir_all(config.folder.join(BUCKET))?;
    let budget = Budget::new(config.max_bytes);
    let shared = Shared {
        catalog: Arc::new(Catalog::new(&config.folder, BUCKET, budget.clone())),
        vended: Arc::new(vended(config, addr)),
    };
    let (key, secret) = (&config.access_key_id, &config.secret_access_key);
    let store = store::service(&config.folder, key, secret, budget)?;
    let objects = move |request: Request| store::answer(store.clone(), request);
    Ok(Router::new().nest("/v1", http::router(shared)).fallback(objects))
}

/// The store's settings under the property names that clients' file readers know.
fn vended(config: &LakeConfig, addr: SocketAddr) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("client.region", config.region.clone()),
        ("s3.access-key-id", config.access_key_id.clone()),
        ("s3.endpoint", uri(addr)),
        ("s3.path-style-access", "true".to_owned()),
        ("s3.region", config.region.clone()),
        ("s3.secret-access-key", config.secret_access_key.clone()),
        // Some clients take vended keys only with one; the store does not look at it.
        ("s3.session-token", "none".to_owned()),
    ])
}
