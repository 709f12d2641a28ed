//! A body on its way to the store: as long as was said, with the checksums that were said.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::HeaderMap;
use isk_coldset::{ByteStream, ColdsetError};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, StdError, TrailingHeaders};

use crate::guard::ChunkGuard;

/// The checksums there are, by the header or trailer that says them.
const CHECKSUMS: [&str; 5] = [
    "x-amz-checksum-crc32",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-crc64nvme",
    "x-amz-checksum-sha1",
    "x-amz-checksum-sha256",
];

/// A body with what was said of it.
pub(crate) struct Upload {
    body: Option<StreamingBlob>,
    length: u64,
    taken: u64,
    hasher: Option<ChecksumHasher>,
    md5: Option<Md5>,
    said: HeaderMap,
    trailers: Option<TrailingHeaders>,
    guard: Option<ChunkGuard>,
    outcome: Outcome,
}

/// What became of the body, once the store has read it.
#[derive(Clone, Default)]
pub(crate) struct Outcome(Arc<Mutex<(Option<S3Error>, Option<Checksum>)>>);

impl Outcome {
    /// Why the body failed, if it did.
    pub(crate) fn error(&self) -> Option<S3Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.take()
    }

    /// The checksums that were said and found right.
    pub(crate) fn checksum(&self) -> Checksum {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.take().unwrap_or_default()
    }

    fn failed(&self, error: S3Error) -> ColdsetError {
        let message = error.message().unwrap_or_default().to_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(error);
        ColdsetError::Refused { status: 400, message }
    }
}

impl Upload {
    /// Takes what the request says of its body.
    ///
    /// # Errors
    /// `InvalidDigest` for a `Content-MD5` that is none.
    pub(crate) fn new<T>(
        body: Option<StreamingBlob>,
        length: u64,
        request: &mut S3Request<T>,
    ) -> S3Result<Self> {
        let said = std::mem::take(&mut request.headers);
        let announced = said.get("x-amz-trailer").and_then(|value| value.to_str().ok());
        let announced: Vec<String> =
            announced.into_iter().flat_map(|names| names.split(',')).map(lower).collect();
        let is_said = |name: &str| said.contains_key(name) || announced.iter().any(|a| a == name);
        let hasher = ChecksumHasher {
            crc32: is_said(CHECKSUMS[0]).then(Crc32::new),
            crc32c: is_said(CHECKSUMS[1]).then(Crc32c::new),
            crc64nvme: is_said(CHECKSUMS[2]).then(Crc64Nvme::new),
            sha1: is_said(CHECKSUMS[3]).then(Sha1::new),
            sha256: is_said(CHECKSUMS[4]).then(Sha256::new),
        };
        Ok(Self {
            body,
            length,
            taken: 0,
            hasher: CHECKSUMS.iter().any(|name| is_said(name)).then_some(hasher),
            md5: said.contains_key("content-md5").then(Md5::new),
            trailers: request.trailing_headers.take(),
            guard: request.extensions.get::<ChunkGuard>().cloned(),
            said,
            outcome: Outcome::default(),
        })
    }

    /// The body for the store, and where to look afterwards. The stream ends only when all that was
    /// said of the body holds; else its last item is an error, and the store keeps nothing.
    pub(crate) fn into_stream(self) -> (ByteStream, Outcome) {
        let outcome = self.outcome.clone();
        (Checked(self).boxed(), outcome)
    }

