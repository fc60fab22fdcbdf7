//! No raw value on the database's disk: heap, WAL, temporary files, log, statistics, dumps.
//!
//! The cluster logs all that it can, and keeps statistics of all statements. Events whose PII is a canary come in by the
//! loader, in good order and through every error that can be provoked. Then every byte is searched for the canary.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::process::Command;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyInSink};

use crate::common::{Canary, Depth, Summary, World, files_holding, postgres_program, setting};

/// What the server has to be started with: a cluster that keeps quiet shows nothing.
const SETTINGS: [(&str, &str); 8] = [
    ("log_statement", "all"),
    ("log_min_duration_statement", "0"),
    ("log_parameter_max_length", "-1"),
    ("log_parameter_max_length_on_error", "-1"),
    ("log_min_messages", "debug1"),
    ("log_error_verbosity", "verbose"),
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track", "all"),
];

#[tokio::test]
async fn no_plaintext_on_disk() {
    World::run(async |world| {
        for (name, value) in SETTINGS {
            let row = world.db.query_one("SELECT current_setting($1, true)", &[&name]).await.unwrap();
            assert_eq!(
                row.get::<_, Option<&str>>(0),
                Some(value),
                "{name} of the server: run these with make test"
            );
        }
        let canary = Canary::new();
        let mut output = load(world, &canary).await;
        output += &provoke_errors_in_the_loader(world, &canary).await;
        provoke_errors_by_hand(world, &canary).await;

        let found = search(world, &canary).await;
        assert!(found.is_empty(), "raw values are in {found:?}");
        assert!(!output.contains(&canary.marker), "the loader printed: {output}");

        // The masks are there, so it was the right place to look. And a plain value is found wherever one can be.
        let mask = world.db.query_one("SELECT mask_pii($1)", &[&(canary.value(7) + "-ip")]).await.unwrap();
        assert!(dump(world).await.contains(mask.get::<_, &str>(0)));
        let planted = Canary::new();
        let marker = &planted.marker;
        world.sql(&format!("CREATE TABLE plain (value text); INSERT INTO plain SELECT '{marker}'")).await;
        // Statistics take constants out of statements, but not out of those that they cannot read.
        world.sql(&format!("DO $$ BEGIN PERFORM '{marker}'; END $$")).await;
        let found = search(world, &planted).await;
        for place in ["base", "pg_wal", "pg_stat_tmp", "log", "dump"] {
            assert!(found.contains(place), "a plain value in {place} was not found: only in {found:?}");
        }
    })
    .await;
}

/// Events that become logins, one reject of each kind, and events that the target refuses in the flush.
async fn load(world: &World, canary: &Canary) -> String {
    world.sql("ALTER TABLE user_logins ADD CONSTRAINT known_locale CHECK (locale <> 'XX')").await;
    let mut bodies = canary.events(5000);
    let rejects = canary.rejects();
    for (n, reject) in rejects.iter().enumerate() {
        bodies.insert(300 * n, reject.clone());
    }
    let culprits = 7;
    for n in 0..culprits {
        bodies.insert(711 * n + 5, canary.event_from("XX", n));
    }
    world.queue.send(&bodies).await;
    let ended = world.loader().options("--log-level debug").until_empty(&world.queue).await.expect(0);
    let rejected = rejects.len() + culprits;
    let all = 5000 + rejected;
    let expected = Summary { received: all, stored: 5000, duplicate: 0, rejected, deleted: all };
    assert_eq!(ended.summary(), expected);
    ended.output()
}

