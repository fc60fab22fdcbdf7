//! The end of the client's current message.

use std::ffi::c_void;

use pgrx::pg_sys;

/// Registers `callback` for the end of the client's current message, whether it succeeds or fails. Postgres calls it before
/// it reports that it is ready for the next message. Returns false if there are no messages, as in a background worker.
///
/// Executor hooks could report an end too. But they would interfere with every error in the server: pgrx carries errors
/// through Rust without the names of constraints.
pub(crate) fn at_end_of_message(callback: unsafe extern "C-unwind" fn(*mut c_void)) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the entry is allocated in the memory context whose reset calls it. That context is reset before each message.
    unsafe {
        if pg_sys::MessageContext.is_null() {
            return false;
        }
        let size = size_of::<pg_sys::MemoryContextCallback>();
        let entry = pg_sys::MemoryContextAllocZero(pg_sys::MessageContext, size);
        let entry = entry.cast::<pg_sys::MemoryContextCallback>();
        (*entry).func = Some(callback);
        pg_sys::MemoryContextRegisterResetCallback(pg_sys::MessageContext, entry);
    }
    true
}
