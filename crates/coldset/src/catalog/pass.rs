//! Requests passed on as they are.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{self, HeaderName};

use super::Upstream;
use crate::ColdsetError;

/// A longer request body is refused, in bytes: a commit of many files' statistics is less.
const MAX_BODY: usize = 32 << 20;

/// Headers that belong to one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the client says to us alone: who it is, and how it wants to be answered.
const OURS: [HeaderName; 9] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::ACCEPT_ENCODING,
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-content-sha256"),
    HeaderName::from_static("x-amz-security-token"),
];

/// What upstream says to us alone.
const THEIRS: [HeaderName; 3] =
    [header::SET_COOKIE, header::CONTENT_LENGTH, header::WWW_AUTHENTICATE];

impl Upstream {
    /// One request passed on as it is, but for authentication. `path` is what stands behind
    /// `/v1/{prefix}/`, percent-encoded. The answer is upstream's, whatever its status. Only `GET`
    /// and `HEAD` are repeated when upstream is busy.
    ///
    /// # Errors
    /// When the body is too long, when there is no answer, or when it is not a catalog's but a
    /// page of something in between.
    pub async fn pass(
        &self,
        method: http::Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<http::Response<Bytes>, ColdsetError> {
        if body.len() > MAX_BODY {
            return Err(ColdsetError::Refused {
                status: 413,
                message: format!(
                    "{method} {path}: the body is {} bytes long, and at most {MAX_BODY} are \
                     passed on; send smaller requests",
                    body.len()
                ),
            });
        }
        let url = self.url(path, query).await?;
        let answer = self.http().send(&method, &url, &kept(headers, &OURS), &body).await?;
        if !answer.is_json() {
            return Err(if answer.status.is_success() {
                answer.strange("something that is not JSON")
            } else {
                answer.failure()
            });
        }
        let mut response = http::Response::new(answer.body);
        *response.status_mut() = answer.status;
        *response.headers_mut() = kept(&answer.headers, &THEIRS);
        Ok(response)
    }
}

/// The headers that go on: without those of the connection, and without `dropped`.
fn kept(headers: &HeaderMap, dropped: &[HeaderName]) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(dropped).chain(&named) {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_connection_or_secret_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer mine"),
            ("cookie", "a=b"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("host", "isk"),
            ("transfer-encoding", "chunked"),
            ("x-amz-security-token", "t"),
            ("x-iceberg-access-delegation", "vended-credentials"),
            ("if-none-match", "\"e\""),
        ] {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let kept = kept(&headers, &OURS);
        let mut names: Vec<_> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["if-none-match", "x-iceberg-access-delegation"]);
    }
}
