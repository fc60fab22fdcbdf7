//! The server's log says who unmasked how many values, and contains neither the values nor the statement.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::common::{OwnServers, SCHEMA, World, eventually, setting};

/// Creates a table of masks, and a function `lent` that unmasks with its owner's privileges.
const FUNCTIONS: &str = "
    CREATE FUNCTION lent(mask text) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT unmask_pii(mask)';
    CREATE TABLE masks AS SELECT n, mask_pii('LITERAL' || n) AS mask FROM generate_series(1, 10) AS n;
    GRANT SELECT ON masks TO PUBLIC";

#[tokio::test]
async fn every_statement_that_unmasks_is_one_line_of_the_log() {
    World::run(async |world| {
        world.sql(FUNCTIONS).await;
        // A role whose name would add a line of its own to the log.
        let reader = format!("{}\nLOG: \"reader\"", world.name);
        let quoted = reader.replace('"', "\"\"");
        world.sql(&format!("CREATE ROLE \"{quoted}\" IN ROLE login_pii_reader")).await;
        let session = world.session().await;
        let start = format!(
            "SET pg_mask.log_unmask = statement; SET application_name = '{}';
             SET SESSION AUTHORIZATION \"{quoted}\"",
            world.name
        );
        session.batch_execute(&start).await.unwrap();

        for (statement, lines) in [
            ("SELECT unmask_pii(mask) FROM masks", vec!["10 values"]),
            ("SELECT unmask_pii(mask) FROM masks WHERE mask <> 'LITERAL' LIMIT 1", vec!["1 value"]),
            ("SELECT mask FROM masks", vec![]),
            // Values that came out before an error, or could have come out with it.
            ("SELECT unmask_pii(mask), 1 / (n - 4) FROM masks WHERE mask <> 'LITERAL' ORDER BY n", vec!["4 values"]),
            ("BEGIN; SELECT unmask_pii(mask) FROM masks LIMIT 2; ROLLBACK", vec!["2 values"]),
            // At any depth.
            (
                "DO $$ DECLARE r record; BEGIN FOR r IN SELECT unmask_pii(mask) FROM masks LOOP
                     PERFORM unmask_pii(mask) FROM masks WHERE mask <> 'LITERAL'; END LOOP; END $$",
                vec!["110 values"],
            ),
            // A cursor is used in several statements.
            ("BEGIN; DECLARE c CURSOR FOR SELECT unmask_pii(mask) FROM masks", vec![]),
            ("FETCH 3 FROM c", vec!["3 values"]),
            ("FETCH 4 FROM c", vec!["4 values"]),
            ("COMMIT", vec![]),
            // With another role's privileges, the line still names the role that logged in.
            ("SELECT lent(mask) FROM masks WHERE n <= 2", vec!["2 values, 2 with the rights of \"postgres\""]),
            (
                "SELECT unmask_pii(mask), lent(mask) FROM masks",
                vec!["20 values, 10 with the rights of \"postgres\""],
            ),
            ("SET LOCAL ROLE login_pii_reader", vec![]),
            ("SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
              SET min_parallel_table_scan_size = 0", vec![]),
            ("SELECT count(unmask_pii(mask)) FROM masks", vec!["10 values"]),
            ("EXPLAIN ANALYZE SELECT unmask_pii(mask) FROM masks", vec!["10 values"]),
            ("COPY (SELECT unmask_pii(mask) FROM masks) TO '/dev/null'", vec![]),
            ("BEGIN; CREATE TEMP TABLE seen AS SELECT unmask_pii(mask) FROM masks; ROLLBACK", vec!["10 values"]),
        ] {
            assert_eq!(logged(world, &session, statement).await, lines, "{statement}");
        }
        // The extended protocol: prepared once and executed twice.
        let prepared = session.prepare("SELECT unmask_pii(mask) FROM masks WHERE n <= $1").await.unwrap();
        for n in [2, 5] {
            let before = lines(world).len();
            session.query(&prepared, &[&n]).await.unwrap();
            assert_eq!(lines(world)[before..], [line(world, &format!("{n} values"))]);
        }
        // A session that ends in the middle of a statement.
        let before = lines(world).len();
        let end = "SELECT unmask_pii(mask), pg_terminate_backend(pg_backend_pid()), pg_sleep(60) FROM masks LIMIT 1";
        session.batch_execute(end).await.unwrap_err();
        eventually("a line", async || lines(world).len() > before).await;
        assert_eq!(lines(world)[before..], [line(world, "1 value")]);
        world.sql(&format!("DROP ROLE \"{quoted}\"")).await;
    })
    .await;
}

#[tokio::test]
async fn each_value_is_logged_for_the_purpose_under_which_it_was_unmasked() {
    World::run(async |world| {
        world.sql(FUNCTIONS).await;
        world
            .sql(
                "CREATE FUNCTION why(mask text) RETURNS text LANGUAGE plpgsql SET pg_mask.unmask_purpose = 'why' AS
                 $$ BEGIN RETURN unmask_pii(mask); END $$",
            )
            .await;
        let session = world.session().await;
        let start = format!("SET pg_mask.log_unmask = statement; SET application_name = '{}'", world.name);
        session.batch_execute(&start).await.unwrap();
        let set = "set_config('pg_mask.unmask_purpose', ";
        for (statement, wanted) in [
            ("SELECT unmask_pii(mask) FROM masks".to_owned(), vec![("10 values", "")]),
            // Nothing in the purpose begins or ends anything in the line.
            (
                format!("SELECT {set}E'ticket\nLOG: \"4711\")', false); SELECT unmask_pii(mask) FROM masks"),
                vec![("10 values", r#", purpose "ticket\nLOG: \"4711\")""#)],
            ),
            ("SET pg_mask.unmask_purpose = ' '; SELECT unmask_pii(mask) FROM masks".into(), vec![("10 values", "")]),
            // A purpose that changes in the middle of a statement …
            (
                format!("SELECT {set}'before' || n, false), unmask_pii(mask) FROM masks WHERE n <= 2"),
                vec![("1 value", r#", purpose "before1""#), ("1 value", r#", purpose "before2""#)],
            ),
            (
                format!("SELECT unmask_pii(mask), {set}'after' || n, false) FROM masks WHERE n <= 2"),
                vec![("1 value", r#", purpose "before2""#), ("1 value", r#", purpose "after1""#)],
            ),
            // … or of a transaction, and a purpose that is undone with the transaction.
            (
                "BEGIN; SET LOCAL pg_mask.unmask_purpose = 'a'; SELECT unmask_pii(mask) FROM masks LIMIT 2;
                 SAVEPOINT s; SET LOCAL pg_mask.unmask_purpose = 'b'; SELECT unmask_pii(mask) FROM masks LIMIT 3;
                 ROLLBACK TO s; SELECT unmask_pii(mask) FROM masks LIMIT 4; COMMIT;
                 SELECT unmask_pii(mask) FROM masks LIMIT 5"
                    .into(),
                vec![
                    ("2 values", r#", purpose "a""#),
                    ("3 values", r#", purpose "b""#),
                    ("4 values", r#", purpose "a""#),
                    ("5 values", r#", purpose "after2""#),
                ],
            ),
            (
                "SET pg_mask.unmask_purpose = 'mine'; SELECT unmask_pii(mask), why(mask) FROM masks LIMIT 1".into(),
                vec![("1 value", r#", purpose "mine""#), ("1 value", r#", purpose "why""#)],
            ),
            // Values before an error that restores the earlier purpose.
            (
                "BEGIN; SET LOCAL pg_mask.unmask_purpose = 'error';
                 SELECT unmask_pii(mask), 1 / (n - 4) FROM masks ORDER BY n"
                    .into(),
                vec![("4 values", r#", purpose "error""#)],
            ),
            ("ROLLBACK; SET pg_mask.unmask_purpose = ''".into(), vec![]),
        ] {
            let before = lines(world).len();
            let _ = session.batch_execute(&statement).await;
            session.batch_execute("").await.unwrap();
            let wanted: Vec<_> = wanted
                .into_iter()
                .map(|(values, purpose)| {
                    format!(
                        "pg_mask: role \"postgres\" unmasked {values} (database \"{0}\", application \"{0}\"{purpose})",
                        world.name
                    )
                })
                .collect();
            assert_eq!(lines(world)[before..], wanted, "{statement}");
        }
    })
    .await;
}

/// Uses a server of its own, because the test uses up the server's shared memory.
#[tokio::test]
async fn values_are_unmasked_and_events_stored_without_room_for_statistics() {
    let servers = OwnServers::start("no-room", &[]);
    let session = servers.connect().await;
    for file in SCHEMA {
        session.batch_execute(file).await.unwrap();
    }
    // Locks use up the shared memory that is left for libraries, and don't give it back.
    let fill = "DO $$ BEGIN
                    FOR n IN 1..1000000 LOOP PERFORM pg_advisory_lock(n); END LOOP;
                    RAISE 'there is no end to it';
                EXCEPTION WHEN out_of_memory THEN PERFORM pg_advisory_unlock_all();
                END $$";
    session.batch_execute(fill).await.unwrap();

    let session = servers.connect().await;
    let value: String = session.query_one("SELECT unmask_pii('MTAuMC4wLjE=')", &[]).await.unwrap().get(0);
    assert_eq!(value, "10.0.0.1");
    session.batch_execute("INSERT INTO login_inbox (body) VALUES ('{\"ip\": \"10.0.0.1\"}')").await.unwrap();
    let query =
        "SELECT (SELECT stored + rejected FROM inbox_counts()), (SELECT count(*) FROM inbox_statistics),
                        (SELECT count(*) FROM unmask_statistics)";
    let counts = session.query_one(query, &[]).await.unwrap();
    assert_eq!([counts.get::<_, i64>(0), counts.get(1), counts.get(2)], [1, 0, 0]);
    // Running out of room has left no state behind: the session can still be cancelled.
    let cancelled = session.batch_execute("SET statement_timeout = '100ms'; SELECT pg_sleep(5)").await;
    assert_eq!(cancelled.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}

/// Returns the log's messages about unmasking by `statement`, without the parts that all lines share.
async fn logged(world: &World, session: &Client, statement: &str) -> Vec<String> {
    let before = lines(world).len();
    let _ = session.batch_execute(statement).await;
    // An error reaches the client before the server has finished the message, and the line comes in between. The empty query
    // waits for that.
    session.batch_execute("").await.unwrap();
    let found = lines(world).split_off(before);
    let (start, end) = (start(world), end(world));
    found
        .iter()
        .map(|line| {
            let what = line.strip_prefix(&start).and_then(|rest| rest.strip_suffix(&end));
            what.unwrap_or_else(|| panic!("{line}")).to_owned()
        })
        .collect()
}

fn line(world: &World, what: &str) -> String {
    format!("{}{what}{}", start(world), end(world))
}

fn start(world: &World) -> String {
    format!(r#"pg_mask: role "{}\nLOG: \"reader\"" unmasked "#, world.name)
}

fn end(world: &World) -> String {
    format!(r#" (database "{0}", application "{0}")"#, world.name)
}

/// Returns the log lines about unmasking in this test's database. Panics if `PostgreSQL` adds the statement, context or
/// detail to one.
pub(crate) fn lines(world: &World) -> Vec<String> {
    let log = std::fs::read(setting("PGLOG")).unwrap();
    let log = String::from_utf8_lossy(&log);
    let mut found = Vec::new();
    let mut process = None;
    for line in log.lines() {
        // "2026-11-23 16:36:05.000 UTC [4711] LOG:  00000: pg_mask: role …"
        let this = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(pid, _)| pid);
        if process.is_some() && this == process {
            let more = ["STATEMENT:", "CONTEXT:", "QUERY:", "DETAIL:"].iter().any(|word| line.contains(word));
            assert!(!more, "{line}");
            // The entry ends with the source location of the message, which is for developers.
            process = line.contains("LOCATION:").then_some(process).flatten();
        }
        if let Some(at) = line.find("pg_mask: role ")
            && line.contains(&world.name)
            && line.contains("LOG:  ")
        {
            found.push(line[at..].to_owned());
            process = this;
        }
    }
    found
}
