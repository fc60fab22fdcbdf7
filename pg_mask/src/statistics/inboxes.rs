//! The counters of an inbox.

use std::sync::atomic::{AtomicI64, Ordering};

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{JsonB, pg_sys};

use super::shared::shared;
use super::slots::{Counters, Key, is_missing};
use crate::counts::{ByClass, CLASSES, Counts};

/// Counters in shared memory. Times are microseconds since 2000-01-01 UTC.
#[repr(C)]
pub(super) struct Inbox {
    /// Time at which the first event was committed, or 0.
    since: AtomicI64,
    last_event_at: AtomicI64,
    stored: AtomicI64,
    duplicate: AtomicI64,
    rejected: [AtomicI64; CLASSES],
}

/// Counters of an inbox of this database, as read.
struct OfInbox {
    inbox: pg_sys::Oid,
    stored: i64,
    duplicate: i64,
    rejected: ByClass,
    /// Microseconds since 2000-01-01 UTC, as is `since`.
    last_event_at: i64,
    since: i64,
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

    /// Returns none if no event was committed yet.
    fn read(&self, inbox: pg_sys::Oid) -> Option<OfInbox> {
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

/// A row of the view `inbox_statistics`.
type Row = (pg_sys::Oid, i64, i64, i64, JsonB, Option<TimestampWithTimeZone>, Option<TimestampWithTimeZone>);

/// Returns the rows of the view `inbox_statistics`: the inboxes of this database. Some may be dropped.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    let read = |shared: &super::shared::Statistics| shared.inboxes.read_here(|key, of| of.read(key.oid()));
    let time = |time: i64| TimestampWithTimeZone::try_from(time).ok();
    shared().map(read).unwrap_or_default().into_iter().flatten().map(move |of| {
        let by_class = of.rejected.nonzero().map(|(class, rejected)| (class.to_owned(), rejected.into()));
        let by_class = JsonB(serde_json::Value::Object(by_class.collect()));
        let (last, since) = (time(of.last_event_at), time(of.since));
        (of.inbox, of.stored, of.duplicate, of.rejected.sum(), by_class, last, since)
    })
}
