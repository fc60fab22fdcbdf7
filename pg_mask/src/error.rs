//! Every error of the extension, with its SQLSTATE, in one place.
//!
//! None may quote an event, a value of one, or a token: an error goes to the client and into the server's log.
//! Names of relations, columns and keys come from the inbox's definition and may be named.

use masking::memory::OutOfMemory;
use masking::scheme::Unreadable;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::keys::{NoRing, Origin};

pub(crate) enum Error {
    /// `unmask_pii` of something that no scheme made.
    NotAToken,
    /// The trigger function was called as something else, or by a trigger that `attach_inbox` does not make.
    NotAnInboxTrigger,
    /// A row reached an inbox without a batch: its BEFORE STATEMENT trigger is missing.
    NoBatch { inbox: String },
    /// The transaction wants to commit, and a batch was never flushed: the AFTER STATEMENT trigger is missing.
    UnflushedBatch { inbox: String },
    /// The view does not have the columns of an inbox.
    InboxColumns { inbox: String },
    /// The relation to be made an inbox exists and is something else.
    NotAnInbox { inbox: String },
    /// What is to be redriven into is something else.
    NoInbox { relation: String },
    /// The rights by which rejects are unmasked are not there.
    OwnerMayNotUnmask { inbox: String },
    /// The rejects to be redriven may be another inbox's.
    SharedRejects { inbox: String, other: String },
    /// A mask that cannot be taken back, and where it stands.
    Unreadable { mask: String, why: Box<Self> },
    /// NULL for an argument that has no default.
    NullArgument(&'static str),
    /// The definition is not the one that the view's owner gave, or of other relations.
    NotBound { inbox: String },
    /// A name has come to mean another relation since the inbox was looked at.
    Replaced,
    /// A relation's columns were altered after they were read.
    Altered,
    /// A relation was dropped after it was looked up.
    Dropped,
    /// A batch of no blocks.
    NoBlocks,
    /// The relation to re-mask isn't a table.
    NotATable { relation: String },
    /// Some rows of a table to re-mask are in foreign partitions, or tables that inherit from it.
    NotAllTables { relation: String },
    /// Policies hide rows of a table to be re-masked.
    HiddenRows { relation: String },
    /// A column to be re-masked is of no type that masks are of.
    NotAText { column: String },
    /// However often a column is re-masked, it has masks of other keys.
    MasksComeBack { relation: String, passes: i32 },
    /// No relation has this name.
    NoRelation { relation: String },
    /// No schema was chosen for a new view.
    NoSchema { inbox: String },
    /// Postgres empties this relation after a crash.
    Unlogged { relation: String },
    /// A NOT NULL column without a default that no rule fills: every event would be a reject.
    ColumnWithoutRule { column: String },
    /// The rules, or a trigger's argument, do not read as a definition.
    Definition(serde_json::Error),
    /// The target is of a kind that rows cannot be inserted into.
    TargetKind { target: String },
    /// A rule for a column that the target does not have.
    UnknownColumn { column: String, target: String, columns: Vec<String> },
    /// A token of a key that is not on the ring.
    UnknownKey,
    /// A token that is not as its key made it.
    NotAuthentic,
    /// There is no key ring, for this reason.
    NoRing(NoRing),
    /// A scheme in a word that means nothing.
    UnknownScheme,
    /// Masking under a key, by somebody who may not.
    KeyedMaskDenied,
    /// The transaction has unmasked as many values as its role may.
    UnmaskLimit { limit: i32 },
    /// An event failed in a way that can be the set-up's fault, and the trial does not tell.
    Doubtful { code: PgSqlErrorCode },
    /// The event of a trial became no row.
    TrialRefused,
    /// A message's body is larger than an inbox takes.
    EventTooLarge { limit: usize },
    /// The memory for an event, or for a value to unmask, is not there.
    OutOfMemory,
    /// Unmasking without a purpose, by a role that must give one.
    NoPurpose,
    /// A setting from before the library was loaded, which it could not take over.
    SettingNotTaken { name: String },
    /// Unmasking in a worker of a parallel query, where it is not counted.
    UnmaskInWorker,
    /// Unmasking in an operation that runs others' functions, under the settings of the session that began it.
    UnmaskRestricted,
    /// A rule for a column that cannot be filled.
    GeneratedColumn { column: String },
    /// A rule and a column whose type does not take what the rule makes.
    ColumnType { column: String, found: String, rule: &'static str, allowed: &'static str },
    /// No rules at all.
    NoRules,
    /// A rule fills a column from the message id, and no unique index can find a message id again.
    NoUniqueIndex { relation: String, columns: String },
    /// The rejects table lacks a column, or has it with another type.
    RejectsColumns { rejects: String },
    /// The definition asks for COPY, and something speaks against it.
    NoCopy { target: String, obstacle: String },
    /// How to flush, in a word that means nothing.
    UnknownFlush,
    /// What is round events, in a word that means nothing.
    UnknownEnvelope,
    /// The place of the event is no JSON pointer.
    NotAPointer,
    /// Rows went into a relation without an error and are not there.
    RowsSwallowed { relation: String, missing: u64 },
    /// Postgres's interface for SQL inside the server refused a call.
    Spi(pgrx::spi::Error),
    /// What cannot be by Postgres's own rules.
    Internal(&'static str),
}

impl From<pgrx::spi::Error> for Error {
    fn from(error: pgrx::spi::Error) -> Self {
        Self::Spi(error)
    }
}

impl Error {
    /// Says where the mask stands, if it is the mask that is wrong.
    pub(crate) fn of_mask(self, mask: impl FnOnce() -> String) -> Self {
        match self {
            Self::NotAToken | Self::UnknownKey | Self::NotAuthentic => {
                Self::Unreadable { mask: mask(), why: Box::new(self) }
            }
            other => other,
        }
    }

    /// Says which reject's body it is, if that is what is wrong.
    pub(crate) fn of_reject(self, message_id: Option<String>) -> Self {
        self.of_mask(|| match message_id {
            Some(id) => format!("the masked body of the reject of message {id}"),
            None => "the masked body of the reject without a message id".into(),
        })
    }
}

impl From<Error> for ErrorReport {
    #[expect(clippy::too_many_lines, reason = "an arm for each error, and nothing else")]
    fn from(error: Error) -> Self {
        use PgSqlErrorCode as Code;
        let report = |code: Code, message: String| ErrorReport::new(code, message, "pg_mask");
        match error {
            Error::NotAToken => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "the text is not a masked value".into()).set_hint(
                    "A masked value is what mask_pii() made: base64 with padding (RFC 4648), or a token \
                     $siv$key$base64url.",
                )
            }
            Error::UnknownKey => report(
                Code::ERRCODE_UNDEFINED_OBJECT,
                "the value was masked under a key that is not on the key ring".into(),
            )
            .set_hint("mask_key() tells the key's id. Put that key back on the ring, retired if need be, and reload."),
            Error::NotAuthentic => report(
                Code::ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
                "the masked value is not authentic".into(),
            )
            .set_hint("It was changed after it was masked, or another key has the id of the one that masked it."),
            Error::NoRing(why) => why.report(may_see_settings()),
            Error::UnknownScheme => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "there is no such scheme".into())
                    .set_hint("A scheme is 'base64' or 'aes-siv'.")
            }
            Error::KeyedMaskDenied => report(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to mask values under a key".into(),
            )
            .set_hint("It takes EXECUTE on mask_pii(text, text); for an inbox, its owner's."),
            Error::UnmaskLimit { limit } => report(
                Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                format!("the transaction may unmask no more than {limit} values"),
            )
            .set_hint("The limit is pg_mask.unmask_limit, which a superuser sets by ALTER ROLE."),
            Error::Doubtful { code } => report(
                code,
                format!("an event could not be stored: {}", condition(code as i32)),
            )
            .set_hint(
                "Checks of the target refuse the row of a trial, so nothing tells whether the event or the set-up is at fault. \
                 Insert an event that becomes a row: later trials copy it.",
            ),
            Error::TrialRefused => report(
                Code::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
                "the event of the trial became no row".into(),
            ),
            Error::EventTooLarge { limit } => report(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the event is larger than pg_mask.max_event_size, {limit} bytes"),
            )
            .set_hint("Raise pg_mask.max_event_size, which a superuser can set, or send smaller events."),
            // As Postgres words its own.
            Error::OutOfMemory => report(Code::ERRCODE_OUT_OF_MEMORY, "out of memory".into()),
            Error::NoPurpose => report(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to unmask values without a purpose".into(),
            )
            .set_hint("Say why you unmask them: SET pg_mask.unmask_purpose = 'ticket 4711'."),
            Error::SettingNotTaken { name } => report(
                Code::ERRCODE_CANT_CHANGE_RUNTIME_PARAM,
                format!("pg_mask cannot be loaded: it cannot take over the setting {name}"),
            )
            .set_hint(
                "Its value is wrong, or was set by somebody who may not set it, or a parallel query is running: see the \
                 warning before this. With pg_mask in shared_preload_libraries such settings are refused when they are made.",
            ),
            Error::UnmaskInWorker => report(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                "values cannot be unmasked in a parallel worker".into(),
            )
            .set_hint("A function that calls unmask_pii() must not be declared PARALLEL SAFE."),
            Error::UnmaskRestricted => report(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "values cannot be unmasked in a security-restricted operation".into(),
            )
            .set_hint(
                "ANALYZE, building an index, REFRESH MATERIALIZED VIEW and the flush of an inbox run functions of others. \
                 Unmask values in a query of your own.",
            ),
            Error::NotAnInboxTrigger => report(
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "inbox_trigger() is only for the triggers of an inbox".into(),
            )
            .set_hint("Make an inbox and its triggers with attach_inbox()."),
            Error::NoBatch { inbox } | Error::UnflushedBatch { inbox } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("inbox \"{inbox}\" lacks one of its triggers: its events would be lost"),
            )
            .set_hint("Make its triggers anew with attach_inbox()."),
            Error::InboxColumns { inbox } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("view \"{inbox}\" does not have the columns of an inbox"),
            )
            .set_hint("An inbox has message_id uuid, sent_at timestamptz and body text: make it with attach_inbox()."),
            Error::NotAnInbox { inbox } => report(
                Code::ERRCODE_DUPLICATE_TABLE,
                format!("relation \"{inbox}\" exists and is not an inbox"),
            )
            .set_hint(
                "An inbox is a view that attach_inbox() made, without other triggers or rules, of an owner whose rights you \
                 have. Drop what it has besides, or choose another name.",
            ),
            Error::NoInbox { relation } => report(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{relation}\" is not an inbox"),
            )
            .set_hint("Name a view that attach_inbox() has made."),
            Error::OwnerMayNotUnmask { inbox } => report(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("the owner of inbox \"{inbox}\" may not unmask its rejects"),
            )
            .set_hint("It takes EXECUTE on unmask_pii(text), and SELECT, UPDATE and DELETE on the rejects table."),
            Error::SharedRejects { inbox, other } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("inboxes \"{inbox}\" and \"{other}\" have the same rejects table"),
            )
            .set_hint("A reject does not say which inbox it is of: give each inbox a rejects table of its own."),
            Error::Unreadable { mask, why } => Self::from(*why).set_detail(format!("It is {mask}.")),
            Error::NullArgument(name) => {
                report(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument \"{name}\" must not be NULL"))
            }
            Error::Replaced => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the name of a relation or function means another one by now".into(),
            )
            .set_hint(
                "A schema or relation was renamed or replaced. Put it back, or have the inbox's owner call attach_inbox() \
                 again.",
            ),
            Error::Altered => report(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "a table was altered while it was written".into(),
            )
            .set_hint("Try again."),
            Error::Dropped => report(Code::ERRCODE_UNDEFINED_TABLE, "the relation was dropped".into()),
            Error::NoBlocks => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "a batch has at least one block".into())
            }
            Error::NotATable { relation } => {
                report(Code::ERRCODE_WRONG_OBJECT_TYPE, format!("{relation} is not a table"))
                    .set_hint("Re-mask the table that stores the rows.")
            }
            Error::NotAllTables { relation } => report(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("not all rows of {relation} are in tables of its own"),
            )
            .set_hint(
                "Re-mask the tables that inherit from it one by one, and foreign partitions where they are.",
            ),
            Error::HiddenRows { relation } => report(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("row-level security hides rows of {relation}"),
            )
            .set_hint("Re-mask it as its owner, or as a role with BYPASSRLS."),
            Error::NotAText { column } => report(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{column}\" is not of a text type, so it has no masks"),
            ),
            Error::MasksComeBack { relation, passes } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{relation} has masks of other keys after {passes} passes"),
            )
            .set_hint(
                "A session that has not seen the new primary key still makes them, or a trigger puts them back.",
            ),
            Error::NoRelation { relation } => {
                report(Code::ERRCODE_UNDEFINED_TABLE, format!("relation \"{relation}\" does not exist"))
            }
            Error::NoSchema { inbox } => report(
                Code::ERRCODE_INVALID_SCHEMA_NAME,
                format!("no schema has been selected to create \"{inbox}\" in"),
            )
            .set_hint("Give the inbox a name with one schema."),
            Error::Unlogged { relation } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{relation} is unlogged: after a crash it is empty, and its messages are deleted"),
            )
            .set_hint("ALTER TABLE ... SET LOGGED, or attach the inbox with allow_unlogged => true."),
            Error::NotBound { inbox } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("inbox \"{inbox}\" is not as its owner attached it"),
            )
            .set_hint(
                "Its target or rejects table was renamed or replaced, or its trigger was changed. Have the owner call \
                 attach_inbox() again.",
            ),
            Error::ColumnWithoutRule { column } => report(
                Code::ERRCODE_NOT_NULL_VIOLATION,
                format!("column \"{column}\" is not null and has neither rule nor default"),
            )
            .set_hint("Every event would be a reject: give the column a rule or a default."),
            Error::Definition(error) => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, format!("the rules of an inbox are wrong: {error}"))
                    .set_hint(
                        "Rules are a JSON object from columns to {\"copy\": key}, {\"mask\": key}, {\"mask\": {\"key\": \
                         key, \"scheme\": scheme}}, {\"version\": key}, \"sent_date\", \"sent_at\" or \"message_id\".",
                    )
            }
            Error::TargetKind { target } => report(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{target}\" cannot be the target of an inbox"),
            )
            .set_hint("A target is a table, partitioned table, foreign table, or a view without INSTEAD OF triggers."),
            Error::UnknownColumn { column, target, columns } => report(
                Code::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of a rule does not exist in \"{target}\""),
            )
            .set_hint(format!("Its columns are {}.", columns.join(", "))),
            Error::GeneratedColumn { column } => report(
                Code::ERRCODE_GENERATED_ALWAYS,
                format!("column \"{column}\" is generated: no rule can fill it"),
            ),
            Error::ColumnType { column, found, rule, allowed } => report(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{column}\" of type {found} cannot be filled by rule \"{rule}\""),
            )
            .set_hint(format!("\"{rule}\" fills columns of type {allowed}.")),
            Error::NoRules => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "an inbox needs at least one rule".into())
            }
            Error::NoUniqueIndex { relation, columns } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{relation}\" has no unique index by which a redelivered message would be found"),
            )
            .set_hint(format!("CREATE UNIQUE INDEX ON {relation} ({columns}), neither partial nor deferrable.")),
            Error::RejectsColumns { rejects } => report(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("\"{rejects}\" does not have the columns of a rejects table"),
            )
            .set_hint(
                "It needs message_id uuid, sent_at timestamptz, reason text, masked_body text and rejected_at \
                 timestamptz, and no other column that must be given. The first two and masked_body must take NULL.",
            ),
            Error::NoCopy { target, obstacle } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{target}\" cannot be flushed to by COPY: {obstacle}"),
            )
            .set_hint("Attach the inbox with flush => 'auto' or 'insert'."),
            Error::UnknownFlush => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "there is no such way to flush".into())
                    .set_hint("flush is 'auto', 'copy' or 'insert'.")
            }
            Error::UnknownEnvelope => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "there is no such envelope".into())
                    .set_hint("envelope is 'none' or 'sns'.")
            }
            Error::NotAPointer => report(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "the place of the event is not a JSON pointer of at most 32 parts".into(),
            )
            .set_hint(
                "event is '' for the whole text, or a / before each key or index, as in '/detail/login'; in a key ~ is \
                 written ~0 and / is written ~1 (RFC 6901).",
            ),
            Error::RowsSwallowed { relation, missing } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{missing} rows inserted into \"{relation}\" are not there"),
            )
            .set_hint(
                "A trigger or rule on the table drops them, a policy hides them, or an extension keeps COPY from storing \
                 them: the events would be lost.",
            ),
            Error::Spi(error) => report(Code::ERRCODE_INTERNAL_ERROR, error.to_string()),
            Error::Internal(what) => report(Code::ERRCODE_INTERNAL_ERROR, what.into()),
        }
    }
}

