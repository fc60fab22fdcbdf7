//! Counters of the server's work.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::faults::Fault;
use crate::protocol::Action;

/// Counters of a server's work so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls by action, including calls that a fault affected.
    pub calls: BTreeMap<&'static str, u64>,
    /// Faults, by their field names in [`crate::Faults`].
    pub faults: BTreeMap<&'static str, u64>,
    /// Messages put into queues, by calls or directly.
    pub sent: u64,
    /// Messages delivered, including redeliveries.
    pub received: u64,
    /// Messages delivered that had been delivered before.
    pub redelivered: u64,
    /// Messages deleted.
    pub deleted: u64,
    /// Deletes refused because a receipt that this queue issued is no longer valid.
    pub stale_deletes: u64,
    /// Messages moved to a dead-letter queue.
    pub dead: u64,
    /// Maximum number of one queue's messages that were in flight at a time.
    pub most_in_flight: u64,
    /// Time at which these counters were read. All times are microseconds on a monotonic clock of the process.
    pub now_us: u64,
    /// Time of the first delivery, or 0 if there was none.
    pub first_received_us: u64,
    /// Time of the last delete, or 0 if there was none.
    pub last_deleted_us: u64,
}

/// The counters while they are being counted.
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

/// Returns the time. It is never 0, which stands for an event that has not happened.
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

    /// Records the time of the first delivery.
    pub(crate) fn note_received(&self) {
        if self.first_received_us.load(Ordering::Relaxed) == 0 {
            _ = self.first_received_us.compare_exchange(0, now_us(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Records the time of the last delete.
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