    fn take(&mut self, bytes: &Bytes) -> Result<(), S3Error> {
        if let Some(guard) = &self.guard {
            guard.came_out();
        }
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        if self.taken > self.length {
            let message = format!("the body is longer than the {} bytes it said", self.length);
            return Err(S3Error::with_message(S3ErrorCode::IncompleteBody, message));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        Ok(())
    }

    /// Holds the whole against what was said of it.
    fn check(&mut self) -> Result<(), S3Error> {
        if self.taken < self.length {
            let message = format!("the body ended after {} of {} bytes", self.taken, self.length);
            return Err(S3Error::with_message(S3ErrorCode::IncompleteBody, message));
        }
        if let Some(md5) = self.md5.take() {
            let found = BASE64_STANDARD.encode(md5.finalize());
            same("content-md5", self.said("content-md5").as_deref(), &found)?;
        }
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let checksum = hasher.finalize();
        let found = [
            &checksum.checksum_crc32,
            &checksum.checksum_crc32c,
            &checksum.checksum_crc64nvme,
            &checksum.checksum_sha1,
            &checksum.checksum_sha256,
        ];
        for (name, found) in CHECKSUMS.iter().zip(found) {
            if let Some(found) = found {
                same(name, self.said(name).as_deref(), found)?;
            }
        }
        self.outcome.0.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(checksum);
        Ok(())
    }

    fn said(&self, name: &str) -> Option<String> {
        let text = |headers: &HeaderMap| {
            headers.get(name).and_then(|value| value.to_str().ok()).map(|v| v.trim().to_owned())
        };
        let trailer = || self.trailers.as_ref().and_then(|trailers| trailers.read(text)).flatten();
        text(&self.said).or_else(trailer)
    }
}

fn lower(name: &str) -> String {
    name.trim().to_ascii_lowercase()
}

fn same(name: &str, said: Option<&str>, found: &str) -> Result<(), S3Error> {
    let message = match said {
        Some(said) if said == found => return Ok(()),
        Some(said) => {
            format!("{name} is {found}, and the request says {said}: the body was changed")
        }
        None => format!("the trailer {name} was announced and did not come"),
    };
    Err(S3Error::with_message(S3ErrorCode::BadDigest, message))
}

/// Why the body could not be read: the signature of a piece, or the connection.
fn broken(error: &StdError) -> S3Error {
    let text = error.to_string();
    let code = if text.contains("SignatureMismatch") {
        S3ErrorCode::SignatureDoesNotMatch
    } else if text.contains("Sha256Mismatch") {
        S3ErrorCode::BadDigest
    } else if text.contains("stalled") {
        S3ErrorCode::RequestTimeout
    } else {
        S3ErrorCode::IncompleteBody
    };
    S3Error::with_message(code, format!("the body cannot be read: {text}"))
}

struct Checked(Upload);

impl Stream for Checked {
    type Item = Result<Bytes, ColdsetError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let upload = &mut self.0;
        let next = match upload.body.as_mut() {
            // An object of no bytes may come without a body.
            None if upload.length == 0 => return Poll::Ready(None),
            None => None,
            Some(body) => ready!(body.poll_next_unpin(cx)),
        };
        let checked = match next {
            Some(Ok(bytes)) => upload.take(&bytes).map(|()| Some(bytes)),
            Some(Err(error)) => Err(broken(&error)),
            None => upload.check().map(|()| None),
        };
        if !matches!(checked, Ok(Some(_))) {
            upload.body = None;
            upload.length = 0;
        }
        Poll::Ready(match checked {
            Ok(bytes) => bytes.map(Ok),
            Err(error) => Some(Err(upload.outcome.failed(error))),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::stream;
    use http::{Extensions, HeaderName, HeaderValue, Method, Uri};

    use super::*;

    fn read(
        parts: &[&'static str],
        length: u64,
        headers: &[(&'static str, &str)],
    ) -> Result<(String, Checksum), (String, String)> {
        let headers = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        let mut request = S3Request {
            input: (),
            method: Method::PUT,
            uri: Uri::from_static("/"),
            headers: headers.collect(),
            extensions: Extensions::default(),
            credentials: None,
            region: None,
            service: None,
            trailing_headers: None,
        };
        let parts: Vec<_> = parts
            .iter()
            .map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part.as_bytes())))
            .collect();
        let body = StreamingBlob::wrap(stream::iter(parts));
        let (stream, outcome) =
            Upload::new(Some(body), length, &mut request).unwrap().into_stream();
        let read: Vec<_> = block_on(stream.collect());
        let text: String = read.iter().flatten().map(|b| std::str::from_utf8(b).unwrap()).collect();
        match outcome.error() {
            None => {
                assert!(read.iter().all(Result::is_ok));
                Ok((text, outcome.checksum()))
            }
            Some(error) => {
                assert!(read.last().unwrap().is_err(), "the store is not told");
                Err((error.code().as_str().to_owned(), error.message().unwrap().to_owned()))
            }
        }
    }

    #[test]
    fn a_body_is_as_long_as_it_said_or_fails() {
        assert_eq!(read(&["ab", "c"], 3, &[]).unwrap().0, "abc");
        assert_eq!(read(&[], 0, &[]).unwrap().0, "");
        for (parts, length) in [(&["ab"][..], 3), (&["ab", "cd"], 3), (&[], 1)] {
            assert_eq!(read(parts, length, &[]).unwrap_err().0, "IncompleteBody", "{parts:?}");
        }
    }

    #[test]
    fn checksums_are_held_against_the_bytes() {
        // Of "abc": the test values of the algorithms' own descriptions.
        let crc32 = "NSRBwg==";
        let sha256 = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
        let md5 = "kAFQmDzST7DWlj99KOF/cg==";
        let good = [
            ("x-amz-checksum-crc32", crc32),
            ("x-amz-checksum-sha256", sha256),
            ("content-md5", md5),
        ];
        let (_, checksum) = read(&["a", "bc"], 3, &good).unwrap();
        assert_eq!(checksum.checksum_crc32.as_deref(), Some(crc32));
        for (name, value) in good {
            let (code, message) = read(&["abd"], 3, &[(name, value)]).unwrap_err();
            assert_eq!(code, "BadDigest", "{name}");
            assert!(message.contains(name), "{message}");
        }
        let announced = [("x-amz-trailer", "x-amz-checksum-crc32")];
        assert_eq!(read(&["abc"], 3, &announced).unwrap_err().0, "BadDigest");
    }
}
