//! The deleter: takes out of the queues what is committed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use crate::backoff::{self, Patience};
use crate::error::{Error, ended};
use crate::keeper::by_queue;
use crate::ledger::{Lease, LeaseId, Ledger};
use crate::queue::{Answer, CALL_SIZE, Failure, Queue, Queues};
use crate::stats::Stats;

/// The pause before a delete is tried again, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Deletes in calls of ten, several at a time.
pub(crate) struct Deleter {
    pub(crate) queues: Queues,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) patience: Patience,
    /// A permit for each call at a time. Deleting one call after the other would be what limits the loader.
    pub(crate) calls: Semaphore,
    /// When a failure was last logged.
    pub(crate) complained: Mutex<Option<Instant>>,
}

impl Deleter {
    /// Deletes until nothing more is committed, and all of it is deleted or lost to us. Fails only where no delete
    /// succeeds: rights are missing, or the queue is gone.
    pub(crate) async fn run(self, mut committed: Receiver<Vec<LeaseId>>) -> Result<(), Error> {
        let deleter = Arc::new(self);
        // As many at most as there are messages in hand, a tenth of them most often.
        let mut tasks: JoinSet<Result<(), Error>> = JoinSet::new();
        let mut open = true;
        while open || !tasks.is_empty() {
            tokio::select! {
                batch = committed.recv(), if open => match batch {
                    Some(batch) => for lanes in deleter.lanes(&batch) {
                        tasks.spawn(Arc::clone(&deleter).delete(lanes));
                    },
                    None => open = false,
                },
                Some(joined) = tasks.join_next() => ended(joined)?,
            }
        }
        Ok(())
    }

    /// Sorts messages into lanes, and these into tens: a call takes the first of each lane.
    fn lanes(&self, committed: &[LeaseId]) -> Vec<Vec<Lane>> {
        let Some((leases, _)) = self.ledger.deletable(committed, Instant::now()) else { return Vec::new() };
        let of_queues = by_queue(self.queues.len(), leases);
        let calls = self.queues.iter().zip(of_queues).flat_map(|(queue, leases)| {
            let lanes = if queue.fifo { by_group(leases) } else { one_each(leases) };
            lanes.chunks(CALL_SIZE).map(<[_]>::to_vec).collect::<Vec<_>>()
        });
        calls.collect()
    }

    async fn delete(self: Arc<Self>, mut lanes: Vec<Lane>) -> Result<(), Error> {
        let (mut tries, mut failures) = (0, 0);
        loop {
            let permit = self.calls.acquire().await;
            // Whatever has lapsed meanwhile is not touched any more.
            lanes.retain(|lane| lane.len() == 1 || self.is_ours(lane));
            let heads: Vec<LeaseId> = lanes.iter().filter_map(|lane| lane.front().copied()).collect();
            let Some((leases, until)) = self.ledger.deletable(&heads, Instant::now()) else { return Ok(()) };
            let Some(queue) = leases.first().and_then(|lease| self.queues.get(lease.queue)) else {
                return Ok(());
            };
            let answer = timeout_at(until, queue.delete(&leases)).await;
            drop(permit);
            match answer {
                Ok(Ok(answers)) => {
                    failures = 0;
                    let (settled, refused) = self.settle(queue, &leases, answers);
                    for lane in &mut lanes {
                        let refused = lane.front().is_some_and(|head| refused.contains(head));
                        lane.pop_front_if(|head| settled.contains(head));
                        if refused {
                            // It may come back, and what is behind it must not overtake it.
                            lane.drain(..).for_each(|behind| _ = self.ledger.settle(behind));
                        }
                    }
                    lanes.retain(|lane| !lane.is_empty());
                    if settled.len() == leases.len() {
                        tries = 0;
                        continue;
                    }
                }
                Ok(Err(failure)) => {
                    failures += 1;
                    self.stats.of(queue.number).add_delete_failures(failure.code(), leases.len());
                    if failure.is_final() || self.patience.is_over(failures) {
                        return Err(failure.into());
                    }
                    self.complain(&failure);
                }
                // A lease ended, which the keeper could not extend. What is still ours is tried again.
                Err(_) => self.stats.of(queue.number).add_delete_failures("timeout", leases.len()),
            }
            // Without the permit: what is tried again does not hold others up.
            sleep(backoff::delay(tries, PAUSE.0, PAUSE.1)).await;
            tries += 1;
        }
    }

