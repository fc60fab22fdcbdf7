-- Why values are unmasked, where that must be said, and how much each role has unmasked.
\getenv password PGPASSWORD
CREATE ROLE purposeful LOGIN PASSWORD :'password' IN ROLE login_pii_reader;
CREATE ROLE free_reader LOGIN PASSWORD :'password' IN ROLE login_pii_reader;
CREATE TABLE masks AS SELECT n, mask_pii('v' || n) AS mask FROM generate_series(1, 10) n;
GRANT SELECT ON masks TO PUBLIC;
ALTER ROLE purposeful SET pg_mask.require_purpose = on;
-- Any user can set a purpose of at most 200 characters, not of 200 bytes.
\c - free_reader
SELECT unmask_pii(mask) FROM masks WHERE n = 1;
SELECT error_of(format('SET pg_mask.unmask_purpose = %L', repeat('é', 201)));
SELECT error_of(format('SET pg_mask.unmask_purpose = %L', repeat('é', 200)));
SELECT length(current_setting('pg_mask.unmask_purpose'));
SELECT unmask_pii(mask) FROM masks WHERE n = 1;
-- The error is for a role that must say why, however it unmasks, and whatever it sets.
\c - purposeful
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
SELECT error_of('SET pg_mask.require_purpose = off');
SELECT error_of('ALTER ROLE purposeful SET pg_mask.require_purpose = off');
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
SET pg_mask.unmask_purpose = E' \t\n';
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
SET pg_mask.unmask_purpose = 'ticket 4711';
SELECT count(unmask_pii(mask)) FROM masks;
-- It is over with the transaction, the savepoint, the function or the session for which it was set.
DISCARD ALL;
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
BEGIN;
SET LOCAL pg_mask.unmask_purpose = 'ticket 4711';
SELECT count(unmask_pii(mask)) FROM masks;
SAVEPOINT a;
SET pg_mask.unmask_purpose = '';
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
ROLLBACK TO a;
SELECT count(unmask_pii(mask)) FROM masks;
COMMIT;
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
CREATE FUNCTION pg_temp.why(mask text) RETURNS text LANGUAGE plpgsql SET pg_mask.unmask_purpose = 'ticket 4712' AS
$$ BEGIN RETURN unmask_pii(mask); END $$;
SELECT pg_temp.why(mask) FROM masks WHERE n = 1;
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
-- The values before it is taken away come out, and no other.
SELECT error_of($$SELECT n, set_config('pg_mask.unmask_purpose', CASE WHEN n < 4 THEN 'ticket 4713' ELSE '' END, false), unmask_pii(mask) FROM masks$$);
-- Before the library is loaded, Postgres takes any value: a good one counts, a bad one is an error.
\c - purposeful
SET pg_mask.unmask_purpose = 'ticket 4714';
SELECT count(unmask_pii(mask)) FROM masks;
\c - purposeful
BEGIN;
SET LOCAL pg_mask.unmask_purpose = 'ticket 4714';
SELECT count(unmask_pii(mask)) FROM masks;
COMMIT;
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
\c "dbname=regression user=purposeful options='-c pg_mask.unmask_purpose=ticket'"
SELECT count(unmask_pii(mask)) FROM masks;
\c "dbname=regression user=purposeful options='-c pg_mask.unmask_purpose='"
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
\c "dbname=regression user=purposeful options='-c pg_mask.require_purpose=off'"
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
\c "dbname=regression user=purposeful options=''"
SELECT set_config('pg_mask.unmask_purpose', repeat('x', 201), false) IS NULL AS set;
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
SELECT error_of('SELECT unmask_pii(mask) FROM masks');
-- Redriving needs a purpose too, where unmasking does: the owner of an inbox could unmask by its rules.
\c - postgres
LOAD 'pg_mask';
INSERT INTO login_inbox (body) VALUES ('{'), ('[');
SET pg_mask.require_purpose = on;
SELECT error_of($$SELECT * FROM redrive_rejects('login_inbox')$$);
SET pg_mask.unmask_purpose = 'release 7';
SELECT * FROM redrive_rejects('login_inbox');
RESET pg_mask.require_purpose;
RESET pg_mask.unmask_purpose;
TRUNCATE login_rejects;
-- STATISTICS of roles: statements, and values with a purpose and without, whether they are logged or not.
CREATE FUNCTION seen_of(of text) RETURNS text LANGUAGE sql SECURITY DEFINER AS
$$ SELECT format('%s statements, %s values, %s with a purpose', statements, unmasked, with_purpose) FROM unmask_statistics WHERE role::text = of $$;
SELECT seen_of('purposeful');
SELECT seen_of('free_reader');
SELECT since <= last_at AND last_at <= clock_timestamp() AND since > now() - interval '1 hour' AS times FROM unmask_statistics WHERE role = 'purposeful'::regrole;
-- Of a statement that fails or is rolled back too, once it is over.
ALTER ROLE free_reader SET pg_mask.log_unmask = 'statement';
\c - free_reader
SELECT unmask_pii(mask), 1 / (n - 4) FROM masks ORDER BY n;
SELECT seen_of('free_reader');
BEGIN;
SELECT count(unmask_pii(mask)) FROM masks;
ROLLBACK;
SELECT seen_of('free_reader');
-- A statement has one purpose for some of its values, and none for others.
SELECT n, set_config('pg_mask.unmask_purpose', CASE WHEN n < 4 THEN 'ticket ' || n ELSE '' END, false), unmask_pii(mask) FROM masks LIMIT 5;
SELECT seen_of('free_reader');
-- The first value of a session, unmasked by the leader of a parallel query.
\c - free_reader
SELECT is_masked('x') AS loaded;
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
CREATE FUNCTION pg_temp.lazy(mask text) RETURNS text LANGUAGE plpgsql PARALLEL RESTRICTED AS $$ BEGIN RETURN unmask_pii(mask); END $$;
SELECT max(pg_temp.lazy(mask)) FROM masks;
SELECT seen_of('free_reader');
-- By the role that logged in, with whatever rights.
\c - postgres
CREATE FUNCTION lent(mask text) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT unmask_pii(mask)';
\c - free_reader
SELECT lent(mask) FROM masks WHERE n = 1;
SELECT seen_of('free_reader');
-- There is room for 64 roles. No more are counted, but they unmask; those that are dropped make room.
\c - postgres
CREATE PROCEDURE unmask_as_many() LANGUAGE plpgsql AS
$$
DECLARE
    seen text;
