//! Relations and their columns as the catalogs describe them, and what a rule can do with them.

use masking::{Column, Kind, Rule};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::{Error, quoted};
use crate::plan::Plan;
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

impl Relation {
    /// The relation that `name` means under the current search path; an error of Postgres's own where there is none.
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let relations = select(
            "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::text,
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t
                            WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND NOT t.tgisinternal),
                    EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 68 = 68),
                    pg_catalog.row_security_active(c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = $1::pg_catalog.regclass",
            &[name.into()],
            |row| Ok(((row.get(1)?, row.get(2)?, row.get(3)?), (row.get(4)?, row.get(5)?, row.get(6)?))),
        )?;
        match relations.into_iter().next() {
            Some((
                (Some(oid), Some(name), Some(kind)),
                (Some(before), Some(instead), Some(row_security)),
            )) => Ok(Self {
                oid,
                name,
                kind,
                before_row_trigger: before,
                instead_trigger: instead,
                row_security,
            }),
            _ => Err(Error::Internal("a relation is not in the catalogs")),
        }
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

    /// What keeps in-server COPY from being the way to write these columns of the relation, if anything does.
    ///
    /// It is for tables that Postgres itself stores, all of them. Extensions that keep the rows of a table elsewhere
    /// have COPY answer success and write nothing: theirs are known by their catalogs. A catalog counts only where a
    /// superuser owns it, since anyone may name a table so; and no view does, as reading it would run what is in it.
    ///
    /// It looks at the catalogs as they are now, and not as the statement or transaction saw them at first: what was
    /// claimed since is claimed.
    pub(crate) fn copy_obstacle(&self, filled: &[&str]) -> Result<Option<String>, Error> {
        #[expect(unsafe_code, reason = "calls Postgres")]
        // SAFETY: what is pushed is popped; after an error the end of the (sub)transaction does that.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            let obstacle = self.copy_obstacle_now(filled);
            pg_sys::PopActiveSnapshot();
            obstacle
        }
    }

    fn copy_obstacle_now(&self, filled: &[&str]) -> Result<Option<String>, Error> {
        if !["r", "p"].contains(&self.kind.as_str()) {
            return Ok(Some("it is a view or a foreign table".into()));
        }
        if self.row_security {
            return Ok(Some("it has row-level security for the inbox's owner".into()));
        }
        let obstacles = select(
            "WITH tree AS (SELECT $1 AS relid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1))
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
            &[self.oid.into(), filled.to_vec().into()],
            |row| row.get::<String>(1),
        )?;
        if let Some(obstacle) = obstacles.into_iter().flatten().next() {
            return Ok(Some(obstacle));
        }
        for (extension, [schema, catalog], claim) in CLAIMS {
            let catalogs = select(
                "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                    AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND r.rolsuper
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind = 'r'",
                &[schema.into(), catalog.into()],
                |row| row.get::<bool>(1),
            )?;
            let claimed = match catalogs.first() {
                None => false,
                Some(Some(true)) => {
                    let sql = format!("SELECT EXISTS (SELECT FROM {schema}.{catalog} WHERE {claim})");
                    select(&sql, &[self.oid.into()], |row| row.get::<bool>(1))? == [Some(true)]
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

    /// A constraint that waits for COMMIT would refuse the whole transaction there, again at each redelivery. Checked
    /// within the flush it makes a reject of the culprit alone. It stays immediate until the transaction's end.
    pub(crate) fn check_deferred(&self) -> Result<Option<Plan>, Error> {
        let deferred = select(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.conname) FROM pg_catalog.pg_constraint c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE c.conrelid = $1 AND c.condeferred",
            &[self.oid.into()],
            |row| row.get::<String>(1),
        )?;
        let names: Vec<String> = deferred.into_iter().flatten().collect();
        if names.is_empty() {
            return Ok(None);
        }
        Plan::prepare(&format!("SET CONSTRAINTS {} IMMEDIATE", names.join(", ")), &[]).map(Some)
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
pub(crate) struct Attribute {
    pub(crate) number: i16,
    pub(crate) name: String,
    pub(crate) type_oid: pg_sys::Oid,
    pub(crate) typmod: i32,
    /// The type as SQL names it, without its modifier.
    type_name: String,
    /// The type under any domains over it, and its modifier.
    pub(crate) base: pg_sys::Oid,
    base_typmod: i32,
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

    /// The type to cast a value to, where Postgres would not assign it by itself.
    pub(crate) fn cast(&self, kind: Kind) -> Option<String> {
        (kind == Kind::Text && !self.is_text()).then(|| self.type_name.clone())
    }

    /// The characters that the column takes.
    pub(crate) fn limit(&self) -> Option<usize> {
        // The modifier counts the length word of a varlena too (varchar.c).
        let length = usize::try_from(self.base_typmod).ok()?.checked_sub(pg_sys::VARHDRSZ)?;
        [pg_sys::VARCHAROID, pg_sys::BPCHAROID].contains(&self.base).then_some(length)
    }
}

/// The rows of a read-only query. Assigns no transaction id, as pgrx's own `Spi::get_one` would.
pub(crate) fn select<T>(
    sql: &str,
    arguments: &[pgrx::datum::DatumWithOid<'_>],
    read: impl Fn(pgrx::spi::SpiHeapTupleData<'_>) -> Result<T, pgrx::spi::Error>,
) -> Result<Vec<T>, Error> {
    Spi::connect(|client| {
        let rows = client.select(sql, None, arguments)?;
        Ok(rows.map(read).collect::<Result<Vec<T>, _>>()?)
    })
}
