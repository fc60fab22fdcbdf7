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
//! | `dry_run` | one batch, rolled back |
//! | `check`, `finding` | what a run needs, looked at item by item |
//! | `redrive` | rejects put back into the inbox |
//! | `null_consumer` | what the loader is measured against, in builds for that |
//! | `shutdown` | signals |
//! | `supervisor` | the service manager |
//! | `stats`, `progress`, `log`, `trace` | what the user sees |
//! | `monitoring` | what machines see: metrics, `/healthz`, `/readyz` |
//! | `error` | exit codes |

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may panic"))]

mod backoff;
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
mod keeper;
mod lease;
mod ledger;
mod log;
mod message;
mod monitoring;
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
use std::sync::Arc;

use indicatif::ProgressBar;
use tracing::{error, info};

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::error::Error;
use crate::monitoring::Readiness;
use crate::queue::{Depth, Queue, Queues};
use crate::shutdown::Shutdown;
use crate::sink::Sink;
use crate::stats::Stats;
use crate::supervisor::Supervisor;
use crate::writer::Database;

fn main() -> ExitCode {
    let cli = match Cli::load() {
        Ok(cli) => cli,
        Err(error) => {
            // There is no log yet. If standard error is closed, the exit code has to do.
            _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let bar = ProgressBar::hidden();
    log::start(cli.log(), &bar);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::Internal(format!("no runtime: {error}"))),
    };
    let result = runtime.block_on(async {
        match &cli.command {
            None => run(&cli.config, &bar).await,
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

async fn run(config: &Config, bar: &ProgressBar) -> Result<(), Error> {
    let shutdown =
        Shutdown::listen(config.grace()).map_err(|e| Error::Internal(format!("no signal handlers: {e}")))?;
    #[cfg(feature = "null-consumer")]
    if config.null_consumer {
        print(&null_consumer::run(config, &shutdown).await?);
        return Ok(());
    }
    let readiness = Arc::new(Readiness::new(shutdown.clone()));
    if let Some(address) = config.metrics_address.as_ref().filter(|_| !config.dry_run) {
        monitoring::start(address, Arc::clone(&readiness)).await?;
    }
    let (queues, depth, database, sink) = tokio::select! {
        opened = open(config) => opened?,
        () = shutdown.stopping() => return Ok(()),
    };
    if config.dry_run {
        print(&dry_run::run(config, &queues, sink, &shutdown).await?);
        return Ok(());
    }
    let stats = Arc::new(Stats::new(queues.iter().map(|queue| &*queue.name)));
    if let Some(queue) = queues.first() {
        let sqs = (queue.pulse(), config.receive_timeout());
        readiness.begin(sqs, (Arc::clone(&stats.pulse), config.store_timeout()));
    }
    let progress = show_progress(config, bar, &queues, depth, &stats);
    let traces = trace::start();
    let supervisor = Supervisor::from_env();
    supervisor.ready(&format!("moving messages into {}", config.target.inbox));
    let result = tokio::select! {
        result = pipeline::run(config, queues, database, sink, Arc::clone(&stats), shutdown.clone()) => result,
        never = supervisor.watch(&stats, &shutdown, config.grace()) => match never {},
    };
    traces.finish().await;
    progress.abort();
    bar.finish_and_clear();
    progress::log_all(&stats);
    print(&stats.summary());
    result
}

/// The database first: it answers at once, and a queue is only worth asking when there is somewhere to put
/// events.
async fn open(config: &Config) -> Result<(Queues, Depth, Database, Sink), Error> {
    let mut findings = Vec::new();
    let database = Database::of(&config.target, config.store_timeout())?;
    // Here nothing is tried again: what is wrong from the start is most often wrong for good, and whoever starts the
    // loader shall see it.
    let sink = database.open(&mut findings).await?;
    findings.extend(sink.glance(&database.servers).await);
    let (queues, depth) = Queue::open_all(config, &mut findings).await?;
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
    Ok((queues, depth, database, sink))
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

/// Standard output is for what scripts read; if it is closed, the exit code has to do.
pub(crate) fn print(line: &impl Display) {
    _ = writeln!(io::stdout(), "{line}");
}

fn fail(error: &Error) -> ExitCode {
    error!(exit_code = error.exit_code(), "{error}");
    ExitCode::from(error.exit_code())
}
