//! The options of the log.

use clap::{Args, ValueEnum};

/// Options of the log.
#[derive(Args)]
pub(crate) struct LogOptions {
    /// Format of the log on standard error. auto: human on a terminal, json otherwise
    #[arg(
        long = "log-format",
        env = "LOADER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        value_enum,
        help_heading = "Log"
    )]
    pub(crate) format: LogFormat,

    /// Minimum severity to log. debug adds a line per batch
    #[arg(
        long = "log-level",
        env = "LOADER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_enum,
        help_heading = "Log"
    )]
    pub(crate) level: LogLevel,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Auto,
    Human,
    Json,
}

/// Minimum severity to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}
