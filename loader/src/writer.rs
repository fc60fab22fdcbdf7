//! A writer: one batch after the other goes into the inbox, and what is committed goes on to be deleted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep;
use tokio_postgres::Config;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::backoff::{self, Patience};
use crate::collector::Batch;
use crate::error::Error;
use crate::ledger::{LeaseId, Ledger};
use crate::message::Message;
use crate::sink::{Fault, Kind, Sink, Verdict};
use crate::stats::{Counts, Stats};

/// The pause before a batch is tried again, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// So many messages that the database refuses, each by itself and with none stored in between, are no poison: the
/// database is at fault, and all the queue would end in the dead-letter queue.
const REFUSED_IN_A_ROW: usize = 20;
/// After so many failures in the middle of it, a batch is halved, too: it may be too much for its time limit, or one
/// message of it may bring the server down.
const FAILURES_OF_A_WHOLE: u32 = 3;

/// Where and how to store.
pub(crate) struct Database {
    pub(crate) config: Config,
    pub(crate) inbox: String,
    /// How long a batch may take.
    pub(crate) limit: Duration,
}

impl Database {
    /// Connects.
    pub(crate) async fn open(&self) -> Result<Sink, Fault> {
        Sink::open(&self.config, &self.inbox, self.limit).await
    }
}

/// What all writers share.
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) patience: Patience,
    pub(crate) batches: Mutex<Receiver<Batch>>,
    /// Batches stored so far.
    pub(crate) commits: AtomicU64,
    /// Messages refused since one was stored, each once however often it came.
    pub(crate) refused: std::sync::Mutex<HashSet<Uuid>>,
}

/// One connection, and what is stored by it.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// Made when there is something to store, and again when it is lost.
    pub(crate) sink: Option<Sink>,
    /// To the deleter.
    pub(crate) committed: Sender<Vec<LeaseId>>,
}

