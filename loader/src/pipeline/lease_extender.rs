//! The lease extender: keeps messages in flight hidden until their delete is confirmed.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::leases::ledger::{CALL_SIZE, Lease, Ledger};
use crate::sqs::{Answer, Queue, Queues};
use crate::telemetry::log::LogLimit;
use crate::telemetry::stats::Stats;

/// Maximum calls at a time.
const CALLS: usize = 16;
/// Checks of the leases within a visibility timeout.
const CHECKS_PER_VISIBILITY: u32 = 8;

/// Extends leases before they expire.
pub(crate) struct LeaseExtender {
    pub(crate) queues: Queues,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    /// Time for which messages are hidden at a time.
    pub(crate) visibility: Duration,
    pub(crate) log_limit: LogLimit,
}

impl LeaseExtender {
    /// Extends leases until it is dropped. A failed extension doesn't fail the run: the next check retries it, and a
    /// lease that still expires is removed.
    pub(crate) async fn run(self) -> Infallible {
        let pause = self.visibility / CHECKS_PER_VISIBILITY;
        loop {
            sleep(pause).await;
            warn_lost(self.remove_expired(), &[]);
            // These leases should have been extended long before.
            self.ledger.pause_receiving_if_ending_before(Instant::now() + self.visibility / 4);
            // In its first half, a lease needs no extension. The second half leaves time for calls that fail.
            let ending = self.ledger.ending_before(Instant::now() + self.visibility / 2);
            let of_queues = by_queue(self.queues.len(), ending);
            let this = &self;
            let calls = self.queues.iter().zip(&of_queues).flat_map(|(queue, leases)| {
                leases.chunks(CALL_SIZE).map(move |chunk| this.extend(queue, chunk))
            });
            let mut refused = Vec::new();
            // Calls that hang must not hold up the others.
            let calls = stream::iter(calls).buffer_unordered(CALLS).for_each(|codes| {
                refused.extend(codes);
                ready(())
            });
            // Leases that aren't extended by then are checked again.
            _ = timeout(self.visibility / 4, calls).await;
            warn_lost(0, &refused);
        }
    }

    /// Removes expired leases, and returns their number.
    fn remove_expired(&self) -> usize {
        let expired = self.ledger.take_expired(Instant::now());
        for lease in &expired {
            self.stats.queue(lease.queue).add_expired(1);
        }
        expired.len()
    }

    /// Extends up to ten leases. Returns a code of SQS for each lease that it refused to extend.
    async fn extend(&self, queue: &Queue, leases: &[Arc<Lease>]) -> Vec<String> {
        match queue.extend(leases).await {
            Ok((answers, until)) => self.apply_answers(queue, leases, answers, until),
            Err(failure) => {
                if let Some(repeats) = self.log_limit.admit(queue.number, failure.code()) {
                    let queue = &*queue.name;
                    warn!(queue, repeats, "{failure}; trying again while the messages are still hidden");
                }
                Vec::new()
            }
        }
    }

    fn apply_answers(
        &self,
        queue: &Queue,
        leases: &[Arc<Lease>],
        answers: Vec<Answer>,
        until: Instant,
    ) -> Vec<String> {
        let (mut extended, mut refused) = (0, Vec::new());
        for (lease, answer) in leases.iter().zip(answers) {
            match answer {
                Answer::Done => {
                    self.ledger.extend(lease.id, until);
                    extended += 1;
                }
                // Someone else deleted the message, or it was received again: the receipt is worthless.
                Answer::Refused(code) => {
                    // A message that was deleted during the call is no longer in the ledger.
                    if self.ledger.settle(lease.id) {
                        refused.push(code);
                    }
                }
                Answer::NotYet(_) => {}
            }
        }
        self.stats.queue(queue.number).add_extended(extended);
        self.stats.queue(queue.number).add_expired(refused.len());
        debug!(queue = &*queue.name, extended, refused = refused.len(), "leases extended");
        refused
    }
}

/// Warns of leases that no longer protect their messages: of `expired` ones, and of those that SQS refused to extend,
/// for which `refused` has SQS's codes.
fn warn_lost(expired: usize, refused: &[String]) {
    if expired > 0 || !refused.is_empty() {
        warn!(
            expired,
            refused = refused.len(),
            code = refused.last(),
            "leases expired or refused; their messages come back, and stored ones are found duplicates"
        );
    }
}

/// Sorts leases by their queue.
pub(crate) fn by_queue(queues: usize, leases: Vec<Arc<Lease>>) -> Vec<Vec<Arc<Lease>>> {
    let mut of_queues = vec![Vec::new(); queues];
    for lease in leases {
        if let Some(of_queue) = of_queues.get_mut(lease.queue) {
            of_queue.push(lease);
        }
    }
    of_queues
}
