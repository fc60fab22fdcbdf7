//! No raw value and no key on the database's disk: heap, WAL, temporary files, log, statistics, dumps.
//!
//! The cluster logs everything that it can and keeps statistics of all statements. Events whose PII is a canary arrive
//! through the loader, both normally and through every error that the test can provoke. Then the test searches every byte
//! for the canary. With the scheme `aes-siv` the canary must not be there in base64 either, nor the key in any form.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::process::Command;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyInSink};

use crate::common::{
    Canary, Depth, Ring, Summary, Traces, World, base64, eventually, files_holding, hex, postgres_program,
    run, setting,
};

/// Required settings of the server: a cluster that logs little would prove nothing.
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
    World::run(async |world| find_nothing(world, None).await).await;
}

#[tokio::test]
async fn no_plaintext_on_disk_with_aes_siv() {
    World::run(async |world| {
        let file = format!("{}.ring", world.name);
        run(&world.db, &Ring::making(&file)).await;
        Ring::configure(&file, async || world.session().await).await;
        world.sql(&format!("ALTER DATABASE {} SET pg_mask.scheme TO 'aes-siv'", world.name)).await;
        let ring = Ring::read(Path::new(&setting("PGDATA")), &file);
        find_nothing(world, Some(&ring)).await;
        // Other tests use this server. The ring's file stays, for sessions that haven't noticed yet that there's no ring.
        Ring::configure("", async || world.session().await).await;
    })
    .await;
}

async fn find_nothing(world: &World, ring: Option<&Ring>) {
    for (name, value) in SETTINGS {
        let row = world.db.query_one("SELECT current_setting($1, true)", &[&name]).await.unwrap();
        assert_eq!(
            row.get::<_, Option<&str>>(0),
            Some(value),
            "{name} of the server: run these with make test"
        );
    }
    // From here on all WAL is kept for the search, however much concurrent tests write.
    let keep = "SELECT FROM pg_create_physical_replication_slot($1::text::name, true, true)";
    world.db.query_one(keep, &[&world.name]).await.unwrap();
    let canary = Canary::new();
    let mut secrets = Traces::of_text(&canary.marker);
    if let Some(ring) = ring {
        secrets = secrets.and(Traces::of_text_in_base64(&canary.marker)).and(ring.traces());
    }
    let mut output = load(world, &canary).await;
    output += &provoke_errors_in_the_loader(world, &canary).await;
    provoke_errors_by_hand(world, &canary).await;
    unmask(world).await;
    let masks = match ring {
        Some(_) => Traces::of_text("$siv$"),
        None => Traces::of_text_in_base64(&canary.marker),
    };
    redrive(world, &secrets, &masks).await;

    let found = search(world, &secrets, ring).await;
    assert!(found.is_empty(), "raw values or keys: {found:?}");
    let printed = secrets.forms_in(output.as_bytes());
    assert!(printed.is_empty(), "{printed:?} in what the loader printed: {output}");

    // The masks are there, so the search looks in the right places. A planted plain value must be found in each place.
    let mask = "SELECT mask_pii($1)";
    let row = world.session().await.query_one(mask, &[&(canary.value(7) + "-ip")]).await.unwrap();
    let mask: &str = row.get(0);
    assert_eq!(mask.starts_with("$siv$"), ring.is_some());
    assert!(!Traces::of_text(mask).forms_in(&dump(world).await).is_empty());
    let [text, encoded, key] =
        [1, 1, 3].map(|canaries| (0..canaries).map(|_| Canary::new().marker).collect::<String>());
    let in_base64 = [base64(encoded.as_bytes()), base64(key.as_bytes())];
    let texts = [text.clone(), in_base64.join(" "), key.clone(), hex(key.as_bytes())].join(" ");
    // A page of the WAL can end within a text, but not within each of three.
    let plant = format!(
        "CREATE TABLE plain (value text); INSERT INTO plain SELECT '{texts}' FROM generate_series(1, 3)"
    );
    world.sql(&plant).await;
    // Statistics replace constants in statements, but not in statements that they can't parse.
    world.sql(&format!("DO $$ BEGIN PERFORM '{texts}'; END $$")).await;
    let planted =
        Traces::of_text(&text).and(Traces::of_text_in_base64(&encoded)).and(Traces::of_key(key.as_bytes()));
    let found = search(world, &planted, None).await;
    for place in ["base", "pg_wal", "pg_stat_tmp", "log", "dump"] {
        for form in ["text", "text in base64", "key", "key in hex", "key in base64"] {
            let planted = format!("{form} in {place}");
            assert!(found.contains(&planted), "{planted} was not found: only {found:?}");
        }
    }
}

