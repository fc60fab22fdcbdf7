//! The span of a batch: from its first try to COMMIT, or until it is given up unchanged.

use std::fmt::Display;

use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanKind, Status, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tracing::field::{DisplayValue, display};

use super::export::tracer;
use super::message::MessageSpan;
use crate::telemetry::stats::Counts;
use libpq_connect::Servers;

/// Maximum links from a span to messages. OpenTelemetry allows this many by default.
const LINKS: usize = 128;

/// The span of the messages in one transaction. `None` unless traces are exported.
pub(crate) struct BatchSpan(Option<Open>);

struct Open {
    span: Span,
    /// Spans of the messages that have a trace.
    traces: Vec<MessageSpan>,
    /// Failure of the last try. `None` after a try that succeeded.
    failure: Option<LastFailure>,
}

struct LastFailure {
    /// The SQLSTATE, or a word if there is none.
    code: String,
    text: String,
}

impl BatchSpan {
    /// Begins the span of a batch with this many messages. `traces` returns the spans of the messages.
    pub(crate) fn begin(
        servers: &Servers,
        inbox: &str,
        messages: usize,
        traces: impl FnOnce() -> Vec<MessageSpan>,
    ) -> Self {
        Self(tracer().map(|tracer| {
            let mut traces = traces();
            traces.retain(|trace| trace.producer().is_some());
            Open::begin(tracer, servers, inbox, messages, traces)
        }))
    }

    /// Returns the trace id for log lines, so that the trace can be found from them.
    pub(crate) fn trace_id(&self) -> Option<DisplayValue<TraceId>> {
        let context = self.0.as_ref()?.span.span_context();
        context.is_sampled().then(|| display(context.trace_id()))
    }

    /// Records a failed try.
    pub(crate) fn failed(&mut self, code: &str, error: &impl Display) {
        if let Some(open) = &mut self.0 {
            // Errors never quote an event.
            let (code, text) = (code.to_owned(), error.to_string());
            let attributes =
                vec![KeyValue::new("error.type", code.clone()), KeyValue::new("error.message", text.clone())];
            open.span.add_event("attempt failed", attributes);
            open.failure = Some(LastFailure { code, text });
        }
    }

    /// Ends the span, because COMMIT was answered.
    pub(crate) fn committed(self, counts: Counts) {
        let Some(mut open) = self.0 else { return };
        for (name, count) in [
            ("pg_mask.stored", counts.stored),
            ("pg_mask.duplicate", counts.duplicate),
            ("pg_mask.rejected", counts.rejected),
        ] {
            open.span.set_attribute(KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX)));
        }
        for trace in &open.traces {
            trace.committed(open.span.span_context());
        }
        open.failure = None;
    }
}

impl Open {
    fn begin(
        by: &SdkTracer,
        servers: &Servers,
        inbox: &str,
        messages: usize,
        traces: Vec<MessageSpan>,
    ) -> Self {
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.operation.name", "COPY"),
            KeyValue::new("db.collection.name", inbox.to_owned()),
            KeyValue::new("messaging.system", "aws_sqs"),
            KeyValue::new("messaging.batch.message_count", i64::try_from(messages).unwrap_or(i64::MAX)),
        ];
        attributes.extend(server(servers));
        let producers = traces.iter().filter_map(MessageSpan::producer);
        let span = SpanBuilder::from_name(format!("COPY {inbox}"))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .with_links(producers.take(LINKS).cloned().map(Link::with_context).collect())
            // It has its own trace, because it belongs no more to one message than to another.
            .start_with_context(by, &Context::new());
        let failure = LastFailure { code: "abandoned".to_owned(), text: "the run has ended".to_owned() };
        Self { span, traces, failure: Some(failure) }
    }
}

impl Drop for Open {
    /// Ends the span. A batch that was not committed was given up.
    fn drop(&mut self) {
        let Some(LastFailure { code, text }) = self.failure.take() else { return };
        for trace in &self.traces {
            trace.failed(self.span.span_context(), &text);
        }
        if code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            self.span.set_attribute(KeyValue::new("db.response.status_code", code.clone()));
        }
        self.span.set_attribute(KeyValue::new("error.type", code));
        self.span.set_status(Status::error(text));
    }
}

/// Returns what is known about the server in advance. With several hosts, it isn't known which one will be used.
fn server(servers: &Servers) -> impl Iterator<Item = KeyValue> + use<> {
    let database = KeyValue::new("db.namespace", servers.database().to_owned());
    let all = servers.to_string();
    let one = all.rsplit_once(':').filter(|_| !all.contains(", "));
    let address = one.map(|(host, _)| KeyValue::new("server.address", host.to_owned()));
    let port =
        one.and_then(|(_, port)| port.parse::<i64>().ok()).map(|port| KeyValue::new("server.port", port));
    [Some(database), address, port].into_iter().flatten()
}
