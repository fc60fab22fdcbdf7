//! Model of the dead-letter queue: which messages end in it. Runs every order of events in a small world with a queue,
//! a database whose set-up breaks, and a loader with two writers. The loader is killed, stopped and restarted.
//!
//! SQS counts each delivery of a message, and after `MAX_RECEIVES` of them moves it to the dead-letter queue. A message
//! that only the set-up keeps from being stored must not get there. One delivery for each kill or stop is allowed,
//! because SQS hands out again what a loader had. `excuses` says what else is allowed. The writers decide with the real
//! `Writers`. `Flaw` lists what else the loader does: with each flaw a good message dies, and the checks show it.
//!
//! Left out: time, and leases that expire. `leases::term::model` has these.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::Writers;

/// Deliveries of a message before SQS moves it to the dead-letter queue (`maxReceiveCount`).
const MAX_RECEIVES: u8 = 3;
/// Number of messages. The first one is a poison message, which the database always refuses.
const MESSAGES: usize = 3;
const POISON: usize = 0;

/// A world, with limits on how often something happens.
#[derive(Clone, Copy, Debug)]
struct World {
    /// Maximum breaks of the set-up.
    breaks: u8,
    /// Maximum kills and stops of the loader.
    ends: u8,
    flaw: Flaw,
}

/// Flaw of a loader that breaks the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// It exits when the set-up is at fault, and restarts without a trial.
    ExitsAndReceives,
    /// It gives messages back while it waits, but goes on receiving.
    GivesBack,
    /// It makes no trial: it blames a message that fails, whatever the cause.
    NoTrial,
    /// It gives up a message after one refusal and one trial that works.
    LeavesAtOnce,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    setup_works: bool,
    messages: [Message; MESSAGES],
    /// `None` while the loader is down.
    writers: Option<[WriterState; 2]>,
    breaks: u8,
    ends: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Message {
    receives: u8,
    place: Place,
    /// Whether the loader that has it saw it refused, and saw the set-up work afterwards.
    is_suspect: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Place {
    #[default]
    Visible,
    /// The loader has it, and keeps its lease.
    Held,
    /// Nobody has it, and its visibility timeout will end.
    Hidden,
    Stored,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriterState {
    Untried,
    Able,
    Blocked,
    /// The database refused this message, and a trial comes next.
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
    /// A writer makes a trial, after a refusal or while it is blocked.
    Try(usize),
    Kill,
    Stop,
    /// A message's visibility timeout ends.
    Reappear(usize),
}

impl State {
    fn intake_is_open(&self) -> bool {
        let Some(writers) = self.writers else { return false };
        let count = |is: fn(&WriterState) -> bool| writers.iter().filter(|writer| is(writer)).count();
        let able = count(|state| matches!(state, WriterState::Able | WriterState::Refused(_)));
        Writers { able, blocked: count(|state| *state == WriterState::Blocked) }.let_through()
    }

    /// Returns the deliveries that a good message may cost besides its first: one for each end of the loader, and one
    /// for every two breaks. If the set-up breaks for an attempt, is mended for the trial, and does both again, a good
    /// message looks like a culprit.
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
    /// Stores a message alone, because bisection ends with messages alone.
    fn store(self, s: &mut State, w: usize, m: usize) {
        let Some(writers) = &mut s.writers else { return };
        if s.setup_works && m != POISON {
            writers[w] = WriterState::Able;
            s.messages[m].place = Place::Stored;
        } else if self.flaw == Flaw::NoTrial {
            s.messages[m].place = Place::Hidden;
        } else {
            writers[w] = WriterState::Refused(m);
        }
    }

    fn trial(self, s: &mut State, w: usize) {
        let Some(writers) = &mut s.writers else { return };
        let before = writers[w];
        writers[w] = if s.setup_works { WriterState::Able } else { WriterState::Blocked };
        match self.flaw {
            Flaw::ExitsAndReceives if !s.setup_works => {
                s.writers = None;
                return s.move_held(Place::Visible);
            }
            Flaw::GivesBack if !s.setup_works => {
                writers[w] = WriterState::Able;
                return s.move_held(Place::Visible);
            }
            _ => {}
        }
        if let WriterState::Refused(m) = before
            && s.setup_works
        {
            let message = &mut s.messages[m];
            if message.is_suspect || self.flaw == Flaw::LeavesAtOnce {
                // The message comes back by itself.
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
        for (w, state) in writers.into_iter().enumerate() {
            match state {
                WriterState::Blocked | WriterState::Refused(_) => events.push(Event::Try(w)),
                WriterState::Able | WriterState::Untried => {
                    // A message that another writer makes a trial about is in that writer's batch.
                    let is_free = |m: &usize| !writers.contains(&WriterState::Refused(*m));
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
            // The trial precedes the first receive. The first writer has the connection that made it.
            Event::Start if s.setup_works || self.flaw == Flaw::ExitsAndReceives => {
                next.writers = Some([WriterState::Able, WriterState::Untried]);
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
                s.writers == Some([WriterState::Blocked; 2]) && s.good().all(|m| m.place == Place::Held)
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
