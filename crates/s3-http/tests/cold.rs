//! The coldset's buckets through the gateway, over real HTTP.

// The helpers of these tests fail as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use isk_coldset::{AccessKeys, ColdS3, ColdStore, ColdsetConfig};
use isk_s3_http::ColdBuckets;
use s3s::crypto::{Checksum as _, Crc32};
use support::memory::{BUCKET, samples};
use support::{Answer, Running, send};

/// A gateway before a store in memory.
async fn start(writable: bool) -> Running {
    let cold = ColdBuckets { store: ColdStore::in_memory(), writable };
    Running::over(samples(), Some(cold)).await
}

/// A gateway before another one, whose objects are its coldset.
async fn chained() -> (Running, Running) {
    let mut objects = samples();
    objects.bucket = Some("lake".into());
    let upstream = Running::over(objects, None).await;
    let mut config = ColdsetConfig::new("http://127.0.0.1:9");
    config.s3 = ColdS3 {
        endpoint: Some(format!("http://{}", upstream.address)),
        keys: Some(AccessKeys {
            id: "isk-id".into(),
            secret: "isk-secret".into(),
            session_token: None,
        }),
        ..ColdS3::default()
    };
    let store = ColdStore::new(&config).unwrap();
    let gateway = Running::over(samples(), Some(ColdBuckets { store, writable: false })).await;
    (upstream, gateway)
}

async fn put(gateway: &Running, target: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(gateway.request(&gateway.signer(), "PUT", target, &[]).body(body)).await
}

fn counting(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn objects_are_written_read_listed_and_deleted() {
    let gateway = start(true).await;
    for key in ["t/data/a.parquet", "t/data/b.parquet", "t/metadata/v1.json", "u/c"] {
        let answer = put(&gateway, &format!("/lake/{key}"), counting(1000)).await;
        assert_eq!((answer.status, answer.code().as_str()), (200, ""), "{key}");
        assert!(!answer.header("etag").is_empty());
    }
    let get = gateway.ask("GET", "/lake/t/data/a.parquet", &[]).await;
    assert_eq!((get.status, &get.body), (200, &counting(1000)));
    let head = gateway.ask("HEAD", "/lake/t/data/a.parquet", &[]).await;
    assert_eq!((head.header("content-length"), head.header("etag")), ("1000", get.header("etag")));
    let list = async |query: &str| gateway.ask("GET", &format!("/lake?{query}"), &[]).await;
    let all = list("list-type=2").await;
    let keys = ["t/data/a.parquet", "t/data/b.parquet", "t/metadata/v1.json", "u/c"];
    assert_eq!(all.elements("Key"), keys);
    assert_eq!(all.elements("Size")[0], "1000");
    let groups = list("delimiter=%2F&list-type=2&prefix=t%2F").await;
    assert_eq!(groups.elements("Prefix")[1..], ["t/data/", "t/metadata/"]);
    let pages = list("list-type=2&max-keys=3").await;
    assert_eq!((pages.elements("Key").len(), pages.element("IsTruncated")), (3, "true".into()));
    let token = pages.element("NextContinuationToken").replace('/', "%2F");
    let rest = list(&format!("continuation-token={token}&list-type=2&max-keys=3")).await;
    assert_eq!(
        (rest.elements("Key"), rest.element("IsTruncated")),
        (vec!["u/c".into()], "false".into())
    );
    let older = list("delimiter=%2F&max-keys=1").await;
    assert_eq!(older.element("NextMarker"), "t/");
    let older = list("delimiter=%2F&marker=t%2F&max-keys=1").await;
    assert_eq!(older.elements("Prefix")[1..], ["u/"]);

    assert_eq!(gateway.ask("DELETE", "/lake/u/c", &[]).await.status, 204);
    assert_eq!(gateway.ask("GET", "/lake/u/c", &[]).await.code(), "NoSuchKey");
    assert_eq!(gateway.ask("DELETE", "/lake/u/c", &[]).await.status, 204);
    let body = "<Delete><Object><Key>t/data/a.parquet</Key></Object>\
                <Object><Key>t/data/b.parquet</Key></Object></Delete>";
    let many = gateway.request(&gateway.signer(), "POST", "/lake?delete=", &[]).body(body);
    let many = send(many).await;
    assert_eq!((many.status, many.elements("Key").len()), (200, 2));
    assert_eq!(list("list-type=2").await.elements("Key"), ["t/metadata/v1.json"]);
}

#[tokio::test]
async fn a_large_object_is_passed_on_as_it_comes() {
    let gateway = start(true).await;
    let bytes = counting(40 << 20);
    let answer = put(&gateway, "/lake/large", bytes.clone()).await;
    assert_eq!((answer.status, answer.code().as_str()), (200, ""));
    let get = gateway.ask("GET", "/lake/large", &[]).await;
    assert!(get.body == bytes, "the bytes are not those that were written");
    let part = gateway.ask("GET", "/lake/large", &[("range", "bytes=41943030-")]).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[bytes.len() - 10..]));
    assert_eq!(put(&gateway, "/lake/empty", "").await.status, 200);
    assert_eq!(gateway.ask("HEAD", "/lake/empty", &[]).await.header("content-length"), "0");
}

