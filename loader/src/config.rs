//! The options of a run.

mod queue;
mod target;

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::check_item::CheckItem;
use crate::error::Error;
use crate::sqs::{QueueSettings, Role};
use crate::telemetry::log::LogOptions;
pub(crate) use queue::QueueOptions;
pub(crate) use target::Target;

/// Default of `--grace`, in seconds. With `shutdown::END_TIME` it fits into the 30 s that Kubernetes and
/// the shipped files allow.
pub(crate) const DEFAULT_GRACE: u16 = 15;

/// Options of a run.
// No Debug: the database URL can hold a password.
#[derive(Args)]
pub(crate) struct Config {
    #[command(flatten)]
    pub(crate) queue: QueueOptions,

    #[command(flatten)]
    pub(crate) target: Target,

    /// Maximum connections that store batches at the same time, opened on demand. More than one helps if COMMIT is slow
    #[arg(
        long, env = "LOADER_WRITERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Database"
    )]
    pub(crate) writers: u16,

    /// Maximum seconds to store a batch. After that the batch has failed and its connection is closed
    #[arg(
        long, env = "LOADER_STORE_TIMEOUT", value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u16).range(1..=3600), help_heading = "Database"
    )]
    pub(crate) store_timeout: u16,

    #[command(flatten)]
    pub(crate) deletion: Deletion,

    #[command(flatten)]
    pub(crate) batch: BatchOptions,

    /// Exit when long polls return nothing and everything received is committed and deleted. Also waits for messages that
    /// are delayed or hidden by another consumer, as SQS counts them. On AWS these counts can lag by a minute
    #[arg(long, env = "LOADER_DRAIN", value_parser = FalseyValueParser::new(), help_heading = "Run")]
    pub(crate) drain: bool,

    /// Receive at most one batch, store it, roll back, make the messages visible again and report. Raises the receive
    /// count of each message, which counts toward a dead-letter queue
    #[arg(long, env = "LOADER_DRY_RUN", value_parser = FalseyValueParser::new(), help_heading = "Run")]
    pub(crate) dry_run: bool,

    /// Receive and delete without storing: every received message is lost
    #[cfg(feature = "null-consumer")]
    #[arg(long, env = "LOADER_NULL_CONSUMER", value_parser = FalseyValueParser::new(), hide = true)]
    pub(crate) null_consumer: bool,

    /// Seconds after SIGTERM to commit and delete messages in flight. Up to 12 more go into making the rest visible again.
    /// Messages that no connection can store become visible at once
    #[arg(
        long, env = "LOADER_GRACE", value_name = "SECONDS", default_value_t = DEFAULT_GRACE,
        value_parser = clap::value_parser!(u16).range(0..=3600), help_heading = "Run"
    )]
    pub(crate) grace: u16,

    /// Seconds to retry at the start while the database or SQS is unreachable or a file for the connection is missing. A
    /// permanent error ends the loader at once
    #[arg(
        long, env = "LOADER_WAIT_FOR_START", value_name = "SECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u16).range(0..=3600), help_heading = "Run"
    )]
    pub(crate) wait_for_start: u16,

    /// Address for Prometheus metrics (/metrics), a status page (/), /healthz (the process responds) and /readyz (both sides
    /// answered recently). Default: off. No TLS and no password, so use a private network. It shows counts, times, codes and
    /// queue names, never a value from an event
    #[arg(long, env = "LOADER_METRICS_ADDRESS", value_name = "HOST:PORT", help_heading = "Operations")]
    pub(crate) metrics_address: Option<String>,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Limits of a batch.
#[derive(Args)]
#[command(next_help_heading = "Batch")]
pub(crate) struct BatchOptions {
    /// Maximum messages per batch. A batch is one transaction
    #[arg(
        long, env = "LOADER_BATCH_SIZE", value_name = "MESSAGES", default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub(crate) batch_size: u32,

    /// Maximum bytes of message bodies per batch (8388608 is 8 MiB)
    #[arg(
        long, env = "LOADER_BATCH_BYTES", value_name = "BYTES", default_value_t = 8 * 1024 * 1024,
        value_parser = clap::value_parser!(u32).range(1..=1_073_741_824)
    )]
    pub(crate) batch_bytes: u32,

    /// Maximum milliseconds that a batch waits for more messages after its first one
    #[arg(
        long, env = "LOADER_LINGER", value_name = "MILLISECONDS", default_value_t = 500,
        value_parser = clap::value_parser!(u32).range(0..=600_000)
    )]
    pub(crate) linger: u32,
}

/// Options of deleting stored messages.
#[derive(Args)]
#[command(next_help_heading = "Database")]
pub(crate) struct Deletion {
    /// Delete a stored message only after a standby has flushed its commit, so that a failover to it loses none. The role
    /// needs `pg_monitor` to see standbys
    #[arg(
        long, env = "LOADER_DELETE_AFTER_REPLAY", value_parser = FalseyValueParser::new()
    )]
    pub(crate) delete_after_replay: bool,

    /// Seconds between COMMIT and delete with --delete-after-replay if there is no standby or the role cannot see it
    #[arg(
        long, env = "LOADER_DELETE_DELAY", value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u16).range(0..=3600)
    )]
    pub(crate) delete_delay: u16,
}

