//! The shared memory in which statistics are kept: a slot for each inbox.

use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::batch::Counts;
use crate::flush::in_subtransaction;
use crate::rejects::{ByClass, CLASSES};

/// For so many inboxes there is room: 22 kB, of the 100 kB that Postgres keeps for libraries that are not preloaded.
pub(super) const SLOTS: usize = 64;

/// Of a key that stands for no inbox.
const FREE: u64 = 0;

/// How an inbox is known in all databases: its database's oid and its view's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

/// What lies in shared memory; zeros are none. Slots are given to inboxes under a lock; counted and read is without.
#[repr(C)]
pub(super) struct Statistics {
    keys: [AtomicU64; SLOTS],
    slots: [Slot; SLOTS],
}

/// Times are microseconds since 2000-01-01 UTC.
#[repr(C)]
pub(super) struct Slot {
    /// When its first event was committed.
    since: AtomicI64,
    last_event_at: AtomicI64,
    stored: AtomicI64,
    duplicate: AtomicI64,
    rejected: [AtomicI64; CLASSES],
}

/// What is known of an inbox of this database.
pub(crate) struct OfInbox {
    pub(crate) inbox: pg_sys::Oid,
    pub(crate) stored: i64,
    pub(crate) duplicate: i64,
    pub(crate) rejected: ByClass,
    /// Microseconds since 2000-01-01 UTC, as `since`.
    pub(crate) last_event_at: i64,
    pub(crate) since: i64,
}

thread_local! {
    /// None where there is no room for it.
    static SHARED: OnceCell<Option<&'static Statistics>> = const { OnceCell::new() };
    static NEXT_HOOK: Cell<pg_sys::shmem_request_hook_type> = const { Cell::new(None) };
}

impl Key {
    pub(super) fn of(view: pg_sys::Oid) -> Self {
        Self(u64::from(here().to_u32()) << 32 | u64::from(view.to_u32()))
    }

    fn database(self) -> pg_sys::Oid {
        pg_sys::Oid::from(u32::try_from(self.0 >> 32).unwrap_or_default())
    }

    pub(super) fn view(self) -> pg_sys::Oid {
        pg_sys::Oid::from(u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or_default())
    }

    fn is_here(self) -> bool {
        self.database() == here()
    }

    /// Whether its database, or in this one its view, is no longer there.
    fn is_gone(self) -> bool {
        let (catalog, oid) = if self.is_here() {
            (pg_sys::SysCacheIdentifier::RELOID, self.view())
        } else {
            (pg_sys::SysCacheIdentifier::DATABASEOID, self.database())
        };
        let none = pg_sys::Datum::null();
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: both caches are looked up by one oid.
        unsafe {
            !pg_sys::SearchSysCacheExists(catalog.cast_signed(), oid.into(), none, none, none)
        }
    }
}

fn here() -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own.
    unsafe {
        pg_sys::MyDatabaseId
    }
}

impl Statistics {
    pub(super) fn slot(&self, key: Key) -> Option<&Slot> {
        let place = self.keys.iter().position(|place| place.load(Ordering::Acquire) == key.0)?;
        Some(&self.slots[place])
    }

    /// Gives an inbox a slot if it has none, unless all are in use: that of an inbox that is gone, or a free one.
    ///
    /// One of which nothing was committed yet may only seem to be gone, as others do not see yet what its transaction made: it comes
    /// last. Whoever commits events of an inbox that they dropped may still add them to the other's.
    pub(super) fn give_slot(&self, key: Key) -> bool {
        if self.slot(key).is_some() {
            return true;
        }
        // Before the lock, since it asks the catalogs.
        let mut places: Vec<(Preference, usize, u64)> = (0..SLOTS)
            .filter_map(|place| {
                let there = self.keys[place].load(Ordering::Acquire);
                let committed = self.slots[place].since.load(Ordering::Relaxed) != 0;
                let preference = match there {
                    FREE => Preference::Free,
                    _ if !Key(there).is_gone() => return None,
                    _ if committed => Preference::Gone,
                    _ => Preference::PerhapsGone,
                };
                Some((preference, place, there))
            })
            .collect();
        places.sort_unstable();
        locked(|| {
            let take = |(_, place, there): (Preference, usize, u64)| {
                let is_still = self.keys[place].load(Ordering::Acquire) == there;
                if is_still {
                    self.slots[place].clear();
                    self.keys[place].store(key.0, Ordering::Release);
                }
                is_still
            };
            // Another session may have been quicker.
            self.slot(key).is_some() || places.into_iter().any(take)
        })
    }

