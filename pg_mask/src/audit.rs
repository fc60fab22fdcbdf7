//! Counts unmasking per transaction, limits it, and logs each statement: who unmasked how many values, and for what purpose.
//!
//! A statement is one message from the client, including all functions and cursors that run for it. It has one log line, or
//! one for each purpose if the purpose changes within it.
//!
//! A value is counted before it is returned. The line is written however the statement ends, unless the process is killed or
//! crashes:
//!
//! | end | written by |
//! |---|---|
//! | success, and an error outside of a transaction | the end of the message |
//! | error, cancel, timeout | the end of the transaction |
//! | termination, lost client, any other FATAL error | the end of the process |

use std::cell::Cell;
use std::ffi::{CStr, CString, c_void};
use std::fmt::Write as _;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::Error;
use crate::pg::log::log_alone;
use crate::pg::message_end::at_end_of_message;
use crate::pg::names::{name_of_application, name_of_database, name_of_role};
use crate::pg::process::{at_process_end, is_parallel_worker, takes_messages};
use crate::pg::security::{current_role, session_role};
use crate::pg::state::{SessionCell, SessionState, session_cell};
use crate::pg::transaction::{TransactionEnd, at_transaction_end};
use crate::settings::{self, LOG_UNMASK, LogUnmask, REQUIRE_PURPOSE, UNMASK_LIMIT};
use crate::statistics::{
    SLOTS,
    roles::{self, Unmasked},
};

/// Values that the running statement has unmasked. Names are looked up at once, because catalogs cannot be read after a
/// transaction is rolled back.
struct Statement {
    /// The role that logged in, or that the session took on by `SET SESSION AUTHORIZATION`.
    session_role: pg_sys::Oid,
    role: String,
    database: String,
    /// The purpose of the values in `by`, and of the next values until it changes.
    purpose: CString,
    has_purpose: bool,
    /// The value of `settings::purpose_changes` when `purpose` was last compared with the setting.
    purpose_changes: u64,
    /// Values to log, for each role whose privileges they were unmasked with. Functions can lend their owners' privileges.
    by: Vec<(pg_sys::Oid, String, u64)>,
    /// All values, whether they are logged or not.
    unmasked: Unmasked,
}

