-- One event never takes the server down: a body that is too large, or memory that runs out, is an error of the statement.
-- The session must know of the extension's settings.
SELECT is_masked('');
SELECT setting, unit, context, min_val, max_val FROM pg_settings WHERE name = 'pg_mask.max_event_size';
CREATE ROLE inserter;
SET ROLE inserter;
SET pg_mask.max_event_size = '1GB';
RESET ROLE;
-- The limit itself is taken, one byte more is not: by INSERT, by COPY, as JSON or anything else.
CREATE FUNCTION body(bytes integer) RETURNS text LANGUAGE sql AS
$$ SELECT '{"user_id":"memory","SECRET":"' || repeat('x', bytes - 32) || '"}' $$;
SET pg_mask.max_event_size = '1kB';
SELECT octet_length(body(1024));
INSERT INTO login_inbox (body) SELECT body(1024);
TABLE counts;
SELECT error_of('INSERT INTO login_inbox (body) SELECT body(1025)');
SELECT error_of($$INSERT INTO login_inbox (body) SELECT repeat('x', 1025)$$);
-- Bytes are counted, not characters.
SELECT error_of($$INSERT INTO login_inbox (body) SELECT repeat('é', 513)$$);
COPY login_inbox (body) FROM PROGRAM 'head -c 1024 /dev/zero | tr "\0" x';
TABLE counts;
SELECT error_of($$COPY login_inbox (body) FROM PROGRAM 'head -c 1025 /dev/zero | tr "\0" x'$$);
-- The whole statement fails: nothing of it is stored or rejected.
SELECT error_of('INSERT INTO login_inbox (body) SELECT body(bytes) FROM (VALUES (100), (2000), (30)) AS v(bytes)');
SELECT (SELECT count(*) FROM user_logins WHERE user_id = 'memory') AS stored,
    (SELECT count(*) FROM login_rejects WHERE masked_body = mask_pii(repeat('x', 1024))) AS rejected;
-- A reject that is larger stays where it is.
RESET pg_mask.max_event_size;
INSERT INTO login_inbox (message_id, body) VALUES (id(1), repeat('x', 2000));
SET pg_mask.max_event_size = '1kB';
SELECT error_of($$SELECT redrive_rejects('login_inbox', message_ids => ARRAY[id(1)])$$);
SELECT message_id, reason, length(unmask_pii(masked_body)) FROM login_rejects WHERE message_id = id(1);
RESET pg_mask.max_event_size;
SELECT * FROM redrive_rejects('login_inbox', message_ids => ARRAY[id(1)]);
SELECT error_of('INSERT INTO login_inbox (body) SELECT body(16 * 1024 * 1024 + 1)');
-- A value from before the library is loaded counts, and a wrong one is refused with the library.
\c "dbname=regression options='-c pg_mask.max_event_size=2kB'"
SELECT error_of('INSERT INTO login_inbox (body) SELECT body(2049)');
\c "dbname=regression options='-c pg_mask.max_event_size=1'"
\set VERBOSITY sqlstate
SELECT error_of('INSERT INTO login_inbox (body) SELECT body(30)');
\set VERBOSITY default
\c "dbname=regression options=''"

-- Memory that runs out. The session keeps so many megabytes of address space.
CREATE FUNCTION leave(mb numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT 1) TO PROGRAM %L',
        'cat >/dev/null; read pages rest </proc/$PPID/statm; prlimit --pid $PPID --as=$((pages * $(getconf PAGESIZE) + ' || (mb * 1048576)::bigint || '))');
END
$$;
COPY (SELECT '{"primary": "a", "keys": [{"id": "a", "key": "' || repeat('AQEB', 21) || 'AQ==", "state": "active"}]}')
    TO PROGRAM 'umask 077; cat > memory.json';
