//! Classifies errors by who is at fault: a row, the statement, or either a row or the set-up.

use std::cell::Cell;

use crate::pg::subtransaction::SubtransactionError;

/// The party that an error belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorOwner {
    /// A row: other rows can still be stored.
    Row,
    /// The statement: for example disk full, cancelled, deadlock. The client gets the error.
    Statement,
    /// Ambiguous, a row or the set-up. Examples: a trigger that misses a table; a privilege that is missing, or that a
    /// policy denies to a row; a code that a function made up. Retrying the row alone tells which: the row is at fault if
    /// another row goes in.
    Unknown,
}

impl SubtransactionError {
    /// Returns the party that the error belongs to.
    pub(crate) fn owner(&self) -> ErrorOwner {
        let Some(state) = self.known_state() else { return ErrorOwner::Statement };
        match state.get(..2).unwrap_or_default() {
            // The stack is too deep: because of triggers that insert into their own inbox, a deeply nested value, or what the
            // caller had already taken of it.
            _ if state == "54001" && Nesting::had_inner() => ErrorOwner::Statement,
            _ if state == "54001" => ErrorOwner::Unknown,
            // Binary data in a wrong form, which only COPY finds.
            _ if state == "22P03" || state == "22P04" => ErrorOwner::Unknown,
            // A sequence has reached its end.
            _ if state == "2200H" => ErrorOwner::Statement,
            // Data exceptions, constraints, check options of views, program limits (a row or index entry too large),
            // and a plain RAISE EXCEPTION of a trigger.
            "22" | "23" | "44" | "54" => ErrorOwner::Row,
            _ if state == "P0001" => ErrorOwner::Row,
            // A lock that is not available, an object in use.
            _ if state == "55P03" || state == "55006" => ErrorOwner::Statement,
            // Corruption.
            _ if state == "XX001" || state == "XX002" => ErrorOwner::Statement,
            // A policy refuses the row. Privileges on the table are checked earlier.
            _ if state == "42501" && self.report().function_name() == Some("ExecWithCheckOptions") => {
                ErrorOwner::Row
            }
            // Connections, transactions, rollbacks, resources, operator intervention, system errors, the configuration.
            "08" | "25" | "40" | "53" | "57" | "58" | "F0" => ErrorOwner::Statement,
            _ => ErrorOwner::Unknown,
        }
    }
}

/// Running flushes, one within another: a trigger of a target can insert into an inbox.
pub(crate) struct Nesting;

thread_local! {
    static FLUSHES: Cell<u32> = const { Cell::new(0) };
    /// Whether the outermost running flush has contained another one in its current attempt.
    static INNER: Cell<bool> = const { Cell::new(false) };
}

impl Nesting {
    pub(crate) fn begin() -> Self {
        INNER.set(FLUSHES.get() > 0);
        FLUSHES.set(FLUSHES.get() + 1);
        Self
    }

    /// Forgets flushes within the outermost one, before it tries rows again.
    pub(crate) fn begin_attempt() {
        if FLUSHES.get() == 1 {
            INNER.set(false);
        }
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
