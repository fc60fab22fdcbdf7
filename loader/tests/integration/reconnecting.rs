//! A database that disappears, hangs or takes no writes: the loader continues once it's back.

use std::time::Duration;

use tokio::time::sleep;

use crate::common::{Depth, Link, OwnServers, Proxy, Summary, Swallower, World, events, eventually, setting};

#[tokio::test]
async fn an_unanswered_commit_is_not_followed_by_a_delete() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        let swallower = Swallower::start().await;
        world.queue.send(&events(30)).await;
        let url = format!(
            "postgres://{0}:{1}@127.0.0.1:{2}/{0}?sslmode=disable",
            world.name, world.password, swallower.port
        );
        let options = "--drain --batch-size 30 --linger 20000 --writers 1";
        let loader = world.loader().through(&proxy).env("DATABASE_URL", &url).options(options).start();
        // The transaction is committed, but its answer never arrives.
        swallower.commit_seen().await;
        eventually("the rows", async || world.logins().await == 30).await;
        assert_eq!(proxy.deletes().len(), 0, "delete calls");
        swallower.close();
        // Only another transaction, whose COMMIT is answered, proves that all messages are stored.
        let ended = loader.end().await.expect(0).says(&["COMMIT", "not confirmed", "trying again"]);
        assert_eq!(ended.summary(), Summary::duplicate(30));
        assert_eq!(world.queue.depth().await, Depth::EMPTY);
        world.assert_each_stored_once(30).await;
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_hangs_is_tried_again_on_another_connection() {
    World::run(async |world| {
        let lock = world.lock_logins().await;
        world.queue.send(&events(30)).await;
        let loader = world.loader().options("--drain --store-timeout 3").start();
        let first = world.backends_in_copy(1).await[0];
        // The loader cancels the batch that hangs, which would otherwise block its successor.
        eventually("another connection", async || {
            let backends = world.backends_in_copy(1).await;
            backends[0] != first
        })
        .await;
        lock.batch_execute("COMMIT").await.unwrap();
        let ended = loader.end().await.expect(0).says(&["not stored within 3 s", "trying again"]);
        assert_eq!(ended.summary(), Summary::stored(30));
        world.assert_each_stored_once(30).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_waited_for() {
    World::run(async |world| {
        let proxy = Proxy::start().await;
        let loader = world.loader().through(&proxy).start();
        world.ready(1).await;
        // Imitates a failover: the session ends, and the next one is read-only.
        world
            .sql(&format!(
                "ALTER ROLE {0} SET default_transaction_read_only TO on;
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{0}'",
                world.name
            ))
            .await;
        world.queue.send(&events(30)).await;
        eventually("all in flight", async || proxy.deliveries().len() == 30).await;
        // Time for some tries.
        sleep(Duration::from_secs(2)).await;
        assert_eq!((world.logins().await, proxy.deletes().len()), (0, 0), "stored, delete calls");
        world.sql(&format!("ALTER ROLE {} RESET default_transaction_read_only", world.name)).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0).says(&["takes no writes", "trying again"]);
        assert_eq!(ended.summary(), Summary::stored(30));
        world.assert_each_stored_once(30).await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_login_blames_no_message() {
    World::run(async |world| {
        let link = Link::to(&format!("{}:{}", setting("PGHOST"), setting("PGPORT"))).await;
        let (name, password) = (&world.name, &world.password);
        let url = format!("postgres://{name}:{password}@127.0.0.1:{}/{name}?sslmode=disable", link.port);
        let loader = world.loader().env("DATABASE_URL", &url).start();
        world.ready(1).await;
        link.refuse_logins();
        world.queue.send(&events(30)).await;
        eventually("some tries", async || loader.said().matches("refused the connection").count() > 4).await;
        link.mend();
        // A message that was given up wouldn't come back before its visibility timeout ends, after an hour.
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0).says(&["XX000", "trying again", "messages_left=0"]);
        assert_eq!(ended.summary(), Summary::stored(30));
        world.assert_each_stored_once(30).await;
    })
    .await;
}

#[tokio::test]
async fn after_a_quiet_night_no_batch_finds_a_lost_connection() {
    World::run(async |world| {
        let lock = world.lock_logins().await;
        let loader = world.loader().options("--writers 4 --batch-size 10").start();
        world.queue.send(&events(40)).await;
        world.backends_in_copy(4).await;
        lock.batch_execute("COMMIT").await.unwrap();
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        assert_eq!(world.number(end, &[&world.name]).await, 4);
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        eventually("their end", async || world.number(sessions, &[&world.name]).await == 0).await;
        // The loader needs time to notice.
        sleep(Duration::from_secs(1)).await;
        world.queue.send(&events(80)[40..]).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0);
        assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
        assert_eq!(ended.summary(), Summary::stored(80));
    })
    .await;
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_used() {
    World::run(async |world| {
        // Imitates a standby: it lets the role in and takes no writes.
        let servers = OwnServers::start("standby-host", &[]);
        let (name, password) = (&world.name, &world.password);
        let session = servers.connect().await;
        session.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let role = format!(
            "ALTER DATABASE {name} SET default_transaction_read_only TO on;
             CREATE ROLE {name} LOGIN PASSWORD '{password}'"
        );
        session.batch_execute(&role).await.unwrap();
        let (reads, writes) = (servers.setting("PGPORT"), setting("PGPORT"));
        // A further host is down: nothing listens on port 1.
        let url =
            format!("postgres://{name}:{password}@127.0.0.1:1,127.0.0.1:{reads},127.0.0.1:{writes}/{name}");
        world.queue.send(&events(10)).await;
        let ended = world.loader().env("DATABASE_URL", &url).options("--drain").end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(10));
    })
    .await;
}

#[tokio::test]
async fn conflicts_with_other_transactions_are_tried_again() {
    World::run(async |world| {
        // A rollback doesn't reset a sequence. The first value goes to the trial at the start.
        world
            .sql(
                "CREATE SEQUENCE tries;
                 GRANT USAGE ON SEQUENCE tries TO login_owner;
                 CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
                     DECLARE n bigint := nextval('public.tries');
                     BEGIN
                         -- With words that quote a value, as any function may.
                         IF n = 2 THEN RAISE SQLSTATE '40001' USING MESSAGE = 'not user-3', HINT = 'not user-3'; END IF;
                         IF n = 3 THEN RAISE SQLSTATE '40P01' USING MESSAGE = 'not user-3'; END IF;
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER conflict AFTER INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION conflict();",
            )
            .await;
        world.queue.send(&events(30)).await;
        let ended = world.loader().options("--drain --batch-size 30").end().await.expect(0);
        let ended = ended.says(&["40001", "40P01", "trying again"]);
        assert!(!ended.output().contains("user-3"), "a value of an event is in the log");
        assert_eq!(ended.summary(), Summary::stored(30));
    })
    .await;
}

#[tokio::test]
async fn a_schema_that_has_become_wrong_is_waited_for() {
    World::run(async |world| {
        let loader = world.loader().start();
        world.ready(1).await;
        world.sql("REVOKE INSERT ON login_inbox FROM login_loader").await;
        world.queue.send(&events(10)).await;
        eventually("its complaint", async || loader.said().contains("nothing is received until")).await;
        world.sql("GRANT INSERT ON login_inbox TO login_loader").await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0).says(&["login_inbox", "takes events again"]);
        assert_eq!(ended.summary(), Summary::stored(10));
    })
    .await;
}
