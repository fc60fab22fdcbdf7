//! The counters of an inbox.

use std::sync::atomic::{AtomicI64, Ordering};

use pgrx::pg_sys;

use super::slots::{Counters, Key, is_missing};
use crate::batch::Counts;
use crate::rejects::{ByClass, CLASSES};

/// Times are microseconds since 2000-01-01 UTC.
#[repr(C)]
pub(super) struct Inbox {
    /// When its first event was committed.
    since: AtomicI64,
    last_event_at: AtomicI64,
    stored: AtomicI64,
    duplicate: AtomicI64,
    rejected: [AtomicI64; CLASSES],
}

/// Counters of an inbox of this database, as read.
pub(crate) struct OfInbox {
    pub(crate) inbox: pg_sys::Oid,
    pub(crate) stored: i64,
    pub(crate) duplicate: i64,
    pub(crate) rejected: ByClass,
    /// Microseconds since 2000-01-01 UTC, as `since`.
    pub(crate) last_event_at: i64,
    pub(crate) since: i64,
}

impl Counters for Inbox {
    fn is_gone(key: Key) -> bool {
        if key.is_here() {
            is_missing(pg_sys::SysCacheIdentifier::RELOID, key.oid())
        } else {
            key.has_no_database()
        }
    }

    fn last_at(&self) -> i64 {
        self.last_event_at.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        let counters = [&self.since, &self.last_event_at, &self.stored, &self.duplicate];
        for counter in counters.into_iter().chain(&self.rejected) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Inbox {
    pub(super) fn add(&self, counts: &Counts, now: i64) {
        let _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last_event_at.fetch_max(now, Ordering::Relaxed);
        let rejected = self.rejected.iter().zip(counts.rejected.0);
        for (counter, more) in [(&self.stored, counts.stored), (&self.duplicate, counts.duplicate)]
            .into_iter()
            .chain(rejected)
            .filter(|(_, more)| *more > 0)
        {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// None where no event was committed yet.
    pub(super) fn read(&self, inbox: pg_sys::Oid) -> Option<OfInbox> {
        let since = self.since.load(Ordering::Relaxed);
        let counter = |place: usize| self.rejected[place].load(Ordering::Relaxed);
        (since != 0).then(|| OfInbox {
            inbox,
            stored: self.stored.load(Ordering::Relaxed),
            duplicate: self.duplicate.load(Ordering::Relaxed),
            rejected: ByClass(std::array::from_fn(counter)),
            last_event_at: self.last_event_at.load(Ordering::Relaxed),
            since,
        })
    }
}
