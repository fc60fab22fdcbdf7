-- Logins in a partition for each month, made and dropped by pg_partman. Run it instead of 02_tables.sql:
--
--     cat sql/01_extension.sql sql/variants/partitioned.sql sql/03_inbox.sql sql/04_roles.sql |
--         sudo -u postgres psql -d mydb -v ON_ERROR_STOP=1
--
-- For a table that grows for years: new rows touch the index of their month alone, however many months there are, and
-- old rows go by dropping a partition. Like the other files it is run by a superuser and can run twice. It needs
-- pg_partman 4.7 or 5 (Debian and PGDG: the package postgresql-15-partman), which goes into a schema of its own.

-- As in 02_tables.sql, but for user_logins.
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

    -- The columns of 02_tables.sql, in their order. What differs:
    -- * create_date is NOT NULL. An inbox always knows the date, so this concerns rows put in by hand: without a date they
    --   would lie in the DEFAULT partition indefinitely, out of reach of retention and of the unique index, which takes no
    --   NULL for another.
    -- * message_id is unique together with create_date, since a unique index must have the partition key in it. A
    --   redelivered message is still found: SQS gives it the sent date that it had before.
    BEGIN
        CREATE TABLE user_logins (
            user_id          varchar(128) NOT NULL,
            device_type      varchar(32),
            masked_ip        masked,
            masked_device_id masked,
            locale           varchar(32),
            app_version      integer,
            create_date      date NOT NULL,
            message_id       uuid,
            UNIQUE (create_date, message_id)
        ) PARTITION BY RANGE (create_date);
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
    IF (SELECT c.relkind FROM pg_class c WHERE c.oid = format('%I.user_logins', home)::regclass) <> 'p' THEN
        RAISE wrong_object_type USING
            MESSAGE = 'user_logins is there already and is not partitioned',
            HINT = 'Its rows have to move: the end of sql/variants/partitioned.sql says how.';
    END IF;
    -- Maintenance compares these values with a superuser's rights, by operators that the type's owner chose.
    IF (SELECT a.atttypid FROM pg_attribute a
        WHERE a.attrelid = format('%I.user_logins', home)::regclass AND a.attname = 'create_date') IS DISTINCT FROM 'date'::regtype THEN
        RAISE wrong_object_type USING
            MESSAGE = 'user_logins is there already, and its create_date is no date',
            HINT = 'Drop or rename it.';
    END IF;
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

