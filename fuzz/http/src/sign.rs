//! AWS's signature, version 4, from the side of the client: written from AWS's description of it, and not from what
//! checks it here.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const REGION: &str = "us-east-1";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// The SHA-256 of a body in hexadecimal digits.
pub fn digest_of(body: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, body).as_ref())
}

/// A text as a part of a path or a query: `slash` says whether that sign stays.
pub fn encode(text: &[u8], slash: bool) -> String {
    let mut out = String::new();
    for &byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if slash => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `20240501T120000Z` of now.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Names and values, of a query or of headers.
pub type Pairs = Vec<(String, String)>;

/// A request as it is signed.
#[derive(Debug, Clone)]
pub struct Canonical<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, encoded; once more, where the service has it so.
    pub path: &'a str,
    /// Its query, encoded.
    pub query: &'a [(String, String)],
    /// The headers that are signed, in small letters, each once.
    pub headers: &'a [(String, String)],
    /// What stands for its body.
    pub payload: &'a str,
}

/// What is signed with.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// The access key id, and the secret.
    pub key: (&'a str, &'a str),
    /// The service that is signed for.
    pub service: &'a str,
    /// When, as [`now`] has it.
    pub time: &'a str,
}

impl Signer<'_> {
    /// The `Authorization` header of a request.
    pub fn authorization(&self, request: &Canonical<'_>) -> String {
        format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
            self.key.0,
            self.scope(),
            names(request.headers),
            self.signature(request)
        )
    }

    /// The query of a request that is signed in it for five minutes.
    pub fn presigned(&self, request: &Canonical<'_>) -> Pairs {
        let mut query = request.query.to_vec();
        let credential = format!("{}/{}", self.key.0, self.scope());
        for (name, value) in [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", self.time),
            ("X-Amz-Expires", "300"),
            ("X-Amz-SignedHeaders", &names(request.headers)),
        ] {
            query.push((name.to_owned(), encode(value.as_bytes(), false)));
        }
        let signature = self.signature(&Canonical { query: &query, ..request.clone() });
        query.push(("X-Amz-Signature".to_owned(), signature));
        query
    }

    fn date(&self) -> &str {
        self.time.get(..8).unwrap_or_default()
    }

    fn scope(&self) -> String {
        format!("{}/{REGION}/{}/aws4_request", self.date(), self.service)
    }

    fn signature(&self, request: &Canonical<'_>) -> String {
        let mut query = request.query.to_vec();
        query.sort();
        let query: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let line = |(name, value): &(String, String)| {
            let words: Vec<&str> = value.split_ascii_whitespace().collect();
            format!("{name}:{}\n", words.join(" "))
        };
        let canonical = format!(
            "{}\n{}\n{}\n{}\n{}\n{}",
            request.method,
            request.path,
            query.join("&"),
            sorted(request.headers).iter().map(line).collect::<String>(),
            names(request.headers),
            request.payload
        );
        let hash = digest_of(canonical.as_bytes());
        let mut secret = format!("AWS4{}", self.key.1).into_bytes();
        for part in [self.date(), REGION, self.service, "aws4_request"] {
            secret = mac(&secret, part);
        }
        hex(&mac(&secret, &format!("{ALGORITHM}\n{}\n{}\n{hash}", self.time, self.scope())))
    }
}

fn sorted(headers: &[(String, String)]) -> Pairs {
    let mut headers = headers.to_vec();
    headers.sort();
    headers
}

fn names(headers: &[(String, String)]) -> String {
    let names: Vec<String> = sorted(headers).into_iter().map(|(name, _)| name).collect();
    names.join(";")
}

/// The headers that sign a request to the gateway of this method, path and query (both encoded), with `host` signed.
pub fn headers(
    method: &str,
    path: &str,
    query: &[(String, String)],
    host: &str,
    key: (&str, &str),
) -> Pairs {
    let (time, payload) = (now(), "UNSIGNED-PAYLOAD");
    let mut headers = vec![
        ("host".to_owned(), host.to_owned()),
        ("x-amz-content-sha256".to_owned(), payload.to_owned()),
        ("x-amz-date".to_owned(), time.clone()),
    ];
    let signer = Signer { key, service: "s3", time: &time };
    let request = Canonical { method, path, query, headers: &headers, payload };
    let authorization = signer.authorization(&request);
    headers.retain(|(name, _)| name != "host");
    headers.push(("authorization".to_owned(), authorization));
    headers
}
