//! The spans that a collector receives, in builds with traces.

use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::TRACEPARENT;
use crate::common::{Canary, Collector, Depth, Loader, Proxy, World, attribute, event, eventually, hex};

/// Maximum links of a span.
const LINKS: usize = 128;

fn traced(world: &World, collector: &Collector) -> Loader {
    world.loader().env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)
}

/// Returns a random trace context.
fn traceparent() -> String {
    format!("00-{:032x}-{:016x}-01", fastrand::u128(1..), fastrand::u64(1..))
}

/// Returns the trace id and the span id in a traceparent.
fn ids(traceparent: &str) -> (String, String) {
    let mut parts = traceparent.split('-').skip(1).map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap())
}

fn value(span: &Span, name: &str) -> Option<String> {
    attribute(&span.attributes, name)
}

fn code(span: &Span) -> StatusCode {
    span.status.as_ref().map_or(StatusCode::Unset, Status::code)
}

/// Returns the spans of messages and the spans of batches.
fn sorted(collector: &Collector) -> (Vec<Span>, Vec<Span>) {
    collector.spans().into_iter().partition(|span| value(span, "messaging.message.id").is_some())
}

#[tokio::test]
async fn a_trace_goes_on_from_the_message_into_the_database() {
    World::run(async |world| {
        let collector = Collector::start().await;
        let state = ("tracestate", "vendor=one,other=two");
        let id = world.queue.send_with(&event(0), &[("traceparent", TRACEPARENT), state]).await;
        // None of these belongs to a sampled trace.
        world.queue.send_with(&event(1), &[]).await;
        world.queue.send_with(&event(2), &[("traceparent", "00-1-1-01"), state]).await;
        world.queue.send_with(&event(3), &[("traceparent", &traceparent().replace("-01", "-00"))]).await;
        let loader =
            traced(world, &collector).env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
        loader.until_empty(&world.queue).await.expect(0).says(&["traces are exported"]);

        let (messages, batches) = sorted(&collector);
        let [message] = messages.as_slice() else { panic!("{} spans of messages", messages.len()) };
        assert_eq!((hex(&message.trace_id), hex(&message.parent_span_id)), ids(TRACEPARENT));
        assert_eq!(message.trace_state, state.1);
        assert_eq!(message.name, format!("process {}", world.name));
        assert_eq!(message.kind(), SpanKind::Consumer);
        for (name, expected) in [
            ("messaging.system", "aws_sqs"),
            ("messaging.destination.name", &world.name),
            ("messaging.operation.type", "process"),
            ("messaging.message.id", &id),
            ("pg_mask.outcome", "deleted"),
        ] {
            assert_eq!(value(message, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(message.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["committed"]);
        assert_eq!(code(message), StatusCode::Unset);

        let [link] = message.links.as_slice() else { panic!("{} links", message.links.len()) };
        let batch = batches.iter().find(|batch| batch.span_id == link.span_id).unwrap();
        assert_eq!(batch.trace_id, link.trace_id);
        assert_eq!((batch.name.as_str(), batch.kind()), ("COPY login_inbox", SpanKind::Client));
        for (name, expected) in [
            ("db.system.name", "postgresql"),
            ("db.namespace", &world.name),
            ("db.operation.name", "COPY"),
            ("db.collection.name", "login_inbox"),
            ("server.address", &crate::common::setting("PGHOST")),
            ("server.port", &crate::common::setting("PGPORT")),
        ] {
            assert_eq!(value(batch, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(code(batch), StatusCode::Unset);
        let sum = |name: &str| -> usize {
            batches.iter().map(|batch| value(batch, name).unwrap().parse::<usize>().unwrap()).sum()
        };
        assert_eq!((sum("messaging.batch.message_count"), sum("pg_mask.stored")), (4, 4));
        assert!(batch.start_time_unix_nano >= message.start_time_unix_nano);
        assert!(batch.end_time_unix_nano <= message.end_time_unix_nano);

        assert_eq!(collector.resource("service.name").as_deref(), Some("pg_mask-loader"));
        assert_eq!(collector.resource("deployment.environment.name").as_deref(), Some("test"));
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_linked_to_the_traces_of_its_messages() {
    World::run(async |world| {
        let collector = Collector::start().await;
        let mut sent = BTreeSet::new();
        for n in 0..150 {
            let traceparent = traceparent();
            world.queue.send_with(&event(n), &[("traceparent", &traceparent)]).await;
            sent.insert(ids(&traceparent));
        }
        let loader = traced(world, &collector).options("--batch-size 150 --linger 60000");
        loader.until_empty(&world.queue).await.expect(0);

        let (messages, batches) = sorted(&collector);
        let [batch] = batches.as_slice() else { panic!("{} spans of batches", batches.len()) };
        let linked: BTreeSet<_> =
            batch.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect();
        assert_eq!(linked.len(), LINKS);
        assert!(linked.is_subset(&sent));
        let continued: BTreeSet<_> =
            messages.iter().map(|span| (hex(&span.trace_id), hex(&span.parent_span_id))).collect();
        assert_eq!(continued, sent);
        for span in &messages {
            assert_eq!(span.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&batch.span_id]);
        }
        assert!(messages.iter().all(|span| span.trace_id != batch.trace_id), "a trace of its own");
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_fails_says_why_in_its_span() {
    World::run(async |world| {
        let collector = Collector::start().await;
        world.queue.send_with(&event(0), &[("traceparent", TRACEPARENT)]).await;

        // The first try is cancelled, the next one succeeds.
        let lock = world.lock_logins().await;
        let running = traced(world, &collector).options("--log-level debug").start();
        let pid = world.backends_in_copy(1).await[0];
        world.db.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap();
        lock.batch_execute("COMMIT").await.unwrap();
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = running.stop().await.expect(0);
        let (_, batches) = sorted(&collector);
        let [batch] = batches.as_slice() else { panic!("{} spans of batches", batches.len()) };
        let [failed] = batch.events.as_slice() else { panic!("{} events", batch.events.len()) };
        assert_eq!(attribute(&failed.attributes, "error.type").as_deref(), Some("57014"));
        assert_eq!((code(batch), value(batch, "error.type")), (StatusCode::Unset, None));
        // The log lines of the failure and of the success both name the trace.
        assert_eq!(ended.stderr.matches(&format!("trace_id={}", hex(&batch.trace_id))).count(), 2);

        // A batch that is given up.
        let collector = Collector::start().await;
        let _lock = world.lock_logins().await;
        world.queue.send_with(&event(1), &[("traceparent", TRACEPARENT)]).await;
        let running = traced(world, &collector).options("--drain").start();
        let pid = world.backends_in_copy(1).await[0];
        world.sql("REVOKE INSERT ON login_inbox FROM login_loader").await;
        world.db.execute("SELECT pg_cancel_backend($1)", &[&pid]).await.unwrap();
        running.end().await.expect(4);
        let (messages, batches) = sorted(&collector);
        for span in [&messages[0], &batches[0]] {
            assert_eq!(code(span), StatusCode::Error);
            assert!(span.status.as_ref().unwrap().message.contains("SQLSTATE 42501"));
        }
        assert_eq!(value(&batches[0], "db.response.status_code").as_deref(), Some("42501"));
        assert_eq!(value(&messages[0], "pg_mask.outcome").as_deref(), Some("failed"));
    })
    .await;
}

#[tokio::test]
async fn a_delete_that_is_not_confirmed_shows_in_the_span_of_its_message() {
    World::run(async |world| {
        let (collector, proxy) = (Collector::start().await, Proxy::asking().await);
        world.queue.send_with(&event(0), &[("traceparent", TRACEPARENT)]).await;
        let running = traced(world, &collector).through(&proxy).start();
        proxy.next_delete().await.answer_status(500);
        running.signal("TERM").await;
        running.signal("INT").await;
        running.end().await.expect(0);
        let (messages, _) = sorted(&collector);
        assert_eq!(value(&messages[0], "pg_mask.outcome").as_deref(), Some("committed"));
        assert_eq!(code(&messages[0]), StatusCode::Error);
    })
    .await;
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_nothing() {
    World::run(async |world| {
        // Nobody listens on one port, and nobody answers on the other.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (nobody, nothing) = (closed.local_addr().unwrap(), silent.local_addr().unwrap());
        drop(closed);
        for (address, says) in
            [(nobody, "spans cannot be exported"), (nothing, "the last spans were not exported")]
        {
            for n in 0..60 {
                world.queue.send_with(&event(n), &[("traceparent", &traceparent())]).await;
            }
            // There are far more spans than may wait for the collector.
            let loader = world.loader().env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"));
            let loader =
                loader.env("OTEL_BSP_MAX_QUEUE_SIZE", "8").env("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4");
            let running = loader.env("OTEL_EXPORTER_OTLP_TIMEOUT", "60000").start();
            eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
            let stopped = Instant::now();
            let ended = running.stop().await.expect(0).says(&[says]);
            assert!(stopped.elapsed() < Duration::from_secs(15), "it ended after {:?}", stopped.elapsed());
            let summary = ended.summary();
            assert_eq!((summary.stored, summary.deleted), (60, 60));
        }
    })
    .await;
}

#[tokio::test]
async fn no_span_holds_a_body() {
    World::run(async |world| {
        let (collector, canary) = (Collector::start().await, Canary::new());
        let holds = |text: &str| collector.bytes().windows(text.len()).any(|part| part == text.as_bytes());
        let loader =
            || traced(world, &collector).env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic of-a-secret");
        let mut bodies = canary.events(20);
        bodies.extend(canary.rejects());
        for body in &bodies {
            // The loader requests only the two trace attributes.
            let other = ("canary", canary.marker.as_str());
            world.queue.send_with(body, &[("traceparent", &traceparent()), other]).await;
        }
        let ended = loader().until_empty(&world.queue).await.expect(0);
        let summary = ended.summary();
        assert_eq!((summary.stored, summary.rejected), (20, canary.rejects().len()));
        assert_eq!(collector.header("authorization"), "Basic of-a-secret");
        let mut output = ended.output();

        // Runs that fail with events in flight, and one message that the database refuses.
        for body in &canary.events(5) {
            world.queue.send_with(body, &[("traceparent", &traceparent())]).await;
        }
        output += &world.break_off_in_mid_copy(loader).await;
        world.sql("ALTER TABLE user_logins RENAME COLUMN locale TO gone").await;
        output += &loader().end().await.expect(4).output();

        let spans = collector.spans();
        assert!(spans.iter().any(|span| value(span, "error.type").is_some()) && spans.len() > bodies.len());
        assert!(!holds(&canary.marker), "in a span");
        assert!(!output.contains("of-a-secret"), "in the log");
        // Proves that the search finds text that is in a span.
        assert!(holds(&world.name));
    })
    .await;
}
