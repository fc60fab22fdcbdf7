//! The flush: writes a batch's rows to the target, and turns rows that Postgres refuses into rejects.
//!
//! The SQLSTATE of an error does not tell whether the row or the set-up is at fault: a trigger that misses a table may miss it for
//! this row alone. So a row that fails alone is a reject if another row goes in, of the same chunk or in a trial.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use masking::{Masks, Rows};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
use pgrx::prelude::*;

use crate::batch::{Counts, Messages};
use crate::error::{Error, Raise, condition, raise, sqlstate};
use crate::inbox::Inbox;
use crate::rejects::{Class, Rejects};
use crate::trial::{self, Trial};
use crate::writer;

/// Writes the rows of a chunk to the target. Rows that the target refuses become rejects.
///
/// A failed range of rows is halved until a row fails alone. After a row that failed alone the next one is tried alone too, and
/// each success doubles the range: where most rows are bad, each costs one failure.
pub(crate) fn store(
    inbox: &Inbox,
    rows: &Rows,
    messages: &Messages,
    masks: &Masks<'_>,
    rejects: &mut Rejects,
    counts: &mut Counts,
) {
    let _nesting = Nesting::begin();
    let mut memory = PgMemoryContexts::new("pg_mask flush");
    let mut refusals = Refusals::default();
    let mut by_copy = inbox.copy_in.as_ref().ok();
    let (mut start, mut size) = (0, rows.len());
    // Where the shortest range ends that has failed.
    let mut failed_until = 0;
    while start < rows.len() {
        let range = start..(start + size).min(rows.len());
        // COPY takes longer to begin than a few rows take.
        let copy_in =
            by_copy.filter(|_| range.len() >= COPY_ROWS || range.len() == rows.len() && range.len() > 1);
        let written = in_subtransaction(&mut memory, || match copy_in {
            Some(copy_in) => copy_in.insert(rows, range.clone()).or_raise(),
            None => Some(inbox.target.insert(rows, range.clone()).or_raise()),
        });
        let failure = match written {
            Ok(Some(stored)) => {
                counts.add(range.len(), stored);
                refusals.is_set_up |= stored > 0;
                start = range.end;
                // The rest of a range that has failed would fail too.
                size =
                    if start < failed_until { (failed_until - start).div_ceil(2) } else { range.len() * 2 };
                continue;
            }
            Ok(None) => {
                by_copy = None;
                continue;
            }
            Err(failure) => failure,
        };
        let owner = failure.owner();
        if owner == ErrorOwner::Statement {
            failure.raise();
        }
        if let Some(copy_in) = copy_in
            && (failure.is_unique_violation() || owner == ErrorOwner::Unknown)
        {
            // The duplicate was not looked for, or another session has inserted it after the look; or INSERT does
            // without what COPY fails at.
            if !(failure.is_unique_violation() && copy_in.looks_next_time()) {
                by_copy = None;
            }
            continue;
        }
        if range.len() > 1 {
            failed_until = range.end;
            size = range.len() / 2;
            continue;
        }
        refusals.add(inbox, masks, start, &failure);
        start += 1;
        size = 1;
    }
    refusals.reject(inbox, rows, messages, masks, rejects, counts);
}

/// Fewer rows than this go by INSERT after a failure.
const COPY_ROWS: usize = 64;

/// A row that the target refused alone.
struct Refusal {
    row: usize,
    reason: Rc<Reason>,
}

/// Why the target refused rows.
struct Reason {
    class: Class,
    text: String,
}

/// A reason, and the error that it was made from. The error's message can quote a value: it is kept for the last row alone.
struct LastReason {
    code: i32,
    refusing: Option<usize>,
    message: String,
    reason: Rc<Reason>,
}

