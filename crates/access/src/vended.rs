//! Short-lived S3 keys of one table: made with `loadTable`, checked by any replica.
//!
//! The session token says whose key it is, what of which tables, and until when. The access key id is a digest of
//! that, and the secret a digest of the id, each under a key of its own. So the gateway knows the secret from the
//! id alone, before it has seen the token; and a token is good with its own id only.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::keys::SigningKey;
use crate::principal::{Caller, TableName};

/// What the ids of vended keys begin with.
const ID_PREFIX: &str = "ISKV";

/// The longest session token that is looked at.
const MAX_TOKEN: usize = 16 << 10;

/// What a vended key is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Whose it is.
    #[serde(rename = "c")]
    pub caller: Caller,
    /// The tables that its owner must be allowed to read, at the time it is used.
    #[serde(rename = "t")]
    pub tables: Vec<TableName>,
    /// What the URIs of all its objects begin with; each ends in `/`.
    #[serde(rename = "p")]
    pub prefixes: Vec<String>,
    /// Whether it may write there, where its owner may write the tables.
    #[serde(rename = "w")]
    pub writes: bool,
    /// When it ends, in seconds since 1970.
    #[serde(rename = "e")]
    pub expires: u64,
    /// Stands for the groups named by what took something from callers when it was made.
    #[serde(rename = "g", default)]
    pub limiting_groups: u64,
}

impl Scope {
    /// Whether an object is one of the table's.
    pub fn covers(&self, bucket: &str, key: &str) -> bool {
        // What a store might take for another path than it reads as is nobody's.
        let sound = !key.split('/').any(|part| matches!(part, "." | ".."));
        sound && self.prefixes.iter().any(|prefix| is_below(prefix, bucket, key))
    }

    /// Whether some object in the bucket is the table's.
    pub fn touches(&self, bucket: &str) -> bool {
        self.prefixes.iter().any(|prefix| split(prefix).is_some_and(|(own, _)| own == bucket))
    }
}

/// `bucket` and the beginning of keys in `s3://bucket/a/b/`.
fn split(prefix: &str) -> Option<(&str, &str)> {
    prefix.split_once("://")?.1.split_once('/')
}

fn is_below(prefix: &str, bucket: &str, key: &str) -> bool {
    split(prefix).is_some_and(|(own, folder)| own == bucket && key.starts_with(folder))
}

/// A key pair and its session token, as clients get them.
#[derive(Clone, PartialEq, Eq)]
pub struct VendedKey {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// The session token.
    pub session_token: String,
    /// When it ends, in seconds since 1970; `None` where it does not.
    pub expires: Option<u64>,
}

impl fmt::Debug for VendedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendedKey").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// The first bytes in hexadecimal digits.
fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| format!("{byte:02X}")).collect()
}

/// Makes vended keys and checks them.
pub(crate) struct Vendor {
    /// Tells in an id whose it is, since the secret follows from the id alone.
    mark: String,
    tokens: hmac::Key,
    ids: hmac::Key,
    secrets: hmac::Key,
}

impl Vendor {
    pub(crate) fn new(key: &SigningKey) -> Self {
        Self {
            mark: hex(&key.bytes_for("mark of vended access key ids"), 2),
            tokens: key.key_for("vended session tokens"),
            ids: key.key_for("vended access key ids"),
            secrets: key.key_for("vended secret keys"),
        }
    }

