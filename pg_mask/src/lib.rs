//! The SQL surface of `pg_mask`, and nothing else. Each function is documented and implemented in the module it calls.
//!
//! | module | holds |
//! |---|---|
//! | `inbox` | `attach_inbox`, the trigger function, batches and their flush, the trial, redriving rejects |
//! | `store` | writing rows to a relation by COPY or INSERT, and classifying the errors |
//! | `counts` | counters of what a statement did with its events |
//! | `keys` | the key ring: reading it and keeping it |
//! | `masks` | masking and unmasking a value under the session's settings and keys |
//! | `remask` | the procedure that re-masks a table, batch by batch |
//! | `audit` | who unmasked how much and why: limited, logged and counted |
//! | `statistics` | counters per inbox and role, in shared memory |
//! | `settings` | `pg_mask.*` |
//! | `pg` | safe functions around Postgres's C functions |
//! | `error` | every error of the extension with its SQLSTATE |
//! | `sql` | SQL that isn't a Rust function: procedures, views, grants |

// Slicing within a character panics with words that quote the text.
#![warn(clippy::string_slice)]

mod audit;
mod counts;
mod error;
mod inbox;
mod keys;
mod masks;
mod pg;
mod remask;
mod settings;
mod statistics;
mod store;

use masking::masker;
use masking::scheme::Scheme;
use masking::token::Token;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use pgrx::{AnyElement, Array};

use error::{Error, Raise};
use inbox::{attach, batch, list, problems, redrive, trial};
use pg::reserve::{self, Allocator, ReserveGuard};
use pg::text::Text;
use pg::{plan, process, relcache, security, utility};

#[cfg(not(panic = "unwind"))]
compile_error!("Postgres errors cross this library as unwinding panics: build it with panic = \"unwind\"");

::pgrx::pg_module_magic!(name, version);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// Called once by each backend that loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    reserve::prepare();
    settings::register().or_raise();
    reserve::register();
    batch::register();
    plan::register();
    relcache::register();
    utility::register();
    audit::register();
    statistics::register();
    if process::is_preloading() {
        keys::preload();
        statistics::preload();
    }
}

extension_sql_file!("sql/bootstrap.sql", bootstrap);

/// Returns the mask of a value under the scheme in `pg_mask.scheme`. Equal values have equal masks, so duplicates stay
/// visible.
///
/// `base64` encodes the UTF-8 bytes (RFC 4648, standard alphabet, padded). It is an encoding: anyone who can read it can
/// reverse it. `aes-siv` encrypts under the ring's primary key, for users who can call `mask_pii(text, text)`.
///
/// A token made under a key of the ring is returned unchanged.
#[pg_extern(stable, strict, parallel_safe)]
fn mask_pii(_room: ReserveGuard, value: Text, call: pg_sys::FunctionCallInfo) -> Text {
    let scheme = settings::default_scheme();
    if scheme.needs_key() {
        security::caller_may_mask_under_a_key(call).or_raise();
    }
    masks::mask(value.as_str().or_raise(), scheme).or_raise()
}

/// Returns the mask of a value under a scheme.
#[pg_extern(stable, strict, parallel_safe, name = "mask_pii")]
fn mask_pii_by(_room: ReserveGuard, value: Text, scheme: Text, call: pg_sys::FunctionCallInfo) -> Text {
    security::caller_may_call(call).or_raise();
    let scheme = Scheme::named(scheme.as_str().or_raise()).ok_or(Error::UnknownScheme).or_raise();
    masks::mask(value.as_str().or_raise(), scheme).or_raise()
}

/// Returns every mask that a value may have: a token for each key, the primary's first, and base64. Any of them can match a
/// row during a migration or a rotation.
///
/// A token is its own only mask: other masks would reveal the value in it.
#[pg_extern(stable, strict, parallel_safe)]
fn mask_pii_all(_room: ReserveGuard, value: Text, call: pg_sys::FunctionCallInfo) -> Vec<String> {
    security::caller_may_call(call).or_raise();
    let value = value.as_str().or_raise();
    let ring = keys::ring_if_any().or_raise();
    masker::all_masks(value, ring.as_deref().map(|ring| &**ring)).map_err(Error::from).or_raise()
}

/// Returns the value that `mask_pii` made a mask from, under any scheme and any key of the ring. Raises an error for any
/// other text, without quoting it. Each call is counted. Settings can log it, limit it, or refuse it without a purpose.
///
/// Not parallel safe, because parallel workers do not count. Due to its cost, Postgres calls it after a sort, so only for
/// the rows that a LIMIT leaves.
#[pg_extern(stable, strict, parallel_restricted, cost = 20)]
fn unmask_pii(_room: ReserveGuard, mask: Text, call: pg_sys::FunctionCallInfo) -> Text {
    security::caller_may_call(call).or_raise();
    if security::is_restricted_operation() {
        error::raise(Error::UnmaskRestricted);
    }
    masks::unmask(mask.as_bytes()).or_raise()
}

