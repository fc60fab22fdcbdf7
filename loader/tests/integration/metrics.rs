//! The loader's metrics show what happened and contain no value of an event.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::common::{
    Canary, Depth, Link, Metrics, Proxy, Summary, World, event, events, eventually, readyz, request, setting,
};

/// Listens on any free port.
const METRICS: &str = "--metrics-address 127.0.0.1:0";

#[tokio::test]
async fn metrics_match_the_outcomes_of_the_messages() {
    World::run(async |world| {
        let canary = Canary::new();
        let (good, bad) = (canary.events(40), canary.rejects());
        let ids = world.queue.send(&good).await;
        world.queue.send(&bad).await;
        // Two messages are stored already.
        for n in 0..2 {
            let insert = "INSERT INTO login_inbox VALUES ($1, now(), $2)";
            world.db.execute(insert, &[&ids[n], &good[n]]).await.unwrap();
        }
        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;

        let queue = [("queue", world.name.as_str())];
        let all = good.len() + bad.len();
        // The loader counts a delete when SQS confirms it, which is a moment after the queue is empty.
        let deleted = "pg_mask_loader_messages_deleted_total";
        eventually("confirmed deletes", async || Metrics::of(&address).await.count(deleted, &queue) == all)
            .await;
        let shown = Metrics::of(&address).await;
        let count = |name: &str| shown.count(&format!("pg_mask_loader_{name}"), &[]);
        assert_eq!(shown.count("pg_mask_loader_messages_received_total", &queue), all);
        assert_eq!(count("events_stored_total") + 2, world.logins().await);
        assert_eq!(count("events_duplicate_total"), 2);
        assert_eq!(count("events_rejected_total"), world.rejects().await);
        let reason = |reason| shown.count("pg_mask_loader_events_rejected_total", &[("reason", reason)]);
        assert_eq!(reason("other"), 0, "every reject has a class");
        assert!(reason("not_json") > 0, "broken JSON is among them");

        assert_eq!(shown.count("pg_mask_loader_batch_messages_sum", &[]), all);
        let batches = count("batch_messages_count");
        assert!((1..=all).contains(&batches), "{batches} batches");
        assert_eq!(count("batch_duration_seconds_count"), batches);
        let seconds = shown.sum("pg_mask_loader_batch_duration_seconds_sum", &[]);
        assert!(seconds > 0.0 && seconds < 60.0, "{seconds} s");
        assert_eq!(count("message_age_seconds_count"), all);
        let age = shown.sum("pg_mask_loader_message_age_seconds_sum", &[]) / 56.0;
        assert!(age > 0.0 && age < 60.0, "{age} s old");

        let bytes: usize = good.iter().chain(&bad).map(String::len).sum();
        assert_eq!(shown.count("pg_mask_loader_received_bytes_total", &queue), bytes);
        for call in ["receive", "delete"] {
            let calls = shown.count(&format!("pg_mask_loader_{call}_duration_seconds_count"), &queue);
            assert!((all.div_ceil(10)..=2 * all).contains(&calls), "{calls} {call} calls");
            let seconds = shown.sum(&format!("pg_mask_loader_{call}_duration_seconds_sum"), &queue);
            assert!(seconds > 0.0 && seconds < 60.0, "{call}: {seconds} s");
        }
        let since_commit = now() - shown.sum("pg_mask_loader_last_commit_timestamp_seconds", &[]);
        assert!((-1.0..60.0).contains(&since_commit), "{since_commit} s");

        // Counters exist at 0 before their first event, so that the first event is an increase.
        for nothing in [
            "delete_failures_total",
            "receive_failures_total",
            "store_failures_total",
            "lease_extensions_total",
            "leases_lapsed_total",
            "messages_left_total",
            "database_reconnects_total",
            "messages_in_flight",
            "messages_redelivered_total",
            "log_lines_dropped_total",
        ] {
            assert_eq!(count(nothing), 0, "{nothing}");
        }
        assert!(shown.count("pg_mask_loader_pollers", &queue) >= 1);
        assert_eq!(count("ready"), 1);
        assert_eq!(shown.count("pg_mask_loader_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1);
        for state in ["visible", "hidden", "delayed"] {
            shown.count("pg_mask_loader_queue_messages", &[queue[0], ("state", state)]);
        }
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
            shown.sum(&format!("process_{name}"), &[]);
        }
        assert!(shown.sum("process_resident_memory_bytes", &[]) > 1e6);

        for secret in [canary.marker.as_str(), "http", "127.0.0.1", &world.password, &ids[0].to_string()] {
            assert!(!shown.text.contains(secret), "{secret} is in\n{}", shown.text);
        }
        assert_promtool_finds_nothing(&shown.text);
        let ended = loader.stop().await.expect(0).says(&["events were rejected", "reasons=\"", "not_json="]);
        let expected = Summary { received: all, stored: 38, duplicate: 2, rejected: bad.len(), deleted: all };
        assert_eq!(ended.summary(), expected);
    })
    .await;
}

/// Returns the seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[tokio::test]
async fn redelivered_messages_and_the_oldest_in_flight_are_shown() {
    World::run(async |world| {
        let lock = world.lock_logins().await;
        world.queue.send(&events(10)).await;
        let first = world.loader().options("--grace 0").start();
        world.backends_in_copy(1).await;
        first.stop().await.expect(0).says(&["made visible again"]);

        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || readyz(&address).await.0 == 200).await;
        let shown =
            async |name: &str| Metrics::of(&address).await.sum(&format!("pg_mask_loader_{name}"), &[]);
        let count =
            async |name: &str| Metrics::of(&address).await.count(&format!("pg_mask_loader_{name}"), &[]);
        eventually("an old message", async || shown("oldest_in_flight_seconds").await > 2.0).await;
        assert_eq!(count("messages_redelivered_total").await, 10);
        assert_eq!(count("last_commit_timestamp_seconds").await, 0, "before the first");
        lock.batch_execute("COMMIT").await.unwrap();
        eventually("none in flight", async || shown("oldest_in_flight_seconds").await < 0.1).await;
        let since = now() - shown("last_commit_timestamp_seconds").await;
        assert!((-1.0..60.0).contains(&since), "{since} s");
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(10));
    })
    .await;
}

