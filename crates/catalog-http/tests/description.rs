//! The description in `openapi/` and the routes in code are the same, and answers are as described.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use isk_catalog_http::routes::ROUTES;
use isk_catalog_http::{API, OPENAPI};
use serde_yaml_ng::Value;
use support::Catalog;

const METHODS: [&str; 7] = ["get", "head", "post", "put", "delete", "patch", "options"];

/// The statuses that the files describe for each method and path.
fn described() -> BTreeMap<(String, String), BTreeSet<u16>> {
    let files = [OPENAPI, API].map(|text| serde_yaml_ng::from_str::<Value>(text).unwrap());
    let mut all = BTreeMap::new();
    for (path, item) in files.iter().flat_map(|file| file["paths"].as_mapping().unwrap()) {
        for (method, operation) in item.as_mapping().unwrap() {
            let method = method.as_str().unwrap();
            if !METHODS.contains(&method) {
                continue;
            }
            let responses = operation["responses"].as_mapping().unwrap();
            let statuses = responses.keys().map(|s| s.as_str().unwrap());
            // What the upstream catalog answers is its own.
            let statuses = statuses.filter(|s| *s != "default");
            let statuses = statuses.map(|s| s.parse().unwrap()).collect();
            all.insert((method.to_uppercase(), path.as_str().unwrap().to_owned()), statuses);
        }
    }
    all
}

#[test]
fn the_file_and_the_routes_name_the_same_operations() {
    let in_file: BTreeSet<_> = described().into_keys().collect();
    let in_code: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    assert_eq!(in_code.len(), ROUTES.len(), "a route stands twice in the table");
    let undescribed: Vec<_> = in_code.difference(&in_file).collect();
    assert!(undescribed.is_empty(), "not in openapi/: {undescribed:?}");
    let unserved: Vec<_> = in_file.difference(&in_code).collect();
    assert!(unserved.is_empty(), "described, but no route: {unserved:?}");
}

#[tokio::test]
async fn a_topics_schema_has_the_described_form() {
    let file: serde_json::Value = serde_yaml_ng::from_str(API).unwrap();
    let root = serde_json::json!({
        "$ref": "#/components/schemas/TopicSchema", "components": file["components"],
    });
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let catalog = Catalog::start(&["a"]).await;
    for method in ["GET", "PUT", "DELETE"] {
        let (status, body) = catalog.json(method, "/api/v1/topics/a/schema").await;
        assert_eq!(status, 200, "{body}");
        let errors: Vec<String> = validator.iter_errors(&body).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{errors:#?}\n{body:#}");
        assert!(!validator.is_valid(&serde_json::json!({"topic": "a"})));
    }
}

#[tokio::test]
async fn every_route_answers_with_a_described_status() {
    let catalog = Catalog::start(&["a"]).await;
    for ((method, path), statuses) in described() {
        for (namespace, name) in [("hotset", "a"), ("hotset", "down"), ("cold", "a"), ("%ff", "a")]
        {
            let path = path
                .replace("{namespace}", namespace)
                .replace("{table}", name)
                .replace("{view}", name)
                .replace("{topic}", name)
                .replace("{plan-id}", "none")
                .replace("{path}", "namespaces");
            let (status, body) = catalog.json(&method, &path).await;
            assert!(statuses.contains(&status), "{method} {path}: {status} is not described");
            // The text is that of the operation, not of a fallback.
            assert_ne!(body["error"]["type"], "NotFoundException", "{method} {path}");
        }
    }
}
