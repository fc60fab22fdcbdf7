//! Whether a loader can work: whether both sides of it have answered lately.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::intake::Intake;
use crate::shutdown::Shutdown;
use crate::writer::{PING_EVERY, PING_TIME};

/// A side that has not answered for so long is not reachable. Each is asked several times within it, whatever there is
/// to do.
const LATELY: Duration = Duration::from_mins(1);

/// When somebody last answered.
#[derive(Default)]
pub(crate) struct Pulse {
    last: Mutex<Option<Instant>>,
}

impl Pulse {
    /// There was an answer.
    pub(crate) fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago the last answer was.
    fn age(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}

/// Ready from the begin of the pipeline until a stop is asked for, while both sides answer.
pub(crate) struct Readiness {
    sides: OnceLock<[Side; 2]>,
    shutdown: Shutdown,
    intake: Intake,
}

/// One of the two that a loader stands between.
pub(super) struct Side {
    name: &'static str,
    pulse: Arc<Pulse>,
    limit: Duration,
}

impl Readiness {
    /// Of a run that has not begun.
    pub(crate) fn new(shutdown: Shutdown, intake: Intake) -> Self {
        Self { sides: OnceLock::new(), shutdown, intake }
    }

    /// The pipeline begins. A receive call may take `receive_timeout`, and a batch `store_timeout`, without anything
    /// being wrong.
    pub(crate) fn begin(
        &self,
        (sqs, receive_timeout): (Arc<Pulse>, Duration),
        (database, store_timeout): (Arc<Pulse>, Duration),
    ) {
        // Both have just been looked at.
        sqs.beat();
        database.beat();
        let sqs = Side { name: "sqs", pulse: sqs, limit: LATELY.max(2 * receive_timeout) };
        // Before a batch that takes its time, the last answer may be as old as that to a writer that has just been idle.
        let limit = LATELY.max(PING_EVERY + PING_TIME + store_timeout);
        let database = Side { name: "database", pulse: database, limit };
        // There is but one begin.
        _ = self.sides.set([sqs, database]);
    }

    /// How it is now.
    pub(super) fn look(&self) -> Look<'_> {
        if self.shutdown.is_stopping() {
            return Look::Stopping;
        }
        match self.sides.get() {
            None => Look::Starting,
            Some(_) if !self.intake.is_open() => Look::Blocked,
            Some(sides) => Look::Running(sides.each_ref().map(|side| (side, side.pulse.age()))),
        }
    }
}

/// Readiness at one moment. Its `Display` is what `/readyz` says.
pub(super) enum Look<'r> {
    Starting,
    Blocked,
    Running([(&'r Side, Option<Duration>); 2]),
    Stopping,
}

impl Look<'_> {
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Starting | Self::Blocked | Self::Stopping => false,
            Self::Running(sides) => sides.iter().all(|(side, age)| side.answered(*age)),
        }
    }
}

impl Side {
    fn answered(&self, age: Option<Duration>) -> bool {
        age.is_some_and(|age| age <= self.limit)
    }
}

impl fmt::Display for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sides = match self {
            Self::Starting => return writeln!(f, "not ready: starting"),
            Self::Stopping => return writeln!(f, "not ready: stopping"),
            Self::Blocked => return writeln!(f, "not ready: the database takes no events, see the log"),
            Self::Running(sides) => sides,
        };
        writeln!(f, "{}", if self.is_ready() { "ready" } else { "not ready" })?;
        for (side, age) in sides {
            let state = if side.answered(*age) { "ok" } else { "silent" };
            let seconds = age.unwrap_or_default().as_secs();
            writeln!(
                f,
                "{}: {state}, last answered {seconds} s ago, limit {} s",
                side.name,
                side.limit.as_secs()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A run whose receive calls may take `receive` seconds, and the pulses of SQS and the database.
    fn begun(receive: u32, store: u32) -> (Readiness, Arc<Pulse>, Arc<Pulse>, Shutdown) {
        let shutdown = Shutdown::default();
        let readiness = Readiness::new(shutdown.clone(), Intake::default());
        let (sqs, database) = (Arc::<Pulse>::default(), Arc::<Pulse>::default());
        readiness.begin((Arc::clone(&sqs), SECOND * receive), (Arc::clone(&database), SECOND * store));
        (readiness, sqs, database, shutdown)
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_ready_from_its_begin_until_it_is_stopped() {
        let (readiness, _, _, shutdown) = begun(10, 60);
        assert!(readiness.look().is_ready());
        shutdown.stop();
        assert!(!readiness.look().is_ready());
        assert_eq!(readiness.look().to_string(), "not ready: stopping\n");
        let starting = Readiness::new(Shutdown::default(), Intake::default());
        assert!(!starting.look().is_ready());
        assert_eq!(starting.look().to_string(), "not ready: starting\n");
    }

    #[tokio::test]
    async fn a_run_is_not_ready_while_the_database_takes_no_events() {
        let (mut readiness, ..) = begun(10, 60);
        let intake = Intake::default();
        readiness.intake = intake.clone();
        let blocked = intake.blocked();
        assert!(!readiness.look().is_ready());
        assert_eq!(readiness.look().to_string(), "not ready: the database takes no events, see the log\n");
        drop(blocked);
        assert!(readiness.look().is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_was_silent_for_a_minute_is_not_reachable() {
        let (readiness, sqs, database, _) = begun(10, 40);
        advance(SECOND * 60).await;
        assert!(readiness.look().is_ready());
        advance(SECOND).await;
        assert!(!readiness.look().is_ready());
        sqs.beat();
        assert!(!readiness.look().is_ready(), "one side is not enough");
        assert_eq!(
            readiness.look().to_string(),
            "not ready\nsqs: ok, last answered 0 s ago, limit 60 s\ndatabase: silent, last answered 61 s ago, limit 60 s\n"
        );
        database.beat();
        assert!(readiness.look().is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_take_longer_is_waited_for() {
        // After an answer to an idle writer, nothing is heard for 20 s and as long as a batch may take.
        let (readiness, sqs, database, _) = begun(35, 300);
        advance(SECOND * 70).await;
        assert!(readiness.look().is_ready());
        advance(SECOND).await;
        assert!(!readiness.look().is_ready());
        sqs.beat();
        assert!(readiness.look().is_ready());
        advance(SECOND * 249).await;
        sqs.beat();
        assert!(readiness.look().is_ready());
        advance(SECOND).await;
        assert!(!readiness.look().is_ready());
        database.beat();
        assert!(readiness.look().is_ready());
    }
}