#[tokio::test]
async fn an_upload_in_parts_becomes_one_object() {
    let gateway = start(true).await;
    let begun = gateway.ask("POST", "/lake/parts?uploads=", &[]).await;
    let id = begun.element("UploadId");
    assert_eq!((begun.status, id.is_empty()), (200, false));
    let (one, two) = (counting(5 << 20), counting(1000));
    let mut list = String::new();
    for (number, bytes) in [(1, &one), (2, &two)] {
        let target = format!("/lake/parts?partNumber={number}&uploadId={id}");
        let part = put(&gateway, &target, bytes.clone()).await;
        assert_eq!((part.status, part.code().as_str()), (200, ""));
        let etag = part.header("etag");
        list += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
    }
    let target = format!("/lake/parts?uploadId={id}");
    let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    let request = gateway.request(&gateway.signer(), "POST", &target, &[]).body(body);
    let completed = send(request).await;
    assert_eq!((completed.status, completed.code().as_str()), (200, ""));
    let get = gateway.ask("GET", "/lake/parts", &[]).await;
    assert!(get.body == [one, two].concat(), "the parts are not in their order");

    let begun = gateway.ask("POST", "/lake/aborted?uploads=", &[]).await;
    let target = format!("/lake/aborted?uploadId={}", begun.element("UploadId"));
    assert_eq!(gateway.ask("DELETE", &target, &[]).await.status, 204);
    assert_eq!(gateway.ask("GET", "/lake/aborted", &[]).await.status, 404);
}

/// A PUT in chunks with a checksum behind them, as newer SDKs send it.
async fn put_in_chunks(gateway: &Running, target: &str, parts: &[&[u8]], crc32: &str) -> Answer {
    let mut signer = gateway.signer();
    signer.payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = length.to_string();
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", length.as_str()),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("0\r\nx-amz-checksum-crc32:{crc32}\r\n\r\n").as_bytes());
    send(gateway.request(&signer, "PUT", target, &headers).body(body)).await
}

#[tokio::test]
async fn checksums_behind_the_body_are_checked() {
    let gateway = start(true).await;
    let base64 = base64::prelude::BASE64_STANDARD;
    let crc32 = base64.encode(Crc32::checksum(b"hello world"));
    let answer = put_in_chunks(&gateway, "/lake/good", &[b"hello ", b"world"], &crc32).await;
    assert_eq!((answer.status, answer.code().as_str()), (200, ""));
    assert_eq!(answer.header("x-amz-checksum-crc32"), crc32);
    assert_eq!(gateway.ask("GET", "/lake/good", &[]).await.body, b"hello world");
    let answer = put_in_chunks(&gateway, "/lake/bad", &[b"hello ", b"w0rld"], &crc32).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "BadDigest"));
    assert_eq!(gateway.ask("GET", "/lake/bad", &[]).await.status, 404, "it was written");
    let md5 = [("content-md5", "kAFQmDzST7DWlj99KOF/cg==")];
    let request = gateway.request(&gateway.signer(), "PUT", "/lake/bad", &md5);
    assert_eq!(send(request.body("abd")).await.code(), "BadDigest");
}

#[tokio::test]
async fn one_endless_chunk_is_refused() {
    let gateway = start(true).await;
    let mut signer = gateway.signer();
    signer.payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let length = (64u64 << 20).to_string();
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", length.as_str()),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
    ];
    let mut body = b"4000000\r\n".to_vec();
    body.resize(64 << 20, 0);
    let response = gateway.request(&signer, "PUT", "/lake/big", &headers).body(body).send().await;
    // The answer may cross the rest of the body, and be lost with the connection.
    if let Ok(response) = response {
        assert_eq!(response.status(), 400);
    }
    assert_eq!(gateway.ask("GET", "/lake/big", &[]).await.status, 404);
}

