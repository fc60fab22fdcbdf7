//! The view of an inbox: its name, owner and triggers.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::error::Error;
use crate::inbox::definition::{Definition, hash, is_bound};
use crate::pg::catalog::{look_up, select};
use crate::pg::names::name_of_schema;
use crate::pg::random::random_id;
use crate::pg::security::{current_role, is_superuser, must_have_rights_of};
use crate::pg::settings::with_catalog_path;
use crate::pg::text::Name;

/// The view of an inbox.
pub(super) struct View {
    /// The view's name, schema-qualified and quoted as SQL needs it.
    pub(super) name: String,
    /// The temporary name and the final name of a new view, both quoted as SQL needs them. See `make`.
    to_be: Option<[String; 2]>,
    /// None if the view does not exist yet.
    pub(super) oid: Option<pg_sys::Oid>,
    /// The view's owner, now or once it is created.
    pub(super) owner: pg_sys::Oid,
}

impl View {
    /// Looks up the view with this name, or decides where to create it.
    ///
    /// Replacing somebody's own view by an inbox would lose that view. Taking over a view that somebody prepared would be
    /// worse: its owner and its other triggers would see raw events. So an existing relation is an error, unless it is an
    /// inbox without any additions, and the caller has the privileges of its owner.
    pub(super) fn named(
        name: &str,
        trigger_function: pg_sys::Oid,
        is_temporary: bool,
        owner_to_be: pg_sys::Oid,
    ) -> Result<Self, Error> {
        let Some(oid) = look_up(name)? else {
            let [schema, view] = name_to_be(name, is_temporary)?.map(quote_identifier);
            let name = format!("{schema}.{view}");
            let made_as = format!("{schema}.{}", quote_identifier(random_id().as_text()));
            return Ok(Self { name, to_be: Some([made_as, view]), oid: None, owner: owner_to_be });
        };
        let existing = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
                    c.relkind = 'v'
                    AND NOT EXISTS (
                        SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid
                        AND (t.tgfoid <> $2 OR t.tgname <> ALL (ARRAY['pg_mask_open', 'pg_mask_row', 'pg_mask_close'])))
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN')
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_attrdef d WHERE d.adrelid = c.oid)
                    -- Its triggers are gone where the extension was dropped.
                    AND (EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid)
                         OR pg_catalog.pg_get_viewdef(c.oid) ~ 'WHERE \\(false AND \\(''[0-9a-f]{64}''(::text)? IS NULL\\)\\);$')
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[oid.into(), trigger_function.into()],
            |row| Ok((row.text(1)?, row.get::<pg_sys::Oid>(2)?, row.get::<bool>(3)?)),
        )?;
        match existing.into_iter().next() {
            Some((Some(name), Some(owner), Some(true))) => {
                must_have_rights_of(owner, oid);
                Ok(Self { name, to_be: None, oid: Some(oid), owner })
            }
            _ => Err(Error::NotAnInbox { inbox: name.to_owned() }),
        }
    }

    /// Fails if somebody else's inbox would get tables of a third role, whose code would then run with the rights of the
    /// inbox's owner. The caller's names can mean such tables, for example while their schema is renamed.
    pub(super) fn must_suit(&self, tables: [pg_sys::Oid; 2]) -> Result<(), Error> {
        let Some(view) = self.oid.filter(|_| self.owner != current_role()) else { return Ok(()) };
        let strange = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_roles r ON r.oid = c.relowner
             WHERE c.oid = ANY ($1) AND c.relowner <> $2 AND NOT r.rolsuper
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d ON d.objid = w.oid
                               WHERE w.ev_class = $3 AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                                 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid)",
            &[tables.to_vec().into(), self.owner.into(), view.into()],
            |row| row.text(1),
        )?;
        match strange.into_iter().flatten().next() {
            None => Ok(()),
            Some(relation) => Err(Error::TableOfAnother { relation, inbox: self.name.clone() }),
        }
    }

    /// Creates the view and its triggers, with the caller's privileges, and gives a new view to its owner.
    ///
    /// Each statement looks the name up again. In between, the owner of the schema could rename the view and put their own
    /// in its place. A superuser would then give that view to another role, whose tables it could read. So a new view has a
    /// name that nobody can guess until all is done.
    pub(super) fn make(&self, definition: &Definition, schema: pg_sys::Oid) -> Result<(), Error> {
        let argument = serde_json::to_string(definition).map_err(Error::Definition)?;
        let function = format!("{}.inbox_trigger", quote_identifier(name_of_schema(schema)?));
        let inbox = self.to_be.as_ref().map_or(&self.name, |[made_as, _]| made_as);
        let kind = match &self.to_be {
            None => "OR REPLACE",
            // It would become temporary anyway, with a notice that shows the name.
            Some(_) if inbox.starts_with("pg_temp.") => "TEMPORARY",
            Some(_) => "",
        };
        let mut statements = vec![
            // The tables are in the query so that the inbox is bound to them and not to their names. The hash is in it so
            // that only the view's owner can change the definition (see `inbox::is_bound`). The query reads two tables, so
            // that Postgres cannot take it for an updatable view and write rows anywhere by itself.
            format!(
                "CREATE {kind} VIEW {inbox} (message_id, sent_at, body) AS
                 SELECT NULL::pg_catalog.uuid, NULL::pg_catalog.timestamptz, NULL::pg_catalog.text
                 FROM {} AS target, {} AS rejects WHERE false AND {} IS NULL",
                definition.target,
                definition.rejects,
                quote_literal(hash(&argument)?)
            ),
            format!("COMMENT ON VIEW {inbox} IS 'inbox of pg_mask: takes raw events, stores none'"),
        ];
        for (name, moment, each, argument) in [
            ("pg_mask_open", "BEFORE", "STATEMENT", String::new()),
            ("pg_mask_row", "INSTEAD OF", "ROW", quote_literal(&argument)),
            ("pg_mask_close", "AFTER", "STATEMENT", String::new()),
        ] {
            statements.push(format!(
                "CREATE OR REPLACE TRIGGER {name} {moment} INSERT ON {inbox}
                 FOR EACH {each} EXECUTE FUNCTION {function}({argument})"
            ));
        }
        with_catalog_path(|| {
            if let Some([_, view]) = &self.to_be {
                statements.push(format!("ALTER VIEW {inbox} RENAME TO {view}"));
                // This comes before there are triggers, so that nobody can insert, or create a trigger of their own, in
                // between.
                Spi::run(&statements.remove(0))?;
                for grantee in grantees(inbox)? {
                    Spi::run(&format!("REVOKE ALL ON {inbox} FROM {grantee}"))?;
                }
                if self.owner != current_role() {
                    Spi::run(&format!("ALTER VIEW {inbox} OWNER TO {}", self.owner_name()?))?;
                }
            }
            statements.iter().try_for_each(|statement| Spi::run(statement))?;
            Ok(())
        })
    }

    /// Returns the owner's name, quoted as SQL needs it.
    fn owner_name(&self) -> Result<String, Error> {
        let names = select(
            "SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r WHERE r.oid = $1",
            &[self.owner.into()],
            |row| row.text(1),
        )?;
        names.into_iter().flatten().next().ok_or(Error::Replaced)
    }

    /// Whether the view has this definition, for these relations.
    pub(super) fn is_bound(
        &self,
        definition: &Definition,
        relations: [pg_sys::Oid; 2],
    ) -> Result<bool, Error> {
        let argument = serde_json::to_string(definition).map_err(Error::Definition)?;
        self.oid.map_or(Ok(false), |oid| is_bound(oid, &argument, relations))
    }

    /// Warns a superuser who takes over an inbox whose owner isn't the tables' owner: that role sees raw events.
    pub(super) fn warn_of_stranger(&self, owner_to_be: pg_sys::Oid) -> Result<(), Error> {
        if is_superuser() && self.owner != owner_to_be {
            let names = select(
                "SELECT pg_catalog.quote_ident(pg_catalog.pg_get_userbyid($1)), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid($2))",
                &[self.owner.into(), owner_to_be.into()],
                |row| Ok((row.text(1)?, row.text(2)?)),
            )?;
            let (owner, owner_to_be) = names.into_iter().next().unwrap_or_default();
            let [owner, owner_to_be] = [owner, owner_to_be].map(Option::unwrap_or_default);
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("inbox {} belongs to {owner}, who can see raw events", self.name),
                "pg_mask",
            )
            .set_hint(format!("If that is not meant: ALTER VIEW {} OWNER TO {owner_to_be}.", self.name))
            .report(PgLogLevel::WARNING);
        }
        Ok(())
    }
}

