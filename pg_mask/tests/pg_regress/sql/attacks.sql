-- Ways in for a role that cannot unmask, or not so much. Each is refused.
COPY (SELECT format('{"primary": "a", "keys": [{"id": "a", "key": "%sAQ==", "state": "active"}]}', repeat('AQEB', 21))) TO PROGRAM 'umask 077; cat > ring.json';
\set reload 'SELECT pg_reload_conf() AS reloaded \\gset \\c'
LOAD 'pg_mask';
ALTER SYSTEM SET pg_mask.keyring_file = 'ring.json';
ALTER SYSTEM SET pg_mask.scheme = 'aes-siv';
:reload
INSERT INTO login_inbox (message_id, body) SELECT id(n), format('{"user_id": "u%s", "ip": "10.0.0.%s"}', n, n) FROM generate_series(1, 20) n;
\getenv password PGPASSWORD
CREATE ROLE analyst LOGIN PASSWORD :'password' IN ROLE login_analyst;
CREATE ROLE reader LOGIN PASSWORD :'password' IN ROLE login_pii_reader;
GRANT CREATE ON SCHEMA public TO analyst, reader;
GRANT USAGE ON TYPE masked TO analyst, reader;
ALTER ROLE reader SET pg_mask.unmask_limit = 5;
ALTER ROLE reader SET pg_mask.log_unmask = 'statement';
-- A view of a role that can: functions in it are called with the rights of the role that asks.
\c - reader
CREATE VIEW readers_view AS SELECT user_id, unmask_pii(masked_ip) AS ip FROM user_logins;
GRANT SELECT ON readers_view TO analyst;
SELECT ip FROM readers_view WHERE user_id = 'u1';
\c - analyst
SELECT error_of('SELECT * FROM readers_view');
-- COPY of the view, EXPLAIN of it, a cursor, a default, a generated column, an index, an operator, an aggregate of one's own.
COPY readers_view TO STDOUT;
COPY (SELECT unmask_pii(masked_ip) FROM user_logins) TO STDOUT;
EXPLAIN SELECT * FROM readers_view WHERE ip = '10.0.0.1';
EXPLAIN ANALYZE SELECT unmask_pii('MTAuMC4wLjE=');
EXPLAIN SELECT * FROM user_logins WHERE masked_ip = unmask_pii('TVRBdU1DNHdMakU9');
SELECT error_of('DECLARE c CURSOR FOR SELECT unmask_pii(masked_ip) FROM user_logins');
SELECT error_of('CREATE TABLE mine (v text DEFAULT unmask_pii(''MTAuMC4wLjE='')); INSERT INTO mine DEFAULT VALUES');
SELECT error_of('CREATE AGGREGATE mine (text) (SFUNC = textcat, STYPE = text, FINALFUNC = unmask_pii)');
SELECT error_of('CREATE OPERATOR !! (FUNCTION = unmask_pii, RIGHTARG = text)');
RESET ROLE;
\c - postgres
SELECT error_of('CREATE INDEX ON user_logins (unmask_pii(masked_ip))');
SELECT error_of('CREATE TABLE raw (m text, v text GENERATED ALWAYS AS (unmask_pii(m)) STORED)');
-- Masking guesses: under a key it takes a grant, by whatever function, and a view does not lend it.
CREATE VIEW masking_view AS SELECT mask_pii('10.0.0.1') AS mask;
GRANT SELECT ON masking_view TO analyst;
\c - analyst
SELECT error_of($$SELECT mask_pii('10.0.0.1')$$);
SELECT error_of($$SELECT mask FROM masking_view$$);
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'base64')$$);
SELECT error_of($$SELECT mask_pii_all('10.0.0.1')$$);
SELECT error_of($$SELECT remask_pii('MTAuMC4wLjE=')$$);
SELECT error_of($$CALL remask_column('user_logins', 'masked_ip')$$);
-- Settings, once the library is there …
SELECT error_of('SET pg_mask.scheme = base64');
SELECT error_of('SET pg_mask.log_unmask = off');
SELECT error_of('SET pg_mask.unmask_limit = 1000000');
SELECT error_of('SET pg_mask.keyring_file = ''/tmp/mine''');
SELECT error_of('SET pg_mask.keyring_command = ''id''');
SELECT error_of('SET pg_mask.anything = 1');
SELECT error_of('ALTER ROLE analyst SET pg_mask.log_unmask = off');
ALTER SYSTEM SET pg_mask.scheme = base64;
-- … and before it is, when Postgres knows only that they have a dot, and takes any value from anybody.
\c - reader
SET pg_mask.unmask_limit = 1000000;
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins');
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins');
\c "dbname=regression user=reader options='-c pg_mask.unmask_limit=1000000'"
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins');
\c "dbname=regression user=reader options='-c PG_MASK.LOG_UNMASK=off'"
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins');
\c "dbname=regression user=reader options='-c pg_mask.scheme=base64'"
SELECT error_of('SELECT mask_pii(''10.0.0.1'')');
\c "dbname=regression user=reader options='-c pg_mask.last_statement=1'"
SELECT error_of('SELECT mask_pii(''x'')');
\c "dbname=regression user=reader options=''"
SELECT error_of('ALTER ROLE reader SET pg_mask.unmask_limit = 1000000');
-- Nor is a value that means nothing taken for the default.
\c - postgres
ALTER ROLE reader SET pg_mask.unmask_limit = 'five';
\c - reader
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins');
\c - postgres
ALTER ROLE reader SET pg_mask.unmask_limit = 5;
\c - reader
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins');
SELECT current_setting('pg_mask.unmask_limit') AS unmask_limit, current_setting('pg_mask.log_unmask') AS log_unmask, current_setting('pg_mask.scheme') AS scheme;
-- Masking guesses, which nobody counts, is not for whom the limit is for.
SELECT error_of('SELECT mask_pii(''10.0.0.1'')');
SELECT error_of('SELECT mask_pii_all(''10.0.0.1'')');
-- The limit: not by savepoints, functions, cursors, parts of a transaction, or putting settings back.
SELECT count(unmask_pii(masked_ip)) FROM (SELECT masked_ip FROM user_logins LIMIT 5) five;
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM (SELECT masked_ip FROM user_logins LIMIT 6) six');
DO $$
DECLARE
    mask text;
    seen int := 0;
