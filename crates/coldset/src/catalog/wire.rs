//! The JSON that upstream sends, as far as it is looked into.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// `GET /v1/config`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ConfigAnswer {
    #[serde(default)]
    pub defaults: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub overrides: BTreeMap<String, Option<String>>,
    pub endpoints: Option<Vec<String>>,
}

/// One page of `GET …/tables`.
#[derive(Deserialize)]
pub(super) struct TablesAnswer {
    #[serde(rename = "next-page-token")]
    pub next_page_token: Option<String>,
    #[serde(default)]
    pub identifiers: Vec<Identifier>,
}

#[derive(Deserialize)]
pub(super) struct Identifier {
    pub name: String,
}

/// `GET …/tables/{table}`.
#[derive(Deserialize)]
pub(super) struct TableAnswer<'a> {
    #[serde(rename = "metadata-location")]
    pub metadata_location: Option<String>,
    #[serde(borrow)]
    pub metadata: &'a RawValue,
}

/// What is needed of the table metadata.
#[derive(Deserialize)]
pub(super) struct MetadataHead {
    pub location: String,
}

/// `GET …/tables/{table}`, as far as the files' storage goes.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct StorageAnswer {
    pub metadata: MetadataHead,
    pub config: Option<BTreeMap<String, Option<String>>>,
    pub storage_credentials: Option<Vec<StorageCredential>>,
}

/// The settings for all files below a prefix.
#[derive(Deserialize)]
pub(super) struct StorageCredential {
    pub prefix: String,
    #[serde(default)]
    pub config: BTreeMap<String, Option<String>>,
}

/// The catalog's error document.
#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    pub error: ErrorModel,
}

#[derive(Deserialize)]
pub(super) struct ErrorModel {
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

/// RFC 6749, section 5.1.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub access_token: String,
    pub expires_in: Option<u64>,
}

/// RFC 6749, section 5.2.
#[derive(Default, Deserialize)]
pub(super) struct TokenError {
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub error_description: Option<String>,
}