-- From here on: pg_partman and the partitions.
DO $do$
DECLARE
    caller_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    home        CONSTANT pg_catalog.name := pg_catalog.current_schema();
    -- As pg_partman has it, unquoted.
    parent      CONSTANT pg_catalog.text := pg_catalog.concat(home, '.user_logins');
    installed   pg_catalog.bool := false;
    template    pg_catalog.regclass;
    object      pg_catalog.record;
    major       pg_catalog.int4;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_partman') THEN
        -- The owner of the schema can put functions there, which maintenance calls as a superuser.
        IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'partman' AND pg_get_userbyid(nspowner) <> current_user) THEN
            RAISE duplicate_object USING
                MESSAGE = 'schema partman already exists and belongs to somebody else',
                HINT = 'Drop or rename it, or install pg_partman yourself in a schema partman that you trust.';
        END IF;
        CREATE SCHEMA IF NOT EXISTS partman;
        CREATE EXTENSION pg_partman SCHEMA partman;
        installed := true;
    END IF;
    IF to_regclass('partman.part_config') IS NULL THEN
        RAISE undefined_object USING
            MESSAGE = 'pg_partman is not in the schema partman',
            HINT = 'Change the name of the schema in this file.';
    END IF;

    -- Partitions get the table's owner, so the table gets its owner before it gets partitions. 04_roles.sql does the rest.
    -- Inserting and reading through user_logins needs rights on user_logins alone.
    BEGIN
        CREATE ROLE login_owner NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    EXECUTE format('ALTER TABLE %I.user_logins OWNER TO login_owner', home);
    -- Rejects as well: the inbox will belong to the owner of user_logins, and writes both.
    EXECUTE format('ALTER TABLE %I.login_rejects OWNER TO login_owner', home);

    major := (SELECT split_part(extversion, '.', 1) FROM pg_extension WHERE extname = 'pg_partman');
    IF NOT EXISTS (SELECT FROM partman.part_config WHERE parent_table = parent) THEN
        -- The past 3 months, the present one, the next 3, and the DEFAULT partition.
        PERFORM partman.create_parent(
            p_parent_table => parent,
            p_control      => 'create_date',
            p_type         => CASE WHEN major < 5 THEN 'native' ELSE 'range' END,
            p_interval     => '1 month',
            p_premake      => 3
        );
        UPDATE partman.part_config SET
            -- Also after months without a login.
            infinite_time_partitions = true,
            -- One event with the date 9999-12-31 must not have a partition made for each month until then.
            ignore_default_data = true,
            -- New partitions have the owner of the table, and its grants too; what default privileges gave to others is
            -- revoked. (Where the table has row-level security, revoke those: a partition that is read by its own name
            -- does not ask for the table's policies.)
            inherit_privileges = true
        WHERE parent_table = parent
        RETURNING to_regclass(template_table) INTO template;
    END IF;
    -- ALTER DEFAULT PRIVILEGES can have opened what was just made to other roles, which could then configure pg_partman.
    FOR object IN
        SELECT DISTINCT m.kind, m.name, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS grantee
        FROM (
            SELECT 'SCHEMA' AS kind, quote_ident(nspname) AS name, nspowner AS owner, nspacl AS acl
            FROM pg_namespace WHERE nspname = 'partman' AND installed
            UNION ALL
            SELECT 'TABLE', oid::regclass::text, relowner, relacl
            FROM pg_class WHERE relnamespace = 'partman'::regnamespace AND (installed OR oid = template)
        ) AS m CROSS JOIN LATERAL aclexplode(m.acl) AS a
        WHERE a.grantee <> m.owner
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', object.kind, object.name, object.grantee);
    END LOOP;
    -- As with the type of the whole table. A second run does so for partitions that maintenance made since.
    FOR object IN
        SELECT c.oid::regclass::text AS name
        FROM pg_partition_tree(format('%I.user_logins', home)::regclass) p
        JOIN pg_class c ON c.oid = p.relid JOIN pg_type t ON t.oid = c.reltype
        WHERE p.level > 0 AND t.typacl IS NULL
    LOOP
        EXECUTE format('REVOKE USAGE ON TYPE %s FROM PUBLIC', object.name);
    END LOOP;
    -- Those that were made just now; on a second run, whatever was granted since.
    PERFORM partman.reapply_privileges(parent);

    -- For the session, as pg_partman sets it for the session too.
    PERFORM pg_catalog.set_config('search_path', caller_path, false);
END
$do$;

-- MAINTENANCE makes the coming partitions and drops those past their retention. Have it run once a day, by either
-- * pg_partman's background worker, in postgresql.conf:
--       shared_preload_libraries = 'pg_partman_bgw'
--       pg_partman_bgw.dbname = 'mydb'
--       pg_partman_bgw.interval = 86400     # seconds
--       pg_partman_bgw.role = 'login_partitions'
-- * or cron (or pg_cron):  psql -d mydb -U login_partitions -c 'CALL partman.run_maintenance_proc()'
--
-- Do not run it as a superuser: it calls functions in CHECKs and triggers of the table, so login_owner, and everyone whose
-- trigger runs as that role, could become one. The role for it is a member of login_owner, and so can do all that one can,
-- unmask too; and login_owner, as the owner of what is made, must be allowed to make tables. Create the role after
-- 04_roles.sql, which refuses a login_owner with members. A role that can make tables can make functions too: have the
-- extension in another schema, in which only superusers can.
--     CREATE ROLE login_partitions LOGIN IN ROLE login_owner;
--     GRANT USAGE, CREATE ON SCHEMA public TO login_owner;
--     GRANT USAGE ON SCHEMA partman TO login_partitions;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA partman TO login_partitions;
--
-- Loaders go on meanwhile. Making a partition waits for readers of the DEFAULT partition, as a query over the
-- whole table does; dropping one waits for every transaction that has used the table, and new ones wait behind it. So
-- set a lock_timeout where analysts run long queries: the next run makes up for one that gave up.
--
-- RETENTION is off. To drop what is older than 13 months, from the next maintenance on:
--     UPDATE partman.part_config SET retention = '13 months', retention_keep_table = false
--     WHERE parent_table = 'public.user_logins';
-- login_rejects holds whole events and has no partitions: delete from it by rejected_at.
--
-- THE DEFAULT PARTITION takes what no other takes: the logins of a month whose partition was not made in time, and
-- dates that are wrong. It should be empty. Retention leaves it alone, and a partition for a month of which it has rows
-- cannot be made: maintenance fails there, each time. Have an alarm on both. The second statement makes the missing
-- partitions and moves the rows there; delete rows with senseless dates first, or they get partitions of their own. Both are
-- for login_partitions, too.
--     SELECT * FROM partman.check_default();
--     CALL partman.partition_data_proc('public.user_logins');
--
-- FROM A TABLE WITHOUT PARTITIONS, in psql and with the loaders stopped. Rows without a create_date need one first.
--     BEGIN;
--     ALTER TABLE user_logins RENAME TO user_logins_old;
--     \i sql/variants/partitioned.sql
--     \i sql/03_inbox.sql
--     \i sql/04_roles.sql
--     INSERT INTO user_logins SELECT * FROM user_logins_old;
--     COMMIT;
--     CALL partman.partition_data_proc('public.user_logins');
--     DROP TABLE user_logins_old;
