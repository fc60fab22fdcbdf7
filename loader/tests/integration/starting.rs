//! A loader that starts before its database or its queue.

use std::time::Duration;

use tokio::time::sleep;

use crate::common::{
    Depth, Link, Loader, OwnServers, Proxy, Queue, SCHEMA, Summary, World, events, eventually, request,
    setting,
};

const METRICS: &str = "--metrics-address 127.0.0.1:0";
/// Waits for longer than any test runs.
const WAIT: &str = "--wait-for-start 600";

#[tokio::test]
async fn a_database_that_boots_slower_is_waited_for() {
    let servers = OwnServers::start("late", &[]);
    let session = servers.connect().await;
    for file in SCHEMA {
        session.batch_execute(file).await.unwrap();
    }
    session.batch_execute("CREATE ROLE late LOGIN PASSWORD 'late' IN ROLE login_loader").await.unwrap();
    drop(session);
    servers.pg_ctl(&["stop", "-m", "fast"]);
    let queue = Queue::create(servers.setting("AWS_ENDPOINT_URL"), "late").await;
    queue.send(&events(10)).await;

    let database = format!(
        "postgres://late:late@127.0.0.1:{}/{}",
        servers.setting("PGPORT"),
        servers.setting("PGDATABASE")
    );
    let loader = || {
        Loader::at_queue("late")
            .at(servers.setting("AWS_ENDPOINT_URL"))
            .env("DATABASE_URL", &database)
            .options(METRICS)
    };
    // Without the option, the start fails at once.
    loader().end().await.expect(4).says(&["cannot be reached"]);
    let waiting = loader().options(WAIT).start();
    let address = waiting.metrics_address().await;
    eventually("some tries", async || waiting.said().matches("waiting for the start").count() > 2).await;
    assert_eq!(request(&address, "GET", "/readyz").await.0, 503);
    assert_eq!(queue.depth().await, Depth::visible(10), "nothing was so much as received");

    servers.pg_ctl(&["start"]);
    eventually("readiness", async || request(&address, "GET", "/readyz").await.0 == 200).await;
    eventually("an empty queue", async || queue.depth().await == Depth::EMPTY).await;
    assert_eq!(waiting.stop().await.expect(0).summary(), Summary::stored(10));
}

#[tokio::test]
async fn a_queue_service_that_boots_slower_is_waited_for() {
    World::run(async |world| {
        let link = Link::to(setting("AWS_ENDPOINT_URL").trim_start_matches("http://")).await;
        link.cut();
        let endpoint = format!("http://127.0.0.1:{}", link.port);
        let waiting = world.loader().at(&endpoint).options(WAIT).start();
        eventually("a try", async || waiting.said().contains("waiting for the start")).await;
        link.mend();
        world.queue.send(&events(10)).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        assert_eq!(waiting.stop().await.expect(0).summary(), Summary::stored(10));
    })
    .await;
}

#[tokio::test]
async fn a_start_does_not_wait_on_a_permanent_error() {
    World::run(async |world| {
        let loader = || world.loader().options(WAIT);
        let (password, name) = (&world.password, &world.name);
        loader().options("--inbox no_such_inbox").end().await.expect(4).says(&["no inbox no_such_inbox"]);
        loader().options("--queue nowhere").end().await.expect(3).says(&["no queue nowhere"]);
        loader().database(name, "wrong", name).end().await.expect(4).says(&["refused the password"]);
        loader().database(name, password, "nowhere").end().await.expect(4).says(&["does not exist"]);
    })
    .await;
}

#[tokio::test]
async fn a_region_that_is_not_there_yet_is_waited_for() {
    World::run(async |world| {
        // Without a region or an endpoint, as when the instance metadata service provides the region and isn't up yet.
        let loader = || {
            let loader = world.loader().without("AWS_REGION").without("AWS_ENDPOINT_URL");
            loader.env("AWS_EC2_METADATA_DISABLED", "true")
        };
        // Exit code 3 lets systemd start the loader again: the unit's `RestartPreventExitStatus` is 2, 5 and 6.
        loader().end().await.expect(3).says(&["no AWS region"]);
        let waiting = loader().options(WAIT).start();
        eventually("a second try", async || waiting.said().matches("no AWS region").count() > 1).await;
        waiting.stop().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn a_loader_that_waits_for_its_start_stops_at_once() {
    World::run(async |world| {
        let waiting =
            world.loader().env("DATABASE_URL", "host=127.0.0.1 port=1 user=u").options(WAIT).start();
        eventually("a try", async || waiting.said().contains("waiting for the start")).await;
        sleep(Duration::from_secs(1)).await;
        let signalled = std::time::Instant::now();
        waiting.stop().await.expect(0);
        assert!(signalled.elapsed() < Duration::from_secs(5), "{:?}", signalled.elapsed());
    })
    .await;
}

#[tokio::test]
async fn nothing_is_received_by_a_loader_that_must_not_delete_or_hide() {
    World::run(async |world| {
        world.queue.send(&events(3)).await;
        for call in ["DeleteMessageBatch", "ChangeMessageVisibilityBatch"] {
            let proxy = Proxy::start().await;
            proxy.deny(call);
            let ended = world.loader().through(&proxy).end().await.expect(3);
            ended.says(&[call, "AccessDenied"]);
            assert_eq!(proxy.deliveries().len(), 0, "received, each once nearer to the dead-letter queue");
        }
    })
    .await;
}
