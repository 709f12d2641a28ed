//! Looking at values of which nobody said what they are: counts what is in JSON objects, by the rules that records
//! are decoded by, so that what was counted can be decoded.

use std::collections::HashSet;

use isk_schema::{JsonKind, MAX_DEPTH, Observed};

use super::scan::{Scanner, Token};
use super::text;
use crate::budget::MAX_BLOCK_CELLS;
use crate::error::{Fault, Read};

/// What a value turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// A JSON object. It was counted.
    Object,
    /// Another JSON value.
    OtherJson,
    /// UTF-8 that is no JSON, and holds no control characters but white space.
    Text,
    /// Anything else.
    Bytes,
}

/// Looks at one value. If it is a JSON object, what is in it is counted; `room` is how many places may be added.
pub fn observe_json(payload: &[u8], observed: &mut Observed, room: &mut usize) -> Looked {
    match check(payload) {
        Ok(Token::Object) => {}
        Ok(_) => return Looked::OtherJson,
        Err(_) => return plain(payload),
    }
    // It was read to its end before, so that this does not fail half way.
    match Scanner::new(payload, MAX_BLOCK_CELLS)
        .and_then(|mut scanner| value(&mut scanner, Some(observed), room, 0))
    {
        Ok(()) => Looked::Object,
        Err(_) => Looked::Bytes,
    }
}

fn plain(payload: &[u8]) -> Looked {
    let printable = |text: &str| !text.chars().any(|c| c.is_control() && !c.is_whitespace());
    match std::str::from_utf8(payload) {
        Ok(text) if !text.is_empty() && printable(text) => Looked::Text,
        _ => Looked::Bytes,
    }
}

/// Reads a payload to its end.
fn check(payload: &[u8]) -> Read<Token> {
    let mut scanner = Scanner::new(payload, MAX_BLOCK_CELLS)?;
    let token = scanner.token()?;
    distinct(&mut scanner)?;
    scanner.end()?;
    Ok(token)
}

/// Reads any value. An object that has one key twice, or half a character in a key, cannot be decoded.
fn distinct(scanner: &mut Scanner<'_>) -> Read<()> {
    match scanner.token()? {
        Token::Object => {
            let mut seen = HashSet::new();
            scanner.object(|scanner, key| {
                let mut name = Vec::new();
                key.unescape(&mut name)?;
                if !seen.insert(name) {
                    return Err(Fault::new("an object has one key twice"));
                }
                distinct(scanner)
            })
        }
        Token::List => scanner.array(distinct),
        _ => scanner.any().map(drop),
    }
}

/// Reads any value, and counts it where there is a place for it. What lies deeper than columns do is not told apart.
fn value(
    scanner: &mut Scanner<'_>,
    mut observed: Option<&mut Observed>,
    room: &mut usize,
    depth: usize,
) -> Read<()> {
    let token = scanner.token()?;
    let mut note = |kind| {
        if let Some(observed) = &mut observed {
            observed.note(kind);
        }
    };
    match token {
        Token::Null => {
            note(JsonKind::Null);
            scanner.any().map(drop)
        }
        Token::Boolean => {
            note(JsonKind::Boolean);
            scanner.boolean().map(drop)
        }
        Token::Number => {
            note(number(scanner.number()?));
            Ok(())
        }
        Token::Text => {
            let found = scanner.string()?;
            let whole = !found.escaped || found.unescape(&mut Vec::new()).is_ok();
            note(if whole { JsonKind::Text } else { JsonKind::Odd });
            Ok(())
        }
        Token::List => {
            note(JsonKind::List);
            observed = observed.filter(|_| depth <= MAX_DEPTH);
            scanner.array(|scanner| {
                let element = observed.as_deref_mut().and_then(|o| o.element(room));
                value(scanner, element, room, depth + 1)
            })
        }
        Token::Object => {
            note(JsonKind::Object);
            observed = observed.filter(|_| depth <= MAX_DEPTH);
            let mut place = 0;
            scanner.object(|scanner, key| {
                let mut name = Vec::new();
                key.unescape(&mut name)?;
                let name = String::from_utf8_lossy(&name);
                let member = observed.as_deref_mut().and_then(|o| o.member(&name, place, room));
                place += 1;
                value(scanner, member, room, depth + 1)
            })
        }
    }
}

fn number(digits: &str) -> JsonKind {
    let whole = !digits.contains(['.', 'e', 'E']);
    match whole {
        true if text::whole(digits).is_ok() => JsonKind::Long,
        false if text::double(digits).is_ok() => JsonKind::Double,
        _ => JsonKind::Odd,
    }
}
