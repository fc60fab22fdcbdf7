//! Poison: a message that the database can neither store nor reject doesn't block any other.

use std::time::{Duration, Instant};

use sqs_stub::Server;
use tokio::time::sleep;

use crate::common::{Depth, Summary, World, event, events, eventually};

/// Makes COMMIT fail if the login of certain users is stored. An inbox leaves no work to COMMIT, so this is a trigger of the
/// inbox itself, fired after the flush.
const REFUSE_AT_COMMIT: &str = "
    CREATE TABLE audit (user_id text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            SET CONSTRAINTS ALL DEFERRED;
            INSERT INTO public.audit SELECT user_id FROM public.user_logins WHERE user_id ~ 'user-17$|user-99..$';
            RETURN NULL;
        END $$;
    CREATE TRIGGER z_note AFTER INSERT ON login_inbox FOR EACH STATEMENT EXECUTE FUNCTION note();
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'not %', NEW.user_id; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse();";

#[tokio::test]
async fn a_message_that_the_database_refuses_is_left_and_named_and_blocks_no_other() {
    World::run(async |world| {
        world.sql(REFUSE_AT_COMMIT).await;
        let ids = world.queue.send(&events(40)).await;
        let loader = world.loader().options("--batch-size 40").start();
        eventually("all others", async || world.logins().await == 39).await;
        eventually("their deletes", async || {
            world.queue.depth().await == Depth { hidden: 1, ..Depth::EMPTY }
        })
        .await;
        let ended = loader.stop().await.expect(0);
        let culprit = ids[17].to_string();
        let ended =
            ended.says(&["neither store nor reject", "redrive policy", "P0001", &culprit, "messages_left=1"]);
        assert!(!ended.output().contains("user-17"), "a value of the event is in the log");
        assert_eq!(ended.output().matches("left to the queue's redrive policy").count(), 1, "one culprit");
        let expected = Summary { received: 40, stored: 39, duplicate: 0, rejected: 0, deleted: 39 };
        assert_eq!(ended.summary(), expected);
        // The message is neither deleted nor given back. SQS counts its receives and moves it to the dead-letter queue.
        assert_eq!(world.queue.depth().await, Depth { hidden: 1, ..Depth::EMPTY });
        world.assert_each_stored_once(39).await;
    })
    .await;
}

#[tokio::test]
async fn more_poison_than_would_stop_the_loader_does_not_when_there_are_good_messages() {
    World::run(async |world| {
        world.sql(REFUSE_AT_COMMIT).await;
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        // All poison messages come first and in one batch.
        stub.fill(&world.name, 40, |n| if n < 25 { event(9900 + n) } else { event(n) });
        let options = "--batch-size 40 --pollers 1 --linger 20000 --visibility 30";
        let loader = world.loader().at(&stub.url()).options(options).start();
        eventually("the good ones", async || world.logins().await == 15).await;
        eventually("their deletes", async || stub.counters().deleted == 15).await;
        loader.stop().await.expect(0).says(&["messages_left=25"]);
    })
    .await;
}

#[tokio::test]
async fn one_poison_message_that_comes_again_and_again_does_not_stop_the_loader() {
    World::run(async |world| {
        world.sql(REFUSE_AT_COMMIT).await;
        let stub = Server::start(sqs_stub::Options::default()).unwrap();
        stub.fill(&world.name, 1, |_| event(17));
        // Its receipts are invalid at once, so the message comes back at once.
        stub.set_faults(sqs_stub::Faults { expire: 1.0, ..Default::default() });
        let loader = world.loader().at(&stub.url()).options("--linger 1").start();
        eventually("more deliveries than messages stop it", async || stub.counters().received > 25).await;
        stub.set_faults(sqs_stub::Faults::default());
        stub.fill(&world.name, 10, event);
        eventually("good messages", async || world.logins().await == 10).await;
        loader.stop().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn a_message_that_brings_the_server_down_delays_no_other() {
    World::run(async |world| {
        world
            .sql(
                "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN
                         IF NEW.user_id = 'user-3' THEN PERFORM pg_catalog.pg_sleep(3600); END IF;
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER hang AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION hang();",
            )
            .await;
        let ids = world.queue.send(&events(8)).await;
        let loader = world.loader().options("--batch-size 8 --store-timeout 1").start();
        eventually("all others of its batch", async || world.logins().await == 7).await;
        world.queue.send(&events(20)[10..]).await;
        eventually("those that come after it", async || world.logins().await == 17).await;
        // The message is given up once nothing tries it for longer than any pause between two tries.
        let mut tried = Instant::now();
        eventually("an end of it", async || {
            if world.number(IN_COPY, &[&world.name]).await > 0 {
                tried = Instant::now();
            }
            tried.elapsed() > Duration::from_secs(11)
        })
        .await;
        let culprit = ids[3].to_string();
        loader.stop().await.expect(0).says(&[
            "not stored within 1 s",
            "again and again",
            &culprit,
            "messages_left=1",
        ]);
        world.assert_each_stored_once(17).await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_makes_no_message_a_culprit() {
    World::run(async |world| {
        let loader = world.loader().options("--store-timeout 1").start();
        world.ready(1).await;
        // The lock holds trials, too.
        let lock = world.session().await;
        lock.batch_execute("BEGIN; LOCK TABLE user_logins IN ACCESS EXCLUSIVE MODE").await.unwrap();
        world.queue.send(&events(1)).await;
        // If other messages were stored, the loader would give this one up in less time.
        sleep(Duration::from_secs(20)).await;
        lock.batch_execute("COMMIT").await.unwrap();
        // A message that was given up wouldn't come back before its visibility timeout ends, after an hour.
        eventually("the message", async || world.logins().await == 1).await;
        loader.stop().await.expect(0).says(&["not stored within 1 s", "messages_left=0"]);
    })
    .await;
}

/// Counts the loader's sessions that are in a COPY.
const IN_COPY: &str = "
    SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND query LIKE 'COPY %'";