impl NoRing {
    /// The report. It names the file only where `path` says that whoever gets it may know; the server's log has it always.
    pub(crate) fn report(&self, path: bool) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let name = |origin: &Origin| match origin {
            Origin::File(file) if path => format!("key ring {file:?}"),
            Origin::File(_) => "the key ring's file".into(),
            Origin::Command => "what pg_mask.keyring_command printed".into(),
        };
        let report = |code: Code, message: String| ErrorReport::new(code, message, "pg_mask");
        match self {
            Self::NotConfigured => {
                report(Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "there is no key ring".into()).set_hint(
                    "Set pg_mask.keyring_file or pg_mask.keyring_command in postgresql.conf, and reload.",
                )
            }
            Self::BothConfigured => report(
                Code::ERRCODE_CONFIG_FILE_ERROR,
                "pg_mask.keyring_file and pg_mask.keyring_command are both set".into(),
            )
            .set_hint("Only one of them can say where the key ring is."),
            Self::Unreadable(origin, error) => report(
                if error.kind() == std::io::ErrorKind::NotFound {
                    Code::ERRCODE_UNDEFINED_FILE
                } else {
                    Code::ERRCODE_IO_ERROR
                },
                format!("{} cannot be read: {error}", name(origin)),
            ),
            Self::Exposed(origin) => report(
                Code::ERRCODE_CONFIG_FILE_ERROR,
                format!("{} is not private", name(origin)),
            )
            .set_hint(
                "It must be a regular file with permissions u=rw (0600) or less if the server's user owns it, or \
                 u=rw,g=r (0640) or less if root does.",
            ),
            Self::Failed(why) => report(
                Code::ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
                format!("pg_mask.keyring_command failed: {why}"),
            )
            .set_hint("What it said of that itself is in the server's log."),
            Self::TooLong(origin) => {
                report(Code::ERRCODE_CONFIG_FILE_ERROR, format!("{} is longer than any key ring", name(origin)))
            }
            Self::Wrong(origin, wrong) => {
                report(Code::ERRCODE_CONFIG_FILE_ERROR, format!("{}: {wrong}", name(origin))).set_hint(
                    "A key ring is {\"primary\": id, \"keys\": [{\"id\": id, \"key\": 64 bytes in base64, \
                     \"state\": \"active\" or \"retired\"}]}.",
                )
            }
        }
    }
}

