//! The gateway over real HTTP: what clients rely on.

// The helpers of these tests fail as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use support::memory::BUCKET;
use support::{Running, send};

/// Byte `i` of a counting object.
fn counting(range: std::ops::Range<u64>) -> Vec<u8> {
    range.map(|i| (i % 251) as u8).collect()
}

#[tokio::test]
async fn only_our_signature_of_now_is_good() {
    let gateway = Running::start().await;
    let target = "/hotset/t/data/small.parquet";
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let good = gateway.signer();
    let mut with_token = good.clone();
    with_token.token = Some("isk-token".into());
    let mut wrong_token = good.clone();
    wrong_token.token = Some("other".into());
    let mut wrong_secret = good.clone();
    wrong_secret.secret = "guess".into();
    let mut unknown_id = good.clone();
    unknown_id.access_key_id = "nobody".into();
    let mut stale = good.clone();
    stale.time = SystemTime::now() - minutes(16);
    let mut early = good.clone();
    early.time = SystemTime::now() + minutes(16);
    let mut within = good.clone();
    within.time = SystemTime::now() - minutes(14);
    for (what, signer, status, code) in [
        ("good", good.clone(), 200, ""),
        ("with token", with_token, 200, ""),
        ("14 minutes old", within, 200, ""),
        ("wrong token", wrong_token, 400, "InvalidToken"),
        ("wrong secret", wrong_secret, 403, "SignatureDoesNotMatch"),
        ("unknown id", unknown_id, 403, "InvalidAccessKeyId"),
        ("16 minutes old", stale, 403, "RequestTimeTooSkewed"),
        ("16 minutes early", early, 403, "RequestTimeTooSkewed"),
    ] {
        let answer = send(gateway.request(&signer, "GET", target, &[])).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
    }
    let v2 = format!("{target}?AWSAccessKeyId=isk-id&Expires=9999999999&Signature=x");
    let with = |value: &str| vec![("authorization".to_owned(), value.to_owned())];
    for (what, target, headers, status, code) in [
        ("anonymous", target, vec![], 403, "AccessDenied"),
        ("another scheme", target, with("Bearer x"), 400, "InvalidRequest"),
        ("SigV2 header", target, with("AWS isk-id:x"), 400, "InvalidRequest"),
        ("SigV2 query", &v2, vec![], 400, "InvalidRequest"),
        ("malformed", target, with("AWS4-HMAC-SHA256 x"), 400, "InvalidRequest"),
    ] {
        let answer = send(gateway.unsigned("GET", target, headers)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
    }
    let host = gateway.address.to_string();
    let mut headers = good.headers("GET", &host, target, "", &[]);
    headers.retain(|(name, _)| name != "x-amz-content-sha256");
    headers.push(("x-amz-content-sha256".into(), "0".repeat(64)));
    let answer = send(gateway.unsigned("GET", target, headers)).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "SignatureDoesNotMatch"));
}

#[tokio::test]
async fn a_presigned_url_is_good_for_its_time_and_object() {
    let gateway = Running::start().await;
    let host = gateway.address.to_string();
    let path = "/hotset/t/data/small.parquet";
    let mut signer = gateway.signer();
    signer.token = Some("isk-token".into());
    let good = format!("{path}?{}", signer.presigned(&host, path, 60));
    let other = good.replace("small", "medium");
    signer.time = SystemTime::now() - Duration::from_secs(120);
    let expired = format!("{path}?{}", signer.presigned(&host, path, 60));
    for (target, status, code) in
        [(&good, 200, ""), (&other, 403, "SignatureDoesNotMatch"), (&expired, 403, "AccessDenied")]
    {
        let answer = send(gateway.unsigned("GET", target, vec![])).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{target}");
    }
    let range = vec![("range".to_owned(), "bytes=1-2".to_owned())];
    let answer = send(gateway.unsigned("GET", &good, range)).await;
    assert_eq!((answer.status, answer.body), (206, counting(1..3)));
}

