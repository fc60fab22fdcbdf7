//! Obstacles to writing a relation by in-server COPY.

use pgrx::pg_sys;

use super::{Relation, select, with_latest_snapshot};
use crate::error::Error;
use crate::pg::plan::{Bound, Plan};

/// Extensions that store a table's rows in their own way. For each: the catalog that lists its tables, and the condition
/// that finds a table there.
const CLAIMS: [(&str, [&str; 2], &str); 2] = [
    ("Citus", ["pg_catalog", "pg_dist_partition"], "logicalrelid = $1"),
    (
        "TimescaleDB",
        ["_timescaledb_catalog", "hypertable"],
        "(schema_name, table_name) = (SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
                                      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1)",
    ),
];

impl Relation {
    /// Returns the obstacle to writing these columns of the relation by in-server COPY, if there is one. `key` names the
    /// columns that identify a row, the id first: COPY does not notice that their unique index is gone.
    ///
    /// COPY is only for tables that Postgres itself stores completely. Extensions that keep a table's rows elsewhere let
    /// COPY report success and write nothing. Their tables are recognized by the extensions' catalogs. A catalog counts only
    /// if a superuser owns it, because anyone can give a table this name. A view never counts, because reading it would run
    /// the code in it.
    ///
    /// It reads the catalogs as they are now, not as the statement or transaction first saw them. So a table that was
    /// claimed since counts as claimed.
    pub(crate) fn copy_obstacle(
        &self,
        tree: &[pg_sys::Oid],
        filled: &[&str],
        key: &[String],
    ) -> Result<Option<String>, Error> {
        with_latest_snapshot(|| self.copy_obstacle_now(tree, filled, key))
    }

    fn copy_obstacle_now(
        &self,
        tree: &[pg_sys::Oid],
        filled: &[&str],
        key: &[String],
    ) -> Result<Option<String>, Error> {
        if !self.is_table() {
            return Ok(Some("it is a view or a foreign table".into()));
        }
        if self.row_security {
            return Ok(Some("it has row-level security for the inbox's owner".into()));
        }
        if let Some(id) = key.first()
            && self.unique_index(id, key)?.is_none()
        {
            return Ok(Some("it has no unique index on the message id".into()));
        }
        let obstacles = select(
            "WITH tree AS (SELECT relid FROM pg_catalog.unnest($3) relid)
             SELECT CASE
                WHEN EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = relid
                             LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
                             WHERE c.relkind NOT IN ('r', 'p') OR a.amname <> 'heap')
                    THEN 'it is not, or not all of it, stored as a heap'
                WHEN EXISTS (SELECT FROM tree JOIN pg_catalog.pg_trigger t ON t.tgrelid = relid
                             WHERE t.tgtype & 7 = 7 AND NOT t.tgisinternal)
                    THEN 'it has a BEFORE INSERT trigger for each row'
                WHEN EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = $1 AND r.ev_type = '3')
                    THEN 'it has a rule for INSERT'
                WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
                             WHERE i.inhparent = $1 AND c.relkind = 'r')
                    THEN 'it has tables that inherit from it'
                WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> ALL ($2)
                               AND t.typtype = 'd' AND NOT a.atthasdef)
                    THEN 'it has a column of a domain that has neither rule nor default, which COPY does not check'
                WHEN pg_catalog.pg_is_other_temp_schema((SELECT relnamespace FROM pg_catalog.pg_class WHERE oid = $1))
                    THEN 'it is temporary, of another session'
                END",
            &[self.oid.into(), filled.to_vec().into(), tree.to_vec().into()],
            |row| row.text(1),
        )?;
        if let Some(obstacle) = obstacles.into_iter().flatten().next() {
            return Ok(Some(obstacle));
        }
        for (extension, [schema, catalog], claim) in CLAIMS {
            let catalogs = select(
                "SELECT c.oid, pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                    AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND r.rolsuper
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r'",
                &[schema.into(), catalog.into()],
                |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<bool>(2)?)),
            )?;
            let claimed = match catalogs.first() {
                None => false,
                Some((Some(oid), Some(true))) => {
                    let sql = format!("SELECT pg_catalog.count(*) FROM {schema}.{catalog} WHERE {claim}");
                    // Bound to the table that a superuser owns, whatever its name means by now.
                    let relations = vec![*oid, pg_sys::RelationRelationId, pg_sys::NamespaceRelationId];
                    let bound = Bound { relations, functions: Vec::new() };
                    let claims = Plan::prepare(&bound, &sql, &[pg_sys::OIDOID])?;
                    claims.execute(&[self.oid.into()])?.first > 0
                }
                // The current role cannot read the catalog, so nothing rules a claim out.
                Some(_) => true,
            };
            if claimed {
                return Ok(Some(format!("{extension} has claimed it")));
            }
        }
        Ok(None)
    }
}
