//! Traces: from the producer of a message to the database, in builds with the feature `otlp`.
//!
//! A message with a W3C trace context among its message attributes gets its own span, a child of its producer's. The
//! span lasts from the receipt to the confirmed delete. Every batch gets a span, too, from its first try to COMMIT. The
//! two kinds are linked to each other. Spans are exported via OTLP, as OpenTelemetry's environment variables say. If
//! these name no endpoint, no span is made.
//!
//! The pipeline uses these types without asking whether there are traces. Without the feature they hold nothing, and
//! their functions do nothing.

#[cfg(feature = "otlp")]
mod batch;
#[cfg(feature = "otlp")]
mod context;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod message;
#[cfg(not(feature = "otlp"))]
mod off;

#[cfg(not(feature = "otlp"))]
pub(crate) use off::{BatchSpan, MessageSpan, message_attributes, start};
#[cfg(feature = "otlp")]
pub(crate) use {batch::BatchSpan, context::message_attributes, export::start, message::MessageSpan};

/// Variables with the endpoint for spans. The first one that is set counts.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether the environment asks for traces, by OpenTelemetry's variables.
fn are_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let by_otlp = variable("OTEL_TRACES_EXPORTER")
        .is_none_or(|exporters| exporters.split(',').any(|exporter| exporter.trim() == "otlp"));
    ENDPOINTS.iter().any(|name| variable(name).is_some()) && by_otlp && !disabled
}

/// Returns an environment variable. An empty one counts as not set, as OpenTelemetry's specification says.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_endpoint_there_are_no_traces() {
        let wanted = |set: &[(&str, &str)]| {
            are_wanted(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");
        assert!(!wanted(&[]));
        assert!(wanted(&[endpoint]));
        assert!(wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces")]));
        assert!(!wanted(&[endpoint, ("OTEL_SDK_DISABLED", "True")]));
        assert!(!wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!wanted(&[("OTEL_TRACES_EXPORTER", "otlp")]));
        assert!(wanted(&[endpoint, ("OTEL_TRACES_EXPORTER", "console, otlp"), ("OTEL_SDK_DISABLED", "no")]));
    }
}
