//! Support code of the tests: a world for each test, and ways to wait in it.

mod certificates;
#[cfg(feature = "otlp")]
mod collector;
mod deaf;
mod events;
mod http;
mod link;
mod loader;
mod metrics;
mod pgbouncer;
mod proxy;
mod queue;
mod ring;
mod search;
mod servers;
mod slow;
mod standby;
mod swallower;
mod tls_server;
mod traces;

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

#[cfg(feature = "otlp")]
pub(crate) use collector::{Collector, attribute};
pub(crate) use deaf::Deaf;
pub(crate) use events::{Canary, demo_events, event, events};
pub(crate) use link::Link;
pub(crate) use loader::{Loader, Summary, nobody};
pub(crate) use metrics::{Metrics, readyz, request};
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use proxy::{Delete, Proxy};
pub(crate) use queue::{Depth, Queue};
pub(crate) use ring::{Ring, run};
pub(crate) use search::files_holding;
pub(crate) use servers::{OwnServers, postgres_program, server_environment, setting};
pub(crate) use slow::SlowLink;
pub(crate) use standby::Standby;
pub(crate) use swallower::Swallower;
pub(crate) use tls_server::{Outcome, PASSWORD, Turn};
pub(crate) use traces::{Traces, base64, hex};

/// Maximum time of one test, on a machine that is busy with other work too.
const TEST_LIMIT: Duration = Duration::from_mins(2);
/// Maximum time to wait for something that is bound to happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// The application's schema, in the order in which it must be applied.
pub(crate) const SCHEMA: [&str; 4] = [
    include_str!("../../../../sql/01_extension.sql"),
    include_str!("../../../../sql/02_tables.sql"),
    include_str!("../../../../sql/03_inbox.sql"),
    include_str!("../../../../sql/04_roles.sql"),
];

/// A database, a queue and a login role with one name, for one test.
pub(crate) struct World {
    /// Name of the database, the queue and the role.
    pub(crate) name: String,
    /// The role's password.
    pub(crate) password: String,
    /// The queue.
    pub(crate) queue: Queue,
    /// A superuser's session in the database.
    pub(crate) db: Client,
}

impl World {
    /// Runs `test` in a new world within `TEST_LIMIT`, and removes the world whatever the outcome.
    pub(crate) async fn run(test: impl AsyncFnOnce(&World)) {
        let world = Self::make().await;
        let outcome = AssertUnwindSafe(timeout(TEST_LIMIT, test(&world))).catch_unwind().await;
        world.remove().await;
        match outcome {
            Ok(in_time) => assert!(in_time.is_ok(), "not done within {} s", TEST_LIMIT.as_secs()),
            Err(panic) => resume_unwind(panic),
        }
    }

