//! The counters of one queue.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use super::labelled_counter::LabelledCounter;
use super::{Count, OWN_CODES};
use crate::telemetry::metrics::name;

/// Messages that a receive call returned.
pub(crate) struct Received {
    pub(crate) messages: usize,
    /// Messages among them that were received before.
    pub(crate) redelivered: usize,
    pub(crate) bytes: usize,
}

/// Counters of one queue.
pub(crate) struct QueueStats {
    pub(crate) name: Box<str>,
    pub(super) received: Count,
    redelivered: Counter,
    received_bytes: Counter,
    receive_duration: Histogram,
    delete_duration: Histogram,
    pub(super) deleted: Count,
    pub(super) undeleted: AtomicU64,
    pub(super) extended: Count,
    pub(super) expired: Count,
    pub(super) receive_failures: LabelledCounter,
    pub(super) delete_failures: LabelledCounter,
    pollers: AtomicUsize,
    pollers_now: Gauge,
}

impl QueueStats {
    /// Makes the counters for the queue with this name.
    pub(super) fn new(queue: &str) -> Self {
        let labels = || vec![Label::new("queue", queue.to_owned())];
        let count = |name| Count::of(counter!(name, labels()));
        let by_code = |name| LabelledCounter::new(name, "code", labels(), &OWN_CODES);
        Self {
            name: queue.into(),
            received: count(name::RECEIVED),
            redelivered: counter!(name::REDELIVERED, labels()),
            received_bytes: counter!(name::RECEIVED_BYTES, labels()),
            receive_duration: histogram!(name::RECEIVE_DURATION, labels()),
            delete_duration: histogram!(name::DELETE_DURATION, labels()),
            deleted: count(name::DELETED),
            undeleted: AtomicU64::new(0),
            extended: count(name::EXTENSIONS),
            expired: count(name::LEASES_EXPIRED),
            receive_failures: by_code(name::RECEIVE_FAILURES),
            delete_failures: by_code(name::DELETE_FAILURES),
            pollers: AtomicUsize::new(0),
            pollers_now: gauge!(name::POLLERS, labels()),
        }
    }

    /// Counts messages from SQS.
    pub(crate) fn add_received(&self, messages: usize) {
        self.received.add(messages as u64);
    }

    /// Counts a receive call that returned messages.
    pub(crate) fn add_receive_call(&self, received: &Received, took: Duration) {
        self.add_received(received.messages);
        self.redelivered.increment(received.redelivered as u64);
        self.received_bytes.increment(received.bytes as u64);
        self.receive_duration.record(took);
    }

    /// Counts a delete call that SQS answered.
    pub(crate) fn add_delete_call(&self, took: Duration) {
        self.delete_duration.record(took);
    }

    /// Counts a failed receive call.
    pub(crate) fn add_receive_failure(&self, code: &str) {
        self.receive_failures.add(code, 1);
    }

    /// Counts deletes that SQS confirmed.
    pub(crate) fn add_deleted(&self, messages: usize) {
        self.deleted.add(messages as u64);
    }

    /// Counts messages that a call did not delete. Most often another call does.
    pub(crate) fn add_delete_failures(&self, code: &str, messages: usize) {
        self.delete_failures.add(code, messages as u64);
    }

    /// Counts committed messages that couldn't be deleted. They come back and are found duplicates.
    pub(crate) fn add_undeleted(&self, messages: usize) {
        self.undeleted.fetch_add(messages as u64, Relaxed);
    }

    /// Counts messages whose lease extension SQS confirmed.
    pub(crate) fn add_extended(&self, messages: usize) {
        self.extended.add(messages as u64);
    }

    /// Counts leases that expired before their delete was confirmed, or that SQS refused to extend.
    pub(crate) fn add_expired(&self, messages: usize) {
        self.expired.add(messages as u64);
    }

    /// Counts a task that begins to receive.
    pub(crate) fn begin_poller(&self) {
        self.pollers.fetch_add(1, Relaxed);
        self.pollers_now.increment(1);
    }

    /// Counts a task that stops receiving.
    pub(crate) fn end_poller(&self) {
        self.pollers.fetch_sub(1, Relaxed);
        self.pollers_now.decrement(1);
    }

    /// Returns the number of tasks that receive.
    pub(crate) fn pollers(&self) -> usize {
        self.pollers.load(Relaxed)
    }
}
