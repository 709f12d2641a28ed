//! The namespace `coldset`: one namespace of the upstream catalog, under this catalog's names.

use axum::Json;
use axum::extract::{Query, Request, State};
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use isk_access::Caller;
use isk_virtual_table::ServiceError;
use serde::Deserialize;

use crate::audit::NamedTables;
use crate::cold::{COLDSET, Cold, Held, Question};
use crate::cold_answer::{Kind, table_prefixes};
use crate::cold_names::{
    commit_body, create_namespace_body, created_namespace, namespace_path, rename_body, table_path,
    transaction_body,
};
use crate::cold_rights;
use crate::error::ApiError;
use crate::handlers::{Answer, App, drain};
use crate::load;
use crate::service::CatalogService;
use crate::settings::VendedS3;
use crate::vending::cold_table;

/// A write that the upstream catalog can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColdWrite {
    /// `POST …/tables`.
    CreateTable,
    /// `POST …/register`.
    RegisterTable,
    /// `POST …/tables/{table}`.
    UpdateTable,
    /// `DELETE …/tables/{table}`.
    DropTable,
    /// `POST /v1/tables/rename`.
    RenameTable,
    /// `POST /v1/transactions/commit`.
    CommitTransaction,
}

impl ColdWrite {
    /// The write in the words of a refusal.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::CreateTable => "creating a table",
            Self::RegisterTable => "registering a table",
            Self::UpdateTable => "committing to a table",
            Self::DropTable => "dropping a table",
            Self::RenameTable => "renaming a table",
            Self::CommitTransaction => "committing a transaction",
        }
    }
}

/// A write's request, apart from its path.
struct Sent<'a> {
    headers: HeaderMap,
    query: Option<String>,
    body: Held<'a>,
}

/// The names in a write's path; `rename` and `commit` have none.
pub(crate) type Names = Option<(String, Option<String>)>;

/// A write: passed to the upstream where it is one in `coldset` and may be, else refused.
pub(crate) async fn write<S: CatalogService>(
    app: &App<S>,
    caller: &Caller,
    write: ColdWrite,
    names: Names,
    request: Request,
) -> Answer {
    let elsewhere = names.as_ref().is_some_and(|(namespace, _)| namespace != COLDSET);
    let cold = app.cold.as_deref().filter(|_| !elsewhere);
    let Some(cold) = cold.filter(|cold| cold.upstream.is_writable()) else {
        drain(request, app.settings.max_body_bytes).await?;
        return Err(match cold {
            Some(_) => ApiError::coldset_read_only(write.what()),
            None => ApiError::read_only(write.what()),
        });
    };
    let headers = request.headers().clone();
    let query = request.uri().query().map(str::to_owned);
    let audited = request.extensions().get::<NamedTables>().cloned();
    let sent = Sent { headers, query, body: cold.body(request).await? };
    let table = names.and_then(|(_, table)| table);
    let in_path = table.as_deref().unwrap_or_default();
    if let Some(audited) = audited.filter(|_| table.is_none()) {
        audited.tell(cold_rights::tables(write, &sent.body.bytes).iter().map(String::as_str));
    }
    cold_rights::check(&app.access, caller, write, in_path, &sent.body.bytes)?;
    let created = (write == ColdWrite::CreateTable).then(|| created_table(&sent.body.bytes));
    let (answer, kind) =
        pass_write(cold, write, table.as_deref().unwrap_or_default(), sent).await?;
    let table = created.or(table).unwrap_or_default();
    let vend = app.vend_cold(caller, cold_table(&table)).refreshed_at(COLDSET, &table);
    cold.answer(answer, kind, &|prefixes| vend.settings(prefixes))
}

/// The name in a `CreateTableRequest`.
fn created_table(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Create {
        name: String,
    }
    serde_json::from_slice::<Create>(body).map(|create| create.name).unwrap_or_default()
}

