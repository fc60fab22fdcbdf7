//! Transactions and subtransactions: their times, and functions that run when they end.

use std::ffi::{CStr, c_void};
use std::mem::transmute;

use pgrx::pg_sys;
use pgrx::prelude::*;

/// A moment at the end of a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionEnd {
    /// Before COMMIT or PREPARE TRANSACTION. An error rolls the transaction back.
    BeforeCommit,
    /// After COMMIT or PREPARE TRANSACTION. Nothing may fail any more.
    Committed,
    RolledBack,
}

/// The end of a subtransaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubtransactionEnd {
    /// It is now a part of `parent`.
    Released {
        parent: pg_sys::SubTransactionId,
    },
    RolledBack,
}

type AtTransactionEnd = fn(TransactionEnd);
type AtSubtransactionEnd = fn(pg_sys::SubTransactionId, SubtransactionEnd);

/// Calls `act` at the end of each transaction of the process. Postgres calls what was registered last first.
pub(crate) fn at_transaction_end(act: AtTransactionEnd) {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn ends(event: pg_sys::XactEvent::Type, act: *mut c_void) {
        use pg_sys::XactEvent as On;
        let end = match event {
            On::XACT_EVENT_PRE_COMMIT | On::XACT_EVENT_PRE_PREPARE => TransactionEnd::BeforeCommit,
            On::XACT_EVENT_COMMIT | On::XACT_EVENT_PREPARE => TransactionEnd::Committed,
            On::XACT_EVENT_ABORT => TransactionEnd::RolledBack,
            // The same moments in a parallel worker.
            _ => return,
        };
        // SAFETY: this is the function that was registered below.
        let act = unsafe { transmute::<*mut c_void, AtTransactionEnd>(act) };
        act(end);
    }
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: both functions belong to this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(ends), act as *mut c_void);
    }
}

/// Calls `act` with each subtransaction of the process at its end. Postgres calls what was registered last first.
pub(crate) fn at_subtransaction_end(act: AtSubtransactionEnd) {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn ends(
        event: pg_sys::SubXactEvent::Type,
        ending: pg_sys::SubTransactionId,
        parent: pg_sys::SubTransactionId,
        act: *mut c_void,
    ) {
        let end = match event {
            pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => SubtransactionEnd::Released { parent },
            pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => SubtransactionEnd::RolledBack,
            _ => return,
        };
        // SAFETY: this is the function that was registered below.
        let act = unsafe { transmute::<*mut c_void, AtSubtransactionEnd>(act) };
        act(ending, end);
    }
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: both functions belong to this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterSubXactCallback(Some(ends), act as *mut c_void);
    }
}

/// Returns the start of the transaction, as `now()` does: microseconds since 2000-01-01 UTC.
pub(crate) fn now() -> i64 {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend.
    unsafe {
        pg_sys::GetCurrentTransactionStartTimestamp()
    }
}

/// Returns the end of the transaction that is ending: microseconds since 2000-01-01 UTC.
pub(crate) fn ended_at() -> i64 {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend, or the clock.
    unsafe {
        pg_sys::GetCurrentTransactionStopTimestamp()
    }
}

/// Returns the time: microseconds since 2000-01-01 UTC.
pub(crate) fn clock() -> i64 {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads the clock.
    unsafe {
        pg_sys::GetCurrentTimestamp()
    }
}

/// Raises Postgres's own error for this command on a standby and in a read-only transaction.
pub(crate) fn must_be_writable(command: &CStr) {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a C string, which the error copies.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(command.as_ptr());
    }
}

/// Commits, and begins the next transaction. Only a procedure that may commit can call it.
pub(crate) fn commit() {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: nobody holds on to the transaction's memory. Without the snapshot call, a read-only query would have no
    // snapshot.
    unsafe {
        pg_sys::SPI_commit();
        pg_sys::EnsurePortalSnapshotExists();
    }
}
