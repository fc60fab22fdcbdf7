-- What an inbox is, and what is wrong with one.
SELECT inbox, owner, target, rejects, jsonb_object_keys(rules) AS filled, envelope, event, found_by, flush, copy_obstacle
FROM inboxes WHERE inbox = 'login_inbox'::regclass ORDER BY filled LIMIT 2;
SELECT * FROM inbox_problems('login_inbox');
SELECT error_of($$SELECT inbox_problems('user_logins')$$);
SELECT inbox_problems(NULL) IS NULL AS nothing;
CREATE ROLE smith;
CREATE ROLE neighbour;
CREATE ROLE chief SUPERUSER;
CREATE SCHEMA forge AUTHORIZATION smith;
SET ROLE smith;
CREATE TABLE forge.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE forge.tools (name text, tags text[], made date, id uuid, UNIQUE (id, made));
SELECT attach_inbox('forge.inbox', 'forge.tools', 'forge.rejects', '{"name": {"mask": "name"}, "made": "sent_date", "id": "message_id"}',
    envelope => 'sns', event => '/detail', flush => 'insert');
-- Anyone can look.
SET ROLE neighbour;
SELECT * FROM inboxes WHERE owner = 'smith'::regrole;
SELECT p.* FROM inboxes, inbox_problems(inbox) p WHERE owner = 'smith'::regrole;
RESET ROLE;
-- An owner with more rights than a flush needs.
GRANT pg_read_server_files TO smith;
SELECT * FROM inbox_problems('forge.inbox');
GRANT chief TO smith;
SELECT item, problem FROM inbox_problems('forge.inbox');
ALTER ROLE smith SUPERUSER;
SELECT item, problem FROM inbox_problems('forge.inbox');
ALTER ROLE smith NOSUPERUSER;
REVOKE chief, pg_read_server_files FROM smith;
-- The owner of the schema can put another view in its place, and so can its members.
ALTER SCHEMA forge OWNER TO neighbour;
SELECT * FROM inbox_problems('forge.inbox');
ALTER SCHEMA forge OWNER TO smith;
-- So can a role that can drop something that the view depends on, and create in the inbox's schema.
CREATE SCHEMA anvil AUTHORIZATION neighbour;
GRANT USAGE, CREATE ON SCHEMA anvil TO smith;
CREATE TABLE anvil.tools (LIKE forge.tools INCLUDING ALL);
ALTER TABLE anvil.tools OWNER TO smith;
SET ROLE smith;
SELECT attach_inbox('forge.by_schema', 'anvil.tools', 'forge.rejects', '{"name": {"mask": "name"}, "made": "sent_date", "id": "message_id"}');
RESET ROLE;
SELECT count(*) FROM inbox_problems('forge.by_schema');
GRANT CREATE ON SCHEMA forge TO neighbour;
SELECT * FROM inbox_problems('forge.by_schema');
SELECT count(*) FROM inbox_problems('forge.inbox');
REVOKE CREATE ON SCHEMA forge FROM neighbour;
SELECT count(*) FROM inbox_problems('forge.by_schema');
DROP VIEW forge.by_schema;
DROP TABLE anvil.tools;
DROP SCHEMA anvil;
-- … as the owner of the table, or of one above it; as a member; with CREATE for PUBLIC.
SET client_min_messages = error;
CREATE TABLE forge.above (name text, id uuid) PARTITION BY LIST (name);
CREATE TABLE forge.part PARTITION OF forge.above (UNIQUE (id)) DEFAULT;
ALTER TABLE forge.part OWNER TO smith;
SET ROLE smith;
SELECT attach_inbox('forge.by_table', 'forge.part', 'forge.rejects', '{"name": {"mask": "name"}, "id": "message_id"}');
RESET ROLE;
GRANT CREATE ON SCHEMA forge TO neighbour;
SELECT count(*) FROM inbox_problems('forge.by_table');
ALTER TABLE forge.above OWNER TO neighbour;
SELECT item, problem FROM inbox_problems('forge.by_table') WHERE item = 'schema';
REVOKE CREATE ON SCHEMA forge FROM neighbour;
SELECT count(*) FROM inbox_problems('forge.by_table') WHERE item = 'schema';
CREATE ROLE friend NOINHERIT IN ROLE neighbour;
GRANT CREATE ON SCHEMA forge TO PUBLIC;
SELECT item, problem FROM inbox_problems('forge.by_table') WHERE item = 'schema';
REVOKE CREATE ON SCHEMA forge FROM PUBLIC;
ALTER TABLE forge.above OWNER TO smith;
DROP VIEW forge.by_table;
DROP TABLE forge.above;
DROP ROLE friend;
RESET client_min_messages;
-- A foreign key of another role, also after it lost its right; one of the owner's own is nothing.
GRANT USAGE ON SCHEMA forge TO neighbour;
GRANT REFERENCES (message_id) ON forge.rejects TO neighbour;
CREATE SCHEMA alley AUTHORIZATION neighbour;
SET ROLE neighbour;
CREATE TABLE alley.tickets (message_id uuid REFERENCES forge.rejects (message_id) ON DELETE CASCADE);
RESET ROLE;
REVOKE REFERENCES (message_id) ON forge.rejects FROM neighbour;
CREATE TABLE forge.notes (message_id uuid REFERENCES forge.rejects (message_id));
ALTER TABLE forge.notes OWNER TO smith;
SELECT * FROM inbox_problems('forge.inbox');
-- Of the owner's own, too, where another role can put a trigger on it.
DROP SCHEMA alley CASCADE;
GRANT TRIGGER ON forge.notes TO neighbour;
SELECT item, problem FROM inbox_problems('forge.inbox');
DROP TABLE forge.notes;
REVOKE USAGE ON SCHEMA forge FROM neighbour;
-- Triggers and rules that somebody added.
CREATE FUNCTION forge.see() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER see INSTEAD OF INSERT ON forge.inbox FOR EACH ROW EXECUTE FUNCTION forge.see();
CREATE RULE steal AS ON INSERT TO forge.inbox DO ALSO NOTHING;
SELECT * FROM inbox_problems('forge.inbox');
DROP TRIGGER see ON forge.inbox;
DROP RULE steal ON forge.inbox;
-- Functions without a search path.
CREATE FUNCTION forge.check_name(text) RETURNS boolean LANGUAGE sql AS $$ SELECT $1 <> 'x' $$;
CREATE FUNCTION forge.set_path() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER set_path BEFORE INSERT ON forge.tools FOR EACH ROW EXECUTE FUNCTION forge.set_path();
SELECT * FROM inbox_problems('forge.inbox');
SELECT copy_obstacle FROM inboxes WHERE inbox = 'forge.inbox'::regclass;
ALTER TABLE forge.tools ADD CHECK (forge.check_name(name));
SELECT * FROM inbox_problems('forge.inbox');
-- A path with a schema in which others can create is none. One where the owner can is.
ALTER FUNCTION forge.check_name(text) SET search_path = forge, pg_temp;
SELECT count(*) FROM inbox_problems('forge.inbox');
CREATE SCHEMA "Open yard";
GRANT CREATE ON SCHEMA "Open yard" TO neighbour;
ALTER FUNCTION forge.check_name(text) SET search_path = pg_catalog, "Open yard", pg_temp;
SELECT item, problem FROM inbox_problems('forge.inbox');
REVOKE CREATE ON SCHEMA "Open yard" FROM neighbour;
ALTER FUNCTION forge.check_name(text) SET search_path = "$user", pg_catalog, pg_temp;
SELECT count(*) FROM inbox_problems('forge.inbox');
ALTER FUNCTION forge.check_name(text) SET search_path = "yard, pg_temp";
SELECT count(*) FROM inbox_problems('forge.inbox');
ALTER FUNCTION forge.check_name(text) SET search_path = pg_catalog, "Open yard", pg_temp;
SELECT count(*) FROM inbox_problems('forge.inbox');
DROP SCHEMA "Open yard";
-- Nor is a path with a schema that is missing: a role with CREATE on the database can make it.
SELECT item, problem FROM inbox_problems('forge.inbox');
ALTER TABLE forge.tools DROP CONSTRAINT tools_name_check;
DROP TRIGGER set_path ON forge.tools;
-- A crash would empty a table.
ALTER TABLE forge.rejects SET UNLOGGED;
ALTER TABLE forge.tools SET UNLOGGED;
SELECT * FROM inbox_problems('forge.inbox');
ALTER TABLE forge.rejects SET LOGGED;
ALTER TABLE forge.tools SET LOGGED;
-- Nothing finds a redelivered message. A unique index that takes NULLs for equal finds none without an id.
ALTER TABLE forge.tools DROP CONSTRAINT tools_id_made_key;
SELECT * FROM inbox_problems('forge.inbox');
CREATE UNIQUE INDEX odd ON forge.tools (id) NULLS NOT DISTINCT;
SELECT item FROM inbox_problems('forge.inbox');
SELECT found_by, copy_obstacle FROM inboxes WHERE inbox = 'forge.inbox'::regclass;
DROP INDEX forge.odd;
CREATE UNIQUE INDEX tools_id ON forge.tools (id);
SELECT * FROM inbox_problems('forge.inbox');
-- A table under another name is not what its owner attached, and its other problems are still found.
ALTER TABLE forge.tools RENAME TO old_tools;
ALTER TABLE forge.old_tools SET UNLOGGED;
SELECT item, problem FROM inbox_problems('forge.inbox');
SELECT * FROM inboxes WHERE inbox = 'forge.inbox'::regclass;
ALTER TABLE forge.old_tools SET LOGGED;
ALTER TABLE forge.old_tools RENAME TO tools;
-- Nor are two tables that change places, nor a trigger with another definition.
ALTER TABLE forge.tools RENAME TO other;
ALTER TABLE forge.rejects RENAME TO tools;
ALTER TABLE forge.other RENAME TO rejects;
SELECT item FROM inbox_problems('forge.inbox');
SELECT error_of($$INSERT INTO forge.inbox (body) VALUES ('{}')$$);
ALTER TABLE forge.rejects RENAME TO other;
ALTER TABLE forge.tools RENAME TO rejects;
ALTER TABLE forge.other RENAME TO tools;
SELECT item FROM inbox_problems('forge.inbox');
GRANT TRIGGER ON forge.inbox TO neighbour;
GRANT USAGE ON SCHEMA forge TO neighbour;
SELECT format('CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON forge.inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger(%L)',
    replace(convert_from(rtrim(tgargs, '\x00'::bytea), 'UTF8'), '"mask"', '"copy"')) AS change
