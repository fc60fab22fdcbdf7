-- Nobody gets more than was granted: by default privileges, by objects that were there before, or without being listed.
\getenv sources PG_ABS_SRCDIR
\set extension :sources '/../../../sql/01_extension.sql'
\set tables :sources '/../../../sql/02_tables.sql'
\set inbox :sources '/../../../sql/03_inbox.sql'
\set roles :sources '/../../../sql/04_roles.sql'
\set tables_text `cat $PG_ABS_SRCDIR/../../../sql/02_tables.sql`
\set inbox_text `cat $PG_ABS_SRCDIR/../../../sql/03_inbox.sql`
\set roles_text `cat $PG_ABS_SRCDIR/../../../sql/04_roles.sql`
SELECT pg_get_functiondef('error_of'::regproc) AS error_of \gset
-- DEFAULT PRIVILEGES, set before, give a role nothing of the extension, and nothing of what sql/ makes.
CREATE ROLE web_role;
CREATE ROLE web_admin;
CREATE DATABASE given TEMPLATE template0;
\c given
SET client_min_messages = error;
:error_of;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO web_role;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO web_role;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO web_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO web_admin WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON ROUTINES TO web_admin WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
CREATE VIEW all_grants AS
    SELECT o.object, coalesce(a.grantee::regrole::text, '') AS grantee, string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS privileges
    FROM (
        SELECT pg_describe_object('pg_class'::regclass, oid, 0) AS object, relowner AS owner, relacl AS acl FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relname NOT IN ('all_grants', 'web_grants')
        UNION ALL
        SELECT pg_describe_object('pg_proc'::regclass, oid, 0), proowner, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname <> 'error_of'
        UNION ALL
        SELECT pg_describe_object('pg_type'::regclass, oid, 0), typowner, typacl FROM pg_type WHERE typnamespace = 'public'::regnamespace
    ) AS o, aclexplode(o.acl) AS a
    WHERE a.grantee <> o.owner GROUP BY 1, 2;
CREATE VIEW web_grants AS SELECT * FROM all_grants WHERE grantee IN ('web_role', 'web_admin') ORDER BY object, grantee;
\set ECHO none
\o /dev/null
\i :extension
\i :tables
\i :inbox
\i :roles
\o
\set ECHO all
TABLE web_grants;
-- PUBLIC has on relations what is meant for it.
SELECT object, privileges FROM all_grants WHERE grantee = '-' AND object NOT LIKE 'function%' ORDER BY 1;
SELECT * FROM all_grants WHERE grantee LIKE 'pg\_%' ORDER BY 1;
-- A role of that name that can log in is somebody's.
ALTER ROLE login_owner LOGIN;
SELECT error_of(:'roles_text');
ALTER ROLE login_owner NOLOGIN;
-- A second run keeps what an administrator granted since.
GRANT SELECT ON user_logins, login_rejects, login_inbox TO web_role;
GRANT USAGE ON TYPE masked TO web_role;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO web_role;
\set ECHO none
\o /dev/null
\i :extension
\i :tables
\i :inbox
\i :roles
\o
\set ECHO all
TABLE web_grants;
-- A restore into a database with such default privileges gives nothing of the extension but what was granted.
INSERT INTO login_inbox VALUES ('00000000-0000-0000-0000-000000000001', '2026-03-01', '{"user_id":"u1","ip":"10.0.0.1"}');
CREATE DATABASE given_again TEMPLATE template0;
\c given_again
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO web_role;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO web_role;
ALTER DEFAULT PRIVILEGES GRANT ALL ON ROUTINES TO web_admin;
\! pg_dump -Fc -f $PG_ABS_BUILDDIR/results/given.dump given && pg_restore --exit-on-error -d given_again $PG_ABS_BUILDDIR/results/given.dump && echo restored
SELECT w.* FROM web_grants w WHERE EXISTS (
    SELECT FROM pg_depend d WHERE d.deptype = 'e' AND pg_describe_object(d.classid, d.objid, 0) = w.object);
