//! The counters of one queue.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use super::by_value::ByValue;
use super::{Count, OWN_CODES};
use crate::message::Message;
use crate::monitoring::name;

/// What was done with one queue.
pub(crate) struct OfQueue {
    pub(crate) name: Box<str>,
    pub(super) received: Count,
    redelivered: Counter,
    received_bytes: Counter,
    receive_duration: Histogram,
    delete_duration: Histogram,
    pub(super) deleted: Count,
    pub(super) undeleted: AtomicU64,
    pub(super) extended: Count,
    pub(super) lapsed: Count,
    pub(super) receive_failures: ByValue,
    pub(super) delete_failures: ByValue,
    pollers: AtomicUsize,
    pollers_now: Gauge,
}

impl OfQueue {
    /// Of the queue of this name.
    pub(super) fn new(queue: &str) -> Self {
        let labels = || vec![Label::new("queue", queue.to_owned())];
        let count = |name| Count::of(counter!(name, labels()));
        let by_code = |name| ByValue::new(name, "code", labels(), &OWN_CODES);
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
            lapsed: count(name::LAPSED),
            receive_failures: by_code(name::RECEIVE_FAILURES),
            delete_failures: by_code(name::DELETE_FAILURES),
            pollers: AtomicUsize::new(0),
            pollers_now: gauge!(name::POLLERS, labels()),
        }
    }

    /// Messages came from SQS.
    pub(crate) fn add_received(&self, messages: usize) {
        self.received.add(messages as u64);
    }

    /// A receive call brought messages.
    pub(crate) fn add_receive_call(&self, messages: &[Message], took: Duration) {
        self.add_received(messages.len());
        self.redelivered
            .increment(messages.iter().filter(|message| message.receive_count > 1).count() as u64);
        self.received_bytes.increment(messages.iter().map(Message::size).sum::<usize>() as u64);
        self.receive_duration.record(took);
    }

    /// SQS answered a delete call.
    pub(crate) fn add_delete_call(&self, took: Duration) {
        self.delete_duration.record(took);
    }

    /// A receive call failed.
    pub(crate) fn add_receive_failure(&self, code: &str) {
        self.receive_failures.add(code, 1);
    }

    /// SQS confirmed deletes.
    pub(crate) fn add_deleted(&self, messages: usize) {
        self.deleted.add(messages as u64);
    }

    /// Messages were not deleted by a call. Most often they are by another.
    pub(crate) fn add_delete_failures(&self, code: &str, messages: usize) {
        self.delete_failures.add(code, messages as u64);
    }

    /// Messages were committed and could not be deleted; they come back and are found duplicates.
    pub(crate) fn add_undeleted(&self, messages: usize) {
        self.undeleted.fetch_add(messages as u64, Relaxed);
    }

    /// SQS confirmed that it hides messages for longer.
    pub(crate) fn add_extended(&self, messages: usize) {
        self.extended.add(messages as u64);
    }

    /// Leases ran out before their delete was confirmed; the messages come back.
    pub(crate) fn add_lapsed(&self, messages: usize) {
        self.lapsed.add(messages as u64);
    }

    /// A task begins to receive.
    pub(crate) fn begin_poller(&self) {
        self.pollers.fetch_add(1, Relaxed);
        self.pollers_now.increment(1);
    }

    /// A task receives no more.
    pub(crate) fn end_poller(&self) {
        self.pollers.fetch_sub(1, Relaxed);
        self.pollers_now.decrement(1);
    }

    /// Tasks that receive.
    pub(crate) fn pollers(&self) -> usize {
        self.pollers.load(Relaxed)
    }
}