SELECT is_masked('');
ALTER SYSTEM SET pg_mask.keyring_file = 'memory.json';
SELECT pg_reload_conf() AS reloaded \gset
\c
CREATE UNLOGGED TABLE huge (copied text, masked text, token text, version integer, day date, json jsonb, range int4range, message_id uuid UNIQUE);
CREATE UNLOGGED TABLE huge_rejects (LIKE login_rejects INCLUDING ALL);
CREATE FUNCTION attach(flush text, envelope text DEFAULT 'none', event text DEFAULT '') RETURNS text LANGUAGE sql AS $$
    SELECT attach_inbox(format('huge_%s_%s%s', flush, envelope, translate(event, '/', '_')), 'huge', 'huge_rejects',
        '{"copied": {"copy": "copied"}, "masked": {"mask": {"key": "masked", "scheme": "base64"}},
          "token": {"mask": {"key": "token", "scheme": "aes-siv"}}, "version": {"version": "version"}, "day": {"copy": "day"},
          "json": {"copy": "json"}, "range": {"copy": "range"}, "message_id": "message_id"}',
        flush => flush, envelope => envelope, event => event, allow_unlogged => true);
    SELECT format('huge_%s_%s%s', flush, envelope, translate(event, '/', '_'))
$$;
CREATE TABLE shapes (n serial, name text, envelope text, event text, head text, fill text, tail text);
INSERT INTO shapes (name, envelope, event, head, fill, tail) VALUES
    ('not JSON', 'none', '', '', 'x', ''),
    ('cut off', 'none', '', '{"masked":"', 'x', ''),
    ('a string', 'none', '', '"', 'x', '"'),
    ('escapes in a string', 'none', '', '"', '\u0001', '"'),
    ('a number', 'none', '', '', '1', ''),
    ('nesting', 'none', '', '{"x":', '[', ''),
    ('an escaped key', 'none', '', '{"\u0061', 'x', '":1}'),
    ('not wanted', 'none', '', '{"x":"', 'x', '"}'),
    ('copied', 'none', '', '{"copied":"', 'x', '"}'),
    ('escapes copied', 'none', '', '{"copied":"', '\u0061', '"}'),
    ('masked', 'none', '', '{"masked":"', 'x', '"}'),
    ('masked under a key', 'none', '', '{"token":"', 'x', '"}'),
    ('a false token', 'none', '', '{"token":"$siv$a$', 'x', '"}'),
    ('escapes masked under a key', 'none', '', '{"token":"', '\u0061', '"}'),
    ('a version', 'none', '', '{"version":"', '.', '1"}'),
    ('a date', 'none', '', '{"day":"', 'x', '"}'),
    ('JSON', 'none', '', '{"json":["', 'x', '"]}'),
    ('a range', 'none', '', '{"range":"', 'x', '"}'),
    ('in a notification', 'sns', '',
     '{"Type":"Notification","MessageId":"22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324","Timestamp":"2012-05-02T00:54:06.655Z","Message":"{\"copied\":\"', '\u0061', '\"}"}'),
    ('under a pointer', 'none', '/a', '{"a":{"copied":"', 'x', '"}}'),
    ('in a string under a pointer', 'none', '/a', '{"a":"{\"masked\":\"', '\u0061', '\"}"}');
SET client_min_messages = error;
CREATE TABLE attached AS
    SELECT envelope, event, flush, attach(flush, envelope, event) AS inbox
    FROM (SELECT DISTINCT envelope, event FROM shapes) AS shapes, (VALUES ('insert'), ('copy')) AS v(flush);
RESET client_min_messages;
-- A small body and a huge one of each shape: a row alone never goes by COPY.
CREATE UNLOGGED TABLE bodies (n integer, body text);
INSERT INTO shapes (n, head, fill, tail) VALUES (101, '', 'x', ''), (102, '', 'eHh4', ''), (103, '$siv$a$', 'x', '');
CREATE PROCEDURE fill(bytes integer) LANGUAGE sql AS $$
    TRUNCATE bodies;
    INSERT INTO bodies SELECT n, head || fill || tail FROM shapes
    UNION ALL SELECT n, head || repeat(repeat(fill, 1024), bytes / 1024 / length(fill)) || tail FROM shapes
