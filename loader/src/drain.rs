//! When is a queue empty?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tracing::warn;

use crate::error::Error;
use crate::ledger::Ledger;
use crate::queue::{Depth, Queues};
use crate::shutdown::Shutdown;
use crate::stats::Stats;

/// SQS's numbers are approximate, so they must say it twice, this far apart.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often asking for the numbers may fail in a row.
const FAILURES: u32 = 30;

/// How many receive calls in a row came back empty, over all pollers.
#[derive(Default)]
pub(crate) struct Emptiness {
    in_a_row: AtomicU64,
}

impl Emptiness {
    /// Notes the outcome of a receive call.
    pub(crate) fn note(&self, empty: bool) {
        if empty {
            self.in_a_row.fetch_add(1, Relaxed);
        } else {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// Whether at least so many calls in a row were empty.
    fn reached(&self, calls: u64) -> bool {
        self.in_a_row.load(Relaxed) >= calls
    }
}

/// Watches a run that ends when its queues are empty.
pub(crate) struct Drain {
    pub(crate) queues: Queues,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) emptiness: Arc<Emptiness>,
    pub(crate) shutdown: Shutdown,
}

impl Drain {
    /// Stops the run when the queues are empty: as many receive calls as there are pollers brought nothing,
    /// everything in hand is committed and deleted, and SQS counts no message visible, hidden or delayed, twice.
    /// Messages that another consumer hides are waited for: they may come back.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let mut empty_checks = 0;
        let mut failures = 0;
        while empty_checks < 2 {
            if !self.shutdown.sleep(CHECK_EVERY).await {
                return Ok(());
            }
            if !self.is_quiet() {
                empty_checks = 0;
                continue;
            }
            match Depth::of(&self.queues).await {
                Ok(depth) => {
                    failures = 0;
                    empty_checks = if depth.total() == 0 && self.is_quiet() { empty_checks + 1 } else { 0 };
                }
                Err(failure) => {
                    failures += 1;
                    empty_checks = 0;
                    if failure.is_final() || failures == FAILURES {
                        return Err(failure.into());
                    }
                    warn!("{failure}; trying again");
                }
            }
        }
        self.shutdown.stop();
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let pollers = u64::try_from(self.stats.pollers()).unwrap_or(u64::MAX);
        self.emptiness.reached(pollers) && self.ledger.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_makes_the_queue_not_empty() {
        let emptiness = Emptiness::default();
        emptiness.note(true);
        emptiness.note(true);
        assert!(emptiness.reached(2) && !emptiness.reached(3));
        emptiness.note(false);
        assert!(!emptiness.reached(1));
    }
}
