//! Model of recovery: every order of events while a small batch is stored. A database that stores good messages, refuses
//! some and crashes over others; a set-up that breaks and is mended; a connection that is lost; another writer that
//! stores something; a run that is stopped.
//!
//! The model runs the real `Recovery`. It performs actions without a result at once. Left out: time, and the limit of
//! retries of a run that ends by itself, which `properties` has.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::fates::{Fate, Fates, Kind, ModelMessage, fault, fault_of, messages};
use super::{Action, Event, Recovery, Seen};
use crate::backoff::RetryLimit;
use crate::inbox::{Retry, Trial};

/// A world, with limits on how often something happens.
#[derive(Clone, Copy, Debug)]
struct World {
    messages: usize,
    /// Message groups of the messages.
    groups: &'static [&'static [Option<&'static str>]],
    /// Result of a trial while the set-up works.
    trial: Trial,
    /// Whether a batch with one good message waits.
    waits: bool,
    /// Maximum breaks of the set-up.
    breaks: u8,
    /// Maximum losses of the connection.
    losses: u8,
    /// Maximum pauses.
    pauses: u8,
    /// Whether the run may be stopped.
    stops: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    recovery: Recovery<ModelMessage>,
    /// The action that is being performed. It is one of those with a result, or the last one.
    action: Action<ModelMessage>,
    fates: Fates,
    setup_works: bool,
    stopping: bool,
    waiting: Option<Vec<ModelMessage>>,
    stored: u64,
    breaks: u8,
    losses: u8,
    /// Losses while there was a connection.
    interruptions: u8,
    pauses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    /// The database answers.
    Answer,
    /// The connection is lost meanwhile, or there was none.
    Lose {
        connected: bool,
    },
    Break,
    Mend,
    /// Another writer stores a row, which takes a set-up that works.
    OtherStores,
    Stop,
}

impl State {
    fn start(world: &World, kinds: &[Kind], groups: &[Option<&str>], setup_works: bool) -> Self {
        let of: Vec<_> = kinds.iter().copied().zip(groups.iter().copied()).collect();
        let batch = messages(0, &of);
        let mut state = Self {
            fates: Fates::new(&batch),
            recovery: Recovery::new(batch, RetryLimit::Endless, 0),
            action: Action::Finish,
            setup_works,
            stopping: false,
            waiting: world.waits.then(|| messages(100, &[(Kind::Good, Some("w"))])),
            stored: 0,
            breaks: u8::from(!setup_works),
            losses: 0,
            interruptions: 0,
            pauses: 0,
        };
        state.happen(Event::Done);
        state
    }

    /// Tells recovery of an event, and performs actions until one has a result, or until the last one.
    fn happen(&mut self, mut event: Event<ModelMessage>) {
        loop {
            let seen = Seen { stored: self.stored, stopping: self.stopping };
            event = match self.recovery.next(event, seen) {
                Action::LeaveCulprit { part, .. } => self.decide(&part, Fate::Left),
                Action::LeaveBehind(part) => self.decide(&part, Fate::Behind),
                Action::GiveUp { parts, .. } => self.decide(&parts.concat(), Fate::GivenUp),
                Action::TakeBatch => {
                    let batch = self.waiting.take();
                    self.fates.add(batch.as_deref().unwrap_or_default());
                    Event::Taken(batch)
                }
                Action::Retry { .. } | Action::Wait(_) => {
                    self.pauses += 1;
                    Event::Done
                }
                Action::Able
                | Action::SetupFailed(_)
                | Action::AllRefused(_)
                | Action::SetupMended
                | Action::Bisecting { .. } => Event::Done,
                action @ (Action::Store { .. } | Action::Try | Action::Fail(_) | Action::Finish) => {
                    self.action = action;
                    return;
                }
            }
        }
    }

    fn decide(&mut self, part: &[ModelMessage], fate: Fate) -> Event<ModelMessage> {
        self.fates.decide(part, fate);
        Event::Done
    }

    fn has_ended(&self) -> bool {
        matches!(self.action, Action::Finish | Action::Fail(_))
    }

    fn answer(&mut self, trial: Trial) {
        let event = match std::mem::replace(&mut self.action, Action::Finish) {
            Action::Store { part, .. } => {
                let refused = (!self.setup_works).then(|| fault(Retry::Bisect, ""));
                if let Some(fault) = refused.or_else(|| fault_of(&part)) {
                    Event::Failed { part, fault, connected: true }
                } else {
                    self.fates.decide(&part, Fate::Committed);
                    self.stored += 1;
                    Event::Committed
                }
            }
            _ if self.setup_works => Event::Tried(Ok(trial)),
            _ => Event::Tried(Err(fault(Retry::AfterSetup, ""))),
        };
        self.happen(event);
    }

    fn lose(&mut self, connected: bool) {
        self.losses += 1;
        self.interruptions += u8::from(connected);
        let fault = fault(Retry::Reconnect, "");
        let event = match std::mem::replace(&mut self.action, Action::Finish) {
            Action::Store { part, .. } => Event::Failed { part, fault, connected },
            _ => Event::Tried(Err(fault)),
        };
        self.happen(event);
    }

    /// Whether the batch comes to its end if nothing fails any more and another writer stores something. No good message
    /// is then left, unless earlier faults explain it.
    fn mends(&self, trial: Trial) -> bool {
        let mut state = self.clone();
        (state.setup_works, state.stored) = (true, state.stored + 1);
        // A batch of three has five parts, and one batch may wait. Each part is tried three times at most, and there
        // are no more trials than attempts.
        for _ in 0..2 * 3 * 6 {
            if state.has_ended() {
                return state.fates.are_complete() && state.is_fair();
            }
            state.answer(trial);
        }
        false
    }

