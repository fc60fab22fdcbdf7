//! The log, on standard error.

mod backlog;
mod limit;
mod options;

use std::io::{self, IsTerminal};

use indicatif::ProgressBar;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber, error};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::Error;
use crate::shutdown::LOG_TIME;
pub(crate) use backlog::Backlog;
pub(crate) use limit::LogLimit;
pub(crate) use options::{LogFormat, LogLevel, LogOptions};

/// The log of this process. Dropping it waits at most one second for the last lines.
pub(crate) struct Log {
    /// Lines that are not written yet.
    pub(crate) backlog: Backlog,
}

impl Log {
    /// Waits at most one second until the lines so far are written.
    pub(crate) fn flush(&self) {
        self.backlog.flush(LOG_TIME);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Whether to draw a progress bar: only for a human, and only at a terminal.
pub(crate) fn wants_bar(format: LogFormat) -> bool {
    is_human(format) && can_draw()
}

/// Whether standard error is a terminal that can move its cursor. A terminal with `TERM=dumb`, as in an editor, can't.
fn can_draw() -> bool {
    io::stderr().is_terminal()
        && std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

fn is_human(format: LogFormat) -> bool {
    match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    }
}

/// Starts logging, also of panics. While `bar` is drawn, lines are printed above it. Logging never blocks.
pub(crate) fn start(options: &LogOptions, bar: &ProgressBar) -> Result<Log, Error> {
    let level = match options.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    let bar = bar.clone();
    let backlog = Backlog::start(move |line| bar.suspend(|| backlog::write_to_stderr(line)))
        .map_err(|e| Error::Internal(format!("no thread for the log: {e}")))?;
    let lines_of = backlog.clone();
    let writer = move || lines_of.clone();
    let lines = if is_human(options.format) {
        let colours = can_draw() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        layer().with_writer(writer).with_ansi(colours).with_target(false).boxed()
    } else {
        json(writer).boxed()
    };
    tracing_subscriber::registry().with(lines.with_filter(targets(level))).init();
    // The message of a panic can quote data, such as the text that a slice did not fit.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(place, "panic; please report it");
    }));
    Ok(Log { backlog })
}

/// Returns a layer that writes one flat JSON object per line: `timestamp` (RFC 3339, UTC), `level`, `message`,
/// `target`, and fields that are numbers and texts. So log collectors need no configuration to read it.
pub(crate) fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    layer().json().flatten_event(true).with_writer(writer)
}

/// Lets only the loader itself log. At debug the SDK prints whole answers from SQS, and with them message bodies. At
/// info tokio-postgres prints notices, which triggers may put values into. Even the SDK's warnings can hold full
/// answers from the services that credentials come from. Their failures come back as errors, which the loader logs in
/// its own words.
fn targets(level: Level) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level).with_default(LevelFilter::OFF)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing::subscriber::DefaultGuard;
    use tracing::warn;

    use super::*;

    /// Log lines of this thread, as JSON.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        /// Captures log lines until the guard is dropped.
        pub(crate) fn capture() -> (Self, DefaultGuard) {
            let lines = Self::default();
            let writer = lines.clone();
            (lines, tracing_subscriber::registry().with(json(move || writer.clone())).set_default())
        }

        /// Takes the lines so far.
        pub(crate) fn take(&self) -> Vec<Value> {
            let text = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    #[test]
    fn a_json_line_is_flat_and_has_what_log_collectors_look_for() {
        let (lines, _guard) = Lines::capture();
        let no_trace = None::<&str>;
        warn!(queue = "q", messages = 3, seconds = 0.5, trace_id = no_trace, "a \"message\"\nof {} lines", 2);
        let [mut line] = lines.take().try_into().unwrap();
        let timestamp = line["timestamp"].take();
        let form = timestamp.as_str().unwrap().replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(form, "0000-00-00T00:00:00.000000Z");
        let expected = serde_json::json!({
            "timestamp": null, "level": "WARN", "target": "loader::telemetry::log::tests",
            "message": "a \"message\"\nof 2 lines", "queue": "q", "messages": 3, "seconds": 0.5
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn dependencies_never_log() {
        for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG] {
            let targets = targets(level);
            assert!(targets.would_enable("loader::pipeline::writer", &level));
            for dependency in
                ["aws_sdk_sqs", "aws_smithy_runtime", "tokio_postgres", "hyper_util", "opentelemetry_sdk"]
            {
                assert!(!targets.would_enable(dependency, &Level::ERROR));
            }
        }
    }
}
