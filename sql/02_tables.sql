-- Makes the tables in the first schema of the search path. Run it as a superuser, or as the role that will own them.
--
-- It is one statement, so that no other role sees a table before it is closed. Names are looked up in that schema and in the
-- extension's alone: another schema of the search path could belong to anybody.
DO $do$
DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    home        CONSTANT pg_catalog.name := pg_catalog.current_schema();
    extension   pg_catalog.name;
    outsiders   pg_catalog.text;
    caller_role CONSTANT pg_catalog.text := pg_catalog.current_setting('role');
    made        pg_catalog.name[] := '{}';
    object      pg_catalog.record;
    grantee     pg_catalog.text;
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
    PERFORM pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', home), true);

    -- A masked value: keeps a raw one out of the columns below, regardless of who inserts it. A domain, since its error quotes nothing,
    -- where a CHECK of the table would show the whole row. (A text COPY tells the value in the error's context nevertheless.)
    BEGIN
        CREATE DOMAIN masked AS varchar(256);
        made := pg_catalog.array_append(made, 'masked');
    EXCEPTION WHEN duplicate_object THEN
        NULL;
    END;

    -- Logins with their PII masked. No raw value ever comes into this table: see 03_inbox.sql.
    BEGIN
        CREATE TABLE user_logins (
            user_id          varchar(128) NOT NULL,
            device_type      varchar(32),
            masked_ip        masked,
            masked_device_id masked,
            locale           varchar(32),
            app_version      integer,
            create_date      date,
            -- The SQS message: a redelivered one is found by it and not stored again. NULL for rows put in by hand.
            message_id       uuid UNIQUE
        );
        made := pg_catalog.array_append(made, 'user_logins');
    EXCEPTION WHEN duplicate_table THEN
        NULL;
    END;

    -- Events that could not become a login, masked whole, with a reason that quotes nothing of them.
    -- unmask_pii(masked_body) is the event, byte for byte: it can go into the inbox again when the cause is mended.
    BEGIN
        CREATE TABLE login_rejects (
            message_id  uuid UNIQUE,
            sent_at     timestamptz,
            reason      text NOT NULL,
            masked_body text,
            rejected_at timestamptz NOT NULL
        );
        made := pg_catalog.array_append(made, 'login_rejects');
    EXCEPTION WHEN duplicate_table THEN
        NULL;
    END;

    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    FOR object IN
        SELECT 'TABLE' AS kind, c.relname AS name, c.relowner AS owner, c.relacl AS acl
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = home AND c.relname IN ('user_logins', 'login_rejects')
        UNION ALL
        SELECT 'DOMAIN', t.typname, t.typowner, t.typacl
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = home AND t.typname = 'masked'
    LOOP
        -- The owner of a table reads it and can put triggers on it, which run with the rights of the inbox's owner.
        IF pg_get_userbyid(object.owner) NOT IN (current_user, 'login_owner') THEN
            RAISE duplicate_object USING
                MESSAGE = format('%s %I.%I already exists and belongs to %s',
                                 lower(object.kind), home, object.name, object.owner::regrole),
                HINT = format('Drop or rename it. To keep it, check its definition, triggers and grants, then run '
                              'ALTER %s %I.%I OWNER TO CURRENT_USER.', object.kind, home, object.name);
        END IF;
        -- ALTER DEFAULT PRIVILEGES can have opened a new table to other roles. Later grants are an administrator's, and stay.
        CONTINUE WHEN object.name <> ALL (made);
        FOR grantee IN
            SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            FROM aclexplode(object.acl) a
            WHERE a.grantee <> object.owner
        LOOP
            EXECUTE format('REVOKE ALL ON %s %I.%I FROM %s', object.kind, home, object.name, grantee);
        END LOOP;
    END LOOP;

    -- PUBLIC can use any type, which is Postgres's default. But a column of one of these in anybody's table, even a temporary
    -- one, keeps the CHECK below from being added and user_logins from being altered. Roles that make views or tables with
    -- such columns need a grant. Without an ACL nobody has decided yet: pg_dump has none for the row types of tables.
    FOR object IN
        SELECT t.typname AS name FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = home AND t.typname IN ('masked', 'user_logins', 'login_rejects')
          AND (t.typacl IS NULL OR t.typname = ANY (made))
    LOOP
        EXECUTE format('REVOKE USAGE ON TYPE %I.%I FROM PUBLIC', home, object.name);
    END LOOP;

    -- The CHECK casts the value. A domain that was there already could have a type of its maker, with a cast of its maker.
    IF NOT EXISTS (
        SELECT FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = home AND t.typname = 'masked' AND t.typtype = 'd'
          -- The length, as Postgres keeps it.
          AND t.typbasetype = 'varchar'::regtype AND t.typtypmod = 256 + 4
    ) THEN
        RAISE wrong_object_type USING
            MESSAGE = format('%I.masked already exists and is no domain of varchar(256)', home),
            HINT = 'Drop or rename it.';
    END IF;

    -- DROP EXTENSION pg_mask CASCADE takes the domain's CHECK with it. Adding it again checks all rows.
    IF NOT EXISTS (
        SELECT FROM pg_constraint c
        JOIN pg_depend d ON d.classid = 'pg_constraint'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_proc'::regclass
        WHERE c.contypid = format('%I.masked', home)::regtype
          AND d.refobjid = format('%I.is_masked(text)', extension)::regprocedure
    ) THEN
        -- As its owner: whatever the domain has become by now, nothing of it runs with a superuser's rights.
        IF (SELECT pg_get_userbyid(t.typowner) <> current_user FROM pg_type t WHERE t.oid = format('%I.masked', home)::regtype) THEN
            PERFORM pg_catalog.set_config('role', 'login_owner', true);
        END IF;
        EXECUTE format('ALTER DOMAIN %I.masked ADD CONSTRAINT is_masked CHECK (%I.is_masked(VALUE::text))', home, extension);
        PERFORM pg_catalog.set_config('role', caller_role, true);
    END IF;

    -- Rejects are redriven, and deleted, by age.
    EXECUTE format('CREATE INDEX IF NOT EXISTS login_rejects_rejected_at ON %I.login_rejects (rejected_at)', home);

    PERFORM pg_catalog.set_config('search_path', caller_path, true);
END
$do$;
