//! Delete after commit: an uncommitted message is never deleted, whatever happens in between.

use std::pin::pin;

use sqs_stub::Server;

use crate::common::{Depth, Loader, OwnServers, Proxy, SCHEMA, Summary, World, event, events, eventually};

#[tokio::test]
async fn a_message_is_deleted_only_after_commit() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        let lock = world.lock_logins().await;
        world.queue.send(&events(30)).await;
        let loader = world.loader().through(&proxy).options("--drain").start();
        world.backends_in_copy(1).await;

        // The batch hangs in the middle of its transaction, so nothing may be deleted.
        let depth = world.queue.depth().await;
        assert_eq!(depth.visible + depth.hidden, 30);
        assert_eq!(proxy.deletes().len(), 0, "delete calls before anything was committed");

        lock.batch_execute("COMMIT").await.unwrap();
        let ended = loader.end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(30));
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
        world.assert_each_stored_once(30).await;
    })
    .await;
}

#[tokio::test]
async fn every_delete_is_of_messages_that_others_can_see_in_the_database() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        let mut bodies = events(390);
        bodies.extend((0..10).map(|n| format!("no JSON {n}")));
        world.queue.send(&bodies).await;
        let loader = world.loader().through(&proxy).options("--drain --batch-size 50").start();

        let mut deleted = 0;
        let mut ended = pin!(loader.end());
        let ended = loop {
            tokio::select! {
                ended = &mut ended => break ended.expect(0),
                delete = proxy.next_delete() => {
                    let ids = proxy.message_ids(&delete.receipts);
                    assert_eq!(world.number(COMMITTED, &[&ids]).await, ids.len(), "committed of those that are about to be deleted");
                    deleted += ids.len();
                    assert!(world.logins().await + world.rejects().await >= deleted);
                    delete.pass();
                }
            }
        };
        assert_eq!(deleted, 400);
        let expected = Summary { received: 400, stored: 390, duplicate: 0, rejected: 10, deleted: 400 };
        assert_eq!(ended.summary(), expected);
    })
    .await;
}

const COMMITTED: &str = "
    SELECT count(*) FROM (
        SELECT message_id FROM user_logins UNION ALL SELECT message_id FROM login_rejects) AS stored
    WHERE message_id::text = ANY ($1)";

#[tokio::test]
async fn a_commit_that_fails_deletes_nothing() {
    World::run(async |world| {
        // An inbox leaves no work to COMMIT. A trigger of the inbox itself, fired after the flush, can.
        world
            .sql(
                "CREATE TABLE audit (at timestamptz);
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                     $$ BEGIN
                         SET CONSTRAINTS ALL DEFERRED;
                         INSERT INTO public.audit VALUES (pg_catalog.now());
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER z_note AFTER INSERT ON login_inbox FOR EACH STATEMENT EXECUTE FUNCTION note();
                 CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'the audit is closed'; END $$;",
            )
            .await;
        let proxy = Proxy::start().await;
        let loader = world.loader().through(&proxy).start();
        world.ready(1).await;
        world
            .sql(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION refuse()",
            )
            .await;
        world.queue.send(&events(25)).await;
        // A trial fails in COMMIT too, so no message is poison.
        eventually("a refused COMMIT", async || loader.said().contains("nothing is received until")).await;
        assert_eq!((proxy.deletes().len(), world.logins().await), (0, 0), "delete calls, rows");
        world.loader().options("--drain").end().await.expect(4).says(&["trial", "P0001"]);

        world.sql("DROP TRIGGER refuse ON audit").await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0).says(&["P0001", "messages_left=0"]);
        assert!(
            !ended.output().contains("the audit is closed"),
            "a message of a trigger's may quote a value"
        );
        assert_eq!(ended.summary(), Summary::stored(25));
        world.assert_each_stored_once(25).await;
    })
    .await;
}

