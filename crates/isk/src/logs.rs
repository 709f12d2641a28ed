//! The log, and traces beside it. Lines of what is traced have the ids of trace and span.

use std::fmt;
use std::io::IsTerminal;

use isk_traces::{TARGET, Traces};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Logs go to stderr, by default from the given level on; spans to `traces`, where there are any.
///
/// One filter is for both. Where layers have filters of their own, an event may be lost: what one of them decided when somebody only
/// asked whether a line would be logged, as libraries do, is taken for its decision about the next line of the thread.
pub fn subscriber(default: &str, traces: Option<&Traces>) -> impl Subscriber + Send + Sync + use<> {
    let mut filter = EnvFilter::try_from_env("ISK_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // The first would log signatures and session tokens. Spans are for traces alone.
    let spans = if traces.is_some() { "info" } else { "off" };
    let directives = [isk_s3_http::LOG_DIRECTIVE.to_owned(), format!("{TARGET}={spans}")];
    for directive in directives.iter().filter_map(|directive| directive.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let is_json = std::env::var("ISK_LOG_FORMAT").is_ok_and(|format| format == "json");
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal();
    let lines: Box<dyn Layer<Layered<EnvFilter, Registry>> + Send + Sync> =
        match (is_json, traces.is_some()) {
            (false, false) => lines.with_ansi(colours).boxed(),
            (true, false) => lines.json().with_ansi(colours).boxed(),
            (false, true) => lines.event_format(WithIds { inner: Plain, as_json: false }).boxed(),
            (true, true) => {
                let json = Format::default().json();
                let json = json.with_current_span(false).with_span_list(false);
                let fields = lines.fmt_fields(JsonFields::new());
                fields.event_format(WithIds { inner: json, as_json: true }).boxed()
            }
        };
    Registry::default().with(filter).with(lines).with(traces.map(Traces::layer))
}

/// A line without the spans that it stands in: the ids behind it tell of them.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let metadata = event.metadata();
        write!(writer, " {:>5} {}: ", metadata.level().as_str(), metadata.target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// A format, and behind it the ids of the current trace and span.
struct WithIds<F> {
    inner: F,
    as_json: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some((trace, span)) = isk_traces::current_ids() else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{}", with_ids(line.trim_end(), &trace, &span, self.as_json))
    }
}

fn with_ids(line: &str, trace: &str, span: &str, as_json: bool) -> String {
    match line.strip_suffix('}').filter(|_| as_json) {
        Some(open) => format!("{open},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}"),
        None => format!("{line} trace_id={trace} span_id={span}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_behind_a_line_and_in_its_object() {
        assert_eq!(with_ids("a{x=1}", "7", "8", false), "a{x=1} trace_id=7 span_id=8");
        let json = with_ids(r#"{"fields":{"message":"a"}}"#, "7", "8", true);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["trace_id"], &json["span_id"]), (&"7".into(), &"8".into()));
        assert_eq!(json["fields"]["message"], "a");
    }
}
