//! Requests to the gateway: their keys, ranges, conditions and signatures.

use isk_fuzz_http::sign::encode;

use crate::edge::asked::Asked;
use crate::edge::connection::Answer;
use crate::edge::objects::{BUCKET, Signed, TAG, bytes, size};

/// Fields of a query that say how it is signed.
const OF_SIGNATURES: [&str; 3] = ["Signature", "AWSAccessKeyId", "Expires"];

/// A request, whose signature is right, and then one in which something was changed after it was signed.
pub(crate) fn requests(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let Some(asked) = Asked::read(rest) else { return };
    let mut names: Vec<&str> = asked.query.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    // The library takes fields of one name in the order that they came in, and AWS in that of their values.
    let doubled = names.windows(2).any(|pair| pair[0] == pair[1]);
    let of_signatures = |name: &&str| name.starts_with("X-Amz-") || OF_SIGNATURES.contains(name);
    if doubled || names.iter().any(of_signatures) {
        return;
    }
    let encoded = |text: &str| encode(text.as_bytes(), false);
    let query = asked.query.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
    let path = encode(asked.path.as_bytes(), true);
    let in_query = first & 1 == 1;
    let mut request =
        Signed::new((asked.method.as_str(), path), query, &asked.headers, asked.body, in_query);
    let (answer, objects) = request.send();
    assert!(answer.status != 500, "{:?}", String::from_utf8_lossy(&answer.body));
    assert!(!is_refused(&asked, &answer), "{:?}", String::from_utf8_lossy(&answer.body));
    for key in &objects {
        assert_eq!(asked.path, format!("/{BUCKET}/{key}"));
    }
    if let Some(key) = objects.first() {
        reading(&asked, key, &answer);
    }
    alter(&mut request, *first);
    let (answer, objects) = request.send();
    assert!([400, 403].contains(&answer.status) && objects.is_empty(), "{}", answer.status);
}

/// Whether the signature was not taken for good.
fn is_refused(asked: &Asked<'_>, answer: &Answer) -> bool {
    // The answer to HEAD does not say why; nothing else forbids one.
    answer.status == 403
        && (asked.method == "HEAD"
            || answer.elements("Code").iter().any(|code| code == "SignatureDoesNotMatch"))
}

/// Changes what was signed, in one of some ways.
fn alter(request: &mut Signed, how: u8) {
    match (how >> 1) & 3 {
        0 => return request.path.push('x'),
        1 => {
            request.method = if request.method == "GET" { "HEAD" } else { "GET" }.to_owned();
            return;
        }
        2 => return request.query.push(("x-more".to_owned(), String::new())),
        _ => {}
    }
    let fields = request.query.iter_mut().chain(&mut request.headers);
    let names = ["X-Amz-Signature", "authorization"];
    for (_, text) in fields.filter(|(name, _)| names.contains(&name.as_str())) {
        let at = text.len() - 1 - usize::from(how >> 3);
        let digit = if text.get(at..=at) == Some("0") { "1" } else { "0" };
        text.replace_range(at..=at, digit);
    }
}

/// What was said of an object that is there.
fn reading(asked: &Asked<'_>, key: &str, answer: &Answer) {
    let size = size(key);
    let length = answer.header("content-length").and_then(|length| length.parse::<u64>().ok());
    let conditions = ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
    let conditions = conditions.map(|name| asked.header(name));
    let is_get = asked.method == "GET";
    match answer.status {
        200 => {
            assert_eq!(length, Some(size));
            assert_eq!(answer.header("etag"), Some(format!("\"{TAG}\"").as_str()));
            assert!(!is_get || answer.body == bytes(0..size));
        }
        206 => {
            let said = answer.header("content-range").unwrap().strip_prefix("bytes ").unwrap();
            let (range, of) = said.split_once('/').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            let (first, last): (u64, u64) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(first <= last && last < size && of == size.to_string(), "{said}");
            assert_eq!(length, Some(last - first + 1));
            assert!(is_get && answer.body == bytes(first..last + 1));
        }
        304 => assert!(conditions[1].is_some() || conditions[2].is_some()),
        412 => assert!(conditions[0].is_some() || conditions[3].is_some()),
        416 => assert!(asked.header("range").is_some() || !asked.query.is_empty()),
        400 | 404 | 501 => {}
        other => panic!("status {other}"),
    }
    let of_a_range = asked.headers.iter().all(|(name, _)| name == "range");
    if of_a_range && asked.query.is_empty() && is_get {
        let expected = asked.header("range").map_or(Some(200), |range| status_of(range, size));
        assert!(expected.is_none_or(|status| status == answer.status), "{}", answer.status);
    }
}

/// The status of a GET with this range; `None` where the header is none of the plain forms.
fn status_of(range: &str, size: u64) -> Option<u16> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if plain { text.parse::<u64>().ok().filter(|n| i64::try_from(*n).is_ok()) } else { None }
    };
    let satisfiable = match (first, last) {
        ("", last) => number(last)? > 0 && size > 0,
        (first, "") => number(first)? < size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first < size
        }
    };
    Some(if satisfiable { 206 } else { 416 })
}
