//! The run: opens both sides, moves messages until it is stopped, drained or failed, and prints a summary.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;
use tracing::{info, warn};

#[cfg(feature = "null-consumer")]
use super::null_consumer;
use super::{dry_run, print, progress};
use crate::check_item::{self, CheckItem};
use crate::config::Config;
use crate::error::Error;
use crate::inbox::{Database, DbError, Inbox, Retry};
use crate::pipeline::intake::Intake;
use crate::pipeline::writer::{PING_EVERY, PING_TIME};
use crate::shutdown::{OUTPUT_TIME, Shutdown};
use crate::sqs::{Depth, Queue, Queues};
use crate::telemetry::log::{self, Log};
use crate::telemetry::metrics::{self, About};
use crate::telemetry::readiness::Readiness;
use crate::telemetry::stats::Stats;
use crate::telemetry::systemd::Systemd;
use crate::telemetry::trace;
use crate::{backoff, pipeline};

/// First and maximum pause before a start is retried.
const START_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

pub(crate) async fn run(config: &Config, bar: &ProgressBar, log: &Log) -> Result<(), Error> {
    let shutdown =
        Shutdown::listen(config.grace()).map_err(|e| Error::Internal(format!("no signal handlers: {e}")))?;
    #[cfg(feature = "null-consumer")]
    if config.null_consumer {
        print(&null_consumer::run(config, &shutdown).await?);
        return Ok(());
    }
    let intake = Intake::default();
    let readiness = Arc::new(Readiness::new(shutdown.clone(), {
        let intake = intake.clone();
        move || intake.is_open()
    }));
    let mut monitor = None;
    if let Some(address) = config.metrics_address.as_ref().filter(|_| !config.dry_run) {
        monitor = Some(metrics::start(address, Arc::clone(&readiness), log.backlog.clone()).await?);
    }
    let systemd = Systemd::from_env();
    systemd.starting(config.wait_for_start());
    let Opened { queues, depth, database, inbox, versions } = tokio::select! {
        opened = open_in_time(config) => opened?,
        () = shutdown.stopping() => return Ok(()),
    };
    if config.dry_run {
        print(&Box::pin(dry_run::run(config, &queues, inbox, &shutdown)).await?);
        return Ok(());
    }
    let stats = Arc::new(Stats::new(queues.iter().map(|queue| &*queue.name)));
    stats.set_depth(depth);
    if let Some(monitor) = monitor {
        let options = options_in_force(config, &database, &queues);
        monitor.begin(Arc::clone(&stats), About { versions, options });
    }
    if let Some(queue) = queues.first() {
        let sqs = (queue.pulse(), 2 * config.receive_timeout());
        // A batch may begin right after a writer was idle. The writer's last answer is as old as the ping interval
        // allows.
        let between_stores = PING_EVERY + PING_TIME + config.store_timeout();
        readiness.begin(sqs, (Arc::clone(&stats.pulse), between_stores));
    }
    let progress = show_progress(config, bar, &queues, depth, &stats);
    let traces = trace::start();
    systemd.ready(&format!("moving messages into {}", database.inbox));
    let result = tokio::select! {
        result = pipeline::run(config, queues, database, inbox, Arc::clone(&stats), shutdown.clone(), intake) => result,
        never = systemd.watch(&stats, &shutdown, config.grace()) => match never {},
    };
    if shutdown.is_stopping() {
        // A run with nothing in flight can end before the watch has told of the stop.
        systemd.stopping(config.grace());
    }
    traces.finish().await;
    progress.abort();
    progress::log_all(&stats);
    // Flushed first, so that a terminal shows the summary last.
    log.flush();
    let (bar, summary) = (bar.clone(), stats.summary());
    within(OUTPUT_TIME, move || {
        bar.finish_and_clear();
        print(&summary);
    });
    result
}

