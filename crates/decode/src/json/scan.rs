//! Reading JSON (RFC 8259) from bytes nobody vouches for.

use crate::budget::Budget;
use crate::error::{Fault, Read};

/// How deep values may nest.
const MAX_DEPTH: usize = 128;

/// JSON text being read.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    pub budget: Budget,
}

/// A string as it stands in the text.
#[derive(Clone, Copy)]
pub(crate) struct RawText<'a> {
    /// What is between the quotes.
    pub raw: &'a str,
    /// Whether there are escapes in it.
    pub escaped: bool,
}

/// What a value begins like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Null,
    Boolean,
    Number,
    Text,
    List,
    Object,
}

impl Token {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            b'n' => Self::Null,
            b't' | b'f' => Self::Boolean,
            b'-' | b'0'..=b'9' => Self::Number,
            b'"' => Self::Text,
            b'[' => Self::List,
            b'{' => Self::Object,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "an array",
            Self::Object => "an object",
        }
    }
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(payload: &'a [u8], block_cells: u64) -> Read<Self> {
        let text = std::str::from_utf8(payload)
            .map_err(|e| Fault::new(format!("it is not UTF-8: {e}")))?;
        Ok(Self { text, at: 0, depth: 0, budget: Budget::new(payload.len(), block_cells) })
    }

    #[inline(always)]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[cold]
    fn unexpected(&self, wanted: &str) -> Fault {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => Fault::new(format!("{found:?} at byte {} is not {wanted}", self.at)),
            None => Fault::new(format!("the data ends where {wanted} is needed")),
        }
    }

    fn spaces(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    /// What the next value begins like.
    #[inline]
    pub(crate) fn token(&mut self) -> Read<Token> {
        self.spaces();
        self.byte().and_then(Token::of).ok_or_else(|| self.unexpected("a value"))
    }

    /// Whether the next value is null; if so, it is read.
    #[inline]
    pub(crate) fn null(&mut self) -> Read<bool> {
        self.spaces();
        match self.byte() {
            Some(b'n') => self.word("null").map(|()| true),
            _ => Ok(false),
        }
    }

    fn word(&mut self, word: &str) -> Read<()> {
        match self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            true => {
                self.at += word.len();
                Ok(())
            }
            false => Err(self.unexpected("a value")),
        }
    }

    pub(crate) fn boolean(&mut self) -> Read<bool> {
        match self.byte() {
            Some(b't') => self.word("true").map(|()| true),
            _ => self.word("false").map(|()| false),
        }
    }

    /// The text of a number.
    #[inline]
    pub(crate) fn number(&mut self) -> Read<&'a str> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        self.since(start)
    }

    #[inline]
    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    /// The text from `start` to here.
    fn since(&self, start: usize) -> Read<&'a str> {
        self.text.get(start..self.at).ok_or_else(|| self.unexpected("the end of a value"))
    }

    /// A string, from its opening to its closing quote. Its escapes are looked at when it is unescaped.
    #[inline]
    pub(crate) fn string(&mut self) -> Read<RawText<'a>> {
        if self.byte() != Some(b'"') {
            return Err(self.unexpected("a text"));
        }
        let start = self.at + 1;
        let mut escaped = false;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(0x20..) => at += 1,
                _ => {
                    self.at = at.min(bytes.len());
                    return Err(self.unexpected("a character of a text"));
                }
            }
        }
        self.at = at;
        let raw = self.since(start)?;
        self.at += 1;
        Ok(RawText { raw, escaped })
    }

    /// Reads the members of an object: `member` gets each key and stands before its value.
    #[inline]
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, RawText<'a>) -> Read<()>,
    ) -> Read<()> {
        self.open()?;
        self.spaces();
        if self.byte() == Some(b'}') {
            return self.close();
        }
        loop {
            self.spaces();
            let key = self.string()?;
            self.spaces();
            if self.byte() != Some(b':') {
                return Err(self.unexpected("a colon"));
            }
            self.at += 1;
            member(self, key)?;
            self.spaces();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b'}') => return self.close(),
                _ => return Err(self.unexpected("a comma or the object's end")),
            }
        }
    }

    /// Reads the elements of an array: `element` is called before each.
    #[inline]
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        self.open()?;
        self.spaces();
        if self.byte() == Some(b']') {
            return self.close();
        }
        loop {
            element(self)?;
            self.spaces();
            match self.byte() {
                Some(b',') => self.at += 1,
                Some(b']') => return self.close(),
                _ => return Err(self.unexpected("a comma or the array's end")),
            }
        }
    }

    fn open(&mut self) -> Read<()> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn close(&mut self) -> Read<()> {
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Reads any value, and gives its text.
    pub(crate) fn any(&mut self) -> Read<&'a str> {
        let token = self.token()?;
        let start = self.at;
        match token {
            Token::Null => self.word("null")?,
            Token::Boolean => self.boolean().map(drop)?,
            Token::Number => self.number().map(drop)?,
            Token::Text => self.string()?.check()?,
            Token::List => self.array(|scanner| scanner.any().map(drop))?,
            Token::Object => self.object(|scanner, key| {
                key.check()?;
                scanner.any().map(drop)
            })?,
        }
        self.since(start)
    }

    /// Fails where anything but space follows.
    pub(crate) fn end(&mut self) -> Read<()> {
        self.spaces();
        match self.text.len() - self.at {
            0 => Ok(()),
            more => Err(Fault::new(format!("{more} bytes are left behind its end"))),
        }
    }
}

