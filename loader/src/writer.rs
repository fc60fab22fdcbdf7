//! The writer: one batch after the other goes into the inbox, and what is committed goes on to be deleted.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::{Receiver, Sender};
use tracing::{debug, warn};

use crate::collector::Batch;
use crate::error::Error;
use crate::ledger::LeaseId;
use crate::message::Message;
use crate::sink::{Sink, Verdict};
use crate::stats::Stats;

/// Stores batches until there are no more. Leases are handed to the deleter only here, after COMMIT was
/// answered.
pub(crate) async fn run(
    mut sink: Sink,
    stats: Arc<Stats>,
    mut batches: Receiver<Batch>,
    committed: Sender<Vec<LeaseId>>,
) -> Result<(), Error> {
    while let Some(batch) = batches.recv().await {
        let start = Instant::now();
        let counts = sink.store(&batch, Verdict::Commit).await?;
        stats.add_committed(counts);
        debug!(
            messages = batch.len(),
            bytes = batch.iter().map(Message::size).sum::<usize>(),
            received_before = batch.iter().filter(|m| m.receive_count > 1).count(),
            stored = counts.stored,
            duplicate = counts.duplicate,
            rejected = counts.rejected,
            seconds = start.elapsed().as_secs_f64(),
            "batch committed"
        );
        if counts.rejected > 0 {
            warn!(
                messages = batch.len(),
                rejected = counts.rejected,
                "events were rejected; the rejects table of the inbox has the reasons"
            );
        }
        // Closed when deleting has failed for good. Receiving is then being stopped: no more is to be stored.
        if committed.send(batch.into_iter().map(|m| m.lease).collect()).await.is_err() {
            break;
        }
    }
    sink.close().await;
    Ok(())
}
