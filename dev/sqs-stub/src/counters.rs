//! What the server has done.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::faults::Fault;
use crate::protocol::Action;

/// What a server has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls by action, those included that a fault was made of.
    pub calls: BTreeMap<&'static str, u64>,
    /// Faults by the names that [`crate::Faults`] has for them.
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages put in, by calls or directly.
    pub sent: u64,
    /// Messages handed out, those included that had been before.
    pub received: u64,
    /// Of those, the ones that had been handed out before.
    pub redelivered: u64,
    /// Messages deleted.
    pub deleted: u64,
    /// Deletes refused for their receipt, which the queue gave out and which has ended.
    pub stale_deletes: u64,
    /// Messages moved to a dead-letter queue.
    pub dead: u64,
    /// The most messages of one queue that were received and not yet deleted at a time.
    pub most_in_flight: u64,
    /// When these were counted. All times are microseconds on a clock of the process that never goes back.
    pub now_us: u64,
    /// When the first message was handed out; 0 if none was.
    pub first_received_us: u64,
    /// When the last one was deleted; 0 if none was.
    pub last_deleted_us: u64,
}

/// The same while it is counted.
#[derive(Default)]
pub(crate) struct Tally {
    calls: [AtomicU64; Action::ALL.len()],
    faults: [AtomicU64; Fault::NAMES.len()],
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) redelivered: AtomicU64,
    pub(crate) deleted: AtomicU64,
    pub(crate) stale_deletes: AtomicU64,
    pub(crate) dead: AtomicU64,
    most_in_flight: AtomicU64,
    first_received_us: AtomicU64,
    last_deleted_us: AtomicU64,
}

/// Never 0, which stands for what has not happened.
fn now_us() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Tally {
    pub(crate) fn call(&self, action: Action) {
        add(&self.calls[action as usize], 1);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        add(&self.faults[fault as usize], 1);
    }

    /// Messages were handed out.
    pub(crate) fn note_received(&self) {
        if self.first_received_us.load(Ordering::Relaxed) == 0 {
            _ = self.first_received_us.compare_exchange(0, now_us(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Messages were deleted.
    pub(crate) fn note_deleted(&self) {
        self.last_deleted_us.fetch_max(now_us(), Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self, hidden: u64) {
        self.most_in_flight.fetch_max(hidden, Ordering::Relaxed);
    }

    pub(crate) fn counters(&self) -> Counters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            calls: Action::ALL.iter().map(|a| a.name()).zip(self.calls.iter().map(get)).collect(),
            faults: Fault::NAMES.into_iter().zip(self.faults.iter().map(get)).collect(),
            sent: get(&self.sent),
            received: get(&self.received),
            redelivered: get(&self.redelivered),
            deleted: get(&self.deleted),
            stale_deletes: get(&self.stale_deletes),
            dead: get(&self.dead),
            most_in_flight: get(&self.most_in_flight),
            now_us: now_us(),
            first_received_us: get(&self.first_received_us),
            last_deleted_us: get(&self.last_deleted_us),
        }
    }
}