/// Unmasks all masks, with as much logging as possible.
async fn unmask(world: &World) {
    let statements = "
        SET pg_mask.log_unmask TO 'statement';
        SELECT user_id, unmask_pii(masked_ip), unmask_pii(masked_device_id) FROM user_logins;
        SELECT unmask_pii(masked_body) FROM login_rejects";
    world.session().await.batch_execute(statements).await.unwrap();
}

/// Redrives rejects: first with an error in the middle, then so many that they're flushed while `PostgreSQL` keeps others in
/// a temporary file. That file goes at the end, so the test searches it in the meantime.
async fn redrive(world: &World, secrets: &Traces, masks: &Traces) {
    let owner = format!("{}_owner", world.name);
    let session = world.session().await;
    let redrive = "SELECT taken, stored FROM redrive_rejects('login_inbox', max_rejects => NULL)";
    session
        .batch_execute(&format!(
            "GRANT EXECUTE ON FUNCTION unmask_pii(text) TO {owner};
             GRANT UPDATE, DELETE ON login_rejects TO {owner};
             INSERT INTO login_rejects SELECT gen_random_uuid(), sent_at, reason, masked_body, rejected_at - interval '1 day'
                 FROM login_rejects, generate_series(1, 2000);
             INSERT INTO login_rejects VALUES (NULL, NULL, '', 'no mask', now() - interval '1 hour');
             ALTER TABLE user_logins DROP CONSTRAINT known_locale"
        ))
        .await
        .unwrap();
    let error = session.query_one(redrive, &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_PARAMETER_VALUE));
    session.batch_execute("DELETE FROM login_rejects WHERE masked_body = 'no mask'").await.unwrap();

    // Another transaction has inserted the message ids of one reason, so the first flush waits for its outcome, whatever the
    // order of the rejects. Most rejects are then still in the file. A lock on the table could instead stop the statement
    // before it takes any rejects.
    let other = world.session().await;
    other
        .batch_execute(
            "BEGIN;
             INSERT INTO user_logins (user_id, message_id)
                 SELECT 'other', message_id FROM login_rejects WHERE reason LIKE '%known_locale%'",
        )
        .await
        .unwrap();
    let redriven = session.query_one(redrive, &[]);
    let searched = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = $1 AND wait_event_type = 'Lock' AND query LIKE '%redrive_rejects%'";
        eventually("a flush that waits", async || world.number(waiting, &[&world.name]).await == 1).await;
        let temporary = Path::new(&setting("PGDATA")).join("base/pgsql_tmp");
        let found = [masks, secrets].map(|traces| !files_holding(&temporary, traces).holding.is_empty());
        other.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(found, [true, false], "masks and secrets in temporary files");
    };
    let (redriven, ()) = tokio::join!(redriven, searched);
    let redriven = redriven.unwrap();
    let [taken, stored] = [redriven.get::<_, i64>(0), redriven.get(1)];
    assert!(stored > 14_000 && taken > stored, "{taken} taken, {stored} stored");
}

/// Stores events that become logins, one reject of each kind, and events that the target refuses in the flush.
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

/// Runs loaders that the server interrupts while they have events in flight.
async fn provoke_errors_in_the_loader(world: &World, canary: &Canary) -> String {
    let mut output = String::new();
    let loader = || world.loader().options("--log-level debug --wait 0 --pollers 1");
    let bodies: Vec<String> = (5000..5100).map(|n| canary.event(n)).collect();
    world.queue.send(&bodies).await;

    output += &world.break_off_in_mid_copy(loader).await;

    let owner = world.give_inbox_to_a_role().await;
    // With this privilege, the ones still missing show only in the flush, under a key too.
    world.sql(&format!("GRANT EXECUTE ON FUNCTION mask_pii(text, text) TO {owner}")).await;
    output += &loader().end().await.expect(4).says(&["42501"]).output();
    assert_eq!(world.queue.depth().await, Depth::visible(100));

    world.sql(&format!("GRANT SELECT, INSERT ON user_logins, login_rejects TO {owner}")).await;
    let ended = loader().until_empty(&world.queue).await.expect(0);
    assert_eq!(ended.summary(), Summary::stored(100));
    output + &ended.output()
}

