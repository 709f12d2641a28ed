//! Spans that have ended and wait to be sent: so many and no more.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Spans that wait at the most: some megabytes.
const WAITING: usize = 4096;

/// What became of spans.
#[derive(Debug, Default)]
pub struct SpanCounters {
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl SpanCounters {
    /// In the Prometheus text format.
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        for (name, help, counter) in [
            ("isk_trace_spans_sent_total", "Spans that the collector took.", &self.sent),
            (
                "isk_trace_spans_dropped_total",
                "Spans that were dropped: the collector was away, too slow, or refused them.",
                &self.dropped,
            ),
        ] {
            let value = counter.load(Ordering::Relaxed);
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n");
        }
        text
    }
}

/// Takes spans as they end, and makes nobody wait.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: mpsc::Sender<SpanData>,
    counters: Arc<SpanCounters>,
}

impl Queue {
    pub(crate) fn new(counters: &Arc<SpanCounters>) -> (Self, mpsc::Receiver<SpanData>) {
        let (waiting, ended) = mpsc::channel(WAITING);
        (Self { waiting, counters: Arc::clone(counters) }, ended)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if let Err(TrySendError::Full(_)) = self.waiting.try_send(span) {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What waits is sent by [`crate::Exporting::stop`].
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn so_many_wait_and_the_others_are_dropped_and_counted() {
        let counters = Arc::default();
        let (queue, mut ended) = Queue::new(&counters);
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        (0..WAITING + 3).for_each(|_| drop(tracer.start("one")));
        assert!(counters.metrics_text().contains("isk_trace_spans_dropped_total 3\n"));
        assert_eq!(ended.len(), WAITING);
        ended.close();
        drop(tracer.start("after the end"));
        assert_eq!(counters.dropped.load(Ordering::Relaxed), 3);
    }
}
