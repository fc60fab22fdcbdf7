//! The SQL surface of `pg_mask`, and nothing else: what each function does stands in the module it calls.
//!
//! | file | holds |
//! |---|---|
//! | `attach` | `attach_inbox`: the view and its triggers |
//! | `trigger` | what Postgres hands to the trigger function, made safe to read |
//! | `unguarded` | functions of Postgres that are called for each row or value, without pgrx's guard |
//! | `batch` | the rows of a statement, from its first to its last, through savepoints and errors |
//! | `inbox` | an inbox made ready for a session: its rules checked against the target, its statements prepared |
//! | `watch` | which relations have changed since |
//! | `catalog` | relations and columns as the catalogs describe them |
//! | `rejects` | the classes of rejects |
//! | `redrive` | rejects put back into their inbox |
//! | `statistics`, `statistics.sql` | what each inbox has done and each role has unmasked, in shared memory |
//! | `flush` | a batch's rows written to the target, culprits turned into rejects |
//! | `trial` | a made-up row written and rolled back, which tells a fault of the set-up from a fault of an event |
//! | `attached` | an inbox found by its view |
//! | `writer` | rows into any relation by INSERT, set by set |
//! | `copy_in` | rows into a table by COPY, which is quicker |
//! | `key` | by what a row is known as the one of a message |
//! | `values`, `arrays`, `text` | values in the forms that Postgres takes |
//! | `plan` | prepared statements, bound to relations and not to their names |
//! | `keys` | the key ring: where it is read from and kept |
//! | `audit` | who unmasked how much and why: limited, logged and counted |
//! | `remask`, `remask.sql` | the procedure that re-masks a table, batch by batch |
//! | `sql/privileges.sql` | the view of who can see PII, and by what way |
//! | `sql/grants.sql` | all privileges on the extension's own functions, tables and views |
//! | `message` | the end of what the client has sent |
//! | `settings` | `pg_mask.*` |
//! | `security` | acting as the inbox's owner |
//! | `error` | every error of the extension with its SQLSTATE |

mod arrays;
mod attach;
mod attached;
mod audit;
mod batch;
mod catalog;
mod copy_in;
mod cursors;
mod error;
mod flush;
mod inbox;
mod key;
mod keys;
mod message;
mod plan;
mod redrive;
mod rejects;
mod remask;
mod security;
mod settings;
mod statistics;
mod text;
mod trial;
mod trigger;
mod unguarded;
mod values;
mod watch;
mod writer;

use masking::keyring::{KeyRing, Token};
use masking::memory;
use masking::scheme::{self, Masker, Scheme};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use pgrx::{AnyElement, Array};

use error::{Error, Raise};
use text::Text;

#[cfg(not(panic = "unwind"))]
compile_error!("Postgres errors cross this library as unwinding panics: build it with panic = \"unwind\"");

::pgrx::pg_module_magic!(name, version);

/// Called once by each backend that loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register().or_raise();
    batch::register();
    plan::register();
    watch::register();
    audit::register();
    statistics::register();
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the process.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        keys::preload();
        statistics::preload();
    }
}

extension_sql!(
    r"
DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'pg_mask needs a database whose encoding is UTF8',
            HINT = 'Masks are made over UTF-8 bytes: create the database with ENCODING ''UTF8''.';
    END IF;
END
$$;
",
    name = "encoding",
    bootstrap
);

/// The mask of a value by the scheme of `pg_mask.scheme`: equal values have equal masks, so duplicates stay visible.
///
/// `base64` is RFC 4648, standard alphabet, padded, of the UTF-8 bytes: an encoding, which anyone who can read it can take
/// back. `aes-siv` encrypts under the primary key of the ring, and is for those who may call `mask_pii(text, text)`.
///
/// A token that a key of the ring made stays as it is.
#[pg_extern(stable, strict, parallel_safe)]
fn mask_pii(value: Text, call: pg_sys::FunctionCallInfo) -> Text {
    let scheme = settings::default_scheme();
    if scheme != Scheme::Base64 {
        security::caller_may_mask_under_a_key(call).or_raise();
    }
    mask(value.as_str(), scheme).or_raise()
}

/// The mask of a value by a scheme.
#[pg_extern(stable, strict, parallel_safe, name = "mask_pii")]
fn mask_pii_by(value: Text, scheme: Text) -> Text {
    let scheme = match scheme.as_str() {
        "base64" => Scheme::Base64,
        "aes-siv" => Scheme::AesSiv,
        _ => error::raise(Error::UnknownScheme),
    };
    mask(value.as_str(), scheme).or_raise()
}

