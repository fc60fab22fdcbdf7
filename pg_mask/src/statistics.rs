//! Counts since the server started: events that each inbox stored, found duplicate and rejected, and values that each role
//! unmasked.
//!
//! They are kept in shared memory, where sessions add to plain counters when they commit. A table would have one row that
//! all sessions wait for. Statistics must never keep an event from being stored: where there is no room, none are kept.
//!
//! A prepared transaction counts at PREPARE, because the session that commits it need not have seen its events.

pub(crate) mod inboxes;
pub(crate) mod roles;
mod shared;
mod slots;

use std::cell::Cell;

use pgrx::pg_sys;

use crate::counts::Counts;
use crate::pg::names::name_of;
use crate::pg::state::{SessionCell, SessionState, session_cell};
use crate::pg::transaction::{
    SubtransactionEnd, TransactionEnd, at_subtransaction_end, at_transaction_end, ended_at,
};
pub(crate) use shared::preload;
use shared::shared;
use slots::Key;
pub(crate) use slots::SLOTS;

/// Counts of the running transaction, for one inbox.
struct Pending {
    key: Key,
    owner: pg_sys::Oid,
    /// The subtransaction whose rollback discards the counts.
    part_of: pg_sys::SubTransactionId,
    counts: Counts,
}

thread_local! {
    static PENDING: SessionCell<Vec<Pending>> = const { session_cell(Vec::new()) };
    /// Whether this session was warned that there are not enough slots.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Counts a statement on an inbox of `owner`, once the transaction commits.
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

/// Temporary views are not counted: anyone can create them, and could use up all slots.
fn is_temporary(view: pg_sys::Oid) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: plain calls with OIDs.
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

/// Follows the ends of transactions and subtransactions.
pub(crate) fn register() {
    at_transaction_end(transaction_ends);
    at_subtransaction_end(subtransaction_ends);
}

/// Gives each inbox a slot before COMMIT, because that reads the catalogs. After COMMIT, nothing may fail any more.
fn transaction_ends(end: TransactionEnd) {
    if PENDING.with_borrow(Vec::is_empty) {
        return;
    }
    let Some(shared) = shared() else { return };
    match end {
        TransactionEnd::BeforeCommit => {
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
        TransactionEnd::Committed => {
            let now = ended_at();
            for one in PENDING.take() {
                shared.inboxes.with(one.key, |inbox| inbox.add(&one.counts, now));
            }
        }
        TransactionEnd::RolledBack => drop(PENDING.take()),
    }
}

fn subtransaction_ends(ending: pg_sys::SubTransactionId, end: SubtransactionEnd) {
    let ended: Vec<Pending> =
        PENDING.with_borrow_mut(|pending| pending.extract_if(.., |one| one.part_of == ending).collect());
    if let SubtransactionEnd::Released { parent } = end {
        for one in ended {
            add(Pending { part_of: parent, ..one });
        }
    }
}
