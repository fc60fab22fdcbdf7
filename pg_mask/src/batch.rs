//! Batches: the rows of one statement on an inbox, from its first to its last.
//!
//! A batch lives in the backend's memory, outside of what Postgres rolls back. So it is tied to the subtransaction in
//! which its statement began: what that one's end undoes is dropped with it, and a transaction that still has an open
//! batch when it wants to commit is an error.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

use masking::keyring::KeyRing;
use masking::memory::{self, OutOfMemory};
use masking::scheme::{Masker, Scheme};
use masking::{Masks, PushError, Row, Rows};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, Raise, raise};
use crate::flush;
use crate::inbox::Inbox;
use crate::keys::{self, Undumped};
use crate::rejects::{ByClass, Class, Rejects};
use crate::security::{self, Roles, as_owner, may_mask_under_a_key, schema_of};
use crate::unguarded::GetCurrentSubTransactionId;
use crate::{settings, statistics};

/// A chunk is flushed when it holds this many rows …
const CHUNK_ROWS: usize = 25_000;
/// … or this many bytes. This bounds the memory of a COPY of any size, but for a single event that is larger.
const CHUNK_BYTES: usize = 8 << 20;
/// The most that flushing a chunk allocates for each row, beside the row's bytes: to sort rows, and for their headers.
const FLUSH_BYTES: usize = 1024;

/// What an inbox statement did with its events.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) stored: i64,
    pub(crate) duplicate: i64,
    pub(crate) rejected: ByClass,
}

impl Counts {
    /// Counts `rows` of which `stored` were new.
    pub(crate) fn add(&mut self, rows: usize, stored: usize) {
        self.stored += Self::number(stored);
        self.duplicate += Self::number(rows - stored);
    }

    /// Counts rejects of one class of which `written` were new.
    pub(crate) fn add_rejects(&mut self, class: Class, rejects: usize, written: usize) {
        self.rejected.add(class, Self::number(written));
        self.duplicate += Self::number(rejects - written);
    }

    pub(crate) fn add_all(&mut self, more: &Self) {
        self.stored += more.stored;
        self.duplicate += more.duplicate;
        self.rejected.add_all(&more.rejected);
    }

    pub(crate) fn events(&self) -> i64 {
        self.stored + self.duplicate + self.rejected.sum()
    }

    fn number(rows: usize) -> i64 {
        i64::try_from(rows).unwrap_or(i64::MAX)
    }
}

/// A finished statement and what it did.
#[derive(Clone, Copy)]
pub(crate) struct Last {
    pub(crate) statement: i64,
    pub(crate) counts: Counts,
    /// The subtransaction whose rollback undoes it; none once it is committed.
    part_of: Option<pg_sys::SubTransactionId>,
    /// The session's roles: a session that takes on others does not see what it did before.
    roles: Roles,
}

/// The messages of a chunk's rows, kept until the rows are written: any of them may still become a reject.
pub(crate) struct Messages(Rows);

impl Messages {
    fn new() -> Self {
        Self(Rows::new(3))
    }

