//! Leases: a message in flight stays hidden from others until its delete is confirmed.

use std::time::Duration;

use sqs_stub::Server;
use tokio::time::sleep;

use crate::common::{Depth, Summary, World, event, events, eventually};

#[tokio::test]
async fn a_batch_that_takes_longer_than_the_visibility_is_received_once() {
    World::run(async |world| {
        let lock = world.lock_logins().await;
        world.queue.send(&events(30)).await;
        let loader = world.loader().options("--drain --visibility 12").start();
        world.backends_in_copy(1).await;
        // Longer than the leases last without an extension.
        sleep(Duration::from_secs(15)).await;
        assert_eq!(world.queue.depth().await, Depth { hidden: 30, ..Depth::EMPTY });
        lock.batch_execute("COMMIT").await.unwrap();
        let ended = loader.end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(30));
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn a_receive_call_in_flight_at_shutdown_is_awaited() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        stub.fill(&world.name, 30, event);
        // The delay leaves time between a message's delivery by the stub and the answer's arrival.
        stub.set_delay(Duration::from_secs(1));
        let loader = world.loader().at(&stub.url()).options("--pollers 2").start();
        eventually("a receive call under way", async || stub.counters().received > 0).await;
        loader.signal("TERM").await;
        let summary = loader.end().await.expect(0).summary();
        let depth = stub.depth(&world.name).unwrap();
        assert_eq!(depth.hidden, 0, "hidden from everyone");
        assert_eq!(summary, Summary::stored(30 - usize::try_from(depth.visible).unwrap()));
    })
    .await;
}

/// Vector stored a quarter of the messages twice in this situation, because it received faster than it deleted.
#[tokio::test]
async fn at_20_ms_a_call_nothing_is_received_twice() {
    const MESSAGES: usize = 20_000;
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        stub.fill(&world.name, MESSAGES, event);
        stub.set_delay(Duration::from_millis(20));
        // The whole run takes several times as long as a lease lasts.
        let options = "--drain --visibility 10 --wait 0 --pollers 2 --min-pollers 2 --max-in-flight 5000";
        let ended = world.loader().at(&stub.url()).options(options).end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(MESSAGES));
        let counters = stub.counters();
        assert_eq!((counters.redelivered, counters.stale_deletes), (0, 0));
        world.assert_each_stored_once(MESSAGES).await;
    })
    .await;
}

#[tokio::test]
async fn killed_in_mid_load_nothing_is_lost_or_doubled() {
    const MESSAGES: usize = 20_000;
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        stub.fill(&world.name, MESSAGES, event);
        // Slow enough that there is a middle.
        stub.set_delay(Duration::from_millis(20));
        let options = "--batch-size 500 --visibility 7 --wait 0 --pollers 4";
        let loader = world.loader().at(&stub.url()).options(options).start();
        eventually("the middle", async || world.logins().await >= MESSAGES / 4).await;
        loader.signal("KILL").await;
        assert_eq!(loader.end().await.code, None);
        stub.set_delay(Duration::ZERO);
        let stored = world.logins().await;
        assert!(stored < MESSAGES, "the signal came too late to show anything");

        let ended = world.loader().at(&stub.url()).options("--drain --visibility 7").end().await.expect(0);
        assert_eq!(ended.summary().stored, MESSAGES - stored);
        world.assert_each_stored_once(MESSAGES).await;
        assert_eq!(stub.depth(&world.name).unwrap().total(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_sqs_refuses_to_extend_is_warned_of() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        let lock = world.lock_logins().await;
        stub.fill(&world.name, 10, event);
        let loader =
            world.loader().at(&stub.url()).options("--visibility 7 --pollers 1 --batch-size 10").start();
        world.backends_in_copy(1).await;
        // Someone else deletes the messages, so SQS refuses their receipts.
        stub.reset(&world.name);
        eventually("a warning", async || loader.said().contains("leases expired or refused")).await;
        lock.batch_execute("COMMIT").await.unwrap();
        eventually("the rows", async || world.logins().await == 10).await;
        let ended = loader.stop().await.expect(0).says(&["expired=0", "refused=10", "code="]);
        assert_eq!((ended.summary().stored, ended.summary().deleted), (10, 0));
    })
    .await;
}

#[tokio::test]
async fn an_expired_lease_is_not_used_to_delete() {
    World::run(async |world| {
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        let lock = world.lock_logins().await;
        stub.fill(&world.name, 10, event);
        let loader =
            world.loader().at(&stub.url()).options("--visibility 7 --pollers 1 --batch-size 10").start();
        world.backends_in_copy(1).await;
        // SQS extends no lease any more, so the messages come back.
        let only = vec!["ChangeMessageVisibilityBatch".to_owned()];
        stub.set_faults(sqs_stub::Faults { server_error: 1.0, only, ..Default::default() });
        eventually("the end of the leases", async || stub.counters().redelivered > 0).await;
        let deletes = || stub.counters().calls["DeleteMessageBatch"];
        assert_eq!(deletes(), 1, "the try at the start");
        // A call to extend leases may take a quarter of the visibility timeout before the loader checks them again.
        eventually("the loader's note of it", async || loader.said().contains("leases expired or refused"))
            .await;
        stub.set_faults(sqs_stub::Faults::default());
        lock.batch_execute("COMMIT").await.unwrap();
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        let ended = loader.stop().await.expect(0).says(&[
            "leases expired or refused",
            "the queue's own visibility timeout is 30 s",
            "no redrive policy",
            "shorter than --store-timeout",
        ]);
        let summary = ended.summary();
        assert_eq!((summary.stored, summary.deleted), (10, 10));
        assert_eq!(summary.received, summary.stored + summary.duplicate);
        assert_eq!(stub.counters().stale_deletes, 0, "only the receipts of the last delivery are used");
        world.assert_each_stored_once(10).await;
    })
    .await;
}
