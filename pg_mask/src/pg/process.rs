//! The process that this library runs in: the postmaster, a session's backend, or a worker.

use std::ffi::c_int;
use std::mem::transmute;

use pgrx::pg_sys;
use pgrx::prelude::*;

type AtExit = fn();

/// Whether the postmaster is loading `shared_preload_libraries`.
pub(crate) fn is_preloading() -> bool {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own.
    unsafe {
        pg_sys::process_shared_preload_libraries_in_progress
    }
}

/// Whether this is a child of the postmaster.
pub(crate) fn is_backend() -> bool {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own, and set before libraries are loaded.
    unsafe {
        pg_sys::IsUnderPostmaster
    }
}

/// Whether somebody has cancelled the statement or terminated the session, and Postgres has not raised that error yet.
pub(crate) fn is_interrupted() -> bool {
    #[expect(unsafe_code, reason = "reads variables")]
    // SAFETY: they are the process's own, and set by signals.
    unsafe {
        pg_sys::QueryCancelPending != 0 || pg_sys::ProcDiePending != 0
    }
}

/// Whether the process works for a parallel query of another one.
pub(crate) fn is_parallel_worker() -> bool {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own.
    unsafe {
        pg_sys::ParallelWorkerNumber >= 0
    }
}

/// Whether the process takes messages from a client. A background worker does not.
pub(crate) fn takes_messages() -> bool {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own.
    unsafe {
        !pg_sys::MessageContext.is_null()
    }
}

/// Returns the time at which the process loaded its configuration.
pub(crate) fn configured_at() -> pg_sys::TimestampTz {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own.
    unsafe {
        pg_sys::PgReloadTime
    }
}

/// Calls `act` when the process ends. Functions are called in reverse order (`shmem_exit`, ipc.c): this one before
/// Postgres's own, which rolls back, and long before shared memory is gone.
///
/// Must not be called in the postmaster, whose children forget the registration.
pub(crate) fn at_process_end(act: AtExit) {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn ends(_status: c_int, act: pg_sys::Datum) {
        // SAFETY: this is the function that was registered below.
        let act = unsafe { transmute::<*mut c_int, AtExit>(act.cast_mut_ptr()) };
        act();
    }
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: both functions belong to this library, which is never unloaded.
    unsafe {
        pg_sys::before_shmem_exit(Some(ends), pg_sys::Datum::from(act as *mut c_int));
    }
}
