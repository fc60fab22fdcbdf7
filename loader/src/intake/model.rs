//! Which messages end in the dead-letter queue: every order of events in a small world with a queue, a database whose
//! set-up breaks, and a loader with two writers that is killed, stopped and started again.
//!
//! SQS counts each delivery of a message, and after `MAX_RECEIVES` of them moves it to the dead-letter queue. A message that
//! only the set-up keeps from being stored must not get there. A delivery for each kill or stop is allowed: SQS hands out
//! again what a loader had. The writers decide by the real `Writers`. What the loader does besides is in `Flaw`: with each
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
    /// It makes no trial: a batch that fails has a culprit in it, whatever the cause.
    NoTrial,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Break,
    Mend,
    Start,
    Receive(usize),
    /// A writer stores what is held.
    Store(usize),
    /// A blocked writer tries again.
    Try(usize),
    Kill,
    Stop,
    /// A visibility ends.
    Reappear(usize),
}

impl State {
    fn intake_is_open(&self) -> bool {
        let Some(writers) = self.writers else { return false };
        let count = |standing| writers.iter().filter(|writer| **writer == standing).count();
        Writers { able: count(Standing::Able), blocked: count(Standing::Blocked) }.let_through()
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
    fn store(self, s: &mut State, w: usize) {
        let Some(writers) = &mut s.writers else { return };
        if !s.setup_works && self.flaw != Flaw::NoTrial {
            // The batch failed, and so did the trial after it.
            writers[w] = Standing::Blocked;
            match self.flaw {
                Flaw::ExitsAndReceives => {
                    s.writers = None;
                    s.move_held(Place::Visible);
                }
                Flaw::GivesBack => {
                    writers[w] = Standing::Able;
                    s.move_held(Place::Visible);
                }
                Flaw::None | Flaw::NoTrial => {}
            }
            return;
        }
        writers[w] = Standing::Able;
        for (m, message) in s.messages.iter_mut().enumerate().filter(|(_, m)| m.place == Place::Held) {
            // A culprit is left to come back by itself. The bisection stores the others.
            message.place = if m == POISON || !s.setup_works { Place::Hidden } else { Place::Stored };
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
            if standing == Standing::Blocked {
                events.push(Event::Try(w));
            } else if at(Place::Held).next().is_some() {
                events.push(Event::Store(w));
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
                    *message = Message { receives: message.receives + 1, place: Place::Held };
                }
            }
            Event::Store(w) => self.store(&mut next, w),
            Event::Try(w) => {
                let writers = next.writers.as_mut()?;
                writers[w] = if s.setup_works { Standing::Able } else { Standing::Blocked };
            }
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
            Property::always(ONCE, |_, s: &State| s.good().all(|message| message.receives <= 1 + s.ends)),
            Property::always(ALIVE, |_, s: &State| {
                s.ends >= MAX_RECEIVES || s.good().all(|message| message.place != Place::Dead)
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

const ONCE: &str = "a good message is received once, and once more for each end of a loader";
const ALIVE: &str = "no good message is in the dead-letter queue";

#[test]
fn no_fault_of_the_set_up_brings_a_good_message_into_the_dead_letter_queue() {
    let world = World { breaks: 5, ends: 2, flaw: Flaw::None };
    let checker = world.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.unique_state_count() > 1_000, "something keeps events from happening");
}

#[test]
fn a_loader_with_a_flaw_brings_good_messages_there() {
    for flaw in [Flaw::ExitsAndReceives, Flaw::GivesBack, Flaw::NoTrial] {
        let world = World { breaks: 1, ends: 0, flaw };
        let found = HasDiscoveries::AnyOf([ALIVE].into());
        let checker = world.checker().threads(2).finish_when(found).spawn_bfs().join();
        assert!(checker.discovery(ALIVE).is_some(), "{flaw:?}");
    }
}
