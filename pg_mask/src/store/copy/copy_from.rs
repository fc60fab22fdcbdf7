//! A table, open for COPY: the checks that COPY makes before it begins, and the call itself.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use masking::Rows;
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::Column;
use crate::pg::compat::check_insert;
use crate::pg::security::has_policies;
use crate::pg::state::{SessionCell, SessionState, session_cell};
use crate::pg::transaction::must_be_writable;

/// An open table.
pub(super) struct Table {
    raw: pg_sys::Relation,
}

#[expect(unsafe_code, reason = "calls Postgres")]
impl Table {
    /// Opens the table for `act`. After an error, the end of the (sub)transaction closes it.
    pub(super) fn with<R>(oid: pg_sys::Oid, act: impl FnOnce(&Self) -> R) -> R {
        // SAFETY: the opened table is closed. The lock lasts until the end of the transaction, as for any insert.
        unsafe {
            let table = Self { raw: pg_sys::table_open(oid, pg_sys::RowExclusiveLock.cast_signed()) };
            let result = act(&table);
            pg_sys::table_close(table.raw, pg_sys::NoLock.cast_signed());
            result
        }
    }

    /// Whether COPY can still write `columns`, whose rows were made without a lock on the table. Their bytes must match the
    /// table's types, no rule may redirect them, and no policy may apply to the current user.
    pub(super) fn takes(&self, columns: &[Column]) -> bool {
        // SAFETY: the relation is open.
        unsafe {
            columns.iter().all(|column| column.attribute.is_in(self.raw))
                && !self.has_rule_for_insert()
                && !has_policies((*self.raw).rd_id)
                // COPY would decode the texts, which are UTF-8, from the client's encoding.
                && pg_sys::pg_get_client_encoding() == pg_sys::pg_enc::PG_UTF8.cast_signed()
                // Postgres's statistics count the rows that COPY wrote.
                && pg_sys::pgstat_track_counts
        }
    }

    fn has_rule_for_insert(&self) -> bool {
        // SAFETY: an open relation has a list of its rules, or NULL.
        unsafe {
            (*self.raw).rd_rules.as_ref().is_some_and(|rules| {
                let count = usize::try_from(rules.numLocks).unwrap_or_default();
                let rules = std::slice::from_raw_parts(rules.rules, count);
                rules.iter().any(|&rule| (*rule).event == pg_sys::CmdType::CMD_INSERT)
            })
        }
    }

    /// Makes the checks of the COPY command that its inner functions leave out (`DoCopy` in `copy.c`). They are: the
    /// privilege to insert into the columns, also as extensions see it; a transaction that may write; no parallel mode.
    pub(super) fn check_rights(&self, columns: &[Column]) {
        const COMMAND: &CStr = c"COPY FROM";
        // SAFETY: memory is allocated in the current memory context. The entry belongs to the open relation.
        unsafe {
            let (state, item) = self.parse_state();
            let mut inserted = ptr::null_mut();
            for column in columns {
                let number = i32::from(column.attribute.number) - pg_sys::FirstLowInvalidHeapAttributeNumber;
                inserted = pg_sys::bms_add_member(inserted, number);
            }
            check_insert(&*state, &*item, inserted);
            pg_sys::free_parsestate(state);
            if pg_sys::XactReadOnly && !(*self.raw).rd_islocaltemp {
                must_be_writable(COMMAND);
            }
            pg_sys::PreventCommandIfParallelMode(COMMAND.as_ptr());
        }
    }

    /// Returns a parse state with only this table, and the table's entry in it.
    fn parse_state(&self) -> (*mut pg_sys::ParseState, *mut pg_sys::ParseNamespaceItem) {
        // SAFETY: memory is allocated in the current memory context. The relation is open.
        unsafe {
            let lock = pg_sys::RowExclusiveLock.cast_signed();
            let state = pg_sys::make_parsestate(ptr::null_mut());
            let item =
                pg_sys::addRangeTableEntryForRelation(state, self.raw, lock, ptr::null_mut(), false, false);
            (state, item)
        }
    }

