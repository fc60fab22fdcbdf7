//! The span of a message: from its receipt to its confirmed delete.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_sqs::types::Message as SqsMessage;
use opentelemetry::trace::{Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::context;
use super::export::tracer;

/// The span of one delivery of a message. `None` if the message has no trace, or one that is not sampled. The span ends
/// with the lease, whatever happens to the lease.
#[derive(Clone, Default)]
pub(crate) struct MessageSpan(Option<Arc<Open>>);

struct Open {
    /// The span in which the message was sent.
    producer: SpanContext,
    state: Mutex<State>,
}

struct State {
    span: Span,
    outcome: Outcome,
}

/// Outcome of a delivery.
enum Outcome {
    /// Nothing yet. If nothing more happens, the message is left in the queue.
    Open,
    /// Its batch was not stored. Holds the reason.
    Failed(String),
    Committed,
    Deleted,
}

impl MessageSpan {
    /// Begins the span of a received message.
    pub(crate) fn begin(queue: &str, received: &SqsMessage) -> Self {
        let begin = || {
            let parent = context::of(received.message_attributes()?)?;
            Self::child(tracer()?, &parent, queue, received.message_id()?)
        };
        // Most messages have no attributes.
        Self(received.message_attributes().and_then(|_| begin()))
    }

    fn child(tracer: &SdkTracer, parent: &Context, queue: &str, message_id: &str) -> Option<Arc<Open>> {
        let span = SpanBuilder::from_name(format!("process {queue}"))
            .with_kind(SpanKind::Consumer)
            .with_attributes([
                KeyValue::new("messaging.system", "aws_sqs"),
                KeyValue::new("messaging.destination.name", queue.to_owned()),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.operation.name", "process"),
                KeyValue::new("messaging.message.id", message_id.to_owned()),
            ])
            .start_with_context(tracer, parent);
        span.is_recording().then(|| {
            let producer = parent.span().span_context().clone();
            Arc::new(Open { producer, state: Mutex::new(State { span, outcome: Outcome::Open }) })
        })
    }

    /// Ends the span, because SQS confirmed the delete.
    pub(crate) fn deleted(&self) {
        if let Some(mut state) = self.state() {
            state.outcome = Outcome::Deleted;
            state.end();
        }
    }

    /// Returns the span in which the message was sent.
    pub(super) fn producer(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|open| &open.producer)
    }

    /// Records that the batch's transaction was committed.
    pub(super) fn committed(&self, batch: &SpanContext) {
        if let Some(mut state) = self.state() {
            state.outcome = Outcome::Committed;
            state.span.add_event("committed", Vec::new());
            state.link(batch);
        }
    }

    /// Records that the batch was given up unchanged. It may be retried in parts.
    pub(super) fn failed(&self, batch: &SpanContext, why: &str) {
        if let Some(mut state) = self.state() {
            state.outcome = Outcome::Failed(why.to_owned());
            state.link(batch);
        }
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        Some(self.0.as_ref()?.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn link(&mut self, batch: &SpanContext) {
        if batch.is_sampled() {
            self.span.add_link(batch.clone(), Vec::new());
        }
    }

    fn end(&mut self) {
        let (outcome, error) = match &mut self.outcome {
            Outcome::Deleted => ("deleted", None),
            Outcome::Committed => {
                let error =
                    "stored, but its delete was not confirmed: it may come back and be found a duplicate";
                ("committed", Some(error.to_owned()))
            }
            Outcome::Failed(why) => ("failed", Some(std::mem::take(why))),
            // For example, a loader was stopped with messages in flight.
            Outcome::Open => ("returned", None),
        };
        self.span.set_attribute(KeyValue::new("pg_mask.outcome", outcome));
        if let Some(error) = error {
            self.span.set_attribute(KeyValue::new("error.type", outcome));
            self.span.set_status(Status::error(error));
        }
        self.span.end();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A span that has ended takes nothing more.
        self.end();
    }
}
