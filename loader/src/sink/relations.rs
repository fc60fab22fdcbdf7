//! The tables that an inbox writes to, and the schema that it is in.

use tokio_postgres::Error;
use tokio_postgres::types::{Oid, Type};

use super::catalog::Catalog;
use crate::finding::Finding;

/// The item that tells of tables which a crash empties.
pub(super) const LOGGED: &str = "inbox.logged";
/// The item that tells who can replace the inbox.
pub(super) const SCHEMA: &str = "inbox.schema";

/// Maximum relations named in a message.
const NAMED: usize = 5;

/// The definition of the inbox `$1`: the argument of its row trigger. The extension's triggers have fixed names, so a trigger
/// that somebody else puts on the view is not read.
pub(super) const DEFINITION: &str = "
    SELECT convert_from(rtrim(t.tgargs, '\\x00'::bytea), 'UTF8')::jsonb AS definition
    FROM pg_trigger t
    JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid
         AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_mask'
    WHERE t.tgrelid = $1 AND t.tgname = 'pg_mask_row'";

/// Finds UNLOGGED tables, and relations that are no tables, among those that an inbox writes to and their partitions. The
/// inbox's view depends on its target and its rejects table, whatever their names are now. `pg_partition_tree` would lock
/// each partition to the end of the transaction.
const STORED: &str = "
    WITH RECURSIVE stored AS (
        SELECT c.oid, c.relkind FROM pg_rewrite r
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
             AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
        JOIN pg_class c ON c.oid = d.refobjid
        WHERE r.ev_class = $1
        UNION
        SELECT c.oid, c.relkind FROM stored s
        JOIN pg_inherits i ON i.inhparent = s.oid AND s.relkind = 'p' JOIN pg_class c ON c.oid = i.inhrelid
    )
    SELECT array_agg(c.oid::regclass::text ORDER BY c.oid) FILTER (WHERE c.relkind = 'r' AND c.relpersistence = 'u'),
           array_agg(c.oid::regclass::text ORDER BY c.oid) FILTER (WHERE c.relkind NOT IN ('r', 'p'))
    FROM stored JOIN pg_class c USING (oid)";

/// The roles that can put another view in the inbox's place: those with the rights of the schema's owner, who can drop the
/// view or rename the schema. `pg_database_owner` has the database's owner as its member. Superusers, and roles with the
/// rights of the inbox's owner, gain nothing by it.
const REPLACERS: &str = "
    SELECT c.oid::regclass::text, quote_ident(n.nspname), n.nspowner::regrole::text, c.relowner::regrole::text,
           ARRAY(SELECT quote_ident(r.rolname) FROM pg_roles r
                 WHERE r.rolname <> 'pg_database_owner' AND pg_has_role(r.oid, n.nspowner, 'MEMBER')
                   AND NOT pg_has_role(r.oid, c.relowner, 'MEMBER')
                   AND NOT EXISTS (SELECT FROM pg_roles s WHERE s.rolsuper AND pg_has_role(r.oid, s.oid, 'MEMBER'))
                 ORDER BY r.rolname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";

/// Looks whether a crash of the server would empty what events are stored in.
pub(super) async fn logged(catalog: &Catalog<'_>, inbox: Oid) -> Result<Finding, Error> {
    let row = catalog.query_one(STORED, &[(&inbox, Type::OID)]).await?;
    let names = |column| Ok::<_, Error>(row.try_get::<_, Option<Vec<String>>>(column)?.unwrap_or_default());
    let (unlogged, others) = (names(0)?, names(1)?);
    Ok(if let Some((table, _)) = unlogged.split_first() {
        let verb = if unlogged.len() == 1 { "is" } else { "are" };
        Finding::warning(
            LOGGED,
            format!(
                "{} {verb} UNLOGGED: a crash of the server empties it, and its messages are deleted from the queue by \
                 then. ALTER TABLE {table} SET LOGGED",
                listed(&unlogged)
            ),
        )
    } else if others.is_empty() {
        Finding::ok(LOGGED, "what is stored or rejected survives a crash of the server")
    } else {
        Finding::skipped(
            LOGGED,
            format!("{} is no table: make sure that what is behind it survives a crash", listed(&others)),
        )
    })
}

/// Looks who can put another view in the inbox's place.
pub(super) async fn replaceable(catalog: &Catalog<'_>, inbox: Oid) -> Result<Finding, Error> {
    let row = catalog.query_one(REPLACERS, &[(&inbox, Type::OID)]).await?;
    let [name, schema, schema_owner, owner] =
        [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get::<_, String>(3)?];
    let roles: Vec<String> = row.try_get(4)?;
    if roles.is_empty() {
        let text = format!("only {owner} and superusers can put another view in the place of {name}");
        return Ok(Finding::ok(SCHEMA, text));
    }
    Ok(Finding::warning(
        SCHEMA,
        format!(
            "{} can put another view in the place of {name}, which would get raw events, since {schema_owner} owns schema \
             {schema}: ALTER SCHEMA {schema} OWNER TO {owner}, or move the inbox into a schema of its own",
            listed(&roles)
        ),
    ))
}

fn listed(names: &[String]) -> String {
    match names.get(..NAMED) {
        Some(some) if names.len() > NAMED => format!("{} and {} more", some.join(", "), names.len() - NAMED),
        _ => names.join(", "),
    }
}
