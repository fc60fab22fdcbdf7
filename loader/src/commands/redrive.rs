//! `loader redrive`: puts rejects back into the inbox, batch by batch. A signal ends it at once; the server then rolls
//! back the batch in flight.

use std::time::Duration;

use tracing::info;
use uuid::Uuid;

use super::print;
use crate::config::Target;
use crate::error::Error;
use crate::inbox::{Redriven, RejectFilter, Rejects};
use crate::telemetry::log::LogOptions;

/// `loader redrive`.
// No Debug: see `Config`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
// The default usage would also list options set by the environment, as if they were required.
#[command(
    override_usage = "loader redrive [OPTIONS] <--reason <TEXT>|--older-than <INTERVAL>|--newer-than <INTERVAL>|\
                            --message-id <UUID>|--all>"
)]
pub(crate) struct Redrive {
    /// Rejects whose reason contains this text
    #[arg(long, value_name = "TEXT", group = "which")]
    pub(crate) reason: Option<String>,

    /// Rejects older than this interval, as the server reads intervals: '2 hours', '1 day'
    #[arg(long, value_name = "INTERVAL", group = "which")]
    pub(crate) older_than: Option<String>,

    /// Rejects newer than this interval
    #[arg(long, value_name = "INTERVAL", group = "which")]
    pub(crate) newer_than: Option<String>,

    /// Rejects with these message ids, separated by commas
    #[arg(long, value_name = "UUID", value_delimiter = ',', group = "which")]
    pub(crate) message_id: Vec<Uuid>,

    /// All rejects
    #[arg(long, group = "which", conflicts_with_all = ["reason", "older_than", "newer_than", "message_id"])]
    pub(crate) all: bool,

    /// Maximum rejects per transaction
    #[arg(long, value_name = "REJECTS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) batch_size: u32,

    /// Report the outcome of the first batch, and roll it back
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) target: Target,

    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// Puts the selected rejects back until none is left. Prints the outcome.
pub(crate) async fn run(redrive: &Redrive) -> Result<(), Error> {
    let database = redrive.target.database(Duration::MAX)?;
    let which = RejectFilter {
        reason: redrive.reason.clone(),
        older_than: redrive.older_than.clone(),
        newer_than: redrive.newer_than.clone(),
        message_ids: (!redrive.message_id.is_empty()).then(|| redrive.message_id.clone()),
    };
    let mut rejects = Rejects::open(&database.servers, &database.inbox, which).await?;
    let most = i32::try_from(redrive.batch_size).unwrap_or(i32::MAX);
    let mut sum = Redriven::default();
    loop {
        let batch = rejects.redrive(most, !redrive.dry_run).await?;
        sum += batch;
        if batch.taken == 0 || redrive.dry_run {
            break;
        }
        let Redriven { taken, stored, duplicate, rejected } = sum;
        info!(taken, stored, duplicate, rejected, "committed so far");
    }
    rejects.close().await;
    if sum.rejected > 0 {
        info!(rejected = sum.rejected, "still no rows; the rejects table has the reasons");
    }
    let dry = if redrive.dry_run { "dry run: the first batch, and nothing was changed: " } else { "" };
    print(&format!("{dry}{sum}"));
    Ok(())
}
