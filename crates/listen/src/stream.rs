//! A connection whose client may be slow, but not for ever.
//!
//! What comes in is looked at before the HTTP library gets it: heads are checked (`head`), and what comes after a
//! request waits here until that is answered. So nothing that the library holds was not looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::exchange::Exchange;
use crate::head::{Head, Length};
use crate::limits::{ConnectionLimits, Counters, count};

/// What a client has to take of an answer in the time that it may stall: less is next to nothing.
const ENOUGH: usize = 64 << 10;

/// How long the end of a refused request is waited for: a client that still sends would not hear the answer.
const LINGER: Duration = Duration::from_secs(2);

/// How much of a refused request is read.
const LINGER_BYTES: usize = 1 << 20;

/// How much is read ahead while a request is under way: enough to see that the client is gone.
const AHEAD: usize = 512;

/// Answers to heads that the HTTP library never sees whole.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What is read next.
enum Reading {
    /// A head, of which so many bytes have come.
    Head(Head, usize),
    /// So many bytes of a body; none: the answer is waited for.
    Body(u64),
    /// A body in chunks, the last on this connection.
    Chunks,
    /// What is left of a request that was refused, of which so many bytes have come.
    Refused(usize),
}

/// A connection with its bounds.
pub(crate) struct Watched<S> {
    stream: S,
    exchange: Arc<Exchange>,
    limits: Arc<ConnectionLimits>,
    counters: Arc<Counters>,
    reading: Reading,
    /// What came before its time.
    held: BytesMut,
    /// When the head must be there.
    head_until: Pin<Box<Sleep>>,
    /// While the client takes nothing: what it took since then.
    sending: Option<usize>,
    send_until: Pin<Box<Sleep>>,
    /// Whether an answer may be half sent.
    unsent: bool,
    /// Whether any request was answered.
    answered: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    pub(crate) fn new(
        stream: S,
        exchange: Arc<Exchange>,
        limits: Arc<ConnectionLimits>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            stream,
            exchange,
            reading: Reading::Head(Head::new(), 0),
            held: BytesMut::new(),
            head_until: Box::pin(sleep(limits.head)),
            sending: None,
            send_until: Box::pin(sleep(limits.reader_stall)),
            unsent: false,
            answered: false,
            limits,
            counters,
        }
    }

    fn read_head(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let from_held = !self.held.is_empty();
        if !from_held && Pin::new(&mut self.stream).poll_read(cx, out)?.is_pending() {
            ready!(self.head_until.as_mut().poll(cx));
            return self.head_is_late(cx);
        }
        let Reading::Head(head, seen) = &mut self.reading else { return Poll::Ready(Ok(())) };
        let new = match from_held {
            true => self.held.get(..self.held.len().min(out.remaining())),
            false => out.filled().get(before..),
        };
        let new = new.unwrap_or_default();
        if *seen == 0 && !new.is_empty() {
            self.head_until.as_mut().reset(Instant::now() + self.limits.head);
        }
        let all = new.len();
        let (taken, length) = match head.read(new) {
            Ok(Some((taken, length))) => (taken, Some(length)),
            Ok(None) => (all, None),
            Err(bad) => {
                tracing::debug!("a request is refused: {}", bad.0);
                out.set_filled(before);
                return self.refuse(cx, BAD_REQUEST);
            }
        };
        *seen += taken;
        if *seen > self.limits.head_bytes {
            out.set_filled(before);
            return self.refuse(cx, TOO_LARGE);
        }
        if from_held {
            out.put_slice(self.held.get(..taken).unwrap_or_default());
            self.held.advance(taken);
        } else {
            self.held.extend_from_slice(out.filled().get(before + taken..).unwrap_or_default());
            out.set_filled(before + taken);
        }
        if let Some(length) = length {
            self.exchange.begin();
            self.reading = match length {
                Length::Bytes(bytes) => Reading::Body(bytes),
                Length::Chunks => Reading::Chunks,
            };
        }
        Poll::Ready(Ok(()))
    }

    fn head_is_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is no request to answer.
        let nothing_came = matches!(self.reading, Reading::Head(_, 0));
        // Who has been answered may go.
        if !(nothing_came && self.answered) {
            count(&self.counters.timed_out);
        }
        if nothing_came { Poll::Ready(Ok(())) } else { self.answer_and_drain(cx, TIMED_OUT) }
    }

    fn refuse(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<()>> {
        count(&self.counters.bad_heads);
        self.answer_and_drain(cx, answer)
    }

    /// Says why a head is not read, and to the HTTP library that the connection has ended.
    fn answer_and_drain(&mut self, cx: &mut Context<'_>, answer: &[u8]) -> Poll<io::Result<()>> {
        if !self.unsent {
            // So short an answer is sent at once or not at all.
            let _ = Pin::new(&mut self.stream).poll_write(cx, answer);
        }
        self.held.clear();
        self.reading = Reading::Refused(0);
        self.head_until.as_mut().reset(Instant::now() + LINGER);
        self.drain(cx)
    }

    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
        let mut space = [0; 4096];
        while let Reading::Refused(read) = &mut self.reading {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && *read < LINGER_BYTES => {
                    *read += buffer.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(self.head_until.as_mut().poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn read_body(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let taken = if self.held.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
            let new = out.filled().get(before..).unwrap_or_default();
            let taken = new.len().min(most);
            self.held.extend_from_slice(new.get(taken..).unwrap_or_default());
            out.set_filled(before + taken);
            taken
        } else {
            let taken = self.held.len().min(out.remaining()).min(most);
            out.put_slice(self.held.get(..taken).unwrap_or_default());
            self.held.advance(taken);
            taken
        };
        if let Reading::Body(left) = &mut self.reading {
            *left = left.saturating_sub(taken as u64);
        }
        Poll::Ready(Ok(()))
    }

    /// While a request is under way: has the client gone?
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exchange.wake_at_end(cx);
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        let mut space = [0; AHEAD];
        let mut buffer = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.held.extend_from_slice(buffer.filled());
        Poll::Pending
    }

    /// Takes note of what the client took; an error where that is next to nothing for too long.
    fn sent(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(bytes)) => {
                self.sending = self.sending.map(|sent| sent + bytes).filter(|&sent| sent < ENOUGH);
            }
            Poll::Pending => {
                self.unsent = true;
                if self.sending.is_none() {
                    self.sending = Some(0);
                    self.send_until.as_mut().reset(Instant::now() + self.limits.reader_stall);
                }
                ready!(self.send_until.as_mut().poll(cx));
                count(&self.counters.timed_out);
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not take its answer",
                )));
            }
            Poll::Ready(Err(_)) => {}
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.reading {
            Reading::Body(0) if this.exchange.is_under_way() => return this.look_ahead(cx),
            Reading::Body(0) => {
                this.answered = true;
                this.reading = Reading::Head(Head::new(), 0);
                this.head_until.as_mut().reset(Instant::now() + this.limits.idle);
            }
            Reading::Body(left) => return this.read_body(cx, out, left),
            Reading::Chunks => return this.read_body(cx, out, u64::MAX),
            Reading::Refused(_) => return this.drain(cx),
            Reading::Head(..) => {}
        }
        this.read_head(cx, out)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.sent(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = outcome {
            self.sending = None;
            self.unsent = false;
        }
        self.sent(cx, outcome.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.sent(cx, outcome.map_ok(|()| 0)).map_ok(|_| ())
    }
}
