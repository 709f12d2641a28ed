//! The object store: files below a folder, served as S3, within bounds.

use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{DeleteObjectsInput, PutObjectInput, StreamingBlob, UploadPartInput};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Result};
use s3s_fs::FileSystem;

use super::budget::{Budget, Full};

/// The operations that Iceberg's file readers and writers use.
const OPERATIONS: [&str; 15] = [
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CreateMultipartUpload",
    "DeleteObject",
    "DeleteObjects",
    "GetBucketLocation",
    "GetObject",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "PutObject",
    "UploadPart",
];

/// Most bytes of a body that is read as a whole: a list of parts or of keys.
const MAX_LIST: usize = 4 << 20;

/// Most bytes of a browser's form upload, which nobody sends.
const MAX_FORM: usize = 64 << 10;

/// The store over the buckets, the folders below `root`.
pub(crate) fn service(
    root: &Path,
    access_key_id: &str,
    secret_access_key: &str,
    budget: Budget,
) -> std::io::Result<S3Service> {
    let files =
        FileSystem::new(root).map_err(|error| std::io::Error::other(format!("{error:?}")))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(access_key_id, secret_access_key));
    builder.set_access(Bounds(budget));
    let mut limits = S3Config::default();
    limits.xml_max_body_size = MAX_LIST;
    limits.post_object_max_file_size = MAX_FORM as u64;
    limits.form_max_field_size = MAX_FORM;
    limits.form_max_fields_size = MAX_FORM;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits))));
    Ok(builder.build())
}

/// Answers one request.
pub(crate) async fn answer(service: S3Service, request: Request) -> Response {
    match service.call(request.map(Body::http_body_unsync)).await {
        Ok(response) => response.map(axum::body::Body::new).into_response(),
        Err(error) => {
            tracing::error!("the embedded lake's store failed: {error:?}");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Signed requests for the operations above, and no more bytes than are left.
struct Bounds(Budget);

impl Bounds {
    /// The body, cut off with an error where it is longer than what is left.
    fn bounded(&self, body: &mut Option<StreamingBlob>, length: Option<i64>) -> S3Result<()> {
        let length = length.and_then(|length| u64::try_from(length).ok()).unwrap_or_default();
        self.0.fits(length).map_err(too_large)?;
        let budget = self.0.clone();
        *body = body.take().map(|bytes| {
            StreamingBlob::wrap(bytes.map(move |piece| {
                let piece = piece.map_err(std::io::Error::other)?;
                budget.take(piece.len() as u64).map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(piece)
            }))
        });
        Ok(())
    }
}

fn too_large(full: Full) -> S3Error {
    S3Error::with_message(S3ErrorCode::EntityTooLarge, full.to_string())
}

/// A key is a path below the bucket's folder, and must stay there.
fn within_bucket(key: &str) -> S3Result<()> {
    if key.split('/').any(|folder| folder == "..") {
        let message = format!("the key {key:?} leaves its bucket");
        return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message));
    }
    Ok(())
}

#[async_trait::async_trait]
impl S3Access for Bounds {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            let message = "the request is not signed; loadTable vends the keys to sign with";
            return Err(S3Error::with_message(S3ErrorCode::AccessDenied, message));
        }
        let operation = cx.s3_op().name();
        if !OPERATIONS.contains(&operation) {
            let message = format!("{operation} is not served: the embedded lake is for trying out");
            return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
        }
        cx.s3_path().as_object().map_or(Ok(()), |(_, key)| within_bucket(key))
    }

    async fn delete_objects(&self, request: &mut S3Request<DeleteObjectsInput>) -> S3Result<()> {
        let objects = &request.input.delete.objects;
        objects.iter().try_for_each(|object| within_bucket(&object.key))
    }

    async fn put_object(&self, request: &mut S3Request<PutObjectInput>) -> S3Result<()> {
        self.bounded(&mut request.input.body, request.input.content_length)
    }

    async fn upload_part(&self, request: &mut S3Request<UploadPartInput>) -> S3Result<()> {
        self.bounded(&mut request.input.body, request.input.content_length)
    }
}
