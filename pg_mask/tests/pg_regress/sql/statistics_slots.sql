-- One role with many inboxes does not keep others from having statistics.
SET client_min_messages = error;
CREATE ROLE hog; CREATE ROLE newcomer;
CREATE SCHEMA hog AUTHORIZATION hog; CREATE SCHEMA newcomer AUTHORIZATION newcomer;
CREATE PROCEDURE fill(schema text, first int, last int) LANGUAGE plpgsql AS
$$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', schema);
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I.t (v text, id uuid UNIQUE)', schema);
    EXECUTE format('CREATE TABLE IF NOT EXISTS %I.r (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz)', schema);
    COMMIT;
    FOR i IN first..last LOOP
        EXECUTE format('SET LOCAL ROLE %I', schema);
        PERFORM attach_inbox(schema || '.i' || i, schema || '.t', schema || '.r', '{"v": {"copy": "v"}, "id": "message_id"}');
        EXECUTE format('INSERT INTO %I.i%s (body) VALUES (''{"v": "1"}'')', schema, i);
        COMMIT;
    END LOOP;
END
$$;
CREATE VIEW held AS SELECT split_part(inbox::text, '.', 1) AS owner, count(*) FROM inbox_statistics GROUP BY 1;
CREATE FUNCTION held(of text) RETURNS bigint LANGUAGE sql AS $$ SELECT coalesce((SELECT count FROM held WHERE owner = $1), 0) $$;
CALL fill('hog', 1, 70);
SELECT held('hog') AS hogs \gset
SELECT :hogs > 50 AS nearly_all, :hogs < 70 AS not_all;
-- The slot of the inbox that was used least lately goes to an owner who has fewer …
INSERT INTO hog.i1 (body) VALUES ('{"v": "2"}');
CALL fill('newcomer', 1, 1);
SELECT inbox, stored, duplicate, rejected FROM inbox_statistics WHERE inbox::text LIKE 'newcomer%';
SELECT :hogs - held('hog') AS given;
SELECT count(*) FILTER (WHERE inbox::text = 'hog.i1') AS used, count(*) FILTER (WHERE inbox::text = 'hog.i2') AS unused FROM inbox_statistics;
-- … and the hog does not get it back, with an inbox old or new.
INSERT INTO hog.i2 (body) VALUES ('{"v": "3"}');
CALL fill('hog', 71, 72);
SELECT :hogs - held('hog') AS given, held('newcomer') AS newcomers;
-- Its events are stored all the same, and are not counted for another.
INSERT INTO newcomer.i1 (body) VALUES ('{"v": "4"}');
INSERT INTO hog.i2 (body) VALUES ('{"v": "5"}');
SELECT inbox, stored FROM inbox_statistics WHERE inbox::text LIKE 'newcomer%';
SELECT count(*) FROM hog.t WHERE v IN ('3', '5');
-- A session that got no slot does not ask again for a minute, even where there is one by then; another session does.
DROP VIEW hog.i10;
INSERT INTO hog.i2 (body) VALUES ('{"v": "6"}');
SELECT count(*) FROM inbox_statistics WHERE inbox::text = 'hog.i2';
\c
SET client_min_messages = error;
INSERT INTO hog.i2 (body) VALUES ('{"v": "7"}');
SELECT inbox, stored FROM inbox_statistics WHERE inbox::text = 'hog.i2';
-- In the end both have the same, and neither takes a slot from the other.
CALL fill('newcomer', 2, 70);
SELECT held('newcomer') + held('hog') > 55 AS most_in_use, abs(held('newcomer') - held('hog')) < 2 AS alike;
SELECT held('hog') AS hogs \gset
CALL fill('hog', 73, 80);
CALL fill('newcomer', 71, 80);
SELECT held('hog') - :hogs AS more;
-- An inbox that changes hands counts for its new owner, once there are events for it.
GRANT ALL ON SCHEMA newcomer TO hog;
GRANT ALL ON newcomer.t, newcomer.r TO hog;
CREATE PROCEDURE give(few int) LANGUAGE plpgsql AS
$$
DECLARE
    inbox text;
BEGIN
    FOR inbox IN SELECT i.inbox FROM inbox_statistics i WHERE i.inbox::text LIKE 'newcomer.%' LIMIT few LOOP
        EXECUTE format('ALTER VIEW %s OWNER TO hog', inbox);
        EXECUTE format('INSERT INTO %s (body) VALUES (''{"v": "8"}'')', inbox);
        COMMIT;
    END LOOP;
END
$$;
CALL give(3);
CALL fill('newcomer', 81, 81);
SELECT count(*) FROM inbox_statistics WHERE inbox::text = 'newcomer.i81';
DROP SCHEMA hog, newcomer CASCADE;
DROP FUNCTION held; DROP VIEW held; DROP PROCEDURE fill, give;
DROP ROLE hog, newcomer;
