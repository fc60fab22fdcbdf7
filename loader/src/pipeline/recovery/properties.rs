//! Promises of recovery, for batches of any kind and any order of faults.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::fates::{Fate, Fates, Kind, fault, fault_of, messages};
use super::{Action, Event, Recovery, Seen};
use crate::backoff::RetryLimit;
use crate::inbox::{DbError, Retry, Trial};

/// A fault of one attempt or trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The connection is lost during it.
    Lost,
    /// There is no connection.
    NoConnection,
    /// A resource of the server is missing, which no message causes.
    Full,
    /// The set-up is at fault during it.
    Setup,
    /// The set-up is at fault, and lets nobody connect.
    NoLogin,
}

impl Fault {
    fn of_attempt(self) -> (DbError, bool) {
        match self {
            Self::Lost => (fault(Retry::Reconnect, ""), true),
            Self::NoConnection => (fault(Retry::Reconnect, ""), false),
            Self::Full => (fault(Retry::Later, "53100"), true),
            Self::Setup => (fault(Retry::Bisect, ""), true),
            Self::NoLogin => (fault(Retry::AfterSetup, ""), false),
        }
    }

    fn of_trial(self) -> DbError {
        match self {
            Self::Setup => fault(Retry::AfterSetup, ""),
            other => other.of_attempt().0,
        }
    }
}

/// Everything that happens while a batch is stored.
#[derive(Clone, Debug)]
struct World {
    batch: Vec<(Kind, Option<&'static str>)>,
    /// The batch that waits.
    waiting: Vec<Kind>,
    /// Faults of the first attempts and trials, or none. Later ones have no fault.
    faults: Vec<Option<Fault>>,
    /// Result of a trial without a fault.
    trial: Trial,
    /// Number of pauses after which another writer stores a batch.
    others_store_after: usize,
    /// Number of actions after which the run is being stopped.
    stop_after: Option<usize>,
    patience: RetryLimit,
}

/// Result of a run.
#[derive(Debug)]
struct Outcome {
    fates: Fates,
    attempts: usize,
    trials: usize,
    actions: usize,
    failed: bool,
}

/// More actions than any world here needs.
const MOST_ACTIONS: usize = 10_000;

impl World {
    fn quiet(batch: &[Kind]) -> Self {
        Self {
            batch: batch.iter().map(|kind| (*kind, None)).collect(),
            waiting: Vec::new(),
            faults: Vec::new(),
            trial: Trial::Stored,
            others_store_after: 0,
            stop_after: None,
            patience: RetryLimit::Endless,
        }
    }

    fn run(&self) -> Outcome {
        let batch = messages(0, &self.batch);
        let mut faults: VecDeque<Option<Fault>> = self.faults.iter().copied().collect();
        let mut next_fault = || faults.pop_front().flatten();
        let mut outcome =
            Outcome { fates: Fates::new(&batch), attempts: 0, trials: 0, actions: 0, failed: false };
        let (mut pauses, mut stored, mut was_taken) = (0, 0, false);
        let mut recovery = Recovery::new(batch, self.patience, stored);
        let mut event = Event::Done;
        loop {
            let stopping = self.stop_after.is_some_and(|after| outcome.actions >= after);
            let others = u64::from(pauses > self.others_store_after);
            let action = recovery.next(event, Seen { stored: stored + others, stopping });
            assert!(outcome.fates.is_rest(&recovery, &action), "{outcome:?}\n{action:?}\n{recovery:?}");
            outcome.actions += 1;
            assert!(outcome.actions < MOST_ACTIONS, "it goes on indefinitely: {recovery:?}");
            let fates = &mut outcome.fates;
            event = match action {
                Action::Store { part, .. } => {
                    assert!(!part.is_empty());
                    outcome.attempts += 1;
                    let failed = next_fault().map(Fault::of_attempt);
                    if let Some((fault, connected)) = failed.or_else(|| Some((fault_of(&part)?, true))) {
                        Event::Failed { part, fault, connected }
                    } else {
                        fates.decide(&part, Fate::Committed);
                        stored += 1;
                        Event::Committed
                    }
                }
                Action::Try => {
                    outcome.trials += 1;
                    Event::Tried(next_fault().map_or(Ok(self.trial), |fault| Err(fault.of_trial())))
                }
                Action::TakeBatch if was_taken || self.waiting.is_empty() => Event::Taken(None),
                Action::TakeBatch => {
                    was_taken = true;
                    let kinds: Vec<_> = self.waiting.iter().map(|kind| (*kind, Some("waiting"))).collect();
                    let batch = messages(1_000, &kinds);
                    fates.add(&batch);
                    Event::Taken(Some(batch))
                }
                Action::Retry { .. } | Action::Wait(_) => {
                    pauses += 1;
                    Event::Done
                }
                Action::LeaveCulprit { part, .. } => {
                    fates.decide(&part, Fate::Left);
                    Event::Done
                }
                Action::LeaveBehind(part) => {
                    fates.decide(&part, Fate::Behind);
                    Event::Done
                }
                Action::GiveUp { parts, .. } => {
                    fates.decide(&parts.concat(), Fate::GivenUp);
                    Event::Done
                }
                Action::Able
                | Action::SetupFailed(_)
                | Action::AllRefused(_)
                | Action::SetupMended
                | Action::Bisecting { .. } => Event::Done,
                Action::Fail(_) => {
                    outcome.failed = true;
                    return outcome;
                }
                Action::Finish => return outcome,
            };
        }
    }

