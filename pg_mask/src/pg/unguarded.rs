//! Postgres functions without pgrx's guard. The guard prepares to catch an error, which takes longer than a short function.
//! The functions that are called for each row or value raise no error.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use pgrx::pg_sys;
use pgrx::prelude::{PgLogLevel, PgSqlErrorCode};

#[expect(unsafe_code, reason = "declares functions of Postgres")]
// SAFETY: the declarations match miscadmin.h, elog.h and xact.h. The functions return a variable of the backend
// (miscinit.c, elog.c, xact.c).
unsafe extern "C" {
    /// Whether a role's code runs with another role's privileges, so that it must leave nothing behind.
    pub(crate) safe fn InSecurityRestrictedOperation() -> bool;

    /// Returns the SQLSTATE of the error report that is being made. Call it only while Postgres makes one.
    pub(crate) safe fn geterrcode() -> c_int;

    /// Returns the id of the innermost subtransaction.
    pub(crate) safe fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
}

#[expect(unsafe_code, reason = "declares functions of Postgres")]
// SAFETY: the declarations match elog.h.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errcode(code: c_int) -> c_int;
    fn errmsg_internal(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// The SQLSTATE of Postgres's "out of memory".
pub(crate) const OUT_OF_MEMORY: c_int = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as c_int;

/// Raises "out of memory" as Postgres does, in the memory that it keeps for this error. It goes past the frames of callers,
/// so these must hold nothing that needs dropping.
#[cold]
#[expect(unsafe_code, reason = "calls Postgres")]
#[expect(ffi_unwind_calls, reason = "the error goes through")]
pub(crate) fn raise_out_of_memory() -> ! {
    // SAFETY: the calls that `ereport` makes (elog.h), with static strings.
    unsafe {
        errstart(PgLogLevel::ERROR as c_int, ptr::null());
        errcode(OUT_OF_MEMORY);
        errmsg_internal(c"out of memory".as_ptr());
        errfinish(c"pg_mask".as_ptr(), 0, ptr::null());
    }
    unreachable!("an error returned")
}

/// Postgres's `MaxAllocSize` (memutils.h).
const MAX_ALLOC_SIZE: usize = 0x3fff_ffff;

#[expect(unsafe_code, reason = "declares a function of Postgres")]
// SAFETY: the declaration matches palloc.h.
unsafe extern "C" {
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}

/// Allocates zeros in the current memory context, as Postgres's palloc0 does.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn palloc0(size: usize) -> *mut c_void {
    let flags = (pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO).cast_signed();
    let mut memory = ptr::null_mut();
    if size <= MAX_ALLOC_SIZE {
        // SAFETY: for such a size and with this flag, it raises no error (palloc_extended in mcxt.c).
        memory = unsafe { palloc_extended(size, flags) };
    }
    if memory.is_null() {
        // SAFETY: a guarded call. It raises the error for this size or for running out of memory.
        memory = unsafe { pg_sys::palloc0(size) };
    }
    memory
}
