//! The server's log, and what it must not get.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::pg::settings::with_settings;

/// Runs `act` with no message sent to the client, which has no right to the values that one can quote. The error that leaves
/// `act` reaches the client, because it is raised once more on its way. Of a session that is terminated meanwhile, the client
/// sees only the end.
///
/// `client_min_messages` can't do that: Postgres sends INFO whatever it says (`should_output_to_client` in elog.c).
pub(crate) fn unheard<R>(act: impl FnOnce() -> R) -> R {
    /// Also when an error unwinds.
    struct Reset(pg_sys::CommandDest::Type);
    #[expect(unsafe_code, reason = "sets a variable of the backend")]
    impl Drop for Reset {
        fn drop(&mut self) {
            // SAFETY: it is the backend's own.
            unsafe {
                pg_sys::whereToSendOutput = self.0;
            }
        }
    }
    #[expect(unsafe_code, reason = "sets a variable of the backend")]
    // SAFETY: it is the backend's own.
    let _reset = unsafe {
        let reset = Reset(pg_sys::whereToSendOutput);
        pg_sys::whereToSendOutput = pg_sys::CommandDest::DestNone;
        reset
    };
    act()
}

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
    // SAFETY: the variables are restored. A report at this level returns.
    unsafe {
        let context = pg_sys::error_context_stack;
        pg_sys::error_context_stack = &raw mut alone;
        // Else a cancel would be raised after the report: as an error after COMMIT, if the line is a message's last act.
        pg_sys::InterruptHoldoffCount += 1;
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, line.to_owned(), "pg_mask")
            .report(PgLogLevel::LOG_SERVER_ONLY);
        pg_sys::InterruptHoldoffCount -= 1;
        pg_sys::error_context_stack = context;
    }
}
