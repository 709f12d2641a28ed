//! The upstream catalog behind ours: what it is asked, and what clients get of its answers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::Catalog;
use support::upstream::{ENDPOINTS, SECRET, Stub};

async fn start(writable: bool, direct: bool) -> (Stub, Catalog) {
    let (stub, upstream) = Stub::start(|config| {
        config.writable = writable;
        config.direct = direct;
    })
    .await;
    (stub, Catalog::with(&["a"], Some(upstream)).await)
}

async fn send(catalog: &Catalog, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let request = catalog.request(method, path).header("content-type", "application/json");
    let request = request.header("authorization", "Bearer of-the-client");
    let response = request.body(body.to_string()).send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
}

#[tokio::test]
async fn the_namespace_is_the_upstreams_under_our_name() {
    let (stub, catalog) = start(false, false).await;
    let (_, all) = catalog.json("GET", "/v1/namespaces").await;
    assert_eq!(all["namespaces"], json!([["coldset"], ["hotset"]]));
    let (status, namespace) = catalog.json("GET", "/v1/namespaces/coldset").await;
    assert_eq!((status, &namespace["namespace"]), (200, &json!(["coldset"])));
    assert!(namespace["properties"]["comment"].as_str().unwrap().contains("lake.cold"));
    let (_, tables) = catalog.json("GET", "/v1/namespaces/coldset/tables?pageToken=").await;
    let expected = json!([
        { "namespace": ["coldset"], "name": "s" }, { "namespace": ["coldset"], "name": "t" },
    ]);
    assert_eq!(tables["identifiers"], expected);
    for (method, table, status) in
        [("HEAD", "t", 204), ("HEAD", "none", 404), ("GET", "none", 404), ("GET", "t", 200)]
    {
        let path = format!("/v1/namespaces/coldset/tables/{table}");
        assert_eq!(catalog.json(method, &path).await.0, status, "{method} {table}");
    }
    assert_eq!(stub.last().target, "/v1/up/namespaces/lake%1Fcold/tables/t");
    // The others are what they were.
    assert_eq!(catalog.json("GET", "/v1/namespaces/hotset/tables/a").await.0, 200);
}

#[tokio::test]
async fn a_loaded_table_is_read_through_the_gateway() {
    let (stub, catalog) = start(false, false).await;
    let path = "/v1/namespaces/coldset/tables/t?snapshots=refs";
    let response = catalog.request("GET", path).header("if-none-match", "\"theirs\"");
    let response = response.header("x-iceberg-access-delegation", "vended-credentials");
    let response = response.send().await.unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_ne!(tag, "\"theirs\"");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let body: Value = response.json().await.unwrap();
    assert!(!body.to_string().contains(SECRET), "{body}");
    assert_eq!(body["config"]["s3.endpoint"], "http://localhost:11000");
    let prefixes: Vec<_> = body["storage-credentials"].as_array().unwrap().iter().collect();
    let prefixes: Vec<_> = prefixes.iter().map(|c| c["prefix"].as_str().unwrap()).collect();
    assert_eq!(prefixes, ["s3://lake/cold/t", "s3://lake/"]);
    assert_eq!(body["metadata-location"], "s3://lake/cold/t/metadata/1.metadata.json");
    let seen = stub.last();
    assert_eq!(seen.target, "/v1/up/namespaces/lake%1Fcold/tables/t?snapshots=refs");
    for name in ["if-none-match", "x-iceberg-access-delegation"] {
        assert!(!seen.headers.contains_key(name), "{name}");
    }
    let again = catalog.request("GET", path).header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    let all = catalog.request("GET", "/v1/namespaces/coldset/tables/t");
    let all = all.header("if-none-match", &tag).send().await.unwrap();
    assert_eq!(all.status(), 200, "the tag is that of another question");
}