    /// The key of a scope: always the same one.
    pub(crate) fn vend(&self, scope: &Scope) -> Result<VendedKey, serde_json::Error> {
        let payload = serde_json::to_vec(scope)?;
        let tag = hmac::sign(&self.tokens, &payload);
        let session_token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(&payload),
            URL_SAFE_NO_PAD.encode(tag.as_ref())
        );
        let access_key_id = self.id_of(&payload);
        let secret_access_key = self.secret_of(&access_key_id);
        Ok(VendedKey {
            access_key_id,
            secret_access_key,
            session_token,
            expires: Some(scope.expires),
        })
    }

    fn id_of(&self, payload: &[u8]) -> String {
        let digest = hmac::sign(&self.ids, payload);
        format!("{ID_PREFIX}{}{}", self.mark, hex(digest.as_ref(), 16))
    }

    fn secret_of(&self, access_key_id: &str) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.secrets, access_key_id.as_bytes()).as_ref())
    }

    /// The secret of an id that looks like a vended one of this key. Any such id has one: what counts is the token.
    pub(crate) fn secret(&self, access_key_id: &str) -> Option<String> {
        let rest = access_key_id.strip_prefix(ID_PREFIX)?;
        rest.starts_with(&self.mark).then(|| self.secret_of(access_key_id))
    }

    /// What a token of ours says, where it belongs to this id.
    pub(crate) fn open(&self, access_key_id: &str, token: &str) -> Option<Scope> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (payload, tag) = token.split_once('.')?;
        let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.tokens, &payload, &tag).ok()?;
        if self.id_of(&payload) != access_key_id {
            return None;
        }
        serde_json::from_slice(&payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(prefixes: &[&str]) -> Scope {
        Scope {
            caller: Caller::anyone(),
            tables: vec![TableName::new("hotset", "t")],
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            writes: false,
            expires: 7,
            limiting_groups: 0,
        }
    }

    fn vendor(key: &str) -> Vendor {
        Vendor::new(&SigningKey::new(&key.repeat(32)).unwrap())
    }

    #[test]
    fn a_token_is_good_with_its_own_id_and_key_alone() {
        let (ours, theirs) = (vendor("a"), vendor("b"));
        let (one, two) = (scope(&["s3://hotset/t/"]), scope(&["s3://hotset/u/"]));
        let (first, second) = (ours.vend(&one).unwrap(), ours.vend(&two).unwrap());
        assert_eq!(ours.vend(&one).unwrap(), first);
        assert_eq!(ours.open(&first.access_key_id, &first.session_token), Some(one.clone()));
        assert_eq!(ours.secret(&first.access_key_id), Some(first.secret_access_key.clone()));
        assert_eq!(ours.secret("isk"), None);
        assert_eq!(ours.open(&second.access_key_id, &first.session_token), None);
        assert_eq!(theirs.open(&first.access_key_id, &first.session_token), None);
        assert_ne!(theirs.secret(&first.access_key_id), Some(first.secret_access_key));
        let (payload, tag) = first.session_token.split_once('.').unwrap();
        let wider = serde_json::to_vec(&two).unwrap();
        let forged = format!("{}.{tag}", URL_SAFE_NO_PAD.encode(wider));
        for token in [&forged, payload, &format!("{payload}."), "", ".", "a.b", &"x".repeat(20_000)]
        {
            assert_eq!(ours.open(&first.access_key_id, token), None, "{token}");
            assert_eq!(ours.open(&second.access_key_id, token), None, "{token}");
        }
    }

    #[test]
    fn a_scope_is_a_folder_and_not_what_begins_like_it() {
        let scope = scope(&["s3://hotset/t/", "s3a://lake/cold/t/"]);
        for (bucket, key, expected) in [
            ("hotset", "t/data/x", true),
            ("hotset", "t/", true),
            ("hotset", "t", false),
            ("hotset", "t2/data/x", false),
            ("hotset", "", false),
            ("hotset", "t/../u/x", false),
            ("hotset", "t/./x", false),
            ("hotset", "t/..x/y", true),
            ("lake", "cold/t/m", true),
            ("lake", "t/m", false),
            ("lake", "/cold/t/m", false),
            ("hotset/t", "data/x", false),
            ("merged", "t/x", false),
        ] {
            assert_eq!(scope.covers(bucket, key), expected, "{bucket} {key}");
        }
        assert!(scope.touches("lake") && !scope.touches("lak"));
    }
}
