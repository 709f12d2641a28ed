//! An object's bytes as a response body: exactly as many as were promised, or a broken connection.

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use isk_access::Permit;
use isk_traces::Span;
use s3s::StdError;
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};

/// A stream that must yield `remaining` more bytes.
///
/// The status and the length are sent before the first byte, so a failure can only be shown by
/// breaking the connection off; its cause is logged here, where it is handled.
pub(crate) struct ObjectBody<E> {
    // Never locked: it makes a stream that is only `Send` also `Sync`, which the library asks for.
    stream: Mutex<BoxStream<'static, Result<Bytes, E>>>,
    remaining: u64,
    name: String,
    failed: bool,
}

impl<E> ObjectBody<E> {
    pub(crate) fn new(
        stream: BoxStream<'static, Result<Bytes, E>>,
        length: u64,
        bucket: &str,
        key: &str,
    ) -> Self {
        let name = format!("{bucket}/{key}");
        Self { stream: Mutex::new(stream), remaining: length, name, failed: false }
    }

    fn account(&mut self, next: Option<Result<Bytes, String>>) -> Result<Option<Bytes>, String> {
        match next {
            Some(Ok(bytes)) => {
                let length = bytes.len() as u64;
                self.remaining = self
                    .remaining
                    .checked_sub(length)
                    .ok_or_else(|| "more bytes came than were promised".to_owned())?;
                Ok(Some(bytes))
            }
            Some(Err(cause)) => Err(cause),
            None if self.remaining == 0 => Ok(None),
            None => Err(format!("it ended {} bytes short", self.remaining)),
        }
    }
}

impl<E: Display> Stream for ObjectBody<E> {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        let stream = this.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let next = ready!(stream.poll_next_unpin(cx)).map(|item| item.map_err(|e| e.to_string()));
        Poll::Ready(match this.account(next) {
            Ok(bytes) => bytes.map(Ok),
            Err(cause) => {
                this.failed = true;
                tracing::warn!(object = this.name, "response broken off: {cause}");
                Some(Err(Box::new(io::Error::other(cause)) as StdError))
            }
        })
    }
}

impl<E: Display> ByteStream for ObjectBody<E> {
    fn remaining_length(&self) -> RemainingLength {
        match usize::try_from(self.remaining) {
            Ok(length) => RemainingLength::new_exact(length),
            Err(_) => RemainingLength::unknown(),
        }
    }
}

/// A body, with the place that its request takes, and the request's span, until all of it is sent or the client is gone.
pub(crate) struct UnderWay {
    body: StreamingBlob,
    _permit: Option<Arc<Permit>>,
    span: Span,
}

impl UnderWay {
    pub(crate) fn new(body: StreamingBlob, permit: Option<Arc<Permit>>) -> Self {
        Self { body, _permit: permit, span: Span::current() }
    }
}

impl Stream for UnderWay {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.body).poll_next(cx)
    }
}

impl ByteStream for UnderWay {
    fn remaining_length(&self) -> RemainingLength {
        self.body.remaining_length()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::stream;
    use isk_virtual_table::ServiceError;

    use super::*;

    fn read(parts: Vec<Result<Bytes, ServiceError>>, length: u64) -> (Vec<u8>, Option<String>) {
        let body = ObjectBody::new(stream::iter(parts).boxed(), length, "b", "k");
        let items: Vec<_> = block_on(body.collect());
        let (mut bytes, mut error) = (Vec::new(), None);
        for item in items {
            assert!(error.is_none(), "something came after the error");
            match item {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(e) => error = Some(e.to_string()),
            }
        }
        (bytes, error)
    }

    #[test]
    fn the_length_is_kept_or_the_body_fails() {
        let part = |text: &'static str| Ok(Bytes::from_static(text.as_bytes()));
        assert_eq!(read(vec![part("ab"), part("c")], 3), (b"abc".to_vec(), None));
        assert_eq!(read(vec![], 0), (vec![], None));
        let (bytes, error) = read(vec![part("ab")], 3);
        assert_eq!(bytes, b"ab");
        assert!(error.unwrap().contains("1 bytes short"));
        let (bytes, error) = read(vec![part("ab"), part("cd")], 3);
        assert_eq!(bytes, b"ab");
        assert!(error.unwrap().contains("more bytes"));
        let gone = Err(ServiceError::Gone { key: "k".into(), reason: "retention".into() });
        let (_, error) = read(vec![part("a"), gone, part("b")], 2);
        assert!(error.unwrap().contains("retention"));
    }
}
