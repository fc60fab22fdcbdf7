//! Functions that run for each row, and whose names others can give a meaning.

use pgrx::pg_sys;

use super::{Level, Problem};
use crate::error::Error;
use crate::pg::catalog::select;

/// Finds functions that run for rows of these relations under a search path that other roles than the inbox's owner can
/// choose, or in whose schemas they can create. Any role with CREATE on the database can make a schema that is missing.
///
/// A session compiles a PL/pgSQL function once, under the path of that moment. It inlines a SQL function into a domain's CHECK,
/// an index expression or a partition key once, too. A role that inserts can choose that path, and so what the names in the
/// function mean, with the rights of the inbox's owner. SQL functions with a body that was parsed when they were created
/// (BEGIN ATOMIC) are safe.
pub(super) fn open_paths(relations: &[pg_sys::Oid], owner: pg_sys::Oid) -> Result<Option<Problem>, Error> {
    let functions = select(
        "WITH RECURSIVE types AS (
             SELECT atttypid AS oid FROM pg_catalog.pg_attribute WHERE attrelid = ANY ($1) AND attnum > 0 AND NOT attisdropped
             UNION
             SELECT part.oid FROM types t JOIN pg_catalog.pg_type y ON y.oid = t.oid CROSS JOIN LATERAL (
                 VALUES (y.typbasetype), (y.typelem)
                 UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = y.typrelid AND a.attnum > 0
                 UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE y.oid IN (r.rngtypid, r.rngmultitypid)
             ) AS part (oid) WHERE part.oid <> 0
         ),
         callers AS (
             SELECT 'pg_catalog.pg_trigger'::pg_catalog.regclass AS class, oid FROM pg_catalog.pg_trigger WHERE tgrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, oid FROM pg_catalog.pg_attrdef WHERE adrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_constraint'::pg_catalog.regclass, oid FROM pg_catalog.pg_constraint
                       WHERE conrelid = ANY ($1) OR contypid IN (SELECT oid FROM types)
             -- Partition keys and partitions of the relations themselves; expressions and predicates of indexes.
             UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid FROM pg_catalog.pg_class WHERE oid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, indexrelid FROM pg_catalog.pg_index
                       WHERE indrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_policy'::pg_catalog.regclass, oid FROM pg_catalog.pg_policy WHERE polrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_rewrite'::pg_catalog.regclass, oid FROM pg_catalog.pg_rewrite WHERE ev_class = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, oid FROM pg_catalog.pg_statistic_ext
                       WHERE stxrelid = ANY ($1)
             UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid FROM types
         ),
         called AS (
             SELECT c.class, d.refclassid, d.refobjid FROM callers c
             JOIN pg_catalog.pg_depend d ON d.classid = c.class AND d.objid = c.oid
         ),
         open_schemas AS (
             SELECT n.nspname FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL (
                 SELECT n.nspowner
                 UNION SELECT a.grantee FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
             ) AS creator (role)
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = creator.role
             WHERE creator.role <> $2 AND r.rolsuper IS NOT TRUE AND r.rolname IS DISTINCT FROM 'pg_database_owner'
         )
         SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, p.proname) COLLATE pg_catalog.\"C\"
         FROM (
             SELECT refobjid AS function FROM called WHERE refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
             UNION SELECT o.oprcode FROM called JOIN pg_catalog.pg_operator o ON o.oid = refobjid
                   WHERE refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
         ) AS f
         JOIN pg_catalog.pg_proc p ON p.oid = f.function
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname <> 'pg_catalog'
         JOIN pg_catalog.pg_language l ON l.oid = p.prolang
         WHERE (l.lanname = 'plpgsql' OR l.lanname = 'sql' AND p.prosqlbody IS NULL)
           -- Postgres searches pg_temp first where a path doesn't name it.
           AND NOT EXISTS (
               SELECT FROM pg_catalog.unnest(p.proconfig) s (setting)
               CROSS JOIN LATERAL (
                   SELECT pg_catalog.array_agg(COALESCE(pg_catalog.replace(item[1], '\"\"', '\"'), item[2]) ORDER BY place) AS schemas
                   FROM pg_catalog.regexp_matches(
                       pg_catalog.substr(s.setting, 13), '\"((?:[^\"]|\"\")*)\"|([^\", ]+)', 'g') WITH ORDINALITY AS m (item, place)
               ) AS path
               WHERE s.setting LIKE 'search_path=%' AND path.schemas[pg_catalog.cardinality(path.schemas)] = 'pg_temp'
                 AND '$user' <> ALL (path.schemas)
                 AND NOT EXISTS (SELECT FROM open_schemas o WHERE o.nspname = ANY (path.schemas))
                 AND NOT EXISTS (
                     SELECT FROM pg_catalog.unnest(path.schemas) s (schema)
                     WHERE s.schema <> 'pg_temp'
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace e WHERE e.nspname = s.schema)))
         ORDER BY 1",
        &[relations.to_vec().into(), owner.into()],
        |row| row.text(1),
    )?;
    let functions: Vec<String> = functions.into_iter().flatten().collect();
    Ok((!functions.is_empty()).then(|| {
        Problem::new(
            "paths",
            Level::Warning,
            format!("functions run for each row under a search path that others can change: {}", functions.join(", ")),
            "A role that inserts, that creates in a schema of the path, or that makes a missing one, can choose what their names \
             mean, with the rights of the inbox's owner. ALTER FUNCTION ... SET search_path = pg_catalog, pg_temp prevents that.",
        )
    }))
}
