//! The flush: a batch's rows written to the target, and what Postgres refuses turned into rejects.

use std::ffi::CString;
use std::panic::AssertUnwindSafe;

use masking::scheme::Masker;
use masking::{Kind, Rows};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

use crate::batch::{Counts, Messages};
use crate::catalog::Attribute;
use crate::error::{Raise, condition, sqlstate};
use crate::inbox::Inbox;
use crate::rejects::{Class, Rejects};

/// Writes the rows of a chunk to the target. Those that the target refuses, and only those, become rejects.
pub(crate) fn store(
    inbox: &Inbox,
    rows: &Rows,
    messages: &Messages,
    masker: Masker<'_>,
    rejects: &mut Rejects,
    counts: &mut Counts,
) {
    let mut memory = PgMemoryContexts::new("pg_mask flush");
    // Here, where it is the statement's error if what the transaction did before violates them.
    if let Some(check) = &inbox.check_deferred {
        check.execute(&[]).or_raise();
    }
    // Ranges still to be written, the first on top: of two rows that are in each other's way, the first goes in.
    let mut ranges = Vec::new();
    ranges.push(0..rows.len());
    let mut by_copy = inbox.copy_in.as_ref().ok();
    while let Some(range) = ranges.pop() {
        // A row alone goes by INSERT, which knows by itself that it is there already.
        let copy_in = by_copy.filter(|_| range.len() > 1);
        let written = in_subtransaction(&mut memory, || match copy_in {
            Some(copy_in) => copy_in.insert(rows, range.clone()).or_raise(),
            None => Some(inbox.target.insert(rows, range.clone()).or_raise()),
        });
        let error = match written {
            Ok(Some(stored)) => {
                counts.add(range.len(), stored);
                continue;
            }
            Ok(None) => {
                by_copy = None;
                ranges.push(range);
                continue;
            }
            Err(error) => error,
        };
        let whose = Whose::of(&error);
        if whose == Whose::Statement {
            error.rethrow();
        }
        if let Some(copy_in) = copy_in
            && (is_unique_violation(&error) || whose == Whose::Unknown)
        {
            // The duplicate was not looked for, or another session has inserted it after the look; or INSERT does
            // without what COPY fails at.
            if !(is_unique_violation(&error) && copy_in.looks_next_time()) {
                by_copy = None;
            }
            ranges.push(range);
            continue;
        }
        if range.len() > 1 {
            let middle = range.start + range.len() / 2;
            ranges.push(middle..range.end);
            ranges.push(range.start..middle);
            continue;
        }
        let row = range.start;
        let refusing = refusing_column(inbox, rows, row, &mut memory);
        if whose == Whose::Unknown && refusing.is_none() && !is_of_a_policy(inbox, &error, &mut memory) {
            error.rethrow();
        }
        // Constraints are checked before conflicts are: one that is newer than the row may refuse a redelivery.
        if in_context(&memory, || inbox.target.has(rows, row).or_raise()) {
            counts.duplicate += 1;
        } else {
            let class = Class::named(&condition(report_of(&error).sql_error_code()));
            messages.reject(row, class, &reason(inbox, &error, refusing), masker, rejects);
        }
    }
}

/// Writes the rejects.
pub(crate) fn reject(inbox: &Inbox, rejects: &Rejects, counts: &mut Counts) {
    for (class, rows) in rejects.by_class() {
        let memory = PgMemoryContexts::new("pg_mask rejects");
        let insert = || in_context(&memory, || inbox.rejects.insert(rows, 0..rows.len()).or_raise());
        let written = PgTryBuilder::new(AssertUnwindSafe(insert))
            .catch_others(|error| raise_without_detail(error))
            .execute();
        counts.add_rejects(class, rows.len(), written);
    }
}

/// The detail quotes the row, and in it the masked event.
fn raise_without_detail(error: CaughtError) -> ! {
    if let CaughtError::PostgresError(report) = &error {
        let code = report.sql_error_code();
        ErrorReport::new(code, report.message().to_owned(), function_name!()).report(PgLogLevel::ERROR);
    }
    error.rethrow()
}

/// Whose fault an error is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// A row's: others can still be stored.
    Row,
    /// The statement's: disk full, cancelled, deadlock. It goes on to whoever inserts.
    Statement,
    /// Rights that are missing, or ones that a policy denies to a row; syntax, of the statement or of a value of some
    /// types. Which, shows when a row is alone.
    Unknown,
}

