//! Where a request's head ends, and what comes after it: what the connections' own look at it says must be what the HTTP
//! library reads.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use isk_listen::{Port, serve_stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::edge::connection::{PEER, RUNTIME};

/// More often no connection is woken.
const MOST_POLLS: usize = 100_000;

/// The first byte says in which pieces the others come. What is refused may be missing; all else must be as the library
/// reads it by itself.
pub(crate) fn heads(data: &[u8]) {
    let Some((piece, text)) = data.split_first() else { return };
    let alone = {
        let seen = Recorder::default();
        let mut server = http1::Builder::new();
        server.header_read_timeout(None);
        let stream = TokioIo::new(Wire::new(text, usize::MAX));
        let connection = server.serve_connection(stream, seen.clone());
        drive(async {
            // What it refuses ends it.
            let _ = connection.await;
        });
        seen.take()
    };
    let seen = Recorder::default();
    let stream = Wire::new(text, 1 + usize::from(*piece));
    drive(serve_stream(stream, SocketAddr::from(PEER), Port::default(), seen.clone()));
    let watched = seen.take();
    assert!(watched.len() <= alone.len(), "{watched:#?} {alone:#?}");
    for (watched, alone) in watched.iter().zip(&alone) {
        assert_eq!(watched, alone);
    }
}

/// A request that came in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    head: String,
    body: Vec<u8>,
    /// Whether its body has ended, and how.
    end: Option<bool>,
}

/// Takes note of requests.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

impl Recorder {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn with_last(&self, change: impl FnOnce(&mut Seen)) {
        if let Some(last) = self.0.lock().unwrap().last_mut() {
            change(last);
        }
    }
}

impl<B> Service<Request<B>> for Recorder
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let (parts, mut body) = request.into_parts();
        let head =
            format!("{:?} {:?} {:?} {:?}", parts.method, parts.uri, parts.version, parts.headers);
        self.0.lock().unwrap().push(Seen { head, ..Seen::default() });
        let seen = self.clone();
        Box::pin(async move {
            let end = loop {
                match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    Some(Ok(frame)) => {
                        let data = frame.into_data().unwrap_or_default();
                        seen.with_last(|last| last.body.extend_from_slice(&data));
                    }
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            seen.with_last(|last| last.end = Some(end));
            Ok(Response::new(Full::default()))
        })
    }
}

/// A client that says something in pieces, then nothing, and takes whatever comes.
struct Wire {
    text: Vec<u8>,
    said: usize,
    piece: usize,
}

impl Wire {
    fn new(text: &[u8], piece: usize) -> Self {
        Self { text: text.to_vec(), said: 0, piece }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.text.len() - self.said;
        let count = left.min(self.piece).min(out.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        out.put_slice(&self.text[self.said..self.said + count]);
        self.said += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has a connection do all that it can do without hearing more. Time does not pass for it.
fn drive(connection: impl Future<Output = ()>) {
    let _within = RUNTIME.enter();
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut connection = pin!(connection);
    let mut polls = 0;
    while woken.0.swap(false, Ordering::Relaxed) {
        polls += 1;
        assert!(polls < MOST_POLLS, "a connection is woken for ever");
        if connection.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
    }
}
