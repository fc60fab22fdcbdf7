-- Makes the extension in the first schema of the search path. Needs a superuser, as every extension in C does.
DO $do$
DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    home        CONSTANT pg_catalog.name := pg_catalog.current_schema();
    extension   pg_catalog.name;
    outsiders   pg_catalog.text;
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
    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$do$;
