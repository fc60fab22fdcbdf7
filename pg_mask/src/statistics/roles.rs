//! The counters of a role that unmasks.

use std::sync::atomic::{AtomicI64, Ordering};

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::shared::shared;
use super::slots::{Counters, Key, is_missing};
use crate::pg::transaction::clock;

/// Counters in shared memory. Times are microseconds since 2000-01-01 UTC.
#[repr(C)]
pub(super) struct Role {
    /// Time at which the first statement that unmasked ended, or 0.
    since: AtomicI64,
    last_at: AtomicI64,
    statements: AtomicI64,
    unmasked: AtomicI64,
    with_purpose: AtomicI64,
}

/// Values that a statement has unmasked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Unmasked {
    pub(crate) values: i64,
    /// Values unmasked with a purpose set.
    pub(crate) with_purpose: i64,
}

/// A role's unmasking in this database.
struct OfRole {
    role: pg_sys::Oid,
    statements: i64,
    unmasked: Unmasked,
    /// Microseconds since 2000-01-01 UTC, as is `since`.
    last_at: i64,
    since: i64,
}

impl Counters for Role {
    fn is_gone(key: Key) -> bool {
        is_missing(pg_sys::SysCacheIdentifier::AUTHOID, key.oid()) || key.has_no_database()
    }

    fn last_at(&self) -> i64 {
        self.last_at.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        for counter in [&self.since, &self.last_at, &self.statements, &self.unmasked, &self.with_purpose] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Role {
    fn add(&self, unmasked: Unmasked, now: i64) {
        let _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last_at.fetch_max(now, Ordering::Relaxed);
        self.statements.fetch_add(1, Ordering::Relaxed);
        self.unmasked.fetch_add(unmasked.values, Ordering::Relaxed);
        self.with_purpose.fetch_add(unmasked.with_purpose, Ordering::Relaxed);
    }

    /// Returns none if no statement ended yet.
    fn read(&self, role: pg_sys::Oid) -> Option<OfRole> {
        let read = |counter: &AtomicI64| counter.load(Ordering::Relaxed);
        let since = read(&self.since);
        (since != 0).then(|| OfRole {
            role,
            statements: read(&self.statements),
            unmasked: Unmasked { values: read(&self.unmasked), with_purpose: read(&self.with_purpose) },
            last_at: read(&self.last_at),
            since,
        })
    }
}

/// Gives a role a slot before it unmasks, because catalogs may be out of reach at the end of a statement. Returns false if
/// there is no slot.
pub(crate) fn prepare(role: pg_sys::Oid) -> bool {
    // A role answers for itself in all databases, and few roles can unmask. So all pass one owner, and none takes a slot
    // from another.
    shared().is_some_and(|shared| shared.roles.give(Key::of(role), pg_sys::InvalidOid))
}

/// Counts a statement that unmasked values. Can be called at any time, even while the session ends.
pub(crate) fn count(role: pg_sys::Oid, unmasked: Unmasked) {
    let now = clock();
    if let Some(shared) = shared() {
        shared.roles.with(Key::of(role), |counters| counters.add(unmasked, now));
    }
}

/// A row of the view `unmask_statistics`.
type Row = (pg_sys::Oid, i64, i64, i64, Option<TimestampWithTimeZone>, Option<TimestampWithTimeZone>);

/// Returns the rows of the view `unmask_statistics`: the roles that have unmasked in this database. Some may be dropped.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    let read = |shared: &super::shared::Statistics| shared.roles.read_here(|key, of| of.read(key.oid()));
    let time = |time: i64| TimestampWithTimeZone::try_from(time).ok();
    shared().map(read).unwrap_or_default().into_iter().flatten().map(move |of| {
        let (last, since) = (time(of.last_at), time(of.since));
        (of.role, of.statements, of.unmasked.values, of.unmasked.with_purpose, last, since)
    })
}