    /// Whether the first of a lane is still to be deleted. If its lease has run out, which the keeper notes, what is
    /// behind it must not overtake it: it is left to come back with it.
    fn is_ours(&self, lane: &Lane) -> bool {
        let mut lane = lane.iter();
        let ours = lane.next().is_some_and(|head| self.ledger.deletable(&[*head], Instant::now()).is_some());
        if !ours {
            lane.for_each(|behind| _ = self.ledger.settle(*behind));
        }
        ours
    }

    /// One line a second is enough where every call fails.
    fn complain(&self, failure: &Failure) {
        let mut last = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            *last = Some(Instant::now());
            warn!("{failure}; trying again");
        }
    }

    /// Strikes out what is deleted or cannot be. Returns that, and of it what SQS refuses.
    fn settle(
        &self,
        queue: &Queue,
        leases: &[Arc<Lease>],
        answers: Vec<Answer>,
    ) -> (Vec<LeaseId>, Vec<LeaseId>) {
        let stats = self.stats.of(queue.number);
        let (mut settled, mut refused, mut reason) = (Vec::new(), Vec::new(), String::new());
        for (lease, answer) in leases.iter().zip(answers) {
            match answer {
                Answer::Done => lease.trace.deleted(),
                Answer::Refused(code) => {
                    stats.add_delete_failures(&code, 1);
                    reason = code;
                    refused.push(lease);
                }
                // Its lease is extended meanwhile.
                Answer::NotYet(code) => {
                    stats.add_delete_failures(&code, 1);
                    continue;
                }
            }
            self.ledger.settle(lease.id);
            settled.push(lease.id);
        }
        stats.add_deleted(settled.len() - refused.len());
        if !refused.is_empty() {
            stats.add_undeleted(refused.len());
            // So answers an SQS server, too, when a call before this one did delete and its answer was lost.
            warn!(
                queue = &*queue.name,
                message_ids =
                    refused.iter().map(|lease| lease.message_id.as_str()).collect::<Vec<_>>().join(" "),
                reason,
                "SQS refuses to delete stored messages; those that are still there come back and are found duplicates"
            );
        }
        let refused = refused.into_iter().map(|lease| lease.id).collect();
        (settled, refused)
    }
}

/// Messages that are deleted one after the other.
type Lane = VecDeque<LeaseId>;

/// The messages of a standard queue, in any order.
fn one_each(leases: Vec<Arc<Lease>>) -> Vec<Lane> {
    leases.into_iter().map(|lease| Lane::from([lease.id])).collect()
}

/// The messages of a FIFO queue: of each group in the order in which they were received. Not by one call, of which the
/// first entry could fail and the second not.
fn by_group(mut leases: Vec<Arc<Lease>>) -> Vec<Lane> {
    // A stable sort keeps it.
    leases.sort_by(|a, b| a.group.cmp(&b.group));
    let groups = leases.chunk_by(|a, b| a.group == b.group);
    groups.map(|group| group.iter().map(|lease| lease.id).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::MessageSpan;

    #[tokio::test]
    async fn a_message_group_is_deleted_in_order() {
        let ledger = Ledger::new(100, 0);
        let mut ids = Vec::new();
        let mut room = ledger.reserve().await;
        for group in ["b", "a", "c", "b", "b", "a"] {
            let until = Instant::now() + Duration::from_mins(1);
            let trace = MessageSpan::default();
            ids.push(room.hold(0, "m".into(), "r".into(), Some(group.into()), until, trace));
        }
        ledger.commit(&ids);
        let (leases, _) = ledger.deletable(&ids, Instant::now()).unwrap();
        let expected: [Lane; 3] =
            [[1, 5].as_slice(), &[0, 3, 4], &[2]].map(|lane| lane.iter().map(|i| ids[*i]).collect());
        assert_eq!(by_group(leases), expected);
    }
}
