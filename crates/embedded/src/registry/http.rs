//! The registry's HTTP interface (Confluent Schema Registry API, v1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::store::{Refusal, Schema, Store, Which};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// The store behind the handlers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Store>>);

impl Shared {
    /// A poisoned lock is taken all the same: no change under it can be left half done.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Anything that serialises, with the registry's content type.
struct Answer<T>(T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
            Err(cause) => Refusal { code: 50001, message: cause.to_string() }.into_response(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let http = if self.code >= 1000 { self.code / 100 } else { self.code };
        let status = u16::try_from(http).ok().and_then(|s| StatusCode::from_u16(s).ok());
        let body = json!({ "error_code": self.code, "message": self.message });
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Answer(body)).into_response()
    }
}

type Result<T> = std::result::Result<T, Refusal>;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Options {
    deleted: bool,
    permanent: bool,
    default_to_global: bool,
}

#[derive(Debug, Deserialize)]
struct Config {
    compatibility: String,
}

/// Bodies are read whatever content type they claim: clients send several.
fn parse<T: for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|cause| Refusal { code: 422, message: format!("unreadable body: {cause}") })
}

fn number(id: &str) -> Result<i32> {
    id.parse().map_err(|_| Refusal { code: 404, message: format!("{id:?} is no schema id") })
}

pub(crate) fn router(store: Shared) -> Router {
    Router::new()
        .route("/", get(async || Answer(json!({}))))
        .route("/mode", get(async || Answer(json!({ "mode": "READWRITE" }))))
        .route("/schemas/types", get(async || Answer(["JSON", "PROTOBUF", "AVRO"])))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/versions", get(schema_versions))
        .route("/schemas/ids/{id}/subjects", get(schema_subjects))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(lookup).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/config", get(global_config).put(set_global_config))
        .route("/config/{subject}", get(config).put(set_config))
        .route("/config/{subject}", delete(unset_config))
        .fallback(async || Refusal { code: 404, message: "HTTP 404 Not Found".to_owned() })
        .with_state(store)
}

async fn schema(State(store): State<Shared>, Path(id): Path<String>) -> Result<Answer<Schema>> {
    store.lock().schema(number(&id)?).cloned().map(Answer)
}

async fn schema_text(State(store): State<Shared>, Path(id): Path<String>) -> Result<String> {
    store.lock().schema(number(&id)?).map(|s| s.schema.clone())
}

async fn schema_versions(
    State(store): State<Shared>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse> {
    let users = store.lock().users(number(&id)?)?.into_iter();
    let shown = users.map(|(subject, version)| json!({ "subject": subject, "version": version }));
    Ok(Answer(shown.collect::<Vec<_>>()))
}

async fn schema_subjects(
    State(store): State<Shared>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse> {
    let mut users: Vec<_> = store.lock().users(number(&id)?)?.into_iter().map(|u| u.0).collect();
    users.dedup();
    Ok(Answer(users))
}

async fn subjects(
    State(store): State<Shared>,
    Query(options): Query<Options>,
) -> impl IntoResponse {
    Answer(store.lock().subjects(options.deleted))
}

async fn lookup(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    body: Bytes,
) -> Result<impl IntoResponse> {
    let schema: Schema = parse(&body)?;
    store.lock().lookup(&subject, &schema).map(Answer)
}

async fn register(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    body: Bytes,
) -> Result<impl IntoResponse> {
    let schema: Schema = parse(&body)?;
    let id = store.lock().register(&subject, schema)?;
    Ok(Answer(json!({ "id": id })))
}

async fn delete_subject(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
) -> Result<impl IntoResponse> {
    store.lock().delete(&subject, None, options.permanent).map(Answer)
}

async fn versions(
    State(store): State<Shared>,
    Path(subject): Path<String>,
) -> Result<impl IntoResponse> {
    store.lock().versions(&subject).map(Answer)
}

async fn version(
    State(store): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
) -> Result<impl IntoResponse> {
    store.lock().version(&subject, version.parse()?).map(Answer)
}

async fn version_text(
    State(store): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
) -> Result<String> {
    store.lock().version(&subject, version.parse()?).map(|v| v.schema.schema)
}

async fn delete_version(
    State(store): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    Query(options): Query<Options>,
) -> Result<impl IntoResponse> {
    let which: Which = version.parse()?;
    let gone = store.lock().delete(&subject, Some(which), options.permanent)?;
    Ok(Answer(gone.into_iter().next_back()))
}

async fn global_config(State(store): State<Shared>) -> Result<impl IntoResponse> {
    let level = store.lock().config(None, false)?;
    Ok(Answer(json!({ "compatibilityLevel": level })))
}

async fn config(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    Query(options): Query<Options>,
) -> Result<impl IntoResponse> {
    let level = store.lock().config(Some(&subject), options.default_to_global)?;
    Ok(Answer(json!({ "compatibilityLevel": level })))
}

async fn set_global_config(State(store): State<Shared>, body: Bytes) -> Result<impl IntoResponse> {
    put_config(&store, None, &body)
}

async fn set_config(
    State(store): State<Shared>,
    Path(subject): Path<String>,
    body: Bytes,
) -> Result<impl IntoResponse> {
    put_config(&store, Some(&subject), &body)
}

fn put_config(
    store: &Shared,
    subject: Option<&str>,
    body: &Bytes,
) -> Result<Answer<serde_json::Value>> {
    let Config { compatibility } = parse(body)?;
    store.lock().set_config(subject, &compatibility)?;
    if !compatibility.eq_ignore_ascii_case("NONE") {
        tracing::warn!(subject, compatibility, "stored; the embedded registry does not enforce it");
    }
    Ok(Answer(json!({ "compatibility": compatibility })))
}

async fn unset_config(
    State(store): State<Shared>,
    Path(subject): Path<String>,
) -> Result<impl IntoResponse> {
    let level = store.lock().unset_config(&subject)?;
    Ok(Answer(json!({ "compatibilityLevel": level })))
}
