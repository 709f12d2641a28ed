//! The lake over HTTP: what catalog clients and file readers go by.

use std::path::Path;

use isk_embedded::{EmbeddedLake, LakeConfig};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::any_port;
use super::signer::Signer;

struct Lake {
    lake: EmbeddedLake,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Lake {
    async fn start() -> Self {
        Self::bounded(4 << 30).await
    }

    async fn bounded(max_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = LakeConfig {
            listen: any_port(),
            max_bytes,
            ..LakeConfig::new(folder.path().to_owned())
        };
        let lake = EmbeddedLake::start(config).await.unwrap();
        Self { lake, client: super::http_client(), folder }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}/v1{path}", self.lake.uri());
        let mut request = self.client.request(method.parse().unwrap(), url);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }

    async fn with_table(&self) -> Value {
        let namespace = json!({ "namespace": ["n"], "properties": { "owner": "me" } });
        assert_eq!(self.call("POST", "/namespaces", namespace.clone()).await, (200, namespace));
        let (status, created) = self.call("POST", "/namespaces/n/tables", creation("t")).await;
        assert_eq!(status, 200, "{created}");
        created
    }

    /// A signed request to the store.
    async fn object(
        &self,
        method: &str,
        key: &str,
        headers: &[(&str, &str)],
        body: &'static [u8],
    ) -> reqwest::Response {
        let (path, query) = key.split_once('?').unwrap_or((key, ""));
        let path = &path.replace("%2F", "/");
        let host = self.lake.addr().to_string();
        let signer = Signer::new(self.lake.access_key_id(), self.lake.secret_access_key());
        let url = format!("{}{key}", self.lake.uri());
        let mut request = self.client.request(method.parse().unwrap(), url).body(body);
        for (name, value) in signer.headers(method, &host, path, query, headers) {
            request = request.header(name, value);
        }
        request.send().await.unwrap()
    }
}

fn schema() -> Value {
    json!({ "type": "struct", "schema-id": 0, "fields": [
        { "id": 1, "name": "kafka_partition", "required": false, "type": "int" },
        { "id": 2, "name": "kafka_offset", "required": false, "type": "long" },
        { "id": 3, "name": "headers", "required": false, "type":
            { "type": "list", "element-id": 4, "element-required": false, "element": "string" } },
    ] })
}

fn creation(name: &str) -> Value {
    json!({ "name": name, "schema": schema(), "properties": { "a": "b" } })
}

