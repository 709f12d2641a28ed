//! Objects of any name, made up while they are read, behind a gateway.

use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use futures::{StreamExt, stream};
use isk_access::Access;
use isk_coldset::ColdStore;
use isk_fuzz_http::sign::{Canonical, Signer, now};
use isk_model::ColumnRules;
use isk_s3_http::{
    ColdBuckets, Gateway, GatewayCredentials, GatewaySettings, ObjectService, gateway,
};
use isk_virtual_table::{Listing, ObjectInfo, ObjectStream, ServiceError};

use crate::edge::asked::written;
use crate::edge::connection::{Answer, exchange};

pub(crate) const KEY: (&str, &str) = ("isk-id", "isk-secret");
pub(crate) const HOST: &str = "isk.test";
pub(crate) const TAG: &str = "a-tag";

/// The bucket of ours; any other one is the upstream's.
pub(crate) const BUCKET: &str = "hotset";

/// The length of an object: none for names that end in a 0.
pub(crate) fn size(key: &str) -> u64 {
    if key.ends_with('0') { 0 } else { 1000 }
}

pub(crate) fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(|at| (at % 251) as u8).collect()
}

/// All objects there could be.
#[derive(Default)]
pub(crate) struct Objects {
    /// Those that were asked for.
    asked: Mutex<Vec<String>>,
}

impl Objects {
    fn note(&self, bucket: &str, key: &str) -> Result<u64, ServiceError> {
        assert_eq!(bucket, BUCKET);
        self.asked.lock().unwrap().push(key.to_owned());
        Ok(size(key))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl ObjectService for Objects {
    fn buckets(&self) -> Vec<String> {
        vec![BUCKET.to_owned()]
    }

    fn parts(&self, bucket: &str, topic: &str) -> Vec<(String, String)> {
        vec![(bucket.to_owned(), topic.to_owned())]
    }

    async fn head_object(
        &self,
        bucket: &str,
        key: &str,
        _: Option<&Arc<ColumnRules>>,
    ) -> Result<ObjectInfo, ServiceError> {
        Ok(ObjectInfo {
            size: self.note(bucket, key)?,
            etag: TAG.to_owned(),
            last_modified: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            content_type: "application/octet-stream",
        })
    }

    async fn read_object(
        &self,
        bucket: &str,
        key: &str,
        _: Option<&Arc<ColumnRules>>,
        range: Range<u64>,
    ) -> Result<ObjectStream, ServiceError> {
        let size = self.note(bucket, key)?;
        assert!(range.start <= range.end && range.end <= size, "{range:?} of {size}");
        Ok(stream::iter([Ok(bytes(range).into())]).boxed())
    }

    async fn list_objects(
        &self,
        bucket: &str,
        _: &str,
        _: Option<&str>,
        _: Option<&str>,
        limit: usize,
    ) -> Result<Listing, ServiceError> {
        assert_eq!(bucket, BUCKET);
        assert!((1..=1000).contains(&limit), "{limit}");
        Ok(Listing::default())
    }
}

/// A gateway, and what it asked for.
struct Behind {
    gateway: Gateway,
    objects: Arc<Objects>,
}

static BEHIND: LazyLock<Behind> = LazyLock::new(|| {
    let objects = Arc::<Objects>::default();
    let settings = GatewaySettings {
        external_hostname: HOST.into(),
        region: "us-east-1".into(),
        credentials: GatewayCredentials {
            access_key_id: KEY.0.into(),
            secret_access_key: KEY.1.into(),
            session_token: "isk-token".into(),
        },
        access: Access::open(0),
    };
    let cold = ColdBuckets { store: ColdStore::in_memory(), writable: true };
    let gateway = gateway(Arc::clone(&objects), &settings, Some(cold)).unwrap();
    Behind { gateway, objects }
});

/// Sends a request; the answer, and the objects of ours that it made the gateway ask for.
fn send(request: &[u8]) -> (Answer, Vec<String>) {
    let answer = exchange(BEHIND.gateway.clone(), request);
    (answer, BEHIND.objects.take())
}

/// A request, signed as a client signs it. Its path and query are encoded.
pub(crate) struct Signed {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Signed {
    /// Signs in the headers, or in the query, what may be asked in that way.
    pub(crate) fn new(
        (method, path): (&str, String),
        mut query: Vec<(String, String)>,
        more: &[(String, String)],
        body: &[u8],
        in_query: bool,
    ) -> Self {
        let time = now();
        let signer = Signer { key: KEY, service: "s3", time: &time };
        let payload = "UNSIGNED-PAYLOAD";
        let mut headers = more.to_vec();
        headers.push(("host".into(), HOST.into()));
        if !in_query {
            headers.push(("x-amz-date".into(), time.clone()));
            headers.push(("x-amz-content-sha256".into(), payload.into()));
        }
        let canonical =
            Canonical { method, path: &path, query: &query, headers: &headers, payload };
        if in_query {
            query = signer.presigned(&canonical);
        } else {
            let authorization = signer.authorization(&canonical);
            headers.push(("authorization".into(), authorization));
        }
        Self { method: method.to_owned(), path, query, headers, body: body.to_vec() }
    }

    /// Sends it; the answer, and the objects of ours that it made the gateway ask for.
    pub(crate) fn send(&self) -> (Answer, Vec<String>) {
        let mut out = format!("{} {}{} HTTP/1.1\r\n", self.method, self.path, written(&self.query));
        for (name, value) in &self.headers {
            out += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            out += &format!("content-length: {}\r\n", self.body.len());
        }
        out += "connection: close\r\n\r\n";
        send(&[out.as_bytes(), &self.body].concat())
    }
}
