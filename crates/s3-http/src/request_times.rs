//! How long requests to the gateway take, by what they are about.

use std::time::Duration;

use http::Method;
use isk_model::Histogram;

/// How long requests took until their answer's head.
#[derive(Debug, Default)]
pub(crate) struct RequestTimes {
    get_object: Histogram,
    head_object: Histogram,
    list: Histogram,
    write: Histogram,
}

/// Whether a path names an object, and not a bucket or nothing.
pub(crate) fn names_an_object(path: &str) -> bool {
    path.trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty())
}

impl RequestTimes {
    pub(crate) fn observe(&self, method: &Method, path: &str, took: Duration) {
        let histogram = match (method, names_an_object(path)) {
            (&Method::GET, true) => &self.get_object,
            (&Method::HEAD, true) => &self.head_object,
            (&Method::GET | &Method::HEAD, false) => &self.list,
            _ => &self.write,
        };
        histogram.observe(took);
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let about = "How long requests to the gateway took, until their answer's head.";
        let all = [
            ("GET object", &self.get_object),
            ("HEAD object", &self.head_object),
            ("list", &self.list),
            ("write", &self.write),
        ];
        Histogram::render(&mut text, ("isk_gateway_request_seconds", about), "route", all);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let times = RequestTimes::default();
        for (method, path) in [
            (Method::GET, "/hotset/t/x"),
            (Method::GET, "/hotset/"),
            (Method::HEAD, "/hotset"),
            (Method::HEAD, "/hotset/t/x"),
            (Method::PUT, "/lake/x"),
        ] {
            times.observe(&method, path, Duration::from_millis(2));
        }
        let text = times.render();
        for (route, count) in [("GET object", 1), ("HEAD object", 1), ("list", 2), ("write", 1)] {
            let line = format!("isk_gateway_request_seconds_count{{route=\"{route}\"}} {count}");
            assert!(text.contains(&line), "{text}");
        }
    }
}