fn snapshot(id: i64, parent: Option<i64>, sequence: i64) -> Value {
    let mut snapshot = json!({
        "snapshot-id": id, "sequence-number": sequence, "timestamp-ms": now_ms(),
        "manifest-list": format!("s3://lake/n/t/metadata/snap-{id}.avro"),
        "summary": { "operation": "append" }, "schema-id": 0,
    });
    if let Some(parent) = parent {
        snapshot["parent-snapshot-id"] = json!(parent);
    }
    snapshot
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// An append on top of `parent`.
fn append(id: i64, parent: Option<i64>, sequence: i64) -> Value {
    json!({
        "requirements": [{ "type": "assert-ref-snapshot-id", "ref": "main", "snapshot-id": parent }],
        "updates": [
            { "action": "add-snapshot", "snapshot": snapshot(id, parent, sequence) },
            { "action": "set-snapshot-ref", "ref-name": "main", "type": "branch", "snapshot-id": id },
        ],
    })
}

/// The file of a metadata location, as it lies in the lake's folder.
fn written(folder: &Path, location: &Value) -> Value {
    let path = location.as_str().unwrap().strip_prefix("s3://").unwrap();
    serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap()
}

fn kind(answer: &Value) -> &str {
    answer["error"]["type"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[tokio::test]
async fn a_table_is_created_loaded_and_dropped() {
    let lake = Lake::start().await;
    let created = lake.with_table().await;
    let (status, loaded) = lake.get("/namespaces/n/tables/t").await;
    assert_eq!((status, &loaded), (200, &created));
    assert_eq!(loaded["metadata"]["location"], "s3://lake/n/t");
    assert_eq!(loaded["metadata"]["format-version"], 2);
    assert_eq!(loaded["metadata"]["properties"], json!({ "a": "b" }));
    assert_eq!(written(lake.folder.path(), &loaded["metadata-location"]), loaded["metadata"]);
    for config in [&loaded["config"], &loaded["storage-credentials"][0]["config"]] {
        assert_eq!(config["s3.endpoint"], lake.lake.uri());
        assert_eq!(config["s3.access-key-id"], lake.lake.access_key_id());
        assert_eq!(config["s3.secret-access-key"], lake.lake.secret_access_key());
    }
    assert_eq!(loaded["storage-credentials"][0]["prefix"], "s3://lake/n/t");
    let tables = json!({ "identifiers": [{ "namespace": ["n"], "name": "t" }] });
    assert_eq!(lake.get("/namespaces/n/tables").await, (200, tables));
    assert_eq!(lake.call("HEAD", "/namespaces/n/tables/t", Value::Null).await.0, 204);
    let purge = "/namespaces/n/tables/t?purgeRequested=True";
    assert!(lake.folder.path().join("lake/n/t").exists());
    assert_eq!(lake.call("DELETE", purge, Value::Null).await, (204, Value::Null));
    assert!(!lake.folder.path().join("lake/n/t").exists());
    assert_eq!(lake.call("HEAD", "/namespaces/n/tables/t", Value::Null).await.0, 404);
    assert_eq!(kind(&lake.get("/namespaces/n/tables/t").await.1), "NoSuchTableException");
}

#[tokio::test]
async fn a_commit_happens_once_and_whole() {
    let lake = Lake::start().await;
    let created = lake.with_table().await;
    let table = "/namespaces/n/tables/t";
    let (status, first) = lake.call("POST", table, append(7, None, 1)).await;
    assert_eq!(status, 200, "{first}");
    assert_ne!(first["metadata-location"], created["metadata-location"]);
    let log = first["metadata"]["metadata-log"].as_array().unwrap();
    assert_eq!(log[0]["metadata-file"], created["metadata-location"]);
    // The same parent once more: somebody was quicker.
    let (status, refused) = lake.call("POST", table, append(8, None, 1)).await;
    assert_eq!((status, kind(&refused)), (409, "CommitFailedException"), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("n.t"), "{refused}");
    // A good update beside a bad one changes nothing.
    let mut half = append(9, Some(7), 2);
    half["updates"].as_array_mut().unwrap().push(json!({
        "action": "set-current-schema", "schema-id": 77
    }));
    let (status, refused) = lake.call("POST", table, half).await;
    assert_eq!((status, kind(&refused)), (400, "BadRequestException"), "{refused}");
    assert_eq!(lake.get(table).await.1, first);
    let (status, second) = lake.call("POST", table, append(9, Some(7), 2)).await;
    assert_eq!((status, &second["metadata"]["current-snapshot-id"]), (200, &json!(9)));
    assert_eq!(written(lake.folder.path(), &second["metadata-location"]), second["metadata"]);
    assert_eq!(lake.get(table).await.1["metadata"], second["metadata"]);
}

#[tokio::test]
async fn of_two_commits_at_once_one_fails() {
    let lake = Lake::start().await;
    lake.with_table().await;
    let table = "/namespaces/n/tables/t";
    let commits = (1..=8).map(|id| lake.call("POST", table, append(id, None, 1)));
    let mut statuses: Vec<u16> = Vec::new();
    for (status, _) in futures::future::join_all(commits).await {
        statuses.push(status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    let (_, loaded) = lake.get(table).await;
    assert_eq!(loaded["metadata"]["snapshots"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn commits_to_several_tables_happen_together() {
    let lake = Lake::start().await;
    lake.with_table().await;
    assert_eq!(lake.call("POST", "/namespaces/n/tables", creation("u")).await.0, 200);
    let change = |table: &str, mut commit: Value| {
        commit["identifier"] = json!({ "namespace": ["n"], "name": table });
        commit
    };
    let transaction = |changes: [Value; 2]| json!({ "table-changes": changes });
    let path = "/transactions/commit";
    let snapshots = async |table: &str| {
        let (_, loaded) = lake.get(&format!("/namespaces/n/tables/{table}")).await;
        loaded["metadata"]["snapshots"].as_array().map_or(0, Vec::len)
    };
    let both = transaction([change("t", append(1, None, 1)), change("u", append(2, None, 1))]);
    assert_eq!(lake.call("POST", path, both).await, (204, Value::Null));
    assert_eq!((snapshots("t").await, snapshots("u").await), (1, 1));
    // The second table's parent is gone.
    let half = transaction([change("t", append(3, Some(1), 2)), change("u", append(4, None, 2))]);
    let (status, refused) = lake.call("POST", path, half).await;
    assert_eq!((status, kind(&refused)), (409, "CommitFailedException"), "{refused}");
    assert_eq!((snapshots("t").await, snapshots("u").await), (1, 1));
    let twice =
        transaction([change("t", append(3, Some(1), 2)), change("t", append(4, Some(1), 2))]);
    let (status, refused) = lake.call("POST", path, twice).await;
    assert_eq!((status, kind(&refused)), (400, "BadRequestException"), "{refused}");
    assert_eq!(snapshots("t").await, 1);
}

#[tokio::test]
async fn a_staged_table_exists_when_it_is_committed() {
    let lake = Lake::start().await;
    lake.with_table().await;
    let mut staged = creation("s");
    staged["stage-create"] = json!(true);
    staged["partition-spec"] = json!({ "spec-id": 0, "fields": [
        { "source-id": 1, "field-id": 1000, "name": "p", "transform": "identity" }
    ] });
    let (status, answer) = lake.call("POST", "/namespaces/n/tables", staged).await;
    assert_eq!((status, &answer["metadata-location"]), (200, &Value::Null), "{answer}");
    let table = "/namespaces/n/tables/s";
    assert_eq!(lake.get(table).await.0, 404);
    let metadata = &answer["metadata"];
    let mut commit = append(5, None, 1);
    commit["requirements"] = json!([{ "type": "assert-create" }]);
    let beginning = json!([
        { "action": "assign-uuid", "uuid": metadata["table-uuid"] },
        { "action": "upgrade-format-version", "format-version": 2 },
        { "action": "add-schema", "schema": metadata["schemas"][0] },
        { "action": "set-current-schema", "schema-id": -1 },
        { "action": "add-spec", "spec": metadata["partition-specs"][0] },
        { "action": "set-default-spec", "spec-id": -1 },
        { "action": "add-sort-order", "sort-order": metadata["sort-orders"][0] },
        { "action": "set-default-sort-order", "sort-order-id": -1 },
        { "action": "set-location", "location": metadata["location"] },
        { "action": "set-properties", "updates": { "a": "b" } },
    ]);
    let mut updates = beginning.as_array().unwrap().clone();
    updates.extend(commit["updates"].as_array().unwrap().iter().cloned());
    commit["updates"] = json!(updates);
    let (status, created) = lake.call("POST", table, commit.clone()).await;
    assert_eq!(status, 200, "{created}");
    for same in ["table-uuid", "schemas", "partition-specs", "default-spec-id", "location"] {
        assert_eq!(created["metadata"][same], metadata[same], "{same}");
    }
    assert_eq!(created["metadata"]["current-snapshot-id"], 5);
    let (status, refused) = lake.call("POST", table, commit).await;
    assert_eq!((status, kind(&refused)), (409, "CommitFailedException"));
}

#[tokio::test]
async fn what_is_refused_is_named() {
    let lake = Lake::start().await;
    lake.with_table().await;
    let with = |change: fn(&mut Value)| {
        let mut body = creation("x");
        change(&mut body);
        body
    };
    let (tables, table) = ("/namespaces/n/tables", "/namespaces/n/tables/t");
    let no_requirement = json!({ "requirements": [], "updates": [] });
    for (method, path, body, status, expected, named) in [
        ("GET", "/namespaces/no", Value::Null, 404, "NoSuchNamespaceException", "no"),
        ("GET", "/namespaces/no/tables", Value::Null, 404, "NoSuchNamespaceException", "no"),
        ("GET", "/namespaces?parent=no", Value::Null, 404, "NoSuchNamespaceException", "no"),
        ("POST", "/namespaces", json!({ "namespace": ["n"] }), 409, "AlreadyExistsException", "n"),
        ("POST", "/namespaces", json!({ "namespace": [".."] }), 400, "BadRequestException", ".."),
        ("POST", tables, creation("t"), 409, "AlreadyExistsException", "n.t"),
        ("POST", tables, creation("a/b"), 400, "BadRequestException", "a/b"),
        ("POST", "/namespaces/no/tables", creation("t"), 404, "NoSuchNamespaceException", "no"),
        ("POST", tables, json!({ "name": "x" }), 400, "BadRequestException", "schema"),
        (
            "POST",
            tables,
            with(|b| b["location"] = json!("s3://lake/../etc")),
            400,
            "BadRequestException",
            "s3://lake/../etc",
        ),
        (
            "POST",
            tables,
            with(|b| b["properties"]["format-version"] = json!("9")),
            400,
            "BadRequestException",
            "format-version",
        ),
        ("POST", "/namespaces/n/tables/no", no_requirement, 404, "NoSuchTableException", "n.no"),
        (
            "POST",
            table,
            json!({ "requirements": [], "updates": [{ "action": "explode" }] }),
            400,
            "BadRequestException",
            "explode",
        ),
        (
            "POST",
            table,
            json!({ "requirements": [], "updates": [
                { "action": "set-location", "location": "s3://elsewhere/t" }
            ] }),
            400,
            "BadRequestException",
            "s3://elsewhere/t",
        ),
        ("GET", "/views", Value::Null, 404, "NotFoundException", "views"),
        ("DELETE", "/namespaces/n", Value::Null, 404, "NotFoundException", "/namespaces/n"),
    ] {
        let (got, answer) = lake.call(method, path, body).await;
        assert_eq!((got, kind(&answer)), (status, expected), "{method} {path}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(named), "{method} {path}: {message}");
        assert_eq!(answer["error"]["code"], status);
    }
}

#[tokio::test]
async fn namespaces_have_levels() {
    let lake = Lake::start().await;
    for levels in [json!(["a"]), json!(["a", "b"]), json!(["c"])] {
        assert_eq!(lake.call("POST", "/namespaces", json!({ "namespace": levels })).await.0, 200);
    }
    let (_, top) = lake.get("/namespaces?parent=&pageToken=").await;
    assert_eq!(top, json!({ "namespaces": [["a"], ["c"]] }));
    let (_, below) = lake.get("/namespaces?parent=a").await;
    assert_eq!(below, json!({ "namespaces": [["a", "b"]] }));
    let (status, table) = lake.call("POST", "/namespaces/a%1Fb/tables", creation("t")).await;
    assert_eq!((status, &table["metadata"]["location"]), (200, &json!("s3://lake/a/b/t")));
    assert_eq!(lake.call("HEAD", "/namespaces/a%1Fb", Value::Null).await.0, 200);
}

#[tokio::test]
async fn objects_are_written_and_read_in_ranges() {
    let lake = Lake::start().await;
    let key = "/lake/n/t/data/a=1/f.parquet";
    assert_eq!(lake.object("PUT", key, &[], b"0123456789").await.status(), StatusCode::OK);
    let head = lake.object("HEAD", key, &[], b"").await;
    assert_eq!(
        (head.status(), head.headers()["content-length"].as_bytes()),
        (StatusCode::OK, &b"10"[..])
    );
    for (range, bytes, total) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-4", "6789", "bytes 6-9/10"),
    ] {
        let answer = lake.object("GET", key, &[("range", range)], b"").await;
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.headers()["content-range"], total);
        assert_eq!(answer.text().await.unwrap(), bytes, "{range}");
    }
    let list = lake.object("GET", "/lake?list-type=2&prefix=n%2Ft%2F", &[], b"").await;
    let list = list.text().await.unwrap();
    assert!(list.contains("<Key>n/t/data/a=1/f.parquet</Key>"), "{list}");
    assert!(list.contains("<Size>10</Size>"), "{list}");
    assert_eq!(lake.object("DELETE", key, &[], b"").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(lake.object("GET", key, &[], b"").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_store_takes_signed_requests_for_what_it_serves() {
    let lake = Lake::start().await;
    let url = format!("{}/lake/x", lake.lake.uri());
    let unsigned = lake.client.put(&url).body("x").send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::FORBIDDEN);
    assert!(!lake.folder.path().join("lake/x").exists());
    let copy = lake.object("PUT", "/lake/y", &[("x-amz-copy-source", "/lake/x")], b"").await;
    assert_eq!(copy.status(), StatusCode::NOT_IMPLEMENTED);
    assert!(copy.text().await.unwrap().contains("CopyObject"));
    // Nothing outside the bucket: the folder holds other files too.
    std::fs::write(lake.folder.path().join("beside"), "x").unwrap();
    for method in ["GET", "PUT", "DELETE"] {
        let answer = lake.object(method, "/lake/a%2F..%2F..%2Fbeside", &[], b"").await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{method}");
        assert!(answer.text().await.unwrap().contains("leaves its bucket"), "{method}");
    }
    let list = b"<Delete><Object><Key>a/../../beside</Key></Object></Delete>";
    let deletes = lake.object("POST", "/lake?delete=", &[], list).await;
    assert_eq!(deletes.status(), StatusCode::BAD_REQUEST);
    assert!(deletes.text().await.unwrap().contains("leaves its bucket"));
    assert!(lake.folder.path().join("beside").exists());
}

#[tokio::test]
async fn an_object_may_come_in_parts() {
    let lake = Lake::start().await;
    static PART: [u8; 5 << 20] = [b'p'; 5 << 20];
    let begun = lake.object("POST", "/lake/big?uploads=", &[], b"").await.text().await.unwrap();
    let id = begun.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0;
    let mut parts = String::new();
    for (number, bytes) in [(1, &PART[..]), (2, b"end")] {
        let key = format!("/lake/big?partNumber={number}&uploadId={id}");
        let answer = lake.object("PUT", &key, &[], bytes).await;
        let tag = answer.headers()["etag"].to_str().unwrap();
        parts.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>",
            tag.replace('"', "&quot;")
        ));
    }
    assert_eq!(lake.object("HEAD", "/lake/big", &[], b"").await.status(), StatusCode::NOT_FOUND);
    let list = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").into_bytes();
    let key = format!("/lake/big?uploadId={id}");
    let done = lake.object("POST", &key, &[], list.leak()).await;
    assert_eq!(done.status(), StatusCode::OK, "{}", done.text().await.unwrap());
    let tail = lake.object("GET", "/lake/big", &[("range", "bytes=-5")], b"").await;
    assert_eq!(tail.headers()["content-range"], "bytes 5242878-5242882/5242883");
    assert_eq!(tail.text().await.unwrap(), "ppend");
}

#[tokio::test]
async fn more_bytes_than_the_bound_are_refused() {
    let lake = Lake::bounded(5_000).await;
    lake.with_table().await;
    static BLOCK: [u8; 1_500] = [b'x'; 1_500];
    let mut answers = Vec::new();
    for part in 0..4 {
        let answer = lake.object("PUT", &format!("/lake/f{part}"), &[], &BLOCK).await;
        answers.push((answer.status(), answer.text().await.unwrap()));
    }
    assert_eq!(answers[0].0, StatusCode::OK);
    let (status, text) = &answers[3];
    assert_eq!(*status, StatusCode::BAD_REQUEST);
    assert!(text.contains("EntityTooLarge") && text.contains("5000 bytes"), "{text}");
    assert!(!lake.folder.path().join("lake/f3").exists());
    // What is deleted does not come back, and the catalog's own files count too.
    lake.object("DELETE", "/lake/f0", &[], b"").await;
    let again = lake.object("PUT", "/lake/f0", &[], &BLOCK).await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
    let mut statuses = Vec::new();
    for id in 1..6 {
        let parent = (id > 1).then(|| id - 1);
        let (status, answer) =
            lake.call("POST", "/namespaces/n/tables/t", append(id, parent, id)).await;
        statuses.push(status);
        if status != 200 {
            assert_eq!((status, kind(&answer)), (400, "BadRequestException"));
            assert!(answer["error"]["message"].as_str().unwrap().contains("5000 bytes"));
            return;
        }
    }
    panic!("the bound did not hold: {statuses:?}");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let config = LakeConfig { listen: any_port(), ..LakeConfig::new("/dev/null/no".into()) };
    assert!(!format!("{config:?}").contains(&config.secret_access_key));
    let error = EmbeddedLake::start(config).await.unwrap_err().to_string();
    assert!(error.contains("/dev/null/no"), "{error}");
}
