//! AWS signatures (version 4) of requests to the catalog, as clients with `rest.sigv4-enabled` make them. Signatures of
//! requests to the gateway are the protocol library's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Uri, header};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// How far the clocks may be apart, in seconds.
const SKEW: u64 = 900;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A header that names the body's digest, where it is signed.
const CONTENT_DIGEST: &str = "x-amz-content-sha256";

/// What an `Authorization` header says of a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// `<date>/<region>/<service>/aws4_request`.
    scope: &'a str,
    signed: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Claimed<'a> {
    /// Reads the header, where it is one of these.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let rest = value.strip_prefix(ALGORITHM)?;
        let field = |name: &str| {
            let mut parts = rest.split(',').map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let (access_key_id, scope) = field("Credential")?.split_once('/')?;
        let signed = field("SignedHeaders")?.split(';').collect();
        Some(Self { access_key_id, scope, signed, signature: field("Signature")? })
    }

    /// Whether the key with this secret signed the request, whose body is given.
    ///
    /// # Errors
    /// Why not, in a text that may be shown.
    pub fn check(
        &self,
        secret: &str,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: &[u8],
        now: u64,
    ) -> Result<(), &'static str> {
        let date = one(headers, "x-amz-date").ok_or("the signature has no X-Amz-Date")?;
        let signed_at = seconds(date).ok_or("X-Amz-Date is no time")?;
        if signed_at.abs_diff(now) > SKEW {
            return Err("the request was signed more than 15 minutes ago, or the clocks differ");
        }
        if !self.signed.contains(&"host") || !self.signed.contains(&"x-amz-date") {
            return Err("host and x-amz-date are not among the signed headers");
        }
        let [day, region, service, "aws4_request"] =
            self.scope.split('/').collect::<Vec<_>>().try_into().unwrap_or([""; 4])
        else {
            return Err("the credential's scope is not <date>/<region>/<service>/aws4_request");
        };
        if !date.starts_with(day) {
            return Err("the credential is of another day");
        }
        let digest = hex(digest::digest(&digest::SHA256, body).as_ref());
        let said = one(headers, CONTENT_DIGEST);
        if said.is_some_and(|said| said != digest && said != base64_of(body)) {
            return Err("X-Amz-Content-Sha256 is not the body's");
        }
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [day, region, service, "aws4_request"] {
            key = sign(&key, part);
        }
        let headers = self.canonical_headers(headers)?;
        // Services other than S3 encode the path once more.
        let good = [true, false].into_iter().any(|again| {
            let request = format!(
                "{method}\n{}\n{}\n{headers}\n{}\n{}",
                path(uri.path(), again),
                query(uri.query().unwrap_or_default()),
                self.signed.join(";"),
                said.unwrap_or(&digest)
            );
            let hashed = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
            let text = format!("{ALGORITHM}\n{date}\n{}\n{hashed}", self.scope);
            hex(&sign(&key, &text)).as_bytes().ct_eq(self.signature.as_bytes()).into()
        });
        if good { Ok(()) } else { Err("the signature is another one") }
    }

    fn canonical_headers(&self, headers: &HeaderMap) -> Result<String, &'static str> {
        let mut text = String::new();
        for name in &self.signed {
            let mut values = Vec::new();
            for value in headers.get_all(*name) {
                let value = value.to_str().map_err(|_| "a signed header is no text")?;
                values.push(value.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
            }
            if values.is_empty() {
                return Err("a header that is signed is not there");
            }
            text += &format!("{name}:{}\n", values.join(","));
        }
        Ok(text)
    }
}

fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Some clients write the digest so.
fn base64_of(body: &[u8]) -> String {
    STANDARD.encode(digest::digest(&digest::SHA256, body).as_ref())
}

