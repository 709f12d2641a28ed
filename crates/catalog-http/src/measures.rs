//! `GET /metrics`: counters, gauges and durations, as Prometheus text or as JSON.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use isk_model::Histogram;
use serde_json::{Map, Value, json};

use crate::handlers::App;
use crate::service::CatalogService;

/// `GET /metrics`; JSON for who accepts that, and does not also accept text.
pub(crate) async fn metrics<S: CatalogService>(
    State(app): State<App<S>>,
    headers: HeaderMap,
) -> Response {
    let more = (app.settings.more_metrics.0)();
    let mut text = app.service.metrics_text() + &app.access.metrics_text() + &more;
    let routes = app.routes.iter().map(|(route, took)| (route.as_str(), &**took));
    let about = "How long requests to the catalog took, until their answer's head.";
    Histogram::render(&mut text, ("isk_catalog_request_seconds", about), "route", routes);
    if wants_json(&headers) {
        return Json(json(&text)).into_response();
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|kinds| kinds.contains("application/json") && !kinds.contains("text/"))
}

/// The same as JSON: an object by name, each with its type, its help and its values.
fn json(text: &str) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            all.insert(name.to_owned(), json!({"help": help, "values": []}));
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            if let Some(metric) = all.get_mut(name).and_then(Value::as_object_mut) {
                metric.insert("type".to_owned(), kind.into());
            }
        } else if let Some((sample, value)) = line.rsplit_once(' ') {
            let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
            let bare = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let of = match all.contains_key(name) {
                true => name,
                false => bare.unwrap_or(name),
            };
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            let mut entry = json!({"value": number, "labels": labels_of(labels)});
            if of != name
                && let Some(entry) = entry.as_object_mut()
            {
                entry.insert("name".to_owned(), name.into());
            }
            if let Some(values) = all.get_mut(of).and_then(|metric| metric["values"].as_array_mut())
            {
                values.push(entry);
            }
        }
    }
    Value::Object(all)
}

/// The labels of `name="value",…}`, whose values have backslashes before quotes.
fn labels_of(text: &str) -> Map<String, Value> {
    let mut labels = Map::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let (mut value, mut end) = (String::new(), after.len());
        let mut letters = after.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                other => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value.into());
        rest = after.get(end..).unwrap_or_default().trim_start_matches(',');
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_json_with_the_same_numbers() {
        let text = "# HELP a_total Some of it.\n# TYPE a_total counter\na_total 7\n\
                    # HELP b_seconds How long.\n# TYPE b_seconds histogram\n\
                    b_seconds_bucket{route=\"GET /x/{y}\",le=\"+Inf\"} 2\nb_seconds_sum{route=\"GET /x/{y}\"} 0.5\n\
                    # HELP c_count None.\n# TYPE c_count gauge\nc_count{t=\"a\\\"b\\\\\\nc\",u=\"\"} 1\n";
        assert_eq!(
            json(text),
            json!({
                "a_total": {"type": "counter", "help": "Some of it.", "values": [{"value": 7.0, "labels": {}}]},
                "b_seconds": {"type": "histogram", "help": "How long.", "values": [
                    {"name": "b_seconds_bucket", "value": 2.0, "labels": {"route": "GET /x/{y}", "le": "+Inf"}},
                    {"name": "b_seconds_sum", "value": 0.5, "labels": {"route": "GET /x/{y}"}},
                ]},
                "c_count": {"type": "gauge", "help": "None.", "values": [{"value": 1.0, "labels": {"t": "a\"b\\\nc", "u": ""}}]},
            })
        );
    }

    #[test]
    fn json_is_for_who_asks_for_it_alone() {
        for (accept, expected) in [
            ("application/json", true),
            ("application/openmetrics-text;version=1.0.0,text/plain", false),
            ("text/html,application/json", false),
            ("*/*", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wants_json(&headers), expected, "{accept}");
        }
        assert!(!wants_json(&HeaderMap::new()));
    }
}
