//! Roles that can put another view in an inbox's place, which would get raw events.

use super::{Level, Problem, some_of};
use crate::error::Error;
use crate::inbox::list::InboxRecord;
use crate::pg::catalog::select;

impl InboxRecord {
    /// Finds the roles that can put another view in the inbox's place. They have the privileges of the schema's owner, who
    /// can drop the view or rename the schema. `pg_database_owner` has the database's owner as its member. Superusers, and
    /// roles with the privileges of the inbox's owner, gain nothing by it.
    pub(super) fn replaceable(&self) -> Result<Option<Problem>, Error> {
        let found = select(
            "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(n.nspowner)),
                    ARRAY(SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r
                          WHERE r.rolname <> 'pg_database_owner' AND pg_catalog.pg_has_role(r.oid, n.nspowner, 'MEMBER')
                            AND NOT pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER')
                            AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles s
                                            WHERE s.rolsuper AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER'))
                          ORDER BY r.rolname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[self.view.into()],
            |row| Ok((row.text(1)?, row.text(2)?, row.texts(3)?)),
        )?;
        let Some((Some(schema), Some(schema_owner), Some(roles))) = found.into_iter().next() else {
            return Ok(None);
        };
        Ok((!roles.is_empty()).then(|| {
            Problem::new(
                "schema",
                Level::Warning,
                format!(
                    "{} can put another view in the place of {}, which would get raw events, since {schema_owner} owns \
                     schema {schema}",
                    some_of(&roles),
                    self.name
                ),
                format!("ALTER SCHEMA {schema} OWNER TO {}, or move the inbox into a schema of its own.", self.owner_name),
            )
        }))
    }

    /// Finds the roles that can drop the inbox together with an object that it depends on, by DROP … CASCADE, and can create
    /// another view in its schema. Such an object is a table, its schema or a table above a partition. Leaves out the roles
    /// that `replaceable` finds.
    pub(super) fn droppable(&self) -> Result<Option<Problem>, Error> {
        let roles = select(
            "WITH RECURSIVE needed(class, object, part) AS (
                 SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, $1, 0
                 UNION
                 SELECT more.class, more.object, more.part FROM needed CROSS JOIN LATERAL (
                     SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
                     WHERE d.classid = needed.class AND d.objid = needed.object AND d.objsubid = needed.part
                     -- A column goes with its table, and a view with its query.
                     UNION ALL SELECT needed.class, needed.object, 0
                     UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, 0 FROM pg_catalog.pg_rewrite r
                     WHERE needed.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND r.ev_class = needed.object
                       AND r.rulename = '_RETURN'
                 ) AS more(class, object, part)
             ),
             droppers AS (
                 SELECT s.refobjid AS role FROM needed JOIN pg_catalog.pg_shdepend s ON s.classid = needed.class
                   AND s.objid = needed.object AND s.deptype = 'o'
                   AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
                 -- Owners that Postgres keeps no dependency for: pg_database_owner.
                 UNION SELECT n.nspowner FROM needed JOIN pg_catalog.pg_namespace n ON n.oid = needed.object
                 WHERE needed.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass
             )
             SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(r.rolname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             CROSS JOIN pg_catalog.pg_roles r
             WHERE c.oid = $1 AND r.rolname <> 'pg_database_owner'
               AND NOT pg_catalog.pg_has_role(r.oid, n.nspowner, 'MEMBER')
               AND NOT pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER')
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles s
                               WHERE s.rolsuper AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER'))
               AND EXISTS (SELECT FROM droppers d WHERE pg_catalog.pg_has_role(r.oid, d.role, 'MEMBER'))
               AND EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
                           AND (a.grantee = 0 OR pg_catalog.pg_has_role(r.oid, a.grantee, 'MEMBER')))
             ORDER BY r.rolname",
            &[self.view.into()],
            |row| Ok(row.text(1)?.zip(row.text(2)?)),
        )?;
        let (schemas, roles): (Vec<String>, Vec<String>) = roles.into_iter().flatten().unzip();
        Ok(schemas.first().map(|schema| {
            Problem::new(
                "schema",
                Level::Warning,
                format!(
                    "{} can drop {} together with an object that it depends on, and put another view in its place, which would \
                     get raw events",
                    some_of(&roles),
                    self.name
                ),
                format!(
                    "Take CREATE on schema {schema} from these roles, or make {} the owner of the tables and their schemas.",
                    self.owner_name
                ),
            )
        }))
    }
}
