//! The fate of each message of a batch, for the tests of recovery.

use std::sync::Arc;

use super::{Action, Queued, Recovery};
use crate::error::Error;
use crate::inbox::{DbError, Retry};
use crate::leases::ledger::LeaseId;

/// Way in which the database treats a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Stores it, if nothing else is at fault.
    Good,
    /// Refuses it, and each transaction with it.
    Refused,
    /// Ends the session over it.
    Crashing,
}

/// A message of a test. An earlier message has a lower number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ModelMessage {
    lease: LeaseId,
    pub(super) kind: Kind,
    group: Option<Arc<str>>,
}

impl Queued for ModelMessage {
    fn lease(&self) -> LeaseId {
        self.lease
    }

    fn group(&self) -> Option<&Arc<str>> {
        self.group.as_ref()
    }
}

/// Makes messages of these kinds and groups, numbered from `first`.
pub(super) fn messages(first: u64, of: &[(Kind, Option<&str>)]) -> Vec<ModelMessage> {
    let message = |(number, &(kind, group)): (u64, &(Kind, Option<&str>))| ModelMessage {
        lease: LeaseId::numbered(number),
        kind,
        group: group.map(Arc::from),
    };
    (first..).zip(of).map(message).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Undecided,
    Committed,
    /// Left in the queue as a culprit.
    Left,
    /// Left in the queue behind a culprit of its group.
    Behind,
    GivenUp,
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wrong {
    /// A message was decided about twice.
    Doubled,
    /// A message was committed before an earlier one of its group, or after an earlier one was left.
    Overtaken,
    /// A message was left behind no culprit.
    BehindNone,
}

/// The messages of a batch, each with its fate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fates {
    all: Vec<(ModelMessage, Fate)>,
    /// The first rule that was broken.
    pub(super) wrong: Option<Wrong>,
}

impl Fates {
    pub(super) fn new(batch: &[ModelMessage]) -> Self {
        let mut fates = Self { all: Vec::new(), wrong: None };
        fates.add(batch);
        fates
    }

    /// Adds another batch.
    pub(super) fn add(&mut self, batch: &[ModelMessage]) {
        self.all.extend(batch.iter().map(|message| (message.clone(), Fate::Undecided)));
    }

    /// Records what became of a part, in its order.
    pub(super) fn decide(&mut self, part: &[ModelMessage], fate: Fate) {
        for message in part {
            let earlier = |(other, _): &&(ModelMessage, Fate)| {
                message.group.is_some() && other.group == message.group && other.lease < message.lease
            };
            let before = || self.all.iter().filter(earlier).map(|(_, fate)| *fate);
            let wrong = if self.of(message) != Some(Fate::Undecided) {
                Some(Wrong::Doubled)
            } else if fate == Fate::Committed && before().any(|fate| fate != Fate::Committed) {
                Some(Wrong::Overtaken)
            } else if fate == Fate::Behind && before().all(|fate| fate != Fate::Left) {
                Some(Wrong::BehindNone)
            } else {
                None
            };
            self.wrong = self.wrong.or(wrong);
            for (_, of) in self.all.iter_mut().filter(|(other, _)| other == message) {
                *of = fate;
            }
        }
    }

    fn of(&self, message: &ModelMessage) -> Option<Fate> {
        self.all.iter().find(|(other, _)| other == message).map(|(_, fate)| *fate)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Kind, Fate)> {
        self.all.iter().map(|(message, fate)| (message.kind, *fate))
    }

    /// Returns how many messages are of this kind and fate.
    pub(super) fn count(&self, of: (Kind, Fate)) -> usize {
        self.all().filter(|one| *one == of).count()
    }

    /// Whether every message is decided about.
    pub(super) fn are_complete(&self) -> bool {
        self.all().all(|(_, fate)| fate != Fate::Undecided)
    }

    /// Whether a good message was left as a culprit.
    pub(super) fn blame_a_good_message(&self) -> bool {
        self.all().any(|of| of == (Kind::Good, Fate::Left))
    }

    /// Whether recovery, and the action that is being performed, have the messages without a fate, each of them once.
    pub(super) fn is_rest(&self, recovery: &Recovery<ModelMessage>, action: &Action<ModelMessage>) -> bool {
        let Recovery { parts, doubtful, behind, decided, .. } = recovery;
        let doubtful = doubtful.iter().map(|suspicion| &suspicion.part);
        let kept = parts.iter().chain(doubtful).chain(behind).flatten();
        let acted = decided.iter().chain([action]).flat_map(messages_of);
        let mut rest: Vec<_> = kept.chain(acted).collect();
        rest.sort_unstable();
        let mut undecided: Vec<_> =
            self.all.iter().filter(|of| of.1 == Fate::Undecided).map(|of| &of.0).collect();
        undecided.sort_unstable();
        rest == undecided
    }
}

fn messages_of(action: &Action<ModelMessage>) -> Vec<&ModelMessage> {
    match action {
        Action::Store { part, .. } | Action::LeaveCulprit { part, .. } | Action::LeaveBehind(part) => {
            part.iter().collect()
        }
        Action::GiveUp { parts, .. } => parts.iter().flatten().collect(),
        _ => Vec::new(),
    }
}

/// Returns a fault of this kind. With the code of a full disk, no message can be its cause.
pub(super) fn fault(retry: Retry, code: &str) -> DbError {
    DbError { retry, error: Error::Database(String::new()), code: code.to_owned() }
}

/// Returns the fault of the first message in a part that the database doesn't store.
pub(super) fn fault_of(part: &[ModelMessage]) -> Option<DbError> {
    part.iter().find_map(|message| match message.kind {
        Kind::Good => None,
        Kind::Refused => Some(fault(Retry::Bisect, "")),
        Kind::Crashing => Some(fault(Retry::Reconnect, "")),
    })
}