impl Whose {
    fn of(error: &CaughtError) -> Self {
        let Some(state) = state_of(error) else { return Self::Statement };
        match &state[..2] {
            // Binary data of a wrong form, which only COPY finds.
            _ if state == "22P03" || state == "22P04" => Self::Unknown,
            // Data exceptions, constraints, check options of views, program limits (a row or index entry too large),
            // and what a trigger on the target refuses by a plain RAISE EXCEPTION.
            "22" | "23" | "44" | "54" => Self::Row,
            _ if state == "P0001" => Self::Row,
            // Connections, transactions, rollbacks, resources, states, operators, the system.
            "08" | "25" | "40" | "53" | "55" | "57" | "58" => Self::Statement,
            _ => Self::Unknown,
        }
    }
}

/// Whether an error is a row-level security policy's. Its SQLSTATE is that of missing rights; but where those miss, no
/// insert goes through, not even one of no row.
fn is_of_a_policy(inbox: &Inbox, error: &CaughtError, memory: &mut PgMemoryContexts) -> bool {
    inbox.row_security
        && state_of(error).is_some_and(|state| state == "42501")
        && in_subtransaction(memory, || inbox.target.probe().or_raise()).is_ok()
}

/// The column whose type does not read its value.
fn refusing_column<'i>(
    inbox: &'i Inbox,
    rows: &Rows,
    row: usize,
    memory: &mut PgMemoryContexts,
) -> Option<&'i Attribute> {
    let columns = inbox.attributes.iter().zip(inbox.rules.columns()).zip(rows.fields(row));
    for ((attribute, column), field) in columns {
        if let Some(text) = field
            && column.rule.kind() == Kind::Text
            && !attribute.is_text()
            && !attribute.accepts(text, memory)
        {
            return Some(attribute);
        }
    }
    None
}

fn is_unique_violation(error: &CaughtError) -> bool {
    state_of(error).is_some_and(|state| state == "23505")
}

/// The SQLSTATE of an error; none for a panic, which is a fault of this library's and no row's.
fn state_of(error: &CaughtError) -> Option<String> {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            Some(sqlstate(report.sql_error_code()))
        }
        CaughtError::RustPanic { .. } => None,
    }
}

fn report_of(error: &CaughtError) -> &ErrorReportWithLevel {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    report
}

/// Why Postgres refused a row. Made of the error's condition and names from the catalogs alone: the error's own text
/// may quote the value.
fn reason(inbox: &Inbox, error: &CaughtError, refusing: Option<&Attribute>) -> String {
    let report = report_of(error);
    let code = report.sql_error_code();
    let refused = format!("{} ({})", condition(code), sqlstate(code));
    if let Some(attribute) = refusing {
        return format!("column \"{}\": {refused}", attribute.name);
    }
    let message = report.message();
    let mentioned = |name: &&String| message.contains(&format!("\"{name}\""));
    match inbox.names().or_raise().iter().filter(mentioned).max_by_key(|name| name.len()) {
        Some(name) => format!("\"{name}\": {refused}"),
        None => refused,
    }
}

impl Attribute {
    /// Whether the column's type reads this text.
    #[expect(unsafe_code, reason = "calls Postgres")]
    fn accepts(&self, text: &[u8], memory: &mut PgMemoryContexts) -> bool {
        // A NUL cannot come in: such an event was a reject before.
        let Ok(text) = CString::new(text) else { return false };
        let read = in_subtransaction(memory, || {
            let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            // SAFETY: pointers to locals, and a string that outlives the call, which copies what it keeps.
            unsafe {
                pg_sys::getTypeInputInfo(self.type_oid, &raw mut input, &raw mut parameter);
                pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, self.typmod);
            }
        });
        match read {
            Ok(()) => true,
            Err(error) if Whose::of(&error) == Whose::Statement => error.rethrow(),
            Err(_) => false,
        }
    }
}

/// Runs `act` with `memory` as the current memory context, which stays for the caller to empty.
fn in_context<R>(memory: &PgMemoryContexts, act: impl FnOnce() -> R) -> R {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the context outlives `act`; after an error the end of the transaction chooses the context.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(memory.value());
        let result = act();
        pg_sys::MemoryContextSwitchTo(before);
        result
    }
}

/// Runs `act` in a subtransaction of its own, which its error rolls back, and in `memory`, which is emptied after it.
pub(crate) fn in_subtransaction<R>(
    memory: &mut PgMemoryContexts,
    act: impl FnOnce() -> R,
) -> Result<R, Box<CaughtError>> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the order of calls and what is put back are those of PL/pgSQL's exception block (pl_exec.c).
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(in_context(memory, act))))
            .catch_others(|error| Err(Box::new(error)))
            .execute();
        pg_sys::MemoryContextSwitchTo(context);
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        memory.reset();
        result
    }
}