SELECT error_of('SELECT unmask_pii(masked_ip) FROM user_logins');
SET ROLE web_admin;
SELECT error_of('SELECT unmask_pii(''Zg=='')');
RESET ROLE;
-- Tables that pg_restore makes are as open as any new table there: the view of privileges shows it.
SELECT DISTINCT way, object FROM pii_privileges WHERE role = 'web_role'::regrole AND way = 'TRIGGER' ORDER BY 2;
-- THE DOMAIN loses its CHECK with the extension. A second run puts it back, and looks at the rows.
\c given
SET client_min_messages = error;
DROP EXTENSION pg_mask CASCADE;
CREATE EXTENSION pg_mask;
INSERT INTO user_logins (user_id, masked_ip) VALUES ('raw', '10.0.0.1');
SELECT error_of(:'tables_text');
DELETE FROM user_logins WHERE user_id = 'raw';
SELECT error_of(:'tables_text');
SELECT error_of($$INSERT INTO user_logins (user_id, masked_ip) VALUES ('raw', '10.0.0.1')$$);
SELECT convalidated, pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = 'masked'::regtype;
\c regression
DROP DATABASE given;
DROP DATABASE given_again;
DROP ROLE web_role, web_admin;
-- OBJECTS OF SOMEBODY ELSE are not taken for one's own, not by a superuser either.
CREATE ROLE squatter;
CREATE SCHEMA theirs;
GRANT ALL ON SCHEMA theirs TO squatter;
CREATE SCHEMA mine;
\t on
\pset format unaligned
SET search_path = theirs, public;
CREATE DOMAIN theirs.masked AS varchar(256);
ALTER DOMAIN theirs.masked OWNER TO squatter;
SELECT error_of(:'tables_text');
DROP DOMAIN theirs.masked;
CREATE TABLE theirs.user_logins (user_id text);
ALTER TABLE theirs.user_logins OWNER TO squatter;
SELECT error_of(:'tables_text');
DROP TABLE theirs.user_logins;
CREATE TABLE theirs.login_rejects (reason text, rejected_at timestamptz);
ALTER TABLE theirs.login_rejects OWNER TO squatter;
SELECT error_of(:'tables_text');
-- Nothing of it is left, and nothing beside it was touched.
SELECT relname, relowner::regrole FROM pg_class WHERE relnamespace = 'theirs'::regnamespace;
-- In another schema of the search path they do no harm.
SET search_path = mine, theirs, public;
SET client_min_messages = error;
SELECT error_of(:'tables_text'), error_of(:'inbox_text'), error_of(:'roles_text');
SELECT relname, relkind, relowner::regrole FROM pg_class WHERE relnamespace = 'mine'::regnamespace AND relkind <> 'i' ORDER BY 1;
SELECT typowner::regrole FROM pg_type WHERE oid = 'mine.masked'::regtype;
SELECT relowner::regrole FROM pg_class WHERE oid = 'theirs.login_rejects'::regclass;
-- What is one's own, or login_owner's, is taken.
SELECT error_of(:'tables_text');
DROP SCHEMA mine CASCADE;
DROP TABLE theirs.login_rejects;
-- FUNCTIONS OF SOMEBODY ELSE in the search path are not called by the scripts, and no grant goes to them.
SET search_path = public;
CREATE FUNCTION theirs.is_masked(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'is_masked as %', current_user; RETURN true; END $$;
CREATE FUNCTION theirs.attach_inbox(inbox text, target text, rejects text, rules jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'attach_inbox as %', current_user; END $$;
CREATE FUNCTION theirs.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'format as %', current_user; RETURN pg_catalog.format($1, $2); END $$;
CREATE FUNCTION theirs.same(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '= as %', current_user; RETURN $1::oid = $2::oid; END $$;
CREATE OPERATOR theirs.= (FUNCTION = theirs.same, LEFTARG = oid, RIGHTARG = regclass);
CREATE FUNCTION theirs.unmask_pii(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
ALTER FUNCTION theirs.is_masked(text) OWNER TO squatter;
ALTER FUNCTION theirs.unmask_pii(text) OWNER TO squatter;
-- An overload beside the extension's own, which takes the arguments that are given as they are.
CREATE FUNCTION public.attach_inbox(inbox text, target text, rejects text, rules jsonb) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'overload as %', current_user; END $$;
GRANT USAGE ON SCHEMA theirs TO login_owner;
SET search_path = theirs, public;
SELECT public.error_of(:'tables_text'), public.error_of(:'inbox_text'), public.error_of(:'roles_text');
SELECT public.error_of(:'tables_text'), public.error_of(:'inbox_text'), public.error_of(:'roles_text');
SHOW search_path;
RESET search_path;
SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid = 'theirs.masked'::regtype;
SELECT proacl FROM pg_proc WHERE oid = 'theirs.unmask_pii(text)'::regprocedure;
SELECT count(*) FROM pg_trigger WHERE tgrelid = 'theirs.login_inbox'::regclass;
DROP FUNCTION public.attach_inbox(text, text, text, jsonb);
DROP SCHEMA theirs CASCADE;
RESET client_min_messages;
DROP ROLE squatter;
\t off
\pset format aligned
-- EVERY ROLE that can do something, and by what way. First as sql/ leaves it.
CREATE VIEW listed AS SELECT * FROM pii_privileges WHERE role::text ~ '^(login_|pp_|-)' ORDER BY role::text COLLATE "C", privilege COLLATE "C", way COLLATE "C", object COLLATE "C", through::text COLLATE "C";
CREATE VIEW here AS SELECT * FROM listed WHERE role::text !~ '^login_';
TABLE listed;
SELECT count(*) > 0 AS superusers FROM pii_privileges WHERE way = 'superuser';
-- By a grant.
BEGIN;
CREATE ROLE pp_a;
GRANT EXECUTE ON FUNCTION unmask_pii(text), mask_pii(text, text), mask_pii_all(text), remask_pii(text) TO pp_a;
GRANT EXECUTE ON PROCEDURE remask_column TO pp_a;
GRANT EXECUTE ON FUNCTION mask_pii(text), is_masked(text) TO pp_a;
TABLE here;
ROLLBACK;
-- By a grant to PUBLIC: one row.
BEGIN;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO PUBLIC;
TABLE here;
ROLLBACK;
-- A function of that name is not the extension's.
BEGIN;
CREATE ROLE pp_a;
CREATE SCHEMA pp;
CREATE FUNCTION pp.unmask_pii(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
GRANT EXECUTE ON FUNCTION pp.unmask_pii(text) TO pp_a;
TABLE here;
ROLLBACK;
-- By a routine in the extension's schema that calls can find instead, or by the right to make one there.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
CREATE FUNCTION unmask_pii(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1::text';
ALTER FUNCTION unmask_pii(varchar) OWNER TO pp_a;
GRANT CREATE ON SCHEMA public TO pp_b;
CREATE DOMAIN try_inbox AS text;
ALTER DOMAIN try_inbox OWNER TO pp_a;
TABLE here;
ROLLBACK;
-- By ownership of the database, where the schema belongs to its owner.
BEGIN;
CREATE ROLE pp_a;
SELECT format('ALTER DATABASE %I OWNER TO pp_a', current_database()) \gexec
TABLE here;
ROLLBACK;
-- By ownership of the function, without any grant.
BEGIN;
CREATE ROLE pp_a;
ALTER FUNCTION unmask_pii(text) OWNER TO pp_a;
REVOKE ALL ON FUNCTION unmask_pii(text) FROM pp_a;
TABLE here;
ROLLBACK;
-- Redriving takes both: EXECUTE, and INSERT on the inbox or its columns.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_inserts;
CREATE ROLE pp_redrives;
GRANT EXECUTE ON FUNCTION redrive_rejects TO pp_redrives;
GRANT INSERT ON login_inbox TO pp_inserts;
TABLE here;
GRANT pp_redrives, pp_inserts TO pp_a;
TABLE here;
REVOKE pp_redrives FROM pp_a;
GRANT EXECUTE ON FUNCTION redrive_rejects TO pp_a;
TABLE here;
REVOKE EXECUTE ON FUNCTION redrive_rejects FROM pp_a, pp_redrives;
GRANT EXECUTE ON FUNCTION redrive_rejects TO PUBLIC;
TABLE here;
GRANT INSERT (message_id, sent_at, body) ON login_inbox TO PUBLIC;
SELECT * FROM here WHERE role = 0;
ROLLBACK;
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
GRANT EXECUTE ON FUNCTION redrive_rejects TO pp_a, pp_b;
GRANT INSERT (message_id, sent_at, body) ON login_inbox TO pp_a;
GRANT pg_write_all_data TO pp_b;
TABLE here;
ROLLBACK;
-- By TRIGGER on the tables: a trigger runs with the rights of the inbox's owner.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
GRANT TRIGGER ON user_logins TO pp_a;
GRANT TRIGGER ON login_rejects TO pp_b;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON user_logins, login_rejects TO pp_b;
TABLE here;
ROLLBACK;
-- By REFERENCES on a table, or on a column: the check of a foreign key runs with the rights of the table's owner.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
CREATE ROLE pp_c IN ROLE pp_b;
GRANT REFERENCES ON user_logins TO pp_a;
GRANT REFERENCES (message_id) ON login_rejects TO pp_b;
SELECT * FROM here WHERE privilege = 'unmask';
GRANT REFERENCES (message_id) ON user_logins TO PUBLIC;
SELECT * FROM here WHERE privilege = 'unmask' AND role = 0;
ROLLBACK;
-- … or by a foreign key that was made while the role had the right.
BEGIN;
CREATE ROLE pp_a;
CREATE TABLE pp_refers (message_id uuid REFERENCES login_rejects (message_id));
ALTER TABLE pp_refers OWNER TO pp_a;
CREATE ROLE pp_b;
GRANT TRIGGER ON pp_refers TO pp_b;
SELECT * FROM here WHERE privilege = 'unmask';
ROLLBACK;
-- … also on a table that no inbox has, of an owner that can do something; not on one of another owner.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
CREATE ROLE pp_owner IN ROLE login_pii_reader;
CREATE ROLE pp_other;
CREATE SCHEMA pp;
CREATE TABLE pp.reader (id integer PRIMARY KEY);
CREATE TABLE pp.other (id integer PRIMARY KEY);
CREATE TABLE pp.super (id integer PRIMARY KEY);
ALTER TABLE pp.reader OWNER TO pp_owner;
ALTER TABLE pp.other OWNER TO pp_other;
GRANT REFERENCES ON pp.reader TO pp_a;
GRANT REFERENCES ON pp.other TO pp_a;
GRANT REFERENCES ON pp.super TO pp_b;
SELECT * FROM here WHERE way = 'REFERENCES';
ROLLBACK;
-- … by ownership of a type that refers, or of one that it is made of; of a trigger's function on a table with a cascade.
BEGIN;
CREATE ROLE pp_type;
CREATE ROLE pp_base;
CREATE ROLE pp_after;
CREATE ROLE pp_check;
CREATE ROLE pp_owner IN ROLE login_pii_reader;
CREATE SCHEMA pp;
CREATE TYPE pp.size AS ENUM ('s', 'm');
CREATE CAST (pp.size AS integer) WITH INOUT AS IMPLICIT;
CREATE FUNCTION pp.fine(pp.size) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE DOMAIN pp.fit AS pp.size CHECK (pp.fine(VALUE));
CREATE FUNCTION pp.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
CREATE TABLE pp.reader (id integer PRIMARY KEY);
CREATE TABLE pp.refers (id pp.fit REFERENCES pp.reader);
CREATE TRIGGER on_row AFTER DELETE ON pp.refers FOR EACH ROW EXECUTE FUNCTION pp.on_row();
ALTER TABLE pp.reader OWNER TO pp_owner;
ALTER TABLE pp.refers OWNER TO pp_owner;
ALTER TYPE pp.size OWNER TO pp_base;
ALTER DOMAIN pp.fit OWNER TO pp_type;
ALTER FUNCTION pp.fine(pp.size) OWNER TO pp_check;
ALTER FUNCTION pp.on_row() OWNER TO pp_after;
SELECT * FROM here WHERE privilege = 'unmask';
-- A cascade that changes the column also calls the CHECK of its domain.
ALTER TABLE pp.refers DROP CONSTRAINT refers_id_fkey;
ALTER TABLE pp.refers ADD FOREIGN KEY (id) REFERENCES pp.reader ON UPDATE SET NULL;
SELECT * FROM here WHERE privilege = 'unmask';
ROLLBACK;
-- A cascade changes a table with the rights of that table's owner, also when another role deletes the row referred to.
BEGIN;
CREATE ROLE pp_other;
CREATE ROLE pp_trigger;
CREATE ROLE pp_part;
CREATE ROLE pp_default;
CREATE ROLE pp_owner IN ROLE login_pii_reader;
CREATE SCHEMA pp;
CREATE FUNCTION pp.given() RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE TABLE pp.other (id integer PRIMARY KEY);
CREATE TABLE pp.refers (id integer DEFAULT pp.given()) PARTITION BY LIST (id);
CREATE TABLE pp.part PARTITION OF pp.refers DEFAULT;
ALTER TABLE pp.refers ADD FOREIGN KEY (id) REFERENCES pp.other;
ALTER TABLE pp.other OWNER TO pp_other;
ALTER TABLE pp.refers OWNER TO pp_owner;
ALTER TABLE pp.part OWNER TO pp_part;
ALTER FUNCTION pp.given() OWNER TO pp_default;
GRANT TRIGGER ON pp.refers TO pp_trigger;
SELECT * FROM here WHERE privilege = 'unmask';
ALTER TABLE pp.refers DROP CONSTRAINT refers_id_fkey;
ALTER TABLE pp.refers ADD FOREIGN KEY (id) REFERENCES pp.other ON DELETE SET DEFAULT;
SELECT * FROM here WHERE privilege = 'unmask';
-- It is so: a BEFORE trigger runs as the table's owner.
-- Since Postgres 18, an AFTER trigger runs as the role that changed the row, which a cascade does as the table's owner.
CREATE FUNCTION pp.who() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    expected name := CASE WHEN TG_WHEN = 'AFTER' AND current_setting('server_version_num')::integer < 180000 THEN 'pp_other' ELSE 'pp_owner' END;
BEGIN
    RAISE NOTICE '%: %', TG_WHEN, CASE current_user WHEN expected THEN 'as expected' ELSE current_user END;
    RETURN NEW;
END
$$;
CREATE TRIGGER a BEFORE UPDATE ON pp.part FOR EACH ROW EXECUTE FUNCTION pp.who();
CREATE TRIGGER b AFTER UPDATE ON pp.part FOR EACH ROW EXECUTE FUNCTION pp.who();
GRANT USAGE ON SCHEMA pp TO pp_other, pp_owner;
SET LOCAL ROLE pp_other;
INSERT INTO pp.other VALUES (1), (2);
RESET ROLE;
INSERT INTO pp.refers VALUES (2);
SET LOCAL ROLE pp_other;
DELETE FROM pp.other WHERE id = 2;
RESET ROLE;
ROLLBACK;
-- … by TRIGGER on a partition, or on the table behind a view, or granted to PUBLIC.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
CREATE ROLE pp_owner;
CREATE SCHEMA pp AUTHORIZATION pp_owner;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO pp_owner;
SET LOCAL ROLE pp_owner;
CREATE TABLE pp.parted (v text, d date, id uuid, UNIQUE (d, id)) PARTITION BY RANGE (d);
CREATE TABLE pp.part PARTITION OF pp.parted DEFAULT;
CREATE TABLE pp.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('pp.parts', 'pp.parted', 'pp.rejects', '{"v": {"mask": "v"}, "d": "sent_date", "id": "message_id"}');
GRANT TRIGGER ON pp.part TO pp_a;
CREATE TABLE pp.base (v text, id uuid UNIQUE);
CREATE VIEW pp.over AS SELECT v, id FROM pp.base;
SET LOCAL client_min_messages = error;
SELECT attach_inbox('pp.behind', 'pp.over', 'pp.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
GRANT TRIGGER ON pp.base TO pp_b, PUBLIC;
RESET ROLE;
SELECT * FROM here WHERE privilege = 'unmask';
ROLLBACK;
-- By ownership of a table, of a column's type, or of a function that runs when a row is stored or the table is analyzed.
BEGIN;
CREATE ROLE pp_table;
CREATE ROLE pp_type;
CREATE ROLE pp_trigger;
CREATE ROLE pp_check;
CREATE ROLE pp_default;
CREATE ROLE pp_in_type;
CREATE ROLE pp_index;
CREATE ROLE pp_policy;
CREATE ROLE pp_rule;
CREATE ROLE pp_statistics;
CREATE ROLE pp_partition;
CREATE ROLE pp_domain;
CREATE SCHEMA pp;
CREATE FUNCTION pp.on_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE FUNCTION pp.fine(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION pp.valid(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION pp.given() RETURNS text LANGUAGE sql AS 'SELECT $$x$$::text';
CREATE FUNCTION pp.indexed(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION pp.measured(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION pp.allowed() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION pp.seen() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE DOMAIN pp.word AS text CHECK (pp.valid(VALUE));
CREATE DOMAIN pp.words AS pp.word[];
ALTER TABLE user_logins ADD COLUMN more pp.words, ADD COLUMN other text DEFAULT pp.given(), ADD CHECK (pp.fine(locale));
CREATE TRIGGER on_row BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION pp.on_row();
CREATE INDEX ON user_logins (pp.indexed(locale));
CREATE FUNCTION pp.routed(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION pp.preset() RETURNS text LANGUAGE sql AS 'SELECT $$x$$::text';
CREATE DOMAIN pp.filled AS text DEFAULT pp.preset();
CREATE TABLE pp.parts (v text, w pp.filled) PARTITION BY LIST (pp.routed(v));
ALTER TABLE pp.parts OWNER TO login_owner;
GRANT ALL ON SCHEMA pp TO login_owner;
SET LOCAL client_min_messages = error;
SELECT attach_inbox('pp.inbox', 'pp.parts', 'login_rejects', '{"v": {"copy": "v"}}');
ALTER FUNCTION pp.routed(text) OWNER TO pp_partition;
ALTER FUNCTION pp.preset() OWNER TO pp_domain;
CREATE STATISTICS pp.measured ON pp.measured(locale), user_id FROM user_logins;
CREATE POLICY allowed ON user_logins WITH CHECK (pp.allowed());
CREATE RULE seen AS ON DELETE TO login_rejects DO ALSO SELECT pp.seen();
ALTER TABLE login_rejects OWNER TO pp_table;
ALTER FUNCTION pp.indexed(text) OWNER TO pp_index;
ALTER FUNCTION pp.measured(text) OWNER TO pp_statistics;
ALTER FUNCTION pp.allowed() OWNER TO pp_policy;
ALTER FUNCTION pp.seen() OWNER TO pp_rule;
ALTER DOMAIN pp.word OWNER TO pp_type;
ALTER FUNCTION pp.on_row() OWNER TO pp_trigger;
ALTER FUNCTION pp.fine(text) OWNER TO pp_check;
ALTER FUNCTION pp.given() OWNER TO pp_default;
ALTER FUNCTION pp.valid(text) OWNER TO pp_in_type;
SELECT * FROM here WHERE privilege = 'unmask';
ROLLBACK;
-- … also of a table that a policy reads, and of a function in the partition key of a table above the target.
BEGIN;
CREATE ROLE pp_list;
CREATE ROLE pp_key;
CREATE ROLE pp_owner;
CREATE SCHEMA pp AUTHORIZATION pp_owner;
CREATE FUNCTION pp.routed(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE TABLE pp.top (v text) PARTITION BY LIST (pp.routed(v));
CREATE TABLE pp.part PARTITION OF pp.top DEFAULT;
CREATE TABLE pp.list (v text);
CREATE POLICY listed ON pp.part WITH CHECK (v IN (SELECT l.v FROM pp.list l));
CREATE TABLE pp.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
ALTER TABLE pp.part OWNER TO pp_owner;
ALTER TABLE pp.rejects OWNER TO pp_owner;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO pp_owner;
SET LOCAL client_min_messages = error;
SELECT attach_inbox('pp.inbox', 'pp.part', 'pp.rejects', '{"v": {"copy": "v"}}');
ALTER TABLE pp.list OWNER TO pp_list;
ALTER FUNCTION pp.routed(text) OWNER TO pp_key;
ALTER VIEW pp.inbox OWNER TO pp_owner;
SELECT * FROM here WHERE privilege = 'unmask';
ROLLBACK;
-- … also of a type that is no domain: it can have a cast, and a row type another column. Or of a table above a partition.
BEGIN;
CREATE ROLE pp_enum;
CREATE ROLE pp_pair;
CREATE ROLE pp_in_pair;
CREATE ROLE pp_range;
CREATE ROLE pp_table;
CREATE ROLE pp_of;
CREATE ROLE pp_parent;
CREATE ROLE pp_grandparent;
CREATE SCHEMA pp;
CREATE TYPE pp.size AS ENUM ('s', 'm');
CREATE TYPE pp.inner_pair AS (a text);
CREATE TYPE pp.pair AS (a pp.inner_pair, b text);
CREATE TYPE pp.span AS RANGE (subtype = integer);
CREATE TABLE pp.rows (a text);
CREATE TYPE pp.shape AS (v text, id uuid);
ALTER TABLE user_logins ADD COLUMN size pp.size[], ADD COLUMN pair pp.pair, ADD COLUMN span pp.span, ADD COLUMN row pp.rows;
CREATE TABLE pp.above_all (v text, id uuid) PARTITION BY LIST (v);
CREATE TABLE pp.above PARTITION OF pp.above_all DEFAULT PARTITION BY LIST (v);
CREATE TABLE pp.part PARTITION OF pp.above (UNIQUE (id)) DEFAULT;
CREATE TABLE pp.typed OF pp.shape (UNIQUE (id));
CREATE TABLE pp.rejects (LIKE login_rejects INCLUDING ALL);
ALTER TABLE pp.part OWNER TO login_owner;
ALTER TABLE pp.typed OWNER TO login_owner;
ALTER TABLE pp.rejects OWNER TO login_owner;
GRANT USAGE ON SCHEMA pp TO login_owner;
SELECT attach_inbox('pp.inbox', 'pp.part', 'pp.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
SELECT attach_inbox('pp.typed_inbox', 'pp.typed', 'pp.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
ALTER TYPE pp.size OWNER TO pp_enum;
ALTER TYPE pp.pair OWNER TO pp_pair;
ALTER TYPE pp.inner_pair OWNER TO pp_in_pair;
ALTER TYPE pp.span OWNER TO pp_range;
ALTER TABLE pp.rows OWNER TO pp_table;
ALTER TYPE pp.shape OWNER TO pp_of;
ALTER TABLE pp.above OWNER TO pp_parent;
ALTER TABLE pp.above_all OWNER TO pp_grandparent;
SELECT * FROM here WHERE privilege = 'unmask';
ROLLBACK;
-- A trigger on the inbox sees raw events. So do its owner and each role with TRIGGER on it.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_b;
GRANT TRIGGER ON login_inbox TO pp_a;
ALTER VIEW login_inbox OWNER TO pp_b;
SELECT * FROM listed WHERE privilege = 'see events';
ROLLBACK;
-- A view whose trigger function merely has the name is no inbox.
BEGIN;
CREATE ROLE pp_a;
CREATE SCHEMA pp;
CREATE FUNCTION pp.inbox_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE VIEW pp.inbox AS SELECT * FROM user_logins;
CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON pp.inbox FOR EACH ROW EXECUTE FUNCTION pp.inbox_trigger();
ALTER VIEW pp.inbox OWNER TO pp_a;
TABLE here;
ROLLBACK;
-- By membership, inherited or not and of any depth, in a role that has a grant or one that has TRIGGER.
BEGIN;
CREATE ROLE pp_a NOINHERIT IN ROLE login_pii_reader;
CREATE ROLE pp_b IN ROLE pp_a;
CREATE ROLE pp_trigger;
GRANT TRIGGER ON user_logins TO pp_trigger;
CREATE ROLE pp_c IN ROLE pp_trigger;
CREATE ROLE pp_d IN ROLE login_owner;
CREATE ROLE pp_e IN ROLE login_analyst, login_loader;
TABLE here;
ROLLBACK;
-- … in pg_database_owner, of which the database's owner is a member.
BEGIN;
CREATE ROLE pp_a;
ALTER DATABASE regression OWNER TO pp_a;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO pg_database_owner;
TABLE here;
ROLLBACK;
-- A role can steer an inbox whose owner steers another: it can do whatever the other's owner can.
BEGIN;
CREATE ROLE pp_a;
CREATE ROLE pp_group;
CREATE ROLE pp_middle IN ROLE pp_group;
CREATE SCHEMA pp AUTHORIZATION pp_middle;
GRANT TRIGGER ON user_logins TO pp_group;
SET LOCAL ROLE pp_middle;
CREATE TABLE pp.t (v text, id uuid UNIQUE);
CREATE TABLE pp.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('pp.inbox', 'pp.t', 'pp.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
GRANT TRIGGER ON pp.t TO pp_a;
RESET ROLE;
GRANT EXECUTE ON FUNCTION redrive_rejects TO pp_middle;
TABLE here;
ROLLBACK;
-- A superuser is listed once, whatever else it has. A member of it is listed, since it can become one.
BEGIN;
CREATE ROLE pp_super SUPERUSER IN ROLE login_pii_reader;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO pp_super;
CREATE ROLE pp_member IN ROLE pp_super;
TABLE here;
ROLLBACK;
-- By CREATEROLE, before PostgreSQL 16.
BEGIN;
CREATE ROLE pp_a CREATEROLE;
CREATE ROLE pp_b IN ROLE pp_a;
SELECT count(*) = CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 2 ELSE 0 END AS as_expected FROM here
WHERE (role, way) IN (('pp_a'::regrole, 'CREATEROLE'), ('pp_b'::regrole, 'membership')) AND privilege = 'unmask';
ROLLBACK;
-- By the server's files, of which the key ring is one.
BEGIN;
CREATE ROLE pp_reads IN ROLE pg_read_server_files;
CREATE ROLE pp_writes IN ROLE pg_write_server_files;
CREATE ROLE pp_executes IN ROLE pg_execute_server_program;
CREATE ROLE pp_member IN ROLE pp_reads;
TABLE here;
SELECT count(*) FROM pii_privileges WHERE role::text LIKE 'pg\_%';
ROLLBACK;
-- By a language that reads the server's memory, whatever its owner calls it. Another handler under that name serves to show it.
BEGIN;
CREATE FUNCTION perl() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
UPDATE pg_proc SET prosrc = 'plperl_call_handler' WHERE oid = 'perl()'::regprocedure;
CREATE TRUSTED LANGUAGE plperl HANDLER perl;
ALTER LANGUAGE plperl RENAME TO pl;
SELECT role, privilege, way, object FROM pii_privileges WHERE way = 'language';
REVOKE USAGE ON LANGUAGE pl FROM PUBLIC;
CREATE ROLE pp_perl;
GRANT USAGE ON LANGUAGE pl TO pp_perl;
TABLE here;
ROLLBACK;
-- A further trigger on an inbox sees raw events. So does the owner of one that was prepared: who takes it over is warned.
BEGIN;
CREATE ROLE pp_watcher;
CREATE ROLE pp_early;
CREATE TABLE seen (user_id text, id uuid UNIQUE);
CREATE TABLE seen_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SET LOCAL client_min_messages = error;
SELECT attach_inbox('seen_inbox', 'seen', 'seen_rejects', '{"user_id": {"copy": "user_id"}, "id": "message_id"}');
RESET client_min_messages;
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
ALTER FUNCTION watch OWNER TO pp_watcher;
CREATE TRIGGER a_watch INSTEAD OF INSERT ON seen_inbox FOR EACH ROW EXECUTE FUNCTION watch();
TABLE here;
DROP TRIGGER a_watch ON seen_inbox;
-- So do the owners of what a rule on it calls, and of the table that it writes.
CREATE ROLE pp_keeper;
CREATE TABLE kept (body text);
ALTER TABLE kept OWNER TO pp_keeper;
CREATE FUNCTION pick(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN $1; END $$;
ALTER FUNCTION pick OWNER TO pp_watcher;
CREATE RULE keep AS ON INSERT TO seen_inbox DO ALSO INSERT INTO kept VALUES (pick(NEW.body));
TABLE here;
DROP RULE keep ON seen_inbox;
GRANT INSERT, SELECT ON seen, seen_rejects TO pp_early;
GRANT CREATE ON SCHEMA public TO pp_early;
ALTER VIEW seen_inbox OWNER TO pp_early;
SELECT attach_inbox('seen_inbox', 'seen', 'seen_rejects', '{"user_id": {"copy": "user_id"}, "id": "message_id"}');
ROLLBACK;
-- Anybody can ask.
SET ROLE login_loader;
SELECT count(*) > 0 AS some FROM pii_privileges;
RESET ROLE;
DROP VIEW here, listed;
