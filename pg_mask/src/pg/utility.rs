//! Commands that code of the target can't run during a flush.
//!
//! Postgres refuses temporary tables in a security-restricted operation, but not temporary functions. One that a trigger
//! leaves in the session's `pg_temp` would run later with the session's rights. `SET CONSTRAINTS` in a trigger would fire
//! triggers that the session queued earlier, with the rights of the inbox's owner.

use std::cell::Cell;
use std::ffi::c_char;

use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;

use crate::error::{Error, raise};

thread_local! {
    /// Flushes in progress, one within the other.
    static FLUSHES: Cell<u32> = const { Cell::new(0) };
    static NEXT_HOOK: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Refuses the commands until it is dropped.
pub(crate) struct Refusing;

impl Refusing {
    pub(crate) fn begin() -> Self {
        FLUSHES.set(FLUSHES.get() + 1);
        Self
    }
}

impl Drop for Refusing {
    fn drop(&mut self) {
        FLUSHES.set(FLUSHES.get() - 1);
    }
}

/// Asks Postgres to show each command before it runs.
pub(crate) fn register() {
    #[expect(unsafe_code, reason = "sets a variable")]
    // SAFETY: the hook is a function of this library, which is never unloaded; libraries are loaded one after the other.
    unsafe {
        NEXT_HOOK.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(command);
    }
}

#[expect(unsafe_code, reason = "declares a function of Postgres")]
// SAFETY: the declaration is that of utility.h.
unsafe extern "C-unwind" {
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        is_read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Not guarded by pgrx, since errors of the command would lose what pgrx does not carry. No frame of it has a destructor.
#[expect(unsafe_code, reason = "called by Postgres")]
#[expect(ffi_unwind_calls, reason = "an error of the command goes through")]
unsafe extern "C-unwind" fn command(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    is_read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the arguments are those that Postgres calls the hook with.
    unsafe {
        if FLUSHES.get() > 0 {
            refuse(statement);
        }
        let run = NEXT_HOOK.get().unwrap_or(standard_ProcessUtility);
        run(statement, text, is_read_only, context, parameters, environment, destination, completion);
    }
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn refuse(statement: *mut pg_sys::PlannedStmt) {
    // SAFETY: a planned statement of a command has the command.
    let tag = unsafe { (*(*statement).utilityStmt).type_ };
    let what = match tag {
        NodeTag::T_CreateFunctionStmt => "create functions",
        // Aggregates, operators, types, collations, text search.
        NodeTag::T_DefineStmt => "create aggregates, operators, types, collations or text search objects",
        NodeTag::T_CreateDomainStmt
        | NodeTag::T_CreateEnumStmt
        | NodeTag::T_CompositeTypeStmt
        | NodeTag::T_CreateRangeStmt => "create types",
        NodeTag::T_CreateConversionStmt => "create conversions",
        NodeTag::T_CreateOpClassStmt | NodeTag::T_CreateOpFamilyStmt => "create operator classes or families",
        NodeTag::T_ConstraintsSetStmt => "set constraints",
        _ => return,
    };
    raise(Error::CommandInFlush(what));
}
