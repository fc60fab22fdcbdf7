//! The options of a run.

use std::collections::HashSet;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, ValueEnum};
use tracing::warn;

use crate::error::Error;
use crate::finding::Finding;
use crate::postgres::{self, Servers};

/// What a run does, and with what.
// No Debug: the database URL may hold a password.
#[derive(Args)]
pub(crate) struct Config {
    /// URL of the queue, or of several of one service, separated by commas. Without it queues are found by their
    /// names
    #[arg(
        long,
        env = "LOADER_QUEUE_URL",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Queue",
        conflicts_with = "queue"
    )]
    pub(crate) queue_url: Vec<String>,

    /// Name of the queue, or of several, separated by commas. All go into the same inbox
    #[arg(
        long,
        env = "LOADER_QUEUE",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "login-queue",
        help_heading = "Queue"
    )]
    pub(crate) queue: Vec<String>,

    /// URL of the SQS service, where it is not AWS's own (`AWS_ENDPOINT_URL_SQS` counts too)
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL", help_heading = "Queue")]
    pub(crate) endpoint_url: Option<String>,

    /// At most so many receive calls of a queue go on at the same time: their number grows while they come back full.
    /// One gets 500 to 1,000 messages a second from AWS
    #[arg(
        long, env = "LOADER_POLLERS", value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Queue"
    )]
    pub(crate) pollers: u16,

    /// At least so many go on, while calls come back empty
    #[arg(
        long, env = "LOADER_MIN_POLLERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Queue"
    )]
    pub(crate) min_pollers: u16,

    /// At most so many messages, of all queues, are received and not yet deleted
    #[arg(
        long, env = "LOADER_MAX_IN_FLIGHT", value_name = "MESSAGES", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(10..=120_000), help_heading = "Queue"
    )]
    pub(crate) max_in_flight: u32,

    /// Long poll: how many seconds a receive call waits for messages, 0 to 20. With --drain or --dry-run at
    /// most 1
    #[arg(
        long, env = "LOADER_WAIT", value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(0..=20), help_heading = "Queue"
    )]
    pub(crate) wait: u16,

    /// For how many seconds SQS hides a received message from others, 1 to 43200. It is hidden anew, as often as need
    /// be, until its delete is confirmed. Must exceed --wait by more than 5: a loader that dies holds its messages back
    /// for so long, and one that is cut off from SQS for longer has them delivered twice, and stored once
    #[arg(
        long, env = "LOADER_VISIBILITY", value_name = "SECONDS", default_value_t = 120,
        value_parser = clap::value_parser!(u16).range(1..=43_200), help_heading = "Queue"
    )]
    pub(crate) visibility: u16,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Store with so many connections at a time; each is made when it is needed. More than one pays where a COMMIT
    /// takes long
    #[arg(
        long, env = "LOADER_WRITERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Database"
    )]
    pub(crate) writers: u16,

    /// A batch that is not stored within so many seconds counts as failed, and its connection as lost
    #[arg(
        long, env = "LOADER_STORE_TIMEOUT", value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u16).range(1..=3600), help_heading = "Database"
    )]
    pub(crate) store_timeout: u16,

    /// Close a batch (one transaction) at this many messages ...
    #[arg(
        long, env = "LOADER_BATCH_SIZE", value_name = "MESSAGES", default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Batch"
    )]
    pub(crate) batch_size: u32,

    /// ... or at this many bytes of message bodies (8388608 is 8 MiB) ...
    #[arg(
        long, env = "LOADER_BATCH_BYTES", value_name = "BYTES", default_value_t = 8 * 1024 * 1024,
        value_parser = clap::value_parser!(u32).range(1..=1_073_741_824), help_heading = "Batch"
    )]
    pub(crate) batch_bytes: u32,

    /// ... or this many milliseconds after its first message, whichever comes first
    #[arg(
        long, env = "LOADER_LINGER", value_name = "MILLISECONDS", default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(0..=600_000), help_heading = "Batch"
    )]
    pub(crate) linger: u32,

    /// Exit when the queue is empty and everything received is committed and deleted. Waits for messages that
    /// are delayed or hidden by another consumer
    #[arg(long, env = "LOADER_DRAIN", value_parser = FalseyValueParser::new(), help_heading = "Run")]
    pub(crate) drain: bool,

    /// Receive one batch at most, try it in the database, roll back, make the messages visible again and
    /// report. Counts as one receive of each, towards a dead-letter queue
    #[arg(long, env = "LOADER_DRY_RUN", value_parser = FalseyValueParser::new(), help_heading = "Run")]
    pub(crate) dry_run: bool,

    /// Receive and delete, and store nothing: all that is received is lost
    #[cfg(feature = "null-consumer")]
    #[arg(long, env = "LOADER_NULL_CONSUMER", value_parser = FalseyValueParser::new(), hide = true)]
    pub(crate) null_consumer: bool,

    /// After SIGTERM, how many seconds to spend on committing and deleting what is in hand
    #[arg(
        long, env = "LOADER_GRACE", value_name = "SECONDS", default_value_t = 25,
        value_parser = clap::value_parser!(u16).range(0..=3600), help_heading = "Run"
    )]
    pub(crate) grace: u16,

    /// Show metrics for Prometheus at this address: /metrics, and beside it /healthz (the process lives) and /readyz (both
    /// sides have answered lately). Off unless set. Without TLS or password, for a private network; what is shown are
    /// counts and times, codes and the names of queues, and no value of an event
    #[arg(long, env = "LOADER_METRICS_ADDRESS", value_name = "HOST:PORT", help_heading = "Operations")]
    pub(crate) metrics_address: Option<String>,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Where events go.
