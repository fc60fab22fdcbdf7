//! Pollers: tasks that receive, one call after the other. Their number grows while calls come back full, and shrinks
//! while they come back at most half full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tracing::warn;
use uuid::Uuid;

use crate::backoff::{self, Patience};
use crate::drain::Emptiness;
use crate::error::{Error, ended};
use crate::intake::Intake;
use crate::ledger::Ledger;
use crate::log::LogLimit;
use crate::message::{Message, MessageSize};
use crate::queue::Queue;
use crate::shutdown::Shutdown;
use crate::stats::Stats;

/// How long a call that brings nothing takes at least. Without a long poll it returns at once, and AWS
/// charges each call.
const EMPTY_CALL: Duration = Duration::from_millis(200);
/// The pause after a failure, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The pollers of one queue, and what each of them needs.
#[derive(Clone)]
pub(crate) struct Pollers {
    pub(crate) queue: Queue,
    /// Queues of the run.
    pub(crate) queues: usize,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) emptiness: Arc<Emptiness>,
    pub(crate) message_size: Arc<MessageSize>,
    pub(crate) shutdown: Shutdown,
    pub(crate) patience: Patience,
    /// Closed while no writer can store.
    pub(crate) intake: Intake,
    /// Where messages go. It holds few, so pollers receive no faster than batches are stored.
    pub(crate) received: Sender<Vec<Message>>,
    /// How many there are always ...
    pub(crate) least: usize,
    /// ... and at most.
    pub(crate) most: usize,
    pub(crate) log_limit: Arc<LogLimit>,
}

/// One of the tasks that receive.
struct Poller {
    pool: Pollers,
    /// Pollers of this queue.
    active: Arc<AtomicUsize>,
    /// Whether its first call is one to an idle queue.
    begins_idle: bool,
    /// Asks for one more.
    more: Sender<()>,
}

impl Pollers {
    /// Receives until the run stops. Each call that came back full begins another poller, so that their number can
    /// double with every round of calls.
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
            self.stats.of(self.queue.number).begin_poller();
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
                    self.stats.of(self.queue.number).end_poller();
                    if let Err(error) = ended(joined) {
                        // The others end in good order.
                        self.shutdown.stop();
                        result = result.and(Err(error));
                    }
                }
            }
        }
    }
}

impl Poller {
    /// Receives until the run stops, or until there is too little for so many. A call that is going on then is awaited:
    /// SQS may be handing messages over, and these would stay hidden from everyone if nobody took the answer.
    async fn run(self) -> Result<(), Error> {
        let Pollers { queue, ledger, stats, emptiness, shutdown, message_size, received, .. } = &self.pool;
        let mut failures = 0;
        // Unless the last call was full, the next one may wait for as long as a long poll.
        let mut is_idle = self.begins_idle;
        // SQS knows a repeated call to a FIFO queue by it, and hands out the same messages.
        let mut attempt = Uuid::new_v4();
        while !shutdown.is_stopping() {
            tokio::select! {
                () = self.pool.intake.opened() => {}
                () = shutdown.stopping() => break,
            }
            // Bounds what is in flight: no more is received than there is room for.
            let size = message_size.get();
            let room = async {
                if is_idle {
                    ledger.reserve_idle(size, self.pool.queues).await
                } else {
                    ledger.reserve(size).await
                }
            };
            let room = tokio::select! {
                room = room => room,
                () = shutdown.stopping() => break,
            };
            let call_size = room.call_size;
            let start = Instant::now();
            let outcome = queue.receive(room, attempt).await;
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
                    stats.of(queue.number).add_receive_call(&messages, start.elapsed());
                    message_size.note(&messages);
                    let is_low = 2 * messages.len() <= call_size;
                    let is_full = messages.len() >= call_size;
                    if is_full && !is_idle {
                        // Where there is no place for the wish, there are enough of them.
                        _ = self.more.try_send(());
                    }
                    is_idle = !is_full;
                    // Closed when what comes after has failed: the messages are in the ledger, to be
                    // released.
                    if received.send(messages).await.is_err() {
                        break;
                    }
                    // Each call costs, however little it brings.
                    if is_low && self.retire() {
                        return Ok(());
                    }
                }
                Err(failure) => {
                    failures += 1;
                    emptiness.note(queue.number, false);
                    stats.of(queue.number).add_receive_failure(failure.code());
                    if failure.is_final() || self.pool.patience.is_over(failures) {
                        return Err(failure.into());
                    }
                    let repeats = self.pool.log_limit.admit(queue.number, failure.code());
                    // Fewer of them get their answers sooner over a slow link. On a FIFO queue the call must be repeated:
                    // otherwise the groups of its messages are locked until their visibility ends.
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

    /// Whether this poller is one too many.
    fn retire(&self) -> bool {
        let fewer = |active: usize| (active > self.pool.least).then(|| active - 1);
        self.active.fetch_update(Relaxed, Relaxed, fewer).is_ok()
    }
}
