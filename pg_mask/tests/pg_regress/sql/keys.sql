-- The scheme aes-siv: tokens, the key ring, rotation, re-masking.
CREATE FUNCTION key(id text, byte text, state text DEFAULT 'active') RETURNS text LANGUAGE sql AS $$
    SELECT format('{"id": "%s", "key": "%s", "state": "%s"}', id, replace(encode(decode(repeat(byte, 64), 'hex'), 'base64'), E'\n', ''), state)
$$;
-- Writes a ring into the data directory, as the server's user.
CREATE FUNCTION write(written text, mode text DEFAULT '0600') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT %L) TO PROGRAM %L', written, 'umask 077; cat > ring.json; chmod ' || mode || ' ring.json');
END
$$;
CREATE FUNCTION ring("primary" text, VARIADIC keys text[]) RETURNS void LANGUAGE sql AS $$
    SELECT write(format('{"primary": "%s", "keys": [%s]}', "primary", array_to_string(keys, ', ')))
$$;
-- What everyone reads after a reload is what stands there then. A new session has it for sure.
\set reload 'SELECT pg_reload_conf() AS reloaded \\gset \\c'
-- Without a ring: base64 as ever, and all else fails.
SELECT mask_pii('10.0.0.1'), mask_pii('10.0.0.1', 'base64'), mask_pii_all('10.0.0.1');
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
SELECT error_of($$SELECT unmask_pii('$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q')$$);
SELECT error_of($$SELECT remask_pii('MTAuMC4wLjE=')$$);
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'rot13')$$);
SET pg_mask.scheme = 'aes-siv';
SELECT error_of($$SELECT mask_pii('10.0.0.1')$$);
SELECT error_of($$INSERT INTO login_inbox (body) VALUES ('{"user_id": "u", "ip": "10.0.0.1"}')$$);
SELECT count(*) FROM user_logins;
RESET pg_mask.scheme;
-- A ring that is wrong is one clear error, for a superuser with the file's name; and what needs a key fails.
ALTER SYSTEM SET pg_mask.keyring_file = 'ring.json';
:reload
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
CREATE TABLE wrong (n serial, ring text, mode text);
INSERT INTO wrong (ring, mode) VALUES
    ('{"primary": "a", "keys": [' || key('a', '01') || ']}', '0640'),
    ('{"primary": "a", "keys": [' || key('a', '01') || ']}', '0604'),
    ('{"primary": "a", "keys": [' || key('a', '01'), '0600'),
    ('{"primary": "a", "primary": "a", "keys": [' || key('a', '01') || ']}', '0600'),
    ('{"keys": [' || key('a', '01') || ']}', '0600'),
    ('{"primary": "b", "keys": [' || key('a', '01') || ']}', '0600'),
    ('{"primary": "a", "keys": [' || key('a', '01', 'retired') || ']}', '0600'),
    ('{"primary": "a", "keys": [' || key('a', '01') || ', ' || key('a', '02') || ']}', '0600'),
    ('{"primary": "a", "keys": [' || replace(key('a', '01'), 'AQ==', 'AQEB') || ']}', '0600'),
    ('{"primary": "a", "keys": [' || replace(key('a', '01'), 'AQEB', 'AQE*') || ']}', '0600'),
    ('', '0600'),
    ('"' || repeat('x', 70000) || '"', '0600');
