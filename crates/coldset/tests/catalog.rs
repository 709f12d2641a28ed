//! The catalog client against scripted upstreams, sane and otherwise.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Answer, Asked, Stub, error, json, with};
use http::{HeaderMap, Method};
use isk_coldset::{AccessKeys, ColdsetConfig, ColdsetError, Upstream, UpstreamAuth};
use isk_outbound::{Secret, SecretFile};

const CONFIG: &str = r#"{"defaults":{},"overrides":{"prefix":"main%2Fx"}}"#;
const TABLES: &str = "/v1/main%2Fx/namespaces/lake%1Fcold/tables";

fn config(stub: &Stub) -> ColdsetConfig {
    ColdsetConfig {
        namespace: "lake.cold".into(),
        request_timeout: Duration::from_secs(5),
        ..ColdsetConfig::new(&stub.url)
    }
}

fn upstream(stub: &Stub) -> Upstream {
    Upstream::new(&config(stub)).unwrap()
}

/// An upstream whose configuration is as it should be.
async fn stub(script: impl Fn(&Asked, usize) -> Answer + Send + Sync + 'static) -> Stub {
    Stub::start(move |asked, before| match asked.path() {
        "/v1/config" => json(200, CONFIG),
        _ => script(asked, before),
    })
    .await
}

fn table(version: u32) -> String {
    format!(
        r#"{{"metadata-location":"s3://b/t/v{version}.metadata.json",
            "metadata": {{"location": "s3://b/t",  "n":{version}}},
            "config":{{"s3.secret-access-key":"hunter2"}}}}"#
    )
}

#[tokio::test]
async fn a_listing_goes_through_all_pages_under_the_prefix() {
    let stub = stub(|asked, _| match asked.target.split("pageToken=").nth(1) {
        Some("") => json(
            200,
            r#"{"next-page-token":"a b&","identifiers":[{"namespace":["x"],"name":"zebra"}]}"#,
        ),
        Some("a+b%26") => json(
            200,
            r#"{"identifiers":[{"namespace":["x"],"name":"ant"},{"namespace":["x"],"name":"zebra"}]}"#,
        ),
        other => panic!("page {other:?}"),
    })
    .await;
    let upstream = upstream(&stub);
    assert_eq!(upstream.tables().await.unwrap(), ["ant", "zebra"]);
    assert_eq!(upstream.tables().await.unwrap(), ["ant", "zebra"]);
    assert_eq!(stub.count(TABLES), 4);
    assert_eq!(stub.count("/v1/config"), 1);
}

