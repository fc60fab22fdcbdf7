//! Counters in shared memory, a slot for each key, for as many keys as there is room for.
//!
//! Sessions count and read without a lock. Giving a slot to another key takes the lock under which the memory is made, and
//! nobody may be using the slot meanwhile.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::shared::locked;

/// Maximum number of keys of a table.
pub(crate) const SLOTS: usize = 64;

/// A session that got no slot for a key does not ask again for so long, since asking takes a lock that all sessions share.
const PATIENCE: Duration = Duration::from_mins(1);

/// The value of a key that stands for nothing.
const FREE: u64 = 0;

/// Stands in `Head::users` while a slot is given to another key.
const TAKEN: u32 = 1 << 31;

/// A database's oid and the oid of something in it, or of one of its roles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

/// Counters of one kind of thing. All of them are atomic; zeros are none.
pub(super) trait Counters {
    /// Whether the thing that a key stands for no longer exists, or is not visible to this transaction yet.
    fn is_gone(key: Key) -> bool;

    /// When something was last counted, or 0.
    fn last_at(&self) -> i64;

    /// Sets all counters to zero.
    fn clear(&self);
}

/// The slots for one kind of thing. Zeros are none.
#[repr(C)]
pub(super) struct Slots<C> {
    heads: [Head; SLOTS],
    counters: [C; SLOTS],
}

/// Says whose a slot is.
#[repr(C)]
struct Head {
    key: AtomicU64,
    /// The role that answers for the thing: a role with many slots gives way to one with few.
    owner: AtomicU32,
    /// The number of sessions that use the counters at this instant, or `TAKEN`.
    users: AtomicU32,
}

thread_local! {
    /// The keys for which there was no slot: the table's address, the key, and when the session asked.
    static REFUSED: RefCell<Vec<(usize, Key, Instant)>> = const { RefCell::new(Vec::new()) };
}

impl Key {
    /// The key of something in this database.
    pub(super) fn of(oid: pg_sys::Oid) -> Self {
        Self(u64::from(here().to_u32()) << 32 | u64::from(oid.to_u32()))
    }

    /// The oid of the thing.
    pub(super) fn oid(self) -> pg_sys::Oid {
        pg_sys::Oid::from(u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or_default())
    }

    fn database(self) -> pg_sys::Oid {
        pg_sys::Oid::from(u32::try_from(self.0 >> 32).unwrap_or_default())
    }

    pub(super) fn is_here(self) -> bool {
        self.database() == here()
    }

    /// Whether its database is gone.
    pub(super) fn has_no_database(self) -> bool {
        is_missing(pg_sys::SysCacheIdentifier::DATABASEOID, self.database())
    }
}

fn here() -> pg_sys::Oid {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: the backend's own database.
    unsafe {
        pg_sys::MyDatabaseId
    }
}

/// Whether a catalog has no row with this oid.
pub(super) fn is_missing(cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::null();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the callers name caches that are looked up by one oid.
    unsafe {
        !pg_sys::SearchSysCacheExists(cache.cast_signed(), oid.into(), none, none, none)
    }
}

impl<C: Counters> Slots<C> {
    /// Calls `act` with the counters of a key, unless it has no slot. `act` must neither panic nor call Postgres: a slot that
    /// is in use cannot be given away.
    pub(super) fn with<R>(&self, key: Key, act: impl FnOnce(&C) -> R) -> Option<R> {
        self.with_place(self.place(key)?, key, act)
    }

    /// Calls `act` with the counters of each key of this database.
    pub(super) fn read_here<R>(&self, act: impl Fn(Key, &C) -> R) -> Vec<R> {
        let keys = self.heads.iter().map(|head| Key(head.key.load(Ordering::Acquire)));
        keys.enumerate()
            .filter(|(_, key)| key.is_here())
            .filter_map(|(place, key)| self.with_place(place, key, |counters| act(key, counters)))
            .collect()
    }

    /// Gives a key a slot if it has none. `owner` answers for what the key stands for.
    ///
    /// Takes the slot of something that is gone, else a free one, else one from the owner who has most.
    pub(super) fn give(&self, key: Key, owner: pg_sys::Oid) -> bool {
        if self.has(key, owner) {
            return true;
        }
        if self.was_refused(key) {
            return false;
        }
        // Before the lock, since it asks the catalogs.
        let candidates = candidates(&self.survey(), owner);
        // Another session may have been quicker.
        let given = locked(|| {
            self.has(key, owner) || candidates.iter().any(|candidate| self.take(candidate, key, owner))
        });
        if !given {
            self.remember_refusal(key);
        }
        given
    }

