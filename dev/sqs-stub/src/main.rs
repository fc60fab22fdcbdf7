//! Runs the server until a signal, or the end of standard input, stops it.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sqs_stub::{Options, Server};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// An SQS server in memory, for benchmarks and fault tests. Prints its URL to standard output.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Port on 127.0.0.1; 0 chooses a free port
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds added to every call
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Number of threads that serve calls
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Seed of the random numbers that decide about faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop when standard input is closed, so that the server does not outlive the process that started it
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, only the exit code tells.
            _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // Registered before the URL is printed, so that no later signal is lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::start(Options {
            port: arguments.port,
            delay: Duration::from_millis(arguments.delay_ms),
            threads: arguments.threads,
            seed: arguments.seed,
            ..Options::default()
        })?;
        writeln!(io::stdout(), "{}", server.url())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_closes(), if arguments.until_stdin_closes => {}
        }
        Ok(())
    });
    // A read of standard input cannot be cancelled, and must not keep the process running.
    runtime.shutdown_background();
    result
}

async fn stdin_closes() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 256];
    // An error counts as the end of the input.
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
