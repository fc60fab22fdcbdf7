//! `loader` moves events from an SQS queue into a `pg_mask` inbox and knows nothing of what is in them.
//!
//! The promise: no message lost, no message doubled. A message is deleted only after the transaction that
//! stored or rejected it has committed, and a transaction commits only after the inbox has accounted for
//! every event in it.
//!
//! | file | holds |
//! |---|---|
//! | `cli`, `config` | command line and environment |
//! | `documents` | man pages and completions, made from the command line |
//! | `pipeline` | the tasks and how they end: `pollers`, `collector`, `writer`, `deleter`, `keeper`, `drain` |
//! | `queue` | SQS |
//! | `postgres` | where the database is, how to log in, TLS |
//! | `sink`, `copy` | `PostgreSQL`: connection, checks, one transaction a batch |
//! | `lease`, `ledger` | the rules of when a message may be deleted; the receipts of what is in hand |
//! | `budget` | how much may be in the loader at a time |
//! | `dry_run` | one batch, rolled back |
//! | `check`, `finding` | what a run needs, looked at item by item |
//! | `no_dump` | the process's memory is its own |
//! | `redrive` | rejects put back into the inbox |
//! | `null_consumer` | what the loader is measured against, in builds for that |
//! | `shutdown` | signals |
//! | `supervisor` | the service manager |
//! | `stats`, `progress`, `log`, `trace` | what the user sees |
//! | `monitoring` | what machines see: metrics, `/healthz`, `/readyz` |
//! | `error` | exit codes |

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may panic"))]

mod backoff;
mod budget;
mod check;
mod cli;
mod collector;
mod config;
mod copy;
mod deleter;
mod documents;
mod drain;
mod dry_run;
mod error;
mod finding;
mod gate;
mod intake;
mod keeper;
mod lease;
mod ledger;
mod log;
mod message;
mod monitoring;
mod no_dump;
#[cfg(feature = "null-consumer")]
mod null_consumer;
mod pipeline;
mod pollers;
mod postgres;
mod progress;
mod queue;
mod redrive;
mod shutdown;
mod sink;
mod stats;
mod supervisor;
mod trace;
mod writer;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::error::Error;
use crate::finding::Finding;
use crate::intake::Intake;
use crate::log::Log;
use crate::monitoring::{About, Readiness};
use crate::queue::{Depth, Queue, Queues};
use crate::shutdown::{OUTPUT_TIME, Shutdown};
use crate::sink::{Fault, Kind, Sink};
use crate::stats::Stats;
use crate::supervisor::Supervisor;
use crate::writer::Database;

/// The pause before a start is tried again, and what it grows to.
const START_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

