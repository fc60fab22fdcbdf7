-- A row that fails alone is a reject if the set-up works, whatever its SQLSTATE; else the statement fails. A trial decides.
CREATE TABLE visits (user_id varchar(128), locale text, n integer, id uuid UNIQUE);
CREATE TABLE visit_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SET client_min_messages = error;
SELECT attach_inbox('visit_inbox', 'visits', 'visit_rejects',
    '{"user_id": {"copy": "user_id"}, "locale": {"copy": "locale"}, "n": {"copy": "n"}, "id": "message_id"}');
RESET client_min_messages;
SELECT try_inbox('visit_inbox');
SELECT (SELECT count(*) FROM visits) AS rows, (SELECT count(*) FROM visit_rejects) AS rejects;
CREATE PROCEDURE put(bodies text[], first integer DEFAULT 1) LANGUAGE plpgsql AS $$
BEGIN
    TRUNCATE visit_rejects;
    INSERT INTO visit_inbox SELECT id(first + n::int), '2026-01-01', body FROM unnest(bodies) WITH ORDINALITY AS b(body, n);
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'the statement fails with %', SQLSTATE;
END $$;
CREATE VIEW outcome AS SELECT (SELECT stored FROM inbox_counts()) AS stored, reason, count(*) AS rejected FROM visit_rejects GROUP BY 2 ORDER BY 2;
-- A trigger that refers to a table which is gone is the set-up's fault, for one event and for many.
CREATE TABLE gone (user_id text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.gone VALUES (NEW.user_id); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT ON visits FOR EACH ROW EXECUTE FUNCTION note();
SELECT try_inbox('visit_inbox');
DROP TABLE gone;
SELECT error_of($$SELECT try_inbox('visit_inbox')$$);
CALL put(ARRAY['{"user_id":"u"}']);
CALL put(array_fill('{"user_id":"u"}'::text, ARRAY[3000]));
TABLE outcome;
DROP TRIGGER note ON visits;
-- A trigger that routes by value misses a table for one locale: that event is the culprit, first or last, whatever it is.
CREATE TABLE audit_en (user_id text);
CREATE FUNCTION route() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO public.%I VALUES ($1)', 'audit_' || NEW.locale) USING NEW.user_id;
    RETURN NULL;
END $$;
CREATE TRIGGER route AFTER INSERT ON visits FOR EACH ROW EXECUTE FUNCTION route();
-- While the target has no row, nobody knows a good one: an event alone is not given up.
CALL put(ARRAY['{"user_id":"u","locale":"xx"}']);
SELECT left(error_of($$SELECT try_inbox('visit_inbox')$$), 5);
CALL put(array_fill('{"user_id":"u","locale":"xx"}'::text, ARRAY[40]));
-- Beside a good one it is.
CALL put(array_prepend('{"user_id":"u","locale":"xx"}', array_fill('{"user_id":"u","locale":"en"}'::text, ARRAY[20])));
TABLE outcome;
-- And alone, since a copy of a row that is there goes in.
CALL put(ARRAY['{"user_id":"u","locale":"xx"}']);
TABLE outcome;
SELECT try_inbox('visit_inbox');
CALL put(array_fill('{"user_id":"u","locale":"xx"}'::text, ARRAY[100]), 1000);
TABLE outcome;
-- Redriven before its cause is mended, such an event is a reject again. It holds up none of the others.
CALL put(ARRAY['{"user_id":"u","locale":"xx"}', '{"user_id":"u","locale":"yy"}', '{"user_id":"u","locale":"xx"}'], 1200);
CREATE TABLE audit_xx (user_id text);
SELECT * FROM redrive_rejects('visit_inbox');
SELECT reason, unmask_pii(masked_body) AS body FROM visit_rejects;
-- The copy shows nobody what is in it.
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'SECRET %', NEW.user_id; RETURN NEW; END $$;
CREATE TRIGGER tell BEFORE INSERT ON visits FOR EACH ROW WHEN (NEW.user_id = 'u') EXECUTE FUNCTION tell();
SELECT try_inbox('visit_inbox');
DROP TRIGGER tell ON visits;
DROP TRIGGER route ON visits;
-- So with every code that an event alone can cause. A trigger's own code stays in the reason.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.locale ~ '^[0-9A-Z]{5}$' THEN RAISE EXCEPTION USING ERRCODE = NEW.locale, MESSAGE = NEW.user_id; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON visits FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT array_agg(format('{"user_id":"SECRET","locale":"%s"}', code)) AS bodies FROM unnest(
    '{0A000,28000,3F000,42501,42704,42883,42P01,42601,55000,MY001,P0002,P0003,P0004,21000,38000,XX000,P0001,23514,2F003,39004}'::text[]) AS code \gset
