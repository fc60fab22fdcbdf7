//! The pipeline, and how it ends.
//!
//! ```text
//! pollers ──► collector ──► writers ──► (gate) ──► deleter
//!   SQS        batches     PostgreSQL   standby      SQS
//!    └────────────────── keeper ─────────────────────┘
//! ```
//!
//! The gate is there with `--delete-after-replay` alone.
//!
//! Every arrow is a channel that holds little, and the ledger bounds what is received and not yet deleted: a slow
//! database, or slow deletes, hold the receive calls back, and memory does not depend on the backlog. The keeper
//! extends the leases of whatever is in between. A task ends when the one before it has ended and its channel is
//! empty; that is how a run stops without leaving anything behind.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use crate::backoff::Patience;
use crate::collector::{self, Limits};
use crate::config::Config;
use crate::deleter::Deleter;
use crate::drain::{Drain, Emptiness};
use crate::error::{Error, ended};
use crate::gate::Gate;
use crate::intake::Intake;
use crate::keeper::{Keeper, by_queue};
use crate::ledger::Ledger;
use crate::log::LogLimit;
use crate::pollers::Pollers;
use crate::queue::Queues;
use crate::shutdown::{LAST_RECEIVES, RELEASE_TIME, Shutdown};
use crate::sink::Sink;
use crate::stats::{SAMPLE_EVERY, Stats};
use crate::writer::{Database, Rejected, Shared, Writer};

/// Deletes go on at least so many at a time. Where there are many pollers it is twice their number, so that deletes are
/// never what falls behind.
const LEAST_DELETE_CALLS: usize = 16;
/// A run that somebody waits for gives up after so many failures in a row, each with the SDK's own retries in it:
/// something is wrong that waiting does not mend.
const DRAIN_PATIENCE: Patience = Patience::UpTo(8);

/// Runs until stopped, drained or failed. Whichever it is, nothing received stays hidden: what is not deleted
/// is made visible again.
pub(crate) async fn run(
    config: &Config,
    queues: Queues,
    database: Database,
    sink: Sink,
    stats: Arc<Stats>,
    shutdown: Shutdown,
    intake: Intake,
) -> Result<(), Error> {
    let ledger = Arc::new(ledger(config));
    let keeper = Keeper {
        queues: Arc::clone(&queues),
        ledger: Arc::clone(&ledger),
        stats: Arc::clone(&stats),
        visibility: config.visibility(),
        log_limit: LogLimit::default(),
    };
    let gate = if config.deletion.delete_after_replay {
        let (queues, ledger) = (Arc::clone(&queues), Arc::clone(&ledger));
        Some(Gate::open(config.target.servers()?, queues, ledger, config.deletion.delay()).await)
    } else {
        None
    };
    let run = Run { config, queues: &queues, ledger: &ledger, stats: &stats, shutdown: &shutdown, intake };
    let tasks = run.start(database, sink, gate);
    let result = tokio::select! {
        result = tasks.supervise(&shutdown) => result,
        never = keeper.run() => match never {},
        never = sample(&ledger, &stats) => match never {},
    };
    release_all(&queues, &ledger).await;
    result
}

/// Takes samples for as long as it is polled.
async fn sample(ledger: &Ledger, stats: &Stats) -> Infallible {
    let mut tick = interval(SAMPLE_EVERY);
    loop {
        let now = tick.tick().await;
        stats.sample(ledger.census(now));
    }
}

/// The limits of a batch.
pub(crate) fn limits(config: &Config) -> Limits {
    Limits { size: size(config.batch_size), bytes: size(config.batch_bytes), linger: config.linger() }
}

/// A ledger for as much as may be in flight: batches that are stored, one that waits, and one that is received and
/// gathered.
pub(crate) fn ledger(config: &Config) -> Ledger {
    let batches = usize::from(config.writers) + 2;
    Ledger::new(size(config.max_in_flight), batches.saturating_mul(size(config.batch_bytes)))
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// What the tasks of a run are made of.
struct Run<'r> {
    config: &'r Config,
    queues: &'r Queues,
    ledger: &'r Arc<Ledger>,
    stats: &'r Arc<Stats>,
    shutdown: &'r Shutdown,
    intake: Intake,
}

