//! Warnings from the server. `PostgreSQL` answers COMMIT with success and a warning when it stops waiting for a synchronous
//! standby: the transaction may then be on one server only. tokio-postgres drops such notices.

use std::sync::{Mutex, PoisonError};

use tokio_postgres::error::{DbError, Severity, SqlState};

/// Warnings received on one connection. It keeps no text, because a trigger's text can quote a value.
#[derive(Default)]
pub struct Warnings(Mutex<Received>);

#[derive(Default)]
struct Received {
    count: u64,
    last: Option<SqlState>,
}

impl Warnings {
    /// Counts a notice if it is a warning of the server itself. A function's RAISE WARNING doesn't count: it says nothing about
    /// the transaction's durability, and a deferred trigger can raise it during COMMIT.
    pub(crate) fn receive(&self, notice: &DbError) {
        let is_warning = match notice.parsed_severity() {
            Some(severity) => severity == Severity::Warning,
            None => notice.severity() == "WARNING",
        };
        if is_warning && !is_raised_by_function(notice) {
            let mut received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            received.count += 1;
            received.last = Some(notice.code().clone());
        }
    }

    /// Returns the number of warnings so far.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Returns the SQLSTATE of the last warning, if the count has risen above `before`.
    pub fn last_since(&self, before: u64) -> Option<SqlState> {
        let received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if received.count > before { received.last.clone() } else { None }
    }
}

/// Whether a PL/pgSQL or PL/Python function raised the message itself. The names are routines in `PostgreSQL`'s source.
fn is_raised_by_function(notice: &DbError) -> bool {
    matches!(notice.routine(), Some("exec_stmt_raise" | "PLy_output"))
}
