//! What stands in for traces in builds without them.
#![expect(clippy::unused_self, clippy::unused_async, reason = "the surface is that of builds with traces")]

use aws_sdk_sqs::types::Message as SqsMessage;
use tracing::info;

use super::{are_wanted, variable};
use crate::message::Message;
use crate::sink::Fault;
use crate::stats::Counts;
use crate::writer::Shared;

/// See `export::Traces`.
pub(crate) struct Traces;

/// Says once that the environment asks for what is not there. It may do so for all programs of a machine, so this is no
/// warning.
pub(crate) fn start() -> Traces {
    if are_wanted(variable) {
        info!(
            "no traces are exported, though OTEL_EXPORTER_OTLP_ENDPOINT is set: built without the feature otlp"
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
#[derive(Default)]
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
    pub(crate) fn begin(_shared: &Shared, _batch: &[Message]) -> Self {
        Self
    }

    pub(crate) fn trace_id(&self) -> Option<&'static str> {
        None
    }

    pub(crate) fn failed(&mut self, _fault: &Fault) {}

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
