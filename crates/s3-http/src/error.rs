//! The one place where a service error gets its S3 code and status.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use isk_coldset::ColdsetError;
use isk_virtual_table::ServiceError;
use s3s::{S3Error, S3ErrorCode};

/// The code of an object that was planned and can no longer be made. No SDK tries a 410 again, which
/// is right: the same key will not come back, the query has to be planned anew.
const GONE: &str = "RecordsExpired";

/// The code of an object of which a record does not decode, where the topic's policy is to fail.
const UNDECODABLE: &str = "RecordDoesNotDecode";

/// Turns a service error into the answer of the S3 protocol.
pub(crate) fn s3_error(error: &ServiceError) -> S3Error {
    let code = match error {
        ServiceError::NoSuchNamespace(_) => S3ErrorCode::NoSuchBucket,
        ServiceError::NoSuchTable { .. } | ServiceError::NoSuchKey { .. } => S3ErrorCode::NoSuchKey,
        ServiceError::Unsupported { .. } => S3ErrorCode::InvalidRequest,
        ServiceError::Gone { .. } => S3ErrorCode::Custom(GONE.into()),
        ServiceError::Undecodable { .. } => S3ErrorCode::Custom(UNDECODABLE.into()),
        ServiceError::Unavailable { .. } => S3ErrorCode::ServiceUnavailable,
        ServiceError::Denied { .. } | ServiceError::Withheld { .. } => S3ErrorCode::AccessDenied,
        ServiceError::Internal(_) => S3ErrorCode::InternalError,
    };
    let mut answer = S3Error::with_message(code, error.to_string());
    match error {
        ServiceError::Gone { .. } => answer.set_status_code(StatusCode::GONE),
        // No SDK tries it again.
        ServiceError::Undecodable { .. } => {
            answer.set_status_code(StatusCode::UNPROCESSABLE_ENTITY);
        }
        _ => {}
    }
    answer
}

/// Turns an error of the coldset's store into the answer of the S3 protocol.
pub(crate) fn cold_error(error: ColdsetError) -> S3Error {
    let message = error.to_string();
    let (code, status) = match error {
        ColdsetError::NoSuchObject { .. } => (S3ErrorCode::NoSuchKey, None),
        // The client is known here; it is this service that the store does not let in.
        ColdsetError::Refused { status: 401 | 403, .. } => (S3ErrorCode::AccessDenied, None),
        ColdsetError::Refused { status: 404, .. } => (S3ErrorCode::NoSuchUpload, None),
        ColdsetError::Refused { status: 408, .. } => (S3ErrorCode::RequestTimeout, None),
        ColdsetError::Refused { status: 412, .. } => (S3ErrorCode::PreconditionFailed, None),
        ColdsetError::Refused { status: 416, .. } => (S3ErrorCode::InvalidRange, None),
        ColdsetError::Refused { status: 501, .. } => (S3ErrorCode::NotImplemented, None),
        ColdsetError::Refused { status, .. } => {
            (S3ErrorCode::InvalidRequest, StatusCode::from_u16(status).ok())
        }
        ColdsetError::Unavailable { .. } => (S3ErrorCode::ServiceUnavailable, None),
        ColdsetError::NoSuchTable(_)
        | ColdsetError::NoSuchNamespace(_)
        | ColdsetError::Unreadable { .. }
        | ColdsetError::Config { .. } => (S3ErrorCode::InternalError, None),
    };
    let mut answer = S3Error::with_message(code, message);
    if let Some(status) = status.filter(StatusCode::is_client_error) {
        answer.set_status_code(status);
    }
    answer
}

/// The answer for a bucket that is none of ours.
pub(crate) fn no_such_bucket(bucket: &str, known: &[String]) -> S3Error {
    let message =
        format!("bucket {bucket:?} does not exist; this gateway has: {}", known.join(", "));
    S3Error::with_message(S3ErrorCode::NoSuchBucket, message)
}

/// The answer where too much of one principal is under way.
pub(crate) fn slow_down() -> S3Error {
    let message = "too many requests of this key's owner are under way; try again";
    let mut answer = S3Error::with_message(S3ErrorCode::SlowDown, message);
    let mut headers = HeaderMap::new();
    // These headers replace the answer's own, so its type is said again.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    answer.set_headers(headers);
    answer
}

/// The answer to a range that lies outside of an object of `size` bytes (RFC 9110, section 15.5.17).
pub(crate) fn range_not_satisfiable(size: u64) -> S3Error {
    let message = format!("the range lies outside of the object's {size} bytes");
    let mut answer = S3Error::with_message(S3ErrorCode::InvalidRange, message);
    let mut headers = HeaderMap::new();
    // These headers replace the answer's own, so its type is said again.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    answer.set_headers(headers);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_store_has_its_code_and_status() {
        let text = || "x".to_owned();
        let refused = |status| ColdsetError::Refused { status, message: text() };
        for (error, code, status) in [
            (ColdsetError::NoSuchObject { uri: text() }, "NoSuchKey", 404),
            (refused(401), "AccessDenied", 403),
            (refused(403), "AccessDenied", 403),
            (refused(404), "NoSuchUpload", 404),
            (refused(409), "InvalidRequest", 409),
            (refused(412), "PreconditionFailed", 412),
            (refused(416), "InvalidRange", 416),
            (refused(501), "NotImplemented", 501),
            (refused(302), "InvalidRequest", 400),
            (ColdsetError::Unavailable { what: text(), reason: text() }, "ServiceUnavailable", 503),
            (ColdsetError::Unreadable { what: text(), reason: text() }, "InternalError", 500),
        ] {
            let answer = cold_error(error);
            assert_eq!(answer.code().as_str(), code);
            assert_eq!(answer.status_code().unwrap().as_u16(), status, "{code}");
        }
    }

    #[test]
    fn every_error_has_its_code_and_status() {
        let text = || "x".to_owned();
        for (error, code, status) in [
            (ServiceError::NoSuchNamespace(text()), "NoSuchBucket", 404),
            (ServiceError::NoSuchTable { namespace: text(), table: text() }, "NoSuchKey", 404),
            (ServiceError::NoSuchKey { key: text(), reason: text() }, "NoSuchKey", 404),
            (ServiceError::Unsupported { what: text(), reason: text() }, "InvalidRequest", 400),
            (ServiceError::Gone { key: text(), reason: text() }, "RecordsExpired", 410),
            (
                ServiceError::Undecodable { topic: text(), partition: 0, offset: 1, cause: text() },
                "RecordDoesNotDecode",
                422,
            ),
            (ServiceError::Unavailable { what: text(), reason: text() }, "ServiceUnavailable", 503),
            (ServiceError::Denied { reason: text() }, "AccessDenied", 403),
            (ServiceError::Withheld { what: text(), reason: text() }, "AccessDenied", 403),
            (ServiceError::Internal(text()), "InternalError", 500),
        ] {
            let answer = s3_error(&error);
            assert_eq!(answer.code().as_str(), code);
            assert_eq!(answer.status_code().unwrap().as_u16(), status, "{code}");
            assert_eq!(answer.message(), Some(error.to_string().as_str()));
        }
    }
}