fn main() -> ExitCode {
    // Before anything secret is read.
    let guarded = no_dump::guard_memory();
    let cli = match Cli::load() {
        Ok(cli) => cli,
        Err(error) => {
            // There is no log yet. If standard error is closed, the exit code has to do.
            _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let bar = ProgressBar::hidden();
    // Dropped last, when all is said.
    let log = match log::start(cli.log(), &bar) {
        Ok(log) => log,
        Err(error) => {
            _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if let Err(error) = guarded {
        warn!(%error, "memory not guarded against core dumps");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::Internal(format!("no runtime: {error}"))),
    };
    let result = runtime.block_on(async {
        match &cli.command {
            None => Box::pin(run(&cli.config, &bar, &log)).await,
            Some(Command::Check(check)) => check::run(check).await,
            Some(Command::Redrive(redrive)) => redrive::run(redrive).await,
            Some(Command::Completions(options)) => documents::print_completions(options),
            Some(Command::Man(options)) => documents::make_man_pages(options),
        }
    });
    // A name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(config: &Config, bar: &ProgressBar, log: &Log) -> Result<(), Error> {
    let shutdown =
        Shutdown::listen(config.grace()).map_err(|e| Error::Internal(format!("no signal handlers: {e}")))?;
    #[cfg(feature = "null-consumer")]
    if config.null_consumer {
        print(&null_consumer::run(config, &shutdown).await?);
        return Ok(());
    }
    let intake = Intake::default();
    let readiness = Arc::new(Readiness::new(shutdown.clone(), intake.clone()));
    let mut monitor = None;
    if let Some(address) = config.metrics_address.as_ref().filter(|_| !config.dry_run) {
        monitor = Some(monitoring::start(address, Arc::clone(&readiness), log.backlog.clone()).await?);
    }
    let supervisor = Supervisor::from_env();
    supervisor.starting(config.wait_for_start());
    let Opened { queues, depth, database, sink, versions } = tokio::select! {
        opened = open_in_time(config) => opened?,
        () = shutdown.stopping() => return Ok(()),
    };
    if config.dry_run {
        print(&Box::pin(dry_run::run(config, &queues, sink, &shutdown)).await?);
        return Ok(());
    }
    let stats = Arc::new(Stats::new(queues.iter().map(|queue| &*queue.name)));
    stats.set_depth(depth);
    if let Some(monitor) = monitor {
        let options = options_in_force(config, &database, &queues);
        monitor.begin(Arc::clone(&stats), About { versions, options });
    }
    if let Some(queue) = queues.first() {
        let sqs = (queue.pulse(), config.receive_timeout());
        readiness.begin(sqs, (Arc::clone(&stats.pulse), config.store_timeout()));
    }
    let progress = show_progress(config, bar, &queues, depth, &stats);
    let traces = trace::start();
    supervisor.ready(&format!("moving messages into {}", config.target.inbox));
    let result = tokio::select! {
        result = pipeline::run(config, queues, database, sink, Arc::clone(&stats), shutdown.clone(), intake) => result,
        never = supervisor.watch(&stats, &shutdown, config.grace()) => match never {},
    };
    traces.finish().await;
    progress.abort();
    progress::log_all(&stats);
    // So that a terminal shows the summary last.
    log.flush();
    let (bar, summary) = (bar.clone(), stats.summary());
    within(OUTPUT_TIME, move || {
        bar.finish_and_clear();
        print(&summary);
    });
    result
}

/// Opens both sides, trying again for as long as the options say.
async fn open_in_time(config: &Config) -> Result<Opened, Error> {
    let deadline = Instant::now() + config.wait_for_start();
    let mut failures = 0;
    loop {
        let failure = match open(config).await {
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

/// Both sides, looked at and found in order.
struct Opened {
    queues: Queues,
    depth: Depth,
    database: Database,
    sink: Sink,
    versions: Vec<(&'static str, String)>,
}

/// Why the run could not begin.
struct StartFailure {
    error: Error,
    /// Whether another try soon may succeed.
    may_pass: bool,
}

impl From<Error> for StartFailure {
    fn from(error: Error) -> Self {
        Self { may_pass: error.may_pass(), error }
    }
}

impl From<Fault> for StartFailure {
    fn from(fault: Fault) -> Self {
        Self { may_pass: matches!(fault.kind, Kind::Connection | Kind::Passing), error: fault.error }
    }
}

/// The database first: it answers at once, and a queue is only worth asking when there is somewhere to put
/// events.
async fn open(config: &Config) -> Result<Opened, StartFailure> {
    let mut findings = Vec::new();
    let database = Database::of(&config.target, config.store_timeout())?;
    // Nothing is tried again unless the options say so: what is wrong from the start is most often wrong for good, and
    // anyone who starts the loader should see it.
    let mut sink = database.open(&mut findings).await?;
    // Before anything is received: no message's receive count rises for a fault of the set-up.
    findings.push(Finding::of_trial(sink.trial().await?));
    findings.extend(sink.glance(&database.servers).await);
    let (queues, depth) = Queue::open_all(config, &mut findings).await?;
    for queue in queues.iter() {
        queue.require_actions().await?;
    }
    findings.push(config.store_within_visibility());
    finding::log_warnings(&findings);
    info!(
        database = %database.servers,
        inbox = config.target.inbox,
        queues = queues.iter().map(|queue| &*queue.name).collect::<Vec<_>>().join(" "),
        messages = depth.total(),
        pollers = config.pollers,
        writers = config.writers,
        "ready"
    );
    Ok(Opened { queues, depth, database, sink, versions: versions(&findings) })
}

/// Versions of the loader, the extension and the server.
fn versions(findings: &[Finding]) -> Vec<(&'static str, String)> {
    let mut versions = vec![("loader", env!("CARGO_PKG_VERSION").to_owned())];
    for (item, name) in [("extension.installed", "extension"), ("database.session", "server")] {
        let found = findings.iter().find(|finding| finding.item == item);
        versions.extend(found.map(|finding| (name, finding.message.clone())));
    }
    versions
}

/// Options in force, for the status page: without a password, wherever it came from.
fn options_in_force(config: &Config, database: &Database, queues: &Queues) -> Vec<(&'static str, String)> {
    let servers = &database.servers;
    let mut options = vec![
        ("database", format!("{}@{servers}/{}", servers.user(), servers.database())),
        ("--inbox", config.target.inbox.clone()),
    ];
    options.extend(queues.iter().map(|queue| ("queue", without_login(queue.url()))));
    options.extend(config.in_force());
    options
}

/// A URL without the user and password that may stand before its host.
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

/// Does what may block in a thread of its own, and waits at most `limit` for it. A terminal or pipe that nobody reads
/// must not keep the process.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel::<()>();
    let work = move || {
        work();
        drop(done);
    };
    // Disconnected when the work is done. Without a thread there is nothing to wait for.
    if std::thread::Builder::new().spawn(work).is_ok() {
        _ = wait.recv_timeout(limit);
    }
}

/// Standard output is for what scripts read; if it is closed, the exit code has to do.
pub(crate) fn print(line: &impl Display) {
    _ = writeln!(io::stdout(), "{line}");
}

fn fail(error: &Error) -> ExitCode {
    error!(exit_code = error.exit_code(), "{error}");
    ExitCode::from(error.exit_code())
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
