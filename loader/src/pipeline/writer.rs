//! A writer: stores one batch after the other in the inbox, and passes committed messages on to be deleted.

mod rejected;
mod shared;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::error::Error;
use crate::inbox::{DbError, Inbox, Retry, Trial, Verdict};
use crate::leases::ledger::LeaseId;
use crate::message::Message;
use crate::pipeline::batcher::Batch;
use crate::pipeline::intake::WriterState;
use crate::pipeline::recovery::{Action, Event, Recovery, Seen};
use crate::telemetry::stats::Account;
use crate::telemetry::trace::BatchSpan;
pub(crate) use rejected::Rejected;
pub(crate) use shared::Shared;

/// Interval at which a writer that waits for a batch pings the database.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
/// Maximum time for the answer to a ping.
pub(crate) const PING_TIME: Duration = Duration::from_secs(5);

/// Stores batches over one connection.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    /// The connection. It is made when there is something to store, and again when it is lost.
    pub(crate) inbox: Option<Inbox>,
    /// Whether there was a connection before.
    pub(crate) had_connection: bool,
    /// Whether this writer can store. `None` until it has tried.
    pub(crate) state: Option<WriterState>,
    /// Passes committed messages on to the deleter.
    pub(crate) committed: Sender<Vec<LeaseId>>,
}

