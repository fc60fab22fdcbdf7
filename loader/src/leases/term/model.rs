//! Model of the leases: runs every order of events in a small world of one queue, two loaders and a database.
//!
//! The loaders decide with the real `Term`, over a clock of a few ticks. Everything else behaves as badly as it can:
//!
//! - A loader may be killed at any time, or stop and make visible again what it holds. It restarts at once.
//! - An answer from SQS may be lost, and so may a request. A request that was given up may still arrive, by its limit.
//! - A receipt of an earlier delivery may still delete and extend, as on standard queues, or be refused.
//! - The connection to the database may be lost at any time. A transaction that nobody waits for any more may still be
//!   committed if COMMIT was sent. Until it has ended, its rows make others wait.
//! - The server may crash at any time, or refuse a transaction. Only what is committed survives.
//!
//! These events may happen any number of times. Only the time and the number of deliveries per message are limited.
//!
//! `Flaw` lists the assumptions. With each flaw something goes wrong, and the checks show what. If deletes arrive late,
//! still nothing is lost and nothing is stored twice. But a late delete can take away a message that someone else has
//! by then.
//!
//! Left out:
//!
//! - Extensions that arrive after they were given up: they only hide a message for longer.
//! - The time between SQS's handling of a call and the answer. A lease is counted from before the call. So it is shortest,
//!   compared to the time that SQS hides the message, if the two coincide.
//! - Poison messages, which the database refuses, and SQS's dead-letter queue: `intake::model` has these.
//! - The one retry of a delete after its lease. To the queue it is a late delete.

mod checks;
mod events;
mod steps;

use std::collections::BTreeSet;

use super::Term;

/// Time for which a message is hidden, in ticks.
const VISIBILITY: u8 = 2;

/// Parameters of a world.
#[derive(Clone, Copy, Debug)]
struct World {
    messages: usize,
    /// The last tick.
    end: u8,
    /// Maximum deliveries of a message.
    deliveries: u8,
    flaw: Flaw,
}

/// Violation of an assumption that the promise needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A delete may arrive after the loader canceled it at the end of the lease. SQS may hand out a message that is
    /// hidden or deleted, as its documentation says of standard queues. A loader that stops does not wait for its
    /// deletes.
    DeleteAfterLease,
    /// The loader deletes messages whose COMMIT went unanswered.
    Unanswered,
    /// The lease is counted from after the receive call, which took a tick.
    CountedFromAnswer,
    /// The inbox has no unique key.
    NoKey,
    /// The database answers COMMIT before it is on disk.
    Asynchronous,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    queue: Vec<Message>,
    /// In the order of `Ord`, because it makes no difference which loader is which.
    loaders: Vec<Loader>,
    /// Transactions whose connection is gone, but which the server has not ended yet.
    orphans: BTreeSet<Orphan>,
    /// Deletes that nobody waits for any more, but which may still arrive.
    strays: BTreeSet<Stray>,
    wrong: Violations,
}

/// Violations of the promise. They are recorded independently of `Term`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Violations {
    /// A delete was sent for a delivery whose lease had expired, or whose own COMMIT had not been answered.
    sent: bool,
    /// A delete took away a message that had been handed out again meanwhile.
    stale: bool,
}

/// A message, in the queue and in the inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Message {
    hidden_until: u8,
    /// Number of times it was handed out, which is also the number of its newest receipt.
    deliveries: u8,
    deleted: bool,
    /// Number of committed rows.
    rows: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Loader {
    deliveries: Vec<Delivery>,
    transaction: Option<Transaction>,
}

/// A delivery of a message that a loader still has work for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Delivery {
    message: usize,
    receipt: u8,
    stage: Stage,
    /// The lease in the ledger. `None` once it is removed there.
    term: Option<Term<u8>>,
    /// Time when the extension in flight was sent.
    extend: Option<u8>,
    /// Time when the delete in flight is canceled.
    delete: Option<u8>,
    seen: Seen,
}

/// Facts about a delivery, recorded independently of its `Term`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Seen {
    /// Time until which SQS is known to hide the message for it.
    until: u8,
    /// Whether COMMIT of its own transaction was answered.
    answered: bool,
    /// Whether a COMMIT that stored it went unanswered.
    unanswered: bool,
}

/// Stage in the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Waiting,
    Writing,
    /// The deleter has it.
    Stored,
}

/// A transaction, as the server sees it. Sets of messages are bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Transaction {
    step: Step,
    /// Messages that COPY has reached.
    accounted: u8,
    /// Messages among them that had no row yet.
    inserted: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    #[default]
    Copying,
    /// COMMIT was sent.
    Committing,
    /// COMMIT has happened, and the answer is in flight.
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Orphan {
    inserted: u8,
    /// Whether COMMIT was sent.
    committing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stray {
    message: usize,
    receipt: u8,
    /// Tick from which it can't arrive any more.
    limit: u8,
}

impl Ord for Delivery {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |d: &Self| {
            let term = d.term.map(|term| (term.until(), term.committed));
            (d.message, d.receipt, d.stage, term, d.extend, d.delete, d.seen.clone())
        };
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Delivery {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl World {
    fn start(self) -> State {
        State {
            now: 0,
            queue: vec![Message::default(); self.messages],
            loaders: vec![Loader::default(); 2],
            orphans: BTreeSet::new(),
            strays: BTreeSet::new(),
            wrong: Violations::default(),
        }
    }
}

impl Loader {
    /// Returns the messages that the transaction should store.
    fn batch(&self) -> u8 {
        self.deliveries.iter().filter(|d| d.stage == Stage::Writing).fold(0, |set, d| set | 1 << d.message)
    }

    /// Moves the batch on, or back for a retry.
    fn end_transaction(&mut self, stage: Stage) {
        self.transaction = None;
        for delivery in self.deliveries.iter_mut().filter(|d| d.stage == Stage::Writing) {
            delivery.stage = stage;
        }
    }
}
