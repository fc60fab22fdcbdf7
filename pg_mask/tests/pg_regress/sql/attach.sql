-- A wrong rule is refused when the inbox is attached, with an error that says what is allowed.
CREATE TABLE things (a text, n integer, g integer GENERATED ALWAYS AS (1) STORED, d date, id uuid UNIQUE, other uuid);
CREATE TABLE thing_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE FUNCTION attach_error(rules text, target text DEFAULT 'things', rejects text DEFAULT 'thing_rejects') RETURNS text LANGUAGE sql AS
$$ SELECT error_of(format('SELECT attach_inbox(%L, %L, %L, %L)', 'thing_inbox', target, rejects, rules)) $$;
\t on
\pset format unaligned
SELECT attach_error('{"nope": {"copy": "a"}}');
SELECT attach_error('{"a": {"hash": "a"}}');
SELECT attach_error('{"a": {"copy": 1}}');
SELECT attach_error('{"a": "copy"}');
SELECT attach_error('["a"]');
SELECT attach_error('{}');
SELECT attach_error('{"n": {"mask": "n"}}');
SELECT attach_error('{"a": {"version": "a"}}');
SELECT attach_error('{"a": "sent_date"}');
SELECT attach_error('{"d": "sent_at"}');
SELECT attach_error('{"a": "message_id"}');
SELECT attach_error('{"g": {"copy": "g"}}');
SELECT attach_error('{"other": "message_id"}');
SELECT attach_error('{"a": {"copy": "a"}}', target => 'nothing');
SELECT attach_error('{"a": {"copy": "a"}}', target => 'pg_class_oid_index');
SELECT attach_error('{"a": {"copy": "a"}}', rejects => 'nothing');
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}', rejects => 'things');
ALTER TABLE thing_rejects DROP CONSTRAINT thing_rejects_message_id_key;
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}');
ALTER TABLE thing_rejects ADD UNIQUE (message_id);
ALTER TABLE thing_rejects ALTER COLUMN masked_body TYPE varchar(10);
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}');
ALTER TABLE thing_rejects ALTER COLUMN masked_body TYPE text, ADD COLUMN more text NOT NULL;
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}');
ALTER TABLE thing_rejects DROP COLUMN more;
-- A column that every event would leave NULL and must not be.
ALTER TABLE things ADD COLUMN must text NOT NULL;
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}');
ALTER TABLE things ALTER COLUMN must SET DEFAULT 'there', ADD COLUMN cut name;
SELECT attach_error('{"cut": {"copy": "a"}, "id": "message_id"}');
ALTER TABLE things DROP COLUMN must, DROP COLUMN cut;
-- Indexes that would not find every redelivery do not count.
ALTER TABLE things DROP CONSTRAINT things_id_key;
CREATE UNIQUE INDEX ON things (id) WHERE n > 0;
CREATE UNIQUE INDEX ON things (id, n);
CREATE UNIQUE INDEX one_null ON things (id) NULLS NOT DISTINCT;
ALTER TABLE things ADD CONSTRAINT late UNIQUE (id) DEFERRABLE;
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id", "n": {"copy": "n"}}');
CREATE UNIQUE INDEX ON things (id);
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}');
ALTER TABLE things DROP CONSTRAINT late;
DROP INDEX one_null;
SELECT attach_error('{"a": {"copy": "a"}, "id": "message_id"}');
\t off
\pset format aligned
-- Rejects may have no id, date or body. What one cannot be written for is said without the row, which has the masked event in it.
ALTER TABLE thing_rejects ALTER message_id SET NOT NULL;
SELECT error_of($$SELECT attach_inbox('thing_inbox', 'things', 'thing_rejects', '{"a": {"copy": "a"}}')$$);
ALTER TABLE thing_rejects ALTER message_id DROP NOT NULL;
CREATE TABLE few_rejects (LIKE thing_rejects INCLUDING ALL, CHECK (reason <> 'the body is not valid JSON'));
SELECT attach_inbox('few_inbox', 'things', 'few_rejects', '{"a": {"copy": "a"}}');
SELECT error_of($$INSERT INTO few_inbox (body) VALUES ('{"a": "secret')$$);
DROP VIEW few_inbox;
DROP TABLE few_rejects;
-- Without a message id it works, and says what that means.
SELECT attach_inbox('thing_inbox', 'things', 'thing_rejects', '{"a": {"copy": "a"}}');
INSERT INTO thing_inbox (message_id, body) VALUES (id(1), '{"a":"1"}'), (id(1), '{"a":"1"}');
TABLE counts;
-- Attached again: the new rules, the same grants.
GRANT INSERT ON thing_inbox TO login_loader;
SELECT attach_inbox('thing_inbox', 'things', 'thing_rejects', '{"a": {"mask": "a"}, "id": "message_id"}');
SELECT has_table_privilege('login_loader', 'thing_inbox', 'INSERT');
-- The session that has used the old rules uses the new ones.
INSERT INTO thing_inbox (message_id, body) VALUES (id(1), '{"a":"1"}'), (id(1), '{"a":"1"}');
TABLE counts;
SELECT a, id FROM things ORDER BY id NULLS FIRST;
-- What is no inbox is not replaced by one.
CREATE VIEW mine AS SELECT 1 AS one;
SELECT error_of($$SELECT attach_inbox('mine', 'things', 'thing_rejects', '{"a": {"copy": "a"}}')$$);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER nothing INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT error_of($$SELECT attach_inbox('other', 'mine', 'thing_rejects', '{"one": {"copy": "a"}}')$$);
SELECT error_of($$SELECT attach_inbox('things', 'things', 'thing_rejects', '{"a": {"copy": "a"}}')$$);
-- Odd names.
CREATE SCHEMA "Odd ""schema""";
CREATE TABLE "Odd ""schema"""."select" ("from 'x'" text, "$id" uuid UNIQUE);
SELECT attach_inbox('"Odd ""schema""".in''box', '"Odd ""schema"""."select"', 'thing_rejects', '{"from ''x''": {"copy": "k\"ey"}, "$id": "message_id"}');
SELECT attach_inbox('"Odd ""schema"""."in''box"', '"Odd ""schema"""."select"', 'thing_rejects', '{"from ''x''": {"copy": "k\"ey"}, "$id": "message_id"}');
INSERT INTO "Odd ""schema"""."in'box" (message_id, body) VALUES (id(1), '{"k\"ey":"value"}');
TABLE "Odd ""schema"""."select";
-- The trigger function by itself does nothing for anybody.
SELECT error_of('SELECT inbox_trigger()');
CREATE TRIGGER misplaced BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{}');
SELECT error_of('INSERT INTO things DEFAULT VALUES');
DROP TRIGGER misplaced ON things;
CREATE VIEW odd AS SELECT NULL::text AS body, NULL::uuid AS message_id WHERE false;
CREATE TRIGGER open BEFORE INSERT ON odd FOR EACH STATEMENT EXECUTE FUNCTION inbox_trigger();
CREATE TRIGGER each INSTEAD OF INSERT ON odd FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{}');
CREATE TRIGGER close AFTER INSERT ON odd FOR EACH STATEMENT EXECUTE FUNCTION inbox_trigger();
SELECT error_of('INSERT INTO odd (body) VALUES (''x'')');
-- A definition that the owner did not attach is refused.
CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON thing_inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{"target": "things"}');
SELECT error_of('INSERT INTO thing_inbox (body) VALUES (''x'')');
CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON thing_inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger('{"target":"public.things","rejects":"public.thing_rejects","rules":{"a":{"copy":"a"},"id":"message_id"}}');
SELECT error_of('INSERT INTO thing_inbox (body) VALUES (''x'')');
CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON thing_inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger();
SELECT error_of('INSERT INTO thing_inbox (body) VALUES (''x'')');
-- NULL is the default where there is one, and otherwise an error.
SELECT error_of(format('SELECT attach_inbox(%s)', arguments)) FROM (VALUES
    ($$NULL, 'things', 'thing_rejects', '{"a": {"copy": "a"}}'$$), ($$'thing_inbox', NULL, 'thing_rejects', '{"a": {"copy": "a"}}'$$),
    ($$'thing_inbox', 'things', NULL, '{"a": {"copy": "a"}}'$$), ($$'thing_inbox', 'things', 'thing_rejects', NULL$$),
    ($$'thing_inbox', 'things', 'thing_rejects', '{"a": {"copy": "a"}, "id": "message_id"}', NULL, NULL, NULL$$)
) AS calls (arguments);
DROP SCHEMA "Odd ""schema""" CASCADE;
DROP VIEW thing_inbox, mine, odd;
DROP TABLE things, thing_rejects;
DROP FUNCTION nothing;
-- Functions that a session compiles or inlines once, under the path of that moment, are named wherever they are called.
CREATE SCHEMA once;
CREATE FUNCTION once.in_sql(v text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(v) $$;
CREATE FUNCTION once.parsed(v text) RETURNS text LANGUAGE sql IMMUTABLE BEGIN ATOMIC SELECT lower(v); END;
CREATE FUNCTION once.with_path(v text) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT lower(v) $$;
CREATE FUNCTION once.without_temp(v text) RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$ SELECT lower(v) $$;
DO $$
DECLARE place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['domain', 'nested', 'index', 'predicate', 'key', 'policy', 'rule', 'statistics'] LOOP
        EXECUTE format('CREATE FUNCTION once.in_%s(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS %L', place, 'BEGIN RETURN v; END');
    END LOOP;
END $$;
CREATE FUNCTION once.joined(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT a < b $$;
CREATE OPERATOR once.<<< (LEFTARG = text, RIGHTARG = text, FUNCTION = once.joined);
CREATE FUNCTION once.apart(a text, b text) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$ SELECT length(a) - length(b) $$;
CREATE TYPE once.span AS RANGE (subtype = text, subtype_diff = once.apart);
CREATE DOMAIN once.inner AS text CHECK (once.in_nested(VALUE) IS NOT NULL);
CREATE DOMAIN once.outer AS once.inner CHECK (once.in_domain(VALUE) IS NOT NULL);
CREATE TABLE once.events (a text, b once.outer, s once.span, id uuid) PARTITION BY LIST (once.in_key(a));
CREATE TABLE once.some PARTITION OF once.events DEFAULT;
CREATE INDEX ON once.events (once.in_index(a)) WHERE once.in_predicate(a) IS NOT NULL;
CREATE POLICY p ON once.events USING (once.in_policy(a) IS NOT NULL);
CREATE STATISTICS once.s ON once.in_statistics(a) FROM once.some;
CREATE TABLE once.noted (a text);
CREATE RULE r AS ON UPDATE TO once.events DO ALSO INSERT INTO once.noted VALUES (once.in_rule(NEW.a));
ALTER TABLE once.events ADD CHECK (once.in_sql(a) IS NOT NULL AND once.parsed(a) IS NOT NULL AND once.with_path(a) IS NOT NULL
    AND once.without_temp(a) IS NOT NULL AND a OPERATOR(once.<<<) 'z');
CREATE TABLE once.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('once.inbox', 'once.events', 'once.rejects', '{"a": {"copy": "a"}}');
SET client_min_messages = error;
DROP SCHEMA once CASCADE;
RESET client_min_messages;