/// Checks the text with Prometheus's own tool, if it's installed.
fn assert_promtool_finds_nothing(text: &str) {
    use std::io::Write as _;
    let promtool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success(), "promtool check metrics");
}

#[tokio::test]
async fn failures_are_counted_by_their_code() {
    World::run(async |world| {
        // A rollback doesn't reset a sequence. The first value goes to the trial at the start.
        world
            .sql(
                "CREATE SEQUENCE tries;
                 GRANT USAGE ON SEQUENCE tries TO login_owner;
                 CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN
                         IF nextval('public.tries') = 2 THEN RAISE SQLSTATE '40001'; END IF;
                         RETURN NULL;
                     END $$;
                 CREATE TRIGGER conflict AFTER INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION conflict();",
            )
            .await;
        world.queue.send(&events(10)).await;
        let proxy = Proxy::asking().await;
        let loader = world.loader().through(&proxy).options(METRICS).options("--linger 2000 --batch-size 10").start();
        let address = loader.metrics_address().await;
        let delete = proxy.next_delete().await;
        let in_hand = Metrics::of(&address).await.count("pg_mask_loader_messages_in_flight", &[]);
        assert_eq!(in_hand, 10, "stored and not yet deleted");
        let receipts = delete.receipts.clone();
        delete.fail_for(&receipts[..3]);
        let again = proxy.next_delete().await;
        let shown = Metrics::of(&address).await;
        again.pass();
        let queue = ("queue", world.name.as_str());
        let failures = |code| shown.count("pg_mask_loader_delete_failures_total", &[queue, ("code", code)]);
        assert_eq!((failures("InternalError"), failures("timeout"), failures("other")), (3, 0, 0));
        let of_stores = |code| shown.count("pg_mask_loader_store_failures_total", &[("sqlstate", code)]);
        assert_eq!((of_stores("40001"), of_stores("connection"), of_stores("count")), (1, 0, 0));
        assert_eq!(shown.count("pg_mask_loader_messages_deleted_total", &[queue]), 7);
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        loader.stop().await.expect(0);
    })
    .await;
}

/// Cuts a side off and waits until the loader reports which side it is.
async fn cut_until_not_ready(link: &Link, address: &str, words: [&str; 2]) {
    link.cut();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(readyz(address).await.0, 200, "it answered lately");
    eventually("no readiness", async || readyz(address).await.0 == 503).await;
    let said = readyz(address).await.1;
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(request(address, "GET", "/healthz").await.0, 200);
}

#[tokio::test]
async fn readyz_tells_when_the_database_is_out_of_reach() {
    World::run(async |world| {
        let link = Link::to(&format!("{}:{}", setting("PGHOST"), setting("PGPORT"))).await;
        let (name, password) = (&world.name, &world.password);
        let url = format!("postgres://{name}:{password}@127.0.0.1:{}/{name}?sslmode=disable", link.port);
        let loader =
            world.loader().env("DATABASE_URL", &url).options(METRICS).options("--store-timeout 30").start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || readyz(&address).await.0 == 200).await;
        cut_until_not_ready(&link, &address, ["sqs: ok", "database: silent"]).await;
        assert_eq!(Metrics::of(&address).await.count("pg_mask_loader_ready", &[]), 0);
        link.mend();
        // The loader checks the database by itself, although it has nothing to store.
        eventually("readiness again", async || readyz(&address).await.0 == 200).await;
        let shown = Metrics::of(&address).await;
        assert_eq!(shown.count("pg_mask_loader_database_reconnects_total", &[]), 1);
        assert_eq!(shown.count("pg_mask_loader_store_failures_total", &[]), 0, "no batch has failed");
        let ended = loader.stop().await.expect(0).says(&["the database answers again"]);
        assert_eq!(ended.stderr.matches("goes on asking").count(), 1, "{}", ended.stderr);
    })
    .await;
}

