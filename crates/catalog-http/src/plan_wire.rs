//! Requests and answers of server-side scan planning, as the specification writes them.

use std::collections::BTreeMap;

use isk_virtual_table::{ContentFile, Filter, ScanFile, ScanPlan, ScanRequest, Test};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::wire::StorageCredential;

/// How deep a predicate may be nested.
const DEPTH: usize = 200;

/// `PlanTableScanRequest`; what is not here changes nothing of what is planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PlanRequest {
    pub snapshot_id: Option<i64>,
    pub filter: Option<Value>,
    #[serde(default = "yes")]
    pub case_sensitive: bool,
    pub start_snapshot_id: Option<i64>,
    pub end_snapshot_id: Option<i64>,
    pub stats_fields: Option<Vec<String>>,
}

fn yes() -> bool {
    true
}

/// `FetchScanTasksRequest`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TasksRequest {
    pub plan_task: String,
}

/// What a plan task's text holds: the request, and which part of its plan.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlanTask {
    pub request: PlanRequest,
    pub part: (usize, usize),
}

impl PlanRequest {
    /// The request for the service.
    ///
    /// # Errors
    /// For an incremental scan: the table has no increments to plan.
    pub(crate) fn scan(&self, part: Option<(usize, usize)>) -> Result<ScanRequest, ApiError> {
        if self.start_snapshot_id.is_some() || self.end_snapshot_id.is_some() {
            return Err(ApiError::bad_request(
                "incremental scans are not planned here: give snapshot-id, or neither",
            ));
        }
        Ok(ScanRequest {
            snapshot_id: self.snapshot_id,
            filter: self.filter.as_ref().map_or(Filter::Constant(true), |json| filter(json, 0)),
            case_sensitive: self.case_sensitive,
            stats_fields: self.stats_fields.clone().unwrap_or_default(),
            part,
        })
    }

    /// What is left to be checked of each row: all that was asked for.
    fn residual(&self) -> Value {
        self.filter.clone().unwrap_or(Value::Bool(true))
    }
}

/// A predicate as clients write it. What is not known of it may match.
fn filter(json: &Value, depth: usize) -> Filter {
    if depth > DEPTH {
        return Filter::Unknown;
    }
    let object = match json {
        Value::Bool(holds) => return Filter::Constant(*holds),
        Value::Object(object) => object,
        _ => return Filter::Unknown,
    };
    let child = |name: &str| {
        Box::new(object.get(name).map_or(Filter::Unknown, |json| filter(json, depth + 1)))
    };
    let one =
        || object.get("value").or_else(|| object.get("right")).map(literal).into_iter().collect();
    let many = || {
        let values = object.get("values").and_then(Value::as_array);
        values.map(|all| all.iter().map(literal).collect()).unwrap_or_default()
    };
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    let (test, values): (Test, Vec<Value>) = match kind.to_ascii_lowercase().as_str() {
        "true" => return Filter::Constant(true),
        "false" => return Filter::Constant(false),
        "literal" => match object.get("value").and_then(Value::as_bool) {
            Some(holds) => return Filter::Constant(holds),
            None => return Filter::Unknown,
        },
        "and" => return Filter::And(child("left"), child("right")),
        "or" => return Filter::Or(child("left"), child("right")),
        "not" => return Filter::Not(child("child")),
        "eq" => (Test::In, one()),
        "not-eq" => (Test::NotIn, one()),
        "in" => (Test::In, many()),
        "not-in" => (Test::NotIn, many()),
        "lt" => (Test::Less, one()),
        "lt-eq" => (Test::LessOrEqual, one()),
        "gt" => (Test::Greater, one()),
        "gt-eq" => (Test::GreaterOrEqual, one()),
        "is-null" => (Test::IsNull, Vec::new()),
        "not-null" => (Test::NotNull, Vec::new()),
        "starts-with" => (Test::StartsWith, one()),
        _ => return Filter::Unknown,
    };
    // The specification's older form names the operand `term`, the newer one `left` or `child`.
    let operand = ["term", "left", "child"].iter().find_map(|&name| object.get(name));
    match operand.and_then(column) {
        Some(column) => Filter::Test { column, test, values },
        None => Filter::Unknown,
    }
}

