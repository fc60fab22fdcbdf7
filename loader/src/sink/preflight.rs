//! Is the database ready to take events? Each check says what to do when it is not.
//!
//! All of it reads catalogs that every role can read: the loader's role may INSERT into the inbox and nothing
//! else.

use tokio_postgres::types::Oid;
use tokio_postgres::{Client, Row};
use tracing::warn;

use super::fault::{self, Fault, Kind, describe};
use crate::error::Error;

/// The statements that batches are stored with, naming things as the catalog does.
pub(super) struct Statements {
    pub(super) begin: String,
    pub(super) copy: String,
    pub(super) counts: String,
}

/// The columns of an inbox, in the order of the COPY data.
const COLUMNS: [(&str, &str); 3] = [("message_id", "uuid"), ("sent_at", "timestamptz"), ("body", "text")];

/// Where `synchronous_commit` is off, COMMIT is answered before the batch is on disk, and the messages would be deleted:
/// a crash would lose them. For each transaction, since the setting can change while the loader runs, and behind a
/// connection pooler the session can.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
    WHERE pg_catalog.current_setting('synchronous_commit') = 'off'";

/// A duplicate is deleted as well, and the row that it doubles must be as safe then as a new one. It may not be: its
/// COMMIT may still wait for a synchronous standby, or have been broken off in that. COMMIT of a transaction that wrote
/// nothing waits for nobody; with this in it, it waits for all WAL before it.
const DURABLE_TOO: &str =
    "CASE WHEN duplicate > 0 THEN pg_catalog.pg_logical_emit_message(true, 'pg_mask', '') END::text";

const SESSION: &str = "
    SELECT current_user::text, current_database()::text, pg_is_in_recovery(),
           current_setting('transaction_read_only') = 'on',
           current_setting('session_replication_role'),
           current_setting('synchronous_commit') = 'off'";

const EXTENSION: &str = "
    SELECT e.oid, quote_ident(n.nspname), n.nspname::text, has_schema_privilege(n.oid, 'USAGE'),
           (SELECT has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc p
            WHERE p.pronamespace = n.oid AND p.proname = 'inbox_counts' AND p.pronargs = 0)
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_mask'";

/// Columns are asked for by number, so that one which is missing or dropped is no error of the query.
const INBOX: &str = "
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind = 'v',
           has_schema_privilege(n.oid, 'USAGE'),
           EXISTS (SELECT FROM pg_trigger t
                   JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
                        AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = $2 AND d.deptype = 'e'
                   WHERE t.tgrelid = c.oid AND t.tgtype & 64 <> 0),
           (SELECT array_agg(a.attname || ' ' || t.typname)
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT bool_and(has_column_privilege(c.oid, a.attnum, 'INSERT')) FROM pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($3))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1";

/// Schemas that have a relation of this name, to help where it is not on the search path.
const ELSEWHERE: &str = "
    SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = $1 AND c.relkind = 'v'";

/// Looks at the session, the extension and the inbox, and returns the statements to use.
pub(super) async fn run(client: &Client, inbox: &str) -> Result<Statements, Fault> {
    let (user, database) = session(client).await?;
    let (extension, schema) = extension(client, &user, &database).await?;
    let inbox = find(client, inbox, &user, &database).await?;
    let inbox = examine(client, inbox, extension, &user).await?;
    let columns = COLUMNS.map(|(name, _)| name).join(", ");
    Ok(Statements {
        begin: format!("BEGIN; {DURABLE}; SELECT statement FROM {schema}.inbox_counts()"),
        copy: format!("COPY {inbox} ({columns}) FROM STDIN (FORMAT binary)"),
        counts: format!(
            "SELECT statement, stored, duplicate, rejected, {DURABLE_TOO} FROM {schema}.inbox_counts()"
        ),
    })
}

async fn session(client: &Client) -> Result<(String, String), Fault> {
    let row = client.query_one(SESSION, &[]).await.map_err(unexpected)?;
    let (user, database): (String, String) = (get(&row, 0)?, get(&row, 1)?);
    if get(&row, 2)? {
        return elsewhere("the server is a standby in recovery and takes no writes: connect to the primary");
    }
    if get(&row, 3)? {
        return elsewhere(format!(
            "transactions of role {user} in database {database} are read-only: look at \
             default_transaction_read_only (ALTER ROLE, ALTER DATABASE, postgresql.conf, PGOPTIONS)"
        ));
    }
    let replication_role: String = get(&row, 4)?;
    if replication_role == "replica" {
        return refuse(format!(
            "session_replication_role is 'replica' for role {user} in database {database}, with which the \
             inbox's triggers do not fire and events would vanish: set it back to 'origin' (ALTER ROLE, \
             ALTER DATABASE, postgresql.conf, PGOPTIONS)"
        ));
    }
    if get(&row, 5)? {
        warn!("synchronous_commit is off; the loader turns it on for its own transactions");
    }
    Ok((user, database))
}

