//! Names of the upstream catalog in place of ours, and which of its paths may be asked for.

use std::collections::BTreeMap;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::cold::COLDSET;
use crate::error::ApiError;

/// The levels of an upstream namespace, as the configuration writes it.
pub(crate) fn upstream_levels(namespace: &str) -> Vec<&str> {
    namespace.split('.').collect()
}

/// The path of a namespace, behind `/v1/{prefix}/`.
pub(crate) fn namespace_path(levels: &[&str]) -> String {
    format!("namespaces/{}", encoded(&levels.join("\u{1f}")))
}

/// The path of a table.
pub(crate) fn table_path(levels: &[&str], table: &str) -> String {
    format!("{}/tables/{}", namespace_path(levels), encoded(table))
}

/// Percent-encoded as one segment of a path.
fn encoded(segment: &str) -> String {
    segment.bytes().fold(String::with_capacity(segment.len()), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// A path below the upstream's prefix, as a client sent it, when it may be passed on.
///
/// What is behind the prefix belongs to the catalog's tables, views and namespaces; a path that leads
/// elsewhere (its configuration, its tokens) is none of the client's business: those requests would be
/// answered with this service's rights.
pub(crate) fn checked_path(raw: &str) -> Option<&str> {
    let first = raw.split('/').next()?;
    let known = matches!(first, "namespaces" | "tables" | "views" | "transactions");
    // URL parsers take the encoded dot for a dot, and the backslash for a slash.
    let is_dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    let sound = !raw.contains(['\\', '#', '?']) && !raw.split('/').any(is_dots);
    (known && sound).then_some(raw)
}

/// Whether a request below the upstream's prefix changes nothing there. `path` is a checked one.
pub(crate) fn is_read(method: &Method, path: &str) -> bool {
    if matches!(*method, Method::GET | Method::HEAD) {
        return true;
    }
    let segments: Vec<&str> = path.split('/').collect();
    match segments[..] {
        // A scan that the upstream plans, and the report of one. (`sign` is not here: it signs writes.)
        ["namespaces", _, "tables", _, "plan" | "tasks" | "metrics"] => *method == Method::POST,
        ["namespaces", _, "tables", _, "plan", _] => *method == Method::DELETE,
        _ => false,
    }
}

/// Whether the answer to a request below the upstream's prefix is a `LoadTableResult`.
pub(crate) fn answers_table(method: &Method, path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').collect();
    match segments[..] {
        ["namespaces", _, "tables" | "register"] => *method == Method::POST,
        ["namespaces", _, "tables", _] => *method == Method::GET,
        _ => false,
    }
}

#[derive(Serialize, Deserialize)]
struct Identifier<'a> {
    #[serde(borrow)]
    namespace: Vec<std::borrow::Cow<'a, str>>,
    name: std::borrow::Cow<'a, str>,
}

/// A JSON object whose values stay as they are written.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// `CommitTableRequest`, with the upstream's namespace in its identifier, if it has one.
pub(crate) fn commit_body(body: &[u8], levels: &[&str]) -> Result<Vec<u8>, ApiError> {
    let mut object: Object<'_> = parsed(body)?;
    let Some(identifier) = object.get("identifier").copied() else { return Ok(body.to_vec()) };
    if identifier.get() == "null" {
        return Ok(body.to_vec());
    }
    let renamed = renamed(identifier, levels)?;
    object.insert("identifier".to_owned(), &renamed);
    written(&object)
}

/// `RenameTableRequest`: both tables in `coldset`.
pub(crate) fn rename_body(body: &[u8], levels: &[&str]) -> Result<Vec<u8>, ApiError> {
    let mut object: Object<'_> = parsed(body)?;
    let field = |name: &str| {
        let field = object.get(name).copied();
        field.ok_or_else(|| ApiError::bad_request(format!("the request names no {name}")))
    };
    let (source, destination) =
        (renamed(field("source")?, levels)?, renamed(field("destination")?, levels)?);
    object.insert("source".to_owned(), &source);
    object.insert("destination".to_owned(), &destination);
    written(&object)
}

/// `CommitTransactionRequest`: all tables in `coldset`.
pub(crate) fn transaction_body(body: &[u8], levels: &[&str]) -> Result<Vec<u8>, ApiError> {
    const CHANGES: &str = "table-changes";
    let mut object: Object<'_> = parsed(body)?;
    let changes = object.get(CHANGES).copied();
    let changes =
        changes.ok_or_else(|| ApiError::bad_request("the request has no table-changes"))?;
    let changes: Vec<&RawValue> = parsed(changes.get().as_bytes())?;
    let mut passed = Vec::with_capacity(changes.len());
    for change in changes {
        let body = commit_body(change.get().as_bytes(), levels)?;
        let body = String::from_utf8(body).map_err(|e| ApiError::bad_request(e.to_string()))?;
        passed.push(RawValue::from_string(body).map_err(|e| unreadable(&e))?);
    }
    let passed = to_raw_value(&passed).map_err(|e| unreadable(&e))?;
    object.insert(CHANGES.to_owned(), &passed);
    written(&object)
}

/// The namespace that a `CreateNamespaceRequest` names.
pub(crate) fn created_namespace(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Create {
        namespace: Vec<String>,
    }
    serde_json::from_slice::<Create>(body).ok().map(|create| create.namespace)
}

/// The body of a request that makes the upstream's namespace.
pub(crate) fn create_namespace_body(levels: &[&str]) -> Vec<u8> {
    serde_json::json!({ "namespace": levels, "properties": {} }).to_string().into_bytes()
}

fn renamed(identifier: &RawValue, levels: &[&str]) -> Result<Box<RawValue>, ApiError> {
    let mut identifier: Identifier<'_> = parsed(identifier.get().as_bytes())?;
    if identifier.namespace != [COLDSET] {
        return Err(ApiError::not_in_coldset(&identifier.namespace.join("."), &identifier.name));
    }
    identifier.namespace = levels.iter().map(|&level| level.into()).collect();
    to_raw_value(&identifier).map_err(|e| unreadable(&e))
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|e| unreadable(&e))
}

