//! A writer: one batch after the other goes into the inbox, and what is committed goes on to be deleted.

mod rejected;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::backoff::{self, Patience};
use crate::collector::Batch;
use crate::config::Target;
use crate::error::Error;
use crate::finding::Finding;
use crate::ledger::{LeaseId, Ledger};
use crate::message::Message;
use crate::postgres::Servers;
use crate::sink::{Fault, Kind, Sink, Verdict};
use crate::stats::{Account, Stats};
use crate::trace::BatchSpan;
pub(crate) use rejected::Rejected;

/// The pause before a batch is tried again, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// So many messages that the database refuses, each by itself and with none stored in between, are no poison: the
/// database is at fault, and all the queue would end in the dead-letter queue.
const REFUSED_IN_A_ROW: usize = 20;
/// After so many failures in the middle of it, a batch is halved, too: it may be too much for its time limit, or one
/// message of it may bring the server down.
const FAILURES_OF_A_WHOLE: u32 = 3;
/// How often a writer that waits for a batch looks whether the database is still there.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
/// How long an answer to that may take.
pub(crate) const PING_TIME: Duration = Duration::from_secs(5);

/// Where and how to store.
pub(crate) struct Database {
    pub(crate) servers: Servers,
    pub(crate) inbox: String,
    /// How long a batch may take.
    pub(crate) limit: Duration,
}

impl Database {
    /// What options and environment name, without asking it.
    pub(crate) fn of(target: &Target, limit: Duration) -> Result<Self, Error> {
        Ok(Self { servers: target.servers()?, inbox: target.inbox.clone(), limit })
    }

    /// Connects. What is found about the database goes to `findings`.
    pub(crate) async fn open(&self, findings: &mut Vec<Finding>) -> Result<Sink, Fault> {
        Sink::open(&self.servers, &self.inbox, self.limit, findings).await
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
    /// What is yet to be told of rejects.
    pub(crate) rejected: Rejected,
    /// Whether the database did not answer when it was last looked for.
    pub(crate) silent: AtomicBool,
}

impl Shared {
    /// The database answered a writer.
    fn answered(&self) {
        self.stats.pulse.beat();
        if self.silent.swap(false, Relaxed) {
            info!("the database answers again");
        }
    }

    /// The database did not answer an idle writer, which goes on asking. Told once.
    fn is_silent(&self, error: &Error) {
        if !self.silent.swap(true, Relaxed) {
            warn!("{error}; there is nothing to store as yet, and the loader goes on asking");
        }
    }
}

/// One connection, and what is stored by it.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// Made when there is something to store, and again when it is lost.
    pub(crate) sink: Option<Sink>,
    /// Whether there was a connection before.
    pub(crate) had_connection: bool,
    /// To the deleter.
    pub(crate) committed: Sender<Vec<LeaseId>>,
}

