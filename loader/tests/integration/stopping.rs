//! SIGTERM and SIGINT: no message is lost, stored twice or left hidden.

use std::time::{Duration, Instant};

use crate::common::{Depth, Link, Proxy, World, events, eventually, setting};

/// Enough messages that the first batches are stored long before the last messages are received.
const MESSAGES: usize = 2000;

#[tokio::test]
async fn sigterm_in_mid_load_loses_and_doubles_nothing() {
    stop_in_mid_load("TERM").await;
}

#[tokio::test]
async fn sigint_in_mid_load_loses_and_doubles_nothing() {
    stop_in_mid_load("INT").await;
}

async fn stop_in_mid_load(signal: &'static str) {
    World::run(async move |world| {
        world.queue.send(&events(MESSAGES)).await;
        let loader = world.loader().options("--batch-size 100 --grace 20").start();
        eventually("the first rows", async || world.logins().await > 0).await;
        let signalled = Instant::now();
        loader.signal(signal).await;
        let ended = loader.end().await.expect(0).says(&[&format!("SIG{signal}: receiving no more")]);
        assert!(signalled.elapsed() < Duration::from_secs(20), "not within the grace");

        let depth = world.queue.depth().await;
        let stored = world.logins().await;
        assert!(depth.visible > 0, "the signal came too late to show anything");
        assert_eq!(depth, Depth::visible(MESSAGES - stored), "what is not stored can be received at once");
        let summary = ended.summary();
        assert_eq!((summary.stored, summary.deleted), (stored, stored), "what was in flight is finished");
        assert_eq!(summary.received, stored, "what was received is finished");

        let second = world.loader().until_empty(&world.queue).await.expect(0).summary();
        assert_eq!((second.stored, second.duplicate), (MESSAGES - stored, 0));
        world.assert_each_stored_once(MESSAGES).await;
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn messages_unfinished_at_the_end_of_the_grace_are_made_visible_again() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        let lock = world.lock_logins().await;
        world.queue.send(&events(30)).await;
        let loader = world.loader().through(&proxy).options("--grace 2").start();
        world.backends_in_copy(1).await;
        loader.signal("TERM").await;
        loader.end().await.expect(0).says(&["not done within 2 s", "made visible again"]);
        assert_eq!(world.queue.depth().await, Depth::visible(30));
        assert_eq!(proxy.deletes().len(), 0, "delete calls");

        // The batch that the loader has given up must not be stored later.
        lock.batch_execute("COMMIT").await.unwrap();
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        eventually("the end of its session", async || world.number(sessions, &[&world.name]).await == 0)
            .await;
        assert_eq!(world.logins().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_stop_gives_messages_back_at_once_when_no_connection_can_store_them() {
    World::run(async |world| {
        for silent in [false, true] {
            let proxy = Proxy::start().await;
            let link = Link::to(&format!("{}:{}", setting("PGHOST"), setting("PGPORT"))).await;
            let (name, password) = (&world.name, &world.password);
            let url = format!("postgres://{name}:{password}@127.0.0.1:{}/{name}?sslmode=disable", link.port);
            let options = "--grace 3600 --writers 2 --batch-size 10";
            let loader = world.loader().through(&proxy).env("DATABASE_URL", &url).options(options).start();
            world.ready(1).await;
            if silent {
                link.silence();
            } else {
                link.cut();
            }
            world.queue.send(&events(30)).await;
            eventually("all in flight", async || proxy.deliveries().len() == 30).await;
            let signalled = Instant::now();
            let ended = loader.stop().await.expect(0).says(&["made visible again"]);
            let took = signalled.elapsed();
            assert!(took < Duration::from_secs(10), "{took:?}, silent: {silent}\n{}", ended.stderr);
            assert_eq!(world.queue.depth().await, Depth::visible(30));
            assert_eq!((world.logins().await, proxy.deletes().len()), (0, 0), "stored, delete calls");
            // The messages that were given back can still be stored.
            let second = world.loader().until_empty(&world.queue).await.expect(0).summary();
            assert_eq!(second.stored, 30);
            world.sql("TRUNCATE user_logins").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    World::run(async |world| {
        let _lock = world.lock_logins().await;
        world.queue.send(&events(30)).await;
        let loader = world.loader().options("--grace 3600").start();
        world.backends_in_copy(1).await;
        loader.signal("TERM").await;
        loader.signal("INT").await;
        loader.end().await.expect(0).says(&["again", "made visible again"]);
        assert_eq!(world.queue.depth().await, Depth::visible(30));
    })
    .await;
}