#[tokio::test]
async fn a_page_token_that_comes_back_ends_the_listing_with_an_error() {
    let stub = stub(|_, _| json(200, r#"{"next-page-token":"x","identifiers":[]}"#)).await;
    let error = upstream(&stub).tables().await.unwrap_err();
    assert!(matches!(error, ColdsetError::Unreadable { .. }), "{error}");
    assert!(stub.count(TABLES) <= 3);
}

#[tokio::test]
async fn a_configured_prefix_and_warehouse_are_used() {
    let stub = Stub::start(|asked, _| match asked.path() {
        "/api/v1/config" => {
            assert_eq!(asked.target, "/api/v1/config?warehouse=s3%3A%2F%2Fw%2Fa+b");
            json(200, r#"{"overrides":{"prefix":"theirs"},"endpoints":["GET /v1/{prefix}/x"]}"#)
        }
        "/api/v1/ours/namespaces/lake%1Fcold/tables" => json(200, r#"{"identifiers":[]}"#),
        other => panic!("{other}"),
    })
    .await;
    let mut config = config(&stub);
    config.uri = format!("{}/api/v1/", stub.url);
    config.prefix = Some("ours".into());
    config.warehouse = Some("s3://w/a b".into());
    config.headers.insert("x-tenant".into(), "me".into());
    let upstream = Upstream::new(&config).unwrap();
    assert!(upstream.tables().await.unwrap().is_empty());
    assert_eq!(upstream.endpoints().await.unwrap(), Some(vec!["GET /v1/{prefix}/x".into()]));
    upstream.ready().await.unwrap();
    assert_eq!(stub.count("/api/v1/config"), 2, "ready asks anew, the others do not");
    assert!(stub.asked().iter().all(|asked| asked.header("x-tenant") == "me"));
}

#[tokio::test]
async fn what_is_missing_is_told_from_what_is_wrong() {
    let stub = stub(|asked, _| match asked.path().rsplit('/').next().unwrap() {
        "tables" => error(404, "NoSuchNamespaceException", "Namespace does not exist: lake.cold"),
        "gone" => error(404, "NoSuchTableException", "Table does not exist"),
        "general" => error(404, "NotFoundException", "The specified table does not exist"),
        "elsewhere" => error(404, "NotFoundException", "Unable to find warehouse main"),
        "proxy" => with(404, &[("content-type", "text/html")], "<html>no such page</html>"),
        "denied" => error(403, "ForbiddenException", "Principal lacks TABLE_LOAD"),
        other => panic!("{other}"),
    })
    .await;
    let upstream = upstream(&stub);
    assert!(upstream.tables().await.unwrap().is_empty());
    for table in ["gone", "general"] {
        let error = upstream.load_table(table).await.unwrap_err();
        assert_eq!(error, ColdsetError::NoSuchTable(format!("lake.cold.{table}")));
        assert!(!upstream.table_exists(table).await.unwrap());
    }
    for (table, word) in
        [("elsewhere", "coldset.warehouse"), ("proxy", "no such page"), ("denied", "TABLE_LOAD")]
    {
        let error = upstream.load_table(table).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(matches!(
        upstream.table_exists("denied").await,
        Err(ColdsetError::Refused { status: 403, .. })
    ));
}

#[tokio::test]
async fn a_table_is_asked_for_each_time_and_kept_while_it_does_not_change() {
    let stub = stub(|asked, before| match before {
        0 => with(200, &[("etag", "\"e1\"")], table(1)),
        1 => {
            assert_eq!(asked.header("if-none-match"), "\"e1\"");
            with(304, &[], "")
        }
        2 => json(200, &table(1)),
        3 => json(200, &table(2)),
        _ => error(404, "NoSuchTableException", "gone"),
    })
    .await;
    let upstream = upstream(&stub);
    let mut tables = Vec::new();
    for _ in 0..4 {
        tables.push(upstream.load_table("a b").await.unwrap());
    }
    assert_eq!(tables[0].metadata_location, "s3://b/t/v1.metadata.json");
    assert_eq!(tables[0].location, "s3://b/t");
    assert_eq!(&tables[0].metadata[..], br#"{"location": "s3://b/t",  "n":1}"#);
    assert!(Arc::ptr_eq(&tables[0], &tables[1]) && Arc::ptr_eq(&tables[0], &tables[2]));
    assert_eq!(tables[3].metadata_location, "s3://b/t/v2.metadata.json");
    assert!(matches!(upstream.load_table("a b").await, Err(ColdsetError::NoSuchTable(_))));
    assert_eq!(stub.count(&format!("{TABLES}/a%20b")), 5);
}

#[tokio::test]
async fn a_304_nobody_asked_for_is_no_table() {
    let stub = stub(|_, _| with(304, &[], "")).await;
    assert!(upstream(&stub).load_table("t").await.is_err());
}

#[tokio::test]
async fn head_may_be_unknown_to_the_upstream() {
    let stub = stub(|asked, _| match (asked.method.as_str(), asked.path().ends_with("/there")) {
        ("HEAD", _) => with(405, &[], ""),
        (_, true) => json(200, &table(1)),
        (_, false) => error(404, "NoSuchTableException", "gone"),
    })
    .await;
    let upstream = upstream(&stub);
    assert!(upstream.table_exists("there").await.unwrap());
    assert!(!upstream.table_exists("gone").await.unwrap());
}

#[tokio::test]
async fn answers_that_are_no_catalogs_are_named_and_leak_nothing() {
    let stub = stub(|asked, _| match asked.path().rsplit('/').next().unwrap() {
        "html" => with(200, &[("content-type", "text/html")], "<html>Sign in</html>"),
        "moved" => with(302, &[("location", "https://login.example/")], ""),
        "half" => json(200, r#"{"metadata":{"location":"s3://b/t"},"config":{"s":"hunter2"}}"#),
        "broken" => json(200, r#"{"config":{"s":"hunter2"},"metadata":"#),
        other => panic!("{other}"),
    })
    .await;
    let upstream = upstream(&stub);
    for (table, word) in [
        ("html", "Sign in"),
        ("moved", "https://login.example/"),
        ("half", "metadata location"),
        ("broken", "bytes of JSON"),
    ] {
        let error = upstream.load_table(table).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Unreadable { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(word) && text.contains(&stub.url), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_busy_or_down_is_unavailable() {
    let stub = stub(|asked, before| match asked.path().rsplit('/').next().unwrap() {
        "once" if before == 0 => with(503, &[("retry-after", "0")], "<html>busy</html>"),
        "once" => json(200, &table(1)),
        "always" => with(429, &[("retry-after", "0")], "{}"),
        "later" => with(503, &[("retry-after", "3600")], "{}"),
        "broken" => error(500, "InternalServerError", "oops"),
        other => panic!("{other}"),
    })
    .await;
    let upstream = upstream(&stub);
    upstream.load_table("once").await.unwrap();
    for (table, times) in [("always", 3), ("later", 1), ("broken", 1)] {
        let error = upstream.load_table(table).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
        assert_eq!(stub.count(&format!("{TABLES}/{table}")), times, "{table}");
    }
    let gone = {
        let gone = Stub::start(|_, _| json(200, "{}")).await;
        config(&gone)
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    let error = Upstream::new(&gone).unwrap().ready().await.unwrap_err();
    assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("coldset.uri"), "{error}");
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let mut config = ColdsetConfig::new(&uri);
    config.request_timeout = Duration::from_millis(200);
    let upstream = Upstream::new(&config).unwrap();
    let error =
        tokio::time::timeout(Duration::from_secs(3), upstream.tables()).await.unwrap().unwrap_err();
    assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
}

/// What may be done with a request passed on, and what may not.
#[tokio::test]
async fn pass_changes_nothing_but_who_asks() {
    let stub = stub(|asked, _| match asked.path().rsplit('/').next().unwrap() {
        "t" => with(
            409,
            &[
                ("content-type", "application/json"),
                ("x-thing", "kept"),
                ("set-cookie", "s=1"),
                ("connection", "x-private"),
                ("x-private", "1"),
            ],
            r#"{"error":{"message":"stale","type":"CommitFailedException","code":409}}"#,
        ),
        "html" => with(502, &[], "<html>bad gateway</html>"),
        "empty" => with(204, &[], ""),
        "busy" => with(503, &[("retry-after", "0")], "{}"),
        other => panic!("{other}"),
    })
    .await;
    let mut config = config(&stub);
    config.auth = UpstreamAuth::Bearer("ours".into());
    let upstream = Upstream::new(&config).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer theirs".parse().unwrap());
    headers.insert("cookie", "c=1".parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    headers.insert("idempotency-key", "k".parse().unwrap());
    let path = format!("namespaces/{}/tables/t", upstream.namespace_segment());
    let body = Bytes::from_static(br#"{"updates":[]}"#);
    let answer =
        upstream.pass(Method::POST, &path, Some("a=b%20c"), &headers, body.clone()).await.unwrap();
    assert_eq!(answer.status(), 409);
    assert!(answer.body().starts_with(br#"{"error":{"message":"stale""#));
    assert_eq!(answer.headers()["x-thing"], "kept");
    for gone in ["set-cookie", "x-private", "connection", "content-length"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let asked = stub.asked().pop().unwrap();
    assert_eq!(asked.target, format!("{TABLES}/t?a=b%20c"));
    assert_eq!((asked.method, asked.body), (Method::POST, body));
    assert_eq!(asked.headers["authorization"], "Bearer ours");
    assert_eq!(asked.headers["idempotency-key"], "k");
    assert!(!asked.headers.contains_key("cookie"));

    let pass = |method: Method, path: &'static str, body: Bytes| {
        let (upstream, none) = (upstream.clone(), HeaderMap::new());
        async move { upstream.pass(method, path, None, &none, body).await }
    };
    let error = pass(Method::GET, "html", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
    assert_eq!(pass(Method::DELETE, "empty", Bytes::new()).await.unwrap().status(), 204);
    let busy = "/v1/main%2Fx/busy";
    assert_eq!(pass(Method::POST, "busy", Bytes::new()).await.unwrap().status(), 503);
    assert_eq!(stub.count(busy), 1, "a POST is not repeated");
    assert_eq!(pass(Method::GET, "busy", Bytes::new()).await.unwrap().status(), 503);
    assert_eq!(stub.count(busy), 4, "a GET is");
    let big = Bytes::from(vec![b' '; (32 << 20) + 1]);
    let before = stub.asked().len();
    for (path, body) in [("t", big), ("../t", Bytes::new()), ("a/%2e%2e/t", Bytes::new())] {
        let error = pass(Method::POST, path, body).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Refused { .. }), "{error}");
    }
    assert_eq!(stub.asked().len(), before, "what is refused is not sent");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let stub = stub(|_, _| {
        let piece = Bytes::from(vec![b'x'; 1 << 20]);
        let endless = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
        with(200, &[], axum::body::Body::from_stream(endless))
    })
    .await;
    let error = upstream(&stub).load_table("t").await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

fn oauth(stub: &Stub) -> ColdsetConfig {
    let auth = UpstreamAuth::OAuth2 {
        token_uri: None,
        credential: "id:hunter2&".into(),
        scope: None,
        audience: Some("the lake".into()),
        resource: Some("urn:lake".into()),
    };
    ColdsetConfig { auth, ..config(stub) }
}

const TOKENS: &str = "/v1/oauth/tokens";

#[tokio::test]
async fn one_token_serves_many_requests_until_it_is_refused() {
    let stub = Stub::start(|asked, before| match asked.path() {
        TOKENS => {
            assert_eq!(asked.method, Method::POST);
            assert_eq!(
                &asked.body[..],
                b"grant_type=client_credentials&client_id=id&client_secret=hunter2%26&scope=catalog\
                    &audience=the+lake&resource=urn%3Alake"
            );
            json(200, &format!(r#"{{"access_token":"t{before}","expires_in":3600}}"#))
        }
        "/v1/config" => json(200, CONFIG),
        // The first token is revoked after three listings.
        TABLES if before >= 3 && asked.header("authorization") == "Bearer t0" => {
            error(401, "NotAuthorizedException", "revoked")
        }
        TABLES => json(200, r#"{"identifiers":[]}"#),
        other => panic!("{other}"),
    })
    .await;
    let upstream = Upstream::new(&oauth(&stub)).unwrap();
    for _ in 0..3 {
        upstream.tables().await.unwrap();
    }
    assert_eq!(stub.count(TOKENS), 1);
    let (a, b, c) = tokio::join!(upstream.tables(), upstream.tables(), upstream.tables());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(stub.count(TOKENS), 2, "three refusals of one token fetch one token");
    assert_eq!(stub.asked().pop().unwrap().header("authorization"), "Bearer t1");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let stub = Stub::start(|asked, before| match asked.path() {
        TOKENS => json(200, &format!(r#"{{"access_token":"t{before}","expires_in":1}}"#)),
        "/v1/config" => json(200, CONFIG),
        _ => json(200, r#"{"identifiers":[]}"#),
    })
    .await;
    let upstream = Upstream::new(&oauth(&stub)).unwrap();
    upstream.tables().await.unwrap();
    assert_eq!(stub.count(TOKENS), 1);
    // A tenth of its life early.
    tokio::time::sleep(Duration::from_millis(930)).await;
    upstream.tables().await.unwrap();
    assert_eq!(stub.count(TOKENS), 2);
}

#[tokio::test]
async fn a_refused_login_is_said_once_and_without_the_secret() {
    let stub = Stub::start(|asked, _| match asked.path() {
        TOKENS => json(401, r#"{"error":"invalid_client","echo":"hunter2&"}"#),
        _ => panic!("nothing may be asked without a token"),
    })
    .await;
    let error = Upstream::new(&oauth(&stub)).unwrap().ready().await.unwrap_err();
    assert!(matches!(error, ColdsetError::Refused { status: 401, .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("invalid_client") && text.contains("coldset.credential"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(stub.count(TOKENS), 1);
}

#[tokio::test]
async fn a_401_that_stays_is_refused_after_one_more_try() {
    let stub = Stub::start(|asked, _| match asked.path() {
        TOKENS => json(200, r#"{"access_token":"t"}"#),
        _ => error(401, "NotAuthorizedException", "no"),
    })
    .await;
    let error = Upstream::new(&oauth(&stub)).unwrap().ready().await.unwrap_err();
    assert!(matches!(error, ColdsetError::Refused { status: 401, .. }), "{error}");
    assert_eq!((stub.count(TOKENS), stub.count("/v1/config")), (2, 2));
}

#[tokio::test]
async fn signed_requests_carry_a_signature_and_no_secret() {
    let stub = stub(|_, _| json(200, r#"{"identifiers":[]}"#)).await;
    let mut config = config(&stub);
    config.auth = UpstreamAuth::SigV4 {
        region: "eu-west-1".into(),
        name: "s3tables".into(),
        keys: AccessKeys {
            id: "AKID".into(),
            secret: "hunter2".into(),
            session_token: Some("session".into()),
        },
    };
    Upstream::new(&config).unwrap().tables().await.unwrap();
    for asked in stub.asked() {
        let signature = asked.header("authorization");
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{signature}");
        assert!(signature.contains("/eu-west-1/s3tables/aws4_request"), "{signature}");
        assert_eq!(asked.header("x-amz-security-token"), "session");
        assert!(!format!("{asked:?}").contains("hunter2"));
    }
    assert_eq!(stub.asked().len(), 2);
}

#[tokio::test]
async fn a_token_is_what_its_file_says_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one").unwrap();
    let file = path.clone();
    let stub = stub(move |asked, _| match asked.header("authorization") {
        // It is revoked while it is shown, and its file is renewed.
        "Bearer two" => {
            std::fs::write(&file, "three").unwrap();
            error(401, "NotAuthorizedException", "revoked")
        }
        _ => json(200, r#"{"identifiers":[]}"#),
    })
    .await;
    let token = Secret::File(SecretFile::open(&path).unwrap());
    let config = ColdsetConfig { auth: UpstreamAuth::Bearer(token), ..config(&stub) };
    let upstream = Upstream::new(&config).unwrap();
    upstream.tables().await.unwrap();
    std::fs::write(&path, "two").unwrap();
    upstream.tables().await.unwrap();
    let shown = stub.asked().into_iter().filter(|asked| asked.path() == TABLES);
    let shown = shown.map(|asked| asked.header("authorization").to_owned()).collect::<Vec<_>>();
    assert_eq!(shown, ["Bearer one", "Bearer two", "Bearer three"]);

    std::fs::write(&path, "no\nheader").unwrap();
    let error = upstream.tables().await.unwrap_err();
    assert!(matches!(error, ColdsetError::Config { .. }), "{error}");
    assert!(!error.to_string().contains("no\nheader"), "{error}");
}

#[tokio::test]
async fn a_renewed_credential_gets_a_token_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credential");
    std::fs::write(&path, "id:one").unwrap();
    let file = path.clone();
    let stub = Stub::start(move |asked, _| match asked.path() {
        TOKENS => {
            let form = String::from_utf8(asked.body.to_vec()).unwrap();
            if form.contains("client_secret=two") {
                // It is revoked while it is shown, and its file is renewed.
                std::fs::write(&file, "id:three").unwrap();
                return json(401, r#"{"error":"invalid_client"}"#);
            }
            let token = if form.contains("client_secret=one") { "t1" } else { "t3" };
            json(200, &format!(r#"{{"access_token":"{token}","expires_in":3600}}"#))
        }
        "/v1/config" => json(200, CONFIG),
        _ => json(200, r#"{"identifiers":[]}"#),
    })
    .await;
    let mut config = oauth(&stub);
    let UpstreamAuth::OAuth2 { credential, .. } = &mut config.auth else { panic!() };
    *credential = Secret::File(SecretFile::open(&path).unwrap());
    let upstream = Upstream::new(&config).unwrap();
    upstream.tables().await.unwrap();
    upstream.tables().await.unwrap();
    assert_eq!(stub.count(TOKENS), 1);
    std::fs::write(&path, "id:two").unwrap();
    upstream.tables().await.unwrap();
    assert_eq!(stub.count(TOKENS), 3);
    assert_eq!(stub.asked().pop().unwrap().header("authorization"), "Bearer t3");
}

#[tokio::test]
async fn a_token_holds_while_the_provider_does_not_know_the_new_credential() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("credential");
    std::fs::write(&path, "id:one").unwrap();
    let stub = Stub::start(|asked, before| match asked.path() {
        TOKENS if before == 1 => json(401, r#"{"error":"invalid_client"}"#),
        TOKENS => json(200, &format!(r#"{{"access_token":"t{before}","expires_in":3600}}"#)),
        "/v1/config" => json(200, CONFIG),
        _ => json(200, r#"{"identifiers":[]}"#),
    })
    .await;
    let mut config = oauth(&stub);
    let UpstreamAuth::OAuth2 { credential, .. } = &mut config.auth else { panic!() };
    *credential = Secret::File(SecretFile::open(&path).unwrap());
    let upstream = Upstream::new(&config).unwrap();
    upstream.tables().await.unwrap();
    std::fs::write(&path, "id:two").unwrap();
    for _ in 0..3 {
        upstream.tables().await.unwrap();
        assert_eq!(stub.asked().pop().unwrap().header("authorization"), "Bearer t0");
    }
    assert_eq!(stub.count(TOKENS), 2, "the provider is left in peace for a while");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    upstream.tables().await.unwrap();
    assert_eq!(stub.asked().pop().unwrap().header("authorization"), "Bearer t2");
    assert_eq!(stub.count(TOKENS), 3);
}

#[tokio::test]
async fn a_token_that_is_not_renewed_holds_until_it_is_over() {
    let stub = Stub::start(|asked, before| match asked.path() {
        TOKENS if before == 0 => json(200, r#"{"access_token":"t","expires_in":5}"#),
        TOKENS => json(503, "{}"),
        "/v1/config" => json(200, CONFIG),
        _ => json(200, r#"{"identifiers":[]}"#),
    })
    .await;
    let upstream = Upstream::new(&oauth(&stub)).unwrap();
    upstream.tables().await.unwrap();
    tokio::time::sleep(Duration::from_millis(4600)).await;
    upstream.tables().await.unwrap();
    assert_eq!(stub.count(TOKENS), 2);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let error = upstream.tables().await.unwrap_err();
    assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn who_waits_for_a_silent_provider_waits_once() {
    let stub = Stub::start(|asked, _| match asked.path() {
        TOKENS => {
            let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
            with(200, &[], axum::body::Body::from_stream(never))
        }
        _ => panic!("nothing may be asked without a token"),
    })
    .await;
    let mut config = oauth(&stub);
    config.request_timeout = Duration::from_millis(500);
    let upstream = Upstream::new(&config).unwrap();
    let begun = std::time::Instant::now();
    let (a, b, c) = tokio::join!(upstream.ready(), upstream.ready(), upstream.ready());
    for asked in [a, b, c] {
        let error = asked.unwrap_err();
        assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_millis(1000), "{:?}", begun.elapsed());
    assert_eq!(stub.count(TOKENS), 1);
}
