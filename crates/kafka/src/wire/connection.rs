//! One connection to a broker: frames out and in, one answer at a time.
//!
//! It blocks, for the threads that fetch: bytes go from the socket into one buffer, which is used again.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::tls::{Encryption, Stream, is_about_tls, is_pause};
use crate::error::KafkaError;

/// How often a waiting read looks whether it is still wanted.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// The buffer grows with what has arrived, not with what was promised, by at least so much.
const GROWTH: usize = 1 << 20;
/// The buffer is not kept if it grew beyond this.
const KEEP: usize = 16 << 20;
/// Answers that carry no records are never longer.
const SMALL_ANSWER: usize = 64 << 20;

/// A broker's host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("{address}: {source}")]
    Io { address: Address, source: io::Error },
    #[error("{address}: no answer within {} ms", .after.as_millis())]
    Silent { address: Address, after: Duration },
    #[error("{address}: {what}")]
    Protocol { address: Address, what: String },
    /// No terms about TLS, or the broker's certificate is not believed.
    #[error("{address}: {reason}")]
    Untrusted { address: Address, reason: String },
    /// Who we are was refused.
    #[error("{address}: {reason}")]
    Refused { address: Address, reason: String },
    /// There is no token to log in with.
    #[error("{0}")]
    NoToken(Box<KafkaError>),
    /// The caller did not want to wait any longer.
    #[error("nobody waits for the answer")]
    Unwanted,
}

/// An answer's frame, and where its body begins in it.
pub(crate) struct Frame {
    buffer: Vec<u8>,
    len: usize,
}

impl Frame {
    /// The answer behind its length: header and body.
    fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Bytes on the network.
    pub(crate) fn len(&self) -> usize {
        self.len + 4
    }
}

/// What a broker said that it speaks: `(key, first version, last version)`.
type Offered = Vec<(i16, i16, i16)>;

pub(crate) struct Connection {
    stream: Stream,
    address: Address,
    client_id: StrBytes,
    max_answer: usize,
    correlation: i32,
    buffer: Vec<u8>,
    offered: Offered,
    used: Instant,
    expires: Option<Instant>,
}

impl Connection {
    /// Connects and asks what the broker speaks. `timeout` holds for each step.
    pub(crate) fn open(
        address: &Address,
        client_id: &str,
        max_answer: usize,
        timeout: Duration,
        encryption: Option<&Encryption>,
    ) -> Result<Self, Broken> {
        let socket = connect(address, timeout).map_err(|e| io_error(address, e))?;
        let stream = match encryption {
            None => Stream::Plain(socket),
            Some(encryption) => encryption
                .around(socket, &address.host, timeout)
                .map_err(|e| io_error(address, e))?,
        };
        let mut connection = Self {
            stream,
            address: address.clone(),
            client_id: StrBytes::from_string(client_id.to_owned()),
            max_answer,
            correlation: 0,
            buffer: Vec::new(),
            offered: Vec::new(),
            used: Instant::now(),
            expires: None,
        };
        connection.learn_versions(timeout)?;
        Ok(connection)
    }

    fn learn_versions(&mut self, timeout: Duration) -> Result<(), Broken> {
        // Every broker answers version 0; later ones tell the broker more of the client.
        let answer = self.ask(&ApiVersionsRequest::default(), 0, timeout)?;
        let ApiVersionsResponse { error_code, api_keys, .. } = answer;
        if error_code != 0 {
            return Err(self.protocol(format!("ApiVersions was answered with error {error_code}")));
        }
        self.offered = api_keys
            .into_iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        Ok(())
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// The newest version of an API that both sides speak.
    pub(crate) fn version(&self, key: ApiKey, ours: (i16, i16)) -> Result<i16, Broken> {
        let offered = self.offered.iter().find(|(api, ..)| *api == key as i16);
        let newest = offered.map(|(_, first, last)| (ours.0.max(*first), ours.1.min(*last)));
        match newest {
            Some((first, last)) if first <= last => Ok(last),
            _ => Err(self.protocol(format!(
                "the broker speaks no version of {key:?} between {} and {}",
                ours.0, ours.1
            ))),
        }
    }

    /// One question, and its answer.
    pub(crate) fn ask<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<R::Response, Broken> {
        self.send(request, version)?;
        let begun = Instant::now();
        let frame = self.receive(SMALL_ANSWER, || begun.elapsed() < timeout)?;
        let Some(frame) = frame else {
            return Err(Broken::Silent { address: self.address.clone(), after: timeout });
        };
        let mut body = Bytes::copy_from_slice(frame.bytes());
        self.recycle(frame);
        ResponseHeader::decode(&mut body, R::Response::header_version(version))
            .and_then(|_| R::Response::decode(&mut body, version))
            .map_err(|e| self.protocol(format!("the answer does not parse: {e}")))
    }

    /// Sends a request. Its answer is the next one.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<(), Broken> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(self.client_id.clone()));
        let mut out = BytesMut::new();
        out.put_i32(0);
        header
            .encode(&mut out, R::header_version(version))
            .and_then(|()| request.encode(&mut out, version))
            .map_err(|e| self.protocol(format!("the request does not encode: {e}")))?;
        let len = u32::try_from(out.len() - 4)
            .map_err(|_| self.protocol("the request is too long".into()))?;
        out[..4].copy_from_slice(&len.to_be_bytes());
        let sent = self.stream.write_all(&out).and_then(|()| self.stream.flush());
        sent.map_err(|e| io_error(&self.address, e))
    }

