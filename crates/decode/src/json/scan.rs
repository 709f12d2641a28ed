//! Reading JSON (RFC 8259) from bytes nobody vouches for.

use super::escape::RawText;
use super::rest::Rest;
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
    /// Where members without a place are kept, if they are.
    pub rest: Option<Rest>,
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
        let budget = Budget::new(payload.len(), block_cells);
        Ok(Self { text, at: 0, depth: 0, budget, rest: None })
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
            at = plain_to(bytes, at);
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
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
        let mut more = self.enter(b'}')?;
        while more {
            let key = self.key()?;
            member(self, key)?;
            more = self.more(b'}')?;
        }
        Ok(())
    }

    /// Reads the elements of an array: `element` is called before each.
    #[inline]
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        let mut more = self.enter(b']')?;
        while more {
            element(self)?;
            more = self.more(b']')?;
        }
        Ok(())
    }

    /// Goes into an array or object, before which it stands, that closes with `end`. Whether anything is in it;
    /// if not, it is left again.
    #[inline]
    pub(crate) fn enter(&mut self, end: u8) -> Read<bool> {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::new(format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        self.spaces();
        if self.byte() == Some(end) {
            self.leave();
            return Ok(false);
        }
        Ok(true)
    }

    /// Behind an element or a member: whether another one follows; if not, the array or object is left.
    #[inline]
    pub(crate) fn more(&mut self, end: u8) -> Read<bool> {
        self.spaces();
        match self.byte() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.leave();
                Ok(false)
            }
            _ => Err(self.unexpected(match end {
                b'}' => "a comma or the object's end",
                _ => "a comma or the array's end",
            })),
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// A member's key, and its colon.
    #[inline]
    pub(crate) fn key(&mut self) -> Read<RawText<'a>> {
        self.spaces();
        let key = self.string()?;
        self.spaces();
        if self.byte() != Some(b':') {
            return Err(self.unexpected("a colon"));
        }
        self.at += 1;
        Ok(key)
    }

    /// Whether a certain key and its colon are next; if so, they are read. `quoted` is the key as it stands in text,
    /// with its quotes and nothing to escape between them.
    #[inline]
    pub(crate) fn key_is(&mut self, quoted: &[u8]) -> bool {
        self.spaces();
        match self.text.as_bytes().get(self.at..).and_then(|rest| rest.strip_prefix(quoted)) {
            Some([b':', ..]) => {
                self.at += quoted.len() + 1;
                true
            }
            _ => false,
        }
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

/// Where the first quote, backslash or control character is, from `at` on, or the end. Eight bytes at a time:
/// most texts are too short for wider steps to pay.
#[inline]
fn plain_to(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The lowest bit that is set is that of the first such byte; those above it may be wrong.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
        let quote = zero(word ^ (ONES * u64::from(b'"')));
        let backslash = zero(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = quote | backslash | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| !matches!(b, b'"' | b'\\' | 0..0x20)).count()
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

    proptest! {
        #[test]
        fn texts_end_at_their_first_special_character(bytes in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\\'), Just(0x1f), Just(0x20), Just(0x80), any::<u8>()], 0..40
        ), at in 0usize..45) {
            let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
            let rest = bytes.get(at..).unwrap_or_default();
            let want = at + rest.iter().position(special).unwrap_or(rest.len());
            prop_assert_eq!(plain_to(&bytes, at), want);
        }

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
