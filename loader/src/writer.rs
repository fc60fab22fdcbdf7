//! A writer: one batch after the other goes into the inbox, and what is committed goes on to be deleted.

mod rejected;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::backoff::{self, Patience};
use crate::collector::Batch;
use crate::config::Target;
use crate::error::Error;
use crate::finding::Finding;
use crate::intake::{Intake, Standing};
use crate::ledger::{LeaseId, Ledger};
use crate::message::Message;
use crate::postgres::Servers;
use crate::shutdown::Shutdown;
use crate::sink::{Fault, Kind, KnownInbox, Sink, Trial, Verdict};
use crate::stats::{Account, Stats};
use crate::trace::BatchSpan;
pub(crate) use rejected::Rejected;

/// The pause before a batch is tried again, and what it grows to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The pause before the next trial while the set-up is at fault, and its maximum.
const SETUP_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// The least time between two log lines about the set-up.
const SETUP_LOGGED_EVERY: Duration = Duration::from_mins(1);
/// After so many failures in the middle of it, a batch is halved, too: it may be too much for its time limit, or one
/// message of it may bring the server down.
const FAILURES_OF_A_WHOLE: u32 = 3;
/// How long a run that ends waits for a connection.
const LAST_CONNECT: Duration = Duration::from_secs(3);
/// How often a writer that waits for a batch looks whether the database is still there.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
/// How long an answer to that may take.
pub(crate) const PING_TIME: Duration = Duration::from_secs(5);

/// Where and how to store.
pub(crate) struct Database {
    pub(crate) servers: Servers,
    pub(crate) inbox: String,
    /// The view that it was at the first connection.
    pub(crate) known: KnownInbox,
    /// How long a batch may take.
    pub(crate) limit: Duration,
}

impl Database {
    /// What options and environment name, without asking it.
    pub(crate) fn of(target: &Target, limit: Duration) -> Result<Self, Error> {
        let known = KnownInbox::default();
        Ok(Self { servers: target.servers()?, inbox: target.inbox.clone(), known, limit })
    }

    /// Connects. What is found about the database goes to `findings`.
    pub(crate) async fn open(&self, findings: &mut Vec<Finding>) -> Result<Sink, Fault> {
        Sink::open(self, findings).await
    }
}

/// What all writers share.
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) patience: Patience,
    pub(crate) batches: Mutex<Receiver<Batch>>,
    /// Batches so far of which a row was stored.
    pub(crate) stored: AtomicU64,
    /// Closed while no writer can store.
    pub(crate) intake: Intake,
    /// When the set-up was last found at fault in the log.
    pub(crate) setup_logged: std::sync::Mutex<Option<Instant>>,
    /// What is yet to be told of rejects.
    pub(crate) rejected: Rejected,
    /// Whether the database did not answer when it was last looked for.
    pub(crate) silent: AtomicBool,
    pub(crate) shutdown: Shutdown,
}

impl Shared {
    /// The database answered a writer.
    fn answered(&self) {
        self.stats.pulse.beat();
        if self.silent.swap(false, Relaxed) {
            info!("the database answers again");
        }
    }

