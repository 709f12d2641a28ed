//! The object store: a scripted S3, and the one in memory.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Answer, Asked, Stub, with};
use futures::{StreamExt, TryStreamExt};
use isk_coldset::{
    AccessKeys, ByteStream, ColdS3, ColdStore, ColdsetConfig, ColdsetError, ListAfter,
};
use isk_outbound::{Secret, SecretFile};

const SECRET: &str = "hunter2";

fn config(stub: &Stub) -> ColdsetConfig {
    ColdsetConfig {
        s3: ColdS3 {
            endpoint: Some(stub.url.clone()),
            keys: Some(AccessKeys {
                id: "AKID".into(),
                secret: SECRET.into(),
                session_token: None,
            }),
            ..ColdS3::default()
        },
        request_timeout: Duration::from_secs(2),
        ..ColdsetConfig::new("http://unused")
    }
}

fn store(stub: &Stub) -> ColdStore {
    ColdStore::new(&config(stub)).unwrap()
}

const MODIFIED: &str = "Sat, 21 Nov 2026 08:00:00 GMT";

/// Answers a GET or HEAD for `bytes` as S3 does.
fn serve(asked: &Asked, bytes: &Bytes) -> Answer {
    let size = bytes.len();
    let common = [("etag", "\"e1\""), ("last-modified", MODIFIED), ("content-type", "text/x-test")];
    let Some(range) = asked.header("range").strip_prefix("bytes=") else {
        let length = size.to_string();
        let mut headers = common.to_vec();
        headers.push(("content-length", &length));
        return with(200, &headers, bytes.clone());
    };
    let (start, end) = range.split_once('-').unwrap();
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    if start >= size {
        return with(416, &[], "<Error><Code>InvalidRange</Code><Message>no</Message></Error>");
    }
    let end = end.min(size - 1);
    let content_range = format!("bytes {start}-{end}/{size}");
    let mut headers = common.to_vec();
    headers.push(("content-range", &content_range));
    with(206, &headers, bytes.slice(start..=end))
}

fn body(pieces: Vec<Bytes>) -> ByteStream {
    futures::stream::iter(pieces.into_iter().map(Ok)).boxed()
}

