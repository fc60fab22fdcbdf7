//! Checks whether the database is ready to take events. Each item says what to do if it isn't. All checks are cheap,
//! and run for each connection.
//!
//! The checks read only catalogs that every role can read, because the loader's role has INSERT on the inbox and
//! nothing else. The queries run under a `Catalog`.

use tokio_postgres::types::{Oid, Type};
use tokio_postgres::{Client, Row};

use super::catalog::Catalog;
use super::durability;
use super::error::{self, DbError, Retry, describe};
use super::identity::{Identity, KnownInbox};
use super::privileges;
use super::statements::{COLUMNS, Statements};
use crate::check_item::CheckItem;
use crate::error::Error;

/// Looks a name up on the role's own search path.
const NAMED: &str = "SELECT CAST(pg_catalog.to_regclass($1) AS pg_catalog.oid)";

const SESSION: &str = "
    SELECT current_user::text, current_database()::text, pg_is_in_recovery(),
           current_setting('transaction_read_only') = 'on',
           current_setting('session_replication_role'), current_setting('synchronous_commit'),
           current_setting('server_version')";

const EXTENSION: &str = "
    SELECT e.oid, n.oid, quote_ident(n.nspname), n.nspname::text, e.extversion, has_schema_privilege(n.oid, 'USAGE'),
           (SELECT has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc p
            WHERE p.pronamespace = n.oid AND p.proname = 'inbox_counts' AND p.pronargs = 0),
           EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'inbox_problems')
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_mask'";

/// Asks for privileges on columns by number, so that a missing or dropped column doesn't fail the query.
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
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($3)),
           c.relowner,
           quote_literal(quote_ident(n.nspname) || '.' || quote_ident(c.relname))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1";

/// Reads the schemas on the role's search path.
const PATH: &str = "SELECT CAST(pg_catalog.current_schemas(false) AS pg_catalog.text[])";

/// Finds the schemas on the path `$3` that have a view named like the inbox `$1`, if there are several. A name `$2`
/// that resolves without the path has a schema, so it isn't ambiguous.
const AMBIGUOUS: &str = "
    SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_class i JOIN pg_class c ON c.relname = i.relname JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.oid = $1 AND to_regclass($2) IS NULL AND c.relkind = 'v' AND n.nspname = ANY ($3) HAVING count(*) > 1";

/// Finds the schemas that have a view of this name, as a hint if it isn't on the search path.
const ELSEWHERE: &str = "
    SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = $1 AND c.relkind = 'v'";

/// The inbox that the checks found, and the statements for it.
pub(super) struct Found {
    pub(super) statements: Statements,
    /// Identity of the inbox.
    pub(super) identity: Identity,
    /// The inbox's name, quoted and with its schema.
    pub(super) name: String,
}

/// Names and identity of an inbox.
struct FoundInbox {
    identity: Identity,
    /// The name, quoted and with its schema.
    name: String,
    /// The name as an SQL literal.
    literal: String,
}

/// The extension in this database.
struct Extension {
    oid: Oid,
    schema: Oid,
    /// The schema's name, in the form that SQL needs.
    quoted: String,
}

/// Role and database of the session.
struct Session {
    user: String,
    database: String,
}

/// Checks the session, the extension and the inbox, and returns the statements to use. The results go to `check_items`. If
/// a check fails, the last item says why. An inbox other than the known one is an error.
pub(super) async fn run(
    client: &mut Client,
    inbox: &str,
    known: &KnownInbox,
    check_items: &mut Vec<CheckItem>,
) -> Result<Found, DbError> {
    let named = find(client, inbox).await;
    let path = client.query_typed_one(PATH, &[]).await.and_then(|row| row.try_get(0)).map_err(unexpected)?;
    let catalog = Catalog::open(client).await.map_err(unexpected)?;
    let mut look = Checks { catalog, check_items, item: "database.session" };
    let found = look.all(inbox, named, path, known).await;
    if let Err(fault) = &found {
        let failed = CheckItem::failed(look.item, fault.error.to_string());
        look.check_items.push(failed);
    }
    found
}

/// Returns the view that a name refers to for the role, if any.
pub(super) async fn find(client: &Client, inbox: &str) -> Result<Option<Oid>, tokio_postgres::Error> {
    client.query_typed_one(NAMED, &[(&inbox, Type::TEXT)]).await?.try_get(0)
}

struct Checks<'l> {
    catalog: Catalog<'l>,
    check_items: &'l mut Vec<CheckItem>,
    /// The item that is being checked.
    item: &'static str,
}

