//! What a run has done so far, in messages.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

    /// The counters now.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            received: self.received.load(Relaxed),
            stored: self.stored.load(Relaxed),
            duplicate: self.duplicate.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            deleted: self.deleted.load(Relaxed),
            undeleted: self.undeleted.load(Relaxed),
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