/// Returns the roles that default privileges gave access to a newly created view, quoted as SQL needs them.
fn grantees(view: &str) -> Result<Vec<String>, Error> {
    let grantees = select(
        "SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END
         FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
         WHERE c.oid = pg_catalog.to_regclass($1) AND a.grantee <> c.relowner",
        &[view.into()],
        |row| row.text(1),
    )?;
    Ok(grantees.into_iter().flatten().collect())
}

/// Returns the schema and the name of a view that does not exist yet, from the name that the caller wrote. The schema is the
/// one that CREATE VIEW would choose.
fn name_to_be(name: &str, is_temporary: bool) -> Result<[String; 2], Error> {
    // This is outside of `select`, under which the schema would be pg_catalog. All names in it are schema-qualified.
    let chosen = Spi::connect(|client| {
        let rows = client.select("SELECT pg_catalog.current_schema()::pg_catalog.text", None, &[])?;
        Ok::<_, Error>(rows.first().get::<Name>(1)?.map(|name| name.0))
    })?;
    // CREATE VIEW makes a view on a temporary table a temporary one.
    let chosen = if is_temporary { Some("pg_temp".to_owned()) } else { chosen };
    let parts = select("SELECT pg_catalog.parse_ident($1)", &[name.into()], |row| row.texts(1))?;
    match (parts.into_iter().flatten().next().as_deref(), chosen) {
        (Some([view]), Some(schema)) => Ok([schema, view.clone()]),
        (Some([schema, view]), _) => Ok([schema.clone(), view.clone()]),
        _ => Err(Error::NoSchema { inbox: name.to_owned() }),
    }
}
