//! Finds what is wrong with an inbox, for `attach_inbox`, the loader and users. Reads catalogs that every role can read.

mod paths;
mod replacement;

use masking::Rule;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::error::{COLUMNS_HINT, Error, NOT_BOUND_HINT};
use crate::inbox::list::{Attached, InboxRecord, inboxes};
use crate::pg::catalog::{in_one_snapshot, select};
use crate::pg::names::name_of;
use crate::pg::security::function;
use paths::open_paths;

/// How bad a problem is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// The inbox takes no events.
    Error,
    /// The inbox takes events, or may take them, and something will surprise somebody.
    Warning,
    /// Postgres doesn't show it.
    Unknown,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
        }
    }
}

/// A problem with an inbox.
pub(crate) struct Problem {
    /// The part of the set-up that it concerns, one word for scripts.
    pub(crate) item: &'static str,
    pub(crate) level: Level,
    pub(crate) message: String,
    /// The remedy, an imperative.
    pub(crate) hint: String,
}

impl Problem {
    fn new(item: &'static str, level: Level, message: String, hint: impl Into<String>) -> Self {
        Self { item, level, message, hint: hint.into() }
    }

    /// Sends the problem to the client, as a warning.
    pub(crate) fn warn(self) {
        ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, self.message, "pg_mask")
            .set_hint(self.hint)
            .report(PgLogLevel::WARNING);
    }
}

/// Returns the problems of one inbox. `schema` is the extension's.
pub(crate) fn of(view: pg_sys::Oid, schema: pg_sys::Oid) -> Result<Vec<Problem>, Error> {
    let trigger = function(schema, c"inbox_trigger", &[]);
    in_one_snapshot(|| match inboxes(trigger, Some(view))?.first() {
        Some(inbox) => inbox.problems(trigger),
        None => Err(Error::NoInbox { relation: name_of(view) }),
    })
}

impl InboxRecord {
    /// Returns all problems of the inbox. `trigger` is the extension's trigger function.
    pub(crate) fn problems(&self, trigger: pg_sys::Oid) -> Result<Vec<Problem>, Error> {
        let mut problems: Vec<Problem> = self.columns()?.into_iter().collect();
        problems.extend(self.additions(trigger)?);
        problems.extend(self.owned()?);
        problems.extend(self.replaceable()?);
        problems.extend(self.droppable()?);
        problems.extend(self.referred_to()?);
        match &self.attached {
            None => problems.push(Problem::new(
                "definition",
                Level::Warning,
                format!("inbox {} is not as its owner attached it, so it takes no events", self.name),
                NOT_BOUND_HINT,
            )),
            Some(attached) => problems.extend(attached.duplicates()?),
        }
        problems.extend(logged(&self.relations)?);
        problems.extend(open_paths(&self.relations, self.owner)?);
        Ok(problems)
    }

    /// Checks that the view has the columns of an inbox, without defaults, which would run with the rights of the role that
    /// inserts.
    fn columns(&self) -> Result<Option<Problem>, Error> {
        let columns = select(
            "SELECT pg_catalog.string_agg(
                 pg_catalog.format('%s %s', a.attname, t.typname) || CASE WHEN a.atthasdef THEN ' DEFAULT' ELSE '' END,
                 ', ' ORDER BY a.attnum)
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped",
            &[self.view.into()],
            |row| row.text(1),
        )?;
        let right = columns == [Some("message_id uuid, sent_at timestamptz, body text".into())];
        Ok((!right).then(|| {
            Problem::new(
                "columns",
                Level::Error,
                format!("view {} does not have the columns of an inbox", self.name),
                COLUMNS_HINT,
            )
        }))
    }

    /// Finds triggers and rules that somebody added to the view. They see raw events, or take them.
    fn additions(&self, trigger: pg_sys::Oid) -> Result<Option<Problem>, Error> {
        let names = select(
            "SELECT pg_catalog.format('trigger %I', t.tgname) FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid = $1 AND (t.tgfoid <> $2 OR t.tgname <> ALL ('{pg_mask_open,pg_mask_row,pg_mask_close}'))
             UNION ALL
             SELECT pg_catalog.format('rule %I', r.rulename) FROM pg_catalog.pg_rewrite r
             WHERE r.ev_class = $1 AND r.rulename <> '_RETURN'
             ORDER BY 1",
            &[self.view.into(), trigger.into()],
            |row| row.text(1),
        )?;
        let names: Vec<String> = names.into_iter().flatten().collect();
        Ok((!names.is_empty()).then(|| {
            Problem::new(
                "additions",
                Level::Warning,
                format!("inbox {} has more than its own triggers: {}", self.name, names.join(", ")),
                "They see raw events, with the rights of the role that inserts. Drop them, unless they are meant.",
            )
        }))
    }

    /// Checks whether events are written with more rights than a flush needs.
    fn owned(&self) -> Result<Option<Problem>, Error> {
        let roles = select(
            "SELECT r.oid = $1, pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r
             WHERE (r.rolsuper OR r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
               AND pg_catalog.pg_has_role($1, r.oid, 'MEMBER')
               AND (r.oid = $1 OR NOT EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.oid = $1 AND o.rolsuper))
             ORDER BY r.rolname",
            &[self.owner.into()],
            |row| Ok(row.get::<bool>(1)?.zip(row.text(2)?)),
        )?;
        let roles: Vec<(bool, String)> = roles.into_iter().flatten().collect();
        let what = if roles.iter().any(|(is_owner, _)| *is_owner) {
            format!("{}, a superuser", self.owner_name)
        } else if let Some((_, role)) = roles.first() {
            format!("{}, a member of {role}", self.owner_name)
        } else {
            return Ok(None);
        };
        Ok(Some(Problem::new(
            "owner",
            Level::Warning,
            format!("inbox {} is owned by {what}, and writes events with that role's rights", self.name),
            format!(
                "Make a role that can only write its tables the owner: ALTER VIEW {} OWNER TO ..., and the tables too.",
                self.name
            ),
        )))
    }

    /// Finds tables of other roles, or on which others can put a trigger, with a foreign key to a table of the inbox. Postgres
    /// runs its check with the rights of the table that is referenced, and calls casts of the other role. When a row is
    /// deleted or changed, the AFTER triggers of the referring table run with the rights of the role that does it, as in a
    /// redrive. BEFORE triggers run with the rights of the referring table's owner. The key stays after REVOKE REFERENCES.
    fn referred_to(&self) -> Result<Option<Problem>, Error> {
        let tables = select(
            "SELECT DISTINCT pg_catalog.format('%I.%I of %s', n.nspname, c.relname, COALESCE(pg_catalog.quote_ident(r.rolname), 'PUBLIC'))
             FROM pg_catalog.pg_constraint f JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN LATERAL (
                 SELECT c.relowner
                 UNION SELECT a.grantee FROM pg_catalog.aclexplode(c.relacl) a WHERE a.privilege_type = 'TRIGGER'
             ) AS holder (role)
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = holder.role
             WHERE f.contype = 'f' AND f.confrelid = ANY ($1) AND holder.role <> $2 AND r.rolsuper IS NOT TRUE
             ORDER BY 1",
            &[self.relations.clone().into(), self.owner.into()],
            |row| row.text(1),
        )?;
        let tables: Vec<String> = tables.into_iter().flatten().collect();
        Ok((!tables.is_empty()).then(|| {
            Problem::new(
                "references",
                Level::Warning,
                format!("foreign keys of tables that others own or put triggers on refer to {}: {}", self.name, some_of(&tables)),
                "Code of these roles can run with the rights of the tables' owner, and of users who delete or redrive rejects. \
                 Drop the foreign keys, or take the roles' privileges on the tables.",
            )
        }))
    }
}