#[tokio::test]
async fn with_direct_the_upstreams_settings_stay() {
    let (stub, catalog) = start(false, true).await;
    let path = "/v1/namespaces/coldset/tables/t";
    let request = catalog.request("GET", path).header("if-none-match", "\"x\"");
    let response =
        request.header("x-iceberg-access-delegation", "remote-signing").send().await.unwrap();
    assert_eq!(response.headers()["etag"], "\"theirs\"");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body, support::upstream::loaded("t"));
    let seen = stub.last();
    assert_eq!(seen.headers["if-none-match"], "\"x\"");
    assert_eq!(seen.headers["x-iceberg-access-delegation"], "remote-signing");
}

#[tokio::test]
async fn writes_are_refused_until_they_are_allowed() {
    let (stub, catalog) = start(false, false).await;
    let (_, config) = catalog.json("GET", "/v1/config").await;
    let endpoints = config["endpoints"].as_array().unwrap().iter().map(|e| e.as_str().unwrap());
    let writes = endpoints.filter(|endpoint| {
        let reads = ["GET ", "HEAD "].iter().any(|method| endpoint.starts_with(method));
        // Planning a scan changes nothing.
        !reads && !endpoint.contains("{table}/plan") && !endpoint.ends_with("{table}/tasks")
    });
    assert_eq!(writes.collect::<Vec<_>>(), [""; 0]);
    for (method, path) in [
        ("POST", "/v1/namespaces/coldset/tables"),
        ("POST", "/v1/namespaces/coldset/register"),
        ("POST", "/v1/namespaces/coldset/tables/t"),
        ("DELETE", "/v1/namespaces/coldset/tables/t"),
        ("POST", "/v1/tables/rename"),
        ("POST", "/v1/transactions/commit"),
        ("POST", "/v1/coldset/namespaces"),
        ("DELETE", "/v1/coldset/namespaces/a/tables/t"),
        ("POST", "/v1/coldset/namespaces/a/tables/t/sign"),
    ] {
        let (status, body) = send(&catalog, method, path, &json!({})).await;
        assert_eq!((status, &body["error"]["type"]), (403, &json!("ForbiddenException")), "{path}");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("coldset.writable"), "{path}: {message}");
    }
    assert_eq!(stub.asked().len(), 0);
}

#[tokio::test]
async fn writes_of_coldset_are_passed_on() {
    let (stub, catalog) = start(true, false).await;
    let (_, config) = catalog.json("GET", "/v1/config").await;
    let ours = json!({ "namespace": ["coldset"], "name": "t" });
    let theirs = json!({ "namespace": ["lake", "cold"], "name": "t" });
    let root = "/v1/up/namespaces/lake%1Fcold";
    for (method, path, body, status, target, passed) in [
        (
            "POST",
            "/v1/namespaces/coldset/tables",
            json!({ "name": "new" }),
            200,
            format!("{root}/tables"),
            json!({ "name": "new" }),
        ),
        (
            "POST",
            "/v1/namespaces/coldset/register",
            json!({ "name": "new" }),
            200,
            format!("{root}/register"),
            json!({ "name": "new" }),
        ),
        (
            "POST",
            "/v1/namespaces/coldset/tables/t",
            json!({ "identifier": ours, "updates": [] }),
            200,
            format!("{root}/tables/t"),
            json!({ "identifier": theirs, "updates": [] }),
        ),
        (
            "POST",
            "/v1/tables/rename",
            json!({ "source": ours, "destination": ours }),
            204,
            "/v1/up/tables/rename".to_owned(),
            json!({ "source": theirs, "destination": theirs }),
        ),
        (
            "POST",
            "/v1/transactions/commit",
            json!({ "table-changes": [{ "identifier": ours }] }),
            204,
            "/v1/up/transactions/commit".to_owned(),
            json!({ "table-changes": [{ "identifier": theirs }] }),
        ),
        (
            "DELETE",
            "/v1/namespaces/coldset/tables/t?purgeRequested=true",
            Value::Null,
            204,
            format!("{root}/tables/t?purgeRequested=true"),
            Value::Null,
        ),
    ] {
        let (seen, answer) = send(&catalog, method, path, &body).await;
        assert_eq!(seen, status, "{path}: {answer}");
        assert!(!answer.to_string().contains(SECRET), "{path}");
        let asked = stub.last();
        assert_eq!((asked.method.as_str(), asked.target), (method, target), "{path}");
        assert_eq!(asked.body.parse::<Value>().unwrap(), passed, "{path}");
        assert!(!asked.headers.contains_key("authorization"), "the client's token went upstream");
        let listed = format!("{method} {}", path.split('?').next().unwrap());
        let listed = listed.replace("/v1/", "/v1/{prefix}/").replace("coldset", "{namespace}");
        let listed = listed.replace("/tables/t", "/tables/{table}");
        assert!(config["endpoints"].as_array().unwrap().contains(&json!(listed)), "{listed}");
    }
    let (_, created) = send(&catalog, "POST", "/v1/namespaces/coldset/tables", &json!({})).await;
    assert_eq!(created["storage-credentials"][1]["prefix"], "s3://lake/");
}

