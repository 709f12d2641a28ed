//! Serving the gateway on a listener.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::gateway::Gateway;

/// How long a connection may take to send a request's head, its idle time before included. Longer
/// than clients keep idle connections, so that it is them who close.
const HEAD_TIMEOUT: Duration = Duration::from_secs(600);

/// How long answers under way may go on after the shutdown was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait when the process can open no more connections.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` ends, then lets the answers under way finish for at most ten seconds.
pub async fn serve(listener: TcpListener, gateway: Gateway, shutdown: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("gateway cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are written in whole pieces already; waiting to fill packets only adds delay.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("gateway connection without nodelay: {error}");
        }
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), gateway.clone());
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Clients that stop reading a file early end here, and that is their right.
                tracing::debug!("gateway connection ended: {error}");
            }
        });
    }
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!("gateway stopped with answers still under way");
    }
}