    async fn make() -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let name = format!("it_{}_{}", std::process::id(), WORLDS.fetch_add(1, Relaxed));
        let password = format!("{:016x}", fastrand::u64(..));
        let cluster = servers::connect(None).await;
        cluster.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let db = servers::connect(Some(&name)).await;
        // Two worlds that grant the same privileges at the same time would conflict.
        let roles = Self::lock_roles().await;
        for file in SCHEMA {
            db.batch_execute(file).await.unwrap();
        }
        db.batch_execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE login_loader"))
            .await
            .unwrap();
        drop(roles);
        let queue = Queue::create(&setting("AWS_ENDPOINT_URL"), &name).await;
        Self { name, password, queue, db }
    }

    /// Keeps other worlds from being made until the returned session ends. Roles belong to the cluster, and a world can't be
    /// made while `login_owner` has members.
    pub(crate) async fn lock_roles() -> Client {
        let session = servers::connect(None).await;
        session.batch_execute("SELECT pg_advisory_lock(1)").await.unwrap();
        session
    }

    async fn remove(self) {
        self.queue.delete().await;
        let cluster = servers::connect(None).await;
        cluster.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await.unwrap();
        // The last two roles exist only if the test has created them.
        cluster
            .batch_execute(&format!(
                "DROP ROLE {0}; DROP ROLE IF EXISTS {0}_owner; DROP ROLE IF EXISTS {0}_redriver",
                self.name
            ))
            .await
            .unwrap();
    }

    /// Returns a loader for this world, configured for short waits.
    pub(crate) fn loader(&self) -> Loader {
        Loader::of(self)
    }

    /// Opens another superuser session in the database.
    pub(crate) async fn session(&self) -> Client {
        servers::connect(Some(&self.name)).await
    }

    /// Runs statements as a superuser.
    pub(crate) async fn sql(&self, statements: &str) {
        self.db.batch_execute(statements).await.unwrap();
    }

    /// Returns the number that a query selects.
    pub(crate) async fn number(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> usize {
        let number: i64 = self.db.query_one(query, parameters).await.unwrap().get(0);
        usize::try_from(number).unwrap()
    }

    /// Counts the rows of `user_logins`.
    pub(crate) async fn logins(&self) -> usize {
        self.number("SELECT count(*) FROM user_logins", &[]).await
    }

    /// Counts the rows of `login_rejects`.
    pub(crate) async fn rejects(&self) -> usize {
        self.number("SELECT count(*) FROM login_rejects", &[]).await
    }

    /// Panics unless `user_logins` holds exactly `messages` rows, each with its own message id.
    pub(crate) async fn assert_each_stored_once(&self, messages: usize) {
        let ids = self.number("SELECT count(DISTINCT message_id) FROM user_logins", &[]).await;
        assert_eq!((self.logins().await, ids), (messages, messages), "rows, message ids");
    }

    /// Holds each flush of events in the middle of its COPY until the returned session commits. Trials go through.
    pub(crate) async fn lock_logins(&self) -> Client {
        let session = self.session().await;
        // A trial's row has a UUID as its `user_id`, so the trigger doesn't fire for it.
        session
            .batch_execute(
                "CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
                 CREATE OR REPLACE TRIGGER wait AFTER INSERT ON user_logins FOR EACH ROW
                     WHEN (NEW.user_id !~ '^[0-9a-f]{8}-[0-9a-f]{4}-') EXECUTE FUNCTION wait()",
            )
            .await
            .unwrap();
        session.batch_execute("BEGIN; SELECT pg_catalog.pg_advisory_xact_lock(1)").await.unwrap();
        session
    }

    /// Waits until `count` loaders have checked the database.
    pub(crate) async fn ready(&self, count: usize) {
        // The last query of a new connection is the trial. The last query at the start of a run reads the clock.
        let query = "SELECT count(*) FROM pg_stat_activity
                     WHERE usename = $1 AND state = 'idle'
                       AND (query LIKE '%try_inbox(%' OR query LIKE '%inbox_counts()' OR query LIKE '%clock_timestamp()%')";
        eventually("loaders that are ready", async || self.number(query, &[&self.name]).await == count).await;
    }

    /// Waits until `count` loaders are in a COPY that waits for a lock. Returns the process ids of their backends.
    pub(crate) async fn backends_in_copy(&self, count: usize) -> Vec<i32> {
        let query = "SELECT pid FROM pg_stat_activity
                     WHERE usename = $1 AND wait_event_type = 'Lock' AND query LIKE 'COPY %'";
        let mut pids = Vec::new();
        eventually("a COPY that waits for a lock", async || {
            pids = self.db.query(query, &[&self.name]).await.unwrap().iter().map(|row| row.get(0)).collect();
            pids.len() == count
        })
        .await;
        pids
    }

    /// Makes the server abort batches that are in flight: by a timeout, by a cancel, and by ending the connection. Each
    /// loader retries, and is then stopped with the events still in flight. Returns the loaders' output.
    pub(crate) async fn break_off_in_mid_copy(&self, loader: impl Fn() -> Loader) -> String {
        let lock = self.lock_logins().await;
        let mut output = String::new();
        for (options, end, code) in [
            ("-c statement_timeout=3000", None, "57014"),
            ("", Some("pg_cancel_backend"), "57014"),
            ("", Some("pg_terminate_backend"), "57P01"),
        ] {
            let running = loader().env("PGOPTIONS", options).start();
            let pid = self.backends_in_copy(1).await[0];
            let begun = self.begin_of_copy().await;
            if let Some(end) = end {
                self.db.execute(&format!("SELECT {end}($1)"), &[&pid]).await.unwrap();
            }
            eventually("another try", async || self.begin_of_copy().await > begun).await;
            running.signal("TERM").await;
            running.signal("INT").await;
            output += &running.end().await.expect(0).says(&[code, "trying again"]).output();
            // A backend that waits for a lock doesn't notice that its client has gone.
            let sessions = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
            eventually("the end of its sessions", async || self.number(sessions, &[&self.name]).await == 0)
                .await;
        }
        lock.batch_execute("COMMIT").await.unwrap();
        output
    }

    /// Returns the start of the latest COPY by a loader that waits for a lock, in microseconds since 1970, or 0 without one.
    async fn begin_of_copy(&self) -> usize {
        let query =
            "SELECT coalesce(max(extract(epoch FROM query_start) * 1e6), 0)::bigint FROM pg_stat_activity
                     WHERE usename = $1 AND wait_event_type = 'Lock' AND query LIKE 'COPY %'";
        self.number(query, &[&self.name]).await
    }

    /// Makes a role without any privileges the owner of the inbox. Events are stored with the owner's privileges.
    pub(crate) async fn give_inbox_to_a_role(&self) -> String {
        let owner = format!("{}_owner", self.name);
        self.sql(&format!("CREATE ROLE {owner}; ALTER VIEW login_inbox OWNER TO {owner}")).await;
        owner
    }
}

/// Polls a condition until it holds. Panics if it doesn't within `PATIENCE`.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
