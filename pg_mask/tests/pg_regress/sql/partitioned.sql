-- sql/variants/partitioned.sql: logins in monthly partitions, which pg_partman makes and drops. Left out where there is no
-- pg_partman: then partitioned_1.out is what is expected.
SELECT count(*) = 0 AS no_partman FROM pg_available_extensions WHERE name = 'pg_partman' \gset
\if :no_partman
\quit
\endif
CREATE DATABASE partitioned;
\c partitioned
SET client_min_messages = error;
\getenv sources PG_ABS_SRCDIR
\set extension :sources '/../../../sql/01_extension.sql'
\set tables :sources '/../../../sql/variants/partitioned.sql'
\set inbox :sources '/../../../sql/03_inbox.sql'
\set roles :sources '/../../../sql/04_roles.sql'
\set ECHO none
\o /dev/null
\i :extension
\i :tables
\i :inbox
\i :roles
\i :extension
\i :tables
\i :inbox
\i :roles
\o
\set ECHO all
-- Months are counted from the present one.
CREATE FUNCTION month(n integer) RETURNS timestamptz LANGUAGE sql AS $$ SELECT date_trunc('month', now(), 'UTC') + n * interval '1 month' $$;
CREATE FUNCTION id(n integer) RETURNS uuid LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
CREATE VIEW partitions AS SELECT CASE tableoid::regclass::text WHEN 'user_logins_default' THEN 'default' ELSE 'month' END AS partition,
    count(DISTINCT tableoid) AS partitions, count(*) AS logins FROM user_logins GROUP BY 1 ORDER BY 1;
CREATE FUNCTION redeliver() RETURNS TABLE (stored bigint, duplicate bigint, rejected bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO login_inbox SELECT id(n), month(n % 5 - 2), format('{"user_id":"u%s","ip":"10.0.0.%s"}', n, n % 7) FROM generate_series(1, 100) n;
    RETURN QUERY SELECT c.stored, c.duplicate, c.rejected FROM inbox_counts() c;
END $$;
SET ROLE login_loader;
SELECT * FROM redeliver();
RESET ROLE;
TABLE partitions;
-- A message comes again with the date that it had before: it is found.
SELECT * FROM redeliver();
-- What no month takes is kept in the default partition.
INSERT INTO login_inbox VALUES (id(101), month(-100), '{"user_id":"old"}'), (id(101), month(-100), '{"user_id":"old"}');
TABLE partitions;
-- Retention drops whole months, and what was in them alone.
UPDATE partman.part_config SET retention = '1 month', retention_keep_table = false WHERE parent_table = 'public.user_logins';
CALL partman.run_maintenance_proc();
TABLE partitions;
SELECT count(*) FROM user_logins WHERE create_date < month(-1) AND user_id <> 'old';
-- Each partition has its own index, on the date and the id: a key lookup reads one of them.
SELECT count(*) = (SELECT count(*) FROM pg_partition_tree('user_logins') WHERE isleaf) AS one_each
FROM pg_index i JOIN pg_partition_tree('user_logins') t ON t.relid = i.indrelid WHERE t.isleaf AND i.indisunique;
\c regression
DROP DATABASE partitioned;
