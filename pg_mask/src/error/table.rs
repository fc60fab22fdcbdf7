//! The SQLSTATE, message and hint of each error.

use std::borrow::Cow;

use masking::scheme;
use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;

use super::no_ring::may_see_settings;
use super::{COLUMNS_HINT, Error, NOT_BOUND_HINT, condition};

impl From<Error> for ErrorReport {
    #[expect(clippy::too_many_lines, reason = "an arm for each error, and nothing else")]
    fn from(error: Error) -> Self {
        match error {
            Error::Caught(error) => error.rethrow(),
            Error::NotAToken => hinted(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "the text is not a masked value",
                format!("A masked value is what mask_pii() made: {}.", scheme::forms()),
            ),
            Error::NotUtf8 => hinted(
                Code::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
                "a text is not valid UTF-8",
                "COPY with ENCODING 'SQL_ASCII', and settings of a connection, take bytes that Postgres does not check.",
            ),
            Error::UnknownKey => hinted(
                Code::ERRCODE_UNDEFINED_OBJECT,
                "the value was masked under a key that is not on the key ring",
                "Find the key's id with mask_key(). Put that key back on the ring, retired if need be, and reload.",
            ),
            Error::NotAuthentic => hinted(
                Code::ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
                "the masked value is not authentic",
                "It was changed after it was masked, or another key has the id of the one that masked it.",
            ),
            Error::NoRing(why) => why.report(may_see_settings()),
            Error::UnknownScheme => hinted(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "there is no such scheme",
                format!("A scheme is {}.", scheme::names('\'')),
            ),
            Error::OtherPrimary { scheme } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the primary key of the key ring is not for the scheme {}", scheme.name()),
                "Make a key for this scheme the primary key, or mask by the scheme of the primary key.",
            ),
            Error::KeyedMaskDenied => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to mask values under a key",
                "Grant EXECUTE on mask_pii(text, text): to the current role, or to the inbox's owner.",
            ),
            Error::UnmaskLimit { limit } => hinted(
                Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                format!("the transaction can unmask at most {limit} values"),
                "Unmask fewer values, or have a superuser raise pg_mask.unmask_limit with ALTER ROLE.",
            ),
            Error::Doubtful { code } => hinted(
                code,
                format!("an event could not be stored: {}", condition(code as i32)),
                "Checks of the target refuse the row of a trial, so nothing tells whether the event or the set-up is at fault. \
                 Insert an event that becomes a row: later trials copy it.",
            ),
            Error::TrialRefused => {
                plain(Code::ERRCODE_STRING_DATA_RIGHT_TRUNCATION, "the event of the trial became no row")
            }
            Error::EventTooLarge { limit } => hinted(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("the event is larger than pg_mask.max_event_size, {limit} bytes"),
                "Raise pg_mask.max_event_size, which a superuser can set, or send smaller events.",
            ),
            // Postgres words its own error this way.
            Error::OutOfMemory => plain(Code::ERRCODE_OUT_OF_MEMORY, "out of memory"),
            Error::NoPurpose => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "permission denied to unmask values without a purpose",
                "Say why you unmask them: SET pg_mask.unmask_purpose = 'ticket 4711'.",
            ),
            Error::SettingNotTaken { name } => hinted(
                Code::ERRCODE_CANT_CHANGE_RUNTIME_PARAM,
                format!("pg_mask cannot be loaded: it cannot take over the setting {name}"),
                "See the warning before this error. Correct the value, set it as a role that can, or leave the parallel \
                 query. Add pg_mask to shared_preload_libraries so that wrong values are refused when they are set.",
            ),
            Error::UnmaskInWorker => hinted(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                "values cannot be unmasked in a parallel worker",
                "Do not declare functions that call unmask_pii() PARALLEL SAFE.",
            ),
            Error::CommandInFlush(what) => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot {what} while an inbox writes its rows"),
                "Remove this command from the triggers and functions of the target.",
            ),
            Error::UnmaskRestricted => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "values cannot be unmasked in a security-restricted operation",
                "ANALYZE, building an index, REFRESH MATERIALIZED VIEW and the flush of an inbox run functions of others. \
                 Unmask values in a query of your own.",
            ),
            Error::NotAnInboxTrigger => hinted(
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "inbox_trigger() is only for the triggers of an inbox",
                "Make an inbox and its triggers with attach_inbox().",
            ),
            Error::NoBatch { inbox } | Error::UnflushedBatch { inbox } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("inbox \"{inbox}\" lacks one of its triggers: its events would be lost"),
                "Make its triggers again with attach_inbox().",
            ),
            Error::InboxColumns { inbox } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("view \"{inbox}\" does not have the columns of an inbox"),
                COLUMNS_HINT,
            ),
            Error::NotAnInbox { inbox } => hinted(
                Code::ERRCODE_DUPLICATE_TABLE,
                format!("relation \"{inbox}\" exists and is not an inbox"),
                "An inbox is a view that attach_inbox() made, without other triggers or rules, of an owner whose rights you \
                 have. Drop what it has besides, or choose another name.",
            ),
            Error::NoInbox { relation } => hinted(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{relation}\" is not an inbox"),
                "Name a view that attach_inbox() has made.",
            ),
            Error::OwnerMayNotUnmask { inbox } => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("the owner of inbox \"{inbox}\" cannot unmask its rejects"),
                "Grant it EXECUTE on unmask_pii(text), and SELECT, UPDATE and DELETE on the rejects table.",
            ),
            Error::OwnerMayNotRemask { relation, owner } => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("the owner of {relation}, {owner}, cannot re-mask"),
                "A superuser's remask_column() runs as the owner of each table. Grant it EXECUTE on remask_pii(text).",
            ),
            Error::SharedRejects { inbox, other } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("inboxes \"{inbox}\" and \"{other}\" have the same rejects table"),
                "Give each inbox its own rejects table: a reject does not name its inbox.",
            ),
            Error::ForeignRejects { relation } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("rejects in foreign table \"{relation}\" cannot be redriven"),
                "Another server removes rejects before this one has stored their events. Move them into a table of this server.",
            ),
            Error::Unreadable { mask, why } => Self::from(*why).set_detail(format!("It is {mask}.")),
            Error::NullArgument(name) => {
                plain(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument \"{name}\" must not be NULL"))
            }
            Error::Replaced => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the name of a relation or function now means another one",
                "A schema or relation was renamed or replaced. Put it back. Or check first who owns the tables of these \
                 names, since attach_inbox() runs their code. Then have the inbox's owner call it again.",
            ),
            Error::TableOfAnother { relation, inbox } => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("{relation} belongs neither to the owner of {inbox} nor to {inbox}"),
                "Its triggers and defaults would run with the rights of the inbox's owner. Look who owns the table, and call \
                 attach_inbox() as the inbox's owner (SET ROLE).",
            ),
            Error::Altered => hinted(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "a table was altered while it was written",
                "Try again.",
            ),
            Error::Dropped => plain(Code::ERRCODE_UNDEFINED_TABLE, "the relation was dropped"),
            Error::NoBlocks => plain(Code::ERRCODE_INVALID_PARAMETER_VALUE, "a batch has at least one block"),
            Error::NotATable { relation } => hinted(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("{relation} is not a table"),
                "Re-mask the table that stores the rows.",
            ),
            Error::NotAllTables { relation } => hinted(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("not all rows of {relation} are in tables of its own"),
                "Re-mask the tables that inherit from it one by one, and foreign partitions where they are.",
            ),
            Error::ProgressHasTriggers => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "table \"remask_progress\" has triggers, which would run with your rights",
                "Drop them, and foreign keys that refer to the table.",
            ),
            Error::HiddenRows { relation } => hinted(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("row-level security hides rows of {relation}"),
                "Re-mask it as its owner, or as a role with BYPASSRLS.",
            ),
            Error::NotAText { column } => plain(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{column}\" is not of a text type, so it has no masks"),
            ),
            Error::MasksComeBack { relation, passes } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{relation} has masks of other keys after {passes} passes"),
                "A session that has not seen the new primary key still makes them, or a trigger puts them back.",
            ),
            Error::NoRelation { relation } => {
                plain(Code::ERRCODE_UNDEFINED_TABLE, format!("relation \"{relation}\" does not exist"))
            }
            Error::NoSchema { inbox } => hinted(
                Code::ERRCODE_INVALID_SCHEMA_NAME,
                format!("no schema has been selected to create \"{inbox}\" in"),
                "Give the inbox a name with one schema.",
            ),
            Error::Unlogged { relation } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{relation} is unlogged: after a crash it is empty, and its messages are deleted"),
                "ALTER TABLE ... SET LOGGED, or attach the inbox with allow_unlogged => true.",
            ),
            Error::NotBound { inbox } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("inbox \"{inbox}\" is not as its owner attached it"),
                NOT_BOUND_HINT,
            ),
            Error::ColumnWithoutRule { column } => hinted(
                Code::ERRCODE_NOT_NULL_VIOLATION,
                format!("column \"{column}\" is not null and has neither rule nor default"),
                "Every event would be a reject: give the column a rule or a default.",
            ),
            Error::Definition(error) => hinted(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the rules of an inbox are wrong: {error}"),
                "Rules are a JSON object from columns to {\"copy\": key}, {\"mask\": key}, {\"mask\": {\"key\": \
                 key, \"scheme\": scheme}}, {\"version\": key}, \"sent_date\", \"sent_at\" or \"message_id\".",
            ),
            Error::TargetKind { target } => hinted(
                Code::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{target}\" cannot be the target of an inbox"),
                "A target is a table, partitioned table, foreign table, or a view without INSTEAD OF triggers.",
            ),
            Error::UnknownColumn { column, target, columns } => hinted(
                Code::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of a rule does not exist in \"{target}\""),
                format!("Its columns are {}.", columns.join(", ")),
            ),
            Error::GeneratedColumn { column } => plain(
                Code::ERRCODE_GENERATED_ALWAYS,
                format!("column \"{column}\" is generated: no rule can fill it"),
            ),
            Error::ColumnType { column, found, rule, allowed } => hinted(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("column \"{column}\" of type {found} cannot be filled by rule \"{rule}\""),
                format!("\"{rule}\" fills columns of type {allowed}."),
            ),
            Error::NoRules => {
                plain(Code::ERRCODE_INVALID_PARAMETER_VALUE, "an inbox needs at least one rule")
            }
            Error::NoUniqueIndex { relation, columns } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{relation}\" has no unique index to find redelivered messages by"),
                format!("CREATE UNIQUE INDEX ON {relation} ({columns}), neither partial nor deferrable."),
            ),
            Error::RejectsColumns { rejects } => hinted(
                Code::ERRCODE_DATATYPE_MISMATCH,
                format!("\"{rejects}\" does not have the columns of a rejects table"),
                "It needs message_id uuid, sent_at timestamptz, reason text, masked_body text and rejected_at \
                 timestamptz, and no other column that must be given. The first two and masked_body must take NULL.",
            ),
            Error::NoCopy { target, obstacle } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{target}\" cannot be flushed to by COPY: {obstacle}"),
                "Attach the inbox with flush => 'auto' or 'insert'.",
            ),
            Error::UnknownFlush => hinted(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "there is no such way to flush",
                "flush is 'auto', 'copy' or 'insert'.",
            ),
            Error::UnknownEnvelope => hinted(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "there is no such envelope",
                "envelope is 'none' or 'sns'.",
            ),
            Error::NotAPointer => hinted(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                "the place of the event is not a JSON pointer of at most 32 parts",
                "event is '' for the whole text, or a / before each key or index, as in '/detail/login'; in a key ~ is \
                 written ~0 and / is written ~1 (RFC 6901).",
            ),
            Error::RowsSwallowed { relation, missing } => hinted(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{missing} rows inserted into \"{relation}\" are not there"),
                "A trigger or rule on the table drops them, a policy hides them, or an extension keeps COPY from storing \
                 them: the events would be lost.",
            ),
            Error::Spi(error) => plain(Code::ERRCODE_INTERNAL_ERROR, error.to_string()),
            Error::Internal(what) => plain(Code::ERRCODE_INTERNAL_ERROR, what),
        }
    }
}

fn plain(code: Code, message: impl Into<Cow<'static, str>>) -> ErrorReport {
    ErrorReport::new(code, message, "pg_mask")
}

fn hinted(code: Code, message: impl Into<Cow<'static, str>>, hint: impl Into<String>) -> ErrorReport {
    plain(code, message).set_hint(hint)
}
