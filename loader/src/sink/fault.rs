//! What the database has to complain of, in words that are fit for a log.

use std::error::Error as _;
use std::fmt::Write as _;

use tokio_postgres::error::{DbError, Error as PgError, SqlState};

use crate::error::Error;

/// The remedy for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The connection is lost, or the server is not the one to write to: connect again and retry.
    Connection,
    /// The server lacks something that comes back by itself, or that someone sees to: retry.
    Passing,
    /// The server refuses the batch. A trial tells whether a message or the set-up is the cause.
    Refused,
    /// The server takes no events from this loader: wait until a trial works.
    Setup,
    /// Retrying does not help.
    Final,
}

/// Why something was not done, and what can be done about it.
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) error: Error,
    /// What failures are counted by: the SQLSTATE, or where there is none one of the words below.
    pub(crate) code: String,
}

/// There is no connection, or none any more.
pub(super) const CONNECTION: &str = "connection";
/// It took too long.
pub(super) const TIMEOUT: &str = "timeout";
/// COMMIT took too long.
pub(super) const COMMIT: &str = "commit";
/// The inbox did not account for every event.
pub(super) const COUNT: &str = "count";
/// The database is not set up for the loader.
pub(super) const SETUP: &str = "setup";

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

/// Classes and codes of SQLSTATE: the first that a code begins with decides. Any other code means that the server refuses the
/// batch, since a trigger can raise it for one message. See appendix A of the manual.
const KINDS: [(&str, Kind); 19] = [
    // Connection exceptions; the server shuts down, has crashed, or is not up yet; the database is being dropped.
    ("08", Kind::Connection),
    ("57P01", Kind::Connection),
    ("57P02", Kind::Connection),
    ("57P03", Kind::Connection),
    ("57P05", Kind::Connection),
    // A session ended for being idle in a transaction, or too long in one; one that an error has left in a transaction; one
    // that does not know our statements, or has one of another program's by the same name, as behind a pooler.
    ("25P03", Kind::Connection),
    ("25P04", Kind::Connection),
    ("25P02", Kind::Connection),
    ("26", Kind::Connection),
    ("42P05", Kind::Connection),
    // A standby, or a primary that is one no more.
    ("25006", Kind::Connection),
    // Serialization failures and deadlocks; a lock not available, an object in use; cancelled, by a timeout most often.
    ("40", Kind::Passing),
    ("55P03", Kind::Passing),
    ("55006", Kind::Passing),
    ("57014", Kind::Passing),
    // Too little of something: disk, memory, connections.
    ("53", Kind::Passing),
    ("58", Kind::Passing),
    // Corrupted data or index.
    ("XX001", Kind::Passing),
    ("XX002", Kind::Passing),
];

/// Codes that no message causes: resources of the server (disk, connections, a configured limit), a lock, a COMMIT that was
/// answered with a warning or not in time.
const NO_MESSAGES: [&str; 7] = ["53000", "53100", "53300", "53400", "55P03", "01000", COMMIT];

impl Fault {
    /// There is no connection.
    pub(crate) fn no_connection() -> Self {
        let error = Error::Database("there is no connection".into());
        Self { kind: Kind::Connection, error, code: CONNECTION.into() }
    }

    /// Whether a message can be the cause.
    pub(crate) fn can_be_a_message(&self) -> bool {
        !NO_MESSAGES.contains(&self.code.as_str())
    }
}

pub(super) fn kind(error: &PgError) -> Kind {
    match error.code() {
        // The inbox was made anew meanwhile: another session plans anew.
        Some(&SqlState::FEATURE_NOT_SUPPORTED)
            if error.as_db_error().is_some_and(|db| db.message().contains("cached plan")) =>
        {
            Kind::Connection
        }
        Some(code) => kind_of(code.code()),
        None => Kind::Connection,
    }
}

/// What failures are counted by.
pub(super) fn code(error: &PgError) -> String {
    error.code().map_or(CONNECTION, SqlState::code).to_owned()
}

fn kind_of(code: &str) -> Kind {
    KINDS.iter().find(|(prefix, _)| code.starts_with(prefix)).map_or(Kind::Refused, |(_, kind)| *kind)
}