    fn place(&self, key: Key) -> Option<usize> {
        self.heads.iter().position(|head| head.key.load(Ordering::Acquire) == key.0)
    }

    /// Whether a key has a slot, whose owner may have changed.
    fn has(&self, key: Key, owner: pg_sys::Oid) -> bool {
        let place = self.place(key);
        if let Some(place) = place {
            self.heads[place].owner.store(owner.to_u32(), Ordering::Relaxed);
        }
        place.is_some()
    }

    /// Calls `act` with the counters at this place, if they are still the key's.
    fn with_place<R>(&self, place: usize, key: Key, act: impl FnOnce(&C) -> R) -> Option<R> {
        let head = &self.heads[place];
        let before = head.users.fetch_add(1, Ordering::Acquire);
        let is_still = before & TAKEN == 0 && head.key.load(Ordering::Acquire) == key.0;
        let result = is_still.then(|| act(&self.counters[place]));
        head.users.fetch_sub(1, Ordering::Release);
        result
    }

    /// Gives the candidate's slot to a key, unless the slot is in use or has become another's.
    fn take(&self, candidate: &Candidate, key: Key, owner: pg_sys::Oid) -> bool {
        let head = &self.heads[candidate.place];
        if head.users.compare_exchange(0, TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        let is_still = head.key.load(Ordering::Acquire) == candidate.key.0;
        if is_still {
            self.counters[candidate.place].clear();
            head.owner.store(owner.to_u32(), Ordering::Relaxed);
            head.key.store(key.0, Ordering::Release);
        }
        head.users.fetch_sub(TAKEN, Ordering::Release);
        is_still
    }

    /// Looks at all slots.
    fn survey(&self) -> Vec<Candidate> {
        let look = |(place, (head, counters)): (usize, (&Head, &C))| {
            let key = Key(head.key.load(Ordering::Acquire));
            let last_at = counters.last_at();
            let state = match key.0 {
                FREE => State::Free,
                _ if !C::is_gone(key) => State::InUse,
                _ if last_at != 0 => State::Gone,
                _ => State::PerhapsGone,
            };
            Candidate { state, last_at, place, key, owner: head.owner.load(Ordering::Relaxed) }
        };
        self.heads.iter().zip(&self.counters).enumerate().map(look).collect()
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn was_refused(&self, key: Key) -> bool {
        REFUSED.with_borrow(|refused| {
            let is_it = |(table, of, at): &(usize, Key, Instant)| {
                (*table, *of) == (self.address(), key) && at.elapsed() < PATIENCE
            };
            refused.iter().any(is_it)
        })
    }

    fn remember_refusal(&self, key: Key) {
        REFUSED.with_borrow_mut(|refused| {
            refused.retain(|(.., at)| at.elapsed() < PATIENCE);
            refused.push((self.address(), key, Instant::now()));
        });
    }
}

/// The state of a slot, in the order in which slots are taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Gone,
    Free,
    /// Nothing was committed, so it may stand for something that another transaction is making.
    PerhapsGone,
    InUse,
}

/// A slot as it was when a session looked for one.
#[derive(Clone, Copy)]
struct Candidate {
    state: State,
    last_at: i64,
    place: usize,
    key: Key,
    owner: u32,
}

/// The slots that `owner` can have, the best first.
///
/// A slot in use is taken only from the owner who has most, and only where that owner is left with no fewer than `owner` has
/// then. So each owner can have a fair share of the slots, and two owners cannot take one from each other in turn.
fn candidates(all: &[Candidate], owner: pg_sys::Oid) -> Vec<Candidate> {
    let slots_of =
        |owner: u32| all.iter().filter(|slot| slot.state == State::InUse && slot.owner == owner).count();
    let richest = all.iter().map(|slot| slot.owner).max_by_key(|owner| slots_of(*owner));
    let gives = richest.filter(|richest| slots_of(*richest) >= slots_of(owner.to_u32()) + 2);
    let mut candidates: Vec<Candidate> =
        all.iter().filter(|slot| slot.state != State::InUse || Some(slot.owner) == gives).copied().collect();
    candidates.sort_by_key(|slot| (slot.state, slot.last_at));
    candidates
}
