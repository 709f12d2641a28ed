//! Direct access: the storage settings that the upstream vends with a table, for clients that read its files
//! from the store itself.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use ::http::header::{HeaderName, HeaderValue};
use moka::sync::Cache;

use super::Upstream;
use super::wire::StorageAnswer;
use crate::{ColdS3, ColdsetError};

/// How long vended settings are given out before the upstream is asked for new ones. Theirs are good for
/// a quarter of an hour at least.
const VENDED_LIFE: Duration = Duration::from_secs(60);

const ACCESS_DELEGATION: HeaderName = HeaderName::from_static("x-iceberg-access-delegation");

const ACCESS_KEY: &str = "s3.access-key-id";
const ENDPOINT: &str = "s3.endpoint";
const REGION: &str = "client.region";
const PATH_STYLE: &str = "s3.path-style-access";

/// What a client needs to read files from the store itself. `Debug` hides the settings.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectAccess {
    /// What the URIs of the files begin with.
    pub prefix: String,
    /// Properties of Iceberg's S3 file readers, complete: keys, endpoint, region, path style.
    pub settings: BTreeMap<String, String>,
}

impl fmt::Debug for DirectAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectAccess").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Settings that were vended a moment ago, by table.
pub(super) type Vended = Cache<String, Arc<Vec<DirectAccess>>>;

/// A cache for them.
pub(super) fn vended() -> Vended {
    Cache::builder().max_capacity(10_000).time_to_live(VENDED_LIFE).build()
}

impl Upstream {
    /// The storage settings that the upstream vends with a table, by prefix; empty where it vends no keys.
    ///
    /// # Errors
    /// As [`Upstream::load_table`].
    pub async fn direct_access(&self, table: &str) -> Result<Arc<Vec<DirectAccess>>, ColdsetError> {
        if let Some(vended) = self.0.vended.get(table) {
            return Ok(vended);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_DELEGATION, HeaderValue::from_static("vended-credentials"));
        // The settings are wanted, whatever of the table's history comes with them.
        let answer = self.get(&self.table_path(table), Some("snapshots=refs"), &headers).await?;
        if answer.missing().is_some() {
            return Err(ColdsetError::NoSuchTable(format!("{}.{table}", self.namespace())));
        }
        if !answer.status.is_success() {
            return Err(answer.failure());
        }
        let storage: StorageAnswer = answer.json()?;
        let vended = Arc::new(accesses(storage, &self.0.config.s3));
        self.0.vended.insert(table.to_owned(), Arc::clone(&vended));
        Ok(vended)
    }
}

fn accesses(storage: StorageAnswer, store: &ColdS3) -> Vec<DirectAccess> {
    let StorageAnswer { metadata, config, storage_credentials } = storage;
    let common = settings(config.unwrap_or_default());
    let with_keys = |prefix: String, own: BTreeMap<String, Option<String>>| {
        let mut settings = common.clone();
        // One pair of keys is not to be mixed with another's session.
        if own.contains_key(ACCESS_KEY) {
            settings.retain(|name, _| !name.starts_with("s3.") || !is_key(name));
        }
        settings.extend(self::settings(own));
        settings
            .contains_key(ACCESS_KEY)
            .then(|| DirectAccess { prefix, settings: complete(settings, store) })
    };
    let mut found: Vec<DirectAccess> = storage_credentials
        .unwrap_or_default()
        .into_iter()
        .filter_map(|one| with_keys(one.prefix, one.config))
        .collect();
    if found.is_empty() {
        // The table's files lie anywhere in its bucket.
        let bucket = metadata.location.split_once("://").and_then(|(scheme, rest)| {
            Some(format!("{scheme}://{}/", rest.split('/').next().filter(|b| !b.is_empty())?))
        });
        found.extend(bucket.and_then(|bucket| with_keys(bucket, BTreeMap::new())));
    }
    found
}

fn is_key(name: &str) -> bool {
    matches!(name, ACCESS_KEY | "s3.secret-access-key" | "s3.session-token")
}

/// The settings of file readers among others: not the catalog's own token.
fn settings(all: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    let of_files = |name: &str| name.starts_with("s3.") || name == REGION;
    all.into_iter().filter(|(name, _)| of_files(name)).filter_map(|(n, v)| Some((n, v?))).collect()
}

/// What the upstream leaves to a client's own configuration is said here: a client would take the
/// gateway's, which stands for all that has no prefix of its own.
fn complete(mut settings: BTreeMap<String, String>, store: &ColdS3) -> BTreeMap<String, String> {
    let region =
        settings.get(REGION).or(settings.get("s3.region")).unwrap_or(&store.region).clone();
    if !settings.contains_key(ENDPOINT) {
        let aws = || format!("https://s3.{region}.amazonaws.com");
        settings.insert(ENDPOINT.to_owned(), store.endpoint.clone().unwrap_or_else(aws));
    }
    settings.entry(REGION.to_owned()).or_insert(region);
    settings.entry(PATH_STYLE.to_owned()).or_insert_with(|| store.path_style.to_string());
    settings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(answer: &Value, store: &ColdS3) -> Vec<DirectAccess> {
        accesses(serde_json::from_value(answer.clone()).unwrap(), store)
    }

    #[test]
    fn vended_settings_are_complete_and_hold_no_token_of_the_catalog() {
        let answer = json!({
            "metadata": { "location": "s3://lake/t" },
            "config": { "token": "secret", "client.region": "eu-west-1", "s3.access-key-id": "all",
                        "s3.secret-access-key": "x", "s3.session-token": "old" },
            "storage-credentials": [
                { "prefix": "s3://lake/t", "config": {
                    "s3.access-key-id": "own", "s3.secret-access-key": "y" } },
                { "prefix": "s3://other/", "config": { "s3.endpoint": "http://other" } }],
        });
        let [own, other] = &seen(&answer, &ColdS3::default())[..] else { panic!("not two") };
        let get = |access: &DirectAccess, name: &str| access.settings.get(name).cloned();
        assert_eq!(get(own, ACCESS_KEY).as_deref(), Some("own"));
        assert_eq!(get(own, "s3.session-token"), None);
        assert_eq!(get(own, ENDPOINT).as_deref(), Some("https://s3.eu-west-1.amazonaws.com"));
        assert_eq!(get(own, PATH_STYLE).as_deref(), Some("true"));
        assert_eq!(get(other, ENDPOINT).as_deref(), Some("http://other"));
        assert_eq!(get(other, "s3.session-token").as_deref(), Some("old"));
        assert!([own, other].iter().all(|access| !access.settings.contains_key("token")));
        assert!(!format!("{own:?}").contains("own"));
    }

    #[test]
    fn keys_for_all_stand_for_the_tables_bucket() {
        let answer = json!({
            "metadata": { "location": "s3://lake/warehouse/t" },
            "config": { "s3.access-key-id": "all" },
        });
        let store = ColdS3 { endpoint: Some("http://store:9000".into()), ..ColdS3::default() };
        let [one] = &seen(&answer, &store)[..] else { panic!("not one") };
        assert_eq!(
            (one.prefix.as_str(), one.settings[ENDPOINT].as_str()),
            ("s3://lake/", "http://store:9000")
        );
    }

    #[test]
    fn an_upstream_that_vends_no_keys_leaves_files_to_the_gateway() {
        for config in [json!(null), json!({}), json!({ "s3.endpoint": "http://x" })] {
            let answer = json!({ "metadata": { "location": "s3://lake/t" }, "config": config });
            assert_eq!(seen(&answer, &ColdS3::default()), []);
        }
    }
}
