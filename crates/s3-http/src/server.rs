//! Serving the gateway on a listener.

use std::future::Future;

use http::{HeaderValue, Response, StatusCode, header};
use isk_listen::{Port, Served};
use s3s::Body;
use tokio::net::TcpListener;

use crate::gateway::Gateway;

/// What the error says, as the protocol writes it.
const TOO_MANY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>SlowDown</Code>\
     <Message>there are too many connections (limits.connections); try again</Message></Error>";

/// Serves until `shutdown` ends, then lets the answers under way finish for at most ten seconds.
pub async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    port: Port,
    shutdown: impl Future<Output = ()>,
) {
    let served = Served { name: "gateway", service: gateway, busy };
    isk_listen::serve(listener, port, served, shutdown).await;
}

fn busy() -> Response<Body> {
    let mut answer = Response::new(Body::from(TOO_MANY.to_owned()));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}
