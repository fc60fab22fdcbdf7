-- Partitions, and what is made beside them, are not opened by default privileges, and nothing of somebody else's is taken. Left out
-- where there is no pg_partman: then partitioned_privileges_1.out is what is expected.
SELECT count(*) = 0 AS no_partman FROM pg_available_extensions WHERE name = 'pg_partman' \gset
\if :no_partman
\quit
\endif
\getenv sources PG_ABS_SRCDIR
\set extension :sources '/../../../sql/01_extension.sql'
\set tables :sources '/../../../sql/variants/partitioned.sql'
\set inbox :sources '/../../../sql/03_inbox.sql'
\set roles :sources '/../../../sql/04_roles.sql'
-- The part of the file that makes the tables, and the part about pg_partman.
\set tables_text `sed '/^-- From here on: pg_partman/,$d' $PG_ABS_SRCDIR/../../../sql/variants/partitioned.sql`
\set partman_text `sed -n '/^-- From here on: pg_partman/,$p' $PG_ABS_SRCDIR/../../../sql/variants/partitioned.sql`
SELECT pg_get_functiondef('error_of'::regproc) AS error_of \gset
CREATE ROLE web_role;
CREATE ROLE squatter;
CREATE DATABASE partitioned TEMPLATE template0;
\c partitioned
SET client_min_messages = error;
:error_of;
CREATE EXTENSION pg_mask;
\t on
\pset format unaligned
-- What somebody else made before is not taken.
CREATE DOMAIN masked AS varchar(256);
ALTER DOMAIN masked OWNER TO squatter;
SELECT error_of(:'tables_text');
DROP DOMAIN masked;
CREATE TABLE user_logins (user_id text, create_date date NOT NULL) PARTITION BY RANGE (create_date);
ALTER TABLE user_logins OWNER TO squatter;
SELECT error_of(:'tables_text');
DROP TABLE user_logins;
CREATE TABLE user_logins (user_id text);
SELECT error_of(:'tables_text');
DROP TABLE user_logins;
CREATE TABLE user_logins (user_id text, create_date timestamp NOT NULL) PARTITION BY RANGE (create_date);
SELECT error_of(:'tables_text');
DROP TABLE user_logins;
CREATE SCHEMA partman AUTHORIZATION squatter;
SELECT error_of(:'tables_text'), error_of(:'partman_text');
DROP SCHEMA partman;
DROP TABLE user_logins, login_rejects;
DROP DOMAIN masked;
\t off
\pset format aligned
-- Default privileges.
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO web_role;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO web_role;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO web_role;
ALTER DEFAULT PRIVILEGES FOR ROLE login_owner GRANT ALL ON TABLES TO web_role;
CREATE VIEW web_grants AS
    SELECT object, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS privileges
    FROM (
        SELECT pg_describe_object('pg_class'::regclass, oid, 0) AS object, relacl AS acl FROM pg_class WHERE relname <> 'web_grants'
        -- Everybody may use the types of pg_partman anyway.
        UNION ALL SELECT pg_describe_object('pg_type'::regclass, oid, 0), typacl FROM pg_type WHERE typnamespace = 'public'::regnamespace
        UNION ALL SELECT pg_describe_object('pg_namespace'::regclass, oid, 0), nspacl FROM pg_namespace
    ) AS o, aclexplode(o.acl) AS a
    WHERE pg_get_userbyid(a.grantee) = 'web_role' GROUP BY 1 ORDER BY 1;
\set ECHO none
\o /dev/null
\i :extension
\i :tables
\i :inbox
\i :roles
\o
\set ECHO all
TABLE web_grants;
-- Nobody else can have a column of the row type of the whole or of a partition.
SELECT p.relid FROM pg_partition_tree('user_logins') p JOIN pg_class c ON c.oid = p.relid WHERE has_type_privilege('web_role', c.reltype, 'USAGE');
-- Partitions that maintenance makes later, too.
UPDATE partman.part_config SET premake = 5;
SELECT count(*) FROM pg_partition_tree('user_logins') WHERE isleaf;
CALL partman.run_maintenance_proc();
SELECT count(*) FROM pg_partition_tree('user_logins') WHERE isleaf;
TABLE web_grants;
-- A second run keeps what was granted since.
GRANT SELECT ON user_logins, partman.part_config TO web_role;
GRANT USAGE ON SCHEMA partman TO web_role;
\set ECHO none
\o /dev/null
\i :extension
\i :tables
\i :inbox
\i :roles
\o
\set ECHO all
SELECT * FROM web_grants WHERE object !~ '_p?[0-9]|default';
SHOW search_path;
-- TRIGGER on a partition counts as on the whole.
GRANT TRIGGER ON user_logins_default TO web_role;
SELECT role, privilege, way, object FROM pii_privileges WHERE role = 'web_role'::regrole AND privilege = 'unmask';
ALTER DEFAULT PRIVILEGES FOR ROLE login_owner REVOKE ALL ON TABLES FROM web_role;
\c regression
DROP DATABASE partitioned;
DROP ROLE web_role, squatter;
