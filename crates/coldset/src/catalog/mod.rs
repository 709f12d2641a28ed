//! The upstream catalog: Iceberg's REST interface, as a client.

mod answer;
mod auth;
mod direct;
mod http;
mod pass;
mod paths;
mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::HeaderMap;
use ::http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use bytes::Bytes;
use moka::sync::Cache;
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Mutex;

use crate::store::ColdStore;
use crate::{ColdsetConfig, ColdsetError};
use answer::Missing;
pub use direct::DirectAccess;
use http::{Answer, Http, bounded, words};
use wire::{ConfigAnswer, MetadataHead, TableAnswer, TablesAnswer};

/// How long the answer of `GET /v1/config` serves.
const CONFIG_LIFE: Duration = Duration::from_secs(300);

/// How long an older one serves when upstream gives no new one.
const STALE_LIFE: Duration = Duration::from_secs(30);

/// Memory for tables as they last were, in bytes.
const TABLE_CACHE_BYTES: u64 = 64 << 20;

/// A namespace with more tables is an error.
const MAX_TABLES: usize = 100_000;

/// A table as the upstream catalog has it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdTable {
    /// Where the metadata file lies.
    pub metadata_location: String,
    /// The table metadata, as JSON, byte by byte as upstream sent it.
    pub metadata: Bytes,
    /// The table's base location.
    pub location: String,
}

/// The upstream catalog: a cheap clone.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    config: ColdsetConfig,
    base: Url,
    namespace_segment: String,
    http: Http,
    store: ColdStore,
    /// Held while it is asked for, so that many requests ask once.
    settings: Mutex<Option<(Instant, Arc<Settings>)>>,
    tables: Cache<String, Remembered>,
    vended: direct::Vended,
}

/// What `GET /v1/config` says, as far as it matters here.
struct Settings {
    prefix: Option<String>,
    /// What stands between a namespace's levels in paths, where it is not the standard's.
    separator: Option<String>,
    endpoints: Option<Vec<String>>,
}

/// A table as it last was.
#[derive(Clone)]
struct Remembered {
    etag: Option<HeaderValue>,
    table: Arc<ColdTable>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Upstream").field(&self.0.config).finish()
    }
}

impl Upstream {
    /// Checks the configuration. No I/O.
    ///
    /// # Errors
    /// [`ColdsetError::Config`] names the key.
    pub fn new(config: &ColdsetConfig) -> Result<Self, ColdsetError> {
        let base = paths::base(&config.uri)?;
        if config.namespace.split('.').any(str::is_empty) {
            return Err(ColdsetError::config(
                "namespace",
                format!("{:?} is no namespace: give names joined by dots", config.namespace),
            ));
        }
        let tables = Cache::builder()
            .max_capacity(TABLE_CACHE_BYTES)
            .weigher(|name: &String, kept: &Remembered| {
                u32::try_from(name.len() + kept.table.metadata.len()).unwrap_or(u32::MAX)
            })
            .build();
        Ok(Self(Arc::new(Inner {
            http: Http::new(config, &base)?,
            store: ColdStore::new(config)?,
            namespace_segment: paths::namespace_segment(&config.namespace),
            config: config.clone(),
            base,
            settings: Mutex::new(None),
            tables,
            vended: direct::vended(),
        })))
    }

    /// The upstream namespace, its levels joined by `.`.
    pub fn namespace(&self) -> &str {
        &self.0.config.namespace
    }

    /// The upstream namespace as a segment of a path for [`Self::pass`].
    pub fn namespace_segment(&self) -> &str {
        &self.0.namespace_segment
    }

    /// Whether tables may be written through us.
    pub fn is_writable(&self) -> bool {
        self.0.config.writable
    }

    /// Whether loaded tables carry the upstream's own storage settings.
    pub fn is_direct(&self) -> bool {
        self.0.config.direct
    }

