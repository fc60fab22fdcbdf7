//! Recovery: decides what to do about a batch that the database did not store.
//!
//! Either a message is at fault, or the set-up, or the connection. A part that the database refuses is bisected if a
//! trial works, until the culprit is alone. If no trial works, the set-up is at fault, and everything waits. A part
//! during which the connection is lost again and again is halved, too.
//!
//! `Recovery` holds only this policy: no I/O, no clock, no async. A writer performs its actions and tells it what
//! happened. So `model` can run it through every order of events.

mod action;
#[cfg(test)]
mod fates;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::RetryLimit;
use crate::error::Error;
use crate::inbox::{DbError, Retry, Trial};
use crate::leases::ledger::LeaseId;
use crate::message::Message;
use action::Pause;
pub(super) use action::{Action, Event, Offence, Seen};

/// First and maximum pause before a batch is retried.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// First and maximum pause before the next trial while the set-up is at fault.
const SETUP_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Number of failures in the middle of a batch after which it is halved, too. It may be too much for its time limit, or
/// one of its messages may bring the server down.
const FAILURES_OF_A_WHOLE: u32 = 3;

/// A message, as far as recovery looks at it. The tests have messages of their own.
pub(super) trait Queued {
    /// Identifies this delivery.
    fn lease(&self) -> LeaseId;
    /// Message group, if its queue is a FIFO queue.
    fn group(&self) -> Option<&Arc<str>>;
}

impl Queued for Message {
    fn lease(&self) -> LeaseId {
        self.lease
    }

    fn group(&self) -> Option<&Arc<str>> {
        self.group.as_ref()
    }
}

/// Purpose of the action that was returned last. The part that it is about, if any, is the next one in `parts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Purpose {
    #[default]
    None,
    /// A pause before a part is retried, after its failure.
    Retry(DbError),
    /// A trial, to tell whether the set-up or a message is at fault for a refusal.
    Culprit(Error),
    /// A trial, to tell whether a message alone is at fault for failures of the server.
    Failing(Error),
    /// A pause before a trial, while the set-up is at fault, after this many others.
    SetupPause(u32),
    /// A trial, while the set-up is at fault, after this many others.
    Setup(u32),
}

/// A message that failed alone, why, and the last error.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Suspicion<M> {
    part: Vec<M>,
    offence: Offence,
    error: Error,
}

/// A batch whose parts are being stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recovery<M> {
    patience: RetryLimit,
    /// Parts that must still be stored, the next one last.
    parts: Vec<Vec<M>>,
    /// Messages that failed alone while nothing showed that the set-up works.
    doubtful: Vec<Suspicion<M>>,
    /// Message groups with a message in `doubtful`, which a later one must not overtake.
    held: BTreeSet<Arc<str>>,
    /// Later messages of these groups.
    behind: Vec<Vec<M>>,
    /// Messages that failed alone, before a sign that the set-up works.
    suspects: BTreeSet<LeaseId>,
    /// Message groups with a message that was left: a later one must not overtake it.
    stopped: BTreeSet<Arc<str>>,
    /// Failures in a row.
    failures: u32,
    /// Failures in a row of the next part, while there was a connection.
    failures_of_part: u32,
    /// Failures among `failures_of_part` that a message can cause.
    failures_by_message: u32,
    /// Number of times that `doubtful` was tried.
    rounds: u32,
    /// Number of batches with a stored row, before this one.
    stored_before: u64,
    purpose: Purpose,
    /// Whether the next part was just tried.
    unchanged: bool,
    /// Actions that are decided on, the next one first.
    decided: VecDeque<Action<M>>,
}

impl<M: Queued> Recovery<M> {
    /// Begins with a batch that was not tried yet. `stored` is the number of batches with a stored row so far.
    pub(super) fn new(batch: Vec<M>, patience: RetryLimit, stored: u64) -> Self {
        Self {
            patience,
            parts: vec![batch],
            doubtful: Vec::new(),
            held: BTreeSet::new(),
            behind: Vec::new(),
            suspects: BTreeSet::new(),
            stopped: BTreeSet::new(),
            failures: 0,
            failures_of_part: 0,
            failures_by_message: 0,
            rounds: 0,
            stored_before: stored,
            purpose: Purpose::None,
            unchanged: false,
            decided: VecDeque::new(),
        }
    }

    /// Returns what to do after an event. `Finish` and `Fail` are the last actions.
    pub(super) fn next(&mut self, event: Event<M>, seen: Seen) -> Action<M> {
        // An action that isn't the last one decided on has no result.
        if self.decided.is_empty() {
            self.after(event, seen);
        }
        loop {
            if let Some(action) = self.decided.pop_front() {
                return action;
            }
            self.go_on(seen);
        }
    }

