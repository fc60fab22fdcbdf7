//! Is the database ready to take events? Each item says what to do when it is not. All of it is cheap, and looked at
//! whenever a connection is made.
//!
//! All of it reads catalogs that every role can read: the loader's role may INSERT into the inbox and nothing
//! else. The queries run under a `Catalog`. The statements of a batch don't, and name everything with its schema.

use tokio_postgres::types::{Oid, Type};
use tokio_postgres::{Client, Row};

use super::catalog::Catalog;
use super::durability;
use super::fault::{self, Fault, Kind, describe};
use super::identity::{Identity, KnownInbox};
use super::relations::DEFINITION;
use super::rights;
use crate::error::Error;
use crate::finding::Finding;

/// The statements that batches are stored with, naming things as the catalog does.
pub(super) struct Statements {
    /// Begins a transaction, and reads which view the inbox is and the number of the session's last inbox statement, in one
    /// round trip.
    pub(super) begin: String,
    pub(super) trial: String,
    pub(super) copy: String,
    pub(super) counts: String,
    /// Reads why events were rejected, by class.
    pub(super) classes: String,
}

/// The columns of an inbox, in the order of the COPY data.
const COLUMNS: [(&str, &str); 3] = [("message_id", "uuid"), ("sent_at", "timestamptz"), ("body", "text")];

/// Raises `synchronous_commit` to `on` for one transaction. Under `off` COMMIT is answered before the batch is on disk;
/// under `local` and `remote_write` before a synchronous standby has flushed it. A crash or a failover would then lose
/// messages that were deleted. It is part of each transaction: the setting can change while the loader runs, and a pooler
/// can change the session.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
    WHERE NOT pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) ANY ('{on,remote_apply}')";

/// A duplicate is deleted as well, and the row that it doubles must be as safe then as a new one. It may not be: its
/// COMMIT may still wait for a synchronous standby, or have been broken off in that. COMMIT of a transaction that wrote
/// nothing waits for nobody; with this in it, it waits for all WAL before it.
const DURABLE_TOO: &str = "CAST(CASE WHEN duplicate OPERATOR(pg_catalog.>) 0
    THEN pg_catalog.pg_logical_emit_message(true, 'pg_mask', '') END AS pg_catalog.text)";

/// The lookup of a name on the role's own search path.
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
           EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'try_inbox')
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
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($3)),
           c.relowner::regrole::text, (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = c.relowner), c.relowner,
           quote_literal(quote_ident(n.nspname) || '.' || quote_ident(c.relname))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1";

/// The schemas of the role's search path.
const PATH: &str = "SELECT CAST(pg_catalog.current_schemas(false) AS pg_catalog.text[])";

/// Schemas on the path `$3` that have a view named like the inbox `$1`, if there are several. A name `$2` that means something
/// without the path has a schema.
const AMBIGUOUS: &str = "
    SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_class i JOIN pg_class c ON c.relname = i.relname JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE i.oid = $1 AND to_regclass($2) IS NULL AND c.relkind = 'v' AND n.nspname = ANY ($3) HAVING count(*) > 1";

/// Schemas that have a relation of this name, to help where it is not on the search path.
const ELSEWHERE: &str = "
    SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = $1 AND c.relkind = 'v'";

/// By what the target finds a message again. Names are looked up without the rights that `to_regclass` asks for.
fn target_of_inbox() -> String {
    format!(
        "SELECT definition ->> 'target', target.relkind IN ('r', 'p'), columns.message_id IS NOT NULL,
                EXISTS (SELECT FROM pg_index i
                        JOIN LATERAL (
                            SELECT array_agg(a.attname::text) AS names FROM pg_attribute a
                            WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                        ) AS key ON true
                        WHERE i.indrelid = target.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                          AND i.indpred IS NULL AND i.indexprs IS NULL
                          AND key.names && columns.message_id AND key.names <@ columns.of_message)
         FROM ({DEFINITION}) AS d
         CROSS JOIN LATERAL (
             SELECT array_agg(key) FILTER (WHERE value = '\"message_id\"') AS message_id,
                    array_agg(key) FILTER (WHERE value IN ('\"message_id\"', '\"sent_date\"', '\"sent_at\"')) AS of_message
             FROM jsonb_each(definition -> 'rules')
         ) AS columns
         LEFT JOIN LATERAL (
             SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE ARRAY[n.nspname, c.relname]::text[] = parse_ident(definition ->> 'target')
         ) AS target ON true"
    )
}

/// What the items of an inbox are about.
pub(super) struct Found {
    pub(super) statements: Statements,
    /// The inbox.
    pub(super) inbox: Identity,
    /// Its name, quoted and with its schema.
    pub(super) name: String,
}

