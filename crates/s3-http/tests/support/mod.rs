//! A gateway over made-up objects, served over real HTTP, and a client that signs.

// Each test binary uses its own part of this.
#![allow(dead_code, clippy::unwrap_used)]

pub mod memory;
pub mod signer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use isk_access::Access;
use isk_listen::Port;
use isk_outbound::Authorities;
use isk_s3_http::{ColdBuckets, GatewayCredentials, GatewaySettings, gateway, serve};
use memory::Memory;
use signer::{Signer, UNSIGNED};
use tokio::sync::oneshot;

/// The settings of the tests and the example.
pub fn settings() -> GatewaySettings {
    GatewaySettings {
        external_hostname: "isk.test".into(),
        region: "us-east-1".into(),
        credentials: GatewayCredentials {
            access_key_id: "isk-id".into(),
            secret_access_key: "isk-secret".into(),
            session_token: "isk-token".into(),
        },
        access: Access::open(0),
    }
}

/// A running gateway.
pub struct Running {
    pub address: SocketAddr,
    pub memory: Arc<Memory>,
    pub client: reqwest::Client,
    pub stop: oneshot::Sender<()>,
    pub ended: tokio::task::JoinHandle<()>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The error code of an XML answer; empty where there is none.
    pub fn code(&self) -> String {
        self.element("Code")
    }

    /// The text of the first element of this name; empty where there is none.
    pub fn element(&self, name: &str) -> String {
        self.elements(name).into_iter().next().unwrap_or_default()
    }

    /// The texts of all elements of this name.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        text.split(&open)
            .skip(1)
            .filter_map(|rest| rest.split(&close).next().map(str::to_owned))
            .collect()
    }

    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Running {
    /// Serves the samples on a free port.
    pub async fn start() -> Self {
        Self::over(memory::samples(), None).await
    }

    /// Serves these objects, and the buckets of a store.
    pub async fn over(memory: Memory, cold: Option<ColdBuckets>) -> Self {
        Self::guarded(memory, cold, Access::open(0)).await
    }

    /// The same, for whom `access` lets in.
    pub async fn guarded(memory: Memory, cold: Option<ColdBuckets>, access: Access) -> Self {
        let memory = Arc::new(memory);
        let settings = GatewaySettings { access, ..settings() };
        let service = gateway(Arc::clone(&memory), &settings, cold).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(serve(listener, service, Port::default(), async move {
            let _ = stopped.await;
        }));
        Self {
            address,
            memory,
            client: Authorities::new(None).unwrap().client().unwrap().build().unwrap(),
            stop,
            ended,
        }
    }

    /// A signer with the right keys and the right time.
    pub fn signer(&self) -> Signer {
        Signer {
            access_key_id: "isk-id".into(),
            secret: "isk-secret".into(),
            token: None,
            time: SystemTime::now(),
            payload: UNSIGNED,
        }
    }

    /// A signed request; `target` is path and query as they stand in the request line.
    pub fn request(
        &self,
        signer: &Signer,
        method: &str,
        target: &str,
        extra: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        let host = extra.iter().find(|(name, _)| *name == "host").map(|(_, host)| *host);
        let host = host.map_or_else(|| self.address.to_string(), str::to_owned);
        let extra: Vec<_> = extra.iter().copied().filter(|(name, _)| *name != "host").collect();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers = signer.headers(method, &host, path, query, &extra);
        self.unsigned(method, target, headers)
    }

    /// A request as it is.
    pub fn unsigned(
        &self,
        method: &str,
        target: &str,
        headers: Vec<(String, String)>,
    ) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.client.request(method, format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request
    }

    /// Sends a signed request with the right keys.
    pub async fn ask(&self, method: &str, target: &str, extra: &[(&str, &str)]) -> Answer {
        send(self.request(&self.signer(), method, target, extra)).await
    }
}

/// Sends a request and reads the answer.
pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}