    /// Number of these faults.
    fn count(&self, fault: Fault) -> usize {
        self.faults.iter().filter(|of| **of == Some(fault)).count()
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![6 => Just(Kind::Good), 1 => Just(Kind::Refused), 1 => Just(Kind::Crashing)]
}

fn any_fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        6 => Just(None),
        1 => Just(Some(Fault::Lost)),
        1 => Just(Some(Fault::NoConnection)),
        1 => Just(Some(Fault::Full)),
        1 => Just(Some(Fault::Setup)),
        1 => Just(Some(Fault::NoLogin)),
    ]
}

fn group() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![3 => Just(None), 2 => Just(Some("a")), 2 => Just(Some("b"))]
}

prop_compose! {
    fn world()(
        batch in vec((kind(), group()), 1..24),
        waiting in vec(kind(), 0..3),
        faults in vec(any_fault(), 0..24),
        tells in any::<bool>(),
        others_store_after in 0_usize..6,
    ) -> World {
        let trial = if tells { Trial::Stored } else { Trial::Refused };
        let (stop_after, patience) = (None, RetryLimit::Endless);
        World { batch, waiting, faults, trial, others_store_after, stop_after, patience }
    }
}

/// Returns the logarithm to base 2, rounded up: how often a batch can be halved.
fn halvings(n: usize) -> usize {
    usize::try_from(n.next_power_of_two().ilog2()).unwrap()
}

fn one_among(n: usize, at: usize, kind: Kind) -> Outcome {
    let mut batch = vec![Kind::Good; n];
    batch[at] = kind;
    World::quiet(&batch).run()
}