BEGIN
    FOR n IN 1..65 LOOP
        EXECUTE format('CREATE ROLE many_%s IN ROLE login_pii_reader', n);
        COMMIT;
        EXECUTE format('SET SESSION AUTHORIZATION many_%s', n);
        SELECT unmask_pii(mask) INTO STRICT seen FROM masks WHERE masks.n = 1;
        IF seen IS DISTINCT FROM 'v1' THEN
            RAISE EXCEPTION '% sees %', n, seen;
        END IF;
        ROLLBACK;
        RESET SESSION AUTHORIZATION;
    END LOOP;
END
$$;
CALL unmask_as_many();
SELECT count(*) > 50 AS many, count(*) < 64 AS not_all FROM unmask_statistics WHERE role::text LIKE 'many%';
SELECT sum(unmasked) = count(*) AS each_once FROM unmask_statistics WHERE role::text LIKE 'many%';
SELECT unmasked AS before FROM unmask_statistics WHERE role = 'postgres'::regrole \gset
DO $$ BEGIN FOR n IN 1..65 LOOP EXECUTE format('DROP ROLE many_%s', n); END LOOP; END $$;
SELECT count(*) FROM unmask_statistics WHERE role::text ~ '^many|^[0-9]+$';
CREATE ROLE late LOGIN PASSWORD :'password' IN ROLE login_pii_reader;
\c - late
SELECT unmask_pii(mask) FROM masks WHERE n = 1;
\c - postgres
SELECT statements, unmasked, with_purpose FROM unmask_statistics WHERE role = 'late'::regrole;
SELECT unmasked - :before AS more FROM unmask_statistics WHERE role = 'postgres'::regrole;
-- Each database has its own.
CREATE DATABASE other_readers TEMPLATE template0;
\c other_readers
CREATE EXTENSION pg_mask;
SELECT count(*) FROM unmask_statistics;
\c regression
DROP DATABASE other_readers;
-- For those who watch the server.
CREATE ROLE watcher IN ROLE pg_monitor;
SET ROLE watcher;
SELECT role, unmasked FROM unmask_statistics WHERE role = 'late'::regrole;
SET ROLE login_pii_reader;
SELECT error_of('SELECT * FROM unmask_statistics');
SELECT error_of('SELECT * FROM unmask_statistics()');
RESET ROLE;
DROP TABLE masks;
DROP FUNCTION lent, seen_of;
DROP PROCEDURE unmask_as_many;
DROP ROLE watcher, purposeful, free_reader, late;
-- Nor does another's session unmask for somebody, without their limit, purpose or line: in a materialized view that a superuser
-- refreshes, or an index that one analyzes.
CREATE TABLE loot (v text);
GRANT INSERT ON loot TO PUBLIC;
CREATE FUNCTION lift(mask text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.unmask_pii(mask); END $$;
CREATE MATERIALIZED VIEW lifted AS SELECT lift('MTAuMC4wLjE=') AS v WITH NO DATA;
SELECT error_of('REFRESH MATERIALIZED VIEW lifted');
CREATE TABLE masks AS SELECT 'MTAuMC4wLjE='::text AS mask;
SELECT error_of('CREATE INDEX ON masks (lift(mask))');
SELECT lift('MTAuMC4wLjE=');
DROP MATERIALIZED VIEW lifted;
DROP TABLE loot, masks;
DROP FUNCTION lift;
-- Rows that a LIMIT leaves out are not unmasked, also where it comes after a sort.
CREATE TABLE many AS SELECT n, mask_pii(n::text) AS mask FROM generate_series(1, 100) n;
SET pg_mask.unmask_limit = 2;
SELECT n, unmask_pii(mask) FROM many ORDER BY n DESC LIMIT 2;
RESET pg_mask.unmask_limit;
DROP TABLE many;
