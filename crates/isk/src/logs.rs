//! The log, and traces beside it. Lines of what is traced have the ids of trace and span.

use std::fmt;
use std::io::IsTerminal;

use isk_traces::{TARGET, Traces};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Logs go to stderr, by default from the given level on; spans to `traces`, where there are any.
pub fn subscriber(default: &str, traces: Option<&Traces>) -> impl Subscriber + Send + Sync + use<> {
    let mut filter = EnvFilter::try_from_env("ISK_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // The first would log signatures and session tokens. Spans are for traces alone.
    let directives = [isk_s3_http::LOG_DIRECTIVE.to_owned(), format!("{TARGET}=off")];
    for directive in directives.iter().filter_map(|directive| directive.parse().ok()) {
        filter = filter.add_directive(directive);
    }
    let is_json = std::env::var("ISK_LOG_FORMAT").is_ok_and(|format| format == "json");
    let spans = traces.map(Traces::layer);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let colours = std::io::stderr().is_terminal();
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match (is_json, &spans) {
        (false, None) => lines.with_ansi(colours).boxed(),
        (true, None) => lines.json().with_ansi(colours).boxed(),
        (false, Some(_)) => {
            let plain = Format::default().with_ansi(colours);
            lines.event_format(WithIds { inner: plain, as_json: false }).boxed()
        }
        (true, Some(_)) => {
            let json: Format<Json> = Format::default().json();
            let fields = lines.fmt_fields(JsonFields::new());
            fields.event_format(WithIds { inner: json, as_json: true }).boxed()
        }
    };
    Registry::default().with(lines.with_filter(filter)).with(spans)
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
