//! The command line and the environment.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::error::Error;

const AFTER_HELP: &str = "\
PostgreSQL, for what --database-url does not say:
  PGHOST (localhost), PGPORT (5432), PGUSER (the operating system's user),
  PGPASSWORD or PGPASSWORD_FILE (a file that holds it and nothing else),
  PGDATABASE (named like the user), PGAPPNAME (pg_mask loader),
  PGCONNECT_TIMEOUT (10 seconds), PGOPTIONS, PGSSLMODE (prefer),
  PGTARGETSESSIONATTRS (read-write): of several hosts, the one that takes writes
  Connections are plain as yet: of the sslmodes disable, allow and prefer work.

AWS, by its standard chain:
  AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, AWS_REGION, web
  identity, container and instance roles. With an endpoint of your own and no
  region, the region is us-east-1.

A file of variables:
  LOADER_ENV_FILE names a file with lines NAME=value, for variables that the
  environment leaves out. No file is read that is not named.

Rights that the loader needs:
  PostgreSQL  CONNECT on the database, USAGE on the schemas of the inbox and of
              pg_mask, INSERT on the inbox
  IAM         sqs:ReceiveMessage, sqs:DeleteMessage,
              sqs:ChangeMessageVisibility, sqs:GetQueueAttributes; with --queue
              sqs:GetQueueUrl; kms:Decrypt for a queue encrypted by your own key

Signals:
  SIGTERM, SIGINT  Receive no more, commit and delete what is in hand, exit 0.
                   On a second one, or when --grace has passed, make the rest
                   visible again and exit 0.

Standard output, when the loader ends:
  received N, stored N, duplicate N, rejected N, deleted N
  (with --dry-run a line that begins with 'dry run:'). Everything else goes to
  standard error. No event is ever printed.

Exit codes:
  0  done, or stopped by a signal
  1  internal error
  2  usage or configuration
  3  SQS
  4  PostgreSQL
  5  the inbox did not account for every event: nothing of that batch was stored
     or deleted";

/// Moves events from an SQS queue into a `pg_mask` inbox: a message is deleted only after the transaction
/// that stored or rejected it has committed. The loader does not read events; the database parses and masks
/// them.
// No Debug: the database URL may hold a password.
#[derive(Parser)]
#[command(name = "loader", version, after_help = AFTER_HELP, max_term_width = 110)]
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

    /// Database, as a URL postgres://user:password@host:port/database or as key=value pairs. Set it in the
    /// environment: a command line can be read by every user of the machine
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, help_heading = "Database")]
    pub(crate) database_url: Option<String>,

    /// Inbox view, with its schema where that is not on the search path
    #[arg(
        long,
        env = "LOADER_INBOX",
        value_name = "NAME",
        default_value = "login_inbox",
        help_heading = "Database"
    )]
    pub(crate) inbox: String,

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

    /// Form of the log on standard error. auto: human on a terminal, else json
    #[arg(
        long,
        env = "LOADER_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto",
        value_enum,
        help_heading = "Log"
    )]
    pub(crate) log_format: LogFormat,

    /// How much to log. debug: a line for each batch
    #[arg(
        long,
        env = "LOADER_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info",
        value_enum,
        help_heading = "Log"
    )]
    pub(crate) log_level: LogLevel,
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
    /// Reads the command line and the environment. Prints help, version and usage errors itself and exits for
    /// them.
    pub(crate) fn load() -> Result<Self, Error> {
        if let Some(file) = std::env::var_os("LOADER_ENV_FILE").filter(|file| !file.is_empty()) {
            read_env_file(Path::new(&file))?;
        }
        let matches = Self::command().get_matches();
        let mut config = Self::from_arg_matches(&matches).map_err(|e| Error::Config(e.to_string()))?;
        config.prefer_service_endpoint(&matches, std::env::var("AWS_ENDPOINT_URL_SQS").ok());
        config.validate()?;
        Ok(config)
    }

    /// AWS's tools let `AWS_ENDPOINT_URL_SQS` win over `AWS_ENDPOINT_URL`, and the command line over both.
    fn prefer_service_endpoint(&mut self, matches: &ArgMatches, of_service: Option<String>) {
        if matches.value_source("endpoint_url") != Some(ValueSource::CommandLine)
            && of_service.as_ref().is_some_and(|url| !url.is_empty())
        {
            self.endpoint_url = of_service;
        }
    }

    /// What clap cannot check: values that do not go together. A variable that is set but empty counts as not
    /// set, since container files often pass those on.
    fn validate(&mut self) -> Result<(), Error> {
        for value in [&mut self.endpoint_url, &mut self.database_url] {
            if value.as_ref().is_some_and(String::is_empty) {
                *value = None;
            }
        }
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

    /// How long a batch waits for more messages.
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger.into())
    }

    /// How long a stopped run may go on.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.into())
    }
}

/// Sets the variables of `file` that are not set yet. To be called while there is but one thread.
fn read_env_file(file: &Path) -> Result<(), Error> {
    dotenvy::from_path(file).map_err(|error| {
        let why = match error {
            dotenvy::Error::Io(error) => error.to_string(),
            // Its text has the line, which may hold a password.
            _ => "there is a line in it that is not NAME=value".to_owned(),
        };
        Error::Config(format!("LOADER_ENV_FILE: {} cannot be read: {why}", file.display()))
    })
}

fn check_url(option: &str, url: &str) -> Result<(), Error> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(());
    }
    Err(Error::Config(format!("{option} must start with http:// or https://")))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
