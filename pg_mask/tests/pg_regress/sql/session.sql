-- A session's state does not decide what others get.
-- Settings that steer how a text of an event is read, or what a trigger makes of a value: each is set to something odd by a
-- session, and a trigger of the target tells what it finds.
SET client_min_messages = error;
CREATE TABLE typed (i interval, a text[], x xml, t timestamptz, m money, f float8, id uuid UNIQUE);
CREATE TABLE typed_rejects (LIKE login_rejects INCLUDING ALL);
SELECT attach_inbox('typed_inbox', 'typed', 'typed_rejects', '{"i": {"copy": "i"}, "a": {"copy": "a"}, "x": {"copy": "x"}, "t": {"copy": "t"}, "m": {"copy": "m"}, "f": {"copy": "f"}, "id": "message_id"}');
RESET client_min_messages;
\set typed '\'{"i":"-1 2:03:04","a":"{NULL,b}","x":"a<b/>","t":"02/03/04 05:06 EST","m":"$1,234.50","f":"0.1"}\''
INSERT INTO typed_inbox (body) VALUES (:typed);
SET IntervalStyle = sql_standard; SET array_nulls = off; SET xmloption = document; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo';
SET timezone_abbreviations = 'Australia'; SET extra_float_digits = -15; SET transform_null_equals = on; SET quote_all_identifiers = on;
INSERT INTO typed_inbox (body) VALUES (:typed);
INSERT INTO typed_inbox VALUES (id(1), now(), :typed), (id(2), now(), :typed);
RESET ALL;
SELECT i, a[1] IS NULL AS null_element, x IS DOCUMENT AS document, t AT TIME ZONE 'UTC' AS t, m::numeric AS m, count(*) FROM typed GROUP BY i, 2, 3, 4, 5;
SELECT reason FROM typed_rejects;
-- Each setting that a user can make is decided: fixed while events are written, or of no consequence for what is stored.
-- A new one of another major must be looked at: does it change how a text is read, how a value is written, which row fails?
CREATE TABLE fixed (name text, setting text);
CREATE TABLE plain (v text, id uuid UNIQUE);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.fixed SELECT name, setting FROM pg_settings;
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON plain FOR EACH STATEMENT EXECUTE FUNCTION tell();
SET client_min_messages = error;
SELECT attach_inbox('plain_inbox', 'plain', 'typed_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
CREATE TABLE odd (name text, setting text);
LOAD 'pg_trgm';
INSERT INTO odd VALUES ('search_path', 'public'), ('DateStyle', 'SQL, DMY'), ('IntervalStyle', 'iso_8601'), ('TimeZone', 'Asia/Tokyo'),
    ('timezone_abbreviations', 'India'), ('array_nulls', 'off'), ('xmloption', 'document'), ('lc_monetary', 'C.UTF-8'), ('lc_numeric', 'C.UTF-8'),
    ('lc_time', 'C.UTF-8'), ('default_text_search_config', 'pg_catalog.german'), ('bytea_output', 'escape'), ('xmlbinary', 'hex'),
    ('extra_float_digits', '-15'), ('standard_conforming_strings', 'off'), ('backslash_quote', 'on'), ('transform_null_equals', 'on'),
    ('quote_all_identifiers', 'on'), ('plpgsql.check_asserts', 'off'), ('plpgsql.extra_errors', 'all'), ('plpgsql.print_strict_params', 'on'), ('plpgsql.extra_warnings', 'all'),
    ('trace_sort', 'on'), ('pg_trgm.similarity_threshold', '1'), ('pg_trgm.word_similarity_threshold', '1'), ('pg_trgm.strict_word_similarity_threshold', '1'), ('plan_cache_mode', 'force_custom_plan'), ('row_security', 'off'),
    ('gin_fuzzy_search_limit', '5'), ('exit_on_error', 'on'), ('debug_print_parse', 'on'), ('debug_print_rewritten', 'on'), ('debug_print_plan', 'on');
SELECT count(set_config(name, setting, false)) FROM odd WHERE name <> 'exit_on_error';
-- With it, any error ends the session: also one that makes a reject, whose text has the value.
SET exit_on_error = on;
INSERT INTO typed_inbox (body) VALUES ('{"f": "SECRET"}');
TRUNCATE fixed;
INSERT INTO plain_inbox (body) VALUES ('{"v": "1"}');
RESET ALL;
SELECT f.name, f.setting FROM odd o JOIN fixed f USING (name) ORDER BY name COLLATE "C";
-- Postgres's own messages for debugging, whose context quotes the queries of triggers, do not reach the client.
TRUNCATE fixed;
DO $$
BEGIN
    SET LOCAL client_min_messages = debug1;
    INSERT INTO plain_inbox (body) VALUES ('{"v": "1"}');
END $$;
SELECT setting FROM fixed WHERE name = 'client_min_messages';
SELECT s.name AS undecided FROM pg_settings s LEFT JOIN odd USING (name)
WHERE context = 'user' AND odd.name IS NULL AND s.name !~ '^(enable_|geqo|jit|vacuum_|cpu_|tcp_|max_parallel_|min_parallel_|parallel_|debug_|log_|trace_|pg_stat_statements|pg_mask|plpgsql.variable|idle_|default_transaction_|transaction_(isolation|read_only|deferrable)$)'
  -- What a session may see, wait for, use or send.
  AND s.name NOT IN ('application_name', 'client_min_messages', 'client_encoding', 'client_connection_check_interval', 'statement_timeout',
    'transaction_timeout', 'lock_timeout', 'check_function_bodies', 'createrole_self_grant', 'escape_string_warning',
    'password_encryption', 'local_preload_libraries', 'restrict_nonsystem_relation_kind', 'event_triggers', 'synchronous_commit',
    'wal_sender_timeout', 'wal_sender_shutdown_timeout')
  -- Costs, memory, and where and how bytes lie.
  AND s.name NOT IN ('backend_flush_after', 'commit_siblings', 'constraint_exclusion', 'cursor_tuple_fraction', 'default_statistics_target',
    'default_table_access_method', 'default_tablespace', 'default_toast_compression', 'effective_cache_size', 'effective_io_concurrency',
    'force_parallel_mode', 'from_collapse_limit', 'gin_pending_list_limit', 'hash_mem_multiplier',
    'join_collapse_limit', 'logical_decoding_work_mem', 'maintenance_io_concurrency', 'maintenance_work_mem',
    'random_page_cost', 'recursive_worktable_factor', 'seq_page_cost', 'stats_fetch_consistency', 'synchronize_seqscans', 'temp_buffers',
    'temp_tablespaces', 'wal_skip_threshold', 'work_mem', 'allow_alter_system', 'io_combine_limit', 'file_copy_method',
    'icu_validation_level', 'scram_iterations', 'md5_password_warnings')
ORDER BY 1;
-- The counts of a statement are its session's and its role's: a pooler's next client does not see them.
INSERT INTO plain_inbox (body) VALUES ('{"v": "2"}');
TABLE counts;
DISCARD ALL;
TABLE counts;
INSERT INTO plain_inbox (body) VALUES ('{"v": "3"}');
SET ROLE login_loader;
SELECT stored FROM inbox_counts();
SELECT * FROM inbox_reject_classes();
RESET ROLE;
TABLE counts;
SELECT error_of('SET pg_mask.last_statement = 1');
SET ROLE login_loader;
SELECT error_of('SET pg_mask.last_statement = 1');
RESET ROLE;
-- A session does not keep what it had made ready for inboxes that are gone.
DO $$
DECLARE
    before bigint;
    kept bigint;
BEGIN
    SET LOCAL client_min_messages = error;
    FOR i IN 1..60 LOOP
        CREATE TEMP TABLE t (v text, id uuid UNIQUE);
        CREATE TEMP TABLE r (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
        PERFORM attach_inbox('pg_temp.i', 't', 'r', '{"v": {"copy": "v"}, "id": "message_id"}');
        INSERT INTO pg_temp.i VALUES (gen_random_uuid(), now(), '{"v":"1"}'), (gen_random_uuid(), now(), '{"v":"1"}');
        DROP TABLE t, r CASCADE;
        IF i = 20 THEN before := sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'CachedPlan%'; END IF;
    END LOOP;
    kept := sum(total_bytes) FROM pg_backend_memory_contexts WHERE name LIKE 'CachedPlan%';
    RESET client_min_messages;
    RAISE NOTICE 'an inbox leaves less than 10 kB: %', (kept - before) / 40 < 10000;
END $$;
-- A trigger that never ends is the statement's fault, and no event's.
CREATE TABLE endless (v text, id uuid UNIQUE);
SET client_min_messages = error;
SELECT attach_inbox('endless_inbox', 'endless', 'typed_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.endless_inbox VALUES (gen_random_uuid(), now(), '{"v":"again"}'); RETURN NULL; END $$;
CREATE TRIGGER again AFTER INSERT ON endless FOR EACH ROW EXECUTE FUNCTION again();
\set VERBOSITY sqlstate
INSERT INTO endless_inbox VALUES (id(1), now(), '{"v":"first"}');
\set VERBOSITY default
SELECT count(*) FROM endless;
SELECT count(*) FROM typed_rejects WHERE reason LIKE '%54001%';
-- An event that nests too deeply for the column's type is a reject, and the others are stored.
CREATE TABLE nested (v jsonb, id uuid UNIQUE);
SET client_min_messages = error;
SELECT attach_inbox('nested_inbox', 'nested', 'typed_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO nested_inbox VALUES (id(51), now(), '{"v": 1}'), (id(52), now(), '{"v": ' || repeat('[', 20000) || repeat(']', 20000) || '}'), (id(53), now(), '{"v": 3}');
TABLE nested;
SELECT reason FROM typed_rejects WHERE message_id = id(52);
-- What a statement returns of the rows has no body, which it might keep in a temporary file.
INSERT INTO plain_inbox VALUES (id(1), '2026-01-01', '{"v": "returned"}') RETURNING *;
-- Tables that Postgres empties after a crash lose messages that are deleted: not without being asked for.
CREATE UNLOGGED TABLE light (v text, id uuid UNIQUE);
\set attach 'SELECT attach_inbox(''light_inbox'', ''light'', ''typed_rejects'', ''{"v": {"copy": "v"}, "id": "message_id"}'''
SET client_min_messages = error;
:attach);
:attach, allow_unlogged => true);
CREATE TABLE heavy (v text, d date, id uuid, UNIQUE (d, id)) PARTITION BY RANGE (d);
CREATE UNLOGGED TABLE heavy_part PARTITION OF heavy FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
SELECT attach_inbox('heavy_inbox', 'heavy', 'typed_rejects', '{"v": {"copy": "v"}, "d": "sent_date", "id": "message_id"}');
ALTER TABLE typed_rejects SET UNLOGGED;
SELECT attach_inbox('plain_inbox', 'plain', 'typed_rejects', '{"v": {"copy": "v"}, "id": "message_id"}');
DROP TABLE typed, plain, endless, nested, light, heavy, typed_rejects, odd, fixed CASCADE;
DROP FUNCTION tell, again;
RESET client_min_messages;
-- An inbox whose triggers went with the extension takes nothing, and is attached again; the domain refuses raw values again.
\getenv sources PG_ABS_SRCDIR
\set extension :sources '/../../../sql/01_extension.sql'
\set tables :sources '/../../../sql/02_tables.sql'
\set inbox :sources '/../../../sql/03_inbox.sql'
CREATE DATABASE orphaned;
\c orphaned
SET client_min_messages = error;
\set ECHO none
\i :extension
\i :tables
\i :inbox
\set ECHO all
DROP EXTENSION pg_mask CASCADE;
\set VERBOSITY sqlstate
INSERT INTO login_inbox (body) VALUES ('{"user_id": "u1"}');
\set VERBOSITY default
\set ECHO none
\i :extension
\i :tables
\i :inbox
\set ECHO all
INSERT INTO login_inbox (body) VALUES ('{"user_id": "u1", "ip": "10.0.0.1"}');
SELECT user_id, masked_ip FROM user_logins;
\set VERBOSITY terse
INSERT INTO user_logins (user_id, masked_ip) VALUES ('u2', '10.0.0.2');
\set VERBOSITY default
\c regression
DROP DATABASE orphaned;
