-- Makes the extension in the first schema of the search path. Needs a superuser, as every extension in C does.
DO $do$
DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    home        CONSTANT pg_catalog.name := pg_catalog.current_schema();
    extension   pg_catalog.name;
    outsiders   pg_catalog.text;
    namesakes   pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT n.nspname INTO extension
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_mask';
    extension := coalesce(extension, home);
    IF extension IS NULL THEN
        RAISE invalid_schema_name USING
            MESSAGE = 'no schema of the search path exists',
            HINT = 'SET search_path to the schema that the extension should be in.';
    END IF;

    -- A function that fits a call better than the extension's own runs with the caller's rights. So nobody else can make one
    -- in its schema. login_owner can, since making partitions takes CREATE: see variants/partitioned.sql.
    outsiders := (
        SELECT string_agg(coalesce(quote_ident(r.rolname), 'PUBLIC'), ', ' ORDER BY creator.role)
        FROM pg_namespace n CROSS JOIN LATERAL (
            SELECT n.nspowner UNION SELECT a.grantee FROM aclexplode(n.nspacl) a WHERE a.privilege_type = 'CREATE'
        ) AS creator (role)
        LEFT JOIN pg_roles r ON r.oid = creator.role
        WHERE n.nspname = extension AND r.rolsuper IS NOT TRUE
          AND coalesce(r.rolname, 'PUBLIC') NOT IN (current_user, 'pg_database_owner')
          AND (r.rolname IS DISTINCT FROM 'login_owner' OR creator.role = n.nspowner)
    );
    IF outsiders IS NOT NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('%s can create functions in schema %I, beside those of pg_mask', outsiders, extension),
            HINT = format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC, and from those roles. Give a schema that one of them owns to '
                          'a superuser. Look at the functions there.', extension);
    END IF;

    EXECUTE format('CREATE EXTENSION IF NOT EXISTS pg_mask SCHEMA %I', extension);

    -- Such a function can also be left from a time when others could create there. So can a type, which a call with one
    -- argument is a cast to. An error takes the extension back.
    WITH own AS (
        SELECT p.proname AS name FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
          AND d.refobjid = (SELECT e.oid FROM pg_extension e WHERE e.extname = 'pg_mask')
    ), others AS (
        SELECT p.oid::regprocedure::text AS name, p.proowner AS owner FROM pg_proc p
        WHERE p.pronamespace = extension::regnamespace AND p.proname IN (SELECT name FROM own)
        UNION ALL
        SELECT 'type ' || t.oid::regtype::text, t.typowner FROM pg_type t
        WHERE t.typnamespace = extension::regnamespace AND t.typname IN (SELECT name FROM own)
    )
    SELECT string_agg(o.name, ', ' ORDER BY o.name) INTO namesakes
    FROM others o JOIN pg_roles r ON r.oid = o.owner AND NOT r.rolsuper;
    IF namesakes IS NOT NULL THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('schema %I has routines or types of other roles with the names of pg_mask''s routines: %s', extension, namesakes),
            HINT = 'Calls can find them first, with the rights of the caller. Drop them, or move them to another schema.';
    END IF;
    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$do$;
