//! A request's body that does not wait for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::BoxError;

/// What has to come in the time that a body may stall: less is next to nothing.
const ENOUGH: usize = 4 << 10;

/// A request's body. Where next to nothing of it comes for some time, it ends with an [`io::Error`] of the kind
/// `TimedOut`.
pub struct WatchedBody {
    body: Incoming,
    stall: Duration,
    /// While somebody waits for it: until when, and how much came since.
    waiting: Option<(Pin<Box<Sleep>>, usize)>,
}

impl WatchedBody {
    pub(crate) fn new(body: Incoming, stall: Duration) -> Self {
        Self { body, stall, waiting: None }
    }

    fn came(&mut self, bytes: usize) {
        if let Some((_, came)) = &mut self.waiting {
            *came += bytes;
            if *came >= ENOUGH {
                self.waiting = None;
            }
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let until = Instant::now() + self.stall;
        let (sleep, _) = self.waiting.get_or_insert_with(|| (Box::pin(sleep_until(until)), 0));
        sleep.as_mut().poll(cx).map(|()| {
            let message = format!(
                "the request's body stalled: next to nothing of it came in {} s",
                self.stall.as_secs()
            );
            io::Error::new(io::ErrorKind::TimedOut, message)
        })
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.came(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.wait(cx).map(|error| Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