/// A value, bare or as an object of its own.
fn literal(value: &Value) -> Value {
    let object = value.as_object().filter(|o| o.get("type").is_some_and(|kind| kind == "literal"));
    object.and_then(|object| object.get("value")).unwrap_or(value).clone()
}

/// The name of a column; `None` for a transform of one.
fn column(term: &Value) -> Option<String> {
    match term {
        Value::String(name) => Some(name.clone()),
        Value::Object(term) if term.get("type").and_then(Value::as_str) == Some("reference") => {
            let name = term.get("term").or_else(|| term.get("name"))?;
            name.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `CompletedPlanningWithIDResult`.
pub(crate) fn completed(
    id: &str,
    plan: &ScanPlan,
    request: &PlanRequest,
    credentials: Vec<StorageCredential<'_>>,
) -> Value {
    let mut answer = tasks(plan, request);
    // A plan handed out in parts stays the snapshot that it was begun with.
    let request = PlanRequest { snapshot_id: Some(plan.snapshot_id), ..request.clone() };
    let parts = plan.parts.iter().map(|&part| {
        let task = PlanTask { request: request.clone(), part };
        serde_json::to_string(&task).map(Value::String).unwrap_or_default()
    });
    let parts: Vec<Value> = parts.collect();
    if !parts.is_empty() {
        answer.insert("plan-tasks".into(), parts.into());
    }
    answer.insert("status".into(), "completed".into());
    answer.insert("plan-id".into(), id.into());
    answer.insert("storage-credentials".into(), json!(credentials));
    Value::Object(answer)
}

/// `ScanTasks`.
pub(crate) fn tasks(plan: &ScanPlan, request: &PlanRequest) -> Map<String, Value> {
    let residual = request.residual();
    let deletes: Vec<Value> = plan
        .deletes
        .iter()
        .map(|file| Value::Object(content_file(file, "position-deletes")))
        .collect();
    let files: Vec<Value> = plan.files.iter().map(|file| task(file, &residual)).collect();
    let mut answer = Map::new();
    if !deletes.is_empty() {
        answer.insert("delete-files".into(), deletes.into());
    }
    answer.insert("file-scan-tasks".into(), files.into());
    answer
}

/// `FileScanTask`.
fn task(file: &ScanFile, residual: &Value) -> Value {
    let mut data = content_file(&file.file, "data");
    data.insert("split-offsets".into(), json!(file.split_offsets));
    let stats = &file.stats;
    let counts = [
        ("value-counts", map(stats, |stats| stats.values.map(Value::from))),
        ("null-value-counts", map(stats, |stats| stats.nulls.map(Value::from))),
        ("lower-bounds", map(stats, |stats| stats.lower.as_deref().map(hex))),
        ("upper-bounds", map(stats, |stats| stats.upper.as_deref().map(hex))),
    ];
    for (name, map) in counts {
        data.extend(map.map(|map| (name.to_owned(), map)));
    }
    let mut task = Map::from_iter([
        ("data-file".to_owned(), Value::Object(data)),
        ("residual-filter".to_owned(), residual.clone()),
    ]);
    if !file.deletes.is_empty() {
        task.insert("delete-file-references".into(), json!(file.deletes));
    }
    Value::Object(task)
}

/// `ContentFile`.
fn content_file(file: &ContentFile, content: &str) -> Map<String, Value> {
    let ContentFile { uri, spec_id, partition: (partition, offset), size, records } = file;
    Map::from_iter([
        ("content".to_owned(), json!(content)),
        ("file-path".to_owned(), json!(uri)),
        ("file-format".to_owned(), json!("parquet")),
        ("spec-id".to_owned(), json!(spec_id)),
        ("partition".to_owned(), json!([partition, offset])),
        ("file-size-in-bytes".to_owned(), json!(size)),
        ("record-count".to_owned(), json!(records)),
    ])
}

/// `CountMap` or `ValueMap`; `None` for an empty one.
fn map<T>(all: &BTreeMap<i32, T>, value: impl Fn(&T) -> Option<Value>) -> Option<Value> {
    let (keys, values): (Vec<i32>, Vec<Value>) =
        all.iter().filter_map(|(&id, of)| Some((id, value(of)?))).unzip();
    (!keys.is_empty()).then(|| json!({ "keys": keys, "values": values }))
}

/// Bounds go as bytes in hexadecimal digits, whatever their type: so Iceberg's own client reads them.
fn hex(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|byte| format!("{byte:02X}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predicates_are_read_as_clients_write_them() {
        let n = |test, values: &[i64]| Filter::Test {
            column: "n".into(),
            test,
            values: values.iter().map(|&v| v.into()).collect(),
        };
        for (text, expected) in [
            ("true", Filter::Constant(true)),
            (r#"{"type":"literal","value":false}"#, Filter::Constant(false)),
            (r#"{"type":"eq","term":"n","value":5}"#, n(Test::In, &[5])),
            (r#"{"type":"in","term":"n","values":[1,2]}"#, n(Test::In, &[1, 2])),
            (r#"{"type":"not-null","term":"n"}"#, n(Test::NotNull, &[])),
            (
                r#"{"type":"gt-eq","term":{"type":"reference","term":"n"},"value":1}"#,
                n(Test::GreaterOrEqual, &[1]),
            ),
            (
                r#"{"type":"lt","left":{"type":"reference","name":"n"},
                    "right":{"type":"literal","value":3}}"#,
                n(Test::Less, &[3]),
            ),
            (
                r#"{"type":"not-in","child":{"type":"reference","name":"n"},
                    "values":[1,{"type":"literal","value":2}]}"#,
                n(Test::NotIn, &[1, 2]),
            ),
            (r#"{"type":"lt","left":3,"right":{"type":"reference","name":"n"}}"#, Filter::Unknown),
            (
                r#"{"type":"not","child":{"type":"and","left":true,
                    "right":{"type":"lt","term":"n","value":3}}}"#,
                Filter::Not(Box::new(Filter::And(
                    Box::new(Filter::Constant(true)),
                    Box::new(n(Test::Less, &[3])),
                ))),
            ),
            (
                r#"{"type":"eq","term":{"type":"transform","transform":"day","term":"n"},"value":1}"#,
                Filter::Unknown,
            ),
            (r#"{"type":"resembles","term":"n","value":1}"#, Filter::Unknown),
            ("7", Filter::Unknown),
        ] {
            assert_eq!(filter(&text.parse().unwrap(), 0), expected, "{text}");
        }
    }

    #[test]
    fn a_predicate_without_an_end_is_not_followed() {
        let mut json = Value::Bool(false);
        for _ in 0..2 * DEPTH {
            json = json!({ "type": "not", "child": json });
        }
        let mut found = filter(&json, 0);
        while let Filter::Not(child) = found {
            found = *child;
        }
        assert_eq!(found, Filter::Unknown);
    }

    #[test]
    fn a_plan_task_comes_back_as_it_was() {
        let request: PlanRequest =
            serde_json::from_str(r#"{"filter":{"type":"eq","term":"n","value":5}}"#).unwrap();
        let plan = ScanPlan { snapshot_id: 7, parts: vec![(3, 5)], ..ScanPlan::default() };
        let answer = completed("p", &plan, &request, Vec::new());
        let text = answer["plan-tasks"][0].as_str().unwrap();
        let task: PlanTask = serde_json::from_str(text).unwrap();
        let scan = task.request.scan(Some(task.part)).unwrap();
        assert_eq!(
            (scan.snapshot_id, scan.part, scan.case_sensitive),
            (Some(7), Some((3, 5)), true)
        );
        assert!(matches!(scan.filter, Filter::Test { test: Test::In, .. }));
        assert_eq!(answer["file-scan-tasks"], json!([]));
    }
}