impl Deletion {
    /// Returns the time between COMMIT and delete if there is no standby to ask.
    pub(crate) fn delay(&self) -> Duration {
        Duration::from_secs(self.delete_delay.into())
    }
}

impl Config {
    /// Checks combinations of values, which clap cannot. An empty text counts as not set, since container files often pass
    /// empty variables on.
    pub(crate) fn validate(&mut self) -> Result<(), Error> {
        self.metrics_address.take_if(|address| address.is_empty());
        self.queue.validate()?;
        #[cfg(feature = "null-consumer")]
        let stores = !self.null_consumer;
        #[cfg(not(feature = "null-consumer"))]
        let stores = true;
        if stores {
            self.target.inbox()?;
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
                self.queue.visibility,
                least.as_secs_f32()
            )));
        }
        Ok(())
    }

    /// The queues, and how to receive from them.
    pub(crate) fn queues(&self) -> Result<QueueSettings, Error> {
        let role = self.queue.assume_role_arn.clone();
        Ok(QueueSettings {
            addresses: self.queue.addresses()?,
            urls: self.queue.endpoint_url.iter().chain(&self.queue.queue_url).cloned().collect(),
            role: role.map(|arn| Role { arn, external_id: self.queue.external_id.clone() }),
            wait: self.wait(),
            visibility: self.visibility(),
            receive_timeout: self.receive_timeout(),
            is_service: !(self.drain || self.dry_run),
        })
    }

    /// Returns how many seconds a receive call waits for messages. A run that ends with the queue empty waits one
    /// second: 0 is a short poll and misses messages; more delays the end of the run.
    pub(crate) fn wait(&self) -> u16 {
        if self.drain || self.dry_run { 1 } else { self.queue.wait }
    }

    /// Returns the maximum time until the answer to a receive call begins. Without it, a call can hang indefinitely.
    pub(crate) fn receive_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.wait()) + 5)
    }

    /// Returns the time for which SQS hides a received message.
    pub(crate) fn visibility(&self) -> Duration {
        Duration::from_secs(self.queue.visibility.into())
    }

    /// Returns the maximum time to store a batch.
    pub(crate) fn store_timeout(&self) -> Duration {
        Duration::from_secs(self.store_timeout.into())
    }

    /// Checks whether a batch can take longer to store than SQS hides its messages without an extension.
    pub(crate) fn store_within_visibility(&self) -> CheckItem {
        const ITEM: &str = "loader.visibility";
        let (visibility, store_timeout) = (self.queue.visibility, self.store_timeout);
        if self.visibility() < self.store_timeout() {
            return CheckItem::warning(
                ITEM,
                format!(
                    "--visibility {visibility} is shorter than --store-timeout {store_timeout}: a batch slower than \
                     --visibility is redelivered unless its leases are extended"
                ),
            );
        }
        CheckItem::ok(ITEM, format!("--visibility {visibility}, and --store-timeout {store_timeout}"))
    }

    /// Returns the maximum time that a batch waits for more messages.
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.batch.linger.into())
    }

    /// Returns the options in force, for the status page. Secrets are not among them.
    pub(crate) fn in_force(&self) -> Vec<(&'static str, String)> {
        let seconds = |seconds: u16| format!("{seconds} s");
        vec![
            (
                "--pollers",
                format!("{} to {}", self.queue.min_pollers.min(self.queue.pollers), self.queue.pollers),
            ),
            ("--max-in-flight", self.queue.max_in_flight.to_string()),
            ("--wait", seconds(self.wait())),
            ("--visibility", seconds(self.queue.visibility)),
            ("--writers", self.writers.to_string()),
            ("--store-timeout", seconds(self.store_timeout)),
            ("--delete-after-replay", self.deletion.delete_after_replay.to_string()),
            ("--delete-delay", seconds(self.deletion.delete_delay)),
            ("--batch-size", self.batch.batch_size.to_string()),
            ("--batch-bytes", self.batch.batch_bytes.to_string()),
            ("--linger", format!("{} ms", self.batch.linger)),
            ("--drain", self.drain.to_string()),
            ("--grace", seconds(self.grace)),
            ("--wait-for-start", seconds(self.wait_for_start)),
            ("--metrics-address", self.metrics_address.clone().unwrap_or_else(|| "off".into())),
        ]
    }

    /// Returns the maximum time of retries at the start.
    pub(crate) fn wait_for_start(&self) -> Duration {
        Duration::from_secs(self.wait_for_start.into())
    }

    /// Returns the maximum time that a stopped run continues.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace.into())
    }
}

/// Checks an address to listen at. Requires a host, because the default would expose metrics on every interface.
fn check_address(option: &str, address: &str) -> Result<(), Error> {
    let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
        // An IPv6 address contains colons, so it must be in brackets.
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