proptest! {
    #[test]
    fn no_message_is_lost_or_doubled_or_overtakes_its_group(
        world in world(),
        stop_after in option::of(0_usize..60),
        patience in prop_oneof![Just(RetryLimit::Endless), (1_u32..9).prop_map(RetryLimit::UpTo)],
    ) {
        let outcome = World { stop_after, patience, ..world }.run();
        prop_assert_eq!(outcome.fates.wrong, None);
        // The end of a failed run releases what has no fate.
        prop_assert!(outcome.failed || outcome.fates.are_complete());
        prop_assert!(!outcome.failed || patience != RetryLimit::Endless);
    }

    /// A message is left after two refusals, each before a sign that the set-up works, or after three failures in a row
    /// that a message can cause. A full disk is none of them, however often it fails.
    #[test]
    fn no_good_message_is_left_for_one_fault_of_the_set_up_or_two_of_the_connection(world in world()) {
        prop_assume!(world.count(Fault::Setup) <= 1 && world.count(Fault::Lost) <= 2);
        for (kind, fate) in world.run().fates.all() {
            prop_assert!(kind != Kind::Good || [Fate::Committed, Fate::Behind].contains(&fate), "{fate:?}");
        }
    }

    /// Parts are the nodes of a binary tree over n messages, which has 2n - 1. Each part is tried three times at most:
    /// a message alone that is refused is tried twice, and a part over which the server fails three times. A fault
    /// costs its own attempt or trial. If it is that of a trial, it costs three more attempts.
    #[test]
    fn the_number_of_attempts_is_bounded(world in world()) {
        let outcome = world.run();
        let n = world.batch.len() + world.waiting.len();
        let faults = world.faults.iter().flatten().count();
        let tree = 3 * (2 * n - 1) + 4 * faults;
        // If a trial tells nothing, each round tries each message in doubt three times at most. There are rounds until
        // another writer stores something, two more until the culprits are left, and one for each fault.
        let rounds = world.others_store_after + 3 + faults;
        let most = tree + if world.trial == Trial::Refused { 3 * n * rounds } else { 0 };
        prop_assert!(outcome.attempts <= most, "{} attempts, at most {most}", outcome.attempts);
        prop_assert!(outcome.trials <= outcome.attempts + faults);
    }

    /// Each halving costs two attempts: the half with the culprit fails, and the other is committed.
    #[test]
    fn one_refused_message_costs_two_attempts_for_each_halving(n in 1_usize..130, at in any::<prop::sample::Index>()) {
        let outcome = one_among(n, at.index(n), Kind::Refused);
        prop_assert!(outcome.attempts <= 2 * halvings(n) + 2, "{outcome:?}");
        prop_assert!(outcome.trials <= halvings(n) + 2, "{outcome:?}");
        prop_assert_eq!(outcome.fates.count((Kind::Good, Fate::Committed)), n - 1);
    }

    /// The half with the culprit fails three times before it is halved.
    #[test]
    fn one_crashing_message_costs_four_attempts_for_each_halving(n in 1_usize..130, at in any::<prop::sample::Index>()) {
        let outcome = one_among(n, at.index(n), Kind::Crashing);
        prop_assert!(outcome.attempts <= 4 * halvings(n) + 3, "{outcome:?}");
        prop_assert_eq!(outcome.trials, 1);
        prop_assert_eq!(outcome.fates.count((Kind::Good, Fate::Committed)), n - 1);
    }
}

/// There are 2n - 1 parts. A refused message is tried again alone before it is left. A part over which the server fails
/// is tried three times.
#[test]
fn refused_messages_alone_cost_less_than_three_attempts_each_and_crashing_ones_less_than_six() {
    for n in 1..=40 {
        let outcome = World::quiet(&vec![Kind::Refused; n]).run();
        assert_eq!((outcome.attempts, outcome.trials), (3 * n - 1, 3 * n - 1));
        assert_eq!(outcome.fates.count((Kind::Refused, Fate::Left)), n);
        let outcome = World::quiet(&vec![Kind::Crashing; n]).run();
        assert_eq!((outcome.attempts, outcome.trials), (3 * (2 * n - 1), n));
        assert_eq!(outcome.fates.count((Kind::Crashing, Fate::Left)), n);
    }
}

/// Returns the actions for a batch without groups. An action is a word; with `store` is the number of messages, and
/// `again` stands for one that is unchanged.
fn actions(
    kinds: &[Kind],
    faults: &[Option<Fault>],
    trial: Trial,
    patience: RetryLimit,
    stopping: bool,
) -> String {
    let mut faults = faults.iter().copied();
    let mut next_fault = || faults.next().flatten();
    let batch = messages(0, &kinds.iter().map(|kind| (*kind, None)).collect::<Vec<_>>());
    let mut recovery = Recovery::new(batch, patience, 0);
    let (mut event, mut words) = (Event::Done, Vec::new());
    loop {
        let action = recovery.next(event, Seen { stored: 0, stopping });
        let word = match &action {
            Action::Store { part, unchanged: false } => format!("store {}", part.len()),
            Action::Store { part, unchanged: true } => format!("again {}", part.len()),
            other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_lowercase(),
        };
        words.push(word);
        event = match action {
            Action::Store { part, .. } => {
                let fault = next_fault().map(Fault::of_attempt);
                match fault.or_else(|| Some((fault_of(&part)?, true))) {
                    Some((fault, connected)) => Event::Failed { part, fault, connected },
                    None => Event::Committed,
                }
            }
            Action::Try => Event::Tried(next_fault().map_or(Ok(trial), |fault| Err(fault.of_trial()))),
            Action::TakeBatch => Event::Taken(None),
            Action::Finish | Action::Fail(_) => return words.join(", "),
            _ => Event::Done,
        }
    }
}

const LOST: Option<Fault> = Some(Fault::Lost);
const FULL: Option<Fault> = Some(Fault::Full);
const SETUP: Option<Fault> = Some(Fault::Setup);

