//! State that all writers of a run share, and what they log and leave together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;
use tracing::{info, warn};

use super::rejected::Rejected;
use crate::backoff::RetryLimit;
use crate::error::Error;
use crate::inbox::{Database, DbError, Retry};
use crate::leases::ledger::Ledger;
use crate::message::Message;
use crate::pipeline::batcher::Batch;
use crate::pipeline::intake::Intake;
use crate::pipeline::recovery::Offence;
use crate::shutdown::Shutdown;
use crate::telemetry::stats::Stats;
use crate::telemetry::trace::BatchSpan;

/// Minimum time between two log lines about the set-up.
const SETUP_LOGGED_EVERY: Duration = Duration::from_mins(1);
/// Maximum time that an ending run waits for a connection.
const LAST_CONNECT: Duration = Duration::from_secs(3);
/// State that all writers share.
pub(crate) struct Shared {
    pub(crate) database: Database,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) patience: RetryLimit,
    pub(crate) batches: Mutex<Receiver<Batch>>,
    /// Number of batches so far with at least one stored row.
    pub(crate) stored: AtomicU64,
    /// Closed while no writer can store.
    pub(crate) intake: Intake,
    /// Time of the last log line about a fault in the set-up.
    pub(crate) setup_logged: std::sync::Mutex<Option<Instant>>,
    /// Rejects that were not logged yet.
    pub(crate) rejected: Rejected,
    /// Whether the database did not answer the last ping.
    pub(crate) silent: AtomicBool,
    pub(crate) shutdown: Shutdown,
}

impl Shared {
    /// Records that the database answered a writer.
    pub(super) fn answered(&self) {
        self.stats.pulse.beat();
        if self.silent.swap(false, Relaxed) {
            info!("the database answers again");
        }
    }

    /// Counts and logs a fault in the set-up.
    pub(super) fn setup_failed(&self, fault: &DbError) {
        self.stats.add_trial_failure(&fault.code);
        self.log_setup(&fault.error);
    }

    /// Logs a fault in the set-up, for all writers together.
    pub(super) fn log_setup(&self, error: &Error) {
        let mut logged = self.setup_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|logged| logged.elapsed() >= SETUP_LOGGED_EVERY) {
            *logged = Some(Instant::now());
            warn!("{error}; nothing is received until the database takes events again");
        }
    }

    /// Pauses before a retry. The beginning of a stop ends the pause: the next try decides.
    pub(super) async fn pause(&self, time: Duration) {
        if self.shutdown.is_stopping() {
            sleep(time).await;
        } else {
            self.shutdown.sleep(time).await;
        }
    }

    /// Resolves when an ending run no longer waits for a connection.
    pub(super) async fn too_late(&self) -> DbError {
        self.shutdown.stopping().await;
        sleep(LAST_CONNECT).await;
        let text = format!("no connection within {} s of the end", LAST_CONNECT.as_secs());
        DbError { retry: Retry::Reconnect, error: Error::Database(text), code: "timeout".into() }
    }

    pub(super) fn begin_span(&self, part: &[Message]) -> BatchSpan {
        let Database { servers, inbox, .. } = &self.database;
        BatchSpan::begin(servers, inbox, part.len(), || {
            let leases = self.ledger.leases(part.iter().map(|message| message.lease));
            leases.iter().map(|lease| lease.trace.clone()).collect()
        })
    }

    /// Records that the database did not answer an idle writer, which goes on asking. Logged once.
    pub(super) fn note_silence(&self, error: &Error) {
        if !self.silent.swap(true, Relaxed) {
            warn!("{error}; there is nothing to store yet, and the loader goes on asking");
        }
    }

    /// Returns the batch that waits, if there is one.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        self.batches.try_lock().ok()?.try_recv().ok()
    }

    /// Leaves messages in the queue, because an earlier one of their group was left.
    pub(super) fn leave_behind(&self, part: &[Message]) {
        info!(messages = part.len(), "left in the queue to keep the order of their message group");
        self.leave(part);
    }

    /// Leaves a message to the queue's redrive policy. It comes back when its visibility timeout ends, as often as the
    /// policy says.
    pub(super) fn leave_culprit(&self, culprit: &[Message], offence: Offence, error: &Error) {
        let leases = self.ledger.leases(culprit.iter().map(|message| message.lease));
        let ids: Vec<_> = leases.iter().map(|lease| lease.message_id.as_str()).collect();
        let why = match offence {
            Offence::Refused => "the database can neither store nor reject a message",
            Offence::Failing => "the database fails again and again over a message",
        };
        warn!(
            message_id = ids.join(" "),
            "{why}; the message is left to the queue's redrive policy: {error}. Fix the cause, then drain the \
             dead-letter queue with `loader --drain`. Do not use SQS's redrive: it changes message ids"
        );
        self.leave(culprit);
    }

    fn leave(&self, batch: &[Message]) {
        self.stats.add_left(batch.len());
        for message in batch {
            self.ledger.settle(message.lease);
        }
    }
}
