//! Serving the catalog on a listener.

use std::future::Future;

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper_util::service::TowerToHyperService;
use isk_listen::{Port, Served};
use tokio::net::TcpListener;

use crate::error::ApiError;

/// Serves until `shutdown` ends, then lets the answers under way finish for at most ten seconds.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    port: Port,
    shutdown: impl Future<Output = ()>,
) {
    let service = TowerToHyperService::new(router);
    isk_listen::serve(listener, port, Served { name: "catalog", service, busy }, shutdown).await;
}

fn busy() -> Response {
    ApiError::too_many_connections().into_response()
}
