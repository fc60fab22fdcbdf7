//! The end of a run: in good order while there is time, at once if there is none.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Maximum time for receive calls after the grace period. If messages wait, the calls return at once, and these
/// messages would stay hidden if nobody took the answer.
pub(crate) const LAST_RECEIVES: Duration = Duration::from_secs(2);
/// Maximum time for making messages visible again.
pub(crate) const RELEASE_TIME: Duration = Duration::from_secs(5);
/// Maximum time for the last traces.
pub(crate) const TRACES_TIME: Duration = Duration::from_secs(2);
/// Maximum time for a reader of standard output to take the last line.
pub(crate) const OUTPUT_TIME: Duration = Duration::from_secs(1);
/// Maximum time for a reader of standard error to take the last lines of the log.
pub(crate) const LOG_TIME: Duration = Duration::from_secs(1);
/// Maximum time from the end of the grace period to the end of the process.
pub(crate) const END_TIME: Duration = LAST_RECEIVES
    .saturating_add(RELEASE_TIME)
    .saturating_add(TRACES_TIME)
    .saturating_add(OUTPUT_TIME)
    // Once before the last line of standard output, and once after it.
    .saturating_add(LOG_TIME.saturating_mul(2));

/// Tells every task when to stop receiving and when to give up messages in flight. Clones share one state.
#[derive(Clone, Default)]
pub(crate) struct Shutdown {
    /// Cancelled when receiving must stop. Messages that were received are still stored and deleted.
    stopping: CancellationToken,
    /// Cancelled when there is no time left for that either. Messages in flight are made visible again.
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
                    "{name}: receiving no more; finishing what is in flight within {} s (a second signal ends \
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

    /// Stops receiving.
    pub(crate) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether receiving must stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Resolves once receiving must stop.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Resolves once everything must stop.
    pub(crate) async fn abandoning(&self) {
        self.abandoning.cancelled().await;
    }

    /// Sleeps for `time` and returns true, or returns false as soon as receiving must stop.
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
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::DEFAULT_GRACE;

    /// Returns the seconds after each `key` in a text: `30`, `30s`.
    fn seconds(text: &str, key: &str) -> Vec<u64> {
        let after = text.split(key).skip(1);
        after.map(|rest| rest.trim_start().split(['s', '\n']).next().unwrap().parse().unwrap()).collect()
    }

    /// Returns all files below `folder`.
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn the_shipped_files_allow_enough_time_for_a_stop() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let compose = fs::read_to_string(top.join("docker-compose.yml")).unwrap();
        let (_, loader) = compose.split_once("\n  loader:\n").unwrap();
        let mut allowed = seconds(loader, "stop_grace_period:");
        assert_eq!(allowed.len(), 1, "docker-compose.yml");
        for file in files(&top.join("deploy")) {
            // A picture isn't text.
            let Ok(text) = fs::read_to_string(&file) else { continue };
            allowed.extend(seconds(&text, "TimeoutStopSec="));
            allowed.extend(seconds(&text, "terminationGracePeriodSeconds:"));
        }
        assert!(allowed.len() > 1, "the systemd unit says nothing");
        let takes = Duration::from_secs(DEFAULT_GRACE.into()) + END_TIME;
        // Some more time for a process that must be scheduled.
        let takes = takes.as_secs() + 2;
        assert!(allowed.iter().all(|&seconds| takes <= seconds), "{takes} s, allowed: {allowed:?}");
    }

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
