//! Whose key opens what: principals and vended keys × objects × operations, cell by cell.

// The helpers of these tests fail as the tests do.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, SystemTime};

use isk_access::{Access, AccessFile, AccessSettings, Caller, SigningKey, TableName, VendedKey};
use isk_coldset::ColdStore;
use isk_s3_http::ColdBuckets;
use support::memory::samples;
use support::signer::Signer;
use support::{Answer, Running, send};

const RULES: &str = r#"
[[principal]]
name = "reader"
secrets = [{ file = "secret" }]
s3_keys = [{ access_key_id = "reader", file = "secret" }]
[[principal]]
name = "writer"
secrets = [{ file = "secret" }]
s3_keys = [{ access_key_id = "writer", file = "secret" }]
[[principal]]
name = "admin"
s3_keys = [{ access_key_id = "admin", file = "secret" }]
[[principal]]
name = "nobody"
s3_keys = [{ access_key_id = "nobody", file = "secret" }]

[[rule]]
principals = ["reader"]
tables = ["hotset.t", "coldset.a"]
allow = "read"
[[rule]]
principals = ["writer"]
tables = ["coldset.a"]
allow = "write"
[[rule]]
principals = ["admin"]
tables = ["*"]
allow = "write"
"#;

/// Whatever the store says of it.
const ANY: u16 = 0;

/// A name that is nobody's object, or not signed as it is read.
const REFUSED: u16 = 1;

/// The signing key of the tests' replicas.
const KEY: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

fn settings(rules: &str) -> (tempfile::TempDir, AccessSettings) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "a-long-secret").unwrap();
    std::fs::write(folder.path().join("access.toml"), rules).unwrap();
    let settings = AccessSettings {
        file: Some(AccessFile::new(folder.path().join("access.toml"))),
        ..AccessSettings::new(SigningKey::new(KEY).unwrap())
    };
    (folder, settings)
}

fn access() -> Access {
    let (_folder, settings) = settings(RULES);
    Access::new(settings).unwrap()
}

/// A gateway with a few objects in the store of its coldset.
async fn start(access: &Access) -> Running {
    let cold = ColdBuckets { store: ColdStore::in_memory(), writable: true };
    let gateway = Running::guarded(samples(), Some(cold), access.clone()).await;
    for key in ["cold/a/data", "cold/b/data", "cold/ab/data"] {
        let admin = own("admin");
        let request = gateway.request(&admin, "PUT", &format!("/lake/{key}"), &[]).body("x");
        assert_eq!(send(request).await.status, 200, "{key}");
    }
    gateway
}

fn own(name: &str) -> Signer {
    Signer {
        access_key_id: name.into(),
        secret: "a-long-secret".into(),
        token: None,
        time: SystemTime::now(),
        payload: support::signer::UNSIGNED,
    }
}

fn signer(key: &VendedKey) -> Signer {
    Signer {
        access_key_id: key.access_key_id.clone(),
        secret: key.secret_access_key.clone(),
        token: Some(key.session_token.clone()),
        ..own("")
    }
}

async fn caller(access: &Access, name: &str) -> Caller {
    let token = access.grant(name, "a-long-secret").unwrap().token;
    access.bearer(&token).await.unwrap()
}

fn vend(access: &Access, caller: &Caller, table: &str, prefix: &str, writes: bool) -> VendedKey {
    let (namespace, name) = table.split_once('.').unwrap();
    let tables = vec![TableName::new(namespace, name)];
    access.vend(caller, tables, &[prefix.to_owned()], writes).unwrap().unwrap()
}

async fn ask(gateway: &Running, signer: &Signer, method: &str, target: &str) -> Answer {
    let request = gateway.request(signer, method, target, &[]);
    send(if method == "PUT" { request.body("x") } else { request }).await
}

