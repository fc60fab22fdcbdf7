\echo Use "ALTER EXTENSION pg_mask UPDATE" to load this file. \quit

SET LOCAL search_path = pg_catalog, pg_temp;

-- A function, since Postgres estimates the cost far too high and would compile it: seconds for milliseconds.
CREATE OR REPLACE FUNCTION @extschema@.pii_privileges()
RETURNS TABLE (role regrole, privilege text, way text, object text, through regrole)
LANGUAGE sql STABLE SET jit = off SET search_path = pg_catalog, pg_temp AS $function$
WITH RECURSIVE
-- The extension's own functions. Others can have their names.
functions AS (
    SELECT p.oid, p.proname AS name, p.pronargs AS arguments, p.pronamespace AS schema, p.proowner AS owner,
           coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
    FROM pg_extension e
    JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
         AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    JOIN pg_proc p ON p.oid = d.objid
    WHERE e.extname = 'pg_mask'
),
-- Roles that can call a function. An owner can grant it to itself.
callers AS (
    SELECT oid AS function, name, arguments, owner AS role, 'ownership' AS way FROM functions
    UNION ALL
    SELECT f.oid, f.name, f.arguments, a.grantee, 'grant'
    FROM functions f CROSS JOIN LATERAL aclexplode(f.acl) a WHERE a.grantee <> f.owner
),
inboxes AS (
    SELECT c.oid AS inbox, c.relowner AS owner, c.relacl AS acl
    FROM pg_class c
    WHERE c.relkind = 'v' AND EXISTS (
        SELECT FROM pg_trigger t JOIN functions f ON f.oid = t.tgfoid AND f.name = 'inbox_trigger'
        -- INSTEAD OF, for each row.
        WHERE t.tgrelid = c.oid AND t.tgtype::integer & 65 = 65
    )
),
-- Relations that a view, a rule or a policy refers to, and partitions.
parts AS (
    SELECT q.whole, d.refobjid AS part
    FROM (
        SELECT ev_class AS whole, 'pg_rewrite'::regclass AS class, oid FROM pg_rewrite
        UNION ALL SELECT polrelid, 'pg_policy'::regclass, oid FROM pg_policy
    ) AS q
    JOIN pg_depend d ON d.classid = q.class AND d.objid = q.oid AND d.refclassid = 'pg_class'::regclass
    WHERE d.refobjid <> q.whole
    UNION ALL
    SELECT inhparent, inhrelid FROM pg_inherits
),
foreign_keys AS (
    SELECT r.oid AS referring, r.relowner AS referring_owner, r.relacl AS referring_acl, f.conkey AS columns,
           c.oid AS referenced, c.relowner AS owner, f.conpfeqop || f.conppeqop || f.conffeqop AS operators,
           -- CASCADE, SET NULL or SET DEFAULT.
           f.confdeltype IN ('c', 'n', 'd') OR f.confupdtype IN ('c', 'n', 'd') AS cascades,
           -- The key of a partition is part of the key of the table above, whose owner's rights a cascade has.
           f.conparentid <> 0 AS is_part
    FROM pg_constraint f JOIN pg_class r ON r.oid = f.conrelid JOIN pg_class c ON c.oid = f.confrelid
    WHERE f.contype = 'f'
),
-- Tables whose rows change with the rights of a role, `owner`: the target and the rejects table of an inbox, their
-- partitions, the tables behind a target that is a view, and the tables that policies read. Also tables that a cascade
-- changes. A cascade has the rights of their owner, and any role can delete or update the row that they refer to.
tables AS (
    SELECT i.owner, p.part AS relation FROM inboxes i JOIN parts p ON p.whole = i.inbox
    UNION
    SELECT referring_owner, referring FROM foreign_keys WHERE cascades AND NOT is_part
    UNION
    SELECT t.owner, p.part FROM tables t JOIN parts p ON p.whole = t.relation
),
-- Tables above a partition, or above a table that inherits: altering one alters the tables below it.
above AS (
    SELECT t.owner, p.inhparent AS relation FROM tables t JOIN pg_inherits p ON p.inhrelid = t.relation
    UNION
    SELECT a.owner, p.inhparent FROM above a JOIN pg_inherits p ON p.inhrelid = a.relation
),
-- The types of their columns, the types that refer to a table by a foreign key, and the types that these are made of.
types AS (
    SELECT t.owner, a.atttypid AS type, true AS is_stored
    FROM tables t JOIN pg_attribute a ON a.attrelid = t.relation AND a.attnum > 0 AND NOT a.attisdropped
    UNION
    -- CREATE TABLE … OF type: altering the type alters the table.
    SELECT t.owner, c.reloftype, true FROM tables t JOIN pg_class c ON c.oid = t.relation WHERE c.reloftype <> 0
    UNION
    -- The check of a foreign key casts them with the rights of the table's owner.
    SELECT f.owner, a.atttypid, false
    FROM foreign_keys f JOIN pg_attribute a ON a.attrelid = f.referring AND a.attnum = ANY (f.columns)
    UNION
    SELECT t.owner, part.type, t.is_stored
    FROM types t JOIN pg_type y ON y.oid = t.type
    CROSS JOIN LATERAL (
        VALUES (y.typbasetype), (y.typelem)
        UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE y.oid IN (r.rngtypid, r.rngmultitypid)
    ) AS part (type)
    WHERE part.type <> 0
),
-- Objects through which functions are called when a row is stored, or when the table is analyzed.
hooks AS (
    SELECT t.owner, h.class, h.hook
    FROM tables t JOIN (
        SELECT tgrelid AS relation, 'pg_trigger'::regclass AS class, oid AS hook FROM pg_trigger
        -- Of the table itself: the partition key.
        UNION ALL SELECT oid, 'pg_class'::regclass, oid FROM pg_class
        UNION ALL SELECT conrelid, 'pg_constraint'::regclass, oid FROM pg_constraint
        UNION ALL SELECT adrelid, 'pg_attrdef'::regclass, oid FROM pg_attrdef
        UNION ALL SELECT indrelid, 'pg_class'::regclass, indexrelid FROM pg_index
        UNION ALL SELECT polrelid, 'pg_policy'::regclass, oid FROM pg_policy
        UNION ALL SELECT ev_class, 'pg_rewrite'::regclass, oid FROM pg_rewrite
        UNION ALL SELECT stxrelid, 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext
    ) AS h USING (relation)
    UNION ALL
    -- Storing a row in a partition computes the partition key of the tables above.
    SELECT a.owner, 'pg_class'::regclass, a.relation FROM above a
    UNION ALL
    SELECT t.owner, 'pg_constraint'::regclass, c.oid
    FROM types t JOIN pg_constraint c ON c.contypid = t.type WHERE t.is_stored
    UNION ALL
    -- The default of a domain, the canonical form of a range, what reads a base type.
    SELECT t.owner, 'pg_type'::regclass, t.type FROM types t WHERE t.is_stored
),
-- The functions themselves, and those of operators.
calls AS (
    SELECT h.owner, d.refobjid AS function
    FROM hooks h
    JOIN pg_depend d ON d.classid = h.class AND d.objid = h.hook AND d.refclassid = 'pg_proc'::regclass
    UNION
    SELECT h.owner, o.oprcode
    FROM hooks h
    JOIN pg_depend d ON d.classid = h.class AND d.objid = h.hook AND d.refclassid = 'pg_operator'::regclass
    JOIN pg_operator o ON o.oid = d.refobjid
),
-- Roles whose code runs with the rights of another role, and who can do whatever that one can do. With the rights of an
-- inbox's owner when it stores a row: in a trigger, a CHECK, a cast, or a function that is called already. With the rights of
-- a table's owner when a foreign key is checked that refers to the table, or when a cascade changes the table.
steering AS (
    SELECT s.role, s.way, s.class, s.object, s.owner
    FROM (
        SELECT t.owner, c.relowner AS role, 'ownership' AS way, 'pg_class'::regclass AS class, c.oid AS object
        FROM (TABLE tables UNION TABLE above) AS t JOIN pg_class c ON c.oid = t.relation
        UNION
        SELECT t.owner, a.grantee, 'TRIGGER', 'pg_class'::regclass, c.oid
        FROM tables t JOIN pg_class c ON c.oid = t.relation CROSS JOIN LATERAL aclexplode(c.relacl) a
        WHERE a.privilege_type = 'TRIGGER' AND a.grantee <> c.relowner
        UNION
        SELECT t.owner, y.typowner, CASE WHEN t.is_stored THEN 'ownership' ELSE 'REFERENCES' END, 'pg_type'::regclass, y.oid
        -- The owner of a domain can add a CHECK, of a row type a column with one, and of any type a cast.
        FROM types t JOIN pg_type y ON y.oid = t.type
        -- An array is its elements' owner's.
        WHERE NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = y.oid)
        UNION
        SELECT c.owner, p.proowner, 'ownership', 'pg_proc'::regclass, p.oid
        FROM calls c JOIN pg_proc p ON p.oid = c.function
    ) AS s
    WHERE s.role <> s.owner
    UNION
    -- The check casts a value by the implicit cast of the type that refers, which is anybody's, and runs as the table's owner.
    SELECT g.grantee, 'REFERENCES', 'pg_class'::regclass, g.relation, g.owner
    FROM (
        SELECT c.oid AS relation, c.relowner AS owner, a.grantee, a.privilege_type
        FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE c.relkind IN ('r', 'p')
        UNION ALL
        SELECT c.oid, c.relowner, a.grantee, a.privilege_type
        FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) a
        WHERE c.relkind IN ('r', 'p')
    ) AS g
    WHERE g.privilege_type = 'REFERENCES' AND g.grantee <> g.owner
    UNION
    -- A foreign key stays when the right to make it is gone. The owner of its table can change the type that refers.
    -- An AFTER trigger on it, after a cascade, runs as the role that deletes or updates the row: as the owner in a redrive.
    SELECT holder.role, 'REFERENCES', 'pg_class'::regclass, f.referenced, f.owner
    FROM foreign_keys f
    CROSS JOIN LATERAL (
        SELECT f.referring_owner UNION SELECT a.grantee FROM aclexplode(f.referring_acl) a WHERE a.privilege_type = 'TRIGGER'
    ) AS holder (role)
    WHERE holder.role <> f.owner
    UNION
    SELECT p.proowner, 'REFERENCES', 'pg_proc'::regclass, p.oid, f.owner
    FROM foreign_keys f JOIN pg_trigger t ON t.tgrelid = f.referring AND NOT t.tgisinternal JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE f.cascades AND p.proowner <> f.owner
    UNION
    -- The check compares with the rights of the owner of the table that it reads, which is either of the two.
    SELECT p.proowner, 'REFERENCES', 'pg_proc'::regclass, p.oid, reads.owner
    FROM foreign_keys f CROSS JOIN LATERAL unnest(f.operators) AS operator (oid)
    JOIN pg_operator o ON o.oid = operator.oid JOIN pg_proc p ON p.oid = o.oprcode
    CROSS JOIN LATERAL (VALUES (f.owner), (f.referring_owner)) AS reads (owner)
    WHERE p.proowner <> reads.owner
),
-- Memberships, whether inherited or by SET ROLE.
memberships AS (
    SELECT member, roleid AS role FROM pg_auth_members
    UNION ALL
    SELECT d.datdba, r.oid FROM pg_database d, pg_roles r
    WHERE d.datname = current_database() AND r.rolname = 'pg_database_owner'
),
members AS (
    SELECT member, role FROM memberships
    UNION
    SELECT m.member, n.role FROM members m JOIN memberships n ON n.member = m.role
),
superusers AS (
    SELECT oid FROM pg_roles WHERE rolsuper
),
-- Roles and what they can do, without what they have through other roles.
own AS (
    SELECT role,
           CASE WHEN name = 'unmask_pii' THEN 'unmask'
                WHEN name LIKE 'mask%' THEN 'mask under a key'
                ELSE 'remask' END AS privilege,
           way, 'pg_proc'::regclass AS class, function AS object
    FROM callers
    WHERE name IN ('unmask_pii', 'mask_pii_all', 'remask_pii', 'remask_column') OR name = 'mask_pii' AND arguments = 2
    UNION ALL
    -- The owner of an inbox can put a trigger on it, which sees raw events.
    SELECT owner, 'see events', 'ownership', 'pg_class'::regclass, inbox FROM inboxes
    UNION ALL
    SELECT a.grantee, 'see events', 'TRIGGER', 'pg_class'::regclass, i.inbox
    FROM inboxes i CROSS JOIN LATERAL aclexplode(i.acl) a WHERE a.privilege_type = 'TRIGGER' AND a.grantee <> i.owner
    UNION ALL
    -- What a further trigger on the inbox calls.
    SELECT p.proowner, 'see events', 'ownership', 'pg_proc'::regclass, p.oid
    FROM inboxes i JOIN pg_trigger t ON t.tgrelid = i.inbox JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE p.oid NOT IN (SELECT oid FROM functions)
    UNION ALL
    -- What a rule on the inbox calls, or writes to.
    SELECT coalesce(p.proowner, c.relowner), 'see events', 'ownership', d.refclassid::regclass, d.refobjid
    FROM inboxes i JOIN pg_rewrite r ON r.ev_class = i.inbox AND r.rulename <> '_RETURN'
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refobjid <> i.inbox
    LEFT JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
    LEFT JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
    WHERE p.oid IS NOT NULL OR c.oid IS NOT NULL
    UNION ALL
    -- A routine beside the extension's own of that name runs with the rights of anyone whose call fits it better.
    SELECT p.proowner, 'unmask', 'namesake', 'pg_proc'::regclass, p.oid
    FROM pg_proc p
    WHERE (p.pronamespace, p.proname) IN (SELECT schema, name FROM functions) AND p.oid NOT IN (SELECT oid FROM functions)
    UNION ALL
    -- A call with one argument can be a cast to a type of that name.
    SELECT t.typowner, 'unmask', 'namesake', 'pg_type'::regclass, t.oid
    FROM pg_type t
    WHERE (t.typnamespace, t.typname) IN (SELECT schema, name FROM functions)
    UNION ALL
    -- The owner of a database can set everybody's search path there, and so what an unqualified call finds.
    SELECT datdba, 'unmask', 'ownership', 'pg_database'::regclass, oid FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT c.role, 'unmask', 'CREATE', 'pg_namespace'::regclass, n.oid
    FROM pg_namespace n CROSS JOIN LATERAL (
        SELECT n.nspowner UNION SELECT a.grantee FROM aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
    ) AS c (role)
    WHERE n.oid IN (SELECT schema FROM functions)
    UNION ALL
    SELECT oid, 'unmask', 'superuser', NULL, NULL FROM superusers
    UNION ALL
    -- Before PostgreSQL 16 such a role can grant itself any role but a superuser.
    SELECT oid, 'unmask', 'CREATEROLE', NULL, NULL FROM pg_roles
    WHERE rolcreaterole AND current_setting('server_version_num')::integer < 160000
    UNION ALL
    -- A faulty program in PL/Perl reads any memory of its backend, and so the key ring.
    SELECT u.role, 'unmask', 'language', 'pg_language'::regclass, l.oid
    FROM pg_language l CROSS JOIN LATERAL (
        SELECT l.lanowner UNION SELECT a.grantee FROM aclexplode(coalesce(l.lanacl, acldefault('l', l.lanowner))) a
    ) AS u (role)
    -- Its owner can rename it, but not give it another handler.
    WHERE l.lanname = 'plperl' OR l.lanplcallfoid IN (SELECT oid FROM pg_proc WHERE prosrc = 'plperl_call_handler')
    UNION ALL
    -- The key ring is a file of the server.
    SELECT oid, 'unmask', 'server files', NULL, NULL FROM pg_roles
    WHERE rolname IN ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
),
-- Redriving takes two grants, which a role can have from two sides.
redrive_grants AS (
    SELECT role, NULL::oid AS inbox FROM callers WHERE name = 'redrive_rejects'
    UNION
    SELECT owner, inbox FROM inboxes
    UNION
    SELECT r.oid, i.inbox FROM inboxes i, pg_roles r WHERE r.rolname = 'pg_write_all_data'
    UNION
    SELECT a.grantee, i.inbox
    FROM inboxes i
    LEFT JOIN pg_attribute c ON c.attrelid = i.inbox
    CROSS JOIN LATERAL (SELECT * FROM aclexplode(i.acl) UNION ALL SELECT * FROM aclexplode(c.attacl)) AS a
    WHERE a.privilege_type = 'INSERT'
),
redrive_holders AS (
    SELECT role, inbox, NULL::oid AS through FROM redrive_grants
    UNION ALL
    SELECT m.member, g.inbox, m.role FROM redrive_grants g JOIN members m ON m.role = g.role
),
redrivers AS (
    -- A grant to PUBLIC, which is role 0, goes with anyone's other grant.
    SELECT greatest(f.role, i.role) AS role, i.inbox, coalesce(f.through, i.through) AS through
    FROM redrive_holders f JOIN redrive_holders i ON f.role = i.role OR f.role = 0 OR i.role = 0
    WHERE f.inbox IS NULL AND i.inbox IS NOT NULL
),
-- What a role can do in all, to tell what those can do who steer it.
becomes AS (
    SELECT role, owner AS other FROM steering
    UNION
    SELECT member, role FROM memberships
    UNION
    SELECT b.role, next.other
    FROM becomes b
    JOIN (SELECT role, owner AS other FROM steering UNION SELECT member, role FROM memberships) AS next ON next.role = b.other
),
abilities AS (
    SELECT role, privilege FROM own
    UNION
    SELECT role, 'redrive' FROM redrivers
    UNION
    SELECT b.role, o.privilege
    FROM becomes b
    JOIN (SELECT role, privilege FROM own UNION SELECT role, 'redrive' FROM redrivers) AS o ON o.role = b.other
),
-- What a role has by itself: a superuser needs no other way.
direct AS (
    SELECT d.role, d.privilege, d.way, d.class, d.object
    FROM (
        SELECT role, privilege, way, class, object FROM own
        UNION
        SELECT s.role, a.privilege, s.way, s.class, s.object FROM steering s JOIN abilities a ON a.role = s.owner
    ) AS d
    WHERE d.way = 'superuser' OR d.role NOT IN (SELECT oid FROM superusers)
),
-- With what its members have through it.
found AS (
    SELECT role, privilege, way, class, object, NULL::oid AS through FROM direct
    WHERE way <> 'server files' AND role <> 'pg_database_owner'::regrole
    UNION
    SELECT m.member, d.privilege, CASE d.way WHEN 'server files' THEN d.way ELSE 'membership' END, d.class, d.object, m.role
    FROM direct d JOIN members m ON m.role = d.role
    UNION
    SELECT role, 'redrive', CASE WHEN through IS NULL THEN 'grant' ELSE 'membership' END, 'pg_class'::regclass, inbox, through
    FROM redrivers
)
SELECT f.role::regrole AS role, f.privilege, f.way,
       CASE WHEN p.oid IS NULL THEN (pg_identify_object(f.class, f.object, 0)).identity
            ELSE format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) END AS object,
       f.through::regrole AS through
FROM found f
LEFT JOIN pg_proc p ON f.class = 'pg_proc'::regclass AND p.oid = f.object
LEFT JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE f.way = 'superuser' OR f.role NOT IN (SELECT oid FROM superusers);
$function$;