#[tokio::test]
async fn ranges_are_exact() {
    let gateway = Running::start().await;
    let target = "/hotset/t/data/small.parquet";
    let whole = gateway.ask("GET", target, &[]).await;
    assert_eq!((whole.status, whole.body), (200, counting(0..1000)));
    assert_eq!(whole.headers["content-length"], "1000");
    assert_eq!(whole.headers["accept-ranges"], "bytes");
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=0-999", 0..1000),
        ("bytes=7-", 7..1000),
        ("bytes=990-5000", 990..1000),
        ("bytes=-8", 992..1000),
        ("bytes=-5000", 0..1000),
    ] {
        let answer = gateway.ask("GET", target, &[("range", range)]).await;
        assert_eq!(answer.status, 206, "{range}");
        let said = format!("bytes {}-{}/1000", expected.start, expected.end - 1);
        assert_eq!(answer.header("content-range"), said, "{range}");
        assert_eq!(answer.header("content-length"), (expected.end - expected.start).to_string());
        assert_eq!(answer.body, counting(expected), "{range}");
    }
    for range in ["bytes=1000-", "bytes=1000-1001", "bytes=-0"] {
        let answer = gateway.ask("GET", target, &[("range", range)]).await;
        assert_eq!((answer.status, answer.code().as_str()), (416, "InvalidRange"), "{range}");
        assert_eq!(answer.header("content-range"), "bytes */1000", "{range}");
    }
    for range in ["bytes=5-2", "bytes=a-b", "bytes=0-1,4-5", "bytes", "lines=0-1"] {
        let answer = gateway.ask("GET", target, &[("range", range)]).await;
        assert_eq!(answer.status, 400, "{range}");
    }
    let empty = gateway.ask("GET", "/hotset/t/data/empty", &[]).await;
    assert_eq!((empty.status, empty.header("content-length")), (200, "0"));
}

#[tokio::test]
async fn head_says_what_get_gives() {
    let gateway = Running::start().await;
    let target = "/hotset/t/data/small.parquet";
    let get = gateway.ask("GET", target, &[]).await;
    for extra in [&[][..], &[("range", "bytes=0-1")]] {
        let head = gateway.ask("HEAD", target, extra).await;
        assert_eq!(head.status, 200);
        for name in ["content-length", "etag", "last-modified", "content-type", "accept-ranges"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
            assert!(!head.header(name).is_empty(), "{name}");
        }
    }
    assert_eq!(get.header("etag"), "\"counting-1000\"");
    assert_eq!(get.header("last-modified"), "Tue, 14 Nov 2023 22:13:20 GMT");
    assert_eq!(gateway.ask("HEAD", "/hotset/none", &[]).await.status, 404);
    let huge = gateway.ask("HEAD", "/hotset/t/data/huge.parquet", &[]).await;
    assert_eq!(huge.header("content-length"), (100u64 << 30).to_string());
}