    fn after(&mut self, event: Event<M>, seen: Seen) {
        match (event, std::mem::take(&mut self.purpose)) {
            (Event::Committed, _) => {
                self.failures = 0;
                self.forget_failures_of_part();
            }
            (Event::Failed { part, fault, connected }, _) => self.failed(part, fault, connected, seen),
            (Event::Tried(Ok(trial)), Purpose::Culprit(refusal)) => self.find_culprit(trial, refusal),
            (Event::Tried(Err(fault)), Purpose::Culprit(_)) => match fault.retry {
                Retry::Reconnect | Retry::Later => self.pause(&fault),
                Retry::Bisect | Retry::AfterSetup | Retry::Never => self.wait_for_setup(fault, 0, seen),
            },
            (Event::Tried(tried), Purpose::Failing(error)) => match tried {
                Ok(Trial::Stored) => {
                    let part = self.take_part();
                    self.leave_culprit(Suspicion { part, offence: Offence::Failing, error });
                }
                Ok(Trial::Refused) => {
                    let part = self.take_part();
                    self.doubt(Suspicion { part, offence: Offence::Failing, error });
                }
                Err(_) => self.try_others_first(),
            },
            (Event::Tried(Ok(_)), Purpose::Setup(_)) => self.decide(Action::SetupMended),
            (Event::Tried(Err(fault)), Purpose::Setup(tries)) => self.wait_for_setup(fault, tries + 1, seen),
            (Event::Done, Purpose::SetupPause(tries)) => self.ask(Action::Try, Purpose::Setup(tries)),
            (Event::Done, Purpose::Retry(_)) if self.failures_of_part < FAILURES_OF_A_WHOLE => {
                self.unchanged = true;
            }
            (Event::Done, Purpose::Retry(fault)) => self.after_failures(fault),
            (Event::Taken(batch), _) => self.parts.extend(batch),
            // The first event, or an action after which the next part is due.
            (Event::Done | Event::Tried(_), _) => {}
        }
    }

    /// Decides about the next part, or that there is none.
    fn go_on(&mut self, seen: Seen) {
        let unchanged = std::mem::take(&mut self.unchanged);
        let Some(part) = self.parts.pop() else { return self.finish(seen) };
        let (behind, part) = split_off_groups(part, &self.stopped);
        if !behind.is_empty() {
            self.decide(Action::LeaveBehind(behind));
        }
        let (behind, part) = split_off_groups(part, &self.held);
        if !behind.is_empty() {
            self.behind.push(behind);
        }
        if !part.is_empty() {
            self.decide(Action::Store { part, unchanged });
        }
    }

    /// Decides about a part that was not stored.
    fn failed(&mut self, part: Vec<M>, fault: DbError, connected: bool, seen: Seen) {
        self.failures_of_part += u32::from(connected);
        self.failures_by_message += u32::from(connected && fault.can_be_a_message());
        self.parts.push(part);
        match fault.retry {
            Retry::Never => self.decide(Action::Fail(fault.error)),
            Retry::AfterSetup => self.wait_for_setup(fault, 0, seen),
            Retry::Bisect => {
                self.forget_failures_of_part();
                self.ask(Action::Try, Purpose::Culprit(fault.error));
            }
            Retry::Reconnect | Retry::Later if seen.stopping && !connected => self.give_up(fault.error),
            Retry::Reconnect | Retry::Later => {
                self.pause(&fault);
                self.purpose = Purpose::Retry(fault);
            }
        }
    }

    /// Pauses before a failed part is retried. A run that ends by itself fails after some failures.
    fn pause(&mut self, fault: &DbError) {
        self.failures += 1;
        let error = fault.error.clone();
        self.decide(if self.patience.is_over(self.failures) {
            Action::Fail(error)
        } else {
            Action::Retry { pause: Pause::new(self.failures - 1, PAUSE), error }
        });
    }

    /// Waits until the database takes events. A run that ends by itself fails here, and a run that is being stopped
    /// gives up.
    fn wait_for_setup(&mut self, fault: DbError, tries: u32, seen: Seen) {
        if fault.retry == Retry::Never || self.patience != RetryLimit::Endless {
            return self.decide(Action::Fail(fault.error));
        }
        let error = fault.error.clone();
        self.decide(Action::SetupFailed(fault));
        if seen.stopping {
            self.give_up(error);
        } else {
            self.ask(Action::Wait(Pause::new(tries, SETUP_PAUSE)), Purpose::SetupPause(tries));
        }
    }

    /// Decides about a part that the database refuses, after a trial that didn't fail. The part is bisected until the
    /// culprit is alone.
    fn find_culprit(&mut self, trial: Trial, refusal: Error) {
        let part = self.take_part();
        if part.len() > 1 {
            self.decide(Action::Bisecting { messages: part.len(), error: refusal });
            return self.halve(part);
        }
        let suspicion = Suspicion { part, offence: Offence::Refused, error: refusal };
        match trial {
            Trial::Stored => {
                self.decide(Action::Able);
                self.leave_if_suspected(suspicion);
            }
            Trial::Refused => self.doubt(suspicion),
        }
    }

