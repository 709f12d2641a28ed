//! One function for each operation of the catalog.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use isk_access::Access;
use isk_coldset::{ColdsetError, DirectAccess};
use isk_model::Histogram;
use isk_virtual_table::{ERRORS, HOTSET, MERGED, ServiceError};
use serde::Deserialize;

use crate::OPENAPI;
use crate::cold::{COLDSET, Cold};
use crate::coldset::{self, ColdWrite};
use crate::error::ApiError;
use crate::guard::By;
use crate::load::{self, Planning, Snapshots, Vending};
use crate::names::{SEPARATOR, single_level};
use crate::paging::{PageRequest, page};
use crate::plan::Plans;
use crate::service::CatalogService;
use crate::settings::CatalogSettings;
use crate::wire::{Credentials, Identifiers, Namespace, Namespaces, TableIdentifier};

/// What every handler has.
pub(crate) struct App<S> {
    pub service: Arc<S>,
    pub settings: Arc<CatalogSettings>,
    /// The upstream catalog, where one is configured.
    pub cold: Option<Arc<Cold>>,
    /// The scans that were planned lately.
    pub plans: Plans,
    /// Who may in, and who may what.
    pub access: Access,
    /// How long requests take, by route.
    pub routes: Arc<[(String, Arc<Histogram>)]>,
}

impl<S> Clone for App<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            settings: Arc::clone(&self.settings),
            cold: self.cold.clone(),
            plans: self.plans.clone(),
            access: self.access.clone(),
            routes: Arc::clone(&self.routes),
        }
    }
}

impl<S> App<S> {
    /// The upstream catalog, where it is what a namespace shows.
    fn cold_behind(&self, namespace: &str) -> Option<&Cold> {
        self.cold.as_deref().filter(|_| namespace == COLDSET)
    }
}

pub(crate) type Answer = Result<Response, ApiError>;
type Named<T> = Result<Path<T>, PathRejection>;
type Asked<T> = Result<Query<T>, QueryRejection>;

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad_request(rejection.body_text())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListQuery {
    parent: Option<String>,
    page_token: Option<String>,
    page_size: Option<String>,
}

