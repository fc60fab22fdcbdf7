//! Every error of the extension, with its SQLSTATE, in one place.
//!
//! No error may quote an event, a value from one, or a token: errors go to the client and into the server's log. Names of
//! relations, columns and keys come from the inbox's definition and may be quoted.

pub(crate) mod no_ring;
mod table;

use masking::memory::OutOfMemory;
use masking::scheme::{Scheme, Unreadable};
use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;

use no_ring::NoRing;

/// Remedy for a view whose columns are not those of an inbox.
pub(crate) const COLUMNS_HINT: &str = "An inbox has message_id uuid, sent_at timestamptz and body text, without defaults. Drop \
    its defaults, or make it again with attach_inbox().";

/// Remedy for an inbox that is not as its owner attached it. Attaching it again tries a row, which runs code of the tables.
pub(crate) const NOT_BOUND_HINT: &str = "Its target or rejects table was renamed or replaced, or its trigger was changed. \
    Check first who owns the tables of these names, since attach_inbox() runs their code. Then have the inbox's owner call \
    it again.";

pub(crate) enum Error {
    /// An error raised by a statement that this library ran. It is raised again unchanged.
    Caught(Box<CaughtError>),
    /// A text that Postgres did not check is not UTF-8.
    NotUtf8,
    /// `unmask_pii` was called with a text that no scheme made.
    NotAToken,
    /// The trigger function was not called as a trigger, or by a trigger that `attach_inbox` does not make.
    NotAnInboxTrigger,
    /// A row reached an inbox without a batch: its BEFORE STATEMENT trigger is missing.
    NoBatch { inbox: String },
    /// The transaction is about to commit with a batch that was never flushed: the AFTER STATEMENT trigger is missing.
    UnflushedBatch { inbox: String },
    /// The view does not have the columns of an inbox.
    InboxColumns { inbox: String },
    /// The relation to make an inbox of exists and isn't an inbox.
    NotAnInbox { inbox: String },
    /// The relation to redrive rejects into isn't an inbox.
    NoInbox { relation: String },
    /// The inbox's owner lacks the privileges to unmask rejects.
    OwnerMayNotUnmask { inbox: String },
    /// The owner of a table lacks the privilege to re-mask it, for a superuser who runs that as the owner.
    OwnerMayNotRemask { relation: String, owner: String },
    /// The rejects to redrive may belong to another inbox.
    SharedRejects { inbox: String, other: String },
    /// A mask that cannot be unmasked, and its location.
    Unreadable { mask: String, why: Box<Self> },
    /// NULL for an argument that has no default.
    NullArgument(&'static str),
    /// The definition isn't the one that the view's owner gave, or it is for other relations.
    NotBound { inbox: String },
    /// A name means another relation than it did when the inbox was checked.
    Replaced,
    /// A relation's columns were altered after they were read.
    Altered,
    /// A table that belongs neither to the inbox's owner nor to the inbox, in a call by another role.
    TableOfAnother { relation: String, inbox: String },
    /// A relation was dropped after it was looked up.
    Dropped,
    /// `remask_column` was called with batches of no blocks.
    NoBlocks,
    /// The relation to re-mask isn't a table.
    NotATable { relation: String },
    /// Some rows of a table to re-mask are in foreign partitions, or tables that inherit from it.
    NotAllTables { relation: String },
    /// Another server keeps some of the rejects to redrive.
    ForeignRejects { relation: String },
    /// The table of re-masking's progress has triggers.
    ProgressHasTriggers,
    /// Row-level security hides rows of a table to re-mask.
    HiddenRows { relation: String },
    /// A column to re-mask isn't of a text type.
    NotAText { column: String },
    /// A column still has masks of other keys after the maximum number of passes.
    MasksComeBack { relation: String, passes: i32 },
    /// No relation has this name.
    NoRelation { relation: String },
    /// No schema was chosen for a new view.
    NoSchema { inbox: String },
    /// Postgres empties this relation after a crash.
    Unlogged { relation: String },
    /// A NOT NULL column without a default that no rule fills: every event would be a reject.
    ColumnWithoutRule { column: String },
    /// The rules, or a trigger's argument, cannot be parsed as a definition.
    Definition(serde_json::Error),
    /// The target is of a kind that rows cannot be inserted into.
    TargetKind { target: String },
    /// A rule names a column that the target does not have.
    UnknownColumn { column: String, target: String, columns: Vec<String> },
    /// A token was made under a key that isn't on the ring.
    UnknownKey,
    /// A token fails authentication: it isn't as its key made it.
    NotAuthentic,
    /// There is no key ring; the reason says why.
    NoRing(NoRing),
    /// The name of a scheme is unknown.
    UnknownScheme,
    /// The ring's primary key is for another scheme.
    OtherPrimary { scheme: Scheme },
    /// The caller lacks the privilege to mask under a key.
    KeyedMaskDenied,
    /// The transaction has unmasked as many values as its role may unmask.
    UnmaskLimit { limit: i32 },
    /// An event failed in a way that can be the set-up's fault, and a trial cannot tell.
    Doubtful { code: PgSqlErrorCode },
    /// The event of a trial did not become a row.
    TrialRefused,
    /// A message's body is larger than the maximum event size.
    EventTooLarge { limit: usize },
    /// There is not enough memory for an event, or for a value to unmask.
    OutOfMemory,
    /// A role that must give a purpose unmasked a value without one.
    NoPurpose,
    /// A setting was made before the library was loaded, and the library cannot take its value over.
    SettingNotTaken { name: String },
    /// A value was unmasked in a parallel worker, where it is not counted.
    UnmaskInWorker,
    /// A value was unmasked in a security-restricted operation. It runs others' functions under the settings of the session
    /// that began it.
    UnmaskRestricted,
    /// Code of the target ran a command that could leave something in the session.
    CommandInFlush(&'static str),
    /// A rule names a generated column, which cannot be filled.
    GeneratedColumn { column: String },
    /// A rule makes a value that the column's type does not take.
    ColumnType { column: String, found: String, rule: &'static str, allowed: &'static str },
    /// The definition has no rules.
    NoRules,
    /// A rule fills a column from the message id, and no unique index can find a message id again.
    NoUniqueIndex { relation: String, columns: String },
    /// The rejects table lacks a column, or has it with another type.
    RejectsColumns { rejects: String },
    /// The definition requires COPY, and something prevents it.
    NoCopy { target: String, obstacle: String },
    /// The name of a flush mode is unknown.
    UnknownFlush,
    /// The name of an envelope is unknown.
    UnknownEnvelope,
    /// The location of the event isn't a JSON pointer.
    NotAPointer,
    /// Rows were inserted into a relation without an error and are not there.
    RowsSwallowed { relation: String, missing: u64 },
    /// Postgres's interface for SQL inside the server refused a call.
    Spi(pgrx::spi::Error),
    /// A state that Postgres's own rules exclude.
    Internal(&'static str),
}

impl From<pgrx::spi::Error> for Error {
    fn from(error: pgrx::spi::Error) -> Self {
        Self::Spi(error)
    }
}

impl Error {
    /// Adds the mask's location, if the mask is at fault.
    pub(crate) fn of_mask(self, mask: impl FnOnce() -> String) -> Self {
        match self {
            Self::NotAToken | Self::UnknownKey | Self::NotAuthentic => {
                Self::Unreadable { mask: mask(), why: Box::new(self) }
            }
            other => other,
        }
    }

    /// Adds the reject's message id, if the reject's masked body is at fault.
    pub(crate) fn of_reject(self, message_id: Option<String>) -> Self {
        self.of_mask(|| match message_id {
            Some(id) => format!("the masked body of the reject of message {id}"),
            None => "the masked body of the reject without a message id".into(),
        })
    }
}

impl From<Unreadable> for Error {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::NotAToken => Self::NotAToken,
            Unreadable::UnknownKey => Self::UnknownKey,
            Unreadable::NotAuthentic => Self::NotAuthentic,
            Unreadable::OutOfMemory => Self::OutOfMemory,
        }
    }
}

impl From<OutOfMemory> for Error {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// Hands an error to Postgres.
pub(crate) trait Raise<T> {
    /// Returns the value, or raises the error as Postgres raises its own.
    fn or_raise(self) -> T;
}

impl<T, E: Into<ErrorReport>> Raise<T> for Result<T, E> {
    fn or_raise(self) -> T {
        self.unwrap_or_else(|error| raise(error))
    }
}

/// Raises an error as Postgres raises its own.
pub(crate) fn raise(error: impl Into<ErrorReport>) -> ! {
    error.into().report(PgLogLevel::ERROR);
    unreachable!("a report at ERROR does not return")
}

/// Returns a SQLSTATE as its five characters: six bits each, the first in the lowest bits (`MAKE_SQLSTATE` in elog.h).
pub(crate) fn sqlstate(code: i32) -> String {
    (0..5).map(|place| char::from(b'0' + u8::try_from(code >> (6 * place) & 0x3f).unwrap_or(0))).collect()
}

/// Returns the name of a SQLSTATE's condition in PL/pgSQL, such as `unique_violation`, or `error` if it has none.
pub(crate) fn condition(code: i32) -> String {
    let known = PgSqlErrorCode::from(code);
    if known as i32 == code {
        format!("{known:?}").trim_start_matches("ERRCODE_").to_lowercase()
    } else {
        "error".into()
    }
}
