//! A schema registry with Confluent's REST interface (Confluent, Apicurio's ccompat, Karapace,
//! Redpanda): schemas by id, and the versions of a subject.
//!
//! Both are single-flighted and cached: a schema for ever, an id the registry does not know for
//! half a minute, a failure for a second, a subject's versions for a second.

mod config;
mod http;
mod resolve;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use isk_model::{RegistrySchemaId, SchemaFormat, SchemaReference, WriterId};
use moka::Expiry;
use moka::future::Cache;

pub use config::{RegistryAuth, RegistryConfig};

use http::Http;

/// Reads bytes as a registry's answers, for the fuzzer alone.
#[doc(hidden)]
pub fn read_any_answer(bytes: &[u8]) {
    resolve::read_any(bytes);
    http::read_any(bytes);
}

/// One registered schema with the schemas it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// The version within the subject; 0 for a schema that was asked for by its id.
    pub version: u32,
    /// The registry's id.
    pub id: RegistrySchemaId,
    /// What kind of schema it is.
    pub format: SchemaFormat,
    /// The schema's text as registered.
    pub text: String,
    /// The schemas referred to, each after those that it refers to itself.
    pub references: Vec<SchemaReference>,
}

/// Why the registry could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The configuration is wrong: fix it.
    #[error("schema registry configuration: {0}")]
    Config(String),
    /// No answer: try again later.
    #[error("the schema registry at {url} cannot be reached: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        reason: String,
    },
    /// An answer that is none: try again; if it stays, look at what serves this URL.
    #[error(
        "{url} answered with status {status} and {content_type:?}: {expected}; it began {excerpt:?}"
    )]
    Answer {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The answer's content type.
        content_type: String,
        /// Its first characters.
        excerpt: String,
        /// What is wrong with it.
        expected: String,
    },
    /// The registry does not let us in: fix the credentials.
    #[error("{url} refused us with status {status}: check the schema registry's credentials")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status, 401 or 403.
        status: u16,
    },
    /// An answer longer than the limit.
    #[error("{url} answered with more than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        url: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The schema is there but of a kind that is not understood. It stays so.
    #[error("{what} is of type {schema_type}; AVRO, JSON and PROTOBUF are understood")]
    UnsupportedType {
        /// The schema's id, or its subject and version.
        what: String,
        /// The registry's `schemaType`.
        schema_type: String,
    },
    /// The schema's references cannot be resolved. It stays so.
    #[error("the references of {what} cannot be resolved: {reason}")]
    References {
        /// The schema's id, or its subject and version.
        what: String,
        /// Why.
        reason: String,
    },
}

impl RegistryError {
    /// Whether the registry answered and will answer the same again: records that need this schema
    /// cannot be decoded. Other errors must fail the read instead.
    pub fn is_deterministic(&self) -> bool {
        matches!(self, Self::UnsupportedType { .. } | Self::References { .. })
    }
}

/// Counters of one [`SchemaRegistry`]. They only grow.
#[derive(Debug, Default)]
pub struct RegistryMetrics {
    /// HTTP requests sent.
    pub requests: AtomicU64,
    /// Requests that failed (not: that found nothing).
    pub errors: AtomicU64,
    /// Ids the registry said it does not know.
    pub unknown_ids: AtomicU64,
}

/// What is kept of an answer.
#[derive(Debug, Clone)]
enum Kept<T> {
    Found(T),
    /// The registry says there is none.
    Missing,
    Failed(RegistryError),
}

/// How long each kind of answer is kept.
#[derive(Clone, Copy)]
struct Ages {
    found: Option<Duration>,
    missing: Duration,
    failed: Duration,
}

impl<K, T> Expiry<K, Kept<T>> for Ages {
    fn expire_after_create(&self, _: &K, value: &Kept<T>, _: Instant) -> Option<Duration> {
        match value {
            Kept::Found(_) => self.found,
            Kept::Missing => Some(self.missing),
            // What stays as it is need not be asked for again soon.
            Kept::Failed(error) if error.is_deterministic() => Some(self.missing),
            Kept::Failed(_) => Some(self.failed),
        }
    }
}

type Versions = Arc<BTreeMap<u32, RegisteredSchema>>;

/// The most subjects that are listed.
const MAX_SUBJECTS: usize = 100_000;

/// A client of a schema registry. Clones share caches and connections.
#[derive(Clone)]
pub struct SchemaRegistry(Arc<Inner>);

