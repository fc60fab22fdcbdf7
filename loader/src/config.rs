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
use crate::queue::Address;

/// Seconds of grace unless the options say otherwise. With `shutdown::END_TIME` it fits into the 30 s that Kubernetes and
/// the shipped files allow.
pub(crate) const DEFAULT_GRACE: u16 = 15;

/// What a run does, and with what.
// No Debug: the database URL may hold a password.
#[derive(Args)]
pub(crate) struct Config {
    /// URL of the queue, or of several, separated by commas. Region, account and endpoint are taken from each URL.
    /// Without it queues are found by their names
    #[arg(
        long,
        env = "LOADER_QUEUE_URL",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Queue",
        conflicts_with = "queue"
    )]
    pub(crate) queue_url: Vec<String>,

    /// Name or ARN of the queue, or of several, separated by commas. All go into the same inbox. A name is of your own
    /// account and region; an ARN names both
    #[arg(
        long,
        env = "LOADER_QUEUE",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "login-queue",
        help_heading = "Queue"
    )]
    pub(crate) queue: Vec<String>,

    /// URL of the SQS service, where it is not AWS's own (`AWS_ENDPOINT_URL_SQS` counts too). Overrides the endpoint of
    /// a queue's URL
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL", help_heading = "Queue")]
    pub(crate) endpoint_url: Option<String>,

    /// ARN of a role to assume for SQS, with the credentials that AWS's standard chain finds
    #[arg(long, env = "LOADER_ASSUME_ROLE_ARN", value_name = "ARN", help_heading = "Queue")]
    pub(crate) assume_role_arn: Option<String>,

    /// External id that the role's trust policy asks for
    #[arg(long, env = "LOADER_EXTERNAL_ID", value_name = "ID", help_heading = "Queue")]
    pub(crate) external_id: Option<String>,

    /// Maximum concurrent receive calls per queue. The loader adds calls while they return full, and drops calls while
    /// they return at most half full. One gets 500 to 1,000 messages a second from AWS
    #[arg(
        long, env = "LOADER_POLLERS", value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Queue"
    )]
    pub(crate) pollers: u16,

    /// Minimum concurrent receive calls per queue, however little they return
    #[arg(
        long, env = "LOADER_MIN_POLLERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000), help_heading = "Queue"
    )]
    pub(crate) min_pollers: u16,

    /// Maximum messages received and not yet deleted, over all queues. Receive calls to idle queues hold at most half of
    /// it, so that busy queues go on
    #[arg(
        long, env = "LOADER_MAX_IN_FLIGHT", value_name = "MESSAGES", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(10..=120_000), help_heading = "Queue"
    )]
    pub(crate) max_in_flight: u32,

    /// Long poll: how many seconds a receive call waits for messages, 0 to 20. With --drain or --dry-run always 1
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

    #[command(flatten)]
    pub(crate) deletion: Deletion,

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

    /// Exit when long polls bring nothing and everything received is committed and deleted. Waits for messages that are
    /// delayed or hidden by another consumer, as far as SQS counts them: on AWS its counts can lag by a minute
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

    /// After SIGTERM, how many seconds to spend on committing and deleting what is in flight. Up to 12 more go into making
    /// the rest visible again. What no connection can store is given back without waiting
    #[arg(
        long, env = "LOADER_GRACE", value_name = "SECONDS", default_value_t = DEFAULT_GRACE,
        value_parser = clap::value_parser!(u16).range(0..=3600), help_heading = "Run"
    )]
    pub(crate) grace: u16,

    /// At the start, how many seconds to go on trying while the database or SQS is not up yet, or a file for the connection
    /// is not there yet. What is wrong for good ends the loader at once
    #[arg(
        long, env = "LOADER_WAIT_FOR_START", value_name = "SECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u16).range(0..=3600), help_heading = "Run"
    )]
    pub(crate) wait_for_start: u16,

    /// Show metrics for Prometheus at this address: /metrics, and beside it a status page at /, /healthz (the process lives)
    /// and /readyz (both sides have answered lately). Off unless set. Without TLS or password, for a private network; what is shown are
    /// counts and times, codes and the names of queues, and no value of an event
    #[arg(long, env = "LOADER_METRICS_ADDRESS", value_name = "HOST:PORT", help_heading = "Operations")]
    pub(crate) metrics_address: Option<String>,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// When stored messages are deleted.
