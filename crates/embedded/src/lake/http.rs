//! The catalog's HTTP interface (Iceberg REST catalog specification, v1).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::catalog::{Catalog, Commit, Creation, Loaded};
use super::names::{Namespace, TableName};
use super::refusal::Refusal;

/// The largest request body.
const MAX_BODY: usize = 16 << 20;

/// What is served; clients go by this list.
const ENDPOINTS: [&str; 11] = [
    "GET /v1/{prefix}/namespaces",
    "POST /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/transactions/commit",
];

type Answer<T> = Result<T, Refusal>;

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<Catalog>,
    /// How to reach the object store, given to clients with every table.
    pub(crate) vended: Arc<BTreeMap<&'static str, String>>,
}

/// The routes below `/v1`.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/config", get(config))
        .route("/namespaces", get(namespaces).post(create_namespace))
        .route("/namespaces/{namespace}", get(namespace))
        .route("/namespaces/{namespace}/tables", get(tables).post(create_table))
        .route(
            "/namespaces/{namespace}/tables/{table}",
            get(load_table).head(table_exists).post(commit_table).delete(drop_table),
        )
        .route("/transactions/commit", post(commit_transaction))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_route)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn no_such_route(uri: Uri) -> Refusal {
    Refusal::NoSuchRoute(uri.path().to_owned())
}

async fn config() -> impl IntoResponse {
    Json(json!({ "defaults": {}, "overrides": {}, "endpoints": ENDPOINTS }))
}

#[derive(Debug, Deserialize)]
struct Parent {
    parent: Option<String>,
}

async fn namespaces(
    State(shared): State<Shared>,
    Query(Parent { parent }): Query<Parent>,
) -> Answer<impl IntoResponse> {
    // Some clients send it empty for the top.
    let parent = parent.filter(|parent| !parent.is_empty());
    let parent = parent.as_deref().map(Namespace::parse).transpose().map_err(Refusal::Invalid)?;
    let found = shared.catalog.namespaces(parent.as_ref()).await?;
    let levels: Vec<_> = found.iter().map(Namespace::levels).collect();
    Ok(Json(json!({ "namespaces": levels })))
}

#[derive(Debug, Deserialize)]
struct NewNamespace {
    namespace: Vec<String>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

async fn create_namespace(State(shared): State<Shared>, body: Bytes) -> Answer<Json<Value>> {
    let NewNamespace { namespace, properties } = parse(&body)?;
    let namespace = Namespace::new(namespace).map_err(Refusal::Invalid)?;
    shared.catalog.create_namespace(namespace.clone(), properties.clone()).await?;
    Ok(Json(json!({ "namespace": namespace.levels(), "properties": properties })))
}

async fn namespace(
    State(shared): State<Shared>,
    Path(namespace): Path<String>,
) -> Answer<Json<Value>> {
    let namespace = Namespace::parse(&namespace).map_err(Refusal::Invalid)?;
    let properties = shared.catalog.namespace(&namespace).await?;
    Ok(Json(json!({ "namespace": namespace.levels(), "properties": properties })))
}

async fn tables(
    State(shared): State<Shared>,
    Path(namespace): Path<String>,
) -> Answer<impl IntoResponse> {
    let namespace = Namespace::parse(&namespace).map_err(Refusal::Invalid)?;
    let found = shared.catalog.tables(&namespace).await?;
    let identifier =
        |table: &TableName| json!({ "namespace": namespace.levels(), "name": table.name });
    let identifiers: Vec<_> = found.iter().map(identifier).collect();
    Ok(Json(json!({ "identifiers": identifiers })))
}

async fn create_table(
    State(shared): State<Shared>,
    Path(namespace): Path<String>,
    body: Bytes,
) -> Answer<Response> {
    let creation: Creation = parse(&body)?;
    let name = table_name(&namespace, creation.name.clone())?;
    let loaded = shared.catalog.create(name, creation).await?;
    Ok(shared.load_result(&loaded))
}

async fn load_table(
    State(shared): State<Shared>,
    Path((namespace, table)): Path<(String, String)>,
) -> Answer<Response> {
    let loaded = shared.catalog.load(&table_name(&namespace, table)?).await?;
    Ok(shared.load_result(&loaded))
}

async fn table_exists(
    State(shared): State<Shared>,
    Path((namespace, table)): Path<(String, String)>,
) -> Answer<StatusCode> {
    shared.catalog.load(&table_name(&namespace, table)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn commit_table(
    State(shared): State<Shared>,
    Path((namespace, table)): Path<(String, String)>,
    body: Bytes,
) -> Answer<Response> {
    let commit = parse(&body)?;
    let loaded = shared.catalog.commit(table_name(&namespace, table)?, commit).await?;
    Ok(shared.load_result(&loaded))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Transaction {
    table_changes: Vec<TableChange>,
}

#[derive(Debug, Deserialize)]
struct TableChange {
    identifier: Identifier,
    #[serde(flatten)]
    commit: Commit,
}

#[derive(Debug, Deserialize)]
struct Identifier {
    namespace: Vec<String>,
    name: String,
}

async fn commit_transaction(State(shared): State<Shared>, body: Bytes) -> Answer<StatusCode> {
    let Transaction { table_changes } = parse(&body)?;
    let named = table_changes.into_iter().map(|TableChange { identifier, commit }| {
        let namespace = Namespace::new(identifier.namespace)?;
        Ok((TableName::new(namespace, identifier.name)?, commit))
    });
    let commits = named.collect::<Result<_, String>>().map_err(Refusal::Invalid)?;
    shared.catalog.commit_all(commits).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Drop {
    // Some clients write it with a capital letter.
    #[serde(default)]
    purge_requested: String,
}

async fn drop_table(
    State(shared): State<Shared>,
    Path((namespace, table)): Path<(String, String)>,
    Query(Drop { purge_requested }): Query<Drop>,
) -> Answer<StatusCode> {
    let purge = purge_requested.eq_ignore_ascii_case("true");
    shared.catalog.drop_table(&table_name(&namespace, table)?, purge).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Bodies are read whatever content type they claim, and what is wrong with one is named.
fn parse<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Answer<T> {
    let unreadable = |error| Refusal::Invalid(format!("unreadable body: {error}"));
    serde_json::from_slice(body).map_err(unreadable)
}

fn table_name(namespace: &str, table: String) -> Answer<TableName> {
    let namespace = Namespace::parse(namespace).map_err(Refusal::Invalid)?;
    TableName::new(namespace, table).map_err(Refusal::Invalid)
}

/// `LoadTableResult`, and `CommitTableResponse`, whose fields are among these.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LoadResult<'a> {
    metadata_location: Option<&'a str>,
    metadata: &'a iceberg::spec::TableMetadata,
    config: &'a BTreeMap<&'static str, String>,
    storage_credentials: Value,
}

impl Shared {
    fn load_result(&self, loaded: &Loaded) -> Response {
        let prefix = loaded.metadata.location();
        let result = LoadResult {
            metadata_location: loaded.metadata_location.as_deref(),
            metadata: &loaded.metadata,
            config: &self.vended,
            storage_credentials: json!([{ "prefix": prefix, "config": &*self.vended }]),
        };
        Json(result).into_response()
    }
}