impl LastReason {
    fn of(inbox: &Inbox, failure: &Failure, refusing: Option<usize>) -> Self {
        let code = failure.condition();
        let name = reason_name(inbox, failure, refusing);
        let text = format!("{name}{code} ({})", failure.state());
        let reason = Rc::new(Reason { class: Class::named(&code), text });
        Self { code: failure.code, refusing, message: failure.message().to_owned(), reason }
    }

    fn is_of(&self, failure: &Failure, refusing: Option<usize>) -> bool {
        (self.code, self.refusing, &*self.message) == (failure.code, refusing, failure.message())
    }
}

/// A failure that can be the set-up's.
enum Doubt {
    /// The trial failed, whose values are made up.
    Trial(Failure),
    /// The trial's row was refused for its values. This is the SQLSTATE of the first row of the chunk that failed.
    Row(PgSqlErrorCode),
}

impl Doubt {
    fn raise(self) -> ! {
        match self {
            Self::Trial(failure) => failure.error.rethrow(),
            Self::Row(code) => raise(Error::Doubtful { code }),
        }
    }
}

/// The rows of a chunk that the target refused, each alone.
#[derive(Default)]
struct Refusals {
    refused: Vec<Refusal>,
    last: Option<LastReason>,
    /// Whether a row went into the target, of this chunk or in a trial: so the set-up is not at fault.
    is_set_up: bool,
    /// The failure that can be the set-up's, until a row goes in.
    doubtful: Option<Doubt>,
    doubts: usize,
}

impl Refusals {
    /// Rows that fail one by one while none goes in, before the set-up is found at fault.
    const DOUBTS: usize = 16;

    /// Takes note of a row that failed alone. Raises its error if the set-up is at fault.
    fn add(&mut self, inbox: &Inbox, masks: &Masks<'_>, row: usize, failure: &Failure) {
        let refusing = writer::refusing_column();
        // Rows that follow each other are often refused for one reason.
        let last = self.last.take().filter(|last| last.is_of(failure, refusing));
        let last = last.unwrap_or_else(|| LastReason::of(inbox, failure, refusing));
        self.refused.push(Refusal { row, reason: Rc::clone(&last.reason) });
        self.last = Some(last);
        if self.is_set_up || failure.owner() == ErrorOwner::Row || refusing.is_some() {
            return;
        }
        self.doubts += 1;
        if self.doubtful.is_none() {
            match trial::run(inbox, masks) {
                Ok(Trial::Stored) => self.is_set_up = true,
                Ok(Trial::Refused) => self.doubtful = Some(Doubt::Row(failure.code.into())),
                Err(trial) if trial.owner() == ErrorOwner::Statement => trial.raise(),
                Err(trial) => self.doubtful = Some(Doubt::Trial(trial)),
            }
        }
        if self.doubts >= Self::DOUBTS
            && let Some(doubt) = self.doubtful.take()
        {
            doubt.raise();
        }
    }

