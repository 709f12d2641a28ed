//! Traces: what a request spends its time on, as spans that a collector is told of over OTLP (HTTP, protobuf).
//!
//! Spans are `tracing`'s, under a target of their own. Where no collector is configured nobody listens to that
//! target, and a span costs what a disabled log line does. Attributes name topics, partitions and offsets, and how
//! much there was of something; never credentials, queries of URLs, keys of records or anything else of their contents.

mod context;
mod export;
mod layer;
mod queue;
mod request;

use std::fmt::Debug;

pub use context::{continue_from, current_ids, pass_on};
pub use export::{Exporting, Headers, InvalidSettings, TraceSettings, Traces};
pub use opentelemetry_sdk::trace::Sampler;
pub use queue::SpanCounters;
pub use request::{Asked, answered, start_of};
pub use tracing;
pub use tracing::{Instrument, Span};

/// The target of all spans that are traced, and of nothing else: no crate's name begins like it.
pub const TARGET: &str = "isk_span";

/// A span of what is done for a request: a child of the current one. Nothing, where nothing is traced: what is done
/// in the background begins no trace, but by [`root!`].
#[macro_export]
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        if $crate::is_within() { $crate::root!($name $(, $($fields)*)?) } else { $crate::Span::none() }
    };
}

/// A span that begins a trace where there is no current one.
#[macro_export]
macro_rules! root {
    ($name:literal $(, $($fields:tt)*)?) => {
        $crate::tracing::info_span!(target: $crate::TARGET, $name, $($($fields)*)?)
    };
}

/// Whether there is a current span, and somebody who listens to it.
#[doc(hidden)]
pub fn is_within() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::INFO) && !Span::current().is_disabled()
}

/// A count, as spans have it: OpenTelemetry's whole numbers are signed, and others would be told as text.
pub fn count(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// Notes in a span that what it is of failed. Of the error, its variant's name alone is told: its text may quote what
/// others wrote.
pub fn failed(span: &Span, error: &impl Debug) {
    if span.is_disabled() {
        return;
    }
    let text = format!("{error:?}");
    let name = text.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    span.record("error.type", name);
    span.record("otel.status_code", "ERROR");
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode};
    use opentelemetry::trace::{Status, TracerProvider};
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
    use tokio::sync::mpsc::Receiver;
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// What is told of what is done.
    fn told(done: impl FnOnce()) -> Vec<SpanData> {
        let (queue, mut ended): (_, Receiver<SpanData>) = queue::Queue::new(&Default::default());
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let subscriber = Registry::default().with(layer::layer(provider.tracer("test")));
        tracing::subscriber::with_default(subscriber, done);
        std::iter::from_fn(|| ended.try_recv().ok()).collect()
    }

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn request(headers: &HeaderMap, path: &str) -> Span {
        let method = Method::GET;
        Asked { method: &method, route: None, path, headers, request_id: "id" }.span()
    }

    fn attribute(span: &SpanData, name: &str) -> Option<String> {
        let found = span.attributes.iter().find(|pair| pair.key.as_str() == name);
        found.map(|pair| pair.value.to_string())
    }

    #[test]
    fn a_clients_trace_goes_on_and_is_passed_on() {
        let mut sent = HeaderMap::new();
        let spans = told(|| {
            let long = "a=".to_owned() + &"b".repeat(600);
            let request =
                request(&headers(&[("traceparent", THEIRS), ("tracestate", &long)]), "/x");
            let _entered = request.enter();
            let asking = span!("ask", isk.question = "why");
            asking.in_scope(|| pass_on(&mut sent));
            answered(&request, StatusCode::BAD_GATEWAY);
        });
        let [asking, request] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!(request.parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(asking.parent_span_id, request.span_context.span_id());
        let (trace, span) = (asking.span_context.trace_id(), asking.span_context.span_id());
        assert_eq!(sent["traceparent"], format!("00-{trace}-{span}-01"));
        assert_eq!((sent.len(), trace.to_string().as_str()), (1, &THEIRS[3..35]));
        let status =
            request.attributes.iter().find(|pair| pair.key.as_str().ends_with("status_code"));
        assert_eq!(status.map(|pair| &pair.value), Some(&opentelemetry::Value::I64(502)));
        assert!(matches!(request.status, Status::Error { .. }));
    }

    #[test]
    fn what_is_done_for_no_request_begins_no_trace_unless_it_is_told_to() {
        let spans = told(|| {
            span!("ask").in_scope(|| span!("more").in_scope(|| ()));
            root!("make", isk.x = 1).in_scope(|| span!("fetch").in_scope(|| ()));
            tracing::info_span!("of somebody else").in_scope(|| ());
        });
        let names: Vec<_> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["fetch", "make"]);
        assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
    }

    #[test]
    fn of_an_error_its_name_is_told_and_of_long_texts_the_start() {
        let spans = told(|| {
            let ask = || root!("ask", error.type = tracing::field::Empty);
            failed(&ask(), &std::io::ErrorKind::NotFound);
            failed(&ask(), &Some("what a record holds"));
            request(&headers(&[("user-agent", &"x".repeat(700))]), &"é".repeat(700));
        });
        assert_eq!(attribute(&spans[0], "error.type").as_deref(), Some("NotFound"));
        assert_eq!(attribute(&spans[1], "error.type").as_deref(), Some("Some"));
        assert!(!format!("{spans:?}").contains("record holds"));
        assert_eq!(attribute(&spans[2], "url.path").map(|path| path.len()), Some(512));
    }

    #[test]
    fn where_nobody_listens_nothing_is_passed_on() {
        let mut sent = HeaderMap::new();
        let span = request(&headers(&[("traceparent", THEIRS)]), "/x");
        span.in_scope(|| pass_on(&mut sent));
        assert!(current_ids().is_none() && sent.is_empty());
    }
}