#[derive(Args)]
pub(crate) struct Deletion {
    /// Delete a stored message only when a standby has flushed its commit, so that a failover to it loses none. The
    /// role must be able to see how far standbys are: the README says how
    #[arg(
        long, env = "LOADER_DELETE_AFTER_REPLAY", value_parser = FalseyValueParser::new(), help_heading = "Database"
    )]
    pub(crate) delete_after_replay: bool,

    /// Seconds from COMMIT to delete with --delete-after-replay, if the server has no standby or the role cannot see it
    #[arg(
        long, env = "LOADER_DELETE_DELAY", value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u16).range(0..=3600), help_heading = "Database"
    )]
    pub(crate) delete_delay: u16,
}

impl Deletion {
    /// How long a stored message waits where no standby can be asked.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_secs(self.delete_delay.into())
    }
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

    /// Log in to Amazon RDS or Aurora with an IAM token in place of a password. Each connection makes one from the AWS
    /// credentials, which must be allowed rds-db:connect. Needs sslmode=verify-full
    #[arg(long, env = "LOADER_RDS_IAM", value_parser = FalseyValueParser::new(), help_heading = "Database")]
    rds_iam: bool,

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
        let mut servers = Servers::resolve(self.database_url(), postgres::environment)?;
        if self.rds_iam {
            servers.log_in_by_rds_token()?;
        }
        Ok(servers)
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
        for value in [&mut self.endpoint_url, &mut self.assume_role_arn, &mut self.external_id] {
            value.take_if(|value| value.is_empty());
        }
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
        if self.external_id.is_some() && self.assume_role_arn.is_none() {
            return Err(Error::Config("--external-id needs --assume-role-arn: name the role".into()));
        }
        self.addresses()?;
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

    /// Reads where the queues are.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>, Error> {
        let of_name = |name: &String| {
            Address::of_name(name).ok_or_else(|| {
                Error::Config(format!(
                    "--queue {name} is not the ARN of a queue: write arn:aws:sqs:REGION:ACCOUNT:NAME"
                ))
            })
        };
        let mut addresses = if self.queue_url.is_empty() {
            self.queue.iter().map(of_name).collect::<Result<Vec<_>, _>>()?
        } else {
            self.queue_url.iter().map(|url| Address::of_url(url)).collect()
        };
        if let Some(endpoint) = &self.endpoint_url {
            for address in &mut addresses {
                address.move_to(endpoint);
            }
        }
        Ok(addresses)
    }

    /// How long a receive call waits for messages. A run that ends with the queue empty waits one second: less would
    /// be a short poll, which asks some of SQS's servers only, and more would end it later.
    pub(crate) fn wait(&self) -> u16 {
        if self.drain || self.dry_run { 1 } else { self.wait }
    }

    /// How long the answer to a receive call may take to begin. Without such a limit a call can hang indefinitely.
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

    /// Options in force, for the status page. Secrets are not among them.
    pub(crate) fn in_force(&self) -> Vec<(&'static str, String)> {
        let seconds = |seconds: u16| format!("{seconds} s");
        vec![
            ("--pollers", format!("{} to {}", self.min_pollers.min(self.pollers), self.pollers)),
            ("--max-in-flight", self.max_in_flight.to_string()),
            ("--wait", seconds(self.wait())),
            ("--visibility", seconds(self.visibility)),
            ("--writers", self.writers.to_string()),
            ("--store-timeout", seconds(self.store_timeout)),
            ("--batch-size", self.batch_size.to_string()),
            ("--batch-bytes", self.batch_bytes.to_string()),
            ("--linger", format!("{} ms", self.linger)),
            ("--drain", self.drain.to_string()),
            ("--grace", seconds(self.grace)),
            ("--wait-for-start", seconds(self.wait_for_start)),
        ]
    }

    /// How long to go on trying at the start.
    pub(crate) fn wait_for_start(&self) -> Duration {
        Duration::from_secs(self.wait_for_start.into())
    }

    /// How long a stopped run may go on.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.into())
    }
}

fn check_url(option: &str, url: &str) -> Result<(), Error> {
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))
    else {
        return Err(Error::Config(format!("{option} must start with http:// or https://")));
    };
    // It would show in the log.
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err(Error::Config(format!("{option} must not hold a user or password")));
    }
    Ok(())
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
