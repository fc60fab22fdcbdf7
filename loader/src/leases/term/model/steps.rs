//! Effect of each event on the world.

use super::events::{Event, Outcome};
use super::{
    Delivery, Flaw, Loader, Message, Orphan, Seen, Stage, State, Step, Stray, Term, Transaction, VISIBILITY,
    World,
};

impl World {
    /// Returns the state after `event`.
    pub(super) fn after(self, s: &State, event: Event) -> State {
        let mut next = s.clone();
        match event {
            Event::Receive(l, m) => self.receive(&mut next, l, m),
            Event::Begin(_)
            | Event::Insert(..)
            | Event::SendCommit(_)
            | Event::Commit(_)
            | Event::CommitAnswered(_)
            | Event::Abort(_)
            | Event::ConnectionLost(_)
            | Event::OrphanEnds(..)
            | Event::ServerCrash => self.database(&mut next, event),
            Event::Tick => {
                next.now += 1;
                for l in 0..next.loaders.len() {
                    for d in 0..next.loaders[l].deliveries.len() {
                        if next.loaders[l].deliveries[d].delete.is_some_and(|limit| limit <= next.now) {
                            self.give_up(&mut next, l, d);
                        }
                    }
                }
                next.strays.retain(|stray| next.now < stray.limit);
            }
            Event::Sweep(l) => {
                for d in 0..next.loaders[l].deliveries.len() {
                    let term = next.loaders[l].deliveries[d].term;
                    if term.is_some_and(|term| term.has_expired(next.now)) {
                        self.strike_out(&mut next, l, d);
                    }
                }
            }
            Event::Stop(l) | Event::Kill(l) => self.stop(&mut next, l, matches!(event, Event::Stop(_))),
            Event::StrayArrives(stray) => {
                next.strays.remove(&stray);
                next.delete(stray.message, stray.receipt);
            }
            Event::Extend(l, d)
            | Event::Extended(l, d, _)
            | Event::Delete(l, d)
            | Event::Deleted(l, d)
            | Event::Refused(l, d)
            | Event::GiveUp(l, d) => self.call(&mut next, l, d, event),
        }
        next.tidy();
        next
    }

    fn receive(self, s: &mut State, l: Option<usize>, m: usize) {
        let message = &mut s.queue[m];
        message.hidden_until = message.hidden_until.max(s.now + VISIBILITY);
        message.deliveries += 1;
        let until = s.now + VISIBILITY;
        let counted = if self.flaw == Flaw::CountedFromAnswer { until + 1 } else { until };
        let Some(l) = l else { return };
        s.loaders[l].deliveries.push(Delivery {
            message: m,
            receipt: message.deliveries,
            stage: Stage::Waiting,
            term: Some(Term::begin(counted)),
            extend: None,
            delete: None,
            seen: Seen { until, answered: false, unanswered: false },
        });
    }

    fn database(self, s: &mut State, event: Event) {
        match event {
            Event::Begin(l) => {
                s.loaders[l].transaction = Some(Transaction::default());
                for delivery in s.loaders[l].deliveries.iter_mut().filter(|d| d.stage == Stage::Waiting) {
                    delivery.stage = Stage::Writing;
                }
            }
            Event::Insert(l, m) => {
                let stored = s.queue[m].rows > 0 && self.flaw != Flaw::NoKey;
                let transaction = s.transaction(l);
                transaction.accounted |= 1 << m;
                transaction.inserted |= u8::from(!stored) << m;
            }
            Event::SendCommit(l) => s.transaction(l).step = Step::Committing,
            Event::Commit(l) => {
                let transaction = s.transaction(l);
                transaction.step = Step::Committed;
                let inserted = transaction.inserted;
                s.commit_rows(inserted);
            }
            Event::CommitAnswered(l) => {
                for delivery in s.loaders[l].deliveries.iter_mut().filter(|d| d.stage == Stage::Writing) {
                    delivery.seen.answered = true;
                    delivery.term.iter_mut().for_each(Term::commit);
                }
                s.loaders[l].end_transaction(Stage::Stored);
            }
            Event::Abort(l) => s.loaders[l].end_transaction(Stage::Waiting),
            Event::ConnectionLost(l) => self.lose_connection(s, l),
            Event::OrphanEnds(orphan, committed) => {
                s.orphans.remove(&orphan);
                if committed {
                    s.commit_rows(orphan.inserted);
                }
            }
            Event::ServerCrash => {
                for l in 0..s.loaders.len() {
                    if s.loaders[l].transaction.is_some() {
                        self.lose_connection(s, l);
                    }
                }
                s.orphans.clear();
                if self.flaw == Flaw::Asynchronous {
                    s.queue.iter_mut().for_each(|message| message.rows = 0);
                }
            }
            _ => unreachable!("not of the database: {event:?}"),
        }
    }