fn mask(value: &str, scheme: Scheme) -> Result<Text, Error> {
    let value = value.as_bytes();
    let ring = match scheme {
        Scheme::AesSiv => Some(keys::ring()?),
        Scheme::Base64 if scheme::is_keyed(value) => keys::ring_if_any()?,
        Scheme::Base64 => None,
    };
    let masker = Masker::new(scheme, ring.as_deref().map(|ring| &**ring));
    let masker = masker.ok_or(Error::Internal("a scheme has no keys"))?;
    Text::write(masker.masked_len(value), |out| Ok(masker.mask(value, out)?))
}

/// Every mask that a value may have: a token of each key, the primary's first, and base64. A row is found by any of
/// them in the middle of a migration or a rotation.
///
/// A token has no mask but itself: others would give away what is in it.
#[pg_extern(stable, strict, parallel_safe)]
fn mask_pii_all(value: &str) -> Vec<String> {
    masks(value).or_raise()
}

fn masks(value: &str) -> Result<Vec<String>, Error> {
    let bytes = value.as_bytes();
    let ring = keys::ring_if_any()?;
    if let Some(ring) = &ring
        && ring.is_token(bytes)?
    {
        return Ok(vec![memory::copied(value)?]);
    }
    let mut masks = ring.iter().flat_map(|ring| ring.tokens(bytes)).collect::<Result<Vec<_>, _>>()?;
    masks.push(scheme::base64::masked(bytes)?);
    Ok(masks)
}

/// The value that `mask_pii` made a mask from, by whatever scheme and key of the ring; an error, which does not quote it, for
/// any other text. It is counted. Settings make it logged, limited, and refused without a purpose.
///
/// Not parallel safe, since workers do not count. For its cost Postgres calls it after a sort, and so only for the rows that a LIMIT
/// leaves.
#[pg_extern(stable, strict, parallel_restricted, cost = 20)]
fn unmask_pii(mask: Text) -> Text {
    if security::is_restricted_operation() {
        error::raise(Error::UnmaskRestricted);
    }
    unmask(mask.as_str()).or_raise()
}

fn unmask(mask: &str) -> Result<Text, Error> {
    audit::count()?;
    let mask = mask.as_bytes();
    let value = if scheme::is_keyed(mask) {
        let ring = keys::ring()?;
        Text::write(KeyRing::unmasked_len(mask), |out| ring.unmask(mask, out))
    } else {
        Text::write(scheme::base64::unmasked_len(mask), |out| scheme::base64::unmask(mask, out))
    };
    Ok(value?)
}

/// What a mask, of whatever scheme and key, becomes under the primary key of the ring. Never anything that protects less.
#[pg_extern(stable, strict, parallel_safe)]
fn remask_pii(mask: &str) -> Text {
    let ring = keys::ring().or_raise();
    let mask = mask.as_bytes();
    let remasked = Text::write(scheme::remasked_len(mask, &ring), |out| scheme::remask(mask, &ring, out));
    remasked.map_err(Error::from).or_raise()
}

/// The id of the key that a mask says it was made under; NULL for any other text, so for base64 too.
#[pg_extern(immutable, strict, parallel_safe)]
fn mask_key(mask: &str) -> Option<&str> {
    Token::parse(mask.as_bytes()).map_err(Error::from).or_raise().map(|token| token.key)
}

/// Whether a text has the form of a masked value, so that a column can be kept free of others. A value that happens to be
/// base64 of a text passes too; no key is needed to tell.
#[pg_extern(immutable, strict, parallel_safe)]
fn is_masked(value: &str) -> bool {
    scheme::is_mask(value.as_bytes()).map_err(Error::from).or_raise()
}

/// What the session's last finished inbox statement did: no row where there is none, or where it was rolled back.
///
/// `statement` numbers the session's inbox statements: a caller that sees the number it saw before knows that its own
/// statement never reached the inbox, as happens with `session_replication_role = replica`.
#[pg_extern(volatile, parallel_restricted)]
fn inbox_counts() -> TableIterator<
    'static,
    (name!(statement, i64), name!(stored, i64), name!(duplicate, i64), name!(rejected, i64)),
> {
    TableIterator::new(
        batch::last_counts().map(|last| {
            (last.statement, last.counts.stored, last.counts.duplicate, last.counts.rejected.sum())
        }),
    )
}

/// The rejects of the same statement by class, which are words that stay: for metrics. No row where there is none.
#[pg_extern(volatile, parallel_restricted)]
fn inbox_reject_classes() -> TableIterator<'static, (name!(class, &'static str), name!(rejected, i64))> {
    let last = batch::last_counts();
    TableIterator::new(last.into_iter().flat_map(|last| last.counts.rejected.some().collect::<Vec<_>>()))
}

