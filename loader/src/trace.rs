//! Traces: from the producer of a message to the database, in builds with the feature `otlp`.
//!
//! A message that brings a W3C trace context among its message attributes gets a span of its own, a child of its
//! producer's, from its receipt to its confirmed delete. Every batch gets one, from its first try to COMMIT. Both are
//! linked to each other. They are exported by OTLP, as OpenTelemetry's environment variables say; where these name no
//! endpoint, no span is made.
//!
//! The pipeline uses what is exported here without asking whether there are traces: without the feature these types hold
//! nothing and their functions do nothing.

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

/// Where spans go: the first that is set.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Whether the environment asks for traces, by OpenTelemetry's variables.
fn are_wanted(variable: impl Fn(&str) -> Option<String>) -> bool {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let by_otlp = variable("OTEL_TRACES_EXPORTER")
        .is_none_or(|exporters| exporters.split(',').any(|exporter| exporter.trim() == "otlp"));
    ENDPOINTS.iter().any(|name| variable(name).is_some()) && by_otlp && !disabled
}

/// A variable of the environment. One that is empty counts as not set, by OpenTelemetry's specification.
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
