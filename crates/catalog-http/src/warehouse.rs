//! The warehouse `coldset`: the whole upstream catalog under a prefix, its namespaces as they are.

use axum::Extension;
use axum::extract::{Request, State};
use http::Method;
use isk_access::TableName;

use crate::cold::{COLDSET, Held, Question};
use crate::cold_answer::Kind;
use crate::cold_names::{answers_table, checked_path, is_read};
use crate::error::ApiError;
use crate::guard::By;
use crate::handlers::{Answer, App, drain};
use crate::service::CatalogService;
use crate::wire::CatalogConfig;

/// Where the warehouse's paths begin.
const ROOT: &str = "/v1/coldset/";

/// What a catalog serves that does not say what it serves, by the specification.
const UNSAID: [&str; 14] = [
    "GET /v1/{prefix}/namespaces",
    "POST /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "DELETE /v1/{prefix}/namespaces/{namespace}",
    "POST /v1/{prefix}/namespaces/{namespace}/properties",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
];

/// The answer to `GET /v1/config?warehouse=coldset`.
pub(crate) async fn config<S: CatalogService>(app: &App<S>) -> Result<CatalogConfig, ApiError> {
    let cold = app.cold.as_deref().ok_or_else(ApiError::no_upstream)?;
    let said = cold.upstream.endpoints().await?;
    let all = said.unwrap_or_else(|| UNSAID.map(str::to_owned).to_vec());
    let writable = cold.upstream.is_writable();
    Ok(CatalogConfig {
        defaults: [].into(),
        overrides: [("prefix", COLDSET.to_owned())].into(),
        endpoints: all.into_iter().filter(|endpoint| is_offered(endpoint, writable)).collect(),
    })
}

/// Whether an endpoint of the upstream's is one here too.
fn is_offered(endpoint: &str, writable: bool) -> bool {
    let Some((method, path)) = endpoint.split_once(' ') else { return false };
    let (Ok(method), Some(path)) = (method.parse::<Method>(), path.strip_prefix("/v1/{prefix}/"))
    else {
        return false;
    };
    checked_path(path).is_some() && (writable || is_read(&method, path))
}

/// Everything under `/v1/coldset/`: reads go to the upstream, writes where they may.
pub(crate) async fn pass<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    request: Request,
) -> Answer {
    let method = request.method().clone();
    let raw = request.uri().path().to_owned();
    let Some(cold) = app.cold.as_deref() else {
        drain(request, app.settings.max_body_bytes).await?;
        return Err(ApiError::no_upstream());
    };
    let path = raw.strip_prefix(ROOT).and_then(checked_path);
    let Some(path) = path else {
        drain(request, app.settings.max_body_bytes).await?;
        return Err(ApiError::not_passed(&raw));
    };
    let writes = !is_read(&method, path);
    if writes && !cold.upstream.is_writable() {
        drain(request, app.settings.max_body_bytes).await?;
        return Err(ApiError::coldset_read_only(&format!("{method} {path}")));
    }
    let headers = request.headers().clone();
    let query = request.uri().query().map(str::to_owned);
    let bodiless = matches!(method, Method::GET | Method::HEAD);
    let body = if bodiless { Held::nothing() } else { cold.body(request).await? };
    let kind = if answers_table(&method, path) { Kind::Table } else { Kind::Other };
    let question = Question {
        method,
        path,
        query: query.as_deref(),
        headers: &headers,
        body: body.bytes.clone(),
        writes,
    };
    let answer = cold.ask(question).await?;
    // Who comes here has the right on everything.
    let vend = app.vend_cold(&caller, TableName::everything());
    cold.answer(answer, kind, &|prefixes| vend.settings(prefixes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_those_that_would_be_passed() {
        for (endpoint, read_only, writable) in [
            ("GET /v1/{prefix}/namespaces", true, true),
            ("POST /v1/{prefix}/namespaces", false, true),
            ("POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan", true, true),
            ("POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/sign", false, true),
            ("HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}", true, true),
            ("POST /v1/oauth/tokens", false, false),
            ("GET /v1/config", false, false),
            ("GET /v1/{prefix}/elsewhere", false, false),
            ("nonsense", false, false),
        ] {
            assert_eq!(is_offered(endpoint, false), read_only, "{endpoint}");
            assert_eq!(is_offered(endpoint, true), writable, "{endpoint}");
        }
    }
}