/// What each inbox of the database has done since the server started. Behind the view of this name, which leaves out those that
/// are dropped.
#[expect(clippy::type_complexity, reason = "the columns of a row, by name")]
#[pg_extern(volatile, parallel_restricted)]
fn inbox_statistics() -> TableIterator<
    'static,
    (
        name!(inbox, pg_sys::Oid),
        name!(stored, i64),
        name!(duplicate, i64),
        name!(rejected, i64),
        name!(rejected_by_class, pgrx::JsonB),
        name!(last_event_at, Option<TimestampWithTimeZone>),
        name!(since, Option<TimestampWithTimeZone>),
    ),
> {
    let time = |time: i64| TimestampWithTimeZone::try_from(time).ok();
    TableIterator::new(statistics::of_inboxes().into_iter().map(move |of| {
        let by_class = of.rejected.some().map(|(class, rejected)| (class.to_owned(), rejected.into()));
        let by_class = pgrx::JsonB(serde_json::Value::Object(by_class.collect()));
        let (last, since) = (time(of.last_event_at), time(of.since));
        (of.inbox, of.stored, of.duplicate, of.rejected.sum(), by_class, last, since)
    }))
}

/// Returns how much each role has unmasked in this database since the server started. Behind the view of this name, which
/// leaves out roles that are dropped.
#[expect(clippy::type_complexity, reason = "the columns of a row, by name")]
#[pg_extern(volatile, parallel_restricted)]
fn unmask_statistics() -> TableIterator<
    'static,
    (
        name!(role, pg_sys::Oid),
        name!(statements, i64),
        name!(unmasked, i64),
        name!(with_purpose, i64),
        name!(last_at, Option<TimestampWithTimeZone>),
        name!(since, Option<TimestampWithTimeZone>),
    ),
> {
    let time = |time: i64| TimestampWithTimeZone::try_from(time).ok();
    TableIterator::new(statistics::roles::all().into_iter().map(move |of| {
        let (last, since) = (time(of.last_at), time(of.since));
        (of.role, of.statements, of.unmasked.values, of.unmasked.with_purpose, last, since)
    }))
}

/// Tries whether an inbox takes events: writes a reject, and a row made from the rules or copied from the target, and rolls both
/// back. Returns true if the row went in, and false if checks of the target refused it for its values. Raises the error if
/// the set-up is at fault.
///
/// Acts with the rights of the inbox's owner; the caller needs INSERT on the inbox.
#[pg_extern(
    volatile,
    strict,
    parallel_unsafe,
    sql = r"
CREATE FUNCTION try_inbox(inbox regclass) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"
)]
fn try_inbox(inbox: pg_sys::Oid, call: pg_sys::FunctionCallInfo) -> bool {
    let trial = trial::try_inbox(inbox, security::schema_of_called(call)).or_raise();
    trial == trial::Trial::Stored
}