#[tokio::test]
async fn a_commit_is_durable_though_the_settings_say_otherwise() {
    World::run(async |world| {
        world
            .sql(
                "CREATE TABLE audit (level text);
                 GRANT INSERT ON audit TO login_owner;
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN
                         INSERT INTO public.audit VALUES (pg_catalog.current_setting('synchronous_commit'));
                         RETURN NEW;
                     END $$;
                 CREATE TRIGGER note BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION note();",
            )
            .await;
        // With all but the last two settings, COMMIT returns before a synchronous standby, or even the server itself, has
        // flushed it.
        for (set, used) in [
            ("off", "on"),
            ("local", "on"),
            ("remote_write", "on"),
            ("on", "on"),
            ("remote_apply", "remote_apply"),
        ] {
            world
                .sql(&format!("ALTER ROLE {} SET synchronous_commit TO {set}; TRUNCATE audit", world.name))
                .await;
            world.queue.send(&events(25)).await;
            let ended = world.loader().options("--batch-size 10").until_empty(&world.queue).await.expect(0);
            assert_eq!(ended.summary(), Summary::stored(25));
            assert_eq!(
                world.number("SELECT count(*) FROM audit WHERE level = $1", &[&used]).await,
                25,
                "{set}"
            );
            let report = world.loader().options("check").end().await.expect(0).stdout;
            let status = if set == used { "ok      " } else { "warning " };
            assert!(report.contains(&format!("{status} database.synchronous_commit")), "{set}: {report}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_is_deleted_only_when_its_row_is_as_safe_as_a_new_one() {
    let servers = OwnServers::start("standby", &[]);
    let session = servers.connect().await;
    for file in SCHEMA {
        // With INSERT, which writes nothing to the WAL for a row that exists.
        let file = file.replace("\n    }'\n);", "\n    }', flush => 'insert'\n);");
        session.batch_execute(&file).await.unwrap();
    }
    let stub = Server::start(sqs_stub::Options::default()).unwrap();
    stub.fill("q", 20, event);
    let loader =
        || Loader::at_queue("q").at(&stub.url()).env("DATABASE_URL", servers.setting("DATABASE_URL"));
    // The messages are stored and not deleted, so they come again.
    stub.set_faults(sqs_stub::Faults { partial_delete: 1.0, ..Default::default() });
    let first = loader().start();
    let stored = "SELECT count(*) FROM user_logins";
    eventually("the rows", async || session.query_one(stored, &[]).await.unwrap().get::<_, i64>(0) == 20)
        .await;
    first.signal("TERM").await;
    first.signal("INT").await;
    first.end().await.expect(0);
    stub.set_faults(sqs_stub::Faults::default());

    // From now on COMMIT of a transaction that has written waits for a standby that doesn't exist.
    session.batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let second = loader().start();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    eventually("a COMMIT that waits", async || {
        session.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    assert_eq!(stub.counters().deleted, 0);
    session.batch_execute("ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    eventually("an empty queue", async || stub.depth("q").unwrap().total() == 0).await;
    let summary = second.stop().await.expect(0).summary();
    assert_eq!((summary.stored, summary.duplicate, summary.deleted), (0, 20, 20));
}

#[tokio::test]
async fn killed_between_commit_and_delete_nothing_is_doubled() {
    World::run(async |world| {
        // The deletes hang in the proxy until the end of the test.
        let proxy = Proxy::asking().await;
        world.queue.send(&events(40)).await;
        // The second run must wait for the end of this visibility timeout, so it's as short as possible.
        let loader = world.loader().through(&proxy).options("--wait 0 --pollers 1 --visibility 6").start();
        eventually("all rows committed", async || world.logins().await == 40).await;
        proxy.next_delete().await.receipts.first().unwrap();
        loader.signal("KILL").await;
        assert_eq!(loader.end().await.code, None);
        let depth = world.queue.depth().await;
        assert_eq!(depth.visible + depth.hidden, 40, "nothing was deleted");

        let ended = world.loader().options("--drain").end().await.expect(0);
        assert_eq!(ended.summary(), Summary::duplicate(40));
        world.assert_each_stored_once(40).await;
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn a_connection_lost_in_mid_batch_loses_nothing() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        let lock = world.lock_logins().await;
        world.queue.send(&events(30)).await;
        let loader = world.loader().through(&proxy).options("--drain").start();
        let pid = world.backends_in_copy(1).await[0];
        world.db.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
        // On another connection the batch is in the middle of a transaction again, and nothing is deleted.
        eventually("another connection", async || world.backends_in_copy(1).await[0] != pid).await;
        assert_eq!(proxy.deletes().len(), 0, "delete calls");
        lock.batch_execute("COMMIT").await.unwrap();
        let ended = loader.end().await.expect(0).says(&["was not stored", "57P01", "trying again"]);
        assert_eq!(ended.summary(), Summary::stored(30));
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
        world.assert_each_stored_once(30).await;
    })
    .await;
}
