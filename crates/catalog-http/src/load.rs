//! The answer of `loadTable`: metadata, vended settings, entity tag.

use std::collections::BTreeMap;

use http::{HeaderMap, header};
use isk_coldset::DirectAccess;
use isk_virtual_table::{LoadedTable, ServiceError};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::settings::VendedS3;
use crate::wire::{LoadTableResult, StorageCredential};

/// The query parameter `snapshots`: which snapshots the metadata names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snapshots {
    /// All of them.
    All,
    /// Those that a branch or tag points at.
    Refs,
}

/// Who plans scans of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planning {
    /// The client, or whoever it is configured for.
    Unsaid,
    /// This catalog.
    Server,
}

impl Snapshots {
    /// Reads the parameter; `all` where it is absent.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("all") => Ok(Self::All),
            Some("refs") => Ok(Self::Refs),
            Some(other) => Err(ApiError::bad_request(format!(
                "snapshots={other:?} is neither \"all\" nor \"refs\""
            ))),
        }
    }
}

/// The settings that an answer carries.
pub(crate) struct Vending<'a> {
    /// The gateway's: good for all files.
    pub gateway: &'a VendedS3,
    /// The upstream store's own, for clients that know several prefixes.
    pub direct: &'a [DirectAccess],
    /// Who plans scans of the table.
    pub planning: Planning,
}

impl Vending<'_> {
    /// What stands for files under no prefix. A client lays a prefix's settings over it, and the gateway's
    /// session must not get into the store's.
    fn config(&self) -> BTreeMap<&str, &str> {
        let mut config: BTreeMap<&str, &str> = self.gateway.config();
        if !self.direct.is_empty() {
            config.remove("s3.session-token");
        }
        if self.planning == Planning::Server {
            config.insert("scan-planning-mode", "server");
        }
        config
    }

    /// The settings by prefix. Of two that fit, clients take the longer one, so none of ours may lie within
    /// a prefix of the upstream's own.
    fn credentials<'a>(&'a self, prefixes: &'a [String]) -> Vec<StorageCredential<'a>> {
        let mut all = self.gateway.credentials(prefixes);
        all.retain(|ours| {
            self.direct.iter().all(|theirs| !ours.prefix.starts_with(&theirs.prefix))
        });
        all.extend(self.direct.iter().map(|theirs| StorageCredential {
            prefix: &theirs.prefix,
            config: theirs.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        }));
        all
    }
}

/// The entity tag of an answer, quoted: another one whenever anything of the body differs.
///
/// A client that is told 304 goes on with the credentials of its last answer, so they are part of it.
/// The tag of a digest gives nothing of them away to whom the body was not given.
pub(crate) fn entity_tag(
    table: &LoadedTable,
    snapshots: Snapshots,
    vending: &Vending<'_>,
) -> String {
    let snapshots = match snapshots {
        Snapshots::All => "all",
        Snapshots::Refs => "refs",
    };
    let planning = match vending.planning {
        Planning::Unsaid => "",
        Planning::Server => "server",
    };
    let mut parts = vec![table.metadata_location.as_str(), &table.location, snapshots, planning];
    for access in vending.direct {
        parts.push(&access.prefix);
        parts.extend(access.settings.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]));
    }
    tag_of(&parts, vending.gateway)
}

/// The tag of an answer that these parts and the vended settings make.
pub(crate) fn tag_of(parts: &[&str], vended: &VendedS3) -> String {
    let mut digest = Sha256::new();
    let mut add = |part: &str| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    };
    for part in parts {
        add(part);
    }
    for (name, value) in vended.properties() {
        add(name);
        add(value);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

/// Whether `If-None-Match` names the tag (RFC 9110, section 13.1.2: weak comparison).
pub(crate) fn none_match(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == tag)
}

/// The body of the answer.
///
/// # Errors
/// [`ServiceError::Internal`] where the metadata is not the JSON it should be.
pub(crate) fn body(
    table: &LoadedTable,
    snapshots: Snapshots,
    vending: &Vending<'_>,
) -> Result<Vec<u8>, ServiceError> {
    let broken = |error: serde_json::Error| {
        ServiceError::Internal(format!("the metadata at {}: {error}", table.metadata_location))
    };
    let referenced;
    let metadata: &RawValue = match snapshots {
        Snapshots::All => serde_json::from_slice(&table.metadata).map_err(broken)?,
        Snapshots::Refs => {
            let mut metadata = serde_json::from_slice(&table.metadata).map_err(broken)?;
            keep_referenced(&mut metadata);
            referenced = to_raw_value(&metadata).map_err(broken)?;
            &referenced
        }
    };
    serde_json::to_vec(&LoadTableResult {
        metadata_location: &table.metadata_location,
        metadata,
        config: vending.config(),
        storage_credentials: vending.credentials(&table.credential_prefixes),
    })
    .map_err(broken)
}