$$;
CREATE TABLE statements AS
    SELECT n, name || ' by ' || flush AS name, format('INSERT INTO %I (body) SELECT body FROM bodies WHERE n = %s', inbox, n) AS statement
    FROM shapes JOIN attached USING (envelope, event);
INSERT INTO statements SELECT n, call || ' of text ' || n, format('SELECT %s FROM bodies WHERE n = %s', call, n)
    FROM (VALUES ('mask_pii(body)', 101), ($$mask_pii(body, 'aes-siv')$$, 101), ($$mask_pii(body, 'aes-siv')$$, 103), ('mask_pii_all(body)', 101),
        ('unmask_pii(body)', 102), ('unmask_pii(body)', 103), ($$unmask_pii(mask_pii(body, 'aes-siv'))$$, 101), ('remask_pii(body)', 102),
        ($$remask_pii(mask_pii(body, 'aes-siv'))$$, 101), ('mask_key(body)', 103), ('is_masked(body)', 102), ('is_masked(body)', 103)) AS v(call, n);
-- The error that a statement ends with; what it does is taken back.
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RAISE SQLSTATE '0A000';
EXCEPTION WHEN OTHERS THEN
    RETURN CASE SQLSTATE WHEN '0A000' THEN 'works' ELSE concat_ws(' ', SQLSTATE, SQLERRM) END;
END
$$;
CREATE TABLE outcomes (n integer, name text, mb integer, outcome text);
CREATE PROCEDURE try(mb integer) LANGUAGE plpgsql AS $$
BEGIN
    SET pg_mask.max_event_size = '1000MB';
    -- What a session keeps of an inbox is there before memory is short.
    PERFORM outcome(statement) FROM warm;
    PERFORM leave(mb);
    INSERT INTO outcomes SELECT n, name, mb, outcome(statement) FROM statements;
END
$$;
CREATE TABLE warm AS SELECT format('INSERT INTO %I (body) VALUES (''{}''), (''{}'')', inbox) AS statement FROM attached
    UNION ALL SELECT $$SELECT mask_pii('x', 'aes-siv')$$;
-- What becomes of small bodies.
CALL fill(2048);
CALL try(1000);
SELECT outcome, count(*) FROM outcomes GROUP BY 1 ORDER BY 1;
CREATE TABLE small AS TABLE outcomes;
TRUNCATE outcomes;
-- What becomes of huge ones while there is memory, and while there is less and less.
CALL fill(2 * 1024 * 1024);
\c
CALL try(1000);
SELECT outcome, count(*) FROM outcomes GROUP BY 1 ORDER BY 1;
\c
CALL try(48);
\c
CALL try(32);
\c
CALL try(16);
\c
CALL try(8);
\c
CALL try(4);
-- Memory has run out for every inbox, and nothing else has come of it.
SELECT name FROM statements WHERE n < 100 AND name NOT IN (SELECT name FROM outcomes WHERE outcome = '53200 out of memory');
SELECT name, o.mb, o.outcome FROM outcomes o JOIN small s USING (n, name)
WHERE o.outcome <> s.outcome AND o.outcome <> '53200 out of memory' ORDER BY n, name, o.mb;
-- As above with bodies of hundreds of megabytes, and the same backend answers.
\c
SELECT pg_backend_pid() AS backend \gset
SET pg_mask.max_event_size = '1000MB';
SELECT leave(350);
CREATE FUNCTION huge(head text, mb integer, tail text) RETURNS boolean LANGUAGE sql AS $$
    SELECT outcome(format($i$INSERT INTO login_inbox (body) SELECT %L || repeat(repeat('x', 1024), %s) || %L$i$, head, mb * 1024, tail))
        IN ('works', '53200 out of memory')