thread_local! {
    static STATEMENT: SessionCell<Option<Statement>> = const { session_cell(None) };
    /// Number of values that this transaction has unmasked. A rollback to a savepoint does not reduce it.
    static IN_TRANSACTION: Cell<u64> = const { Cell::new(0) };
    /// Whether the callback for the end of the process is registered.
    static EXIT_IS_WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Whether the log already says that this session's role has no statistics.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Counts a value that is about to be unmasked, or refuses it.
pub(crate) fn count() -> Result<(), Error> {
    // A worker's counts are lost when it ends.
    if is_parallel_worker() {
        return Err(Error::UnmaskInWorker);
    }
    let so_far = IN_TRANSACTION.get();
    let limit = UNMASK_LIMIT.get();
    if u64::try_from(limit).is_ok_and(|limit| so_far >= limit) {
        return Err(Error::UnmaskLimit { limit });
    }
    let user = (LOG_UNMASK.get() == LogUnmask::Statement).then(current_role);
    let counted =
        STATEMENT.with_borrow_mut(|statement| statement.as_mut().is_some_and(|known| known.count(user)));
    if !counted {
        count_first(user)?;
    }
    IN_TRANSACTION.set(so_far + 1);
    Ok(())
}

/// Counts the first value for its statement, purpose or role. Refuses it if it lacks a required purpose.
fn count_first(user: Option<pg_sys::Oid>) -> Result<(), Error> {
    if REQUIRE_PURPOSE.get() && settings::with_purpose(is_blank) {
        return Err(Error::NoPurpose);
    }
    // A call of Postgres may raise an error, and then nothing that was counted may be lost. So these calls are made outside
    // of the borrow.
    let entry = user.map(|user| (user, name_of_role(user), 0));
    let begun = STATEMENT.with_borrow(Option::is_none).then(Statement::begin);
    let line = STATEMENT.with_borrow_mut(|statement| {
        if begun.is_some() {
            *statement = begun;
        }
        let statement = statement.as_mut()?;
        let line = statement.change_purpose();
        if let Some(entry) = entry
            && !statement.by.iter().any(|(known, ..)| *known == entry.0)
        {
            statement.by.push(entry);
        }
        statement.count(user);
        line
    });
    if let Some(line) = line {
        log_alone(&line);
    }
    Ok(())
}

impl Statement {
    fn begin() -> Self {
        at_end_of_message(message_ends);
        watch_exit();
        let session_role = session_role();
        let role = name_of_role(session_role);
        if !roles::prepare(session_role) && !TOLD.replace(true) {
            log_alone(&format!(
                "pg_mask: no statistics are kept of unmasking by role {role:?}: there are those of {SLOTS} roles"
            ));
        }
        let purpose = settings::with_purpose(CStr::to_owned);
        let has_purpose = !is_blank(&purpose);
        Self {
            session_role,
            role,
            database: name_of_database(),
            purpose,
            has_purpose,
            purpose_changes: settings::purpose_changes(),
            by: Vec::new(),
            unmasked: Unmasked::default(),
        }
    }

    /// Counts a value, if this role has already unmasked one for the current purpose. Without a role, it isn't logged.
    fn count(&mut self, user: Option<pg_sys::Oid>) -> bool {
        if self.purpose_changes != settings::purpose_changes() || REQUIRE_PURPOSE.get() && !self.has_purpose {
            return false;
        }
        if let Some(user) = user {
            let Some((.., values)) = self.by.iter_mut().rfind(|(known, ..)| *known == user) else {
                return false;
            };
            *values += 1;
        }
        self.unmasked.values += 1;
        self.unmasked.with_purpose += i64::from(self.has_purpose);
        true
    }

    /// Takes over the current purpose. Returns the line about values unmasked for the previous one, if it changed.
    fn change_purpose(&mut self) -> Option<String> {
        let purpose = settings::with_purpose(CStr::to_owned);
        self.purpose_changes = settings::purpose_changes();
        if purpose == self.purpose {
            return None;
        }
        let line = self.line();
        self.by.clear();
        self.has_purpose = !is_blank(&purpose);
        self.purpose = purpose;
        line
    }

    /// Returns the line for the log, if there is anything to log.
    ///
    /// Names and the purpose are quoted as Rust quotes strings, so that none can start a new line or end early.
    fn line(&self) -> Option<String> {
        let values: u64 = self.by.iter().map(|(.., values)| values).sum();
        if values == 0 {
            return None;
        }
        let plural = if values == 1 { "" } else { "s" };
        let mut lent = String::new();
        for (_, role, values) in self.by.iter().filter(|(_, role, _)| *role != self.role) {
            let _ = write!(lent, ", {values} with the rights of {role:?}");
        }
        let mut purpose = String::new();
        if self.has_purpose {
            let _ = write!(purpose, ", purpose {:?}", self.purpose.to_string_lossy());
        }
        let application = name_of_application();
        Some(format!(
            "pg_mask: role {:?} unmasked {values} value{plural}{lent} \
             (database {:?}, application {application:?}{purpose})",
            self.role, self.database,
        ))
    }
}

/// Whether a purpose is empty or only white space.
fn is_blank(purpose: &CStr) -> bool {
    purpose.to_string_lossy().trim().is_empty()
}

/// Counts and logs the values that the ended statement has unmasked, if any.
fn statement_ends() {
    if let Some(statement) = STATEMENT.take() {
        roles::count(statement.session_role, statement.unmasked);
        if let Some(line) = statement.line() {
            log_alone(&line);
        }
    }
}

/// Follows the end of the process, in each backend that unmasks.
///
/// A message does not end when the process does. Nor does a transaction that has committed, while its last bytes wait for a
/// client that does not read. A preloaded library must not register this in the postmaster, whose children forget it.
fn watch_exit() {
    if !EXIT_IS_WATCHED.replace(true) {
        at_process_end(statement_ends);
    }
}

/// Follows the ends of transactions.
pub(crate) fn register() {
    at_transaction_end(transaction_ends);
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn message_ends(_argument: *mut c_void) {
    statement_ends();
}

fn transaction_ends(end: TransactionEnd) {
    if end == TransactionEnd::BeforeCommit {
        return;
    }
    IN_TRANSACTION.set(0);
    // A procedure's statement continues after its COMMIT.
    if end == TransactionEnd::RolledBack || !takes_messages() {
        statement_ends();
    }
}
