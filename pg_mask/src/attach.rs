//! `attach_inbox`: the view of an inbox and its three triggers.

use masking::{NotAPointer, Rule};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::catalog::{Relation, select};
use crate::error::Error;
use crate::inbox::{Definition, Inbox, NotByCopy, hash};
use crate::security::{as_owner, may_mask_under_a_key};
use crate::settings::default_scheme;

/// Makes the inbox, or makes it anew. Acts as the caller, who comes to own a new view.
///
/// The definition is checked first, down to the rights of the owner-to-be, so that what is wrong with it shows here
/// and not when the first events come.
pub(crate) fn attach(
    inbox: &str,
    target: &str,
    rejects: &str,
    rules: serde_json::Value,
    flush: &str,
    envelope: &str,
    event: &str,
) -> Result<(), Error> {
    let definition = Definition {
        target: Relation::open(target)?.name,
        rejects: Relation::open(rejects)?.name,
        rules: serde_json::from_value(rules).map_err(Error::Definition)?,
        flush: serde_json::from_value(flush.into()).map_err(|_| Error::UnknownFlush)?,
        envelope: serde_json::from_value(envelope.into()).map_err(|_| Error::UnknownEnvelope)?,
        event: event.parse().map_err(|NotAPointer| Error::NotAPointer)?,
    };
    let (inbox, owner) = named(inbox)?;
    let (sees_index, copy_in) = as_owner(owner, || {
        let inbox = Inbox::compile(&definition)?;
        if inbox.rules.need_keys(default_scheme()) {
            may_mask_under_a_key(extension_schema()?.0)?;
        }
        inbox.target.probe()?;
        inbox.rejects.probe()?;
        Ok::<_, Error>((inbox.sees_index, inbox.copy_in))
    })?;

    let argument = serde_json::to_string(&definition).map_err(Error::Definition)?;
    let function = format!("{}.inbox_trigger", quote_identifier(extension_schema()?.1));
    let body = quote_literal(&argument);
    for statement in [
        // The tables stand there so that the inbox is bound to them and not to their names, and the hash so that only
        // the view's owner can change the definition: see `inbox::Binding`. From two tables, so that Postgres cannot
        // take it for an updatable view and write rows anywhere by itself.
        format!(
            "CREATE OR REPLACE VIEW {inbox} (message_id, sent_at, body) AS
             SELECT NULL::pg_catalog.uuid, NULL::pg_catalog.timestamptz, NULL::pg_catalog.text
             FROM {} AS target, {} AS rejects WHERE false AND {} IS NULL",
            definition.target,
            definition.rejects,
            quote_literal(hash(&argument)?)
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
    } else if !sees_index {
        pgrx::warning!(
            "what stands behind {} must have a unique index on the message id: else a redelivered message will be \
             stored again",
            definition.target
        );
    }
    if let Err(NotByCopy::Obstacle(obstacle)) = copy_in {
        pgrx::notice!("rows go into {} by INSERT, which is slower than COPY: {obstacle}", definition.target);
    }
    Ok(())
}

/// The inbox's name, made safe to stand in SQL, and who owns it or will own it.
///
/// Replacing somebody's own view by an inbox would lose it, so what exists and is no inbox is an error.
fn named(name: &str) -> Result<(String, pg_sys::Oid), Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: reads a variable of the backend.
    let user = unsafe { pg_sys::GetUserId() };
    // Who may not act as its owner is told so by Postgres, when the view is replaced.
    let existing = select(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
                CASE WHEN pg_catalog.pg_has_role(c.relowner, 'USAGE') THEN c.relowner END,
                EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
                        WHERE t.tgrelid = c.oid AND p.proname = 'inbox_trigger' AND c.relkind = 'v')
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = pg_catalog.to_regclass($1)",
        &[name.into()],
        |row| Ok((row.get::<String>(1)?, row.get::<pg_sys::Oid>(2)?, row.get::<bool>(3)?)),
    )?;
    match existing.into_iter().next() {
        Some((Some(inbox), owner, Some(true))) => Ok((inbox, owner.unwrap_or(user))),
        Some(_) => Err(Error::NotAnInbox { inbox: name.to_owned() }),
        None => Ok((identifier(name)?, user)),
    }
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

/// The extension's schema, and its name.
fn extension_schema() -> Result<(pg_sys::Oid, String), Error> {
    let schemas = select(
        "SELECT n.oid, n.nspname::text FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_mask'",
        &[],
        |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<String>(2)?)),
    )?;
    match schemas.into_iter().next() {
        Some((Some(schema), Some(name))) => Ok((schema, name)),
        _ => Err(Error::Internal("the extension is not in the catalogs")),
    }
}