    /// Keeps a message that failed alone until another row is stored, because a trial didn't tell.
    fn doubt(&mut self, suspicion: Suspicion<M>) {
        self.held.extend(suspicion.part.iter().filter_map(Queued::group).cloned());
        self.doubtful.push(suspicion);
    }

    /// Decides about a part during which the connection was lost, or the server failed, again and again.
    fn after_failures(&mut self, fault: DbError) {
        let all_by_message = self.failures_by_message == self.failures_of_part;
        self.forget_failures_of_part();
        let part = self.take_part();
        if part.len() > 1 {
            return self.halve(part);
        }
        self.parts.push(part);
        if all_by_message {
            self.ask(Action::Try, Purpose::Failing(fault.error));
        } else {
            self.try_others_first();
        }
    }

    /// Puts a message off over which the server fails, without a sign that the message is at fault. The other parts go
    /// first, unless the message has a group: they may belong to it. A batch that waits goes first.
    fn try_others_first(&mut self) {
        let part = self.take_part();
        let has_no_group = part.iter().all(|message| message.group().is_none());
        let place = if has_no_group { 0 } else { self.parts.len() };
        self.parts.insert(place, part);
        self.decide(Action::TakeBatch);
    }

    /// Decides about messages that failed alone while nothing showed that the set-up works. Called when no other part is
    /// left. If a row was stored since, they are suspected. If not, waits and has them retried, after the batch that
    /// waits.
    fn finish(&mut self, seen: Seen) {
        let Some(last) = self.doubtful.last() else { return self.decide(Action::Finish) };
        let error = last.error.clone();
        let doubtful = std::mem::take(&mut self.doubtful);
        self.held.clear();
        // Below what is in doubt, so that it goes after it.
        self.parts.extend(std::mem::take(&mut self.behind).into_iter().rev());
        if seen.stored > self.stored_before {
            self.decide(Action::Able);
            for suspicion in doubtful.into_iter().rev() {
                self.leave_if_suspected(suspicion);
            }
            return;
        }
        self.parts.extend(doubtful.into_iter().rev().map(|suspicion| suspicion.part));
        if self.patience != RetryLimit::Endless {
            return self.decide(Action::Fail(error));
        }
        self.decide(Action::AllRefused(error.clone()));
        if seen.stopping {
            return self.give_up(error);
        }
        self.decide(Action::Wait(Pause::new(self.rounds, SETUP_PAUSE)));
        self.rounds += 1;
        self.decide(Action::TakeBatch);
    }

    /// Leaves a message that failed alone, while the set-up works, for the second time. The first time it is retried,
    /// because the set-up may have been mended between the failure and the sign that it works.
    fn leave_if_suspected(&mut self, suspicion: Suspicion<M>) {
        if self.suspects.insert(suspicion.part[0].lease()) {
            self.parts.push(suspicion.part);
        } else {
            self.leave_culprit(suspicion);
        }
    }

    fn leave_culprit(&mut self, Suspicion { part, offence, error }: Suspicion<M>) {
        self.stopped.extend(part.iter().filter_map(Queued::group).cloned());
        self.decide(Action::LeaveCulprit { part, offence, error });
    }

    /// Gives up everything that is not stored, because the run ends and no connection can store it.
    fn give_up(&mut self, error: Error) {
        let mut parts = std::mem::take(&mut self.parts);
        parts.extend(self.doubtful.drain(..).map(|suspicion| suspicion.part));
        parts.append(&mut self.behind);
        self.decide(Action::GiveUp { parts, error });
    }

    fn forget_failures_of_part(&mut self) {
        (self.failures_of_part, self.failures_by_message) = (0, 0);
    }

    /// Puts both halves back, the first one on top.
    fn halve(&mut self, mut part: Vec<M>) {
        let second = part.split_off(part.len() / 2);
        self.parts.push(second);
        self.parts.push(part);
    }

    /// Takes the part that the last action was about.
    fn take_part(&mut self) -> Vec<M> {
        self.parts.pop().unwrap_or_default()
    }

    fn decide(&mut self, action: Action<M>) {
        self.decided.push_back(action);
    }

    fn ask(&mut self, action: Action<M>, purpose: Purpose) {
        self.decide(action);
        self.purpose = purpose;
    }
}

/// Splits a part into the messages of these groups and the others.
fn split_off_groups<M: Queued>(part: Vec<M>, groups: &BTreeSet<Arc<str>>) -> (Vec<M>, Vec<M>) {
    if groups.is_empty() {
        return (Vec::new(), part);
    }
    part.into_iter().partition(|message| message.group().is_some_and(|group| groups.contains(group)))
}
