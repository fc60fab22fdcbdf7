//! Who unmasked how much: counted for each transaction, limited, and logged for each statement.
//!
//! A statement is one message of the client's, with all that runs for it in functions and cursors.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};
use std::fmt::Write as _;

use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, log_alone};
use crate::message::at_end_of_message;
use crate::settings::{LOG_UNMASK, LogUnmask, UNMASK_LIMIT};

/// What the running statement has unmasked. Names are looked up at once: when a transaction is rolled back, catalogs cannot
/// be read any more.
struct Statement {
    /// Whoever logged in, or has become by `SET SESSION AUTHORIZATION`.
    role: String,
    database: String,
    /// With whose rights how many values were unmasked: other roles' than the session's, in functions that lend theirs.
    by: Vec<(pg_sys::Oid, String, u64)>,
}

thread_local! {
    static STATEMENT: RefCell<Option<Statement>> = const { RefCell::new(None) };
    /// How many values this transaction has unmasked. A rollback to a savepoint takes none of them back.
    static IN_TRANSACTION: Cell<u64> = const { Cell::new(0) };
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
    IN_TRANSACTION.set(so_far + 1);
    if LOG_UNMASK.get() == LogUnmask::Statement {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: a plain call. Here, as it is not for free.
        let user = unsafe { pg_sys::GetUserId() };
        let counted =
            STATEMENT.with_borrow_mut(|statement| statement.as_mut().is_some_and(|known| known.count(user)));
        if !counted {
            // Outside of any borrow: it asks the catalogs.
            let (begun, role) = (Statement::begin(), role_name(user));
            STATEMENT.with_borrow_mut(|statement| {
                statement.get_or_insert(begun).by.push((user, role, 1));
            });
        }
    }
    Ok(())
}

impl Statement {
    fn begin() -> Self {
        at_end_of_message(message_ends);
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: plain calls; names are NULL or C strings of the current memory context.
        unsafe {
            Self {
                role: role_name(pg_sys::GetSessionUserId()),
                database: text_of(pg_sys::get_database_name(pg_sys::MyDatabaseId)),
                by: Vec::new(),
            }
        }
    }

    /// Counts a value, if this role has unmasked one before.
    fn count(&mut self, user: pg_sys::Oid) -> bool {
        let known = self.by.iter_mut().rfind(|(known, ..)| *known == user);
        known.map(|(.., values)| *values += 1).is_some()
    }

    /// Names are quoted as Rust quotes texts, so that none can begin a line of its own or end where it does not.
    fn log(&self) {
        let values: u64 = self.by.iter().map(|(.., values)| values).sum();
        let plural = if values == 1 { "" } else { "s" };
        let mut lent = String::new();
        for (_, role, values) in self.by.iter().filter(|(_, role, _)| *role != self.role) {
            let _ = write!(lent, ", {values} with the rights of {role:?}");
        }
        #[expect(unsafe_code, reason = "reads a setting")]
        // SAFETY: a setting of Postgres's is NULL or a C string.
        let application = unsafe { text_of(pg_sys::application_name) };
        log_alone(&format!(
            "pg_mask: role {:?} unmasked {values} value{plural}{lent} (database {:?}, application {application:?})",
            self.role, self.database,
        ));
    }
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

/// Logs what the statement that is over has unmasked, if it has.
fn statement_ends() {
    if let Some(statement) = STATEMENT.take() {
        statement.log();
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