async fn pass_write(
    cold: &Cold,
    write: ColdWrite,
    table: &str,
    sent: Sent<'_>,
) -> Result<(http::Response<Bytes>, Kind), ApiError> {
    let levels = cold.levels();
    let namespace = namespace_path(&levels);
    let Sent { headers, query, body } = sent;
    let (method, path, body, kind) = match write {
        ColdWrite::CreateTable => (Method::POST, format!("{namespace}/tables"), body, Kind::Table),
        ColdWrite::RegisterTable => {
            (Method::POST, format!("{namespace}/register"), body, Kind::Table)
        }
        ColdWrite::UpdateTable => {
            let renamed = commit_body(&body.bytes, &levels)?;
            (Method::POST, table_path(&levels, table), body.with(renamed), Kind::Other)
        }
        ColdWrite::DropTable => (Method::DELETE, table_path(&levels, table), body, Kind::Other),
        ColdWrite::RenameTable => {
            let renamed = rename_body(&body.bytes, &levels)?;
            (Method::POST, "tables/rename".to_owned(), body.with(renamed), Kind::Other)
        }
        ColdWrite::CommitTransaction => {
            let renamed = transaction_body(&body.bytes, &levels)?;
            (Method::POST, "transactions/commit".to_owned(), body.with(renamed), Kind::Other)
        }
    };
    let ask = async || {
        let question = Question {
            method: method.clone(),
            path: &path,
            query: query.as_deref(),
            headers: &headers,
            body: body.bytes.clone(),
            writes: true,
        };
        cold.ask(question).await
    };
    let mut answer = ask().await?;
    // The namespace is listed here whether or not the upstream has it yet: with its first table it has.
    if kind == Kind::Table && lacks_namespace(&answer) {
        create_namespace(cold, &headers).await?;
        answer = ask().await?;
    }
    Ok((answer, kind))
}

fn lacks_namespace(answer: &http::Response<Bytes>) -> bool {
    let says = || String::from_utf8_lossy(answer.body()).contains("NoSuchNamespaceException");
    answer.status() == StatusCode::NOT_FOUND && says()
}

/// Makes the upstream's namespace; one that somebody made meanwhile is as good.
async fn create_namespace(cold: &Cold, headers: &HeaderMap) -> Result<(), ApiError> {
    let mut json = HeaderMap::new();
    json.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    json.extend(headers.get(header::ACCEPT).map(|accept| (header::ACCEPT, accept.clone())));
    let question = Question {
        method: Method::POST,
        path: "namespaces",
        query: None,
        headers: &json,
        body: create_namespace_body(&cold.levels()).into(),
        writes: true,
    };
    let answer = cold.ask(question).await?;
    tracing::info!(
        namespace = cold.upstream.namespace(),
        status = answer.status().as_u16(),
        "the upstream catalog was asked to make the namespace shown as coldset"
    );
    Ok(())
}

/// `POST /v1/namespaces`: refused, but where the namespace is there already that is the answer, and
/// clients that make sure of it go on.
pub(crate) async fn create_namespace_here<S: CatalogService>(
    State(app): State<App<S>>,
    request: Request,
) -> Answer {
    let body = drain(request, app.settings.max_body_bytes).await?;
    let writable = app.cold.as_deref().is_some_and(|cold| cold.upstream.is_writable());
    match created_namespace(&body) {
        Some(levels) if writable && levels == [COLDSET] => Err(ApiError::namespace_exists(COLDSET)),
        _ => Err(ApiError::read_only("creating a namespace")),
    }
}

/// The names of the tables.
pub(crate) async fn tables(cold: &Cold) -> Result<Vec<String>, ApiError> {
    Ok(cold.upstream.tables().await?)
}

/// Whether a table exists.
pub(crate) async fn table_exists(cold: &Cold, table: &str) -> Result<(), ApiError> {
    if cold.upstream.table_exists(table).await? { Ok(()) } else { Err(no_such_table(table)) }
}

fn no_such_table(table: &str) -> ApiError {
    ServiceError::NoSuchTable { namespace: COLDSET.to_owned(), table: table.to_owned() }.into()
}

