//! Who may in, and who may what: principals × routes × tables, cell by cell.

// The helpers of these tests fail as the tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use isk_access::{Access, AccessFile, AccessSettings, Right, S3Caller, SigningKey};
use serde_json::{Value, json};
use support::Catalog;
use support::upstream::Stub;

const RULES: &str = r#"
[[principal]]
name = "reader"
secrets = [{ file = "reader" }]
api_keys = [{ file = "reader-api-key" }]
[[principal]]
name = "lister"
secrets = [{ file = "lister" }]
[[principal]]
name = "writer"
secrets = [{ file = "writer" }]
[[principal]]
name = "admin"
secrets = [{ file = "admin" }]
[[principal]]
name = "nobody"
secrets = [{ file = "nobody" }]

[[rule]]
principals = ["reader", "writer"]
tables = ["hotset.a", "coldset.t"]
allow = "read"
[[rule]]
principals = ["lister"]
tables = ["hotset.*", "coldset.*"]
allow = "list"
[[rule]]
principals = ["writer"]
tables = ["coldset.t", "coldset.new"]
allow = "write"
[[rule]]
principals = ["admin"]
tables = ["*"]
allow = "write"
"#;

const PRINCIPALS: [&str; 5] = ["reader", "lister", "writer", "admin", "nobody"];

fn access(concurrent_requests: usize) -> Access {
    let folder = tempfile::tempdir().unwrap();
    for name in PRINCIPALS {
        std::fs::write(folder.path().join(name), format!("{name}-secret")).unwrap();
    }
    std::fs::write(folder.path().join("reader-api-key"), "a-long-key").unwrap();
    std::fs::write(folder.path().join("access.toml"), RULES).unwrap();
    Access::new(AccessSettings {
        file: Some(AccessFile::new(folder.path().join("access.toml"))),
        concurrent_requests,
        ..AccessSettings::new(SigningKey::new(&"k".repeat(32)).unwrap())
    })
    .unwrap()
}

/// A catalog with an upstream that may be written to.
async fn start() -> (Catalog, Access, Stub) {
    let (stub, upstream) = Stub::start(|config| config.writable = true).await;
    let access = access(0);
    let catalog = Catalog::guarded(&["a", "b"], Some(upstream), access.clone()).await;
    (catalog, access, stub)
}

