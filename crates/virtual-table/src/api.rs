//! What the HTTP edges see of the service: its answers and its errors.

use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::BoxStream;
use isk_coldset::ColdsetError;

use crate::table_names::names_a_type;

/// The namespace, and the bucket, of live topics.
pub const HOTSET: &str = "hotset";
/// The namespace of the upstream catalog's tables.
pub const COLDSET: &str = "coldset";
/// The namespace of topics and cold tables as one, and the bucket of their hot files.
pub const MERGED: &str = "merged";
/// The namespace of topics' records that do not decode, and the bucket of their files.
pub const ERRORS: &str = "errors";

/// An error of the service, classed by what the caller should do. The text names the thing and the
/// remedy and holds nothing secret: it may be shown to a client.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ServiceError {
    /// There is no such namespace.
    #[error(
        "namespace {0:?} does not exist in this catalog; list its namespaces to see those there are"
    )]
    NoSuchNamespace(String),
    /// There is no such table: no such topic or cold table, or one that the configuration leaves out.
    #[error("table {namespace}.{table} does not exist: {}", absent(namespace, table))]
    NoSuchTable {
        /// The namespace asked in.
        namespace: String,
        /// The table asked for.
        table: String,
    },
    /// There is no such object.
    #[error("no object {key:?}: {reason}")]
    NoSuchKey {
        /// The key as it was asked for.
        key: String,
        /// Why there is none.
        reason: String,
    },
    /// The topic is there but cannot be shown as a table until somebody changes it.
    #[error("{what} cannot be shown as a table: {reason}")]
    Unsupported {
        /// The table or topic.
        what: String,
        /// What stands against it, and the remedy.
        reason: String,
    },
    /// The object was planned, and what Kafka holds now can no longer make it (retention, cleaner,
    /// recreated topic, outgrown size). Planning the query again is the remedy.
    #[error("{key} can no longer be read as it was planned: {reason}; run the query again")]
    Gone {
        /// The object's key.
        key: String,
        /// What happened to its records.
        reason: String,
    },
    /// A record does not decode, and the topic's policy is that reading it fails.
    #[error(
        "a record of topic {topic} does not decode: partition {partition}, offset {offset}: {cause}; \
         table errors.{topic} shows all of them; to read the topic without them, or with nulls in their \
         place, set its policy to skip or keep (configuration section [errors], ISK_ERRORS_SKIP, \
         ISK_ERRORS_KEEP)"
    )]
    Undecodable {
        /// The topic's name.
        topic: String,
        /// The record's Kafka partition.
        partition: i32,
        /// Its offset.
        offset: i64,
        /// The part that failed, and why.
        cause: String,
    },
    /// Kafka, the registry or a local resource did not answer. Trying again may help.
    #[error("{what} is not available: {reason}")]
    Unavailable {
        /// Who did not answer.
        what: String,
        /// What was seen.
        reason: String,
    },
    /// The brokers do not let this service do it: somebody has to grant it. Trying again does not help.
    #[error("Kafka does not allow it: {reason}")]
    Denied {
        /// What was asked, and what it takes.
        reason: String,
    },
    /// The caller may not see all columns of it, and it cannot be shown without those.
    #[error("{what} is not shown to a caller who may not see all of its columns: {reason}")]
    Withheld {
        /// The table or object.
        what: String,
        /// Why it cannot be shown.
        reason: String,
    },
    /// A defect of this service.
    #[error("internal error: {0}")]
    Internal(String),
}

fn absent(namespace: &str, table: &str) -> &'static str {
    match namespace {
        HOTSET if names_a_type(table) => {
            "its topic is not served, or has no type of record of this name; behind a topic's name may stand $flat, \
             $raw, $json, $unmoved, or a type's name where the configuration says that the topic has several \
             (section [formats])"
        }
        COLDSET => "the upstream catalog has no table of this name",
        MERGED => "there is neither a served topic nor a cold table of this name",
        _ => "no topic of this name is served",
    }
}

/// What went wrong with the coldset, as the service's error.
pub(crate) fn cold_error(error: &ColdsetError) -> ServiceError {
    match error {
        ColdsetError::NoSuchTable(table) => {
            ServiceError::NoSuchTable { namespace: COLDSET.into(), table: table.clone() }
        }
        ColdsetError::NoSuchObject { uri } => ServiceError::NoSuchKey {
            key: uri.clone(),
            reason: "the coldset's object store has it no more, or never had it".into(),
        },
        ColdsetError::Unreadable { what, reason } => {
            ServiceError::Unsupported { what: what.clone(), reason: reason.clone() }
        }
        ColdsetError::Unavailable { what, reason } => {
            ServiceError::Unavailable { what: what.clone(), reason: reason.clone() }
        }
        ColdsetError::NoSuchNamespace(_)
        | ColdsetError::Refused { .. }
        | ColdsetError::Config { .. } => {
            ServiceError::Unavailable { what: "the coldset".into(), reason: error.to_string() }
        }
    }
}

/// A table as `loadTable` answers it.
#[derive(Debug, Clone)]
pub struct LoadedTable {
    /// Where the metadata lies: `s3://<bucket>/<topic>/metadata/<name>.metadata.json`.
    pub metadata_location: String,
    /// The table metadata as JSON: byte for byte the object at `metadata_location`.
    pub metadata: Bytes,
    /// The table's location, without a trailing slash.
    pub location: String,
    /// The prefixes of the URIs of all its files: where clients need the gateway's keys.
    pub credential_prefixes: Vec<String>,
}

/// What HEAD says of an object. All of it is a constant of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The length in bytes of a whole GET.
    pub size: u64,
    /// The entity tag, without quotes.
    pub etag: String,
    /// When the object was made; the same at every request.
    pub last_modified: SystemTime,
    /// `application/vnd.apache.parquet`, `application/json` or `application/octet-stream`.
    pub content_type: &'static str,
}

/// The bytes of an object's range, in order. Dropping the stream ends the work behind it.
pub type ObjectStream = BoxStream<'static, Result<Bytes, ServiceError>>;

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The key within the bucket.
    pub key: String,
    /// What HEAD says of it.
    pub info: ObjectInfo,
}

/// One page of a listing, in the order of the keys' bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The objects of this page.
    pub objects: Vec<ListedObject>,
    /// The groups of keys that share what stands up to the delimiter, delimiter included.
    pub common_prefixes: Vec<String>,
    /// Where the next page goes on (to be given as `after`), or `None` at the end.
    pub next: Option<String>,
}
