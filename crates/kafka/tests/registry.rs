//! The registry client against a tiny HTTP server that misbehaves on demand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isk_kafka::{RegisteredSchema, RegistryAuth, RegistryConfig, RegistryError, SchemaRegistry};
use isk_model::{RegistrySchemaId, SchemaFormat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const JSON: &str = "application/vnd.schemaregistry.v1+json";

#[derive(Clone)]
struct Canned {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    after: Duration,
}

fn json(body: impl Into<String>) -> Canned {
    Canned {
        status: 200,
        content_type: JSON,
        body: body.into().into_bytes(),
        after: Duration::ZERO,
    }
}

fn status(status: u16, content_type: &'static str, body: &str) -> Canned {
    Canned { status, content_type, ..json(body) }
}

/// Answers by path; counts and keeps what it was asked.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Canned>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            answers: Arc::default(),
            asked: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let mut part = [0; 4096];
                    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                        match socket.read(&mut part).await {
                            Ok(n) if n > 0 => request.extend_from_slice(&part[..n]),
                            _ => return,
                        }
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    serving.asked.lock().unwrap().push(request);
                    let missing = r#"{"error_code":40403,"message":"Schema not found"}"#;
                    let answer = serving.answers.lock().unwrap().get(&path).cloned();
                    let answer = answer.unwrap_or_else(|| status(404, JSON, missing));
                    tokio::time::sleep(answer.after).await;
                    let head = format!(
                        "HTTP/1.1 {} X\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        answer.status,
                        answer.content_type,
                        answer.body.len()
                    );
                    let _ = socket.write_all(head.as_bytes()).await;
                    let _ = socket.write_all(&answer.body).await;
                });
            }
        });
        server
    }

    fn on(&self, path: &str, answer: Canned) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn off(&self, path: &str) {
        self.answers.lock().unwrap().remove(path);
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn registry(&self) -> SchemaRegistry {
        self.with(|_| {})
    }

    fn with(&self, change: impl FnOnce(&mut RegistryConfig)) -> SchemaRegistry {
        let mut config = RegistryConfig::new(&self.url());
        change(&mut config);
        SchemaRegistry::new(config).unwrap()
    }
}

fn texts(schema: &RegisteredSchema) -> Vec<&str> {
    schema.references.iter().map(|reference| reference.text.as_str()).collect()
}

const ID: RegistrySchemaId = RegistrySchemaId(7);

