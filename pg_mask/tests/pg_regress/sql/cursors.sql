-- Code of the target finds nothing of the session that inserts: neither its cursors nor the text of its statement.
CREATE TABLE visits (user_id text, id uuid UNIQUE);
CREATE TABLE visit_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SET client_min_messages = error;
SELECT attach_inbox('visit_inbox', 'visits', 'visit_rejects', '{"user_id": {"copy": "user_id"}, "id": "message_id"}');
RESET client_min_messages;
CREATE TABLE staging AS SELECT format('{"user_id":"u%s"}', n) AS body FROM generate_series(1, 4) n;
CREATE FUNCTION intrude() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name text;
    -- Names that a session's cursors get. pg_cursors doesn't show them.
    guessed text[] := ARRAY['events'] || ARRAY(SELECT format('<unnamed portal %s>', n) FROM generate_series(1, 100) n);
    found refcursor;
    own refcursor := 'own';
    stolen text;
BEGIN
    CASE current_setting('test.way', true)
    WHEN 'read' THEN
        FOREACH name IN ARRAY guessed LOOP
            found := name;
            BEGIN
                FETCH found INTO stolen;
                RAISE NOTICE 'stolen: %', stolen;
            EXCEPTION WHEN invalid_cursor_name THEN
            END;
        END LOOP;
    WHEN 'replace' THEN
        FOREACH name IN ARRAY guessed LOOP
            found := name;
            BEGIN
                CLOSE found;
                OPEN found FOR SELECT 'the trigger''s';
            EXCEPTION WHEN invalid_cursor_name THEN
            END;
        END LOOP;
    WHEN 'list' THEN
        RAISE NOTICE 'cursors of the session: %', (SELECT count(*) FROM pg_cursors WHERE statement ~ '[s]taging');
    WHEN 'leave' THEN
        OPEN own FOR SELECT 'what the owner can read';
    WHEN 'statement' THEN
        RAISE NOTICE 'statement: %', coalesce(current_query(), 'none');
    WHEN 'redrive' THEN
        FOREACH name IN ARRAY guessed LOOP
            found := name;
            BEGIN
                CLOSE found;
            EXCEPTION WHEN invalid_cursor_name THEN
            END;
        END LOOP;
        RAISE EXCEPTION 'x' USING ERRCODE = '57014';
    WHEN 'function' THEN
        CREATE OR REPLACE FUNCTION pg_temp.helper() RETURNS text LANGUAGE sql AS $f$ SELECT 'the trigger''s' $f$;
    WHEN 'operator' THEN
        CREATE OPERATOR pg_temp.<-> (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.textcat);
    WHEN 'type' THEN
        CREATE DOMAIN pg_temp.text AS pg_catalog.text;
    WHEN 'constraints' THEN
        SET CONSTRAINTS ALL IMMEDIATE;
    ELSE
    END CASE;
    RETURN NULL;
END $$;
CREATE TRIGGER intrude AFTER INSERT ON visits FOR EACH STATEMENT EXECUTE FUNCTION intrude();
-- It can neither read on in a cursor, of a statement or of a loop, …
SET test.way = 'read';
BEGIN;
DECLARE events CURSOR FOR SELECT body FROM staging;
FETCH events;
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}')$$);
FETCH events;
COMMIT;
CREATE PROCEDURE load() LANGUAGE plpgsql AS $$
DECLARE event text;
BEGIN
    FOR event IN SELECT body FROM staging LOOP
        INSERT INTO visit_inbox (body) VALUES (event);
    END LOOP;
END $$;
SELECT left(error_of('CALL load()'), 5) AS error;
-- … nor close it and have the session read another.
SET test.way = 'replace';
BEGIN;
DECLARE events CURSOR WITH HOLD FOR SELECT body FROM staging;
COMMIT;
FETCH events;
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}')$$);
FETCH events;
CLOSE events;
-- It doesn't see their statements.
SET test.way = 'list';
BEGIN;
DECLARE events CURSOR FOR SELECT body FROM staging;
INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}');
SELECT count(*) FROM pg_cursors WHERE statement ~ '[s]taging';
ROLLBACK;
-- The session's own loops go on.
SET test.way = 'none';
CALL load();
SELECT count(*) FROM visits;
-- A cursor that it leaves open is closed.
SET test.way = 'leave';
BEGIN;
INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}');
SELECT error_of('FETCH own');
SELECT count(*) FROM pg_cursors;
COMMIT;
-- The statement holds the events.
SET test.way = 'statement';
INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}');
SELECT current_query();
-- A redrive whose cursor it wants to close ends with an error.
SET test.way = 'none';
ALTER TABLE visits ADD CONSTRAINT short CHECK (user_id <> 'long') NOT VALID;
INSERT INTO visit_inbox (message_id, body) SELECT gen_random_uuid(), format('{"user_id":"long","more":"%s"}', repeat('x', 900000)) FROM generate_series(1, 20);
ALTER TABLE visits DROP CONSTRAINT short;
SET test.way = 'redrive';
SELECT left(error_of($$SELECT * FROM redrive_rejects('visit_inbox')$$), 5) AS error;
SET test.way = 'none';
SELECT taken, stored FROM redrive_rejects('visit_inbox');
-- It leaves nothing in the session's pg_temp that the session would call, and sets no constraints.
CREATE FUNCTION pg_temp.helper() RETURNS text LANGUAGE sql AS $$ SELECT 'mine' $$;
SET test.way = 'function';
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}')$$);
SET test.way = 'operator';
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}')$$);
SET test.way = 'type';
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}')$$);
SET test.way = 'constraints';
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"x"}')$$);
SELECT pg_temp.helper();
SET test.way = 'none';
SET client_min_messages = error;
DROP TABLE visits, visit_rejects, staging CASCADE;
DROP FUNCTION intrude;
DROP PROCEDURE load;
