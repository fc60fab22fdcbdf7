//! Traces from the producer of a message to the database, as a collector receives them.

use std::collections::BTreeSet;

use crate::common::{Proxy, World, event};

#[cfg(feature = "otlp")]
mod exported;

/// Trace context of a producer, with the sampled flag.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn message_attributes_are_asked_for_only_where_traces_are_exported() {
    World::run(async |world| {
        let asked = async |endpoint: &str| {
            world.queue.send_with(&event(0), &[("traceparent", TRACEPARENT)]).await;
            let proxy = Proxy::start().await;
            let loader = world.loader().through(&proxy).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
            loader.until_empty(&world.queue).await.expect(0);
            proxy.attributes()
        };
        assert_eq!(asked("").await, BTreeSet::new());
        // Nothing listens there, and nothing needs to.
        let with_endpoint = asked("http://127.0.0.1:9").await;
        let both = ["traceparent".to_owned(), "tracestate".to_owned()];
        assert_eq!(with_endpoint, both.into_iter().filter(|_| cfg!(feature = "otlp")).collect());
    })
    .await;
}
