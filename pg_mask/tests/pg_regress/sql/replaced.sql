-- What an inbox was attached to, and nothing that has come to have its name: the owner of a schema can rename it.
CREATE ROLE landlord;
CREATE SCHEMA shop AUTHORIZATION landlord;
CREATE TABLE shop.orders (v text CHECK (v <> 'bad'), mask text, id uuid UNIQUE);
CREATE TABLE shop.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('shop.by_copy', 'shop.orders', 'shop.rejects', '{"v": {"copy": "v"}, "mask": {"mask": "m"}, "id": "message_id"}');
CREATE FUNCTION put() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    inbox text := (SELECT c.oid::regclass FROM pg_class c WHERE relname = 'by_copy');
    said text := '';
BEGIN
    -- One row goes by INSERT, several by COPY, and what is no event to the rejects.
    said := said || 'one: ' || error_of(format($i$INSERT INTO %s (body) VALUES ('{"v": "1", "m": "x"}')$i$, inbox)) || E'\n';
    said := said || 'more: ' || error_of(format($i$INSERT INTO %s VALUES (id(1), now(), '{"v": "2"}'), (id(2), now(), '{"v": "3"}')$i$, inbox)) || E'\n';
    said := said || 'twice: ' || error_of(format($i$INSERT INTO %s VALUES (id(1), now(), '{"v": "2"}'), (id(1), now(), '{"v": "3"}')$i$, inbox)) || E'\n';
    said := said || 'reject: ' || error_of(format($i$INSERT INTO %s VALUES (id(3), now(), '{"v": "bad"}')$i$, inbox)) || E'\n';
    said := said || 'redrive: ' || error_of(format('SELECT redrive_rejects(%L)', inbox)) || E'\n';
    RETURN said;
END $$;
SELECT put();
SELECT v FROM shop.orders ORDER BY 1;
SELECT count(*) FROM shop.rejects;
GRANT CREATE ON DATABASE regression TO landlord;
SET ROLE landlord;
ALTER SCHEMA shop RENAME TO old;
CREATE SCHEMA shop;
CREATE TABLE shop.orders (v text, mask text, id uuid UNIQUE);
CREATE TABLE shop.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
INSERT INTO shop.rejects VALUES (id(9), now(), 'planted', mask_pii('{"v": "planted"}'), now());
CREATE FUNCTION shop.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% sees %', current_user, coalesce(NEW, OLD); RETURN coalesce(NEW, OLD); END $$;
CREATE TRIGGER spy BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.spy();
CREATE TRIGGER spy BEFORE INSERT OR DELETE ON shop.rejects FOR EACH ROW EXECUTE FUNCTION shop.spy();
GRANT ALL ON SCHEMA shop TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA shop TO PUBLIC;
RESET ROLE;
SELECT put();
-- The same by a view on the real one.
SET ROLE landlord;
ALTER TABLE shop.orders RENAME TO others;
CREATE FUNCTION shop.seen() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '% looks', current_user; RETURN true; END $$;
RESET ROLE;
GRANT SELECT, INSERT ON old.orders TO landlord;
SET ROLE landlord;
CREATE VIEW shop.orders AS SELECT * FROM old.orders WHERE shop.seen() WITH CHECK OPTION;
GRANT ALL ON shop.orders TO PUBLIC;
RESET ROLE;
SELECT put();
-- Nor in a session that has not seen it before.
\c -
SELECT put();
SELECT count(*) FROM shop.others;
SELECT message_id FROM shop.rejects;
SELECT v FROM old.orders ORDER BY 1;
-- With its name it works again.
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
RESET client_min_messages;
ALTER SCHEMA old RENAME TO shop;
SELECT put();
SELECT v, count(*) FROM shop.orders GROUP BY 1 ORDER BY 1;
-- What prints plans, and with them values, to the client and into the log is off while events are in flight.
CREATE TABLE shop.settings (name text, setting text);
CREATE FUNCTION shop.look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shop.settings SELECT name, setting FROM pg_settings WHERE name LIKE 'debug_print%';
    RETURN NEW;
END $$;
CREATE TRIGGER look BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.look();
SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on;
SELECT put();
RESET debug_print_parse; RESET debug_print_rewritten; RESET debug_print_plan;
SELECT DISTINCT name, setting FROM shop.settings ORDER BY 1;
SET client_min_messages = warning;
DROP SCHEMA shop CASCADE;
DROP FUNCTION put;
REVOKE CREATE ON DATABASE regression FROM landlord;
DROP ROLE landlord;
-- Nor is a view of the schema's owner given to the owner of the target, when it gets the name of the inbox while a superuser
-- attaches it. (A second session can do what the event trigger does.)
CREATE ROLE landlord;
CREATE ROLE tenant;
CREATE ROLE reader;
CREATE SCHEMA home AUTHORIZATION tenant;
CREATE SCHEMA shop AUTHORIZATION landlord;
CREATE SCHEMA ready AUTHORIZATION landlord;
GRANT USAGE ON SCHEMA home TO landlord;
GRANT USAGE ON SCHEMA shop, ready TO tenant, reader;
SET ROLE tenant;
CREATE TABLE home.secrets AS SELECT 'the secret'::text AS secret;
CREATE TABLE home.orders (mask text, id uuid UNIQUE);
CREATE TABLE home.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
RESET ROLE;
CREATE FUNCTION attach() RETURNS text LANGUAGE sql AS $$
    SELECT error_of($call$SELECT attach_inbox('shop.inbox', 'home.orders', 'home.rejects', '{"mask": {"mask": "v"}, "id": "message_id"}')$call$)
$$;
SELECT attach();
SELECT pg_get_viewdef('shop.inbox'::regclass) AS definition \gset
DROP VIEW shop.inbox;
SET ROLE landlord;
SELECT format('CREATE VIEW ready.inbox AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, secret AS body FROM home.secrets UNION ALL %s', :'definition') AS view \gset
:view
GRANT SELECT (body) ON ready.inbox TO reader;
RESET ROLE;
CREATE FUNCTION swap() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    ALTER SCHEMA shop RENAME TO old;
    ALTER SCHEMA ready RENAME TO shop;
END $$;
CREATE EVENT TRIGGER swap ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION swap();
SELECT regexp_replace(attach(), '[0-9a-f-]{36}', 'name');
DROP EVENT TRIGGER swap;
SELECT c.oid::regclass, relowner::regrole FROM pg_class c WHERE relname = 'inbox';
SET ROLE reader;
SELECT error_of('SELECT body FROM shop.inbox');
RESET ROLE;
SELECT attach();
SELECT count(*) FROM pg_class WHERE relname ~ '^[0-9a-f-]{36}$';
SET client_min_messages = warning;
DROP SCHEMA home, shop, ready CASCADE;
DROP FUNCTION attach, swap;
DROP ROLE landlord, tenant, reader;
