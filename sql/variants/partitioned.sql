-- Logins in a partition for each month, made and dropped by pg_partman. Run it instead of 02_tables.sql:
--
--     cat sql/01_extension.sql sql/variants/partitioned.sql sql/03_inbox.sql sql/04_roles.sql |
--         sudo -u postgres psql -d mydb -v ON_ERROR_STOP=1
--
-- For a table that grows for years: new rows touch the index of their month alone, however many months there are, and
-- old rows go by dropping a partition. Like the other files it is run by a superuser and can run twice. It needs
-- pg_partman 4.7 or 5 (Debian and PGDG: the package postgresql-15-partman), which goes into a schema of its own.

DO $$
BEGIN
    IF (SELECT relkind FROM pg_class WHERE oid = to_regclass('user_logins')) <> 'p' THEN
        RAISE wrong_object_type USING
            MESSAGE = 'user_logins is there already and is not partitioned',
            HINT = 'Its rows have to move: the end of sql/variants/partitioned.sql says how.';
    END IF;
END
$$;

-- As in 02_tables.sql.
DO $$
BEGIN
    CREATE DOMAIN masked AS varchar(256) CONSTRAINT is_masked CHECK (is_masked(VALUE::text));
EXCEPTION WHEN duplicate_object THEN
    NULL;
END
$$;

-- The columns of 02_tables.sql, in their order. What differs:
-- * create_date is NOT NULL. An inbox always knows the date, so this concerns rows put in by hand: without a date they
--   would lie in the DEFAULT partition for ever, out of reach of retention and of the unique index, which takes no
--   NULL for another.
-- * message_id is unique together with create_date, since a unique index must have the partition key in it. A
--   redelivered message is still found: SQS gives it the sent date that it had before.
CREATE TABLE IF NOT EXISTS user_logins (
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

-- As in 02_tables.sql.
CREATE TABLE IF NOT EXISTS login_rejects (
    message_id  uuid UNIQUE,
    sent_at     timestamptz,
    reason      text NOT NULL,
    masked_body text,
    rejected_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS login_rejects_rejected_at ON login_rejects (rejected_at);

-- From here on: pg_partman and the partitions.
CREATE SCHEMA IF NOT EXISTS partman;
CREATE EXTENSION IF NOT EXISTS pg_partman SCHEMA partman;

-- Partitions are to have the table's owner, so the table gets it before it gets them. 04_roles.sql does the rest.
-- Inserting and reading through user_logins needs rights on user_logins alone.
DO $$
BEGIN
    CREATE ROLE login_owner NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
ALTER TABLE user_logins OWNER TO login_owner;

DO $$
DECLARE
    parent text := (
        SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = 'user_logins'::regclass
    );
    major int := (SELECT split_part(extversion, '.', 1) FROM pg_extension WHERE extname = 'pg_partman');
BEGIN
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
            -- New partitions have the owner of the table, and its grants too. (Where the table has row-level security,
            -- revoke those: a partition that is read by its own name does not ask for the table's policies.)
            inherit_privileges = true
        WHERE parent_table = parent;
    END IF;
    -- Those that were made just now; on a second run, whatever was granted since.
    PERFORM partman.reapply_privileges(parent);
END
$$;

-- MAINTENANCE makes the coming partitions and drops those past their retention. Have it run once a day, by either
-- * pg_partman's background worker, in postgresql.conf:
--       shared_preload_libraries = 'pg_partman_bgw'
--       pg_partman_bgw.dbname = 'mydb'
--       pg_partman_bgw.interval = 86400     # seconds
--       pg_partman_bgw.role = 'postgres'
-- * or cron (or pg_cron):  psql -d mydb -c 'CALL partman.run_maintenance_proc()'
--
-- It is run by a superuser, here postgres. Any other role must be a member of login_owner, and so can do all that one can,
-- unmask too; and login_owner, as the owner of what is made, must be allowed to make tables:
--     CREATE ROLE login_partitions LOGIN IN ROLE login_owner;
--     GRANT USAGE, CREATE ON SCHEMA public TO login_owner;
--     GRANT USAGE ON SCHEMA partman TO login_partitions;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA partman TO login_partitions;
--
-- Loaders go on meanwhile. Making a partition waits for whoever is reading the DEFAULT partition, as a query over the
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
-- partitions and moves the rows there; delete rows with senseless dates first, or they get partitions of their own.
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