FROM pg_trigger WHERE tgrelid = 'forge.inbox'::regclass AND tgname = 'pg_mask_row' \gset
SET ROLE neighbour;
:change;
RESET ROLE;
SELECT item FROM inbox_problems('forge.inbox');
SELECT error_of($$INSERT INTO forge.inbox (body) VALUES ('{}')$$);
-- Anyone can make a view with such a trigger, and any argument. It hides no other inbox.
SET ROLE neighbour;
CREATE TEMP TABLE a (x integer);
CREATE TEMP VIEW odd AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body FROM a WHERE false;
CREATE TRIGGER two INSTEAD OF INSERT ON odd FOR EACH ROW EXECUTE FUNCTION inbox_trigger('a', 'b');
SELECT count(*) AS of_it, count(target) AS attached FROM inboxes WHERE inbox = 'odd'::regclass;
SELECT item FROM inbox_problems('odd');
DROP TRIGGER two ON odd;
CREATE TRIGGER quoted INSTEAD OF INSERT ON odd FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{"target": "\"", "rejects": "", "rules": {}}');
SELECT count(*) AS of_it, count(target) AS attached FROM inboxes WHERE inbox = 'odd'::regclass;
DROP TRIGGER quoted ON odd;
CREATE TRIGGER none INSTEAD OF INSERT ON odd FOR EACH ROW EXECUTE FUNCTION inbox_trigger();
SELECT count(*) AS of_it, count(target) AS attached FROM inboxes WHERE inbox = 'odd'::regclass;
RESET ROLE;
DROP VIEW odd;
DROP TABLE a;
-- A default of a column would run with the rights of the role that inserts, also of a superuser.
CREATE FUNCTION forge.whose() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'as %', current_user; RETURN NULL; END $$;
ALTER VIEW forge.inbox ALTER sent_at SET DEFAULT forge.whose();
SELECT item, level, problem, hint FROM inbox_problems('forge.inbox') WHERE item = 'columns';
SELECT error_of('INSERT INTO forge.inbox (message_id, body) VALUES (id(1), ''{}'')');
SET ROLE smith;
SELECT error_of($$SELECT attach_inbox('forge.inbox', 'forge.tools', 'forge.rejects', '{"name": {"mask": "name"}, "id": "message_id"}')$$);
RESET ROLE;
ALTER VIEW forge.inbox ALTER sent_at DROP DEFAULT;
-- A view with more columns is none.
SELECT pg_get_viewdef('forge.inbox') AS query \gset
SELECT replace(:'query', E'\n   FROM', E', 1 AS more\n   FROM') AS query \gset
CREATE OR REPLACE VIEW forge.inbox AS :query
SELECT item, level, problem FROM inbox_problems('forge.inbox');
DROP VIEW forge.inbox;
-- What Postgres does not show: what stands behind a view.
CREATE VIEW forge.behind AS SELECT * FROM forge.tools;
ALTER VIEW forge.behind OWNER TO smith;
SET ROLE smith;
SELECT attach_inbox('forge.inbox', 'forge.behind', 'forge.rejects', '{"name": {"mask": "name"}, "id": "message_id"}');
SELECT attach_inbox('forge.by_type', 'forge.tools', 'forge.rejects', '{"tags": {"copy": "tags"}}');
RESET ROLE;
SELECT * FROM inbox_problems('forge.inbox');
SELECT inbox, target, found_by, flush, copy_obstacle FROM inboxes WHERE owner = 'smith'::regrole;
SET client_min_messages = error;
DROP SCHEMA forge CASCADE;
DROP ROLE smith, neighbour, chief;