impl Writer {
    /// Stores batches until there are no more. Leases are passed on to the deleter only here, after COMMIT was
    /// answered.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            let Some(batch) = self.wait().await else { break };
            self.store(batch).await?;
            // Only `Action::GiveUp` ends a store without a connection. The other writers may have one.
            if self.inbox.is_none() && self.shared.shutdown.is_stopping() {
                break;
            }
            // Closed if deleting has failed for good. Receiving is then being stopped, and nothing more should be
            // stored.
            if self.committed.is_closed() {
                break;
            }
        }
        self.shared.rejected.tell();
        if let Some(inbox) = self.inbox {
            inbox.close().await;
        }
        Ok(())
    }

    /// Waits for a batch, and checks meanwhile that the database is still there. Monitoring must see a lost connection,
    /// and the first batch after a quiet night must not be what finds it out.
    async fn wait(&mut self) -> Option<Batch> {
        let shared = Arc::clone(&self.shared);
        // The other writers wait for the lock. They notice a lost connection when they have a batch.
        let mut batches = shared.batches.lock().await;
        loop {
            let ping = async {
                sleep(PING_EVERY).await;
                self.ping().await;
            };
            // Dropping either future loses nothing: a message stays in the channel, and the answer to a ping is
            // ignored.
            tokio::select! {
                biased;
                batch = batches.recv() => return batch,
                () = ping => shared.rejected.tell_if_due(),
            }
        }
    }

    /// Checks whether the database answers, on a new connection if it doesn't on the old one. No answer is not a
    /// batch's failure yet.
    async fn ping(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            match inbox.ping(PING_TIME).await {
                Ok(()) => return self.shared.answered(),
                Err(error) => {
                    self.inbox = None;
                    self.shared.note_silence(&error);
                }
            }
        }
        match self.connect().await {
            Ok(_) => {}
            Err(fault) if fault.retry == Retry::AfterSetup => self.shared.setup_failed(&fault),
            Err(fault) => self.shared.note_silence(&fault.error),
        }
    }

    /// Returns the connection. Makes one if there is none, or if it is lost.
    async fn connect(&mut self) -> Result<&mut Inbox, DbError> {
        if self.inbox.as_ref().is_some_and(Inbox::is_lost) {
            self.inbox = None;
        }
        if self.inbox.is_none() {
            let opened = tokio::select! {
                opened = self.open() => opened,
                fault = self.shared.too_late() => Err(fault),
            };
            let intake = &self.shared.intake;
            // A lost connection doesn't close the intake, because a restart of the server takes seconds.
            self.state = match &opened {
                Ok(_) => Some(intake.can_store()),
                Err(fault) if fault.retry == Retry::AfterSetup => Some(intake.cannot_store()),
                Err(_) => None,
            };
            let inbox = opened?;
            self.shared.stats.add_connection(self.had_connection);
            self.shared.answered();
            self.had_connection = true;
            self.inbox = Some(inbox);
        }
        self.inbox.as_mut().ok_or_else(DbError::no_connection)
    }

    /// Makes a connection, and tries whether its inbox takes events. A fault here isn't caused by a message.
    async fn open(&self) -> Result<Inbox, DbError> {
        let open = async {
            let mut inbox = self.shared.database.open(&mut Vec::new()).await?;
            inbox.trial().await?;
            Ok(inbox)
        };
        open.await.map_err(|fault: DbError| match fault.retry {
            Retry::Never if matches!(fault.error, Error::Replaced { .. }) => fault,
            Retry::Never => DbError { retry: Retry::AfterSetup, ..fault },
            // A pooler refuses a login with any SQLSTATE.
            Retry::Bisect => DbError { retry: Retry::Reconnect, ..fault },
            Retry::Reconnect | Retry::Later | Retry::AfterSetup => fault,
        })
    }

    /// Has the database try a row. Makes a connection first if there is none.
    async fn trial(&mut self) -> Result<Trial, DbError> {
        let tried = self.connect().await?.trial().await;
        if let Err(fault) = &tried
            && fault.retry == Retry::Reconnect
        {
            self.inbox = None;
        }
        tried
    }

    /// Stores a batch, with as many attempts as that takes. Performs what `Recovery` decides.
    async fn store(&mut self, batch: Batch) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let mut recovery = Recovery::new(batch, shared.patience, shared.stored.load(Relaxed));
        // Span of the part that was tried last.
        let mut span: Option<BatchSpan> = None;
        let mut event = Event::Done;
        loop {
            let seen = Seen { stored: shared.stored.load(Relaxed), stopping: shared.shutdown.is_stopping() };
            let action = recovery.next(std::mem::replace(&mut event, Event::Done), seen);
            match action {
                Action::Store { part, unchanged } => {
                    let last = span.take().filter(|_| unchanged);
                    let begun = last.unwrap_or_else(|| shared.begin_span(&part));
                    (event, span) = self.store_part(part, begun).await;
                }
                Action::Try => event = Event::Tried(self.trial().await),
                Action::TakeBatch => event = Event::Taken(shared.next_batch()),
                Action::Retry { pause, error } => {
                    let (time, trace_id) = (pause.time(), span.as_ref().and_then(BatchSpan::trace_id));
                    warn!(trace_id, "{error}; trying again in {:.1} s", time.as_secs_f32());
                    shared.pause(time).await;
                }
                Action::Wait(pause) => shared.pause(pause.time()).await,
                Action::Able => self.state = Some(shared.intake.can_store()),
                Action::SetupFailed(fault) => {
                    self.state = Some(shared.intake.cannot_store());
                    shared.setup_failed(&fault);
                }
                Action::AllRefused(error) => {
                    span = None;
                    self.set_blocked(&error);
                }
                Action::SetupMended => {
                    self.state = Some(shared.intake.can_store());
                    shared.answered();
                    info!("the database takes events again");
                }
                Action::Bisecting { messages, error } => {
                    debug!(messages, "{error}; bisecting the batch to find the culprit");
                }
                Action::LeaveCulprit { part, offence, error } => shared.leave_culprit(&part, offence, &error),
                Action::LeaveBehind(part) => shared.leave_behind(&part),
                Action::GiveUp { parts, error } => {
                    let messages = parts.iter().map(Vec::len).sum::<usize>();
                    warn!(messages, "{error}; the run ends, so they are given back");
                }
                Action::Fail(error) => return Err(error),
                Action::Finish => return Ok(()),
            }
        }
    }

    /// Tries to store a part. Returns its span unless it was committed.
    async fn store_part(&mut self, part: Batch, mut span: BatchSpan) -> (Event<Message>, Option<BatchSpan>) {
        match self.attempt(&part, &span).await {
            Ok((account, took)) => {
                span.committed(account.counts);
                self.commit(part, &account, took).await;
                (Event::Committed, None)
            }
            Err(fault) => {
                span.failed(&fault.code, &fault.error);
                self.shared.stats.add_store_failure(&fault.code);
                let connected = self.inbox.is_some();
                if fault.retry == Retry::Reconnect {
                    self.inbox = None;
                    self.state = None;
                }
                (Event::Failed { part, fault, connected }, Some(span))
            }
        }
    }

    /// Records that nothing can be stored until the set-up is mended.
    fn set_blocked(&mut self, error: &Error) {
        self.state = Some(self.shared.intake.cannot_store());
        self.shared.log_setup(error);
    }

    /// Runs one transaction. Returns its account and how long it took.
    async fn attempt(&mut self, batch: &[Message], span: &BatchSpan) -> Result<(Account, Duration), DbError> {
        let inbox = self.connect().await?;
        let start = Instant::now();
        let account = inbox.store(batch, Verdict::Commit).await?;
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

    /// Counts a batch whose COMMIT was answered, and passes its leases on to the deleter.
    async fn commit(&mut self, batch: Batch, account: &Account, took: Duration) {
        self.state = Some(self.shared.intake.can_store());
        if account.counts.stored > 0 {
            self.shared.stored.fetch_add(1, Relaxed);
        }
        let now = SystemTime::now();
        self.shared.stats.add_committed(batch.iter().map(|message| message.age(now)), account, took);
        self.shared.answered();
        self.shared.rejected.add(account);
        let leases: Vec<LeaseId> = batch.iter().map(|message| message.lease).collect();
        drop(batch);
        self.shared.ledger.commit(&leases);
        // If deleting has failed for good, the end of the run releases what is not deleted.
        _ = self.committed.send(leases).await;
    }
}
