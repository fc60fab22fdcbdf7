-- The loader's role may INSERT into the inbox and nothing else.
SET ROLE login_loader;
INSERT INTO login_inbox (message_id, body) VALUES (id(1), '{"user_id":"u","ip":"10.0.0.1"}'), (id(2), 'bad');
SELECT stored, duplicate, rejected FROM inbox_counts();
SELECT error_of('SELECT * FROM login_inbox');
SELECT error_of('SELECT * FROM user_logins');
SELECT error_of('SELECT * FROM login_rejects');
SELECT error_of('INSERT INTO user_logins (user_id) VALUES (''x'')');
SELECT error_of('SELECT unmask_pii(''Zg=='')');
SELECT error_of($$SELECT attach_inbox('stolen', 'user_logins', 'login_rejects', '{"user_id": {"copy": "x"}}')$$);
RESET ROLE;
-- Its owner can do nothing but keep these tables.
SELECT relname, relowner::regrole FROM pg_class WHERE relname IN ('user_logins', 'login_rejects', 'login_inbox') ORDER BY 1;
-- Analysts see masks, and cannot unmask or insert.
SET ROLE login_analyst;
SELECT masked_ip FROM user_logins;
SELECT error_of('SELECT unmask_pii(masked_ip) FROM user_logins');
SELECT error_of('SELECT * FROM login_rejects');
SELECT error_of('INSERT INTO login_inbox (body) VALUES (''x'')');
RESET ROLE;
SET ROLE login_pii_reader;
SELECT unmask_pii(masked_ip) FROM user_logins;
SELECT unmask_pii(masked_body) FROM login_rejects;
SELECT error_of('INSERT INTO login_inbox (body) VALUES (''x'')');
RESET ROLE;
-- An aggregate lends nobody a function of the extension: Postgres asks only whether its owner may call it.
CREATE SCHEMA lending AUTHORIZATION login_pii_reader;
GRANT USAGE ON SCHEMA lending TO login_analyst;
GRANT EXECUTE ON FUNCTION mask_pii(text, text), mask_pii_all(text), remask_pii(text) TO login_pii_reader;
SET ROLE login_pii_reader;
CREATE AGGREGATE lending.unmask(text) (SFUNC = text_larger, STYPE = text, FINALFUNC = unmask_pii);
CREATE AGGREGATE lending.mask(text) (SFUNC = mask_pii, STYPE = text, INITCOND = '10.0.0.1');
CREATE AGGREGATE lending.masks(text) (SFUNC = text_larger, STYPE = text, FINALFUNC = mask_pii_all);
CREATE AGGREGATE lending.remask(text) (SFUNC = text_larger, STYPE = text, FINALFUNC = remask_pii);
SELECT lending.unmask(masked_ip) FROM user_logins;
SET ROLE login_analyst;
SELECT error_of('SELECT lending.unmask(masked_ip) FROM user_logins');
SELECT error_of('SELECT lending.mask(''base64'')');
SELECT error_of('SELECT lending.masks(''10.0.0.1'')');
SELECT error_of('SELECT lending.remask(masked_ip) FROM user_logins');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION mask_pii(text, text), mask_pii_all(text), remask_pii(text) FROM login_pii_reader;
SET client_min_messages = warning;
DROP SCHEMA lending CASCADE;
RESET client_min_messages;
TRUNCATE user_logins, login_rejects;
-- The flush acts with the rights of the inbox's owner, neither more nor less.
CREATE ROLE app_owner;
CREATE ROLE app_loader;
CREATE SCHEMA app AUTHORIZATION app_owner;
GRANT USAGE ON SCHEMA app TO app_loader;
SET ROLE app_owner;
CREATE TABLE app.target (v text, who text DEFAULT current_user, id uuid UNIQUE);
CREATE TABLE app.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
GRANT INSERT ON app.inbox TO app_loader;
SET ROLE app_loader;
INSERT INTO app.inbox VALUES (id(1), now(), '{"v":"1"}');
SELECT current_user;
RESET ROLE;
SELECT v, who FROM app.target;
-- … not with those of the role that inserts, even a superuser.
ALTER TABLE app.target OWNER TO CURRENT_USER;
SELECT error_of($$INSERT INTO app.inbox VALUES (id(2), now(), '{"v":"1"}')$$);
GRANT INSERT ON app.target TO app_owner;
SELECT error_of($$INSERT INTO app.inbox VALUES (id(2), now(), '{"v":"1"}')$$);
GRANT SELECT (id) ON app.target TO app_owner;
SELECT error_of($$INSERT INTO app.inbox VALUES (id(2), now(), '{"v":"1"}')$$);
SELECT current_user = session_user AS myself_again;
-- A role that can make triggers on the inbox, as GRANT ALL says, cannot make it write where its owner did not say.
GRANT ALL ON app.inbox TO app_loader;
SET ROLE app_loader;
CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON app.inbox FOR EACH ROW
EXECUTE FUNCTION inbox_trigger('{"target":"app.rejects","rejects":"app.rejects","rules":{"reason":{"copy":"v"},"message_id":"message_id"}}');
SELECT error_of($$INSERT INTO app.inbox VALUES (id(2), now(), '{"v":"1"}')$$);
RESET ROLE;
-- Attached again by another role that can, it stays its owner's, and its owner's rights are looked at.
REVOKE INSERT ON app.target FROM app_owner;
SELECT error_of($$SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}')$$);
GRANT INSERT ON app.target TO app_owner;
SELECT error_of($$SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}')$$);
SELECT relowner::regrole FROM pg_class WHERE oid = 'app.inbox'::regclass;
-- Rights that are missing show when an inbox is attached.
SET ROLE app_loader;
SELECT error_of($$SELECT attach_inbox('app.mine', 'app.target', 'app.rejects', '{"v": {"mask": "v"}}')$$);
RESET ROLE;
-- A role that may insert cannot slip functions of its own under the owner: the flush has a search path of its own.
CREATE SCHEMA evil AUTHORIZATION app_loader;
SET ROLE app_loader;
CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'running as %', current_user; RETURN $1; END $$;
RESET ROLE;
CREATE FUNCTION app.careless() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.who := lower('X'); RETURN NEW; END $$;
CREATE TRIGGER careless BEFORE INSERT ON app.target FOR EACH ROW EXECUTE FUNCTION app.careless();
SET ROLE app_loader;
SET search_path = evil, pg_catalog;
INSERT INTO app.inbox VALUES (public.id(3), now(), '{"v":"1"}');
SHOW search_path;
RESET search_path;
RESET ROLE;
SELECT who FROM app.target ORDER BY id;
-- After an error user and settings are as before.
CREATE OR REPLACE FUNCTION app.careless() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$;
SELECT error_of($$INSERT INTO app.inbox VALUES (id(4), now(), '{"v":"1"}')$$);
SELECT current_user = session_user AS myself_again, current_setting('search_path');
DROP SCHEMA app, evil CASCADE;
-- A superuser lends no rights: an inbox that one makes belongs to the owner of the target from the start, also in the trial.
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO app_owner;
CREATE TABLE app.target (v text, id uuid UNIQUE);
CREATE TABLE app.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE FUNCTION app.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'running as %', current_user; RETURN NULL; END $$;
CREATE TRIGGER trap BEFORE INSERT ON app.target FOR EACH STATEMENT EXECUTE FUNCTION app.trap();
CREATE TRIGGER trap BEFORE INSERT ON app.rejects FOR EACH STATEMENT EXECUTE FUNCTION app.trap();
ALTER TABLE app.target OWNER TO app_owner;
-- … so that owner needs its rights on the rejects table, too.
SELECT error_of($$SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}')$$);
ALTER TABLE app.rejects OWNER TO app_owner;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app_owner, app_loader;
SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM app_owner, app_loader;
SELECT relowner::regrole, has_table_privilege('app_loader', oid, 'INSERT') AS loader FROM pg_class WHERE oid = 'app.inbox'::regclass;
INSERT INTO app.inbox VALUES (id(1), now(), '{"v":"1"}'), (id(2), now(), 'bad');
TABLE counts;
DROP VIEW app.inbox;
-- … or to the owner of the rejects table, where the target is a superuser's.
ALTER TABLE app.target OWNER TO CURRENT_USER;
SELECT error_of($$SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}')$$);
GRANT INSERT, SELECT ON app.target TO app_owner;
SELECT attach_inbox('app.inbox', 'app.target', 'app.rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
SELECT relowner::regrole FROM pg_class WHERE oid = 'app.inbox'::regclass;
DROP SCHEMA app CASCADE;
DROP ROLE app_owner, app_loader;
-- FORCE ROW LEVEL SECURITY holds where Postgres suspends it for the table of the one who inserts: in the check of a foreign key.
CREATE ROLE policed;
CREATE ROLE inserter;
CREATE TABLE policed (v text, id uuid UNIQUE);
CREATE TABLE policed_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
ALTER TABLE policed OWNER TO policed;
ALTER TABLE policed_rejects OWNER TO policed;
ALTER TABLE policed ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY allowed ON policed USING (true) WITH CHECK (v <> 'forbidden');
SET client_min_messages = error;
SELECT attach_inbox('policed_inbox', 'policed', 'policed_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
GRANT INSERT ON policed_inbox TO inserter;
SET ROLE inserter;
CREATE TEMP TABLE above (id integer PRIMARY KEY);
CREATE TEMP TABLE below (id integer REFERENCES above ON DELETE CASCADE);
CREATE FUNCTION pg_temp.put() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO public.policed_inbox (body) VALUES ('{"v": "forbidden"}'); RETURN OLD; END $$;
CREATE TRIGGER put BEFORE DELETE ON below FOR EACH ROW EXECUTE FUNCTION pg_temp.put();
INSERT INTO above VALUES (1);
INSERT INTO below VALUES (1);
DELETE FROM above;
SELECT stored, rejected FROM inbox_counts();
RESET ROLE;
DROP OWNED BY inserter;
DROP VIEW policed_inbox;
DROP TABLE policed, policed_rejects;
DROP ROLE policed, inserter;
