//! Replaces traces in builds without them.
#![expect(clippy::unused_self, clippy::unused_async, reason = "the surface is that of builds with traces")]

use std::fmt::Display;

use aws_sdk_sqs::types::Message as SqsMessage;
use tracing::info;

use super::{are_wanted, variable};
use crate::telemetry::stats::Counts;
use libpq_connect::Servers;

/// See `export::Traces`.
pub(crate) struct Traces;

/// Logs once that the environment asks for traces, which this build lacks. The environment may be set for all programs
/// on a machine, so this isn't a warning.
pub(crate) fn start() -> Traces {
    if are_wanted(variable) {
        info!(
            "no traces are exported: OTEL_EXPORTER_OTLP_ENDPOINT is set, but the loader was built without the feature otlp"
        );
    }
    Traces
}

impl Traces {
    pub(crate) async fn finish(self) {}
}

/// See `context::message_attributes`.
pub(crate) fn message_attributes() -> Option<Vec<String>> {
    None
}

/// See `message::MessageSpan`.
#[derive(Clone, Default)]
pub(crate) struct MessageSpan(());

impl MessageSpan {
    pub(crate) fn begin(_queue: &str, _received: &SqsMessage) -> Self {
        Self(())
    }

    pub(crate) fn deleted(&self) {}
}

/// See `batch::BatchSpan`.
pub(crate) struct BatchSpan;

impl BatchSpan {
    pub(crate) fn begin(
        _servers: &Servers,
        _inbox: &str,
        _messages: usize,
        _traces: impl FnOnce() -> Vec<MessageSpan>,
    ) -> Self {
        Self
    }

    pub(crate) fn trace_id(&self) -> Option<&'static str> {
        None
    }

    pub(crate) fn failed(&mut self, _code: &str, _error: &impl Display) {}

    pub(crate) fn committed(self, _counts: Counts) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_there_is_nothing() {
        assert_eq!(size_of::<(Traces, MessageSpan, BatchSpan)>(), 0);
        assert_eq!(message_attributes(), None);
    }
}
