//! How a run ends: in good order while there is time, at once when there is none.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Tells every task when to stop receiving and when to give up what is in hand. Clones share one state.
#[derive(Clone, Default)]
pub(crate) struct Shutdown {
    /// Cancelled when no more messages are to be received. What was received is still stored and deleted.
    stopping: CancellationToken,
    /// Cancelled when there is no time left for that either. What is in hand is made visible again.
    abandoning: CancellationToken,
}

impl Shutdown {
    /// Starts to listen for SIGTERM and SIGINT. From the first of them, or from `stop`, the run has `grace`
    /// to finish; another signal ends that time at once.
    pub(crate) fn listen(grace: Duration) -> io::Result<Self> {
        let shutdown = Self::default();
        let mut signals = Signals::install()?;
        let state = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                name = signals.next() => info!(
                    "{name}: receiving no more; finishing what is in hand within {} s (a second signal ends \
                     it now)",
                    grace.as_secs()
                ),
                () = state.stopping() => {}
            }
            state.stop();
            tokio::select! {
                name = signals.next() => warn!("{name} again: making visible again what is not yet deleted"),
                () = tokio::time::sleep(grace) => {
                    let seconds = grace.as_secs();
                    warn!("not done within {seconds} s: making visible again what is not yet deleted");
                }
            }
            state.abandoning.cancel();
        });
        Ok(shutdown)
    }

    /// Ends receiving.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether receiving has ended.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Resolves once receiving is to end.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Resolves once everything is to end.
    pub(crate) async fn abandoning(&self) {
        self.abandoning.cancelled().await;
    }

    /// Sleeps for `time` and returns true, or returns false as soon as receiving is to end.
    pub(crate) async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.stopping() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_grace_runs_from_the_moment_of_stopping() {
        let shutdown = Shutdown::listen(Duration::from_millis(50)).unwrap();
        assert!(shutdown.sleep(Duration::from_millis(100)).await, "nothing may end before it is stopped");
        assert!(!shutdown.abandoning.is_cancelled());
        shutdown.stop();
        assert!(!shutdown.sleep(Duration::from_mins(1)).await);
        tokio::time::timeout(Duration::from_secs(5), shutdown.abandoning()).await.unwrap();
    }
}
