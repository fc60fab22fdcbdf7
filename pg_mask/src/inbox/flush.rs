//! The flush: writes a batch's rows to the target, and turns rows that Postgres refuses into rejects.
//!
//! An error's SQLSTATE does not tell whether the row or the set-up is at fault. For example, a trigger that misses a table
//! may miss it only for this row. So a row that fails alone is a reject if another row goes in, in this chunk or in a trial.

use std::rc::Rc;

use masking::{MaskContext, Rows};
use pgrx::memcxt::PgMemoryContexts;
use pgrx::prelude::*;

use crate::counts::{Class, Counts};
use crate::error::{Error, Raise, raise};
use crate::inbox::definition::Inbox;
use crate::inbox::messages::Messages;
use crate::inbox::rejects::Rejects;
use crate::inbox::trial::{self, Trial};
use crate::pg::subtransaction::{SubtransactionError, in_context, in_subtransaction, stripped};
use crate::store::insert;
use crate::store::sqlstate::{ErrorOwner, Nesting};

/// Writes the rows of a chunk to the target. Rows that the target refuses become rejects.
///
/// A failed range of rows is bisected until a row fails alone. The next row is then tried alone too, and each success
/// doubles the range. So where most rows are bad, each costs one failure.
pub(crate) fn store(
    inbox: &Inbox,
    rows: &Rows,
    messages: &Messages,
    masks: &MaskContext<'_>,
    rejects: &mut Rejects,
    counts: &mut Counts,
) {
    let _nesting = Nesting::begin();
    let mut memory = PgMemoryContexts::new("pg_mask flush");
    let mut refusals = Refusals::default();
    let mut by_copy = inbox.copy_in.as_ref().ok();
    let (mut start, mut size) = (0, rows.len());
    // The end of the shortest range that has failed.
    let mut failed_until = 0;
    while start < rows.len() {
        let range = start..(start + size).min(rows.len());
        // Starting a COPY takes longer than inserting a few rows.
        let copy_in =
            by_copy.filter(|_| range.len() >= COPY_ROWS || range.len() == rows.len() && range.len() > 1);
        Nesting::begin_attempt();
        let written = in_subtransaction(&mut memory, || match copy_in {
            Some(copy_in) => copy_in.insert(rows, range.clone()),
            None => inbox.target.insert(rows, range.clone()).map(Some),
        });
        let failure = match written {
            Ok(Some(stored)) => {
                counts.add(range.len(), stored);
                refusals.any_row_stored |= stored > 0;
                start = range.end;
                // The rest of a failed range still holds the row that failed it, so half of it is tried.
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
            // The duplicate was not looked up, or another session inserted it after the look-up. Or COPY failed at something
            // that INSERT does not need.
            if !(failure.is_unique_violation() && copy_in.start_lookups()) {
                by_copy = None;
            }
            continue;
        }
        if range.len() > 1 {
            failed_until = range.end;
            size = range.len() / 2;
            continue;
        }
        size = 1;
        if refusals.add(inbox, masks, start, &failure) == RowOutcome::Refused {
            start += 1;
        }
    }
    refusals.reject(inbox, rows, messages, masks, rejects, counts);
}

/// Number of rows below which INSERT is used after a failure.
const COPY_ROWS: usize = 64;

/// The outcome of a row that failed alone.
#[derive(PartialEq, Eq)]
enum RowOutcome {
    Refused,
    /// The set-up worked right after the failure. It may have been mended in between, so the row is retried.
    Retry,
}

/// A row that the target refused alone.
struct RefusedRow {
    row: usize,
    reason: Rc<Reason>,
}

/// The reason that the target refused a row.
struct Reason {
    class: Class,
    text: String,
}

/// A reason, and the error that it was made from. The error's message can quote a value, so only the last row's is kept.
struct LastReason {
    code: i32,
    refusing: Option<usize>,
    message: String,
    reason: Rc<Reason>,
}

impl LastReason {
    fn of(inbox: &Inbox, failure: &SubtransactionError, refusing: Option<usize>) -> Self {
        let code = failure.condition();
        let name = reason_name(inbox, failure, refusing);
        let text = format!("{name}{code} ({})", failure.state());
        let reason = Rc::new(Reason { class: Class::named(&code), text });
        Self { code: failure.code, refusing, message: failure.message().to_owned(), reason }
    }

    fn is_of(&self, failure: &SubtransactionError, refusing: Option<usize>) -> bool {
        (self.code, self.refusing, &*self.message) == (failure.code, refusing, failure.message())
    }
}

/// A failure that may be the set-up's fault.
enum Doubt {
    /// The trial failed.
    Trial(SubtransactionError),
    /// The trial's row was refused for its values. This is the SQLSTATE of the chunk's first failed row.
    Row(PgSqlErrorCode),
}

impl Doubt {
    fn raise(self) -> ! {
        match self {
            Self::Trial(failure) => failure.raise(),
            Self::Row(code) => raise(Error::Doubtful { code }),
        }
    }
}

/// The rows of a chunk that the target refused when each was written alone.
#[derive(Default)]
struct Refusals {
    refused: Vec<RefusedRow>,
    last: Option<LastReason>,
    /// Whether the target took a row of this chunk or of a trial, so that the set-up is not at fault.
    any_row_stored: bool,
    /// The failure that may be the set-up's fault, until a row goes in.
    pending_doubt: Option<Doubt>,
    /// Number of rows that failed while no row went in.
    failed_in_a_row: usize,
    /// The last row that was retried.
    retried: Option<usize>,
}

impl Refusals {
    /// Number of rows that fail one by one, while none goes in, after which the set-up is considered at fault.
    const MAX_FAILED_IN_A_ROW: usize = 16;

    /// Decides about a row that failed alone. Raises its error if the set-up is at fault.
    fn add(
        &mut self,
        inbox: &Inbox,
        masks: &MaskContext<'_>,
        row: usize,
        failure: &SubtransactionError,
    ) -> RowOutcome {
        let refusing = insert::refusing_column();
        let is_doubtful = failure.owner() != ErrorOwner::Row && refusing.is_none();
        if is_doubtful && !self.any_row_stored && self.pending_doubt.is_none() {
            match trial::run(inbox, masks) {
                Ok(Trial::Stored) => self.any_row_stored = true,
                Ok(Trial::Refused) => self.pending_doubt = Some(Doubt::Row(failure.code.into())),
                Err(trial) if trial.owner() == ErrorOwner::Statement => trial.raise(),
                Err(trial) => self.pending_doubt = Some(Doubt::Trial(trial)),
            }
            if self.any_row_stored && self.retried.replace(row) != Some(row) {
                return RowOutcome::Retry;
            }
        }
        // Rows that follow each other are often refused for one reason.
        let last = self.last.take().filter(|last| last.is_of(failure, refusing));
        let last = last.unwrap_or_else(|| LastReason::of(inbox, failure, refusing));
        self.refused.push(RefusedRow { row, reason: Rc::clone(&last.reason) });
        self.last = Some(last);
        if is_doubtful && !self.any_row_stored {
            self.failed_in_a_row += 1;
            if self.failed_in_a_row >= Self::MAX_FAILED_IN_A_ROW
                && let Some(doubt) = self.pending_doubt.take()
            {
                doubt.raise();
            }
        }
        RowOutcome::Refused
    }

    /// Turns the refused rows into rejects, except rows that the target already has. Raises an error if a row's failure may
    /// be the set-up's fault and no row went in.
    fn reject(
        self,
        inbox: &Inbox,
        rows: &Rows,
        messages: &Messages,
        masks: &MaskContext<'_>,
        rejects: &mut Rejects,
        counts: &mut Counts,
    ) {
        if let Some(doubt) = self.pending_doubt.filter(|_| !self.any_row_stored) {
            doubt.raise();
        }
        if self.refused.is_empty() {
            return;
        }
        let memory = PgMemoryContexts::new("pg_mask refusals");
        let masker = inbox.rules.masker_of_rejects(masks);
        let numbers: Vec<usize> = self.refused.iter().map(|refusal| refusal.row).collect();
        // Constraints are checked before conflicts: a constraint that is newer than the row may refuse a redelivery.
        // A policy can quote a row of the target.
        let present = stripped(|| in_context(&memory, || inbox.target.present(rows, &numbers)));
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

/// Writes the rejects to the rejects table.
pub(crate) fn reject(inbox: &Inbox, rejects: &Rejects, counts: &mut Counts) {
    for (class, rows) in rejects.by_class() {
        let memory = PgMemoryContexts::new("pg_mask rejects");
        // The error's detail quotes the row, and so the masked event. So can the words of a trigger.
        let written = stripped(|| in_context(&memory, || inbox.rejects.insert(rows, 0..rows.len())));
        counts.add_rejects(class, rows.len(), written);
    }
}

/// Names the column, constraint or index that refused a row, using only names from the catalogs. The error's own text can
/// quote the value.
fn reason_name(inbox: &Inbox, failure: &SubtransactionError, refusing: Option<usize>) -> String {
    if let Some(column) = refusing {
        return inbox
            .attributes
            .get(column)
            .map_or_else(String::new, |one| format!("column \"{}\": ", one.name));
    }
    let message = failure.message();
    let mentioned = |name: &&String| message.contains(&format!("\"{name}\""));
    match inbox.names().or_raise().iter().filter(mentioned).max_by_key(|name| name.len()) {
        Some(name) => format!("\"{name}\": "),
        None => String::new(),
    }
}