#[tokio::test]
async fn only_coldset_is_written() {
    let (stub, catalog) = start(true, false).await;
    let table = |namespace: &str| json!({ "namespace": [namespace], "name": "t" });
    for (method, path, body, status) in [
        ("POST", "/v1/namespaces/hotset/tables", json!({}), 403),
        ("POST", "/v1/namespaces/merged/tables/t", json!({}), 403),
        ("DELETE", "/v1/namespaces/hotset/tables/a", json!({}), 403),
        ("POST", "/v1/namespaces", json!({ "namespace": ["new"] }), 403),
        ("POST", "/v1/namespaces", json!({ "namespace": ["coldset"] }), 409),
        ("DELETE", "/v1/namespaces/coldset", json!({}), 403),
        (
            "POST",
            "/v1/tables/rename",
            json!({ "source": table("coldset"), "destination": table("hotset") }),
            403,
        ),
        (
            "POST",
            "/v1/transactions/commit",
            json!({ "table-changes": [{ "identifier": table("merged") }] }),
            403,
        ),
        ("POST", "/v1/tables/rename", json!([]), 400),
    ] {
        let (seen, answer) = send(&catalog, method, path, &body).await;
        assert_eq!(seen, status, "{method} {path}: {answer}");
    }
    assert_eq!(stub.asked().len(), 0);
}

#[tokio::test]
async fn the_first_table_makes_the_namespace() {
    let (stub, catalog) = start(true, false).await;
    *stub.has_namespace.lock().unwrap() = false;
    let (status, _) = send(&catalog, "POST", "/v1/namespaces/coldset/tables", &json!({})).await;
    assert_eq!(status, 200);
    let made = stub.asked().into_iter().find(|seen| seen.target == "/v1/up/namespaces").unwrap();
    let made: Value = made.body.parse().unwrap();
    assert_eq!(made["namespace"], json!(["lake", "cold"]));
}

#[tokio::test]
async fn upstreams_errors_keep_status_and_text() {
    let (_, catalog) = start(true, false).await;
    let body = json!({ "updates": ["conflict"] });
    let (status, error) = send(&catalog, "POST", "/v1/namespaces/coldset/tables/t", &body).await;
    assert_eq!((status, &error["error"]["type"]), (409, &json!("CommitFailedException")));
    let (status, error) = catalog.json("GET", "/v1/namespaces/coldset/tables/none").await;
    assert_eq!((status, &error["error"]["message"]), (404, &json!("none")));
}

