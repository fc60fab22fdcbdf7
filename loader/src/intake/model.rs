//! Which messages end in the dead-letter queue: every order of events in a small world with a queue, a database whose
//! set-up breaks, and a loader with two writers that is killed, stopped and started again.
//!
//! SQS counts each delivery of a message, and after `MAX_RECEIVES` of them moves it to the dead-letter queue. A message that
//! only the set-up keeps from being stored must not get there. A delivery for each kill or stop is allowed, since SQS hands
//! out again what a loader had; what else is allowed says `excuses`. The writers decide by the real `Writers`. What the loader does besides is in `Flaw`: with each
//! of these a good message dies, and the checks show it.
//!
//! Left out: time, and leases that run out. `lease::model` has these.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::Writers;

/// Deliveries of a message before SQS moves it to the dead-letter queue (`maxReceiveCount`).
const MAX_RECEIVES: u8 = 3;
/// Messages of the world. Only the database refuses the first one.
const MESSAGES: usize = 3;
const POISON: usize = 0;

/// A world, with limits on how often something happens.
#[derive(Clone, Copy, Debug)]
struct World {
    /// How often the set-up breaks.
    breaks: u8,
    /// How often the loader is killed or stopped.
    ends: u8,
    flaw: Flaw,
}

/// A loader that is not as the promise needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// It exits when the set-up is at fault, and starts again without a trial.
    ExitsAndReceives,
    /// It gives messages back while it waits, and receives on.
    GivesBack,
    /// It makes no trial: a message that fails is a culprit, whatever the cause.
    NoTrial,
    /// It leaves a message after one refusal and a trial that works.
    LeavesAtOnce,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    setup_works: bool,
    messages: [Message; MESSAGES],
    /// None while the loader is down.
    writers: Option<[Standing; 2]>,
    breaks: u8,
    ends: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Message {
    receives: u8,
    place: Place,
    /// The loader that has it saw it refused, and the set-up work afterwards.
    is_suspect: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Place {
    #[default]
    Visible,
    /// The loader has it, and keeps its lease.
    Held,
    /// Nobody has it. Its visibility will end.
    Hidden,
    Stored,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    Untried,
    Able,
    Blocked,
    /// The database refused this message, and the trial is next.
    Refused(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Break,
    Mend,
    Start,
    Receive(usize),
    /// A writer stores a message that is held.
    Store(usize, usize),
    /// A writer makes a trial: after a refusal, or while it is blocked.
    Try(usize),
    Kill,
    Stop,
    /// A visibility ends.
    Reappear(usize),
}

impl State {
    fn intake_is_open(&self) -> bool {
        let Some(writers) = self.writers else { return false };
        let count = |is: fn(&Standing) -> bool| writers.iter().filter(|writer| is(writer)).count();
        let able = count(|standing| matches!(standing, Standing::Able | Standing::Refused(_)));
        Writers { able, blocked: count(|standing| *standing == Standing::Blocked) }.let_through()
    }

    /// Deliveries that a good message may cost besides its first: one for each end of the loader, and one for each two
    /// breaks. A set-up that breaks for an attempt, is mended for the trial, and does both once more, makes a good message
    /// look like a culprit.
    fn excuses(&self) -> u8 {
        self.ends + self.breaks / 2
    }

    fn good(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().enumerate().filter(|(m, _)| *m != POISON).map(|(_, message)| message)
    }

    fn move_held(&mut self, place: Place) {
        for message in self.messages.iter_mut().filter(|message| message.place == Place::Held) {
            message.place = place;
        }
    }
}

impl World {
    /// Bisection ends with messages alone, so each is stored alone here.
    fn store(self, s: &mut State, w: usize, m: usize) {
        let Some(writers) = &mut s.writers else { return };
        if s.setup_works && m != POISON {
            writers[w] = Standing::Able;
            s.messages[m].place = Place::Stored;
        } else if self.flaw == Flaw::NoTrial {
            s.messages[m].place = Place::Hidden;
        } else {
            writers[w] = Standing::Refused(m);
        }
    }

    fn trial(self, s: &mut State, w: usize) {
        let Some(writers) = &mut s.writers else { return };
        let before = writers[w];
        writers[w] = if s.setup_works { Standing::Able } else { Standing::Blocked };
        match self.flaw {
            Flaw::ExitsAndReceives if !s.setup_works => {
                s.writers = None;
                return s.move_held(Place::Visible);
            }
            Flaw::GivesBack if !s.setup_works => {
                writers[w] = Standing::Able;
                return s.move_held(Place::Visible);
            }
            _ => {}
        }
        if let Standing::Refused(m) = before
            && s.setup_works
        {
            let message = &mut s.messages[m];
            if message.is_suspect || self.flaw == Flaw::LeavesAtOnce {
                // It comes back by itself.
                message.place = Place::Hidden;
            } else {
                message.is_suspect = true;
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let messages = [Message::default(); MESSAGES];
        [true, false]
            .map(|setup_works| State { setup_works, messages, writers: None, breaks: 0, ends: 0 })
            .into()
    }

    fn actions(&self, s: &State, events: &mut Vec<Event>) {
        let at = |place| (0..MESSAGES).filter(move |m| s.messages[*m].place == place);
        if !s.setup_works {
            events.push(Event::Mend);
        } else if s.breaks < self.breaks {
            events.push(Event::Break);
        }
        events.extend(at(Place::Hidden).map(Event::Reappear));
        let Some(writers) = s.writers else { return events.push(Event::Start) };
        if s.ends < self.ends {
            events.extend([Event::Kill, Event::Stop]);
        }
        if s.intake_is_open() {
            events.extend(at(Place::Visible).map(Event::Receive));
        }
        for (w, standing) in writers.into_iter().enumerate() {
            match standing {
                Standing::Blocked | Standing::Refused(_) => events.push(Event::Try(w)),
                Standing::Able | Standing::Untried => {
                    // What another writer asks a trial about is in that one's batch.
                    let is_free = |m: &usize| !writers.contains(&Standing::Refused(*m));
                    events.extend(at(Place::Held).filter(is_free).map(|m| Event::Store(w, m)));
                }
            }
        }
    }

    fn next_state(&self, s: &State, event: Event) -> Option<State> {
        let mut next = s.clone();
        match event {
            Event::Break => (next.setup_works, next.breaks) = (false, s.breaks + 1),
            Event::Mend => next.setup_works = true,
            // The trial is before anything is received. The first writer has the connection that made it.
            Event::Start if s.setup_works || self.flaw == Flaw::ExitsAndReceives => {
                next.writers = Some([Standing::Able, Standing::Untried]);
            }
            Event::Start => return None,
            Event::Receive(m) => {
                let message = &mut next.messages[m];
                if message.receives == MAX_RECEIVES {
                    message.place = Place::Dead;
                } else {
                    *message =
                        Message { receives: message.receives + 1, place: Place::Held, is_suspect: false };
                }
            }
            Event::Store(w, m) => self.store(&mut next, w, m),
            Event::Try(w) => self.trial(&mut next, w),
            Event::Kill | Event::Stop => {
                next.writers = None;
                next.ends += 1;
                next.move_held(if event == Event::Kill { Place::Hidden } else { Place::Visible });
            }
            Event::Reappear(m) => next.messages[m].place = Place::Visible,
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, s: &State| {
                s.good().all(|message| message.receives <= 1 + s.excuses())
            }),
            Property::always(ALIVE, |_, s: &State| {
                s.excuses() >= MAX_RECEIVES || s.good().all(|message| message.place != Place::Dead)
            }),
            Property::sometimes("the poison message ends in the dead-letter queue", |_, s: &State| {
                s.messages[POISON].place == Place::Dead && s.good().all(|m| m.place == Place::Stored)
            }),
            Property::sometimes("all writers are blocked, with messages held", |_, s: &State| {
                s.writers == Some([Standing::Blocked; 2]) && s.good().all(|m| m.place == Place::Held)
            }),
        ]
    }
}

const ONCE: &str = "a good message is received once, and once more for each excuse";
const ALIVE: &str = "no good message is in the dead-letter queue";

#[test]
fn no_fault_of_the_set_up_brings_a_good_message_into_the_dead_letter_queue() {
    let world = World { breaks: 4, ends: 2, flaw: Flaw::None };
    let checker = world.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.unique_state_count() > 1_000, "something keeps events from happening");
}

#[test]
fn a_loader_with_a_flaw_brings_good_messages_there() {
    for (flaw, breaks) in [
        (Flaw::ExitsAndReceives, 1),
        (Flaw::GivesBack, 1),
        (Flaw::NoTrial, 1),
        (Flaw::LeavesAtOnce, MAX_RECEIVES),
    ] {
        let world = World { breaks, ends: 0, flaw };
        let found = HasDiscoveries::AnyOf([ALIVE].into());
        let checker = world.checker().threads(2).finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(ALIVE).is_some(), "{flaw:?}");
    }
}