/// Re-masks a mask, of any scheme and key, under the ring's primary key. The result never protects less than the mask did.
#[pg_extern(stable, strict, parallel_safe)]
fn remask_pii(_room: ReserveGuard, mask: Text, call: pg_sys::FunctionCallInfo) -> Text {
    security::caller_may_call(call).or_raise();
    let ring = keys::ring().or_raise();
    let mask = mask.as_bytes();
    let remasked = Text::write(masker::remasked_len(mask, &ring), |out| masker::remask(mask, &ring, out));
    remasked.map_err(Error::from).or_raise()
}

/// Returns the id of the key that a mask claims to be made under. Returns NULL for any other text, including base64.
#[pg_extern(immutable, strict, parallel_safe)]
fn mask_key(_room: ReserveGuard, mask: Text) -> Option<Text> {
    Token::parse(mask.as_bytes()).map_err(Error::from).or_raise().map(|token| Text::copy_of(token.key))
}

/// Whether a text has the form of a masked value, for a CHECK constraint that keeps unmasked values out of a column. An
/// unmasked value that happens to be base64 of a text passes too. No key is needed.
#[pg_extern(immutable, strict, parallel_safe)]
fn is_masked(_room: ReserveGuard, value: Text) -> bool {
    masker::is_mask(value.as_bytes()).map_err(Error::from).or_raise()
}

/// Returns the counts of the session's last finished inbox statement. Returns no row if there was none, or if it was rolled
/// back.
///
/// `statement` numbers the session's inbox statements. A caller that sees an unchanged number knows that its own statement
/// never reached the inbox. This happens with `session_replication_role = replica`.
#[pg_extern(volatile, parallel_restricted)]
fn inbox_counts(
    _room: ReserveGuard,
) -> TableIterator<
    'static,
    (name!(statement, i64), name!(stored, i64), name!(duplicate, i64), name!(rejected, i64)),
> {
    TableIterator::new(
        batch::last_counts().map(|last| {
            (last.statement, last.counts.stored, last.counts.duplicate, last.counts.rejected.sum())
        }),
    )
}

/// Returns the rejects of the session's last finished inbox statement by class, for metrics. Class names are stable. Returns
/// no row if there are no rejects.
#[pg_extern(volatile, parallel_restricted)]
fn inbox_reject_classes(
    _room: ReserveGuard,
) -> TableIterator<'static, (name!(class, &'static str), name!(rejected, i64))> {
    let last = batch::last_counts();
    TableIterator::new(last.into_iter().flat_map(|last| last.counts.rejected.nonzero().collect::<Vec<_>>()))
}

/// Returns the counts of each inbox of the database since the server started. The view of this name is built on it, and
/// leaves out dropped inboxes.
#[expect(clippy::type_complexity, reason = "the columns of a row, by name")]
#[pg_extern(volatile, parallel_restricted)]
fn inbox_statistics(
    _room: ReserveGuard,
) -> TableIterator<
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
    TableIterator::new(statistics::inboxes::rows())
}

/// Returns how much each role has unmasked in this database since the server started. The view of this name is built on it,
/// and leaves out dropped roles.
#[expect(clippy::type_complexity, reason = "the columns of a row, by name")]
#[pg_extern(volatile, parallel_restricted)]
fn unmask_statistics(
    _room: ReserveGuard,
) -> TableIterator<
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
    TableIterator::new(statistics::roles::rows())
}

