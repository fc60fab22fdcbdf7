//! Tracks changes of relations, from Postgres's relcache invalidations.

use std::cell::Cell;
use std::rc::{Rc, Weak};

use crate::pg::state::{SessionCell, SessionState, session_cell};
use pgrx::pg_sys;
use pgrx::prelude::*;

/// Relations, and a count of the changes that Postgres reported for any of them.
pub(crate) struct Watch {
    relations: Vec<pg_sys::Oid>,
    changes: Cell<u64>,
}

thread_local! {
    static WATCHES: SessionCell<Vec<Weak<Watch>>> = const { session_cell(Vec::new()) };
}

impl Watch {
    /// Begins to watch relations.
    pub(crate) fn new(relations: Vec<pg_sys::Oid>) -> Rc<Self> {
        let watch = Rc::new(Self { relations, changes: Cell::new(0) });
        WATCHES.with_borrow_mut(|watches| {
            watches.retain(|watch| watch.strong_count() > 0);
            watches.push(Rc::downgrade(&watch));
        });
        watch
    }

    /// Returns the number of changes that this session was told of.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.get()
    }

    pub(crate) fn relations(&self) -> &[pg_sys::Oid] {
        &self.relations
    }
}

/// Registers a callback for changed relations.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn register() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
    }
}

/// Only counts: Postgres calls it at odd moments, when nothing may be freed or looked up.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    WATCHES.with_borrow(|watches| {
        for watch in watches.iter().filter_map(Weak::upgrade) {
            // If Postgres has lost count, any relation may have changed.
            if relation == pg_sys::InvalidOid || watch.relations.contains(&relation) {
                watch.changes.set(watch.changes.get() + 1);
            }
        }
    });
}