async fn all(stream: ByteStream) -> Result<Vec<u8>, ColdsetError> {
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn objects_and_ranges_are_read_with_our_own_credentials() {
    let bytes = Bytes::from((0..200_000_u32).map(|n| n as u8).collect::<Vec<_>>());
    let content = bytes.clone();
    let stub = Stub::start(move |asked, _| serve(asked, &content)).await;
    let store = store(&stub);
    // A key keeps its spelling: what looks encoded is not decoded.
    let key = "t/data/p=a%3Ab c/ü.parquet";
    let object = store.head("lake", key).await.unwrap();
    assert_eq!((object.size, object.etag.as_deref()), (200_000, Some("\"e1\"")));
    assert_eq!(object.content_type.as_deref(), Some("text/x-test"));
    let (object, stream) = store.read("lake", key, None).await.unwrap();
    assert_eq!((object.size, all(stream).await.unwrap()), (200_000, bytes.to_vec()));
    for (range, cut) in [(10..20, 10..20), (199_990..300_000, 199_990..200_000)] {
        let (object, stream) = store.read("lake", key, Some(range)).await.unwrap();
        assert_eq!(object.size, 200_000);
        assert_eq!(all(stream).await.unwrap(), &bytes[cut.start as usize..cut.end as usize]);
    }
    let uri = format!("s3a://lake/{key}");
    assert_eq!(store.get_uri(&uri, Some(5..8), 3).await.unwrap(), bytes.slice(5..8));
    assert_eq!(store.get_uri(&uri, None, 200_000).await.unwrap(), bytes);
    let error = store.get_uri(&uri, None, 199_999).await.unwrap_err();
    assert!(error.to_string().contains(&uri) && error.to_string().contains("199999"), "{error}");
    for asked in stub.asked() {
        assert_eq!(asked.target, "/lake/t/data/p%3Da%253Ab%20c/%C3%BC.parquet");
        assert!(asked.header("authorization").contains("Credential=AKID/"));
        assert!(!format!("{asked:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn refusals_and_absences_are_named() {
    let stub = Stub::start(|asked, before| match asked.path() {
        "/lake/none" => with(404, &[], "<Error><Code>NoSuchKey</Code></Error>"),
        "/lake/denied" => {
            with(403, &[], "<Error><Code>AccessDenied</Code><Message>Not yours</Message></Error>")
        }
        "/lake/once" if before == 0 => with(503, &[], "<Error><Code>SlowDown</Code></Error>"),
        "/lake/down" => with(500, &[], "<Error><Code>InternalError</Code></Error>"),
        _ => serve(asked, &Bytes::from_static(b"0123456789")),
    })
    .await;
    let store = store(&stub);
    for missing in ["none", "dir/", "/a", ""] {
        let error = store.read("lake", missing, None).await.err().unwrap();
        assert_eq!(error, ColdsetError::NoSuchObject { uri: format!("s3://lake/{missing}") });
    }
    let error = store.read("lake", "denied", None).await.err().unwrap();
    assert!(matches!(error, ColdsetError::Refused { status: 403, .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("AccessDenied: Not yours") && text.contains("s3://lake/denied"),
        "{text}"
    );
    assert!(text.contains("coldset.s3.access-key-id"), "{text}");
    for range in [10..11, 5..5] {
        let error = store.read("lake", "ten", Some(range)).await.err().unwrap();
        assert!(matches!(error, ColdsetError::Refused { status: 416, .. }), "{error}");
    }
    assert_eq!(store.head("lake", "once").await.unwrap().size, 10);
    let error = store.head("lake", "down").await.unwrap_err();
    assert!(matches!(error, ColdsetError::Unavailable { .. }), "{error}");
    let before = stub.asked().len();
    for bucket in ["", "a/b", "..", "a?b", "a b", "ü"] {
        let error = store.head(bucket, "x").await.unwrap_err();
        assert!(matches!(error, ColdsetError::Refused { status: 400, .. }), "{error}");
    }
    for key in ["a//b", "a/../b", "a/\n"] {
        let error = store.head("lake", key).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Refused { status: 501, .. }), "{error}");
    }
    assert_eq!(stub.asked().len(), before, "what is refused is not sent");
}

/// A server that sends a head and half a body, then closes or falls silent.
async fn half_a_body(silent: bool) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                // No ETag: without one a broken read cannot be resumed.
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nlast-modified: {MODIFIED}\r\n\r\nhalf"
                );
                let _ = socket.write_all(head.as_bytes()).await;
                if silent {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_read_that_breaks_off_or_stalls_ends_with_an_error() {
    for silent in [false, true] {
        let mut config = ColdsetConfig::new("http://unused");
        config.s3.endpoint = Some(half_a_body(silent).await);
        config.request_timeout = Duration::from_millis(300);
        let store = ColdStore::new(&config).unwrap();
        let (_, stream) = store.read("lake", "a", None).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), all(stream)).await.unwrap();
        let error = read.unwrap_err();
        assert!(matches!(error, ColdsetError::Unavailable { .. }), "{silent}: {error}");
        assert!(error.to_string().contains("s3://lake/a"), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_read_ends_upstreams_too() {
    let pieces = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = pieces.clone();
    let stub = Stub::start(move |_, _| {
        let counted = counted.clone();
        let endless = futures::stream::repeat_with(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![0; 64 << 10]))
        });
        let size = (1_u64 << 40).to_string();
        let headers = [("content-length", size.as_str()), ("last-modified", MODIFIED)];
        with(200, &headers, axum::body::Body::from_stream(endless))
    })
    .await;
    let (object, mut stream) = store(&stub).read("lake", "huge", None).await.unwrap();
    assert_eq!(object.size, 1 << 40);
    stream.next().await.unwrap().unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = pieces.load(std::sync::atomic::Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pieces.load(std::sync::atomic::Ordering::Relaxed), sent);
    assert!(sent < 1000, "{sent} pieces of 64 KiB were sent ahead");
}

#[tokio::test]
async fn a_listing_is_the_stores_own_pages() {
    let stub = Stub::start(|asked, _| {
        let last = asked.target.contains("continuation-token=t%2F1");
        let page = if last {
            "<Contents><Key>a/z</Key><Size>1</Size><LastModified>2026-11-21T08:00:00.000Z\
             </LastModified><ETag>\"e\"</ETag></Contents>"
        } else {
            "<NextContinuationToken>t/1</NextContinuationToken>\
             <Contents><Key>a/</Key><Size>0</Size><LastModified>2026-11-21T08:00:00.000Z\
             </LastModified></Contents>\
             <Contents><Key>a/b</Key><Size>7</Size><LastModified>2026-11-21T08:00:00.000Z\
             </LastModified></Contents>\
             <CommonPrefixes><Prefix>a/d/</Prefix></CommonPrefixes>"
        };
        with(200, &[], format!("<ListBucketResult>{page}</ListBucketResult>"))
    })
    .await;
    let store = store(&stub);
    let first = store.list("lake", "a/", Some("/"), ListAfter::Key("a/a"), 2).await.unwrap();
    assert_eq!(first.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert_eq!((first.prefixes, first.objects[0].size), (vec!["a/d/".to_owned()], 7));
    let next = first.next.unwrap();
    let second = store.list("lake", "a/", Some("/"), ListAfter::Page(&next), 2).await.unwrap();
    assert_eq!((second.objects[0].key.as_str(), second.next), ("a/z", None));
    let asked = stub.asked();
    for part in ["prefix=a%2F", "delimiter=%2F", "start-after=a%2Fa", "max-keys=2", "list-type=2"] {
        assert!(asked[0].target.contains(part), "{part} in {}", asked[0].target);
    }
}

#[tokio::test]
async fn small_objects_are_one_put_and_large_ones_go_in_parts() {
    let stub = Stub::start(|asked, _| {
        let query = asked.target.split_once('?').map_or("", |(_, query)| query);
        match (asked.method.as_str(), query) {
            ("POST", "uploads=") => with(
                200,
                &[],
                "<InitiateMultipartUploadResult><UploadId>u1</UploadId>\
                 </InitiateMultipartUploadResult>",
            ),
            ("PUT", _) => with(200, &[("etag", "\"p\"")], ""),
            ("POST", "uploadId=u1") => with(
                200,
                &[],
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag>\
                 </CompleteMultipartUploadResult>",
            ),
            ("DELETE", "uploadId=u1") => with(204, &[], ""),
            ("POST", "delete") | ("POST", "delete=") => {
                with(200, &[], "<DeleteResult><Deleted><Key>a</Key></Deleted></DeleteResult>")
            }
            other => panic!("{other:?}"),
        }
    })
    .await;
    let store = store(&stub);
    let put = |pieces| store.put("lake", "a", Some("text/x"), body(pieces));
    let etag = put(vec![Bytes::from_static(b"small")]).await.unwrap();
    assert_eq!(etag.as_deref(), Some("\"p\""));
    let asked = stub.asked().pop().unwrap();
    assert_eq!((&asked.body[..], asked.header("content-type")), (&b"small"[..], "text/x"));

    let piece = Bytes::from(vec![7_u8; 1 << 20]);
    let etag = put(vec![piece.clone(); 40]).await.unwrap();
    assert_eq!(etag.as_deref(), Some("\"whole\""));
    let asked = stub.asked();
    let parts: Vec<usize> =
        asked.iter().filter(|a| a.target.contains("partNumber")).map(|a| a.body.len()).collect();
    assert_eq!(parts.iter().sum::<usize>(), 40 << 20);
    assert!(parts.iter().all(|part| *part <= 18 << 20), "{parts:?}");

    // A client that breaks off in the middle leaves nothing.
    let broken = ColdsetError::Refused { status: 400, message: "gone".into() };
    let pieces: Vec<_> = std::iter::repeat_n(Ok(piece.clone()), 20).collect();
    let stream = futures::stream::iter(pieces).chain(futures::stream::iter([Err(broken.clone())]));
    let error = store.put("lake", "a", None, stream.boxed()).await.unwrap_err();
    assert_eq!(error, broken);
    assert_eq!(stub.asked().pop().unwrap().method, "DELETE");

    // The client's own parts.
    let id = store.multipart_create("lake", "b").await.unwrap();
    let part = |number, length| {
        store.multipart_part("lake", "b", &id, number, length, body(vec![piece.clone()]))
    };
    let etag = part(1, 1 << 20).await.unwrap();
    for wrong in [part(2, (1 << 20) + 1), part(2, 10), part(0, 1 << 20), part(2, 1 << 40)] {
        let error = wrong.await.unwrap_err();
        assert!(matches!(error, ColdsetError::Refused { status: 400, .. }), "{error}");
    }
    let gap = store.multipart_complete("lake", "b", &id, &[(2, etag.clone())]).await;
    assert!(matches!(gap, Err(ColdsetError::Refused { status: 501, .. })));
    let whole = store.multipart_complete("lake", "b", &id, &[(1, etag)]).await.unwrap();
    assert_eq!(whole.as_deref(), Some("\"whole\""));
    store.multipart_abort("lake", "b", &id).await.unwrap();
    store.delete("lake", "a").await.unwrap();
    for key in ["", "a/", "/a"] {
        let error = store.put("lake", key, None, body(vec![])).await.unwrap_err();
        assert!(matches!(error, ColdsetError::Refused { status: 400, .. }), "{error}");
    }
}

#[tokio::test]
async fn memory_behaves_as_the_real_one() {
    let store = ColdStore::in_memory();
    for key in ["a/1", "a/b/2", "a/b/3", "a/c/4", "d"] {
        store
            .put("lake", key, None, body(vec![Bytes::copy_from_slice(key.as_bytes())]))
            .await
            .unwrap();
    }
    assert_eq!(store.get_uri("s3://lake/a/b/2", Some(2..100), 10).await.unwrap(), "b/2");
    let mut seen = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let after = token.as_deref().map_or(ListAfter::Start, ListAfter::Page);
        let page = store.list("lake", "a/", Some("/"), after, 1).await.unwrap();
        seen.extend(page.objects.into_iter().map(|o| o.key));
        seen.extend(page.prefixes);
        match page.next {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["a/1", "a/b/", "a/c/"]);
    let page = store.list("lake", "a", None, ListAfter::Key("a/b/2"), 1000).await.unwrap();
    assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["a/b/3", "a/c/4"]);
    assert!(store.list("other", "", None, ListAfter::Start, 10).await.unwrap().objects.is_empty());

    let id = store.multipart_create("lake", "m").await.unwrap();
    let mut parts = Vec::new();
    for (number, text) in [(1, "one"), (2, "two")] {
        let piece = Bytes::from_static(text.as_bytes());
        let part = store.multipart_part("lake", "m", &id, number, 3, body(vec![piece]));
        parts.push((number, part.await.unwrap()));
    }
    store.multipart_complete("lake", "m", &id, &parts).await.unwrap();
    assert_eq!(store.get_uri("s3://lake/m", None, 10).await.unwrap(), "onetwo");
    store.delete("lake", "m").await.unwrap();
    store.delete("lake", "m").await.unwrap();
    assert!(matches!(store.head("lake", "m").await, Err(ColdsetError::NoSuchObject { .. })));
    let error = store.read("lake", "d", Some(1..2)).await.err().unwrap();
    assert!(matches!(error, ColdsetError::Refused { status: 416, .. }), "{error}");
}

#[tokio::test]
async fn each_request_is_signed_with_the_keys_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("id");
    std::fs::write(&path, "OLDKEY").unwrap();
    let content = Bytes::from_static(b"bytes");
    let stub = Stub::start(move |asked, _| serve(asked, &content)).await;
    let mut config = config(&stub);
    let keys = config.s3.keys.as_mut().unwrap();
    keys.id = Secret::File(SecretFile::open(&path).unwrap());
    let store = ColdStore::new(&config).unwrap();
    let signer = || {
        let signed = stub.asked().pop().unwrap().header("authorization").to_owned();
        signed.split(['=', '/']).nth(1).unwrap().to_owned()
    };
    store.head("lake", "a").await.unwrap();
    assert_eq!(signer(), "OLDKEY");
    std::fs::write(&path, "NEWKEY").unwrap();
    store.head("lake", "a").await.unwrap();
    assert_eq!(signer(), "NEWKEY");
}

#[tokio::test]
async fn hosts_and_keys_that_cannot_be_are_configuration_errors() {
    for (endpoint, id, named) in [
        ("not a url", "k", "s3.endpoint"),
        ("ftp://x", "k", "s3.endpoint"),
        ("http://me:hunter2@x", "k", "s3.endpoint"),
        ("http://x", "k\n", "s3.access-key-id"),
    ] {
        let mut config = ColdsetConfig::new("http://unused");
        config.s3.endpoint = Some(endpoint.into());
        let keys = AccessKeys { id: id.into(), secret: SECRET.into(), session_token: None };
        config.s3.keys = Some(keys);
        match ColdStore::new(&config) {
            Err(ColdsetError::Config { key, reason }) => {
                assert_eq!(key, named);
                assert!(!reason.contains(SECRET));
            }
            other => panic!("{endpoint} gave {other:?}"),
        }
    }
}

/// Reading the positions of a file costs its footer and two columns, not the file.
#[tokio::test]
async fn positions_read_two_columns_only() {
    use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
    use isk_coldset::{ColdFile, ColdFormat, FieldBounds, KafkaColumns, positions};
    let text = StringArray::from_iter_values((0..50_000_u64).map(|n| {
        // Nothing a codec could shorten.
        format!(
            "{:016x}{:016x}",
            n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
            n.wrapping_mul(0xD1B5_4A32_D192_ED03)
        )
    }));
    let batch = RecordBatch::try_from_iter([
        ("payload", Arc::new(text) as ArrayRef),
        ("kafka_partition", Arc::new(Int32Array::from(vec![2; 50_000]))),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values(0..50_000))),
    ])
    .unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    let bytes = Bytes::from(writer.into_inner().unwrap());
    let content = bytes.clone();
    let stub = Stub::start(move |asked, _| serve(asked, &content)).await;
    let file = ColdFile {
        uri: "s3://lake/f.parquet".into(),
        format: ColdFormat::Parquet,
        records: 50_000,
        size: bytes.len() as u64,
        live: true,
        partition: FieldBounds::default(),
        offset: FieldBounds::default(),
    };
    let columns = KafkaColumns {
        partition: (1, "kafka_partition".into()),
        offset: (2, "kafka_offset".into()),
    };
    let sets = positions(&store(&stub), &file, &columns).await.unwrap();
    assert_eq!(sets.values().map(|set| set.len()).collect::<Vec<_>>(), [50_000]);
    let read: usize = stub
        .asked()
        .iter()
        .map(|asked| {
            let range = asked.header("range").strip_prefix("bytes=").unwrap();
            let (start, end) = range.split_once('-').unwrap();
            end.parse::<usize>().unwrap() + 1 - start.parse::<usize>().unwrap()
        })
        .sum();
    assert!(read * 3 < bytes.len(), "{read} of {} bytes were read", bytes.len());
    assert!(stub.asked().len() <= 4, "{} requests", stub.asked().len());
}
