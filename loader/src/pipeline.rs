//! The pipeline, and how it ends.
//!
//! ```text
//! pollers ──► batcher ──► writers ──► (gate) ──► deleter
//!   SQS       batches    PostgreSQL   standby      SQS
//!    └────────────── lease extender ────────────────┘
//! ```
//!
//! The gate exists only with `--delete-after-replay`.
//!
//! Every arrow is a channel that holds little, and the ledger limits what is received and not yet deleted. So a slow
//! database or slow deletes hold back the receive calls, and memory doesn't depend on the backlog. The lease extender
//! extends the leases of all messages in between. A task ends when the task before it has ended and its channel is
//! empty. So a run stops without leaving anything behind.

mod batcher;
mod deleter;
pub(crate) mod drain;
pub(crate) mod intake;
pub(crate) mod lease_extender;
mod pollers;
mod recovery;
mod replay_gate;
pub(crate) mod writer;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tracing::{info, warn};

use crate::backoff::RetryLimit;
use crate::config::Config;
use crate::error::{Error, ended};
use crate::inbox::{Database, Inbox};
use crate::leases::ledger::Ledger;
use crate::pipeline::batcher::Limits;
use crate::pipeline::deleter::Deleter;
use crate::pipeline::drain::{Drain, EmptyStreak};
use crate::pipeline::intake::Intake;
use crate::pipeline::lease_extender::{LeaseExtender, by_queue};
use crate::pipeline::pollers::Pollers;
use crate::pipeline::replay_gate::ReplayGate;
use crate::pipeline::writer::{Rejected, Shared, Writer};
use crate::shutdown::{LAST_RECEIVES, RELEASE_TIME, Shutdown};
use crate::sqs::Queues;
use crate::telemetry::log::LogLimit;
use crate::telemetry::stats::{SAMPLE_EVERY, Stats};

/// Minimum number of delete calls at a time. With many pollers it is twice their number, so that deletes never fall
/// behind.
const LEAST_DELETE_CALLS: usize = 16;
/// Maximum failures in a row in a run that somebody waits for. Each failure includes the SDK's own retries, so waiting
/// longer wouldn't help.
const DRAIN_PATIENCE: RetryLimit = RetryLimit::UpTo(8);

/// Runs until stopped, drained or failed. In each case nothing received stays hidden: messages that aren't deleted are
/// made visible again.
pub(crate) async fn run(
    config: &Config,
    queues: Queues,
    database: Database,
    inbox: Inbox,
    stats: Arc<Stats>,
    shutdown: Shutdown,
    intake: Intake,
) -> Result<(), Error> {
    let ledger = Arc::new(ledger(config));
    let lease_extender = LeaseExtender {
        queues: Arc::clone(&queues),
        ledger: Arc::clone(&ledger),
        stats: Arc::clone(&stats),
        visibility: config.visibility(),
        log_limit: LogLimit::default(),
    };
    let gate = if config.deletion.delete_after_replay {
        let (queues, ledger) = (Arc::clone(&queues), Arc::clone(&ledger));
        Some(ReplayGate::open(config.target.servers()?, queues, ledger, config.deletion.delay()).await)
    } else {
        None
    };
    let run = Run { config, queues: &queues, ledger: &ledger, stats: &stats, shutdown: &shutdown, intake };
    let tasks = run.start(database, inbox, gate);
    let result = tokio::select! {
        result = tasks.supervise(&shutdown) => result,
        never = lease_extender.run() => match never {},
        never = sample(&ledger, &stats) => match never {},
    };
    release_all(&queues, &ledger).await;
    result
}

/// Takes samples until it is dropped.
async fn sample(ledger: &Ledger, stats: &Stats) -> Infallible {
    let mut tick = interval(SAMPLE_EVERY);
    loop {
        let now = tick.tick().await;
        stats.sample(ledger.census(now));
    }
}

/// Returns the limits of a batch.
pub(crate) fn limits(config: &Config) -> Limits {
    Limits {
        size: size(config.batch.batch_size),
        bytes: size(config.batch.batch_bytes),
        linger: config.linger(),
    }
}

/// Makes a ledger for everything that may be in flight: batches being stored, one that waits, and one being received
/// and gathered.
pub(crate) fn ledger(config: &Config) -> Ledger {
    let batches = usize::from(config.writers) + 2;
    Ledger::new(size(config.queue.max_in_flight), batches.saturating_mul(size(config.batch.batch_bytes)))
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// Parts that the tasks of a run are made of.
struct Run<'r> {
    config: &'r Config,
    queues: &'r Queues,
    ledger: &'r Arc<Ledger>,
    stats: &'r Arc<Stats>,
    shutdown: &'r Shutdown,
    intake: Intake,
}

impl Run<'_> {
    fn start(&self, database: Database, inbox: Inbox, gate: Option<ReplayGate>) -> Tasks {
        let config = self.config;
        let pollers = usize::from(config.queue.pollers);
        let patience = if config.drain { DRAIN_PATIENCE } else { RetryLimit::Endless };
        let (received, to_collect) = mpsc::channel(1);
        let (batches, to_store) = mpsc::channel(1);
        let (committed, to_delete) = mpsc::channel(1);
        let emptiness = Arc::new(EmptyStreak::new(self.queues.len()));
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
                least: usize::from(config.queue.min_pollers.min(config.queue.pollers)),
                most: pollers,
                log_limit: Arc::default(),
            };
            tasks.pollers.spawn(pollers.run());
        }
        let limits = limits(config);
        tasks.others.spawn(async move {
            batcher::run(limits, to_collect, batches).await;
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
        let mut inbox = Some(inbox);
        for _ in 0..config.writers {
            let writer = Writer {
                shared: Arc::clone(&shared),
                had_connection: inbox.is_some(),
                state: inbox.is_some().then(|| self.intake.can_store()),
                inbox: inbox.take(),
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
    /// Waits for all tasks. The first failure stops the others in good order: committed messages are still deleted.
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

/// Makes visible again what was received and not deleted. Returns whether that worked for all messages.
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
        "not all messages in flight could be made visible again; the rest is deleted already, or comes back \
         after its visibility timeout"
    );
    false
}