CALL put(:'bodies', 2000);
TABLE outcome;
-- Also where a notice came after the error.
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'caught' USING ERRCODE = 'MY002';
EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE 'caught';
    RAISE;
END $$;
CREATE TRIGGER again AFTER INSERT ON visits FOR EACH ROW WHEN (NEW.locale = 'again') EXECUTE FUNCTION again();
SET client_min_messages = warning;
CALL put(ARRAY['{"user_id":"u","locale":"again"}', '{"user_id":"u"}'], 2500);
RESET client_min_messages;
TABLE outcome;
DROP TRIGGER again ON visits;
-- Resources, locks, rollbacks, corruption and cancelling are no event's fault.
SELECT code, error_of(format($i$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"u"}'), ('{"user_id":"u","locale":"%s"}')$i$, code)) AS error
FROM unnest('{53100,53200,40001,40P01,55P03,55006,57000,58030,25006,08006,XX001,XX002,2200H,F0000}'::text[]) AS code;
-- A trigger that refuses everything is the set-up's fault, whatever its code, unless that is one for values.
CREATE FUNCTION close() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = current_setting('test.code'); END $$;
CREATE TRIGGER close BEFORE INSERT ON visits FOR EACH ROW EXECUTE FUNCTION close();
SET test.code = 'MY001';
CALL put(ARRAY['{"user_id":"u"}', '{"user_id":"v"}'], 3000);
SET test.code = 'P0001';
SELECT try_inbox('visit_inbox');
CALL put(ARRAY['{"user_id":"u"}', '{"user_id":"v"}'], 3000);
TABLE outcome;
DROP TRIGGER close ON visits;
-- A trigger that refuses everything can quote a row of the table. Its words don't get out of a flush or try_inbox.
CREATE FUNCTION quote_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored text := (SELECT v.user_id FROM public.visits v ORDER BY v.user_id = 'STORED' DESC LIMIT 1);
BEGIN
    RAISE EXCEPTION 'the first is %', stored USING ERRCODE = 'LM001', DETAIL = stored, HINT = stored;
END $$;
INSERT INTO visits (user_id) VALUES ('STORED');
CREATE TRIGGER quote_row BEFORE INSERT ON visits FOR EACH ROW EXECUTE FUNCTION quote_row();
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"u"}')$$);
SELECT error_of($$SELECT try_inbox('visit_inbox')$$);
CREATE OR REPLACE FUNCTION quote_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    ASSERT false, (SELECT v.user_id FROM public.visits v ORDER BY v.user_id = 'STORED' DESC LIMIT 1);
END $$;
SELECT error_of($$INSERT INTO visit_inbox (body) VALUES ('{"user_id":"u"}')$$);
SELECT error_of($$SELECT try_inbox('visit_inbox')$$);
DROP TRIGGER quote_row ON visits;
DROP FUNCTION quote_row;
DELETE FROM visits WHERE user_id = 'STORED';
-- A sequence at its end.
CREATE SEQUENCE short MAXVALUE 2;
ALTER TABLE visits ADD number bigint;
ALTER TABLE visits ALTER number SET DEFAULT nextval('short');
CALL put(array_fill('{"user_id":"u"}'::text, ARRAY[5]), 4000);
ALTER TABLE visits DROP number;
-- A second unique index behind a view: a conflict on it is a reject, as on a table.
DROP TRIGGER refuse ON visits;
TRUNCATE visits;
CREATE UNIQUE INDEX one_user ON visits (user_id);
CREATE VIEW visit_view AS SELECT * FROM visits;
SET client_min_messages = error;
SELECT attach_inbox('visit_inbox', 'visit_view', 'visit_rejects', '{"user_id": {"copy": "user_id"}, "id": "message_id"}');
RESET client_min_messages;
CALL put(ARRAY['{"user_id":"a"}', '{"user_id":"b"}', '{"user_id":"a"}']);
TABLE outcome;
CALL put(ARRAY['{"user_id":"a"}', '{"user_id":"b"}', '{"user_id":"a"}']);
SELECT stored, duplicate, rejected FROM inbox_counts();
-- A trigger that swallows rows is the set-up's fault there, too.
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON visits FOR EACH ROW EXECUTE FUNCTION swallow();
CALL put(ARRAY['{"user_id":"c"}', '{"user_id":"d"}', '{"user_id":"e"}']);
DROP TRIGGER swallow ON visits;
-- A row that failed gets another try if the trial works right after: the set-up may have been mended in between.
CREATE TABLE swapped (v text, id uuid UNIQUE);
CREATE SEQUENCE attempts;
CREATE FUNCTION mend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.attempts') = 1 THEN
        RAISE undefined_table;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER mend AFTER INSERT ON swapped FOR EACH ROW EXECUTE FUNCTION mend();
