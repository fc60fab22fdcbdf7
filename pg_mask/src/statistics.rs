//! Counts since the server started: what each inbox has stored, found duplicate and rejected, and what each role has unmasked.
//!
//! Kept in shared memory, where sessions add to plain counters when they commit: a table would have a row that all of them
//! wait for. Nothing of it may ever keep an event from being stored: where there is no room, no statistics are kept.
//!
//! A transaction that is prepared counts when it is, as whoever commits it need not have seen its events.

mod inboxes;
pub(crate) mod roles;
mod shared;
mod slots;

use std::cell::{Cell, RefCell};
use std::ffi::c_void;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::batch::{Counts, name_of};
use inboxes::OfInbox;
pub(crate) use shared::preload;
use shared::{Statistics, shared};
use slots::Key;
pub(crate) use slots::SLOTS;

/// What the running transaction has done so far.
struct Pending {
    key: Key,
    owner: pg_sys::Oid,
    /// The subtransaction whose rollback undoes it.
    part_of: pg_sys::SubTransactionId,
    counts: Counts,
}

thread_local! {
    static PENDING: RefCell<Vec<Pending>> = const { RefCell::new(Vec::new()) };
    /// Whether this session was told that there are not enough slots.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Counts what a statement on an inbox of `owner`'s did, once the transaction commits.
pub(crate) fn count(
    view: pg_sys::Oid,
    owner: pg_sys::Oid,
    part_of: pg_sys::SubTransactionId,
    counts: &Counts,
) {
    if counts.events() > 0 && !is_temporary(view) && shared().is_some() {
        add(Pending { key: Key::of(view), owner, part_of, counts: *counts });
    }
}

/// Anybody can make temporary views, and would take all slots with them.
fn is_temporary(view: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with oids.
    unsafe {
        pg_sys::isTempOrTempToastNamespace(pg_sys::get_rel_namespace(view))
    }
}

fn add(more: Pending) {
    PENDING.with_borrow_mut(|all| {
        match all.iter_mut().find(|one| one.key == more.key && one.part_of == more.part_of) {
            Some(one) => one.counts.add_all(&more.counts),
            None => all.push(more),
        }
    });
}

/// The inboxes of this database of which there are statistics. Some may be dropped.
pub(crate) fn of_inboxes() -> Vec<OfInbox> {
    let read = |shared: &Statistics| shared.inboxes.read_here(|key, of| of.read(key.oid()));
    shared().map(read).unwrap_or_default().into_iter().flatten().collect()
}

/// Asks Postgres to tell of the ends of transactions and subtransactions.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn register() {
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ends), std::ptr::null_mut());
    }
}

/// Before COMMIT, each inbox is given a slot, which asks the catalogs; after it, nothing may fail any more.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as On;
    if PENDING.with_borrow(Vec::is_empty) {
        return;
    }
    let Some(shared) = shared() else { return };
    match event {
        On::XACT_EVENT_PRE_COMMIT | On::XACT_EVENT_PRE_PREPARE => {
            let keys: Vec<(Key, pg_sys::Oid)> =
                PENDING.with_borrow(|pending| pending.iter().map(|one| (one.key, one.owner)).collect());
            for (key, owner) in keys {
                if !shared.inboxes.give(key, owner) && !TOLD.replace(true) {
                    let inbox = name_of(key.oid());
                    pgrx::warning!(
                        "no statistics are kept of inbox \"{inbox}\": there are those of {SLOTS} inboxes"
                    );
                }
            }
        }
        On::XACT_EVENT_COMMIT | On::XACT_EVENT_PREPARE => {
            // SAFETY: reads a variable of the backend, or the clock.
            let now = unsafe { pg_sys::GetCurrentTransactionStopTimestamp() };
            for one in PENDING.take() {
                shared.inboxes.with(one.key, |inbox| inbox.add(&one.counts, now));
            }
        }
        On::XACT_EVENT_ABORT => drop(PENDING.take()),
        _ => {}
    }
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ends(
    event: pg_sys::SubXactEvent::Type,
    ending: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent as On;
    if event == On::SUBXACT_EVENT_COMMIT_SUB || event == On::SUBXACT_EVENT_ABORT_SUB {
        let ended: Vec<Pending> =
            PENDING.with_borrow_mut(|pending| pending.extract_if(.., |one| one.part_of == ending).collect());
        if event == On::SUBXACT_EVENT_COMMIT_SUB {
            for one in ended {
                add(Pending { part_of: parent, ..one });
            }
        }
    }
}
