//! The log, on standard error.

use std::io::{self, IsTerminal, Write};

use indicatif::ProgressBar;
use tracing::level_filters::LevelFilter;
use tracing::{Level, error};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Config, LogFormat, LogLevel};

/// Whether to draw a progress bar: only for a human, and only at a terminal.
pub(crate) fn wants_bar(format: LogFormat) -> bool {
    is_human(format) && io::stderr().is_terminal()
}

fn is_human(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    }
}

/// Starts logging, of panics too. Lines step aside for `bar` where one is drawn.
pub(crate) fn start(config: &Config, bar: &ProgressBar) {
    let level = match config.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let bar = bar.clone();
    let writer = move || BesideBar { bar: bar.clone() };
    let lines = if is_human(config.log_format) {
        let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        layer().with_writer(writer).with_ansi(colours).with_target(false).boxed()
    } else {
        layer().json().flatten_event(true).with_writer(writer).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(targets(level))).init();
    // What a panic says can quote what it stumbled over, such as the text that a slice did not fit.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(place, "panic; please report it");
    }));
}

/// Only the loader itself logs. At debug the SDK prints whole answers of SQS, and with them message bodies;
/// at info tokio-postgres prints notices, which triggers may put values into; and even among the SDK's
/// warnings there are answers in full, of the services that credentials come from. What they have to say
/// comes back as errors, which the loader logs in its own words.
fn targets(level: Level) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level).with_default(LevelFilter::OFF)
}

/// Writes to standard error with the progress bar taken away for the moment.
struct BesideBar {
    bar: ProgressBar,
}

impl Write for BesideBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.bar.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_never_log() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            let targets = targets(level);
            assert!(targets.would_enable("loader::writer", &level));
            for dependency in ["aws_sdk_sqs", "aws_smithy_runtime", "tokio_postgres", "hyper_util"] {
                assert!(!targets.would_enable(dependency, &Level::ERROR));
            }
        }
    }
}
