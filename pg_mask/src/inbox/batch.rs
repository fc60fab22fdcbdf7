//! Batches: the rows of one statement on an inbox, from the first to the last.
//!
//! A batch lives in the backend's memory, which Postgres does not roll back. So it is tied to the subtransaction in which
//! its statement began, and is dropped when that one is rolled back. A transaction that wants to commit with an open batch
//! is an error.

use std::cell::Cell;
use std::rc::Rc;

use masking::keyring::KeyRing;
use masking::memory::{self, OutOfMemory};
use masking::scheme::Scheme;
use masking::{MaskContext, PushError, Rows};
use pgrx::pg_sys;

use crate::counts::{Class, Counts};
use crate::error::{Error, Raise, raise};
use crate::inbox::definition::Inbox;
use crate::inbox::flush;
use crate::inbox::messages::{InboxRow, Messages};
use crate::inbox::rejects::Rejects;
use crate::keys::{self, NoDump};
use crate::pg::names::name_of;
use crate::pg::security::{self, Roles, as_owner, may_mask_under_a_key, schema_of};
use crate::pg::state::{SessionCell, SessionState, session_cell};
use crate::pg::transaction::{
    SubtransactionEnd, TransactionEnd, at_subtransaction_end, at_transaction_end, now,
};
use crate::pg::unguarded::GetCurrentSubTransactionId;
use crate::store::insert::OuterColumn;
use crate::{settings, statistics};

/// Number of rows and rejects at which a chunk is flushed.
const CHUNK_ROWS: usize = 25_000;
/// Number of bytes at which a chunk is flushed. This bounds the memory of a COPY of any size, except for a single event that
/// is larger.
const CHUNK_BYTES: usize = 8 << 20;
/// Maximum number of bytes that a flush allocates for each row besides the row's own: for sorting and for row headers.
const FLUSH_BYTES: usize = 1024;

/// A finished statement and its counts.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    pub(crate) statement: i64,
    pub(crate) counts: Counts,
    /// The subtransaction whose rollback undoes the statement, or none once it is committed.
    part_of: Option<pg_sys::SubTransactionId>,
    /// The session's roles at that time: a session that changes roles does not see earlier counts.
    roles: Roles,
}

struct Batch {
    /// The inbox's view.
    view: pg_sys::Oid,
    statement: i64,
    opened_in: pg_sys::SubTransactionId,
    /// Set by the first row, whose trigger has the definition.
    by: Option<BatchContext>,
    rows: Rows,
    messages: Messages,
    /// Size of the largest body of the chunk's rows, in bytes.
    largest: usize,
    rejects: Rejects,
    counts: Counts,
}

/// The inbox, scheme and keys for a batch's events. They do not change within the batch.
pub(crate) struct BatchContext {
    pub(crate) inbox: Rc<Inbox>,
    scheme: Scheme,
    ring: Option<Rc<NoDump<KeyRing>>>,
}

impl BatchContext {
    /// Fails if keys are needed and there are none. Also fails if keys are not needed, but are configured and cannot be
    /// read: otherwise values masked under them would be masked again.
    ///
    /// `function` is one of the extension's.
    pub(crate) fn new(inbox: Rc<Inbox>, owner: pg_sys::Oid, function: pg_sys::Oid) -> Result<Self, Error> {
        let scheme = settings::default_scheme();
        let ring = if inbox.rules.need_keys(scheme) {
            may_mask_under_a_key(owner, schema_of(function))?;
            Some(keys::ring()?)
        } else {
            keys::ring_if_any()?
        };
        let context = Self { inbox, scheme, ring };
        match context.inbox.rules.scheme_without_key(&context.masks()) {
            None => Ok(context),
            Some(scheme) => Err(Error::OtherPrimary { scheme }),
        }
    }

    pub(crate) fn masks(&self) -> MaskContext<'_> {
        MaskContext { default: self.scheme, ring: self.ring.as_deref().map(|ring| &**ring) }
    }
}

thread_local! {
    /// The open batches, innermost statement last.
    static OPEN: SessionCell<Vec<Batch>> = const { session_cell(Vec::new()) };
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
    /// Number of inbox statements that this session has begun.
    static STATEMENTS: Cell<i64> = const { Cell::new(0) };
}

/// Returns the session's last finished inbox statement with its counts. They are hidden by `DISCARD ALL`, which connection
/// poolers send between clients, and by a change of role.
pub(crate) fn last_counts() -> Option<Last> {
    let current =
        |last: &Last| settings::is_last_statement(last.statement) && last.roles == Roles::of_session();
    LAST.get().filter(current)
}