    /// Turns the refused rows into rejects, but for those that the target has already. Raises an error if a row failed in a way
    /// that can be the set-up's fault, and none went in.
    fn reject(
        self,
        inbox: &Inbox,
        rows: &Rows,
        messages: &Messages,
        masks: &Masks<'_>,
        rejects: &mut Rejects,
        counts: &mut Counts,
    ) {
        if let Some(doubt) = self.doubtful.filter(|_| !self.is_set_up) {
            doubt.raise();
        }
        if self.refused.is_empty() {
            return;
        }
        let memory = PgMemoryContexts::new("pg_mask refusals");
        let masker = inbox.rules.masker_of_rejects(masks);
        let numbers: Vec<usize> = self.refused.iter().map(|refusal| refusal.row).collect();
        // Constraints are checked before conflicts are: one that is newer than the row may refuse a redelivery.
        let present = in_context(&memory, || inbox.target.present(rows, &numbers).or_raise());
        for refusal in self.refused {
            if present.contains(&refusal.row) {
                counts.duplicate += 1;
                continue;
            }
            let Reason { class, text } = &*refusal.reason;
            let rejected = messages.reject(refusal.row, *class, text, masker, rejects);
            rejected.map_err(Error::from).or_raise();
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

/// Flushes that go on, one within the other: a trigger of a target can insert into an inbox.
struct Nesting;

thread_local! {
    static FLUSHES: Cell<u32> = const { Cell::new(0) };
    /// Whether there was one within the outermost that goes on.
    static INNER: Cell<bool> = const { Cell::new(false) };
}

impl Nesting {
    fn begin() -> Self {
        INNER.set(FLUSHES.get() > 0);
        FLUSHES.set(FLUSHES.get() + 1);
        Self
    }

    fn had_inner() -> bool {
        INNER.get()
    }
}

impl Drop for Nesting {
    fn drop(&mut self) {
        FLUSHES.set(FLUSHES.get() - 1);
    }
}

/// Who an error belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorOwner {
    /// A row: others can still be stored.
    Row,
    /// The statement: disk full, cancelled, deadlock. The error goes on to the client.
    Statement,
    /// A row or the set-up: a trigger that misses a table, a privilege that is missing or that a policy denies to a row, a code
    /// that a function made up. The row decides it when it fails alone: it is at fault if another row goes in.
    Unknown,
}

/// An error that was caught, with its SQLSTATE: pgrx keeps only those that it knows.
pub(crate) struct Failure {
    pub(crate) error: Box<CaughtError>,
    code: i32,
}

thread_local! {
    /// The SQLSTATE of the last error that was raised in a subtransaction.
    static RAISED: Cell<i32> = const { Cell::new(0) };
}

impl Failure {
    /// Returns the SQLSTATE; none for a panic, which is a fault of this library and of no row.
    fn known_state(&self) -> Option<String> {
        match *self.error {
            CaughtError::PostgresError(_) | CaughtError::ErrorReport(_) => Some(sqlstate(self.code)),
            CaughtError::RustPanic { .. } => None,
        }
    }

    /// Returns the SQLSTATE.
    fn state(&self) -> String {
        sqlstate(self.code)
    }

    /// Returns the name of the SQLSTATE's condition.
    fn condition(&self) -> String {
        condition(self.code)
    }

    fn is_unique_violation(&self) -> bool {
        self.known_state().is_some_and(|state| state == "23505")
    }

    /// Returns the error's message, which can quote a value.
    fn message(&self) -> &str {
        self.report().message()
    }

    fn report(&self) -> &ErrorReportWithLevel {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &*self.error;
        report
    }

    /// Raises the error without what can quote a value: its detail, its context, and the message that a trigger gave it.
    pub(crate) fn raise(self) -> ! {
        /// The functions of Postgres's languages that raise an error with the words of a trigger.
        const QUOTING: [&str; 4] = ["exec_stmt_raise", "PLy_elog_impl", "do_util_elog", "pltcl_elog"];
        let CaughtError::PostgresError(report) = &*self.error else { self.error.rethrow() };
        let function = report.function_name().unwrap_or_default();
        // Raised by this library within a trigger.
        if function == "pg_mask" {
            self.error.rethrow();
        }
        let quotes = QUOTING.contains(&function);
        let message = if quotes { self.condition() } else { report.message().to_owned() };
        raise(ErrorReport::new(report.sql_error_code(), message, "pg_mask"))
    }

    /// Returns who the error belongs to.
    pub(crate) fn owner(&self) -> ErrorOwner {
        let Some(state) = self.known_state() else { return ErrorOwner::Statement };
        match &state[..2] {
            // A stack that is too deep: for a value that nests deeply; or by triggers that insert into their own inbox.
            _ if state == "54001" && Nesting::had_inner() => ErrorOwner::Statement,
            // Binary data of a wrong form, which only COPY finds.
            _ if state == "22P03" || state == "22P04" => ErrorOwner::Unknown,
            // A sequence has come to its end.
            _ if state == "2200H" => ErrorOwner::Statement,
            // Data exceptions, constraints, check options of views, program limits (a row or index entry too large),
            // and a plain RAISE EXCEPTION of a trigger.
            "22" | "23" | "44" | "54" => ErrorOwner::Row,
            _ if state == "P0001" => ErrorOwner::Row,
            // A lock that is not available, an object in use.
            _ if state == "55P03" || state == "55006" => ErrorOwner::Statement,
            // Corruption.
            _ if state == "XX001" || state == "XX002" => ErrorOwner::Statement,
            // A policy refuses the row. Rights on the table are checked before.
            _ if state == "42501" && self.report().function_name() == Some("ExecWithCheckOptions") => {
                ErrorOwner::Row
            }
            // Connections, transactions, rollbacks, resources, operators, the system, the configuration.
            "08" | "25" | "40" | "53" | "57" | "58" | "F0" => ErrorOwner::Statement,
            _ => ErrorOwner::Unknown,
        }
    }
}

/// Names the column, constraint or index that refused a row. Made of names from the catalogs alone: the error's own text can
/// quote the value.
fn reason_name(inbox: &Inbox, failure: &Failure, refusing: Option<usize>) -> String {
    if let Some(column) = refusing {
        return format!("column \"{}\": ", inbox.attributes[column].name);
    }
    let message = failure.message();
    let mentioned = |name: &&String| message.contains(&format!("\"{name}\""));
    match inbox.names().or_raise().iter().filter(mentioned).max_by_key(|name| name.len()) {
        Some(name) => format!("\"{name}\": "),
        None => String::new(),
    }
}

/// Runs `act` with `memory` as the current memory context, which stays for the caller to empty.
pub(crate) fn in_context<R>(memory: &PgMemoryContexts, act: impl FnOnce() -> R) -> R {
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
) -> Result<R, Failure> {
    subtransaction(memory, act, true)
}

/// Runs `act` as [`in_subtransaction`] does, and rolls back what it did.
pub(crate) fn rolled_back<R>(memory: &mut PgMemoryContexts, act: impl FnOnce() -> R) -> Result<R, Failure> {
    subtransaction(memory, act, false)
}

fn subtransaction<R>(
    memory: &mut PgMemoryContexts,
    act: impl FnOnce() -> R,
    keep: bool,
) -> Result<R, Failure> {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn note(_argument: *mut std::ffi::c_void) {
        /// The first two characters of a SQLSTATE: six bits each (`MAKE_SQLSTATE` in elog.h).
        const CLASS: i32 = 0xFFF;
        // SAFETY: Postgres calls this while it makes a report (errfinish in elog.c), or makes up one without a code
        // (GetErrorContextStack): the times at which the call is valid.
        let code = unsafe { pg_sys::geterrcode() };
        // Classes 00 to 02 are of notices and warnings, which come here too.
        if !(0..=2).any(|second| code & CLASS == second << 6) {
            RAISED.set(code);
        }
    }
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the order of calls and what is put back are those of PL/pgSQL's exception block (pl_exec.c). The callback is on
    // the stack for as long as Postgres can call it.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        let callbacks = pg_sys::error_context_stack;
        let mut noting = pg_sys::ErrorContextCallback {
            previous: callbacks,
            callback: Some(note),
            arg: std::ptr::null_mut(),
        };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::error_context_stack = &raw mut noting;
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(in_context(memory, act))))
            .catch_others(|error| Err(failure(error)))
            .execute();
        pg_sys::error_context_stack = callbacks;
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

fn failure(error: CaughtError) -> Failure {
    let code = match &error {
        // An error of Postgres's, or of a trigger, with a code that pgrx does not know.
        CaughtError::PostgresError(report)
            if report.sql_error_code() == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR =>
        {
            RAISED.get()
        }
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => report.sql_error_code() as i32,
    };
    Failure { error: Box::new(error), code }
}
