//! The server's log, and what it must not get.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::settings::with_settings;

/// Runs `act` without its warnings and notices, neither for the client nor for the log. A type's input function can quote
/// its text in one: libxml does for `xml`, Postgres for `tsquery`.
pub(crate) fn quietly<R>(act: impl FnOnce() -> R) -> R {
    with_settings(&[(c"client_min_messages", c"error"), (c"log_min_messages", c"error")], act)
}

/// Writes a line to the server's log only, not to the client. Leaves out what Postgres adds to lines: the statement, which
/// may contain values, and the context, which may contain parameters.
pub(crate) fn log_alone(line: &str) {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn hide(_argument: *mut std::ffi::c_void) {
        // SAFETY: Postgres calls this while it builds a report. These two calls change that report.
        unsafe {
            pg_sys::errhidestmt(true);
            pg_sys::errhidecontext(true);
        }
    }
    let mut alone = pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(hide),
        arg: std::ptr::null_mut(),
    };
    #[expect(unsafe_code, reason = "sets a variable of the backend")]
    // SAFETY: the variable is restored. A report at this level returns.
    unsafe {
        let context = pg_sys::error_context_stack;
        pg_sys::error_context_stack = &raw mut alone;
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, line.to_owned(), "pg_mask")
            .report(PgLogLevel::LOG_SERVER_ONLY);
        pg_sys::error_context_stack = context;
    }
}