-- Each session reads it again until it can be read.
SELECT n, e.error FROM wrong, LATERAL (SELECT write(ring, mode)) w, LATERAL (SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv') -- $$ || n || w::text) AS error) e ORDER BY n;
SELECT error_of($$SELECT unmask_pii('$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q')$$);
-- A base64 inbox too, since what is a token already would be masked once more.
SELECT error_of($$INSERT INTO login_inbox (body) VALUES ('{"user_id": "u", "ip": "10.0.0.1"}')$$);
-- A role that cannot see settings is not told where it is.
CREATE ROLE masker;
GRANT EXECUTE ON FUNCTION mask_pii(text, text), mask_pii_all(text), unmask_pii(text), remask_pii(text) TO masker;
SET ROLE masker;
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
SELECT left(error_of('SHOW pg_mask.keyring_file'), 5);
SELECT count(*) FROM pg_settings WHERE name LIKE 'pg_mask.keyring%';
SELECT error_of($$SELECT set_config('pg_mask.keyring_file', '/tmp/mine', false)$$);
SELECT error_of($$SELECT set_config('pg_mask.scheme', 'aes-siv', false)$$);
RESET ROLE;
-- With a ring: tokens that say their scheme and key, the same for the same value. Python's cryptography makes the same.
SELECT ring('a', key('a', '01'));
SELECT mask_pii('199.172.111.135', 'aes-siv'), mask_pii('', 'aes-siv'), mask_pii(NULL, 'aes-siv');
SELECT unmask_pii('$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q'), unmask_pii('MTk5LjE3Mi4xMTEuMTM1');
SELECT mask_key('$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q'), mask_key('MTk5LjE3Mi4xMTEuMTM1'), mask_key('$siv$a$1bg');
SELECT value, is_masked(value) FROM unnest(ARRAY[
    '$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q', '$siv$b$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q',
    'MTk5LjE3Mi4xMTEuMTM1', '', '199.172.111.135', '2001:db8::1', '558-94-9716', '$siv$a$1bgC', NULL]) AS value;
SELECT bool_and(unmask_pii(mask_pii(v, 'aes-siv')) = v) AS taken_back, count(DISTINCT mask_pii(v, 'aes-siv')) AS masks
FROM (SELECT repeat('é', n % 300) AS v FROM generate_series(0, 599) n) s;
-- Nothing is masked twice, by whatever scheme.
SELECT mask_pii(token, 'aes-siv') = token AND mask_pii(token, 'base64') = token AND mask_pii(token) = token AS unchanged
FROM mask_pii('10.0.0.1', 'aes-siv') AS token;
SELECT mask_pii('$siv$a$' || repeat('A', 22), 'base64') AS looks_like_a_token;
-- Three errors, none of which quotes the value.
SELECT token, error_of(format('SELECT unmask_pii(%L)', token)) FROM (VALUES
    (1, '$siv$z$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q'), (2, '$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6R'),
    (3, '$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w7Q'), (4, '$siv$a$short'), (5, '$other$')) AS t(n, token) ORDER BY n;
-- In parallel plans too, and of a transaction that writes.
BEGIN;
SET LOCAL pg_mask.scheme = 'aes-siv';
SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0; SET LOCAL max_parallel_workers_per_gather = 2;
CREATE TABLE plain AS SELECT (n % 5)::text AS v FROM generate_series(1, 1000) n;
ANALYZE plain;
EXPLAIN (COSTS OFF) CREATE TABLE kept AS SELECT mask_pii(v) AS mask FROM plain WHERE mask_pii(v) <> '';
CREATE TABLE kept AS SELECT mask_pii(v) AS mask FROM plain WHERE mask_pii(v) <> '';
SELECT count(*), count(DISTINCT mask), count(DISTINCT mask_key(mask)) FROM kept;
ROLLBACK;
-- By an inbox: as the setting says, or as the rule does. What is rejected is masked by the strongest.
-- A role that inserts needs no right to mask.
SET pg_mask.scheme = 'aes-siv';
SET ROLE login_loader;
INSERT INTO login_inbox (message_id, body) VALUES
    (id(1), '{"user_id": "u", "ip": "199.172.111.135", "device_id": "d"}'), (id(2), 'bad'),
    (id(3), '{"user_id": "u", "ip": "$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q"}'),
    (id(4), '$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q');
SELECT stored, duplicate, rejected FROM inbox_counts();
RESET ROLE;
SELECT masked_ip, mask_key(masked_device_id), unmask_pii(masked_device_id) FROM user_logins ORDER BY message_id;
SELECT mask_key(masked_body), unmask_pii(masked_body), reason FROM login_rejects ORDER BY message_id;
-- A token that does not fit its column is a reject.
INSERT INTO login_inbox (message_id, body) SELECT id(5), format('{"user_id": "u", "ip": "%s"}', repeat('x', n)) FROM generate_series(170, 172) n;
SELECT reason, count(*) FROM login_rejects WHERE message_id = id(5) GROUP BY 1;
SELECT length(masked_ip) FROM user_logins WHERE message_id = id(5);
RESET pg_mask.scheme;
TRUNCATE user_logins, login_rejects;
CREATE TABLE rules_kept AS SELECT '{"masked_ip": {"mask": {"key": "ip", "scheme": "aes-siv"}}, "masked_device_id": {"mask": {"key": "device_id", "scheme": "base64"}}, "user_id": {"copy": "user_id"}, "message_id": "message_id"}'::jsonb AS rules;
SELECT attach_inbox('login_inbox', 'user_logins', 'login_rejects', rules) FROM rules_kept;
INSERT INTO login_inbox (message_id, body) VALUES (id(1), '{"user_id": "u", "ip": "1.1.1.1", "device_id": "d"}'), (id(2), 'bad');
SELECT unmask_pii(masked_ip), mask_key(masked_ip), masked_device_id FROM user_logins;
SELECT mask_key(masked_body) FROM login_rejects;
-- A session that is there reads the ring again after a reload, and before it does not.
SELECT ring('b', key('a', '01'), key('b', '02'));
SELECT mask_key(mask_pii('x', 'aes-siv'));
SELECT pg_reload_conf(), pg_sleep(2);
SELECT mask_key(mask_pii('x', 'aes-siv'));
-- A rotation in its written order. To begin with: rows in base64 and of key a.
SELECT ring('a', key('a', '01'));
:reload
TRUNCATE user_logins, login_rejects;
INSERT INTO user_logins (user_id, masked_ip) SELECT 'base64', mask_pii('10.0.0.' || n % 250) FROM generate_series(1, 3000) n;
INSERT INTO user_logins (user_id, masked_ip) SELECT 'a', mask_pii('10.0.0.' || n % 250, 'aes-siv') FROM generate_series(1, 3000) n;
INSERT INTO user_logins (user_id) VALUES ('null');
CREATE INDEX ON user_logins (masked_ip);
-- Add and distribute: every session can read what is to come, and nothing is masked with it yet.
SELECT ring('a', key('a', '01'), key('b', '02'));
:reload
SELECT mask_key(mask_pii('10.0.0.1', 'aes-siv'));
-- Promote. Rows are found by any mask, through the index.
SELECT ring('b', key('a', '01'), key('b', '02'));
:reload
INSERT INTO user_logins (user_id, masked_ip) SELECT 'b', mask_pii('10.0.0.' || n % 250, 'aes-siv') FROM generate_series(1, 3000) n;
ANALYZE user_logins;
SELECT mask_key(mask) FROM unnest(mask_pii_all('10.0.0.1')) WITH ORDINALITY AS all_masks(mask, n) ORDER BY n;
SELECT user_id, count(*) FROM user_logins WHERE masked_ip = ANY (mask_pii_all('10.0.0.1')) GROUP BY 1 ORDER BY 1;
EXPLAIN (COSTS OFF) SELECT user_id FROM user_logins WHERE masked_ip = ANY (mask_pii_all('10.0.0.1'));
-- Re-mask, as a role that may do just that.
SET ROLE login_remasker;
CALL remask_column('user_logins', 'masked_ip', 10);
CALL remask_column('user_logins', 'masked_device_id');
CALL remask_column('login_rejects', 'masked_body');
RESET ROLE;
SELECT relation, column_name, key, blocks_done = blocks_total AS all_blocks, remasked, finished_at IS NOT NULL AS finished FROM remask_progress ORDER BY 1, 2;
SELECT user_id, mask_key(masked_ip), count(*), count(DISTINCT masked_ip) FROM user_logins GROUP BY 1, 2 ORDER BY 1;
SELECT count(*) FROM user_logins WHERE masked_ip IS NOT NULL AND mask_key(masked_ip) IS DISTINCT FROM 'b';
SELECT bool_and(unmask_pii(masked_ip) LIKE '10.0.0.%') FROM user_logins WHERE user_id <> 'null';
-- Again there is nothing to do.
CALL remask_column('user_logins', 'masked_ip');
SELECT remasked FROM remask_progress WHERE relation = 'user_logins'::regclass AND column_name = 'masked_ip';
-- Retire: the key reads what may be left in a backup, and is looked for. Removed, it is unknown.
SELECT ring('b', key('a', '01', 'retired'), key('b', '02'));
:reload
SELECT unmask_pii('$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q'), cardinality(mask_pii_all('x'));
SELECT ring('b', key('b', '02'));
:reload
SELECT error_of($$SELECT unmask_pii('$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q')$$);
-- remask_pii never makes base64, and no key's mask of what is no mask.
SELECT mask_key(remask_pii(mask_pii('x'))), unmask_pii(remask_pii(mask_pii('x'))), remask_pii(mask_pii('x', 'aes-siv')) = mask_pii('x', 'aes-siv') AS same;
SELECT error_of($$SELECT remask_pii('10.0.0.1')$$);
SELECT mask_pii_all(mask_pii('x', 'aes-siv')) = ARRAY[mask_pii('x', 'aes-siv')] AS of_a_token_itself_alone;
-- The procedure: partitions, what is no table, what cannot be read, one broken off, one that a trigger works against.
CREATE TABLE parts (n int, "Masked col" text) PARTITION BY RANGE (n);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (n);
CREATE TABLE parts_2_1 PARTITION OF parts_2 DEFAULT;
INSERT INTO parts SELECT n, mask_pii(n::text) FROM generate_series(0, 19) n;
CALL remask_column('parts', 'Masked col');
SELECT mask_key("Masked col"), count(*), bool_and(unmask_pii("Masked col") = n::text) FROM parts GROUP BY 1;
CREATE VIEW parts_view AS SELECT * FROM parts;
\set SHOW_CONTEXT never
CALL remask_column('parts_view', 'Masked col');
SELECT left(error_of('SELECT nosuch FROM parts'), 5);
CALL remask_column('parts', 'Masked col', 0);
UPDATE parts SET "Masked col" = '$siv$a$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q' WHERE n = 3;
\set VERBOSITY terse
CALL remask_column('parts', 'Masked col');
CREATE TABLE many (v text);
INSERT INTO many SELECT mask_pii(n::text) FROM generate_series(1, 5000) n;
SELECT pg_relation_size('many') / 8192 > 20 AS large_enough;
-- (It was larger then.)
INSERT INTO remask_progress VALUES ('many', 'v', 'b', 1, 1000, 1000, 100, now(), now(), NULL);
CALL remask_column('many', 'v');
SELECT mask_key(v), count(*) FROM many GROUP BY 1;
SELECT pass, remasked FROM remask_progress WHERE relation = 'many'::regclass;
CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := OLD.v; RETURN NEW; END $$;
CREATE TRIGGER put_back BEFORE UPDATE ON many FOR EACH ROW WHEN (OLD.v LIKE 'M%') EXECUTE FUNCTION put_back();
TRUNCATE many; INSERT INTO many VALUES (mask_pii('10.0.0.1'));
CALL remask_column('many', 'v');
CREATE OR REPLACE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CALL remask_column('many', 'v');
DROP TRIGGER put_back ON many;
-- A partition that is dropped meanwhile ends nothing.
CREATE TABLE months (n int, v text) PARTITION BY LIST (n);
CREATE TABLE months_1 PARTITION OF months FOR VALUES IN (1);
CREATE TABLE months_2 PARTITION OF months FOR VALUES IN (2);
CREATE TABLE months_3 PARTITION OF months FOR VALUES IN (3);
INSERT INTO months SELECT n, mask_pii(n::text) FROM generate_series(1, 3) n;
CREATE FUNCTION drop_2() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET LOCAL client_min_messages = error; DROP TABLE IF EXISTS public.months_2; RETURN NULL; END $$;
CREATE TRIGGER drop_2 AFTER UPDATE ON months_1 FOR EACH STATEMENT EXECUTE FUNCTION drop_2();
CALL remask_column('months', 'v');
SELECT n, mask_key(v) FROM months ORDER BY 1;
-- A row that moves meanwhile to a partition that is done already, and a partition that is attached, are re-masked too.
CREATE TABLE moving (n int, v text) PARTITION BY LIST (n);
CREATE TABLE moving_1 PARTITION OF moving FOR VALUES IN (1);
CREATE TABLE moving_2 PARTITION OF moving FOR VALUES IN (2);
CREATE TABLE moving_3 (n int, v text);
INSERT INTO moving SELECT 2, mask_pii(n::text) FROM generate_series(1, 3) n;
INSERT INTO moving_3 VALUES (3, mask_pii('4'));
CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.moving_1 VALUES (1, OLD.v);
    IF (SELECT NOT relispartition FROM pg_class WHERE oid = 'public.moving_3'::regclass) THEN
        ALTER TABLE public.moving ATTACH PARTITION public.moving_3 FOR VALUES IN (3);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER move AFTER UPDATE ON moving_2 FOR EACH ROW WHEN (OLD.v LIKE 'M%') EXECUTE FUNCTION move();
CALL remask_column('moving', 'v');
SELECT n, mask_key(v), count(*) FROM moving GROUP BY 1, 2 ORDER BY 1;
DROP TABLE moving;
-- A deferred trigger runs in the batch, and not at COMMIT under the caller's search path.
CREATE TABLE deferring (v text);
INSERT INTO deferring VALUES (mask_pii('1'));
CREATE FUNCTION say_path() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', current_setting('search_path'); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER say_path AFTER UPDATE ON deferring DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION say_path();
CALL remask_column('deferring', 'v');
DROP TABLE deferring;
-- A superuser's call runs with the rights of the table's owner: no trigger and no index's function of the table runs as a superuser.
CREATE ROLE keeper;
GRANT CREATE ON SCHEMA public TO keeper;
CREATE TABLE kept (v text);
CREATE FUNCTION say_role() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'trigger: %', current_user; RETURN NEW; END $$;
CREATE FUNCTION indexed(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE 'index: %', current_user; RETURN v; END $$;
CREATE TRIGGER say_role BEFORE UPDATE ON kept FOR EACH ROW EXECUTE FUNCTION say_role();
CREATE INDEX ON kept (indexed(v));
ALTER TABLE kept OWNER TO keeper;
SET client_min_messages = warning;
INSERT INTO kept VALUES (mask_pii('1'));
RESET client_min_messages;
CALL remask_column('kept', 'v');
GRANT EXECUTE ON FUNCTION remask_pii(text) TO keeper;
CALL remask_column('kept', 'v');
SELECT mask_key(v) FROM kept;
-- Rows that a policy hides from the owner would stay as they are.
ALTER TABLE kept ENABLE ROW LEVEL SECURITY;
CALL remask_column('kept', 'v');
ALTER TABLE kept FORCE ROW LEVEL SECURITY;
CALL remask_column('kept', 'v');
ALTER TABLE kept DISABLE ROW LEVEL SECURITY;
-- The words of a trigger or a type can quote a value, so the error has none of them.
CREATE OR REPLACE FUNCTION say_role() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM convert_from(decode(OLD.v, 'base64'), 'UTF8')::inet; RETURN NEW; END $$;
SET client_min_messages = warning;
INSERT INTO kept VALUES (mask_pii('593-47-5928', 'base64'));
CALL remask_column('kept', 'v');
CREATE OR REPLACE FUNCTION say_role() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'it was %', OLD.v USING ERRCODE = 'MY001'; END $$;
CALL remask_column('kept', 'v');
DROP TABLE kept;
DROP FUNCTION say_role, indexed;
REVOKE ALL ON FUNCTION remask_pii(text) FROM keeper;
REVOKE ALL ON SCHEMA public FROM keeper;
DROP ROLE keeper;
DELETE FROM remask_progress;
RESET client_min_messages;
SELECT ring('b', key('b', '02'));
:reload
\set VERBOSITY terse
\set SHOW_CONTEXT never
-- The row that cannot be is named: no mask, not to be read, too long for its column then.
TRUNCATE many; INSERT INTO many VALUES (mask_pii('10.0.0.1')), ('10.0.0.2');
CALL remask_column('many', 'v');
UPDATE many SET v = '$siv$z$1bgC_jH84HMZ79l-lgwgHo4nPTKO-xNmqdWVBX7w6Q' WHERE v = '10.0.0.2';
CALL remask_column('many', 'v');
-- A trigger of the table does not get back to the rights of the role that logged in, which may be a superuser.
CREATE TABLE guarded (v text);
GRANT SELECT, UPDATE ON guarded TO login_remasker;
INSERT INTO guarded VALUES (mask_pii('10.0.0.1'));
CREATE FUNCTION climb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RESET ROLE; RAISE NOTICE 'as %', current_user; RETURN NEW; END $$;
CREATE TRIGGER climb BEFORE UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION climb();
SET ROLE login_remasker;
CALL remask_column('guarded', 'v');
RESET ROLE;
DROP TRIGGER climb ON guarded;
SET ROLE login_remasker;
CALL remask_column('guarded', 'v');
RESET ROLE;
SELECT mask_key(v) IS NOT NULL AS has_key FROM guarded;
-- Nor does a trigger on the table of progress, which would run with the caller's rights.
CREATE TRIGGER climb BEFORE UPDATE ON remask_progress FOR EACH ROW EXECUTE FUNCTION climb();
CALL remask_column('guarded', 'v');
DROP TRIGGER climb ON remask_progress;
CALL remask_column('guarded', 'v');
DROP TABLE guarded;
DROP FUNCTION climb;
-- Names of columns are names, whatever is in them.
CREATE TABLE odd_names ("{table} {column} {other}" text);
INSERT INTO odd_names VALUES (mask_pii('10.0.0.1'));
CALL remask_column('odd_names', '{table} {column} {other}');
SELECT mask_key("{table} {column} {other}") FROM odd_names;
CREATE TABLE narrow (v varchar(20));
INSERT INTO narrow VALUES (NULL), (mask_pii('10.0.0.1'));
CALL remask_column('narrow', 'v');
-- None is passed over: not what a policy hides, nor what is stored elsewhere.
ALTER TABLE narrow ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON narrow TO login_remasker;
SET ROLE login_remasker;
CALL remask_column('narrow', 'v');
RESET ROLE;
CREATE TABLE narrower () INHERITS (narrow);
CALL remask_column('narrow', 'v');
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE parts_3 PARTITION OF parts FOR VALUES FROM (20) TO (30) SERVER nowhere;
CALL remask_column('parts', 'Masked col');
\set VERBOSITY default
-- By a command instead of a file. The two together are one too many.
ALTER SYSTEM SET pg_mask.keyring_command = 'echo secret >/dev/null; cat ring.json';
:reload
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
ALTER SYSTEM RESET pg_mask.keyring_file;
:reload
SELECT mask_key(mask_pii('10.0.0.1', 'aes-siv'));
ALTER SYSTEM SET pg_mask.keyring_command = 'echo secret; exit 3';
:reload
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
ALTER SYSTEM SET pg_mask.keyring_command = 'echo secret';
:reload
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
ALTER SYSTEM SET pg_mask.keyring_command = 'yes secret';
:reload
SELECT error_of($$SELECT mask_pii('10.0.0.1', 'aes-siv')$$);
-- One that hangs can be cancelled.
ALTER SYSTEM SET pg_mask.keyring_command = 'sleep 60';
:reload
SET statement_timeout = '200ms';
SELECT mask_pii('10.0.0.1', 'aes-siv');
RESET statement_timeout;
-- A raw value is refused by the column, and nothing of it is told.
SELECT error_of($$INSERT INTO user_logins (user_id, masked_ip) VALUES ('u', '10.0.0.1')$$);
SELECT error_of($$UPDATE user_logins SET masked_device_id = '558-94-9716' WHERE user_id = 'null'$$);
SELECT error_of($$COPY user_logins (user_id, masked_ip) FROM PROGRAM 'echo u,10.0.0.1' (FORMAT csv)$$);
-- As it was.
ALTER SYSTEM RESET pg_mask.keyring_command;
:reload
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm ring.json';
\getenv sources PG_ABS_SRCDIR
\set inbox :sources '/../../../sql/03_inbox.sql'
\set ECHO none
\o /dev/null
\i :inbox
\o
\set ECHO all
TRUNCATE user_logins, login_rejects;
DROP INDEX user_logins_masked_ip_idx;
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER nowhere CASCADE;
DROP TABLE wrong, rules_kept, parts, many, narrow CASCADE;
DROP OWNED BY masker;
DROP ROLE masker;
DROP FUNCTION key, ring, write, put_back;
DELETE FROM remask_progress;
