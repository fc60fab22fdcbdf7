//! The counters of a role that unmasks.

use std::sync::atomic::{AtomicI64, Ordering};

use pgrx::pg_sys;

use super::shared::shared;
use super::slots::{Counters, Key, is_missing};

/// Times are microseconds since 2000-01-01 UTC.
#[repr(C)]
pub(super) struct Role {
    /// When its first statement that unmasked ended.
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
pub(crate) struct OfRole {
    pub(crate) role: pg_sys::Oid,
    pub(crate) statements: i64,
    pub(crate) unmasked: Unmasked,
    /// Microseconds since 2000-01-01 UTC, as `since`.
    pub(crate) last_at: i64,
    pub(crate) since: i64,
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

    /// None where no statement ended yet.
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

/// Gives a role a slot, before it unmasks: at the end of a statement, catalogs may be out of reach. False where there is none.
pub(crate) fn prepare(role: pg_sys::Oid) -> bool {
    // A role answers for itself in all databases, and there are few who can unmask: none takes a slot from another.
    shared().is_some_and(|shared| shared.roles.give(Key::of(role), pg_sys::InvalidOid))
}

/// Counts a statement that unmasked values. Can be called at any time, even while the session ends.
pub(crate) fn count(role: pg_sys::Oid, unmasked: Unmasked) {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call, which reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    if let Some(shared) = shared() {
        shared.roles.with(Key::of(role), |counters| counters.add(unmasked, now));
    }
}

/// The roles that have unmasked in this database. Some may be dropped.
pub(crate) fn all() -> Vec<OfRole> {
    let read = |shared: &super::shared::Statistics| shared.roles.read_here(|key, of| of.read(key.oid()));
    shared().map(read).unwrap_or_default().into_iter().flatten().collect()
}
