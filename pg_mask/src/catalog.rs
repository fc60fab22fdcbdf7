//! Relations and their columns as the catalogs describe them, and what a rule can do with them.

use std::ffi::CStr;

use masking::{Column, Kind, Rule};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, quoted};
use crate::plan::{Bound, Plan};
use crate::security::with_catalog_path;
use crate::writer::Conflict;

/// A relation as the catalogs describe it.
pub(crate) struct Relation {
    pub(crate) oid: pg_sys::Oid,
    /// Schema-qualified, quoted as SQL needs it.
    pub(crate) name: String,
    pub(crate) kind: String,
    /// Whether a BEFORE INSERT row trigger may change what is inserted.
    pub(crate) before_row_trigger: bool,
    /// Whether an INSTEAD OF trigger takes what is inserted, which goes with no ON CONFLICT.
    pub(crate) instead_trigger: bool,
    /// Whether policies apply to the current user.
    pub(crate) row_security: bool,
}

/// A table, or a part of one.
pub(crate) struct Part {
    pub(crate) oid: pg_sys::Oid,
    /// Whether it has rows of its own.
    pub(crate) is_table: bool,
    /// Whether it is the table itself or a partition that Postgres stores, and not a foreign one or one that inherits.
    pub(crate) is_stored: bool,
}

/// Extensions that store the rows of a table in their own way, the catalog in which each keeps those tables, and what
/// finds one there.
const CLAIMS: [(&str, [&str; 2], &str); 2] = [
    ("Citus", ["pg_catalog", "pg_dist_partition"], "logicalrelid = $1"),
    (
        "TimescaleDB",
        ["_timescaledb_catalog", "hypertable"],
        "(schema_name, table_name) = (SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
                                      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1)",
    ),
];

/// Returns the relation that a name means under the search path of the caller, who wrote it; none where there is no such.
pub(crate) fn look_up(name: &str) -> Result<Option<pg_sys::Oid>, Error> {
    let found = Spi::connect(|client| {
        let rows =
            client.select("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", None, &[name.into()])?;
        rows.first().get::<pg_sys::Oid>(1)
    })?;
    Ok(found)
}

