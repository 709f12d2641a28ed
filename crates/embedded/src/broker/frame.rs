//! Frames: a length, then that many bytes; and requests out of them, guarded against hostile
//! lengths.

use std::io;

use bytes::{Buf, Bytes, BytesMut, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest frame of anything but Produce: no other request carries data.
pub(crate) const MAX_SMALL_FRAME: usize = 1 << 20;
/// The shortest request header: key, version, correlation id.
const MIN_FRAME: usize = 8;
const PRODUCE_KEY: i16 = 0;

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a request of {size} bytes (API key {key}) is larger than the {limit} allowed")]
    TooLarge { size: usize, key: i16, limit: usize },
    #[error("a request length of {0} bytes; is this a Kafka client?")]
    BadLength(i32),
    #[error("the request does not parse: {0}")]
    Malformed(String),
    #[error("API key {key} in version {version}, which was not offered")]
    NotOffered { key: i16, version: i16 },
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// The size and API key of the frame that comes next; `None` when the peer has closed.
pub(crate) async fn read_length(
    stream: &mut (impl AsyncRead + Unpin),
    max_frame: usize,
) -> Result<Option<(usize, i16)>, FrameError> {
    let length = match stream.read_i32().await {
        Ok(length) => length,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let size = usize::try_from(length).map_err(|_| FrameError::BadLength(length))?;
    if size < MIN_FRAME {
        return Err(FrameError::BadLength(length));
    }
    let key = stream.read_i16().await?;
    let limit = if key == PRODUCE_KEY { max_frame } else { max_frame.min(MAX_SMALL_FRAME) };
    if size > limit {
        return Err(FrameError::TooLarge { size, key, limit });
    }
    Ok(Some((size, key)))
}

/// The bytes of a frame, API key included. The buffer grows with what has arrived, not with what
/// was promised.
pub(crate) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    size: usize,
    key: i16,
) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::with_capacity(size.min(64 << 10));
    frame.extend_from_slice(&key.to_be_bytes());
    let mut rest = stream.take((size - frame.len()) as u64);
    while frame.len() < size {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(frame.freeze())
}

/// Decodes a request body, or says why not; never allocates more than the body justifies.
///
/// The library reserves memory for an array as soon as it has read its length, so a length of two
/// thousand million would take the process down. Hence a trial run over a reader that cannot
/// return a number larger than the bytes behind it plus one: with such an array the trial runs out
/// of bytes and fails, and without one the real run is safe.
///
/// Bytes behind the request are ignored, as Kafka does: librdkafka 2 sends three too many when it
/// asks for the metadata of all topics.
pub(crate) fn decode<T: Decodable>(body: &Bytes, version: i16) -> Result<T, FrameError> {
    T::decode(&mut Guarded(body.clone()), version)
        .and_then(|_| T::decode(&mut body.clone(), version))
        .map_err(|cause| FrameError::Malformed(cause.to_string()))
}

/// The reader of the trial run.
struct Guarded(Bytes);

impl Guarded {
    fn cut() -> TryGetError {
        TryGetError { requested: usize::MAX, available: 0 }
    }

    /// The unsigned varint that starts here.
    fn varint_ahead(&self) -> u64 {
        let continued = self.0.iter().take(4).take_while(|b| **b & 0x80 != 0).count();
        let bytes = self.0.iter().take(continued + 1).enumerate();
        bytes.map(|(i, b)| u64::from(b & 0x7f) << (7 * i)).sum()
    }
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }
    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }
    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }

    /// Lengths of arrays, strings and bytes before flexible versions; also plain numbers, which the
    /// trial run may get wrong.
    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let number = self.0.try_get_i32()?;
        let most = i32::try_from(self.0.remaining() + 1).unwrap_or(i32::MAX);
        Ok(number.min(most))
    }

    /// Varints are read bytewise, and in flexible versions every varint is a length or a count: one
    /// that promises more than there is can never be right. (Booleans are read here too, as 0 or 1;
    /// other single bytes are not.)
    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        if self.varint_ahead() > self.0.remaining() as u64 + 1 {
            return Err(Self::cut());
        }
        self.0.try_get_u8()
    }
}

impl ByteBuf for Guarded {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.0.peek_bytes(range)
    }
    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.0.get_bytes(size)
    }
}
