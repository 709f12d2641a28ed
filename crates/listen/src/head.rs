//! A look at the bytes of a request's head, before the HTTP library reads them: heads that somebody between the client
//! and us may have read otherwise are refused (RFC 9112, sections 2.2, 6.1 and 6.3).

/// The longest name of a header that matters here.
const NAME: usize = "transfer-encoding".len();

/// The most digits of a length.
const DIGITS: usize = 18;

/// A head that is refused; the text says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadHead(pub &'static str);

/// How much comes after the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes.
    Bytes(u64),
    /// As many as its chunks say.
    Chunks,
}

/// What of a line was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The request line.
    RequestLine,
    /// In a header's name, of which so many bytes are kept.
    Name(usize),
    /// In a value that does not matter.
    Value,
    /// In the length of the body, with so many digits, and whether blanks came after them.
    Length(usize, bool),
}

/// Reads a head byte by byte.
#[derive(Debug)]
pub(crate) struct Head {
    place: Place,
    name: [u8; NAME],
    after_cr: bool,
    /// Whether the line has no bytes so far.
    empty: bool,
    length: Option<u64>,
    chunks: bool,
}

impl Head {
    pub(crate) fn new() -> Self {
        Self {
            place: Place::RequestLine,
            name: [0; NAME],
            after_cr: false,
            empty: true,
            length: None,
            chunks: false,
        }
    }

    /// Reads on. `Some`: the head ends after so many of these bytes.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Option<(usize, Length)>, BadHead> {
        for (at, &byte) in bytes.iter().enumerate() {
            if let Some(length) = self.byte(byte)? {
                return Ok(Some((at + 1, length)));
            }
        }
        Ok(None)
    }

    fn byte(&mut self, byte: u8) -> Result<Option<Length>, BadHead> {
        match (byte, self.after_cr) {
            (b'\n', true) => return self.end_of_line(),
            (b'\n', false) => return Err(BadHead("a line ends in LF alone")),
            (_, true) => return Err(BadHead("a CR stands alone")),
            (b'\r', false) => {
                self.after_cr = true;
                return Ok(None);
            }
            _ => {}
        }
        self.empty = false;
        match self.place {
            Place::RequestLine | Place::Value => {}
            Place::Name(kept) => self.in_name(byte, kept)?,
            Place::Length(digits, blank) => self.in_length(byte, digits, blank)?,
        }
        Ok(None)
    }

    fn in_name(&mut self, byte: u8, kept: usize) -> Result<(), BadHead> {
        if byte != b':' {
            if let Some(place) = self.name.get_mut(kept) {
                *place = byte.to_ascii_lowercase();
            }
            self.place = Place::Name(kept.saturating_add(1));
            return Ok(());
        }
        self.place = Place::Value;
        match self.name.get(..kept) {
            Some(b"content-length") if self.length.is_some() => {
                return Err(BadHead("there are two Content-Length"));
            }
            Some(b"content-length") => {
                self.length = Some(0);
                self.place = Place::Length(0, false);
            }
            Some(b"transfer-encoding") if self.chunks => {
                return Err(BadHead("there are two Transfer-Encoding"));
            }
            Some(b"transfer-encoding") => self.chunks = true,
            _ => {}
        }
        Ok(())
    }

    fn in_length(&mut self, byte: u8, digits: usize, blank: bool) -> Result<(), BadHead> {
        match byte {
            b'0'..=b'9' if !blank && digits < DIGITS => {
                let so_far = self.length.unwrap_or(0);
                self.length = Some(so_far * 10 + u64::from(byte - b'0'));
                self.place = Place::Length(digits + 1, false);
                Ok(())
            }
            b' ' | b'\t' => {
                self.place = Place::Length(digits, digits > 0);
                Ok(())
            }
            _ => Err(BadHead("Content-Length is no number")),
        }
    }

    fn end_of_line(&mut self) -> Result<Option<Length>, BadHead> {
        self.after_cr = false;
        let empty = std::mem::replace(&mut self.empty, true);
        match self.place {
            // Empty lines before the first are nothing.
            Place::RequestLine if empty => return Ok(None),
            Place::Length(0, _) => return Err(BadHead("Content-Length is no number")),
            Place::Name(_) if empty => {
                return match (self.chunks, self.length) {
                    (true, Some(_)) => {
                        Err(BadHead("there is a Content-Length beside a Transfer-Encoding"))
                    }
                    (true, None) => Ok(Some(Length::Chunks)),
                    (false, length) => Ok(Some(Length::Bytes(length.unwrap_or(0)))),
                };
            }
            _ => {}
        }
        self.place = Place::Name(0);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same head in one piece and in pieces of one byte.
    fn read(text: &str) -> Result<Option<(usize, Length)>, BadHead> {
        let whole = Head::new().read(text.as_bytes());
        let mut head = Head::new();
        let mut single = Ok(None);
        for (at, byte) in text.bytes().enumerate() {
            single = head.read(&[byte]).map(|end| end.map(|(_, length)| (at + 1, length)));
            if single != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, single, "{text:?}");
        whole
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", Some((27, Length::Bytes(0)))),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some((22, Length::Bytes(0)))),
            (
                "PUT / HTTP/1.1\r\nCONTENT-length: \t12 \r\nx: content-length: 3\r\n\r\n",
                Some((62, Length::Bytes(12))),
            ),
            ("PUT / HTTP/1.1\r\ncontent-length:0\r\n\r\n", Some((36, Length::Bytes(0)))),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", Some((47, Length::Chunks))),
            (
                "GET / HTTP/1.1\r\nx-content-length: a\r\ncontent-lengthy: b\r\n\r\n",
                Some((59, Length::Bytes(0))),
            ),
            ("GET / HTTP/1.1\r\nHost: a\r\n", None),
            ("", None),
        ] {
            assert_eq!(read(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, why) in [
            ("GET / HTTP/1.1\n\n", "LF alone"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", "LF alone"),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "CR stands alone"),
            ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", "CR stands alone"),
            (
                "P / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                "two Content-Length",
            ),
            ("P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "beside"),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "beside"),
            (
                "P / HTTP/1.1\r\nTransfer-Encoding: x\r\ntransfer-encoding: chunked\r\n\r\n",
                "two Transfer",
            ),
            ("P / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", "no number"),
            ("P / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", "no number"),
            ("P / HTTP/1.1\r\nContent-Length: 1 1\r\n\r\n", "no number"),
            ("P / HTTP/1.1\r\nContent-Length:\r\n\r\n", "no number"),
            ("P / HTTP/1.1\r\nContent-Length: 1234567890123456789\r\n\r\n", "no number"),
        ] {
            let BadHead(reason) = read(text).unwrap_err();
            assert!(reason.contains(why), "{text:?}: {reason}");
        }
    }
}