impl RawText<'_> {
    /// Checks the escapes of a string that is not shown by itself.
    fn check(self) -> Read<()> {
        if !self.escaped {
            return Ok(());
        }
        let mut rest = self.raw.as_bytes();
        while let Some(at) = rest.iter().position(|b| *b == b'\\') {
            rest = &rest[at + 1..];
            match rest {
                [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', more @ ..] => rest = more,
                [b'u', more @ ..] if hex(more).is_some() => rest = &more[4..],
                _ => return Err(Fault::new("an escape in a text is none of JSON's")),
            }
        }
        Ok(())
    }

    /// Appends the string with its escapes undone.
    pub(crate) fn unescape(self, out: &mut Vec<u8>) -> Read<()> {
        let mut rest = self.raw.as_bytes();
        while let Some(at) = rest.iter().position(|b| *b == b'\\') {
            out.extend_from_slice(&rest[..at]);
            let (escape, more) = rest[at + 1..].split_first().unwrap_or((&0, &[]));
            rest = more;
            let plain = match escape {
                b'"' | b'\\' | b'/' => *escape,
                b'b' => 0x08,
                b'f' => 0x0c,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'u' => {
                    let (character, more) = unicode(rest)?;
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = more;
                    continue;
                }
                _ => return Err(Fault::new("an escape in a text is none of JSON's")),
            };
            out.push(plain);
        }
        out.extend_from_slice(rest);
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.get(..4).filter(|d| d.iter().all(u8::is_ascii_hexdigit))?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The character of a `\u` escape, or of two that are a surrogate pair.
fn unicode(rest: &[u8]) -> Read<(char, &[u8])> {
    let bad = || Fault::new("a \\u escape in a text is no character");
    let first = hex(rest).ok_or_else(bad)?;
    let more = &rest[4..];
    if !(0xd800..0xe000).contains(&first) {
        return Ok((char::from_u32(first).ok_or_else(bad)?, more));
    }
    let second = more.strip_prefix(b"\\u").and_then(hex).ok_or_else(bad)?;
    if first >= 0xdc00 || !(0xdc00..0xe000).contains(&second) {
        return Err(bad());
    }
    let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
    Ok((char::from_u32(code).ok_or_else(bad)?, &more[6..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &[u8]) -> bool {
        let Ok(mut scanner) = Scanner::new(text, u64::MAX) else { return false };
        scanner.any().and_then(|_| scanner.end()).is_ok()
    }

    /// serde_json refuses numbers beyond a double; as texts they are numbers like others.
    fn serde_accepts(text: &[u8]) -> Option<bool> {
        match serde_json::from_slice::<&serde_json::value::RawValue>(text) {
            Ok(_) => Some(true),
            Err(e) if e.to_string().contains("out of range") => None,
            Err(_) => Some(false),
        }
    }

    #[test]
    fn odd_texts_are_taken_as_the_standard_says() {
        for (text, good) in [
            ("1", true),
            (" [1 , 2 ] ", true),
            ("01", false),
            ("1.", false),
            (".5", false),
            ("-", false),
            ("-0", true),
            ("1e5", true),
            ("1e", false),
            ("+1", false),
            ("NaN", false),
            ("nul", false),
            ("nulll", false),
            ("\"a\u{7f}\"", true),
            ("\"a\nb\"", false),
            (r#""\x""#, false),
            (r#""\u12""#, false),
            (r#""\u12g4""#, false),
            (r#""\ud800""#, true),
            (r#""\"#, false),
            ("{", false),
            ("{}", true),
            ("{\"a\":1,}", false),
            ("{\"a\" :\t1}", true),
            ("{a:1}", false),
            ("[,]", false),
            ("[1 2]", false),
            ("", false),
            ("\u{feff}1", false),
        ] {
            assert_eq!(accepts(text.as_bytes()), good, "{text:?}");
        }
        assert!(!accepts(b"\"\xff\""));
        let nested = |n: usize| [b"[".repeat(n), b"]".repeat(n)].concat();
        assert!(accepts(&nested(128)) && !accepts(&nested(129)) && !accepts(&nested(1_000_000)));
    }

    #[test]
    fn escapes_are_undone() {
        for (raw, text) in [
            (r"a\n\t\b\f\r\/\\\u0041", Some("a\n\t\u{8}\u{c}\r/\\A")),
            (r"\ud83d\ude00!", Some("😀!")),
            (r"\ud83d", None),
            (r"\ude00\ud83d", None),
            (r"\ud83dx", None),
            (r"\ud83d\u0041", None),
        ] {
            let mut out = Vec::new();
            let result = RawText { raw, escaped: true }.unescape(&mut out);
            assert_eq!(result.ok().map(|()| out), text.map(|t| t.as_bytes().to_vec()), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_accepts(
            text in r#"[\[\]{}",:0-9eE+\-. \\a-f"unlltrueé]{0,24}"#
        ) {
            if let Some(expected) = serde_accepts(text.as_bytes()) {
                prop_assert_eq!(accepts(text.as_bytes()), expected, "{}", text);
            }
        }
    }
}