impl ListQuery {
    fn page(&self) -> PageRequest<'_> {
        PageRequest { token: self.page_token.as_deref(), size: self.page_size.as_deref() }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct LoadQuery {
    snapshots: Option<String>,
}

/// `GET /v1/namespaces`: what lies under `parent`, or the top level.
pub(crate) async fn list_namespaces<S: CatalogService>(
    State(app): State<App<S>>,
    query: Asked<ListQuery>,
) -> Answer {
    let Query(query) = query?;
    let names = match query.parent.as_deref() {
        None | Some("") => app.service.namespaces(),
        // All namespaces are leaves: a client that walks down finds an empty list, not an error.
        Some(parent) => {
            known_namespace(&app, parent)?;
            Vec::new()
        }
    };
    let (names, next_page_token) = page(names, &query.page(), &app.settings)?;
    let namespaces = names.into_iter().map(|name| vec![name]).collect();
    Ok(Json(Namespaces { namespaces, next_page_token }).into_response())
}

/// `GET /v1/namespaces/{namespace}`.
pub(crate) async fn load_namespace<S: CatalogService>(
    State(app): State<App<S>>,
    name: Named<String>,
) -> Answer {
    let Path(name) = name?;
    let name = known_namespace(&app, &name)?;
    let properties = match app.cold_behind(name) {
        Some(cold) => {
            let namespace = cold.upstream.namespace();
            let comment = format!("The tables of namespace {namespace} of the upstream catalog");
            [("comment", comment)].into()
        }
        None => {
            let comment = match name {
                ERRORS => "The records of Kafka topics that do not decode; read-only",
                MERGED => "Kafka topics and their tables in coldset as one; read-only",
                _ => "Kafka topics as they are now; read-only",
            };
            [("comment", comment.to_owned()), ("location", format!("s3://{name}"))].into()
        }
    };
    Ok(Json(Namespace { namespace: vec![name.to_owned()], properties }).into_response())
}

/// `HEAD /v1/namespaces/{namespace}`.
pub(crate) async fn namespace_exists<S: CatalogService>(
    State(app): State<App<S>>,
    name: Named<String>,
) -> Answer {
    let Path(name) = name?;
    known_namespace(&app, &name)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/namespaces/{namespace}/tables`.
pub(crate) async fn list_tables<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    name: Named<String>,
    query: Asked<ListQuery>,
) -> Answer {
    let (Path(name), Query(query)) = (name?, query?);
    let namespace = single_level(&name)?;
    let names = match app.cold_behind(namespace) {
        Some(cold) => coldset::tables(cold).await?,
        None => app.service.tables(namespace).await?,
    };
    let names = app.visible(&caller, namespace, names).await?;
    identifiers(namespace, names, &query, &app.settings)
}

/// `GET /v1/namespaces/{namespace}/views`: none, for clients that ask without looking at the endpoints.
pub(crate) async fn list_views<S: CatalogService>(
    State(app): State<App<S>>,
    name: Named<String>,
    query: Asked<ListQuery>,
) -> Answer {
    let (Path(name), Query(query)) = (name?, query?);
    let namespace = known_namespace(&app, &name)?;
    identifiers(namespace, Vec::new(), &query, &app.settings)
}

/// `GET` and `HEAD /v1/namespaces/{namespace}/views/{view}`.
pub(crate) async fn no_view<S: CatalogService>(
    State(app): State<App<S>>,
    names: Named<(String, String)>,
) -> Answer {
    let Path((namespace, view)) = names?;
    Err(ApiError::no_such_view(known_namespace(&app, &namespace)?, &view))
}

/// `GET /v1/namespaces/{namespace}/tables/{table}`.
///
/// The gateway's credentials are vended to whoever may load the table, whether or not
/// `X-Iceberg-Access-Delegation` asks for them: Iceberg Java sends that header only when configured
/// to, and would otherwise need a second set of keys for the same service.
pub(crate) async fn load_table<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    names: Named<(String, String)>,
    query: Asked<LoadQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let (Path((namespace, table)), Query(query)) = (names?, query?);
    if let Some(cold) = app.cold_behind(&namespace) {
        return coldset::load(&app, cold, &caller, &table, uri.query(), &headers).await;
    }
    let snapshots = Snapshots::parse(query.snapshots.as_deref())?;
    let namespace = single_level(&namespace).map_err(|_| no_such_table(&namespace, &table))?;
    let columns = app.columns(&caller, namespace, &table).await?;
    let loaded = app.service.load_table(namespace, &table, columns.as_ref()).await?;
    let direct = direct_access(&app, namespace, &table).await?;
    // Tables of the hotset and of errors are planned here.
    let planned = [HOTSET, ERRORS].contains(&namespace);
    let planning = match app.settings.server_planning && planned {
        true => Planning::Server,
        false => Planning::Unsaid,
    };
    let parts = app.parts(namespace, &table).await?;
    let vend = app.vend(&caller, parts).refreshed_at(namespace, &table);
    let gateway = vend.settings(&loaded.credential_prefixes)?;
    let vending = Vending { gateway: &gateway, direct: &direct, planning };
    let tag = load::entity_tag(&loaded, snapshots, &vending);
    let tag_header = HeaderValue::from_str(&tag)
        .map_err(|e| ServiceError::Internal(format!("entity tag: {e}")))?;
    if load::none_match(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag_header)]).into_response());
    }
    let body = load::body(&loaded, snapshots, &vending)?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        // The body holds credentials.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::ETAG, tag_header),
    ];
    Ok((headers, body).into_response())
}

/// `GET …/tables/{table}/credentials`: new keys for who has a table loaded already.
pub(crate) async fn load_credentials<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    names: Named<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let Path((namespace, table)) = names?;
    let gateway = match app.cold_behind(&namespace) {
        Some(cold) => coldset::credentials(&app, cold, &caller, &table, &headers).await?,
        None => {
            let single = single_level(&namespace).map_err(|_| no_such_table(&namespace, &table))?;
            let columns = app.columns(&caller, single, &table).await?;
            let loaded = app.service.load_table(single, &table, columns.as_ref()).await?;
            let parts = app.parts(single, &table).await?;
            let vend = app.vend(&caller, parts).refreshed_at(single, &table);
            vend.settings(&loaded.credential_prefixes)?
        }
    };
    // Iceberg for Java takes exactly one. What the keys open is theirs to say, not the prefix's.
    let prefixes = ["s3://".to_owned()];
    let body = Credentials { storage_credentials: gateway.credentials(&prefixes) };
    // The body holds credentials.
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((no_store, Json(body)).into_response())
}

/// Of a namespace of several levels: Iceberg Java takes it for the metadata table (`files`, `snapshots`) of the
/// last level, but only when told that there is no such table.
fn no_such_table(namespace: &str, table: &str) -> ServiceError {
    ServiceError::NoSuchTable {
        namespace: namespace.replace(SEPARATOR, "."),
        table: table.to_owned(),
    }
}

/// Where clients may read the cold files of a merged table from the store itself.
async fn direct_access<S: CatalogService>(
    app: &App<S>,
    namespace: &str,
    table: &str,
) -> Result<Arc<Vec<DirectAccess>>, ApiError> {
    let cold = app.cold.as_deref().filter(|_| namespace == MERGED);
    let Some(cold) = cold.filter(|cold| cold.upstream.is_direct()) else {
        return Ok(Arc::default());
    };
    match cold.upstream.direct_access(table).await {
        // A topic alone.
        Err(ColdsetError::NoSuchTable(_)) => Ok(Arc::default()),
        vended => Ok(vended?),
    }
}

/// `HEAD /v1/namespaces/{namespace}/tables/{table}`.
pub(crate) async fn table_exists<S: CatalogService>(
    State(app): State<App<S>>,
    names: Named<(String, String)>,
) -> Answer {
    let Path((namespace, table)) = names?;
    match app.cold_behind(&namespace) {
        Some(cold) => coldset::table_exists(cold, &table).await?,
        None => {
            let single = single_level(&namespace).map_err(|_| no_such_table(&namespace, &table))?;
            app.service.table_exists(single, &table).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST …/metrics`: older clients report every scan without being asked to; the report is dropped.
pub(crate) async fn drop_report<S: CatalogService>(
    State(app): State<App<S>>,
    request: Request,
) -> Answer {
    drain(request, app.settings.max_body_bytes).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A write in a namespace.
pub(crate) async fn write_in<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    write: ColdWrite,
    name: Named<String>,
    request: Request,
) -> Answer {
    let Path(namespace) = name?;
    coldset::write(&app, &caller, write, Some((namespace, None)), request).await
}

/// A write to a table.
pub(crate) async fn write_to<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    write: ColdWrite,
    names: Named<(String, String)>,
    request: Request,
) -> Answer {
    let Path((namespace, table)) = names?;
    coldset::write(&app, &caller, write, Some((namespace, Some(table))), request).await
}

/// A write whose body names the tables.
pub(crate) async fn write_named<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    write: ColdWrite,
    request: Request,
) -> Answer {
    coldset::write(&app, &caller, write, None, request).await
}