#[tokio::test]
async fn a_schema_is_read_once_with_its_references_in_order() {
    let server = Server::start().await;
    server.on(
        "/schemas/ids/7",
        json(
            r#"{"schema":"outer","references":[
                {"name":"b","subject":"s b","version":2},{"name":"a","subject":"a","version":1}]}"#,
        ),
    );
    server.on(
        "/subjects/s%20b/versions/2",
        json(
            r#"{"subject":"s b","version":2,"id":3,"schema":"B","schemaType":"AVRO",
                "references":[{"name":"a","subject":"a","version":1}]}"#,
        ),
    );
    server.on("/subjects/a/versions/1", json(r#"{"subject":"a","version":1,"id":1,"schema":"A"}"#));
    let registry = server.registry();
    for _ in 0..3 {
        let schema = registry.schema(ID).await.unwrap().unwrap();
        assert_eq!((schema.text.as_str(), schema.id, schema.version), ("outer", ID, 0));
        assert_eq!(texts(&schema), ["A", "B"]);
    }
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn many_who_ask_for_one_id_at_once_are_one_request() {
    let server = Server::start().await;
    let slow = Duration::from_millis(100);
    server.on("/schemas/ids/7", Canned { after: slow, ..json(r#"{"schema":"\"int\""}"#) });
    let registry = server.registry();
    let asked = (0..100).map(|_| registry.schema(ID));
    for answer in futures::future::join_all(asked).await {
        assert!(answer.unwrap().is_some());
    }
    let unknown = (0..100).map(|_| registry.schema(RegistrySchemaId(8)));
    for answer in futures::future::join_all(unknown).await {
        assert!(answer.unwrap().is_none());
    }
    assert_eq!(server.asked(), 2);
    assert_eq!(registry.metrics().unknown_ids.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_unknown_id_is_asked_for_again_after_a_while() {
    let server = Server::start().await;
    let brief = Duration::from_millis(50);
    let registry = server.with(|c| c.negative_ttl = brief);
    assert!(registry.schema(ID).await.unwrap().is_none());
    assert!(registry.schema(ID).await.unwrap().is_none());
    assert_eq!(server.asked(), 1);
    server.on("/schemas/ids/7", json(r#"{"schema":"\"int\""}"#));
    tokio::time::sleep(brief * 2).await;
    assert!(registry.schema(ID).await.unwrap().is_some());
}

#[tokio::test]
async fn strange_answers_are_errors_that_name_the_url_and_what_came() {
    let html = "<html><body>Welcome to the login page</body></html>";
    for (answer, told) in [
        (status(200, "text/html", html), "login page"),
        (status(404, "text/html", html), "path prefix"),
        (status(404, "application/json", r#"{"error_code":404,"message":"HTTP 404"}"#), "prefix"),
        (status(404, "text/plain", ""), "path prefix"),
        (status(500, "application/json", r#"{"error_code":50001}"#), "50001"),
        (status(503, "text/plain", "upstream gone"), "upstream gone"),
        (json(r#"{"message":"no schema here"}"#), "missing field"),
        (json(r#"{"schema":"#), "EOF"),
        (status(200, JSON, "\u{0}\u{1}"), "it is not what was asked for"),
    ] {
        let server = Server::start().await;
        server.on("/schemas/ids/7", answer);
        let registry = server.registry();
        let error = registry.schema(ID).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RegistryError::Answer { .. }), "{text}");
        assert!(text.contains(told) && text.contains(&server.url()), "{text}");
        assert!(!error.is_deterministic());
        // Not repeated at once.
        assert!(registry.schema(ID).await.is_err());
        assert_eq!(server.asked(), 1);
    }
}

#[tokio::test]
async fn a_slow_or_huge_answer_is_cut_off() {
    let server = Server::start().await;
    let never = Duration::from_secs(60);
    server.on("/schemas/ids/7", Canned { after: never, ..json("{}") });
    let registry = server.with(|c| c.request_timeout = Duration::from_millis(100));
    let error = registry.schema(ID).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("timed out"), "{error}");

    server.on("/schemas/ids/7", json(format!(r#"{{"schema":"{}"}}"#, "x".repeat(100_000))));
    let registry = server.with(|c| c.max_response_bytes = 50_000);
    let error = registry.schema(ID).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 50_000, .. }), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_down_is_named_and_the_next_url_is_tried() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = format!("http://{gone}");
    let registry = SchemaRegistry::new(RegistryConfig::new(&gone)).unwrap();
    let error = registry.schema(ID).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&gone) && text.contains("refused"), "{text}");

    let server = Server::start().await;
    server.on("/apis/ccompat/v7/schemas/ids/7", json(r#"{"schema":"\"int\""}"#));
    let prefix = format!("{}/apis/ccompat/v7/", server.url());
    let registry = server.with(|c| c.urls = vec![gone, prefix]);
    assert!(registry.schema(ID).await.unwrap().is_some());
    assert!(registry.schema(RegistrySchemaId(8)).await.unwrap().is_none());
    // The second time it begins with the one that answered.
    assert_eq!(registry.metrics().requests.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let server = Server::start().await;
    let basic = |c: &mut RegistryConfig| {
        c.auth = RegistryAuth::Basic { user: "me".into(), password: "hunter2".into() };
    };
    server.with(basic).schema(ID).await.unwrap();
    server.with(|c| c.auth = RegistryAuth::Bearer("hunter2".into())).schema(ID).await.unwrap();
    let with_user = server.url().replace("http://", "http://me:hunter2@");
    server.with(|c| c.urls = vec![with_user.clone()]).schema(ID).await.unwrap();
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked[0].contains("authorization: Basic bWU6aHVudGVyMg=="), "{}", asked[0]);
    assert!(asked[1].contains("authorization: Bearer hunter2"), "{}", asked[1]);
    assert!(asked[2].contains("authorization: Basic bWU6aHVudGVyMg=="), "{}", asked[2]);

    server.on("/schemas/ids/7", status(401, JSON, r#"{"error_code":40101}"#));
    let error = server.with(|c| c.urls = vec![with_user]).schema(ID).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { status: 401, .. }), "{error}");
    assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"));
    let config = RegistryConfig {
        auth: RegistryAuth::Bearer("hunter2".into()),
        ..RegistryConfig::new("http://me:hunter2@host")
    };
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn other_kinds_of_schemas_and_broken_references_stay_as_they_are() {
    let server = Server::start().await;
    server.on("/schemas/ids/7", json(r#"{"schema":"{}","schemaType":"THRIFT"}"#));
    let error = server.registry().schema(ID).await.unwrap_err();
    assert!(error.is_deterministic() && error.to_string().contains("THRIFT"), "{error}");

    let reference = r#"{"name":"a","subject":"a","version":1}"#;
    server.on("/schemas/ids/7", json(format!(r#"{{"schema":"x","references":[{reference}]}}"#)));
    let error = server.registry().schema(ID).await.unwrap_err();
    assert!(matches!(error, RegistryError::References { .. }), "{error}");

    // A circle ends.
    let circle =
        format!(r#"{{"subject":"a","version":1,"id":1,"schema":"A","references":[{reference}]}}"#);
    server.on("/subjects/a/versions/1", json(circle));
    let schema = server.registry().schema(ID).await.unwrap().unwrap();
    assert_eq!(texts(&schema), ["A"]);
}

#[tokio::test]
async fn references_of_json_schemas_keep_their_names() {
    let server = Server::start().await;
    server.on(
        "/schemas/ids/7",
        json(
            r#"{"schema":"{}","schemaType":"JSON","references":[
                {"name":"a.json","subject":"a","version":1},
                {"name":"http://x/a.json","subject":"a","version":1}]}"#,
        ),
    );
    let version =
        |kind| json(format!(r#"{{"version":1,"id":1,"schema":"A","schemaType":"{kind}"}}"#));
    server.on("/subjects/a/versions/1", version("JSON"));
    let schema = server.registry().schema(ID).await.unwrap().unwrap();
    assert_eq!(schema.format, SchemaFormat::Json);
    let names: Vec<_> = schema.references.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["a.json", "http://x/a.json"]);

    // What is of another kind cannot be referred to.
    server.on("/subjects/a/versions/1", version("AVRO"));
    let error = server.registry().schema(ID).await.unwrap_err();
    assert!(error.is_deterministic() && error.to_string().contains("AVRO"), "{error}");
}

#[tokio::test]
async fn a_subjects_history_is_read_once_and_then_only_what_is_new() {
    let server = Server::start().await;
    let version = |v: u32| {
        json(format!(r#"{{"subject":"t-value","version":{v},"id":{},"schema":"S{v}"}}"#, 100 + v))
    };
    let brief = Duration::from_millis(1);
    let registry = server.with(|c| c.subject_ttl = brief);
    assert_eq!(registry.subject_history("t-value").await.unwrap(), []);

    server.on("/subjects/t-value/versions", json("[1,3]"));
    server.on("/subjects/t-value/versions/1", version(1));
    server.on("/subjects/t-value/versions/3", version(3));
    tokio::time::sleep(brief * 5).await;
    let history = registry.subject_history("t-value").await.unwrap();
    let seen: Vec<_> = history.iter().map(|s| (s.version, s.id.0, s.text.as_str())).collect();
    assert_eq!(seen, [(1, 101, "S1"), (3, 103, "S3")]);

    let before = server.asked();
    server.on("/subjects/t-value/versions", json("[1,3,4]"));
    server.on("/subjects/t-value/versions/4", version(4));
    tokio::time::sleep(brief * 5).await;
    assert_eq!(registry.subject_history("t-value").await.unwrap().len(), 3);
    assert_eq!(server.asked() - before, 2);

    // One is deleted, and one between the list and the read.
    server.on("/subjects/t-value/versions", json("[3,4,5]"));
    tokio::time::sleep(brief * 5).await;
    let history = registry.subject_history("t-value").await.unwrap();
    assert_eq!(history.iter().map(|s| s.version).collect::<Vec<_>>(), [3, 4]);

    server.off("/subjects/t-value/versions");
    tokio::time::sleep(brief * 5).await;
    assert_eq!(registry.subject_history("t-value").await.unwrap(), []);
}

#[tokio::test]
async fn a_fresh_history_is_not_asked_for_again() {
    let server = Server::start().await;
    server.on("/subjects/t-value/versions", json("[]"));
    let registry = server.with(|c| c.subject_ttl = Duration::from_secs(60));
    let asked = (0..50).map(|_| registry.subject_history("t-value"));
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap(), []);
    }
    assert_eq!(server.asked(), 1);
}

/// In a context ids, subjects and references are those of the context: it is a part of the URL, or of a subject's name.
#[tokio::test]
async fn a_context_is_a_part_of_the_url_or_of_a_subjects_name() {
    let server = Server::start().await;
    let outside = json(r#"{"schema":"OUTSIDE"}"#);
    server.on("/schemas/ids/7", outside);
    for subject in ["/contexts/.lab/subjects/t-value", "/subjects/:.lab:t-value"] {
        server.on(&format!("{subject}/versions"), json("[1]"));
        let version = r#"{"subject":":.lab:t-value","version":1,"id":7,"schema":"S",
            "references":[{"name":"n","subject":":.lab:n-value","version":2}]}"#;
        server.on(&format!("{subject}/versions/1"), json(version));
    }
    for context in ["", "/contexts/.lab"] {
        let reference = r#"{"subject":":.lab:n-value","version":2,"id":8,"schema":"N"}"#;
        server.on(&format!("{context}/subjects/:.lab:n-value/versions/2"), json(reference));
    }
    server.on("/contexts/.lab/schemas/ids/7", json(r#"{"schema":"INSIDE"}"#));

    let inside =
        SchemaRegistry::new(RegistryConfig::new(&format!("{}/contexts/.lab", server.url())));
    let inside = inside.unwrap();
    assert_eq!(inside.schema(ID).await.unwrap().unwrap().text, "INSIDE");
    for (registry, subject) in [(inside, "t-value"), (server.registry(), ":.lab:t-value")] {
        let history = registry.subject_history(subject).await.unwrap();
        let seen: Vec<_> = history.iter().map(|s| (s.id.0, s.text.as_str(), texts(s))).collect();
        assert_eq!(seen, [(7, "S", vec!["N"])], "{subject}");
    }
}
