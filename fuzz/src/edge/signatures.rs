//! Signed requests to the catalog: what was signed as AWS describes it is taken, and nothing else.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use isk_access::Claimed;
use isk_fuzz_http::sign::{Canonical, Signer, digest_of, encode};

use crate::edge::asked::{Asked, written};

const TIME: &str = "20260102T030405Z";
const NOW: u64 = 1_767_323_045;
const SECRET: &str = "a secret";

/// The first byte says how it is signed, and what is changed then.
pub(crate) fn requests(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    if *how == b'=' {
        return header_alone(rest);
    }
    let Some(asked) = Asked::read(rest) else { return };
    let encoded = |text: &str| encode(text.as_bytes(), false);
    let query: Vec<_> =
        asked.query.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
    let path = encode(asked.path.as_bytes(), true);
    let digest = digest_of(asked.body);
    let mut headers = asked.headers.clone();
    headers.push(("host".into(), "isk:11001".into()));
    headers.push(("x-amz-date".into(), TIME.into()));
    if how & 1 == 1 {
        headers.push(("x-amz-content-sha256".into(), digest.clone()));
    }
    // Services other than S3 encode the path once more.
    let (service, once_more) = match how & 2 {
        0 => ("s3", path.clone()),
        _ => ("execute-api", encode(path.as_bytes(), true)),
    };
    let signer = Signer { key: ("AKID", SECRET), service, time: TIME };
    let request = Canonical {
        method: asked.method.as_str(),
        path: &once_more,
        query: &query,
        headers: &headers,
        payload: &digest,
    };
    let authorization = signer.authorization(&request);
    let Ok(uri) = format!("{path}{}", written(&query)).parse::<Uri>() else { return };
    let all = |authorization: &str| {
        let mut all = HeaderMap::new();
        for (name, value) in &headers {
            all.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        all.insert(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap());
        all
    };
    let check = |authorization: &str, secret: &str, method: &Method, uri: &Uri, body: &[u8]| {
        let headers = all(authorization);
        let claimed = Claimed::of(&headers).ok_or("not read")?;
        claimed.check(secret, (method, uri, &headers), body, NOW)
    };
    let (method, body) = (&asked.method, asked.body);
    assert_eq!(check(&authorization, SECRET, method, &uri, body), Ok(()));

    // One thing is another one.
    assert!(check(&authorization, "A secret", method, &uri, body).is_err());
    assert!(check(&authorization, SECRET, method, &uri, &[body, b" "].concat()).is_err());
    let other = if method == Method::GET { Method::HEAD } else { Method::GET };
    assert!(check(&authorization, SECRET, &other, &uri, body).is_err());
    let longer: Uri = format!("{path}x{}", written(&query)).parse().unwrap();
    assert!(check(&authorization, SECRET, method, &longer, body).is_err());
    let mut bent = authorization.into_bytes();
    let at = bent.len() - 1 - usize::from(how >> 2);
    bent[at] ^= 1;
    if let Ok(bent) = String::from_utf8(bent) {
        assert!(check(&bent, SECRET, method, &uri, body).is_err(), "{bent}");
    }
}

/// A header that nobody signed.
fn header_alone(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, value);
    headers.insert(header::HOST, HeaderValue::from_static("isk:11001"));
    headers.insert("x-amz-date", HeaderValue::from_static(TIME));
    let request = (&Method::GET, &Uri::from_static("/v1/config"), &headers);
    let taken = Claimed::of(&headers).map(|claimed| claimed.check(SECRET, request, b"", NOW));
    assert!(taken.is_none_or(|taken| taken.is_err()));
}
