//! `loader` moves events from SQS queues into a `pg_mask` inbox. It never looks into an event.
//!
//! The promise: no message is lost and none is stored twice. A message is deleted only after the transaction that
//! stored or rejected it has committed. A transaction commits only after the inbox has accounted for every event in it.
//!
//! | module | holds |
//! |---|---|
//! | `cli`, `config` | command line and environment |
//! | `commands` | the commands, each from its options to its last line |
//! | `pipeline` | the tasks of a run: receive, batch, store, delete, extend leases |
//! | `leases` | when a message may be deleted, which messages are in flight, how many fit |
//! | `sqs` | SQS |
//! | `inbox` | `PostgreSQL`: connection, checks, one transaction per batch |
//! | `telemetry` | counters, metrics, status page, readiness, service manager, logs, traces |
//! | `check_item`, `error` | what a check finds; exit codes |
//! | `message`, `clock`, `backoff`, `shutdown`, `no_dump` | a message; clocks compared; pauses; signals; core dumps |

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test may panic"))]

mod backoff;
mod check_item;
mod cli;
mod clock;
mod commands;
mod config;
mod error;
mod inbox;
mod leases;
mod library_texts;
mod message;
mod no_dump;
mod pipeline;
mod shutdown;
mod sqs;
mod telemetry;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use indicatif::ProgressBar;
use tracing::{error, warn};

use crate::cli::{Cli, Command};
use crate::commands::{check, man_pages, redrive, run};
use crate::error::Error;
use crate::telemetry::log;

fn main() -> ExitCode {
    // Must run before anything secret is read.
    let guarded = no_dump::guard_memory();
    let cli = match Cli::load() {
        Ok(cli) => cli,
        Err(error) => {
            // There is no log yet. If standard error is closed, only the exit code tells.
            _ = writeln!(io::stderr(), "error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let bar = ProgressBar::hidden();
    // Dropped last, after the last log line.
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
            None => Box::pin(run::run(&cli.config, &bar, &log)).await,
            Some(Command::Check(check)) => check::run(check).await,
            Some(Command::Redrive(redrive)) => redrive::run(redrive).await,
            Some(Command::Completions(options)) => man_pages::print_completions(Cli::command(), options),
            Some(Command::Man(options)) => man_pages::make_man_pages(Cli::command(), options),
        }
    });
    // A name lookup that hangs must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Error) -> ExitCode {
    error!(exit_code = error.exit_code(), "{error}");
    ExitCode::from(error.exit_code())
}