    /// Receives the answer to the last request. `go_on` is asked now and then while nothing comes;
    /// `None` when it says no.
    fn receive(
        &mut self,
        most: usize,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Option<Frame>, Broken> {
        let mut length = [0; 4];
        if !self.fill(&mut length, &mut go_on)? {
            return Ok(None);
        }
        let len = i32::from_be_bytes(length);
        let len =
            usize::try_from(len).ok().filter(|len| (4..=most).contains(len)).ok_or_else(|| {
                self.protocol(format!("an answer of {len} bytes; is this a Kafka broker?"))
            })?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut filled = 0;
        while filled < len {
            if buffer.len() < len && filled == buffer.len() {
                buffer.resize(len.min(filled.max(GROWTH) * 2), 0);
            }
            let end = len.min(buffer.len());
            if !self.fill(&mut buffer[filled..end], &mut go_on)? {
                return Ok(None);
            }
            filled = end;
        }
        let answered = buffer.get(..4).and_then(|id| id.try_into().ok()).map(i32::from_be_bytes);
        if answered != Some(self.correlation) {
            return Err(self.protocol("an answer to something else".into()));
        }
        self.used = Instant::now();
        Ok(Some(Frame { buffer, len }))
    }

    /// Receives the answer to a Fetch, of which [`Self::body`] is the body.
    pub(crate) fn receive_records(&mut self, go_on: impl FnMut() -> bool) -> Result<Frame, Broken> {
        self.receive(self.max_answer, go_on)?.ok_or(Broken::Unwanted)
    }

    /// The body of an answer that has a header of version 0 or, `flexible`, 1.
    pub(crate) fn body(frame: &Frame, flexible: bool) -> Option<&[u8]> {
        let mut cursor = super::cursor::Cursor::new(frame.bytes());
        cursor.i32()?;
        if flexible {
            super::answer::read_tags(&mut cursor)?;
        }
        Some(cursor.rest())
    }

    /// Gives the buffer of an answer back.
    pub(crate) fn recycle(&mut self, frame: Frame) {
        if frame.buffer.len() <= KEEP {
            self.buffer = frame.buffer;
        }
    }

    /// `false` when `go_on` said no.
    fn fill(
        &mut self,
        mut into: &mut [u8],
        go_on: &mut impl FnMut() -> bool,
    ) -> Result<bool, Broken> {
        while !into.is_empty() {
            match self.stream.read(into) {
                Ok(0) => {
                    let closed = io::Error::new(ErrorKind::UnexpectedEof, "the broker hung up");
                    return Err(io_error(&self.address, closed));
                }
                Ok(n) => into = &mut into[n..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if is_pause(&e) => {
                    if !go_on() {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(io_error(&self.address, e)),
            }
        }
        Ok(true)
    }

    /// Not to be used for longer than this.
    pub(crate) fn expire_after(&mut self, lifetime: Duration) {
        self.expires = Some(Instant::now() + lifetime);
    }

    /// Whether the broker may hang up now.
    pub(crate) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// Whether an unused connection may be used again.
    pub(crate) fn is_fresh(&self, idle: Duration) -> bool {
        if self.used.elapsed() > idle || self.is_expired() {
            return false;
        }
        // Nothing was asked: the broker has nothing to say but that it hung up.
        let mut byte = [0];
        let socket = self.stream.socket();
        let quiet = socket.set_nonblocking(true).is_ok()
            && socket.peek(&mut byte).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        quiet && socket.set_nonblocking(false).is_ok()
    }

    pub(crate) fn protocol(&self, what: String) -> Broken {
        Broken::Protocol { address: self.address.clone(), what }
    }

    pub(crate) fn refused(&self, reason: String) -> Broken {
        Broken::Refused { address: self.address.clone(), reason }
    }
}

fn io_error(address: &Address, source: io::Error) -> Broken {
    let address = address.clone();
    if is_about_tls(&source) {
        return Broken::Untrusted { address, reason: source.to_string() };
    }
    Broken::Io { address, source }
}

fn connect(address: &Address, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for socket in (address.host.as_str(), address.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&socket, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TICK))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}
