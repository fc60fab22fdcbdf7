//! Checks whether the loader's role can do more than it should. It needs INSERT on the inbox and nothing else, so that
//! anyone who steals its password can read nothing.

use tokio_postgres::Error;
use tokio_postgres::types::{Oid, Type};

use super::catalog::Catalog;
use crate::check_item::CheckItem;

/// Reads about the role itself, the inbox's owner, and the extension's view that lists who can do what.
const ROLE: &str = "
    SELECT EXISTS (SELECT FROM pg_roles m WHERE m.rolsuper AND pg_has_role(m.oid, 'MEMBER')),
           pg_has_role(c.relowner, 'MEMBER'), c.relowner::regrole::text,
           format('%I.pii_privileges', n.nspname),
           coalesce(has_table_privilege(to_regclass(format('%I.pii_privileges', n.nspname)), 'SELECT'), false)
    FROM pg_namespace n, pg_class c WHERE n.oid = $1 AND c.oid = $2";

/// Lists everything that the role can do with values: by itself, as a member of another role, or through PUBLIC, which
/// is role 0.
const PRIVILEGES: &str = "
    SELECT p.privilege || ' (' || concat_ws(' ', p.way, 'on ' || p.object, 'through ' || p.through::text) || ')'
    FROM {view} p
    WHERE p.role IN (SELECT m.oid FROM pg_roles m WHERE m.rolname = current_user UNION ALL SELECT 0)
    ORDER BY p.privilege, p.object, p.way";

