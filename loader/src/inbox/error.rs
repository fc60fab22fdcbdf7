//! Errors from the database, in words that are fit for a log.

use std::error::Error as _;
use std::fmt::Write as _;

use tokio_postgres::error::{DbError as ServerError, Error as PgError, SqlState};

use crate::error::Error;

/// Remedy for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Retry {
    /// The connection is lost, or the server is not the one to write to: connect again and retry.
    Reconnect,
    /// The server lacks something that comes back by itself, or that somebody restores: retry.
    Later,
    /// The server refuses the batch. A trial tells whether a message or the set-up is the cause.
    Bisect,
    /// The server accepts no events from this loader: wait until a trial works.
    AfterSetup,
    /// Retrying does not help.
    Never,
}

/// Error from the database, and what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DbError {
    pub(crate) retry: Retry,
    pub(crate) error: Error,
    /// Code that failures are counted under: the SQLSTATE. If there is none, one of the words below.
    pub(crate) code: String,
}

/// There is no connection, or it was lost.
pub(super) const CONNECTION: &str = "connection";
/// An operation took too long.
pub(super) const TIMEOUT: &str = "timeout";
/// COMMIT took too long.
pub(super) const COMMIT: &str = "commit";
/// The inbox did not account for every event.
pub(super) const COUNT: &str = "count";
/// The database is not set up for the loader.
pub(super) const SETUP: &str = "setup";

impl From<DbError> for Error {
    fn from(fault: DbError) -> Self {
        fault.error
    }
}

/// Remedies by SQLSTATE class or code. The first entry that a code begins with decides. Any other code means that the
/// server refuses the batch, because a trigger can raise it for one message. See appendix A of the manual.
const RETRIES: [(&str, Retry); 19] = [
    // Connection exceptions. The server shuts down, has crashed, or is not up yet. The session was idle for too long.
    ("08", Retry::Reconnect),
    ("57P01", Retry::Reconnect),
    ("57P02", Retry::Reconnect),
    ("57P03", Retry::Reconnect),
    ("57P05", Retry::Reconnect),
    // A session ended because it was idle in a transaction, or in one for too long. An error left a session in a
    // transaction. Behind a pooler, a session doesn't know our statements, or has another program's with the same name.
    ("25P03", Retry::Reconnect),
    ("25P04", Retry::Reconnect),
    ("25P02", Retry::Reconnect),
    ("26", Retry::Reconnect),
    ("42P05", Retry::Reconnect),
    // A standby, or a former primary.
    ("25006", Retry::Reconnect),
    // Serialization failures and deadlocks; an unavailable lock; an object in use; a cancellation, most often by a
    // timeout.
    ("40", Retry::Later),
    ("55P03", Retry::Later),
    ("55006", Retry::Later),
    ("57014", Retry::Later),
    // A lack of disk, memory or connections, and errors of the server's operating system.
    ("53", Retry::Later),
    ("58", Retry::Later),
    // Corrupted data or index.
    ("XX001", Retry::Later),
    ("XX002", Retry::Later),
];

/// Codes that no message causes: a resource of the server (disk, connections, a configured limit), a lock, or a COMMIT
/// answered with a warning or not in time.
const NOT_A_MESSAGES_FAULT: [&str; 7] = ["53000", "53100", "53300", "53400", "55P03", "01000", COMMIT];

impl DbError {
    /// Returns the error for a missing connection.
    pub(crate) fn no_connection() -> Self {
        let error = Error::Database("there is no connection".into());
        Self { retry: Retry::Reconnect, error, code: CONNECTION.into() }
    }

    /// Whether a message can be the cause.
    pub(crate) fn can_be_a_message(&self) -> bool {
        !NOT_A_MESSAGES_FAULT.contains(&self.code.as_str())
    }
}

pub(super) fn retry(error: &PgError) -> Retry {
    match error.code() {
        // The inbox was recreated meanwhile. Another session makes a new plan. The message depends on the server's
        // language, so the function that raises the error tells.
        Some(&SqlState::FEATURE_NOT_SUPPORTED)
            if error.as_db_error().and_then(ServerError::routine) == Some("RevalidateCachedQuery") =>
        {
            Retry::Reconnect
        }
        Some(code) => retry_of(code.code()),
        None => Retry::Reconnect,
    }
}

/// Returns the code that failures are counted under.
pub(super) fn code(error: &PgError) -> String {
    error.code().map_or(CONNECTION, SqlState::code).to_owned()
}

