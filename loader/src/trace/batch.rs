//! The span of a batch: from its first try to COMMIT, or until it is given up as it is.

use std::sync::Arc;

use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanKind, Status, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tracing::field::{DisplayValue, display};

use super::export::tracer;
use crate::ledger::Lease;
use crate::message::Message;
use crate::postgres::Servers;
use crate::sink::Fault;
use crate::stats::Counts;
use crate::writer::{Database, Shared};

/// A span has links to so many messages at most, as many as OpenTelemetry allows by default.
const LINKS: usize = 128;

/// The span of what is stored in one transaction; none unless traces are exported.
pub(crate) struct BatchSpan(Option<Open>);

struct Open {
    span: Span,
    /// Of the messages that bring a trace.
    leases: Vec<Arc<Lease>>,
    /// How the last try ended; none once one has ended well.
    failure: Option<Failure>,
}

struct Failure {
    /// The SQLSTATE, or where there is none a word.
    code: String,
    text: String,
}

impl BatchSpan {
    /// A batch is to be stored.
    pub(crate) fn begin(shared: &Shared, batch: &[Message]) -> Self {
        Self(tracer().map(|tracer| {
            let mut leases = shared.ledger.leases(batch.iter().map(|message| message.lease));
            leases.retain(|lease| lease.trace.producer().is_some());
            Open::begin(tracer, &shared.database, batch.len(), leases)
        }))
    }

    /// For log lines, so that the trace is found from them.
    pub(crate) fn trace_id(&self) -> Option<DisplayValue<TraceId>> {
        let context = self.0.as_ref()?.span.span_context();
        context.is_sampled().then(|| display(context.trace_id()))
    }

    /// A try has failed.
    pub(crate) fn failed(&mut self, fault: &Fault) {
        if let Some(open) = &mut self.0 {
            // The same text as in the log: no fault quotes an event.
            let text = fault.error.to_string();
            let code = fault.code.clone();
            let attributes =
                vec![KeyValue::new("error.type", code.clone()), KeyValue::new("error.message", text.clone())];
            open.span.add_event("attempt failed", attributes);
            open.failure = Some(Failure { code, text });
        }
    }

    /// COMMIT was answered.
    pub(crate) fn committed(self, counts: Counts) {
        let Some(mut open) = self.0 else { return };
        for (name, count) in [
            ("pg_mask.stored", counts.stored),
            ("pg_mask.duplicate", counts.duplicate),
            ("pg_mask.rejected", counts.rejected),
        ] {
            open.span.set_attribute(KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX)));
        }
        for lease in &open.leases {
            lease.trace.committed(open.span.span_context());
        }
        open.failure = None;
    }
}

impl Open {
    fn begin(tracer: &SdkTracer, database: &Database, messages: usize, leases: Vec<Arc<Lease>>) -> Self {
        let mut attributes = vec![
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.operation.name", "COPY"),
            KeyValue::new("db.collection.name", database.inbox.clone()),
            KeyValue::new("messaging.system", "aws_sqs"),
            KeyValue::new("messaging.batch.message_count", i64::try_from(messages).unwrap_or(i64::MAX)),
        ];
        attributes.extend(server(&database.servers));
        let producers = leases.iter().filter_map(|lease| lease.trace.producer());
        let span = SpanBuilder::from_name(format!("COPY {}", database.inbox))
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
            .with_links(producers.take(LINKS).cloned().map(Link::with_context).collect())
            // A trace of its own: it is no more one message's than another's.
            .start_with_context(tracer, &Context::new());
        let failure = Failure { code: "abandoned".to_owned(), text: "the run has ended".to_owned() };
        Self { span, leases, failure: Some(failure) }
    }
}

impl Drop for Open {
    /// A batch that was not committed was given up.
    fn drop(&mut self) {
        let Some(Failure { code, text }) = self.failure.take() else { return };
        for lease in &self.leases {
            lease.trace.failed(self.span.span_context(), &text);
        }
        if code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
            self.span.set_attribute(KeyValue::new("db.response.status_code", code.clone()));
        }
        self.span.set_attribute(KeyValue::new("error.type", code));
        self.span.set_status(Status::error(text));
    }
}

/// What is known of the server beforehand: of several hosts it is not known which one it will be.
fn server(servers: &Servers) -> impl Iterator<Item = KeyValue> + use<> {
    let database = KeyValue::new("db.namespace", servers.database().to_owned());
    let all = servers.to_string();
    let one = all.rsplit_once(':').filter(|_| !all.contains(", "));
    let address = one.map(|(host, _)| KeyValue::new("server.address", host.to_owned()));
    let port =
        one.and_then(|(_, port)| port.parse::<i64>().ok()).map(|port| KeyValue::new("server.port", port));
    [Some(database), address, port].into_iter().flatten()
}