/// Returns each inbox of the database as the catalogs describe it. The view of this name is built on it. `target`, `rejects`
/// and what follows are NULL where an inbox is not as its owner attached it.
#[expect(clippy::type_complexity, reason = "the columns of a row, by name")]
#[pg_extern(stable, parallel_unsafe)]
fn inboxes(
    _room: ReserveGuard,
    call: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (
        name!(inbox, pg_sys::Oid),
        name!(owner, pg_sys::Oid),
        name!(target, Option<pg_sys::Oid>),
        name!(rejects, Option<pg_sys::Oid>),
        name!(rules, Option<pgrx::JsonB>),
        name!(envelope, Option<String>),
        name!(event, Option<String>),
        name!(found_by, Option<Vec<String>>),
        name!(flush, Option<String>),
        name!(copy_obstacle, Option<String>),
    ),
> {
    TableIterator::new(list::rows(security::schema_of_called(call)).or_raise())
}

/// Returns what is wrong with an inbox, or what Postgres cannot show of it. Returns no row if all is well.
#[pg_extern(
    stable,
    strict,
    parallel_unsafe,
    sql = r"
CREATE FUNCTION inbox_problems(inbox regclass) RETURNS TABLE (item text, level text, problem text, hint text)
LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 5 AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"
)]
fn inbox_problems(
    _room: ReserveGuard,
    inbox: pg_sys::Oid,
    call: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (name!(item, &'static str), name!(level, &'static str), name!(problem, String), name!(hint, String)),
> {
    let problems = problems::of(inbox, security::schema_of_called(call)).or_raise();
    TableIterator::new(
        problems
            .into_iter()
            .map(|problem| (problem.item, problem.level.name(), problem.message, problem.hint)),
    )
}

/// Tries whether an inbox takes events. Writes a reject, and a row made from the rules or copied from the target, then rolls
/// both back. Returns true if the row went in, and false if checks of the target refused its values. Raises the error if the
/// set-up is at fault.
///
/// Acts with the privileges of the inbox's owner. The caller needs INSERT on the inbox.
#[pg_extern(
    volatile,
    strict,
    parallel_unsafe,
    sql = r"
CREATE FUNCTION try_inbox(inbox regclass) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"
)]
fn try_inbox(_room: ReserveGuard, inbox: pg_sys::Oid, call: pg_sys::FunctionCallInfo) -> bool {
    let trial = trial::try_inbox(inbox, security::schema_of_called(call)).or_raise();
    trial == trial::Trial::Stored
}

/// Puts rejects back into their inbox, within one transaction. Rejects that are stored now leave the rejects table. Rejects
/// that are still bad become rejects again. Takes the oldest `max_rejects` that meet all given conditions.
///
/// Acts with the privileges of the inbox's owner. The caller needs INSERT on the inbox.
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
#[expect(clippy::too_many_arguments, reason = "they are those of the SQL function")]
fn redrive_rejects(
    _room: ReserveGuard,
    inbox: Option<pg_sys::Oid>,
    reason: Option<Text>,
    rejected_before: Option<TimestampWithTimeZone>,
    rejected_after: Option<TimestampWithTimeZone>,
    message_ids: Option<Array<'_, pgrx::Uuid>>,
    max_rejects: Option<i32>,
    call: pg_sys::FunctionCallInfo,
) -> TableIterator<
    'static,
    (name!(taken, i64), name!(stored, i64), name!(duplicate, i64), name!(rejected, i64)),
> {
    let reason = reason.as_ref().map(|reason| reason.as_str().or_raise());
    let wanted = redrive::Wanted { reason, rejected_before, rejected_after, message_ids, most: max_rejects };
    // NULL is no relation, and neither is OID 0.
    let inbox = inbox.unwrap_or(pg_sys::InvalidOid);
    let (taken, counts) = redrive::redrive(inbox, security::schema_of_called(call), wanted).or_raise();
    TableIterator::once((taken, counts.stored, counts.duplicate, counts.rejected.sum()))
}

/// Creates `inbox`, a view that takes raw events and stores none, and ties it to `target` and `rejects` by `rules`. The
/// rules are a JSON object that maps each column to how it is filled, as in `{"masked_ip": {"mask": "ip"}}`.
///
/// `flush` is how rows are written to the target: `copy`, `insert`, or `auto` (COPY if possible).
///
/// `envelope` is the wrapper around the published text: `none`, or `sns` for an SNS notification. The notification's id and
/// time are then the message's. `event` is a JSON pointer (RFC 6901) to the event in the text: `''` is the whole text. If it
/// points to a string, the event is the JSON in that string.
///
/// `allow_unlogged` permits a target or rejects table that Postgres empties after a crash, although the messages are
/// deleted.
///
/// NULL for one of these four arguments means its default. Attaching an inbox again replaces its definition and keeps its
/// grants.
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
    _room: ReserveGuard,
    inbox: Option<Text>,
    target: Option<Text>,
    rejects: Option<Text>,
    rules: Option<AnyElement>,
    flush: Option<Text>,
    envelope: Option<Text>,
    event: Option<Text>,
    allow_unlogged: Option<bool>,
    call: pg_sys::FunctionCallInfo,
) {
    let [inbox, target, rejects, flush, envelope, event] =
        [&inbox, &target, &rejects, &flush, &envelope, &event]
            .map(|text| text.as_ref().map(|text| text.as_str().or_raise()));
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

extension_sql_file!(
    "sql/functions.sql",
    name = "functions",
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
        inboxes,
        inbox_problems,
        attach_inbox
    ]
);
extension_sql_file!("sql/remask.sql");
extension_sql_file!("sql/inboxes.sql", requires = ["functions"]);
extension_sql_file!("sql/statistics.sql", requires = [inbox_statistics, unmask_statistics]);
extension_sql_file!("sql/privileges.sql", requires = ["functions"]);
extension_sql_file!("sql/grants.sql", finalize);
