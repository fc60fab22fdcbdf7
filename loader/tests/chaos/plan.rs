//! The faults of a run and their order, all derived from a seed.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::form::Form;
use crate::proxy::{Direction, Order};

/// A server that loaders talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The stub, which makes faults of its own.
    Stub,
    /// The real SQS server.
    Sqs,
    Postgres,
}

impl Side {
    pub(crate) const ALL: [Self; 3] = [Self::Stub, Self::Sqs, Self::Postgres];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stub => "SQS stub",
            Self::Sqs => "SQS server",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// kill -9 of one running loader, by its number modulo the number of loaders.
    KillLoader(usize),
    /// kill -9 of all `PostgreSQL` processes at once.
    KillPostgres,
    /// kill -9 of one of the loaders' backends, upon which `PostgreSQL` ends all others and recovers.
    KillBackend,
    /// A fast restart.
    RestartPostgres,
    /// No space left where the table is, until the loaders have met the error, and one second longer.
    FillDisk,
    /// Empties the loaders' AWS credentials file for 4 s, while the stub refuses the old access key.
    LoseCredentials,
    /// The primary crashes and doesn't come back. Its synchronous standby takes over.
    Promote,
    /// Applies the order to all connections of a side.
    Cut(Side, Order),
    /// Slows a side down for this long.
    Slow(Side, Duration),
    /// Stalls a side for this long. Then its connections go on, or are reset if the flag is set.
    Stall(Side, Duration, bool),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillLoader(_) => write!(f, "kill -9 of a loader"),
            Self::KillPostgres => write!(f, "kill -9 of PostgreSQL"),
            Self::KillBackend => write!(f, "kill -9 of a backend of PostgreSQL"),
            Self::RestartPostgres => write!(f, "restart of PostgreSQL"),
            Self::FillDisk => write!(f, "disk full"),
            Self::LoseCredentials => write!(f, "no AWS credentials for a while"),
            Self::Promote => write!(f, "failover to the standby"),
            Self::Cut(side, order) => write!(f, "{order:?} at {}", side.name()),
            Self::Slow(side, time) => write!(f, "slow for {:.1} s at {}", time.as_secs_f32(), side.name()),
            Self::Stall(side, time, is_reset) => {
                let end = if *is_reset { ", then reset" } else { "" };
                write!(f, "stall for {:.1} s{end} at {}", time.as_secs_f32(), side.name())
            }
        }
    }
}

/// A pause, and the fault that follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) pause: Duration,
    pub(crate) fault: Fault,
}

/// Returns a form's faults in the order that the seed gives.
pub(crate) fn steps(form: &Form, seed: u64) -> Vec<Step> {
    let mut random = Rng::with_seed(seed);
    let mut faults = Vec::new();
    let mut add = |count: usize, fault: &mut dyn FnMut() -> Fault| faults.extend((0..count).map(|_| fault()));
    add(form.loader_kills, &mut || Fault::KillLoader(random.usize(..100)));
    add(form.postgres_kills, &mut || Fault::KillPostgres);
    add(form.backend_kills, &mut || Fault::KillBackend);
    add(form.restarts, &mut || Fault::RestartPostgres);
    add(form.disk_fills, &mut || Fault::FillDisk);
    add(form.credential_losses, &mut || Fault::LoseCredentials);
    for side in Side::ALL {
        add(form.cuts, &mut || Fault::Cut(side, Order::Reset));
        add(form.cuts, &mut || Fault::Cut(side, Order::Truncate(direction(&mut random))));
        add(form.cuts, &mut || Fault::Cut(side, Order::HalfClose(direction(&mut random))));
        add(form.cuts, &mut || Fault::Slow(side, between(&mut random, form.slow)));
        add(form.cuts, &mut || Fault::Stall(side, between(&mut random, form.stall), random.bool()));
    }
    random.shuffle(&mut faults);
    // The disk is filled while there are messages to come.
    let half = faults.len() / 2;
    for place in half..faults.len() {
        if matches!(faults[place], Fault::FillDisk) {
            faults.swap(place, place - half);
        }
    }
    // All other faults of `PostgreSQL` hit the primary, so the failover comes last.
    faults.extend(form.has_standby.then_some(Fault::Promote));
    faults.into_iter().map(|fault| Step { pause: between(&mut random, form.pause), fault }).collect()
}

fn direction(random: &mut Rng) -> Direction {
    if random.bool() { Direction::ToServer } else { Direction::ToClient }
}

fn between(random: &mut Rng, (least, most): (Duration, Duration)) -> Duration {
    least + most.saturating_sub(least).mul_f64(random.f64())
}

#[test]
fn a_seed_fixes_the_plan() {
    let form = Form::long();
    let faults = |seed| steps(&form, seed).into_iter().map(|step| step.fault).collect::<Vec<_>>();
    assert_eq!(faults(7), faults(7));
    assert_ne!(faults(7), faults(8));
    assert_eq!(
        faults(7).iter().filter(|fault| matches!(fault, Fault::KillLoader(_))).count(),
        form.loader_kills
    );
}