/// Provokes errors in a *text* COPY, of which `PostgreSQL` logs the raw line with every error that it adds context to. The
/// inbox must prevent that, both when its own work fails and when the target's does.
async fn provoke_errors_by_hand(world: &World, canary: &Canary) {
    let session = world.session().await;
    // Enough lines that chunks are flushed in the middle of the COPY, where there's a line to quote.
    let lines = canary.events(30_000).join("\n") + "\n";
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
                CREATE TRIGGER full_disk BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION full_disk()";
    world.sql(full).await;
    assert_eq!(copy_text(&session, &lines).await, SqlState::DISK_FULL);
    world.sql("DROP TRIGGER full_disk ON user_logins").await;

    // Missing privileges show at the first line, before anything is flushed.
    let owner = format!("{}_owner", world.name);
    world.sql(&format!("REVOKE INSERT ON user_logins FROM {owner}")).await;
    assert_eq!(copy_text(&session, &lines).await, SqlState::INSUFFICIENT_PRIVILEGE);
    world.sql(&format!("GRANT INSERT ON user_logins TO {owner}")).await;

    let lock = world.lock_logins().await;
    session.batch_execute("SET lock_timeout TO 200").await.unwrap();
    assert_eq!(copy_text(&session, &lines).await, SqlState::LOCK_NOT_AVAILABLE);
    lock.batch_execute("COMMIT").await.unwrap();
}

/// Copies lines into the inbox in the text format, and returns the error's SQLSTATE.
async fn copy_text(session: &Client, lines: &str) -> SqlState {
    let copy: CopyInSink<Bytes> = session.copy_in("COPY login_inbox (body) FROM STDIN").await.unwrap();
    let mut copy = pin!(copy);
    let mut result = copy.send(Bytes::copy_from_slice(lines.as_bytes())).await;
    if result.is_ok() {
        result = copy.finish().await.map(drop);
    }
    result.unwrap_err().code().unwrap().clone()
}

/// Searches every byte of the data directory, the server's log and a dump of the database. Returns the forms found and their
/// places: `base` (tables, indexes, temporary files), `pg_wal` and other folders of the data directory, `log`, `dump`.
async fn search(world: &World, secrets: &Traces, ring: Option<&Ring>) -> BTreeSet<String> {
    world.sql("CHECKPOINT").await;
    let traces = secrets.clone();
    // The search takes a while, and this test's connections must keep running meanwhile.
    let files = tokio::task::spawn_blocking(move || {
        let root = PathBuf::from(setting("PGDATA"));
        let data = files_holding(&root, &traces);
        let log = files_holding(Path::new(&setting("PGLOG")), &traces);
        assert!(data.files > 1000 && log.files == 1, "too little was searched");
        (root, data.holding, log.holding)
    });
    let (root, mut data, log) = files.await.unwrap();
    if let Some(ring) = ring {
        // The only file that the key belongs in. Finding it there proves that the search covers it.
        assert!(data.remove(&(ring.path.clone(), "key in base64")), "the ring was not searched");
    }
    let folder = |file: &Path| file.strip_prefix(&root).unwrap().iter().next().unwrap().to_owned();
    let mut places: BTreeSet<String> =
        data.iter().map(|(file, form)| format!("{form} in {}", folder(file).display())).collect();
    places.extend(log.iter().map(|(_, form)| format!("{form} in log")));
    places.extend(secrets.forms_in(&dump(world).await).iter().map(|form| format!("{form} in dump")));
    places
}

/// Returns the output of `pg_dump` for the database.
async fn dump(world: &World) -> Vec<u8> {
    let mut command = Command::new(postgres_program("pg_dump"));
    command.arg(&world.name).kill_on_drop(true);
    for name in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD"] {
        command.env(name, setting(name));
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
