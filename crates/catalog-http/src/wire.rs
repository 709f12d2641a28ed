//! The bodies of answers, as the Iceberg REST specification names their fields.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

/// `CatalogConfig`. Both maps are always there: some clients refuse to start without them.
#[derive(Debug, Serialize)]
pub(crate) struct CatalogConfig {
    pub defaults: BTreeMap<&'static str, String>,
    pub overrides: BTreeMap<&'static str, String>,
    pub endpoints: Vec<String>,
}

/// `ListNamespacesResponse`.
#[derive(Debug, Serialize)]
pub(crate) struct Namespaces {
    pub namespaces: Vec<Vec<String>>,
    #[serde(rename = "next-page-token")]
    pub next_page_token: Option<String>,
}

/// `GetNamespaceResponse`.
#[derive(Debug, Serialize)]
pub(crate) struct Namespace {
    pub namespace: Vec<String>,
    pub properties: BTreeMap<&'static str, String>,
}

/// `ListTablesResponse`, for tables and views.
#[derive(Debug, Serialize)]
pub(crate) struct Identifiers {
    pub identifiers: Vec<TableIdentifier>,
    #[serde(rename = "next-page-token")]
    pub next_page_token: Option<String>,
}

/// `TableIdentifier`.
#[derive(Debug, Serialize)]
pub(crate) struct TableIdentifier {
    pub namespace: Vec<String>,
    pub name: String,
}

/// `LoadTableResult`. The metadata is passed through as it lies in its file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct LoadTableResult<'a> {
    pub metadata_location: &'a str,
    pub metadata: &'a RawValue,
    pub config: BTreeMap<&'a str, &'a str>,
    pub storage_credentials: Vec<StorageCredential<'a>>,
}

/// `StorageCredential`: the settings for all objects under a prefix.
#[derive(Debug, Serialize)]
pub(crate) struct StorageCredential<'a> {
    pub prefix: &'a str,
    pub config: BTreeMap<&'a str, &'a str>,
}

/// `LoadCredentialsResponse`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Credentials<'a> {
    pub storage_credentials: Vec<StorageCredential<'a>>,
}

/// `IcebergErrorResponse`.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    pub error: ErrorModel,
}

/// `ErrorModel`.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorModel {
    pub message: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub code: u16,
}
