//! When is a queue empty?

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tracing::warn;

use crate::error::Error;
use crate::ledger::Ledger;
use crate::queue::{Depth, Queue, Queues};
use crate::shutdown::Shutdown;
use crate::stats::Stats;

/// SQS's counts are approximate, so two in a row must be zero, this far apart.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often asking for the counts may fail in a row.
const FAILURES: u32 = 30;

/// For each queue, how many receive calls in a row came back empty, over all its pollers.
pub(crate) struct Emptiness {
    in_a_row: Box<[AtomicU64]>,
}

impl Emptiness {
    /// Begins with no empty call for any of the queues.
    pub(crate) fn new(queues: usize) -> Self {
        Self { in_a_row: (0..queues).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Notes the outcome of a receive call. An empty long poll has asked all of SQS's servers.
    pub(crate) fn note(&self, queue: usize, empty: bool) {
        let Some(in_a_row) = self.in_a_row.get(queue) else { return };
        if empty {
            in_a_row.fetch_add(1, Relaxed);
        } else {
            in_a_row.store(0, Relaxed);
        }
    }

    /// Whether at least `calls` calls in a row were empty.
    fn reached(&self, queue: usize, calls: u64) -> bool {
        self.in_a_row.get(queue).is_some_and(|in_a_row| in_a_row.load(Relaxed) >= calls)
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
    /// Stops the run when the queues are empty: of each, as many long polls in a row as it has pollers brought nothing;
    /// everything in flight is committed and deleted; and SQS counts no message visible, hidden or delayed, twice.
    /// Messages that another consumer hides are waited for, because they may come back. For these, and for delayed
    /// ones, the counts are all there is. On AWS they can lag by a minute.
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
        let is_empty = |queue: &Queue| {
            let pollers = self.stats.of(queue.number).pollers().max(1);
            self.emptiness.reached(queue.number, u64::try_from(pollers).unwrap_or(u64::MAX))
        };
        self.queues.iter().all(is_empty) && self.ledger.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_makes_the_queue_not_empty() {
        let emptiness = Emptiness::new(2);
        emptiness.note(0, true);
        emptiness.note(0, true);
        assert!(emptiness.reached(0, 2) && !emptiness.reached(0, 3));
        assert!(!emptiness.reached(1, 1), "another queue");
        emptiness.note(0, false);
        assert!(!emptiness.reached(0, 1));
    }
}
