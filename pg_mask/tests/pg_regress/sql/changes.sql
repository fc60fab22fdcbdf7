-- The catalogs are read as they are when an inbox is made ready, and not as the statement or transaction first saw them.
SET client_min_messages = error;
CREATE ROLE changes_owner;
CREATE SCHEMA changes AUTHORIZATION changes_owner;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO changes_owner;
SET ROLE changes_owner;
CREATE TABLE changes.t (a text, id uuid);
CREATE UNIQUE INDEX t_id ON changes.t (id);
CREATE TABLE changes.u (a text, id uuid UNIQUE);
CREATE TABLE changes.r (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE changes.others (LIKE changes.r INCLUDING ALL);
SELECT attach_inbox('changes.i', 'changes.t', 'changes.others', '{"a": {"copy": "a"}, "id": "message_id"}');
SELECT attach_inbox('changes.j', 'changes.u', 'changes.r', '{"a": {"copy": "a"}, "id": "message_id"}');
RESET ROLE;
RESET client_min_messages;
-- An index that is dropped after the statement has begun, and before its first row. Without it, messages would be doubled.
CREATE FUNCTION wait_until_gone(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..600 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM pg_class WHERE relname = name);
        PERFORM pg_sleep(0.1);
    END LOOP;
END $$;
INSERT INTO changes.i (message_id, body) VALUES (id(1), '{"a": "x"}');
\c
\! (sleep 0.5; psql -X -q -d regression -c 'DROP INDEX changes.t_id') &
SELECT error_of($$INSERT INTO changes.i (message_id, body) SELECT id(1), '{"a": "x"}' FROM wait_until_gone('t_id')$$);
SELECT error_of($$INSERT INTO changes.i (message_id, body) VALUES (id(1), '{"a": "x"}')$$);
SELECT count(*) FROM changes.t;
-- The same in a transaction that keeps its snapshot.
CREATE UNIQUE INDEX t_id ON changes.t (id);
\c
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_current_snapshot() IS NOT NULL AS it_has_a_snapshot;
\! psql -X -q -d regression -c 'DROP INDEX changes.t_id'
SELECT error_of($$INSERT INTO changes.i (message_id, body) VALUES (id(1), '{"a": "x"}')$$);
COMMIT;
SELECT count(*) FROM changes.t;
-- A column that gets another type in that moment: the next statement writes it.
CREATE TABLE changes.sign ();
\c
\! (sleep 0.5; psql -X -q -d regression -c 'ALTER TABLE changes.u ALTER a TYPE varchar(50)' -c 'DROP TABLE changes.sign') &
DO $$
BEGIN
    INSERT INTO changes.j (message_id, body) SELECT id(2), '{"a": "x"}' FROM wait_until_gone('sign');
EXCEPTION WHEN serialization_failure THEN NULL;
END $$;
INSERT INTO changes.j (message_id, body) VALUES (id(2), '{"a": "x"}'), (id(3), '{"a": "x"}');
SELECT count(*) FROM changes.u;
-- A second inbox with the same rejects, which a redrive of the first must not take.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT pg_current_snapshot() IS NOT NULL AS it_has_a_snapshot;
\! psql -X -q -d regression -c 'SET client_min_messages = error; SET ROLE changes_owner' -c "SELECT attach_inbox('changes.k', 'changes.u', 'changes.r', '{\"a\": {\"mask\": \"a\"}, \"id\": \"message_id\"}')" > /dev/null
SELECT split_part(error_of('SELECT * FROM redrive_rejects(''changes.j'')'), E'\n', 1);
COMMIT;
DROP VIEW changes.k;
-- What a policy says does not leave a redrive, though Postgres calls its IMMUTABLE function already when it plans.
INSERT INTO changes.j (message_id, body) VALUES (id(9), 'SECRET');
SET ROLE changes_owner;
CREATE FUNCTION changes.closed(n int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION '% is closed', (SELECT a FROM changes.u LIMIT 1) USING ERRCODE = 'P0002';
END $$;
ALTER TABLE changes.r ENABLE ROW LEVEL SECURITY;
ALTER TABLE changes.r FORCE ROW LEVEL SECURITY;
CREATE POLICY hours ON changes.r USING (changes.closed(1) = '1');
RESET ROLE;
SELECT error_of('SELECT * FROM redrive_rejects(''changes.j'')');
-- A definition that is longer than any could be is none, and costs a reader of the view nothing.
CREATE TEMP VIEW long AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body;
DO $$ BEGIN EXECUTE format('CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON long FOR EACH ROW EXECUTE FUNCTION inbox_trigger(%L)', repeat('x', 2000000)); END $$;
SELECT target FROM inboxes WHERE inbox::text = 'long';
DROP VIEW long;
-- Nor is one with a text that Postgres cannot have, or with more columns than a table: attach_inbox makes none.
CREATE TEMP TABLE kept (a text, id uuid UNIQUE);
CREATE FUNCTION changes.forge(rules text) RETURNS TABLE (is_attached boolean, found jsonb) LANGUAGE plpgsql AS $$
DECLARE
    definition text := format('{"target":"%s.kept","rejects":"changes.r","rules":%s,"flush":"auto"}', (SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()), rules);
BEGIN
    EXECUTE format('CREATE OR REPLACE TEMP VIEW forged AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body
                    FROM kept AS target, changes.r AS rejects WHERE false AND %L IS NULL', encode(sha256(convert_to(definition, 'UTF8')), 'hex'));
    EXECUTE format('CREATE OR REPLACE TRIGGER pg_mask_row INSTEAD OF INSERT ON forged FOR EACH ROW EXECUTE FUNCTION inbox_trigger(%L)', definition);
    RETURN QUERY SELECT i.target IS NOT NULL, i.rules FROM inboxes i WHERE inbox = 'forged'::regclass;
END $$;
SELECT * FROM changes.forge('{"a": {"mask": "a"}, "id": "message_id"}');
SELECT * FROM changes.forge('{"a": {"mask": "\u0000"}, "id": "message_id"}');
SELECT * FROM changes.forge('{"a": {"mask": "\\u0000"}, "id": "message_id"}');
SELECT * FROM changes.forge((SELECT format('{%s}', string_agg(format('"%s": {"mask": "a"}', n), ', ')) FROM generate_series(1, 1601) n));
DROP VIEW forged;
SET client_min_messages = error;
DROP SCHEMA changes CASCADE;
DROP OWNED BY changes_owner;
DROP ROLE changes_owner;
DROP FUNCTION wait_until_gone;
