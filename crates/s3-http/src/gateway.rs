//! The gateway: the protocol library with our objects, keys, host name and log line put together.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use hyper::body::Body as _;
use isk_access::{Audit, Permit, S3Caller};
use isk_coldset::ColdStore;
use isk_listen::WatchedBody;
use isk_model::ColumnRules;
use isk_traces::{Asked, Instrument, Span, answered};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, BucketLocationConstraint,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput,
    DeleteObjectsOutput, GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput, StreamingBlob, UploadPartInput,
    UploadPartOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use uuid::Uuid;

use crate::access::{Gate, Keys, Rights, refuse_sigv2};
use crate::audit::Audited;
use crate::body::UnderWay;
use crate::cold::ColdBuckets;
use crate::error::no_such_bucket;
use crate::guard::guarded;
use crate::host::ExternalHost;
use crate::listing::Source;
use crate::objects::ObjectService;
use crate::request_times::{RequestTimes, names_an_object};
use crate::scope::{Owners, check_keys};
use crate::settings::{GatewaySettings, InvalidSettings};
use crate::{cold, cold_writing, listing, reading};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The region whose name `GetBucketLocation` leaves out, as S3 does.
const DEFAULT_REGION: &str = "us-east-1";

/// The most bytes of a request's body that are held where nothing can be written.
const MAX_BODY: usize = 64 << 10;

/// The same where something can: an upload of 10,000 parts is completed by a list of them all.
/// (Objects themselves are streamed, see `cold_writing`.)
const MAX_LIST: usize = 4 << 20;

/// Makes the gateway's HTTP service. Buckets that are not ours are looked for in `cold`.
///
/// # Errors
/// Settings that no gateway can run with.
pub fn gateway<S: ObjectService>(
    objects: Arc<S>,
    settings: &GatewaySettings,
    cold: Option<ColdBuckets>,
) -> Result<Gateway, InvalidSettings> {
    settings.check()?;
    let writable = cold.as_ref().is_some_and(|cold| cold.writable);
    let rights = rights(Arc::clone(&objects), cold.as_ref());
    let owned = Arc::clone(&objects);
    let owners = Owners {
        access: settings.access.clone(),
        parts: Box::new(move |bucket, topic| owned.parts(bucket, topic)),
    };
    let region = settings.region.clone();
    let buckets = objects.buckets().into();
    let mut builder = S3ServiceBuilder::new(Buckets { objects, cold, region });
    builder.set_auth(Keys::new(settings.access.clone(), &settings.credentials));
    builder.set_access(Gate::new(&settings.credentials, rights, owners));
    builder.set_host(ExternalHost::new(&settings.external_hostname));
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits(writable)))));
    Ok(Gateway {
        service: builder.build(),
        audit: settings.access.audit().clone(),
        took: Arc::default(),
        buckets,
    })
}

/// What may be done in each bucket.
fn rights<S: ObjectService>(
    objects: Arc<S>,
    cold: Option<&ColdBuckets>,
) -> impl Fn(&str) -> Rights + Send + Sync + 'static {
    let elsewhere = match cold {
        None => Rights::ReadOnly,
        Some(ColdBuckets { writable: false, .. }) => Rights::ColdReadOnly,
        Some(ColdBuckets { writable: true, .. }) => Rights::ColdWritable,
    };
    move |bucket| {
        if objects.buckets().iter().any(|ours| ours == bucket) {
            Rights::ReadOnly
        } else {
            elsewhere
        }
    }
}

/// No operation in our own buckets takes a body, so next to nothing of one is held.
fn limits(writable: bool) -> S3Config {
    let mut limits = S3Config::default();
    limits.xml_max_body_size = if writable { MAX_LIST } else { MAX_BODY };
    limits.post_object_max_file_size = MAX_BODY as u64;
    limits.form_max_field_size = MAX_BODY;
    limits.form_max_fields_size = MAX_BODY;
    limits
}

/// The gateway as an HTTP service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gateway {
    service: S3Service,
    audit: Audit,
    took: Arc<RequestTimes>,
    /// Those that are ours.
    buckets: Arc<[String]>,
}

impl Gateway {
    /// How long requests took, in the Prometheus text format.
    pub fn metrics_text(&self) -> String {
        self.took.render()
    }

    async fn traced(self, request: Request<WatchedBody>) -> Result<Response<Body>, HttpError> {
        let id = Uuid::new_v4().simple().to_string();
        let span = self.span(&request, &id);
        self.answer(request, id).instrument(span).await
    }

    fn span(&self, request: &Request<WatchedBody>, id: &str) -> Span {
        let path = request.uri().path();
        let route = if names_an_object(path) { "/{bucket}/{key}" } else { "/{bucket}" };
        let asked = Asked {
            method: request.method(),
            route: Some(route),
            path: &shown(path, &self.buckets),
            headers: request.headers(),
            request_id: id,
        };
        asked.span()
    }