    fn push(&mut self, message: &Message<'_>) -> Result<(), OutOfMemory> {
        add(&mut self.0, |row| {
            row.optional(message.id.as_ref().map(<[u8; 16]>::as_slice));
            row.optional(message.sent_at.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
            row.optional(message.body.map(str::as_bytes));
        })
    }

    /// Adds the reject that message `row` becomes.
    pub(crate) fn reject(
        &self,
        row: usize,
        class: Class,
        reason: &str,
        masker: Masker<'_>,
        rejects: &mut Rejects,
    ) -> Result<(), OutOfMemory> {
        add(rejects.of(class), |reject| {
            reject.optional(self.0.field(row, 0));
            reject.optional(self.0.field(row, 1));
            reject.field(reason.as_bytes());
            match self.0.field(row, 2) {
                // Whatever it is: unmasked, it is to be the body again.
                Some(body) => {
                    reject.written(masker.masked_len(body), |out| masker.mask_anew(body, out));
                }
                None => reject.null(),
            }
            reject.timestamp(now());
        })
    }
}

/// Adds a row that fails only where memory runs out.
fn add(rows: &mut Rows, write: impl FnOnce(&mut Row<'_>)) -> Result<(), OutOfMemory> {
    rows.add(|row| {
        write(row);
        Ok(())
    })
}

/// A row that came into an inbox.
pub(crate) struct Message<'a> {
    pub(crate) id: Option<[u8; 16]>,
    /// Microseconds since 2000-01-01 UTC.
    pub(crate) sent_at: Option<i64>,
    pub(crate) body: Option<&'a str>,
}

struct Batch {
    /// The inbox.
    view: pg_sys::Oid,
    statement: i64,
    opened_in: pg_sys::SubTransactionId,
    /// Set by the first row, whose trigger has the definition.
    by: Option<By>,
    rows: Rows,
    messages: Messages,
    /// The size of the largest body of a chunk's rows.
    largest: usize,
    rejects: Rejects,
    counts: Counts,
}

/// What the events of a batch are masked and written by: the same from the first to the last.
pub(crate) struct By {
    pub(crate) inbox: Rc<Inbox>,
    scheme: Scheme,
    ring: Option<Rc<Undumped<KeyRing>>>,
}

impl By {
    /// Fails where keys are needed and there are none; and also where they are not needed but configured and not to be
    /// read, since what was masked under them would be masked once more.
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
        Ok(Self { inbox, scheme, ring })
    }

    pub(crate) fn masks(&self) -> Masks<'_> {
        Masks { default: self.scheme, ring: self.ring.as_deref().map(|ring| &**ring) }
    }
}

thread_local! {
    /// The open batches, innermost statement last.
    static OPEN: RefCell<Vec<Batch>> = const { RefCell::new(Vec::new()) };
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
    /// How many inbox statements this session has begun.
    static STATEMENTS: Cell<i64> = const { Cell::new(0) };
}

/// Returns what the session's last finished inbox statement did. `DISCARD ALL`, as connection poolers send it between
/// clients, and a change of role hide it.
pub(crate) fn last_counts() -> Option<Last> {
    let current =
        |last: &Last| settings::is_last_statement(last.statement) && last.roles == Roles::of_session();
    LAST.get().filter(current)
}

/// The start of the transaction, as `now()`: microseconds since 2000-01-01 UTC.
pub(crate) fn now() -> i64 {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend.
    unsafe {
        pg_sys::GetCurrentTransactionStartTimestamp()
    }
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

/// INSTEAD OF INSERT: reads, masks and keeps one event; a full chunk is flushed.
///
/// `ready` gives what it is done by, and is asked once a statement.
pub(crate) fn append<'a>(
    view: pg_sys::Oid,
    owner: pg_sys::Oid,
    ready: impl FnOnce() -> Result<By, Error>,
    message: impl FnOnce() -> Message<'a>,
) -> Result<(), Error> {
    let known = OPEN.with_borrow(|batches| {
        batches.iter().rfind(|batch| batch.is_of(view)).map(|batch| batch.by.is_some())
    });
    let by = match known {
        None => return Err(Error::NoBatch { inbox: name_of(view) }),
        Some(true) => None,
        // Outside of any borrow: it asks the catalogs.
        Some(false) => Some(ready()?),
    };
    let message = message();
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
        Some(true) => flush_innermost(view, owner).map(drop),
        Some(false) => Ok(()),
        None => Err(Error::NoBatch { inbox: name_of(view) }),
    }
}

/// Refuses a message that is too large, before anything copies or reads it.
fn check_size(message: &Message<'_>) -> Result<(), Error> {
    let limit = settings::max_event_size();
    if message.body.is_some_and(|body| body.len() > limit) {
        return Err(Error::EventTooLarge { limit });
    }
    Ok(())
}

/// AFTER STATEMENT: flushes what is left and ends the batch. What it did.
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

