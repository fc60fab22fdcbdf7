//! The pipeline, and how it ends.
//!
//! ```text
//! pollers ──► collector ──► writer ──► deleter
//!   SQS        batches     PostgreSQL    SQS
//! ```
//!
//! Every arrow is a channel that holds little, so that a slow database holds the receive calls back and
//! memory does not depend on the backlog. A task ends when the one before it has ended and its channel is
//! empty; that is how a run stops without leaving anything behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::collector::{self, Limits};
use crate::config::Config;
use crate::deleter::Deleter;
use crate::drain::{self, Emptiness};
use crate::error::Error;
use crate::ledger::Ledger;
use crate::poller::Poller;
use crate::queue::Queue;
use crate::shutdown::Shutdown;
use crate::sink::Sink;
use crate::stats::Stats;
use crate::writer;

/// How long receive calls may still take when all else is given up. Where messages wait, they return at once,
/// and these would stay hidden if nobody took the answer.
const LAST_RECEIVES: Duration = Duration::from_secs(2);
/// How long making messages visible again may take at the end.
const RELEASE_TIME: Duration = Duration::from_secs(5);
/// Deletes go on at least so many at a time.
const LEAST_DELETE_CALLS: usize = 4;

/// Runs until stopped, drained or failed. Whichever it is, nothing received stays hidden: what is not deleted
/// is made visible again.
pub(crate) async fn run(
    config: &Config,
    queue: Queue,
    sink: Sink,
    stats: Arc<Stats>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let ledger = Arc::new(Ledger::default());
    let tasks = start(config, &queue, sink, &ledger, &stats, &shutdown);
    let result = tasks.supervise(&shutdown).await;
    release_all(&queue, &ledger).await;
    result
}

/// The limits of a batch.
pub(crate) fn limits(config: &Config) -> Limits {
    let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    Limits { size: size(config.batch_size), bytes: size(config.batch_bytes), linger: config.linger() }
}

fn start(
    config: &Config,
    queue: &Queue,
    sink: Sink,
    ledger: &Arc<Ledger>,
    stats: &Arc<Stats>,
    shutdown: &Shutdown,
) -> Tasks {
    let pollers = usize::from(config.pollers);
    let (received, to_collect) = mpsc::channel(pollers);
    let (batches, to_store) = mpsc::channel(1);
    let (committed, to_delete) = mpsc::channel(1);
    let emptiness = Arc::new(Emptiness::default());
    let mut tasks = Tasks::default();
    for _ in 0..pollers {
        let poller = Poller {
            queue: queue.clone(),
            ledger: Arc::clone(ledger),
            stats: Arc::clone(stats),
            emptiness: Arc::clone(&emptiness),
            shutdown: shutdown.clone(),
            received: received.clone(),
        };
        tasks.pollers.spawn(poller.run());
    }
    let limits = limits(config);
    tasks.others.spawn(async move {
        collector::run(limits, to_collect, batches).await;
        Ok(())
    });
    tasks.others.spawn(writer::run(sink, Arc::clone(stats), to_store, committed));
    let deleter = Deleter {
        queue: queue.clone(),
        ledger: Arc::clone(ledger),
        stats: Arc::clone(stats),
        calls: pollers.max(LEAST_DELETE_CALLS),
    };
    tasks.others.spawn(deleter.run(to_delete));
    if config.drain {
        let calls = u64::from(config.pollers);
        tasks.others.spawn(drain::run(queue.clone(), Arc::clone(ledger), emptiness, calls, shutdown.clone()));
    }
    tasks
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
            let ended = tokio::select! {
                Some(ended) = self.pollers.join_next() => ended,
                Some(ended) = self.others.join_next() => ended,
                () = shutdown.abandoning() => {
                    self.others.shutdown().await;
                    let pollers = &mut self.pollers;
                    _ = timeout(LAST_RECEIVES, async { while pollers.join_next().await.is_some() {} }).await;
                    pollers.shutdown().await;
                    break;
                }
            };
            if let Err(error) = ended.unwrap_or_else(|e| Err(panicked(&e))) {
                shutdown.stop();
                result = result.and(Err(error));
            }
        }
        result
    }
}

/// Makes visible again what was received and not deleted.
pub(crate) async fn release_all(queue: &Queue, ledger: &Ledger) -> bool {
    let leases = ledger.take_all();
    if leases.is_empty() {
        return true;
    }
    let (released, reason) = match timeout(RELEASE_TIME, queue.release(&leases)).await {
        Ok((released, failure)) => {
            (released, failure.map_or_else(String::new, |failure| failure.to_string()))
        }
        Err(_) => (0, format!("it took more than {} s", RELEASE_TIME.as_secs())),
    };
    if released == leases.len() {
        info!(messages = released, "made visible again");
        return true;
    }
    warn!(
        messages = leases.len(),
        reason,
        "not all messages in hand could be made visible again; the rest is deleted already, or comes back \
         when its visibility ends"
    );
    false
}

/// Where it panicked is in the log already.
fn panicked(error: &JoinError) -> Error {
    Error::Internal(if error.is_panic() { "a task panicked" } else { "a task was cancelled" }.into())
}