// No Debug: see `Config`.
#[derive(Args)]
pub(crate) struct Target {
    /// Database, as a URL postgres://user:password@host:port/database or as key=value pairs. Set it in the
    /// environment: a command line can be read by every user of the machine
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, help_heading = "Database")]
    database_url: Option<String>,

    /// Whether it was given on the command line.
    #[arg(skip)]
    pub(crate) url_is_in_the_open: bool,

    /// Inbox view, with its schema where that is not on the search path
    #[arg(
        long,
        env = "LOADER_INBOX",
        value_name = "NAME",
        default_value = "login_inbox",
        help_heading = "Database"
    )]
    pub(crate) inbox: String,
}

/// What is logged, and how.
#[derive(Args)]
pub(crate) struct LogOptions {
    /// Form of the log on standard error. auto: human on a terminal, else json
    #[arg(
        long = "log-format",
        env = "LOADER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        value_enum,
        help_heading = "Log"
    )]
    pub(crate) format: LogFormat,

    /// How much to log. debug: a line for each batch
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

impl Target {
    /// The database as it was given. A variable that is set but empty counts as not set.
    pub(crate) fn database_url(&self) -> Option<&str> {
        self.database_url.as_deref().filter(|url| !url.is_empty())
    }

    /// The servers that this and the environment name, with a warning where a password was given to all users of the
    /// machine.
    pub(crate) fn servers(&self) -> Result<Servers, Error> {
        if self.url_is_in_the_open && self.database_url().is_some_and(postgres::has_password) {
            warn!(
                "--database-url has a password on the command line, which every user of this machine can read in the list of \
                 processes: set DATABASE_URL, PGPASSWORD, PGPASSWORD_FILE or PGPASSFILE instead"
            );
        }
        Servers::resolve(self.database_url(), postgres::environment)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Auto,
    Human,
    Json,
}

/// The least severity that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

impl Config {
    /// AWS's tools let `AWS_ENDPOINT_URL_SQS` win over `AWS_ENDPOINT_URL`, and the command line over both.
    pub(crate) fn prefer_service_endpoint(&mut self, matches: &ArgMatches, of_service: Option<String>) {
        if matches.value_source("endpoint_url") != Some(ValueSource::CommandLine)
            && of_service.as_ref().is_some_and(|url| !url.is_empty())
        {
            self.endpoint_url = of_service;
        }
    }

