-- Rejects go back into their inbox once the cause is mended, in one transaction.
CREATE VIEW rejects AS SELECT message_id, sent_at::date AS sent, reason, unmask_pii(masked_body) AS body FROM login_rejects ORDER BY 1, 2, 3;
CREATE FUNCTION forbid(name text) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN EXECUTE format('ALTER TABLE user_logins ADD CONSTRAINT %I CHECK (user_id NOT LIKE %L) NOT VALID', 'no_' || name, name || '%'); END $$;
CREATE FUNCTION bring(first integer, last integer, name text DEFAULT 'guest') RETURNS void LANGUAGE sql AS
$$ INSERT INTO login_inbox SELECT id(n), '2026-03-01 12:00+00', format('{"user_id":"%s%s","ip":"10.0.0.%s"}', name, n, n) FROM generate_series(first, last) n $$;
-- The rejects are as old as their number says, in days.
CREATE FUNCTION backdate() RETURNS void LANGUAGE sql AS
$$ UPDATE login_rejects SET rejected_at = '2026-04-30 00:00+00'::timestamptz - right(message_id::text, 3)::integer * interval '1 day' WHERE message_id IS NOT NULL $$;
SELECT forbid('guest');
SELECT bring(1, 6);
INSERT INTO login_inbox VALUES (id(7), '2026-03-01', 'bad'), (NULL, '2026-03-01', NULL), (NULL, '2026-03-01', '{"user_id":"guest7"}'), (id(8), '2026-03-01', '{"user_id":"u8"}');
TABLE counts;
SELECT backdate();
TABLE rejects;
-- What is still bad stays: it is taken, and becomes a reject again, of now.
SELECT * FROM redrive_rejects('login_inbox');
TABLE counts;
SELECT count(*), count(*) FILTER (WHERE rejected_at > now() - interval '1 hour') AS again FROM login_rejects;
SELECT backdate();
-- A dry run: in a transaction that is rolled back.
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
BEGIN;
SELECT * FROM redrive_rejects('login_inbox', 'no_guest');
SELECT count(*) FROM user_logins;
ROLLBACK;
SELECT count(*) FROM user_logins;
TABLE counts;
SELECT count(*) FROM login_rejects;
-- By id.
SELECT * FROM redrive_rejects('login_inbox', message_ids => ARRAY[id(3), id(7), id(99)]);
SELECT * FROM redrive_rejects('login_inbox', message_ids => ARRAY[]::uuid[]);
SELECT backdate();
-- By age: before, which the time itself is not, and after, which it is.
SELECT * FROM redrive_rejects('login_inbox', rejected_before => '2026-04-26 00:00+00', rejected_after => '2026-04-25 00:00+00');
SELECT user_id, create_date, unmask_pii(masked_ip), message_id FROM user_logins ORDER BY message_id;
-- The oldest first, and no more than so many.
SELECT * FROM redrive_rejects('login_inbox', 'no_guest', max_rejects => 1);
SELECT user_id FROM user_logins ORDER BY message_id;
SELECT * FROM redrive_rejects('login_inbox', max_rejects => 0);
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox', max_rejects => -1)$$);
-- By reason: a text, no pattern. NULL is no condition.
SELECT * FROM redrive_rejects('login_inbox', 'NO_GUEST');
SELECT * FROM redrive_rejects('login_inbox', 'no%guest');
SELECT * FROM redrive_rejects('login_inbox', '"no_guest": check_violation', NULL, max_rejects => NULL);
-- What was stored meanwhile is a duplicate, and gone from the rejects. Nothing matches twice.
TABLE rejects;
INSERT INTO user_logins (user_id, message_id) VALUES ('u7', id(7));
UPDATE login_rejects SET masked_body = mask_pii('{"user_id":"u7"}') WHERE message_id = id(7);
SELECT * FROM redrive_rejects('login_inbox');
SELECT * FROM redrive_rejects('login_inbox', 'not valid JSON');
-- A message without a body is what it was.
TABLE rejects;
SELECT user_id, message_id FROM user_logins ORDER BY message_id, user_id;
-- In one transaction, and with the time at which a caller began, no reject is taken twice.
TRUNCATE user_logins, login_rejects;
SELECT forbid('guest');
SELECT bring(1, 5);
SELECT now() AS began \gset
SELECT * FROM redrive_rejects('login_inbox', rejected_before => :'began', max_rejects => 3);
SELECT * FROM redrive_rejects('login_inbox', rejected_before => :'began', max_rejects => 3);
SELECT * FROM redrive_rejects('login_inbox', rejected_before => :'began', max_rejects => 3);
BEGIN;
SELECT * FROM redrive_rejects('login_inbox');
SELECT * FROM redrive_rejects('login_inbox');
COMMIT;
-- Two sessions at once take different rejects.
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
BEGIN;
SELECT * FROM redrive_rejects('login_inbox', max_rejects => 3);
\! psql -qtA -d regression -c "SELECT * FROM redrive_rejects('login_inbox')"
COMMIT;
SELECT count(*), count(DISTINCT message_id) FROM user_logins;
SELECT count(*) FROM login_rejects;
-- More than are in memory at a time, of which some are still bad, within a savepoint and an exception block.
TRUNCATE user_logins;
SELECT forbid('guest'), forbid('visitor');
SELECT bring(1, 150), bring(151, 250, 'visitor');
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
DO $$
BEGIN
    PERFORM redrive_rejects('login_inbox');
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE '% rejects', (SELECT count(*) FROM login_rejects);
END $$;
SELECT * FROM redrive_rejects('login_inbox');
TABLE counts;
SELECT DISTINCT reason FROM login_rejects;
SELECT count(*) FROM user_logins;
ALTER TABLE user_logins DROP CONSTRAINT no_visitor;
-- A chunk of its own for large events, which lie out of line.
TRUNCATE user_logins, login_rejects;
INSERT INTO login_inbox SELECT id(n), now(), format('{"user_id":"%s","ip":"%s"}', repeat('x', 200), string_agg(md5((n * m)::text), '')) FROM generate_series(1, 30) n, generate_series(1, 10000) m GROUP BY n;
ALTER TABLE user_logins ALTER user_id TYPE varchar(200), ALTER masked_ip TYPE text;
SET work_mem = '64kB';
-- (What is the statement's error, and no event's, as a full disk, is so here too: in the middle of it.)
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION full_disk();
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
DROP TRIGGER full_disk ON user_logins;
SELECT * FROM redrive_rejects('login_inbox', max_rejects => 29);
RESET work_mem;
SELECT count(*), min(length(unmask_pii(masked_ip))) FROM user_logins;
TRUNCATE user_logins, login_rejects;
ALTER TABLE user_logins ALTER user_id TYPE varchar(128), ALTER masked_ip TYPE masked;
-- Triggers of the view do not fire for it: none is needed, and none can look on. So it is also right where others do not fire.
SELECT forbid('guest');
SELECT bring(1, 2);
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
SET session_replication_role = replica;
SELECT * FROM redrive_rejects('login_inbox');
RESET session_replication_role;
SELECT count(*) FROM user_logins;
-- What is no inbox.
CREATE VIEW no_inbox AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body;
SELECT error_of($$SELECT * FROM redrive_rejects('no_inbox')$$);
SELECT error_of($$SELECT * FROM redrive_rejects('user_logins')$$);
SELECT error_of($$SELECT * FROM redrive_rejects('no_such_view')$$);
SELECT error_of($$SELECT * FROM redrive_rejects(NULL)$$);
-- A masked body that cannot be read any more: an error that quotes nothing, and everything is as it was.
TRUNCATE user_logins, login_rejects;
SELECT forbid('guest');
SELECT bring(1, 3);
UPDATE login_rejects SET masked_body = 'not a mask' WHERE message_id = id(3);
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
SELECT (SELECT count(*) FROM user_logins) AS logins, (SELECT count(*) FROM login_rejects) AS rejects;
DELETE FROM login_rejects WHERE message_id = id(3);
SELECT * FROM redrive_rejects('login_inbox');
-- Under a key; and one that is off the ring.
CREATE FUNCTION ring(id text, byte text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT %L) TO PROGRAM ''umask 077; cat > redrive.json''',
        format('{"primary": "%1$s", "keys": [{"id": "%1$s", "key": "%2$s", "state": "active"}]}', id, replace(encode(decode(repeat(byte, 64), 'hex'), 'base64'), E'\n', '')));
END $$;
SELECT ring('a', '01');
ALTER SYSTEM SET pg_mask.keyring_file = 'redrive.json';
ALTER SYSTEM SET pg_mask.scheme = 'aes-siv';
\set reload 'SELECT pg_reload_conf() AS reloaded \\gset \\c'
:reload
TRUNCATE user_logins, login_rejects;
SELECT forbid('guest');
SELECT bring(1, 3);
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
SELECT DISTINCT mask_key(masked_body) FROM login_rejects;
SELECT ring('b', '02');
:reload
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
SELECT (SELECT count(*) FROM user_logins) AS logins, (SELECT count(*) FROM login_rejects) AS rejects;
SELECT ring('a', '01');
:reload
SELECT * FROM redrive_rejects('login_inbox');
SELECT unmask_pii(masked_ip), mask_key(masked_ip) FROM user_logins ORDER BY 1;
-- RIGHTS. The role that does it sees why an event was rejected, and neither the event nor the login.
CREATE ROLE redriver IN ROLE login_redriver;
SELECT forbid('guest');
TRUNCATE user_logins, login_rejects;
SELECT bring(1, 3);
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
SET ROLE redriver;
SELECT message_id, reason, sent_at IS NOT NULL AS sent, rejected_at IS NOT NULL AS rejected FROM login_rejects ORDER BY 1;
SELECT error_of('SELECT masked_body FROM login_rejects');
SELECT error_of('SELECT * FROM user_logins');
SELECT error_of('DELETE FROM login_rejects');
SELECT error_of('SELECT unmask_pii(''Zg=='')');
SELECT * FROM redrive_rejects('login_inbox', message_ids => ARRAY[id(1)]);
SELECT stored, duplicate, rejected FROM inbox_counts();
RESET ROLE;
-- Others may not; nor does EXECUTE do without INSERT on the inbox, all of it, or without the owner's rights.
SET ROLE login_loader;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
SET ROLE login_pii_reader;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET ROLE;
REVOKE INSERT ON login_inbox FROM login_redriver;
GRANT INSERT (message_id, body) ON login_inbox TO login_redriver;
SET ROLE redriver;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET ROLE;
GRANT INSERT (sent_at) ON login_inbox TO login_redriver;
REVOKE EXECUTE ON FUNCTION unmask_pii(text) FROM login_owner;
SET ROLE redriver;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET ROLE;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$) AS nor_a_superuser;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO login_owner;
REVOKE DELETE ON login_rejects FROM login_owner;
SET ROLE redriver;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET ROLE;
GRANT DELETE ON login_rejects TO login_owner;
-- It is unmasking like any other: limited for the role that does it.
SELECT set_config('pg_mask.unmask_limit', '1', false);
SET ROLE redriver;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
SELECT * FROM redrive_rejects('login_inbox', message_ids => ARRAY[id(2)]);
RESET ROLE;
RESET pg_mask.unmask_limit;
-- Row-level security: what the owner does not see is not there.
ALTER TABLE login_rejects ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SET ROLE redriver;
SELECT * FROM redrive_rejects('login_inbox');
SET row_security = off;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET row_security;
RESET ROLE;
ALTER TABLE login_rejects DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
BEGIN READ ONLY;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
ROLLBACK;
-- ATTACKS, by a role that can redrive and not unmask. An inbox of one's own, with stolen masks for rejects and a rule that copies.
TRUNCATE user_logins, login_rejects;
SELECT forbid('guest');
SELECT bring(1, 1), bring(2, 2, 'u');
GRANT SELECT ON user_logins, login_rejects TO redriver;
GRANT CREATE ON SCHEMA public TO redriver;
SET pg_mask.scheme = 'base64';
SET ROLE redriver;
CREATE TABLE stolen (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE plain (id uuid UNIQUE, ip text, user_id text);
SELECT attach_inbox('plain_inbox', 'plain', 'stolen', '{"ip": {"copy": "ip"}, "user_id": {"copy": "user_id"}, "id": "message_id"}');
INSERT INTO stolen SELECT message_id, now(), 'x', masked_body, now() - interval '1 day' FROM login_rejects;
INSERT INTO stolen SELECT message_id, now(), 'x', masked_ip, now() - interval '1 day' FROM user_logins;
SELECT error_of($$SELECT * FROM redrive_rejects('plain_inbox')$$);
-- … lent to another: nobody can.
SELECT left(error_of('ALTER VIEW plain_inbox OWNER TO login_owner'), 5) AS state;
SELECT error_of($$SELECT attach_inbox('plain_inbox', 'plain', 'login_rejects', '{"ip": {"copy": "ip"}, "id": "message_id"}')$$);
SELECT error_of($$SELECT attach_inbox('login_inbox', 'plain', 'stolen', '{"ip": {"copy": "ip"}, "id": "message_id"}')$$);
-- … by a function that looks like the extension's.
RESET ROLE;
CREATE SCHEMA redriver_own AUTHORIZATION redriver;
SET ROLE redriver;
CREATE FUNCTION redriver_own.unmask_pii(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION redriver_own.inbox_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'seen: %', NEW; RETURN NEW; END $$;
CREATE VIEW redriver_own.inbox AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body;
CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON redriver_own.inbox FOR EACH ROW EXECUTE FUNCTION redriver_own.inbox_trigger('{"target":"public.plain","rejects":"public.login_rejects","rules":{"ip":{"copy":"ip"},"id":"message_id"}}');
SELECT error_of($$SELECT * FROM redrive_rejects('redriver_own.inbox')$$);
CREATE TRIGGER pg_mask_row2 INSTEAD OF INSERT ON redriver_own.inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{"target":"public.plain","rejects":"public.login_rejects","rules":{"ip":{"copy":"ip"},"id":"message_id"}}');
SELECT error_of($$SELECT * FROM redrive_rejects('redriver_own.inbox')$$);
-- A trigger on somebody else's inbox, for those to whom all was granted on it: it is not called, and the definition cannot be replaced.
RESET ROLE;
GRANT ALL ON login_inbox TO redriver;
SET ROLE redriver;
CREATE TRIGGER a_peep INSTEAD OF INSERT ON login_inbox FOR EACH ROW EXECUTE FUNCTION redriver_own.inbox_trigger();
CREATE FUNCTION redriver_own.act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'acting as %', current_user; RETURN NULL; END $$;
CREATE TRIGGER a_act BEFORE INSERT ON login_inbox FOR EACH STATEMENT EXECUTE FUNCTION redriver_own.act();
SELECT * FROM redrive_rejects('login_inbox');
CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON login_inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{"target":"public.plain","rejects":"public.login_rejects","rules":{"ip":{"copy":"ip"},"id":"message_id"}}');
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET ROLE;
DROP TRIGGER a_peep ON login_inbox;
DROP TRIGGER a_act ON login_inbox;
REVOKE ALL ON login_inbox FROM redriver;
GRANT INSERT ON login_inbox TO login_redriver;
DROP TRIGGER pg_mask_row ON login_inbox;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
REVOKE CREATE ON SCHEMA public FROM redriver;
\getenv sources PG_ABS_SRCDIR
\set inbox :sources '/../../../sql/03_inbox.sql'
\set ECHO none
\o /dev/null
\i :inbox
\o
\set ECHO all
-- Functions, operators, types and tables of one's own in front of the real ones.
SET ROLE redriver;
CREATE FUNCTION redriver_own.strpos(text, text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'strpos as %', current_user; RETURN 1; END $$;
CREATE FUNCTION redriver_own.before(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '< as %', current_user; RETURN true; END $$;
CREATE OPERATOR redriver_own.< (FUNCTION = redriver_own.before, LEFTARG = timestamptz, RIGHTARG = timestamptz);
CREATE TABLE redriver_own.login_rejects (LIKE public.login_rejects);
CREATE TYPE redriver_own.text AS (v pg_catalog.text);
CREATE TEMP TABLE login_rejects (LIKE public.login_rejects);
SET search_path = redriver_own, pg_catalog, public;
SELECT * FROM redrive_rejects('public.login_inbox', 'guest', now());
RESET search_path;
DROP TABLE pg_temp.login_rejects;
RESET ROLE;
TABLE rejects;
-- A renamed table is another: the inbox is bound to its own.
ALTER TABLE login_rejects RENAME TO old_rejects;
ALTER TABLE stolen RENAME TO login_rejects;
SET ROLE redriver;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
RESET ROLE;
ALTER TABLE login_rejects RENAME TO stolen;
ALTER TABLE old_rejects RENAME TO login_rejects;
ALTER TABLE user_logins DROP CONSTRAINT no_guest;
SET ROLE redriver;
SELECT * FROM redrive_rejects('login_inbox');
RESET ROLE;
-- Rejects in partitions, where the same place is in several.
RESET pg_mask.scheme;
CREATE TABLE parted (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz) PARTITION BY HASH (message_id);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE few (v text CHECK (v <> 'bad'), id uuid UNIQUE);
SELECT attach_inbox('few_inbox', 'few', 'parted', '{"v": {"copy": "v"}, "id": "message_id"}');
INSERT INTO few_inbox SELECT id(n), now(), '{"v":"bad"}' FROM generate_series(1, 10) n UNION ALL SELECT NULL, now(), '{"v":"bad"}';
CREATE TEMP TABLE aged AS SELECT message_id, sent_at, reason, masked_body, rejected_at - interval '1 day' * coalesce(20 - right(message_id::text, 2)::integer, 0) FROM parted ORDER BY message_id;
TRUNCATE parted;
INSERT INTO parted TABLE aged;
DROP TABLE aged;
SELECT count(DISTINCT tableoid) AS partitions, count(*), count(DISTINCT ctid) < count(*) AS same_place FROM parted;
ALTER TABLE few DROP CONSTRAINT few_v_check;
SELECT * FROM redrive_rejects('few_inbox', max_rejects => 1);
SELECT * FROM redrive_rejects('few_inbox', max_rejects => 4);
SELECT right(id::text, 2) AS id FROM few ORDER BY 1;
SELECT * FROM redrive_rejects('few_inbox');
SELECT (SELECT count(*) FROM few) AS stored, (SELECT count(*) FROM parted) AS rejects;
-- One that cannot be read is named, and leaves the others as they were.
INSERT INTO parted VALUES (id(77), NULL, '', 'no mask', '2026-01-01'), (id(78), NULL, '', mask_pii('{"v":"x"}'), '2026-01-02');
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
SELECT * FROM redrive_rejects('few_inbox', message_ids => ARRAY[NULL, id(78)]);
UPDATE parted SET message_id = NULL;
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
TRUNCATE parted;
-- When it is not known when an event was sent, that is when it came.
ALTER TABLE few ADD day date;
SELECT attach_inbox('few_inbox', 'few', 'parted', '{"v": {"copy": "v"}, "day": "sent_date", "id": "message_id"}');
INSERT INTO parted VALUES (id(79), NULL, '', mask_pii('{"v":"then"}'), '2026-01-02 00:00+00');
SELECT * FROM redrive_rejects('few_inbox');
SELECT day FROM few WHERE v = 'then';
-- Two inboxes that share their rejects: whose is one?
SELECT attach_inbox('more_inbox', 'few', 'parted', '{"v": {"copy": "w"}, "id": "message_id"}');
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
SELECT error_of('SELECT * FROM redrive_rejects(''more_inbox'')');
DROP VIEW more_inbox;
-- A table shares with those that inherit from it, and with its partitions.
CREATE TABLE few_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE heirs () INHERITS (few_rejects);
ALTER TABLE heirs ADD UNIQUE (message_id);
SELECT attach_inbox('few_inbox', 'few', 'few_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
SELECT attach_inbox('more_inbox', 'few', 'heirs', '{"v": {"copy": "w"}, "id": "message_id"}');
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
SELECT error_of('SELECT * FROM redrive_rejects(''more_inbox'')');
DROP VIEW more_inbox;
SELECT * FROM redrive_rejects('few_inbox');
-- Anyone can make a view that mentions the rejects and has the trigger. It is no inbox with them, and stops nobody.
CREATE ROLE bystander;
SET ROLE bystander;
CREATE TEMP VIEW beside AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body FROM public.few_rejects;
CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON beside FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{}');
RESET ROLE;
SELECT * FROM redrive_rejects('few_inbox');
DROP VIEW beside;
DROP ROLE bystander;
-- An error that ends a redrive quotes no value, whatever triggers do with one.
TRUNCATE few, few_rejects;
INSERT INTO few_rejects VALUES (id(80), NULL, '', mask_pii('{"v":"SECRET"}'), '2026-01-02 00:00+00');
CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('TABLE public.%I', NEW.v); RETURN NULL; END $$;
CREATE TRIGGER quote AFTER INSERT ON few FOR EACH ROW EXECUTE FUNCTION quote();
SELECT left(error, 5), error ~ 'SECRET' AS quoted FROM error_of('SELECT * FROM redrive_rejects(''few_inbox'')') AS error;
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE found text; BEGIN SELECT c.relname INTO STRICT found FROM pg_class c WHERE c.relname = NEW.v; RETURN NULL; END $$;
SET plpgsql.print_strict_params = on;
SELECT left(error, 5), error ~ 'SECRET' AS quoted FROM error_of('SELECT * FROM redrive_rejects(''few_inbox'')') AS error;
RESET plpgsql.print_strict_params;
-- Nor does a message, whatever the session has set or has compiled before.
CREATE FUNCTION found(u text) RETURNS int LANGUAGE plpgsql AS $$ DECLARE found int; BEGIN SELECT n INTO found FROM generate_series(1, 2) n WHERE u <> ''; RETURN found; END $$;
SET plpgsql.print_strict_params = on;
SET plpgsql.extra_warnings = 'too_many_rows';
SELECT public.found('seen');
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '%', NEW.v; RAISE INFO '%', NEW.v; PERFORM public.found(NEW.v); RETURN NULL; END $$;
BEGIN;
SELECT * FROM redrive_rejects('few_inbox');
-- Messages reach the client again after it.
DO $$ BEGIN RAISE INFO 'heard'; END $$;
ROLLBACK;
RESET plpgsql.print_strict_params;
RESET plpgsql.extra_warnings;
DROP FUNCTION found;
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', NEW.v USING ERRCODE = '53100', DETAIL = NEW.v, HINT = NEW.v; END $$;
SELECT left(error, 5), error ~ 'SECRET' AS quoted FROM error_of('SELECT * FROM redrive_rejects(''few_inbox'')') AS error;
DROP TRIGGER quote ON few;
-- Nor does it quote what a trigger of the rejects table says about a reject that is taken. The call fails as a whole.
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', OLD USING ERRCODE = 'LM001', DETAIL = OLD, HINT = OLD; END $$;
CREATE TRIGGER quote BEFORE DELETE ON few_rejects FOR EACH ROW EXECUTE FUNCTION quote();
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM OLD.masked_body::inet; RETURN OLD; END $$;
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', OLD USING ERRCODE = '53100'; END $$;
SELECT error_of('SELECT * FROM redrive_rejects(''few_inbox'')');
DROP TRIGGER quote ON few_rejects;
-- Code of the tables does not see the statement of the session, not even as the context of an error.
CREATE FUNCTION context() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE context text;
BEGIN
    GET DIAGNOSTICS context = PG_CONTEXT;
    INSERT INTO public.contexts VALUES (context);
    RETURN NULL;
END $$;
CREATE TABLE contexts (context text);
CREATE TRIGGER context AFTER DELETE ON few_rejects FOR EACH ROW EXECUTE FUNCTION context();
BEGIN;
DO $$ BEGIN PERFORM redrive_rejects('few_inbox'), 'SECRET of the session'; END $$;
SELECT count(*), count(*) FILTER (WHERE context ~ 'SECRET') AS quoted FROM contexts;
ROLLBACK;
DROP TRIGGER context ON few_rejects;
DROP FUNCTION context;
DROP TABLE contexts;
SELECT (SELECT count(*) FROM few) AS stored, (SELECT count(*) FROM few_rejects) AS rejects;
DROP FUNCTION quote;
-- A view of other columns, whose row trigger runs while rejects are taken, is no inbox: it would have numbers read as texts.
SELECT convert_from(rtrim(tgargs, '\x00'), 'UTF8') AS argument FROM pg_trigger
WHERE tgrelid = 'few_inbox'::regclass AND tgname = 'pg_mask_row' \gset
SELECT encode(sha256(convert_to(:'argument', 'UTF8')), 'hex') AS hash \gset
CREATE VIEW numbers AS SELECT 1::bigint AS id, 1::bigint AS sent_at, 1::bigint AS body
FROM few AS target, few_rejects AS rejects WHERE false AND :'hash' IS NULL;
CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION inbox_trigger(:'argument');
CREATE FUNCTION put_number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.numbers VALUES (NULL, NULL, 1); RETURN OLD; END $$;
CREATE TRIGGER put_number BEFORE DELETE ON few_rejects FOR EACH ROW EXECUTE FUNCTION put_number();
DROP VIEW few_inbox;
SELECT error_of('SELECT * FROM redrive_rejects(''numbers'')');
DROP TRIGGER put_number ON few_rejects;
DROP FUNCTION put_number;
-- As it was.
SET client_min_messages = warning;
DROP VIEW numbers, no_inbox, rejects;
DROP TABLE few, parted, heirs, few_rejects;
DROP OWNED BY redriver;
DROP ROLE redriver;
ALTER SYSTEM RESET pg_mask.keyring_file;
ALTER SYSTEM RESET pg_mask.scheme;
:reload
DROP FUNCTION forbid, bring, backdate, ring, full_disk;
TRUNCATE user_logins, login_rejects;
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm redrive.json';
