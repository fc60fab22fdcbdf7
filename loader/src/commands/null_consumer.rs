//! Null consumer: receives and deletes with the loader's own calls, and stores nothing. A consumer of this SDK can't
//! take less time, so dev/bench measures the loader against it. It loses every message, so it exists only in builds
//! with the feature `null-consumer`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::config::Config;
use crate::error::{Error, ended};
use crate::leases::ledger::Ledger;
use crate::pipeline;
use crate::pipeline::drain::{Drain, EmptyStreak};
use crate::shutdown::Shutdown;
use crate::sqs::{Answer, Queue};
use crate::telemetry::stats::{Stats, Summary};

/// Pause after a call that returned nothing.
const EMPTY_PAUSE: Duration = Duration::from_millis(200);

/// A task that receives and deletes in turn.
struct Worker {
    queue: Queue,
    ledger: Arc<Ledger>,
    stats: Arc<Stats>,
    emptiness: Arc<EmptyStreak>,
    shutdown: Shutdown,
}

/// Runs `--pollers` workers per queue until stopped, drained or failed. Only the SDK retries.
pub(crate) async fn run(config: &Config, shutdown: &Shutdown) -> Result<Summary, Error> {
    let mut check_items = Vec::new();
    let (queues, _) = tokio::select! {
        opened = Queue::open_all(config.queues()?, &mut check_items) => opened?,
        () = shutdown.stopping() => return Ok(Stats::new([]).summary()),
    };
    let stats = Arc::new(Stats::new(queues.iter().map(|queue| &*queue.name)));
    let ledger = Arc::new(pipeline::ledger(config));
    let emptiness = Arc::new(EmptyStreak::new(queues.len()));
    let mut tasks = JoinSet::new();
    for queue in queues.iter() {
        for _ in 0..config.queue.pollers {
            stats.queue(queue.number).begin_poller();
            let worker = Worker {
                queue: queue.clone(),
                ledger: Arc::clone(&ledger),
                stats: Arc::clone(&stats),
                emptiness: Arc::clone(&emptiness),
                shutdown: shutdown.clone(),
            };
            tasks.spawn(worker.run());
        }
    }
    if config.drain {
        let drain = Drain {
            queues: Arc::clone(&queues),
            ledger: Arc::clone(&ledger),
            stats: Arc::clone(&stats),
            emptiness,
            shutdown: shutdown.clone(),
        };
        tasks.spawn(drain.run());
    }
    let mut result = Ok(());
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = ended(joined) {
            shutdown.stop();
            result = result.and(Err(error));
        }
    }
    result.map(|()| stats.summary())
}

impl Worker {
    async fn run(self) -> Result<(), Error> {
        while !self.shutdown.is_stopping() {
            let messages = self.queue.receive(self.ledger.reserve(0).await, Uuid::new_v4()).await?;
            self.emptiness.note(self.queue.number, messages.is_empty());
            if messages.is_empty() {
                self.shutdown.sleep(EMPTY_PAUSE).await;
                continue;
            }
            self.stats.queue(self.queue.number).add_received(messages.len());
            let ids: Vec<_> = messages.iter().map(|message| message.lease).collect();
            drop(messages);
            self.ledger.commit(&ids);
            let leases = self.ledger.committed(&ids);
            let answers = self.queue.delete(&leases).await?;
            for (lease, answer) in leases.iter().zip(answers) {
                self.stats.queue(self.queue.number).add_deleted(usize::from(answer == Answer::Done));
                self.ledger.settle(lease.id);
            }
        }
        Ok(())
    }
}
