//! `loader` moves events from an SQS queue into a `pg_mask` inbox and knows nothing of what is in them.
//!
//! The promise: no message lost, no message doubled. A message is deleted only after the transaction that
//! stored or rejected it has committed, and a transaction commits only after the inbox has accounted for
//! every event in it.
//!
//! | file | holds |
//! |---|---|
//! | `config`, `postgres_config` | command line and environment |
//! | `pipeline` | the tasks and how they end: `poller`, `collector`, `writer`, `deleter`, `drain` |
//! | `queue` | SQS |
//! | `sink`, `copy` | `PostgreSQL`: connection, checks, one transaction a batch |
//! | `ledger` | the receipts of what is in hand |
//! | `dry_run` | one batch, rolled back |
//! | `shutdown` | signals |
//! | `stats`, `progress`, `log` | what the user sees |
//! | `error` | exit codes |

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may panic"))]

mod backoff;
mod collector;
mod config;
mod copy;
mod deleter;
mod drain;
mod dry_run;
mod error;
mod ledger;
mod log;
mod message;
mod pipeline;
mod poller;
mod postgres_config;
mod progress;
mod queue;
mod shutdown;
mod sink;
mod stats;
mod writer;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use indicatif::ProgressBar;
use tracing::{error, info};

use crate::config::Config;
use crate::error::Error;
use crate::queue::{Depth, Queue};
use crate::shutdown::Shutdown;
use crate::sink::Sink;
use crate::stats::Stats;

fn main() -> ExitCode {
    let config = match Config::load() {
        Ok(config) => config,
        Err(error) => {
            // There is no log yet. If standard error is closed, the exit code has to do.
            _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let bar = ProgressBar::hidden();
    log::start(&config, &bar);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::Internal(format!("no runtime: {error}"))),
    };
    let result = runtime.block_on(run(&config, &bar));
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
    let (queue, depth, sink) = tokio::select! {
        opened = open(config) => opened?,
        () = shutdown.stopping() => return Ok(()),
    };
    if config.dry_run {
        print(&dry_run::run(config, &queue, sink, &shutdown).await?);
        return Ok(());
    }
    let stats = Arc::new(Stats::default());
    let progress = show_progress(config, bar, &queue, depth, &stats);
    let result = pipeline::run(config, queue, sink, Arc::clone(&stats), shutdown).await;
    progress.abort();
    bar.finish_and_clear();
    print(&stats.summary());
    result
}

/// The database first: it answers at once, and a queue is only worth asking when there is somewhere to put
/// events.
async fn open(config: &Config) -> Result<(Queue, Depth, Sink), Error> {
    let database = postgres_config::resolve(config.database_url.as_deref(), |name| std::env::var(name).ok())?;
    let sink = Sink::open(&database, &config.inbox).await?;
    let (queue, depth) = Queue::open(config).await?;
    info!(
        database = postgres_config::servers(&database),
        inbox = config.inbox,
        queue = config.queue_url.as_deref().unwrap_or(&config.queue),
        messages = depth.total(),
        pollers = config.pollers,
        "ready"
    );
    Ok((queue, depth, sink))
}

fn show_progress(
    config: &Config,
    bar: &ProgressBar,
    queue: &Queue,
    depth: Depth,
    stats: &Arc<Stats>,
) -> tokio::task::JoinHandle<()> {
    let (queue, stats) = (queue.clone(), Arc::clone(stats));
    if !config.drain {
        tokio::spawn(progress::log_every_minute(stats))
    } else if log::wants_bar(config.log_format) {
        tokio::spawn(progress::draw_drain(bar.clone(), queue, stats, depth))
    } else {
        tokio::spawn(progress::log_drain(queue, stats, depth))
    }
}

/// Standard output is for what scripts read; if it is closed, the exit code has to do.
fn print(line: &impl Display) {
    _ = writeln!(io::stdout(), "{line}");
}

fn fail(error: &Error) -> ExitCode {
    error!(exit_code = error.exit_code(), "{error}");
    ExitCode::from(error.exit_code())
}