struct Inner {
    http: Http,
    by_id: Cache<WriterId, Kept<RegisteredSchema>>,
    /// The answer about a subject's versions, kept briefly.
    histories: Cache<String, Kept<Versions>>,
    /// The names of all subjects, kept as briefly.
    subjects: Cache<(), Kept<Arc<[String]>>>,
    /// The versions already read, kept so that only new ones are.
    known: Cache<String, Versions>,
}

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchemaRegistry")
    }
}

impl SchemaRegistry {
    /// Prepares the client. Needs no network.
    ///
    /// # Errors
    /// [`RegistryError::Config`] for a URL or a certificate that is none.
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let http = Http::new(&config)?;
        let (missing, failed) = (config.negative_ttl, config.failure_ttl);
        let by_id = Cache::builder()
            .max_capacity(config.max_schemas)
            .expire_after(Ages { found: None, missing, failed })
            .build();
        let brief = config.subject_ttl;
        let histories = Cache::builder()
            .max_capacity(config.max_subjects)
            .expire_after(Ages { found: Some(brief), missing: brief, failed })
            .build();
        let subjects = Cache::builder()
            .max_capacity(1)
            .expire_after(Ages { found: Some(brief), missing: brief, failed })
            .build();
        let known = Cache::builder().max_capacity(config.max_subjects).build();
        Ok(Self(Arc::new(Inner { http, by_id, histories, subjects, known })))
    }

    /// The names of all subjects, in order.
    ///
    /// # Errors
    /// As [`Self::schema`]. More than 100,000 are an error too.
    pub async fn subjects(&self) -> Result<Arc<[String]>, RegistryError> {
        let answer = self.0.subjects.get_with((), async {
            match resolve::subjects(&self.0.http, MAX_SUBJECTS).await {
                Ok(names) => Kept::Found(names.into()),
                Err(error) => Kept::Failed(error),
            }
        });
        match answer.await {
            Kept::Found(names) => Ok(names),
            Kept::Missing => Ok(Arc::default()),
            Kept::Failed(error) => Err(error),
        }
    }

    /// Its counters.
    pub fn metrics(&self) -> &RegistryMetrics {
        &self.0.http.metrics
    }

    /// The schema of an id or a GUID, or `None` when the registry says that it does not know it.
    ///
    /// # Errors
    /// See [`RegistryError`]; [`RegistryError::is_deterministic`] tells those that stay from those
    /// that must fail the read.
    pub async fn schema(
        &self,
        id: impl Into<WriterId>,
    ) -> Result<Option<RegisteredSchema>, RegistryError> {
        let id = id.into();
        let answer = self.0.by_id.get_with(id, async {
            match resolve::schema_by_id(&self.0.http, id).await {
                Ok(Some(schema)) => Kept::Found(schema),
                Ok(None) => Kept::Missing,
                Err(error) => Kept::Failed(error),
            }
        });
        match answer.await {
            Kept::Found(schema) => Ok(Some(schema)),
            Kept::Missing => Ok(None),
            Kept::Failed(error) => Err(error),
        }
    }

    /// The schema of an id, asked for anew where the registry did not have it when it was last asked.
    ///
    /// # Errors
    /// As [`Self::schema`].
    pub async fn schema_anew(
        &self,
        id: WriterId,
    ) -> Result<Option<RegisteredSchema>, RegistryError> {
        if matches!(self.0.by_id.get(&id).await, Some(Kept::Missing | Kept::Failed(_))) {
            self.0.by_id.invalidate(&id).await;
        }
        self.schema(id).await
    }

    /// The versions of a subject, oldest first; deleted ones are not among them. Empty when there is
    /// no such subject.
    ///
    /// # Errors
    /// As [`Self::schema`].
    pub async fn subject_history(
        &self,
        subject: &str,
    ) -> Result<Vec<RegisteredSchema>, RegistryError> {
        let answer = self.0.histories.get_with(subject.to_owned(), async {
            let known = self.0.known.get(subject).await.unwrap_or_default();
            match resolve::subject_versions(&self.0.http, subject, &known).await {
                Ok(versions) if versions.is_empty() => {
                    self.0.known.invalidate(subject).await;
                    Kept::Missing
                }
                Ok(versions) => {
                    let versions = Arc::new(versions);
                    self.0.known.insert(subject.to_owned(), Arc::clone(&versions)).await;
                    Kept::Found(versions)
                }
                Err(error) => Kept::Failed(error),
            }
        });
        match answer.await {
            Kept::Found(versions) => Ok(versions.values().cloned().collect()),
            Kept::Missing => Ok(Vec::new()),
            Kept::Failed(error) => Err(error),
        }
    }
}