SET client_min_messages = error;
SELECT attach_inbox('swapped_inbox', 'swapped', 'visit_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO swapped_inbox (body) VALUES ('{"v":"x"}');
SELECT stored, rejected FROM inbox_counts();
SELECT last_value AS attempts FROM attempts;
DROP VIEW swapped_inbox;
DROP TABLE swapped;
DROP SEQUENCE attempts;
DROP FUNCTION mend;
-- An event that nests too deep is a reject, also after rows whose trigger inserts into another inbox.
CREATE TABLE outside (d jsonb, id uuid UNIQUE);
CREATE TABLE inside (k text, id uuid UNIQUE);
CREATE TABLE inside_rejects (LIKE visit_rejects INCLUDING ALL);
SET client_min_messages = error;
SELECT attach_inbox('outside_inbox', 'outside', 'visit_rejects', '{"d": {"copy": "d"}, "id": "message_id"}');
SELECT attach_inbox('inside_inbox', 'inside', 'inside_rejects', '{"k": {"copy": "k"}, "id": "message_id"}');
CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.inside_inbox (message_id, body) VALUES (NEW.id, '{"k":"derived"}');
    RETURN NULL;
END $$;
CREATE TRIGGER pass AFTER INSERT ON outside FOR EACH ROW EXECUTE FUNCTION pass();
TRUNCATE visit_rejects;
INSERT INTO outside_inbox (message_id, body)
SELECT id(5000 + n), CASE n WHEN 3 THEN format('{"d":%s%s}', repeat('[', 100000), repeat(']', 100000)) ELSE '{"d":{}}' END
FROM generate_series(1, 5) n;
RESET client_min_messages;
SELECT stored, rejected FROM inbox_counts();
SELECT reason FROM visit_rejects;
SELECT count(*) FROM inside;
-- The words of a trigger on the rejects table can quote the masked event. They don't get out.
CREATE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.reason <> 'trial' THEN
        RAISE EXCEPTION 'too many rejects: %', NEW.masked_body;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER quote AFTER INSERT ON visit_rejects FOR EACH ROW EXECUTE FUNCTION quote();
SELECT error_of($$INSERT INTO outside_inbox (body) VALUES ('{')$$);
-- Nor do those of ASSERT, and of a type that refuses the mask.
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    ASSERT NEW.reason = 'trial', 'odd reject: ' || NEW.masked_body;
    RETURN NEW;
END $$;
SELECT error_of($$INSERT INTO outside_inbox (body) VALUES ('{SECRET')$$);
CREATE OR REPLACE FUNCTION quote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM NEW.masked_body::inet WHERE NEW.reason <> 'trial';
    RETURN NEW;
END $$;
SELECT error_of($$INSERT INTO outside_inbox (body) VALUES ('{SECRET')$$);
DROP TRIGGER quote ON visit_rejects;
DROP VIEW outside_inbox, inside_inbox;
DROP TABLE outside, inside, inside_rejects;
DROP FUNCTION pass, quote;
-- The trial makes a row for columns of any type, and for a reject that cannot be written it fails.
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN percentage AS numeric(5, 2) CHECK (VALUE <= 100);
CREATE TABLE typed (t text NOT NULL, v varchar(3) NOT NULL, c char(3) NOT NULL, i2 smallint NOT NULL, n numeric(6, 2) NOT NULL, f double precision NOT NULL,
    b boolean NOT NULL, d date NOT NULL, ts timestamp NOT NULL, tz timestamptz NOT NULL, ti time NOT NULL, iv interval NOT NULL, u uuid NOT NULL, ip inet NOT NULL, cd cidr NOT NULL,
    j jsonb NOT NULL, p percentage NOT NULL, tags text[] NOT NULL, r int4range NOT NULL, mr int4multirange NOT NULL, m mood NOT NULL, bits bit(3) NOT NULL, masked text NOT NULL, version integer NOT NULL,
    sent_on date NOT NULL, sent_at timestamptz NOT NULL, id uuid UNIQUE);
SET client_min_messages = error;
SELECT attach_inbox('typed_inbox', 'typed', 'visit_rejects', (
    SELECT jsonb_object_agg(attname, CASE attname WHEN 'masked' THEN '{"mask": "masked"}' WHEN 'version' THEN '{"version": "version"}' WHEN 'sent_on' THEN '"sent_date"'
        WHEN 'sent_at' THEN '"sent_at"' WHEN 'id' THEN '"message_id"' ELSE jsonb_build_object('copy', attname) END::jsonb)
    FROM pg_attribute WHERE attrelid = 'typed'::regclass AND attnum > 0));
RESET client_min_messages;
SELECT try_inbox('typed_inbox');
ALTER TABLE visit_rejects ADD CHECK (reason <> 'trial');
SELECT left(error_of($$SELECT try_inbox('typed_inbox')$$), 5);
-- It is for those who can insert into the inbox.
CREATE ROLE visitor;
SET ROLE visitor;
SELECT error_of($$SELECT try_inbox('typed_inbox')$$);
RESET ROLE;
GRANT INSERT ON typed_inbox TO visitor;
ALTER TABLE visit_rejects DROP CONSTRAINT visit_rejects_reason_check;
SET ROLE visitor;
SELECT try_inbox('typed_inbox');
RESET ROLE;
-- The owner of the target changes a column's type between two steps of a trial, which then reads a value of the new type.
SET client_min_messages = error;
CREATE TABLE altered (v text, id uuid UNIQUE);
SELECT attach_inbox('altered_inbox', 'altered', 'visit_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO altered_inbox (body) VALUES ('{"v":"x"}');
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1) WHERE current_setting('trial.lingers', true) = 'on';
    FOR tenth IN 1..100 LOOP
        EXIT WHEN current_setting('trial.lingers', true) IS DISTINCT FROM 'on'
            OR EXISTS (SELECT FROM pg_locks WHERE relation = 'public.altered'::regclass AND NOT granted);
        PERFORM pg_sleep(0.1);
    END LOOP;
    RAISE EXCEPTION 'no';
END $$;
CREATE TRIGGER linger BEFORE INSERT ON altered FOR EACH ROW EXECUTE FUNCTION linger();
CREATE PROCEDURE meanwhile() LANGUAGE plpgsql AS $$
BEGIN
    FOR tenth IN 1..100 LOOP
        EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted);
        PERFORM pg_sleep(0.1);
    END LOOP;
    ALTER TABLE altered ALTER v TYPE bigint USING 1;
