//! What a run has done so far, in messages.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What the inbox did with the events of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// New rows in the target.
    pub(crate) stored: u64,
    /// Events whose message id was there already.
    pub(crate) duplicate: u64,
    /// Events that could not be rows and were kept, masked whole, among the rejects.
    pub(crate) rejected: u64,
}

/// Counters that all tasks of the pipeline share.
#[derive(Default)]
pub(crate) struct Stats {
    received: AtomicU64,
    stored: AtomicU64,
    duplicate: AtomicU64,
    rejected: AtomicU64,
    deleted: AtomicU64,
    undeleted: AtomicU64,
    extended: AtomicU64,
    lapsed: AtomicU64,
    left: AtomicU64,
    connections: AtomicU64,
    /// Tasks that receive.
    pub(crate) pollers: AtomicUsize,
}

impl Stats {
    /// Messages came from SQS.
    pub(crate) fn add_received(&self, messages: usize) {
        self.received.fetch_add(messages as u64, Relaxed);
    }

    /// A batch was committed.
    pub(crate) fn add_committed(&self, counts: Counts) {
        self.stored.fetch_add(counts.stored, Relaxed);
        self.duplicate.fetch_add(counts.duplicate, Relaxed);
        self.rejected.fetch_add(counts.rejected, Relaxed);
    }

    /// SQS confirmed deletes.
    pub(crate) fn add_deleted(&self, messages: usize) {
        self.deleted.fetch_add(messages as u64, Relaxed);
    }

    /// Messages were committed and could not be deleted; they come back and are found duplicates.
    pub(crate) fn add_undeleted(&self, messages: usize) {
        self.undeleted.fetch_add(messages as u64, Relaxed);
    }

    /// SQS confirmed that it hides messages for longer.
    pub(crate) fn add_extended(&self, messages: usize) {
        self.extended.fetch_add(messages as u64, Relaxed);
    }

    /// Leases ran out before their delete was confirmed; the messages come back.
    pub(crate) fn add_lapsed(&self, messages: usize) {
        self.lapsed.fetch_add(messages as u64, Relaxed);
    }

    /// Messages that the database can neither store nor reject were left to the queue's redrive policy.
    pub(crate) fn add_left(&self, messages: usize) {
        self.left.fetch_add(messages as u64, Relaxed);
    }

    /// A connection to the database was made.
    pub(crate) fn add_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// The counters now.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            received: self.received.load(Relaxed),
            stored: self.stored.load(Relaxed),
            duplicate: self.duplicate.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            deleted: self.deleted.load(Relaxed),
            undeleted: self.undeleted.load(Relaxed),
            extended: self.extended.load(Relaxed),
            lapsed: self.lapsed.load(Relaxed),
            left: self.left.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }
}

/// The counters at one moment. Its `Display` is the line that ends a run, which scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) received: u64,
    pub(crate) stored: u64,
    pub(crate) duplicate: u64,
    pub(crate) rejected: u64,
    pub(crate) deleted: u64,
    pub(crate) undeleted: u64,
    pub(crate) extended: u64,
    pub(crate) lapsed: u64,
    pub(crate) left: u64,
    pub(crate) connections: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, stored, duplicate, rejected, deleted, .. } = self;
        write!(
            f,
            "received {received}, stored {stored}, duplicate {duplicate}, rejected {rejected}, deleted \
             {deleted}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_reads_as_documented() {
        let stats = Stats::default();
        stats.add_received(6);
        stats.add_committed(Counts { stored: 3, duplicate: 2, rejected: 1 });
        stats.add_deleted(1);
        stats.add_undeleted(1);
        assert_eq!(stats.summary().to_string(), "received 6, stored 3, duplicate 2, rejected 1, deleted 1");
    }
}