/// Runs that the server breaks off while it has events in hand.
async fn provoke_errors_in_the_loader(world: &World, canary: &Canary) -> String {
    let mut output = String::new();
    let loader = || world.loader().options("--log-level debug --wait 0 --pollers 1");
    let bodies: Vec<String> = (5000..5100).map(|n| canary.event(n)).collect();
    world.queue.send(&bodies).await;

    output += &world.break_off_in_mid_copy(loader).await;

    let owner = world.give_inbox_to_a_role().await;
    output += &loader().end().await.expect(4).says(&["42501"]).output();
    assert_eq!(world.queue.depth().await, Depth::visible(100));

    world.sql(&format!("GRANT SELECT, INSERT ON user_logins, login_rejects TO {owner}")).await;
    let ended = loader().until_empty(&world.queue).await.expect(0);
    assert_eq!(ended.summary(), Summary::stored(100));
    output + &ended.output()
}

/// A *text* COPY, of which Postgres logs the raw line with every error that it adds context to. The inbox must not let
/// it, wherever its own work or the target's fails.
async fn provoke_errors_by_hand(world: &World, canary: &Canary) {
    let session = world.session().await;
    // So many that chunks are flushed in mid-COPY, where there is a line to quote.
    let lines = canary.events(12_000).join("\n") + "\n";
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION full_disk()";
    world.sql(full).await;
    assert_eq!(copy_text(&session, &lines).await, SqlState::DISK_FULL);
    world.sql("DROP TRIGGER full_disk ON user_logins").await;

    // Rights that are missing show at the first line, before anything is flushed.
    let owner = format!("{}_owner", world.name);
    world.sql(&format!("REVOKE INSERT ON user_logins FROM {owner}")).await;
    assert_eq!(copy_text(&session, &lines).await, SqlState::INSUFFICIENT_PRIVILEGE);
    world.sql(&format!("GRANT INSERT ON user_logins TO {owner}")).await;

    let lock = world.lock_logins().await;
    session.batch_execute("SET lock_timeout TO 200").await.unwrap();
    assert_eq!(copy_text(&session, &lines).await, SqlState::LOCK_NOT_AVAILABLE);
    lock.batch_execute("COMMIT").await.unwrap();
}

/// Copies lines into the inbox in the text format, and returns the error of it.
async fn copy_text(session: &Client, lines: &str) -> SqlState {
    let copy: CopyInSink<Bytes> = session.copy_in("COPY login_inbox (body) FROM STDIN").await.unwrap();
    let mut copy = pin!(copy);
    let mut result = copy.send(Bytes::copy_from_slice(lines.as_bytes())).await;
    if result.is_ok() {
        result = copy.finish().await.map(drop);
    }
    result.unwrap_err().code().unwrap().clone()
}

/// Searches every byte of the data directory, the server's log and a dump of the database, and returns where the canary
/// was: `base` (tables, indexes, temporary files), `pg_wal` and other folders of the data directory, `log`, `dump`.
async fn search(world: &World, canary: &Canary) -> BTreeSet<String> {
    world.sql("CHECKPOINT").await;
    let marker = canary.marker.clone();
    // Reading takes a while, in which this test's connections have to go on.
    let files = tokio::task::spawn_blocking(move || {
        let root = PathBuf::from(setting("PGDATA"));
        let data = files_holding(&root, &marker);
        let log = files_holding(Path::new(&setting("PGLOG")), &marker);
        assert!(data.files > 1000 && log.files == 1, "too little was searched");
        let folder = |file: &PathBuf| file.strip_prefix(&root).unwrap().iter().next().unwrap().to_owned();
        let mut places: BTreeSet<String> =
            data.holding.iter().map(|file| folder(file).into_string().unwrap()).collect();
        if !log.holding.is_empty() {
            places.insert("log".to_owned());
        }
        places
    });
    let mut places = files.await.unwrap();
    if dump(world).await.contains(&canary.marker) {
        places.insert("dump".to_owned());
    }
    places
}

/// What `pg_dump` makes of the database.
async fn dump(world: &World) -> String {
    let mut command = Command::new(postgres_program("pg_dump"));
    command.arg(&world.name).kill_on_drop(true);
    for name in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD"] {
        command.env(name, setting(name));
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