fn written(object: &Object<'_>) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(object).map_err(|e| unreadable(&e))
}

fn unreadable(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request(format!("the request's body cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn names_become_the_upstreams() {
        let levels = upstream_levels("lake.cold");
        assert_eq!(namespace_path(&levels), "namespaces/lake%1Fcold");
        assert_eq!(table_path(&["cold"], "a/b ü.c"), "namespaces/cold/tables/a%2Fb%20%C3%BC.c");
        assert_eq!(table_path(&["cold"], "%1F"), "namespaces/cold/tables/%251F");
    }

    #[test]
    fn only_the_catalogs_own_paths_pass() {
        for path in
            ["namespaces", "namespaces/a%1Fb/tables/c.d..e", "tables/rename", "views/rename"]
        {
            assert_eq!(checked_path(path), Some(path));
        }
        for path in [
            "",
            "config",
            "oauth/tokens",
            "../config",
            "namespaces/../config",
            "namespaces/%2e%2E/config",
            "namespaces/.%2e/x",
            "namespaces/./x",
            "namespaces\\..\\config",
            "/namespaces",
        ] {
            assert_eq!(checked_path(path), None, "{path}");
        }
    }

    #[test]
    fn reads_are_told_from_writes() {
        let table = "namespaces/a/tables/t";
        for (method, path, read, is_table) in [
            ("GET", "namespaces", true, false),
            ("GET", table, true, true),
            ("HEAD", table, true, false),
            ("POST", "namespaces/a/tables/t/plan", true, false),
            ("POST", "namespaces/a/tables/t/tasks", true, false),
            ("POST", "namespaces/a/tables/t/metrics", true, false),
            ("DELETE", "namespaces/a/tables/t/plan/7", true, false),
            ("POST", "namespaces/a/tables/t/sign", false, false),
            ("POST", table, false, false),
            ("DELETE", table, false, false),
            ("POST", "namespaces/a/tables", false, true),
            ("POST", "namespaces/a/register", false, true),
            ("POST", "namespaces", false, false),
            ("POST", "namespaces/a/views/plan", false, false),
            ("POST", "transactions/commit", false, false),
        ] {
            let method: Method = method.parse().unwrap();
            assert_eq!(is_read(&method, path), read, "{method} {path}");
            assert_eq!(answers_table(&method, path), is_table, "{method} {path}");
        }
    }

    fn value(body: Result<Vec<u8>, ApiError>) -> Value {
        serde_json::from_slice(&body.unwrap()).unwrap()
    }

    #[test]
    fn identifiers_in_bodies_are_renamed() {
        let levels = ["lake", "cold"];
        let ours = json!({ "namespace": ["coldset"], "name": "t\"1" });
        let theirs = json!({ "namespace": ["lake", "cold"], "name": "t\"1" });
        let commit = json!({ "identifier": ours, "updates": [{ "n": 1 }], "requirements": [] });
        let commit = value(commit_body(commit.to_string().as_bytes(), &levels));
        assert_eq!(commit["identifier"], theirs);
        assert_eq!(commit["updates"], json!([{ "n": 1 }]));
        let plain = br#"{"identifier":null,"updates":[]}"#;
        assert_eq!(commit_body(plain, &levels).unwrap(), plain);
        let rename = json!({ "source": ours, "destination": ours });
        let rename = value(rename_body(rename.to_string().as_bytes(), &levels));
        assert_eq!(rename, json!({ "source": theirs, "destination": theirs }));
        let all = json!({ "table-changes": [{ "identifier": ours, "updates": [] }] });
        let all = value(transaction_body(all.to_string().as_bytes(), &levels));
        assert_eq!(all["table-changes"][0]["identifier"], theirs);
    }

    #[test]
    fn other_namespaces_and_broken_bodies_are_refused() {
        let other = json!({ "namespace": ["hotset"], "name": "t" });
        let ours = json!({ "namespace": ["coldset"], "name": "t" });
        let rename = json!({ "source": ours, "destination": other }).to_string();
        assert!(rename_body(rename.as_bytes(), &["c"]).is_err());
        let commit = json!({ "identifier": other }).to_string();
        assert!(commit_body(commit.as_bytes(), &["c"]).is_err());
        for broken in ["", "[]", "{\"source\":1}"] {
            assert!(rename_body(broken.as_bytes(), &["c"]).is_err(), "{broken}");
            assert!(transaction_body(broken.as_bytes(), &["c"]).is_err(), "{broken}");
        }
    }
}