$$;
SELECT huge('{"user_id":"u","x":"', 60, '"}'), huge('{"user_id":1,"device_id":"', 100, '"}'), huge('{"user_id":1,"device_id":"', 110, '');
SELECT pg_backend_pid() = :backend AS same_backend;
-- Memory contexts that are full when memory runs out: the error itself needs a little. Each statement fills the memory with
-- results of a size, in small blocks.
CREATE FUNCTION call_often(call text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'PREPARE often(text) AS SELECT cardinality(ARRAY[' || rtrim(repeat(call || ', ', 8000), ', ') || '])';
    -- What the session keeps of it is there before memory is short.
    EXECUTE 'EXECUTE often(''eA=='')';
    PERFORM leave(0);
END
$$;
CREATE FUNCTION outcomes_of_sizes() RETURNS SETOF text LANGUAGE sql AS $$
    SELECT DISTINCT outcome(format('EXECUTE often(%L)', repeat('eA==', size))) FROM generate_series(1, 600, 7) AS size EXCEPT SELECT 'works'
$$;
\c "dbname=regression options='-c plan_cache_mode=force_generic_plan'"
SELECT call_often('mask_pii($1)');
SELECT outcomes_of_sizes();
\c
SELECT call_often('mask_pii_all($1)');
SELECT outcomes_of_sizes();
\c
SELECT call_often('unmask_pii(mask_pii($1))');
SELECT outcomes_of_sizes();
\c "dbname=regression options=''"
-- Anyone can attach an inbox, with arguments of any size, and a redriver names any number of rejects.
CREATE FUNCTION endures(mb numeric, call text, argument anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM is_masked(''), leave(mb);
    EXECUTE 'SELECT ' || call USING argument;
    RETURN true;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE IN ('22023', '42704', '53200');
END
$$;
\set attach 'attach_inbox(\'new\', \'user_logins\', \'login_rejects\', '
\set rules '\'{"user_id": {"copy": "user_id"}}\', '
\c
SELECT endures(70, :'attach' || :'rules' || 'envelope => $1)', repeat('x', 30000000));
\c
SELECT endures(150, :'attach' || :'rules' || 'event => $1)', '/' || repeat('x', 30000000));
\c
SELECT endures(150, :'attach' || '$1)', jsonb_build_object('user_id', jsonb_build_object('copy', repeat('x', 30000000))));
\c
SELECT endures(50, :'attach' || '$1)', to_jsonb(array_fill(1, ARRAY[1000000])));
\c
SELECT endures(50, $$redrive_rejects('login_inbox', message_ids => $1)$$, array_fill(id(1), ARRAY[1500000]));
-- A key that is used for the first time when the stack can't grow any more: its traces are wiped as deep as there is stack.
\c
SELECT endures(0.05, 'mask_pii($1)', '$siv$k2$AAAAAAAAAAAAAAAAAAAAAAAAAA'::text);
\c
SELECT endures(0.1, 'mask_pii($1)', '$siv$k2$AAAAAAAAAAAAAAAAAAAAAAAAAA'::text);
\c
SELECT endures(0.15, 'mask_pii($1)', '$siv$k2$AAAAAAAAAAAAAAAAAAAAAAAAAA'::text);
\c
SELECT endures(0.2, 'mask_pii($1)', '$siv$k2$AAAAAAAAAAAAAAAAAAAAAAAAAA'::text);
\c
SELECT endures(0.25, 'mask_pii($1)', '$siv$k2$AAAAAAAAAAAAAAAAAAAAAAAAAA'::text);
\c
SELECT endures(0.3, 'mask_pii($1)', '$siv$k2$AAAAAAAAAAAAAAAAAAAAAAAAAA'::text);
-- A function whose first call comes when the session has taken all memory.
\c
CREATE FUNCTION endures_full(mb numeric, call text, argument text) RETURNS boolean LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    size integer;
    i integer := 0;
    result text;
    value text;
BEGIN
    PERFORM is_masked(''), leave(mb);
    FOR round IN 1..2 LOOP
        IF round = 2 THEN
            value := argument;
            FOREACH size IN ARRAY ARRAY[4000000, 1000000, 300000, 100000, 30000, 10000, 5000, 2500, 1200, 600, 300, 150, 80, 40, 20, 8] LOOP
                LOOP
                    i := i + 1;
                    BEGIN
                        PERFORM set_config('f.a' || i, repeat('x', size), false);
                    EXCEPTION WHEN out_of_memory THEN
                        EXIT;
                    END;
                    EXIT WHEN i > 9000;
                END LOOP;
            END LOOP;
        END IF;
        BEGIN
            CASE call
                WHEN 'mask_pii' THEN result := mask_pii(value);
                WHEN 'mask_pii_all' THEN result := mask_pii_all(value);
                WHEN 'unmask_pii' THEN result := unmask_pii(value);
            END CASE;
        EXCEPTION WHEN OTHERS THEN
            result := SQLSTATE;
        END;
    END LOOP;
    RETURN true;
END
$$;
\c
SELECT endures_full(8, 'mask_pii', '$siv$a$AAAAAAAAAAAAAAAAAAAAAAAAAA');
\c
SELECT endures_full(7, 'mask_pii', '$siv$a$AAAAAAAAAAAAAAAAAAAAAAAAAA');
\c
SELECT endures_full(8, 'mask_pii_all', 'x');
\c
SELECT endures_full(8, 'unmask_pii', '$siv$a$AAAAAAAAAAAAAAAAAAAAAAAAAA');
-- Anyone can make a trigger with an argument of any length, which the view inboxes reads.
\c
CREATE VIEW false_inbox (message_id, sent_at, body) AS SELECT NULL::uuid, NULL::timestamptz, NULL::text FROM user_logins, login_rejects WHERE false;
DO $$ BEGIN EXECUTE format('CREATE TRIGGER x INSTEAD OF INSERT ON false_inbox FOR EACH ROW EXECUTE FUNCTION inbox_trigger(%L)', repeat('x', 30000000)); END $$;
CREATE FUNCTION list_inboxes(mb numeric) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM is_masked(''), leave(mb);
    PERFORM * FROM inboxes;
    RETURN true;
EXCEPTION WHEN out_of_memory THEN
    RETURN true;
END
$$;
\c
SELECT list_inboxes(50);
\c
SELECT list_inboxes(70);
\c
SELECT list_inboxes(90);
\c
SELECT list_inboxes(110);
\c
SELECT list_inboxes(130);
DROP VIEW false_inbox;
-- A trigger of the target raises an error with a long text.
CREATE TABLE loud (message_id uuid UNIQUE);
CREATE TABLE loud_rejects (LIKE login_rejects INCLUDING ALL);
CREATE FUNCTION be_loud() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RAISE EXCEPTION '%', repeat('x', 60000000); END $$;
SET client_min_messages = error;
SELECT attach_inbox('loud_inbox', 'loud', 'loud_rejects', '{"message_id": "message_id"}');
CREATE TRIGGER be_loud BEFORE INSERT ON loud FOR EACH ROW EXECUTE FUNCTION be_loud();
CREATE FUNCTION hears(mb numeric) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM is_masked(''), leave(mb);
    INSERT INTO loud_inbox (message_id, body) VALUES (gen_random_uuid(), '{}');
    RETURN false;
EXCEPTION WHEN out_of_memory OR raise_exception THEN
    RETURN true;
END
$$;
\c
SELECT hears(130);
\c
SELECT hears(190);
\c
SELECT hears(220);
\c
SELECT hears(250);
\c
SELECT hears(280);
\c
SELECT hears(310);
-- Code of the target that takes all memory during a flush, after many rows were refused.
\c
CREATE TABLE greedy (user_id text, message_id uuid UNIQUE);
CREATE TABLE greedy_rejects (LIKE login_rejects INCLUDING ALL);
-- A session keeps what it has compiled of a function.
DO $$
BEGIN
    FOR size IN 1..6 LOOP FOR n IN 1..100 LOOP
        EXECUTE format('CREATE FUNCTION take_%s_%s() RETURNS integer LANGUAGE plpgsql AS %L', size, n,
            format('DECLARE x text; BEGIN IF x IS NOT NULL THEN x := %L; END IF; RETURN 1; END',
                repeat('x', (ARRAY[300000, 100000, 30000, 10000, 3000, 1000])[size])));
    END LOOP; END LOOP;
END
$$;
CREATE FUNCTION take_all() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    failures integer;
BEGIN
    IF NEW.user_id = 'bad' THEN RAISE EXCEPTION 'bad'; END IF;
    FOR size IN 1..CASE NEW.user_id WHEN 'greedy' THEN 6 ELSE 0 END LOOP
        failures := 0;
        FOR n IN 1..100 LOOP
            BEGIN
                EXECUTE format('SELECT take_%s_%s()', size, n);
            EXCEPTION WHEN out_of_memory THEN
                failures := failures + 1;
            END;
            EXIT WHEN failures > 2;
        END LOOP;
    END LOOP;
    RETURN NEW;
END
$$;
CREATE TRIGGER take_all AFTER INSERT ON greedy FOR EACH ROW EXECUTE FUNCTION take_all();
SET client_min_messages = error;
SELECT attach_inbox('greedy_inbox', 'greedy', 'greedy_rejects', '{"user_id": {"copy": "user_id"}, "message_id": "message_id"}');
CREATE FUNCTION survives(rows integer, mb numeric) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO greedy_inbox (message_id, body) VALUES (gen_random_uuid(), '{"user_id": "good"}');
    PERFORM leave(mb);
    INSERT INTO greedy_inbox (message_id, body)
        SELECT id(n), format('{"user_id": "%s"}', CASE n WHEN rows THEN 'greedy' ELSE 'bad' END) FROM generate_series(1, rows) n;
    RETURN true;
EXCEPTION WHEN out_of_memory THEN
    RETURN true;
END
$$;
\c
SELECT survives(24901, 20);
\c
SELECT survives(3000, 20);
\c
SELECT survives(300, 10);
-- A type can take many times the size of its text.
\c
CREATE TABLE lists (list text[], message_id uuid UNIQUE);
CREATE TABLE list_rejects (LIKE login_rejects INCLUDING ALL);
SET client_min_messages = error;
SELECT attach_inbox('list_inbox', 'lists', 'list_rejects', '{"list": {"copy": "list"}, "message_id": "message_id"}');
CREATE FUNCTION list(mb integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    body text := format('{"list":"{%s}"}', rtrim(repeat('a,', 500000), ','));
BEGIN
    INSERT INTO list_inbox (body) VALUES ('{}');
    PERFORM leave(mb);
    INSERT INTO list_inbox (body) VALUES (body);
    RETURN true;
EXCEPTION WHEN out_of_memory THEN
    RETURN true;
END
$$;
\c
SELECT list(12);
\c
SELECT list(15);
\c
SELECT list(18);
\c
SELECT list(200);
SELECT cardinality(list) FROM lists;
DELETE FROM user_logins WHERE user_id = 'memory';
DELETE FROM login_rejects WHERE masked_body IN (mask_pii(repeat('x', 1024)), mask_pii(repeat('x', 2000)));
ALTER SYSTEM RESET pg_mask.keyring_file;
SELECT pg_reload_conf() AS reloaded \gset
\c
SET client_min_messages = error;
DROP TABLE loud, loud_rejects, greedy, greedy_rejects, lists, list_rejects, huge, huge_rejects, shapes, attached, bodies, statements, outcomes, warm, small CASCADE;
DO $$ DECLARE f regprocedure; BEGIN FOR f IN SELECT oid FROM pg_proc WHERE proname ~ '^take_[0-9]' LOOP EXECUTE 'DROP FUNCTION ' || f; END LOOP; END $$;
DROP FUNCTION attach, be_loud, hears, list_inboxes, endures_full, take_all, survives, call_often, outcomes_of_sizes, outcome, huge, endures, list, leave, body(integer);
DROP PROCEDURE fill, try;
DROP OWNED BY inserter;
DROP ROLE inserter;
