//! Pollers: tasks that receive with one call after the other. Their number grows while calls return full, and shrinks
//! while calls return at most half full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tracing::warn;
use uuid::Uuid;

use crate::backoff::{self, RetryLimit};
use crate::error::{Error, ended};
use crate::leases::ledger::Ledger;
use crate::message::{Message, MessageSize};
use crate::pipeline::drain::EmptyStreak;
use crate::pipeline::intake::Intake;
use crate::shutdown::Shutdown;
use crate::sqs::Queue;
use crate::telemetry::log::LogLimit;
use crate::telemetry::stats::{Received, Stats};

/// Minimum time of a call that returns nothing, including the pause after it. Without a long poll it returns at once,
/// and AWS charges for each call.
const EMPTY_CALL: Duration = Duration::from_millis(200);
/// First and maximum pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The pollers of one queue, and everything that each of them needs.
#[derive(Clone)]
pub(crate) struct Pollers {
    pub(crate) queue: Queue,
    /// Number of queues in the run.
    pub(crate) queues: usize,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) emptiness: Arc<EmptyStreak>,
    pub(crate) message_size: Arc<MessageSize>,
    pub(crate) shutdown: Shutdown,
    pub(crate) patience: RetryLimit,
    /// Closed while no writer can store.
    pub(crate) intake: Intake,
    /// Passes messages on. It holds few, so pollers receive no faster than batches are stored.
    pub(crate) received: Sender<Vec<Message>>,
    /// Minimum number of pollers.
    pub(crate) least: usize,
    /// Maximum number of pollers.
    pub(crate) most: usize,
    pub(crate) log_limit: Arc<LogLimit>,
}

/// A task that receives.
struct Poller {
    pool: Pollers,
    /// Number of active pollers for this queue.
    active: Arc<AtomicUsize>,
    /// Whether its first call counts as a call to an idle queue.
    begins_idle: bool,
    /// Asks for another poller.
    more: Sender<()>,
}

impl Pollers {
    /// Receives until the run stops. Each call that returns full starts another poller, so that their number can double
    /// with every round of calls.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (more, wanted) = mpsc::channel(self.most);
        let active = Arc::new(AtomicUsize::new(0));
        let poller = |begins_idle| Poller {
            pool: self.clone(),
            active: Arc::clone(&active),
            begins_idle,
            more: more.clone(),
        };
        self.supervise(poller, wanted, &active).await
    }

    async fn supervise(
        &self,
        poller: impl Fn(bool) -> Poller,
        mut wanted: Receiver<()>,
        active: &AtomicUsize,
    ) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        let begin = |tasks: &mut JoinSet<_>, begins_idle| {
            active.fetch_add(1, Relaxed);
            self.stats.queue(self.queue.number).begin_poller();
            tasks.spawn(poller(begins_idle).run());
        };
        (0..self.least).for_each(|_| begin(&mut tasks, true));
        let mut result = Ok(());
        loop {
            tokio::select! {
                Some(()) = wanted.recv() => {
                    if tasks.len() < self.most && !self.shutdown.is_stopping() {
                        begin(&mut tasks, false);
                    }
                }
                joined = tasks.join_next() => {
                    let Some(joined) = joined else { return result };
                    self.stats.queue(self.queue.number).end_poller();
                    if let Err(error) = ended(joined) {
                        // The other tasks end in good order.
                        self.shutdown.stop();
                        result = result.and(Err(error));
                    }
                }
            }
        }
    }
}

impl Poller {
    /// Receives until the run stops, or until there is too little for this many pollers. It waits for a call in flight:
    /// SQS may be handing messages over, and these would stay hidden from everyone if nobody took the answer.
    async fn run(self) -> Result<(), Error> {
        let Pollers { queue, ledger, stats, emptiness, shutdown, message_size, received, .. } = &self.pool;
        let mut failures = 0;
        // Unless the last call was full, the next one may wait for a whole long poll.
        let mut is_idle = self.begins_idle;
        // A FIFO queue recognizes a repeated call by this id, and hands out the same messages.
        let mut attempt = Uuid::new_v4();
        while !shutdown.is_stopping() {
            tokio::select! {
                () = self.pool.intake.opened() => {}
                () = shutdown.stopping() => break,
            }
            // Limits the messages in flight.
            let size = message_size.get();
            let reservation = async {
                if is_idle {
                    ledger.reserve_idle(size, self.pool.queues).await
                } else {
                    ledger.reserve(size).await
                }
            };
            let reservation = tokio::select! {
                reservation = reservation => reservation,
                () = shutdown.stopping() => break,
            };
            let call_size = reservation.call_size;
            let start = Instant::now();
            let outcome = queue.receive(reservation, attempt).await;
            if outcome.is_ok() {
                attempt = Uuid::new_v4();
            }
            match outcome {
                Ok(messages) if messages.is_empty() => {
                    failures = 0;
                    emptiness.note(queue.number, true);
                    is_idle = true;
                    if self.retire() {
                        return Ok(());
                    }
                    shutdown.sleep(EMPTY_CALL.saturating_sub(start.elapsed())).await;
                }
                Ok(messages) => {
                    failures = 0;
                    emptiness.note(queue.number, false);
                    stats.queue(queue.number).add_receive_call(&count(&messages), start.elapsed());
                    message_size.note(&messages);
                    let is_low = 2 * messages.len() <= call_size;
                    let is_full = messages.len() >= call_size;
                    if is_full && !is_idle {
                        // If the channel is full, enough pollers are already asked for.
                        _ = self.more.try_send(());
                    }
                    is_idle = !is_full;
                    // Closed if a later task has failed. The messages are in the ledger, to be released.
                    if received.send(messages).await.is_err() {
                        break;
                    }
                    // Each call costs money, however little it returns.
                    if is_low && self.retire() {
                        return Ok(());
                    }
                }
                Err(failure) => {
                    failures += 1;
                    emptiness.note(queue.number, false);
                    stats.queue(queue.number).add_receive_failure(failure.code());
                    if failure.is_final() || self.pool.patience.is_over(failures) {
                        return Err(failure.into());
                    }
                    let repeats = self.pool.log_limit.admit(queue.number, failure.code());
                    // Over a slow link, fewer pollers get their answers sooner. On a FIFO queue the call must be
                    // repeated: otherwise the groups of its messages are locked until their visibility timeout ends.
                    if failure.is_timeout() && !queue.fifo && self.retire() {
                        if let Some(repeats) = repeats {
                            warn!(queue = &*queue.name, repeats, "{failure}; one poller fewer");
                        }
                        return Ok(());
                    }
                    let pause = backoff::delay(failures - 1, PAUSE.0, PAUSE.1);
                    if let Some(repeats) = repeats {
                        let seconds = pause.as_secs_f32();
                        warn!(queue = &*queue.name, repeats, "{failure}; trying again in {seconds:.1} s");
                    }
                    shutdown.sleep(pause).await;
                }
            }
        }
        Ok(())
    }

    /// Retires this poller if there are more than the minimum. Returns whether it did.
    fn retire(&self) -> bool {
        let fewer = |active: usize| (active > self.pool.least).then(|| active - 1);
        self.active.fetch_update(Relaxed, Relaxed, fewer).is_ok()
    }
}

fn count(messages: &[Message]) -> Received {
    Received {
        messages: messages.len(),
        redelivered: messages.iter().filter(|message| message.receive_count > 1).count(),
        bytes: messages.iter().map(Message::size).sum(),
    }
}
