//! The flush: a batch's rows written to the target, and what Postgres refuses turned into rejects.

use std::ffi::CString;
use std::ops::Range;
use std::panic::AssertUnwindSafe;

use masking::Value;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

use crate::batch::{Counts, Messages};
use crate::error::{Error, Raise, condition, quoted, sqlstate};
use crate::inbox::{Attribute, Inbox};
use crate::plan::Plan;
use crate::rows::{Kind, Rows};

/// What an insert does with a row that is there already. The numbers are those of the columns by which it is known.
pub(crate) enum Conflict {
    /// It is an error: nothing says that two rows are the same message.
    Error,
    /// It is a duplicate by the unique index on these columns; a conflict on any other index is an error.
    On(Vec<usize>),
    /// It is a duplicate by whatever index stands behind a foreign table or view.
    Any(Vec<usize>),
}

impl Conflict {
    fn key(&self) -> &[usize] {
        match self {
            Self::Error => &[],
            Self::On(key) | Self::Any(key) => key,
        }
    }
}

/// Writes rows into one relation, set by set.
pub(crate) struct Writer {
    relation: String,
    kinds: Vec<Kind>,
    insert: Plan,
    /// Counts the rows that are not there although they were inserted; there is none where no column tells rows apart.
    missing: Option<Plan>,
    key: Vec<usize>,
}

impl Writer {
    /// A writer of `columns` (name, form in which the values travel, type to cast to) of `relation`.
    pub(crate) fn new(
        relation: String,
        columns: &[(String, Kind, Option<String>)],
        conflict: &Conflict,
    ) -> Result<Self, Error> {
        let key = conflict.key().to_vec();
        let names: Vec<&str> = columns.iter().map(|(name, ..)| name.as_str()).collect();
        let key_names: Vec<&str> = key.iter().map(|&column| names[column]).collect();
        let numbered = |count: usize, prefix: &str| {
            (1..=count).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>().join(", ")
        };
        let values: Vec<String> = columns
            .iter()
            .zip(1..)
            .map(|((_, _, cast), number)| match cast {
                Some(cast) => format!("v{number}::{cast}"),
                None => format!("v{number}"),
            })
            .collect();
        let on_conflict = match conflict {
            Conflict::Error => String::new(),
            Conflict::On(_) => format!(" ON CONFLICT ({}) DO NOTHING", quoted(&key_names)),
            Conflict::Any(_) => " ON CONFLICT DO NOTHING".into(),
        };
        let insert = format!(
            "INSERT INTO {relation} ({}) SELECT {} FROM unnest({}) AS v({}){on_conflict}",
            quoted(&names),
            values.join(", "),
            numbered(columns.len(), "$"),
            numbered(columns.len(), "v"),
        );
        let types = |columns: &[usize], kinds: &[Kind]| -> Vec<pg_sys::Oid> {
            columns.iter().map(|&column| kinds[column].array_oid()).collect()
        };
        let kinds: Vec<Kind> = columns.iter().map(|(_, kind, _)| *kind).collect();
        let all: Vec<usize> = (0..kinds.len()).collect();
        let missing = if key.is_empty() {
            None
        } else {
            let same: Vec<String> = key_names
                .iter()
                .zip(1..)
                .map(|(name, number)| format!("t.{} = v{number}", quoted(&[name])))
                .collect();
            // A NULL in the key is in no conflict, so such a row cannot have been left out for one.
            let present: Vec<String> =
                (1..=key.len()).map(|number| format!("v{number} IS NOT NULL")).collect();
            let sql = format!(
                "SELECT pg_catalog.count(*) FROM unnest({}) AS v({}) WHERE {} AND NOT EXISTS (SELECT FROM {relation} AS t WHERE {})",
                numbered(key.len(), "$"),
                numbered(key.len(), "v"),
                present.join(" AND "),
                same.join(" AND "),
            );
            Some(Plan::prepare(&sql, &types(&key, &kinds))?)
        };
        Ok(Self { relation, insert: Plan::prepare(&insert, &types(&all, &kinds))?, kinds, missing, key })
    }

    /// Inserts the rows in `range` and returns how many were new; the others were there already.
    ///
    /// This is the seam for a second way in: what writes a range of rows and counts the new ones.
    pub(crate) fn insert(&self, rows: &Rows, range: Range<usize>) -> Result<usize, Error> {
        let arguments: Vec<pg_sys::Datum> = self
            .kinds
            .iter()
            .enumerate()
            .map(|(column, &kind)| rows.array(range.clone(), column, kind))
            .collect();
        let new = usize::try_from(self.insert.execute(&arguments)?.rows).unwrap_or(usize::MAX);
        let left_out = range.len().saturating_sub(new);
        // Whether a row was left out for being there already, or swallowed by a trigger or rule, only looking tells.
        let missing = match &self.missing {
            _ if left_out == 0 => 0,
            None => left_out as u64,
            Some(plan) => {
                plan.execute(&self.key.iter().map(|&column| arguments[column]).collect::<Vec<_>>())?.first
            }
        };
        if missing > 0 {
            Err(Error::RowsSwallowed { relation: self.relation.clone(), missing })
        } else {
            Ok(new)
        }
    }

