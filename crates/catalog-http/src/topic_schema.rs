//! `/api/v1/topics/{topic}/schema`: what a topic's schema is, where it comes from, and pinning it. Described in
//! `openapi/isk-api.yaml`.

use std::future::Future;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, header};
use isk_access::Right;
use isk_model::SchemaFormat;
use isk_virtual_table::{
    ColumnReport, Counted, HOTSET, PinError, Sample, SampledValue, SchemaReport, Service,
    ServiceError, at_least,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::API;
use crate::error::ApiError;
use crate::guard::By;
use crate::handlers::{Answer, App, drain};
use crate::service::CatalogService;

/// What the routes need of the service behind them.
pub trait SchemaService: Send + Sync + 'static {
    /// What a topic's schema is; with the values of its last records, if these are asked for.
    fn topic_schema(
        &self,
        topic: &str,
        samples: bool,
    ) -> impl Future<Output = Result<SchemaReport, ServiceError>> + Send;

    /// Pins a schema, or without one that which was discovered.
    fn pin_schema(
        &self,
        topic: &str,
        schema: Option<(SchemaFormat, String)>,
    ) -> impl Future<Output = Result<SchemaReport, PinError>> + Send;

    /// Takes a pin away, and discovers the topic's schema anew.
    fn discover_anew(
        &self,
        topic: &str,
    ) -> impl Future<Output = Result<SchemaReport, PinError>> + Send;
}

impl SchemaService for Service {
    fn topic_schema(
        &self,
        topic: &str,
        samples: bool,
    ) -> impl Future<Output = Result<SchemaReport, ServiceError>> + Send {
        Service::topic_schema(self, topic, samples)
    }

    fn pin_schema(
        &self,
        topic: &str,
        schema: Option<(SchemaFormat, String)>,
    ) -> impl Future<Output = Result<SchemaReport, PinError>> + Send {
        Service::pin_schema(self, topic, schema)
    }

    fn discover_anew(
        &self,
        topic: &str,
    ) -> impl Future<Output = Result<SchemaReport, PinError>> + Send {
        Service::discover_anew(self, topic)
    }
}

impl From<PinError> for ApiError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Invalid(why) => {
                Self::bad_request(format!("the schema cannot be pinned: {why}"))
            }
            PinError::Conflict(why) => Self::conflict(why),
            PinError::Service(error) => error.into(),
        }
    }
}

type Named = Result<Path<String>, PathRejection>;

/// A schema to pin. Without one, it is the one that was discovered.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Pin {
    schema_type: Option<String>,
    schema: Option<Value>,
}

/// `GET /api/v1/topics/{topic}/schema`. Values are shown to who may read the topic.
pub(crate) async fn get<S: CatalogService>(
    State(app): State<App<S>>,
    Extension(caller): By,
    name: Named,
) -> Answer {
    let Path(topic) = name?;
    let reads = app.allow(&caller, Right::Read, HOTSET, &topic, true).await.is_ok();
    Ok(answer(&app.service.topic_schema(&topic, reads).await?))
}

/// `PUT /api/v1/topics/{topic}/schema`.
pub(crate) async fn put<S: CatalogService>(
    State(app): State<App<S>>,
    name: Named,
    request: Request,
) -> Answer {
    let Path(topic) = name?;
    let body = drain(request, app.settings.max_body_bytes).await?;
    Ok(answer(&app.service.pin_schema(&topic, pin(&body)?).await?))
}

/// `DELETE /api/v1/topics/{topic}/schema`.
pub(crate) async fn delete<S: CatalogService>(
    State(app): State<App<S>>,
    name: Named,
    request: Request,
) -> Answer {
    let Path(topic) = name?;
    drain(request, app.settings.max_body_bytes).await?;
    Ok(answer(&app.service.discover_anew(&topic).await?))
}

/// `GET /api/openapi.yaml`.
pub(crate) async fn openapi() -> Response {
    let kind = HeaderValue::from_static("application/yaml");
    ([(header::CONTENT_TYPE, kind)], API).into_response()
}