/// BEFORE STATEMENT: begins a batch.
pub(crate) fn open(view: pg_sys::Oid) {
    let opened_in = GetCurrentSubTransactionId();
    STATEMENTS.set(STATEMENTS.get() + 1);
    OPEN.with_borrow_mut(|batches| {
        batches.push(Batch {
            view,
            statement: STATEMENTS.get(),
            opened_in,
            by: None,
            rows: Rows::new(0),
            messages: Messages::new(),
            largest: 0,
            rejects: Rejects::default(),
            counts: Counts::default(),
        });
    });
}

/// INSTEAD OF INSERT: reads, masks and keeps one event, and flushes a full chunk.
///
/// `ready` returns the batch's context, and is called once per statement.
pub(crate) fn append<'a>(
    view: pg_sys::Oid,
    owner: pg_sys::Oid,
    ready: impl FnOnce() -> Result<BatchContext, Error>,
    message: impl FnOnce() -> Result<InboxRow<'a>, Error>,
) -> Result<(), Error> {
    let known = OPEN.with_borrow(|batches| {
        batches.iter().rfind(|batch| batch.is_of(view)).map(|batch| batch.by.is_some())
    });
    let by = match known {
        None => return Err(Error::NoBatch { inbox: name_of(view) }),
        Some(true) => None,
        // This is outside of any borrow, because it reads the catalogs.
        Some(false) => Some(ready()?),
    };
    let message = message()?;
    check_size(&message)?;
    let full = OPEN.with_borrow_mut(|batches| {
        let batch = batches.iter_mut().rfind(|batch| batch.is_of(view))?;
        if let Some(by) = by {
            batch.rows = by.inbox.rules.rows();
            batch.by = Some(by);
        }
        Some(batch.push(&message).map(|()| batch.is_full()))
    });
    match full.transpose()? {
        Some(true) => flush(view, owner),
        Some(false) => Ok(()),
        None => Err(Error::NoBatch { inbox: name_of(view) }),
    }
}

/// Refuses a message that is too large, before anything copies or reads it.
fn check_size(message: &InboxRow<'_>) -> Result<(), Error> {
    let limit = settings::max_event_size();
    if message.body.is_some_and(|body| body.len() > limit) {
        return Err(Error::EventTooLarge { limit });
    }
    Ok(())
}

/// AFTER STATEMENT: flushes the remaining rows, ends the batch and returns its counts.
pub(crate) fn close(view: pg_sys::Oid, owner: pg_sys::Oid) -> Result<Counts, Error> {
    let index = flush_innermost(view, owner)?;
    let batch = OPEN.with_borrow_mut(|batches| batches.remove(index));
    let (statement, counts) = (batch.statement, batch.counts);
    let roles = Roles::of_session();
    LAST.set(Some(Last { statement, counts, part_of: Some(batch.opened_in), roles }));
    settings::set_last_statement(statement);
    statistics::count(view, owner, batch.opened_in, &counts);
    Ok(counts)
}

/// Flushes the rows so far.
pub(crate) fn flush(view: pg_sys::Oid, owner: pg_sys::Oid) -> Result<(), Error> {
    flush_innermost(view, owner).map(drop)
}

/// Flushes the innermost batch of `view`, and returns its position among the open ones.
///
/// The batch is taken out of `OPEN` during the flush, because a trigger of the target may itself use an inbox. After an
/// error, which unwinds through here, the rows are dropped with the batch.
fn flush_innermost(view: pg_sys::Oid, owner: pg_sys::Oid) -> Result<usize, Error> {
    let taken = OPEN.with_borrow_mut(|batches| {
        let index = batches.iter().rposition(|batch| batch.is_of(view))?;
        Some((index, batches.remove(index)))
    });
    let Some((index, mut batch)) = taken else {
        return Err(Error::NoBatch { inbox: name_of(view) });
    };
    security::make_constraints_immediate();
    let outer = OuterColumn::keep();
    as_owner(owner, || batch.flush());
    drop(outer);
    // If triggers are missing, a statement within the flush may have ended a batch that another statement began.
    let is_place_there = OPEN.with_borrow_mut(|batches| {
        let is_there = index <= batches.len();
        if is_there {
            batches.insert(index, batch);
        }
        is_there
    });
    if is_place_there { Ok(index) } else { Err(Error::NoBatch { inbox: name_of(view) }) }
}

impl Batch {
    /// Whether a statement that runs now on this view can belong to the batch. A statement within a later subtransaction has
    /// its own batch, unless a trigger is missing. If it used this batch, rows that it flushed would be lost when the
    /// subtransaction is rolled back.
    fn is_of(&self, view: pg_sys::Oid) -> bool {
        self.view == view && self.opened_in == GetCurrentSubTransactionId()
    }