#[tokio::test]
async fn every_cell_of_the_matrix() {
    let access = access();
    let gateway = start(&access).await;
    let (reader, writer) = (caller(&access, "reader").await, caller(&access, "writer").await);
    let signers = [
        ("reader's own", own("reader")),
        ("writer's own", own("writer")),
        ("admin's own", own("admin")),
        ("nobody's own", own("nobody")),
        ("reader, hotset.t", signer(&vend(&access, &reader, "hotset.t", "s3://hotset/t", false))),
        (
            "reader, coldset.a",
            signer(&vend(&access, &reader, "coldset.a", "s3://lake/cold/a", true)),
        ),
        (
            "writer, coldset.a",
            signer(&vend(&access, &writer, "coldset.a", "s3://lake/cold/a/", true)),
        ),
        (
            "writer, read-only",
            signer(&vend(&access, &writer, "coldset.a", "s3://lake/cold/a", false)),
        ),
        // Vended, and then forbidden by the rules: the table is none that its owner may read.
        ("writer, hotset.t", signer(&vend(&access, &writer, "hotset.t", "s3://hotset/t", false))),
    ];
    for (method, target, expected) in [
        ("GET", "/", [200, 200, 200, 200, 403, 403, 403, 403, 403]),
        ("HEAD", "/hotset", [200, 200, 200, 200, 200, 403, 403, 403, 403]),
        ("GET", "/hotset/t/data/small.parquet", [200, 403, 200, 403, 200, 403, 403, 403, 403]),
        ("HEAD", "/hotset/t/data/small.parquet", [200, 403, 200, 403, 200, 403, 403, 403, 403]),
        ("GET", "/hotset/many/0001", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/hotset/t/..%2Fodd/x", [REFUSED; 9]),
        ("GET", "/hotset/t%2F..%2F..%2Flake/cold/b/data", [REFUSED; 9]),
        ("GET", "/hotset//t/data/small.parquet", [REFUSED; 9]),
        ("GET", "/hotset?list-type=2&prefix=t%2F", [200, 403, 200, 403, 200, 403, 403, 403, 403]),
        ("GET", "/hotset?list-type=2&prefix=odd%2F", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/hotset?list-type=2", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/hotset?list-type=2&prefix=t", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/hotset?prefix=odd%2F", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/lake/cold/a/data", [403, 403, 200, 403, 403, 200, 200, 200, 403]),
        ("GET", "/lake/cold/b/data", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/lake/cold/ab/data", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("GET", "/lake/cold/a/..%2Fb/data", [REFUSED; 9]),
        (
            "GET",
            "/lake?list-type=2&prefix=cold%2Fa%2F",
            [403, 403, 200, 403, 403, 200, 200, 200, 403],
        ),
        ("GET", "/lake?list-type=2&prefix=cold%2F", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        (
            "GET",
            "/lake?list-type=2&prefix=cold%2Fa%2F..%2Fb",
            [403, 403, ANY, 403, 403, 403, 403, 403, 403],
        ),
        ("PUT", "/lake/cold/a/new", [403, 403, 200, 403, 403, 403, 200, 403, 403]),
        ("PUT", "/lake/cold/b/new", [403, 403, 200, 403, 403, 403, 403, 403, 403]),
        ("DELETE", "/lake/cold/a/new", [403, 403, ANY, 403, 403, 403, ANY, 403, 403]),
        ("PUT", "/hotset/t/data/new", [403; 9]),
    ] {
        for ((name, signer), expected) in signers.iter().zip(expected) {
            let answer = ask(&gateway, signer, method, target).await;
            let seen = match expected {
                ANY => true,
                REFUSED => (400..500).contains(&answer.status),
                expected => answer.status == expected,
            };
            assert!(seen, "{name} {method} {target}: {} {}", answer.status, answer.code());
        }
    }
}

#[tokio::test]
async fn deletions_of_many_stay_in_the_table() {
    let access = access();
    let gateway = start(&access).await;
    let writer = caller(&access, "writer").await;
    let signer = signer(&vend(&access, &writer, "coldset.a", "s3://lake/cold/a", true));
    let delete = async |keys: &[&str]| {
        let objects: String =
            keys.iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
        let request = gateway.request(&signer, "POST", "/lake?delete=", &[]);
        send(request.body(format!("<Delete>{objects}</Delete>"))).await
    };
    assert_eq!(delete(&["cold/a/data", "cold/b/data"]).await.status, 403);
    assert_eq!(ask(&gateway, &own("admin"), "GET", "/lake/cold/a/data").await.status, 200);
    assert_eq!(delete(&["cold/a/data"]).await.status, 200);
    assert_eq!(ask(&gateway, &own("admin"), "GET", "/lake/cold/a/data").await.status, 404);
}

#[tokio::test]
async fn forged_swapped_and_old_keys_are_refused() {
    let access = access();
    let gateway = start(&access).await;
    let reader = caller(&access, "reader").await;
    let hot = vend(&access, &reader, "hotset.t", "s3://hotset/t", false);
    let cold = vend(&access, &reader, "coldset.a", "s3://lake/cold/a", false);
    let good = signer(&hot);
    let with = |change: &dyn Fn(&mut Signer)| {
        let mut signer = good.clone();
        change(&mut signer);
        signer
    };
    let (_folder, past) = settings(RULES);
    let past = Access::new(AccessSettings { clock: || 1_000_000_000, ..past }).unwrap();
    let (_other_folder, other) = settings(RULES);
    let signing_key = SigningKey::new(&"x".repeat(32)).unwrap();
    let other = Access::new(AccessSettings { signing_key, ..other }).unwrap();
    let (_renewed_folder, renewed) = settings(&RULES.replace("name = \"reader\"", "name = \"r\""));
    let renewed = Access::new(renewed).unwrap();
    let as_other = caller(&other, "reader").await;
    let of_renewed = caller(&renewed, "r").await;
    let target = "/hotset/t/data/small.parquet";
    for (what, signer, status, code) in [
        ("good", good.clone(), 200, ""),
        ("no token", with(&|s| s.token = None), 400, "InvalidToken"),
        (
            "another's token",
            with(&|s| s.token = Some(cold.session_token.clone())),
            400,
            "InvalidToken",
        ),
        ("a guess", with(&|s| s.token = Some("guess".into())), 400, "InvalidToken"),
        (
            "another's secret",
            with(&|s| s.secret = cold.secret_access_key.clone()),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            "an id of one's own",
            with(&|s| s.access_key_id = "ISKV00".into()),
            403,
            "InvalidAccessKeyId",
        ),
        (
            "an old request",
            with(&|s| s.time -= Duration::from_secs(1000)),
            403,
            "RequestTimeTooSkewed",
        ),
        ("an unknown id", with(&|s| s.access_key_id = "isk-id".into()), 403, "InvalidAccessKeyId"),
        (
            "expired",
            signer(&vend(&past, &reader, "hotset.t", "s3://hotset/t", false)),
            400,
            "ExpiredToken",
        ),
        (
            "another signing key",
            signer(&vend(&other, &as_other, "hotset.t", "s3://hotset/t", false)),
            403,
            "InvalidAccessKeyId",
        ),
        (
            "a principal that is none",
            signer(&vend(&renewed, &of_renewed, "hotset.t", "s3://hotset/t", false)),
            400,
            "InvalidToken",
        ),
    ] {
        let answer = ask(&gateway, &signer, "GET", target).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(status == 200 || !text.contains(&hot.secret_access_key), "{what}: {text}");
    }
    let host = gateway.address.to_string();
    let presigned = format!("{target}?{}", good.presigned(&host, target, 60));
    assert_eq!(send(gateway.unsigned("GET", &presigned, vec![])).await.status, 200);
    let elsewhere = presigned.replace("small", "medium");
    assert_eq!(send(gateway.unsigned("GET", &elsewhere, vec![])).await.status, 403);
}

#[tokio::test]
async fn one_principal_does_not_take_all_places() {
    let (_folder, settings) = settings(RULES);
    let access = Access::new(AccessSettings { concurrent_requests: 1, ..settings }).unwrap();
    let gateway = start(&access).await;
    let reader = caller(&access, "reader").await;
    let permit = access.enter(&reader).unwrap();
    let target = "/hotset/t/data/small.parquet";
    let answer = ask(&gateway, &own("reader"), "GET", target).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "SlowDown"));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(ask(&gateway, &own("admin"), "GET", target).await.status, 200);
    drop(permit);
    // A body that is being sent takes its place until its reader goes.
    let huge = "/hotset/t/data/huge.parquet";
    let sending = gateway.request(&own("reader"), "GET", huge, &[]).send().await.unwrap();
    assert_eq!(sending.status().as_u16(), 200);
    assert_eq!(ask(&gateway, &own("reader"), "GET", target).await.status, 503);
    drop(sending);
    let mut status = 503;
    for _ in 0..50 {
        status = ask(&gateway, &own("reader"), "GET", target).await.status;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, 200);
}
