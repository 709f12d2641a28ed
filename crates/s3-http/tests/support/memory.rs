//! Objects that are made up while they are read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, stream};
use isk_model::ColumnRules;
use isk_s3_http::ObjectService;
use isk_virtual_table::{ListedObject, Listing, ObjectInfo, ObjectStream, ServiceError};
use tokio::sync::Notify;

/// The one bucket.
pub const BUCKET: &str = "hotset";

/// The most bytes of one piece of a body.
const PIECE: u64 = 64 << 10;

/// What an object is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Byte `i` is `i % 251`.
    Counting,
    /// Zeros.
    Zeros,
    /// Half of what was promised, then the end.
    EndsShort,
    /// Half of what was promised, then an error.
    Breaks,
    /// HEAD answers, GET does not: the records have expired.
    Gone,
    /// The same, but trying again may help.
    Unavailable,
}

/// Objects in memory, with counters of what reading them does.
#[derive(Default)]
pub struct Memory {
    /// The bucket's name, where it is not [`BUCKET`].
    pub bucket: Option<String>,
    objects: BTreeMap<String, (Content, u64)>,
    /// The bytes that bodies were asked for so far.
    pub produced: Arc<AtomicU64>,
    /// The bodies that are being read.
    pub open: Arc<AtomicUsize>,
    /// Told whenever a body is dropped.
    pub closed: Arc<Notify>,
}

impl Memory {
    /// A store of these objects.
    pub fn new(objects: impl IntoIterator<Item = (String, Content, u64)>) -> Self {
        let objects = objects.into_iter().map(|(key, content, size)| (key, (content, size)));
        Self { objects: objects.collect(), ..Self::default() }
    }

    fn bucket(&self) -> &str {
        self.bucket.as_deref().unwrap_or(BUCKET)
    }

    fn find(&self, bucket: &str, key: &str) -> Result<(Content, u64), ServiceError> {
        if bucket != self.bucket() {
            return Err(ServiceError::NoSuchNamespace(bucket.to_owned()));
        }
        let reason = "it is not in this store".to_owned();
        self.objects
            .get(key)
            .copied()
            .ok_or_else(|| ServiceError::NoSuchKey { key: key.to_owned(), reason })
    }
}

/// Counts a body while it is read.
struct Open(Arc<AtomicUsize>, Arc<Notify>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
        self.1.notify_waiters();
    }
}

fn info(content: Content, size: u64) -> ObjectInfo {
    ObjectInfo {
        size,
        etag: format!("{content:?}-{size}").to_lowercase(),
        last_modified: modified(),
        content_type: "application/vnd.apache.parquet",
    }
}

/// When all objects were made: 2023-11-14 22:13:20.5 UTC.
pub fn modified() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_500)
}

impl ObjectService for Memory {
    fn buckets(&self) -> Vec<String> {
        vec![self.bucket().to_owned()]
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
        self.find(bucket, key).map(|(content, size)| info(content, size))
    }

    async fn read_object(
        &self,
        bucket: &str,
        key: &str,
        _: Option<&Arc<ColumnRules>>,
        range: Range<u64>,
    ) -> Result<ObjectStream, ServiceError> {
        let (content, size) = self.find(bucket, key)?;
        assert!(range.start <= range.end && range.end <= size, "{range:?} of {size}");
        let end = match content {
            Content::Gone => {
                return Err(ServiceError::Gone { key: key.into(), reason: "retention".into() });
            }
            Content::Unavailable => {
                let (what, reason) = ("the broker".to_owned(), "it is down".to_owned());
                return Err(ServiceError::Unavailable { what, reason });
            }
            Content::EndsShort | Content::Breaks => range.start + (range.end - range.start) / 2,
            Content::Counting | Content::Zeros => range.end,
        };
        self.open.fetch_add(1, Ordering::SeqCst);
        let guard = Open(Arc::clone(&self.open), Arc::clone(&self.closed));
        let produced = Arc::clone(&self.produced);
        let pieces = stream::unfold((range.start, guard), move |(at, guard)| {
            let produced = Arc::clone(&produced);
            async move {
                let to = end.min(at + PIECE);
                if at == to {
                    return None;
                }
                produced.fetch_add(to - at, Ordering::SeqCst);
                let piece: Bytes = match content {
                    Content::Zeros => vec![0; usize::try_from(to - at).unwrap()].into(),
                    _ => (at..to).map(|i| u8::try_from(i % 251).unwrap()).collect(),
                };
                Some((Ok(piece), (to, guard)))
            }
        });
        let failure = ServiceError::Gone { key: key.into(), reason: "compaction".into() };
        let tail = stream::iter((content == Content::Breaks).then_some(Err(failure)));
        Ok(pieces.chain(tail).boxed())
    }

    async fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing, ServiceError> {
        if bucket != self.bucket() {
            return Err(ServiceError::NoSuchNamespace(bucket.to_owned()));
        }
        let mut listing = Listing::default();
        let mut last = String::new();
        for (key, &(content, size)) in &self.objects {
            let group = delimiter.and_then(|delimiter| {
                let at = key.strip_prefix(prefix)?.find(delimiter)?;
                Some(&key[..prefix.len() + at + delimiter.len()])
            });
            let entry = group.unwrap_or(key);
            if !key.starts_with(prefix)
                || after.is_some_and(|after| entry <= after)
                || entry == last
            {
                continue;
            }
            if listing.objects.len() + listing.common_prefixes.len() == limit {
                listing.next = Some(last);
                break;
            }
            last = entry.to_owned();
            match group {
                Some(group) => listing.common_prefixes.push(group.to_owned()),
                None => listing
                    .objects
                    .push(ListedObject { key: key.clone(), info: info(content, size) }),
            }
        }
        Ok(listing)
    }
}

/// The objects of the tests and the example.
pub fn samples() -> Memory {
    let named = [
        ("t/data/small.parquet", Content::Counting, 1000),
        ("t/data/medium.parquet", Content::Counting, 32 << 20),
        ("t/data/huge.parquet", Content::Zeros, 100 << 30),
        ("t/data/empty", Content::Counting, 0),
        ("t/metadata/v1.metadata.json", Content::Counting, 100),
        ("odd/a b+c&d=e.txt", Content::Counting, 10),
        ("odd/çé.txt", Content::Counting, 10),
        ("odd/~(x)!*'.txt", Content::Counting, 10),
        ("bad/short", Content::EndsShort, 1 << 20),
        ("bad/breaks", Content::Breaks, 1 << 20),
        ("bad/gone", Content::Gone, 1000),
        ("bad/unavailable", Content::Unavailable, 1000),
    ];
    let named = named.into_iter().map(|(key, content, size)| (key.to_owned(), content, size));
    let many = (0..2500).map(|i| (format!("many/{i:04}"), Content::Counting, 1));
    Memory::new(named.chain(many))
}
