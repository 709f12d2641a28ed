//! The listing operations: buckets, and objects in both versions of the call.

use std::time::UNIX_EPOCH;

use isk_coldset::{ColdStore, ListAfter};
use isk_virtual_table::{ListedObject, Listing};
use s3s::dto::{
    Bucket, CommonPrefix, ETag, EncodingType, ListBucketsOutput, ListObjectsInput,
    ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, Object, ObjectStorageClass, Owner,
    Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::cold;
use crate::conditions::whole_seconds;
use crate::error::s3_error;
use crate::objects::ObjectService;

/// The most entries of one page, as in S3.
const MAX_KEYS: i32 = 1000;

/// `ListBuckets`.
pub(crate) fn list_buckets(names: Vec<String>) -> ListBucketsOutput {
    let bucket = |name| Bucket {
        // Clients print it and some insist on one; the buckets have always been there.
        creation_date: Some(Timestamp::from(UNIX_EPOCH)),
        name: Some(name),
        ..Bucket::default()
    };
    ListBucketsOutput {
        buckets: Some(names.into_iter().map(bucket).collect()),
        owner: Some(owner()),
        ..ListBucketsOutput::default()
    }
}

/// Whose objects are listed.
pub(crate) enum Source<'a, S> {
    /// Ours.
    Ours(&'a S),
    /// The upstream's.
    Cold(&'a ColdStore),
}

/// `ListObjectsV2`. The continuation token is the service's, or the store's, own "where to go on".
pub(crate) async fn list_v2<S: ObjectService>(
    source: &Source<'_, S>,
    input: ListObjectsV2Input,
) -> S3Result<ListObjectsV2Output> {
    let max_keys = max_keys(input.max_keys)?;
    let encode = Encoding::of(input.encoding_type.as_ref())?;
    let question = Question {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter: delimiter(input.delimiter.as_deref()),
        after: match (&input.continuation_token, &input.start_after) {
            (Some(token), _) => ListAfter::Page(token),
            (None, Some(key)) => ListAfter::Key(key),
            (None, None) => ListAfter::Start,
        },
    };
    let listing = question.ask(source, max_keys).await?;
    let with_owner = input.fetch_owner.unwrap_or(false);
    Ok(ListObjectsV2Output {
        key_count: Some(count(&listing)),
        is_truncated: Some(listing.next.is_some()),
        next_continuation_token: listing.next,
        contents: Some(contents(listing.objects, encode, with_owner)),
        common_prefixes: Some(common_prefixes(listing.common_prefixes, encode)),
        max_keys: Some(max_keys),
        prefix: Some(encode.apply(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.map(|text| encode.apply(&text)),
        start_after: input.start_after.map(|text| encode.apply(&text)),
        continuation_token: input.continuation_token,
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        ..ListObjectsV2Output::default()
    })
}

/// `ListObjects`, the older call, which some clients still use.
pub(crate) async fn list_v1<S: ObjectService>(
    source: &Source<'_, S>,
    input: ListObjectsInput,
) -> S3Result<ListObjectsOutput> {
    let max_keys = max_keys(input.max_keys)?;
    let encode = Encoding::of(input.encoding_type.as_ref())?;
    let delimiter = delimiter(input.delimiter.as_deref());
    let marker = input.marker.as_deref().filter(|marker| !marker.is_empty());
    let behind = match source {
        Source::Ours(_) => marker.map(str::to_owned),
        Source::Cold(_) => marker.map(|marker| cold::behind(marker, delimiter)),
    };
    let question = Question {
        bucket: &input.bucket,
        prefix: input.prefix.as_deref().unwrap_or_default(),
        delimiter,
        after: behind.as_deref().map_or(ListAfter::Start, ListAfter::Key),
    };
    let listing = question.ask(source, max_keys).await?;
    // The store's token is none that this call could go on from.
    let next = match source {
        Source::Ours(_) => listing.next.clone(),
        Source::Cold(_) => listing.next.as_ref().and_then(|_| cold::last_entry(&listing)),
    };
    Ok(ListObjectsOutput {
        is_truncated: Some(listing.next.is_some()),
        next_marker: next.map(|text| encode.apply(&text)),
        contents: Some(contents(listing.objects, encode, true)),
        common_prefixes: Some(common_prefixes(listing.common_prefixes, encode)),
        max_keys: Some(max_keys),
        prefix: Some(encode.apply(input.prefix.as_deref().unwrap_or_default())),
        delimiter: input.delimiter.map(|text| encode.apply(&text)),
        marker: Some(encode.apply(input.marker.as_deref().unwrap_or_default())),
        encoding_type: input.encoding_type,
        name: Some(input.bucket),
        ..ListObjectsOutput::default()
    })
}

struct Question<'a> {
    bucket: &'a str,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    after: ListAfter<'a>,
}

impl Question<'_> {
    async fn ask<S: ObjectService>(
        &self,
        source: &Source<'_, S>,
        max_keys: i32,
    ) -> S3Result<Listing> {
        // A page of none is the end of the listing, not the start of an endless one.
        let limit = match usize::try_from(max_keys) {
            Ok(limit) if limit > 0 => limit,
            _ => return Ok(Listing::default()),
        };
        let Self { bucket, prefix, delimiter, after } = *self;
        match source {
            Source::Cold(store) => cold::list(store, bucket, prefix, delimiter, after, limit).await,
            Source::Ours(objects) => {
                let after = match after {
                    ListAfter::Start => None,
                    ListAfter::Key(after) | ListAfter::Page(after) => Some(after),
                };
                let listing = objects.list_objects(bucket, prefix, delimiter, after, limit).await;
                listing.map_err(|error| s3_error(&error))
            }
        }
    }
}

fn max_keys(asked: Option<i32>) -> S3Result<i32> {
    match asked {
        None => Ok(MAX_KEYS),
        Some(n) if n >= 0 => Ok(n.min(MAX_KEYS)),
        Some(n) => {
            let message = format!("max-keys={n} is below zero");
            Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message))
        }
    }
}