/// The names and the identity of an inbox.
struct Inbox {
    identity: Identity,
    /// Quoted and with its schema.
    name: String,
    /// The name as an SQL literal.
    literal: String,
}

/// The extension, as it is in this database.
struct Extension {
    oid: Oid,
    schema: Oid,
    /// The schema's name, as SQL needs it.
    quoted: String,
}

/// Who is connected to what.
struct Session {
    user: String,
    database: String,
}

/// Looks at the session, the extension and the inbox, and returns the statements to use. What is found goes to `findings`,
/// and the last of them is why there are none. An inbox other than the known one is an error.
pub(super) async fn run(
    client: &mut Client,
    inbox: &str,
    known: &KnownInbox,
    findings: &mut Vec<Finding>,
) -> Result<Found, Fault> {
    let named = find(client, inbox).await;
    let path = client.query_typed_one(PATH, &[]).await.and_then(|row| row.try_get(0)).map_err(unexpected)?;
    let catalog = Catalog::open(client).await.map_err(unexpected)?;
    let mut look = Look { catalog, findings, item: "database.session" };
    let found = look.all(inbox, named, path, known).await;
    if let Err(fault) = &found {
        let failed = Finding::failed(look.item, fault.error.to_string());
        look.findings.push(failed);
    }
    found
}

/// Returns the view that a name means to the role, if any.
pub(super) async fn find(client: &Client, inbox: &str) -> Result<Option<Oid>, tokio_postgres::Error> {
    client.query_typed_one(NAMED, &[(&inbox, Type::TEXT)]).await?.try_get(0)
}

struct Look<'l> {
    catalog: Catalog<'l>,
    findings: &'l mut Vec<Finding>,
    /// What is looked at now.
    item: &'static str,
}