/// SQLSTATE, message and hint of an error. DETAIL and CONTEXT are left out: they are where `PostgreSQL` and
/// triggers quote values.
pub(super) fn describe(error: &PgError) -> String {
    if let Some(db) = error.as_db_error() {
        if may_quote(db) {
            return told_without_words(db);
        }
        let hint = db.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        return format!("{} (SQLSTATE {}){hint}", db.message(), db.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The same of an error that came while events were in the server's hands. A function may have made the name that is not
/// there, of a table or a column, of a value.
pub(super) fn describe_storing(error: &PgError) -> String {
    match error.as_db_error() {
        Some(db) if names_what_it_misses(db) => told_without_words(db),
        _ => describe(error),
    }
}

fn names_what_it_misses(db: &DbError) -> bool {
    let is_of = |class| db.code().code().starts_with(class);
    // A right that is missing is one to something that is there.
    (is_of("42") && db.routine() != Some("aclcheck_error")) || is_of("3D") || is_of("3F")
}

/// Classes of SQLSTATE that are about what is allowed, there and set up. Together with the codes in `KINDS`, these have messages
/// that quote no value, if Postgres itself raises them.
const SETUP_CLASSES: [&str; 8] = ["0A", "28", "3D", "3F", "42", "55", "57", "F0"];

/// Whether the message can hold a value. A function of PL/pgSQL or PL/Python can raise any code with any words, and a syntax
/// error quotes the statement that a function has put together.
fn may_quote(db: &DbError) -> bool {
    let code = db.code().code();
    let is_about_values =
        kind_of(code) == Kind::Refused && !SETUP_CLASSES.iter().any(|class| code.starts_with(class));
    matches!(db.routine(), Some("exec_stmt_raise" | "PLy_elog_impl"))
        || *db.code() == SqlState::SYNTAX_ERROR
        || is_about_values
}

/// What the server refused, told without its message: that of a type's input function or of a trigger may quote the
/// value that it refused.
fn told_without_words(db: &DbError) -> String {
    let mut text = format!("SQLSTATE {}", db.code().code());
    for (what, name) in [
        ("table", db.table()),
        ("column", db.column()),
        ("constraint", db.constraint()),
        ("type", db.datatype()),
    ] {
        if let Some(name) = name {
            // Writing into a String does not fail.
            _ = write!(text, ", {what} {name}");
        }
    }
    text + "; the server's log has its message"
}

/// The COPY or the query of the counts was refused before it ran.
pub(super) fn of_preparing(error: &PgError) -> Fault {
    Fault {
        kind: kind(error),
        error: Error::Database(format!("the inbox cannot be used: {}", describe(error))),
        code: code(error),
    }
}

/// A catalog could not be read.
pub(super) fn of_looking(error: &PgError) -> Fault {
    let text = format!("the database could not be looked at: {}", describe(error));
    Fault { kind: kind(error), error: Error::Database(text), code: code(error) }
}

/// A batch was not stored.
pub(super) fn of_storing(error: &PgError, text: String) -> Fault {
    Fault { kind: kind(error), error: Error::Database(text), code: code(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_can_be_done() {
        for (code, expected) in [
            ("08006", Kind::Connection),
            ("25006", Kind::Connection),
            ("25P04", Kind::Connection),
            ("26000", Kind::Connection),
            ("42P05", Kind::Connection),
            ("57P01", Kind::Connection),
            ("40001", Kind::Passing),
            ("40P01", Kind::Passing),
            ("53100", Kind::Passing),
            ("55P03", Kind::Passing),
            ("57014", Kind::Passing),
            ("22P02", Kind::Refused),
            ("23505", Kind::Refused),
            ("P0001", Kind::Refused),
            ("XX000", Kind::Refused),
            ("42501", Kind::Refused),
            ("55000", Kind::Refused),
        ] {
            assert_eq!(kind_of(code), expected, "{code}");
        }
        for (i, (code, _)) in KINDS.iter().enumerate() {
            assert!(
                KINDS[..i].iter().all(|(earlier, _)| !code.starts_with(earlier)),
                "{code} is never reached"
            );
        }
    }
}
