//! `loader redrive`: rejects go back into the inbox, batch by batch. A signal ends it at once: the server rolls back the batch
//! that is under way.

use std::time::Duration;

use tracing::info;

use crate::cli::Redrive;
use crate::error::Error;
use crate::print;
use crate::sink::{Redriven, Rejects, Which};
use crate::writer::Database;

/// Puts back what the options name, until nothing of it is left. Prints what became of it.
pub(crate) async fn run(redrive: &Redrive) -> Result<(), Error> {
    let database = Database::of(&redrive.target, Duration::MAX)?;
    let which = Which {
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