    /// Does all that an insert does, with no row: so rights that are missing show when an inbox is attached.
    pub(crate) fn probe(&self) -> Result<(), Error> {
        let none = Rows::new(self.kinds.len());
        self.insert(&none, 0..0)?;
        if let Some(plan) = &self.missing {
            let arguments: Vec<_> =
                self.key.iter().map(|&column| none.array(0..0, column, self.kinds[column])).collect();
            plan.execute(&arguments)?;
        }
        Ok(())
    }
}

/// Writes the rows of a chunk to the target. Those that the target refuses, and only those, become rejects.
pub(crate) fn store(
    inbox: &Inbox,
    rows: &Rows,
    messages: &Messages,
    rejects: &mut Rows,
    counts: &mut Counts,
) {
    let mut memory = PgMemoryContexts::new("pg_mask flush");
    // Ranges still to be written, the first on top: rows go in in their order as far as they can.
    let mut ranges = Vec::new();
    ranges.push(0..rows.len());
    while let Some(range) = ranges.pop() {
        match in_subtransaction(&mut memory, || write(inbox, rows, range.clone()).or_raise()) {
            Ok(stored) => counts.add(range.len(), stored),
            Err(error) if !is_of_the_data(&error) && !is_of_a_policy(inbox, &error, &mut memory) => {
                error.rethrow()
            }
            Err(error) if range.len() == 1 => {
                let reason = reason(inbox, &error, rows, range.start, &mut memory);
                messages.reject(range.start, reason, rejects);
            }
            Err(_) => {
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
        }
    }
}

fn write(inbox: &Inbox, rows: &Rows, range: Range<usize>) -> Result<usize, Error> {
    let stored = inbox.target.insert(rows, range)?;
    if let Some(check) = &inbox.check_deferred {
        check.execute(&[])?;
    }
    Ok(stored)
}

/// Writes the rejects.
pub(crate) fn reject(inbox: &Inbox, rejects: &Rows, counts: &mut Counts) {
    let memory = PgMemoryContexts::new("pg_mask rejects");
    let written = in_context(&memory, || inbox.rejects.insert(rejects, 0..rejects.len()).or_raise());
    counts.rejected += Counts::number(written);
    counts.duplicate += Counts::number(rejects.len() - written);
}

/// Whether an error is of the rows, so that others can still be stored: then it makes rejects. Any other error (disk
/// full, rights missing, cancelled, deadlock) is the statement's.
fn is_of_the_data(error: &CaughtError) -> bool {
    // Data exceptions, constraints, check options of views, program limits (a row or index entry too large), and what
    // a trigger on the target refuses by a plain RAISE EXCEPTION.
    state_of(error).is_some_and(|state| ["22", "23", "44", "54"].contains(&&state[..2]) || state == "P0001")
}

/// Whether an error is a row-level security policy's. Its SQLSTATE is that of missing rights; but where those miss, no
/// insert goes through, not even one of no row.
fn is_of_a_policy(inbox: &Inbox, error: &CaughtError, memory: &mut PgMemoryContexts) -> bool {
    inbox.row_security
        && state_of(error).is_some_and(|state| state == "42501")
        && in_subtransaction(memory, || inbox.target.probe().or_raise()).is_ok()
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

/// Why Postgres refused a row. Made of the error's condition and names from the catalogs alone: the error's own text
/// may quote the value.
fn reason(
    inbox: &Inbox,
    error: &CaughtError,
    rows: &Rows,
    row: usize,
    memory: &mut PgMemoryContexts,
) -> String {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    let code = report.sql_error_code();
    let refused = format!("{} ({})", condition(code), sqlstate(code));
    let refusing =
        inbox.attributes.iter().enumerate().find(|(column, attribute)| match rows.get(row, *column) {
            Value::Text(text) if !attribute.is_text() => !attribute.accepts(&text, memory),
            _ => false,
        });
    if let Some((_, attribute)) = refusing {
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
    fn accepts(&self, text: &str, memory: &mut PgMemoryContexts) -> bool {
        // A NUL cannot come in: such an event was a reject before.
        let Ok(text) = CString::new(text.as_bytes()) else { return false };
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
            Err(error) if is_of_the_data(&error) => false,
            Err(error) => error.rethrow(),
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
fn in_subtransaction<R>(
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
