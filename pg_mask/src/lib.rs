//! The SQL surface of `pg_mask`, and nothing else: what each function does stands in the module it calls.
//!
//! | file | holds |
//! |---|---|
//! | `attach` | `attach_inbox`: the view and its triggers |
//! | `trigger` | what Postgres hands to the trigger function, made safe to read |
//! | `batch` | the rows of a statement, from its first to its last, through savepoints and errors |
//! | `inbox` | an inbox made ready for a session: its rules checked against the target, its statements prepared |
//! | `catalog` | relations and columns as the catalogs describe them |
//! | `flush` | a batch's rows written to the target, culprits turned into rejects |
//! | `writer` | rows into one relation, set by set |
//! | `rows`, `plan` | values and prepared statements in the forms that Postgres takes |
//! | `security` | acting as the inbox's owner |
//! | `error` | every error of the extension with its SQLSTATE |

mod attach;
mod batch;
mod catalog;
mod error;
mod flush;
mod inbox;
mod plan;
mod rows;
mod security;
mod trigger;
mod writer;

use masking::scheme;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use error::{Error, Raise};

#[cfg(not(panic = "unwind"))]
compile_error!("Postgres errors cross this library as unwinding panics: build it with panic = \"unwind\"");

::pgrx::pg_module_magic!(name, version);

/// Called once by each backend that loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    batch::register();
    inbox::register();
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

/// The mask of a value: equal values have equal masks, so duplicates stay visible.
///
/// With the default scheme it is base64 (RFC 4648, standard alphabet, padded) of the UTF-8 bytes: an encoding, which
/// anyone who can read it can take back.
#[pg_extern(stable, strict, parallel_safe)]
fn mask_pii(value: &str) -> String {
    scheme::mask(value)
}

/// The value that `mask_pii` made a mask from; an error (22023), which does not quote it, for any other text.
#[pg_extern(stable, strict, parallel_safe)]
fn unmask_pii(token: &str) -> String {
    scheme::unmask(token).map_err(|scheme::NotAToken| Error::NotAToken).or_raise()
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
        batch::last_counts()
            .map(|last| (last.statement, last.counts.stored, last.counts.duplicate, last.counts.rejected)),
    )
}

/// Makes `inbox`, a view that takes raw events and stores none, and ties it to `target` and `rejects` by `rules`:
/// a JSON object from each column to be filled to how, as in `{"masked_ip": {"mask": "ip"}}`.
///
/// Attached again, an inbox takes the new definition and keeps its grants.
#[pg_extern(volatile, strict, parallel_unsafe)]
fn attach_inbox(inbox: &str, target: &str, rejects: &str, rules: pgrx::JsonB) {
    attach::attach(inbox, target, rejects, rules.0).or_raise();
}

extension_sql!(
    r"
CREATE FUNCTION inbox_trigger() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'inbox_trigger';
COMMENT ON FUNCTION inbox_trigger() IS 'the trigger of an inbox, which attach_inbox() makes';
COMMENT ON FUNCTION mask_pii(text) IS 'the mask of a value; equal values have equal masks';
COMMENT ON FUNCTION unmask_pii(text) IS 'the value that mask_pii() made a mask from';
COMMENT ON FUNCTION inbox_counts() IS 'what the session''s last inbox statement stored, found duplicate and rejected';
COMMENT ON FUNCTION attach_inbox(text, text, text, jsonb) IS 'make an inbox for a table';
-- Taking a mask back is a right of its own.
REVOKE EXECUTE ON FUNCTION unmask_pii(text) FROM PUBLIC;
",
    name = "inbox_trigger",
    requires = [mask_pii, unmask_pii, inbox_counts, attach_inbox]
);