fn pin(body: &[u8]) -> Result<Option<(SchemaFormat, String)>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let form = "{\"schemaType\": \"JSON\" or \"AVRO\" or \"PROTOBUF\", \"schema\": the schema or its text}, or \
                nothing, to pin what was discovered";
    let pin = serde_json::from_slice::<Option<Pin>>(body)
        .map_err(|e| ApiError::bad_request(format!("the body is not {form}: {e}")))?;
    let Some(pin) = pin else { return Ok(None) };
    let (name, schema) = match (pin.schema_type, pin.schema) {
        (None, None) => return Ok(None),
        (Some(name), Some(schema)) => (name, schema),
        (None, Some(_)) => {
            return Err(ApiError::bad_request(format!(
                "schemaType is missing: the body is {form}"
            )));
        }
        (Some(_), None) => {
            return Err(ApiError::bad_request(format!("schema is missing: the body is {form}")));
        }
    };
    let format = SchemaFormat::of_name(&name).ok_or_else(|| {
        ApiError::bad_request(format!("schemaType is {name:?}, which is none: the body is {form}"))
    })?;
    let text = match schema {
        Value::String(text) => text,
        schema => schema.to_string(),
    };
    Ok(Some((format, text)))
}

fn answer(report: &SchemaReport) -> Response {
    let schema = report.schema.as_ref();
    let body = json!({
        "topic": report.topic,
        "origin": report.origin.name(),
        "version": report.version.value,
        "schemaType": schema.map(|(format, _)| format.name()),
        "schema": schema.map(|(_, text)| text),
        "columns": report.columns.iter().map(column).collect::<Vec<_>>(),
        "sample": report.sample.as_ref().map(|seen| sample(seen, report.sampled_ms)),
        "samples": report.samples.iter().map(value).collect::<Vec<_>>(),
    });
    (StatusCode::OK, Json(body)).into_response()
}

fn column(column: &ColumnReport) -> Value {
    json!({
        "name": column.path.join("."),
        "path": column.path,
        "fieldId": column.field_id,
        "type": column.ty,
        "jsonText": column.json,
        "seen": column.seen.as_ref().map(counted),
    })
}

fn counted(seen: &Counted) -> Value {
    let types: Map<String, Value> =
        seen.kinds.iter().map(|(kind, count)| (kind.name().to_owned(), (*count).into())).collect();
    json!({
        "of": seen.of,
        "types": types,
        "nullable": !seen.always,
        "confidence": rounded(seen.confidence),
    })
}

fn sample(seen: &Sample, sampled_ms: i64) -> Value {
    json!({
        "sampledAtMs": sampled_ms,
        "records": seen.records,
        "bytes": seen.bytes,
        "tombstones": seen.tombstones,
        "noticed": seen.noticed,
        "values": {
            "object": seen.objects,
            "otherJson": seen.other_json,
            "text": seen.texts,
            "binary": seen.binary,
        },
        "confidence": rounded(at_least(seen.objects, seen.values())),
    })
}

fn value(sampled: &SampledValue) -> Value {
    let place = |name: &str, text: String| json!({"partition": sampled.partition, "offset": sampled.offset, name: text});
    match std::str::from_utf8(&sampled.value) {
        Ok(text) => place("text", text.to_owned()),
        // Cut within a character.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            place("text", String::from_utf8_lossy(&sampled.value).into_owned())
        }
        Err(_) => place("base64", STANDARD.encode(&sampled.value)),
    }
}

fn rounded(share: f64) -> f64 {
    (share * 10_000.0).floor() / 10_000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn bodies_are_schemas_or_nothing_or_refused() {
        assert_eq!(pin(b" \n").unwrap(), None);
        assert_eq!(pin(b"{}").unwrap(), None);
        let avro = pin(br#"{"schemaType":"avro","schema":"\"long\""}"#).unwrap();
        assert_eq!(avro, Some((SchemaFormat::Avro, "\"long\"".to_owned())));
        let json = pin(br#"{"schemaType":"JSON","schema":{"type":"object"}}"#).unwrap();
        assert_eq!(json, Some((SchemaFormat::Json, r#"{"type":"object"}"#.to_owned())));
        for (body, named) in [
            (&b"[1"[..], "the body"),
            (br#"{"schema":"x"}"#, "schemaType is missing"),
            (br#"{"schemaType":"JSON"}"#, "schema is missing"),
            (br#"{"schemaType":"XML","schema":"x"}"#, "XML"),
            (br#"{"schemaType":"JSON","schema":"x","version":1}"#, "version"),
        ] {
            let error = format!("{:?}", pin(body).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