impl Checks<'_> {
    async fn all(
        &mut self,
        inbox: &str,
        named: Result<Option<Oid>, tokio_postgres::Error>,
        path: Vec<String>,
        known: &KnownInbox,
    ) -> Result<Found, DbError> {
        let session = self.session().await?;
        let extension = self.extension(&session).await?;
        let schema = &extension.quoted;
        let oid = self.named(inbox, named, known, &session).await?;
        self.unambiguous(inbox, oid, path).await?;
        let FoundInbox { identity, name, literal } =
            self.check_inbox(oid, &extension, known, &session.user).await?;
        self.item = "rights.unmask";
        let check_item = privileges::of_pg_mask(&self.catalog, &session.user, extension.schema, oid).await;
        self.check_items.push(check_item.map_err(unexpected)?);
        known.remember(identity, &name)?;
        let statements = Statements::of(schema, oid, &name, &literal);
        Ok(Found { statements, identity, name })
    }

    fn ok(&mut self, message: String) {
        self.check_items.push(CheckItem::ok(self.item, message));
    }

    fn warning(&mut self, message: String) {
        self.check_items.push(CheckItem::warning(self.item, message));
    }

    async fn session(&mut self) -> Result<Session, DbError> {
        let row = self.catalog.query_one(SESSION, &[]).await.map_err(unexpected)?;
        let (user, database): (String, String) = (get(&row, 0)?, get(&row, 1)?);
        self.ok(format!("role {user} in database {database}, PostgreSQL {}", get::<String>(&row, 6)?));
        self.item = "database.writable";
        if get(&row, 2)? {
            return elsewhere(
                "the server is a standby in recovery and takes no writes: connect to the primary",
            );
        }
        if get(&row, 3)? {
            return elsewhere(format!(
                "transactions of role {user} in database {database} are read-only: look at \
                 default_transaction_read_only (ALTER ROLE, ALTER DATABASE, postgresql.conf, PGOPTIONS)"
            ));
        }
        self.ok("the server takes writes".into());
        self.item = "database.session_replication_role";
        let replication_role: String = get(&row, 4)?;
        if replication_role == "replica" {
            return refuse(format!(
                "session_replication_role is 'replica' for role {user} in database {database}, with which the \
                 inbox's triggers do not fire and events would vanish: set it back to 'origin' (ALTER ROLE, \
                 ALTER DATABASE, postgresql.conf, PGOPTIONS)"
            ));
        }
        self.ok(format!("'{replication_role}': triggers fire"));
        self.item = "database.synchronous_commit";
        let synchronous_commit: String = get(&row, 5)?;
        if matches!(synchronous_commit.as_str(), "on" | "remote_apply") {
            self.ok(format!("'{synchronous_commit}': COMMIT is answered once it is on disk, here and on synchronous standbys"));
        } else {
            self.warning(format!(
                "synchronous_commit is '{synchronous_commit}'. The loader sets it to 'on' in its own transactions"
            ));
        }
        self.check_items.extend(durability::check(&self.catalog).await.map_err(unexpected)?);
        Ok(Session { user, database })
    }

    async fn extension(&mut self, session: &Session) -> Result<Extension, DbError> {
        let Session { user, database } = session;
        self.item = "extension.installed";
        let Some(row) = self.catalog.query_opt(EXTENSION, &[]).await.map_err(unexpected)? else {
            return refuse(format!(
                "the extension pg_mask is not in database {database}: run CREATE EXTENSION pg_mask in it, as a \
                 superuser (or is it another database that is meant?)"
            ));
        };
        let (quoted, name, version): (String, String, String) = (get(&row, 2)?, get(&row, 3)?, get(&row, 4)?);
        self.ok(format!("pg_mask {version} in schema {name}"));
        self.item = "extension.version";
        let own = env!("CARGO_PKG_VERSION");
        if version == own {
            self.ok("that of the loader".into());
        } else {
            self.warning(format!(
                "pg_mask is {version} in this database, and the loader is {own}: install the same version on the \
                 server, then ALTER EXTENSION pg_mask UPDATE"
            ));
        }
        self.item = "extension.usable";
        if !get::<bool>(&row, 5)? {
            return refuse(format!(
                "role {user} cannot use schema {name}: GRANT USAGE ON SCHEMA {quoted} TO {user}"
            ));
        }
        match get(&row, 6)? {
            None => {
                return refuse("the pg_mask extension has no inbox_counts(): ALTER EXTENSION pg_mask UPDATE");
            }
            Some(false) => {
                return refuse(format!(
                    "role {user} cannot call inbox_counts(): GRANT EXECUTE ON FUNCTION {quoted}.inbox_counts() \
                     TO {user}"
                ));
            }
            Some(true) if !get::<bool>(&row, 7)? => {
                return refuse(
                    "the pg_mask extension has no inbox_problems(): ALTER EXTENSION pg_mask UPDATE",
                );
            }
            Some(true) => self.ok(format!("role {user} may call what it needs")),
        }
        Ok(Extension { oid: get(&row, 0)?, schema: get(&row, 1)?, quoted })
    }

    /// Refuses an ambiguous name. Anyone who can create a schema named like the role can put another inbox first on the
    /// path.
    async fn unambiguous(&self, inbox: &str, oid: Oid, path: Vec<String>) -> Result<(), DbError> {
        let several = self
            .catalog
            .query_opt(AMBIGUOUS, &[(&oid, Type::OID), (&inbox, Type::TEXT), (&path, Type::NAME_ARRAY)])
            .await
            .map_err(unexpected)?;
        match several.map(|row| get::<String>(&row, 0)).transpose()? {
            None => Ok(()),
            Some(schemas) => refuse(format!(
                "several views named {inbox} are on the search path, in schemas {schemas}: give --inbox its schema"
            )),
        }
    }

    async fn named(
        &mut self,
        inbox: &str,
        named: Result<Option<Oid>, tokio_postgres::Error>,
        known: &KnownInbox,
        session: &Session,
    ) -> Result<Oid, DbError> {
        let Session { user, database } = session;
        self.item = "inbox.exists";
        let named = named.map_err(|e| {
            // A schema that the role has no USAGE on is an error here, and so is an invalid name.
            error::of_storing(
                &e,
                format!(
                    "the inbox {inbox} cannot be looked up: {}. Check the name, and whether role {user} has \
                     USAGE on its schema",
                    describe(&e)
                ),
            )
        })?;
        if let Some(oid) = named {
            return Ok(oid);
        }
        known.check(None, inbox)?;
        let elsewhere =
            self.catalog.query_one(ELSEWHERE, &[(&inbox, Type::NAME)]).await.map_err(unexpected)?;
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

    async fn check_inbox(
        &mut self,
        inbox: Oid,
        extension: &Extension,
        known: &KnownInbox,
        user: &str,
    ) -> Result<FoundInbox, DbError> {
        let names = COLUMNS.map(|(name, _)| name).to_vec();
        let row = self
            .catalog
            .query_one(INBOX, &[(&inbox, Type::OID), (&extension.oid, Type::OID), (&names, Type::NAME_ARRAY)])
            .await
            .map_err(unexpected)?;
        let name: String = get(&row, 0)?;
        let identity = Identity { view: inbox, owner: get(&row, 6)? };
        known.check(Some(identity), &name)?;
        // Anything but a view with the extension's own trigger could write raw events to disk.
        if !get::<bool>(&row, 1)? || !get::<bool>(&row, 3)? {
            return refuse(format!(
                "{name} is not an inbox of pg_mask: make one with attach_inbox(), or set --inbox"
            ));
        }
        self.ok(format!("{name} is an inbox"));
        self.item = "inbox.columns";
        let columns: Vec<String> = get::<Option<_>>(&row, 4)?.unwrap_or_default();
        if let Some((column, kind)) = COLUMNS.iter().find(|(c, t)| !columns.contains(&format!("{c} {t}"))) {
            return refuse(format!(
                "{name} has no column {column} of type {kind}: make it again with attach_inbox()"
            ));
        }
        self.ok(COLUMNS.map(|(name, kind)| format!("{name} {kind}")).join(", "));
        self.item = "inbox.insert";
        if !get::<bool>(&row, 2)? {
            return refuse(format!(
                "role {user} cannot use the schema of {name}: GRANT USAGE ON SCHEMA ... TO {user}"
            ));
        }
        if get::<Option<bool>>(&row, 5)? != Some(true) {
            return refuse(format!(
                "role {user} cannot insert into {name}: GRANT INSERT ON {name} TO {user}"
            ));
        }
        self.ok(format!("role {user} can insert into {name}"));
        Ok(FoundInbox { identity, name, literal: get(&row, 7)? })
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, DbError> {
    row.try_get(column).map_err(unexpected)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, DbError> {
    Err(DbError { retry: Retry::Never, error: Error::Database(why.into()), code: error::SETUP.into() })
}

/// Fails because another server must be written to, or this one at a later time.
fn elsewhere<T>(why: impl Into<String>) -> Result<T, DbError> {
    Err(DbError { retry: Retry::Reconnect, error: Error::Database(why.into()), code: error::SETUP.into() })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unexpected(error: tokio_postgres::Error) -> DbError {
    error::of_check(&error)
}
