//! Server-side scan planning: a query's predicate comes in, and the files to read go out at once.
//!
//! No work is done behind a plan's id: it names the request for a while, so that a client that asks for
//! the plan again gets it again.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use isk_access::Caller;
use isk_virtual_table::ServiceError;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ApiError;
use crate::guard::By;
use crate::handlers::{Answer, App, drain};
use crate::names::single_level;
use crate::plan_wire::{PlanRequest, PlanTask, TasksRequest, completed, tasks};
use crate::service::CatalogService;

/// How long a plan's id names its request.
const KEPT: Duration = Duration::from_secs(600);

/// Bytes of requests that are kept.
const KEPT_BYTES: u64 = 32 << 20;

type Names = Result<Path<(String, String)>, PathRejection>;
type PlanNames = Result<Path<(String, String, String)>, PathRejection>;

/// The requests behind plan ids.
#[derive(Clone)]
pub(crate) struct Plans(moka::sync::Cache<String, Arc<PlanRequest>>);

impl Plans {
    pub(crate) fn new() -> Self {
        let weigh = |id: &String, request: &Arc<PlanRequest>| {
            let filter = request.filter.as_ref().map_or(0, |filter| filter.to_string().len());
            u32::try_from(id.len() + filter).unwrap_or(u32::MAX)
        };
        let plans = moka::sync::Cache::builder().time_to_live(KEPT).weigher(weigh);
        Self(plans.max_capacity(KEPT_BYTES).build())
    }
}

/// `POST …/plan`.
pub(crate) async fn plan_scan<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    names: Names,
    request: Request,
) -> Answer {
    let Path((namespace, table)) = names?;
    let request: PlanRequest = parsed(&drain(request, app.settings.max_body_bytes).await?)?;
    let id = uuid::Uuid::new_v4().to_string();
    let answer = planned(&app, &caller, &namespace, &table, &id, &request).await?;
    let place = place(&namespace, &table, &id);
    app.plans.0.insert(place, Arc::new(request));
    Ok(answer)
}

/// `GET …/plan/{plan-id}`.
pub(crate) async fn fetch_plan<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    names: PlanNames,
) -> Answer {
    let Path((namespace, table, id)) = names?;
    let request = app.plans.0.get(&place(&namespace, &table, &id));
    let request = request.ok_or_else(|| ApiError::no_such_plan(&id))?;
    planned(&app, &caller, &namespace, &table, &id, &request).await
}

/// `DELETE …/plan/{plan-id}`.
pub(crate) async fn cancel_plan<S: CatalogService>(
    State(app): State<App<S>>,
    names: PlanNames,
) -> Answer {
    let Path((namespace, table, id)) = names?;
    let cancelled = app.plans.0.remove(&place(&namespace, &table, &id));
    cancelled.ok_or_else(|| ApiError::no_such_plan(&id))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST …/tasks`.
pub(crate) async fn fetch_tasks<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    names: Names,
    request: Request,
) -> Answer {
    let Path((namespace, table)) = names?;
    let TasksRequest { plan_task } = parsed(&drain(request, app.settings.max_body_bytes).await?)?;
    let task: PlanTask =
        serde_json::from_str(&plan_task).map_err(|_| ApiError::no_such_plan_task(&plan_task))?;
    let scan = task.request.scan(Some(task.part))?;
    let namespace = single_level(&namespace)?;
    let columns = app.columns(&caller, namespace, &table).await?;
    let plan = app.service.plan_scan(namespace, &table, columns.as_ref(), &scan).await?;
    Ok(Json(Value::Object(tasks(&plan, &task.request))).into_response())
}

async fn planned<S: CatalogService>(
    app: &App<S>,
    caller: &Caller,
    namespace: &str,
    table: &str,
    id: &str,
    request: &PlanRequest,
) -> Result<Response, ApiError> {
    let scan = request.scan(None)?;
    let columns = app.columns(caller, namespace, table).await?;
    let single = single_level(namespace)?;
    let plan = app.service.plan_scan(single, table, columns.as_ref(), &scan).await?;
    let parts = app.parts(namespace, table).await?;
    let vend = app.vend(caller, parts).refreshed_at(namespace, table);
    let vended = vend.settings(&plan.credential_prefixes)?;
    let credentials = vended.credentials(&plan.credential_prefixes);
    let body = completed(id, &plan, request, credentials);
    let body = serde_json::to_vec(&body)
        .map_err(|e| ServiceError::Internal(format!("a plan has no JSON: {e}")))?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        // The body holds credentials.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}

fn parsed<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("the request's body cannot be read: {e}")))
}

fn place(namespace: &str, table: &str, id: &str) -> String {
    format!("{namespace}\u{1f}{table}\u{1f}{id}")
}