/// What AWS leaves as it is, and `also`; of the rest, each byte is `%XX`.
fn encoded(bytes: &[u8], also: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also.contains(&byte) {
            text.push(char::from(byte));
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

/// The path as it is signed: as it was sent, or encoded once more.
fn path(path: &str, again: bool) -> String {
    if again { encoded(path.as_bytes(), b"/") } else { path.to_owned() }
}

/// The fields of a query in the order of their names, each encoded: `a=` goes before `a-b=`.
fn query(query: &str) -> String {
    let mut fields: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| (encoded(name.as_bytes(), b""), encoded(value.as_bytes(), b"")))
        .collect();
    fields.sort();
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    fields.join("&")
}

/// `20260102T030405Z` in seconds since 1970.
fn seconds(date: &str) -> Option<u64> {
    let digits = date.strip_suffix('Z')?.replacen('T', "", 1);
    if date.len() != 16 || digits.len() != 14 || !digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let number = |from: usize, to: usize| digits.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    days.checked_sub(719_468).map(|days| ((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by AWS's own library (botocore's `SigV4Auth`), for service `execute-api`.
    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKID/20260102/us-east-1/execute-api/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature=@SIGNATURE@";

    const SIGNATURE: &str = "72a8747db99f3c5352e27ca2df0ebaf7eece64b3689be9780e551a086058ca7f";

    fn request(signature: &str) -> (Uri, HeaderMap) {
        let mut headers = HeaderMap::new();
        let value = SIGNED.replace("@SIGNATURE@", signature);
        headers.insert("authorization", value.parse().unwrap());
        headers.insert("host", "isk:11001".parse().unwrap());
        headers.insert("x-amz-date", "20260102T030405Z".parse().unwrap());
        ("/v1/namespaces/a%1Fb/tables?pageSize=2&pageToken=x%2Fy".parse().unwrap(), headers)
    }

    #[test]
    fn a_signature_of_awss_own_library_is_good_and_others_are_not() {
        const NOW: u64 = 1_767_323_045;
        let (uri, headers) = request(SIGNATURE);
        let check = |uri: &Uri, headers: &HeaderMap, secret: &str, body: &[u8], now: u64| {
            let claimed = Claimed::of(headers).unwrap();
            claimed.check(secret, (&Method::POST, uri, headers), body, now)
        };
        assert_eq!(check(&uri, &headers, "secret", b"{}", NOW), Ok(()));
        assert_eq!(check(&uri, &headers, "secret", b"{}", NOW + 899), Ok(()));
        assert!(check(&uri, &headers, "secret", b"{}", NOW + 901).unwrap_err().contains("15 min"));
        assert!(check(&uri, &headers, "secret", b"{}", NOW - 901).is_err());
        assert!(check(&uri, &headers, "Secret", b"{}", NOW).is_err());
        assert!(check(&uri, &headers, "secret", b"{ }", NOW).is_err());
        let other: Uri = "/v1/namespaces/a%1Fb/tables?pageSize=3&pageToken=x%2Fy".parse().unwrap();
        assert!(check(&other, &headers, "secret", b"{}", NOW).is_err());
        let change = |name: &'static str, value: &str| {
            let mut headers = headers.clone();
            headers.insert(name, value.parse().unwrap());
            check(&uri, &headers, "secret", b"{}", NOW)
        };
        assert!(change("host", "other").is_err());
        assert!(change("x-amz-date", "20260102T030406Z").is_err());
        assert!(change("x-amz-content-sha256", "abc").unwrap_err().contains("body's"));
        let of = headers.get("authorization").unwrap().to_str().unwrap();
        for (from, to) in
            [("20260102/", "20260103/"), ("host;", ""), ("us-east-1", "eu"), ("/aws4", "/aws5")]
        {
            assert!(change("authorization", &of.replacen(from, to, 1)).is_err(), "{from}");
        }
        assert_eq!(Claimed::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_query_is_signed_in_the_order_of_its_names() {
        assert_eq!(query("b&a-b=1&a=2&a=1&a%20=+"), "a=1&a=2&a%20=%20&a-b=1&b=");
    }

    #[test]
    fn times_are_read() {
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20240229T010203Z"), Some(1_709_168_523));
        for bad in [
            "",
            "20240229",
            "20240229T010203",
            "20240229 010203Z",
            "20241329T010203Z",
            "2024022éT10203Z",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
