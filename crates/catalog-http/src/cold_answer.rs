//! The upstream catalog's answers with the gateway's storage settings in place of its own.

use std::collections::BTreeMap;

use isk_virtual_table::ServiceError;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::settings::VendedS3;
use crate::wire::StorageCredential;

/// What an answer is, as far as storage settings go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `LoadTableResult`: carries the settings always.
    Table,
    /// Anything else: settings are replaced where it has some.
    Other,
}

/// Table properties that may lead a writer to another bucket than the table's location does.
pub(crate) const WRITE_PATHS: [&str; 4] = [
    "write.data.path",
    "write.metadata.path",
    "write.object-storage.path",
    "write.folder-storage.path",
];

/// A JSON object whose values stay as they are written.
type Object<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Deserialize)]
struct Placement {
    location: Option<String>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
struct Credential {
    prefix: String,
}

/// The answer with our settings, or `None` where it is to stay as it is: it holds none, or the table
/// lies in no S3 store and the gateway cannot read it.
///
/// # Errors
/// [`ServiceError::Unavailable`] where a table's answer is not what the specification says.
pub(crate) fn with_our_settings(
    body: &[u8],
    kind: Kind,
    vend: &Vend<'_>,
) -> Result<Option<Vec<u8>>, ServiceError> {
    match kind {
        Kind::Table => table(body, vend),
        Kind::Other => other(body, vend),
    }
}

/// The gateway's settings for what lies under some prefixes.
pub(crate) type Vend<'a> = dyn Fn(&[String]) -> Result<VendedS3, ServiceError> + Sync + 'a;

/// The prefixes of a `LoadTableResult`'s files; none where they lie in no S3 store.
pub(crate) fn table_prefixes(body: &[u8]) -> Result<Vec<String>, ServiceError> {
    let object: Object<'_> = serde_json::from_slice(body).map_err(unreadable)?;
    prefixes_of(&object)
}

fn prefixes_of(object: &Object<'_>) -> Result<Vec<String>, ServiceError> {
    let placement: Placement = match object.get("metadata") {
        Some(metadata) => serde_json::from_str(metadata.get()).map_err(unreadable)?,
        None => return Err(unreadable(serde::de::Error::missing_field("metadata"))),
    };
    Ok(credential_prefixes(&placement))
}

fn unreadable(error: serde_json::Error) -> ServiceError {
    ServiceError::Unavailable {
        what: "the upstream catalog".to_owned(),
        reason: format!("its answer is not as the Iceberg REST specification has it: {error}"),
    }
}

fn table(body: &[u8], vend: &Vend<'_>) -> Result<Option<Vec<u8>>, ServiceError> {
    let mut object: Object<'_> = serde_json::from_slice(body).map_err(unreadable)?;
    let prefixes = prefixes_of(&object)?;
    if prefixes.is_empty() {
        return Ok(None);
    }
    let vended = vend(&prefixes)?;
    let config = to_raw_value(&vended.config()).map_err(unreadable)?;
    let credentials = to_raw_value(&vended.credentials(&prefixes)).map_err(unreadable)?;
    object.insert("config".to_owned(), &config);
    object.insert("storage-credentials".to_owned(), &credentials);
    serde_json::to_vec(&object).map(Some).map_err(unreadable)
}

/// Commits, plans, credentials, views: what they have of settings is replaced.
fn other(body: &[u8], vend: &Vend<'_>) -> Result<Option<Vec<u8>>, ServiceError> {
    // Empty answers and lists hold no settings.
    let Ok(mut object) = serde_json::from_slice::<Object<'_>>(body) else { return Ok(None) };
    let is_table = |object: &Object<'_>| {
        let metadata = object.get("metadata").map(|metadata| metadata.get());
        metadata.is_some_and(|text| text.contains("\"location\""))
    };
    let config = object.get("config").copied();
    let credentials = object.get("storage-credentials").copied();
    if config.is_none() && credentials.is_none() {
        return Ok(None);
    }
    let (new_config, new_credentials);
    if config.is_some() && is_table(&object) {
        // A view's settings, or a table's: either way the upstream's own token and keys stay here.
        let vended = vend(&prefixes_of(&object)?)?;
        new_config = to_raw_value(&vended.config()).map_err(unreadable)?;
        object.insert("config".to_owned(), &new_config);
    }
    if let Some(credentials) = credentials {
        let given: Vec<Credential> = serde_json::from_str(credentials.get()).map_err(unreadable)?;
        let prefixes: Vec<String> = given.into_iter().map(|one| one.prefix).collect();
        let vended = vend(&prefixes)?;
        new_credentials = to_raw_value(&vended.credentials(&prefixes)).map_err(unreadable)?;
        object.insert("storage-credentials".to_owned(), &new_credentials);
    }
    serde_json::to_vec(&object).map(Some).map_err(unreadable)
}

/// The prefixes that the gateway's keys are good for: the table's location, and the whole buckets that
/// it lies in and that writers are sent to. None where the location is in no S3 store.
fn credential_prefixes(placement: &Placement) -> Vec<String> {
    let Some(location) = placement.location.as_deref() else { return Vec::new() };
    let Some(bucket) = bucket_of(location) else { return Vec::new() };
    let mut prefixes = vec![location.trim_end_matches('/').to_owned(), bucket];
    let written = WRITE_PATHS.iter().filter_map(|name| placement.properties.get(*name));
    let folders = written.filter_map(|path| Some((path.trim_end_matches('/'), bucket_of(path)?)));
    for (folder, bucket) in folders {
        for prefix in [folder.to_owned(), bucket] {
            if !prefixes.contains(&prefix) {
                prefixes.push(prefix);
            }
        }
    }
    prefixes
}