/// Whether the current user may see settings that are not everybody's to see.
pub(crate) fn may_see_settings() -> bool {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: a plain call with a role that every cluster has.
    unsafe {
        pg_sys::has_privs_of_role(pg_sys::GetUserId(), pg_sys::Oid::from(pg_sys::ROLE_PG_READ_ALL_SETTINGS))
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
    /// The value, or the error raised as Postgres raises its own.
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

/// Writes a line to the server's log, to no client, and without what Postgres adds to lines: the statement, which may have
/// values in it, and the context, which may have parameters.
pub(crate) fn log_alone(line: &str) {
    #[expect(unsafe_code, reason = "called by Postgres")]
    #[pg_guard]
    unsafe extern "C-unwind" fn hide(_argument: *mut std::ffi::c_void) {
        // SAFETY: Postgres calls this while it makes a report, which is what these two change.
        unsafe {
            pg_sys::errhidestmt(true);
            pg_sys::errhidecontext(true);
        }
    }
    let mut alone = pg_sys::ErrorContextCallback {
        previous: std::ptr::null_mut(),
        callback: Some(hide),
        arg: std::ptr::null_mut(),
    };
    #[expect(unsafe_code, reason = "sets a variable of the backend")]
    // SAFETY: what is set is put back; a report of this level returns.
    unsafe {
        let context = pg_sys::error_context_stack;
        pg_sys::error_context_stack = &raw mut alone;
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, line.to_owned(), "pg_mask")
            .report(PgLogLevel::LOG_SERVER_ONLY);
        pg_sys::error_context_stack = context;
    }
}

/// `names` for a hint: quoted where SQL needs it.
pub(crate) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| pgrx::spi::quote_identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns a SQLSTATE as its five characters: six bits each, the first in the lowest bits (`MAKE_SQLSTATE` in elog.h).
pub(crate) fn sqlstate(code: i32) -> String {
    (0..5).map(|place| char::from(b'0' + u8::try_from(code >> (6 * place) & 0x3f).unwrap_or(0))).collect()
}

/// Returns the name of a SQLSTATE's condition as PL/pgSQL has it, `unique_violation`; `error` where it has none.
pub(crate) fn condition(code: i32) -> String {
    let known = PgSqlErrorCode::from(code);
    if known as i32 == code {
        format!("{known:?}").trim_start_matches("ERRCODE_").to_lowercase()
    } else {
        "error".into()
    }
}