#[tokio::test]
async fn an_upstream_that_is_down_is_unavailable_and_a_lost_answer_is_unknown() {
    let (_, upstream) = Stub::start(|config| {
        config.uri = "http://127.0.0.1:9".into();
        config.writable = true;
    })
    .await;
    let catalog = Catalog::with(&["a"], Some(upstream)).await;
    for (method, path) in [
        ("GET", "/v1/namespaces/coldset/tables"),
        ("GET", "/v1/namespaces/coldset/tables/t"),
        ("POST", "/v1/namespaces/coldset/tables/t"),
        ("GET", "/v1/config?warehouse=coldset"),
        ("GET", "/v1/coldset/namespaces"),
    ] {
        let (status, error) = send(&catalog, method, path, &json!({})).await;
        assert_eq!(status, 503, "{method} {path}: {error}");
        assert_eq!(error["error"]["type"], "ServiceUnavailableException");
    }
    // What does not need it goes on.
    assert_eq!(catalog.json("GET", "/v1/config").await.0, 200);
    assert_eq!(catalog.json("GET", "/v1/namespaces/hotset/tables/a").await.0, 200);

    let (stub, catalog) = start(true, false).await;
    *stub.loses_writes.lock().unwrap() = true;
    let path = "/v1/namespaces/coldset/tables/t";
    let (status, error) = send(&catalog, "POST", path, &json!({})).await;
    assert_eq!((status, &error["error"]["type"]), (504, &json!("CommitStateUnknownException")));
}

#[tokio::test]
async fn the_whole_upstream_is_a_warehouse() {
    let (stub, catalog) = start(true, false).await;
    let (status, config) = catalog.json("GET", "/v1/config?warehouse=coldset").await;
    assert_eq!((status, &config["overrides"]), (200, &json!({ "prefix": "coldset" })));
    assert_eq!(config["endpoints"], json!(ENDPOINTS));
    let (_, namespaces) = catalog.json("GET", "/v1/coldset/namespaces?parent=x%1Fy").await;
    assert_eq!(namespaces, json!({ "namespaces": [["lake"]] }));
    assert_eq!(stub.last().target, "/v1/up/namespaces?parent=x%1Fy");
    let table = "/v1/coldset/namespaces/lake%1Fcold/tables/t";
    let (_, loaded) = catalog.json("GET", table).await;
    assert_eq!(loaded["config"]["s3.access-key-id"], "id");
    assert!(!loaded.to_string().contains(SECRET));
    let (_, vended) = catalog.json("GET", &format!("{table}/credentials")).await;
    assert_eq!(vended["storage-credentials"][0]["prefix"], "s3://lake");
    assert!(!vended.to_string().contains(SECRET));
    assert_eq!(catalog.json("HEAD", table).await.0, 204);
    let (status, _) = send(&catalog, "POST", table, &json!({ "updates": [] })).await;
    assert_eq!((status, stub.last().body.as_str()), (200, "{\"updates\":[]}"));
    assert_eq!(catalog.json("DELETE", table).await.0, 204);
    let asked = stub.asked().len();
    for path in [
        "/v1/coldset/config",
        "/v1/coldset/oauth/tokens",
        "/v1/coldset/namespaces/%2e%2e/config",
        "/v1/coldset/x/namespaces",
    ] {
        let response = catalog.raw("GET", path).await;
        assert!(response.starts_with("HTTP/1.1 400"), "{path}: {response}");
    }
    assert_eq!(stub.asked().len(), asked, "something was passed on");
}

#[tokio::test]
async fn without_an_upstream_its_warehouse_is_missing() {
    let catalog = Catalog::start(&["a"]).await;
    for path in ["/v1/config?warehouse=coldset", "/v1/coldset/namespaces"] {
        let (status, error) = catalog.json("GET", path).await;
        assert_eq!((status, &error["error"]["type"]), (404, &json!("NoSuchWarehouseException")));
        assert!(error["error"]["message"].as_str().unwrap().contains("coldset.uri"));
    }
    let (status, error) = catalog.json("GET", "/v1/namespaces/coldset/tables").await;
    assert_eq!((status, &error["error"]["type"]), (404, &json!("NoSuchNamespaceException")));
}

#[tokio::test]
async fn a_commit_may_be_longer_than_other_bodies() {
    let (_, catalog) = start(true, false).await;
    let post = async |length: usize| {
        let body = json!({ "padding": "x".repeat(length) });
        send(&catalog, "POST", "/v1/namespaces/coldset/tables/t", &body).await.0
    };
    assert_eq!(post(8 << 20).await, 200);
    assert_eq!(post(16 << 20).await, 413);
}
