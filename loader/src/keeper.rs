//! The keeper: hides what is in hand for longer, until its delete is confirmed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use crate::ledger::{Lease, Ledger};
use crate::log::LogLimit;
use crate::queue::{Answer, CALL_SIZE, Queue, Queues};
use crate::stats::Stats;

/// Calls at a time.
const CALLS: usize = 16;
/// How often the leases are looked at, within a visibility timeout.
const LOOKS: u32 = 8;

/// Keeps leases from running out.
pub(crate) struct Keeper {
    pub(crate) queues: Queues,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    /// For how long messages are hidden at a time.
    pub(crate) visibility: Duration,
    pub(crate) log_limit: LogLimit,
}

impl Keeper {
    /// Looks after the leases for as long as it is polled. A failure to extend is none of the run's: it is tried again
    /// at the next look, and a lease that runs out all the same is dropped.
    pub(crate) async fn run(self) -> Infallible {
        let pause = self.visibility / LOOKS;
        loop {
            sleep(pause).await;
            self.drop_lapsed();
            // They were to be extended long before.
            self.ledger.hold_back(Instant::now() + self.visibility / 4);
            // Half of the time is for what is done without, the other half for calls that fail.
            let ending = self.ledger.ending_before(Instant::now() + self.visibility / 2);
            let of_queues = by_queue(self.queues.len(), ending);
            let keeper = &self;
            let calls = self.queues.iter().zip(&of_queues).flat_map(|(queue, leases)| {
                leases.chunks(CALL_SIZE).map(move |ten| keeper.extend(queue, ten))
            });
            // Calls that hang must not keep the others waiting.
            let calls = stream::iter(calls).buffer_unordered(CALLS).collect::<()>();
            // What is not done by then is looked at again.
            _ = timeout(self.visibility / 4, calls).await;
        }
    }

    fn drop_lapsed(&self) {
        let lapsed = self.ledger.take_lapsed(Instant::now());
        if !lapsed.is_empty() {
            for lease in &lapsed {
                self.stats.of(lease.queue).add_lapsed(1);
            }
            warn!(
                messages = lapsed.len(),
                "leases ran out, as SQS did not extend them in time; the messages come back, and those that are stored \
                 are then found duplicates"
            );
        }
    }

    async fn extend(&self, queue: &Queue, leases: &[Arc<Lease>]) {
        match queue.extend(leases).await {
            Ok((answers, until)) => self.note(queue, leases, answers, until),
            Err(failure) => {
                if let Some(repeats) = self.log_limit.admit(queue.number, failure.code()) {
                    let queue = &*queue.name;
                    warn!(queue, repeats, "{failure}; trying again while the messages are still hidden");
                }
            }
        }
    }

    fn note(&self, queue: &Queue, leases: &[Arc<Lease>], answers: Vec<Answer>, until: Instant) {
        let (mut extended, mut lost) = (0, 0);
        for (lease, answer) in leases.iter().zip(answers) {
            match answer {
                Answer::Done => {
                    self.ledger.extend(lease.id, until);
                    extended += 1;
                }
                // Deleted by someone else, or received anew: the receipt is worth nothing any more.
                Answer::Refused(_) => lost += usize::from(self.ledger.settle(lease.id)),
                Answer::NotYet(_) => {}
            }
        }
        self.stats.of(queue.number).add_extended(extended);
        self.stats.of(queue.number).add_lapsed(lost);
        debug!(queue = &*queue.name, extended, lost, "leases extended");
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
