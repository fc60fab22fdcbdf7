//! Runs the server until it is told to stop.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sqs_stub::{Options, Server};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// An SQS server in memory, for benchmarks and tests of faults. Prints its URL on standard output.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Port on 127.0.0.1; 0 for any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Milliseconds added to every call
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Threads that serve
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Where the random numbers that decide about faults start
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop when standard input is closed, so that the server does not outlive who started it
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, the exit code has to do.
            _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        // Before the URL is out, so that no signal after it goes astray.
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
    // A read of standard input cannot be cancelled and must not keep the process.
    runtime.shutdown_background();
    result
}

async fn stdin_closes() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0; 256];
    // An error is as good as the end.
    while stdin.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}
