//! Memory contexts and subtransactions, and the errors caught in them.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

use crate::error::{Error, Raise, condition, raise, sqlstate};
use crate::pg::reserve::is_error;
use crate::pg::unguarded::geterrcode;

/// Runs `act` with `memory` as the current memory context, and leaves emptying it to the caller.
pub(crate) fn in_context<R>(memory: &PgMemoryContexts, act: impl FnOnce() -> R) -> R {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the context outlives `act`. After an error, the end of the transaction chooses the context.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(memory.value());
        let result = act();
        pg_sys::MemoryContextSwitchTo(before);
        result
    }
}

/// Runs `act` in its own subtransaction, which its error rolls back, and in `memory`, which is emptied afterwards.
pub(crate) fn in_subtransaction<R>(
    memory: &mut PgMemoryContexts,
    act: impl FnOnce() -> Result<R, Error>,
) -> Result<R, SubtransactionError> {
    subtransaction(memory, act, true)
}

/// Runs `act` as [`in_subtransaction`] does, but always rolls back its changes.
pub(crate) fn rolled_back<R>(
    memory: &mut PgMemoryContexts,
    act: impl FnOnce() -> Result<R, Error>,
) -> Result<R, SubtransactionError> {
    subtransaction(memory, act, false)
}

fn subtransaction<R>(
    memory: &mut PgMemoryContexts,
    act: impl FnOnce() -> Result<R, Error>,
    keep: bool,
) -> Result<R, SubtransactionError> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the order of calls and the restored variables follow PL/pgSQL's exception block (pl_exec.c).
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        let result = caught(|| in_context(memory, act));
        pg_sys::MemoryContextSwitchTo(context);
        if keep && result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        memory.reset();
        result
    }
}

/// Runs `act` outside of a subtransaction, and raises its error without the parts that may quote a value.
pub(crate) fn stripped<R>(act: impl FnOnce() -> Result<R, Error>) -> R {
    caught(act).unwrap_or_else(|failure| failure.raise())
}

/// Runs `act`, and catches its error. Unless it rolls back a subtransaction, the caller must raise the error.
fn caught<R>(act: impl FnOnce() -> Result<R, Error>) -> Result<R, SubtransactionError> {
    /// Not guarded by pgrx: it raises no error and does not panic. Postgres calls it while it makes a report (errfinish in
    /// elog.c), or a dummy report without a code (`GetErrorContextStack`).
    #[expect(unsafe_code, reason = "called by Postgres")]
    unsafe extern "C-unwind" fn note(_argument: *mut std::ffi::c_void) {
        let code = geterrcode();
        if is_error(code) {
            RAISED.set(code);
        }
    }
    #[expect(unsafe_code, reason = "sets a variable of the backend")]
    // SAFETY: the callback is on the stack for as long as Postgres can call it.
    unsafe {
        let callbacks = pg_sys::error_context_stack;
        let mut noting = pg_sys::ErrorContextCallback {
            previous: callbacks,
            callback: Some(note),
            arg: std::ptr::null_mut(),
        };
        pg_sys::error_context_stack = &raw mut noting;
        let result = PgTryBuilder::new(AssertUnwindSafe(|| match act() {
            Err(Error::Caught(error)) => Err(failure(*error)),
            result => Ok(result.or_raise()),
        }))
        .catch_others(|error| Err(failure(error)))
        .execute();
        pg_sys::error_context_stack = callbacks;
        result
    }
}

fn failure(error: CaughtError) -> SubtransactionError {
    let code = match &error {
        // An error from Postgres or a trigger, with a code that pgrx does not know.
        CaughtError::PostgresError(report)
            if report.sql_error_code() == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR =>
        {
            // Not one from before. An error of this library within a trigger has none.
            match RAISED.take() {
                0 => report.sql_error_code() as i32,
                code => code,
            }
        }
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => report.sql_error_code() as i32,
    };
    SubtransactionError { error: Box::new(error), code }
}

/// A caught error, with its SQLSTATE: pgrx keeps only the codes that it knows.
pub(crate) struct SubtransactionError {
    pub(crate) error: Box<CaughtError>,
    /// The SQLSTATE, packed.
    pub(crate) code: i32,
}

thread_local! {
    /// The SQLSTATE of the last error raised while [`caught`] ran.
    static RAISED: Cell<i32> = const { Cell::new(0) };
}

impl SubtransactionError {
    /// Returns the SQLSTATE, or none for a panic, which is a fault of this library and not of a row.
    pub(crate) fn known_state(&self) -> Option<String> {
        match *self.error {
            CaughtError::PostgresError(_) | CaughtError::ErrorReport(_) => Some(sqlstate(self.code)),
            CaughtError::RustPanic { .. } => None,
        }
    }

    /// Returns the SQLSTATE.
    pub(crate) fn state(&self) -> String {
        sqlstate(self.code)
    }

    /// Returns the name of the SQLSTATE's condition.
    pub(crate) fn condition(&self) -> String {
        condition(self.code)
    }

    pub(crate) fn is_unique_violation(&self) -> bool {
        self.known_state().is_some_and(|state| state == "23505")
    }

    /// Returns the error's message, which may quote a value.
    pub(crate) fn message(&self) -> &str {
        self.report().message()
    }

    pub(crate) fn report(&self) -> &ErrorReportWithLevel {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &*self.error;
        report
    }

    /// Raises the error without the parts that may quote a value: its detail, its context, and a message from code of a
    /// table or about a value.
    pub(crate) fn raise(self) -> ! {
        let report = match &*self.error {
            CaughtError::PostgresError(report) => report,
            CaughtError::ErrorReport(_) => self.error.rethrow(),
            // Its words can quote a text that the code stumbled over.
            CaughtError::RustPanic { ereport, .. } => {
                let message = format!("pg_mask panicked at {}:{}", ereport.file(), ereport.line_number());
                raise(ErrorReport::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message, "pg_mask"))
            }
        };
        // This library raised it within a trigger.
        if report.function_name() == Some("pg_mask") {
            self.error.rethrow();
        }
        let message = if NAMING.contains(&report.file()) {
            if report.detail().is_none() {
                self.error.rethrow();
            }
            report.message().to_owned()
        } else if report.sql_error_code() as i32 == self.code {
            self.condition()
        } else {
            // pgrx raises a code that it does not know as XX000. Another inbox, whose target's trigger comes here, asks for it.
            RAISED.set(self.code);
            format!("{} ({})", self.condition(), self.state())
        };
        raise(ErrorReport::new(report.sql_error_code(), message, "pg_mask"))
    }
}

/// Source files of Postgres whose messages quote nothing but names. Any other code can put a value into a message: RAISE and
/// ASSERT, other procedural languages, the input function of a type, a foreign server.
const NAMING: [&str; 25] = [
    // Constraints, policies and partitions.
    "execIndexing.c",
    "execMain.c",
    "execPartition.c",
    "nbtinsert.c",
    "nodeModifyTable.c",
    "ri_triggers.c",
    // Privileges, and names that are missing from a statement's tables.
    "aclchk.c",
    "parse_func.c",
    "parse_oper.c",
    "parse_relation.c",
    "parse_target.c",
    "plancat.c",
    // Statements, locks, transactions and cancelling.
    "deadlock.c",
    "heapam.c",
    "nodeLimit.c",
    "plancache.c",
    "portalmem.c",
    "postgres.c",
    "proc.c",
    "stack_depth.c",
    "trigger.c",
    "utility.c",
    "xact.c",
    // Memory and disks.
    "mcxt.c",
    "md.c",
];
