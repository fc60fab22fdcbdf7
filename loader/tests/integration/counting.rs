//! Count before commit: the loader detects an inbox that doesn't account for every event.

use crate::common::{Depth, Proxy, Summary, World, events, eventually};

#[tokio::test]
async fn a_wrong_count_rolls_back() {
    World::run(async |world| {
        // Fires before the inbox's own trigger. The row that it drops never reaches the inbox.
        world
            .sql(
                "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RETURN CASE WHEN NEW.body LIKE '%user-4\"%' THEN NULL ELSE NEW END; END $$;
                 CREATE TRIGGER a_thief INSTEAD OF INSERT ON login_inbox FOR EACH ROW EXECUTE FUNCTION lose();",
            )
            .await;
        let proxy = Proxy::start().await;
        world.queue.send(&events(10)).await;
        // All messages are in one batch: it closes at ten messages, long before its linger ends.
        let options = "--drain --batch-size 10 --linger 20000";
        let ended = world.loader().through(&proxy).options(options).end().await.expect(5);
        ended.says(&["10 were sent", "add up to 9", "session_replication_role", "triggers of the inbox"]);
        assert_eq!((world.logins().await, world.rejects().await), (0, 0), "logins, rejects");
        assert_eq!(proxy.deletes().len(), 0, "delete calls");
        assert_eq!(world.queue.depth().await, Depth::visible(10));

        world.sql("DROP TRIGGER a_thief ON login_inbox").await;
        let ended = world.loader().until_empty(&world.queue).await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(10));
    })
    .await;
}

#[tokio::test]
async fn an_inbox_whose_triggers_do_not_fire_is_found_out() {
    World::run(async |world| {
        world.queue.send(&events(10)).await;
        world.sql(&format!("ALTER ROLE {} SET session_replication_role TO replica", world.name)).await;
        let ended = world.loader().options("--drain").end().await.expect(4);
        ended.says(&["session_replication_role", "origin"]);
        assert_eq!(world.queue.depth().await, Depth::visible(10));
        world.sql(&format!("ALTER ROLE {} RESET session_replication_role", world.name)).await;

        // Nothing outside can change a setting of a running session, but a trigger can. This one does so after the first
        // batch. For the second batch the inbox is a hole that answers COPY 10.
        world
            .sql(
                "CREATE FUNCTION flip() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
                     BEGIN
                         PERFORM pg_catalog.set_config('session_replication_role', 'replica', false);
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER z_flip AFTER INSERT ON login_inbox FOR EACH STATEMENT EXECUTE FUNCTION flip();",
            )
            .await;
        let proxy = Proxy::start().await;
        // One writer means one session.
        let options = "--batch-size 10 --linger 20000 --writers 1";
        let loader = world.loader().through(&proxy).options(options).start();
        eventually("the first batch in the database", async || world.logins().await == 10).await;
        world.queue.send(&events(10)).await;
        let ended = loader.end().await.expect(5);
        let ended = ended.says(&["10 were sent", "triggers did not run", "session_replication_role"]);
        let expected = Summary { received: 20, stored: 10, duplicate: 0, rejected: 0, deleted: 10 };
        assert_eq!(ended.summary(), expected);
        assert_eq!(proxy.deletes().iter().flatten().count(), 10, "messages deleted");
        assert_eq!(world.queue.depth().await, Depth::visible(10));
        world.assert_each_stored_once(10).await;
    })
    .await;
}
