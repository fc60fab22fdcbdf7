SELECT mask_pii('199.172.111.135'), mask_pii(''), mask_pii('grüße'), mask_pii(NULL) IS NULL AS null_stays_null;
SELECT unmask_pii('MTk5LjE3Mi4xMTEuMTM1'), unmask_pii('') = '' AS empty, unmask_pii(mask_pii('grüße')), unmask_pii(NULL) IS NULL AS null_stays_null;
-- The same as Postgres's own base64, which breaks lines.
SELECT count(*) AS differ FROM generate_series(0, 500) n, repeat('é', n) AS value
WHERE mask_pii(value) <> replace(encode(convert_to(value, 'UTF8'), 'base64'), E'\n', '');
-- Equal masks for equal values, and only for them.
SELECT count(DISTINCT mask_pii(value)) = count(DISTINCT value) AS one_to_one FROM (SELECT md5((n % 700)::text) AS value FROM generate_series(1, 2000) n) s;
-- What no scheme made is an error with its SQLSTATE, which does not quote it.
SELECT error_of('SELECT unmask_pii(''199.172.111.135'')');
SELECT count(*), count(DISTINCT error) FROM (VALUES ('Zg'), ('Zh=='), (' Zg=='), ('Z-_='), ('/w=='), ('AA=='), ('$sv$Zg'), ('é')) t(token),
    error_of(format('SELECT unmask_pii(%L)', token)) AS error WHERE error LIKE '22023 %' AND error NOT LIKE '%' || token || '%';
-- Parallel safe: a parallel plan gives the same.
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2;
CREATE TABLE plain (value text);
INSERT INTO plain SELECT (n % 100)::text FROM generate_series(1, 1000) n;
ANALYZE plain;
EXPLAIN (COSTS OFF) SELECT count(mask_pii(value)), max(mask_pii(value) COLLATE "C") FROM plain;
SELECT count(mask_pii(value)), max(mask_pii(value) COLLATE "C") FROM plain;
DROP TABLE plain;
-- Only a UTF8 database takes the extension.
CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
\c latin
-- Postgres 18 also says in which statement of the script it is.
\set SHOW_CONTEXT never
CREATE EXTENSION pg_mask;
\c regression
DROP DATABASE latin;
-- In a schema of its own it works as well, and finds itself.
CREATE SCHEMA masks;
CREATE DATABASE elsewhere ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0;
\c elsewhere
CREATE SCHEMA masks;
CREATE EXTENSION pg_mask SCHEMA masks;
CREATE TABLE target (v text, id uuid UNIQUE);
CREATE TABLE rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT masks.attach_inbox('inbox', 'target', 'rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
INSERT INTO inbox (body) VALUES ('{"v": "1"}');
SELECT masks.unmask_pii(v) FROM target;
\c regression
DROP DATABASE elsewhere;
DROP SCHEMA masks;