#[tokio::test]
async fn readyz_tells_when_sqs_is_out_of_reach() {
    World::run(async |world| {
        let link = Link::to(setting("AWS_ENDPOINT_URL").trim_start_matches("http://")).await;
        let endpoint = format!("http://127.0.0.1:{}", link.port);
        let loader = world.loader().at(&endpoint).options(METRICS).start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || readyz(&address).await.0 == 200).await;
        cut_until_not_ready(&link, &address, ["sqs: silent", "database: ok"]).await;
        let failures = Metrics::of(&address).await.count("pg_mask_loader_receive_failures_total", &[]);
        assert!(failures > 0, "{failures} failures");
        link.mend();
        eventually("readiness again", async || readyz(&address).await.0 == 200).await;
        loader.stop().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn an_idle_loader_makes_a_lost_connection_anew() {
    World::run(async |world| {
        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || readyz(&address).await.0 == 200).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        assert_eq!(world.number(end, &[&world.name]).await, 1);
        let reconnects = "pg_mask_loader_database_reconnects_total";
        eventually("another connection", async || Metrics::of(&address).await.count(reconnects, &[]) == 1)
            .await;
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
        assert_eq!(world.number(sessions, &[&world.name]).await, 1);
        // The first event finds a working connection.
        world.queue.send(&events(1)).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let ended = loader.stop().await.expect(0);
        assert!(!ended.stderr.contains("trying again"), "{}", ended.stderr);
        assert_eq!(ended.summary(), Summary::stored(1));
    })
    .await;
}

#[tokio::test]
async fn an_idle_loader_says_why_the_database_takes_no_events() {
    World::run(async |world| {
        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        eventually("readiness", async || readyz(&address).await.0 == 200).await;
        world.sql(&format!("REVOKE login_loader FROM {}", world.name)).await;
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        assert_eq!(world.number(end, &[&world.name]).await, 1);
        let failures = "pg_mask_loader_trial_failures_total";
        eventually("a reason", async || loader.said().contains("nothing is received until")).await;
        assert!(Metrics::of(&address).await.count(failures, &[]) > 0);
        assert_eq!(readyz(&address).await.0, 503);
        world.sql(&format!("GRANT login_loader TO {}", world.name)).await;
        eventually("readiness again", async || readyz(&address).await.0 == 200).await;
        let ended = loader.stop().await.expect(0);
        ended.says(&["nothing is received until the database takes events again"]);
    })
    .await;
}

#[tokio::test]
async fn readyz_is_503_before_the_begin_and_after_a_stop() {
    World::run(async |world| {
        // A server that accepts connections and never answers.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://u:p@{}/d", silent.local_addr().unwrap());
        let starting = world.loader().env("DATABASE_URL", &url).options(METRICS).start();
        let address = starting.metrics_address().await;
        assert_eq!(readyz(&address).await, (503, "not ready: starting\n".to_owned()));
        assert_eq!(request(&address, "GET", "/healthz").await.0, 200);
        assert_eq!(Metrics::of(&address).await.count("pg_mask_loader_ready", &[]), 0);
        starting.stop().await.expect(0);

        world.queue.send(&[event(1)]).await;
        let proxy = Proxy::asking().await;
        let loader = world.loader().through(&proxy).options(METRICS).start();
        let address = loader.metrics_address().await;
        let delete = proxy.next_delete().await;
        assert_eq!(readyz(&address).await.0, 200);
        loader.signal("TERM").await;
        let stopping = (503, "not ready: stopping\n".to_owned());
        eventually("the word of a stop", async || readyz(&address).await == stopping).await;
        assert_eq!(
            request(&address, "GET", "/healthz").await.0,
            200,
            "alive until what is in flight is deleted"
        );
        delete.pass();
        assert_eq!(loader.end().await.expect(0).summary(), Summary::stored(1));
    })
    .await;
}

#[tokio::test]
async fn slow_and_wrong_scrapers_disturb_nothing() {
    World::run(async |world| {
        let loader = world.loader().options(METRICS).start();
        let address = loader.metrics_address().await;
        for (method, path, status) in [
            ("GET", "/nowhere", 404),
            ("POST", "/metrics", 405),
            ("DELETE", "/healthz", 405),
            ("HEAD", "/metrics", 200),
        ] {
            let (answered, _, body) = request(&address, method, path).await;
            assert_eq!(answered, status, "{method} {path}");
            assert_eq!(body.is_empty(), method == "HEAD", "{method} {path}: {body}");
        }
        // None of these clients finishes its request.
        let mut slow = Vec::new();
        for _ in 0..40 {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.unwrap();
            slow.push(stream);
        }
        // A Kubernetes probe waits one second by default. Without an answer by then, Kubernetes would restart the loader.
        let probe = timeout(Duration::from_secs(1), request(&address, "GET", "/healthz")).await;
        assert_eq!(probe.expect("an answer within a second").0, 200);
        world.queue.send(&events(200)).await;
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        // The loader limits the time of these requests.
        for mut stream in slow {
            let end = timeout(Duration::from_secs(2), stream.read_to_end(&mut Vec::new())).await;
            assert!(end.is_ok(), "a request that does not end is still waited for");
        }
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(200));
    })
    .await;
}
