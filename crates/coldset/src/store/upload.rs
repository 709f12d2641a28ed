//! Objects written as their bytes come.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use object_store::multipart::PartId;
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload,
};
use tokio::sync::OwnedSemaphorePermit;

use super::fault::Request;
use super::{ByteStream, ColdStore, writable_path};
use crate::ColdsetError;

/// The largest part of a multipart upload, in bytes: a part is held in memory while it is sent.
pub const MAX_PART_BYTES: u64 = 128 << 20;

/// What is held before an object becomes a multipart upload of ours, in bytes. S3 takes 10,000
/// parts, so that objects may have 156 GiB.
const OWN_PART_BYTES: u64 = 16 << 20;

const MIB: u64 = 1 << 20;

impl ColdStore {
    /// Writes an object as its bytes come, 16 MiB in memory at a time. Gives its entity tag.
    ///
    /// # Errors
    /// As every request to the store; after an error of `body` nothing was written.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        content_type: Option<&str>,
        mut body: ByteStream,
    ) -> Result<Option<String>, ColdsetError> {
        let request = Request::new("PUT of", bucket, key);
        let (store, path) = (self.bucket(bucket)?, writable_path(&request, key)?);
        let _held = self.upload_memory(OWN_PART_BYTES).await?;
        let mut attributes = Attributes::new();
        if let Some(content_type) = content_type {
            attributes.insert(Attribute::ContentType, content_type.to_owned().into());
        }
        let (first, more) = take(&mut body, OWN_PART_BYTES, self.0.timeout, &request).await?;
        if !more {
            let limit = self.patience(first.content_length());
            let options = PutOptions { attributes, ..PutOptions::default() };
            let put = store.objects.put_opts(&path, first, options);
            return Ok(request.within(limit, put).await?.e_tag);
        }
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        let start = store.objects.put_multipart_opts(&path, options);
        let mut upload = request.within(self.0.timeout, start).await?;
        let written = self.put_parts(&request, upload.as_mut(), first, body).await;
        if written.is_err()
            && let Err(error) = request.within(self.0.timeout, upload.abort()).await
        {
            tracing::warn!(%error, "an unfinished upload could not be given up; its parts remain");
        }
        written
    }

    async fn put_parts(
        &self,
        request: &Request,
        upload: &mut dyn MultipartUpload,
        first: PutPayload,
        mut body: ByteStream,
    ) -> Result<Option<String>, ColdsetError> {
        let mut part = first;
        loop {
            let length = part.content_length();
            request.within(self.patience(length), upload.put_part(part)).await?;
            let (next, _) = take(&mut body, OWN_PART_BYTES, self.0.timeout, request).await?;
            if next.content_length() == 0 {
                return Ok(request.within(self.patience(0), upload.complete()).await?.e_tag);
            }
            part = next;
        }
    }

    /// Begins a multipart upload. Gives its id.
    ///
    /// # Errors
    /// As every request to the store.
    pub async fn multipart_create(&self, bucket: &str, key: &str) -> Result<String, ColdsetError> {
        let request = Request::new("multipart upload to", bucket, key);
        let (store, path) = (self.bucket(bucket)?, writable_path(&request, key)?);
        request.within(self.0.timeout, store.parts.create_multipart(&path)).await
    }

    /// Uploads part `number` (1 to 10,000) of `length` bytes, at most [`MAX_PART_BYTES`]. Gives
    /// its entity tag.
    ///
    /// # Errors
    /// As every request to the store; when `body` is not `length` bytes long.
    pub async fn multipart_part(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        number: u32,
        length: u64,
        mut body: ByteStream,
    ) -> Result<String, ColdsetError> {
        let request = Request::new("multipart upload to", bucket, key);
        let (store, path) = (self.bucket(bucket)?, writable_path(&request, key)?);
        if !(1..=10_000).contains(&number) {
            return Err(request.refused(400, "parts are numbered from 1 to 10000"));
        }
        if length > MAX_PART_BYTES {
            let why = format!("a part may have {MAX_PART_BYTES} bytes; send smaller ones");
            return Err(request.refused(400, &why));
        }
        let _held = self.upload_memory(length).await?;
        let (part, more) = take(&mut body, length, self.0.timeout, &request).await?;
        if more || part.content_length() as u64 != length {
            let why = format!("part {number} is not the {length} bytes it was said to be");
            return Err(request.refused(400, &why));
        }
        let index = number as usize - 1;
        let limit = self.patience(part.content_length());
        let id = upload_id.to_owned();
        let put = store.parts.put_part(&path, &id, index, part);
        Ok(request.within(limit, put).await?.content_id)
    }

    /// Makes an object of the parts, given as (number, entity tag). Gives its entity tag.
    ///
    /// # Errors
    /// As every request to the store; when the parts' numbers are not 1, 2, 3, ...
    pub async fn multipart_complete(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
        parts: &[(u32, String)],
    ) -> Result<Option<String>, ColdsetError> {
        let request = Request::new("multipart upload to", bucket, key);
        let (store, path) = (self.bucket(bucket)?, writable_path(&request, key)?);
        if !parts.iter().map(|(number, _)| *number).eq(1..=parts.len() as u32) {
            return Err(request.refused(501, "the parts' numbers must be 1, 2, 3, ..."));
        }
        let parts =
            parts.iter().map(|(_, etag)| PartId { content_id: etag.clone() }).collect::<Vec<_>>();
        let id = upload_id.to_owned();
        // A store may take long to join many parts.
        let limit = self.patience(parts.len() << 20);
        let complete = store.parts.complete_multipart(&path, &id, parts);
        Ok(request.within(limit, complete).await?.e_tag)
    }

    /// Gives a multipart upload up.
    ///
    /// # Errors
    /// As every request to the store.
    pub async fn multipart_abort(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
    ) -> Result<(), ColdsetError> {
        let request = Request::new("multipart upload to", bucket, key);
        let (store, path) = (self.bucket(bucket)?, writable_path(&request, key)?);
        let id = upload_id.to_owned();
        request.within(self.0.timeout, store.parts.abort_multipart(&path, &id)).await
    }

    /// Waits until `bytes` more may be held.
    async fn upload_memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ColdsetError> {
        let mib = u32::try_from(bytes.div_ceil(MIB).max(1)).unwrap_or(u32::MAX);
        let wait = self.0.upload_memory.clone().acquire_many_owned(mib);
        match tokio::time::timeout(self.0.timeout, wait).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(ColdsetError::unavailable(
                "the coldset's store",
                "too many uploads are under way; try again later",
            )),
        }
    }

    /// How long an upload of so many bytes may take: a MiB a second, besides what any request may.
    fn patience(&self, bytes: usize) -> Duration {
        self.0.timeout + Duration::from_secs(bytes as u64 / MIB)
    }
}

/// At least `length` bytes of a stream if it has as many, and whether it may have more. The last
/// chunk is not cut.
async fn take(
    body: &mut ByteStream,
    length: u64,
    timeout: Duration,
    request: &Request,
) -> Result<(PutPayload, bool), ColdsetError> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut taken = 0;
    // One look behind the end: an object of exactly `length` bytes has no more.
    while taken <= length {
        match tokio::time::timeout(timeout, body.next()).await {
            Err(_) => return Err(request.refused(408, "the client stopped sending")),
            Ok(None) => return Ok((chunks.into_iter().collect(), false)),
            Ok(Some(chunk)) => {
                let chunk = chunk?;
                taken += chunk.len() as u64;
                if !chunk.is_empty() {
                    chunks.push(chunk);
                }
            }
        }
    }
    Ok((chunks.into_iter().collect(), true))
}
