//! Properties that must hold in every state, and properties that must occur in some state.

use stateright::{Checker, HasDiscoveries, Model, Property};

use super::events::{Event, Outcome};
use super::{Flaw, Stage, State, World};

const STORED: &str = "what is deleted is stored";
const ONCE: &str = "nothing is stored twice";
const SENT: &str = "no delete is sent without a lease and an answered COMMIT";
const STALE: &str = "no delete takes away what was handed out again";
const DONE: &str = "everything is stored, deleted and done with";
const MENDS: &str = "once faults stop, everything is stored and deleted";

impl Model for World {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        self.events(state, events);
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        Some(self.after(state, event))
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.now <= self.end && s.queue.iter().all(|message| message.deliveries <= self.deliveries)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let stale: fn(&Self, &State) -> bool = |_, s: &State| s.wrong.stale;
        vec![
            Property::always(STORED, |_, s: &State| s.queue.iter().all(|m| !m.deleted || m.rows > 0)),
            Property::always(ONCE, |_, s: &State| s.queue.iter().all(|m| m.rows <= 1)),
            Property::always(SENT, |_, s: &State| !s.wrong.sent),
            Property::always(MENDS, |world, s: &State| world.mends(s)),
            if self.flaw == Flaw::DeleteAfterLease {
                Property::sometimes("a delete that arrives late takes away what was handed out again", stale)
            } else {
                Property::always(STALE, |_, s: &State| !s.wrong.stale)
            },
            Property::sometimes(DONE, |_, s: &State| is_done(s)),
            Property::sometimes("both loaders have the same message", |_, s: &State| {
                let of = |l: usize| s.loaders[l].deliveries.iter().map(|d| d.message);
                of(0).any(|m| of(1).any(|other| other == m))
            }),
            Property::sometimes(
                "COMMIT goes unanswered, and what it stored is found a duplicate and deleted",
                |_, s: &State| {
                    s.loaders
                        .iter()
                        .flat_map(|l| &l.deliveries)
                        .any(|d| d.seen.unanswered && d.seen.answered && d.delete.is_some())
                },
            ),
            Property::sometimes("a lease lapses after COMMIT, and the message comes back", |_, s: &State| {
                let all = || s.loaders.iter().flat_map(|l| &l.deliveries);
                all().any(|d| d.seen.answered && d.term.is_some_and(|term| term.has_expired(s.now)))
                    && all().any(|d| d.stage == Stage::Waiting && d.receipt == s.queue[d.message].deliveries)
            }),
            Property::sometimes(
                "a transaction is committed after its loader has begun again",
                |_, s: &State| {
                    let begun = |s: &State| s.loaders.iter().any(|l| l.transaction.is_some());
                    begun(s) && s.orphans.iter().any(|orphan| orphan.committing)
                },
            ),
        ]
    }
}

/// Whether everything is stored and deleted, and no loader has anything left to do.
fn is_done(s: &State) -> bool {
    s.queue.iter().all(|m| m.deleted && m.rows == 1) && s.loaders.iter().all(|l| l.deliveries.is_empty())
}

impl World {
    /// Whether everything ends well from here if nothing fails any more. It tries one order of events, in which
    /// everything possible is done before time goes on.
    fn mends(self, s: &State) -> bool {
        let mut s = s.clone();
        let mut events = Vec::new();
        // Far more steps than it takes.
        for _ in 0..100 {
            if is_done(&s) {
                return true;
            }
            events.clear();
            self.events(&s, &mut events);
            let next = events.iter().filter_map(|event| Some((rank(*event)?, *event))).min_by_key(|e| e.0);
            let Some((_, event)) = next else { return false };
            s = self.after(&s, event);
        }
        false
    }
}

/// Returns the rank of an event in an order without faults. Returns `None` for a fault.
fn rank(event: Event) -> Option<u8> {
    match event {
        Event::OrphanEnds(..) => Some(0),
        Event::Insert(..) | Event::SendCommit(_) | Event::Commit(_) | Event::CommitAnswered(_) => Some(1),
        Event::Extended(_, _, Outcome::Done) | Event::Deleted(..) => Some(2),
        Event::Begin(_) | Event::Delete(..) | Event::Sweep(_) => Some(3),
        // Two transactions wait for each other, and the server ends one.
        Event::Abort(_) => Some(4),
        Event::Receive(Some(_), _) => Some(5),
        Event::Tick => Some(6),
        _ => None,
    }
}

const ONE: World = World { messages: 1, end: 4, deliveries: 2, flaw: Flaw::None };

/// Checks every state, or stops at the first one that breaks a property.
fn all_of(world: World, at_least: usize) -> impl Checker<World> {
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    for property in world.properties().iter().filter(|p| p.expectation.discovery_is_failure()) {
        checker.assert_no_discovery(property.name);
    }
    let states = checker.unique_state_count();
    assert!(states >= at_least, "only {states} states: something keeps events from happening");
    checker
}

/// Returns whether some state breaks the property.
fn breaks(world: World, property: &'static str) -> bool {
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = world.checker().threads(2).finish_when(found).spawn_bfs().join();
    checker.discovery(property).is_some()
}

#[test]
fn no_order_of_events_deletes_before_commit() {
    all_of(ONE, 50_000).assert_properties();
}

#[test]
fn a_message_that_comes_back_twice_is_stored_once() {
    all_of(World { end: 3, deliveries: 3, ..ONE }, 40_000).assert_properties();
}

#[test]
fn batches_that_share_messages_wait_for_each_other() {
    // Without time no lease expires, so not every property can occur.
    let world = World { messages: 2, end: 0, deliveries: 2, ..ONE };
    all_of(world, 10_000).assert_any_discovery(DONE);
}

#[test]
fn late_deletes_and_deliveries_out_of_turn_lose_and_double_nothing() {
    all_of(World { flaw: Flaw::DeleteAfterLease, end: 2, ..ONE }, 50_000).assert_properties();
}

/// Each assumption of the model is needed, and the checks notice when it doesn't hold.
#[test]
fn each_flaw_is_noticed() {
    for (flaw, property) in [
        (Flaw::Unanswered, STORED),
        (Flaw::Unanswered, SENT),
        (Flaw::CountedFromAnswer, SENT),
        (Flaw::CountedFromAnswer, STALE),
        (Flaw::NoKey, ONCE),
        (Flaw::Asynchronous, STORED),
    ] {
        assert!(breaks(World { flaw, ..ONE }, property), "{flaw:?}: {property}");
    }
}