impl Attached {
    /// Checks that a message that is delivered twice is stored once.
    fn duplicates(&self) -> Result<Option<Problem>, Error> {
        const ITEM: &str = "unique_index";
        if !self.definition.rules.values().any(|rule| *rule == Rule::MessageId) {
            return Ok(Some(Problem::new(
                ITEM,
                Level::Warning,
                "no rule fills a column with message_id: a redelivered message will be stored again".into(),
                "Add a rule \"message_id\" and a unique index, and call attach_inbox() again.",
            )));
        }
        let (target, conflict) = self.target()?;
        Ok(match conflict {
            Err(error) => {
                let report = ErrorReport::from(error);
                let hint = report.hint().unwrap_or_default().to_owned();
                Some(Problem::new(ITEM, Level::Warning, report.message().to_owned(), hint))
            }
            Ok(_) if target.is_table() => None,
            Ok(_) => Some(Problem::new(
                ITEM,
                Level::Unknown,
                format!(
                    "{} is not a table of this database, so its unique index cannot be seen",
                    target.name
                ),
                "What stands behind it must have a unique index on the message id: else a redelivered message will be stored \
                 again.",
            )),
        })
    }
}

/// Checks that a crash of the server does not empty these relations, whose messages are deleted by then.
fn logged(relations: &[pg_sys::Oid]) -> Result<Option<Problem>, Error> {
    let found = select(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relpersistence = 'u'
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ($1) AND (c.relpersistence = 'u' AND c.relkind = 'r' OR c.relkind = 'f')
         ORDER BY 2 DESC, c.oid",
        &[relations.to_vec().into()],
        |row| Ok(row.text(1)?.zip(row.get::<bool>(2)?)),
    )?;
    let (unlogged, foreign): (Vec<_>, Vec<_>) =
        found.into_iter().flatten().partition(|(_, unlogged)| *unlogged);
    let names =
        |relations: Vec<(String, bool)>| relations.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let (unlogged, foreign) = (names(unlogged), names(foreign));
    Ok(if let Some(table) = unlogged.first() {
        Some(Problem::new(
            "logged",
            Level::Warning,
            format!("unlogged, so a crash of the server empties them: {}", some_of(&unlogged)),
            format!(
                "ALTER TABLE {table} SET LOGGED. The messages of lost rows are deleted from the queue by then."
            ),
        ))
    } else if foreign.is_empty() {
        None
    } else {
        Some(Problem::new(
            "logged",
            Level::Unknown,
            format!("stored elsewhere: {}", some_of(&foreign)),
            "Make sure that what is stored there survives a crash.",
        ))
    })
}

/// Maximum number of names in a message.
const NAMED: usize = 5;

fn some_of(names: &[String]) -> String {
    match names.get(..NAMED) {
        Some(some) if names.len() > NAMED => format!("{} and {} more", some.join(", "), names.len() - NAMED),
        _ => names.join(", "),
    }
}