#[test]
fn a_part_that_is_retried_as_it_was_keeps_its_span() {
    let of = |kinds: &[Kind], faults| actions(kinds, faults, Trial::Stored, RetryLimit::Endless, false);
    let good = [Kind::Good; 4];
    assert_eq!(of(&good, &[LOST, LOST]), "store 4, retry, again 4, retry, again 4, finish");
    let halved = "store 4, retry, again 4, retry, again 4, retry, store 2, store 2, finish";
    assert_eq!(of(&good, &[LOST; 3]), halved);
    // A trial has come between.
    let left = "store 1, try, able, store 1, try, able, leaveculprit, finish";
    assert_eq!(of(&[Kind::Refused], &[]), left);
}

#[test]
fn failures_that_no_message_causes_do_not_count_against_one() {
    let of = |faults: &[_]| actions(&[Kind::Good], faults, Trial::Stored, RetryLimit::Endless, false);
    let put_off = "store 1, retry, again 1, retry, again 1, retry, takebatch, store 1, finish";
    assert_eq!(of(&[FULL, FULL, LOST]), put_off);
    assert_eq!(of(&[LOST, LOST, FULL]), put_off);
}

#[test]
fn a_crashing_message_is_left_once_another_is_stored_where_a_trial_tells_nothing() {
    // Each round has three attempts and four pauses. In the first one, there is no sign that the set-up works.
    for (others_store_after, waiting, attempts) in [(3, vec![], 9), (usize::MAX, vec![Kind::Good], 10)] {
        let quiet = World::quiet(&[Kind::Crashing]);
        let outcome = World { trial: Trial::Refused, others_store_after, waiting, ..quiet }.run();
        assert_eq!((outcome.attempts, outcome.fates.count((Kind::Crashing, Fate::Left))), (attempts, 1));
    }
}

#[test]
fn a_set_up_at_fault_is_tried_until_it_works() {
    let of = |faults| actions(&[Kind::Good; 2], faults, Trial::Stored, RetryLimit::Endless, false);
    let waits = "setupfailed, wait, try, setupfailed, wait, try, setupmended, store 2, finish";
    assert_eq!(of(&[SETUP, SETUP, SETUP]), format!("store 2, try, {waits}"));
    assert_eq!(of(&[Some(Fault::NoLogin), SETUP]), format!("store 2, {waits}"));
    // A lost connection tells nothing about the set-up, and a trial is not repeated for it.
    assert_eq!(of(&[SETUP, LOST]), "store 2, try, retry, store 2, finish");
}

#[test]
fn a_run_that_is_stopped_gives_up_at_once_what_it_cannot_store() {
    let of = |faults, trial| actions(&[Kind::Good], faults, trial, RetryLimit::Endless, true);
    let given_up = "giveup, finish";
    assert_eq!(of(&[Some(Fault::NoConnection)], Trial::Stored), format!("store 1, {given_up}"));
    assert_eq!(of(&[Some(Fault::NoLogin)], Trial::Stored), format!("store 1, setupfailed, {given_up}"));
    assert_eq!(of(&[SETUP, SETUP], Trial::Stored), format!("store 1, try, setupfailed, {given_up}"));
    assert_eq!(of(&[SETUP], Trial::Refused), format!("store 1, try, allrefused, {given_up}"));
    // Over another connection it may still be stored.
    assert_eq!(of(&[LOST], Trial::Stored), "store 1, retry, again 1, finish");
}

#[test]
fn a_run_that_ends_by_itself_fails_after_so_many_failures_in_a_row() {
    let of = |kinds: &[Kind], faults: &[_], trial| actions(kinds, faults, trial, RetryLimit::UpTo(4), false);
    let good = &[Kind::Good];
    assert_eq!(
        of(good, &[FULL; 9], Trial::Stored),
        "store 1, retry, again 1, retry, again 1, retry, takebatch, store 1, fail"
    );
    assert_eq!(of(good, &[SETUP, SETUP], Trial::Stored), "store 1, try, fail");
    assert_eq!(of(good, &[SETUP], Trial::Refused), "store 1, try, fail");
    // A commit comes between the failures.
    assert_eq!(
        of(&[Kind::Good; 2], &[LOST, LOST, LOST, None, LOST], Trial::Stored),
        "store 2, retry, again 2, retry, again 2, retry, store 1, store 1, retry, again 1, finish"
    );
}
