//! A loader that has run for a long time uses no more resources than one that has run for a short time.

use std::fs;
use std::time::Duration;

use sqs_stub::Faults;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::Client;

use crate::check;
use crate::database::{Database, ROLE};
use crate::load::{QUEUE, Queues, body};
use crate::loaders::{Place, Setup, set_credentials};
use crate::proxy::{Order, Proxy};
use crate::storm::folder_for_logs;

/// Length of the run in minutes, unless `CHAOS_MINUTES` overrides it.
const MINUTES: f64 = 30.0;
/// Number of messages sent at a time ...
const PORTION: usize = 50;
/// ... and the interval between two sends.
const FEED_EVERY: Duration = Duration::from_millis(100);
/// Total number of measurements.
const LOOKS: u32 = 360;
/// Total number of connection resets. They reveal a failure to clean up after a connection.
const CUTS: u32 = 60;

/// Names of the measured values. Each may grow by a tenth plus the given amount.
const SERIES: [(&str, u64); 3] =
    [("resident memory, KiB", 4096), ("file descriptors", 8), ("connections to PostgreSQL", 1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half an hour: make soak"]
async fn a_loader_that_runs_on_and_on_takes_no_more_and_more() {
    let minutes = std::env::var("CHAOS_MINUTES").map_or(MINUTES, |minutes| minutes.parse().unwrap());
    let time = Duration::from_secs_f64(minutes * 60.0);
    let logs = folder_for_logs("soak");
    let database = Database::start(None, logs.clone()).await;
    set_credentials(&logs, Some("soak"));
    let queues = Queues::make(database.servers.setting("AWS_ENDPOINT_URL"), 1).await;
    queues.stub.set_faults(mild_faults());
    let (sqs, postgres) =
        (Proxy::start_before_url(&queues.stub.url()).await, Proxy::start(database.port()).await);
    let place = Place::start(Setup {
        name: "soak",
        queue: QUEUE,
        endpoint: sqs.url(),
        database: database.url_by(postgres.port),
        logs,
        unread_at: None,
    });
    let session = database.session().await;

    let mut series: [Vec<u64>; 3] = Default::default();
    let (mut sent, mut cuts, start) = (0, 0, Instant::now());
    let mut clock = interval(FEED_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while start.elapsed() < time && !place.has_failed() {
        clock.tick().await;
        queues.stub.fill(QUEUE, PORTION, |i| body(sent + i));
        sent += PORTION;
        let taken = u32::try_from(series[0].len()).unwrap();
        if start.elapsed() >= time * (taken + 1) / LOOKS {
            // Without a loader to measure, its end will say why.
            let Some(look) = measure(place.pid(), &session).await else { continue };
            series.iter_mut().zip(look).for_each(|(series, value)| series.push(value));
        }
        if start.elapsed() >= time * (cuts + 1) / CUTS {
            cuts += 1;
            [&sqs, &postgres][cuts as usize % 2].order(Order::Reset);
        }
    }
    queues.set_faults(false);
    check::until_empty(&queues, &session, || place.has_failed()).await;
    place.end().await;
    check::each_stored_once(&queues, &session, sent).await;

    let summaries: Vec<_> =
        SERIES.iter().zip(&series).map(|(&(name, slack), s)| Summary::of(name, slack, s)).collect();
    let text: String = summaries.iter().map(|summary| summary.text.as_str()).collect();
    crate::say(&format!("soak: {minutes} minutes, {sent} messages, {cuts} cuts\n{text}"));
    assert!(summaries.iter().all(|summary| !summary.grows), "something grows and grows:\n{text}");
}

/// Returns faults at the rates of a bad day.
fn mild_faults() -> Faults {
    Faults {
        throttle: 0.005,
        server_error: 0.005,
        lost_answer: 0.005,
        hang: 0.0001,
        partial_delete: 0.005,
        partial_extend: 0.005,
        duplicate: 0.001,
        expire: 0.001,
        ..Faults::default()
    }
}

/// Measures a loader, in the order of `SERIES`.
async fn measure(pid: u32, session: &Client) -> Option<[u64; 3]> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1";
    let connections: i64 = session.query_one(query, &[&ROLE]).await.unwrap().get(0);
    Some([resident, files, connections.unsigned_abs()])
}

/// Result of a series.
struct Summary {
    text: String,
    grows: bool,
}

impl Summary {
    fn of(name: &str, slack: u64, series: &[u64]) -> Self {
        // The first third is for warming up.
        let third = series.len() / 3;
        let [first, second, last] = [0, 1, 2].map(|n| median(&series[n * third..(n + 1) * third]));
        let most = series.iter().max().unwrap();
        let text = format!("  {name:<28} medians of the thirds {first}, {second}, {last}; most {most}\n");
        Self { text, grows: last > second + second / 10 + slack }
    }
}

fn median(series: &[u64]) -> u64 {
    let mut sorted = series.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[test]
fn a_series_that_grows_is_found() {
    let grows = |series: &[u64]| Summary::of("", 5, series).grows;
    assert!(!grows(&[10, 300, 100, 101, 100, 99, 110, 112, 115]));
    assert!(grows(&[100, 100, 100, 150, 150, 150, 200, 200, 200]));
}
