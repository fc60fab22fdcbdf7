//! The deleter: deletes committed messages from the queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use crate::backoff::{self, RetryLimit};
use crate::error::{Error, ended};
use crate::leases::ledger::{CALL_SIZE, Lease, LeaseId, Ledger};
use crate::pipeline::lease_extender::by_queue;
use crate::sqs::{Answer, Queue, Queues};
use crate::telemetry::log::LogLimit;
use crate::telemetry::stats::Stats;

/// First and maximum pause before a delete is retried.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Maximum time of a call whose messages have no lease any more.
const LAST_TRY: Duration = Duration::from_mins(1);

/// Deletes in calls of ten messages, several calls at a time.
pub(crate) struct Deleter {
    pub(crate) queues: Queues,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) patience: RetryLimit,
    /// One permit for each call at a time. Deleting one call after the other would limit the loader's rate.
    pub(crate) calls: Semaphore,
    pub(crate) log_limit: LogLimit,
}

impl Deleter {
    /// Deletes until nothing more is committed, and each message is deleted or no longer ours. Fails only if no delete
    /// succeeds: a privilege is missing, or the queue is gone.
    pub(crate) async fn run(self, mut committed: Receiver<Vec<LeaseId>>) -> Result<(), Error> {
        let deleter = Arc::new(self);
        // Usually one task for every ten messages in flight. A message whose lease has expired adds one last try.
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

    /// Sorts messages into lanes, and lanes into groups of ten. A call takes the first message of each lane.
    fn lanes(&self, committed: &[LeaseId]) -> Vec<Vec<Lane>> {
        let of_queues = by_queue(self.queues.len(), self.ledger.committed(committed));
        let calls = self.queues.iter().zip(of_queues).flat_map(|(queue, leases)| {
            let lanes = if queue.fifo { by_group(leases) } else { one_each(leases) };
            lanes.chunks(CALL_SIZE).map(<[_]>::to_vec).collect::<Vec<_>>()
        });
        calls.collect()
    }

    /// Deletes up to ten lanes. A lane that fails waits alone and doesn't hold up the others.
    async fn delete(self: Arc<Self>, mut lanes: Vec<Lane>) -> Result<(), Error> {
        let mut failed_calls = 0;
        while let Some(due) = lanes.iter().map(|lane| lane.due).min() {
            // No permit is held here, so a lane that waits doesn't hold up other calls.
            sleep_until(due).await;
            let permit = self.calls.acquire().await;
            let now = Instant::now();
            // `None` if all lanes that were due are given up.
            let Some(call) = self.next_call(&mut lanes, now) else { continue };
            let answer = timeout_at(call.until, call.queue.delete(&call.leases)).await;
            drop(permit);
            let stats = self.stats.queue(call.queue.number);
            let mut settled = Settled::default();
            match answer {
                Ok(Ok(answers)) => {
                    failed_calls = 0;
                    stats.add_delete_call(now.elapsed());
                    settled = self.settle(call.queue, &call.leases, answers);
                }
                Ok(Err(failure)) => {
                    failed_calls += 1;
                    stats.add_delete_failures(failure.code(), call.leases.len());
                    if failure.is_final() || self.patience.is_over(failed_calls) {
                        return Err(failure.into());
                    }
                    if let Some(repeats) = self.log_limit.admit(call.queue.number, failure.code()) {
                        warn!(queue = &*call.queue.name, repeats, "{failure}; trying again");
                    }
                }
                // A lease ended that the lease extender could not extend.
                Err(_) => stats.add_delete_failures("timeout", call.leases.len()),
            }
            let failures = lanes.iter().filter(|lane| lane.is_called).map(|lane| lane.failures).max();
            // All lanes that failed get one time, so that they share a call again.
            let retry = Instant::now() + backoff::delay(failures.unwrap_or(0), PAUSE.0, PAUSE.1);
            for lane in lanes.iter_mut().filter(|lane| lane.is_called) {
                self.advance(lane, &settled, retry);
            }
            lanes.retain(|lane| !lane.leases.is_empty());
        }
        Ok(())
    }

    /// Takes the first message of each lane that is due. Drops lanes that can't be deleted any more.
    fn next_call<'l>(&'l self, lanes: &mut Vec<Lane>, now: Instant) -> Option<Call<'l>> {
        let queue = self.queues.get(lanes.first()?.leases.front()?.queue)?;
        let mut call = Call { queue, leases: Vec::new(), until: now + LAST_TRY };
        for lane in lanes.iter_mut() {
            lane.is_called = lane.due <= now;
            let Some(first) = lane.leases.front().filter(|_| lane.is_called) else { continue };
            match self.ledger.deletable_until(first.id, now) {
                Some(until) => call.until = call.until.min(until),
                // Its lease has expired. SQS may still accept the receipt, and a message that comes back instead costs
                // a delivery. If calls hang, it has waited too long for a permit: then no more tries must pile up.
                None if !queue.fifo && now < lane.due + LAST_TRY => lane.is_last_try = true,
                // Messages behind it must not overtake it, so they come back with it.
                None => {
                    self.leave(lane);
                    continue;
                }
            }
            call.leases.push(Arc::clone(first));
        }
        lanes.retain(|lane| !lane.leases.is_empty());
        (!call.leases.is_empty()).then_some(call)
    }

    /// Moves a lane on after a call, or sets it to be retried at `retry`.
    fn advance(&self, lane: &mut Lane, settled: &Settled, retry: Instant) {
        let Some(first) = lane.leases.front().map(|lease| lease.id) else { return };
        if settled.refused.contains(&first) || lane.is_last_try {
            // It may come back, and messages behind it must not overtake it.
            self.leave(lane);
        } else if settled.deleted.contains(&first) {
            lane.leases.pop_front();
            (lane.failures, lane.due) = (0, Instant::now());
        } else {
            lane.due = retry;
            lane.failures += 1;
        }
    }

    /// Gives up the messages of a lane. They come back.
    fn leave(&self, lane: &mut Lane) {
        lane.leases.drain(..).for_each(|lease| _ = self.ledger.settle(lease.id));
    }

    /// Removes messages from the ledger that are deleted or can't be.
    fn settle(&self, queue: &Queue, leases: &[Arc<Lease>], answers: Vec<Answer>) -> Settled {
        let stats = self.stats.queue(queue.number);
        let (mut deleted, mut refused, mut reason) = (Vec::new(), Vec::new(), String::new());
        for (lease, answer) in leases.iter().zip(answers) {
            match answer {
                Answer::Done => {
                    lease.trace.deleted();
                    deleted.push(lease.id);
                }
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
        }
        stats.add_deleted(deleted.len());
        if !refused.is_empty() {
            stats.add_undeleted(refused.len());
            // SQS also answers this way if an earlier call did delete the message and its answer was lost.
            warn!(
                queue = &*queue.name,
                message_ids =
                    refused.iter().map(|lease| lease.message_id.as_str()).collect::<Vec<_>>().join(" "),
                reason,
                "SQS refuses to delete stored messages; those that are still there come back and are found duplicates"
            );
        }
        Settled { deleted, refused: refused.into_iter().map(|lease| lease.id).collect() }
    }
}

