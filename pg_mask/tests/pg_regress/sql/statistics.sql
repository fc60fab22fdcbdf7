-- What became of events: of a statement by class, and of an inbox since the server started.
CREATE TABLE s (v varchar(3) NOT NULL CHECK (v <> 'bad'), n numeric(2), mask varchar(8), id uuid UNIQUE);
CREATE TABLE s_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('s_inbox', 's', 's_rejects', '{"v": {"copy": "v"}, "n": {"copy": "n"}, "mask": {"mask": "m"}, "id": "message_id"}');
CREATE FUNCTION put(VARIADIC bodies text[]) RETURNS TABLE (class text, rejected bigint) LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO s_inbox (body) SELECT unnest(bodies); RETURN QUERY SELECT * FROM inbox_reject_classes(); END $$;
CREATE VIEW mine AS SELECT stored, duplicate, rejected, rejected_by_class FROM inbox_statistics WHERE inbox = 's_inbox'::regclass;
-- CLASSES. Those of reading an event …
SELECT * FROM put('x', '{', '[]', '{}', '{"v":null}', '{"v":[]}', '{"v":"\u0000"}', '{"v":"long"}', '{"v":"a","m":"1234567"}', NULL, '{"v":"ok"}') ORDER BY class COLLATE "C";
TABLE counts;
-- … those of Postgres, by its conditions; the rare ones are of one class.
SELECT * FROM put('{"v":"bad"}', '{"v":"a","n":"100"}', '{"v":"a","n":"x"}') ORDER BY class COLLATE "C";
CREATE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE USING ERRCODE = CASE NEW.v WHEN 'a' THEN 'P0001' ELSE '22014' END; END $$;
CREATE TRIGGER raise AFTER INSERT ON s FOR EACH ROW EXECUTE FUNCTION raise();
SELECT * FROM put('{"v":"a"}', '{"v":"b"}') ORDER BY class COLLATE "C";
DROP TRIGGER raise ON s;
-- None of a statement that has none; nor are rejects that are there already counted as such.
SELECT * FROM put('{"v":"ok"}');
INSERT INTO s_inbox VALUES (id(1), now(), 'x'), (id(1), now(), '[]'), (id(2), now(), '[]');
SELECT * FROM inbox_reject_classes();
TABLE counts;
INSERT INTO s_inbox VALUES (id(1), now(), '[]'), (id(3), now(), '[]');
SELECT * FROM inbox_reject_classes();
TABLE counts;
-- By the same rules as the counts, for what is undone.
BEGIN;
SELECT * FROM put('[]');
SAVEPOINT a;
SELECT * FROM put('x');
ROLLBACK TO a;
SELECT * FROM inbox_reject_classes();
ROLLBACK;
SELECT count(*) FROM inbox_reject_classes();
-- Of more than a chunk.
INSERT INTO s_inbox (body) SELECT CASE n % 3 WHEN 0 THEN 'x' WHEN 1 THEN '{"v":"bad"}' ELSE '{"v":"ok"}' END FROM generate_series(1, 60000) n WHERE n % 3 <> 1 OR n < 100;
SELECT * FROM inbox_reject_classes() ORDER BY class COLLATE "C";
TABLE counts;
-- Another role may call it too, and sees nothing of what this one did.
SET ROLE login_loader;
SELECT class FROM inbox_reject_classes() ORDER BY class COLLATE "C";
RESET ROLE;
-- STATISTICS: all of these.
TABLE mine;
SELECT since <= last_event_at AND last_event_at <= clock_timestamp() AND since > now() - interval '1 hour' AS times FROM inbox_statistics WHERE inbox = 's_inbox'::regclass;
-- At COMMIT, and not before.
SELECT stored AS before FROM mine \gset
BEGIN;
INSERT INTO s_inbox (body) VALUES ('{"v":"1"}');
SELECT stored - :before AS more FROM mine;
COMMIT;
SELECT stored - :before AS more FROM mine;
-- What is rolled back, by whatever, does not count.
SELECT stored AS before FROM mine \gset
BEGIN;
INSERT INTO s_inbox (body) VALUES ('{"v":"1"}');
ROLLBACK;
BEGIN;
SAVEPOINT a;
INSERT INTO s_inbox (body) VALUES ('{"v":"2"}');
SAVEPOINT b;
INSERT INTO s_inbox (body) VALUES ('{"v":"3"}'), ('{"v":"4"}');
RELEASE b;
ROLLBACK TO a;
INSERT INTO s_inbox (body) VALUES ('{"v":"5"}');
SAVEPOINT c;
INSERT INTO s_inbox (body) VALUES ('{"v":"6"}');
RELEASE c;
RELEASE a;
COMMIT;
DO $$
BEGIN
    INSERT INTO s_inbox (body) VALUES ('{"v":"7"}');
    BEGIN
        INSERT INTO s_inbox (body) VALUES ('{"v":"8"}');
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        INSERT INTO s_inbox (body) VALUES ('{"v":"9"}');
    END;
