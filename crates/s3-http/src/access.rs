//! Who may do what: a valid SigV4 signature by a key that is known may read, and write where the coldset's buckets
//! may be written to. Nobody writes to ours. Where callers are told apart, `scope` says what is whose.

use std::sync::Arc;

use http::{HeaderMap, Uri, header};
use isk_access::{Access, Caller, S3Caller, S3Refused};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::audit::Asked;
use crate::error::slow_down;
use crate::scope::{Owners, Wanted};
use crate::settings::GatewayCredentials;

const SIGV4: &str = "AWS4-HMAC-SHA256";
const TOKEN: &str = "x-amz-security-token";

/// What the names of writing operations begin with.
const WRITES: [&str; 12] = [
    "Abort", "Complete", "Copy", "Create", "Delete", "Post", "Put", "Rename", "Restore", "Update",
    "Upload", "Write",
];

/// The writing operations that a bucket of the coldset has.
const COLD_WRITES: [&str; 7] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
    "PutObject",
    "UploadPart",
];

/// What may be done in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// One of ours, or none at all.
    ReadOnly,
    /// One of the coldset's, whose configuration allows no writing.
    ColdReadOnly,
    /// One of the coldset's.
    ColdWritable,
}

/// Gives the signature check the secret of an access key id.
pub(crate) struct Keys {
    access: Access,
    /// The one that there is where everybody may come in.
    access_key_id: String,
    secret: SecretKey,
}

impl Keys {
    pub(crate) fn new(access: Access, credentials: &GatewayCredentials) -> Self {
        Self {
            access,
            access_key_id: credentials.access_key_id.clone(),
            secret: SecretKey::from(credentials.secret_access_key.as_str()),
        }
    }
}

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let secret = match self.access.is_open() {
            true => (access_key == self.access_key_id).then(|| self.secret.clone()),
            false => self.access.s3_secret(access_key).map(SecretKey::from),
        };
        secret.ok_or_else(|| {
            let message =
                "this gateway does not know the access key id; loadTable vends the right one";
            S3Error::with_message(S3ErrorCode::InvalidAccessKeyId, message)
        })
    }
}

/// Decides on a request whose signature has been checked.
pub(crate) struct Gate<R> {
    session_token: String,
    rights: R,
    owners: Owners,
}

impl<R: Fn(&str) -> Rights> Gate<R> {
    /// A gate that learns what may be done in a bucket from `rights`, and whose it is from `owners`.
    pub(crate) fn new(credentials: &GatewayCredentials, rights: R, owners: Owners) -> Self {
        Self { session_token: credentials.session_token.clone(), rights, owners }
    }

    /// The caller, where callers are told apart.
    fn caller(
        &self,
        access_key_id: &str,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> S3Result<Option<S3Caller>> {
        let token = session_token(headers, uri);
        if self.owners.access.is_open() {
            // Whoever gets here holds the secret key, so the time this takes tells nobody anything.
            if token.is_some_and(|token| token != self.session_token.as_bytes()) {
                let message =
                    "the session token is not the one that was vended; load the table again";
                return Err(S3Error::with_message(S3ErrorCode::InvalidToken, message));
            }
            return Ok(None);
        }
        let token = token.map(|token| String::from_utf8_lossy(&token).into_owned());
        let caller = self.owners.access.s3_caller(access_key_id, token.as_deref());
        caller.map(Some).map_err(|refused| {
            let code = match refused {
                S3Refused::Expired => S3ErrorCode::ExpiredToken,
                S3Refused::Invalid(_) => S3ErrorCode::InvalidToken,
            };
            S3Error::with_message(code, refused.to_string())
        })
    }

    fn decide(&self, operation: &str, bucket: Option<&str>) -> S3Result<()> {
        if !WRITES.iter().any(|verb| operation.starts_with(verb)) {
            return Ok(());
        }
        let why = match bucket.map_or(Rights::ReadOnly, &self.rights) {
            Rights::ColdWritable if COLD_WRITES.contains(&operation) => return Ok(()),
            Rights::ColdWritable => "objects are all that can be written here",
            Rights::ColdReadOnly => {
                "the coldset is read-only here; the operator can allow writing with \
                 coldset.writable = true (ISK_COLDSET_WRITABLE)"
            }
            Rights::ReadOnly => "the bucket is read-only; topics change by producing to Kafka",
        };
        let message = format!("{operation} is refused: {why}");
        Err(S3Error::with_message(S3ErrorCode::AccessDenied, message))
    }
}

#[async_trait::async_trait]
impl<R: Fn(&str) -> Rights + Send + Sync + 'static> S3Access for Gate<R> {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let Some(credentials) = cx.credentials() else {
            let message = "the request is not signed; loadTable vends the keys to sign with";
            return Err(S3Error::with_message(S3ErrorCode::AccessDenied, message));
        };
        let caller = self.caller(&credentials.access_key, cx.headers(), cx.uri())?;
        let asked = cx.extensions_mut().get::<Asked>().cloned();
        let (bucket, key) = match cx.s3_path() {
            S3Path::Root => (None, None),
            S3Path::Bucket { bucket } => (Some(&**bucket), None),
            S3Path::Object { bucket, key } => (Some(&**bucket), Some(&**key)),
        };
        let operation = cx.s3_op().name();
        let mut columns = None;
        if let Some(caller) = &caller {
            let prefix = query(cx.uri()).find(|(name, _)| name == "prefix");
            let prefix = prefix.map(|(_, prefix)| prefix.into_owned()).unwrap_or_default();
            let writes = COLD_WRITES.contains(&operation);
            let ours = bucket.is_some_and(|bucket| (self.rights)(bucket) == Rights::ReadOnly);
            let wanted = Wanted { operation, bucket, key, prefix: &prefix, writes, ours };
            if let Some(asked) = asked {
                asked.tell(Some(caller), self.owners.tables(&wanted).unwrap_or_default());
            }
            self.owners.check(caller, &wanted)?;
            self.owners.check_kafka(caller, &wanted).await?;
            columns = self.owners.columns(caller, &wanted)?;
        }
        self.decide(operation, bucket)?;
        let anyone = Caller::anyone();
        let name = caller.as_ref().map_or(&anyone, S3Caller::caller);
        let permit = self.owners.access.enter(name).ok_or_else(slow_down)?;
        cx.extensions_mut().insert(Arc::new(permit));
        if let Some(columns) = columns {
            cx.extensions_mut().insert(columns);
        }
        if let Some(caller) = caller {
            cx.extensions_mut().insert(caller);
        }
        Ok(())
    }
}

