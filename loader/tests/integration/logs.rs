//! No log line contains an event or a value of one, and an unread log holds nothing up.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::common::{Canary, Depth, Loader, Metrics, Proxy, World, event, events, eventually, request};

#[tokio::test]
async fn no_log_line_holds_a_body() {
    World::run(async |world| {
        for format in ["human", "json"] {
            let canary = Canary::new();
            let mut output = String::new();
            // A loader with next to nothing to do ends soonest with one poller that doesn't wait.
            let loader = || {
                let options = format!("--log-level debug --log-format {format} --wait 0 --pollers 1");
                world.loader().options(&options)
            };

            let mut bodies = canary.events(40);
            bodies.extend(canary.rejects());
            world.queue.send(&bodies).await;
            let ended = loader().until_empty(&world.queue).await.expect(0);
            output += &ended.output();
            let summary = ended.summary();
            assert_eq!((summary.stored, summary.rejected), (40, canary.rejects().len()));

            // Runs that fail with events in flight.
            world.queue.send(&canary.events(20)).await;
            output += &world.break_off_in_mid_copy(loader).await;
            world.sql("ALTER TABLE user_logins RENAME COLUMN locale TO gone").await;
            output += &loader().end().await.expect(4).says(&["42703"]).output();
            world.sql("ALTER TABLE user_logins RENAME COLUMN gone TO locale").await;

            // Deletes that fail, and a loader that is stopped with messages in flight.
            let proxy = Proxy::asking().await;
            let running = loader().through(&proxy).start();
            proxy.next_delete().await.answer_status(500);
            running.signal("TERM").await;
            running.signal("INT").await;
            output += &running.end().await.expect(0).output();
            output += &loader().until_empty(&world.queue).await.expect(0).output();
            assert_eq!(world.queue.depth().await, Depth::EMPTY);

            assert!(output.contains("batch committed"), "debug is on");
            assert!(!output.contains(&canary.marker), "in the log: {output}");

            // Proves that the test finds a canary that is printed: the name of an inbox isn't secret.
            let ended = loader().options(&format!("--inbox {}", canary.marker)).end().await.expect(4);
            output += &ended.output();
            assert!(output.contains(&canary.marker));
        }
    })
    .await;
}

#[tokio::test]
async fn no_name_that_a_trigger_makes_of_a_value_is_in_the_log() {
    World::run(async |world| {
        world
            .sql(
                "CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$
                     BEGIN EXECUTE format('INSERT INTO %I VALUES (1)', 'logins_' || NEW.user_id); RETURN NULL; END $$;
                 CREATE TRIGGER route AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION route()",
            )
            .await;
        world.queue.send(&[event(1)]).await;
        let ended = world.loader().end().await.expect(4).says(&["SQLSTATE 42P01", "the server's log"]);
        assert!(!ended.output().contains("user-1"), "a value of an event is in the log: {}", ended.output());
    })
    .await;
}

/// Returns a loader that logs a line per message, and the address of its metrics.
fn chatty(world: &World) -> (Loader, String) {
    // Nobody reads the log, so the test must choose the port.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let options = format!(
        "--log-level debug --log-format json --batch-size 1 --linger 0 --writers 8 --metrics-address {address}"
    );
    (world.loader().options(&options), address)
}

async fn terminate(loader: &Child) {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -TERM {}", loader.id().unwrap())]).stdin(Stdio::null());
    assert!(kill.status().await.unwrap().success());
}

const DROPPED: &str = "pg_mask_loader_log_lines_dropped_total";
/// Number of messages, each with a log line: more than a pipe and the loader's backlog hold.
const CHATTY: usize = 450;

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    World::run(async |world| {
        let (loader, address) = chatty(world);
        world.queue.send(&events(CHATTY)).await;
        let (mut loader, mut unread) = loader.start_unread();
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        assert_eq!(world.logins().await, CHATTY);
        let probe = timeout(Duration::from_secs(1), request(&address, "GET", "/healthz")).await;
        assert_eq!(probe.expect("an answer within a second").0, 200);
        let dropped = Metrics::of(&address).await.count(DROPPED, &[]);
        assert!(dropped > 0, "no line was dropped: the log is too small to show anything");
        terminate(&loader).await;
        let ended = timeout(Duration::from_secs(10), loader.wait()).await;
        assert_eq!(ended.expect("an end within 10 s").unwrap().code(), Some(0));
        // All lines in the pipe are whole, except possibly the last.
        let mut text = String::new();
        unread.read_to_string(&mut text).unwrap();
        assert!(text.len() > 2 * 1024, "{} bytes", text.len());
        let lines: Vec<_> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        assert!(lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    })
    .await;
}

#[tokio::test]
async fn dropped_log_lines_are_reported_once_somebody_reads() {
    World::run(async |world| {
        let (loader, address) = chatty(world);
        world.queue.send(&events(CHATTY)).await;
        let (mut loader, mut unread) = loader.start_unread();
        eventually("an empty queue", async || world.queue.depth().await == Depth::EMPTY).await;
        let dropped = Metrics::of(&address).await.count(DROPPED, &[]);
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            unread.read_to_string(&mut text).unwrap();
            text
        });
        terminate(&loader).await;
        assert_eq!(loader.wait().await.unwrap().code(), Some(0));
        let text = reading.join().unwrap();
        let lines = text.lines().filter(|line| line.starts_with('{'));
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        let reported =
            lines.iter().filter(|line| line["message"].as_str().unwrap().starts_with("log lines dropped"));
        let reported: u64 = reported.map(|line| line["lines"].as_u64().unwrap()).sum();
        assert!(reported >= dropped as u64, "reported {reported}, dropped {dropped}");
        // The last lines of the log are complete.
        assert!(lines.iter().any(|line| line["message"] == "since start"), "{text}");
        assert!(text.contains(&format!("stored {CHATTY}, ")), "{text}");
    })
    .await;
}
