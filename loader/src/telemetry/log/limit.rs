//! Limits the log to one line per queue, kind of failure and minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Minimum time between two lines about one kind.
const EVERY: Duration = Duration::from_mins(1);
/// Maximum number of kinds. Services choose their codes themselves.
const KINDS: usize = 64;

/// Keeps many tasks with the same failure from all logging it.
#[derive(Default)]
pub(crate) struct LogLimit {
    /// Entries by queue and code.
    kinds: Mutex<HashMap<(usize, String), Entry>>,
}

struct Entry {
    logged: Instant,
    /// Failures since the last line.
    repeats: u64,
}

impl LogLimit {
    /// Counts a failure. If it should be logged, returns the number of failures since the last line that were not
    /// logged.
    pub(crate) fn admit(&self, queue: usize, code: &str) -> Option<u64> {
        let kind = (queue, code.to_owned());
        let now = Instant::now();
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kinds.get_mut(&kind) {
            if now - known.logged < EVERY {
                known.repeats += 1;
                return None;
            }
            known.logged = now;
            return Some(std::mem::take(&mut known.repeats));
        }
        if kinds.len() == KINDS {
            kinds.clear();
        }
        kinds.insert(kind, Entry { logged: now, repeats: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_failure_is_logged_once_a_minute() {
        let limit = LogLimit::default();
        assert_eq!((limit.admit(0, "a"), limit.admit(0, "b")), (Some(0), Some(0)));
        assert_eq!((limit.admit(0, "a"), limit.admit(0, "a")), (None, None));
        assert_eq!(limit.admit(1, "a"), Some(0), "another queue");
        tokio::time::advance(EVERY).await;
        assert_eq!((limit.admit(0, "a"), limit.admit(0, "b")), (Some(2), Some(0)));
    }
}
