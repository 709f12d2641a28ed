//! The buckets that are not ours: those of the upstream's object store, read through it.

use std::ops::Range as ByteRange;

use futures::TryStreamExt;
use isk_coldset::{ColdListing, ColdObject, ColdStore, ColdsetError, ListAfter};
use isk_virtual_table::{ListedObject, Listing, ObjectInfo};
use s3s::dto::{
    ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, Range, StreamingBlob,
};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::body::ObjectBody;
use crate::conditions::Conditions;
use crate::error::{cold_error, range_not_satisfiable};
use crate::reading::{check_conditions, check_version, content_range, last_modified, part, signed};

/// The end of a range that goes on to the object's end: the most that a store of any make reads.
const OPEN_END: u64 = i64::MAX as u64;

/// What a listing says of an object whose type it does not know.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// The upstream's object store, and whether it may be written to.
#[derive(Debug, Clone)]
pub struct ColdBuckets {
    /// The store.
    pub store: ColdStore,
    /// Whether objects may be written and deleted.
    pub writable: bool,
}

/// `HeadBucket`: the store is asked for the least there is.
pub(crate) async fn head_bucket(store: &ColdStore, bucket: &str) -> S3Result<()> {
    match store.list(bucket, "", None, ListAfter::Start, 1).await {
        Ok(_) => Ok(()),
        Err(error) => Err(in_bucket(error)),
    }
}

/// `HeadObject`.
pub(crate) async fn head(store: &ColdStore, input: &HeadObjectInput) -> S3Result<HeadObjectOutput> {
    check_version(input.version_id.as_deref())?;
    let object = store.head(&input.bucket, &input.key).await.map_err(cold_error)?;
    let info = info(&object);
    let conditions = Conditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    check_conditions(&conditions, &info)?;
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(signed(info.size)?),
        content_type: object.content_type,
        last_modified: Some(last_modified(&info)),
        e_tag: Some(ETag::Strong(info.etag)),
        ..HeadObjectOutput::default()
    })
}

/// `GetObject`: one request to the store, whose answer is streamed. The store is left alone as soon as
/// the client is gone, or where a condition does not hold.
pub(crate) async fn get(store: &ColdStore, input: &GetObjectInput) -> S3Result<GetObjectOutput> {
    check_version(input.version_id.as_deref())?;
    let (bucket, key) = (&input.bucket, &input.key);
    let asked = asked(store, input).await?;
    let (object, stream) = match store.read(bucket, key, asked.clone()).await {
        Ok(read) => read,
        Err(error) if is_outside(&error) => {
            let size = store.head(bucket, key).await.map_err(cold_error)?.size;
            return Err(range_not_satisfiable(size));
        }
        Err(error) => return Err(absent(store, bucket, error).await),
    };
    let info = info(&object);
    let conditions = Conditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    check_conditions(&conditions, &info)?;
    let ranged = asked.map(|asked| asked.start..asked.end.min(info.size));
    let range = ranged.clone().unwrap_or(0..info.size);
    let length = range.end.saturating_sub(range.start);
    let body = ObjectBody::new(Box::pin(stream.into_stream()), length, bucket, key);
    Ok(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::new(body)),
        content_length: Some(signed(length)?),
        content_range: ranged.map(|range| content_range(&range, info.size)),
        content_type: object.content_type,
        last_modified: Some(last_modified(&info)),
        e_tag: Some(ETag::Strong(info.etag)),
        ..GetObjectOutput::default()
    })
}

/// The range to ask the store for, or `None` for the whole. Only one that counts from the end, or that
/// is said as a part's number, needs the size first.
async fn asked(store: &ColdStore, input: &GetObjectInput) -> S3Result<Option<ByteRange<u64>>> {
    match (input.range, input.part_number) {
        (None, None) => Ok(None),
        (Some(Range::Int { first, last }), None) => {
            let end = last.map_or(OPEN_END, |last| last.saturating_add(1));
            Ok(Some(first..end))
        }
        (range, part_number) => {
            let object = store.head(&input.bucket, &input.key).await.map_err(cold_error)?;
            part(range, part_number, object.size)
        }
    }
}

