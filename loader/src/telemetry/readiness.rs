//! Readiness: whether both sides of a loader have answered lately.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::shutdown::Shutdown;

/// Time without an answer after which a side counts as unreachable. Each side is asked several times within it,
/// whatever there is to do.
const LATELY: Duration = Duration::from_mins(1);

/// Time of the last answer.
#[derive(Default)]
pub(crate) struct LastAnswer {
    last: Mutex<Option<Instant>>,
}

impl LastAnswer {
    /// Records an answer.
    pub(crate) fn beat(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns the time since the last answer.
    fn age(&self) -> Option<Duration> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.elapsed())
    }
}

/// Ready from the start of the pipeline until a stop is requested, while both sides answer.
pub(crate) struct Readiness {
    sides: OnceLock<[Side; 2]>,
    shutdown: Shutdown,
    /// Whether the run may receive messages now.
    may_receive: Box<dyn Fn() -> bool + Send + Sync>,
}

/// One of the two sides that a loader stands between.
pub(super) struct Side {
    name: &'static str,
    pulse: Arc<LastAnswer>,
    limit: Duration,
}

impl Readiness {
    /// Makes the readiness of a run that has not begun.
    pub(crate) fn new(shutdown: Shutdown, may_receive: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { sides: OnceLock::new(), shutdown, may_receive: Box::new(may_receive) }
    }

    /// Begins the pipeline. Each side comes with the longest time between two answers that is normal.
    pub(crate) fn begin(
        &self,
        (sqs, between_receives): (Arc<LastAnswer>, Duration),
        (database, between_stores): (Arc<LastAnswer>, Duration),
    ) {
        // Both sides have just been checked.
        sqs.beat();
        database.beat();
        let sqs = Side { name: "sqs", pulse: sqs, limit: LATELY.max(between_receives) };
        let database = Side { name: "database", pulse: database, limit: LATELY.max(between_stores) };
        // Called only once.
        _ = self.sides.set([sqs, database]);
    }

    /// Returns the current state.
    pub(super) fn state(&self) -> ReadinessState<'_> {
        if self.shutdown.is_stopping() {
            return ReadinessState::Stopping;
        }
        match self.sides.get() {
            None => ReadinessState::Starting,
            Some(_) if !(self.may_receive)() => ReadinessState::Blocked,
            Some(sides) => ReadinessState::Running(sides.each_ref().map(|side| (side, side.pulse.age()))),
        }
    }
}

/// Readiness at one moment. `/readyz` answers with its `Display`.
pub(super) enum ReadinessState<'r> {
    Starting,
    Blocked,
    Running([(&'r Side, Option<Duration>); 2]),
    Stopping,
}

impl ReadinessState<'_> {
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

impl fmt::Display for ReadinessState<'_> {
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

    /// Begins a run whose receive calls may take `receive` seconds. Also returns the last answers of SQS and the
    /// database.
    fn begun(receive: u32, store: u32) -> (Readiness, Arc<LastAnswer>, Arc<LastAnswer>, Shutdown) {
        let shutdown = Shutdown::default();
        let readiness = Readiness::new(shutdown.clone(), || true);
        let (sqs, database) = (Arc::<LastAnswer>::default(), Arc::<LastAnswer>::default());
        readiness.begin((Arc::clone(&sqs), SECOND * receive), (Arc::clone(&database), SECOND * store));
        (readiness, sqs, database, shutdown)
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_ready_from_its_begin_until_it_is_stopped() {
        let (readiness, _, _, shutdown) = begun(10, 60);
        assert!(readiness.state().is_ready());
        shutdown.stop();
        assert!(!readiness.state().is_ready());
        assert_eq!(readiness.state().to_string(), "not ready: stopping\n");
        let starting = Readiness::new(Shutdown::default(), || true);
        assert!(!starting.state().is_ready());
        assert_eq!(starting.state().to_string(), "not ready: starting\n");
    }

    #[tokio::test]
    async fn a_run_is_not_ready_while_the_database_takes_no_events() {
        let (mut readiness, ..) = begun(10, 60);
        readiness.may_receive = Box::new(|| false);
        assert!(!readiness.state().is_ready());
        assert_eq!(readiness.state().to_string(), "not ready: the database takes no events, see the log\n");
        readiness.may_receive = Box::new(|| true);
        assert!(readiness.state().is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_was_silent_for_a_minute_is_not_reachable() {
        let (readiness, sqs, database, _) = begun(10, 40);
        advance(SECOND * 60).await;
        assert!(readiness.state().is_ready());
        advance(SECOND).await;
        assert!(!readiness.state().is_ready());
        sqs.beat();
        assert!(!readiness.state().is_ready(), "one side is not enough");
        assert_eq!(
            readiness.state().to_string(),
            "not ready\nsqs: ok, last answered 0 s ago, limit 60 s\ndatabase: silent, last answered 61 s ago, limit 60 s\n"
        );
        database.beat();
        assert!(readiness.state().is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_with_a_longer_timeout_stays_ready_longer() {
        let (readiness, sqs, database, _) = begun(70, 320);
        advance(SECOND * 70).await;
        assert!(readiness.state().is_ready());
        advance(SECOND).await;
        assert!(!readiness.state().is_ready());
        sqs.beat();
        assert!(readiness.state().is_ready());
        advance(SECOND * 249).await;
        sqs.beat();
        assert!(readiness.state().is_ready());
        advance(SECOND).await;
        assert!(!readiness.state().is_ready());
        database.beat();
        assert!(readiness.state().is_ready());
    }
}