    /// What the slots of this database hold.
    pub(super) fn read_here(&self) -> impl Iterator<Item = OfInbox> {
        let keys = self.keys.iter().map(|key| Key(key.load(Ordering::Acquire)));
        keys.zip(&self.slots).filter(|(key, _)| key.is_here()).filter_map(|(key, slot)| slot.read(key.view()))
    }
}

/// Which slot to take first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    Gone,
    Free,
    PerhapsGone,
}

impl Slot {
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

    fn clear(&self) {
        let counters = [&self.since, &self.last_event_at, &self.stored, &self.duplicate];
        for counter in counters.into_iter().chain(&self.rejected) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// None where no event was committed yet.
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

/// The shared memory, made by whichever session is the first to use it.
pub(super) fn shared() -> Option<&'static Statistics> {
    SHARED.with(|shared| {
        *shared.get_or_init(|| {
            let mut memory = PgMemoryContexts::new("pg_mask statistics");
            // In a subtransaction, whose end gives back the lock where there is no room.
            let found = in_subtransaction(&mut memory, || locked(attach)).ok();
            if found.is_none() {
                pgrx::warning!(
                    "no statistics are kept of inboxes: there is no room for them in shared memory; with pg_mask in \
                     shared_preload_libraries there is"
                );
            }
            found
        })
    })
}

#[expect(unsafe_code, reason = "calls Postgres")]
fn attach() -> &'static Statistics {
    // Another version of the library may be loaded in other sessions, with other classes.
    let size = size_of::<Statistics>();
    let name = format!("pg_mask statistics {} {size}\0", env!("CARGO_PKG_VERSION"));
    // SAFETY: the name ends in a NUL, and is copied. What comes back is of the size asked for, aligned to more than a counter is, and stays until
    // the process ends. Nobody else looks at it before it is zeroed, as they need the lock for that; zeros are a valid value, and
    // from then on all access is atomic.
    unsafe {
        let mut found = false;
        let memory = pg_sys::ShmemInitStruct(name.as_ptr().cast(), size, &raw mut found).cast::<Statistics>();
        if !found {
            memory.write_bytes(0, 1);
        }
        &*memory
    }
}

/// Runs `act` with the lock under which libraries set up their shared memory.
#[expect(unsafe_code, reason = "calls Postgres")]
fn locked<R>(act: impl FnOnce() -> R) -> R {
    // `AddinShmemInitLock`, a macro, in lwlocknames.h; in lwlocklist.h since PostgreSQL 17.
    const ADDIN_SHMEM_INIT: usize = 21;
    // SAFETY: the array has a lock for each number of Postgres's own; what is acquired is released, by the end of the
    // (sub)transaction after an error.
    unsafe {
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let result = act();
        pg_sys::LWLockRelease(lock);
        result
    }
}

/// While the server starts: asks for the space.
pub(crate) fn preload() {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[expect(
        ffi_unwind_calls,
        reason = "an error of another library's goes through; it ends the server's start"
    )]
    #[pg_guard]
    unsafe extern "C-unwind" fn request() {
        // SAFETY: this is the hook by which to ask for space; the one before it is some library's function.
        unsafe {
            if let Some(next) = NEXT_HOOK.get() {
                next();
            }
            pg_sys::RequestAddinShmemSpace(size_of::<Statistics>());
        }
    }
    #[expect(unsafe_code, reason = "sets a variable")]
    // SAFETY: libraries are loaded one after the other.
    unsafe {
        NEXT_HOOK.set(pg_sys::shmem_request_hook);
        pg_sys::shmem_request_hook = Some(request);
    }
}