impl Relation {
    /// Reads what the catalogs say of a relation.
    pub(crate) fn open(oid: pg_sys::Oid) -> Result<Self, Error> {
        let relations = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text,
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t
                            WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND NOT t.tgisinternal),
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 68 = 68),
                    pg_catalog.row_security_active(c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
            &[oid.into()],
            |row| Ok(((row.get(1)?, row.get(2)?), (row.get(3)?, row.get(4)?, row.get(5)?))),
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

    /// Returns the table with its partitions, and with tables that inherit from it. Locks none of them.
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
        // SAFETY: plain calls with oids. A relation of these kinds has a row type, and that an array type.
        unsafe {
            pg_sys::get_array_type(pg_sys::get_rel_type_id(self.oid))
        }
    }

    /// Returns the relation and all that its rows may go into: partitions, tables that inherit from it, what stands behind
    /// views and rules. Locks none of them.
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

    pub(crate) fn attributes(&self) -> Result<Vec<Attribute>, Error> {
        let attributes = select(
            "SELECT attnum, attname::text, atttypid, atttypmod, pg_catalog.format_type(atttypid, -1),
                    attnotnull, attgenerated <> '' OR attidentity = 'a',
                    attnotnull AND NOT atthasdef AND attidentity = ''
             FROM pg_catalog.pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[self.oid.into()],
            |row| {
                let (number, name, type_oid, typmod) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                let (type_name, not_null, generated) = (row.get(5)?, row.get(6)?, row.get(7)?);
                let must_be_given = row.get(8)?;
                Ok((|| {
                    let (type_oid, typmod): (pg_sys::Oid, i32) = (type_oid?, typmod?);
                    let mut base_typmod = typmod;
                    #[expect(unsafe_code, reason = "calls Postgres")]
                    // SAFETY: a pointer to a local; the type was just read from the catalogs.
                    let base = unsafe { pg_sys::getBaseTypeAndTypmod(type_oid, &raw mut base_typmod) };
                    Some(Attribute {
                        number: number?,
                        name: name?,
                        type_oid,
                        typmod,
                        type_name: type_name?,
                        base,
                        base_typmod,
                        not_null: not_null?,
                        must_be_given: must_be_given?,
                        generated: generated?,
                    })
                })())
            },
        )?;
        Ok(attributes.into_iter().flatten().collect())
    }

    /// Returns what keeps in-server COPY from being the way to write these columns of the relation, if anything does. `key` names
    /// the columns by which a row is known, the id first: COPY does not notice that their unique index is gone.
    ///
    /// It is for tables that Postgres itself stores, all of them. Extensions that keep the rows of a table elsewhere
    /// have COPY answer success and write nothing: theirs are known by their catalogs. A catalog counts only where a
    /// superuser owns it, since anyone may name a table so; and no view does, as reading it would run what is in it.
    ///
    /// It looks at the catalogs as they are now, and not as the statement or transaction saw them at first: what was
    /// claimed since is claimed.
    pub(crate) fn copy_obstacle(
        &self,
        tree: &[pg_sys::Oid],
        filled: &[&str],
        key: &[String],
    ) -> Result<Option<String>, Error> {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: what is pushed is popped; after an error the end of the (sub)transaction does that.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            let obstacle = self.copy_obstacle_now(tree, filled, key);
            pg_sys::PopActiveSnapshot();
            obstacle
        }
    }

    fn copy_obstacle_now(
        &self,
        tree: &[pg_sys::Oid],
        filled: &[&str],
        key: &[String],
    ) -> Result<Option<String>, Error> {
        if !["r", "p"].contains(&self.kind.as_str()) {
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
            |row| row.get::<String>(1),
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
                    // The table that a superuser owns, whatever has come to have its name.
                    let relations = vec![*oid, pg_sys::RelationRelationId, pg_sys::NamespaceRelationId];
                    let bound = Bound { relations, functions: Vec::new() };
                    let claims = Plan::prepare(&bound, &sql, &[pg_sys::OIDOID])?;
                    claims.execute(&[self.oid.into()])?.first > 0
                }
                // Nobody says that it is not.
                Some(_) => true,
            };
            if claimed {
                return Ok(Some(format!("{extension} has claimed it")));
            }
        }
        Ok(None)
    }

    /// How a redelivered message is found again in this target.
    pub(crate) fn conflict(&self, columns: &[Column]) -> Result<Conflict, Error> {
        let index_of = |name: &String| columns.iter().position(|column| column.name == *name);
        let Some(id) = columns.iter().find(|column| column.rule == Rule::MessageId) else {
            return Ok(Conflict::Error);
        };
        // What the same message has again at each delivery may stand in the index beside the id: on a partitioned
        // table the partition key must.
        let same_again: Vec<String> = columns
            .iter()
            .filter(|column| column.rule.key().is_none())
            .map(|column| column.name.clone())
            .collect();
        let key = match self.kind.as_str() {
            "r" | "p" => self.unique_index(&id.name, &same_again)?.ok_or_else(|| Error::NoUniqueIndex {
                relation: self.name.clone(),
                columns: quoted(&[&id.name]),
            })?,
            // The index stands behind a foreign table or a view, where it cannot be named.
            _ => return Ok(Conflict::Any(index_of(&id.name).into_iter().collect())),
        };
        Ok(Conflict::On(key.iter().filter_map(index_of).collect()))
    }

    /// The columns of a unique index that has `column`, and besides it `others` at most.
    pub(crate) fn unique_index(&self, column: &str, others: &[String]) -> Result<Option<Vec<String>>, Error> {
        let indexes = select(
            "SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum), i.indimmediate
             FROM pg_catalog.pg_index i
             CROSS JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, n)
             LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid
               AND NOT i.indnullsnotdistinct
               AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
             GROUP BY i.indexrelid
             HAVING pg_catalog.array_agg(a.attname::text) @> ARRAY[$2] AND pg_catalog.array_agg(a.attname::text) <@ $3
             ORDER BY pg_catalog.count(*)",
            &[self.oid.into(), column.into(), others.to_vec().into()],
            |row| Ok((row.get::<Vec<String>>(1)?, row.get::<bool>(2)?)),
        )?;
        // ON CONFLICT (columns) takes all indexes on these columns, and fails when one of them is deferrable.
        let deferrable = |key: &Vec<String>| indexes.contains(&(Some(key.clone()), Some(false)));
        Ok(indexes.iter().filter_map(|(key, _)| key.as_ref()).find(|key| !deferrable(key)).cloned())
    }
}

/// A column as the catalogs describe it.
#[derive(Clone)]
pub(crate) struct Attribute {
    pub(crate) number: i16,
    pub(crate) name: String,
    pub(crate) type_oid: pg_sys::Oid,
    pub(crate) typmod: i32,
    /// The type's name without its modifier, for an error.
    type_name: String,
    /// The type under any domains over it, and its modifier.
    pub(crate) base: pg_sys::Oid,
    pub(crate) base_typmod: i32,
    pub(crate) not_null: bool,
    /// NOT NULL, and nothing but a rule puts anything there.
    pub(crate) must_be_given: bool,
    generated: bool,
}

