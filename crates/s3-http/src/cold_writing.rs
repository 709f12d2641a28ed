//! Writing to the upstream's object store: whole objects, uploads in parts, deletions.

use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, header};
use isk_coldset::{ColdStore, MAX_PART_BYTES};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, DeletedObject, ETag, Error, PutObjectInput, PutObjectOutput,
    StreamingBlob, UploadPartInput, UploadPartOutput,
};
use s3s::stream::ByteStream as _;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use crate::cold::unquoted;
use crate::error::cold_error;
use crate::guard::ChunkGuard;
use crate::reading::check_version;
use crate::upload::Upload;

/// The most of one signed chunk of an object that is sent whole. As much as the store's client holds
/// of one object.
const MAX_CHUNK: u64 = 16 << 20;

/// The objects that one request to delete many deletes at a time.
const DELETIONS: usize = 16;

/// The most objects of such a request, as in S3.
const MAX_DELETIONS: usize = 1000;

/// What a client may ask of an object that the store is not told of: silently left out, an object
/// might lie there unencrypted, or open, or overwrite another.
const NOT_PASSED: [&str; 16] = [
    "if-match",
    "if-none-match",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write-acp",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];

/// `PutObject`.
pub(crate) async fn put(
    store: &ColdStore,
    mut request: S3Request<PutObjectInput>,
) -> S3Result<PutObjectOutput> {
    check_passed(&request.headers)?;
    let length = length(request.input.content_length, request.input.body.as_ref())?;
    allow_chunks(&request, MAX_CHUNK);
    let body = request.input.body.take();
    let upload = Upload::new(body, length, &mut request)?;
    let (body, outcome) = upload.into_stream();
    let input = &request.input;
    let written = store.put(&input.bucket, &input.key, input.content_type.as_deref(), body).await;
    let etag = written.map_err(|error| outcome.error().unwrap_or_else(|| cold_error(error)))?;
    let Checksum { checksum_crc32, checksum_crc32c, checksum_crc64nvme, .. } = outcome.checksum();
    Ok(PutObjectOutput {
        e_tag: etag.as_deref().map(strong),
        checksum_crc32,
        checksum_crc32c,
        checksum_crc64nvme,
        ..PutObjectOutput::default()
    })
}

/// `CreateMultipartUpload`.
pub(crate) async fn create_upload(
    store: &ColdStore,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<CreateMultipartUploadOutput> {
    check_passed(&request.headers)?;
    let CreateMultipartUploadInput { bucket, key, checksum_algorithm, .. } = request.input;
    let upload_id = store.multipart_create(&bucket, &key).await.map_err(cold_error)?;
    Ok(CreateMultipartUploadOutput {
        upload_id: Some(upload_id),
        bucket: Some(bucket),
        key: Some(key),
        checksum_algorithm,
        ..CreateMultipartUploadOutput::default()
    })
}

/// `UploadPart`.
pub(crate) async fn put_part(
    store: &ColdStore,
    mut request: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    check_passed(&request.headers)?;
    let length = length(request.input.content_length, request.input.body.as_ref())?;
    if length > MAX_PART_BYTES {
        let message = format!(
            "the part has {length} bytes, and at most {MAX_PART_BYTES} are taken: send smaller parts \
             (Iceberg: s3.multipart.part-size-bytes)"
        );
        return Err(S3Error::with_message(S3ErrorCode::EntityTooLarge, message));
    }
    allow_chunks(&request, MAX_PART_BYTES);
    let body = request.input.body.take();
    let (body, outcome) = Upload::new(body, length, &mut request)?.into_stream();
    let input = &request.input;
    let number = part_number(Some(input.part_number))?;
    let written = store
        .multipart_part(&input.bucket, &input.key, &input.upload_id, number, length, body)
        .await;
    let etag = written.map_err(|error| outcome.error().unwrap_or_else(|| cold_error(error)))?;
    let Checksum { checksum_crc32, checksum_crc32c, checksum_crc64nvme, .. } = outcome.checksum();
    Ok(UploadPartOutput {
        e_tag: Some(strong(&etag)),
        checksum_crc32,
        checksum_crc32c,
        checksum_crc64nvme,
        ..UploadPartOutput::default()
    })
}

/// `CompleteMultipartUpload`.
pub(crate) async fn complete_upload(
    store: &ColdStore,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<CompleteMultipartUploadOutput> {
    check_passed(&request.headers)?;
    let CompleteMultipartUploadInput { bucket, key, upload_id, multipart_upload, .. } =
        request.input;
    let parts = multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    let parts = parts.iter().map(numbered).collect::<S3Result<Vec<_>>>()?;
    if parts.is_empty() {
        return Err(malformed("the request names no part"));
    }
    let completed = store.multipart_complete(&bucket, &key, &upload_id, &parts).await;
    let etag = completed.map_err(cold_error)?;
    Ok(CompleteMultipartUploadOutput {
        e_tag: etag.as_deref().map(strong),
        location: Some(format!("/{bucket}/{key}")),
        bucket: Some(bucket),
        key: Some(key),
        ..CompleteMultipartUploadOutput::default()
    })
}

/// `AbortMultipartUpload`.
pub(crate) async fn abort_upload(
    store: &ColdStore,
    input: AbortMultipartUploadInput,
) -> S3Result<AbortMultipartUploadOutput> {
    let aborted = store.multipart_abort(&input.bucket, &input.key, &input.upload_id).await;
    aborted.map_err(cold_error)?;
    Ok(AbortMultipartUploadOutput::default())
}

/// `DeleteObject`.
pub(crate) async fn delete(
    store: &ColdStore,
    input: DeleteObjectInput,
) -> S3Result<DeleteObjectOutput> {
    check_version(input.version_id.as_deref())?;
    store.delete(&input.bucket, &input.key).await.map_err(cold_error)?;
    Ok(DeleteObjectOutput::default())
}

/// `DeleteObjects`: each object has its own outcome.
pub(crate) async fn delete_many(
    store: &ColdStore,
    input: DeleteObjectsInput,
) -> S3Result<DeleteObjectsOutput> {
    let DeleteObjectsInput { bucket, delete, .. } = input;
    if delete.objects.len() > MAX_DELETIONS {
        return Err(malformed("at most 1000 objects are deleted by one request"));
    }
    let quiet = delete.quiet.unwrap_or(false);
    let outcomes = stream::iter(delete.objects).map(|object| {
        let bucket = &bucket;
        async move {
            let outcome = match check_version(object.version_id.as_deref()) {
                Ok(()) => store.delete(bucket, &object.key).await.map_err(cold_error),
                Err(error) => Err(error),
            };
            (object.key, outcome)
        }
    });
    let outcomes: Vec<_> = outcomes.buffered(DELETIONS).collect().await;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (key, outcome) in outcomes {
        match outcome {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
            Err(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(key),
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    Ok(DeleteObjectsOutput {
        deleted: Some(deleted),
        errors: Some(errors),
        ..DeleteObjectsOutput::default()
    })
}

/// Refuses what would be left out.
fn check_passed(headers: &HeaderMap) -> S3Result<()> {
    let harmless = |name: &str, values: &[&str]| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.is_none_or(|value| values.contains(&value))
    };
    let refused = NOT_PASSED.iter().copied().find(|name| headers.contains_key(*name));
    let refused = match refused {
        Some(name) => Some(name),
        None if !harmless("x-amz-acl", &["private", "bucket-owner-full-control"]) => {
            Some("x-amz-acl")
        }
        // What a store does anyway.
        None if !harmless("x-amz-server-side-encryption", &["AES256"]) => {
            Some("x-amz-server-side-encryption")
        }
        None => None,
    };
    match refused {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "the header {name} is not passed to the coldset's store: leave it out, or configure \
                 the bucket, or give clients the store itself (coldset.direct)"
            );
            Err(S3Error::with_message(S3ErrorCode::NotImplemented, message))
        }
    }
}

/// Lets a signed chunk be as long as what the store's client holds.
fn allow_chunks<T>(request: &S3Request<T>, bytes: u64) {
    if let Some(guard) = request.extensions.get::<ChunkGuard>() {
        guard.allow(bytes);
    }
}

/// The body's length as it was said; none may be said of no body.
fn length(content_length: Option<i64>, body: Option<&StreamingBlob>) -> S3Result<u64> {
    let said = content_length.and_then(|length| u64::try_from(length).ok());
    let known = || body.map_or(Some(0), |body| body.remaining_length().exact());
    said.or_else(|| known().map(|length| length as u64)).ok_or_else(|| {
        let name: HeaderName = header::CONTENT_LENGTH;
        let message = format!("the request has no {name}; an object's length is said before it");
        S3Error::with_message(S3ErrorCode::MissingContentLength, message)
    })
}

fn numbered(part: &CompletedPart) -> S3Result<(u32, String)> {
    let number = part_number(part.part_number)?;
    match &part.e_tag {
        // As the store said it, and wants it back.
        Some(etag) => Ok((number, format!("\"{}\"", etag.value()))),
        None => Err(malformed(&format!("part {number} has no ETag"))),
    }
}

fn part_number(number: Option<i32>) -> S3Result<u32> {
    let number = number.and_then(|number| u32::try_from(number).ok());
    number.filter(|number| (1..=10_000).contains(number)).ok_or_else(|| {
        let message = "a part's number lies between 1 and 10000";
        S3Error::with_message(S3ErrorCode::InvalidArgument, message)
    })
}

fn strong(etag: &str) -> ETag {
    ETag::Strong(unquoted(etag).to_owned())
}

fn malformed(message: &str) -> S3Error {
    S3Error::with_message(S3ErrorCode::MalformedXML, message.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_would_be_left_out_is_refused_by_name() {
        for (name, value, refused) in [
            ("x-amz-acl", "private", false),
            ("x-amz-acl", "public-read", true),
            ("x-amz-server-side-encryption", "AES256", false),
            ("x-amz-server-side-encryption", "aws:kms", true),
            ("x-amz-server-side-encryption-customer-key", "k", true),
            ("x-amz-tagging", "a=b", true),
            ("if-none-match", "*", true),
            ("content-type", "x/y", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            match check_passed(&headers) {
                Ok(()) => assert!(!refused, "{name}: {value}"),
                Err(error) => {
                    assert!(refused, "{name}: {value}");
                    assert!(error.message().unwrap().contains(name), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn parts_have_numbers_and_tags() {
        let part = |number, etag: Option<&str>| {
            let e_tag = etag.map(|etag| ETag::Strong(etag.to_owned()));
            numbered(&CompletedPart { part_number: number, e_tag, ..CompletedPart::default() })
        };
        assert_eq!(part(Some(1), Some("a")).unwrap(), (1, "\"a\"".to_owned()));
        for (number, etag) in
            [(None, Some("a")), (Some(0), Some("a")), (Some(10_001), Some("a")), (Some(1), None)]
        {
            assert!(part(number, etag).is_err(), "{number:?} {etag:?}");
        }
    }
}
