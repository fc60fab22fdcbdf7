//! Relations as the catalogs describe them.

use pgrx::pg_sys;

use super::select;
use crate::error::Error;

/// A relation as the catalogs describe it.
pub(crate) struct Relation {
    pub(crate) oid: pg_sys::Oid,
    /// Schema-qualified, quoted as SQL needs it.
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Whether a BEFORE INSERT row trigger may change the inserted row.
    pub(crate) before_row_trigger: bool,
    /// Whether an INSTEAD OF trigger takes the inserted row. Such a view does not allow ON CONFLICT.
    pub(crate) instead_trigger: bool,
    /// Whether policies apply to the current user.
    pub(crate) row_security: bool,
}

/// A table, or a partition or child of it.
pub(crate) struct Part {
    pub(crate) oid: pg_sys::Oid,
    /// Whether it stores rows itself.
    pub(crate) is_table: bool,
    /// Whether it is the table itself or a partition that Postgres stores. Foreign partitions and inheriting tables are not.
    pub(crate) is_stored: bool,
}

impl Relation {
    /// Reads a relation from the catalogs.
    pub(crate) fn open(oid: pg_sys::Oid) -> Result<Self, Error> {
        let relations = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text,
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t
                            WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND NOT t.tgisinternal),
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 68 = 68),
                    pg_catalog.row_security_active(c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[oid.into()],
            |row| Ok(((row.text(1)?, row.text(2)?), (row.get(3)?, row.get(4)?, row.get(5)?))),
        )?;
        match relations.into_iter().next() {
            Some(((Some(name), Some(kind)), (Some(before), Some(instead), Some(row_security)))) => Ok(Self {
                oid,
                name,
                kind,
                before_row_trigger: before,
                instead_trigger: instead,
                row_security,
            }),
            _ => Err(Error::Dropped),
        }
    }

    /// Whether it is a table of this database, partitioned or not.
    pub(crate) fn is_table(&self) -> bool {
        ["r", "p"].contains(&self.kind.as_str())
    }

    /// Returns the table, its partitions, and the tables that inherit from it. Locks none of them.
    pub(crate) fn partitions(&self) -> Result<Vec<Part>, Error> {
        let parts = select(
            "WITH RECURSIVE tree(relation) AS (
                 SELECT $1 UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
             )
             SELECT c.oid, c.relkind = 'r', c.relkind IN ('r', 'p') AND (c.oid = $1 OR c.relispartition)
             FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relation ORDER BY c.oid",
            &[self.oid.into()],
            |row| Ok((row.get::<pg_sys::Oid>(1)?, row.get::<bool>(2)?, row.get::<bool>(3)?)),
        )?;
        let part = |(oid, is_table, is_stored): (Option<_>, Option<_>, Option<_>)| {
            Some(Part { oid: oid?, is_table: is_table?, is_stored: is_stored? })
        };
        Ok(parts.into_iter().filter_map(part).collect())
    }

    /// Returns the type of an array of the relation's rows.
    pub(crate) fn array_type(&self) -> pg_sys::Oid {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: plain calls with OIDs. A relation of these kinds has a row type, which has an array type.
        unsafe {
            pg_sys::get_array_type(pg_sys::get_rel_type_id(self.oid))
        }
    }

    /// Returns the relation and all relations that its rows may go into: partitions, tables that inherit from it, and
    /// relations behind views and rules. Locks none of them.
    pub(crate) fn tree(&self) -> Result<Vec<pg_sys::Oid>, Error> {
        let tree = select(
            "WITH RECURSIVE tree(relation) AS (
                 SELECT $1 UNION SELECT more.relation FROM tree CROSS JOIN LATERAL (
                     SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = tree.relation
                     UNION ALL
                     SELECT d.refobjid FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.objid = r.oid
                     WHERE r.ev_class = tree.relation AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                 ) AS more(relation)
             ) SELECT relation FROM tree",
            &[self.oid.into()],
            |row| row.get::<pg_sys::Oid>(1),
        )?;
        Ok(tree.into_iter().flatten().collect())
    }
}
