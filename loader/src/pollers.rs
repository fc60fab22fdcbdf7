//! Pollers: tasks that receive, one call after the other. More of them while calls come back full, fewer while they come
//! back empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tracing::warn;

use crate::backoff::{self, Patience};
use crate::drain::Emptiness;
use crate::error::{Error, ended};
use crate::ledger::Ledger;
use crate::message::Message;
use crate::queue::{CALL_SIZE, Queue};
use crate::shutdown::Shutdown;
use crate::stats::Stats;

/// How long a call that brings nothing takes at least. Without a long poll it returns at once, and AWS
/// charges each call.
const EMPTY_CALL: Duration = Duration::from_millis(200);
/// The pause after a failure, each with the SDK's own retries in it, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The pollers of one queue, and what each of them needs.
#[derive(Clone)]
pub(crate) struct Pollers {
    pub(crate) queue: Queue,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) emptiness: Arc<Emptiness>,
    pub(crate) shutdown: Shutdown,
    pub(crate) patience: Patience,
    /// Where messages go. It holds few, so pollers receive no faster than batches are stored.
    pub(crate) received: Sender<Vec<Message>>,
    /// How many there are always ...
    pub(crate) least: usize,
    /// ... and at most.
    pub(crate) most: usize,
}

/// One of the tasks that receive.
struct Poller {
    pool: Pollers,
    /// Pollers of this queue.
    active: Arc<AtomicUsize>,
    /// Asks for one more.
    more: Sender<()>,
}

impl Pollers {
    /// Receives until the run stops. Each call that came back full begins another poller, so that their number can
    /// double with every round of calls.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (more, wanted) = mpsc::channel(self.most);
        let active = Arc::new(AtomicUsize::new(0));
        let poller = || Poller { pool: self.clone(), active: Arc::clone(&active), more: more.clone() };
        self.supervise(poller, wanted, &active).await
    }

    async fn supervise(
        &self,
        poller: impl Fn() -> Poller,
        mut wanted: Receiver<()>,
        active: &AtomicUsize,
    ) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        let begin = |tasks: &mut JoinSet<_>| {
            active.fetch_add(1, Relaxed);
            self.stats.of(self.queue.number).begin_poller();
            tasks.spawn(poller().run());
        };
        (0..self.least).for_each(|_| begin(&mut tasks));
        let mut result = Ok(());
        loop {
            tokio::select! {
                Some(()) = wanted.recv() => {
                    if tasks.len() < self.most && !self.shutdown.is_stopping() {
                        begin(&mut tasks);
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
        let Pollers { queue, ledger, stats, emptiness, shutdown, received, .. } = &self.pool;
        let mut failures = 0;
        while !shutdown.is_stopping() {
            // What is in hand is bounded: no more is received than deletes are confirmed.
            let room = tokio::select! {
                room = ledger.reserve() => room,
                () = shutdown.stopping() => break,
            };
            let start = Instant::now();
            match queue.receive(room).await {
                Ok(messages) if messages.is_empty() => {
                    failures = 0;
                    emptiness.note(true);
                    if self.retire() {
                        return Ok(());
                    }
                    shutdown.sleep(EMPTY_CALL.saturating_sub(start.elapsed())).await;
                }
                Ok(messages) => {
                    failures = 0;
                    emptiness.note(false);
                    stats.of(queue.number).add_received(messages.len());
                    if messages.len() == CALL_SIZE {
                        // Where there is no place for the wish, there are enough of them.
                        _ = self.more.try_send(());
                    }
                    // Closed when what comes after has failed: the messages are in the ledger, to be
                    // released.
                    tokio::select! {
                        () = ledger.keep(messages.iter().map(Message::size)) => {}
                        () = received.closed() => break,
                    }
                    if received.send(messages).await.is_err() {
                        break;
                    }
                }
                Err(failure) => {
                    failures += 1;
                    emptiness.note(false);
                    stats.of(queue.number).add_receive_failure(failure.code());
                    if failure.is_final() || self.pool.patience.is_over(failures) {
                        return Err(failure.into());
                    }
                    let pause = backoff::delay(failures - 1, PAUSE.0, PAUSE.1);
                    warn!("{failure}; trying again in {:.1} s", pause.as_secs_f32());
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
