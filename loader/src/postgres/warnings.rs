//! Warnings from the server. `PostgreSQL` answers COMMIT with success and a warning when it stops waiting for a synchronous
//! standby: the transaction may then be on one server only. tokio-postgres drops such notices.

use std::sync::{Mutex, PoisonError};

use tokio_postgres::error::{DbError, Severity, SqlState};

/// Warnings received on one connection. It keeps no text, since a trigger's can quote a value.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<Received>);

#[derive(Default)]
struct Received {
    count: u64,
    last: Option<SqlState>,
}

impl Warnings {
    /// Counts a notice if it is a warning of the server itself. A function's RAISE WARNING is none: it says nothing about
    /// the transaction's durability, and a deferred trigger can raise it during COMMIT.
    pub(super) fn receive(&self, notice: &DbError) {
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
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Returns the SQLSTATE of the last warning, if one came after there were `before`.
    pub(crate) fn last_since(&self, before: u64) -> Option<SqlState> {
        let received = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if received.count > before { received.last.clone() } else { None }
    }
}

/// Routines of `PostgreSQL`'s source through which functions of PL/pgSQL and PL/Python raise messages of their own.
fn is_raised_by_function(notice: &DbError) -> bool {
    matches!(notice.routine(), Some("exec_stmt_raise" | "PLy_output"))
}
