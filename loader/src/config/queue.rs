//! Options of the queues, and of receiving from them.

use std::collections::HashSet;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};

use crate::error::Error;
use crate::sqs::Address;

/// The queues, and how to receive from them.
#[derive(Args)]
#[command(next_help_heading = "Queue")]
pub(crate) struct QueueOptions {
    /// Queue URLs, separated by commas, instead of --queue. Each URL sets region, account and endpoint
    #[arg(long, env = "LOADER_QUEUE_URL", value_name = "URL", value_delimiter = ',')]
    pub(crate) queue_url: Vec<String>,

    /// Queue names or ARNs, separated by commas. Required, unless --queue-url is given. All go into one inbox. A name means
    /// your own account and region; an ARN names both
    #[arg(long, env = "LOADER_QUEUE", value_name = "NAME", value_delimiter = ',')]
    pub(crate) queue: Vec<String>,

    /// URL of an SQS service other than AWS's own (or `AWS_ENDPOINT_URL_SQS`). Overrides the endpoint in a queue URL
    #[arg(long, env = "AWS_ENDPOINT_URL", value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,

    /// ARN of the role to assume for SQS, using credentials from AWS's standard chain
    #[arg(long, env = "LOADER_ASSUME_ROLE_ARN", value_name = "ARN")]
    pub(crate) assume_role_arn: Option<String>,

    /// External id that the role's trust policy requires
    #[arg(long, env = "LOADER_EXTERNAL_ID", value_name = "ID")]
    pub(crate) external_id: Option<String>,

    /// Maximum concurrent receive calls per queue. The loader adds calls while they return full, and drops calls while
    /// they return at most half full. AWS gives 500 to 1,000 messages a second per call
    #[arg(
        long, env = "LOADER_POLLERS", value_name = "N", default_value_t = 32,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) pollers: u16,

    /// Minimum concurrent receive calls per queue, however little they return
    #[arg(
        long, env = "LOADER_MIN_POLLERS", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) min_pollers: u16,

    /// Maximum messages received and not yet deleted, over all queues. Receive calls to idle queues hold at most half of
    /// it, which leaves the rest to busy queues
    #[arg(
        long, env = "LOADER_MAX_IN_FLIGHT", value_name = "MESSAGES", default_value_t = 10_000,
        value_parser = clap::value_parser!(u32).range(10..=120_000)
    )]
    pub(crate) max_in_flight: u32,

    /// Seconds that a receive call waits for messages (long poll), 0 to 20. Always 1 with --drain or --dry-run
    #[arg(
        long, env = "LOADER_WAIT", value_name = "SECONDS", default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(0..=20)
    )]
    pub(crate) wait: u16,

    /// Seconds that SQS hides a received message from others, 1 to 43200. The loader renews it until the delete is
    /// confirmed. Must exceed --wait by more than 5. If a loader dies, its messages stay hidden for this time. If it is cut
    /// off from SQS for longer, they are redelivered, and still stored once
    #[arg(
        long, env = "LOADER_VISIBILITY", value_name = "SECONDS", default_value_t = 120,
        value_parser = clap::value_parser!(u16).range(1..=43_200)
    )]
    pub(crate) visibility: u16,
}

impl QueueOptions {
    /// Applies `AWS_ENDPOINT_URL_SQS`. As in AWS's tools, it overrides `AWS_ENDPOINT_URL`, and the command line overrides both.
    pub(crate) fn prefer_service_endpoint(&mut self, matches: &ArgMatches, of_service: Option<String>) {
        if matches.value_source("endpoint_url") != Some(ValueSource::CommandLine)
            && of_service.as_ref().is_some_and(|url| !url.is_empty())
        {
            self.endpoint_url = of_service;
        }
    }

    /// Checks what clap cannot. An empty text counts as not set.
    pub(super) fn validate(&mut self) -> Result<(), Error> {
        for value in [&mut self.endpoint_url, &mut self.assume_role_arn, &mut self.external_id] {
            value.take_if(|value| value.is_empty());
        }
        for names in [&mut self.queue_url, &mut self.queue] {
            names.retain(|name| !name.is_empty());
            let mut seen = HashSet::new();
            if !names.iter().all(|name| seen.insert(name)) {
                return Err(Error::Config("a queue is named twice: name each once".into()));
            }
        }
        match (self.queue.is_empty(), self.queue_url.is_empty()) {
            (true, true) => {
                let text =
                    "no queue is named: set --queue or LOADER_QUEUE, or --queue-url or LOADER_QUEUE_URL";
                return Err(Error::Config(text.into()));
            }
            (false, false) => {
                return Err(Error::Config(
                    "--queue and --queue-url exclude each other: leave one out".into(),
                ));
            }
            _ => {}
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
        Ok(())
    }

    /// Returns the addresses of the queues.
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
}

fn check_url(option: &str, url: &str) -> Result<(), Error> {
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| ["http", "https"].contains(scheme))
    else {
        return Err(Error::Config(format!("{option} must start with http:// or https://")));
    };
    // The log shows the URL.
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err(Error::Config(format!("{option} must not hold a user or password")));
    }
    Ok(())
}