    async fn answer(
        self,
        mut request: Request<WatchedBody>,
        id: String,
    ) -> Result<Response<Body>, HttpError> {
        let start = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let has_body = !request.body().is_end_stream();
        let audited = Audited::of(&self.audit, &mut request);
        let mut response = match refused_unread(&request) {
            Some(error) => {
                error.to_http_response().map_err(|error| HttpError::new(Box::new(error)))?
            }
            None => self.service.call(guarded(request)).await?,
        };
        self.took.observe(&method, &path, start.elapsed());
        if let Some(audited) = audited {
            audited.ended(response.status());
        }
        answered(&Span::current(), response.status());
        // Headers and queries hold signatures and tokens: of the request, the path alone is logged.
        tracing::info!(
            %method,
            path,
            status = response.status().as_u16(),
            ms = start.elapsed().as_millis() as u64,
            request_id = id,
            "gateway request"
        );
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        if has_body && !response.status().is_success() {
            // What was refused is not read to its end, so the connection ends, and the client must know:
            // its next request would find it closed.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

impl hyper::service::Service<Request<WatchedBody>> for Gateway {
    type Response = Response<Body>;
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, HttpError>> + Send>>;

    fn call(&self, request: Request<WatchedBody>) -> Self::Future {
        Box::pin(self.clone().traced(request))
    }
}

/// A path for a trace. Folders of cold files may be called after values of columns: they are left out.
fn shown<'a>(path: &'a str, ours: &[String]) -> Cow<'a, str> {
    let bare = path.trim_start_matches('/');
    let Some((bucket, key)) = bare.split_once('/') else { return path.into() };
    match key.rsplit_once('/') {
        Some((_, file)) if !ours.iter().any(|name| name == bucket) => {
            format!("/{bucket}/…/{file}").into()
        }
        _ => path.into(),
    }
}

/// The answer to what the protocol library should not see at all.
fn refused_unread(request: &Request<WatchedBody>) -> Option<S3Error> {
    // A browser's form upload: the library reads such a body before it asks who sent it.
    if request.method() == Method::POST && is_form(request.headers()) {
        let message = "form uploads are refused: the bucket is read-only";
        return Some(S3Error::with_message(S3ErrorCode::AccessDenied, message));
    }
    refuse_sigv2(request.headers(), request.uri())
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// The operations there are; every other one answers `NotImplemented`.
struct Buckets<S> {
    objects: Arc<S>,
    cold: Option<ColdBuckets>,
    region: String,
}

impl<S: ObjectService> Buckets<S> {
    /// Whose bucket it is. Whether one of the coldset's exists, its store says when asked.
    fn source(&self, bucket: &str) -> S3Result<Source<'_, S>> {
        let buckets = self.objects.buckets();
        if buckets.iter().any(|known| known == bucket) {
            return Ok(Source::Ours(&*self.objects));
        }
        match &self.cold {
            Some(cold) => Ok(Source::Cold(&cold.store)),
            None => Err(no_such_bucket(bucket, &buckets)),
        }
    }

    /// The store behind a bucket that the gate let be written to.
    fn writable(&self, bucket: &str) -> S3Result<&ColdStore> {
        match self.source(bucket)? {
            Source::Cold(store) => Ok(store),
            Source::Ours(_) => Err(S3ErrorCode::AccessDenied.into()),
        }
    }
}

#[async_trait::async_trait]
impl<S: ObjectService> S3 for Buckets<S> {
    async fn list_buckets(
        &self,
        _: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        Ok(S3Response::new(listing::list_buckets(self.objects.buckets())))
    }

    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let bucket = &request.input.bucket;
        if let Source::Cold(store) = self.source(bucket)? {
            cold::head_bucket(store, bucket).await?;
        }
        let bucket_region = Some(self.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..HeadBucketOutput::default() }))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        // Of the coldset's buckets too: clients reach them here, signing for this region.
        self.source(&request.input.bucket)?;
        let location_constraint = (self.region != DEFAULT_REGION)
            .then(|| BucketLocationConstraint::from(self.region.clone()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let source = self.source(&request.input.bucket)?;
        listing::list_v2(&source, request.input).await.map(S3Response::new)
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let source = self.source(&request.input.bucket)?;
        listing::list_v1(&source, request.input).await.map(S3Response::new)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = &request.input;
        match self.source(&input.bucket)? {
            Source::Ours(objects) => {
                let columns = request.extensions.get::<Arc<ColumnRules>>();
                reading::head(objects, input, columns).await.map(S3Response::new)
            }
            Source::Cold(store) => cold::head(store, input).await.map(S3Response::new),
        }
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = &request.input;
        let mut output = match self.source(&input.bucket)? {
            Source::Ours(objects) => {
                let columns = request.extensions.get::<Arc<ColumnRules>>();
                reading::get(objects, input, columns).await?
            }
            Source::Cold(store) => cold::get(store, input).await?,
        };
        // A request is under way until its body is sent.
        let permit = request.extensions.get::<Arc<Permit>>().cloned();
        output.body = output.body.map(|body| StreamingBlob::new(UnderWay::new(body, permit)));
        Ok(S3Response::new(output))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let store = self.writable(&request.input.bucket)?;
        cold_writing::put(store, request).await.map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let store = self.writable(&request.input.bucket)?;
        cold_writing::create_upload(store, request).await.map(S3Response::new)
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let store = self.writable(&request.input.bucket)?;
        cold_writing::put_part(store, request).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let store = self.writable(&request.input.bucket)?;
        cold_writing::complete_upload(store, request).await.map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let store = self.writable(&request.input.bucket)?;
        cold_writing::abort_upload(store, request.input).await.map(S3Response::new)
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let store = self.writable(&request.input.bucket)?;
        cold_writing::delete(store, request.input).await.map(S3Response::new)
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let store = self.writable(&request.input.bucket)?;
        let input = &request.input;
        let keys = input.delete.objects.iter().map(|object| object.key.as_str());
        check_keys(request.extensions.get::<S3Caller>(), &input.bucket, keys)?;
        cold_writing::delete_many(store, request.input).await.map(S3Response::new)
    }
}