END $$;
SELECT try_inbox('altered_inbox');
SET trial.lingers = on;
\! psql -X -q -d regression -c 'CALL meanwhile()' > /dev/null 2>&1 &
SELECT try_inbox('altered_inbox');
RESET trial.lingers;
-- A timeout while the copied row is tried is the statement's error, and no refusal.
CREATE TABLE slow_checked (id uuid UNIQUE, v text CHECK (v LIKE 'k%'));
CREATE TABLE slow_rejects (LIKE login_rejects INCLUDING ALL);
SET client_min_messages = error;
SELECT attach_inbox('slow_inbox', 'slow_checked', 'slow_rejects', '{"id": "message_id", "v": {"copy": "v"}}');
RESET client_min_messages;
INSERT INTO slow_checked VALUES (id(1), 'k1');
CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
CREATE TRIGGER be_slow AFTER INSERT ON slow_checked FOR EACH ROW EXECUTE FUNCTION be_slow();
SET statement_timeout = '500ms';
SELECT try_inbox('slow_inbox');
RESET statement_timeout;
-- A trigger that raises such an error itself shows nothing of the copied row.
CREATE OR REPLACE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RAISE EXCEPTION 'copied: %', NEW.v USING ERRCODE = '57014'; END $$;
SELECT try_inbox('slow_inbox');
-- Nor does a message, of whatever level. Messages reach the client again after the trial.
CREATE OR REPLACE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN RAISE INFO 'copied: %', NEW.v; RAISE WARNING 'copied: %', NEW.v; RETURN NULL; END $$;
SELECT try_inbox('slow_inbox');
DO $$ BEGIN RAISE INFO 'heard'; END $$;
SET client_min_messages = error;
DROP TABLE slow_checked, slow_rejects CASCADE;
RESET client_min_messages;
DROP FUNCTION be_slow;
SELECT v, pg_typeof(v) FROM altered;
DROP VIEW altered_inbox;
DROP TABLE altered;
DROP FUNCTION linger;
DROP PROCEDURE meanwhile;
SELECT try_inbox(NULL);
SELECT error_of($$SELECT try_inbox('typed')$$);
SELECT count(*) FROM typed;
SET client_min_messages = error;
DROP OWNED BY visitor;
DROP ROLE visitor;
DROP TABLE visits, visit_rejects, typed, audit_en, audit_xx CASCADE;
DROP TYPE mood;
DROP DOMAIN percentage;
DROP SEQUENCE short;
DROP FUNCTION note, route, tell, refuse, close, swallow, again;
DROP PROCEDURE put;