/// Opens both sides. Retries for as long as the options say.
async fn open_in_time(config: &Config) -> Result<Opened, Error> {
    let deadline = Instant::now() + config.wait_for_start();
    let mut failures = 0;
    loop {
        let failure = match Box::pin(open(config)).await {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        let pause = backoff::delay(failures, START_PAUSE.0, START_PAUSE.1);
        failures += 1;
        let left = deadline.saturating_duration_since(Instant::now());
        if !failure.may_pass || left.is_zero() {
            return Err(failure.error);
        }
        warn!(seconds_left = left.as_secs(), "{}; waiting for the start", failure.error);
        tokio::time::sleep(pause.min(left)).await;
    }
}

/// Both sides, checked and found in order.
struct Opened {
    queues: Queues,
    depth: Depth,
    database: Database,
    inbox: Inbox,
    versions: Vec<(&'static str, String)>,
}

/// Error that keeps the run from beginning.
struct StartFailure {
    error: Error,
    /// Whether a retry soon may succeed.
    may_pass: bool,
}

impl From<Error> for StartFailure {
    fn from(error: Error) -> Self {
        Self { may_pass: error.may_pass(), error }
    }
}

impl From<DbError> for StartFailure {
    fn from(fault: DbError) -> Self {
        Self { may_pass: matches!(fault.retry, Retry::Reconnect | Retry::Later), error: fault.error }
    }
}

/// Opens both sides, the database first. It answers at once, and a queue is only worth asking if events can be stored.
async fn open(config: &Config) -> Result<Opened, StartFailure> {
    let mut check_items = Vec::new();
    let database = config.target.database(config.store_timeout())?;
    // Nothing is retried unless the options say so. A fault at the start is usually permanent, and anyone who starts
    // the loader should see it.
    let mut inbox = database.open(&mut check_items).await?;
    // The trial precedes the first receive: no message's receive count rises because of a fault in the set-up.
    check_items.push(CheckItem::of_trial(inbox.trial().await?));
    check_items.extend(inbox.check_at_start(&database.servers).await);
    let (queues, depth) = Queue::open_all(config.queues()?, &mut check_items).await?;
    for queue in queues.iter() {
        queue.require_actions().await?;
    }
    check_items.push(config.store_within_visibility());
    check_item::log_warnings(&check_items);
    info!(
        database = %database.servers,
        inbox = database.inbox,
        queues = queues.iter().map(|queue| &*queue.name).collect::<Vec<_>>().join(" "),
        messages = depth.total(),
        pollers = config.queue.pollers,
        writers = config.writers,
        "ready"
    );
    Ok(Opened { queues, depth, database, inbox, versions: versions(&check_items) })
}

/// Returns the versions of the loader, the extension and the server.
fn versions(check_items: &[CheckItem]) -> Vec<(&'static str, String)> {
    let mut versions = vec![("loader", env!("CARGO_PKG_VERSION").to_owned())];
    for (item, name) in [("extension.installed", "extension"), ("database.session", "server")] {
        let found = check_items.iter().find(|check_item| check_item.item == item);
        versions.extend(found.map(|check_item| (name, check_item.message.clone())));
    }
    versions
}

/// Returns the options in force, for the status page. They hold no password, wherever it came from.
fn options_in_force(config: &Config, database: &Database, queues: &Queues) -> Vec<(&'static str, String)> {
    let servers = &database.servers;
    let mut options = vec![
        ("database", format!("{}@{servers}/{}", servers.user(), servers.database())),
        ("--inbox", database.inbox.clone()),
    ];
    options.extend(queues.iter().map(|queue| ("queue", without_login(queue.url()))));
    options.extend(config.in_force());
    options
}

/// Returns a URL without its query, and without the user and password that may stand before its host.
fn without_login(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}/{path}")
}

fn show_progress(
    config: &Config,
    bar: &ProgressBar,
    queues: &Queues,
    depth: Depth,
    stats: &Arc<Stats>,
) -> tokio::task::JoinHandle<()> {
    let (queues, stats) = (Arc::clone(queues), Arc::clone(stats));
    if !config.drain {
        tokio::spawn(progress::log_every_minute(queues, stats))
    } else if log::wants_bar(config.log.format) {
        tokio::spawn(progress::draw_drain(bar.clone(), queues, stats, depth))
    } else {
        tokio::spawn(progress::log_drain(queues, stats, depth))
    }
}

/// Runs `work`, which may block, in its own thread and waits at most `limit` for it. A terminal or pipe that nobody
/// reads must not keep the process alive.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel::<()>();
    let work = move || {
        work();
        drop(done);
    };
    // The channel disconnects when the work is done. Without a thread there is nothing to wait for.
    if std::thread::Builder::new().spawn(work).is_ok() {
        _ = wait.recv_timeout(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_shown_has_no_login() {
        for (url, shown) in [
            ("https://sqs.eu-west-1.amazonaws.com/1/q", "https://sqs.eu-west-1.amazonaws.com/1/q"),
            ("http://user:hunter2@host:4566/0/q?token=hunter2", "http://host:4566/0/q"),
            ("hunter2", ""),
        ] {
            assert_eq!(without_login(url), shown);
        }
    }
}
