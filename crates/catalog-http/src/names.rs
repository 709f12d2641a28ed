//! Namespace names in paths and queries.

use isk_virtual_table::ServiceError;

/// What stands between the levels of a namespace (in a URL: `%1F`).
pub(crate) const SEPARATOR: char = '\u{1f}';

/// The one level of a decoded namespace name.
///
/// # Errors
/// [`ServiceError::NoSuchNamespace`] for a name of several levels: there are none such.
pub(crate) fn single_level(decoded: &str) -> Result<&str, ServiceError> {
    if decoded.contains(SEPARATOR) {
        Err(ServiceError::NoSuchNamespace(decoded.replace(SEPARATOR, ".")))
    } else {
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_level_is_a_namespace() {
        assert_eq!(single_level("hotset").unwrap(), "hotset");
        assert_eq!(single_level("a.b").unwrap(), "a.b");
        let error = single_level("hotset\u{1f}inner").unwrap_err();
        assert!(error.to_string().contains("hotset.inner"), "{error}");
    }
}