    /// What clap cannot check: values that do not go together. A variable that is set but empty counts as not
    /// set, since container files often pass those on.
    pub(crate) fn validate(&mut self) -> Result<(), Error> {
        self.endpoint_url.take_if(|url| url.is_empty());
        self.metrics_address.take_if(|address| address.is_empty());
        for names in [&mut self.queue_url, &mut self.queue] {
            names.retain(|name| !name.is_empty());
            let mut seen = HashSet::new();
            if !names.iter().all(|name| seen.insert(name)) {
                return Err(Error::Config("a queue is named twice: name each once".into()));
            }
        }
        if self.queue_url.is_empty() && self.queue.is_empty() {
            return Err(Error::Config("no queue is named: set --queue or --queue-url".into()));
        }
        for url in &self.queue_url {
            check_url("--queue-url", url)?;
        }
        if let Some(url) = &self.endpoint_url {
            check_url("--endpoint-url", url)?;
        }
        if let Some(address) = &self.metrics_address {
            check_address("--metrics-address", address)?;
        }
        if self.drain && self.dry_run {
            return Err(Error::Config("--drain and --dry-run exclude each other: leave one out".into()));
        }
        // A message that comes at the end of a slow receive call would otherwise be visible again before it
        // is stored.
        let least = self.receive_timeout() + self.linger();
        if self.visibility() <= least {
            return Err(Error::Config(format!(
                "--visibility {} is too short: it must exceed {} s, which is --wait and 5 s for a slow \
                 receive call, plus --linger",
                self.visibility,
                least.as_secs_f32()
            )));
        }
        Ok(())
    }

    /// How long a receive call waits for messages. In a run that ends with the queue empty a short poll ends
    /// it sooner, and while messages are there the wait does not matter.
    pub(crate) fn wait(&self) -> u16 {
        if self.drain || self.dry_run { self.wait.min(1) } else { self.wait }
    }

    /// How long one attempt of a receive call may take. Without such a limit it can hang for ever.
    pub(crate) fn receive_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.wait()) + 5)
    }

    /// For how long SQS hides what it hands out.
    pub(crate) fn visibility(&self) -> Duration {
        Duration::from_secs(self.visibility.into())
    }

    /// How long a batch may take to be stored.
    pub(crate) fn store_timeout(&self) -> Duration {
        Duration::from_secs(self.store_timeout.into())
    }

    /// Whether a batch that takes its time stays hidden by its lease alone.
    pub(crate) fn store_within_visibility(&self) -> Finding {
        const ITEM: &str = "loader.visibility";
        let Self { visibility, store_timeout, .. } = self;
        if self.visibility() < self.store_timeout() {
            return Finding::warning(
                ITEM,
                format!(
                    "--visibility {visibility} is shorter than --store-timeout {store_timeout}: a batch that takes its \
                     time lives by extensions of its leases alone"
                ),
            );
        }
        Finding::ok(ITEM, format!("--visibility {visibility}, and --store-timeout {store_timeout}"))
    }

    /// How long a batch waits for more messages.
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger.into())
    }

    /// How long a stopped run may go on.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.into())
    }
}

fn check_url(option: &str, url: &str) -> Result<(), Error> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(());
    }
    Err(Error::Config(format!("{option} must start with http:// or https://")))
}

/// An address to listen at. Which interface is meant has to be said: metrics are not for everybody.
fn check_address(option: &str, address: &str) -> Result<(), Error> {
    let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
        // An IPv6 address has colons of its own, and stands in brackets then.
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
    });
    if host_and_port.is_some() {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{option} {address} is not HOST:PORT, such as 127.0.0.1:9187, or 0.0.0.0:9187 for every interface"
    )))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
