//! Every order of events, as far as a small world has room for them: a queue, two loaders and a database.
//!
//! The loaders decide by the real `Term`, over a clock of a few ticks. Everything else is as bad as it may be:
//!
//! - A loader may be killed at any time, or stop and make visible again what it holds. It starts anew at once.
//! - An answer of SQS may be lost, and so may a request. One that was given up may still arrive, by its limit.
//! - A receipt of an earlier delivery may still delete and extend, as on standard queues, or be refused.
//! - The connection to the database may be lost at any time. A transaction that nobody waits for any more may still
//!   be committed where COMMIT was sent, and until it has ended its rows make others wait.
//! - The server may crash at any time, or refuse a transaction. What is committed survives, and nothing else.
//!
//! There is no limit on how often. What is bounded is time and how often a message is delivered.
//!
//! What it takes for granted is in `Flaw`: with each of these something goes wrong, and the checks show what. That
//! nothing is lost and nothing is doubled holds even where deletes arrive late. That no delete takes away what someone
//! else has by then does not.
//!
//! Left out:
//!
//! - Extensions that arrive after they were given up: all that they do is hide a message for longer.
//! - That calls take time between SQS's doing them and the answer. A lease is counted from before the call, so that
//!   it is shortest, compared to what SQS hides, where the two coincide.
//! - Messages that the database refuses by themselves, and SQS's dead-letter queue: `intake::model` has these.
//! - That a delete is tried once more after its lease. To the queue it is a late delete.

mod checks;
mod events;
mod steps;

use std::collections::BTreeSet;

use super::Term;

/// For how long a message is hidden, in ticks.
const VISIBILITY: u8 = 2;

/// How the world is to be.
#[derive(Clone, Copy, Debug)]
struct World {
    messages: usize,
    /// The last tick.
    end: u8,
    /// How often a message is delivered at most.
    deliveries: u8,
    flaw: Flaw,
}

/// What is not as the promise needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// A delete may arrive after the loader broke it off at the end of the lease, SQS may hand out a message that is
    /// hidden or deleted, as it says of standard queues, and a loader that stops does not wait for its deletes.
    Late,
    /// The loader deletes what an unanswered COMMIT was to store.
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
    /// In the order that `Ord` gives them: which is which makes no difference.
    loaders: Vec<Loader>,
    /// Transactions whose connection is gone, and which the server has not ended yet.
    orphans: BTreeSet<Orphan>,
    /// Deletes that nobody waits for any more, and which may still arrive.
    strays: BTreeSet<Stray>,
    wrong: Wrong,
}

/// What must never happen. Noted by itself, not by what `Term` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Wrong {
    /// A delete was sent for what had lapsed, or whose own COMMIT had not been answered.
    sent: bool,
    /// A delete took away what had been handed out anew meanwhile.
    stale: bool,
}

/// A message, in the queue and in the inbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Message {
    hidden_until: u8,
    /// How often it was handed out: the number of its newest receipt.
    deliveries: u8,
    deleted: bool,
    /// Committed rows.
    rows: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Loader {
    deliveries: Vec<Delivery>,
    transaction: Option<Transaction>,
}

/// One delivery of a message that a loader still has something to do with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Delivery {
    message: usize,
    receipt: u8,
    stage: Stage,
    /// As in the ledger: none once it is struck out there.
    term: Option<Term<u8>>,
    /// When the extension that is on its way was sent.
    extend: Option<u8>,
    /// When the delete that is on its way is broken off.
    delete: Option<u8>,
    seen: Seen,
}

/// What is true of a delivery, whatever its `Term` says.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Seen {
    /// Until when SQS is known to hide the message for it.
    until: u8,
    /// COMMIT of its own transaction was answered.
    answered: bool,
    /// A COMMIT that stored it went unanswered.
    unanswered: bool,
}

/// How far through the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    Waiting,
    Writing,
    /// With the deleter.
    Stored,
}

/// A transaction, as the server sees it. Sets of messages are bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Transaction {
    step: Step,
    /// Those that COPY has come to.
    accounted: u8,
    /// Those of them that were not there yet.
    inserted: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    #[default]
    Copying,
    /// COMMIT was sent.
    Committing,
    /// It has happened, and the answer is on its way.
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Orphan {
    inserted: u8,
    /// COMMIT was sent.
    committing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stray {
    message: usize,
    receipt: u8,
    /// It does not arrive from then on.
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
            wrong: Wrong::default(),
        }
    }
}

impl Loader {
    /// What the transaction is to store.
    fn batch(&self) -> u8 {
        self.deliveries.iter().filter(|d| d.stage == Stage::Writing).fold(0, |set, d| set | 1 << d.message)
    }

    /// Moves the batch on, or back to be tried again.
    fn end_transaction(&mut self, stage: Stage) {
        self.transaction = None;
        for delivery in self.deliveries.iter_mut().filter(|d| d.stage == Stage::Writing) {
            delivery.stage = stage;
        }
    }
}
