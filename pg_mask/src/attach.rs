//! `attach_inbox`: the view of an inbox and its three triggers.

use masking::Rule;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::error::Error;
use crate::inbox::{Definition, Inbox, Relation, select};
use crate::security::as_owner;

/// Makes the inbox, or makes it anew. Acts as the caller, who comes to own the view.
///
/// The definition is checked first, down to the rights of the owner-to-be, so that what is wrong with it shows here
/// and not when the first events come.
pub(crate) fn attach(
    inbox: &str,
    target: &str,
    rejects: &str,
    rules: serde_json::Value,
) -> Result<(), Error> {
    let definition = Definition {
        target: Relation::open(target)?.name,
        rejects: Relation::open(rejects)?.name,
        rules: serde_json::from_value(rules).map_err(Error::Definition)?,
    };
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend.
    let user = unsafe { pg_sys::GetUserId() };
    as_owner(user, || {
        let inbox = Inbox::compile(&definition)?;
        inbox.target.probe()?;
        inbox.rejects.probe()
    })?;

    let inbox = identifier(inbox)?;
    refuse_what_is_no_inbox(&inbox)?;
    let argument = serde_json::to_string(&definition).map_err(Error::Definition)?;
    let function = format!("{}.inbox_trigger", quote_identifier(extension_schema()?));
    let body = quote_literal(argument);
    for statement in [
        // From no table, so that Postgres cannot take it for an updatable view and write rows anywhere by itself.
        format!(
            "CREATE OR REPLACE VIEW {inbox} (message_id, sent_at, body) AS
             SELECT NULL::pg_catalog.uuid, NULL::pg_catalog.timestamptz, NULL::pg_catalog.text WHERE false"
        ),
        format!("COMMENT ON VIEW {inbox} IS 'inbox of pg_mask: takes raw events, stores none'"),
        format!(
            "CREATE OR REPLACE TRIGGER pg_mask_open BEFORE INSERT ON {inbox}
             FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        ),
        format!(
            "CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON {inbox}
             FOR EACH ROW EXECUTE FUNCTION {function}({body})"
        ),
        format!(
            "CREATE OR REPLACE TRIGGER pg_mask_close AFTER INSERT ON {inbox}
             FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        ),
    ] {
        Spi::run(&statement)?;
    }
    if !definition.rules.values().any(|rule| *rule == Rule::MessageId) {
        pgrx::warning!("no rule fills a column with message_id: a redelivered message will be stored again");
    }
    Ok(())
}

/// A name as the user wrote it, schema-qualified or not, made safe to stand in SQL.
fn identifier(name: &str) -> Result<String, Error> {
    let quoted = select(
        "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(part), '.' ORDER BY n)
         FROM pg_catalog.unnest(pg_catalog.parse_ident($1)) WITH ORDINALITY AS parts(part, n)",
        &[name.into()],
        |row| row.get::<String>(1),
    )?;
    quoted.into_iter().flatten().next().ok_or(Error::Internal("a name has no parts"))
}

/// Replacing a view of somebody's own by an inbox would lose it.
fn refuse_what_is_no_inbox(inbox: &str) -> Result<(), Error> {
    let others = select(
        "SELECT 1 FROM pg_catalog.pg_class c
         WHERE c.oid = pg_catalog.to_regclass($1) AND NOT EXISTS (
             SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
             WHERE t.tgrelid = c.oid AND p.proname = 'inbox_trigger')",
        &[inbox.into()],
        |row| row.get::<i32>(1),
    )?;
    if others.is_empty() { Ok(()) } else { Err(Error::NotAnInbox { inbox: inbox.to_owned() }) }
}

fn extension_schema() -> Result<String, Error> {
    let schemas = select(
        "SELECT n.nspname::text FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_mask'",
        &[],
        |row| row.get::<String>(1),
    )?;
    schemas.into_iter().flatten().next().ok_or(Error::Internal("the extension is not in the catalogs"))
}
