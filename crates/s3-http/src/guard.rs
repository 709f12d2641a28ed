//! A bound on what the protocol library holds of a body that is signed in chunks: it collects each
//! chunk whole before it passes the bytes on, and a client says how long a chunk is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Request;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use isk_listen::WatchedBody;
use s3s::{Body, StdError};

/// What a chunk may have before the request is known to be an upload.
const SMALL: u64 = 256 << 10;

/// How a body that is signed in chunks names its digest.
const CHUNKED: &[u8] = b"STREAMING-";

/// Counts the bytes that came in since some came out.
#[derive(Debug, Clone)]
pub(crate) struct ChunkGuard(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    held: AtomicU64,
    limit: AtomicU64,
}

impl ChunkGuard {
    fn new() -> Self {
        Self(Arc::new(Counts { held: AtomicU64::new(0), limit: AtomicU64::new(SMALL) }))
    }

    /// Lets chunks have this many bytes.
    pub(crate) fn allow(&self, bytes: u64) {
        // The chunk's own signature and the network's pieces come on top.
        self.0.limit.store(bytes.saturating_add(SMALL), Ordering::Relaxed);
    }

    /// Some bytes came out: the chunk is complete.
    pub(crate) fn came_out(&self) {
        self.0.held.store(0, Ordering::Relaxed);
    }

    fn came_in(&self, bytes: u64) -> Result<(), StdError> {
        let held = self.0.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let limit = self.0.limit.load(Ordering::Relaxed);
        if held <= limit {
            return Ok(());
        }
        let message = format!(
            "a chunk of the body is longer than the {limit} bytes that are held of one: sign smaller \
             chunks, or upload the object in parts"
        );
        Err(Box::new(io::Error::other(message)))
    }
}

/// The request with its body guarded, where it is signed in chunks.
pub(crate) fn guarded(request: Request<WatchedBody>) -> Request<Body> {
    let digest = request.headers().get("x-amz-content-sha256");
    if !digest.is_some_and(|value| value.as_bytes().starts_with(CHUNKED)) {
        return request.map(Body::http_body_unsync);
    }
    let guard = ChunkGuard::new();
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(guard.clone());
    Request::from_parts(parts, Body::http_body_unsync(Guarded { body, guard }))
}

struct Guarded<B> {
    body: B,
    guard: ChunkGuard,
}

impl<B> HttpBody for Guarded<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    StdError: From<B::Error>,
{
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StdError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => frame,
        };
        let bytes = frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        Poll::Ready(Some(self.guard.came_in(bytes).map(|()| frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_is_bounded_until_some_comes_out() {
        let guard = ChunkGuard::new();
        assert!(guard.came_in(SMALL).is_ok());
        assert!(guard.came_in(1).unwrap_err().to_string().contains("chunk"));
        guard.came_out();
        assert!(guard.came_in(SMALL).is_ok());
        guard.came_out();
        guard.allow(1 << 20);
        assert!(guard.came_in(1 << 20).is_ok());
        assert!(guard.came_in(SMALL).is_ok());
        assert!(guard.came_in(1).is_err());
    }
}
