//! Serving on a listener.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::body::WatchedBody;
use crate::certificate::ClientCertificate;
use crate::exchange::{ClientAddress, Exchange, OfConnection};
use crate::limits::{ConnectionLimits, Counters, count};
use crate::stream::Watched;
use crate::tls::Tls;

/// How long answers under way may go on after the shutdown was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait when the process can open no more connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections beyond the bound are told so at a time; the others are closed at once.
const REFUSED_AT_ONCE: usize = 64;

/// How long one of those may take to ask.
const REFUSED_HEAD: Duration = Duration::from_secs(2);

/// What holds of one port's connections.
#[derive(Debug, Clone, Default)]
pub struct Port {
    /// Their bounds.
    pub limits: ConnectionLimits,
    /// The certificate, where the port speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Where they are counted.
    pub counters: Arc<Counters>,
}

/// A service, and what is told to connections beyond the bound.
pub struct Served<S, B> {
    /// What it is called in the log.
    pub name: &'static str,
    /// The service.
    pub service: S,
    /// The answer where there are too many connections.
    pub busy: fn() -> Response<B>,
}

/// A connection that is counted until it is dropped.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: &Arc<Counters>) -> Self {
        count(&counters.open);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves until `shutdown` ends, then lets the answers under way finish for at most ten seconds.
pub async fn serve<S, B>(
    listener: TcpListener,
    port: Port,
    served: Served<S, B>,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<WatchedBody>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(port.limits.connections.min(Semaphore::MAX_PERMITS)));
    let refusals = Arc::new(Semaphore::new(REFUSED_AT_ONCE));
    let limits = Arc::new(port.limits);
    let hurried = Arc::new(ConnectionLimits { head: REFUSED_HEAD, ..(*limits).clone() });
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("{} cannot accept a connection: {error}", served.name);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (place, is_one_too_many) = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => (place, false),
            Err(_) => {
                count(&port.counters.refused);
                match Arc::clone(&refusals).try_acquire_owned() {
                    Ok(place) => (place, true),
                    Err(_) => continue,
                }
            }
        };
        let connection = Connection {
            name: served.name,
            peer: ClientAddress(peer),
            limits: Arc::clone(if is_one_too_many { &hurried } else { &limits }),
            tls: port.tls.clone(),
            counters: Arc::clone(&port.counters),
            busy: is_one_too_many.then_some(served.busy),
            watcher: connections.watcher(),
        };
        let service = served.service.clone();
        let open = Open::new(&port.counters);
        tokio::spawn(async move {
            connection.run(stream, service).await;
            drop((open, place));
        });
    }
    drop(listener);
    if timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("{} stopped with answers still under way", served.name);
    }
}

/// Serves one connection over a stream that is there already, without TLS, until either side ends it.
pub async fn serve_stream<S, B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    port: Port,
    service: S,
) where
    S: Service<Request<WatchedBody>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    // Dropped at the end: to a watcher it would be the shutdown.
    let connections = GracefulShutdown::new();
    let connection = Connection {
        name: "a stream",
        peer: ClientAddress(peer),
        limits: Arc::new(port.limits),
        tls: None,
        counters: port.counters,
        busy: None,
        watcher: connections.watcher(),
    };
    connection.http(stream, service, None).await;
}

struct Connection<B> {
    name: &'static str,
    peer: ClientAddress,
    limits: Arc<ConnectionLimits>,
    tls: Option<Arc<Tls>>,
    counters: Arc<Counters>,
    busy: Option<fn() -> Response<B>>,
    watcher: Watcher,
}

impl<B> Connection<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    async fn run<S>(self, stream: TcpStream, service: S)
    where
        S: Service<Request<WatchedBody>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        // Answers are written in whole pieces already; waiting to fill packets only adds delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("{}: a connection without nodelay: {error}", self.name);
        }
        let Some(tls) = &self.tls else { return self.http(stream, service, None).await };
        let stream = match timeout(self.limits.head, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => stream,
            failed => {
                count(&self.counters.handshakes);
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "it took too long".to_owned(),
                };
                return tracing::debug!("{}: a TLS handshake failed: {why}", self.name);
            }
        };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = match shown.map(|der| ClientCertificate::read(der)).transpose() {
            Ok(certificate) => certificate.map(Arc::new),
            Err(error) => {
                return tracing::debug!("{}: a client's certificate: {error}", self.name);
            }
        };
        self.http(stream, service, certificate).await;
    }

    async fn http<S>(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        service: S,
        certificate: Option<Arc<ClientCertificate>>,
    ) where
        S: Service<Request<WatchedBody>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        let exchange = Arc::<Exchange>::default();
        let body_stall = self.limits.body_stall;
        let stream = Watched::new(stream, Arc::clone(&exchange), self.limits, self.counters);
        let (peer, busy) = (self.peer, self.busy);
        let service = OfConnection { service, exchange, peer, certificate, body_stall, busy };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // The stream knows better what it waits for.
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = self.watcher.watch(connection).await {
            // Clients that stop reading a file early end here, and that is their right.
            tracing::debug!("{}: a connection ended: {error}", self.name);
        }
    }
}
