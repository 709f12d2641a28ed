//! What is asked of brokers, as spans.

use isk_traces::{Instrument, span};
use tracing::field::Empty;

use crate::error::KafkaError;

/// A question to the brokers as a span.
pub(crate) async fn traced<T>(
    what: &str,
    question: impl Future<Output = Result<T, KafkaError>>,
) -> Result<T, KafkaError> {
    let span = span!(
        "ask brokers",
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
        messaging.system = "kafka",
        isk.question = what,
    );
    let answer = question.instrument(span.clone()).await;
    answer.inspect_err(|error| isk_traces::failed(&span, error))
}