/// The table as the upstream has it, with the gateway's settings, or, with `direct`, as it answers.
pub(crate) async fn load<S: CatalogService>(
    app: &App<S>,
    cold: &Cold,
    caller: &Caller,
    table: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Answer {
    let answer = ask_table(cold, table, query, headers).await?;
    let vend = app.vend_cold(caller, cold_table(table)).refreshed_at(COLDSET, table);
    let settings = |prefixes: &[String]| vend.settings(prefixes);
    if cold.upstream.is_direct() || !answer.status().is_success() {
        return cold.answer(answer, Kind::Table, &settings);
    }
    let prefixes = table_prefixes(answer.body())?;
    let tag = entity_tag(answer.body(), query, &vend.settings(&prefixes)?);
    let mut response = match &tag {
        Some(tag) if load::none_match(headers, tag) => StatusCode::NOT_MODIFIED.into_response(),
        _ => cold.answer(answer, Kind::Table, &settings)?,
    };
    if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

async fn ask_table(
    cold: &Cold,
    table: &str,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<http::Response<Bytes>, ApiError> {
    let path = table_path(&cold.levels(), table);
    let question = Question {
        method: Method::GET,
        path: &path,
        query,
        headers,
        body: Held::nothing().bytes,
        writes: false,
    };
    cold.ask(question).await
}

/// The gateway's settings for who has the table loaded already.
pub(crate) async fn credentials<S: CatalogService>(
    app: &App<S>,
    cold: &Cold,
    caller: &Caller,
    table: &str,
    headers: &HeaderMap,
) -> Result<VendedS3, ApiError> {
    let answer = ask_table(cold, table, None, headers).await?;
    if !answer.status().is_success() {
        return Err(no_such_table(table));
    }
    let vend = app.vend_cold(caller, cold_table(table)).refreshed_at(COLDSET, table);
    Ok(vend.settings(&table_prefixes(answer.body())?)?)
}

/// Our own tag: the keys in the answer are ours, and the upstream's tag knows nothing of them.
fn entity_tag(body: &[u8], query: Option<&str>, vended: &VendedS3) -> Option<String> {
    #[derive(Deserialize)]
    struct Loaded {
        #[serde(rename = "metadata-location")]
        metadata_location: String,
    }
    let loaded: Loaded = serde_json::from_slice(body).ok()?;
    let parts = [loaded.metadata_location.as_str(), query.unwrap_or_default()];
    Some(load::tag_of(&parts, vended))
}

#[derive(Debug, Deserialize)]
pub(crate) struct ConfigQuery {
    pub warehouse: Option<String>,
}

/// `GET /v1/config`.
pub(crate) async fn config<S: CatalogService>(
    State(app): State<App<S>>,
    query: Result<Query<ConfigQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer {
    let Query(query) = query?;
    let config = match query.warehouse.as_deref() {
        Some(COLDSET) => crate::warehouse::config(&app).await?,
        // Any other name is accepted: the catalog has one warehouse, and some clients must name it.
        _ => crate::wire::CatalogConfig {
            defaults: [].into(),
            overrides: [].into(),
            endpoints: endpoints(&app).await,
        },
    };
    Ok(Json(config).into_response())
}

/// What clients are told of: writes where `coldset` is writable, and of those what the upstream serves. A
/// client that is told of `transactions/commit` uses it instead of the commit of one table.
async fn endpoints<S: CatalogService>(app: &App<S>) -> Vec<String> {
    let Some(cold) = app.cold.as_deref().filter(|cold| cold.upstream.is_writable()) else {
        return crate::routes::endpoints(false);
    };
    match cold.upstream.endpoints().await {
        Ok(Some(said)) => served(&said),
        Ok(None) => crate::routes::endpoints(true),
        Err(error) => {
            // The rest of the catalog does without the upstream.
            tracing::warn!(%error, "which writes the upstream serves is not known");
            crate::routes::endpoints(true)
        }
    }
}

/// Our own endpoints, and those that write of which the upstream says that it serves them.
fn served(said: &[String]) -> Vec<String> {
    let own = crate::routes::endpoints(false);
    let mut all = crate::routes::endpoints(true);
    all.retain(|endpoint| own.contains(endpoint) || said.contains(endpoint));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_offered_that_the_upstream_serves() {
        let commit = "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}".to_owned();
        let offered = served(std::slice::from_ref(&commit));
        assert!(offered.contains(&commit));
        assert!(!offered.contains(&"POST /v1/{prefix}/transactions/commit".to_owned()));
        assert_eq!(offered.len(), crate::routes::endpoints(false).len() + 1);
    }
}