    /// Logs that the set-up is at fault, for all writers together.
    fn log_setup(&self, error: &Error) {
        let mut logged = self.setup_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() >= SETUP_LOGGED_EVERY) {
            *logged = Some(Instant::now());
            warn!("{error}; nothing is received until the database takes events again");
        }
    }

    /// Pauses before another try. The beginning of a stop ends the pause: the next try decides.
    async fn pause(&self, time: Duration) {
        if self.shutdown.is_stopping() {
            sleep(time).await;
        } else {
            self.shutdown.sleep(time).await;
        }
    }

    /// Resolves when a run that ends waits for a connection no longer.
    async fn too_late(&self) -> Fault {
        self.shutdown.stopping().await;
        sleep(LAST_CONNECT).await;
        let text = format!("no connection within {} s of the end", LAST_CONNECT.as_secs());
        Fault { kind: Kind::Connection, error: Error::Database(text), code: "timeout".into() }
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
    /// Whether this writer can store, once it has tried.
    pub(crate) standing: Option<Standing>,
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
            // Only `give_up` ends a store without a connection. The other writers may have one.
            if self.sink.is_none() && self.shared.shutdown.is_stopping() {
                break;
            }
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

    /// Returns the connection. Makes one if there is none, or if it is lost.
    async fn connect(&mut self) -> Result<&mut Sink, Fault> {
        if self.sink.as_ref().is_some_and(Sink::is_lost) {
            self.sink = None;
        }
        if self.sink.is_none() {
            let opened = tokio::select! {
                opened = self.open() => opened,
                fault = self.shared.too_late() => Err(fault),
            };
            let intake = &self.shared.intake;
            // A lost connection closes no intake: a restart of the server takes seconds.
            self.standing = match &opened {
                Ok(_) => Some(intake.able()),
                Err(fault) if fault.kind == Kind::Setup => Some(intake.blocked()),
                Err(_) => None,
            };
            let sink = opened?;
            self.shared.stats.add_connection(self.had_connection);
            self.shared.answered();
            self.had_connection = true;
            self.sink = Some(sink);
        }
        self.sink.as_mut().ok_or_else(Fault::no_connection)
    }

    /// Makes a connection, and tries whether its inbox takes events. No message is the cause of a fault here.
    async fn open(&self) -> Result<Sink, Fault> {
        let open = async {
            let mut sink = self.shared.database.open(&mut Vec::new()).await?;
            sink.trial().await?;
            Ok(sink)
        };
        open.await.map_err(|fault: Fault| match fault.kind {
            Kind::Final if matches!(fault.error, Error::Replaced { .. }) => fault,
            Kind::Final => Fault { kind: Kind::Setup, ..fault },
            // A pooler refuses a login with any SQLSTATE.
            Kind::Refused => Fault { kind: Kind::Connection, ..fault },
            Kind::Connection | Kind::Passing | Kind::Setup => fault,
        })
    }

    /// Has the database try a row. Makes a connection for that if there is none.
    async fn trial(&mut self) -> Result<Trial, Fault> {
        let tried = self.connect().await?.trial().await;
        if let Err(fault) = &tried
            && fault.kind == Kind::Connection
        {
            self.sink = None;
        }
        tried
    }

    /// Waits until the database takes events. A run that ends by itself ends here, and one that is stopped gives up.
    async fn wait_for_setup(&mut self, mut fault: Fault, recovery: &mut Recovery) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            if fault.kind == Kind::Final || self.shared.patience != Patience::Endless {
                return Err(fault.error);
            }
            self.shared.stats.add_trial_failure(&fault.code);
            self.standing = Some(self.shared.intake.blocked());
            self.shared.log_setup(&fault.error);
            if self.shared.shutdown.is_stopping() {
                recovery.parts.append(&mut recovery.doubtful);
                Self::give_up(&std::mem::take(&mut recovery.parts), &fault.error);
                return Ok(());
            }
            self.shared.pause(backoff::delay(tries, SETUP_PAUSE.0, SETUP_PAUSE.1)).await;
            tries += 1;
            match self.trial().await {
                Ok(_) => {
                    self.standing = Some(self.shared.intake.able());
                    self.shared.answered();
                    info!("the database takes events again");
                    return Ok(());
                }
                Err(next) => fault = next,
            }
        }
    }

    /// Stores a batch, however often that takes.
    async fn store(&mut self, batch: Batch) -> Result<(), Error> {
        let mut recovery = Recovery::new(batch, self.shared.stored.load(Relaxed));
        let mut failures_of_part = 0;
        // Of a part that is tried again as it is.
        let mut span_of_part = None;
        loop {
            let Some(mut part) = recovery.parts.pop() else {
                if self.is_recovered(&mut recovery).await? {
                    return Ok(());
                }
                continue;
            };
            if !recovery.stopped.is_empty() {
                part = self.leave_behind(part, &recovery.stopped);
            }
            if part.is_empty() {
                continue;
            }
            let mut span = span_of_part.take().unwrap_or_else(|| BatchSpan::begin(&self.shared, &part));
            let fault = match self.attempt(&part, &span).await {
                Ok((account, took)) => {
                    (recovery.failures, failures_of_part) = (0, 0);
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
                Kind::Setup => {
                    recovery.parts.push(part);
                    self.wait_for_setup(fault, &mut recovery).await?;
                }
                Kind::Refused => {
                    failures_of_part = 0;
                    self.find_culprit(part, fault, &mut recovery, &span).await?;
                }
                Kind::Connection | Kind::Passing => {
                    if self.sink.is_none() && self.shared.shutdown.is_stopping() {
                        recovery.parts.push(part);
                        recovery.parts.append(&mut recovery.doubtful);
                        Self::give_up(&recovery.parts, &fault.error);
                        return Ok(());
                    }
                    if fault.kind == Kind::Connection {
                        self.sink = None;
                        self.standing = None;
                    }
                    self.pause(&fault, &mut recovery.failures, &span).await?;
                    if failures_of_part < FAILURES_OF_A_WHOLE {
                        recovery.parts.push(part);
                        span_of_part = Some(span);
                        continue;
                    }
                    failures_of_part = 0;
                    self.after_failures(part, &fault, &mut recovery).await;
                }
            }
        }
    }

    /// Decides about a part that the database refuses, by a trial: the set-up is at fault, or the part is bisected until the
    /// culprit is alone.
    async fn find_culprit(
        &mut self,
        part: Batch,
        refusal: Fault,
        recovery: &mut Recovery,
        span: &BatchSpan,
    ) -> Result<(), Error> {
        match self.trial().await {
            Err(fault) => {
                recovery.parts.push(part);
                match fault.kind {
                    Kind::Connection | Kind::Passing => {
                        self.pause(&fault, &mut recovery.failures, span).await?;
                    }
                    Kind::Refused | Kind::Setup | Kind::Final => self.wait_for_setup(fault, recovery).await?,
                }
            }
            Ok(_) if part.len() > 1 => {
                debug!(messages = part.len(), "{}; bisecting the batch to find the culprit", refusal.error);
                halve(part, &mut recovery.parts);
            }
            Ok(Trial::Stored) => {
                self.standing = Some(self.shared.intake.able());
                self.leave_if_suspected(part, recovery, &refusal.error);
            }
            Ok(Trial::Refused) => {
                recovery.doubtful.push(part);
                recovery.refusal = Some(refusal.error);
            }
        }
        Ok(())
    }

    /// Decides about a part over which the connection was lost, or the server failed, again and again.
    async fn after_failures(&mut self, part: Batch, fault: &Fault, recovery: &mut Recovery) {
        if part.len() > 1 {
            halve(part, &mut recovery.parts);
        } else if fault.can_be_a_message() && matches!(self.trial().await, Ok(Trial::Stored)) {
            self.leave_culprit(&part, &mut recovery.stopped, FAILS, &fault.error);
        } else {
            // The others first, but for those of its group; and if there are none, the next batch.
            let has_no_group = part.iter().all(|message| message.group.is_none());
            let place = if has_no_group { 0 } else { recovery.parts.len() };
            recovery.parts.insert(place, part);
            recovery.parts.extend(self.next_batch());
        }
    }

    /// Decides about messages that were refused alone while nothing showed that the set-up works, when no other part is left.
    /// If a row was stored since, they are suspected. If not, waits and has them tried again.
    async fn is_recovered(&mut self, recovery: &mut Recovery) -> Result<bool, Error> {
        let Some(error) = recovery.refusal.take() else { return Ok(true) };
        let doubtful = std::mem::take(&mut recovery.doubtful);
        let stored = self.shared.stored.load(Relaxed);
        if stored > recovery.stored_before {
            self.standing = Some(self.shared.intake.able());
            for part in doubtful.into_iter().rev() {
                self.leave_if_suspected(part, recovery, &error);
            }
            return Ok(recovery.parts.is_empty());
        }
        if self.shared.patience != Patience::Endless {
            return Err(error);
        }
        self.standing = Some(self.shared.intake.blocked());
        self.shared.log_setup(&error);
        if self.shared.shutdown.is_stopping() {
            Self::give_up(&doubtful, &error);
            return Ok(true);
        }
        self.shared.pause(backoff::delay(recovery.rounds, SETUP_PAUSE.0, SETUP_PAUSE.1)).await;
        recovery.rounds += 1;
        recovery.parts.extend(doubtful.into_iter().rev());
        Ok(false)
    }

    /// Waits before a failed part is tried again. A run that ends by itself gives up after some failures.
    async fn pause(&self, fault: &Fault, failures: &mut u32, span: &BatchSpan) -> Result<(), Error> {
        *failures += 1;
        if self.shared.patience.is_over(*failures) {
            return Err(fault.error.clone());
        }
        let pause = backoff::delay(*failures - 1, PAUSE.0, PAUSE.1);
        warn!(trace_id = span.trace_id(), "{}; trying again in {:.1} s", fault.error, pause.as_secs_f32());
        self.shared.pause(pause).await;
        Ok(())
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
    async fn commit(&mut self, batch: Batch, account: &Account, took: Duration) {
        self.standing = Some(self.shared.intake.able());
        if account.counts.stored > 0 {
            self.shared.stored.fetch_add(1, Relaxed);
        }
        self.shared.stats.add_committed(&batch, account, took);
        self.shared.answered();
        self.shared.rejected.add(account);
        let leases: Vec<LeaseId> = batch.iter().map(|message| message.lease).collect();
        drop(batch);
        self.shared.ledger.commit(&leases);
        // What is not deleted, since deleting has failed for good, is released in the end.
        _ = self.committed.send(leases).await;
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

    /// Leaves a message that was refused alone, while the set-up works, for the second time. The first time it is tried
    /// again: the set-up may have been mended between the refusal and the trial.
    fn leave_if_suspected(&self, part: Batch, recovery: &mut Recovery, error: &Error) {
        if recovery.suspects.insert(part[0].lease) {
            recovery.parts.push(part);
        } else {
            self.leave_culprit(&part, &mut recovery.stopped, REFUSES, error);
        }
    }

    /// Leaves a message to the queue's redrive policy: it comes back when its visibility ends, as often as the policy says.
    fn leave_culprit(&self, culprit: &[Message], stopped: &mut HashSet<Arc<str>>, why: &str, error: &Error) {
        stopped.extend(culprit.iter().filter_map(|message| message.group.clone()));
        let leases = self.shared.ledger.leases(culprit.iter().map(|message| message.lease));
        let ids: Vec<_> = leases.iter().map(|lease| lease.message_id.as_str()).collect();
        warn!(
            message_id = ids.join(" "),
            "{why}, which is left to the queue's redrive policy: {error}. Once the cause is mended, drain the dead-letter \
             queue with `loader --drain`. Do not use SQS's redrive: it changes message ids"
        );
        self.leave(culprit);
    }

    /// Leaves what no connection can store to the end of the run, which makes it visible again at once.
    fn give_up(parts: &[Batch], error: &Error) {
        let messages = parts.iter().map(Vec::len).sum::<usize>();
        warn!(messages, "{error}; the run ends, so they are given back");
    }

    fn leave(&self, batch: &[Message]) {
        self.shared.stats.add_left(batch.len());
        for message in batch {
            self.shared.ledger.settle(message.lease);
        }
    }
}

/// A batch whose parts are being stored.
struct Recovery {
    /// Parts that are still to be stored, the next one last.
    parts: Vec<Batch>,
    /// Messages that were refused alone while nothing showed that the set-up works.
    doubtful: Vec<Batch>,
    /// The last error of those.
    refusal: Option<Error>,
    /// Messages that were refused alone, each followed by a sign that the set-up works.
    suspects: HashSet<LeaseId>,
    /// Message groups of which a message was left: a later one must not overtake it.
    stopped: HashSet<Arc<str>>,
    /// Failures in a row.
    failures: u32,
    /// How often `doubtful` was tried.
    rounds: u32,
    /// Batches of which a row was stored, before this one.
    stored_before: u64,
}

impl Recovery {
    fn new(batch: Batch, stored_before: u64) -> Self {
        Self {
            parts: vec![batch],
            doubtful: Vec::new(),
            refusal: None,
            suspects: HashSet::new(),
            stopped: HashSet::new(),
            failures: 0,
            rounds: 0,
            stored_before,
        }
    }
}

/// Log texts for a message that is left.
const REFUSES: &str = "the database can neither store nor reject a message";
const FAILS: &str = "the database fails again and again over a message";

/// Puts both halves back, the first on top.
fn halve(mut part: Batch, parts: &mut Vec<Batch>) {
    let second = part.split_off(part.len() / 2);
    parts.push(second);
    parts.push(part);
}