impl Writer {
    /// Stores batches until there are no more. Leases are handed to the deleter only here, after COMMIT was
    /// answered.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            let batch = self.shared.batches.lock().await.recv().await;
            let Some(batch) = batch else { break };
            self.store(batch).await?;
            // Closed when deleting has failed for good. Receiving is then being stopped: no more is to be stored.
            if self.committed.is_closed() {
                break;
            }
        }
        if let Some(sink) = self.sink {
            sink.close().await;
        }
        Ok(())
    }

    /// Stores a batch, however often that takes. One that is refused is halved until the culprit is alone.
    async fn store(&mut self, batch: Batch) -> Result<(), Error> {
        let mut parts = vec![batch];
        // Message groups of which a message was left. What came after it must not overtake it.
        let mut stopped = HashSet::new();
        // Messages over which something fails, and how many batches had been stored when they were put off.
        let mut put_off = HashMap::new();
        let (mut failures, mut failures_of_part, mut last_refusal) = (0, 0, None);
        while let Some(mut part) = parts.pop() {
            if !stopped.is_empty() {
                let (behind, rest): (Batch, Batch) = part.into_iter().partition(|m| m.is_of(&stopped));
                if !behind.is_empty() {
                    let messages = behind.len();
                    info!(
                        messages,
                        "left in the queue, to keep the order of the message group of one that was left"
                    );
                    self.leave(&behind);
                }
                part = rest;
            }
            if part.is_empty() {
                continue;
            }
            let fault = match self.attempt(&part).await {
                Ok(counts) => {
                    (failures, failures_of_part) = (0, 0);
                    self.commit(part, counts).await;
                    continue;
                }
                Err(fault) => fault,
            };
            // Without a connection it was not the part's fault.
            failures_of_part += u32::from(self.sink.is_some());
            match fault.kind {
                Kind::Final => return Err(fault.error),
                Kind::Refused if part.len() > 1 => {
                    debug!(messages = part.len(), "{}; halving the batch to find the culprit", fault.error);
                    halve(part, &mut parts);
                    failures_of_part = 0;
                }
                Kind::Refused => {
                    stopped.extend(part.iter().filter_map(|message| message.group.clone()));
                    self.refused().extend(part.iter().map(|message| message.id));
                    self.leave_culprit(
                        &part,
                        "the database can neither store nor reject a message",
                        &fault.error,
                    );
                    last_refusal = Some(fault.error);
                }
                Kind::Connection | Kind::Passing => {
                    if fault.kind == Kind::Connection {
                        self.sink = None;
                    }
                    failures += 1;
                    if self.shared.patience.is_over(failures) {
                        return Err(fault.error);
                    }
                    let pause = backoff::delay(failures - 1, PAUSE.0, PAUSE.1);
                    warn!("{}; trying again in {:.1} s", fault.error, pause.as_secs_f32());
                    sleep(pause).await;
                    if failures_of_part < FAILURES_OF_A_WHOLE {
                        parts.push(part);
                        continue;
                    }
                    failures_of_part = 0;
                    if part.len() > 1 {
                        halve(part, &mut parts);
                    } else if self.is_culprit(&part, &mut put_off) {
                        stopped.extend(part.iter().filter_map(|message| message.group.clone()));
                        self.leave_culprit(
                            &part,
                            "the database fails again and again over a message",
                            &fault.error,
                        );
                    } else {
                        // The others first, but for those of its group; and if there are none, whatever comes next.
                        let top =
                            if part.iter().all(|message| message.group.is_none()) { 0 } else { parts.len() };
                        parts.insert(top, part);
                        parts.extend(self.next_batch());
                    }
                }
            }
        }
        let refused = self.refused().len();
        match last_refusal {
            Some(error) if refused >= REFUSED_IN_A_ROW => Err(Error::Database(format!(
                "the database refuses message after message, {refused} and none stored in between, so the fault is not \
                 the messages': {error}"
            ))),
            _ => Ok(()),
        }
    }

    /// One transaction, on a connection that is made where there is none.
    async fn attempt(&mut self, batch: &[Message]) -> Result<Counts, Fault> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            none => {
                let sink = self.shared.database.open().await?;
                self.shared.stats.add_connection();
                none.insert(sink)
            }
        };
        let start = Instant::now();
        let counts = sink.store(batch, Verdict::Commit).await?;
        debug!(
            messages = batch.len(),
            bytes = batch.iter().map(Message::size).sum::<usize>(),
            received_before = batch.iter().filter(|m| m.receive_count > 1).count(),
            stored = counts.stored,
            duplicate = counts.duplicate,
            rejected = counts.rejected,
            seconds = start.elapsed().as_secs_f64(),
            "batch committed"
        );
        Ok(counts)
    }

    /// COMMIT was answered.
    async fn commit(&self, batch: Batch, counts: Counts) {
        self.refused().clear();
        self.shared.commits.fetch_add(1, Relaxed);
        self.shared.stats.add_committed(counts);
        if counts.rejected > 0 {
            warn!(
                messages = batch.len(),
                rejected = counts.rejected,
                "events were rejected; the rejects table of the inbox has the reasons"
            );
        }
        let leases: Vec<LeaseId> = batch.iter().map(|message| message.lease).collect();
        self.shared.ledger.free(batch.iter().map(Message::size));
        drop(batch);
        self.shared.ledger.commit(&leases);
        // What is not deleted, since deleting has failed for good, is released in the end.
        _ = self.committed.send(leases).await;
    }

    /// Whether others were stored since this message was put off. As long as none were, the fault may be the
    /// database's, and good messages would end in the dead-letter queue.
    fn is_culprit(&self, part: &[Message], put_off: &mut HashMap<LeaseId, u64>) -> bool {
        let commits = self.shared.commits.load(Relaxed);
        part.iter().all(|message| commits > *put_off.entry(message.lease).or_insert(commits))
    }

    /// A batch that waits, if one does.
    fn next_batch(&self) -> Option<Batch> {
        self.shared.batches.try_lock().ok()?.try_recv().ok()
    }

    /// Leaves a message to the queue's redrive policy: it comes back when its visibility ends, so many times as the
    /// policy says.
    fn leave_culprit(&self, culprit: &[Message], what: &str, error: &Error) {
        let ids = self.shared.ledger.message_ids(culprit.iter().map(|message| message.lease));
        warn!(message_id = ids.join(" "), "{what}, which is left to the queue's redrive policy: {error}");
        self.leave(culprit);
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, batch: &[Message]) {
        self.shared.stats.add_left(batch.len());
        self.shared.ledger.free(batch.iter().map(Message::size));
        for message in batch {
            self.shared.ledger.settle(message.lease);
        }
    }
}

/// Puts both halves back, the first on top.
fn halve(mut part: Batch, parts: &mut Vec<Batch>) {
    let second = part.split_off(part.len() / 2);
    parts.push(second);
    parts.push(part);
}
