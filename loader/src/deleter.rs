//! The deleter: takes out of the queue what is committed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;
use tracing::warn;

use crate::backoff;
use crate::error::Error;
use crate::ledger::{Lease, LeaseId, Ledger};
use crate::queue::{CALL_SIZE, Deleted, Queue};
use crate::stats::Stats;

/// How often SQS may answer that it did not delete a message.
const TRIES: u32 = 5;
/// How many calls in a row may fail as a whole, each with the SDK's own retries in it. The pollers have the
/// same limit.
const FAILURES: u32 = 8;

/// Deletes in calls of ten, several at a time.
pub(crate) struct Deleter {
    pub(crate) queue: Queue,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    /// Calls at a time. Deleting one call after the other would be what limits the loader.
    pub(crate) calls: usize,
}

impl Deleter {
    /// Deletes until nothing more is committed. Fails only where no delete succeeds: rights are missing, the
    /// queue is gone, SQS has been away for long.
    pub(crate) async fn run(self, committed: Receiver<Vec<LeaseId>>) -> Result<(), Error> {
        let deleter = Arc::new(self);
        let calls = deleter.calls;
        stream::unfold(committed, async |mut committed| Some((committed.recv().await?, committed)))
            .flat_map(|batch| stream::iter(batch.chunks(CALL_SIZE).map(<[_]>::to_vec).collect::<Vec<_>>()))
            .map(Ok)
            .try_for_each_concurrent(calls, |ten| {
                let deleter = Arc::clone(&deleter);
                async move { deleter.delete(&ten).await }
            })
            .await
    }

    async fn delete(&self, ten: &[LeaseId]) -> Result<(), Error> {
        let mut left = self.ledger.leases(ten);
        let mut reason = String::new();
        let (mut tries, mut failures) = (0, 0);
        while !left.is_empty() && tries < TRIES {
            if tries + failures > 0 {
                let attempt = tries + failures - 1;
                sleep(backoff::delay(attempt, Duration::from_millis(500), Duration::from_secs(10))).await;
            }
            match self.queue.delete(&left).await {
                Ok(results) => {
                    failures = 0;
                    tries += 1;
                    left = self.settle(left, results, &mut reason);
                }
                Err(failure) => {
                    failures += 1;
                    if failure.is_final() || failures == FAILURES {
                        return Err(failure.into());
                    }
                    warn!("{failure}; trying again ({failures} of {FAILURES})");
                }
            }
        }
        if !left.is_empty() {
            self.give_up(&left, &reason, "gave up deleting stored messages");
            // Whoever gets them next finds them duplicates, and tries to delete them again.
            self.queue.release(&left).await;
        }
        Ok(())
    }

    /// Strikes out what is deleted or cannot be, and returns the rest.
    fn settle(&self, leases: Vec<Arc<Lease>>, results: Vec<Deleted>, reason: &mut String) -> Vec<Arc<Lease>> {
        let (mut left, mut refused) = (Vec::new(), Vec::new());
        for (lease, result) in leases.into_iter().zip(results) {
            match result {
                Deleted::Yes => {
                    self.stats.add_deleted(1);
                    self.ledger.settle(lease.id);
                }
                Deleted::Refused(code) => {
                    *reason = code;
                    refused.push(lease);
                }
                Deleted::NotYet(code) => {
                    *reason = code;
                    left.push(lease);
                }
            }
        }
        if !refused.is_empty() {
            // So answers an SQS server, too, when a call before this one did delete and its answer was lost.
            self.give_up(&refused, reason, "SQS refuses to delete stored messages");
        }
        left
    }

    /// Strikes out what is stored and stays undeleted.
    fn give_up(&self, leases: &[Arc<Lease>], reason: &str, what: &str) {
        let ids: Vec<&str> = leases.iter().map(|lease| lease.message_id.as_str()).collect();
        warn!(
            message_ids = ids.join(" "),
            reason, "{what}; those that are still there come back and are found duplicates"
        );
        self.stats.add_undeleted(leases.len());
        for lease in leases {
            self.ledger.settle(lease.id);
        }
    }
}