/// Drops the snapshots that no branch or tag points at.
fn keep_referenced(metadata: &mut Value) {
    let Some(refs) = metadata.get("refs").and_then(Value::as_object) else { return };
    let ids: Vec<i64> =
        refs.values().filter_map(|r| r.get("snapshot-id").and_then(Value::as_i64)).collect();
    if let Some(all) = metadata.get_mut("snapshots").and_then(Value::as_array_mut) {
        let named = |s: &Value| s.get("snapshot-id").and_then(Value::as_i64);
        all.retain(|snapshot| named(snapshot).is_some_and(|id| ids.contains(&id)));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn vended(secret: &str) -> VendedS3 {
        VendedS3 {
            endpoint: "http://localhost:11000".into(),
            region: "us-east-1".into(),
            access_key_id: "id".into(),
            secret_access_key: secret.into(),
            session_token: "token".into(),
            path_style: true,
            expires_at_ms: String::new(),
            refresh_endpoint: String::new(),
        }
    }

    fn table(location: &str) -> LoadedTable {
        let metadata = r#"{"refs":{"main":{"snapshot-id":2}},
            "snapshots":[{"snapshot-id":1},{"snapshot-id":2}]}"#;
        LoadedTable {
            metadata_location: location.into(),
            metadata: metadata.into(),
            location: "s3://hotset/t".into(),
            credential_prefixes: vec!["s3://hotset/t".into(), "s3://lake/".into()],
        }
    }

    #[test]
    fn the_tag_changes_with_all_that_the_body_holds() {
        let tag = |location, snapshots, secret| {
            let gateway = vended(secret);
            let vending = Vending { gateway: &gateway, direct: &[], planning: Planning::Unsaid };
            entity_tag(&table(location), snapshots, &vending)
        };
        let first = tag("a", Snapshots::All, "x");
        assert_eq!(first, tag("a", Snapshots::All, "x"));
        assert_ne!(first, tag("b", Snapshots::All, "x"));
        assert_ne!(first, tag("a", Snapshots::Refs, "x"));
        assert_ne!(first, tag("a", Snapshots::All, "y"));
        let gateway = vended("x");
        let vending = Vending { gateway: &gateway, direct: &[], planning: Planning::Server };
        let planned = entity_tag(&table("a"), Snapshots::All, &vending);
        assert_ne!(first, planned);
    }

    #[test]
    fn refs_leaves_out_what_nothing_points_at() {
        let ids = |snapshots| {
            let vending =
                Vending { gateway: &vended("x"), direct: &[], planning: Planning::Unsaid };
            let body = body(&table("a"), snapshots, &vending).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let all = body["metadata"]["snapshots"].as_array().unwrap().clone();
            all.iter().map(|s| s["snapshot-id"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(ids(Snapshots::All), [1, 2]);
        assert_eq!(ids(Snapshots::Refs), [2]);
    }

    #[test]
    fn the_keys_are_given_for_each_prefix() {
        let vending = Vending { gateway: &vended("x"), direct: &[], planning: Planning::Unsaid };
        let body = body(&table("a"), Snapshots::All, &vending).unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let credentials = body["storage-credentials"].as_array().unwrap();
        let prefixes: Vec<_> = credentials.iter().map(|c| c["prefix"].as_str().unwrap()).collect();
        assert_eq!(prefixes, ["s3://hotset/t", "s3://lake/"]);
        assert!(credentials.iter().all(|c| c["config"] == body["config"]));
    }

    #[test]
    fn the_stores_own_keys_stand_beside_the_gateways() {
        let access = |prefix: &str, key: &str| DirectAccess {
            prefix: prefix.into(),
            settings: [("s3.access-key-id".into(), key.into())].into(),
        };
        let direct = [access("s3://lake/", "all"), access("s3://lake/t", "own")];
        let gateway = vended("x");
        let vending = Vending { gateway: &gateway, direct: &direct, planning: Planning::Unsaid };
        let answer = body(&table("a"), Snapshots::All, &vending).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["config"]["s3.access-key-id"], "id");
        assert_eq!(answer["config"].get("s3.session-token"), None);
        let credentials = answer["storage-credentials"].as_array().unwrap();
        let seen: Vec<_> = credentials
            .iter()
            .map(|c| [&c["prefix"], &c["config"]["s3.access-key-id"]].map(|v| v.as_str().unwrap()))
            .collect();
        assert_eq!(seen, [["s3://hotset/t", "id"], ["s3://lake/", "all"], ["s3://lake/t", "own"]]);
        assert_eq!(credentials[0]["config"]["s3.session-token"], "token");
        let other = Vending { gateway: &gateway, direct: &direct[..1], planning: Planning::Unsaid };
        let tag = |vending| entity_tag(&table("a"), Snapshots::All, vending);
        assert_ne!(tag(&vending), tag(&other));
    }

    #[test]
    fn metadata_that_is_no_json_is_a_named_defect() {
        let mut broken = table("here");
        broken.metadata = "{".into();
        for snapshots in [Snapshots::All, Snapshots::Refs] {
            let vending =
                Vending { gateway: &vended("x"), direct: &[], planning: Planning::Unsaid };
            let error = body(&broken, snapshots, &vending).unwrap_err();
            assert!(error.to_string().contains("here"), "{error}");
        }
    }

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        for (given, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(given));
            assert_eq!(none_match(&headers, "\"a\""), expected, "{given}");
        }
        assert!(!none_match(&HeaderMap::new(), "\"a\""));
    }
}