    /// Whether no good message was left, or faults explain it. It takes a set-up that breaks for two attempts and is
    /// mended for the trials after them, or a connection that is lost three times in a row.
    fn is_fair(&self) -> bool {
        let excused = self.breaks >= 2 || self.interruptions >= 3;
        excused || !self.fates.blame_a_good_message()
    }
}

impl Model for World {
    type State = State;
    type Action = Happening;

    fn init_states(&self) -> Vec<State> {
        let kinds = [Kind::Good, Kind::Refused, Kind::Crashing];
        let mut batches = vec![Vec::new()];
        for _ in 0..self.messages {
            let longer =
                |batch: &Vec<Kind>| kinds.iter().map(|kind| [&batch[..], &[*kind]].concat()).collect();
            batches = batches.iter().flat_map::<Vec<_>, _>(longer).collect();
        }
        let setup_works = if self.breaks > 0 { &[true, false][..] } else { &[true] };
        let mut states = Vec::new();
        for (kinds, groups) in batches.iter().flat_map(|kinds| self.groups.iter().map(move |g| (kinds, g))) {
            states.extend(setup_works.iter().map(|works| State::start(self, kinds, groups, *works)));
        }
        states
    }

    fn actions(&self, s: &State, happenings: &mut Vec<Happening>) {
        if s.has_ended() {
            return;
        }
        happenings.push(Happening::Answer);
        if s.losses < self.losses {
            happenings.extend([true, false].map(|connected| Happening::Lose { connected }));
        }
        if !s.setup_works {
            happenings.push(Happening::Mend);
        } else if s.breaks < self.breaks {
            happenings.push(Happening::Break);
        }
        if s.setup_works && s.stored == 0 {
            happenings.push(Happening::OtherStores);
        }
        if self.stops && !s.stopping {
            happenings.push(Happening::Stop);
        }
    }

    fn next_state(&self, s: &State, happening: Happening) -> Option<State> {
        let mut next = s.clone();
        match happening {
            Happening::Answer => next.answer(self.trial),
            Happening::Lose { connected } => next.lose(connected),
            Happening::Break => (next.setup_works, next.breaks) = (false, s.breaks + 1),
            Happening::Mend => next.setup_works = true,
            Happening::OtherStores => next.stored += 1,
            Happening::Stop => next.stopping = true,
        }
        Some(next)
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.pauses <= self.pauses
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = Property::always;
        let sometimes = Property::sometimes;
        vec![
            always(RULES, |_, s: &State| s.fates.wrong.is_none()),
            always(WHOLE, |_, s: &State| s.fates.is_rest(&s.recovery, &s.action)),
            always(DECIDED, |_, s: &State| !s.has_ended() || s.fates.are_complete()),
            always(FAIR, |_, s: &State| s.is_fair()),
            always(MENDS, |world, s: &State| world.stops || s.mends(world.trial)),
            sometimes(DONE, |_, s: &State| s.has_ended()),
            sometimes("a good message is left", |world, s: &State| {
                (world.breaks < 2 && world.losses < 3) || s.fates.blame_a_good_message()
            }),
            sometimes("messages are given up", |world, s: &State| {
                !world.stops || s.fates.all().any(|of| of.1 == Fate::GivenUp)
            }),
            sometimes("the batch that waited is taken", |world, s: &State| {
                !world.waits || s.waiting.is_none()
            }),
            sometimes("a message of a group waits behind one in doubt", |world, s: &State| {
                world.trial == Trial::Stored || !s.recovery.behind.is_empty()
            }),
        ]
    }
}

const RULES: &str = "no message is decided about twice, or overtakes one of its group";
const WHOLE: &str = "no message is lost";
const DECIDED: &str = "at the end, every message is decided about";
const FAIR: &str = "no good message is left, unless faults explain it";
const MENDS: &str = "once faults stop, every message is decided about, and no good one is left";
const DONE: &str = "the batch comes to its end";

const GROUPS: &[&[Option<&str>]] = &[
    &[None, None, None],
    &[Some("a"), Some("a"), Some("a")],
    &[Some("a"), None, Some("a")],
    &[Some("a"), Some("b"), Some("a")],
];

const WORLD: World = World {
    messages: 3,
    groups: GROUPS,
    trial: Trial::Stored,
    waits: false,
    breaks: 0,
    losses: 0,
    pauses: 4,
    stops: false,
};

/// Checks every state, or stops at the first one that breaks a property.
fn check(world: World, at_least: usize) {
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.assert_properties();
    let states = checker.unique_state_count();
    assert!(states >= at_least, "only {states} states: something keeps events from happening");
}

#[test]
fn a_set_up_that_breaks_and_is_mended_costs_no_message() {
    check(World { breaks: 2, ..WORLD }, 60_000);
}

#[test]
fn a_trial_that_tells_nothing_costs_no_message() {
    check(World { breaks: 2, trial: Trial::Refused, ..WORLD }, 20_000);
}

#[test]
fn a_connection_that_is_lost_again_and_again_costs_no_message() {
    check(World { losses: 3, pauses: 6, ..WORLD }, 30_000);
}

#[test]
fn a_batch_that_waits_is_stored_with_the_others() {
    check(World { losses: 1, waits: true, pauses: 10, ..WORLD }, 8_000);
}

#[test]
fn a_run_that_is_stopped_gives_up_what_it_cannot_store() {
    check(World { groups: &GROUPS[3..], breaks: 1, losses: 1, stops: true, ..WORLD }, 40_000);
}

#[test]
fn a_run_that_is_stopped_gives_up_what_is_in_doubt() {
    check(World { losses: 1, stops: true, trial: Trial::Refused, ..WORLD }, 5_000);
}