/// Lists what else the role can do: its attributes, memberships and CREATE privileges, its privileges on settings and on
/// closed functions of Postgres, and on relations that belong neither to the system nor to an extension. INSERT on another inbox isn't listed, because it is no more
/// than INSERT on this one.
const OTHERS: &str = "
    WITH mine AS MATERIALIZED (SELECT m.* FROM pg_roles m WHERE pg_has_role(m.oid, 'MEMBER')),
    inboxes AS MATERIALIZED (SELECT inbox FROM {inboxes})
    SELECT array_remove(ARRAY[
               CASE WHEN bool_or(rolcreaterole) THEN 'CREATEROLE' END, CASE WHEN bool_or(rolcreatedb) THEN 'CREATEDB' END,
               CASE WHEN bool_or(rolreplication) THEN 'REPLICATION' END, CASE WHEN bool_or(rolbypassrls) THEN 'BYPASSRLS' END,
               CASE WHEN bool_or(has_database_privilege(oid, current_database(), 'CREATE'))
                    THEN 'CREATE on the database' END
           ], NULL)
           || array_remove(array_agg(CASE WHEN rolname LIKE 'pg\\_%' THEN 'membership in ' || rolname END ORDER BY rolname), NULL)
           || ARRAY(SELECT 'CREATE on schema ' || quote_ident(n.nspname) FROM pg_namespace n
                    WHERE n.nspname !~ '^pg_'
                      AND EXISTS (SELECT FROM mine m WHERE has_schema_privilege(m.oid, n.oid, 'CREATE')) ORDER BY n.nspname)
           || ARRAY(SELECT a.privilege_type || ' on parameter ' || p.parname
                    FROM pg_parameter_acl p CROSS JOIN LATERAL aclexplode(p.paracl) a
                    WHERE a.grantee = 0 OR a.grantee IN (SELECT oid FROM mine) ORDER BY 1)
           -- Functions of Postgres's own that are closed to PUBLIC, such as those that read the server's files.
           || ARRAY(SELECT 'EXECUTE on ' || p.oid::regprocedure
                    FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
                    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND a.grantee IN (SELECT oid FROM mine)
                      AND NOT EXISTS (SELECT FROM aclexplode(p.proacl) o WHERE o.grantee = 0) ORDER BY 1),
           ARRAY(SELECT may.what || ' on ' || c.oid::regclass
                 FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 CROSS JOIN LATERAL (
                     SELECT bool_or(has_any_column_privilege(m.oid, c.oid, 'SELECT')) AS read,
                            bool_or(has_any_column_privilege(m.oid, c.oid, 'INSERT')) AS inserted,
                            bool_or(has_any_column_privilege(m.oid, c.oid, 'UPDATE')) AS updated,
                            bool_or(has_table_privilege(m.oid, c.oid, 'DELETE')) AS deleted,
                            bool_or(has_table_privilege(m.oid, c.oid, 'TRUNCATE')) AS truncated,
                            bool_or(has_table_privilege(m.oid, c.oid, 'TRIGGER')) AS triggered,
                            bool_or(has_any_column_privilege(m.oid, c.oid, 'REFERENCES')) AS referred
                     FROM mine m WHERE has_schema_privilege(m.oid, n.oid, 'USAGE')
                 ) AS can
                 CROSS JOIN LATERAL (VALUES
                     ('SELECT', read), ('INSERT', inserted AND c.oid NOT IN (SELECT inbox FROM inboxes)),
                     ('UPDATE', updated), ('DELETE', deleted), ('TRUNCATE', truncated), ('TRIGGER', triggered),
                     ('REFERENCES', referred)
                 ) AS may (what, granted)
                 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND may.granted
                   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                   AND NOT EXISTS (SELECT FROM pg_depend d
                                   WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
                 ORDER BY c.oid = $1 DESC, 1),
           bool_or(rolsuper)
    FROM mine";

/// Maximum number of names in a message. The others are only counted.
const NAMED: usize = 5;

/// Checks whether the role can act as the inbox's owner or unmask values. `schema` is the extension's.
pub(super) async fn of_pg_mask(
    catalog: &Catalog<'_>,
    user: &str,
    schema: Oid,
    inbox: Oid,
) -> Result<CheckItem, Error> {
    const ITEM: &str = "rights.unmask";
    let row = catalog.query_one(ROLE, &[(&schema, Type::OID), (&inbox, Type::OID)]).await?;
    if row.try_get(0)? {
        return Ok(CheckItem::warning(
            ITEM,
            format!(
                "role {user} is a superuser, or can become one, and so can read every value: give the loader a role with login_loader, which \
                 can insert into the inbox and nothing else"
            ),
        ));
    }
    if row.try_get(1)? {
        let owner: String = row.try_get(2)?;
        return Ok(CheckItem::warning(
            ITEM,
            format!("role {user} is a member of {owner}, which owns the inbox: REVOKE {owner} FROM {user}"),
        ));
    }
    let view: String = row.try_get(3)?;
    if !row.try_get::<_, bool>(4)? {
        return Ok(CheckItem::warning(
            ITEM,
            format!(
                "role {user} cannot read {view}, which tells who can unmask: GRANT SELECT ON {view} TO {user}, or ALTER EXTENSION \
                 pg_mask UPDATE where there is none"
            ),
        ));
    }
    let rows = catalog.query(&PRIVILEGES.replace("{view}", &view), &[]).await?;
    let privileges = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    if privileges.is_empty() {
        return Ok(CheckItem::ok(ITEM, format!("role {user} can unmask nothing")));
    }
    Ok(CheckItem::warning(
        ITEM,
        format!(
            "role {user} can {}, which a loader has no use for: REVOKE it, or the role that brings it",
            some_of(&privileges)
        ),
    ))
}

/// Checks what else the role can do, anywhere in the database. It examines every relation. `inboxes` is the extension's
/// view of this name.
pub(super) async fn of_others(
    catalog: &Catalog<'_>,
    user: &str,
    inboxes: &str,
    inbox: Oid,
) -> Result<CheckItem, Error> {
    const ITEM: &str = "rights.others";
    let row = catalog.query_one(&OTHERS.replace("{inboxes}", inboxes), &[(&inbox, Type::OID)]).await?;
    if row.try_get(2)? {
        return Ok(CheckItem::skipped(ITEM, "a superuser may do everything"));
    }
    let (mut more, relations): (Vec<String>, Vec<String>) = (row.try_get(0)?, row.try_get(1)?);
    more.extend(relations);
    if more.is_empty() {
        return Ok(CheckItem::ok(ITEM, format!("role {user} can insert into the inbox, and nothing else")));
    }
    Ok(CheckItem::warning(
        ITEM,
        format!("role {user} has more rights than a loader needs: {}. REVOKE them", some_of(&more)),
    ))
}

fn some_of(names: &[String]) -> String {
    match names.get(..NAMED) {
        Some(some) if names.len() > NAMED => format!("{} and {} more", some.join(", "), names.len() - NAMED),
        _ => names.join(", "),
    }
}