impl Attribute {
    /// Whether `rule` can fill this column; an error where it cannot.
    pub(crate) fn check(&self, rule: &Rule) -> Result<(), Error> {
        let kind = rule.kind();
        let (name, allowed, fits) = match rule {
            // These two cut off what is too long, without an error.
            Rule::Copy(_) => (
                "copy",
                "any but name and \"char\"",
                ![pg_sys::NAMEOID, pg_sys::CHAROID].contains(&self.base),
            ),
            Rule::Mask(_) => (
                "mask",
                "text or character varying",
                [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&self.base),
            ),
            Rule::Version(_) => (
                "version",
                "integer, bigint or numeric",
                [pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID].contains(&self.base),
            ),
            Rule::SentDate => ("sent_date", "date", self.takes(kind)),
            Rule::SentAt => ("sent_at", "timestamp with time zone", self.takes(kind)),
            Rule::MessageId => ("message_id", "uuid", self.takes(kind)),
        };
        if self.generated {
            return Err(Error::GeneratedColumn { column: self.name.clone() });
        }
        if !fits {
            let (column, found) = (self.name.clone(), self.type_name.clone());
            return Err(Error::ColumnType { column, found, rule: name, allowed });
        }
        Ok(())
    }

    /// Whether the column is of the very type of `kind`.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        let base = self.base;
        match kind {
            Kind::Text => base == pg_sys::TEXTOID || base == pg_sys::VARCHAROID,
            Kind::Integer => base == pg_sys::INT4OID,
            Kind::Date => base == pg_sys::DATEOID,
            Kind::Timestamp => base == pg_sys::TIMESTAMPTZOID,
            Kind::Uuid => base == pg_sys::UUIDOID,
        }
    }

    /// Whether Postgres takes a text as it is: then a cast would be wrong, since an explicit cast to `varchar(n)` cuts
    /// off what is too long where an assignment refuses it.
    pub(crate) fn is_text(&self) -> bool {
        [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base)
    }

    /// Whether an open relation has this column as it was read.
    ///
    /// # Safety
    /// The relation is open.
    #[expect(unsafe_code, reason = "reads Postgres's structs")]
    pub(crate) unsafe fn is_in(&self, relation: pg_sys::Relation) -> bool {
        // SAFETY: an open relation has a descriptor with all columns that it ever had, each with a name.
        unsafe {
            let description = &*(*relation).rd_att;
            let columns = description.attrs.as_slice(usize::try_from(description.natts).unwrap_or_default());
            let index = usize::try_from(self.number - 1).unwrap_or(usize::MAX);
            columns.get(index).is_some_and(|column| {
                !column.attisdropped
                    && (column.atttypid, column.atttypmod) == (self.type_oid, self.typmod)
                    && CStr::from_ptr(column.attname.data.as_ptr()).to_bytes() == self.name.as_bytes()
            })
        }
    }

    /// The characters that the column takes.
    pub(crate) fn limit(&self) -> Option<usize> {
        // The modifier counts the length word of a varlena too (varchar.c).
        let length = usize::try_from(self.base_typmod).ok()?.checked_sub(pg_sys::VARHDRSZ)?;
        [pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base).then_some(length)
    }
}

/// Opens a relation for `act` if its columns are still as they were read; an error where they are not. The lock lasts to the end
/// of the transaction, as that of any insert, so the columns stay so. After an error the end of the (sub)transaction closes it.
pub(crate) fn with_unchanged<R>(
    oid: pg_sys::Oid,
    columns: &[Attribute],
    act: impl FnOnce(pg_sys::Relation) -> R,
) -> Result<R, Error> {
    #[expect(unsafe_code, reason = "calls Postgres")]
    // SAFETY: what is opened is closed; an error raised within leaves that to the (sub)transaction.
    unsafe {
        let relation = pg_sys::try_relation_open(oid, pg_sys::RowExclusiveLock.cast_signed());
        if relation.is_null() {
            return Err(Error::Dropped);
        }
        let unchanged = columns.iter().all(|column| column.is_in(relation));
        let result = if unchanged { Ok(act(relation)) } else { Err(Error::Altered) };
        pg_sys::relation_close(relation, pg_sys::NoLock.cast_signed());
        result
    }
}

/// Returns the first of these relations whose rows are lost when the server crashes.
pub(crate) fn unlogged(relations: &[pg_sys::Oid]) -> Result<Option<String>, Error> {
    let unlogged = select(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = ANY ($1) AND c.relpersistence = 'u' ORDER BY c.oid LIMIT 1",
        &[relations.to_vec().into()],
        |row| row.get::<String>(1),
    )?;
    Ok(unlogged.into_iter().flatten().next())
}

/// Returns the rows of a query on the catalogs. Every such query of this library goes through here, so none can find a name
/// in a schema of somebody's. It is read-only: it assigns no transaction id, as pgrx's own `Spi::get_one` would.
pub(crate) fn select<T>(
    sql: &str,
    arguments: &[pgrx::datum::DatumWithOid<'_>],
    read: impl Fn(pgrx::spi::SpiHeapTupleData<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    with_catalog_path(|| {
        Spi::connect(|client| {
            let rows = client.select(sql, None, arguments)?;
            Ok(rows.map(read).collect::<Result<Vec<T>, _>>()?)
        })
    })
}
