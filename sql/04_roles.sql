-- Run it as a superuser, or as a role that can create roles and grant unmask_pii. None of the roles can log in by
-- itself: they are for granting to the people and programs that need them.
--
-- Tables are looked up in the first schema of the search path, and functions in the extension's: another schema of the search
-- path could belong to anybody.
DO $do$
DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    home        CONSTANT pg_catalog.name := pg_catalog.current_schema();
    extension   pg_catalog.name;
    outsiders   pg_catalog.text;
    wanted      pg_catalog.text;
    object      pg_catalog.record;
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
    FOREACH wanted IN ARRAY ARRAY[
        'login_owner', 'login_loader', 'login_analyst', 'login_pii_reader', 'login_finder',
        'login_remasker', 'login_redriver'
    ] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- Roles belong to the cluster: another database may have made it, even at this moment.
        END;
    END LOOP;
    -- Somebody else may have made it, to unmask as this role.
    IF (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'login_owner') THEN
        RAISE object_in_use USING
            MESSAGE = 'role login_owner can log in',
            HINT = 'Look who made it, and for what. ALTER ROLE login_owner NOLOGIN, or drop it.';
    END IF;

    -- Nor are members of a role taken over unseen. They come to have here what is granted to it below, and somebody else may
    -- have made the role for that. A second database is set up so too, so for most roles this is a warning. A member of
    -- login_owner can do everything, and hardly any role should be one: that is an error. In a database where the grants
    -- below were made before, members come to have nothing, and nothing is said.
    FOR object IN
        SELECT r.rolname AS role, string_agg(quote_ident(m.rolname), ', ' ORDER BY m.rolname) AS members
        FROM (VALUES
            ('login_owner', 'unmask_pii(text)'),
            ('login_pii_reader', 'unmask_pii(text)'),
            ('login_finder', 'mask_pii_all(text)'),
            ('login_remasker', 'remask_pii(text)'),
            ('login_redriver', 'redrive_rejects(regclass, text, timestamptz, timestamptz, uuid[], integer)')
        ) AS given (role, function)
        JOIN pg_roles r ON r.rolname = given.role
        -- With those who have ADMIN OPTION.
        JOIN pg_auth_members a ON a.roleid = r.oid
        JOIN pg_roles m ON m.oid = a.member
        WHERE NOT m.rolsuper AND m.rolname <> current_user
          AND NOT has_function_privilege(r.oid, format('%I.%s', extension, given.function), 'EXECUTE')
        GROUP BY r.rolname ORDER BY r.rolname
    LOOP
        IF object.role = 'login_owner' THEN
            RAISE object_in_use USING
                MESSAGE = format('role login_owner already has members: %s', object.members),
                HINT = format('REVOKE login_owner FROM %s, and run this file again. Grant it again afterwards to roles '
                              'that should be able to unmask in this database.', object.members);
        END IF;
        RAISE WARNING USING
            MESSAGE = format('role %I already has members, which get its rights in this database: %s', object.role, object.members),
            HINT = format('REVOKE %I FROM roles that should not have them.', object.role);
    END LOOP;

    -- THE TABLES
    PERFORM pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', home), true);

    -- What an inbox does to its tables it does with the rights of its owner, regardless of who inserts. So that is a role which can do
    -- nothing else.
    ALTER TABLE user_logins OWNER TO login_owner;
    ALTER TABLE login_rejects OWNER TO login_owner;
    ALTER VIEW login_inbox OWNER TO login_owner;
    -- Tables of your own may do without the domain.
    IF pg_catalog.to_regtype(pg_catalog.format('%I.masked', home)) IS NOT NULL THEN
        ALTER DOMAIN masked OWNER TO login_owner;
    END IF;

    -- The loader puts events into the inbox and can do nothing else.
    GRANT INSERT ON login_inbox TO login_loader;

    -- Analysts see masked rows, and cannot unmask.
    GRANT SELECT ON user_logins TO login_analyst;

    -- Users who can see PII: all that analysts see, the rejects, and unmasking, which is granted below.
    GRANT login_analyst TO login_pii_reader;
    GRANT SELECT ON login_rejects TO login_pii_reader;

    -- Moves masked columns to another scheme or key.
    GRANT SELECT, UPDATE (masked_ip, masked_device_id) ON user_logins TO login_remasker;
    GRANT SELECT, UPDATE (masked_body) ON login_rejects TO login_remasker;

    -- Sends rejects back into the inbox once their cause is mended. Sees why they were rejected, and never what is in them.
    GRANT INSERT ON login_inbox TO login_redriver;
    GRANT SELECT (message_id, sent_at, reason, rejected_at) ON login_rejects TO login_redriver;

    -- THE EXTENSION. SELECT * FROM pii_privileges lists the roles with these rights, and the way to each.
    PERFORM pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', extension), true);

    -- An inbox masks under a key if its owner can. Those who insert need no right to.
    GRANT EXECUTE ON FUNCTION mask_pii(text, text) TO login_owner;

    -- Rejects that go back into the inbox, by redrive_rejects(), are unmasked on their way with the owner's rights: a role that
    -- sends them back need not be able to unmask. Nobody can log in as login_owner. A member of it can unmask, and so can
    -- a role that can make triggers on these tables.
    GRANT EXECUTE ON FUNCTION unmask_pii(text) TO login_owner;

    -- A superuser's remask_column() runs as the owner of the table.
    GRANT EXECUTE ON FUNCTION remask_pii(text) TO login_owner;

    GRANT EXECUTE ON FUNCTION unmask_pii(text) TO login_pii_reader;

    -- Those who look for the rows of a value that they know. By masking guesses, all IPv4 addresses say, one finds out every
    -- value, and nobody counts that: so it is not for those whose unmasking is limited or logged.
    GRANT EXECUTE ON FUNCTION mask_pii(text, text), mask_pii_all(text) TO login_finder;

    -- The role that re-masks could find out values, by re-masking guesses in base64.
    GRANT EXECUTE ON FUNCTION remask_pii(text) TO login_remasker;
    GRANT EXECUTE ON PROCEDURE remask_column(regclass, name, integer) TO login_remasker;
    GRANT INSERT, UPDATE, DELETE ON remask_progress TO login_remasker;

    GRANT EXECUTE ON FUNCTION redrive_rejects(regclass, text, timestamptz, timestamptz, uuid[], integer) TO login_redriver;

    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$do$;
