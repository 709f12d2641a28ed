//! Signature Version 4, from the side of the client, written from AWS's description of it.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What to sign with.
#[derive(Clone)]
pub struct Signer {
    pub access_key_id: String,
    pub secret: String,
    pub token: Option<String>,
    pub time: SystemTime,
    /// What the header says of the body's digest.
    pub payload: &'static str,
}

const REGION: &str = "us-east-1";
/// The digest of a body that is not signed.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

impl Signer {
    /// The headers that sign a request. `path` and `query` are as they stand in the request line; the
    /// names of the query are in order.
    pub fn headers(
        &self,
        method: &str,
        host: &str,
        path: &str,
        query: &str,
        extra: &[(&str, &str)],
    ) -> Vec<(String, String)> {
        let mut headers: Vec<(String, String)> = vec![
            ("host".into(), host.into()),
            ("x-amz-content-sha256".into(), self.payload.into()),
            ("x-amz-date".into(), self.stamp()),
        ];
        if let Some(token) = &self.token {
            headers.push(("x-amz-security-token".into(), token.clone()));
        }
        headers.extend(extra.iter().map(|&(name, value)| (name.to_lowercase(), value.to_owned())));
        headers.sort();
        let signed = names(&headers);
        let signature = self.signature(method, path, query, &headers);
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={signed}, Signature={signature}",
            self.access_key_id,
            self.scope()
        );
        headers.push(("authorization".into(), authorization));
        headers
    }

    /// The query that signs a GET of `path` for so many seconds.
    pub fn presigned(&self, host: &str, path: &str, seconds: u32) -> String {
        let credential = format!("{}/{}", self.access_key_id, self.scope()).replace('/', "%2F");
        let mut query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={}\
             &X-Amz-Expires={seconds}",
            self.stamp()
        );
        if let Some(token) = &self.token {
            let _ = write!(query, "&X-Amz-Security-Token={token}");
        }
        query.push_str("&X-Amz-SignedHeaders=host");
        let headers = [("host".to_owned(), host.to_owned())];
        let signature = self.signature("GET", path, &query, &headers);
        format!("{query}&X-Amz-Signature={signature}")
    }

    fn signature(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(String, String)],
    ) -> String {
        let lines: String =
            headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let names = names(headers);
        let payload = self.payload;
        let request = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
        let digest = hex(&Sha256::digest(request.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{}\n{}\n{digest}", self.stamp(), self.scope());
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [&self.stamp()[..8], REGION, "s3", "aws4_request", &text] {
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            mac.update(part.as_bytes());
            key = mac.finalize().into_bytes().to_vec();
        }
        hex(&key)
    }

    fn scope(&self) -> String {
        format!("{}/{REGION}/s3/aws4_request", &self.stamp()[..8])
    }

    /// `YYYYMMDDThhmmssZ`.
    fn stamp(&self) -> String {
        let seconds = self.time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (mut days, rest) = (seconds / 86400, seconds % 86400);
        let mut year = 1970;
        let leap = |year: u64| {
            (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
        };
        while days >= 365 + u64::from(leap(year)) {
            days -= 365 + u64::from(leap(year));
            year += 1;
        }
        let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = 0;
        while days >= lengths[month] {
            days -= lengths[month];
            month += 1;
        }
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        format!("{year}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", month + 1, days + 1)
    }
}

fn names(headers: &[(String, String)]) -> String {
    headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
