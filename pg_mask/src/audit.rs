//! Who unmasked how much and for what purpose: counted for each transaction, limited, and logged for each statement.
//!
//! A statement is one message from the client, with everything that runs for it in functions and cursors. It has one line in the
//! log, or one for each purpose where the purpose changes in the middle of it.
//!
//! A value is counted before it leaves. The line is written however the statement ends, unless the process is killed or crashes:
//!
//! | end | written by |
//! |---|---|
//! | success, and an error outside of a transaction | the end of the message |
//! | error, cancel, timeout | the end of the transaction |
//! | termination, lost client, any other FATAL error | the end of the process |

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write as _;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, log_alone};
use crate::message::at_end_of_message;
use crate::security::current_role;
use crate::settings::{self, LOG_UNMASK, LogUnmask, REQUIRE_PURPOSE, UNMASK_LIMIT};
use crate::statistics::{
    SLOTS,
    roles::{self, Unmasked},
};

/// What the running statement has unmasked. Names are looked up at once: when a transaction is rolled back, catalogs cannot
/// be read any more.
struct Statement {
    /// The role that logged in, or that the session has become by `SET SESSION AUTHORIZATION`.
    session_role: pg_sys::Oid,
    role: String,
    database: String,
    /// The purpose of the values in `by`, and of the next ones until it changes.
    purpose: CString,
    has_purpose: bool,
    /// The number of times that the setting had changed when it was compared with `purpose`.
    purpose_changes: u64,
    /// Values to log, for each role with whose rights they were unmasked. Functions can lend their owners' rights.
    by: Vec<(pg_sys::Oid, String, u64)>,
    /// All values, whether they are logged or not.
    unmasked: Unmasked,
}

thread_local! {
    static STATEMENT: RefCell<Option<Statement>> = const { RefCell::new(None) };
    /// How many values this transaction has unmasked. A rollback to a savepoint takes none of them back.
    static IN_TRANSACTION: Cell<u64> = const { Cell::new(0) };
    /// Whether Postgres will call at the end of the process.
    static EXIT_IS_WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Whether the log says already that this session's role has no statistics.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

/// Counts a value that is about to be unmasked, or refuses.
pub(crate) fn count() -> Result<(), Error> {
    #[expect(unsafe_code, reason = "reads a variable")]
    // SAFETY: it is the process's own.
    let worker = unsafe { pg_sys::ParallelWorkerNumber >= 0 };
    // What a worker counts is lost when it ends.
    if worker {
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

/// Counts a value that is the first of its statement, its purpose, or its role, unless it lacks a purpose that it needs.
fn count_first(user: Option<pg_sys::Oid>) -> Result<(), Error> {
    if REQUIRE_PURPOSE.get() && settings::with_purpose(is_blank) {
        return Err(Error::NoPurpose);
    }
    // Whatever calls Postgres may raise an error, at which nothing that was counted may be lost: so it comes outside of the borrow.
    let entry = user.map(|user| (user, role_name(user), 0));
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
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: plain calls; names are NULL or C strings of the current memory context.
        let (session_role, database) =
            unsafe { (pg_sys::GetSessionUserId(), text_of(pg_sys::get_database_name(pg_sys::MyDatabaseId))) };
        let role = role_name(session_role);
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
            database,
            purpose,
            has_purpose,
            purpose_changes: settings::purpose_changes(),
            by: Vec::new(),
            unmasked: Unmasked::default(),
        }
    }

    /// Counts a value, if this role has unmasked one before for the purpose that is set. Without a role, it is not logged.
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

    /// Takes over the purpose that is set. Returns the line about what was unmasked for another.
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

    /// The line for the log, if there is anything to be logged.
    ///
    /// Names and the purpose are quoted as Rust quotes texts, so that none can begin a line of its own or end early.
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
        #[expect(unsafe_code, reason = "reads a setting")]
        // SAFETY: a setting of Postgres's is NULL or a C string.
        let application = unsafe { text_of(pg_sys::application_name) };
        Some(format!(
            "pg_mask: role {:?} unmasked {values} value{plural}{lent} \
             (database {:?}, application {application:?}{purpose})",
            self.role, self.database,
        ))
    }
}

/// Whether a purpose says nothing.
fn is_blank(purpose: &CStr) -> bool {
    purpose.to_string_lossy().trim().is_empty()
}

fn role_name(role: pg_sys::Oid) -> String {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call; the name is NULL or a C string of the current memory context.
    unsafe {
        text_of(pg_sys::GetUserNameFromId(role, true))
    }
}

/// # Safety
/// `text` is NULL or a C string.
#[expect(unsafe_code, reason = "reads a C string")]
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text).to_string_lossy().into_owned() }
}

/// Counts and logs what the statement that is over has unmasked, if it has.
fn statement_ends() {
    if let Some(statement) = STATEMENT.take() {
        roles::count(statement.session_role, statement.unmasked);
        // The last, as a cancel or termination that is pending is raised once the line is written.
        if let Some(line) = statement.line() {
            log_alone(&line);
        }
    }
}

/// Has Postgres call at the end of the process, once for each backend that unmasks.
///
/// A message does not end when the process does, and no transaction does where it is committed already and its last bytes wait for
/// a client that reads nothing. Callbacks run in reverse order (`shmem_exit`, ipc.c): this one before Postgres's own, which
/// rolls back, and long before shared memory is gone. A preloaded library must not ask in the postmaster, whose children
/// forget what it asked for.
fn watch_exit() {
    if !EXIT_IS_WATCHED.replace(true) {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: the callback is a function of this library, which is never unloaded.
        unsafe {
            pg_sys::before_shmem_exit(Some(process_ends), pg_sys::Datum::null());
        }
    }
}

/// Asks Postgres to tell of transactions.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn register() {
    // SAFETY: the callback is a function of this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
    }
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn message_ends(_argument: *mut c_void) {
    statement_ends();
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn process_ends(_status: c_int, _argument: pg_sys::Datum) {
    statement_ends();
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as On;
    match event {
        On::XACT_EVENT_COMMIT | On::XACT_EVENT_PREPARE => {
            IN_TRANSACTION.set(0);
            // Where a procedure commits, its statement goes on; a background worker has no messages.
            // SAFETY: reads a variable of the backend.
            if unsafe { pg_sys::MessageContext.is_null() } {
                statement_ends();
            }
        }
        On::XACT_EVENT_ABORT => {
            IN_TRANSACTION.set(0);
            statement_ends();
        }
        _ => {}
    }
}
