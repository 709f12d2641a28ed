//! The paths of the catalog's interface.

use http::uri::PathAndQuery;
use reqwest::Url;

use crate::ColdsetError;

/// What separates a namespace's levels in a path: the unit separator, percent-encoded.
const LEVEL: &str = "%1F";

/// One path segment: everything but RFC 3986's unreserved characters is percent-encoded.
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A namespace whose levels are joined by `.`, as a path segment.
pub(super) fn namespace_segment(namespace: &str) -> String {
    namespace.split('.').map(segment).collect::<Vec<_>>().join(LEVEL)
}

/// A path behind the prefix with another separator between the levels of its namespace.
pub(super) fn separated(path: &str, separator: &str) -> String {
    let Some(rest) = path.strip_prefix("namespaces/") else { return path.to_owned() };
    let (namespace, tail) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("namespaces/{}{tail}", levels(namespace, separator))
}

/// A query with another separator between the levels of the namespace `parent`.
pub(super) fn separated_parent(query: &str, separator: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.strip_prefix("parent=") {
        Some(parent) => format!("parent={}", levels(parent, separator)),
        None => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

fn levels(namespace: &str, separator: &str) -> String {
    namespace.replace(LEVEL, separator).replace("%1f", separator)
}

/// The base URI without a trailing `/v1` or slash.
pub(super) fn base(text: &str) -> Result<Url, ColdsetError> {
    let text = text.trim().trim_end_matches('/');
    let text = text.strip_suffix("/v1").unwrap_or(text);
    super::http_url("uri", text)
}

/// `{base}/v1/{path}?{query}`.
pub(super) fn url(
    base: &Url,
    prefix: Option<&str>,
    path: &str,
    query: Option<&str>,
) -> Result<Url, ColdsetError> {
    let bad = |why: &str| ColdsetError::Refused {
        status: 400,
        message: format!("the catalog path {path:?}: {why}"),
    };
    check(path).map_err(bad)?;
    let mut text = format!("{}/v1/", base.as_str().trim_end_matches('/'));
    // A prefix is inserted as upstream gave it: what needs encoding in it is encoded.
    if let Some(prefix) = prefix.map(|p| p.trim_matches('/')).filter(|p| !p.is_empty()) {
        check(prefix).map_err(|why| ColdsetError::config("prefix", why))?;
        text.push_str(prefix);
        text.push('/');
    }
    text.push_str(path);
    let mut url = Url::parse(&text).map_err(|error| bad(&error.to_string()))?;
    url.set_query(query.filter(|q| !q.is_empty()));
    Ok(url)
}

/// A path must stay where it is put: dot segments would climb out of the prefix or a namespace.
fn check(path: &str) -> Result<(), &'static str> {
    if path.starts_with('/') || path.contains(['?', '#', '\\']) {
        return Err("it must not begin with a slash, nor hold ?, # or a backslash");
    }
    if path.chars().any(|c| c.is_ascii_control() || c == ' ') {
        return Err("it is not percent-encoded");
    }
    let dots =
        |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(dots) {
        return Err("a segment must not be . or ..");
    }
    if format!("/{path}").parse::<PathAndQuery>().is_err() {
        return Err("it is no path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_may_end_in_v1_or_slashes() {
        for text in ["http://c:8181", "http://c:8181/", "http://c:8181/v1", "http://c:8181/v1/"] {
            let base = base(text).unwrap();
            let url = url(&base, None, "config", Some("warehouse=w")).unwrap();
            assert_eq!(url.as_str(), "http://c:8181/v1/config?warehouse=w", "{text}");
        }
        let base = base("https://host/api/catalog/v1").unwrap();
        let url = url(&base, Some("/p%2Fq/"), "namespaces", None).unwrap();
        assert_eq!(url.as_str(), "https://host/api/catalog/v1/p%2Fq/namespaces");
    }

    #[test]
    fn what_is_no_catalog_is_refused() {
        for text in ["", "catalog:8181", "ftp://x", "http://user:pw@host/", "s3://b"] {
            let error = base(text).unwrap_err();
            assert!(matches!(&error, ColdsetError::Config { key, .. } if key == "uri"), "{text}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }

    #[test]
    fn names_become_segments() {
        assert_eq!(segment("a b/ü%"), "a%20b%2F%C3%BC%25");
        assert_eq!(namespace_segment("a.b c"), "a%1Fb%20c");
    }

    #[test]
    fn another_separator_takes_the_place_of_the_standard_one() {
        let path = separated("namespaces/a%1Fb%1fc/tables/t%1Fu", "%2E");
        assert_eq!(path, "namespaces/a%2Eb%2Ec/tables/t%1Fu");
        assert_eq!(separated("namespaces/a%1Fb", "."), "namespaces/a.b");
        assert_eq!(separated("tables/rename", "."), "tables/rename");
        let query = separated_parent("pageToken=%1F&parent=a%1Fb", "%2E");
        assert_eq!(query, "pageToken=%1F&parent=a%2Eb");
    }

    #[test]
    fn no_path_climbs_out() {
        let base = base("http://c/").unwrap();
        for path in [
            "../x",
            "a/../../b",
            "a/%2e%2E/b",
            "a/./b",
            "/a",
            "a?b",
            "a#b",
            "a\\..\\b",
            "a b",
            "\n",
        ] {
            let result = url(&base, Some("p"), path, None);
            assert!(matches!(result, Err(ColdsetError::Refused { status: 400, .. })), "{path:?}");
        }
        assert!(url(&base, Some("p/.."), "a", None).is_err());
        assert!(url(&base, Some("p"), "namespaces/a%1Fb/tables/t..x", None).is_ok());
    }
}