#[tokio::test]
async fn conditions_are_kept() {
    let gateway = Running::start().await;
    let target = "/hotset/t/data/small.parquet";
    let date = "Tue, 14 Nov 2023 22:13:20 GMT";
    let before = "Tue, 14 Nov 2023 22:13:19 GMT";
    for (name, value, status) in [
        ("if-match", "\"counting-1000\"", 200),
        ("if-match", "\"other\"", 412),
        ("if-none-match", "\"counting-1000\"", 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", date, 304),
        ("if-modified-since", before, 200),
        ("if-unmodified-since", date, 200),
        ("if-unmodified-since", before, 412),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = gateway.ask(method, target, &[(name, value)]).await;
            assert_eq!(answer.status, status, "{method} {name}: {value}");
            if status == 304 {
                assert_eq!(answer.header("etag"), "\"counting-1000\"");
                assert!(answer.body.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn listings_page_through_everything_once() {
    let gateway = Running::start().await;
    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let target = format!("/{BUCKET}?{token}list-type=2&prefix=many%2F");
        let answer = gateway.ask("GET", &target, &[]).await;
        assert_eq!(answer.status, 200);
        pages += 1;
        seen.extend(answer.elements("Key"));
        if answer.element("IsTruncated") != "true" {
            break;
        }
        let next = answer.element("NextContinuationToken").replace('/', "%2F");
        token = format!("continuation-token={next}&");
    }
    let expected: Vec<_> = (0..2500).map(|i| format!("many/{i:04}")).collect();
    assert_eq!((seen, pages), (expected, 3));
}

#[tokio::test]
async fn listings_group_and_encode_and_limit() {
    let gateway = Running::start().await;
    let list = async |query: &str| gateway.ask("GET", &format!("/{BUCKET}?{query}"), &[]).await;
    let top = list("delimiter=%2F&list-type=2").await;
    assert_eq!(top.elements("Prefix")[1..], ["bad/", "many/", "odd/", "t/"]);
    assert_eq!((top.element("KeyCount"), top.elements("Key")), ("4".to_owned(), vec![]));
    let none = list("list-type=2&max-keys=0").await;
    assert_eq!(
        (none.element("IsTruncated").as_str(), none.element("KeyCount")),
        ("false", "0".into())
    );
    let one = list("delimiter=%2F&list-type=2&max-keys=1").await;
    assert_eq!(one.element("IsTruncated"), "true");
    let next = one.element("NextContinuationToken").replace('/', "%2F");
    let two =
        list(&format!("continuation-token={next}&delimiter=%2F&list-type=2&max-keys=1")).await;
    assert_eq!(two.elements("Prefix")[1..], ["many/"]);
    let odd = list("encoding-type=url&list-type=2&prefix=odd%2F").await;
    assert_eq!(odd.elements("Key")[0], "odd/a%20b%2Bc%26d%3De.txt");
    let owned = list("fetch-owner=true&list-type=2&prefix=t%2F").await;
    assert_eq!(owned.elements("ID").len(), 5);
    assert_eq!(owned.elements("Size"), ["0", "107374182400", "33554432", "1000", "100"]);
    let after = list("list-type=2&prefix=t%2Fdata%2F&start-after=t%2Fdata%2Fm").await;
    assert_eq!(after.elements("Key"), ["t/data/medium.parquet", "t/data/small.parquet"]);
    let old = list("marker=t%2Fdata%2Fm&prefix=t%2Fdata%2F").await;
    assert_eq!(old.elements("Key"), ["t/data/medium.parquet", "t/data/small.parquet"]);
    for (query, status) in [("list-type=2&max-keys=-1", 400), ("list-type=2&max-keys=x", 400)] {
        assert_eq!(list(query).await.status, status, "{query}");
    }
    let buckets = gateway.ask("GET", "/", &[]).await;
    assert_eq!((buckets.status, buckets.elements("Name")), (200, vec![BUCKET.to_owned()]));
}

#[tokio::test]
async fn a_bucket_may_stand_in_the_host_name() {
    let gateway = Running::start().await;
    for (host, target, status) in [
        ("hotset.isk.test", "/t/data/small.parquet", 200),
        ("hotset.isk.test:11000", "/t/data/small.parquet", 200),
        ("isk.test", "/hotset/t/data/small.parquet", 200),
        ("some-container:11000", "/hotset/t/data/small.parquet", 200),
        ("hotset.isk.test", "/hotset/t/data/small.parquet", 404),
        ("other.isk.test", "/t/data/small.parquet", 404),
    ] {
        let answer = gateway.ask("GET", target, &[("host", host)]).await;
        assert_eq!(answer.status, status, "{host}{target}");
    }
    let answer =
        gateway.ask("GET", "/?list-type=2&prefix=t%2F", &[("host", "hotset.isk.test")]).await;
    assert_eq!(answer.elements("Key").len(), 5);
}

#[tokio::test]
async fn buckets_answer_for_themselves() {
    let gateway = Running::start().await;
    for (method, target, status, code) in [
        ("HEAD", "/hotset", 200, ""),
        ("HEAD", "/nothing", 404, ""),
        ("GET", "/hotset?location=", 200, ""),
        ("GET", "/nothing?location=", 404, "NoSuchBucket"),
        ("GET", "/nothing?list-type=2", 404, "NoSuchBucket"),
        ("GET", "/nothing/key", 404, "NoSuchBucket"),
        ("GET", "/hotset/none", 404, "NoSuchKey"),
        ("GET", "/hotset/bad/gone", 410, "RecordsExpired"),
        ("GET", "/hotset/bad/unavailable", 503, "ServiceUnavailable"),
        ("HEAD", "/hotset/bad/gone", 200, ""),
        ("GET", "/hotset?versions=", 501, "NotImplemented"),
        ("GET", "/hotset/t/data/small.parquet?versionId=null", 200, ""),
        ("GET", "/hotset/t/data/small.parquet?versionId=7", 404, "NoSuchVersion"),
    ] {
        let answer = gateway.ask(method, target, &[]).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {target}");
        assert_eq!(answer.header("x-amz-request-id").len(), 32, "{method} {target}");
    }
    let answer = gateway.ask("HEAD", "/hotset", &[]).await;
    assert_eq!(answer.header("x-amz-bucket-region"), "us-east-1");
}

#[tokio::test]
async fn nothing_can_be_written() {
    let gateway = Running::start().await;
    let signer = gateway.signer();
    for (method, target) in [
        ("PUT", "/hotset/new"),
        ("PUT", "/newbucket"),
        ("DELETE", "/hotset/t/data/small.parquet"),
        ("DELETE", "/hotset"),
        ("POST", "/hotset?delete="),
        ("POST", "/hotset/new?uploads="),
        ("PUT", "/hotset/new?partNumber=1&uploadId=x"),
        ("PUT", "/hotset?policy="),
    ] {
        let request = gateway.request(&signer, method, target, &[]).body("<x/>");
        let answer = send(request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "AccessDenied"),
            "{method} {target}"
        );
        // Its body was not read: a client must not send the next request on the same connection.
        assert_eq!(answer.headers["connection"], "close", "{method} {target}");
    }
    let form = vec![("content-type".to_owned(), "multipart/form-data; boundary=x".to_owned())];
    let answer = send(gateway.unsigned("POST", "/hotset", form).body("--x--")).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "AccessDenied"));
}

#[tokio::test]
async fn a_body_that_fails_is_never_a_shorter_one() {
    let gateway = Running::start().await;
    for target in ["/hotset/bad/short", "/hotset/bad/breaks"] {
        let request = gateway.request(&gateway.signer(), "GET", target, &[]);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{target}");
        assert_eq!(response.headers()["content-length"], (1u64 << 20).to_string(), "{target}");
        assert!(response.bytes().await.is_err(), "{target}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work() {
    let gateway = Running::start().await;
    let closed = gateway.memory.closed.notified();
    let target = "/hotset/t/data/huge.parquet";
    let request = gateway.request(&gateway.signer(), "GET", target, &[("range", "bytes=5-")]);
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 206);
    let mut read = 0;
    while read < 1 << 20 {
        read += response.chunk().await.unwrap().unwrap().len();
    }
    assert_eq!(gateway.memory.open.load(Ordering::SeqCst), 1);
    drop(response);
    tokio::time::timeout(Duration::from_secs(20), closed).await.unwrap();
    assert_eq!(gateway.memory.open.load(Ordering::SeqCst), 0);
    // What was made is what was read and what lay in the sockets' buffers, not the object.
    let made = gateway.memory.produced.load(Ordering::SeqCst);
    assert!(made < 256 << 20, "{made} bytes were made for a client that read {read}");
}

#[tokio::test]
async fn a_slow_reader_is_waited_for() {
    let gateway = Running::start().await;
    let target = "/hotset/t/data/medium.parquet";
    let request = gateway.request(&gateway.signer(), "GET", target, &[]);
    let mut response = request.send().await.unwrap();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.unwrap() {
        body.extend_from_slice(&part);
        tokio::task::yield_now().await;
    }
    assert!(body == counting(0..32 << 20), "the bytes are not those of the object");
}

#[tokio::test]
async fn the_server_ends_when_told_to() {
    let gateway = Running::start().await;
    assert_eq!(gateway.ask("HEAD", "/hotset", &[]).await.status, 200);
    // The client keeps its connection open, idle.
    gateway.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(9), gateway.ended).await.unwrap().unwrap();
}
