//! An upstream catalog over real HTTP that answers a few questions and writes all of them down.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use isk_coldset::{ColdsetConfig, Upstream};
use serde_json::{Value, json};

/// What the stub says it serves.
pub const ENDPOINTS: [&str; 10] = [
    "GET /v1/{prefix}/namespaces",
    "POST /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
];

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// What the stub has seen, and how it shall behave.
#[derive(Clone, Default)]
pub struct Stub {
    pub seen: Arc<Mutex<Vec<Seen>>>,
    /// The namespace is there.
    pub has_namespace: Arc<Mutex<bool>>,
    /// Writes are answered with a proxy's page, as if the catalog had gone meanwhile.
    pub loses_writes: Arc<Mutex<bool>>,
}

/// What only the upstream's own clients may see.
pub const SECRET: &str = "upstream-secret";

const ROOT: &str = "/v1/up/namespaces/lake%1Fcold";

impl Stub {
    /// Serves on a free port, and gives a client of it.
    pub async fn start(configure: impl FnOnce(&mut ColdsetConfig)) -> (Self, Upstream) {
        let stub = Self::default();
        *stub.has_namespace.lock().unwrap() = true;
        let app = Router::new().fallback(answer).with_state(stub.clone());
        let app = app.layer(DefaultBodyLimit::disable());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = ColdsetConfig::new(&format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        config.namespace = "lake.cold".into();
        config.warehouse = Some("w".into());
        configure(&mut config);
        let upstream = Upstream::new(&config).unwrap();
        (stub, upstream)
    }

    /// What was asked, but for the configuration.
    pub fn asked(&self) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| !seen.target.starts_with("/v1/config")).cloned().collect()
    }

    /// The last thing that was asked.
    pub fn last(&self) -> Seen {
        self.asked().pop().unwrap()
    }
}

/// A table's answer.
pub fn loaded(name: &str) -> Value {
    json!({
        "metadata-location": format!("s3://lake/cold/{name}/metadata/1.metadata.json"),
        "metadata": {
            "format-version": 2, "table-uuid": "9c12d441-03fe-4693-9a96-a0705ddf69c1",
            "location": format!("s3://lake/cold/{name}"), "properties": {},
        },
        "config": { "s3.secret-access-key": SECRET, "token": SECRET },
        "storage-credentials": [
            { "prefix": "s3://lake", "config": { "s3.secret-access-key": SECRET } },
        ],
    })
}

async fn answer(
    State(stub): State<Stub>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let target = uri.path_and_query().unwrap().as_str().to_owned();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let seen = Seen { method: method.to_string(), target, headers, body };
    stub.seen.lock().unwrap().push(seen.clone());
    if method != Method::GET && method != Method::HEAD && *stub.loses_writes.lock().unwrap() {
        return (StatusCode::BAD_GATEWAY, "<html>proxy</html>").into_response();
    }
    let path = uri.path();
    let json = |status: u16, body: Value| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(header::ETAG, "\"theirs\"")], axum::Json(body)).into_response()
    };
    let none = |kind: &str| {
        json(404, json!({ "error": { "message": "none", "type": kind, "code": 404 } }))
    };
    match (method.as_str(), path.strip_prefix(ROOT), path) {
        (_, _, "/v1/config") => json(
            200,
            json!({
                "defaults": {}, "overrides": { "prefix": "up", "token": SECRET },
                "endpoints": ENDPOINTS,
            }),
        ),
        ("GET", _, "/v1/up/namespaces") => json(200, json!({ "namespaces": [["lake"]] })),
        ("POST", _, "/v1/up/namespaces") => {
            *stub.has_namespace.lock().unwrap() = true;
            json(200, json!({ "namespace": ["lake", "cold"], "properties": {} }))
        }
        ("POST", Some("/tables" | "/register"), _) if !*stub.has_namespace.lock().unwrap() => {
            none("NoSuchNamespaceException")
        }
        ("POST", Some("/tables" | "/register"), _) => json(200, loaded("new")),
        ("GET", Some("/tables"), _) => json(
            200,
            json!({ "identifiers": [
                { "namespace": ["lake", "cold"], "name": "t" },
                { "namespace": ["lake", "cold"], "name": "s" },
            ]}),
        ),
        ("GET", Some("/tables/t"), _) => json(200, loaded("t")),
        ("HEAD", Some("/tables/t"), _) => StatusCode::NO_CONTENT.into_response(),
        ("POST", Some("/tables/t"), _) if seen.body.contains("conflict") => {
            let error = json!({ "message": "no", "type": "CommitFailedException", "code": 409 });
            json(409, json!({ "error": error }))
        }
        ("POST", Some("/tables/t"), _) => {
            let metadata = loaded("t")["metadata"].clone();
            json(200, json!({ "metadata-location": "s3://lake/x", "metadata": metadata }))
        }
        ("DELETE", Some("/tables/t"), _)
        | ("POST", _, "/v1/up/tables/rename" | "/v1/up/transactions/commit") => {
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", Some("/tables/t/credentials"), _) => {
            json(200, json!({ "storage-credentials": loaded("t")["storage-credentials"] }))
        }
        _ => none("NoSuchTableException"),
    }
}
