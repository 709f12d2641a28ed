//! The object store of cold tables: ranges out, objects in, whole objects never in memory.

mod fault;
mod list;
mod memory;
mod s3;
mod types;
mod upload;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use isk_traces::{Instrument, span, start_of};
use moka::sync::Cache;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Attribute, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;
use tracing::field::Empty;

use crate::{ColdsetConfig, ColdsetError, ObjectUri};
use fault::Request;
use s3::S3Settings;
pub use types::{ByteStream, ColdListed, ColdListing, ColdObject, ListAfter};
pub use upload::MAX_PART_BYTES;

/// Buckets whose clients, with their connections, are kept.
const MAX_BUCKETS: u64 = 64;

/// Memory that all uploads together may hold, in MiB.
const UPLOAD_MEMORY_MIB: usize = 512;

/// The object store of cold tables: a cheap clone.
#[derive(Clone)]
pub struct ColdStore(Arc<Inner>);

struct Inner {
    kind: Kind,
    buckets: Cache<String, Bucket>,
    /// How long a request may take, and how long a stream may wait for its next bytes.
    timeout: Duration,
    /// One permit is one MiB.
    upload_memory: Arc<Semaphore>,
}

enum Kind {
    S3(Box<S3Settings>),
    Memory,
}

/// One bucket, by the three interfaces it is used through.
#[derive(Clone)]
struct Bucket {
    objects: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    pages: Arc<dyn PaginatedListStore>,
}

impl fmt::Debug for ColdStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ColdStore");
        match &self.0.kind {
            Kind::S3(settings) => out.field("s3", settings),
            Kind::Memory => out.field("memory", &true),
        };
        out.finish_non_exhaustive()
    }
}

impl ColdStore {
    /// The store that a configuration names. No I/O.
    ///
    /// # Errors
    /// [`ColdsetError::Config`] names the key.
    pub fn new(config: &ColdsetConfig) -> Result<Self, ColdsetError> {
        let settings = S3Settings::new(config)?;
        Ok(Self::over(Kind::S3(Box::new(settings)), config.request_timeout))
    }

    /// A store in memory whose buckets are all empty: for tests of code that uses a store.
    pub fn in_memory() -> Self {
        Self::over(Kind::Memory, Duration::from_secs(10))
    }

    fn over(kind: Kind, timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            kind,
            buckets: Cache::new(MAX_BUCKETS),
            timeout,
            upload_memory: Arc::new(Semaphore::new(UPLOAD_MEMORY_MIB)),
        }))
    }

    /// What the store says of an object.
    ///
    /// # Errors
    /// [`ColdsetError::NoSuchObject`] when there is none.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<ColdObject, ColdsetError> {
        let request = Request::new("HEAD of", bucket, key);
        let (store, path) = (self.bucket(bucket)?, readable_path(&request, key)?);
        let options = GetOptions { head: true, ..GetOptions::default() };
        let asked = request.within(self.0.timeout, store.objects.get_opts(&path, options));
        let result = traced("HEAD", bucket, key, asked).await?;
        Ok(described(&result))
    }

    /// An object's bytes, or those of a range; a range that reaches behind the end is cut there.
    /// Dropping the stream ends the read.
    ///
    /// # Errors
    /// [`ColdsetError::NoSuchObject`] when there is none; status 416 when the range is empty or
    /// begins behind the end. A stream that ends early ends with an error.
    pub async fn read(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<(ColdObject, ByteStream), ColdsetError> {
        let request = Request::new("GET of", bucket, key);
        let (store, path) = (self.bucket(bucket)?, readable_path(&request, key)?);
        if range.as_ref().is_some_and(|r| r.start >= r.end) {
            return Err(request.refused(416, "the range is empty"));
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let asked = request.within(self.0.timeout, store.objects.get_opts(&path, options));
        let result = traced("GET", bucket, key, asked).await?;
        let object = described(&result);
        Ok((object, guarded(request, result, self.0.timeout)))
    }

    /// A whole small object, or a range of it; refused when it is longer than `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn get_uri(
        &self,
        uri: &str,
        range: Option<Range<u64>>,
        limit: u64,
    ) -> Result<Bytes, ColdsetError> {
        let ObjectUri { bucket, key } = uri.parse()?;
        let (object, mut stream) = self.read(&bucket, &key, range.clone()).await?;
        let length = match range {
            None => object.size,
            Some(range) => range.end.min(object.size).saturating_sub(range.start),
        };
        if length > limit {
            return Err(ColdsetError::unreadable(
                uri,
                format!("it is {length} bytes long, and at most {limit} are read at once"),
            ));
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes.freeze())
    }

    /// Deletes an object. One that does not exist is no error.
    ///
    /// # Errors
    /// As every request to the store.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), ColdsetError> {
        let request = Request::new("DELETE of", bucket, key);
        let (store, path) = (self.bucket(bucket)?, writable_path(&request, key)?);
        match request.within(self.0.timeout, store.objects.delete(&path)).await {
            Err(ColdsetError::NoSuchObject { .. }) => Ok(()),
            other => other,
        }
    }

    fn bucket(&self, name: &str) -> Result<Bucket, ColdsetError> {
        // The name becomes part of a URL: what is no bucket's name must not reach it.
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !(1..=255).contains(&name.len()) || !name.chars().all(good) || name.contains("..") {
            return Err(ColdsetError::Refused {
                status: 400,
                message: format!("{name:?} is not the name of a bucket"),
            });
        }
        if let Some(bucket) = self.0.buckets.get(name) {
            return Ok(bucket);
        }
        // Two at once may open it twice; the cache keeps one, unless it is in memory.
        self.0
            .buckets
            .try_get_with(name.to_owned(), || match &self.0.kind {
                Kind::S3(settings) => settings.open(name),
                Kind::Memory => Ok(memory::open()),
            })
            .map_err(|error: Arc<ColdsetError>| (*error).clone())
    }
}

