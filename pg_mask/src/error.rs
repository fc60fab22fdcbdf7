//! Every error of the extension, with its SQLSTATE, in one place.
//!
//! None may quote an event, a value of one, or a token: an error goes to the client and into the server's log.
//! Names of relations, columns and keys come from the inbox's definition and may be named.

use std::fmt::Display;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

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
    /// The definition is not the one that the view's owner gave, or of other relations.
    NotBound { inbox: String },
    /// A NOT NULL column without a default that no rule fills: every event would be a reject.
    ColumnWithoutRule { column: String },
    /// The rules, or a trigger's argument, do not read as a definition.
    Definition(serde_json::Error),
    /// The target is of a kind that rows cannot be inserted into.
    TargetKind { target: String },
    /// A rule for a column that the target does not have.
    UnknownColumn { column: String, target: String, columns: Vec<String> },
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

impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        use PgSqlErrorCode as Code;
        let report = |code: Code, message: String| ErrorReport::new(code, message, "pg_mask");
        match error {
            Error::NotAToken => {
                report(Code::ERRCODE_INVALID_PARAMETER_VALUE, "the text is not a masked value".into())
                    .set_hint("unmask_pii() takes what mask_pii() made: base64 with padding, RFC 4648.")
            }
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
            .set_hint("Choose another name for the inbox, or drop the relation."),
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
                        "Rules are a JSON object from columns to {\"copy\": key}, {\"mask\": key}, {\"version\": key}, \
                         \"sent_date\", \"sent_at\" or \"message_id\".",
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
                 timestamptz, and no other column that must be given.",
            ),
            Error::RowsSwallowed { relation, missing } => report(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{missing} rows inserted into \"{relation}\" are not there"),
            )
            .set_hint(
                "A trigger that returns NULL or a rule on the table drops them, or a policy hides them: the events would \
                 be lost.",
            ),
            Error::Spi(error) => report(Code::ERRCODE_INTERNAL_ERROR, error.to_string()),
            Error::Internal(what) => report(Code::ERRCODE_INTERNAL_ERROR, what.into()),
        }
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

/// `names` for a hint: quoted where SQL needs it.
pub(crate) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| pgrx::spi::quote_identifier(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A SQLSTATE as its five characters: six bits each, the first in the lowest bits (`MAKE_SQLSTATE` in elog.h).
pub(crate) fn sqlstate(code: PgSqlErrorCode) -> String {
    let code = code as i32;
    (0..5).map(|place| char::from(b'0' + u8::try_from(code >> (6 * place) & 0x3f).unwrap_or(0))).collect()
}

/// The name of a SQLSTATE's condition as PL/pgSQL has it: `unique_violation`.
pub(crate) fn condition(code: PgSqlErrorCode) -> impl Display {
    format!("{code:?}").trim_start_matches("ERRCODE_").to_lowercase()
}
