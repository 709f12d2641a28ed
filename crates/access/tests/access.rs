//! Tokens, keys and rules together: what is good, until when, and what is revoked by what.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use isk_access::{
    Access, AccessFile, AccessSettings, Right, S3Caller, S3Refused, SigningKey, TableName,
};

static CLOCK: AtomicU64 = AtomicU64::new(1_700_000_000);

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("access.toml"), text).unwrap();
}

fn principal(name: &str, secret: &str) -> String {
    format!("[[principal]]\nname = \"{name}\"\nsecrets = [{{ file = \"{secret}\" }}]\n")
}

fn settings(folder: &Path, key: &str) -> AccessSettings {
    std::fs::write(folder.join("one"), "secret-one").unwrap();
    std::fs::write(folder.join("two"), "secret-two").unwrap();
    AccessSettings {
        file: Some(AccessFile::new(folder.join("access.toml"))),
        ..AccessSettings::new(SigningKey::new(&key.repeat(32)).unwrap())
    }
}

fn hot(table: &str) -> Vec<TableName> {
    vec![TableName::new("hotset", table)]
}

#[tokio::test]
async fn tokens_end_and_are_good_at_replicas_with_the_same_key() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &principal("a", "one"));
    let clock = || CLOCK.load(Ordering::Relaxed);
    let make = |key| {
        let settings = AccessSettings { clock, ..settings(folder.path(), key) };
        Access::new(settings).unwrap()
    };
    let (access, replica, stranger) = (make("k"), make("k"), make("x"));
    let granted = access.grant("a", "secret-one").unwrap();
    assert_eq!(granted.expires_in, 3600);
    assert!(!format!("{granted:?}").contains(&granted.token));
    assert!(access.grant("a", "secret-two").is_err());
    assert!(access.grant("b", "secret-one").is_err());
    let caller = access.bearer(&granted.token).await.unwrap();
    assert_eq!(replica.bearer(&granted.token).await.unwrap(), caller);
    assert!(stranger.bearer(&granted.token).await.is_err());
    let key = access.vend(&caller, hot("t"), &["s3://hotset/t".into()], false).unwrap().unwrap();
    let token = Some(key.session_token.as_str());
    assert!(replica.s3_caller(&key.access_key_id, token).is_ok());
    assert_eq!(replica.s3_secret(&key.access_key_id), Some(key.secret_access_key.clone()));
    assert!(matches!(stranger.s3_caller(&key.access_key_id, token), Err(S3Refused::Invalid(_))));
    assert!(matches!(access.s3_caller(&key.access_key_id, None), Err(S3Refused::Invalid(_))));

    CLOCK.fetch_add(3599, Ordering::Relaxed);
    let renewed = access.exchange(&granted.token).await.unwrap();
    CLOCK.fetch_add(1, Ordering::Relaxed);
    assert!(access.bearer(&granted.token).await.is_err());
    assert!(access.exchange(&granted.token).await.is_err());
    assert!(access.bearer(&renewed.token).await.is_ok());
    CLOCK.fetch_add(3600 / 4, Ordering::Relaxed);
    assert_eq!(access.s3_caller(&key.access_key_id, token), Err(S3Refused::Expired));
}

#[tokio::test]
async fn the_file_is_read_again_and_revokes() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "[[rule]]\nprincipals = [\"a\"]\ntables = [\"hotset.t\"]\nallow = \"read\"\n";
    let with_rule = format!("{}{rule}", principal("a", "one"));
    write(folder.path(), &with_rule);
    let access = Access::new(settings(folder.path(), "k")).unwrap();
    let watching = access.clone();
    tokio::spawn(async move { watching.watch_forever().await });
    let token = access.grant("a", "secret-one").unwrap().token;
    let caller = access.bearer(&token).await.unwrap();
    let key = access.vend(&caller, hot("t"), &["s3://hotset/t".into()], false).unwrap().unwrap();
    assert!(access.may(&caller, Right::Read, &hot("t")));
    assert_eq!(access.right(&caller, &hot("u")), None);

    // A file that is no good changes nothing.
    write(folder.path(), "[[rule]\n");
    let failed = || !access.metrics_text().contains("errors_total 0\n");
    until(failed).await;
    assert!(access.may(&caller, Right::Read, &hot("t")));

    write(folder.path(), &principal("a", "one"));
    until(|| access.right(&caller, &hot("t")).is_none()).await;
    let S3Caller::Vended(scope) =
        access.s3_caller(&key.access_key_id, Some(&key.session_token)).unwrap()
    else {
        panic!("it is a vended key")
    };
    assert!(!access.may(&scope.caller, Right::Read, &scope.tables), "the key opens nothing now");

    // Another secret: what was got with the old one is worth nothing any more.
    write(folder.path(), &with_rule.replace("one", "two"));
    until(|| access.grant("a", "secret-two").is_ok()).await;
    assert!(access.bearer(&token).await.is_err());
    let refused = access.s3_caller(&key.access_key_id, Some(&key.session_token)).unwrap_err();
    assert!(refused.to_string().contains("revoked"), "{refused}");
}