    /// Copies these rows, in this order, into the columns. Returns how many Postgres reports as inserted.
    pub(super) fn copy(&self, columns: &[Column], rows: &Rows, order: &[usize]) -> usize {
        let source = Source { rows, order, at: 0, offset: 0 };
        // SAFETY: memory is allocated in the current memory context, and the arguments outlive the calls. The source is
        // unregistered before it ends, after an error too.
        let copied = unsafe {
            let (state, _) = self.parse_state();
            let mut names = ptr::null_mut();
            for column in columns {
                names = pg_sys::lappend(names, pg_sys::makeString(column.name.as_ptr().cast_mut()).cast());
            }
            let format = pg_sys::makeString(c"binary".as_ptr().cast_mut());
            let format = pg_sys::makeDefElem(c"format".as_ptr().cast_mut(), format.cast(), -1);
            let options = pg_sys::lappend(ptr::null_mut(), format.cast());
            let _given = SourceGuard::new(source);
            let copy = pg_sys::BeginCopyFrom(
                state,
                self.raw,
                ptr::null_mut(),
                ptr::null(),
                false,
                Some(read),
                names,
                options,
            );
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let copied = pg_sys::CopyFrom(copy);
            pg_sys::PopActiveSnapshot();
            pg_sys::EndCopyFrom(copy);
            pg_sys::free_parsestate(state);
            // The rest of this transaction sees the rows.
            pg_sys::CommandCounterIncrement();
            copied
        };
        usize::try_from(copied).unwrap_or(usize::MAX)
    }
}

/// The data of a running COPY: a header, the rows, a trailer.
struct Source {
    rows: *const Rows,
    order: *const [usize],
    /// Position of the next part to read: 0 is the header, `order.len() + 1` the trailer.
    at: usize,
    /// Number of bytes of that part that were read.
    offset: usize,
}

thread_local! {
    /// The running copies, innermost last: a trigger of one copy's target may begin another. Postgres does not tell the
    /// callback which one to read.
    static SOURCES: SessionCell<Vec<Source>> = const { session_cell(Vec::new()) };
}

/// Lets the callback read from a source, until this is dropped. The data that the source points to outlives this.
struct SourceGuard;

impl SourceGuard {
    fn new(source: Source) -> Self {
        SOURCES.with_borrow_mut(|sources| sources.push(source));
        Self
    }
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        SOURCES.with_borrow_mut(Vec::pop);
    }
}

/// Gives COPY up to `most` bytes, and fewer than `least` only at the end.
#[expect(unsafe_code, reason = "called by Postgres")]
#[pg_guard]
unsafe extern "C-unwind" fn read(out: *mut c_void, _least: c_int, most: c_int) -> c_int {
    let most = usize::try_from(most).unwrap_or_default();
    let read = SOURCES.with_borrow_mut(|sources| {
        // SAFETY: Postgres has room for `most` bytes at `out`.
        sources.last_mut().map_or(0, |source| unsafe { source.read(out.cast(), most) })
    });
    c_int::try_from(read).unwrap_or_default()
}

impl Source {
    /// Writes up to `most` bytes to `out` and returns how many.
    ///
    /// # Safety
    /// `out` has room for `most` bytes, initialized or not.
    #[expect(unsafe_code, reason = "the callback has neither lifetimes nor slices")]
    unsafe fn read(&mut self, out: *mut u8, most: usize) -> usize {
        // SAFETY: both outlive `SourceGuard`, which outlives the COPY.
        let (rows, order) = unsafe { (&*self.rows, &*self.order) };
        let mut filled = 0;
        while filled < most {
            let piece = match self.at {
                0 => Rows::HEADER,
                row if row <= order.len() => rows.tuple(order[row - 1]),
                row if row == order.len() + 1 => Rows::TRAILER,
                _ => break,
            };
            let rest = &piece[self.offset..];
            let length = rest.len().min(most - filled);
            // SAFETY: the piece has `length` more bytes, and what is filled is never more than `most`.
            unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), out.add(filled), length) };
            filled += length;
            self.offset += length;
            if self.offset == piece.len() {
                (self.at, self.offset) = (self.at + 1, 0);
            }
        }
        filled
    }
}
