-- A batch locks what it writes, and looking for changes of a target's many partitions locks nothing.
CREATE TABLE daily (user_id text, day date NOT NULL, id uuid, UNIQUE (day, id)) PARTITION BY RANGE (day);
DO $$
BEGIN
    FOR n IN 0..399 LOOP
        EXECUTE format('CREATE TABLE daily_%s PARTITION OF daily FOR VALUES FROM (%L) TO (%L)', n, date '2026-01-01' + n, date '2026-01-02' + n);
    END LOOP;
END $$;
CREATE TABLE daily_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SET client_min_messages = error;
SELECT attach_inbox('daily_inbox', 'daily', 'daily_rejects', '{"user_id": {"copy": "user_id"}, "day": "sent_date", "id": "message_id"}');
RESET client_min_messages;
CREATE PROCEDURE bring(first integer) LANGUAGE sql AS
$$ INSERT INTO daily_inbox SELECT id(n), '2026-01-10', '{"user_id":"u"}' FROM generate_series(first, first + 99) n $$;
-- By name, since functions that show a tree lock it. What else the session locks depends on its caches.
CREATE VIEW locked AS SELECT relation::regclass, mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation::regclass::text ~ '^daily(_[0-9]+)?$' ORDER BY 1, 2;
CALL bring(1);
BEGIN;
CALL bring(101);
TABLE locked;
COMMIT;
-- Another session's temporary table is told to all sessions. It costs this one nothing.
\! psql -X -q -d regression -c 'CREATE TEMP TABLE t (n integer)'
BEGIN;
CALL bring(201);
TABLE locked;
-- Meanwhile old partitions can be emptied.
\! psql -X -q -d regression -c "SET lock_timeout = '10s'" -c 'TRUNCATE daily_300'
COMMIT;
SET client_min_messages = error;
DROP TABLE daily, daily_rejects CASCADE;
DROP VIEW locked;
DROP PROCEDURE bring;
