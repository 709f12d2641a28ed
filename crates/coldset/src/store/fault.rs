//! One request to the store, and what its failure means to the caller.

use std::future::Future;
use std::time::Duration;

use isk_outbound::chain;
use object_store::Error;

use crate::ColdsetError;

/// What an answer's own text may take in an error, in characters.
const MAX_EXCERPT: usize = 300;

/// What is asked of which object, for errors.
#[derive(Debug, Clone)]
pub(super) struct Request {
    verb: &'static str,
    uri: String,
}

impl Request {
    pub(super) fn new(verb: &'static str, bucket: &str, key: &str) -> Self {
        Self { verb, uri: format!("s3://{bucket}/{key}") }
    }

    /// Runs one request of the library, for `timeout` at most.
    pub(super) async fn within<T>(
        &self,
        timeout: Duration,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, ColdsetError> {
        match tokio::time::timeout(timeout, work).await {
            Err(_) => Err(self.timed_out(timeout)),
            Ok(result) => result.map_err(|error| self.fault(&error)),
        }
    }

    pub(super) fn missing(&self) -> ColdsetError {
        ColdsetError::NoSuchObject { uri: self.uri.clone() }
    }

    pub(super) fn refused(&self, status: u16, why: &str) -> ColdsetError {
        ColdsetError::Refused { status, message: format!("{} {}: {why}", self.verb, self.uri) }
    }

    pub(super) fn unavailable(&self, why: &str) -> ColdsetError {
        ColdsetError::unavailable(format!("{} {}", self.verb, self.uri), why)
    }

    pub(super) fn timed_out(&self, timeout: Duration) -> ColdsetError {
        self.unavailable(&format!(
            "no answer within {} s; check coldset.s3.endpoint, or raise coldset.request-timeout-ms",
            timeout.as_secs_f32()
        ))
    }

    /// What an error of the library means.
    pub(super) fn fault(&self, error: &Error) -> ColdsetError {
        let text = chain(error);
        let status = match error {
            Error::NotFound { .. } => return self.missing(),
            Error::Unauthenticated { .. } => 401,
            Error::PermissionDenied { .. } => 403,
            Error::AlreadyExists { .. } => 409,
            Error::Precondition { .. } => 412,
            Error::InvalidPath { .. } => 400,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => 501,
            _ => status_in(&text).unwrap_or(0),
        };
        let remedy = match status {
            401 | 403 => "; check coldset.s3.access-key-id, its secret and what they may do",
            301 | 307 | 400 => "; check coldset.s3.region and coldset.s3.endpoint",
            _ => "",
        };
        let why = format!("{}{remedy}", excerpt(&text));
        match status {
            400..=499 if !matches!(status, 408 | 429) => self.refused(status, &why),
            501 => self.refused(status, &why),
            _ => self.unavailable(&why),
        }
    }
}

/// The status behind an error: the library keeps it in a type that it does not publish, so it is
/// read from the text.
fn status_in(text: &str) -> Option<u16> {
    if text.contains("Wanted range starting at") {
        return Some(416);
    }
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The store's own words: code and message of an S3 error document where there is one.
fn excerpt(text: &str) -> String {
    let tag = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    let text = match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.to_owned(),
    };
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(MAX_EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn a_status_says_whether_to_try_again() {
        let request = Request::new("GET of", "lake", "a/b");
        let status = |n: u16| {
            let text = format!("Server returned non-2xx status code: {n} Whatever: body");
            request.fault(&generic(&text))
        };
        for refused in [400, 405, 416, 501] {
            let ColdsetError::Refused { status, message } = status(refused) else {
                panic!("{refused} was not refused")
            };
            assert_eq!(status, refused);
            assert!(message.contains("s3://lake/a/b"), "{message}");
        }
        for unavailable in [408, 429, 500, 503] {
            assert!(matches!(status(unavailable), ColdsetError::Unavailable { .. }));
        }
        assert!(matches!(
            request.fault(&generic("connection refused")),
            ColdsetError::Unavailable { .. }
        ));
    }

    #[test]
    fn an_error_document_is_cut_down_to_its_words() {
        let text = "Server returned non-2xx status code: 403 Forbidden: <?xml version=\"1.0\"?>\
                    <Error><Code>AccessDenied</Code><Message>No\n way</Message><HostId>zzz</HostId>\
                    </Error>";
        assert_eq!(excerpt(text), "AccessDenied: No way");
        assert!(excerpt(&"x".repeat(10_000)).len() <= MAX_EXCERPT);
    }
}
