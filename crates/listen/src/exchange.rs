//! One request and its answer on a connection: who is connected, and when the answer is all sent.

use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;

use crate::body::WatchedBody;
use crate::certificate::ClientCertificate;

/// The other end of a connection, as requests carry it in their extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub SocketAddr);

/// Whether a request is under way on a connection.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    under_way: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Exchange {
    pub(crate) fn begin(&self) {
        self.under_way.store(true, Ordering::Release);
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Acquire)
    }

    /// Has the connection read again when the exchange ends: what waits for its first byte is not asked otherwise.
    pub(crate) fn wake_at_end(&self, cx: &Context<'_>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
    }

    fn end(&self) {
        self.under_way.store(false, Ordering::Release);
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// An answer's body. With its end the exchange ends.
pub struct AnswerBody<B> {
    body: B,
    _end: End,
}

struct End(Arc<Exchange>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A service as one connection sees it.
pub(crate) struct OfConnection<S, B> {
    pub service: S,
    pub exchange: Arc<Exchange>,
    pub peer: ClientAddress,
    pub certificate: Option<Arc<ClientCertificate>>,
    pub body_stall: Duration,
    /// The answer to all, on a connection that is one too many.
    pub busy: Option<fn() -> Response<B>>,
}

type Answering<B, E> = Pin<Box<dyn Future<Output = Result<Response<AnswerBody<B>>, E>> + Send>>;

impl<S, B> Service<Request<Incoming>> for OfConnection<S, B>
where
    S: Service<Request<WatchedBody>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<AnswerBody<B>>;
    type Error = S::Error;
    type Future = Answering<B, S::Error>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let end = End(Arc::clone(&self.exchange));
        if let Some(busy) = self.busy {
            let mut answer = busy().map(|body| AnswerBody { body, _end: end });
            close(&mut answer);
            return Box::pin(ready(Ok(answer)));
        }
        // Where such a body ends is not looked at before the HTTP library does, so nothing may come after it.
        let in_chunks = request.headers().contains_key(header::TRANSFER_ENCODING);
        let mut request = request.map(|body| WatchedBody::new(body, self.body_stall));
        request.extensions_mut().insert(self.peer);
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(Arc::clone(certificate));
        }
        let answering = self.service.call(request);
        Box::pin(async move {
            let mut answer = answering.await?.map(|body| AnswerBody { body, _end: end });
            if in_chunks {
                close(&mut answer);
            }
            Ok(answer)
        })
    }
}

fn close<B>(answer: &mut Response<B>) {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
