//! Strings as they stand in JSON text, and their escapes.

use crate::error::{Fault, Read};

/// A string as it stands in the text.
#[derive(Clone, Copy)]
pub(crate) struct RawText<'a> {
    /// What is between the quotes.
    pub raw: &'a str,
    /// Whether there are escapes in it.
    pub escaped: bool,
}

impl RawText<'_> {
    /// Checks the escapes of a string that is not shown by itself.
    pub(crate) fn check(self) -> Read<()> {
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
}