async fn extension(client: &Client, user: &str, database: &str) -> Result<(Oid, String), Fault> {
    let Some(row) = client.query_opt(EXTENSION, &[]).await.map_err(unexpected)? else {
        return refuse(format!(
            "the extension pg_mask is not in database {database}: run CREATE EXTENSION pg_mask in it, as a \
             superuser (or is it another database that is meant?)"
        ));
    };
    let (quoted, name): (String, String) = (get(&row, 1)?, get(&row, 2)?);
    if !get::<bool>(&row, 3)? {
        return refuse(format!(
            "role {user} may not use schema {name}: GRANT USAGE ON SCHEMA {quoted} TO {user}"
        ));
    }
    match get(&row, 4)? {
        None => refuse("the pg_mask extension has no inbox_counts(): ALTER EXTENSION pg_mask UPDATE"),
        Some(false) => refuse(format!(
            "role {user} may not call inbox_counts(): GRANT EXECUTE ON FUNCTION {quoted}.inbox_counts() TO \
             {user}"
        )),
        Some(true) => Ok((get(&row, 0)?, quoted)),
    }
}

async fn find(client: &Client, inbox: &str, user: &str, database: &str) -> Result<Oid, Fault> {
    let found = client.query_one("SELECT to_regclass($1)::oid", &[&inbox]).await;
    let row = found.map_err(|e| {
        // A schema that the role may not use is an error here, and so is a name that is none.
        fault::of_storing(
            &e,
            format!(
                "the inbox {inbox} cannot be looked up: {}. Check the name, and whether role {user} has USAGE \
                 on its schema",
                describe(&e)
            ),
        )
    })?;
    if let Some(oid) = get(&row, 0)? {
        return Ok(oid);
    }
    let elsewhere = client.query_one(ELSEWHERE, &[&inbox]).await.map_err(unexpected)?;
    match get::<Option<String>>(&elsewhere, 0)? {
        Some(schemas) => refuse(format!(
            "there is no inbox {inbox} on the search path of role {user}, but in schema {schemas}: give \
             --inbox its schema, and GRANT USAGE ON SCHEMA to {user}"
        )),
        None => refuse(format!(
            "there is no inbox {inbox} in database {database}: make it with attach_inbox(), as the files in \
             sql/ do, or name another one with --inbox"
        )),
    }
}

/// Returns the inbox's name, quoted and with its schema.
async fn examine(client: &Client, inbox: Oid, extension: Oid, user: &str) -> Result<String, Fault> {
    let names = COLUMNS.map(|(name, _)| name).to_vec();
    let row = client.query_one(INBOX, &[&inbox, &extension, &names]).await.map_err(unexpected)?;
    let name: String = get(&row, 0)?;
    // Anything but a view with the extension's own trigger could write raw events to disk.
    if !get::<bool>(&row, 1)? || !get::<bool>(&row, 3)? {
        return refuse(format!(
            "{name} is not an inbox of pg_mask: make one with attach_inbox(), or set --inbox"
        ));
    }
    let columns: Vec<String> = get::<Option<_>>(&row, 4)?.unwrap_or_default();
    if let Some((column, kind)) = COLUMNS.iter().find(|(c, t)| !columns.contains(&format!("{c} {t}"))) {
        return refuse(format!(
            "{name} has no column {column} of type {kind}: make it anew with attach_inbox()"
        ));
    }
    if !get::<bool>(&row, 2)? {
        return refuse(format!(
            "role {user} may not use the schema of {name}: GRANT USAGE ON SCHEMA ... TO {user}"
        ));
    }
    if get::<Option<bool>>(&row, 5)? != Some(true) {
        return refuse(format!("role {user} may not insert into {name}: GRANT INSERT ON {name} TO {user}"));
    }
    Ok(name)
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Fault> {
    row.try_get(column).map_err(unexpected)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { kind: Kind::Final, error: Error::Database(why.into()) })
}

/// It is another server that has to be written to, or this one later on.
fn elsewhere<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { kind: Kind::Connection, error: Error::Database(why.into()) })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unexpected(error: tokio_postgres::Error) -> Fault {
    fault::of_looking(&error)
}