async fn ask(
    catalog: &Catalog,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let mut request = catalog.request(method, path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if !body.is_null() {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn every_cell_of_the_matrix() {
    let (catalog, access, _stub) = start().await;
    let tokens =
        PRINCIPALS.map(|name| access.grant(name, &format!("{name}-secret")).unwrap().token);
    let none = Value::Null;
    let plan = json!({});
    let commit = json!({ "requirements": [], "updates": [] });
    let create = |name: &str| json!({ "name": name, "schema": {} });
    let rename = |from: &str, to: &str| {
        let id = |name: &str| json!({ "namespace": ["coldset"], "name": name });
        json!({ "source": id(from), "destination": id(to) })
    };
    let transaction = |name: &str| {
        let id = json!({ "namespace": ["coldset"], "name": name });
        json!({ "table-changes": [{ "identifier": id, "requirements": [], "updates": [] }] })
    };
    let hot = "/v1/namespaces/hotset/tables";
    let cold = "/v1/namespaces/coldset/tables";
    // Where a status is 0, whatever the catalog or its upstream says to somebody who may: no 401, no 403.
    for (method, path, body, expected) in [
        // reader, lister, writer, admin, nobody
        ("GET", "/v1/config".to_owned(), &none, [200, 200, 200, 200, 200]),
        ("GET", "/v1/namespaces".to_owned(), &none, [200, 200, 200, 200, 200]),
        ("GET", hot.to_owned(), &none, [200, 200, 200, 200, 200]),
        ("HEAD", format!("{hot}/a"), &none, [204, 204, 204, 204, 404]),
        ("HEAD", format!("{hot}/b"), &none, [404, 204, 404, 204, 404]),
        ("GET", format!("{hot}/a"), &none, [200, 403, 200, 200, 404]),
        ("GET", format!("{hot}/b"), &none, [404, 403, 404, 200, 404]),
        ("GET", format!("{hot}/%62"), &none, [404, 403, 404, 200, 404]),
        ("GET", format!("{hot}/a/credentials"), &none, [200, 403, 200, 200, 404]),
        ("GET", format!("{hot}/b/credentials"), &none, [404, 403, 404, 200, 404]),
        ("POST", format!("{hot}/a/plan"), &plan, [200, 403, 200, 200, 404]),
        ("POST", format!("{hot}/b/plan"), &plan, [404, 403, 404, 200, 404]),
        ("GET", format!("{hot}/b/plan/x"), &none, [404, 403, 404, 404, 404]),
        ("POST", format!("{hot}/b/tasks"), &json!({ "plan-task": "x" }), [404, 403, 404, 404, 404]),
        ("POST", format!("{hot}/a"), &commit, [403, 403, 403, 403, 404]),
        ("GET", "/v1/namespaces/hotset%1Fb/tables/files".to_owned(), &none, [404; 5]),
        ("GET", format!("{cold}/t"), &none, [200, 403, 200, 200, 404]),
        ("HEAD", format!("{cold}/other"), &none, [404, 0, 404, 0, 404]),
        ("GET", format!("{cold}/other"), &none, [404, 403, 404, 0, 404]),
        ("GET", format!("{cold}/t%2F..%2Fother"), &none, [404, 403, 404, 0, 404]),
        ("POST", format!("{cold}/t"), &commit, [403, 403, 0, 0, 404]),
        ("POST", format!("{cold}/other"), &commit, [404, 403, 404, 0, 404]),
        ("DELETE", format!("{cold}/t"), &none, [403, 403, 0, 0, 404]),
        ("POST", cold.to_owned(), &create("new"), [403, 403, 0, 0, 403]),
        ("POST", cold.to_owned(), &create("other"), [403, 403, 403, 0, 403]),
        (
            "POST",
            "/v1/namespaces/coldset/register".to_owned(),
            &create("t"),
            [403, 403, 403, 0, 403],
        ),
        ("POST", "/v1/tables/rename".to_owned(), &rename("t", "new"), [403, 403, 0, 0, 403]),
        ("POST", "/v1/tables/rename".to_owned(), &rename("t", "other"), [403, 403, 403, 0, 403]),
        ("POST", "/v1/tables/rename".to_owned(), &rename("other", "t"), [403, 403, 403, 0, 403]),
        ("POST", "/v1/transactions/commit".to_owned(), &transaction("t"), [403, 403, 0, 0, 403]),
        ("POST", "/v1/transactions/commit".to_owned(), &transaction("x"), [403, 403, 403, 0, 403]),
        ("GET", "/v1/coldset/namespaces".to_owned(), &none, [403, 403, 403, 200, 403]),
        ("GET", "/v1/coldset/namespaces/x/tables/t".to_owned(), &none, [403, 403, 403, 0, 403]),
        ("GET", "/metrics".to_owned(), &none, [403, 403, 403, 200, 403]),
        ("GET", "/api/v1/topics/a/schema".to_owned(), &none, [200, 200, 200, 200, 404]),
        ("GET", "/api/v1/topics/b/schema".to_owned(), &none, [404, 200, 404, 200, 404]),
        ("PUT", "/api/v1/topics/a/schema".to_owned(), &none, [403, 403, 403, 200, 404]),
        ("DELETE", "/api/v1/topics/b/schema".to_owned(), &none, [404, 403, 404, 200, 404]),
    ] {
        for (name, token, expected) in
            PRINCIPALS.iter().zip(&tokens).zip(expected).map(|((n, t), e)| (n, t, e))
        {
            let (status, answer) = ask(&catalog, Some(token), method, &path, body.clone()).await;
            let seen = match expected {
                0 => !matches!(status, 401 | 403),
                expected => status == expected,
            };
            assert!(seen, "{name} {method} {path} {body}: {status} {answer}");
        }
        let (status, answer) = ask(&catalog, None, method, &path, body.clone()).await;
        assert_eq!(status, 401, "{method} {path}: {answer}");
    }
    // The values of a topic's records are for those who may read it.
    for (token, shown) in tokens.iter().zip([1, 0, 1, 1]) {
        let path = "/api/v1/topics/a/schema";
        let (_, answer) = ask(&catalog, Some(token), "GET", path, Value::Null).await;
        assert_eq!(answer["samples"].as_array().unwrap().len(), shown, "{answer}");
    }
    for open in ["/healthz", "/openapi.yaml", "/api/openapi.yaml"] {
        assert_eq!(ask(&catalog, None, "GET", open, Value::Null).await.0, 200, "{open}");
    }
}

#[tokio::test]
async fn no_route_but_the_open_ones_answers_a_stranger() {
    let catalog = Catalog::guarded(&["a"], None, access(0)).await;
    let open = ["/healthz", "/readyz", "/openapi.yaml", "/api/openapi.yaml", "/v1/oauth/tokens"];
    for route in isk_catalog_http::routes::ROUTES {
        let path = route.path.replace("{namespace}", "hotset").replace("{table}", "a");
        let path = path.replace("{path}", "namespaces").replace("{topic}", "a");
        let wrong = "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.";
        for header in [None, Some(wrong), Some("Bearer guess"), Some("Basic YTpi"), Some("")] {
            let mut request = catalog.request(route.method.as_str(), &path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            if open.contains(&path.as_str()) && route.path != "/v1/oauth/tokens" {
                assert_eq!(status, 200, "{path}");
                continue;
            }
            if route.path == "/v1/oauth/tokens" {
                continue;
            }
            assert_eq!(status, 401, "{} {path} {header:?}", route.method);
            assert!(headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
            let body: Value = response.json().await.unwrap_or_default();
            if route.method != "HEAD" {
                assert_eq!(body["error"]["type"], "NotAuthorizedException", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn listings_show_what_may_be_seen() {
    let (catalog, access, _stub) = start().await;
    for (name, expected) in
        [("reader", &["a"][..]), ("lister", &["a", "b"]), ("admin", &["a", "b"]), ("nobody", &[])]
    {
        let token = access.grant(name, &format!("{name}-secret")).unwrap().token;
        let path = "/v1/namespaces/hotset/tables";
        let (_, body) = ask(&catalog, Some(&token), "GET", path, Value::Null).await;
        let seen: Vec<_> = body["identifiers"].as_array().unwrap().iter().collect();
        let seen: Vec<_> = seen.iter().map(|id| id["name"].as_str().unwrap()).collect();
        assert_eq!(seen, expected, "{name}");
    }
    let (status, _) = ask(&catalog, Some("a-long-key"), "GET", "/v1/config", Value::Null).await;
    assert_eq!(status, 200, "an API key");
}

#[tokio::test]
async fn tokens_are_given_as_icebergs_clients_ask() {
    let catalog = Catalog::guarded(&["a"], None, access(0)).await;
    let post = async |headers: &[(&str, &str)], form: &str| {
        let mut request = catalog.request("POST", "/v1/oauth/tokens").body(form.to_owned());
        request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let client = "client_id=reader&client_secret=reader-secret";
    let good = format!("grant_type=client_credentials&{client}&scope=catalog");
    let (status, granted) = post(&[], &good).await;
    assert_eq!((status, &granted["token_type"]), (200, &json!("bearer")));
    assert_eq!(granted["expires_in"], 3600);
    let token = granted["access_token"].as_str().unwrap();
    let exchange = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
                    &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token";
    let renewed = post(&[], &format!("{exchange}&subject_token={token}")).await;
    assert_eq!(renewed.0, 200);
    let new = renewed.1["access_token"].as_str().unwrap();
    assert_eq!(ask(&catalog, Some(new), "GET", "/v1/config", Value::Null).await.0, 200);
    // A client whose token has expired says with it who it is.
    let basic = ("authorization", "Basic cmVhZGVyOnJlYWRlci1zZWNyZXQ=");
    assert_eq!(post(&[basic], &format!("{exchange}&subject_token=expired")).await.0, 200);
    for (form, status, error) in [
        ("grant_type=client_credentials&client_id=reader&client_secret=x", 401, "invalid_client"),
        ("grant_type=client_credentials&client_secret=reader-secret", 401, "invalid_client"),
        ("grant_type=client_credentials", 401, "invalid_client"),
        (&format!("{exchange}&subject_token=x"), 401, "invalid_client"),
        (&format!("{exchange}&subject_token=a-long-key"), 401, "invalid_client"),
        (&format!("grant_type=password&{client}"), 400, "unsupported_grant_type"),
        ("", 400, "unsupported_grant_type"),
    ] {
        let (seen, body) = post(&[], form).await;
        assert_eq!((seen, &body["error"]), (status, &json!(error)), "{form}");
        assert!(!body.to_string().contains("reader-secret"), "{body}");
    }
    let open = Catalog::start(&["a"]).await;
    let request = open.request("POST", "/v1/oauth/tokens").body(good.clone());
    assert_eq!(request.send().await.unwrap().status().as_u16(), 404);
}

#[tokio::test]
async fn a_table_comes_with_keys_of_its_own() {
    let (catalog, access, _stub) = start().await;
    let load = async |name: &str, table: &str| {
        let token = access.grant(name, &format!("{name}-secret")).unwrap().token;
        let path = format!("/v1/namespaces/{table}");
        let (status, body) = ask(&catalog, Some(&token), "GET", &path, Value::Null).await;
        assert_eq!(status, 200, "{body}");
        let text = |name: &str| body["config"][name].as_str().unwrap_or_default().to_owned();
        let secret = access.s3_secret(&text("s3.access-key-id"));
        assert_eq!(secret, Some(text("s3.secret-access-key")));
        let token = text("s3.session-token");
        match access.s3_caller(&text("s3.access-key-id"), Some(&token)).unwrap() {
            S3Caller::Vended(scope) => (scope, body),
            S3Caller::Principal(_) => panic!("a vended key"),
        }
    };
    let (scope, body) = load("reader", "hotset/tables/a").await;
    assert!(scope.covers("hotset", "a/data/x") && !scope.covers("hotset", "b/data/x"));
    assert!(!scope.writes);
    let config = &body["config"];
    let refresh = "v1/namespaces/hotset/tables/a/credentials";
    assert_eq!(config["client.refresh-credentials-endpoint"], refresh);
    let ends: u64 = config["s3.session-token-expires-at-ms"].as_str().unwrap().parse().unwrap();
    assert_eq!(ends, scope.expires * 1000);
    assert_eq!(body["storage-credentials"][0]["config"], *config);
    let (other, _) = load("admin", "hotset/tables/a").await;
    assert_ne!(other.caller, scope.caller, "each principal has keys of its own");

    let (cold, _) = load("reader", "coldset/tables/t").await;
    assert!(cold.covers("lake", "cold/t/data/x") && !cold.covers("lake", "cold/other/data/x"));
    assert!(!cold.covers("lake", "x") && !cold.writes);
    let (writing, _) = load("writer", "coldset/tables/t").await;
    assert!(writing.writes && access.may(&writing.caller, Right::Write, &writing.tables));
    assert!(!writing.covers("lake", "cold/other/x"));
}

#[tokio::test]
async fn a_table_is_not_pointed_at_anothers_files() {
    let (catalog, access, stub) = start().await;
    let token = access.grant("writer", "writer-secret").unwrap().token;
    let path = "/v1/namespaces/coldset/tables";
    let update = |update: Value| json!({ "requirements": [], "updates": [update] });
    for body in [
        update(json!({ "action": "set-location", "location": "s3://lake/cold/other" })),
        update(json!({ "action": "set-location", "location": "s3://lake/cold" })),
        update(json!({ "action": "set-location", "location": "s3://lake/cold/other/../t" })),
        update(json!({ "action": "set-properties",
            "updates": { "write.data.path": "s3://lake/cold/other" } })),
    ] {
        let asked = stub.asked().len();
        let (status, answer) =
            ask(&catalog, Some(&token), "POST", &format!("{path}/t"), body.clone()).await;
        assert_eq!(status, 403, "{body}: {answer}");
        assert_eq!(stub.asked().len(), asked, "it was not passed on");
    }
    let elsewhere = json!({ "name": "new", "location": "s3://lake/cold/other", "schema": {} });
    assert_eq!(ask(&catalog, Some(&token), "POST", path, elsewhere).await.0, 403);
    let own = update(json!({ "action": "set-location", "location": "s3://lake/cold/t" }));
    assert_ne!(ask(&catalog, Some(&token), "POST", &format!("{path}/t"), own).await.0, 403);
}

#[tokio::test]
async fn one_principal_does_not_take_all_places() {
    let access = access(1);
    let catalog = Catalog::guarded(&["a"], None, access.clone()).await;
    let token = |name: &str| access.grant(name, &format!("{name}-secret")).unwrap().token;
    let (reader, admin) = (token("reader"), token("admin"));
    let caller = access.bearer(&reader).await.unwrap();
    let permit = access.enter(&caller).unwrap();
    let request = catalog.request("GET", "/v1/config").bearer_auth(&reader);
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(ask(&catalog, Some(&admin), "GET", "/v1/config", Value::Null).await.0, 200);
    drop(permit);
    assert_eq!(ask(&catalog, Some(&reader), "GET", "/v1/config", Value::Null).await.0, 200);
}