/// The answer to a request that is signed in the older way (SigV2), whose headers carry no date that
/// is checked: one could be replayed for ever. Decided before any signature is looked at.
pub(crate) fn refuse_sigv2(headers: &HeaderMap, uri: &Uri) -> Option<S3Error> {
    let in_header = headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| !value.as_bytes().starts_with(SIGV4.as_bytes()));
    let in_query = query(uri).any(|(name, _)| name == "Signature");
    (in_header || in_query).then(|| {
        let message = format!(
            "the request is not signed with {SIGV4}, which this gateway asks for; where a client has \
             a setting for the signature's version, it is \"s3v4\""
        );
        S3Error::with_message(S3ErrorCode::InvalidRequest, message)
    })
}

fn session_token(headers: &HeaderMap, uri: &Uri) -> Option<Vec<u8>> {
    match headers.get(TOKEN) {
        Some(value) => Some(value.as_bytes().to_vec()),
        None => query(uri)
            .find(|(name, _)| name == "X-Amz-Security-Token")
            .map(|(_, value)| value.into_owned().into_bytes()),
    }
}

fn query(uri: &Uri) -> form_urlencoded::Parse<'_> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn request(name: &'static str, value: &str, query: &str) -> (HeaderMap, Uri) {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        (headers, format!("/hotset/k?{query}").parse().unwrap())
    }

    #[test]
    fn only_reads_with_the_vended_token_pass() {
        let gate = gate();
        for (operation, token, query, expected) in [
            ("GetObject", "", "", "ok"),
            ("GetObject", "a+b/c=", "", "ok"),
            ("GetObject", "other", "", "InvalidToken"),
            ("GetObject", "", "X-Amz-Security-Token=a%2Bb%2Fc%3D", "ok"),
            ("GetObject", "", "X-Amz-Security-Token=x", "InvalidToken"),
            ("ListObjectVersions", "", "", "ok"),
            ("PutObject", "", "", "AccessDenied"),
            ("DeleteObjects", "", "", "AccessDenied"),
            ("CreateMultipartUpload", "", "", "AccessDenied"),
        ] {
            let (headers, uri) = request(TOKEN, token, query);
            let known = gate.caller("isk", &headers, &uri);
            let seen = match known.and_then(|_| gate.decide(operation, Some("hotset"))) {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.code().as_str().to_owned(),
            };
            assert_eq!(seen, expected, "{operation} {token} {query}");
        }
    }

    fn gate() -> Gate<impl Fn(&str) -> Rights> {
        let rights = |bucket: &str| match bucket {
            "lake" => Rights::ColdWritable,
            "archive" => Rights::ColdReadOnly,
            _ => Rights::ReadOnly,
        };
        let owners = Owners { access: Access::open(0), parts: Box::new(|_, _| Vec::new()) };
        Gate { session_token: "a+b/c=".into(), rights, owners }
    }

    #[test]
    fn objects_are_written_where_the_coldset_may_be() {
        let gate = gate();
        for (operation, bucket, refused) in [
            ("PutObject", Some("lake"), None),
            ("UploadPart", Some("lake"), None),
            ("DeleteObjects", Some("lake"), None),
            ("CopyObject", Some("lake"), Some("objects are all")),
            ("DeleteBucket", Some("lake"), Some("objects are all")),
            ("PutBucketPolicy", Some("lake"), Some("objects are all")),
            ("PutObject", Some("archive"), Some("coldset.writable")),
            ("DeleteObject", Some("archive"), Some("coldset.writable")),
            ("PutObject", Some("merged"), Some("Kafka")),
            ("CreateSession", None, Some("Kafka")),
        ] {
            let seen = gate.decide(operation, bucket);
            match (seen, refused) {
                (Ok(()), None) => {}
                (Err(error), Some(why)) => {
                    assert!(error.message().unwrap().contains(why), "{operation} {bucket:?}");
                }
                (seen, _) => panic!("{operation} {bucket:?}: {seen:?}"),
            }
        }
    }

    #[test]
    fn only_the_newer_signature_is_looked_at() {
        let v4 = "AWS4-HMAC-SHA256 Credential=...";
        for (authorization, query, refused) in [
            ("", "", false),
            (v4, "", false),
            ("", "X-Amz-Signature=00", false),
            ("AWS id:signature", "", true),
            ("Bearer x", "", true),
            ("", "Signature=00&AWSAccessKeyId=id", true),
            ("", "%53ignature=00", true),
            (v4, "Signature=00", true),
        ] {
            let (headers, uri) = request("authorization", authorization, query);
            let seen = refuse_sigv2(&headers, &uri);
            assert_eq!(seen.is_some(), refused, "{authorization} {query}");
        }
    }
}
