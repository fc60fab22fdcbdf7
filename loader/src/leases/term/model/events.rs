//! Events that may happen next.

use super::{Delivery, Flaw, Orphan, Stage, State, Step, Stray, VISIBILITY, World};

/// Events. The first number is a loader. The second is one of its deliveries, or a message for `Receive` and `Insert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Tick,
    /// SQS hands a message to a loader. With `None`, the answer reaches no loader.
    Receive(Option<usize>, usize),
    Extend(usize, usize),
    /// An extension arrives at SQS, or is lost.
    Extended(usize, usize, Outcome),
    /// The lease extender removes expired leases.
    Sweep(usize),
    Begin(usize),
    /// COPY reaches a message.
    Insert(usize, usize),
    SendCommit(usize),
    Commit(usize),
    CommitAnswered(usize),
    /// The server reports that the transaction was not committed.
    Abort(usize),
    ConnectionLost(usize),
    OrphanEnds(Orphan, bool),
    ServerCrash,
    Delete(usize, usize),
    /// A delete arrives at SQS, and the loader gets the answer.
    Deleted(usize, usize),
    /// A delete arrives at SQS, which refuses the receipt, and the loader gets the answer.
    Refused(usize, usize),
    /// A loader gives up a delete, which may still arrive.
    GiveUp(usize, usize),
    StrayArrives(Stray),
    /// A loader stops, and makes visible again what it holds.
    Stop(usize),
    /// A loader is killed.
    Kill(usize),
}

/// Outcome of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// SQS refuses the receipt.
    Refused,
    /// Done, but the answer is lost.
    Unanswered,
    Lost,
}

impl World {
    /// Adds all events that may happen.
    pub(super) fn events(self, s: &State, events: &mut Vec<Event>) {
        let deletes_after_lease = self.flaw == Flaw::DeleteAfterLease;
        events.push(Event::Tick);
        for (m, message) in s.queue.iter().enumerate() {
            if deletes_after_lease || (!message.deleted && s.now >= message.hidden_until) {
                events.push(Event::Receive(None, m));
                events.extend((0..s.loaders.len()).map(|l| Event::Receive(Some(l), m)));
            }
        }
        for (l, loader) in s.loaders.iter().enumerate() {
            if loader.deliveries.is_empty() {
                continue;
            }
            events.push(Event::Kill(l));
            let deletes = loader.deliveries.iter().any(|d| d.delete.is_some()) || !s.strays.is_empty();
            if deletes_after_lease || !deletes {
                events.push(Event::Stop(l));
            }
            if loader.deliveries.iter().any(|d| d.term.is_some_and(|term| term.has_expired(s.now))) {
                events.push(Event::Sweep(l));
            }
            self.of_transaction(s, l, events);
            for (d, delivery) in loader.deliveries.iter().enumerate() {
                of_calls(s, l, d, delivery, events);
            }
        }
        for orphan in &s.orphans {
            events.push(Event::OrphanEnds(*orphan, false));
            if orphan.committing {
                events.push(Event::OrphanEnds(*orphan, true));
            }
        }
        let open = !s.orphans.is_empty() || s.loaders.iter().any(|l| l.transaction.is_some());
        if open || self.flaw == Flaw::Asynchronous {
            events.push(Event::ServerCrash);
        }
        events.extend(s.strays.iter().copied().map(Event::StrayArrives));
    }

    fn of_transaction(self, s: &State, l: usize, events: &mut Vec<Event>) {
        let loader = &s.loaders[l];
        let Some(transaction) = &loader.transaction else {
            if loader.deliveries.iter().any(|d| d.stage == Stage::Waiting) {
                events.push(Event::Begin(l));
            }
            return;
        };
        events.push(Event::ConnectionLost(l));
        if transaction.step != Step::Committed {
            events.push(Event::Abort(l));
        }
        match transaction.step {
            Step::Copying if transaction.accounted == loader.batch() => events.push(Event::SendCommit(l)),
            Step::Copying => {
                let others = (s.loaders.iter().enumerate())
                    .filter(|(other, _)| *other != l)
                    .filter_map(|(_, loader)| loader.transaction.as_ref())
                    .filter(|t| t.step != Step::Committed)
                    .map(|t| t.inserted);
                let locked = others.chain(s.orphans.iter().map(|o| o.inserted)).fold(0, |all, set| all | set);
                // The unique key makes it wait for any other transaction that has inserted the message.
                let locked = if self.flaw == Flaw::NoKey { 0 } else { locked };
                let next = loader.batch() & !transaction.accounted & !locked;
                events.extend((0..s.queue.len()).filter(|m| next & 1 << m != 0).map(|m| Event::Insert(l, m)));
            }
            Step::Committing => events.push(Event::Commit(l)),
            Step::Committed => events.push(Event::CommitAnswered(l)),
        }
    }
}

fn of_calls(s: &State, l: usize, d: usize, delivery: &Delivery, events: &mut Vec<Event>) {
    let Delivery { message, receipt, term: Some(term), .. } = delivery else { return };
    let message = &s.queue[*message];
    let newest = message.deliveries == *receipt;
    // The ledger has the lease until it is swept. So the lease extender may try even after the lease has expired.
    if delivery.extend.is_none() && term.until() < s.now + VISIBILITY {
        events.push(Event::Extend(l, d));
    }
    if delivery.extend.is_some() {
        events.push(Event::Extended(l, d, Outcome::Lost));
        if !message.deleted {
            events.extend([Outcome::Done, Outcome::Unanswered].map(|o| Event::Extended(l, d, o)));
        }
        if message.deleted || !newest || s.now >= message.hidden_until {
            events.push(Event::Extended(l, d, Outcome::Refused));
        }
    }
    if delivery.delete.is_some() {
        events.extend([Event::Deleted(l, d), Event::GiveUp(l, d)]);
        if message.deleted || !newest {
            events.push(Event::Refused(l, d));
        }
    } else if term.may_delete(s.now) {
        // The deleter gets only stored messages. The model doesn't rely on that: `Term` alone must hold the delete
        // back.
        events.push(Event::Delete(l, d));
    }
}
