//! Events of a batch, and actions that recovery has the writer perform.

use std::time::Duration;

use crate::backoff;
use crate::error::Error;
use crate::inbox::{DbError, Trial};

/// Result of the last action.
#[derive(Clone, Debug)]
pub(in crate::pipeline) enum Event<M> {
    /// The action is done and has no result. It is the first event, too.
    Done,
    /// COMMIT of the part was answered.
    Committed,
    /// The part was not stored.
    Failed {
        part: Vec<M>,
        fault: DbError,
        /// Whether there was a connection. Without one, the part is not the cause.
        connected: bool,
    },
    /// Result of a trial.
    Tried(Result<Trial, DbError>),
    /// The batch that waited, if there was one. None of its messages belongs to a message group of this batch, because
    /// SQS locks a group until its messages in flight are deleted.
    Taken(Option<Vec<M>>),
}

/// State of the world at an event.
#[derive(Clone, Copy, Debug)]
pub(in crate::pipeline) struct Seen {
    /// Number of batches with a stored row, of all writers.
    pub(in crate::pipeline) stored: u64,
    /// Whether the run is being stopped.
    pub(in crate::pipeline) stopping: bool,
}

/// The next thing to do. Each action is followed by an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::pipeline) enum Action<M> {
    /// Store these messages in one transaction. Answered by `Committed` or `Failed`.
    Store {
        part: Vec<M>,
        /// Whether the last attempt was for these very messages.
        unchanged: bool,
    },
    /// Have the database try a row. Answered by `Tried`.
    Try,
    /// Take the batch that waits. Answered by `Taken`.
    TakeBatch,
    /// Pause before the part is retried.
    Retry { pause: Pause, error: Error },
    /// Pause before the next sign that the set-up works is looked for.
    Wait(Pause),
    /// Record that this writer can store.
    Able,
    /// Record that this writer cannot store: a trial, or a connection, has failed.
    SetupFailed(DbError),
    /// Record that this writer cannot store: each message was refused alone, and nothing shows that the set-up works.
    AllRefused(Error),
    /// Record that this writer can store again: a trial has worked.
    SetupMended,
    /// Record that a part of this many messages is bisected.
    Bisecting { messages: usize, error: Error },
    /// Leave a culprit in the queue.
    LeaveCulprit { part: Vec<M>, offence: Offence, error: Error },
    /// Leave messages in the queue, because an earlier one of their group was left.
    LeaveBehind(Vec<M>),
    /// Give these messages back, because the run ends. `Finish` follows.
    GiveUp { parts: Vec<Vec<M>>, error: Error },
    /// End the run.
    Fail(Error),
    /// Take the next batch. Nothing of this one is left.
    Finish,
}

/// Reason why a message is a culprit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::pipeline) enum Offence {
    /// The database can neither store nor reject it.
    Refused,
    /// The server, or the connection, fails over it.
    Failing,
}

/// Length of a pause. It grows with each attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::pipeline) struct Pause {
    /// Number of earlier pauses for this cause.
    attempt: u32,
    first: Duration,
    most: Duration,
}

impl Pause {
    pub(super) fn new(attempt: u32, (first, most): (Duration, Duration)) -> Self {
        Self { attempt, first, most }
    }

    /// Returns the time to pause, a part of which is random.
    pub(in crate::pipeline) fn time(self) -> Duration {
        backoff::delay(self.attempt, self.first, self.most)
    }
}
