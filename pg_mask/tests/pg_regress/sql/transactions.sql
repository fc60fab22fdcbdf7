CREATE FUNCTION events(first integer, last integer) RETURNS TABLE (message_id uuid, sent_at timestamptz, body text) LANGUAGE sql AS
$$ SELECT id(n), now(), format('{"user_id":"u%s","ip":"10.0.0.%s"}', n, n % 256) FROM generate_series(first, last) n $$;
-- More than two chunks in one statement, a bad one in the middle.
INSERT INTO login_inbox SELECT * FROM events(1, 30000) UNION ALL SELECT id(30001), now(), 'bad' UNION ALL SELECT * FROM events(30002, 60000);
TABLE counts;
SELECT count(*), count(DISTINCT message_id) FROM user_logins;
TRUNCATE user_logins, login_rejects;
-- Rolled back: nothing is left, and the counts are not those of what is undone.
BEGIN;
INSERT INTO login_inbox SELECT * FROM events(1, 10);
TABLE counts;
ROLLBACK;
TABLE counts;
SELECT count(*) FROM user_logins;
-- Savepoints.
BEGIN;
INSERT INTO login_inbox SELECT * FROM events(1, 3);
SAVEPOINT a;
INSERT INTO login_inbox SELECT * FROM events(4, 9);
TABLE counts;
ROLLBACK TO a;
TABLE counts;
INSERT INTO login_inbox SELECT * FROM events(4, 5);
RELEASE a;
TABLE counts;
COMMIT;
TABLE counts;
SELECT user_id FROM user_logins ORDER BY message_id;
-- An error in mid-statement, caught: nothing of the aborted statement leaks into the next one.
TRUNCATE user_logins;
BEGIN;
SELECT error_of($$INSERT INTO login_inbox SELECT id(n), now(), format('{"user_id":"u%s"}', 1 / (3 - n)) FROM generate_series(1, 5) n$$);
SELECT error_of($$INSERT INTO login_inbox SELECT id(n), now(), format('{"user_id":"u%s"}', 1 / (35000 - n)) FROM generate_series(1, 40000) n$$);
INSERT INTO login_inbox SELECT * FROM events(11, 12);
TABLE counts;
COMMIT;
SELECT user_id FROM user_logins ORDER BY message_id;
-- Exception blocks inside the rows' source do not disturb the statement that reads them.
TRUNCATE user_logins;
CREATE FUNCTION careful(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN format('{"user_id":"u%s"}', 6 / (n - 3));
EXCEPTION WHEN division_by_zero THEN
    RETURN '{"user_id":"caught"}';
END $$;
INSERT INTO login_inbox (body) SELECT careful(n) FROM generate_series(1, 5) n;
TABLE counts;
SELECT user_id FROM user_logins;
-- statement_timeout and cancel in mid-batch.
TRUNCATE user_logins;
CREATE FUNCTION slow(n integer) RETURNS text LANGUAGE plpgsql AS $$ BEGIN IF n = 35000 THEN PERFORM pg_sleep(10); END IF; RETURN format('{"user_id":"u%s"}', n); END $$;
\set VERBOSITY terse
SET statement_timeout = '300ms';
INSERT INTO login_inbox (body) SELECT slow(n) FROM generate_series(1, 40000) n;
RESET statement_timeout;
\set VERBOSITY default
SELECT count(*) FROM user_logins;
-- … and in mid-flush, where the statement acts as the inbox's owner and in a subtransaction.
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(10); RETURN NEW; END $$;
CREATE TRIGGER dawdle BEFORE INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION dawdle();
SET ROLE login_loader;
BEGIN;
SAVEPOINT a;
SET LOCAL statement_timeout = '200ms';
INSERT INTO login_inbox (body) VALUES ('{"user_id":"u"}');
ROLLBACK TO a;
SELECT current_user, current_setting('search_path');
ROLLBACK;
RESET ROLE;
DROP TRIGGER dawdle ON user_logins;
SELECT count(*) FROM user_logins;
BEGIN;
CREATE FUNCTION cancel_me(n integer) RETURNS text LANGUAGE plpgsql AS $$ BEGIN IF n = 3 THEN PERFORM pg_cancel_backend(pg_backend_pid()); END IF; RETURN '{"user_id":"u"}'; END $$;
SAVEPOINT a;
-- Where in the statement the signal arrives, and so in which context, is left to chance.
\set SHOW_CONTEXT never
INSERT INTO login_inbox (body) SELECT cancel_me(n) FROM generate_series(1, 100) n;
\set SHOW_CONTEXT errors
ROLLBACK TO a;
INSERT INTO login_inbox SELECT * FROM events(1, 1);
TABLE counts;
COMMIT;
SELECT count(*) FROM user_logins;
-- Nested: a trigger of the target feeds another inbox, and the rows' source uses the same inbox.
TRUNCATE user_logins;
CREATE TABLE echoes (m text, id uuid UNIQUE);
GRANT INSERT, SELECT ON echoes TO login_owner;
SELECT attach_inbox('echo_inbox', 'echoes', 'login_rejects', '{"m": {"mask": "m"}, "id": "message_id"}');
GRANT INSERT ON echo_inbox TO login_owner;
CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.echo_inbox VALUES (NEW.message_id, now(), pg_catalog.format('{"m":"%s"}', NEW.user_id));
    RETURN NEW;
END $$;
CREATE TRIGGER echo AFTER INSERT ON user_logins FOR EACH ROW EXECUTE FUNCTION echo();
INSERT INTO login_inbox SELECT * FROM events(1, 5001);
TABLE counts;
SELECT (SELECT count(*) FROM user_logins) AS logins, (SELECT count(*) FROM echoes) AS echoes;
DROP TRIGGER echo ON user_logins;
TRUNCATE user_logins, echoes;
CREATE FUNCTION inner_insert(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO login_inbox SELECT * FROM events(100 + n, 100 + n);
    RETURN format('{"user_id":"outer%s"}', n);
END $$;
INSERT INTO login_inbox SELECT id(n), now(), inner_insert(n) FROM generate_series(1, 3) n;
TABLE counts;
SELECT user_id FROM user_logins ORDER BY 1;
-- One statement that feeds two inboxes, and one that feeds the same inbox twice.
TRUNCATE user_logins;
WITH a AS (INSERT INTO echo_inbox SELECT message_id, sent_at, '{"m":"x"}' FROM events(1, 4) RETURNING 1),
     b AS (INSERT INTO login_inbox SELECT * FROM events(11, 13) RETURNING 1)
INSERT INTO login_inbox SELECT * FROM events(1, 2);
SELECT (SELECT count(*) FROM user_logins) AS logins, (SELECT count(*) FROM echoes) AS echoes;
-- An inbox without one of its triggers loses nothing in silence.
TRUNCATE user_logins;
CREATE FUNCTION broken(missing text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TRIGGER %I ON login_inbox', missing);
    INSERT INTO login_inbox SELECT * FROM events(1, 3);
    SET CONSTRAINTS ALL IMMEDIATE;
    RETURN 'inserted';
END $$;
SELECT broken('pg_mask_open');
SELECT broken('pg_mask_row');
SELECT broken('pg_mask_close');
SELECT count(*) FROM user_logins;
BEGIN;
SELECT broken('pg_mask_close');
PREPARE TRANSACTION 'unflushed';
SELECT count(*) FROM user_logins;
-- … nor one whose triggers its owner lets fire at times, so that a statement ends the batch of another.
CREATE TABLE half (v text, id uuid UNIQUE);
CREATE TABLE half_rejects (LIKE login_rejects INCLUDING ALL);
SELECT attach_inbox('half_inbox', 'half', 'half_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
CREATE OR REPLACE TRIGGER pg_mask_open BEFORE INSERT ON half_inbox FOR EACH STATEMENT WHEN (current_setting('half.open') = 'on') EXECUTE FUNCTION inbox_trigger();
CREATE OR REPLACE TRIGGER pg_mask_close AFTER INSERT ON half_inbox FOR EACH STATEMENT WHEN (current_setting('half.open') = 'off') EXECUTE FUNCTION inbox_trigger();
CREATE FUNCTION half() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.half_inbox SELECT WHERE false; RETURN NEW; END $$;
CREATE TRIGGER half BEFORE INSERT ON half_rejects FOR EACH ROW EXECUTE FUNCTION half();
BEGIN;
SET LOCAL half.open = 'on';
INSERT INTO half_inbox (body) VALUES ('{"v": "first"}');
SET LOCAL half.open = 'off';
SAVEPOINT later;
INSERT INTO half_inbox SELECT WHERE false;
ROLLBACK TO later;
COMMIT;
BEGIN;
SET LOCAL half.open = 'on';
INSERT INTO half_inbox (body) VALUES ('{"v": "first"}');
INSERT INTO half_inbox (body) VALUES ('no event');
SET LOCAL half.open = 'off';
INSERT INTO half_inbox SELECT WHERE false;
COMMIT;
SELECT count(*) FROM half;
SET client_min_messages = warning;
DROP TABLE half, half_rejects CASCADE;
RESET client_min_messages;
DROP FUNCTION half;
BEGIN;
INSERT INTO login_inbox SELECT * FROM events(1, 3);
PREPARE TRANSACTION 'flushed';
COMMIT PREPARED 'flushed';
SELECT count(*) FROM user_logins;
-- With session_replication_role = replica no trigger fires and Postgres reports success. The counts tell: the number
-- of the last statement stays.
TRUNCATE user_logins;
INSERT INTO login_inbox SELECT * FROM events(1, 3);
SELECT statement AS before FROM inbox_counts() \gset
SET session_replication_role = replica;
INSERT INTO login_inbox SELECT * FROM events(4, 6);
RESET session_replication_role;
SELECT statement = :before AS nothing_happened FROM inbox_counts();
INSERT INTO login_inbox SELECT * FROM events(7, 9);
SELECT statement > :before AS something_happened, stored FROM inbox_counts();
SELECT count(*) FROM user_logins;
-- A deferred constraint is checked within the flush: at COMMIT it would refuse good events with the bad one.
TRUNCATE user_logins;
CREATE TABLE known (user_id varchar PRIMARY KEY);
ALTER TABLE user_logins ADD CONSTRAINT known FOREIGN KEY (user_id) REFERENCES known DEFERRABLE INITIALLY DEFERRED;
INSERT INTO known VALUES ('u1');
INSERT INTO login_inbox SELECT * FROM events(1, 2);
TABLE counts;
SELECT user_id FROM user_logins;
-- … but what the transaction itself did before is the statement's error, and makes no rejects.
BEGIN;
INSERT INTO user_logins (user_id) VALUES ('unknown');
INSERT INTO login_inbox SELECT * FROM events(3, 4);
ROLLBACK;
ALTER TABLE user_logins DROP CONSTRAINT known;
-- Isolation levels above the default.
TRUNCATE user_logins, login_rejects;
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO login_inbox SELECT * FROM events(1, 3);
INSERT INTO login_inbox SELECT * FROM events(1, 4);
TABLE counts;
COMMIT;
BEGIN READ ONLY;
INSERT INTO login_inbox SELECT * FROM events(1, 3);
ROLLBACK;
-- A prepared statement and RETURNING work as on a table.
PREPARE one AS INSERT INTO login_inbox (body) VALUES ($1) RETURNING length(body);
EXECUTE one('{"user_id":"u"}');
EXECUTE one('{"user_id":"v"}');
SELECT count(*) FROM user_logins;
TRUNCATE user_logins, login_rejects;
DROP VIEW echo_inbox;
DROP TABLE echoes, known;
DROP FUNCTION echo, inner_insert, broken, slow, dawdle, cancel_me, careful;