    fn lose_connection(self, s: &mut State, l: usize) {
        let Some(Transaction { step, inserted, .. }) = s.loaders[l].transaction.clone() else { return };
        // A transaction that has inserted nothing makes no difference.
        if step != Step::Committed && inserted != 0 {
            s.orphans.insert(Orphan { inserted, committing: step == Step::Committing });
        }
        let wrongly = self.flaw == Flaw::Unanswered && step != Step::Copying;
        for delivery in s.loaders[l].deliveries.iter_mut().filter(|d| d.stage == Stage::Writing) {
            delivery.seen.unanswered |= step == Step::Committed;
            if wrongly {
                delivery.term.iter_mut().for_each(Term::commit);
            }
        }
        s.loaders[l].end_transaction(if wrongly { Stage::Stored } else { Stage::Waiting });
    }

    fn call(self, s: &mut State, l: usize, d: usize, event: Event) {
        let now = s.now;
        let delivery = &mut s.loaders[l].deliveries[d];
        let (m, receipt) = (delivery.message, delivery.receipt);
        match event {
            Event::Extend(..) => delivery.extend = Some(now),
            Event::Extended(_, _, outcome) => {
                let until = delivery.extend.take().unwrap_or(now) + VISIBILITY;
                if let Outcome::Done | Outcome::Unanswered = outcome {
                    s.queue[m].hidden_until = s.queue[m].hidden_until.max(now + VISIBILITY);
                }
                if outcome == Outcome::Done {
                    delivery.term.iter_mut().for_each(|term| term.extend(now, until));
                    if now < delivery.seen.until {
                        delivery.seen.until = delivery.seen.until.max(until);
                    }
                }
                if outcome == Outcome::Refused {
                    self.strike_out(s, l, d);
                }
            }
            Event::Delete(..) => {
                delivery.delete = delivery.term.map(|term| term.until());
                s.wrong.sent |= !delivery.seen.answered || now >= delivery.seen.until;
            }
            Event::Deleted(..) => {
                delivery.delete = None;
                s.delete(m, receipt);
                self.strike_out(s, l, d);
            }
            Event::Refused(..) => {
                delivery.delete = None;
                self.strike_out(s, l, d);
            }
            Event::GiveUp(..) => self.give_up(s, l, d),
            _ => unreachable!("no call: {event:?}"),
        }
    }

    /// Stops waiting for a delete. If it is in flight, it may still arrive.
    fn give_up(self, s: &mut State, l: usize, d: usize) {
        let Delivery { message, receipt, ref mut delete, .. } = s.loaders[l].deliveries[d];
        if let Some(limit) = delete.take() {
            let limit = if self.flaw == Flaw::DeleteAfterLease { u8::MAX } else { limit };
            s.strays.insert(Stray { message, receipt, limit });
        }
    }

    /// Removes a delivery from the ledger. If it waits to be stored, it still will be.
    fn strike_out(self, s: &mut State, l: usize, d: usize) {
        self.give_up(s, l, d);
        let delivery = &mut s.loaders[l].deliveries[d];
        (delivery.term, delivery.extend) = (None, None);
    }

    fn stop(self, s: &mut State, l: usize, release: bool) {
        for d in 0..s.loaders[l].deliveries.len() {
            self.give_up(s, l, d);
            let Delivery { message, term, .. } = s.loaders[l].deliveries[d];
            if release && term.is_some_and(|term| !term.has_expired(s.now)) {
                s.queue[message].hidden_until = s.now;
            }
        }
        if s.loaders[l].transaction.is_some() {
            self.lose_connection(s, l);
        }
        s.loaders[l] = Loader::default();
    }
}

impl State {
    fn transaction(&mut self, l: usize) -> &mut Transaction {
        self.loaders[l].transaction.get_or_insert_default()
    }

    /// Commits rows.
    fn commit_rows(&mut self, inserted: u8) {
        for (m, message) in self.queue.iter_mut().enumerate() {
            message.rows += inserted >> m & 1;
        }
    }

    /// Deletes a message, because a delete arrives at SQS.
    fn delete(&mut self, m: usize, receipt: u8) {
        let Message { deliveries, deleted, .. } = &mut self.queue[m];
        *deleted = true;
        self.wrong.stale |= receipt != *deliveries;
    }

    /// Normalizes states, so that equal states look equal.
    fn tidy(&mut self) {
        for message in &mut self.queue {
            if message.deleted || message.hidden_until <= self.now {
                message.hidden_until = 0;
            }
        }
        for loader in &mut self.loaders {
            for delivery in &mut loader.deliveries {
                if delivery.term.is_none() {
                    delivery.seen = Seen::default();
                } else if delivery.seen.until <= self.now {
                    delivery.seen.until = 0;
                }
            }
            // The deleter drops deliveries that are no longer in the ledger.
            loader.deliveries.retain(|d| d.term.is_some() || d.stage != Stage::Stored);
            loader.deliveries.sort_unstable();
        }
        self.loaders.sort_unstable();
    }
}
