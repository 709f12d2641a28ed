//! One request over a connection within the process, and its answer.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use isk_listen::{Port, serve_stream};
use isk_s3_http::Gateway;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// More than a request or an answer has.
const PIPE: usize = 1 << 20;

pub(crate) const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// No answer takes longer, or it stays away.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The texts of all elements of this name, as they are meant.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let texts = text.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
        texts.map(unescaped).collect()
    }
}

/// Sends a request that ends its connection, and reads the answer.
pub(crate) fn exchange(gateway: Gateway, request: &[u8]) -> Answer {
    let bytes = RUNTIME.block_on(async {
        let (mut client, server) = duplex(PIPE);
        let serving = serve_stream(server, SocketAddr::from(PEER), Port::default(), gateway);
        let asking = async move {
            client.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        timeout(PATIENCE, async { tokio::join!(serving, asking).1 }).await.unwrap()
    });
    read(&bytes)
}

fn read(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let mut lines = std::str::from_utf8(head).unwrap().split("\r\n");
    let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
    let status = status[..3].parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let mut answer = Answer { status, headers, body: body.to_vec() };
    if answer.header("transfer-encoding").is_some() {
        answer.body = whole(body);
    }
    answer
}

/// A body that comes in chunks.
fn whole(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n").unwrap();
        let count = std::str::from_utf8(&body[..end]).unwrap();
        let count = usize::from_str_radix(count, 16).unwrap();
        if count == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + count]);
        body = &body[end + 4 + count..];
    }
}

/// A text of an XML document.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('&');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(';').unwrap();
        let number = name.strip_prefix('#').map(|digits| match digits.strip_prefix('x') {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => digits.parse().unwrap(),
        });
        out.push(match (name, number) {
            (_, Some(number)) => char::from_u32(number).unwrap(),
            ("lt", _) => '<',
            ("gt", _) => '>',
            ("amp", _) => '&',
            ("quot", _) => '"',
            ("apos", _) => '\'',
            other => panic!("{other:?} is no entity"),
        });
        out.push_str(rest);
    }
    out
}
