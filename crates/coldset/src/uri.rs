//! The URIs under which cold metadata names its files.

use std::fmt;
use std::str::FromStr;

use crate::ColdsetError;

/// An object's bucket and key, from an `s3://`, `s3a://` or `s3n://` URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectUri {
    /// The bucket.
    pub bucket: String,
    /// The key, raw: what stands behind the bucket's slash is not percent-encoded.
    pub key: String,
}

impl FromStr for ObjectUri {
    type Err = ColdsetError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = uri.split_once("://").unwrap_or_default();
        if !["s3", "s3a", "s3n"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(ColdsetError::unreadable(
                format!("the object {uri:?}"),
                "only s3://, s3a:// and s3n:// URIs can be read; move the table to an S3 store",
            ));
        }
        match rest.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
            }
            _ => Err(ColdsetError::unreadable(
                format!("the object {uri:?}"),
                "a URI of an object looks like s3://bucket/key",
            )),
        }
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_s3_scheme_names_the_same_object() {
        for uri in [
            "s3://lake/a/b=1/c%3A.parquet",
            "s3a://lake/a/b=1/c%3A.parquet",
            "S3N://lake/a/b=1/c%3A.parquet",
        ] {
            let parsed: ObjectUri = uri.parse().unwrap();
            assert_eq!(
                (parsed.bucket.as_str(), parsed.key.as_str()),
                ("lake", "a/b=1/c%3A.parquet")
            );
            assert_eq!(parsed.to_string(), "s3://lake/a/b=1/c%3A.parquet");
        }
    }

    #[test]
    fn what_is_no_s3_object_is_refused_by_name() {
        for uri in [
            "",
            "lake/a",
            "s3://",
            "s3://lake",
            "s3://lake/",
            "s3:///a",
            "gs://lake/a",
            "file:///tmp/a",
            "://a/b",
        ] {
            let error = uri.parse::<ObjectUri>().unwrap_err().to_string();
            assert!(error.contains(&format!("{uri:?}")), "{error}");
        }
    }
}