/// Flushes the innermost batch of `view` and returns where it stands among the open ones.
///
/// The batch is taken out meanwhile: a trigger of the target may itself use an inbox, and after an error, which
/// unwinds through here, the rows are dropped with it.
fn flush_innermost(view: pg_sys::Oid, owner: pg_sys::Oid) -> Result<usize, Error> {
    let taken = OPEN.with_borrow_mut(|batches| {
        let index = batches.iter().rposition(|batch| batch.is_of(view))?;
        Some((index, batches.remove(index)))
    });
    let Some((index, mut batch)) = taken else {
        return Err(Error::NoBatch { inbox: name_of(view) });
    };
    security::make_constraints_immediate();
    as_owner(owner, || batch.flush());
    // A statement within the flush can have ended a batch that another one began, if triggers are missing.
    let is_place_there = OPEN.with_borrow_mut(|batches| {
        let is_there = index <= batches.len();
        if is_there {
            batches.insert(index, batch);
        }
        is_there
    });
    if is_place_there { Ok(index) } else { Err(Error::NoBatch { inbox: name_of(view) }) }
}

/// The name of an inbox, for an error.
pub(crate) fn name_of(view: pg_sys::Oid) -> String {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: the name is NULL or a C string of the current memory context.
    unsafe {
        let name = pg_sys::get_rel_name(view);
        if name.is_null() {
            view.to_u32().to_string()
        } else {
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}

impl Batch {
    /// Whether a statement on this view that runs now can be the batch's. A statement within a later subtransaction has a batch
    /// of its own, unless a trigger is missing: the rows that it flushed would be lost when the subtransaction is rolled back.
    fn is_of(&self, view: pg_sys::Oid) -> bool {
        self.view == view && self.opened_in == GetCurrentSubTransactionId()
    }

    fn push(&mut self, message: &Message<'_>) -> Result<(), OutOfMemory> {
        let Some(by) = &self.by else { return Ok(()) };
        let masks = by.masks();
        let (class, reason) = match message.body {
            None => (Class::no_body(), "the message has no body".to_owned()),
            Some(body) => {
                let sent_at = message.sent_at.unwrap_or_else(now);
                let event = masking::Message { id: message.id, sent_at, body };
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
            || self.rows.bytes() + self.messages.0.bytes() + self.rejects.bytes() >= CHUNK_BYTES
    }

    /// The most memory that a flush takes beside the rows and rejects themselves: values as Postgres has them, an array of
    /// them, and where a type refuses one, an error that quotes it and is copied on its way here.
    fn flush_bytes(&self) -> usize {
        const COPIES: usize = 8;
        const STATEMENTS: usize = 1 << 20;
        /// For each byte of a row that types read: an array of short texts takes the most. The memory of a row is freed before
        /// the next.
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
            self.messages.0.clear(CHUNK_BYTES);
            self.largest = 0;
        }
        flush::reject(inbox, &self.rejects, &mut self.counts);
        self.rejects.clear();
    }
}

/// Asks Postgres to tell of the ends of transactions and subtransactions.
#[expect(unsafe_code, reason = "calls Postgres")]
pub(crate) fn register() {
    // SAFETY: the callbacks are functions of this library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_ends), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_ends), std::ptr::null_mut());
    }
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ends(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent as On;
    match event {
        On::XACT_EVENT_PRE_COMMIT | On::XACT_EVENT_PRE_PREPARE => {
            if let Some(view) = OPEN.with_borrow(|batches| batches.first().map(|batch| batch.view)) {
                raise(Error::UnflushedBatch { inbox: name_of(view) });
            }
        }
        On::XACT_EVENT_COMMIT | On::XACT_EVENT_PREPARE => {
            LAST.set(LAST.get().map(|last| Last { part_of: None, ..last }));
        }
        On::XACT_EVENT_ABORT => {
            drop(OPEN.take());
            LAST.set(LAST.get().filter(|last| last.part_of.is_none()));
        }
        _ => {}
    }
}

#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_ends(
    event: pg_sys::SubXactEvent::Type,
    ending: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            OPEN.with_borrow_mut(|batches| {
                for batch in batches.iter_mut().filter(|batch| batch.opened_in == ending) {
                    batch.opened_in = parent;
                }
            });
            if let Some(last) = LAST.get().filter(|last| last.part_of == Some(ending)) {
                LAST.set(Some(Last { part_of: Some(parent), ..last }));
            }
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            let undone = OPEN.with_borrow_mut(|batches| {
                batches.extract_if(.., |batch| batch.opened_in == ending).collect::<Vec<_>>()
            });
            drop(undone);
            LAST.set(LAST.get().filter(|last| last.part_of != Some(ending)));
        }
        _ => {}
    }
}