/// A write that nobody may do.
pub(crate) async fn refuse<S: CatalogService>(
    State(app): State<App<S>>,
    what: &'static str,
    request: Request,
) -> Answer {
    drain(request, app.settings.max_body_bytes).await?;
    Err(ApiError::read_only(what))
}

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: what is behind the service answers.
pub(crate) async fn readyz<S: CatalogService>(State(app): State<App<S>>) -> Answer {
    app.service.ready().await?;
    Ok("ready\n".into_response())
}

/// `GET /openapi.yaml`.
pub(crate) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/yaml");
    ([(header::CONTENT_TYPE, kind)], OPENAPI).into_response()
}

/// What no route names.
pub(crate) async fn no_route(uri: Uri) -> ApiError {
    ApiError::no_such_route(uri.path())
}

/// A path of ours under a method that it has not.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(&method, uri.path())
}

fn identifiers(
    namespace: &str,
    names: Vec<String>,
    query: &ListQuery,
    settings: &CatalogSettings,
) -> Answer {
    let (names, next_page_token) = page(names, &query.page(), settings)?;
    let identifiers = names
        .into_iter()
        .map(|name| TableIdentifier { namespace: vec![namespace.to_owned()], name })
        .collect();
    Ok(Json(Identifiers { identifiers, next_page_token }).into_response())
}

fn known_namespace<'a, S: CatalogService>(
    app: &App<S>,
    name: &'a str,
) -> Result<&'a str, ServiceError> {
    let name = single_level(name)?;
    if app.service.namespaces().iter().any(|known| known == name) {
        Ok(name)
    } else {
        Err(ServiceError::NoSuchNamespace(name.to_owned()))
    }
}

/// Reads a body to its end, so that the client hears the answer and keeps its connection.
pub(crate) async fn drain(request: Request, limit: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(request.into_body(), limit)
        .await
        .map_err(|error| ApiError::body_not_read(limit, &error))
}