impl Writer {
    /// Stores batches until there are no more. Leases are handed to the deleter only here, after COMMIT was
    /// answered.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            let Some(batch) = self.wait().await else { break };
            self.store(batch).await?;
            // Closed when deleting has failed for good. Receiving is then being stopped: no more is to be stored.
            if self.committed.is_closed() {
                break;
            }
        }
        self.shared.rejected.tell();
        if let Some(sink) = self.sink {
            sink.close().await;
        }
        Ok(())
    }

    /// Waits for a batch, and makes sure meanwhile that the database is still there: whoever looks shall see that a
    /// connection is lost, and the first batch after a quiet night is not to find it out.
    async fn wait(&mut self) -> Option<Batch> {
        let shared = Arc::clone(&self.shared);
        // The other writers wait for the lock, and see whether their connection is lost when they have a batch.
        let mut batches = shared.batches.lock().await;
        loop {
            let ping = async {
                sleep(PING_EVERY).await;
                self.ping().await;
            };
            // Nothing is lost by dropping either: a message stays in the channel, and of a ping the answer is ignored.
            tokio::select! {
                biased;
                batch = batches.recv() => return batch,
                () = ping => shared.rejected.tell_if_due(),
            }
        }
    }

    /// Looks whether the database answers, on a new connection where it does not on the old one. That it does not is no
    /// batch's failure yet.
    async fn ping(&mut self) {
        if let Some(sink) = &mut self.sink {
            match sink.ping(PING_TIME).await {
                Ok(()) => return self.shared.answered(),
                Err(error) => {
                    self.sink = None;
                    self.shared.is_silent(&error);
                }
            }
        }
        if let Err(fault) = self.connect().await {
            self.shared.is_silent(&fault.error);
        }
    }

    /// The connection, made where there is none, or none any more.
    async fn connect(&mut self) -> Result<&mut Sink, Fault> {
        if self.sink.as_ref().is_some_and(Sink::is_lost) {
            self.sink = None;
        }
        match self.sink {
            Some(ref mut sink) => Ok(sink),
            ref mut none => {
                let opened = self.shared.database.open(&mut Vec::new()).await;
                // No message has been sent as yet: whatever the server refuses, none of them is the cause.
                let sink = opened.map_err(|fault| match fault.kind {
                    Kind::Refused => Fault { kind: Kind::Connection, ..fault },
                    Kind::Connection | Kind::Passing | Kind::Final => fault,
                })?;
                self.shared.stats.add_connection(self.had_connection);
                self.shared.answered();
                self.had_connection = true;
                Ok(none.insert(sink))
            }
        }
    }

    /// Stores a batch, however often that takes. One that is refused is halved until the culprit is alone.
    async fn store(&mut self, batch: Batch) -> Result<(), Error> {
        let mut parts = vec![batch];
        // Message groups of which a message was left. What came after it must not overtake it.
        let mut stopped = HashSet::new();
        // Messages over which something fails, and how many batches had been stored when they were put off.
        let mut put_off = HashMap::new();
        let (mut failures, mut failures_of_part, mut last_refusal) = (0, 0, None);
        // Of a part that is tried again as it is.
        let mut span_of_part = None;
        while let Some(mut part) = parts.pop() {
            if !stopped.is_empty() {
                part = self.leave_behind(part, &stopped);
            }
            if part.is_empty() {
                continue;
            }
            let mut span = span_of_part.take().unwrap_or_else(|| BatchSpan::begin(&self.shared, &part));
            let fault = match self.attempt(&part, &span).await {
                Ok((account, took)) => {
                    (failures, failures_of_part) = (0, 0);
                    span.committed(account.counts);
                    self.commit(part, &account, took).await;
                    continue;
                }
                Err(fault) => fault,
            };
            span.failed(&fault);
            self.shared.stats.add_store_failure(&fault.code);
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
                    warn!(
                        trace_id = span.trace_id(),
                        "{}; trying again in {:.1} s",
                        fault.error,
                        pause.as_secs_f32()
                    );
                    sleep(pause).await;
                    if failures_of_part < FAILURES_OF_A_WHOLE {
                        parts.push(part);
                        span_of_part = Some(span);
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

    /// One transaction, and how long it took.
    async fn attempt(&mut self, batch: &[Message], span: &BatchSpan) -> Result<(Account, Duration), Fault> {
        let sink = self.connect().await?;
        let start = Instant::now();
        let account = sink.store(batch, Verdict::Commit).await?;
        let (counts, took) = (account.counts, start.elapsed());
        debug!(
            messages = batch.len(),
            bytes = batch.iter().map(Message::size).sum::<usize>(),
            received_before = batch.iter().filter(|m| m.receive_count > 1).count(),
            stored = counts.stored,
            duplicate = counts.duplicate,
            rejected = counts.rejected,
            reasons = (counts.rejected > 0).then(|| account.reasons()),
            seconds = took.as_secs_f64(),
            trace_id = span.trace_id(),
            "batch committed"
        );
        Ok((account, took))
    }

    /// COMMIT was answered.
    async fn commit(&self, batch: Batch, account: &Account, took: Duration) {
        self.refused().clear();
        self.shared.commits.fetch_add(1, Relaxed);
        self.shared.stats.add_committed(&batch, account, took);
        self.shared.answered();
        self.shared.rejected.add(account);
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

    /// Leaves the messages of these groups, and returns the others.
    fn leave_behind(&self, part: Batch, stopped: &HashSet<Arc<str>>) -> Batch {
        let (behind, rest): (Batch, Batch) = part.into_iter().partition(|message| message.is_of(stopped));
        if !behind.is_empty() {
            let messages = behind.len();
            info!(messages, "left in the queue, to keep the order of the message group of one that was left");
            self.leave(&behind);
        }
        rest
    }

    /// Leaves a message to the queue's redrive policy: it comes back when its visibility ends, so many times as the
    /// policy says.
    fn leave_culprit(&self, culprit: &[Message], what: &str, error: &Error) {
        let leases = self.shared.ledger.leases(culprit.iter().map(|message| message.lease));
        let ids: Vec<_> = leases.iter().map(|lease| lease.message_id.as_str()).collect();
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