async fn until(done: impl Fn() -> bool) {
    for _ in 0..100 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not happen within ten seconds");
}

#[tokio::test]
async fn signing_keys_and_clients_change_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (keys, clients) = (folder.path().join("keys"), folder.path().join("clients"));
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    std::fs::write(&keys, &old).unwrap();
    std::fs::write(&clients, "a:first\n").unwrap();
    let access = Access::new(AccessSettings {
        signing_key_file: Some(keys.clone()),
        credentials_file: Some(clients.clone()),
        ..AccessSettings::new(SigningKey::new(&"u".repeat(32)).unwrap())
    });
    let access = access.unwrap();
    let watching = access.clone();
    tokio::spawn(async move { watching.watch_forever().await });
    let token = access.grant("a", "first").unwrap().token;
    let caller = access.bearer(&token).await.unwrap();
    let vend =
        || access.vend(&caller, hot("t"), &["s3://hotset/t".into()], false).unwrap().unwrap();
    let key = vend();
    let opens = || {
        let signed = access.s3_secret(&key.access_key_id) == Some(key.secret_access_key.clone());
        signed && access.s3_caller(&key.access_key_id, Some(&key.session_token)).is_ok()
    };
    assert!(opens());

    // The new key signs, what the old one signed is still good.
    std::fs::write(&keys, format!("{new}\n{old}\n")).unwrap();
    until(|| vend() != key).await;
    assert!(opens() && access.bearer(&token).await.is_ok());
    let renewed = access.exchange(&token).await.unwrap().token;

    // A key that is too short changes nothing.
    std::fs::write(&keys, "short").unwrap();
    let errors = || !access.metrics_text().contains("errors_total 0\n");
    until(errors).await;
    assert!(opens());

    // The old one is not there any more.
    std::fs::write(&keys, &new).unwrap();
    until(|| !opens()).await;
    assert!(access.bearer(&token).await.is_err());
    assert!(access.bearer(&renewed).await.is_ok());

    // Both secrets, then the other one alone: what was got with the first ends with it.
    std::fs::write(&clients, "a:first\na:second\n").unwrap();
    until(|| access.grant("a", "second").is_ok()).await;
    assert!(access.grant("a", "first").is_ok() && access.bearer(&renewed).await.is_ok());
    std::fs::write(&clients, "a:second\n").unwrap();
    until(|| access.grant("a", "first").is_err()).await;
    assert!(access.bearer(&renewed).await.is_err());
}

#[test]
fn a_certificate_is_known_by_its_names_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, certificate: &str| {
        format!("[[principal]]\nname = \"{name}\"\ncertificates = [\"{certificate}\"]\n")
    };
    let text = with("a", "dns:a") + &with("b", "uri:b") + &with("c", "subject:CN=c,O=x");
    write(folder.path(), &text);
    let access = Access::new(settings(folder.path(), "k")).unwrap();
    let known = |names: &[&str], not_after| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        access.certificate(&names, not_after).map(|caller| caller.name)
    };
    let far = u64::MAX;
    assert_eq!(known(&["subject:CN=z", "dns:a"], far).unwrap(), "a");
    assert_eq!(known(&["subject:CN=c,O=x"], far).unwrap(), "c");
    for names in [&["dns:a", "uri:b"][..], &["dns:b"], &["uri:a"], &["subject:CN=c"], &[]] {
        assert!(known(names, far).is_err(), "{names:?}");
    }
    assert!(known(&["dns:a"], 1_000).unwrap_err().to_string().contains("expired"));
    for (bad, why) in [
        (with("a", "CN=a"), "begins with none"),
        (with("a", "dns:a") + &with("b", "dns:a"), "another one's certificate"),
    ] {
        write(folder.path(), &bad);
        let error = Access::new(settings(folder.path(), "k")).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
