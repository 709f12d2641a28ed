//! The reading operations: HEAD and GET of an object.

use std::ops::Range as ByteRange;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use isk_model::ColumnRules;
use isk_virtual_table::ObjectInfo;
use s3s::dto::{
    ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput, LastModified, Range,
    StreamingBlob, Timestamp, TimestampFormat,
};
use s3s::{S3Error, S3ErrorCode, S3Result};

use crate::body::ObjectBody;
use crate::conditions::{Conditions, Verdict, evaluate, whole_seconds};
use crate::error::{range_not_satisfiable, s3_error};
use crate::objects::ObjectService;

/// `HeadObject`. A range is for GET alone (RFC 9110, section 14.2): what is said here is of the whole.
pub(crate) async fn head<S: ObjectService>(
    objects: &S,
    input: &HeadObjectInput,
    columns: Option<&Arc<ColumnRules>>,
) -> S3Result<HeadObjectOutput> {
    check_version(input.version_id.as_deref())?;
    let info = info(objects, &input.bucket, &input.key, columns).await?;
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
        content_type: Some(info.content_type.to_owned()),
        last_modified: Some(last_modified(&info)),
        e_tag: Some(ETag::Strong(info.etag)),
        ..HeadObjectOutput::default()
    })
}

/// `GetObject`: the whole, or one range of it.
pub(crate) async fn get<S: ObjectService>(
    objects: &S,
    input: &GetObjectInput,
    columns: Option<&Arc<ColumnRules>>,
) -> S3Result<GetObjectOutput> {
    check_version(input.version_id.as_deref())?;
    let info = info(objects, &input.bucket, &input.key, columns).await?;
    let conditions = Conditions {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    };
    check_conditions(&conditions, &info)?;
    let part = part(input.range, input.part_number, info.size)?;
    let range = part.clone().unwrap_or(0..info.size);
    let length = range.end - range.start;
    let stream = objects
        .read_object(&input.bucket, &input.key, columns, range)
        .await
        .map_err(|error| s3_error(&error))?;
    let body = ObjectBody::new(stream, length, &input.bucket, &input.key);
    Ok(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::new(body)),
        content_length: Some(signed(length)?),
        // It also makes the status 206.
        content_range: part.map(|part| content_range(&part, info.size)),
        content_type: Some(info.content_type.to_owned()),
        last_modified: Some(last_modified(&info)),
        e_tag: Some(ETag::Strong(info.etag)),
        ..GetObjectOutput::default()
    })
}

async fn info<S: ObjectService>(
    objects: &S,
    bucket: &str,
    key: &str,
    columns: Option<&Arc<ColumnRules>>,
) -> S3Result<ObjectInfo> {
    objects.head_object(bucket, key, columns).await.map_err(|error| s3_error(&error))
}

/// Objects have one version, which S3 calls "null".
pub(crate) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(other) => {
            let message =
                format!("version {other:?} does not exist: objects here have one version");
            Err(S3Error::with_message(S3ErrorCode::NoSuchVersion, message))
        }
    }
}

pub(crate) fn check_conditions(conditions: &Conditions<'_>, info: &ObjectInfo) -> S3Result<()> {
    match evaluate(conditions, &info.etag, info.last_modified) {
        Verdict::Proceed => Ok(()),
        Verdict::NotModified => Err(not_modified(info)),
        Verdict::Failed => {
            let message = "a condition of the request does not hold for the object";
            Err(S3Error::with_message(S3ErrorCode::PreconditionFailed, message))
        }
    }
}

/// 304 says again what the client's copy was validated with (RFC 9110, section 15.4.5).
fn not_modified(info: &ObjectInfo) -> S3Error {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("\"{}\"", info.etag)) {
        headers.insert(header::ETAG, value);
    }
    let mut date = Vec::new();
    if last_modified(info).format(TimestampFormat::HttpDate, &mut date).is_ok()
        && let Ok(value) = HeaderValue::from_bytes(&date)
    {
        headers.insert(header::LAST_MODIFIED, value);
    }
    let mut answer = S3Error::new(S3ErrorCode::NotModified);
    answer.set_headers(headers);
    answer
}

/// The range that a request is for, or `None` for the whole. An object has one part, its whole.
pub(crate) fn part(
    range: Option<Range>,
    part_number: Option<i32>,
    size: u64,
) -> S3Result<Option<ByteRange<u64>>> {
    match (range, part_number) {
        (Some(_), Some(_)) => Err(S3Error::with_message(
            S3ErrorCode::InvalidRequest,
            "a request has a Range header or a partNumber, not both",
        )),
        (Some(range), None) => match range.check(size) {
            // The whole of nothing has no first byte to name.
            Ok(range) if range.is_empty() => Err(range_not_satisfiable(size)),
            Ok(range) => Ok(Some(range)),
            Err(_) => Err(range_not_satisfiable(size)),
        },
        (None, Some(1)) if size > 0 => Ok(Some(0..size)),
        (None, Some(1) | None) => Ok(None),
        (None, Some(_)) => Err(range_not_satisfiable(size)),
    }
}

pub(crate) fn content_range(range: &ByteRange<u64>, size: u64) -> String {
    // Never empty, see `part`.
    format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

pub(crate) fn last_modified(info: &ObjectInfo) -> LastModified {
    Timestamp::from(whole_seconds(info.last_modified))
}

pub(crate) fn signed(length: u64) -> S3Result<i64> {
    i64::try_from(length).map_err(S3Error::internal_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_range() {
        let whole = |text: &str, size| match part(Some(Range::parse(text).unwrap()), None, size) {
            Ok(Some(range)) => content_range(&range, size),
            Ok(None) => "whole".to_owned(),
            Err(error) => error.code().as_str().to_owned(),
        };
        for (text, size, expected) in [
            ("bytes=0-0", 10, "bytes 0-0/10"),
            ("bytes=2-5", 10, "bytes 2-5/10"),
            ("bytes=2-", 10, "bytes 2-9/10"),
            ("bytes=2-100", 10, "bytes 2-9/10"),
            ("bytes=-3", 10, "bytes 7-9/10"),
            ("bytes=-100", 10, "bytes 0-9/10"),
            ("bytes=10-", 10, "InvalidRange"),
            ("bytes=10-12", 10, "InvalidRange"),
            ("bytes=-0", 10, "InvalidRange"),
            ("bytes=0-", 0, "InvalidRange"),
            ("bytes=-1", 0, "InvalidRange"),
        ] {
            assert_eq!(whole(text, size), expected, "{text} of {size}");
        }
    }

    #[test]
    fn an_object_is_one_part() {
        let seen =
            |number, size| part(None, number, size).map_err(|e| e.code().as_str().to_owned());
        assert_eq!(seen(None, 10), Ok(None));
        assert_eq!(seen(Some(1), 10), Ok(Some(0..10)));
        assert_eq!(seen(Some(1), 0), Ok(None));
        assert_eq!(seen(Some(2), 10), Err("InvalidRange".to_owned()));
        assert!(part(Some(Range::parse("bytes=0-0").unwrap()), Some(1), 10).is_err());
    }
}