    /// The object store of the tables.
    pub fn store(&self) -> &ColdStore {
        &self.0.store
    }

    /// The names of all tables in the namespace, sorted. A namespace that does not exist is empty.
    ///
    /// # Errors
    /// As every request to the upstream.
    pub async fn tables(&self) -> Result<Vec<String>, ColdsetError> {
        let path = format!("namespaces/{}/tables", self.0.namespace_segment);
        let mut names = BTreeSet::new();
        let mut tokens = BTreeSet::new();
        let mut token = String::new();
        loop {
            let query: String = form_urlencoded::Serializer::new(String::new())
                .append_pair("pageToken", &token)
                .finish();
            let answer = self.get(&path, Some(&query), &HeaderMap::new()).await?;
            if answer.missing().is_some_and(|missing| missing != Missing::Table) {
                return Ok(Vec::new());
            }
            let page: TablesAnswer = answer.json()?;
            names.extend(page.identifiers.into_iter().map(|identifier| identifier.name));
            if names.len() > MAX_TABLES {
                return Err(answer.strange(&format!("more than {MAX_TABLES} tables")));
            }
            match page.next_page_token.filter(|next| !next.is_empty()) {
                None => return Ok(names.into_iter().collect()),
                // Upstream would lead us round in circles.
                Some(next) if !tokens.insert(next.clone()) => {
                    return Err(answer.strange("a page token that was there before"));
                }
                Some(next) => token = next,
            }
        }
    }

    /// Whether the table exists.
    ///
    /// # Errors
    /// As every request to the upstream.
    pub async fn table_exists(&self, table: &str) -> Result<bool, ColdsetError> {
        let url = self.url(&self.table_path(table), None).await?;
        let none = (HeaderMap::new(), Bytes::new());
        let answer = self.0.http.send(&Method::HEAD, &url, &none.0, &none.1).await?;
        match answer.status.as_u16() {
            200 | 204 => Ok(true),
            404 => Ok(false),
            // Not every catalog has this request.
            400 | 405 | 501 => match self.load_table(table).await {
                Ok(_) => Ok(true),
                Err(ColdsetError::NoSuchTable(_)) => Ok(false),
                Err(error) => Err(error),
            },
            _ => Err(answer.failure()),
        }
    }

    /// The table as it is now: upstream is asked each time. What has not changed is the same `Arc`.
    ///
    /// # Errors
    /// [`ColdsetError::NoSuchTable`] when there is none, or no such namespace.
    pub async fn load_table(&self, table: &str) -> Result<Arc<ColdTable>, ColdsetError> {
        let remembered = self.0.tables.get(table);
        let mut headers = HeaderMap::new();
        if let Some(etag) = remembered.as_ref().and_then(|kept| kept.etag.clone()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let answer = self.get(&self.table_path(table), None, &headers).await?;
        if let (StatusCode::NOT_MODIFIED, Some(kept)) = (answer.status, &remembered) {
            return Ok(kept.table.clone());
        }
        if answer.missing().is_some() {
            self.0.tables.invalidate(table);
            return Err(ColdsetError::NoSuchTable(format!("{}.{table}", self.namespace())));
        }
        let mut fresh = Arc::new(parse_table(&answer)?);
        // What is the same is the same object, whether upstream has ETags or not.
        if let Some(kept) = remembered.filter(|kept| *kept.table == *fresh) {
            fresh = kept.table;
        }
        let etag = answer.headers.get(ETAG).cloned();
        self.0.tables.insert(table.to_owned(), Remembered { etag, table: fresh.clone() });
        Ok(fresh)
    }

    /// The endpoints that the upstream says it serves; `None` where it does not say.
    ///
    /// # Errors
    /// As every request to the upstream.
    pub async fn endpoints(&self) -> Result<Option<Vec<String>>, ColdsetError> {
        Ok(self.settings().await?.endpoints.clone())
    }

    /// Whether the upstream answers and knows us.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ready(&self) -> Result<(), ColdsetError> {
        self.fetch_settings().await.map(|_| ())
    }

