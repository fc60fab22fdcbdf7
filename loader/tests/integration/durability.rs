//! Delete after a durable commit: a COMMIT that a failover may undo deletes nothing.

use std::process::Command;
use std::time::Duration;

use sqs_stub::Server;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::common::{Depth, Loader, OwnServers, SCHEMA, Standby, Summary, World, event, events, eventually};

/// Selects the backends whose COMMIT waits for a synchronous standby.
const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";

async fn with_schema(servers: &OwnServers) -> Client {
    let session = servers.connect().await;
    for file in SCHEMA {
        session.batch_execute(file).await.unwrap();
    }
    session
}

async fn number(session: &Client, query: &str) -> i64 {
    session.query_one(query, &[]).await.unwrap().get(0)
}

async fn reload(session: &Client, statement: &str) {
    session.batch_execute(statement).await.unwrap();
    session.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_wait_for_a_standby_is_canceled_deletes_nothing() {
    let servers = OwnServers::start("canceled-wait", &[]);
    let session = with_schema(&servers).await;
    let stub = Server::start(sqs_stub::Options::default()).unwrap();
    stub.fill("q", 20, |n| if n % 2 == 0 { event(n) } else { format!("no JSON {n}") });
    // COMMIT of a transaction that has written now waits for a standby that doesn't exist.
    reload(&session, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    let loader = Loader::at_queue("q")
        .at(&stub.url())
        .env("DATABASE_URL", servers.setting("DATABASE_URL"))
        .options("--writers 1")
        .start();

    let cancel = format!("SELECT pg_cancel_backend(pid) FROM ({WAITING}) AS waiting");
    let warnings = || loader.said().matches("was answered with a warning (SQLSTATE 01000)").count();
    for times in 1..=3 {
        eventually("a COMMIT that was given up", async || {
            session.batch_execute(&cancel).await.unwrap();
            warnings() >= times
        })
        .await;
    }
    eventually("one more COMMIT that waits", async || !session.query(WAITING, &[]).await.unwrap().is_empty())
        .await;
    let rows = "SELECT (SELECT count(*) FROM user_logins) + (SELECT count(*) FROM login_rejects)";
    assert!(number(&session, rows).await > 0, "committed on this server alone");
    assert_eq!(stub.counters().deleted, 0, "deleted, and on no standby");

    reload(&session, "ALTER SYSTEM RESET synchronous_standby_names").await;
    eventually("an empty queue", async || stub.depth("q").unwrap().total() == 0).await;
    let summary = loader.stop().await.expect(0).summary();
    assert_eq!((summary.received, summary.deleted), (20, 20));
    assert_eq!(summary.stored + summary.duplicate + summary.rejected, 20);
    assert!(summary.duplicate > 0, "those that were given up were stored");
    let each_once = "SELECT count(*) + count(DISTINCT message_id) FROM";
    for table in ["user_logins", "login_rejects"] {
        assert_eq!(number(&session, &format!("{each_once} {table}")).await, 20, "rows and ids of {table}");
    }
}

#[tokio::test]
async fn warnings_of_triggers_hold_up_no_delete_and_are_in_no_log() {
    World::run(async |world| {
        // One warning comes during COPY; the other comes in COMMIT, via a trigger of the inbox itself.
        world
            .sql(
                "CREATE TABLE audit (at timestamptz);
                 CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE WARNING 'of % in %', TG_TABLE_NAME, TG_NAME; RETURN NEW; END $$;
                 CREATE TRIGGER warn AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION warn();
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
                     $$ BEGIN
                         SET CONSTRAINTS ALL DEFERRED;
                         INSERT INTO public.audit VALUES (pg_catalog.now());
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER z_note AFTER INSERT ON login_inbox FOR EACH STATEMENT EXECUTE FUNCTION note();
                 CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON audit DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW EXECUTE FUNCTION warn();",
            )
            .await;
        world.queue.send(&events(25)).await;
        let ended = world.loader().options("--drain --log-level debug").end().await.expect(0);
        assert_eq!(ended.summary(), Summary::stored(25));
        assert!(world.number("SELECT count(*) FROM audit", &[]).await > 0, "warned of in COMMIT");
        for words in ["user_logins in warn", "audit in warn", "with a warning"] {
            assert!(!ended.output().contains(words), "{words} is in {}", ended.output());
        }
    })
    .await;
}

#[tokio::test]
async fn settings_that_can_lose_commits_give_a_warning() {
    let servers = OwnServers::start("unsafe", &["fsync=off", "full_page_writes=off"]);
    let session = with_schema(&servers).await;
    session.batch_execute("CREATE ROLE l LOGIN PASSWORD 'l' IN ROLE login_loader").await.unwrap();
    let stub = Server::start(sqs_stub::Options::default()).unwrap();
    stub.fill("q", 1, event);
    let url = format!("postgres://l:l@127.0.0.1:{}/postgres", servers.setting("PGPORT"));
    let loader = || Loader::at_queue("q").at(&stub.url()).env("DATABASE_URL", &url);
    let says = async |words: &[&str]| {
        let report = loader().options("check").end().await.expect(0).stdout;
        for word in words {
            assert!(report.contains(word), "{word} is not in {report}");
        }
    };
    says(&["warning  database.fsync", "fsync and full_page_writes are off", "ok       database.standbys"])
        .await;
    let standby = Standby::start(&servers);
    eventually("a standby", async || number(&session, "SELECT count(*) FROM pg_stat_replication").await == 1)
        .await;
    let warning = "1 standby streams from this server, and none is synchronous";
    // This role sees of the standby only that it exists. The warning comes at the start of a run, too.
    says(&["warning  database.standbys", warning, "Set synchronous_standby_names"]).await;
    let run = loader().start();
    eventually("an empty queue", async || stub.depth("q").unwrap().total() == 0).await;
    run.stop().await.expect(0).says(&[warning, "fsync and full_page_writes are off"]);
    for setting in ["fsync = on", "full_page_writes = on", "synchronous_standby_names = '*'"] {
        reload(&session, &format!("ALTER SYSTEM SET {setting}")).await;
    }
    eventually("a synchronous standby", async || {
        number(&session, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").await == 1
    })
    .await;
    says(&["ok       database.fsync", "ok       database.standbys"]).await;
    drop(standby);
}

const LOGINS: &str = "SELECT count(*) FROM user_logins";

fn signal(pid: i32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "kill -{name}");
}

/// Waits until exactly `standbys` standbys stream from the server.
async fn streaming(session: &Client, standbys: i64) {
    let query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    eventually("standbys", async || number(session, query).await == standbys).await;
}

#[tokio::test]
async fn no_message_is_deleted_before_a_standby_has_flushed_its_commit() {
    let servers = OwnServers::start("replay", &[]);
    let session = with_schema(&servers).await;
    session
        .batch_execute("CREATE ROLE l LOGIN PASSWORD 'l' IN ROLE login_loader, pg_read_all_stats")
        .await
        .unwrap();
    let stub = Server::start(sqs_stub::Options::default()).unwrap();
    let url = format!("postgres://l:l@127.0.0.1:{}/postgres", servers.setting("PGPORT"));
    let loader = |options: &str| {
        Loader::at_queue("q")
            .at(&stub.url())
            .env("DATABASE_URL", &url)
            .options("--delete-after-replay")
            .options(options)
    };
    let deleted = async |count: u64| eventually("deletes", async || stub.counters().deleted == count).await;
    let standby = Standby::start(&servers);
    streaming(&session, 1).await;

    stub.fill("q", 10, event);
    let run = loader("--visibility 7 --delete-delay 1").start();
    deleted(10).await;
    // A standby that is connected but hangs.
    let receiver = standby.wal_receiver().await;
    signal(receiver, "STOP");
    stub.fill("q", 5, |n| event(10 + n));
    eventually("rows", async || number(&session, LOGINS).await == 15).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stub.counters().deleted, 10, "deleted, and the standby has not flushed them");
    signal(receiver, "CONT");
    deleted(15).await;
    // A standby that is down.
    standby.pause();
    streaming(&session, 0).await;
    stub.fill("q", 15, |n| event(15 + n));
    eventually("rows", async || number(&session, LOGINS).await == 30).await;
    // This is longer than the visibility timeout, so the leases are extended.
    sleep(Duration::from_secs(9)).await;
    assert_eq!(stub.counters().deleted, 15, "deleted, and on no standby");
    assert!(run.said().contains("no standby streams any more"), "{}", run.said());
    standby.resume();
    deleted(30).await;
    assert_eq!(run.stop().await.expect(0).summary(), Summary::stored(30));

    // A stop waits for the standby no longer than its grace, and gives the messages back.
    streaming(&session, 1).await;
    let run = loader("--grace 2").start();
    stub.fill("q", 1, |_| event(30));
    deleted(31).await;
    standby.pause();
    streaming(&session, 0).await;
    stub.fill("q", 7, |n| event(31 + n));
    eventually("rows", async || number(&session, LOGINS).await == 38).await;
    let summary = run.stop().await.expect(0).says(&["made visible again messages=7"]).summary();
    assert_eq!((summary.stored, summary.deleted), (8, 1));
    let depth = stub.depth("q").unwrap();
    assert_eq!((depth.visible, depth.total()), (7, 7));

    standby.resume();
    streaming(&session, 1).await;
    let run = loader("").start();
    deleted(38).await;
    assert_eq!(run.stop().await.expect(0).summary(), Summary::duplicate(7));
    assert_eq!(number(&session, LOGINS).await, 38);

    // A role that can't see how far the standby is.
    session.batch_execute("REVOKE pg_read_all_stats FROM l").await.unwrap();
    stub.fill("q", 2, |n| event(38 + n));
    let run = loader("--delete-delay 1").start();
    deleted(40).await;
    run.stop().await.expect(0).says(&["cannot see how far standbys are", "deleted 1 s after COMMIT"]);
}

#[tokio::test]
async fn messages_whose_commits_a_failover_lost_are_stored_again() {
    let servers = OwnServers::start("failover", &[]);
    let session = with_schema(&servers).await;
    let stub = Server::start(sqs_stub::Options::default()).unwrap();
    let standby = Standby::start(&servers);
    streaming(&session, 1).await;
    let (password, port) = (servers.setting("PGPASSWORD"), servers.setting("PGPORT"));
    let url = format!("postgres://postgres:{password}@127.0.0.1:{port},{}/postgres", standby.address());
    let run = Loader::at_queue("q")
        .at(&stub.url())
        .env("DATABASE_URL", &url)
        .options("--delete-after-replay --delete-delay 1")
        .start();
    stub.fill("q", 10, event);
    eventually("deletes", async || stub.counters().deleted == 10).await;

    // These messages are only on the primary when it crashes.
    standby.pause();
    streaming(&session, 0).await;
    stub.fill("q", 20, |n| event(10 + n));
    eventually("rows", async || number(&session, LOGINS).await == 30).await;
    standby.crash_primary(&servers);
    standby.resume();
    standby.promote();

    let session = standby.connect().await;
    eventually("rows", async || number(&session, LOGINS).await == 30).await;
    assert_eq!(stub.counters().deleted, 10, "deleted, and on no standby of the new primary");
    let ids = "SELECT count(DISTINCT message_id) FROM user_logins";
    assert_eq!(number(&session, ids).await, 30);
    run.stop().await.expect(0).says(&["the server is another one than at COMMIT"]);
}

#[tokio::test]
async fn without_a_standby_messages_are_deleted_after_a_fixed_delay() {
    World::run(async |world| {
        world.queue.send(&events(10)).await;
        let run = world.loader().options("--delete-after-replay --delete-delay 3").start();
        eventually("rows", async || world.logins().await == 10).await;
        let stored = Instant::now();
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let took = stored.elapsed();
        assert!(took > Duration::from_secs(2), "deleted after {took:?}");
        let ended = run.stop().await.expect(0).says(&["there is no standby", "deleted 3 s after COMMIT"]);
        assert_eq!(ended.summary(), Summary::stored(10));
    })
    .await;
}
