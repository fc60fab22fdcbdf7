//! Functions of Postgres that raise no error and are called for each row or value. pgrx's own bindings prepare to catch an
//! error, which takes longer than the functions do.

use std::ffi::{c_int, c_void};

use pgrx::pg_sys;

#[expect(unsafe_code, reason = "declares functions of Postgres")]
// SAFETY: the declarations are those of miscadmin.h and xact.h. The functions return a variable of the backend
// (miscinit.c, xact.c).
unsafe extern "C" {
    /// Whether code of a role runs with another's rights, so that it must leave nothing behind.
    pub(crate) safe fn InSecurityRestrictedOperation() -> bool;

    /// Returns the id of the innermost subtransaction.
    pub(crate) safe fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
}

/// Postgres's `MaxAllocSize` (memutils.h).
const MAX_ALLOC_SIZE: usize = 0x3fff_ffff;

#[expect(unsafe_code, reason = "declares a function of Postgres")]
// SAFETY: the declaration is that of palloc.h.
unsafe extern "C" {
    fn palloc_extended(size: usize, flags: c_int) -> *mut c_void;
}

/// Allocates zeros in the current memory context, as Postgres's palloc0 does.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn palloc0(size: usize) -> *mut c_void {
    let flags = (pg_sys::MCXT_ALLOC_NO_OOM | pg_sys::MCXT_ALLOC_ZERO).cast_signed();
    let mut memory = std::ptr::null_mut();
    if size <= MAX_ALLOC_SIZE {
        // SAFETY: for such a size, and with this flag, no error is raised (palloc_extended in mcxt.c).
        memory = unsafe { palloc_extended(size, flags) };
    }
    if memory.is_null() {
        // SAFETY: a guarded call. It raises the error that there is.
        memory = unsafe { pg_sys::palloc0(size) };
    }
    memory
}
