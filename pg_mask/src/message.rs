//! The end of what the client has sent.

use std::ffi::c_void;

use pgrx::pg_sys;

/// Has `callback` called once Postgres is done with the client's present message, whether that went well or not, and before
/// it says that it is ready for the next. False where there are no messages, as in a background worker.
///
/// Hooks of the executor would tell of an end too, but they would be in the way of every error in the server: pgrx carries
/// errors through Rust without the names of constraints.
pub(crate) fn at_end_of_message(callback: unsafe extern "C-unwind" fn(*mut c_void)) -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: what is allocated is of the memory for whose end it is called; that is emptied before each message.
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
