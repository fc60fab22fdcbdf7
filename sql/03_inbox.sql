-- The only door for raw events. A view, so there is nothing on disk that a raw event could be written to.
-- Inserting into the two tables is done with the rights of its owner: see 04_roles.sql.
--
-- For an inbox of your own, SELECT attach_inbox(…) is enough. The code around it here searches two schemas only: the first of
-- the search path, and the extension's. Another schema could belong to anybody.
DO $do$
DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    caller_messages CONSTANT pg_catalog.text := pg_catalog.current_setting('client_min_messages');
    home        CONSTANT pg_catalog.name := pg_catalog.current_schema();
    extension   pg_catalog.name;
    outsiders   pg_catalog.text;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    SELECT n.nspname INTO STRICT extension
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_mask';

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

    -- The owner of a schema can put other objects in the place of these.
    IF (SELECT NOT r.rolsuper AND r.rolname NOT IN (current_user, 'login_owner', 'pg_database_owner')
        FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = home) THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('schema %I belongs to another role', home),
            HINT = 'Use a schema of your own, of login_owner or of a superuser.';
    END IF;

    -- Nor is anything of somebody else's taken for one of these.
    IF EXISTS (
        SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = home AND c.relname IN ('user_logins', 'login_rejects', 'login_inbox')
          AND pg_get_userbyid(c.relowner) NOT IN (current_user, 'login_owner')
    ) THEN
        RAISE duplicate_table USING
            MESSAGE = format('user_logins, login_rejects or login_inbox in schema %I belongs to another role', home),
            HINT = 'Drop or rename it. To keep it, check its definition, triggers and grants, and change its owner.';
    END IF;

    -- An inbox masks under a key with its owner's rights. 04_roles.sql grants this, too. But where login_owner owns the table
    -- already, the inbox is login_owner's from the start. 04_roles.sql says what is wrong with members.
    IF (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user)
        AND EXISTS (
            SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = home AND c.relname = 'user_logins' AND pg_get_userbyid(c.relowner) = 'login_owner'
        )
        AND NOT EXISTS (
            SELECT FROM pg_auth_members a JOIN pg_roles m ON m.oid = a.member JOIN pg_roles r ON r.oid = a.roleid
            WHERE r.rolname = 'login_owner' AND NOT m.rolsuper
        )
    THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION %I.mask_pii(text, text) TO login_owner', extension);
    END IF;

    -- A superuser as owner is warned of. 04_roles.sql makes login_owner the owner, which it is already where it owns the tables.
    PERFORM pg_catalog.set_config('client_min_messages', 'error', true);

    -- Every argument is given, with its type, so that this is the extension's function and no other of its name.
    PERFORM pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', extension), true);
    PERFORM attach_inbox(
        inbox    => pg_catalog.format('%I.login_inbox', home),
        target   => pg_catalog.format('%I.user_logins', home),
        rejects  => pg_catalog.format('%I.login_rejects', home),
        rules    => '{
            "user_id":          {"copy": "user_id"},
            "device_type":      {"copy": "device_type"},
            "masked_ip":        {"mask": "ip"},
            "masked_device_id": {"mask": "device_id"},
            "locale":           {"copy": "locale"},
            "app_version":      {"version": "app_version"},
            "create_date":      "sent_date",
            "message_id":       "message_id"
        }'::jsonb,
        flush    => 'auto'::text,
        envelope => 'none'::text,
        event    => ''::text,
        allow_unlogged => false
    );

    PERFORM pg_catalog.set_config('client_min_messages', caller_messages, true);
    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$do$;
