-- Nothing is found by name while somebody else's rights are in force: a test for each way in.
-- What should never run says so, with the role that it runs as.
CREATE SCHEMA lair;
CREATE SEQUENCE lair.leak;
GRANT USAGE ON SCHEMA lair TO PUBLIC;
GRANT ALL ON SEQUENCE lair.leak TO PUBLIC;
CREATE FUNCTION lair.seen() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RAISE NOTICE 'foreign code runs as %', current_user;
    PERFORM nextval('lair.leak');
    RETURN 'x';
END $$;
-- Postgres runs IMMUTABLE functions of no arguments while it plans.
CREATE FUNCTION lair.planned() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN lair.seen(); END $$;
CREATE FUNCTION lair.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM lair.seen(); RETURN NULL; END $$;
CREATE FUNCTION lair.is_fine(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM lair.seen(); RETURN true; END $$;
CREATE ROLE keeper;
CREATE ROLE landlord;
CREATE ROLE courier;
GRANT landlord TO keeper;
GRANT CREATE ON DATABASE regression TO landlord;
GRANT EXECUTE ON FUNCTION unmask_pii(text), redrive_rejects(regclass, text, timestamptz, timestamptz, uuid[], integer) TO keeper, courier;
-- SET CONSTRAINTS fires all that wait under a name, regardless of who queued them: with the session's rights, not the owner's.
CREATE SCHEMA shop;
GRANT USAGE, CREATE ON SCHEMA shop TO courier;
GRANT USAGE ON SCHEMA shop TO keeper;
CREATE TABLE shop.known (user_id text PRIMARY KEY);
INSERT INTO shop.known VALUES ('u1'), ('u2');
CREATE TABLE shop.orders (user_id text CONSTRAINT known_user REFERENCES shop.known DEFERRABLE INITIALLY DEFERRED, id uuid UNIQUE);
CREATE TABLE shop.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
ALTER TABLE shop.known OWNER TO keeper;
ALTER TABLE shop.orders OWNER TO keeper;
ALTER TABLE shop.rejects OWNER TO keeper;
SET client_min_messages = error;
SELECT attach_inbox('shop.inbox', 'shop.orders', 'shop.rejects', '{"user_id": {"copy": "user_id"}, "id": "message_id"}');
RESET client_min_messages;
ALTER VIEW shop.inbox OWNER TO keeper;
GRANT INSERT ON shop.inbox TO courier;
SET SESSION AUTHORIZATION courier;
CREATE TABLE shop.trap (n integer);
CREATE CONSTRAINT TRIGGER known_user AFTER INSERT ON shop.trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lair.trap();
BEGIN;
INSERT INTO shop.trap VALUES (1);
INSERT INTO shop.inbox VALUES (id(1), now(), '{"user_id": "u1"}'), (id(2), now(), '{"user_id": "stranger"}');
SELECT stored, duplicate, rejected FROM inbox_counts();
INSERT INTO shop.trap VALUES (2);
SELECT taken, rejected FROM redrive_rejects('shop.inbox');
COMMIT;
-- Whatever the session has said of constraints before: the culprit alone is a reject.
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO shop.inbox VALUES (id(3), now(), '{"user_id": "u2"}'), (id(4), now(), '{"user_id": "stranger"}');
COMMIT;
RESET SESSION AUTHORIZATION;
SELECT user_id FROM shop.orders ORDER BY 1;
SELECT reason, count(*) FROM shop.rejects GROUP BY 1;
-- So with constraints of a partition, and of what is behind a view.
CREATE TABLE shop.parted (user_id text, d date, id uuid, UNIQUE (d, id)) PARTITION BY RANGE (d);
CREATE TABLE shop.part PARTITION OF shop.parted FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
ALTER TABLE shop.part ADD FOREIGN KEY (user_id) REFERENCES shop.known DEFERRABLE INITIALLY DEFERRED;
CREATE VIEW shop.behind AS SELECT * FROM shop.orders;
SET client_min_messages = error;
GRANT INSERT, SELECT ON shop.parted, shop.behind TO keeper;
SELECT attach_inbox('shop.parted_inbox', 'shop.parted', 'shop.rejects', '{"user_id": {"copy": "user_id"}, "d": "sent_date", "id": "message_id"}');
SELECT attach_inbox('shop.behind_inbox', 'shop.behind', 'shop.rejects', '{"user_id": {"copy": "user_id"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO shop.parted_inbox VALUES (id(5), '2026-01-01', '{"user_id": "u1"}'), (id(6), '2026-01-01', '{"user_id": "stranger"}');
INSERT INTO shop.behind_inbox VALUES (id(7), '2026-01-01', '{"user_id": "u1"}'), (id(8), '2026-01-01', '{"user_id": "stranger"}');
SELECT reason, count(*) FROM shop.rejects GROUP BY 1;
-- Nobody can have them wait again: a trigger that waits puts them off when it fires.
CREATE FUNCTION lair.put_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET CONSTRAINTS ALL DEFERRED; RETURN NULL; END $$;
SET SESSION AUTHORIZATION courier;
CREATE CONSTRAINT TRIGGER put_off AFTER UPDATE ON shop.trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lair.put_off();
BEGIN;
UPDATE shop.trap SET n = 3;
INSERT INTO shop.inbox (body) VALUES ('{"user_id": "stranger"}');
COMMIT;
RESET SESSION AUTHORIZATION;
-- Code that runs in a flush, here in the CHECK of a domain, leaves nothing that would run with the rights of the session at COMMIT;
-- nor does a trigger of the target while a superuser attaches the inbox: it fires at once, with the rights of the owner.
CREATE FUNCTION lair.leave() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO shop.left_behind VALUES (1); RETURN true; END $$;
CREATE FUNCTION lair.leave_too() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM lair.leave(); RETURN NULL; END $$;
CREATE TABLE shop.left_behind (n integer);
CREATE CONSTRAINT TRIGGER trap AFTER INSERT ON shop.left_behind DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lair.trap();
GRANT INSERT ON shop.left_behind TO keeper;
CREATE DOMAIN shop.size AS text CHECK (lair.leave());
CREATE TABLE shop.sized (size shop.size, id uuid UNIQUE);
ALTER TABLE shop.sized OWNER TO keeper;
SET client_min_messages = error;
SELECT attach_inbox('shop.sized_inbox', 'shop.sized', 'shop.rejects', '{"size": {"copy": "size"}, "id": "message_id"}');
RESET client_min_messages;
ALTER VIEW shop.sized_inbox OWNER TO keeper;
SELECT setval('lair.leak', 1, false);
-- A domain's CHECK says nothing where values are read for an INSERT.
INSERT INTO shop.sized_inbox (body) VALUES ('{"size": "s"}');
SELECT is_called FROM lair.leak;
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO shop.sized_inbox (body) VALUES ('{"size": "s"}'), ('{"size": "m"}');
COMMIT;
CREATE TRIGGER leave BEFORE INSERT ON shop.sized FOR EACH STATEMENT EXECUTE FUNCTION lair.leave_too();
SELECT attach_inbox('shop.sized_inbox', 'shop.sized', 'shop.rejects', '{"size": {"copy": "size"}, "id": "message_id"}');
-- Where a function lends its owner's rights, nothing that waits fires in the middle of it. A deferred constraint is an error then.
CREATE FUNCTION shop.lend(inbox text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    SET LOCAL search_path = lair, pg_catalog;
    EXECUTE format('INSERT INTO %s (body) VALUES (''{"user_id": "u1", "size": null}'')', inbox);
END $$;
ALTER FUNCTION shop.lend OWNER TO keeper;
DROP TRIGGER leave ON shop.sized;
GRANT EXECUTE ON FUNCTION shop.lend TO courier;
SET SESSION AUTHORIZATION courier;
BEGIN;
INSERT INTO shop.trap VALUES (4);
SELECT shop.lend('shop.inbox');
ROLLBACK;
BEGIN;
SET CONSTRAINTS ALL IMMEDIATE;
SELECT shop.lend('shop.inbox');
ROLLBACK;
RESET SESSION AUTHORIZATION;
-- A cursor over rejects that are redriven is nobody else's: what moves it, ends the redrive, and no reject is lost.
CREATE TABLE shop.plain (v text, id uuid UNIQUE);
CREATE TABLE shop.plain_rejects (LIKE shop.rejects INCLUDING ALL);
CREATE FUNCTION lair.skip() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    place refcursor;
BEGIN
    -- pg_cursors doesn't show it.
    FOR n IN 1..100 LOOP
        place := format('<unnamed portal %s>', n);
        BEGIN
            MOVE NEXT FROM place;
        EXCEPTION WHEN invalid_cursor_name THEN
        END;
    END LOOP;
    RETURN NULL;
END $$;
SET client_min_messages = error;
SELECT attach_inbox('shop.plain_inbox', 'shop.plain', 'shop.plain_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO shop.plain_rejects SELECT id(n), now(), 'mended', mask_pii(format('{"v": "%s"}', repeat('x', 3000000))), now() FROM generate_series(1, 6) n;
CREATE TRIGGER skip AFTER INSERT ON shop.plain FOR EACH STATEMENT EXECUTE FUNCTION lair.skip();
SELECT left(error_of($$SELECT * FROM redrive_rejects('shop.plain_inbox')$$), 5) AS error;
DROP TRIGGER skip ON shop.plain;
SELECT * FROM redrive_rejects('shop.plain_inbox');
-- One that waits since before the statement is the transaction's own.
BEGIN;
INSERT INTO shop.part VALUES ('stranger', '2026-01-01', id(9));
INSERT INTO shop.parted_inbox VALUES (id(10), '2026-01-01', '{"user_id": "u1"}');
ROLLBACK;
SET client_min_messages = error;
DROP SCHEMA shop CASCADE;
RESET client_min_messages;
SELECT setval('lair.leak', 1, false);
-- The owner of a schema puts others in the place of tables whose names a session has used. Neither planning runs what
-- they brought, nor running; whether by one row, by COPY, a reject, a redelivery, or redriving.
CREATE SCHEMA market AUTHORIZATION landlord;
CREATE TYPE market.size AS ENUM ('s', 'm');
CREATE TABLE market.orders (v text CHECK (v <> 'bad'), size market.size, tags text[], id uuid UNIQUE);
CREATE TABLE market.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
ALTER TABLE market.orders OWNER TO keeper;
ALTER TABLE market.rejects OWNER TO keeper;
SET client_min_messages = error;
SELECT attach_inbox('market.inbox', 'market.orders', 'market.rejects', '{"v": {"copy": "v"}, "size": {"copy": "size"}, "tags": {"copy": "tags"}, "id": "message_id"}');
RESET client_min_messages;
ALTER VIEW market.inbox OWNER TO keeper;
CREATE FUNCTION put(inbox text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    said text := '';
BEGIN
    said := said || 'one: ' || error_of(format($i$INSERT INTO %s (body) VALUES ('{"v": "1", "size": "s"}')$i$, inbox)) || E'\n';
    said := said || 'more: ' || error_of(format($i$INSERT INTO %s VALUES (id(1), now(), '{"v": "2"}'), (id(2), now(), '{"v": "3", "size": "m", "tags": "{a,b}"}')$i$, inbox)) || E'\n';
    said := said || 'again: ' || error_of(format($i$INSERT INTO %s VALUES (id(1), now(), '{"v": "2"}'), (id(2), now(), '{"v": "3"}')$i$, inbox)) || E'\n';
    said := said || 'reject: ' || error_of(format($i$INSERT INTO %s VALUES (id(3), now(), '{"v": "bad"}'), (id(4), now(), 'x'), (id(5), now(), '{"size": "xl"}')$i$, inbox)) || E'\n';
    said := said || 'redrive: ' || error_of(format('SELECT redrive_rejects(%L)', inbox));
    RETURN said;
END $$;
SELECT put('market.inbox');
SELECT * FROM market.orders ORDER BY v;
SELECT reason FROM market.rejects ORDER BY message_id;
SET ROLE landlord;
ALTER SCHEMA market RENAME TO old;
CREATE SCHEMA market;
GRANT USAGE ON SCHEMA market TO PUBLIC;
CREATE TYPE market.size AS ENUM ('s', 'm');
CREATE TABLE market.orders (v text CHECK (lair.is_fine(v)), size market.size, tags text[], id uuid UNIQUE, more text DEFAULT lair.planned());
CREATE TABLE market.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz, more text DEFAULT lair.planned());
CREATE TRIGGER trap AFTER INSERT ON market.orders FOR EACH STATEMENT EXECUTE FUNCTION lair.trap();
GRANT ALL ON ALL TABLES IN SCHEMA market TO PUBLIC;
RESET ROLE;
SELECT put('old.inbox');
-- A view on the real one, with a check option and a second mention of another table.
SET ROLE landlord;
DROP TABLE market.orders;
RESET ROLE;
GRANT SELECT, INSERT ON old.orders TO landlord;
SET ROLE landlord;
CREATE VIEW market.orders AS SELECT * FROM old.orders WHERE lair.planned() = 'x' WITH CHECK OPTION;
GRANT ALL ON market.orders TO PUBLIC;
RESET ROLE;
SELECT put('old.inbox');
SELECT is_called, setval('lair.leak', 1, false) FROM lair.leak;
-- Target and rejects in the place of each other.
CREATE SCHEMA one AUTHORIZATION landlord;
CREATE SCHEMA two AUTHORIZATION landlord;
SET quote_all_identifiers = on;
CREATE TABLE one.t (v text, message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE two.t (LIKE one.t INCLUDING ALL);
SET client_min_messages = error;
SELECT attach_inbox('public.swapped', 'one.t', 'two.t', '{"v": {"mask": "v"}, "message_id": "message_id"}');
RESET client_min_messages;
RESET quote_all_identifiers;
INSERT INTO swapped (body) VALUES ('{"v": "1"}');
SET ROLE landlord;
ALTER SCHEMA one RENAME TO three;
ALTER SCHEMA two RENAME TO one;
ALTER SCHEMA three RENAME TO two;
RESET ROLE;
SELECT error_of($$INSERT INTO swapped (body) VALUES ('{"v": "1"}')$$);
\c -
SELECT error_of($$INSERT INTO swapped (body) VALUES ('{"v": "1"}')$$);
-- A name that ends like the other's is another.
ALTER SCHEMA two RENAME TO someone;
SELECT error_of($$INSERT INTO swapped (body) VALUES ('{"v": "1"}')$$);
\c -
SELECT error_of($$INSERT INTO swapped (body) VALUES ('{"v": "1"}')$$);
SET client_min_messages = error;
DROP SCHEMA one, someone CASCADE;
RESET client_min_messages;
-- A type in the place of a column's type.
SET client_min_messages = error;
DROP SCHEMA market CASCADE;
RESET client_min_messages;
ALTER SCHEMA old RENAME TO market;
TRUNCATE market.orders, market.rejects;
SELECT put('market.inbox');
ALTER TYPE market.size OWNER TO landlord;
SET ROLE landlord;
ALTER TYPE market.size RENAME TO size_before;
CREATE DOMAIN market.size AS market.size_before CHECK (lair.is_fine(VALUE::text));
RESET ROLE;
-- The session parses its statements again.
DISCARD PLANS;
SELECT put('market.inbox');
SELECT is_called, setval('lair.leak', 1, false) FROM lair.leak;
SELECT * FROM market.orders ORDER BY v;
-- An operator of one's own that fits better, in whatever later schema of the caller's path: attaching, statistics, redriving
-- and what comes in do not find it.
CREATE FUNCTION lair.same(oid, regclass) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM lair.seen(); RETURN $1::bigint = $2::oid::bigint; END';
CREATE FUNCTION lair.both(int2, int4) RETURNS int4 LANGUAGE plpgsql AS 'BEGIN PERFORM lair.seen(); RETURN pg_catalog.int4and($1::int4, $2); END';
CREATE FUNCTION lair.same(name, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM lair.seen(); RETURN $1::text = $2; END';
CREATE FUNCTION lair.same(regclass, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM lair.seen(); RETURN $1::oid::bigint = $2::bigint; END';
CREATE OPERATOR lair.= (FUNCTION = lair.same, LEFTARG = oid, RIGHTARG = regclass);
CREATE OPERATOR lair.& (FUNCTION = lair.both, LEFTARG = int2, RIGHTARG = int4);
CREATE OPERATOR lair.= (FUNCTION = lair.same, LEFTARG = name, RIGHTARG = text);
CREATE OPERATOR lair.= (FUNCTION = lair.same, LEFTARG = regclass, RIGHTARG = oid);
SET search_path = public, lair;
SET client_min_messages = error;
SELECT attach_inbox('market.inbox', 'market.orders', 'market.rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
SELECT put('market.inbox');
SELECT count(*) > 0 AS some FROM inbox_statistics WHERE inbox::text = 'market.inbox';
RESET search_path;
RESET client_min_messages;
SELECT is_called, setval('lair.leak', 1, false) FROM lair.leak;
-- Re-masking goes on with the table that it began with, for hours, whatever its name then means; and with what masks there
-- are, whatever functions have the names of the extension's.
COPY (SELECT format('{"primary": "a", "keys": [{"id": "a", "key": "%sAQ==", "state": "active"}]}', repeat('AQEB', 21))) TO PROGRAM 'umask 077; cat > ring.json';
\set reload 'SELECT pg_reload_conf() AS reloaded \\gset \\c'
ALTER SYSTEM SET pg_mask.keyring_file = 'ring.json';
:reload
CREATE TABLE market.masks (n integer, mask text CHECK (mask <> ''));
INSERT INTO market.masks SELECT n, mask_pii('10.0.0.' || n, 'base64') FROM generate_series(1, 2000) n;
-- The name moves on while a batch is written: a trigger of the owner, who can rename the schema, stands in for the time.
CREATE FUNCTION market.move() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF to_regnamespace('old') IS NULL THEN
        ALTER SCHEMA market RENAME TO old;
        CREATE SCHEMA market;
        CREATE TABLE market.masks (n integer, mask text);
        INSERT INTO market.masks VALUES (0, 'MTAuMC4wLjA=');
        CREATE TRIGGER trap BEFORE UPDATE ON market.masks FOR EACH STATEMENT EXECUTE FUNCTION lair.trap();
    END IF;
    RETURN NULL;
END $$;
ALTER FUNCTION market.move() OWNER TO landlord;
CREATE TRIGGER move AFTER UPDATE ON market.masks FOR EACH STATEMENT EXECUTE FUNCTION market.move();
CALL remask_column('market.masks', 'mask', 1);
SELECT mask_key(mask), count(*) FROM old.masks GROUP BY 1;
SELECT mask FROM market.masks;
SELECT relation, column_name, remasked, finished_at IS NOT NULL AS finished FROM remask_progress WHERE relation = 'old.masks'::regclass;
SELECT is_called, setval('lair.leak', 1, false) FROM lair.leak;
-- It stops at a column that is no text, and says which row is wrong but never what is in it.
CALL remask_column('old.masks', 'n');
CALL remask_column('old.masks', 'nothing');
INSERT INTO old.masks VALUES (-1, 'no mask at all');
CALL remask_column('old.masks', 'mask');
DELETE FROM old.masks WHERE n = -1;
ALTER TABLE old.masks ADD CHECK (mask NOT LIKE '$siv$%') NOT VALID;
INSERT INTO old.masks VALUES (-2, 'MTAuMC4wLjA=');
CALL remask_column('old.masks', 'mask');
BEGIN;
CALL remask_column('old.masks', 'mask');
ROLLBACK;
ALTER SYSTEM RESET pg_mask.keyring_file;
:reload
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm ring.json';
SET client_min_messages = error;
DROP SCHEMA old, market CASCADE;
-- A view that somebody prepared is not taken for an inbox: with a function that merely has the name of the extension's …
CREATE SCHEMA prepared;
CREATE TABLE prepared.orders (v text, id uuid UNIQUE);
CREATE TABLE prepared.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE prepared.loot (body text);
GRANT ALL ON SCHEMA prepared TO landlord;
GRANT ALL ON ALL TABLES IN SCHEMA prepared TO landlord;
SET ROLE landlord;
CREATE VIEW prepared.inbox AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body;
CREATE FUNCTION prepared.inbox_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO prepared.loot VALUES (NEW.body); RETURN NEW; END $$;
CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON prepared.inbox FOR EACH ROW EXECUTE FUNCTION prepared.inbox_trigger();
RESET ROLE;
\set attach 'SELECT attach_inbox(''prepared.inbox'', ''prepared.orders'', ''prepared.rejects'', ''{"v": {"copy": "v"}, "id": "message_id"}'')'
:attach;
-- … or with the extension's own, and a trigger or a rule besides.
DROP VIEW prepared.inbox;
:attach;
:attach;
CREATE TRIGGER a_trap INSTEAD OF INSERT ON prepared.inbox FOR EACH ROW EXECUTE FUNCTION prepared.inbox_trigger();
:attach;
DROP TRIGGER a_trap ON prepared.inbox;
CREATE RULE also AS ON UPDATE TO prepared.inbox DO INSTEAD NOTHING;
:attach;
DROP RULE also ON prepared.inbox;
:attach;
-- Nor is somebody else's inbox.
SET ROLE landlord;
:attach;
RESET ROLE;
-- What default privileges give away of a new view is taken back; of one that is there, grants stay.
DROP VIEW prepared.inbox;
ALTER DEFAULT PRIVILEGES IN SCHEMA prepared GRANT ALL ON TABLES TO courier, PUBLIC;
:attach;
SELECT a.grantee::regrole, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'prepared.inbox'::regclass AND a.grantee <> c.relowner;
GRANT INSERT ON prepared.inbox TO courier;
:attach;
SELECT a.grantee::regrole, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = 'prepared.inbox'::regclass AND a.grantee <> c.relowner;
DROP SCHEMA prepared, lair CASCADE;
DROP FUNCTION put;
DROP OWNED BY keeper, landlord, courier;
DROP ROLE keeper, landlord, courier;
DELETE FROM remask_progress;