/// One SQS call.
struct Call<'l> {
    queue: &'l Queue,
    leases: Vec<Arc<Lease>>,
    /// Time when the call is canceled, because a lease ends.
    until: Instant,
}

/// Messages of a call that need no further call.
#[derive(Default)]
struct Settled {
    deleted: Vec<LeaseId>,
    /// Messages that SQS refuses to delete.
    refused: Vec<LeaseId>,
}

/// Messages that are deleted one after the other.
#[derive(Clone)]
struct Lane {
    leases: VecDeque<Arc<Lease>>,
    /// Earliest time of the next call with its first message.
    due: Instant,
    /// Calls in a row that did not delete its first message.
    failures: u32,
    /// Whether the current call has its first message.
    is_called: bool,
    /// Whether the current call is the last, because the lease has expired.
    is_last_try: bool,
}

impl Lane {
    fn of(leases: impl IntoIterator<Item = Arc<Lease>>) -> Self {
        let leases = leases.into_iter().collect();
        Self { leases, due: Instant::now(), failures: 0, is_called: false, is_last_try: false }
    }
}

/// Makes lanes for the messages of a standard queue, in any order.
fn one_each(leases: Vec<Arc<Lease>>) -> Vec<Lane> {
    leases.into_iter().map(|lease| Lane::of([lease])).collect()
}

/// Makes a lane for each group of a FIFO queue, in the order of receipt. One call doesn't hold two messages of a group,
/// because the first could fail and the second succeed.
fn by_group(mut leases: Vec<Arc<Lease>>) -> Vec<Lane> {
    // A stable sort keeps the order within a group.
    leases.sort_by(|a, b| a.group.cmp(&b.group));
    leases.chunk_by(|a, b| a.group == b.group).map(|group| Lane::of(group.iter().cloned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::MessageSpan;

    #[tokio::test]
    async fn a_message_group_is_deleted_in_order() {
        let ledger = Ledger::new(100, 0);
        let mut ids = Vec::new();
        let mut reservation = ledger.reserve(1).await;
        for group in ["b", "a", "c", "b", "b", "a"] {
            let until = Instant::now() + Duration::from_mins(1);
            let trace = MessageSpan::default();
            ids.push(reservation.hold(0, "m".into(), "r".into(), Some(group.into()), until, trace));
        }
        ledger.commit(&ids);
        let lanes = by_group(ledger.committed(&ids));
        let lanes: Vec<Vec<_>> =
            lanes.iter().map(|lane| lane.leases.iter().map(|lease| lease.id).collect()).collect();
        let expected = [[1, 5].as_slice(), &[0, 3, 4], &[2]];
        assert_eq!(lanes, expected.map(|lane| lane.iter().map(|i| ids[*i]).collect::<Vec<_>>()));
    }
}
