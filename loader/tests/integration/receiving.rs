//! Receive calls: slow answers, answers that stop, and retries.

use std::fs;
use std::time::Duration;

use sqs_stub::{Faults, Server};
use tokio::time::sleep;

use crate::common::{Metrics, SlowLink, Summary, World, event, eventually};

const KILOBYTE: usize = 1000;
const MEGABYTE: usize = 1000 * KILOBYTE;

fn stub() -> Server {
    Server::start(sqs_stub::Options::default()).unwrap()
}

/// Returns an event of at least `size` bytes. No rule reads the key that makes it large.
fn large_event(n: usize, size: usize) -> String {
    let event = event(n);
    format!("{},\"more\":\"{}\"}}", event.trim_end_matches('}'), "x".repeat(size))
}

#[tokio::test]
async fn a_slow_answer_is_read_to_its_end() {
    World::run(async |world| {
        let stub = stub();
        stub.fill(&world.name, 10, |n| large_event(n, 100 * KILOBYTE));
        // The answer takes ten seconds (1 MB at 100 kB/s), twice as long as it may take to begin.
        let link = SlowLink::to(&stub.url(), 100 * KILOBYTE as u64).await;
        let loader = world.loader().at(&link.url).options("--wait 0 --pollers 1").start();
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(10));
        assert_eq!(stub.counters().redelivered, 0);
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_stops_is_given_up_and_logged() {
    World::run(async |world| {
        let stub = stub();
        let link = SlowLink::to(&stub.url(), 100 * KILOBYTE as u64).await;
        stub.fill(&world.name, 10, |n| large_event(n, 100 * KILOBYTE));
        let loader = world.loader().at(&link.url).options("--wait 0 --pollers 1 --visibility 15").start();
        eventually("an answer under way", async || stub.counters().received > 0).await;
        sleep(Duration::from_secs(1)).await;
        link.set_rate(0);
        eventually("a line of the log", async || loader.said().contains("the answer stopped coming in"))
            .await;
        link.set_rate(10_000_000);
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        // The messages were handed out twice and received once.
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(10));
    })
    .await;
}

#[tokio::test]
async fn a_receive_call_is_not_repeated_in_secret() {
    World::run(async |world| {
        let stub = stub();
        stub.fill(&world.name, 10, event);
        stub.set_faults(Faults {
            server_error: 1.0,
            only: vec!["ReceiveMessage".into()],
            ..Faults::default()
        });
        // A drain gives up after eight failures. The seven pauses before that take 31 s to 62 s in total (`PAUSE` in
        // pollers.rs), longer than this test needs.
        let options = "--drain --pollers 1 --metrics-address 127.0.0.1:0";
        let loader = world.loader().at(&stub.url()).options(options).start();
        let address = loader.metrics_address().await;
        eventually("two failures", async || stub.counters().calls["ReceiveMessage"] >= 2).await;
        let failures = async || {
            let name = "pg_mask_loader_receive_failures_total";
            Metrics::of(&address).await.count(name, &[("queue", &world.name)])
        };
        let counted = failures().await;
        let calls = stub.counters().calls["ReceiveMessage"];
        assert!(counted + 1 >= usize::try_from(calls).unwrap(), "{calls} calls, {counted} failures");
        assert_eq!(loader.said().matches("ReceiveMessage failed").count(), 1, "one line a minute");
        loader.signal("TERM").await;
        loader.end().await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn a_receive_call_that_times_out_retires_its_poller() {
    World::run(async |world| {
        let stub = stub();
        stub.fill(&world.name, 20_000, event);
        stub.set_delay(Duration::from_millis(100));
        let options = "--wait 0 --pollers 8 --metrics-address 127.0.0.1:0";
        let loader = world.loader().at(&stub.url()).options(options).start();
        let address = loader.metrics_address().await;
        eventually("the first messages", async || stub.counters().received > 0).await;
        let pollers = async || {
            let name = "pg_mask_loader_pollers";
            Metrics::of(&address).await.count(name, &[("queue", &world.name)])
        };
        eventually("all pollers", async || pollers().await == 8).await;
        stub.set_faults(Faults { hang: 1.0, only: vec!["ReceiveMessage".into()], ..Faults::default() });
        eventually("one poller", async || pollers().await == 1).await;
        stub.set_faults(Faults::default());
        loader.stop().await.expect(0).says(&["no answer in time; one poller fewer"]);
    })
    .await;
}

#[tokio::test]
async fn a_receive_call_to_a_fifo_queue_is_repeated_under_its_id() {
    World::run(async |world| {
        let stub = stub();
        stub.fill_groups("logins.fifo", 20, 2, event);
        stub.set_faults(Faults {
            lost_answer: 1.0,
            only: vec!["ReceiveMessage".into()],
            ..Faults::default()
        });
        // Without the id, the groups would stay locked for the whole visibility timeout.
        let loader = world.loader().at(&stub.url()).env("LOADER_QUEUE", "logins.fifo");
        let loader = loader.options("--drain --pollers 2 --visibility 600").start();
        eventually("lost answers", async || stub.counters().calls.get("ReceiveMessage") >= Some(&3)).await;
        stub.set_faults(Faults::default());
        assert_eq!(loader.end().await.expect(0).summary(), Summary::stored(20));
        assert_eq!(stub.counters().redelivered, 0);
    })
    .await;
}

/// Returns the peak physical memory of a process, in bytes.
fn peak_memory(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test]
async fn messages_of_a_megabyte_take_no_more_than_128_megabytes_of_memory() {
    the_peak_stays_below_128_megabytes(0).await;
}

#[tokio::test]
async fn messages_of_a_megabyte_that_follow_small_ones_take_no_more_either() {
    the_peak_stays_below_128_megabytes(4000).await;
}

async fn the_peak_stays_below_128_megabytes(small: usize) {
    const LARGE: usize = 160;
    World::run(async |world| {
        let stub = stub();
        // While these small messages come in, the number of pollers grows to its maximum.
        stub.fill(&world.name, small, event);
        stub.fill(&world.name, LARGE, |n| large_event(small + n, MEGABYTE));
        // Nothing is stored yet, so the loader receives as much as it ever holds.
        let lock = world.lock_logins().await;
        let loader = world.loader().at(&stub.url()).start();
        world.backends_in_copy(1).await;
        let received = || stub.counters().received;
        let mut before = 0;
        eventually("no more calls", async || {
            sleep(Duration::from_secs(2)).await;
            std::mem::replace(&mut before, received()) == received()
        })
        .await;
        lock.batch_execute("COMMIT").await.unwrap();
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        let peak = peak_memory(loader.pid);
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(small + LARGE));
        assert!(peak <= 128 * MEGABYTE, "{} MB", peak / MEGABYTE);
    })
    .await;
}

#[tokio::test]
async fn a_message_larger_than_all_room_for_bodies_is_stored() {
    World::run(async |world| {
        let stub = stub();
        // With such a small batch there's room for 12 MiB of bodies.
        stub.fill(&world.name, 3, |n| large_event(n, 14 * MEGABYTE));
        let loader = world.loader().at(&stub.url()).options("--batch-bytes 1").start();
        eventually("an empty queue", async || stub.depth(&world.name).unwrap().total() == 0).await;
        assert_eq!(loader.stop().await.expect(0).summary(), Summary::stored(3));
    })
    .await;
}