/// The error of a GET. The store's client does not tell an absent object from an absent bucket, and to
/// whoever mistyped a bucket that is the difference; so the bucket is asked for.
async fn absent(store: &ColdStore, bucket: &str, error: ColdsetError) -> S3Error {
    if matches!(error, ColdsetError::NoSuchObject { .. })
        && let Err(bucket) = head_bucket(store, bucket).await
        && *bucket.code() == S3ErrorCode::NoSuchBucket
    {
        return bucket;
    }
    cold_error(error)
}

fn is_outside(error: &ColdsetError) -> bool {
    matches!(error, ColdsetError::Refused { status: 416, .. })
}

/// One page of objects. `after` is a key; `token` is the store's own.
pub(crate) async fn list(
    store: &ColdStore,
    bucket: &str,
    prefix: &str,
    delimiter: Option<&str>,
    after: ListAfter<'_>,
    limit: usize,
) -> S3Result<Listing> {
    let page = store.list(bucket, prefix, delimiter, after, limit).await.map_err(in_bucket)?;
    let ColdListing { objects, prefixes, next } = page;
    let objects = objects.into_iter().map(|listed| {
        let object = ColdObject {
            size: listed.size,
            etag: listed.etag,
            last_modified: listed.last_modified,
            content_type: None,
        };
        ListedObject { key: listed.key, info: info(&object) }
    });
    Ok(Listing { objects: objects.collect(), common_prefixes: prefixes, next })
}

/// Where the older listing goes on behind `marker`: behind all of a group, when it names one.
pub(crate) fn behind(marker: &str, delimiter: Option<&str>) -> String {
    match delimiter {
        Some(delimiter) if marker.ends_with(delimiter) => format!("{marker}{}", char::MAX),
        _ => marker.to_owned(),
    }
}

/// The last entry of a page, which the older listing names as its next marker.
pub(crate) fn last_entry(listing: &Listing) -> Option<String> {
    let object = listing.objects.last().map(|object| object.key.as_str());
    let prefix = listing.common_prefixes.last().map(String::as_str);
    object.max(prefix).map(str::to_owned)
}

/// An error of a request that names no object: what is not there is the bucket.
fn in_bucket(error: ColdsetError) -> S3Error {
    match error {
        ColdsetError::NoSuchObject { .. } | ColdsetError::Refused { status: 404, .. } => {
            S3Error::with_message(S3ErrorCode::NoSuchBucket, "the coldset has no such bucket")
        }
        other => cold_error(other),
    }
}

fn info(object: &ColdObject) -> ObjectInfo {
    ObjectInfo {
        size: object.size,
        etag: etag(object),
        last_modified: object.last_modified,
        content_type: UNKNOWN_TYPE,
    }
}

/// The entity tag without its quotes; one of size and time where the store has none.
fn etag(object: &ColdObject) -> String {
    match &object.etag {
        Some(etag) => unquoted(etag).to_owned(),
        None => {
            let since = object.last_modified.duration_since(std::time::UNIX_EPOCH);
            format!("{:x}-{:x}", object.size, since.unwrap_or_default().as_millis())
        }
    }
}

/// An entity tag without mark and quotes.
pub(crate) fn unquoted(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn tags_lose_their_quotes_or_are_made() {
        let mut object = ColdObject {
            size: 16,
            etag: Some("\"abc-2\"".into()),
            last_modified: UNIX_EPOCH + Duration::from_millis(255),
            content_type: None,
        };
        assert_eq!(etag(&object), "abc-2");
        object.etag = Some("W/\"x\"".into());
        assert_eq!(etag(&object), "x");
        object.etag = None;
        assert_eq!(etag(&object), "10-ff");
    }

    #[test]
    fn a_marker_that_is_a_group_skips_all_of_it() {
        assert_eq!(behind("a/b", Some("/")), "a/b");
        assert_eq!(behind("a/", None), "a/");
        assert!(behind("a/", Some("/")).as_str() > "a/zzz");
        assert!(behind("a/", Some("/")).as_str() < "a0");
    }
}