    fn http(&self) -> &Http {
        &self.0.http
    }

    fn table_path(&self, table: &str) -> String {
        format!("namespaces/{}/tables/{}", self.0.namespace_segment, paths::segment(table))
    }

    /// The URL of a path behind `/v1/{prefix}/`.
    async fn url(&self, path: &str, query: Option<&str>) -> Result<Url, ColdsetError> {
        let settings = self.settings().await?;
        let (mut path, mut query) = (path.to_owned(), query.map(str::to_owned));
        if let Some(separator) = &settings.separator {
            path = paths::separated(&path, separator);
            query = query.map(|query| paths::separated_parent(&query, separator));
        }
        paths::url(&self.0.base, settings.prefix.as_deref(), &path, query.as_deref())
    }

    async fn get(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Answer, ColdsetError> {
        let url = self.url(path, query).await?;
        self.0.http.send(&Method::GET, &url, headers, &Bytes::new()).await
    }

    async fn settings(&self) -> Result<Arc<Settings>, ColdsetError> {
        let mut kept = self.0.settings.lock().await;
        let now = Instant::now();
        if let Some((_, settings)) = kept.as_ref().filter(|(until, _)| now < *until) {
            return Ok(settings.clone());
        }
        match (self.fetch_settings().await, kept.as_mut()) {
            (Ok(settings), _) => {
                let settings = Arc::new(settings);
                *kept = Some((now + CONFIG_LIFE, settings.clone()));
                Ok(settings)
            }
            (Err(error), Some((until, settings))) => {
                tracing::debug!(%error, "the upstream's configuration could not be asked again");
                *until = now + STALE_LIFE;
                Ok(settings.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn fetch_settings(&self) -> Result<Settings, ColdsetError> {
        let query = self.0.config.warehouse.as_deref().map(|warehouse| {
            form_urlencoded::Serializer::new(String::new())
                .append_pair("warehouse", warehouse)
                .finish()
        });
        let url = paths::url(&self.0.base, None, "config", query.as_deref())?;
        let answer = self.0.http.send(&Method::GET, &url, &HeaderMap::new(), &Bytes::new()).await?;
        let mut said: ConfigAnswer = answer.json()?;
        let mut setting = |name: &str| {
            said.overrides.remove(name).or_else(|| said.defaults.remove(name)).flatten()
        };
        let upstreams = setting("prefix");
        let separator = setting("namespace-separator");
        let prefix = self.0.config.prefix.clone().or(upstreams);
        Ok(Settings { prefix, separator, endpoints: said.endpoints })
    }
}

fn parse_table(answer: &Answer) -> Result<ColdTable, ColdsetError> {
    if answer.status != StatusCode::OK {
        return Err(answer.failure());
    }
    let strange = |error: serde_json::Error| answer.strange(&format!("no table ({error})"));
    let table: TableAnswer<'_> = serde_json::from_slice(&answer.body).map_err(strange)?;
    let metadata = table.metadata.get();
    let head: MetadataHead = serde_json::from_str(metadata).map_err(strange)?;
    let metadata_location = table
        .metadata_location
        .ok_or_else(|| answer.strange("a table without a metadata location"))?;
    Ok(ColdTable {
        metadata_location,
        // Copied, so that what is kept is what the cache weighs.
        metadata: Bytes::copy_from_slice(metadata.as_bytes()),
        location: head.location,
    })
}

/// A URL that HTTP requests may go to.
fn http_url(key: &str, text: &str) -> Result<Url, ColdsetError> {
    let url = Url::parse(text.trim())
        .map_err(|error| ColdsetError::config(key, format!("it is no URL: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(ColdsetError::config(key, "it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ColdsetError::config(
            key,
            "it must not hold credentials; set coldset.token or coldset.credential",
        ));
    }
    Ok(url)
}
