//! One connection: a request goes out as it is, and an answer is read by its own length.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::request::Request;

/// How long a whole request may stay unanswered, and one that waits for its rest.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// The longest body that is read to keep a connection.
const MOST: usize = 1 << 20;

pub(crate) enum Answer {
    Status {
        status: u16,
        /// Whether the connection can be used again.
        keep: bool,
    },
    /// The connection ended without one.
    Closed,
    /// Nothing came.
    Silent,
    /// Something else than HTTP came.
    Broken(String),
}

pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(address: &str) -> std::io::Result<Self> {
        let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(30))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        let patience = if request.whole { PATIENCE } else { SHORT };
        if self.stream.set_read_timeout(Some(patience)).is_err()
            || self.stream.set_write_timeout(Some(PATIENCE)).is_err()
        {
            return Answer::Closed;
        }
        self.read.clear();
        // A server may answer, and close, before all was sent.
        let sent = self.stream.write_all(&request.bytes).is_ok();
        match self.answer(request.head_only) {
            Ok(Answer::Status { status, keep }) => {
                Answer::Status { status, keep: keep && sent && request.whole }
            }
            Ok(answer) => answer,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Answer::Silent
            }
            Err(_) => Answer::Closed,
        }
    }

    fn more(&mut self) -> std::io::Result<bool> {
        let mut part = [0; 16 << 10];
        let count = self.stream.read(&mut part)?;
        self.read.extend_from_slice(part.get(..count).unwrap_or_default());
        Ok(count > 0)
    }

    fn answer(&mut self, head_only: bool) -> std::io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if self.read.len() > MOST {
                return Ok(Answer::Broken("a head without end".to_owned()));
            }
            if !self.more()? {
                return Ok(match self.read.is_empty() {
                    true => Answer::Closed,
                    false => Answer::Broken(format!(
                        "no whole head: {:?}",
                        String::from_utf8_lossy(&self.read)
                    )),
                });
            }
        };
        let head = String::from_utf8_lossy(self.read.get(..end).unwrap_or_default()).to_lowercase();
        let status = head.strip_prefix("http/1.1 ").or(head.strip_prefix("http/1.0 "));
        let status = status.and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
        let Some(status) = status else {
            return Ok(Answer::Broken(format!("no status line: {head:?}")));
        };
        if status == 100 {
            self.read.drain(..end);
            return self.answer(head_only);
        }
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        let closes = header("connection:").is_some_and(|value| value.contains("close"));
        if head_only || status == 204 || status == 304 {
            return Ok(Answer::Status { status, keep: !closes });
        }
        if let Some(length) = header("content-length:").and_then(|value| value.parse().ok()) {
            let whole: usize = end.saturating_add(length);
            let keep = !closes && length <= MOST;
            while keep && self.read.len() < whole {
                if !self.more()? {
                    return Ok(Answer::Broken(format!("a body of {length} bytes was cut")));
                }
            }
            return Ok(Answer::Status { status, keep });
        }
        // In chunks, or to the connection's end: the last chunk is looked for at the end of what came.
        let chunked = header("transfer-encoding:").is_some();
        while chunked && !self.read.ends_with(b"\r\n0\r\n\r\n") && self.read.len() < MOST {
            if !self.more()? {
                break;
            }
        }
        let keep = chunked && !closes && self.read.ends_with(b"\r\n0\r\n\r\n");
        Ok(Answer::Status { status, keep })
    }
}
