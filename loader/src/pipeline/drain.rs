//! Finds out when the queues are empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tracing::warn;

use crate::error::Error;
use crate::leases::ledger::Ledger;
use crate::shutdown::Shutdown;
use crate::sqs::{Depth, Queue, Queues};
use crate::telemetry::stats::Stats;

/// Interval of the checks. SQS's counts are approximate, so they must be zero twice in a row, this far apart.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Maximum failures in a row when asking for the counts.
const FAILURES: u32 = 30;

/// Number of empty receive calls in a row for each queue, over all its pollers.
pub(crate) struct EmptyStreak {
    in_a_row: Box<[AtomicU64]>,
}

impl EmptyStreak {
    /// Begins with no empty call for any of the queues.
    pub(crate) fn new(queues: usize) -> Self {
        Self { in_a_row: (0..queues).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Records whether a receive call was empty. An empty long poll has asked all of SQS's servers.
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

/// Ends a run when its queues are empty.
pub(crate) struct Drain {
    pub(crate) queues: Queues,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) emptiness: Arc<EmptyStreak>,
    pub(crate) shutdown: Shutdown,
}

impl Drain {
    /// Stops the run when the queues are empty. For each queue, as many long polls in a row as it has pollers must
    /// return nothing. Everything in flight must be committed and deleted. SQS must count no visible, hidden or delayed
    /// message, twice. The run waits for messages that another consumer hides, because they may come back. For these,
    /// and for delayed ones, the counts are the only source. On AWS they can lag by a minute.
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
            let pollers = self.stats.queue(queue.number).pollers().max(1);
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
        let emptiness = EmptyStreak::new(2);
        emptiness.note(0, true);
        emptiness.note(0, true);
        assert!(emptiness.reached(0, 2) && !emptiness.reached(0, 3));
        assert!(!emptiness.reached(1, 1), "another queue");
        emptiness.note(0, false);
        assert!(!emptiness.reached(0, 1));
    }
}