/// `s3://bucket/` of `s3://bucket/any/key`, with the scheme as it is.
fn bucket_of(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    if !matches!(scheme, "s3" | "s3a" | "s3n") {
        return None;
    }
    let bucket = rest.split('/').next().filter(|bucket| !bucket.is_empty())?;
    Some(format!("{scheme}://{bucket}/"))
}

impl VendedS3 {
    /// The settings as the `config` of an answer.
    pub(crate) fn config(&self) -> BTreeMap<&'static str, &str> {
        self.properties().collect()
    }

    /// The settings as the `storage-credentials` of an answer.
    pub(crate) fn credentials<'a>(&'a self, prefixes: &'a [String]) -> Vec<StorageCredential<'a>> {
        prefixes.iter().map(|prefix| StorageCredential { prefix, config: self.config() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn vended() -> VendedS3 {
        VendedS3 {
            endpoint: "http://isk:11000".into(),
            region: "us-east-1".into(),
            access_key_id: "id".into(),
            secret_access_key: "secret".into(),
            session_token: "token".into(),
            path_style: true,
            expires_at_ms: String::new(),
            refresh_endpoint: String::new(),
        }
    }

    fn replaced(body: &Value, kind: Kind) -> Option<Value> {
        let body = serde_json::to_vec(body).unwrap();
        let replaced = with_our_settings(&body, kind, &|_| Ok(vended())).unwrap();
        replaced.map(|body| serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn a_table_carries_our_settings_and_none_of_the_upstreams() {
        let body = json!({
            "metadata-location": "s3://lake/t/metadata/1.json",
            "metadata": { "location": "s3://lake/t/", "n": 1.50, "properties": {
                "write.data.path": "s3a://other/data", "write.metadata.path": "s3://lake/elsewhere",
            }},
            "config": { "s3.access-key-id": "theirs", "token": "theirs" },
            "storage-credentials": [{ "prefix": "s3://lake/t", "config": { "k": "theirs" } }],
            "more": { "kept": [1, 2] },
        });
        let seen = replaced(&body, Kind::Table).unwrap();
        assert!(!seen.to_string().contains("theirs"), "{seen}");
        assert_eq!(seen["config"]["s3.endpoint"], "http://isk:11000");
        let prefixes: Vec<_> = seen["storage-credentials"].as_array().unwrap().iter().collect();
        let prefixes: Vec<_> = prefixes.iter().map(|c| c["prefix"].as_str().unwrap()).collect();
        assert_eq!(
            prefixes,
            [
                "s3://lake/t",
                "s3://lake/",
                "s3a://other/data",
                "s3a://other/",
                "s3://lake/elsewhere"
            ]
        );
        assert_eq!(seen["storage-credentials"][1]["config"], seen["config"]);
        for kept in ["metadata", "metadata-location", "more"] {
            assert_eq!(seen[kept], body[kept]);
        }
    }

    #[test]
    fn metadata_is_not_written_anew() {
        let body = br#"{"metadata":{"location":"s3://b/t","big":123456789012345678901234567890}}"#;
        let seen = with_our_settings(body, Kind::Table, &|_| Ok(vended())).unwrap().unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(seen.contains("123456789012345678901234567890"), "{seen}");
    }

    #[test]
    fn a_table_the_gateway_cannot_read_stays_as_it_is() {
        for location in ["file:///tmp/t", "gs://lake/t", "s3://", "t"] {
            let body = json!({ "metadata": { "location": location }, "config": { "a": "b" } });
            assert_eq!(replaced(&body, Kind::Table), None, "{location}");
        }
    }

    #[test]
    fn other_answers_lose_the_upstreams_keys() {
        let credentials = json!({
            "storage-credentials": [{ "prefix": "s3://lake/", "config": { "k": "theirs" } }],
        });
        let seen = replaced(&credentials, Kind::Other).unwrap();
        assert_eq!(seen["storage-credentials"][0]["prefix"], "s3://lake/");
        assert_eq!(seen["storage-credentials"][0]["config"]["s3.access-key-id"], "id");
        let view =
            json!({ "metadata": { "location": "s3://b/v" }, "config": { "token": "theirs" } });
        assert!(!replaced(&view, Kind::Other).unwrap().to_string().contains("theirs"));
        for untouched in [
            json!({ "metadata-location": "x", "metadata": { "location": "s3://b/t" } }),
            json!({ "identifiers": [] }),
            json!([1]),
        ] {
            assert_eq!(replaced(&untouched, Kind::Other), None, "{untouched}");
        }
        assert_eq!(with_our_settings(b"", Kind::Other, &|_| Ok(vended())).unwrap(), None);
    }

    #[test]
    fn an_answer_that_is_no_table_is_named() {
        for body in ["{}", "[", "<html>", r#"{"metadata":7}"#] {
            let error =
                with_our_settings(body.as_bytes(), Kind::Table, &|_| Ok(vended())).unwrap_err();
            assert!(error.to_string().contains("upstream"), "{body}: {error}");
        }
    }
}
