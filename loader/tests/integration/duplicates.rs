//! SQS delivers at least once, so a message can come again.

use futures_util::future::join_all;
use tokio_postgres::error::SqlState;

use crate::common::{Depth, Proxy, Summary, World, events, eventually};

#[tokio::test]
async fn a_redelivered_message_is_a_duplicate() {
    World::run(async |world| {
        let proxy = Proxy::asking().await;
        let mut bodies = events(28);
        bodies.extend(["no JSON".to_owned(), "{}".to_owned()]);
        world.queue.send(&bodies).await;
        let loader = world.loader().through(&proxy).start();
        let mut pretended = 0;
        while pretended < 30 {
            let delete = proxy.next_delete().await;
            pretended += delete.receipts.len();
            delete.pretend();
        }
        let ended = loader.stop().await.expect(0);
        let expected = Summary { received: 30, stored: 28, duplicate: 0, rejected: 2, deleted: 30 };
        assert_eq!(ended.summary(), expected);
        let before = contents(world).await;

        world.queue.make_visible(&proxy.receipts()).await;
        let ended = world.loader().until_empty(&world.queue).await.expect(0);
        assert_eq!(ended.summary(), Summary::duplicate(30));
        assert_eq!(contents(world).await, before);
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

/// Returns all stored rows as text.
async fn contents(world: &World) -> Vec<String> {
    let query = "SELECT l::text FROM user_logins l UNION ALL SELECT r::text FROM login_rejects r ORDER BY 1";
    world.db.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_same_message_twice_in_one_batch_is_stored_once() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        world.queue.send(&events(10)).await;
        let loader = world.loader().through(&proxy).options("--drain --batch-size 20 --linger 60000").start();
        eventually("all received", async || proxy.deliveries().len() == 10).await;
        // The messages are delivered again while the batch still lingers.
        world.queue.make_visible(&proxy.receipts()).await;
        let ended = loader.end().await.expect(0);
        let summary = ended.summary();
        assert_eq!((summary.received, summary.stored, summary.duplicate), (20, 10, 10));
        assert_eq!(summary.deleted, 10, "of two receipts of a message the later one counts");
        world.assert_each_stored_once(10).await;
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn two_loaders_share_a_queue_and_nothing_is_doubled() {
    World::run(async |world| {
        let loaders = [0, 1].map(|_| world.loader().options("--batch-size 100").start());
        world.ready(2).await;
        world.queue.send(&events(2000)).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let mut stored = 0;
        for loader in loaders {
            let summary = loader.stop().await.expect(0).summary();
            assert!(summary.received > 0, "both get a share");
            assert_eq!(summary, Summary::stored(summary.received));
            stored += summary.stored;
        }
        assert_eq!(stored, 2000);
        world.assert_each_stored_once(2000).await;
    })
    .await;
}

#[tokio::test]
async fn two_loaders_with_the_same_messages_store_them_once() {
    World::run(async |world| {
        let lock = world.lock_logins().await;
        let proxy = Proxy::start().await;
        world.queue.send(&events(40)).await;
        let first = world.loader().through(&proxy).options("--batch-size 40 --linger 20000").start();
        world.backends_in_copy(1).await;
        // It receives no more, and would finish the messages in flight. But its COPY hangs until their visibility timeout
        // ends, and the second loader receives them too.
        first.signal("TERM").await;
        proxy.no_more_receives().await;
        assert_eq!(proxy.deliveries().len(), 40);
        world.queue.make_visible(&proxy.receipts()).await;
        let second = world.loader().options("--batch-size 40 --linger 20000").start();
        world.backends_in_copy(2).await;
        lock.batch_execute("COMMIT").await.unwrap();

        let first = first.end().await.expect(0).summary();
        let second = second.stop().await.expect(0).summary();
        assert_eq!((first.received, second.received), (40, 40));
        assert_eq!((first.stored + second.stored, first.duplicate + second.duplicate), (40, 40));
        // Only the second loader's receipts are still valid.
        assert_eq!((first.deleted, second.deleted), (0, 40));
        world.assert_each_stored_once(40).await;
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
    })
    .await;
}

#[tokio::test]
async fn eight_sessions_that_insert_the_same_messages_store_each_once() {
    // Imitates eight loaders that were all given the same messages: batch by batch, in circles with different starts, and
    // with batches that overlap in part. Each batch has some messages that nobody else has, which reveals a message lost
    // because of another. A batch is one chunk, whose rows are inserted in order: sessions wait for each other's messages,
    // but never crosswise.
    const INSERT: &str =
        "INSERT INTO login_inbox SELECT md5(n::text)::uuid, '2026-03-01', format('{\"user_id\":\"u%s\"}', n)
         FROM (SELECT i % 100000 FROM generate_series($1::int, $1 + 4999) AS i
               UNION ALL SELECT generate_series($2::int, $2 + 99)) AS messages(n)";
    World::run(async |world| {
        let sessions = (0..8).map(|number| async move {
            let session = world.session().await;
            let mut stored = 0;
            for batch in 0..20 {
                let (shared, own) = (number * 13_113 + batch * 5_000, 100_000 * (number + 1) + batch * 100);
                session.execute(INSERT, &[&shared, &own]).await.unwrap();
                let counts = session.query_one("SELECT stored, duplicate, rejected FROM inbox_counts()", &[]);
                let counts = counts.await.unwrap();
                let counts: [i64; 3] = [0, 1, 2].map(|column| counts.get(column));
                assert_eq!((counts[0] + counts[1], counts[2]), (5_100, 0));
                stored += counts[0];
            }
            stored
        });
        let stored: i64 = join_all(sessions).await.into_iter().sum();
        assert_eq!(stored, 116_000);
        world.assert_each_stored_once(116_000).await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_comes_between_the_look_and_the_copy_is_a_duplicate() {
    World::run(async |world| {
        let insert = |first: i32, last: i32| {
            format!(
                "INSERT INTO login_inbox SELECT lpad(n::text, 32, '0')::uuid, '2026-03-01', '{{\"user_id\":\"u\"}}'
                 FROM generate_series({first}, {last}) AS n"
            )
        };
        let session = world.session().await;
        // The session meets duplicates, so it looks for them from now on.
        session.batch_execute(&insert(1, 3)).await.unwrap();
        session.batch_execute(&insert(1, 3)).await.unwrap();
        let other = world.session().await;
        other.batch_execute(&format!("BEGIN; {}", insert(12, 12))).await.unwrap();
        let statement = insert(11, 14);
        let (inserted, ()) = tokio::join!(session.batch_execute(&statement), async {
            let waiting = "SELECT count(*) FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock'";
            eventually("a copy that waits", async || world.number(waiting, &[]).await == 1).await;
            other.batch_execute("COMMIT").await.unwrap();
        });
        inserted.unwrap();
        let counts = session.query_one("SELECT stored, duplicate, rejected FROM inbox_counts()", &[]).await.unwrap();
        assert_eq!([0, 1, 2].map(|column| counts.get::<_, i64>(column)), [3, 1, 0]);
        world.assert_each_stored_once(7).await;
    })
    .await;
}

#[tokio::test]
async fn a_message_newer_than_the_snapshot_fails_the_statement_and_is_not_rejected() {
    World::run(async |world| {
        let messages =
            "INSERT INTO login_inbox SELECT md5(n::text)::uuid, '2026-03-01', '{\"user_id\":\"u\"}' FROM generate_series(1, 3) AS n";
        let session = world.session().await;
        session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM user_logins").await.unwrap();
        world.sql(messages).await;
        let error = session.batch_execute(messages).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{error}");
        session.batch_execute("ROLLBACK").await.unwrap();
        session.batch_execute(messages).await.unwrap();
        let duplicates = "SELECT duplicate FROM inbox_counts()";
        assert_eq!(session.query_one(duplicates, &[]).await.unwrap().get::<_, i64>(0), 3);
        assert_eq!(world.rejects().await, 0);
        world.assert_each_stored_once(3).await;
    })
    .await;
}
