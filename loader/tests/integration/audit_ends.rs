//! However a statement ends, the values that it unmasked are counted and logged in one line.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;

use crate::audit::lines;
use crate::common::{Deaf, World, eventually};

/// Bytes that a backend buffers before it sends (`PQ_SEND_BUFFER_SIZE`, pqcomm.c).
const SEND_BUFFER: usize = 8192;
/// Number of send buffers that is more than a socket holds for a client that reads nothing.
const TOO_MUCH: usize = 1024;
/// Number of rows in `masks`.
const MASKS: usize = 200;

/// Returns a query that unmasks all masks and then fills the socket with a number of bytes.
fn unmask_and_send(bytes: usize) -> String {
    // A row of 1024 bytes on the wire has 11 bytes before its text.
    let (rows, rest) = (bytes / 1024, bytes % 1024);
    format!(
        "SELECT unmask_pii(mask) AS v FROM masks UNION ALL SELECT repeat('x', {rest})
         UNION ALL SELECT repeat('x', 1013) FROM generate_series(1, {rows})"
    )
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_logged_when_it_is_terminated_after_the_commit() {
    World::run(async |world| {
        let audited = Audited::role(world).await;
        let row_bytes = audited.bytes_of_an_answer(world).await - "C0000SELECT 201\0Z0000I".len();
        // This many more bytes fill a number of send buffers to the last byte. The end of the statement then waits for the
        // last buffer.
        let rest = SEND_BUFFER - row_bytes % SEND_BUFFER;
        // A socket holds a certain number of send buffers. Exactly one number lies between too few and too many.
        let (mut few, mut many) = (0, TOO_MUCH);
        let reader = loop {
            assert!(
                few + 1 < many,
                "no number of bytes stops a backend between its commit and its last message"
            );
            let middle = few.midpoint(many);
            let reader = DeafReader::start(world, &unmask_and_send(rest + middle * SEND_BUFFER)).await;
            match reader.state(world).await {
                State::Done => few = middle,
                State::InTransaction => many = middle,
                State::Committed => break reader,
            }
            reader.terminate(world).await;
            audited.forget(world).await;
        };
        assert_eq!(audited.new_lines(world), [""; 0], "the statement is not over");
        reader.terminate(world).await;
        audited.assert_unmasked(world, &[MASKS]).await;
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_is_terminated_or_lost_in_the_middle_of_its_rows_is_logged() {
    World::run(async |world| {
        let audited = Audited::role(world).await;
        for lost in [false, true] {
            let reader = DeafReader::start(world, &unmask_and_send(TOO_MUCH * SEND_BUFFER)).await;
            assert_eq!(reader.state(world).await, State::InTransaction);
            if lost {
                reader.lose(world).await;
            } else {
                reader.terminate(world).await;
            }
            audited.assert_unmasked(world, &[MASKS]).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_is_cancelled_times_out_or_fails_is_logged_once() {
    World::run(async |world| {
        let audited = Audited::role(world).await;
        let fifth = |what: &str| format!("SELECT unmask_pii(mask), CASE n WHEN 5 THEN {what} END FROM masks");
        let then_sleep =
            |what: &str| fifth(&format!("CASE WHEN {what}(pg_backend_pid()) THEN pg_sleep(60)::text END"));
        for (statement, values) in [
            (format!("SET statement_timeout = '200ms'; {}", fifth("pg_sleep(60)::text")), vec![5]),
            (then_sleep("pg_cancel_backend"), vec![5]),
            (fifth("(1 / (n - 5))::text"), vec![5]),
            (then_sleep("pg_terminate_backend"), vec![5]),
            ("BEGIN; SELECT unmask_pii(mask) FROM masks LIMIT 3; SELECT 1 / 0".into(), vec![3]),
            // A transaction that ends in the middle of a message, and the rest of that message.
            ("BEGIN; SELECT unmask_pii(mask) FROM masks LIMIT 3; COMMIT; SELECT 1 / 0".into(), vec![3]),
            ("COPY (SELECT unmask_pii(mask) FROM masks LIMIT 7) TO STDOUT".into(), vec![7]),
        ] {
            let session = Deaf::connect(world).await;
            _ = session.client.simple_query(&statement).await;
            drop(session);
            audited.assert_unmasked(world, &values).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_leaves_no_memory_for_the_line_is_logged() {
    World::run(async |world| {
        let audited = Audited::role(world).await;
        let session = Deaf::connect(world).await;
        // A statement's text and plan, which a session can give back without taking memory for it.
        let room = format!("PREPARE room AS SELECT '{}'", "x".repeat(400_000));
        session.client.simple_query(&room).await.unwrap();
        // What the session keeps of these statements is there before memory is short. It keeps settings for good.
        let hog = "CREATE FUNCTION pg_temp.hog(smallest integer) RETURNS integer LANGUAGE plpgsql AS $$
                   DECLARE
                       size integer := 1000000;
                       count integer := 0;
                   BEGIN
                       LOOP
                           BEGIN
                               count := count + 1;
                               PERFORM set_config('hog.n' || count, repeat('x', size), false);
                           EXCEPTION WHEN out_of_memory THEN
                               size := size / 2;
                               IF size < smallest THEN RETURN count; END IF;
                           END;
                       END LOOP;
                   END $$;
                   DO $$ BEGIN PERFORM unmask_pii(mask), set_config('hog.n0', 'x', false) FROM masks LIMIT 2; END $$";
        session.client.simple_query(hog).await.unwrap();
        let pid: i32 = session.client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let leave = format!(
            "COPY (SELECT 1) TO PROGRAM 'read pages rest </proc/{pid}/statm &&
             prlimit --pid {pid} --as=$((pages * $(getconf PAGESIZE) + 4000000))'"
        );
        world.sql(&leave).await;
        let unmask_and_hog =
            "DO $$ BEGIN PERFORM unmask_pii(mask) FROM masks; PERFORM pg_temp.hog(16); END $$";
        session.client.simple_query(unmask_and_hog).await.unwrap();
        // That megabyte makes room for another statement, and not for the two that are held back for errors. The session
        // couldn't take those, so it goes on.
        session.client.simple_query("DEALLOCATE room").await.unwrap();
        session.client.simple_query("SELECT unmask_pii(mask) FROM masks").await.unwrap();
        drop(session);
        audited.assert_unmasked(world, &[2, MASKS, MASKS]).await;
    })
    .await;
}

#[tokio::test]
async fn unmasking_is_logged_once_before_a_session_ends() {
    World::run(async |world| {
        let audited = Audited::role(world).await;
        let timeout = "SET idle_in_transaction_session_timeout = '100ms'; BEGIN;
                       SELECT unmask_pii(mask) FROM masks LIMIT 4";
        let session = Deaf::connect(world).await;
        session.client.simple_query(timeout).await.unwrap();
        eventually("the end of the session", async || session.client.is_closed()).await;
        audited.assert_unmasked(world, &[4]).await;

        // A cursor is closed in a message of its own, or runs to its end when the transaction does.
        let session = Deaf::connect(world).await;
        for statement in [
            "BEGIN; DECLARE c CURSOR FOR SELECT unmask_pii(mask) FROM masks",
            "FETCH 3 FROM c",
            "CLOSE c",
            "DECLARE h CURSOR WITH HOLD FOR SELECT unmask_pii(mask) FROM masks",
            "COMMIT",
            "CLOSE h",
        ] {
            session.client.simple_query(statement).await.unwrap();
        }
        drop(session);
        audited.assert_unmasked(world, &[3, MASKS]).await;
    })
    .await;
}

/// The world's role, whose unmasking is logged.
struct Audited {
    name: String,
    /// Number of lines that were checked, and of values that were counted by then.
    seen: Cell<(usize, usize)>,
}

impl Audited {
    async fn role(world: &World) -> Self {
        let name = world.name.clone();
        world
            .sql(&format!(
                "CREATE TABLE masks AS SELECT n, mask_pii('value' || n) AS mask FROM generate_series(1, {MASKS}) AS n;
                 GRANT SELECT ON masks TO PUBLIC; GRANT login_pii_reader TO {name};
                 ALTER ROLE {name} SET pg_mask.log_unmask = 'statement'"
            ))
            .await;
        Self { name, seen: Cell::new((0, 0)) }
    }

    /// Returns the lines since the last check.
    fn new_lines(&self, world: &World) -> Vec<String> {
        lines(world).split_off(self.seen.get().0)
    }

    /// Returns the number of values in the role's statistics.
    async fn counted(&self, world: &World) -> usize {
        let query = "SELECT coalesce(sum(unmasked), 0)::bigint FROM unmask_statistics WHERE role::text = $1";
        world.number(query, &[&self.name]).await
    }

    /// Waits until the role's sessions have ended, and ignores what they have unmasked.
    async fn forget(&self, world: &World) {
        self.sessions_end(world).await;
        self.seen.set((lines(world).len(), self.counted(world).await));
    }

    /// Waits until the sessions have ended. Panics unless each number in `values` has a line and is counted.
    async fn assert_unmasked(&self, world: &World, values: &[usize]) {
        self.sessions_end(world).await;
        let line = |values| {
            format!(
                "pg_mask: role \"{0}\" unmasked {values} values (database \"{0}\", application \"{0}\")",
                self.name
            )
        };
        assert_eq!(self.new_lines(world), values.iter().map(line).collect::<Vec<_>>());
        let counted = self.counted(world).await - self.seen.get().1;
        assert_eq!(counted, values.iter().sum::<usize>());
        self.forget(world).await;
    }

    /// Returns the bytes that a client gets if it asks for the masks alone.
    async fn bytes_of_an_answer(&self, world: &World) -> usize {
        let session = Deaf::connect(world).await;
        let before = session.read.load(Relaxed);
        session.client.simple_query(&unmask_and_send(0)).await.unwrap();
        let bytes = session.read.load(Relaxed) - before;
        drop(session);
        self.forget(world).await;
        bytes
    }

    async fn sessions_end(&self, world: &World) {
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        eventually("the end of its sessions", async || world.number(sessions, &[&self.name]).await == 0)
            .await;
    }
}

/// A session that has asked for more data than it reads.
struct DeafReader {
    pid: i32,
    session: Deaf,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Everything that the backend sends fits into the socket.
    Done,
    /// The backend waits for its client before it commits.
    InTransaction,
    /// The backend waits for its client after it has committed.
    Committed,
}

impl DeafReader {
    async fn start(world: &World, query: &str) -> Self {
        let session = Deaf::connect(world).await;
        let pid: i32 = session.client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        session.send_and_read_nothing(query);
        Self { pid, session }
    }

    /// Returns how far the backend has got, once it gets no further.
    async fn state(&self, world: &World) -> State {
        let query = "SELECT state = 'idle', xact_start IS NOT NULL FROM pg_stat_activity
                     WHERE pid = $1 AND query LIKE '%generate_series%' AND (state = 'idle' OR wait_event = 'ClientWrite')";
        let mut found = None;
        eventually("a backend that waits for its client", async || {
            found = world.db.query_opt(query, &[&self.pid]).await.unwrap();
            found.is_some()
        })
        .await;
        let found = found.unwrap();
        match (found.get(0), found.get(1)) {
            (true, _) => State::Done,
            (false, true) => State::InTransaction,
            (false, false) => State::Committed,
        }
    }

    /// Lets another session of the same role terminate the backend.
    async fn terminate(self, world: &World) {
        let other = Deaf::connect(world).await;
        let row = other.client.query_one("SELECT pg_terminate_backend($1)", &[&self.pid]).await.unwrap();
        assert!(row.get::<_, bool>(0), "its role may do that");
        drop(other);
        gone(world, self.pid).await;
    }

    /// Closes the connection.
    async fn lose(self, world: &World) {
        let pid = self.pid;
        drop(self.session);
        gone(world, pid).await;
    }
}

async fn gone(world: &World, pid: i32) {
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1";
    eventually("the end of its session", async || world.number(sessions, &[&pid]).await == 0).await;
}
