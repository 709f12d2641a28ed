//! Answers are valid by the schemas of the Iceberg REST specification.
//!
//! The specification lies beside the repository; where it does not, these tests say so and check
//! nothing.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::Catalog;

const SPECIFICATION: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../../shared/specs/iceberg-rest-catalog-open-api.yaml"
);

/// The specification as JSON, or `None` where it is absent.
fn specification() -> Option<Value> {
    if !Path::new(SPECIFICATION).exists() {
        eprintln!("DID NOT RUN: {SPECIFICATION} is not there");
        return None;
    }
    let text = std::fs::read_to_string(SPECIFICATION).unwrap();
    Some(to_json(serde_yaml_ng::from_str(&text).unwrap()))
}

/// YAML as JSON; OpenAPI's `nullable` becomes a type of JSON Schema.
fn to_json(yaml: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match yaml {
        Yaml::Sequence(items) => items.into_iter().map(to_json).collect(),
        Yaml::Mapping(entries) => {
            let mut object: serde_json::Map<String, Value> = entries
                .into_iter()
                .map(|(name, value)| {
                    let name = match name {
                        Yaml::String(name) => name,
                        other => serde_yaml_ng::to_string(&other).unwrap().trim().to_owned(),
                    };
                    (name, to_json(value))
                })
                .collect();
            if object.get("nullable") == Some(&json!(true))
                && let Some(Value::String(kind)) = object.get("type").cloned()
            {
                object.insert("type".to_owned(), json!([kind, "null"]));
            }
            Value::Object(object)
        }
        scalar => serde_json::to_value(scalar).unwrap(),
    }
}

/// Validates a body against one schema of the specification.
fn check(specification: &Value, schema: &str, body: &Value, what: &str) {
    let root = json!({
        "$ref": format!("#/components/schemas/{schema}"),
        "components": specification["components"],
    });
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(body).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{what} is no {schema}: {errors:#?}\n{body:#}");
}

#[tokio::test]
async fn answers_are_as_the_specification_has_them() {
    let Some(specification) = specification() else { return };
    let catalog = Catalog::start(&["a", "b", "c"]).await;
    for (method, path, schema) in [
        ("GET", "/v1/config", "CatalogConfig"),
        ("GET", "/v1/namespaces", "ListNamespacesResponse"),
        ("GET", "/v1/namespaces?parent=hotset", "ListNamespacesResponse"),
        ("GET", "/v1/namespaces/hotset", "GetNamespaceResponse"),
        ("GET", "/v1/namespaces/hotset/tables", "ListTablesResponse"),
        ("GET", "/v1/namespaces/hotset/tables?pageToken=", "ListTablesResponse"),
        ("GET", "/v1/namespaces/hotset/views", "ListTablesResponse"),
        ("GET", "/v1/namespaces/hotset/tables/a", "LoadTableResult"),
        ("GET", "/v1/namespaces/hotset/tables/a?snapshots=refs", "LoadTableResult"),
        ("GET", "/v1/namespaces/hotset/tables/none", "IcebergErrorResponse"),
        ("GET", "/v1/namespaces/hotset/tables/down", "IcebergErrorResponse"),
        ("GET", "/v1/namespaces/cold", "IcebergErrorResponse"),
        ("POST", "/v1/namespaces", "IcebergErrorResponse"),
        ("PUT", "/v1/config", "IcebergErrorResponse"),
        ("GET", "/nothing", "IcebergErrorResponse"),
    ] {
        let (_, body) = catalog.json(method, path).await;
        check(&specification, schema, &body, &format!("{method} {path}"));
    }
}

/// The same schemas where one of several need not be the only one: a whole number is an int and a long, and
/// a predicate of one column fits older and newer forms.
fn with_any_of(json: &Value) -> Value {
    match json {
        Value::Array(items) => items.iter().map(with_any_of).collect(),
        Value::Object(entries) => {
            let name =
                |name: &str| if name == "oneOf" { "anyOf".to_owned() } else { name.to_owned() };
            entries.iter().map(|(key, value)| (name(key), with_any_of(value))).collect()
        }
        scalar => scalar.clone(),
    }
}

#[tokio::test]
async fn plans_are_as_the_specification_has_them() {
    let Some(specification) = specification() else { return };
    let specification = with_any_of(&specification);
    let catalog = Catalog::start(&["a", "wide"]).await;
    let send = async |path: &str, body: Value| -> Value {
        let request = catalog.request("POST", &format!("/v1/namespaces/hotset/tables/{path}"));
        request.body(body.to_string()).send().await.unwrap().json().await.unwrap()
    };
    let filter = json!({ "type": "gt", "term": "kafka_offset", "value": 5 });
    let plan = send("a/plan", json!({ "filter": filter })).await;
    check(&specification, "CompletedPlanningWithIDResult", &plan, "a plan");
    let plan = send("wide/plan", json!({})).await;
    check(&specification, "CompletedPlanningWithIDResult", &plan, "a plan in parts");
    let tasks = send("wide/tasks", json!({ "plan-task": plan["plan-tasks"][0] })).await;
    check(&specification, "FetchScanTasksResult", &tasks, "a part of a plan");
}

#[test]
fn the_check_can_fail() {
    let Some(specification) = specification() else { return };
    let wrong = json!({ "metadata": { "format-version": 2 } });
    let seen = std::panic::catch_unwind(|| check(&specification, "LoadTableResult", &wrong, "x"));
    assert!(seen.is_err());
}

#[test]
fn listed_endpoints_are_the_specifications_own() {
    let Some(specification) = specification() else { return };
    for endpoint in isk_catalog_http::routes::endpoints(true) {
        let (method, path) = endpoint.split_once(' ').unwrap();
        let operation = &specification["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{endpoint} is not in the specification");
    }
}