impl Run<'_> {
    fn start(&self, database: Database, sink: Sink, gate: Option<Gate>) -> Tasks {
        let config = self.config;
        let pollers = usize::from(config.pollers);
        let patience = if config.drain { DRAIN_PATIENCE } else { Patience::Endless };
        let (received, to_collect) = mpsc::channel(1);
        let (batches, to_store) = mpsc::channel(1);
        let (committed, to_delete) = mpsc::channel(1);
        let emptiness = Arc::new(Emptiness::new(self.queues.len()));
        let mut tasks = Tasks::default();
        for queue in self.queues.iter() {
            let pollers = Pollers {
                queue: queue.clone(),
                queues: self.queues.len(),
                ledger: Arc::clone(self.ledger),
                stats: Arc::clone(self.stats),
                emptiness: Arc::clone(&emptiness),
                message_size: Arc::default(),
                shutdown: self.shutdown.clone(),
                patience,
                intake: self.intake.clone(),
                received: received.clone(),
                least: usize::from(config.min_pollers.min(config.pollers)),
                most: pollers,
                log_limit: Arc::default(),
            };
            tasks.pollers.spawn(pollers.run());
        }
        let limits = limits(config);
        tasks.others.spawn(async move {
            collector::run(limits, to_collect, batches).await;
            Ok(())
        });
        let shared = Arc::new(Shared {
            database,
            ledger: Arc::clone(self.ledger),
            stats: Arc::clone(self.stats),
            patience,
            batches: Mutex::new(to_store),
            stored: AtomicU64::new(0),
            intake: self.intake.clone(),
            setup_logged: std::sync::Mutex::default(),
            rejected: Rejected::default(),
            silent: AtomicBool::new(false),
            shutdown: self.shutdown.clone(),
        });
        let mut sink = Some(sink);
        for _ in 0..config.writers {
            let writer = Writer {
                shared: Arc::clone(&shared),
                had_connection: sink.is_some(),
                standing: sink.is_some().then(|| self.intake.able()),
                sink: sink.take(),
                committed: committed.clone(),
            };
            tasks.others.spawn(writer.run());
        }
        let to_delete = match gate {
            Some(gate) => {
                let (confirmed, to_delete_now) = mpsc::channel(1);
                tasks.others.spawn(gate.run(to_delete, confirmed));
                to_delete_now
            }
            None => to_delete,
        };
        let deleter = Deleter {
            queues: Arc::clone(self.queues),
            ledger: Arc::clone(self.ledger),
            stats: Arc::clone(self.stats),
            patience,
            calls: Semaphore::new((2 * pollers * self.queues.len()).max(LEAST_DELETE_CALLS)),
            log_limit: LogLimit::default(),
        };
        tasks.others.spawn(deleter.run(to_delete));
        if config.drain {
            let drain = Drain {
                queues: Arc::clone(self.queues),
                ledger: Arc::clone(self.ledger),
                stats: Arc::clone(self.stats),
                emptiness,
                shutdown: self.shutdown.clone(),
            };
            tasks.others.spawn(drain.run());
        }
        tasks
    }
}

/// The tasks of a run.
#[derive(Default)]
struct Tasks {
    pollers: JoinSet<Result<(), Error>>,
    others: JoinSet<Result<(), Error>>,
}

impl Tasks {
    /// Waits for all. The first that fails stops the others in good order: what is committed is still
    /// deleted.
    async fn supervise(mut self, shutdown: &Shutdown) -> Result<(), Error> {
        let mut result = Ok(());
        while !(self.pollers.is_empty() && self.others.is_empty()) {
            let joined = tokio::select! {
                Some(joined) = self.pollers.join_next() => joined,
                Some(joined) = self.others.join_next() => joined,
                () = shutdown.abandoning() => {
                    self.others.shutdown().await;
                    let pollers = &mut self.pollers;
                    _ = timeout(LAST_RECEIVES, async { while pollers.join_next().await.is_some() {} }).await;
                    pollers.shutdown().await;
                    break;
                }
            };
            if let Err(error) = ended(joined) {
                shutdown.stop();
                result = result.and(Err(error));
            }
        }
        result
    }
}

/// Makes visible again what was received and not deleted.
pub(crate) async fn release_all(queues: &Queues, ledger: &Ledger) -> bool {
    let leases = ledger.take_all();
    if leases.is_empty() {
        return true;
    }
    let messages = leases.len();
    let mut reason = String::new();
    let release = async {
        let mut released = 0;
        for (queue, leases) in queues.iter().zip(by_queue(queues.len(), leases)) {
            let (count, why) = queue.release(&leases).await;
            released += count;
            reason = why.unwrap_or(std::mem::take(&mut reason));
        }
        released
    };
    let released = timeout(RELEASE_TIME, release).await;
    if released == Ok(messages) {
        info!(messages, "made visible again");
        return true;
    }
    if released.is_err() {
        reason = format!("it took more than {} s", RELEASE_TIME.as_secs());
    }
    warn!(
        messages,
        reason,
        "not all messages in hand could be made visible again; the rest is deleted already, or comes back \
         when its visibility ends"
    );
    false
}