fn retry_of(code: &str) -> Retry {
    RETRIES.iter().find(|(prefix, _)| code.starts_with(prefix)).map_or(Retry::Bisect, |(_, retry)| *retry)
}

/// Returns the SQLSTATE, message and hint of an error. DETAIL and CONTEXT are left out, because `PostgreSQL` and
/// triggers quote values there. A message that may quote a value is left out, too.
pub(super) fn describe(error: &PgError) -> String {
    if let Some(db) = error.as_db_error() {
        if may_quote(db) {
            return described_without_words(db);
        }
        let hint = db.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        return format!("{} (SQLSTATE {}){hint}", db.message(), db.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Describes an error that occurred while the server had events. A function may have made the name of a missing table
/// or column from a value.
pub(super) fn describe_storing(error: &PgError) -> String {
    match error.as_db_error() {
        Some(db) if names_what_it_misses(db) => described_without_words(db),
        _ => describe(error),
    }
}

fn names_what_it_misses(db: &ServerError) -> bool {
    let is_of = |class| db.code().code().starts_with(class);
    // An error about a missing privilege names something that exists.
    (is_of("42") && db.routine() != Some("aclcheck_error")) || is_of("3D") || is_of("3F")
}

/// SQLSTATE classes about what is allowed, present and set up. Their messages, and those for the codes in `RETRIES`,
/// quote no value if Postgres itself raises them.
const SETUP_CLASSES: [&str; 8] = ["0A", "28", "3D", "3F", "42", "55", "57", "F0"];

/// Whether the message can hold a value. A PL/pgSQL or PL/Python function can raise any code with any text. A syntax
/// error quotes the statement that a function has built.
fn may_quote(db: &ServerError) -> bool {
    let code = db.code().code();
    let is_about_values =
        retry_of(code) == Retry::Bisect && !SETUP_CLASSES.iter().any(|class| code.starts_with(class));
    matches!(db.routine(), Some("exec_stmt_raise" | "PLy_elog_impl"))
        || *db.code() == SqlState::SYNTAX_ERROR
        || is_about_values
}

/// Describes what the server refused, without its message. A message from a type's input function or a trigger may
/// quote the refused value.
fn described_without_words(db: &ServerError) -> String {
    let mut text = format!("SQLSTATE {}", db.code().code());
    for (what, name) in [
        ("table", db.table()),
        ("column", db.column()),
        ("constraint", db.constraint()),
        ("type", db.datatype()),
    ] {
        if let Some(name) = name {
            // Writing to a String doesn't fail.
            _ = write!(text, ", {what} {name}");
        }
    }
    text + "; the server's log has its message"
}

/// Returns the error for a COPY or a query of the counts that was refused before it ran.
pub(super) fn of_preparing(error: &PgError) -> DbError {
    DbError {
        retry: retry(error),
        error: Error::Database(format!("the inbox cannot be used: {}", describe(error))),
        code: code(error),
    }
}

/// Returns the error for a catalog that couldn't be read.
pub(super) fn of_check(error: &PgError) -> DbError {
    let text = format!("the database could not be looked at: {}", describe(error));
    DbError { retry: retry(error), error: Error::Database(text), code: code(error) }
}

/// Returns the error for a batch that was not stored.
pub(super) fn of_storing(error: &PgError, text: String) -> DbError {
    DbError { retry: retry(error), error: Error::Database(text), code: code(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_can_be_done() {
        for (code, expected) in [
            ("08006", Retry::Reconnect),
            ("25006", Retry::Reconnect),
            ("25P04", Retry::Reconnect),
            ("26000", Retry::Reconnect),
            ("42P05", Retry::Reconnect),
            ("57P01", Retry::Reconnect),
            ("40001", Retry::Later),
            ("40P01", Retry::Later),
            ("53100", Retry::Later),
            ("55P03", Retry::Later),
            ("57014", Retry::Later),
            ("22P02", Retry::Bisect),
            ("23505", Retry::Bisect),
            ("P0001", Retry::Bisect),
            ("XX000", Retry::Bisect),
            ("42501", Retry::Bisect),
            ("55000", Retry::Bisect),
        ] {
            assert_eq!(retry_of(code), expected, "{code}");
        }
        for (i, (code, _)) in RETRIES.iter().enumerate() {
            assert!(
                RETRIES[..i].iter().all(|(earlier, _)| !code.starts_with(earlier)),
                "{code} is never reached"
            );
        }
    }
}
