//! Whether the pollers may receive: not while no writer can store. The receive count of a message must not rise for a fault that
//! is not its own.

#[cfg(test)]
mod model;

use tokio::sync::watch;

/// Counts the writers that can store and those that cannot. Clones share the counts.
#[derive(Clone, Default)]
pub(crate) struct Intake(watch::Sender<Writers>);

/// The writers that have tried.
#[derive(Default)]
struct Writers {
    able: usize,
    blocked: usize,
}

/// A writer's entry in the counts, until it is dropped.
pub(crate) struct Standing {
    intake: Intake,
    count: fn(&mut Writers) -> &mut usize,
}

impl Intake {
    /// Counts a writer that can store.
    pub(crate) fn able(&self) -> Standing {
        self.enter(|writers| &mut writers.able)
    }

    /// Counts a writer that cannot store.
    pub(crate) fn blocked(&self) -> Standing {
        self.enter(|writers| &mut writers.blocked)
    }

    fn enter(&self, count: fn(&mut Writers) -> &mut usize) -> Standing {
        self.0.send_modify(|writers| *count(writers) += 1);
        Standing { intake: self.clone(), count }
    }

    /// Whether to receive: a writer can store, or none has failed to.
    pub(crate) fn is_open(&self) -> bool {
        self.0.borrow().let_through()
    }

    /// Waits until the intake is open.
    pub(crate) async fn opened(&self) {
        // The sender is here, so it cannot end before.
        _ = self.0.subscribe().wait_for(Writers::let_through).await;
    }
}

impl Writers {
    fn let_through(&self) -> bool {
        self.able > 0 || self.blocked == 0
    }
}

impl Drop for Standing {
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
        let able = intake.able();
        let blocked = intake.blocked();
        assert!(intake.is_open(), "one can store");
        drop(able);
        assert!(!intake.is_open());
        let waiting = tokio::spawn({
            let intake = intake.clone();
            async move { intake.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let able = intake.able();
        waiting.await.unwrap();
        drop((able, blocked));
        assert!(intake.is_open(), "nobody has tried");
    }
}