/// The key as the library has it, for reading.
fn readable_path(request: &Request, key: &str) -> Result<Path, ColdsetError> {
    if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
        // The library would drop the slash and answer for another object.
        return Err(request.missing());
    }
    Path::parse(key).map_err(|_| {
        request.refused(
            501,
            "a key with an empty segment (//), a segment . or .., or a control character cannot \
             be reached; rewrite the table to a location without it",
        )
    })
}

/// The key as the library has it, for writing.
fn writable_path(request: &Request, key: &str) -> Result<Path, ColdsetError> {
    readable_path(request, key).map_err(|error| match error {
        ColdsetError::NoSuchObject { .. } => {
            request.refused(400, "a key must not be empty, nor begin or end with a slash")
        }
        other => other,
    })
}

/// A read from the store as a span, until its answer's head. Of the key, it has the file's name alone: its folders
/// may be called after values of columns.
async fn traced<T>(
    method: &'static str,
    bucket: &str,
    key: &str,
    asked: impl Future<Output = Result<T, ColdsetError>>,
) -> Result<T, ColdsetError> {
    let file = start_of(key.rsplit('/').next().unwrap_or_default());
    let span = span!(
        "ask upstream store",
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        http.request.method = method,
        aws.s3.bucket = bucket,
        isk.file = file,
    );
    let answer = asked.instrument(span.clone()).await;
    answer.inspect_err(|error| isk_traces::failed(&span, error))
}

fn described(result: &GetResult) -> ColdObject {
    ColdObject {
        size: result.meta.size,
        etag: result.meta.e_tag.clone(),
        last_modified: SystemTime::from(result.meta.last_modified),
        content_type: result.attributes.get(&Attribute::ContentType).map(|v| v.to_string()),
    }
}

/// The bytes of an answer: whoever waits for the next ones waits `timeout` at most, and an end
/// before the promised length is an error.
fn guarded(request: Request, result: GetResult, timeout: Duration) -> ByteStream {
    let missing = result.range.end - result.range.start;
    let state = Some((request, result.into_stream(), missing));
    stream::unfold(state, move |state| async move {
        let (request, mut stream, missing) = state?;
        let item = match tokio::time::timeout(timeout, stream.next()).await {
            Err(_) => Err(request.timed_out(timeout)),
            Ok(None) if missing == 0 => return None,
            Ok(None) => {
                Err(request.unavailable(&format!("it ended {missing} bytes before its end")))
            }
            Ok(Some(Err(error))) => Err(request.fault(&error)),
            Ok(Some(Ok(bytes))) => match missing.checked_sub(bytes.len() as u64) {
                Some(missing) => return Some((Ok(bytes), Some((request, stream, missing)))),
                None => Err(request.unavailable("more bytes came than were announced")),
            },
        };
        Some((item, None))
    })
    .boxed()
}