/// Puts rejects back into their inbox, in the same transaction: what is stored now is gone from them, what is still bad
/// becomes a reject again. The oldest `max_rejects` of those that meet all conditions given.
///
/// Acts with the rights of the inbox's owner; the caller needs INSERT on the inbox.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = r"
CREATE FUNCTION redrive_rejects(
    inbox regclass,
    reason text DEFAULT NULL,
    rejected_before timestamptz DEFAULT now(),
    rejected_after timestamptz DEFAULT NULL,
    message_ids uuid[] DEFAULT NULL,
    max_rejects integer DEFAULT 10000
) RETURNS TABLE (taken bigint, stored bigint, duplicate bigint, rejected bigint)
LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"
)]
fn redrive_rejects(
    inbox: Option<pg_sys::Oid>,
    reason: Option<&str>,
    rejected_before: Option<TimestampWithTimeZone>,
    rejected_after: Option<TimestampWithTimeZone>,
    message_ids: Option<Array<'_, pgrx::Uuid>>,
    max_rejects: Option<i32>,
    call: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (name!(taken, i64), name!(stored, i64), name!(duplicate, i64), name!(rejected, i64)),
> {
    let wanted = redrive::Wanted { reason, rejected_before, rejected_after, message_ids, most: max_rejects };
    // NULL is no relation, as 0 is none.
    let inbox = inbox.unwrap_or(pg_sys::InvalidOid);
    let (taken, counts) = redrive::redrive(inbox, security::schema_of_called(call), wanted).or_raise();
    TableIterator::once((taken, counts.stored, counts.duplicate, counts.rejected.sum()))
}

/// Makes `inbox`, a view that takes raw events and stores none, and ties it to `target` and `rejects` by `rules`:
/// a JSON object from each column to be filled to how, as in `{"masked_ip": {"mask": "ip"}}`.
///
/// `flush` is how rows get into the target: `copy`, `insert`, or `auto`, which is by COPY where that is possible.
///
/// `envelope` is what is round the text that was published: `none`, or `sns`, where SNS put it into a notification, whose id
/// and time are then the message's. `event` is where in the text the event stands, a JSON pointer (RFC 6901): `''` is all
/// of it. Where that is a string, the event is the JSON in it.
///
/// `allow_unlogged` takes a target or rejects table that Postgres empties after a crash, although the messages are deleted.
///
/// NULL for one of these four is what it is by default. Attached again, an inbox takes the new definition and keeps its grants.
#[pg_extern(
    volatile,
    parallel_unsafe,
    sql = r"
CREATE FUNCTION attach_inbox(
    inbox text,
    target text,
    rejects text,
    rules jsonb,
    flush text DEFAULT 'auto',
    envelope text DEFAULT 'none',
    event text DEFAULT '',
    allow_unlogged boolean DEFAULT false
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"
)]
#[expect(clippy::too_many_arguments, reason = "they are those of the SQL function")]
fn attach_inbox(
    inbox: Option<&str>,
    target: Option<&str>,
    rejects: Option<&str>,
    rules: Option<AnyElement>,
    flush: Option<&str>,
    envelope: Option<&str>,
    event: Option<&str>,
    allow_unlogged: Option<bool>,
    call: pg_sys::FunctionCallInfo,
) {
    let wanted = attach::Wanted {
        inbox: inbox.ok_or(Error::NullArgument("inbox")).or_raise(),
        target: target.ok_or(Error::NullArgument("target")).or_raise(),
        rejects: rejects.ok_or(Error::NullArgument("rejects")).or_raise(),
        rules: rules.ok_or(Error::NullArgument("rules")).or_raise(),
        flush: flush.unwrap_or("auto"),
        envelope: envelope.unwrap_or("none"),
        event: event.unwrap_or_default(),
        allow_unlogged: allow_unlogged.unwrap_or_default(),
    };
    attach::attach(&wanted, security::schema_of_called(call)).or_raise();
}

extension_sql!(
    r"
CREATE FUNCTION inbox_trigger() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'inbox_trigger';
COMMENT ON FUNCTION inbox_trigger() IS 'the trigger of an inbox, which attach_inbox() makes';
COMMENT ON FUNCTION mask_pii(text) IS 'the mask of a value; equal values have equal masks';
COMMENT ON FUNCTION mask_pii(text, text) IS 'the mask of a value by a scheme: base64 or aes-siv';
COMMENT ON FUNCTION mask_pii_all(text) IS 'every mask that a value may have, to find rows by';
COMMENT ON FUNCTION unmask_pii(text) IS 'the value that mask_pii() made a mask from';
COMMENT ON FUNCTION remask_pii(text) IS 'what a mask becomes under the primary key';
COMMENT ON FUNCTION mask_key(text) IS 'the id of the key that made a mask';
COMMENT ON FUNCTION is_masked(text) IS 'whether a text has the form of a masked value';
COMMENT ON FUNCTION inbox_counts() IS 'what the session''s last inbox statement stored, found duplicate and rejected';
COMMENT ON FUNCTION inbox_reject_classes() IS 'the rejects of that statement by class';
COMMENT ON FUNCTION redrive_rejects(regclass, text, timestamptz, timestamptz, uuid[], integer) IS
    'put rejects back into their inbox';
COMMENT ON FUNCTION try_inbox(regclass) IS 'whether an inbox takes events, by a row that is rolled back';
COMMENT ON FUNCTION attach_inbox(text, text, text, jsonb, text, text, text, boolean) IS 'make an inbox for a table';
",
    name = "inbox_trigger",
    requires = [
        mask_pii,
        mask_pii_by,
        mask_pii_all,
        unmask_pii,
        remask_pii,
        mask_key,
        is_masked,
        inbox_counts,
        inbox_reject_classes,
        redrive_rejects,
        try_inbox,
        attach_inbox
    ]
);

extension_sql_file!("remask.sql");
extension_sql_file!("statistics.sql", requires = [inbox_statistics, unmask_statistics]);
extension_sql_file!("sql/privileges.sql", requires = ["inbox_trigger"]);
extension_sql_file!("sql/grants.sql", finalize);