END $$;
SELECT error_of($$INSERT INTO s_inbox (body) SELECT format('{"v":"%s"}', 1 / (3 - n)) FROM generate_series(1, 5) n$$);
SELECT stored - :before AS more FROM mine;
-- A prepared transaction counts when it is prepared, whatever becomes of it.
SELECT stored AS before FROM mine \gset
BEGIN;
INSERT INTO s_inbox (body) VALUES ('{"v":"1"}');
PREPARE TRANSACTION 'counted';
SELECT stored - :before AS more FROM mine;
COMMIT PREPARED 'counted';
SELECT stored - :before AS more FROM mine;
-- Rejects that are redriven count once more, as what becomes of them.
SELECT stored AS before, rejected AS rejected_before FROM mine \gset
SELECT taken = stored + duplicate + rejected AS accounted FROM redrive_rejects('s_inbox', 'check_violation');
SELECT stored - :before AS more, rejected - :rejected_before > 30 AS rejected_again FROM mine;
-- Several inboxes in one transaction, and an inbox that is made, used and dropped in one; a statement without events is none.
CREATE TABLE z (v text, id uuid UNIQUE);
SELECT attach_inbox('z_inbox', 'z', 's_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
INSERT INTO z_inbox (body) SELECT 'x' WHERE false;
SELECT count(*) FROM inbox_statistics WHERE inbox = 'z_inbox'::regclass;
SELECT stored AS before FROM mine \gset
BEGIN;
INSERT INTO z_inbox VALUES (id(1), now(), '{"v":"1"}'), (id(1), now(), '{"v":"1"}');
INSERT INTO s_inbox (body) VALUES ('{"v":"1"}');
COMMIT;
SELECT stored, duplicate, rejected_by_class FROM inbox_statistics WHERE inbox = 'z_inbox'::regclass;
SELECT stored - :before AS more FROM mine;
DROP VIEW z_inbox;
SELECT count(*) FROM inbox_statistics WHERE inbox::text ~ 'z_inbox|^[0-9]+$';
-- There is room for 64 inboxes. Those that are dropped make room, and what is rolled back takes none.
DO $$
BEGIN
    FOR n IN 1..70 LOOP
        PERFORM attach_inbox('z_inbox', 'z', 's_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
        INSERT INTO z_inbox (body) VALUES ('{"v":"1"}');
        COMMIT;
        IF n < 70 THEN
            DROP VIEW z_inbox;
        END IF;
    END LOOP;
    FOR n IN 1..70 LOOP
        PERFORM attach_inbox('y_inbox', 'z', 's_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
        INSERT INTO y_inbox (body) VALUES ('{"v":"1"}');
        ROLLBACK;
    END LOOP;
END $$;
SELECT stored, duplicate, rejected FROM inbox_statistics WHERE inbox = 'z_inbox'::regclass;
SELECT count(*) < 60 AS room FROM inbox_statistics();
SELECT stored - :before AS more FROM mine;
-- Each database sees its own.
CREATE DATABASE other_statistics TEMPLATE template0;
\c other_statistics
CREATE EXTENSION pg_mask;
SELECT count(*) FROM inbox_statistics;
\c regression
DROP DATABASE other_statistics;
-- Temporary inboxes, of which anybody can make many, take no slots.
CREATE TEMP TABLE t (id uuid UNIQUE);
SELECT attach_inbox('pg_temp.t_inbox', 't', 's_rejects', '{"id": "message_id"}');
INSERT INTO pg_temp.t_inbox (body) VALUES ('{}');
SELECT count(*) FROM inbox_statistics WHERE inbox = 'pg_temp.t_inbox'::regclass;
DROP VIEW pg_temp.t_inbox;
-- For those who watch the server.
CREATE ROLE watcher IN ROLE pg_monitor;
SET ROLE watcher;
SELECT inbox, rejected_by_class FROM inbox_statistics WHERE inbox = 'z_inbox'::regclass;
SET ROLE login_loader;
SELECT error_of('SELECT * FROM inbox_statistics');
SELECT error_of('SELECT * FROM inbox_statistics()');
RESET ROLE;
DROP ROLE watcher;
DROP VIEW z_inbox, s_inbox CASCADE;
DROP TABLE s, s_rejects, z;
DROP FUNCTION put, raise;
