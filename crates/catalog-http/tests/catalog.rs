//! The catalog over real HTTP: what clients rely on.

mod support;

use serde_json::{Value, json};
use support::Catalog;

#[tokio::test]
async fn config_lists_exactly_what_clients_may_use() {
    let catalog = Catalog::start(&["a"]).await;
    let (status, body) = catalog.json("GET", "/v1/config?warehouse=anything").await;
    assert_eq!(status, 200);
    let expected = json!({
        "defaults": {},
        "overrides": {},
        "endpoints": [
            "GET /v1/{prefix}/namespaces",
            "GET /v1/{prefix}/namespaces/{namespace}",
            "HEAD /v1/{prefix}/namespaces/{namespace}",
            "GET /v1/{prefix}/namespaces/{namespace}/tables",
            "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
            "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials",
            "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan",
            "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
            "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
            "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/tasks",
        ],
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn namespaces_are_leaves() {
    let catalog = Catalog::start(&["a"]).await;
    let none = json!({ "namespaces": [], "next-page-token": null });
    let top = json!({ "namespaces": [["hotset"]], "next-page-token": null });
    for (query, expected) in [
        ("", &top),
        ("?parent=", &top),
        ("?pageToken=", &top),
        ("?parent=hotset", &none),
        ("?parent=hotset&pageToken=&pageSize=10", &none),
    ] {
        let (status, body) = catalog.json("GET", &format!("/v1/namespaces{query}")).await;
        assert_eq!((status, &body), (200, expected), "{query}");
    }
    let (status, body) = catalog.json("GET", "/v1/namespaces?parent=hotset%1Finner").await;
    assert_eq!((status, &body["error"]["type"]), (404, &json!("NoSuchNamespaceException")));
    let (status, body) = catalog.json("GET", "/v1/namespaces/hotset").await;
    assert_eq!((status, &body["namespace"]), (200, &json!(["hotset"])));
}

#[tokio::test]
async fn tables_come_in_pages_when_asked_for() {
    let names = ["a", "b", "c", "d", "e"];
    let catalog = Catalog::start(&names).await;
    let page = async |query: String| {
        let path = format!("/v1/namespaces/hotset/tables{query}");
        let (status, body) = catalog.json("GET", &path).await;
        assert_eq!(status, 200, "{path}");
        let ids = body["identifiers"].as_array().unwrap();
        let ids = ids.iter().map(|id| {
            assert_eq!(id["namespace"], json!(["hotset"]));
            id["name"].as_str().unwrap().to_owned()
        });
        (ids.collect::<Vec<_>>(), body["next-page-token"].as_str().map(str::to_owned))
    };
    assert_eq!(page(String::new()).await, (names.map(str::to_owned).to_vec(), None));
    for (size, pages) in [("", 3), ("&pageSize=1", 5), ("&pageSize=100", 2)] {
        let (mut seen, mut token, mut count) = (Vec::new(), Some(String::new()), 0);
        while let Some(at) = token {
            let (part, next) = page(format!("?pageToken={at}{size}")).await;
            seen.extend(part);
            token = next;
            count += 1;
        }
        assert_eq!(seen, names, "{size}");
        assert_eq!(count, pages, "{size}");
    }
}

#[tokio::test]
async fn a_table_carries_the_gateway_in_both_places() {
    let catalog = Catalog::start(&["orders.eu"]).await;
    let (status, body) = catalog.json("GET", "/v1/namespaces/hotset/tables/orders.eu").await;
    assert_eq!(status, 200);
    let config = json!({
        "client.region": "us-east-1",
        "s3.access-key-id": "id",
        "s3.endpoint": "http://localhost:11000",
        "s3.path-style-access": "true",
        "s3.region": "us-east-1",
        "s3.secret-access-key": "secret",
        "s3.session-token": "token",
    });
    assert_eq!(body["config"], config);
    let credential = json!([{ "prefix": "s3://hotset/orders.eu", "config": config }]);
    assert_eq!(body["storage-credentials"], credential);
    assert_eq!(body["metadata-location"], "s3://hotset/orders.eu/metadata/v1.metadata.json");
    assert_eq!(body["metadata"]["snapshots"].as_array().unwrap().len(), 2);
    let path = "/v1/namespaces/hotset/tables/orders.eu?snapshots=refs";
    let (_, body) = catalog.json("GET", path).await;
    assert_eq!(body["metadata"]["snapshots"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_unchanged_table_is_answered_with_304() {
    let catalog = Catalog::start(&["a"]).await;
    let load = async |query: &str, tag: Option<&str>| {
        let path = format!("/v1/namespaces/hotset/tables/a{query}");
        let mut request = catalog.request("GET", &path);
        if let Some(tag) = tag {
            request = request.header("If-None-Match", tag);
        }
        let response = request.send().await.unwrap();
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        (response.status().as_u16(), tag, response.bytes().await.unwrap().len())
    };
    let (status, tag, _) = load("", None).await;
    assert_eq!(status, 200);
    assert_eq!(load("", Some(&tag)).await, (304, tag.clone(), 0));
    assert_eq!(load("", Some(&format!("W/{tag}"))).await.0, 304);
    assert_eq!(load("?snapshots=refs", Some(&tag)).await.0, 200);
    *catalog.memory.version.lock().unwrap() = 2;
    let (status, newer, _) = load("", Some(&tag)).await;
    assert_eq!(status, 200);
    assert_ne!(newer, tag);
}

#[tokio::test]
async fn refusals_are_in_the_error_model() {
    let catalog = Catalog::start(&["a"]).await;
    for (method, path, status, kind) in [
        ("GET", "/v1/namespaces/cold", 404, "NoSuchNamespaceException"),
        ("GET", "/v1/namespaces/hotset%1Fa/tables", 404, "NoSuchNamespaceException"),
        ("GET", "/v1/namespaces/cold/tables", 404, "NoSuchNamespaceException"),
        ("GET", "/v1/namespaces/cold/tables/a", 404, "NoSuchNamespaceException"),
        ("GET", "/v1/namespaces/hotset%1Fa/tables/files", 404, "NoSuchTableException"),
        ("GET", "/v1/namespaces/hotset/tables/none", 404, "NoSuchTableException"),
        ("GET", "/v1/namespaces/hotset/tables/a%2Fb%20c", 404, "NoSuchTableException"),
        ("GET", "/v1/namespaces/hotset/tables/%ff", 400, "BadRequestException"),
        ("GET", "/v1/namespaces/hotset/tables/a?snapshots=some", 400, "BadRequestException"),
        ("GET", "/v1/namespaces/hotset/tables?pageToken=x", 400, "BadRequestException"),
        ("GET", "/v1/namespaces/hotset/tables?pageToken=&pageSize=no", 400, "BadRequestException"),
        ("GET", "/v1/namespaces/hotset/tables/recursive", 406, "UnsupportedOperationException"),
        ("GET", "/v1/namespaces/hotset/tables/broken", 500, "InternalServerErrorException"),
        ("GET", "/v1/namespaces/hotset/tables/down", 503, "ServiceUnavailableException"),
        ("GET", "/v1/namespaces/hotset/tables/gone", 503, "ServiceUnavailableException"),
        ("GET", "/v1/namespaces/hotset/views/v", 404, "NoSuchViewException"),
        ("POST", "/v1/namespaces", 403, "ForbiddenException"),
        ("POST", "/v1/namespaces/hotset/tables/a", 403, "ForbiddenException"),
        ("DELETE", "/v1/namespaces/hotset/tables/a?purgeRequested=true", 403, "ForbiddenException"),
        ("PUT", "/v1/namespaces/hotset/tables/a", 405, "UnsupportedOperationException"),
        ("POST", "/v1/config", 405, "UnsupportedOperationException"),
        ("GET", "/v1/nothing", 404, "NotFoundException"),
        ("GET", "/", 404, "NotFoundException"),
    ] {
        let (seen, body) = catalog.json(method, path).await;
        assert_eq!(seen, status, "{method} {path}: {body}");
        assert_eq!(body["error"]["type"], kind, "{method} {path}");
        assert_eq!(body["error"]["code"], status, "{method} {path}");
        assert!(!body["error"]["message"].as_str().unwrap().is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn unavailable_and_wrong_method_say_how_to_go_on() {
    let catalog = Catalog::start(&["a"]).await;
    let path = "/v1/namespaces/hotset/tables/down";
    let response = catalog.request("GET", path).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    let response = catalog.request("PUT", "/v1/config").send().await.unwrap();
    assert!(response.headers()["allow"].to_str().unwrap().contains("GET"));
}

#[tokio::test]
async fn scans_are_planned_and_handed_out_in_parts() {
    let catalog = Catalog::start(&["a", "wide"]).await;
    let send = async |method: &str, path: &str, body: Value| {
        let request = catalog.request(method, &format!("/v1/namespaces/hotset/tables/{path}"));
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    };
    let filter = json!({ "type": "eq", "term": "kafka_partition", "value": 1 });
    let (status, plan) = send("POST", "a/plan", json!({ "filter": filter })).await;
    assert_eq!((status, &plan["status"]), (200, &json!("completed")));
    let task = &plan["file-scan-tasks"][0];
    assert_eq!(task["residual-filter"], filter);
    assert_eq!(task["data-file"]["partition"], json!([1, 1024]));
    assert_eq!(task["delete-file-references"], json!([0]));
    assert_eq!(plan["delete-files"][0]["content"], "position-deletes");
    assert_eq!(plan["storage-credentials"][0]["prefix"], "s3://hotset/a");
    let again = format!("a/plan/{}", plan["plan-id"].as_str().unwrap());
    assert_eq!(send("GET", &again, Value::Null).await, (200, plan.clone()));
    assert_eq!(send("DELETE", &again, Value::Null).await.0, 204);
    for method in ["GET", "DELETE"] {
        let (status, error) = send(method, &again, Value::Null).await;
        assert_eq!((status, &error["error"]["type"]), (404, &json!("NoSuchPlanIdException")));
    }

    let (_, plan) = send("POST", "wide/plan", json!({ "filter": filter })).await;
    assert_eq!(plan["file-scan-tasks"], json!([]));
    let part = json!({ "plan-task": plan["plan-tasks"][0] });
    let (status, tasks) = send("POST", "wide/tasks", part).await;
    assert_eq!((status, &tasks["file-scan-tasks"][0]["residual-filter"]), (200, &filter));

    for (path, body, status, kind) in [
        ("a/tasks", json!({ "plan-task": "none" }), 404, "NoSuchPlanTaskException"),
        ("a/tasks", json!({}), 400, "BadRequestException"),
        ("a/plan", json!([]), 400, "BadRequestException"),
        ("a/plan", json!({ "start-snapshot-id": 1 }), 400, "BadRequestException"),
        ("none/plan", json!({}), 404, "NoSuchTableException"),
    ] {
        let (seen, error) = send("POST", path, body).await;
        assert_eq!((seen, &error["error"]["type"]), (status, &json!(kind)), "{path}");
    }
}

#[tokio::test]
async fn heads_answer_without_a_body() {
    let catalog = Catalog::start(&["a"]).await;
    for (path, status) in [
        ("/v1/namespaces/hotset", 204),
        ("/v1/namespaces/cold", 404),
        ("/v1/namespaces/hotset/tables/a", 204),
        ("/v1/namespaces/hotset/tables/b", 404),
        ("/v1/namespaces/hotset/views/v", 404),
    ] {
        assert_eq!(catalog.json("HEAD", path).await, (status, Value::Null), "{path}");
    }
}

#[tokio::test]
async fn bodies_are_read_up_to_the_limit() {
    let catalog = Catalog::start(&["a"]).await;
    let post = async |path: &str, length: usize| {
        let response = catalog.request("POST", path).body(vec![b'x'; length]).send().await;
        response.unwrap().status().as_u16()
    };
    assert_eq!(post("/v1/namespaces/hotset/tables/a/metrics", 1000).await, 204);
    assert_eq!(post("/v1/namespaces/hotset/tables/a", 1 << 20).await, 403);
    assert_eq!(post("/v1/namespaces/hotset/tables/a", (1 << 20) + 1).await, 413);
}

#[tokio::test]
async fn operators_see_health_and_metrics_and_ids() {
    let catalog = Catalog::start(&["a"]).await;
    let get = async |path: &str| {
        let response = catalog.request("GET", path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await.0, 200);
    assert_eq!(get("/readyz").await.0, 200);
    let (status, text) = get("/metrics").await;
    assert_eq!((status, text.starts_with("isk_up 1\n")), (200, true), "{text}");
    assert_eq!(get("/openapi.yaml").await.1, isk_catalog_http::OPENAPI);
    assert_eq!(Catalog::start(&[]).await.json("GET", "/readyz").await.0, 503);

    let ask = async |id: &str| {
        let request = catalog.request("GET", "/healthz").header("x-request-id", id);
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("from-the-proxy").await, "from-the-proxy");
    let long = "x".repeat(200);
    assert_ne!(ask(&long).await, long);
}