/// An empty delimiter is none.
fn delimiter(asked: Option<&str>) -> Option<&str> {
    asked.filter(|text| !text.is_empty())
}

fn count(listing: &Listing) -> i32 {
    i32::try_from(listing.objects.len() + listing.common_prefixes.len()).unwrap_or(i32::MAX)
}

fn contents(objects: Vec<ListedObject>, encode: Encoding, with_owner: bool) -> Vec<Object> {
    objects
        .into_iter()
        .map(|object| Object {
            key: Some(encode.apply(&object.key)),
            e_tag: Some(ETag::Strong(object.info.etag)),
            last_modified: Some(Timestamp::from(whole_seconds(object.info.last_modified))),
            size: i64::try_from(object.info.size).ok(),
            owner: with_owner.then(owner),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Object::default()
        })
        .collect()
}

fn common_prefixes(prefixes: Vec<String>, encode: Encoding) -> Vec<CommonPrefix> {
    prefixes
        .into_iter()
        .map(|prefix| CommonPrefix { prefix: Some(encode.apply(&prefix)) })
        .collect()
}

fn owner() -> Owner {
    Owner { display_name: Some("isk".to_owned()), id: Some("isk".to_owned()) }
}

/// How names are written in a listing: as they are, or percent-encoded (`encoding-type=url`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Plain,
    Url,
}

impl Encoding {
    fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some(EncodingType::URL) => Ok(Self::Url),
            Some(other) => {
                let message = format!("encoding-type={other:?} is not \"url\"");
                Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message))
            }
        }
    }

    fn apply(self, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Url => text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                        out.push(char::from(byte));
                    }
                    _ => out.push_str(&format!("%{byte:02X}")),
                }
                out
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_encoding_leaves_paths_readable() {
        assert_eq!(Encoding::Url.apply("a/b c+é~"), "a/b%20c%2B%C3%A9~");
        assert_eq!(Encoding::Plain.apply("a/b c"), "a/b c");
    }

    #[test]
    fn max_keys_is_capped_and_checked() {
        assert_eq!(max_keys(None).unwrap(), 1000);
        assert_eq!(max_keys(Some(0)).unwrap(), 0);
        assert_eq!(max_keys(Some(5000)).unwrap(), 1000);
        assert!(max_keys(Some(-1)).is_err());
    }
}
