//! AWS's signature, version 4, so that requests get past the gateway's door.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// A text as a part of a path or a query: `slash` says whether that sign stays.
pub(crate) fn encode(text: &[u8], slash: bool) -> String {
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
fn now() -> String {
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

/// The headers that sign a request of this method, path and query (both encoded), with `host` signed.
pub(crate) fn headers(
    method: &str,
    path: &str,
    query: &[(String, String)],
    host: &str,
    key: (&str, &str),
) -> Vec<(String, String)> {
    let (time, payload) = (now(), "UNSIGNED-PAYLOAD");
    let date = time.get(..8).unwrap_or_default();
    let mut query: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    query.sort_unstable();
    let signed = "host;x-amz-content-sha256;x-amz-date";
    let canonical = format!(
        "{method}\n{path}\n{}\nhost:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{time}\n\n{signed}\n{payload}",
        query.join("&")
    );
    let scope = format!("{date}/us-east-1/s3/aws4_request");
    let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let mut secret = format!("AWS4{}", key.1).into_bytes();
    for part in [date, "us-east-1", "s3", "aws4_request"] {
        secret = mac(&secret, part);
    }
    let signature = hex(&mac(&secret, &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}")));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
        key.0
    );
    vec![
        ("x-amz-date".into(), time),
        ("x-amz-content-sha256".into(), payload.into()),
        ("authorization".into(), authorization),
    ]
}
