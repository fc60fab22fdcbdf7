-- The application's schema, as its users make it. Every file can run twice.
\set ON_ERROR_STOP on
SET client_min_messages = error;
\getenv sources PG_ABS_SRCDIR
\set extension :sources '/../../../sql/01_extension.sql'
\set tables :sources '/../../../sql/02_tables.sql'
\set inbox :sources '/../../../sql/03_inbox.sql'
\set roles :sources '/../../../sql/04_roles.sql'
\set ECHO none
\o /dev/null
\i :extension
\i :tables
\i :inbox
\i :roles
\i :extension
\i :tables
\i :inbox
\i :roles
\o
\set ECHO all
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = 'user_logins'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = 'login_rejects'::regclass AND attnum > 0 ORDER BY attnum;
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = 'login_inbox'::regclass AND attnum > 0 ORDER BY attnum;
-- All that the extension brings.
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result, provolatile, proparallel, proisstrict,
       prosecdef, has_function_privilege('public', p.oid, 'EXECUTE') AS public
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'pg_mask' ORDER BY 1::text;
-- For the other tests: the SQLSTATE, message, detail and hint that a statement ends with.
CREATE FUNCTION error_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'none';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(E'\n', SQLSTATE || ' ' || SQLERRM, 'DETAIL ' || nullif(detail, ''), 'HINT ' || nullif(hint, ''));
END
$$;
-- The counts of the last inbox statement without its number.
CREATE VIEW counts AS SELECT stored, duplicate, rejected FROM inbox_counts();
-- The message with this number.
CREATE FUNCTION id(n integer) RETURNS uuid LANGUAGE sql AS $$ SELECT lpad(n::text, 32, '0')::uuid $$;
