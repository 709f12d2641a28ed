//! A small HTTP server whose answers a test scripts, and which remembers what it was asked.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use bytes::Bytes;
use tokio::task::JoinHandle;

/// One request as it arrived.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub struct Asked {
    pub method: Method,
    /// Path and query, raw.
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[allow(dead_code)]
impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
}

pub type Answer = Response<Body>;
type Script = dyn Fn(&Asked, usize) -> Answer + Send + Sync;

struct Shared {
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
}

/// The server, on a port of its own; gone when dropped.
pub struct Stub {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stub {
    /// `script` answers a request, of which it is told how many for the same target came before.
    pub async fn start(script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { script: Box::new(script), asked: Mutex::new(Vec::new()) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(serve).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared, task }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    #[allow(dead_code)]
    pub fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path() == path).count()
    }
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let asked = Asked {
        method: parts.method,
        target: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers,
        body: to_bytes(body, 64 << 20).await.unwrap(),
    };
    let mut all = shared.asked.lock().unwrap();
    let before = all.iter().filter(|a| a.target == asked.target).count();
    all.push(asked.clone());
    drop(all);
    (shared.script)(&asked, before)
}

pub fn json(status: u16, body: &str) -> Answer {
    with(status, &[("content-type", "application/json")], body.to_owned())
}

pub fn with(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

#[allow(dead_code)]
pub fn error(status: u16, kind: &str, message: &str) -> Answer {
    let body = format!(r#"{{"error":{{"message":"{message}","type":"{kind}","code":{status}}}}}"#);
    json(status, &body)
}