impl Look<'_> {
    async fn all(
        &mut self,
        inbox: &str,
        named: Result<Option<Oid>, tokio_postgres::Error>,
        path: Vec<String>,
        known: &KnownInbox,
    ) -> Result<Found, Fault> {
        let session = self.session().await?;
        let extension = self.extension(&session).await?;
        let schema = &extension.quoted;
        let oid = self.named(inbox, named, known, &session).await?;
        self.unambiguous(inbox, oid, path).await?;
        let Inbox { identity, name, literal } = self.examine(oid, &extension, known, &session.user).await?;
        self.target(oid).await?;
        self.item = "rights.unmask";
        let finding = rights::of_pg_mask(&self.catalog, &session.user, extension.schema, oid).await;
        self.findings.push(finding.map_err(unexpected)?);
        known.remember(identity, &name)?;
        let columns = COLUMNS.map(|(name, _)| name).join(", ");
        let view = Identity::query(&literal);
        let statements = Statements {
            begin: format!("BEGIN; {DURABLE}; {view}; SELECT statement FROM {schema}.inbox_counts()"),
            // The second event takes the way of every event, with triggers that others have put on the inbox, and what
            // those leave for COMMIT.
            trial: format!(
                "BEGIN; SELECT {schema}.try_inbox(CAST('{oid}' AS pg_catalog.regclass)); \
                 INSERT INTO {name} ({columns}) VALUES (pg_catalog.gen_random_uuid(), pg_catalog.now(), '{{}}'); \
                 SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK"
            ),
            copy: format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary)"),
            counts: format!(
                "SELECT statement, stored, duplicate, rejected, {DURABLE_TOO} FROM {schema}.inbox_counts()"
            ),
            classes: format!("SELECT class, rejected FROM {schema}.inbox_reject_classes()"),
        };
        Ok(Found { statements, inbox: identity, name })
    }

    fn ok(&mut self, message: String) {
        self.findings.push(Finding::ok(self.item, message));
    }

    fn warning(&mut self, message: String) {
        self.findings.push(Finding::warning(self.item, message));
    }

    async fn session(&mut self) -> Result<Session, Fault> {
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
        self.findings.extend(durability::check(&self.catalog).await.map_err(unexpected)?);
        Ok(Session { user, database })
    }

    async fn extension(&mut self, session: &Session) -> Result<Extension, Fault> {
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
                "role {user} may not use schema {name}: GRANT USAGE ON SCHEMA {quoted} TO {user}"
            ));
        }
        match get(&row, 6)? {
            None => {
                return refuse("the pg_mask extension has no inbox_counts(): ALTER EXTENSION pg_mask UPDATE");
            }
            Some(false) => {
                return refuse(format!(
                    "role {user} may not call inbox_counts(): GRANT EXECUTE ON FUNCTION {quoted}.inbox_counts() \
                     TO {user}"
                ));
            }
            Some(true) if !get::<bool>(&row, 7)? => {
                return refuse("the pg_mask extension has no try_inbox(): ALTER EXTENSION pg_mask UPDATE");
            }
            Some(true) => self.ok(format!("role {user} may call what it needs")),
        }
        Ok(Extension { oid: get(&row, 0)?, schema: get(&row, 1)?, quoted })
    }

    /// Anyone who can create a schema named like the role can put an inbox before the one that is meant.
    async fn unambiguous(&self, inbox: &str, oid: Oid, path: Vec<String>) -> Result<(), Fault> {
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
    ) -> Result<Oid, Fault> {
        let Session { user, database } = session;
        self.item = "inbox.exists";
        let named = named.map_err(|e| {
            // A schema that the role may not use is an error here, and so is a name that is none.
            fault::of_storing(
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

    async fn examine(
        &mut self,
        inbox: Oid,
        extension: &Extension,
        known: &KnownInbox,
        user: &str,
    ) -> Result<Inbox, Fault> {
        let names = COLUMNS.map(|(name, _)| name).to_vec();
        let row = self
            .catalog
            .query_one(INBOX, &[(&inbox, Type::OID), (&extension.oid, Type::OID), (&names, Type::NAME_ARRAY)])
            .await
            .map_err(unexpected)?;
        let name: String = get(&row, 0)?;
        let identity = Identity { view: inbox, owner: get(&row, 8)? };
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
                "{name} has no column {column} of type {kind}: make it anew with attach_inbox()"
            ));
        }
        self.ok(COLUMNS.map(|(name, kind)| format!("{name} {kind}")).join(", "));
        self.item = "inbox.insert";
        if !get::<bool>(&row, 2)? {
            return refuse(format!(
                "role {user} may not use the schema of {name}: GRANT USAGE ON SCHEMA ... TO {user}"
            ));
        }
        if get::<Option<bool>>(&row, 5)? != Some(true) {
            return refuse(format!(
                "role {user} may not insert into {name}: GRANT INSERT ON {name} TO {user}"
            ));
        }
        self.ok(format!("role {user} may insert into {name}"));
        self.item = "inbox.owner";
        let owner: String = get(&row, 6)?;
        if get::<Option<bool>>(&row, 7)? == Some(true) {
            self.warning(format!(
                "{name} is owned by {owner}, a superuser, with whose rights events are written: ALTER VIEW {name} \
                 OWNER TO a role that can do nothing else, as sql/04_roles.sql does"
            ));
        } else {
            self.ok(format!("events are written with the rights of {owner}"));
        }
        Ok(Inbox { identity, name, literal: get(&row, 9)? })
    }

    /// Whether a message that is delivered twice is found to be there.
    async fn target(&mut self, inbox: Oid) -> Result<(), Fault> {
        self.item = "inbox.unique_index";
        let row =
            self.catalog.query_opt(&target_of_inbox(), &[(&inbox, Type::OID)]).await.map_err(unexpected)?;
        // What is wrong with such an inbox shows when it is sent an event.
        let Some(row) = row else { return Ok(()) };
        let target: String = get::<Option<_>>(&row, 0)?.unwrap_or_default();
        if !get::<bool>(&row, 2)? {
            self.warning(format!(
                "no column of {target} is filled with the message id, so a message that is delivered twice is stored \
                 twice: add a rule \"message_id\" and a unique index, and call attach_inbox() again"
            ));
        } else if get::<bool>(&row, 3)? {
            self.ok(format!("{target} finds a message again by a unique index"));
        } else if get::<Option<bool>>(&row, 1)? == Some(true) {
            self.warning(format!(
                "{target} has no unique index on the message id, alone or with the sent date, by which a message that is \
                 delivered twice is found: without one the inbox takes no events"
            ));
        } else {
            let message = format!(
                "{target} is no table of this database: that what is behind it has a unique index on the message id \
                 is for you to see to"
            );
            self.findings.push(Finding::skipped(self.item, message));
        }
        Ok(())
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Fault> {
    row.try_get(column).map_err(unexpected)
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { kind: Kind::Final, error: Error::Database(why.into()), code: fault::SETUP.into() })
}

/// It is another server that has to be written to, or this one later on.
fn elsewhere<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { kind: Kind::Connection, error: Error::Database(why.into()), code: fault::SETUP.into() })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unexpected(error: tokio_postgres::Error) -> Fault {
    fault::of_looking(&error)
}