#[tokio::test]
async fn nothing_is_written_where_nothing_may_be() {
    let gateway = start(false).await;
    for (method, target) in [
        ("PUT", "/lake/new"),
        ("DELETE", "/lake/new"),
        ("POST", "/lake?delete="),
        ("POST", "/lake/new?uploads="),
        ("PUT", "/lake/new?partNumber=1&uploadId=x"),
    ] {
        let request = gateway.request(&gateway.signer(), method, target, &[]).body("<x/>");
        let answer = send(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"), "{target}");
        assert!(answer.element("Message").contains("coldset.writable"), "{target}");
    }
    let gateway = start(true).await;
    for (method, target, status, code) in [
        ("PUT", "/hotset/new", 403, "AccessDenied"),
        ("DELETE", "/hotset/t/data/small.parquet", 403, "AccessDenied"),
        ("PUT", "/lake", 403, "AccessDenied"),
        ("DELETE", "/lake", 403, "AccessDenied"),
        ("PUT", "/lake/x?tagging=", 403, "AccessDenied"),
    ] {
        let request = gateway.request(&gateway.signer(), method, target, &[]).body("<x/>");
        let answer = send(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}");
    }
    let encrypted = [("x-amz-server-side-encryption", "aws:kms")];
    let request = gateway.request(&gateway.signer(), "PUT", "/lake/x", &encrypted).body("x");
    let answer = send(request).await;
    assert_eq!((answer.status, answer.code().as_str()), (501, "NotImplemented"));
}

#[tokio::test]
async fn ranges_and_conditions_are_those_of_the_store() {
    let (_upstream, gateway) = chained().await;
    let target = "/lake/t/data/small.parquet";
    let whole = gateway.ask("GET", target, &[]).await;
    assert_eq!((whole.status, whole.body), (200, counting(1000)));
    assert_eq!(whole.headers["content-length"], "1000");
    assert_eq!(whole.headers["etag"], "\"counting-1000\"");
    assert_eq!(whole.headers["last-modified"], "Tue, 14 Nov 2023 22:13:20 GMT");
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=7-", 7..1000),
        ("bytes=990-5000", 990..1000),
        ("bytes=-8", 992..1000),
        ("bytes=-5000", 0..1000),
    ] {
        let answer = gateway.ask("GET", target, &[("range", range)]).await;
        assert_eq!(answer.status, 206, "{range}");
        let said = format!("bytes {}-{}/1000", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), said, "{range}");
        assert_eq!(answer.body, &counting(1000)[expected], "{range}");
    }
    for range in ["bytes=1000-", "bytes=-0"] {
        let answer = gateway.ask("GET", target, &[("range", range)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (416, "InvalidRange"), "{range}");
        assert_eq!(answer.header("content-range"), "bytes */1000", "{range}");
    }
    for (name, value, status) in [
        ("if-match", "\"counting-1000\"", 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", "\"counting-1000\"", 304),
        ("if-modified-since", "Tue, 14 Nov 2023 22:13:20 GMT", 304),
        ("if-unmodified-since", "Tue, 14 Nov 2023 22:13:19 GMT", 412),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = gateway.ask(method, target, &[(name, value)]).await;
            assert_eq!(answer.status, status, "{method} {name}: {value}");
        }
    }
}

#[tokio::test]
async fn buckets_of_the_store_answer_for_themselves() {
    let (_upstream, gateway) = chained().await;
    for (method, target, status, code) in [
        ("HEAD", "/lake", 200, ""),
        ("GET", "/lake?location=", 200, ""),
        ("GET", "/lake/none", 404, "NoSuchKey"),
        ("HEAD", "/nothing", 404, ""),
        ("GET", "/nothing?list-type=2", 404, "NoSuchBucket"),
        ("GET", "/nothing/key", 404, "NoSuchBucket"),
        ("GET", "/lake/bad/unavailable", 503, "ServiceUnavailable"),
        // Ours are where they were.
        ("GET", "/hotset/t/data/small.parquet", 200, ""),
    ] {
        let answer = gateway.ask(method, target, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}");
    }
    let buckets = gateway.ask("GET", "/", &[]).await;
    assert_eq!(buckets.elements("Name"), [BUCKET]);
    let (mut keys, mut token) = (0, String::new());
    loop {
        let target = format!("/lake?{token}list-type=2&prefix=many%2F");
        let page = gateway.ask("GET", &target, &[]).await;
        keys += page.elements("Key").len();
        if page.element("IsTruncated") != "true" {
            break;
        }
        let next = page.element("NextContinuationToken").replace('/', "%2F");
        token = format!("continuation-token={next}&");
    }
    assert_eq!(keys, 2500);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stores_work() {
    let (upstream, gateway) = chained().await;
    let closed = upstream.memory.closed.notified();
    let target = "/lake/t/data/huge.parquet";
    let request = gateway.request(&gateway.signer(), "GET", target, &[("range", "bytes=5-")]);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.headers()["content-length"], ((100u64 << 30) - 5).to_string());
    let mut read = 0;
    while read < 1 << 20 {
        read += response.chunk().await.unwrap().unwrap().len();
    }
    drop(response);
    tokio::time::timeout(Duration::from_secs(20), closed).await.unwrap();
    assert_eq!(upstream.memory.open.load(Ordering::SeqCst), 0);
    let made = upstream.memory.produced.load(Ordering::SeqCst);
    assert!(made < 256 << 20, "{made} bytes were made for a client that read {read}");
}

#[tokio::test]
async fn a_store_that_is_down_is_unavailable() {
    let mut config = ColdsetConfig::new("http://127.0.0.1:9");
    config.s3.endpoint = Some("http://127.0.0.1:9".into());
    config.request_timeout = Duration::from_secs(2);
    let cold = ColdBuckets { store: ColdStore::new(&config).unwrap(), writable: true };
    let gateway = Running::over(samples(), Some(cold)).await;
    for (method, target) in [("GET", "/lake/a"), ("GET", "/lake?list-type=2"), ("PUT", "/lake/a")] {
        let answer = send(gateway.request(&gateway.signer(), method, target, &[]).body("x")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "ServiceUnavailable"),
            "{method}"
        );
    }
    assert_eq!(gateway.ask("GET", "/hotset/t/data/small.parquet", &[]).await.status, 200);
}
