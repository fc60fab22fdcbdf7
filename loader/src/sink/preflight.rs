//! Is the database ready to take events? Each item says what to do when it is not. All of it is cheap, and looked at
//! whenever a connection is made.
//!
//! All of it reads catalogs that every role can read: the loader's role may INSERT into the inbox and nothing
//! else.

use tokio_postgres::types::Oid;
use tokio_postgres::{Client, Row};

use super::fault::{self, Fault, Kind, describe};
use super::rights;
use crate::error::Error;
use crate::finding::Finding;

/// The statements that batches are stored with, naming things as the catalog does.
pub(super) struct Statements {
    pub(super) begin: String,
    pub(super) copy: String,
    pub(super) counts: String,
    pub(super) classes: String,
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
           current_setting('synchronous_commit') = 'off', current_setting('server_version')";

const EXTENSION: &str = "
    SELECT e.oid, n.oid, quote_ident(n.nspname), n.nspname::text, e.extversion, has_schema_privilege(n.oid, 'USAGE'),
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
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY ($3)),
           c.relowner::regrole::text, (SELECT r.rolsuper FROM pg_roles r WHERE r.oid = c.relowner)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = $1";

/// Schemas that have a relation of this name, to help where it is not on the search path.
const ELSEWHERE: &str = "
    SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = $1 AND c.relkind = 'v'";

/// By what the target finds a message again. The definition of an inbox is the argument of its row trigger; names are
/// looked up without the rights that `to_regclass` asks for.
const TARGET: &str = "
    SELECT definition ->> 'target', target.relkind IN ('r', 'p'), columns.message_id IS NOT NULL,
           EXISTS (SELECT FROM pg_index i
                   JOIN LATERAL (
                       SELECT array_agg(a.attname::text) AS names FROM pg_attribute a
                       WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                   ) AS key ON true
                   WHERE i.indrelid = target.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                     AND i.indpred IS NULL AND i.indexprs IS NULL AND key.names && columns.message_id AND key.names <@ columns.of_message)
    FROM (
        -- Others may have put triggers of their own on the view. The limit keeps theirs from being read.
        SELECT t.tgargs FROM pg_trigger t
        JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
             AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = $2 AND d.deptype = 'e'
        WHERE t.tgrelid = $1 AND t.tgtype & 64 <> 0 AND t.tgnargs = 1 LIMIT 1
    ) AS t
    CROSS JOIN LATERAL (SELECT convert_from(rtrim(t.tgargs, '\\x00'::bytea), 'UTF8')::jsonb AS definition) AS d
    CROSS JOIN LATERAL (
        SELECT array_agg(key) FILTER (WHERE value = '\"message_id\"') AS message_id,
               array_agg(key) FILTER (WHERE value IN ('\"message_id\"', '\"sent_date\"', '\"sent_at\"')) AS of_message
        FROM jsonb_each(definition -> 'rules')
    ) AS columns
    LEFT JOIN LATERAL (
        SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE ARRAY[n.nspname, c.relname]::text[] = parse_ident(definition ->> 'target')
    ) AS target ON true";

/// What the items of an inbox are about.
pub(super) struct Found {
    pub(super) statements: Statements,
    /// The inbox.
    pub(super) inbox: Oid,
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
/// and the last of them is why there are none.
pub(super) async fn run(client: &Client, inbox: &str, findings: &mut Vec<Finding>) -> Result<Found, Fault> {
    let mut look = Look { client, findings, item: "database.session" };
    let found = look.all(inbox).await;
    if let Err(fault) = &found {
        let failed = Finding::failed(look.item, fault.error.to_string());
        look.findings.push(failed);
    }
    found
}

struct Look<'l> {
    client: &'l Client,
    findings: &'l mut Vec<Finding>,
    /// What is looked at now.
    item: &'static str,
}

impl Look<'_> {
    async fn all(&mut self, inbox: &str) -> Result<Found, Fault> {
        let session = self.session().await?;
        let extension = self.extension(&session).await?;
        let schema = &extension.quoted;
        let oid = self.find(inbox, &session).await?;
        let name = self.examine(oid, &extension, &session.user).await?;
        self.target(oid, &extension).await?;
        self.item = "rights.unmask";
        let finding = rights::of_pg_mask(self.client, &session.user, extension.schema, oid).await;
        self.findings.push(finding.map_err(unexpected)?);
        let columns = COLUMNS.map(|(name, _)| name).join(", ");
        let statements = Statements {
            begin: format!("BEGIN; {DURABLE}; SELECT statement FROM {schema}.inbox_counts()"),
            copy: format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary)"),
            counts: format!(
                "SELECT statement, stored, duplicate, rejected, {DURABLE_TOO} FROM {schema}.inbox_counts()"
            ),
            classes: format!("SELECT class, rejected FROM {schema}.inbox_reject_classes()"),
        };
        Ok(Found { statements, inbox: oid })
    }

    fn ok(&mut self, message: String) {
        self.findings.push(Finding::ok(self.item, message));
    }

    fn warning(&mut self, message: String) {
        self.findings.push(Finding::warning(self.item, message));
    }

    async fn session(&mut self) -> Result<Session, Fault> {
        let row = self.client.query_one(SESSION, &[]).await.map_err(unexpected)?;
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
        if get(&row, 5)? {
            self.warning("synchronous_commit is off; the loader turns it on for its own transactions".into());
        } else {
            self.ok("a COMMIT that is answered is on disk".into());
        }
        Ok(Session { user, database })
    }

    async fn extension(&mut self, session: &Session) -> Result<Extension, Fault> {
        let Session { user, database } = session;
        self.item = "extension.installed";
        let Some(row) = self.client.query_opt(EXTENSION, &[]).await.map_err(unexpected)? else {
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
            Some(true) => self.ok(format!("role {user} may call what it needs")),
        }
        Ok(Extension { oid: get(&row, 0)?, schema: get(&row, 1)?, quoted })
    }

    async fn find(&mut self, inbox: &str, session: &Session) -> Result<Oid, Fault> {
        let Session { user, database } = session;
        self.item = "inbox.exists";
        let found = self.client.query_one("SELECT to_regclass($1)::oid", &[&inbox]).await;
        let row = found.map_err(|e| {
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
        if let Some(oid) = get(&row, 0)? {
            return Ok(oid);
        }
        let elsewhere = self.client.query_one(ELSEWHERE, &[&inbox]).await.map_err(unexpected)?;
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
    async fn examine(&mut self, inbox: Oid, extension: &Extension, user: &str) -> Result<String, Fault> {
        let names = COLUMNS.map(|(name, _)| name).to_vec();
        let row =
            self.client.query_one(INBOX, &[&inbox, &extension.oid, &names]).await.map_err(unexpected)?;
        let name: String = get(&row, 0)?;
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
        Ok(name)
    }

    /// Whether a message that is delivered twice is found to be there.
    async fn target(&mut self, inbox: Oid, extension: &Extension) -> Result<(), Fault> {
        self.item = "inbox.unique_index";
        let row = self.client.query_opt(TARGET, &[&inbox, &extension.oid]).await.map_err(unexpected)?;
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
