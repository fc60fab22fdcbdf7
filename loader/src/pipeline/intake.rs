//! Intake: whether the pollers may receive. They may not while no writer can store. The receive count of a message must
//! not rise because of a fault that is not its own.

#[cfg(test)]
mod model;

use tokio::sync::watch;

/// Counts the writers that can store and those that can't. Clones share the counts.
#[derive(Clone, Default)]
pub(crate) struct Intake(watch::Sender<Writers>);

/// Counts of the writers that have tried.
#[derive(Default)]
struct Writers {
    able: usize,
    blocked: usize,
}

/// A writer's entry in the counts. Dropping it removes the entry.
pub(crate) struct WriterState {
    intake: Intake,
    count: fn(&mut Writers) -> &mut usize,
}

impl Intake {
    /// Counts a writer that can store.
    pub(crate) fn can_store(&self) -> WriterState {
        self.enter(|writers| &mut writers.able)
    }

    /// Counts a writer that cannot store.
    pub(crate) fn cannot_store(&self) -> WriterState {
        self.enter(|writers| &mut writers.blocked)
    }

    fn enter(&self, count: fn(&mut Writers) -> &mut usize) -> WriterState {
        self.0.send_modify(|writers| *count(writers) += 1);
        WriterState { intake: self.clone(), count }
    }

    /// Whether to receive: some writer can store, or no writer has failed to.
    pub(crate) fn is_open(&self) -> bool {
        self.0.borrow().let_through()
    }

    /// Waits until the intake is open.
    pub(crate) async fn opened(&self) {
        // `self` holds the sender, so waiting can't fail.
        _ = self.0.subscribe().wait_for(Writers::let_through).await;
    }
}

impl Writers {
    fn let_through(&self) -> bool {
        self.able > 0 || self.blocked == 0
    }
}

impl Drop for WriterState {
    fn drop(&mut self) {
        self.intake.0.send_modify(|writers| *(self.count)(writers) -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gate_is_closed_while_writers_are_blocked_and_none_can_store() {
        let intake = Intake::default();
        intake.opened().await;
        let able = intake.can_store();
        let blocked = intake.cannot_store();
        assert!(intake.is_open(), "one can store");
        drop(able);
        assert!(!intake.is_open());
        let waiting = tokio::spawn({
            let intake = intake.clone();
            async move { intake.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let able = intake.can_store();
        waiting.await.unwrap();
        drop((able, blocked));
        assert!(intake.is_open(), "nobody has tried");
    }
}
