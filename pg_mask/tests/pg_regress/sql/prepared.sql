-- The scripts in sql/ run nothing of somebody else's with a superuser's rights, whatever was prepared for them.
\set extension_text `cat $PG_ABS_SRCDIR/../../../sql/01_extension.sql`
\set tables_text `cat $PG_ABS_SRCDIR/../../../sql/02_tables.sql`
\set inbox_text `cat $PG_ABS_SRCDIR/../../../sql/03_inbox.sql`
\set roles_text `cat $PG_ABS_SRCDIR/../../../sql/04_roles.sql`
SELECT pg_get_functiondef('error_of'::regproc) AS error_of \gset
CREATE ROLE preparer;
CREATE DATABASE prepared TEMPLATE template0;
\c prepared
SET client_min_messages = warning;
\t on
\pset format unaligned
:error_of;
-- THE EXTENSION is not made where somebody else can make functions: in another's schema,
CREATE SCHEMA theirs AUTHORIZATION preparer;
SET search_path = theirs, public;
SELECT error_of(:'extension_text');
ALTER SCHEMA theirs OWNER TO login_owner;
SELECT error_of(:'extension_text');
-- in one in which others can create,
ALTER SCHEMA theirs OWNER TO CURRENT_USER;
GRANT CREATE ON SCHEMA theirs TO preparer, PUBLIC;
SELECT error_of(:'extension_text');
-- or in a schema public as PostgreSQL 14 had it.
SET search_path = public;
GRANT CREATE ON SCHEMA public TO PUBLIC;
SELECT error_of(:'extension_text');
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
SET search_path = nowhere;
SELECT public.error_of(:'extension_text');
SET search_path = public;
SELECT count(*) FROM pg_extension WHERE extname = 'pg_mask';
-- Nor where they left routines that calls would find before the extension's own. A superuser's, and other names, are fine.
CREATE FUNCTION public.unmask_pii(varchar) RETURNS text LANGUAGE sql AS $$ SELECT 'stolen' $$;
CREATE FUNCTION public.unmasked(text) RETURNS text LANGUAGE sql AS $$ SELECT '' $$;
CREATE PROCEDURE public.remask_column(regclass, text) LANGUAGE sql AS $$ SELECT 1 $$;
ALTER FUNCTION public.unmask_pii(varchar) OWNER TO preparer;
ALTER FUNCTION public.unmasked(text) OWNER TO preparer;
ALTER PROCEDURE public.remask_column(regclass, text) OWNER TO preparer;
SELECT error_of(:'extension_text');
SELECT count(*) FROM pg_extension WHERE extname = 'pg_mask';
ALTER FUNCTION public.unmask_pii(varchar) OWNER TO CURRENT_USER;
CREATE DOMAIN public.try_inbox AS text;
ALTER DOMAIN public.try_inbox OWNER TO preparer;
SELECT error_of(:'extension_text');
DROP DOMAIN public.try_inbox;
DROP PROCEDURE public.remask_column(regclass, text);
SELECT error_of(:'extension_text');
DROP FUNCTION public.unmask_pii(varchar), public.unmasked(text);
SHOW search_path;
-- The other scripts look, too.
GRANT CREATE ON SCHEMA public TO preparer;
SELECT error_of(:'extension_text');
SELECT error_of(:'tables_text');
SELECT error_of(:'inbox_text');
SELECT error_of(:'roles_text');
REVOKE CREATE ON SCHEMA public FROM preparer;
-- login_owner can create: it makes partitions.
GRANT CREATE ON SCHEMA public TO login_owner;
SELECT error_of(:'extension_text');
REVOKE CREATE ON SCHEMA public FROM login_owner;
-- THE DOMAIN: one with another type behind it, which can have a cast of its owner, is not taken.
CREATE TYPE base AS (v text);
CREATE FUNCTION to_text(base) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'cast as %', current_user; RETURN ''; END $$;
CREATE CAST (base AS text) WITH FUNCTION to_text(base);
CREATE DOMAIN masked AS base;
CREATE TABLE bait (m masked);
INSERT INTO bait VALUES (ROW('x'));
ALTER DOMAIN masked OWNER TO login_owner;
SELECT error_of(:'tables_text');
DROP TABLE bait;
DROP DOMAIN masked;
CREATE DOMAIN masked AS varchar(255);
SELECT error_of(:'tables_text');
DROP DOMAIN masked;
CREATE DOMAIN masked AS text;
SELECT error_of(:'tables_text');
DROP DOMAIN masked;
CREATE TYPE masked AS ENUM ();
SELECT error_of(:'tables_text');
DROP TYPE masked;
SELECT error_of(:'tables_text');
-- MEMBERS of a role that was there before this database: those of login_owner are an error,
SELECT error_of(:'inbox_text');
GRANT login_owner, login_pii_reader, login_finder, login_remasker, login_redriver TO preparer;
SELECT error_of(:'roles_text');
-- of others a warning.
REVOKE login_owner FROM preparer;
SELECT error_of(:'roles_text');
-- A second run gives them nothing that they do not have.
GRANT login_owner TO preparer;
SELECT error_of(:'roles_text');
REVOKE login_owner, login_pii_reader, login_finder, login_remasker, login_redriver FROM preparer;
-- THE INBOX, when it is gone: what login_owner's people did to the tables runs as login_owner.
CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF current_user <> 'login_owner' THEN RAISE 'trigger as %', current_user; END IF; RETURN NULL; END $$;
CREATE TRIGGER trap BEFORE INSERT ON user_logins FOR EACH STATEMENT EXECUTE FUNCTION trap();
DROP VIEW login_inbox;
SELECT error_of(:'tables_text');
SELECT error_of(:'inbox_text');
SELECT error_of(:'roles_text');
DROP TRIGGER trap ON user_logins;
SELECT relowner::regrole FROM pg_class WHERE oid = 'login_inbox'::regclass;
SET ROLE login_loader;
INSERT INTO login_inbox VALUES ('00000000-0000-0000-0000-000000000001', '2026-03-01', '{"user_id":"u1","ip":"10.0.0.1"}');
RESET ROLE;
SELECT count(*) FROM user_logins;
-- TYPES: a column of one of them, in anybody's table, would keep the CHECK from coming back and the table from being altered.
SET ROLE preparer;
SELECT error_of('CREATE TEMP TABLE mine (c public.masked)');
SELECT error_of('CREATE TEMP TABLE mine (c public.masked[])');
SELECT error_of('CREATE TEMP TABLE mine (c public.user_logins)');
SELECT error_of('CREATE TEMP TABLE mine (c public.login_rejects[])');
RESET ROLE;
-- The CHECK comes back, added as the domain's owner.
CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '% as %', tg_tag, current_user; END $$;
SET client_min_messages = error;
DROP EXTENSION pg_mask CASCADE;
SELECT error_of(:'extension_text');
SET client_min_messages = warning;
CREATE EVENT TRIGGER seen ON ddl_command_start WHEN TAG IN ('ALTER DOMAIN') EXECUTE FUNCTION seen();
SELECT error_of(:'tables_text');
DROP EVENT TRIGGER seen;
SELECT current_user = session_user AS myself_again;
SELECT error_of($$INSERT INTO user_logins (user_id, masked_ip) VALUES ('raw', '10.0.0.1')$$);
-- What an administrator granted since stays.
GRANT USAGE ON TYPE masked TO PUBLIC;
SELECT error_of(:'tables_text');
SELECT typname, has_type_privilege('preparer', oid, 'USAGE') FROM pg_type
WHERE typnamespace = 'public'::regnamespace AND typname IN ('masked', 'user_logins', 'login_rejects') ORDER BY 1;
\c regression
DROP DATABASE prepared;
DROP ROLE preparer;