    fn push(&mut self, message: &InboxRow<'_>) -> Result<(), OutOfMemory> {
        let Some(by) = &self.by else { return Ok(()) };
        let masks = by.masks();
        let (class, reason) = match message.body {
            None => (Class::no_body(), "the message has no body".to_owned()),
            Some(body) => {
                let sent_at = message.sent_at.unwrap_or_else(now);
                let event = masking::Event { id: message.id, sent_at, body };
                match by.inbox.rules.push(&event, &masks, &mut self.rows) {
                    Ok(()) => {
                        self.largest = self.largest.max(body.len());
                        return self.messages.push(message);
                    }
                    Err(PushError::Reject(why)) => (Class::named(why.class()), why.to_string()),
                    Err(PushError::OutOfMemory) => return Err(OutOfMemory),
                }
            }
        };
        let mut one = Messages::new();
        one.push(message)?;
        one.reject(0, class, &reason, by.inbox.rules.masker_of_rejects(&masks), &mut self.rejects)
    }

    fn is_full(&self) -> bool {
        self.rows.len() + self.rejects.len() >= CHUNK_ROWS
            || self.rows.bytes() + self.messages.bytes() + self.rejects.bytes() >= CHUNK_BYTES
    }

    /// Returns the maximum number of bytes that a flush takes besides the rows and rejects themselves. They are for Postgres
    /// values, an array of them, and an error that quotes a refused value and is copied on its way here.
    fn flush_bytes(&self) -> usize {
        const COPIES: usize = 8;
        const STATEMENTS: usize = 1 << 20;
        /// For each byte of the largest row that types read: an array of short texts takes the most. A row's memory is freed
        /// before the next row.
        const TYPES: usize = 64;
        let types =
            if self.by.as_ref().is_some_and(|by| by.inbox.has_types) { self.largest * TYPES } else { 0 };
        (self.rows.len() + self.rejects.len()) * FLUSH_BYTES
            + (self.rows.bytes() + self.rejects.bytes()) * COPIES
            + types
            + STATEMENTS
    }

    /// Writes rows and rejects, as the inbox's owner.
    fn flush(&mut self) {
        let Some(by) = &self.by else { return };
        let inbox = &by.inbox;
        memory::ensure(self.flush_bytes()).map_err(Error::from).or_raise();
        if !self.rows.is_empty() {
            let (rejects, counts) = (&mut self.rejects, &mut self.counts);
            flush::store(inbox, &self.rows, &self.messages, &by.masks(), rejects, counts);
            self.rows.clear(CHUNK_BYTES);
            self.messages.clear(CHUNK_BYTES);
            self.largest = 0;
        }
        flush::reject(inbox, &self.rejects, &mut self.counts);
        self.rejects.clear();
    }
}

/// Follows the ends of transactions and subtransactions.
pub(crate) fn register() {
    at_transaction_end(transaction_ends);
    at_subtransaction_end(subtransaction_ends);
}

fn transaction_ends(end: TransactionEnd) {
    match end {
        TransactionEnd::BeforeCommit => {
            if let Some(view) = OPEN.with_borrow(|batches| batches.first().map(|batch| batch.view)) {
                raise(Error::UnflushedBatch { inbox: name_of(view) });
            }
        }
        TransactionEnd::Committed => LAST.set(LAST.get().map(|last| Last { part_of: None, ..last })),
        TransactionEnd::RolledBack => {
            drop(OPEN.take());
            LAST.set(LAST.get().filter(|last| last.part_of.is_none()));
        }
    }
}

fn subtransaction_ends(ending: pg_sys::SubTransactionId, end: SubtransactionEnd) {
    match end {
        SubtransactionEnd::Released { parent } => {
            OPEN.with_borrow_mut(|batches| {
                for batch in batches.iter_mut().filter(|batch| batch.opened_in == ending) {
                    batch.opened_in = parent;
                }
            });
            if let Some(last) = LAST.get().filter(|last| last.part_of == Some(ending)) {
                LAST.set(Some(Last { part_of: Some(parent), ..last }));
            }
        }
        SubtransactionEnd::RolledBack => {
            let undone = OPEN.with_borrow_mut(|batches| {
                batches.extract_if(.., |batch| batch.opened_in == ending).collect::<Vec<_>>()
            });
            drop(undone);
            LAST.set(LAST.get().filter(|last| last.part_of != Some(ending)));
        }
    }
}