BEGIN
    FOR mask IN SELECT masked_ip FROM user_logins LOOP
        BEGIN
            PERFORM unmask_pii(mask);
            seen := seen + 1;
            RAISE division_by_zero;
        EXCEPTION WHEN division_by_zero THEN
        END;
    END LOOP;
EXCEPTION WHEN configuration_limit_exceeded THEN
    RAISE NOTICE '% seen', seen;
END
$$;
BEGIN;
DECLARE c CURSOR FOR SELECT unmask_pii(masked_ip) FROM user_logins;
FETCH 3 FROM c;
RESET ALL;
DISCARD PLANS;
SAVEPOINT a;
FETCH 2 FROM c;
ROLLBACK TO a;
FETCH 1 FROM c;
ROLLBACK;
BEGIN;
SELECT unmask_pii(masked_ip) FROM user_logins WHERE user_id = 'u7';
COMMIT;
-- A prepared plan outlives no right.
PREPARE kept AS SELECT unmask_pii(masked_ip) FROM user_logins WHERE user_id = 'u7';
EXECUTE kept;
\c - postgres
SET SESSION AUTHORIZATION reader;
PREPARE kept AS SELECT unmask_pii(masked_ip) FROM user_logins WHERE user_id = 'u7';
EXECUTE kept;
EXECUTE kept;
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION unmask_pii(text) FROM login_pii_reader;
SET SESSION AUTHORIZATION reader;
EXECUTE kept;
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO login_pii_reader;
-- Parallel workers count nothing: what runs in one does not unmask, whatever somebody says of a function of theirs.
\c - reader
CREATE FUNCTION public.quick(text) RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS $$ BEGIN RETURN unmask_pii($1); END $$;
-- PostgreSQL 16 calls it debug_parallel_query.
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off;
-- (Where the library is needed for the first time there, settings cannot be taken over; nor later in that session.)
SELECT error_of('SELECT max(quick(masked_ip)) FROM user_logins');
-- No worker comes, so that it is the leader which needs it.
SET parallel_leader_participation = on; SET max_parallel_workers = 0;
SELECT error_of('SELECT max(quick(masked_ip)) FROM user_logins');
SELECT error_of('SELECT unmask_pii(masked_ip) FROM user_logins');
\c - reader
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off;
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT count(unmask_pii(masked_ip)) FROM user_logins WHERE user_id = 'u1';
SELECT current_setting('pg_mask.unmask_limit') AS unmask_limit;
SELECT error_of('SELECT max(quick(masked_ip)) FROM user_logins');
EXPLAIN (COSTS OFF) SELECT unmask_pii(masked_ip) FROM user_logins WHERE user_id <> 'x';
SELECT error_of('SELECT count(unmask_pii(masked_ip)) FROM user_logins WHERE user_id <> ''x''');
-- Functions, operators and types of one's own in front of the real ones, for the DBA who re-masks and for an inbox's flush.
\c - postgres
CREATE SCHEMA evil AUTHORIZATION analyst;
\c - analyst
CREATE FUNCTION evil.seen() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'evil runs as %', current_user; END $$;
CREATE FUNCTION evil.remask_pii(text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION evil.mask_key(text) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION evil.is_masked(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.same(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.same(oid, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.same(int, int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.same(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.same(bigint, int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.same(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE FUNCTION evil.sum(bigint, int) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN PERFORM evil.seen(); END';
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = text, RIGHTARG = text);
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = oid, RIGHTARG = oid);
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = bigint, RIGHTARG = int);
CREATE OPERATOR evil.= (FUNCTION = evil.same, LEFTARG = uuid, RIGHTARG = uuid);
CREATE OPERATOR evil.< (FUNCTION = evil.same, LEFTARG = bigint, RIGHTARG = bigint);
CREATE OPERATOR evil.< (FUNCTION = evil.same, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR evil.>= (FUNCTION = evil.same, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR evil.+ (FUNCTION = evil.sum, LEFTARG = bigint, RIGHTARG = int);
CREATE DOMAIN evil.regclass AS text CHECK (evil.seen() IS NULL);
CREATE DOMAIN evil.name AS text CHECK (evil.seen() IS NULL);
CREATE DOMAIN evil.text AS varchar CHECK (evil.seen() IS NULL);
-- Beside the real ones, for arguments of just the columns' types.
CREATE FUNCTION public.remask_pii(masked) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION public.mask_key(masked) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION public.mask_key(varchar) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION public.is_masked(varchar) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN evil.seen(); END';
CREATE FUNCTION public.mask_pii(text, varchar) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN evil.seen(); END';
CREATE TABLE evil.remask_progress (n int);
CREATE TABLE evil.user_logins (masked_ip text);
\c - postgres
SET search_path = evil, pg_catalog, public;
SELECT 1 = 1 AS evil_is_found;
INSERT INTO public.user_logins (user_id, masked_ip) VALUES ('base64', 'MTAuMC4wLjE=');
CALL public.remask_column('public.user_logins', 'masked_ip', 1);
INSERT INTO public.login_inbox VALUES ('00000000-0000-0000-0000-000000000021', pg_catalog.now(), '{"user_id": "u21", "ip": "10.0.0.21"}'), ('00000000-0000-0000-0000-000000000022', pg_catalog.now(), '{"user_id": "u22"}');
INSERT INTO public.login_inbox VALUES ('00000000-0000-0000-0000-000000000021', pg_catalog.now(), '{"user_id": "u21", "ip": "10.0.0.21"}');
INSERT INTO public.login_inbox VALUES ('00000000-0000-0000-0000-000000000021', pg_catalog.now(), '{"user_id": "u21"}'), ('00000000-0000-0000-0000-000000000023', pg_catalog.now(), '{"user_id": "u23"}'), ('00000000-0000-0000-0000-000000000024', pg_catalog.now(), 'x');
RESET search_path;
TABLE counts;
SELECT mask_key(masked_ip::text), count(*) FROM user_logins WHERE masked_ip IS NOT NULL GROUP BY 1;
-- A trigger of one's own on the target: nobody may make one on another's table.
\c - analyst
SELECT error_of('CREATE TRIGGER peep AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()');
SELECT error_of('CREATE TRIGGER peep INSTEAD OF INSERT ON login_inbox FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()');
-- An inbox of one's own, whose masks one can see, masks under a key only if one may: when it is attached, and when it is used.
CREATE TABLE own (ip text, id uuid UNIQUE);
SELECT error_of('CREATE RULE peep AS ON INSERT TO login_inbox DO ALSO INSERT INTO own VALUES (NEW.body)');
CREATE TABLE own_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT error_of($$SELECT attach_inbox('own_inbox', 'own', 'own_rejects', '{"ip": {"mask": "ip"}, "id": "message_id"}')$$);
SELECT error_of($$SELECT attach_inbox('own_inbox', 'own', 'own_rejects', '{"ip": {"mask": {"key": "ip", "scheme": "aes-siv"}}, "id": "message_id"}')$$);
SELECT error_of($$SELECT attach_inbox('own_inbox', 'own', 'own_rejects', '{"ip": {"mask": {"key": "ip", "scheme": "base64"}}, "id": "message_id"}')$$);
\c - postgres
SET pg_mask.scheme = 'base64';
SET ROLE analyst;
SELECT attach_inbox('own_inbox', 'own', 'own_rejects', '{"ip": {"mask": "ip"}, "id": "message_id"}');
INSERT INTO own_inbox (body) VALUES ('{"ip": "10.0.0.1"}');
TABLE own;
\c - analyst
SELECT error_of($$INSERT INTO own_inbox (body) VALUES ('{"ip": "10.0.0.1"}')$$);
-- On that own target a trigger sees masks, and never an event.
CREATE FUNCTION peep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'seen: %', NEW; RETURN NEW; END $$;
CREATE TRIGGER peep BEFORE INSERT ON own FOR EACH ROW EXECUTE FUNCTION peep();
\c - postgres
SET pg_mask.scheme = 'base64';
INSERT INTO own_inbox (body) VALUES ('{"ip": "10.0.0.1"}');
-- As it was.
ALTER SYSTEM RESET pg_mask.keyring_file;
ALTER SYSTEM RESET pg_mask.scheme;
:reload
SET client_min_messages = warning;
DROP FUNCTION remask_pii(masked), mask_key(masked), mask_key(varchar), is_masked(varchar), mask_pii(text, varchar);
DROP SCHEMA evil CASCADE;
DROP VIEW readers_view, masking_view;
DROP OWNED BY analyst, reader;
DROP ROLE analyst, reader;
TRUNCATE user_logins, login_rejects;
DELETE FROM remask_progress;
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm ring.json';
-- A superuser attaches somebody's inbox again, while the owner of the schema puts tables of their own there: no code of theirs runs
-- with the rights of the inbox's owner.
CREATE ROLE keeper;
CREATE ROLE stranger;
CREATE SCHEMA kept;
GRANT USAGE ON SCHEMA kept TO keeper;
SET client_min_messages = error;
CREATE TABLE kept.t (v text, id uuid UNIQUE);
CREATE TABLE kept.r (LIKE login_rejects INCLUDING ALL);
ALTER TABLE kept.t OWNER TO keeper;
ALTER TABLE kept.r OWNER TO keeper;
SELECT attach_inbox('kept.inbox', 'kept.t', 'kept.r', '{"v": {"copy": "v"}, "id": "message_id"}');
SELECT attach_inbox('kept.inbox', 'kept.t', 'kept.r', '{"v": {"mask": "v"}, "id": "message_id"}');
CREATE FUNCTION kept.take() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE 'taken by %', current_user; END $$;
CREATE TABLE kept.theirs (v text, id uuid UNIQUE, more text DEFAULT kept.take());
ALTER TABLE kept.theirs OWNER TO stranger;
GRANT ALL ON kept.theirs TO keeper;
SELECT error_of($$SELECT attach_inbox('kept.inbox', 'kept.theirs', 'kept.r', '{"v": {"copy": "v"}, "id": "message_id"}')$$);
ALTER TABLE kept.t OWNER TO stranger;
GRANT ALL ON kept.t TO keeper;
SELECT error_of($$SELECT attach_inbox('kept.inbox', 'kept.t', 'kept.r', '{"v": {"copy": "v"}, "id": "message_id"}')$$);
DROP SCHEMA kept CASCADE;
DROP ROLE keeper, stranger;
RESET client_min_messages;
