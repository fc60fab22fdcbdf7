//! Counters in shared memory: one slot for each key, up to `SLOTS` keys.
//!
//! Sessions count and read without a lock. Giving a slot to another key takes the lock under which the memory is created,
//! and requires that nobody is using the slot.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::pg::state::{SessionCell, SessionState, session_cell};
use pgrx::pg_sys;

use super::shared::locked;

/// Maximum number of keys for one kind of thing.
pub(crate) const SLOTS: usize = 64;

/// Time for which a session that got no slot for a key does not ask again, because asking takes a lock that all sessions
/// share.
const PATIENCE: Duration = Duration::from_mins(1);

/// The value of a key that stands for nothing.
const FREE: u64 = 0;

/// Value of `Head::users` while a slot is being given to another key.
const TAKEN: u32 = 1 << 31;

/// A database's OID, and the OID of a thing in it or of one of its roles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u64);

/// Counters for one kind of thing. All of them are atomic. All zeros means that nothing was counted.
pub(super) trait Counters {
    /// Whether the thing that a key stands for no longer exists, or is not visible to this transaction yet.
    fn is_gone(key: Key) -> bool;

    /// Returns the time of the last count, or 0.
    fn last_at(&self) -> i64;

    /// Sets all counters to zero.
    fn clear(&self);
}

/// The slots for one kind of thing. All zeros is a valid value without any keys.
#[repr(C)]
pub(super) struct Slots<C> {
    heads: [Head; SLOTS],
    counters: [C; SLOTS],
}

/// The key and owner of a slot.
#[repr(C)]
struct Head {
    key: AtomicU64,
    /// The role that the slot is charged to. A role with many slots yields them to a role with few.
    owner: AtomicU32,
    /// Number of sessions that use the counters at this instant, or `TAKEN`.
    users: AtomicU32,
}

thread_local! {
    /// Keys for which there was no slot: the address of the `Slots`, the key, and when the session asked.
    static REFUSED: SessionCell<Vec<(usize, Key, Instant)>> = const { session_cell(Vec::new()) };
}

impl Key {
    /// Returns the key of something in this database.
    pub(super) fn of(oid: pg_sys::Oid) -> Self {
        Self(u64::from(here().to_u32()) << 32 | u64::from(oid.to_u32()))
    }

    /// Returns the OID of the thing.
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

/// Whether a catalog has no row with this OID.
pub(super) fn is_missing(cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::null();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the callers name caches that are looked up by one OID.
    unsafe {
        !pg_sys::SearchSysCacheExists(cache.cast_signed(), oid.into(), none, none, none)
    }
}

impl<C: Counters> Slots<C> {
    /// Calls `act` with the counters of a key, unless it has no slot. `act` must neither panic nor call Postgres, because a
    /// slot in use cannot be given away.
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

    /// Gives a key a slot if it has none, and returns whether it has one. `owner` answers for the key's thing.
    ///
    /// Takes a slot whose thing is gone. Otherwise takes a free one, then one whose thing may be gone, then one from the
    /// owner with the most slots.
    pub(super) fn give(&self, key: Key, owner: pg_sys::Oid) -> bool {
        if self.refresh_owner(key, owner) {
            return true;
        }
        if self.was_refused(key) {
            return false;
        }
        // Comes before the lock, because it reads the catalogs.
        let candidates = candidates(&self.survey(), owner);
        // Another session may have been quicker.
        let given = locked(|| {
            self.refresh_owner(key, owner)
                || candidates.iter().any(|candidate| self.take(candidate, key, owner))
        });
        if !given {
            self.remember_refusal(key);
        }
        given
    }

    fn place(&self, key: Key) -> Option<usize> {
        self.heads.iter().position(|head| head.key.load(Ordering::Acquire) == key.0)
    }

    /// Updates the owner of a key's slot, which can have changed. Returns whether the key has a slot.
    fn refresh_owner(&self, key: Key, owner: pg_sys::Oid) -> bool {
        let place = self.place(key);
        if let Some(place) = place {
            self.heads[place].owner.store(owner.to_u32(), Ordering::Relaxed);
        }
        place.is_some()
    }

    /// Calls `act` with the counters at this place, if they still belong to the key.
    fn with_place<R>(&self, place: usize, key: Key, act: impl FnOnce(&C) -> R) -> Option<R> {
        let head = &self.heads[place];
        let before = head.users.fetch_add(1, Ordering::Acquire);
        let is_still = before & TAKEN == 0 && head.key.load(Ordering::Acquire) == key.0;
        let result = is_still.then(|| act(&self.counters[place]));
        head.users.fetch_sub(1, Ordering::Release);
        result
    }

    /// Gives the candidate's slot to a key, unless the slot is in use or now belongs to another key.
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

    /// Reads the state of all slots.
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
    /// Nothing was committed for it, so it may stand for a thing that another transaction is creating.
    PerhapsGone,
    InUse,
}

/// The state of a slot when a session looked for one.
#[derive(Clone, Copy)]
struct Candidate {
    state: State,
    last_at: i64,
    place: usize,
    key: Key,
    owner: u32,
}

/// Returns the slots that `owner` can have, best first.
///
/// A slot in use is taken only from the owner with the most slots. That owner must keep at least as many as `owner` then
/// has. So each owner can have a fair share of the slots, and two owners cannot take one from each other in turn.
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
