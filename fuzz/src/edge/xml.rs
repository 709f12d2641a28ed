//! XML that the gateway is sent: deletions of many objects, and the parts of an upload.

use std::fmt::Write as _;

use crate::edge::objects::Signed;

/// The most keys of one document that is made here.
const MOST: usize = 50;

/// The first byte says whether the rest is a document, or the keys that one is made of.
pub(crate) fn documents(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind {
        b'd' => raw("delete", "", rest),
        b'c' => raw("uploadId", "1", rest),
        _ => deletions(rest),
    }
}

fn post(field: &str, value: &str, body: &[u8]) -> Signed {
    let (path, query) = match field {
        "delete" => ("/lake", (field.to_owned(), value.to_owned())),
        _ => ("/lake/an/object", (field.to_owned(), value.to_owned())),
    };
    Signed::new(("POST", path.to_owned()), vec![query], &[], body, false)
}

fn raw(field: &str, value: &str, body: &[u8]) {
    let (answer, objects) = post(field, value, body).send();
    assert!(objects.is_empty());
    assert!(answer.status != 500, "{:?}", String::from_utf8_lossy(&answer.body));
}

/// The answer names just the keys that were to be deleted.
fn deletions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let legal = |c: char| matches!(c, ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    let is_key = |key: &&str| !key.is_empty() && key.len() <= 1024 && key.chars().all(legal);
    let mut keys: Vec<&str> = text.split('\n').filter(is_key).take(MOST).collect();
    if keys.is_empty() {
        return;
    }
    let mut document = "<Delete>".to_owned();
    for (place, key) in keys.iter().enumerate() {
        let key = escaped(key, place);
        document += &format!("<Object><Key>{key}</Key></Object>");
    }
    document += "</Delete>";
    let (answer, _) = post("delete", "", document.as_bytes()).send();
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{body}");
    let mut said = answer.elements("Key");
    said.sort_unstable();
    keys.sort_unstable();
    assert_eq!(said, keys, "{body}");
}

/// A text as an XML document has it, in one of two ways.
fn escaped(text: &str, way: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match (c, way % 2) {
            ('<', 0) => out.push_str("&lt;"),
            ('>', 0) => out.push_str("&gt;"),
            ('&', 0) => out.push_str("&amp;"),
            ('<' | '>' | '&' | ' ' | 'a', _) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "&#{};", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}
