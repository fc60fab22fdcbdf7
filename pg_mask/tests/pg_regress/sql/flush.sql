-- How rows get into the target: by COPY where that is possible, by INSERT elsewhere. Both store and reject the same.
CREATE TABLE t_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
CREATE TABLE t (v text, mask text, day date, id uuid UNIQUE);
-- What Postgres itself says about the way that rows took.
CREATE TABLE ways (way text);
GRANT INSERT ON ways TO PUBLIC;
CREATE FUNCTION way() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- Or else it says all along what it said first in the transaction.
    PERFORM pg_stat_clear_snapshot();
    INSERT INTO ways SELECT CASE WHEN EXISTS (SELECT FROM pg_stat_progress_copy WHERE relid = TG_RELID AND pid = pg_backend_pid())
        THEN 'copy' ELSE 'insert' END WHERE EXISTS (SELECT FROM inserted);
    RETURN NULL;
END $$;
CREATE TRIGGER way AFTER INSERT ON t REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION way();
CREATE FUNCTION way_taken() RETURNS text LANGUAGE sql AS $$ WITH taken AS (DELETE FROM ways RETURNING way) SELECT string_agg(DISTINCT way, ', ') FROM taken $$;
CREATE FUNCTION attach_t(flush text, target text DEFAULT 't') RETURNS void LANGUAGE sql AS
$$ SELECT attach_inbox('t_inbox', target, 't_rejects', '{"v": {"copy": "v"}, "mask": {"mask": "v"}, "day": "sent_date", "id": "message_id"}', flush) $$;
CREATE FUNCTION two(n integer) RETURNS void LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO t_inbox SELECT id(m), now(), format('{"v":"v%s"}', m) FROM generate_series(n, n + 1) m; END $$;
SELECT attach_t('auto');
SELECT two(1);
SELECT way_taken();
SELECT attach_t('insert');
SELECT two(3);
SELECT way_taken();
SELECT attach_t('copy');
SELECT two(5);
SELECT way_taken();
SELECT error_of($$SELECT attach_t('quickly')$$);
-- A row alone goes by INSERT.
INSERT INTO t_inbox VALUES (id(7), now(), '{"v":"v7"}');
SELECT way_taken();
SELECT count(*), count(DISTINCT id), bool_and(unmask_pii(mask) = v) FROM t;
-- Duplicates: in the batch, where the first counts, and of what is in the table; rows without an id are no duplicates.
TRUNCATE t;
SELECT attach_t('copy');
INSERT INTO t_inbox VALUES (id(2), now(), '{"v":"first"}'), (id(1), now(), '{"v":"1"}'), (id(2), now(), '{"v":"second"}'), (NULL, now(), '{"v":"none"}'), (NULL, now(), '{"v":"none"}');
TABLE counts;
SELECT v, id FROM t ORDER BY id, v;
INSERT INTO t_inbox SELECT id(n), now(), '{"v":"again"}' FROM generate_series(2, 5) n UNION ALL SELECT NULL, now(), '{"v":"none"}';
TABLE counts;
SELECT v, count(*) FROM t GROUP BY v ORDER BY v;
SELECT way_taken();
-- … in a later chunk of the same statement, all of a batch, and again with nothing new at all: by COPY too, which looks for
-- them once it ran into one.
TRUNCATE t;
INSERT INTO t_inbox SELECT id(n % 27000), now(), '{"v":"v"}' FROM generate_series(1, 60000) n;
TABLE counts;
INSERT INTO t_inbox SELECT id(n % 27000), now(), '{"v":"v"}' FROM generate_series(1, 60000) n;
TABLE counts;
SELECT count(*), count(DISTINCT id) FROM t;
SELECT way_taken();
-- A constraint of another kind than the message id's refuses the culprits alone: those go by INSERT, each by itself.
TRUNCATE t, t_rejects;
ALTER TABLE t ADD CONSTRAINT not_bad CHECK (v <> 'bad'), ADD CONSTRAINT once UNIQUE (v);
SELECT attach_t('copy');
INSERT INTO t_inbox SELECT id(n), now(), format('{"v":"%s"}', CASE n WHEN 700 THEN 'bad' WHEN 4000 THEN 'bad' WHEN 4999 THEN 'v1' ELSE 'v' || n END) FROM generate_series(1, 5000) n;
TABLE counts;
WITH gone AS (DELETE FROM t_rejects RETURNING message_id, reason) SELECT * FROM gone ORDER BY 1;
SELECT way_taken();
-- A redelivery of what a newer constraint refuses is still a duplicate.
ALTER TABLE t ADD CONSTRAINT newer CHECK (v <> 'v2') NOT VALID;
SELECT two(1);
TABLE counts;
ALTER TABLE t DROP CONSTRAINT newer, DROP CONSTRAINT not_bad, DROP CONSTRAINT once;
-- Every type of column, through its own functions where it needs them: the same as by INSERT.
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN short AS varchar(4) CHECK (VALUE <> 'no');
CREATE TABLE types (t text, v varchar(5), c char(3), i2 smallint, i4 integer, i8 bigint, n numeric(6, 2), f double precision, b boolean, d date, ts timestamptz(0),
    u uuid, ip inet, net cidr, j jsonb, js json, m mood, s short, tags text[], r int4range, iv interval, by bytea, bits bit(4), mac macaddr, q tsquery, p point,
    version4 integer, version8 bigint, versionn numeric, sent_date date, sent_at timestamptz, "message id" uuid UNIQUE, untouched integer DEFAULT 7, sum integer GENERATED ALWAYS AS (version4 + 1) STORED);
CREATE TABLE types_by_insert (LIKE types INCLUDING ALL);
CREATE TRIGGER way AFTER INSERT ON types REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION way();
SELECT format('{"t":{"copy":"t"},"v":{"copy":"v"},"c":{"copy":"c"},"i2":{"copy":"i2"},"i4":{"copy":"i4"},"i8":{"copy":"i8"},"n":{"copy":"n"},"f":{"copy":"f"},"b":{"copy":"b"},"d":{"copy":"d"},
    "ts":{"copy":"ts"},"u":{"copy":"u"},"ip":{"copy":"ip"},"net":{"copy":"ip"},"j":{"copy":"j"},"js":{"copy":"j"},"m":{"copy":"m"},"s":{"copy":"v"},"tags":{"copy":"tags"},"r":{"copy":"r"},
    "iv":{"copy":"iv"},"by":{"copy":"by"},"bits":{"copy":"bits"},"mac":{"copy":"mac"},"q":{"copy":"q"},"p":{"copy":"p"},"version4":{"version":"version"},
    "version8":{"version":"version"},"versionn":{"version":"version"},"sent_date":"sent_date","sent_at":"sent_at","message id":"message_id"}') AS rules \gset
SELECT attach_inbox('types_inbox', 'types', 't_rejects', :'rules', 'copy'), attach_inbox('types_by_insert_inbox', 'types_by_insert', 't_rejects', :'rules', 'insert');
CREATE TABLE typed (n integer, body text);
INSERT INTO typed VALUES (1, '{}'), (2, '{"t":null,"j":null}'),
    (3, '{"t":"grüße 😀","v":"1234","c":"é","i2":-32768,"i4":"42","i8":9223372036854775807,"n":1234.567,"f":1e-3,"b":"yes","d":"2026-02-28","ts":"2026-02-28T10:00:00.7Z","u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11","ip":"10.1.0.0/16","j":{"b":[1,2.50,null],"a":"\u00e9"},"m":"ok","tags":"{a,NULL,\"b c\"}","r":"[1,5)","iv":"1 day","by":"\\xdead","bits":"1010","mac":"08:00:2b:01:02:03","q":"a & b","p":"(1,2)","version":"1.2.3"}'),
    (4, '{"t":"","v":"","c":"   ","i2":"-0","n":0,"f":"-infinity","b":false,"d":"infinity","ts":"-infinity","j":"a string","tags":"{}","r":"empty","by":"","version":"0"}'),
    (5, '{"v":"123  ","v":"no"}'), (6, '{"i2":32768}'), (7, '{"m":"happy"}'), (8, '{"bits":"10"}'), (9, '{"j":{"a":"\u0000"}}'), (10, '{"p":"<"}'), (11, '{"net":1,"ip":"10.1.2.3/16"}'), (12, '{"tags":"{"}'),
    (13, '{"n":99999.9}'), (14, '{"s":1,"v":"12345"}'), (15, '{"q":"& &"}');
INSERT INTO types_inbox SELECT id(n), '2026-03-01 12:00:00+00', body FROM typed;
TABLE counts;
WITH gone AS (DELETE FROM t_rejects RETURNING message_id, reason) SELECT * FROM gone ORDER BY 1;
INSERT INTO types_by_insert_inbox SELECT id(n), '2026-03-01 12:00:00+00', body FROM typed;
TABLE counts;
WITH gone AS (DELETE FROM t_rejects RETURNING message_id, reason) SELECT * FROM gone ORDER BY 1;
SELECT count(*) FROM types;
(SELECT types::text FROM types EXCEPT ALL SELECT types_by_insert::text FROM types_by_insert) UNION ALL (SELECT types_by_insert::text FROM types_by_insert EXCEPT ALL SELECT types::text FROM types);
SELECT untouched, sum FROM types WHERE version4 = 123;
TRUNCATE types, ways;
INSERT INTO types_inbox SELECT id(n), '2026-03-01 12:00:00+00', body FROM typed WHERE n <= 4;
SELECT way_taken();
-- The client's encoding is not that of the events.
TRUNCATE t;
SET client_encoding = 'LATIN1';
SELECT attach_t('auto');
INSERT INTO t_inbox SELECT id(n), now(), format('{"v":"%s"}', repeat(chr(8364), n)) FROM generate_series(1, 3) n;
RESET client_encoding;
SELECT v, unmask_pii(mask) FROM t ORDER BY id;
-- A type that changes between two chunks of a statement, by the very session: the bytes are not taken for the new type's.
TRUNCATE t;
CREATE FUNCTION alter_in_mid_statement(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF n = 29000 THEN ALTER TABLE t ALTER COLUMN v TYPE integer USING 1; END IF;
    RETURN '{"v":"1234"}';
END $$;
SELECT error_of('INSERT INTO t_inbox SELECT id(n), now(), alter_in_mid_statement(n) FROM generate_series(1, 30000) n');
SELECT count(*) FROM t;
ALTER TABLE t ALTER COLUMN v TYPE integer USING 1;
SELECT two(1);
INSERT INTO t_inbox VALUES (id(3), now(), '{"v":"1234"}'), (id(4), now(), '{"v":"5"}');
SELECT v, unmask_pii(mask) FROM t ORDER BY id;
ALTER TABLE t ALTER COLUMN v TYPE text;
TRUNCATE t_rejects;
DROP FUNCTION alter_in_mid_statement;
-- The unique index that goes between two chunks: COPY would store a redelivered message again.
TRUNCATE t;
CREATE FUNCTION drop_in_mid_statement(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF n = 29000 THEN ALTER TABLE t DROP CONSTRAINT t_id_key; END IF;
    RETURN '{"v":"a"}';
END $$;
INSERT INTO t_inbox VALUES (id(30000), now(), '{"v":"a"}');
SELECT error_of('INSERT INTO t_inbox SELECT id(n), now(), drop_in_mid_statement(n) FROM generate_series(1, 30000) n');
SELECT count(*) FROM t;
DROP FUNCTION drop_in_mid_statement;
-- A trigger of the target that puts rows into another inbox, so that one COPY is within another, within a third.
TRUNCATE t, ways;
CREATE TABLE inner_t (v text, id uuid UNIQUE);
SELECT attach_inbox('inner_inbox', 'inner_t', 't_rejects', '{"v": {"mask": "v"}, "id": "message_id"}', 'copy');
CREATE FUNCTION pass_on() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.inner_inbox SELECT md5(n || NEW.v)::uuid, now(), format('{"v":"%s-%s"}', NEW.v, n) FROM generate_series(1, 3) n;
    RETURN NULL;
END $$;
CREATE TRIGGER pass_on AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION pass_on();
COPY t_inbox FROM stdin;
00000000-0000-0000-0000-000000000001	2026-03-01 00:00:00+00	{"v":"a"}
00000000-0000-0000-0000-000000000002	2026-03-01 00:00:00+00	{"v":"b"}
\.
SELECT v FROM t ORDER BY v;
SELECT unmask_pii(v) FROM inner_t ORDER BY 1;
DROP TRIGGER pass_on ON t;
-- The first COPY of a session reads back what it wrote. Rows that are not there go by INSERT, which a trigger after it does not undo.
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM public.t WHERE id = NEW.id; RETURN NULL; END $$;
CREATE TRIGGER swallow AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT attach_t('copy');
BEGIN;
SELECT error_of('SELECT two(11)');
TABLE counts;
ROLLBACK;
DROP TRIGGER swallow ON t;
CREATE TABLE parts (v text, mask text, day date, id uuid, UNIQUE (day, id)) PARTITION BY RANGE (day);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TRIGGER way AFTER INSERT ON parts REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION way();
SELECT attach_t('copy', 'parts');
-- Rows that a trigger swallows are rejects, also without an id: here a trigger that comes in mid-statement, after the first chunk.
CREATE OR REPLACE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION swallow_from(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF n = 29000 THEN CREATE TRIGGER swallow BEFORE INSERT ON part_2 FOR EACH ROW EXECUTE FUNCTION swallow(); END IF;
    RETURN '{"v":"v"}';
END $$;
BEGIN;
SELECT error_of($$INSERT INTO t_inbox SELECT id(n), '2026-01-01 00:00:00+00'::timestamptz + n % 2 * interval '31 days', swallow_from(n) FROM generate_series(1, 30000) n$$);
TABLE counts;
SELECT reason, count(*) FROM t_rejects GROUP BY 1;
ROLLBACK;
BEGIN;
SELECT error_of($$INSERT INTO t_inbox SELECT NULL, '2026-01-01 00:00:00+00'::timestamptz + n % 2 * interval '31 days', swallow_from(n) FROM generate_series(1, 30000) n$$);
TABLE counts;
SELECT reason, count(*) FROM t_rejects GROUP BY 1;
ROLLBACK;
SELECT count(*) FROM parts;
DROP FUNCTION swallow_from;
-- Partitions: the same id on two days is two messages, on one day one; rows that no partition takes are rejects.
TRUNCATE ways, t_rejects;
INSERT INTO t_inbox SELECT id(n / 3), '2026-01-01 12:00:00+00'::timestamptz + n % 3 * interval '20 days', '{"v":"v"}' FROM generate_series(0, 29) n;
TABLE counts;
INSERT INTO t_inbox SELECT id(n / 3), '2026-01-01 12:00:00+00'::timestamptz + n % 3 * interval '20 days', '{"v":"v"}' FROM generate_series(0, 35) n;
TABLE counts;
INSERT INTO t_inbox SELECT id(n), '2026-02-28 12:00:00+00'::timestamptz + n * interval '1 day', '{"v":"v"}' FROM generate_series(0, 3) n;
TABLE counts;
SELECT tableoid::regclass, day, count(*) FROM parts GROUP BY 1, 2 ORDER BY 2;
SELECT DISTINCT reason FROM t_rejects;
SELECT way_taken();
-- What keeps COPY away: each is said, and is an error where the definition asks for COPY.
CREATE FUNCTION obstacle(target text DEFAULT 't') RETURNS text LANGUAGE sql AS $$ SELECT split_part(error_of(format('SELECT attach_t(''copy'', %L)', target)), E'\n', 1) $$;
SELECT obstacle();
CREATE RULE quiet AS ON INSERT TO t WHERE NEW.v = 'x' DO ALSO NOTHING;
SELECT obstacle();
SELECT attach_t('auto');
SELECT two(21);
SELECT way_taken();
DROP RULE quiet ON t;
CREATE VIEW over_t AS SELECT * FROM t;
SELECT obstacle('over_t');
CREATE TRIGGER before_row BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT obstacle();
DROP TRIGGER before_row ON t;
CREATE TRIGGER before_row BEFORE INSERT ON part_2 FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT obstacle('parts');
DROP TRIGGER before_row ON part_2;
-- What was moved to a table that inherits is not found by the index: the same comes again and is stored, as by INSERT.
CREATE TABLE heir () INHERITS (t);
SELECT obstacle();
DROP TABLE heir;
CREATE DOMAIN given AS text CHECK (VALUE IS NOT NULL);
ALTER TABLE t ADD COLUMN unfilled given DEFAULT 'x';
SELECT obstacle();
ALTER TABLE t ALTER COLUMN unfilled DROP DEFAULT;
SELECT obstacle();
SELECT attach_t('auto');
SELECT two(25);
TABLE counts;
SELECT reason FROM t_rejects WHERE message_id = id(25);
ALTER TABLE t DROP COLUMN unfilled;
DROP DOMAIN given;
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE TABLE some_parts (LIKE parts) PARTITION BY RANGE (day);
CREATE FOREIGN TABLE far PARTITION OF some_parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01') SERVER elsewhere;
SELECT attach_inbox('t_inbox', 'some_parts', 't_rejects', '{"v": {"copy": "v"}}', 'copy');
DROP SERVER elsewhere CASCADE;
DROP FOREIGN DATA WRAPPER nowhere;
CREATE ACCESS METHOD heap2 TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE other_heap (v text, mask text, day date, id uuid UNIQUE) USING heap2;
SELECT obstacle('other_heap');
DROP ACCESS METHOD heap2 CASCADE;
-- A type without a binary form, or with one that is not the whole of it, and what is made of such types.
CREATE TYPE pair AS (a text, b aclitem);
CREATE FUNCTION binary_form(type text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE typed_so (v %s)', type);
    PERFORM attach_inbox('typed_so_inbox', 'typed_so', 't_rejects', '{"v": {"copy": "v"}}', 'copy');
    RAISE SQLSTATE 'UNDOI' USING MESSAGE = 'yes';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLERRM;
END $$;
SELECT type, binary_form(type) FROM unnest(ARRAY['aclitem', 'aclitem[]', 'pair', 'xml', 'text[]', 'int4range', 'int4multirange', 'short[]', 'timestamp']) type;
DROP TYPE pair;
DROP FUNCTION binary_form;
TRUNCATE t_rejects;
CREATE TABLE acl (a aclitem, id uuid UNIQUE);
SELECT attach_inbox('t_inbox', 'acl', 't_rejects', '{"a": {"copy": "a"}, "id": "message_id"}', 'copy');
SELECT attach_inbox('t_inbox', 'acl', 't_rejects', '{"a": {"copy": "a"}, "id": "message_id"}');
INSERT INTO t_inbox VALUES (id(1), now(), '{"a":"=r/postgres"}'), (id(2), now(), '{"a":"SECRET"}');
TABLE counts;
-- An index on the message id and the time: each message has a time of its own.
CREATE TABLE timed (v text, at timestamptz, id uuid, UNIQUE (at, id));
SELECT attach_inbox('t_inbox', 'timed', 't_rejects', '{"v": {"copy": "v"}, "at": "sent_at", "id": "message_id"}', 'copy');
INSERT INTO t_inbox SELECT id(n), '2026-03-01 00:00:00+00'::timestamptz + n * interval '1 second', '{"v":"v"}' FROM generate_series(1, 30000) n;
INSERT INTO t_inbox SELECT id(n), '2026-03-01 00:00:00+00'::timestamptz + n % 20000 * interval '1 second', '{"v":"v"}' FROM generate_series(1, 30000) n;
TABLE counts;
-- Tables that an extension stores in its own way, by stand-ins for the catalogs of Citus and TimescaleDB.
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass);
SELECT obstacle();
INSERT INTO pg_dist_partition VALUES ('t');
SELECT obstacle();
SELECT attach_t('auto');
SELECT two(23);
SELECT way_taken();
-- … also where it is claimed between two chunks of a statement.
DELETE FROM pg_dist_partition;
SELECT attach_t('auto');
TRUNCATE t;
CREATE FUNCTION claim_from(n integer) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF n = 29000 THEN INSERT INTO pg_dist_partition VALUES ('t'); COMMENT ON TABLE t IS 'claimed'; ALTER TABLE t SET (fillfactor = 90); END IF;
    RETURN '{"v":"v"}';
END $$;
INSERT INTO t_inbox SELECT id(n), now(), claim_from(n) FROM generate_series(1, 30000) n;
TABLE counts;
SELECT way, count(*) FROM ways GROUP BY 1 ORDER BY 1;
TRUNCATE t, ways;
DROP FUNCTION claim_from;
DROP TABLE pg_catalog.pg_dist_partition;
RESET allow_system_table_mods;
CREATE SCHEMA _timescaledb_catalog;
CREATE TABLE _timescaledb_catalog.hypertable (schema_name name, table_name name);
INSERT INTO _timescaledb_catalog.hypertable VALUES ('public', 'other'), ('other', 't');
SELECT obstacle();
INSERT INTO _timescaledb_catalog.hypertable VALUES ('public', 't');
SELECT obstacle();
-- One that the inbox's owner may not read says nothing, and so nobody says that the table is not in it.
CREATE ROLE flusher;
GRANT CREATE, USAGE ON SCHEMA public TO flusher;
GRANT INSERT, SELECT ON t, t_rejects, ways TO flusher;
TRUNCATE _timescaledb_catalog.hypertable;
DROP VIEW t_inbox;
SET ROLE flusher;
SELECT obstacle();
RESET ROLE;
GRANT USAGE ON SCHEMA _timescaledb_catalog TO flusher;
SET ROLE flusher;
SELECT obstacle();
RESET ROLE;
GRANT SELECT ON _timescaledb_catalog.hypertable TO flusher;
SET ROLE flusher;
SELECT obstacle();
RESET ROLE;
-- One that somebody else made is none: reading it could run what they put in it.
ALTER TABLE _timescaledb_catalog.hypertable OWNER TO flusher;
INSERT INTO _timescaledb_catalog.hypertable VALUES ('public', 't');
SET ROLE flusher;
SELECT obstacle();
RESET ROLE;
DROP TABLE _timescaledb_catalog.hypertable;
CREATE VIEW _timescaledb_catalog.hypertable AS SELECT 1 / 0 AS schema_name, 1 AS table_name;
DROP VIEW t_inbox;
SET ROLE flusher;
SELECT obstacle();
RESET ROLE;
-- Where Postgres does not count, nobody could say what COPY wrote.
SET track_counts = off;
SELECT two(27);
SELECT way_taken();
RESET track_counts;
SELECT two(29);
SELECT way_taken();
DROP SCHEMA _timescaledb_catalog CASCADE;
-- Rights are those of the inbox's owner, to the columns that the rules fill, and looked at in each flush.
REVOKE INSERT ON t FROM flusher;
SELECT error_of('SELECT two(31)');
GRANT INSERT (v, mask, id) ON t TO flusher;
SELECT error_of('SELECT two(31)');
GRANT INSERT (day) ON t TO flusher;
SELECT error_of('SELECT two(31)');
SELECT way_taken();
REVOKE SELECT ON t FROM flusher;
SELECT error_of('SELECT two(33)');
-- Row-level security for the owner keeps COPY away, also where it comes after the inbox.
GRANT SELECT ON t TO flusher;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SELECT error_of('SELECT two(33)');
CREATE POLICY few ON t TO flusher USING (true) WITH CHECK (v <> 'v34');
SET ROLE flusher;
SELECT attach_t('auto');
SELECT obstacle();
RESET ROLE;
SELECT two(33);
TABLE counts;
SELECT way_taken();
ALTER TABLE t DISABLE ROW LEVEL SECURITY;
-- A transaction that may only read writes nothing, also through a temporary inbox, which it may insert into.
DROP VIEW t_inbox;
SELECT attach_inbox('pg_temp.t_inbox', 't', 't_rejects', '{"v": {"copy": "v"}, "id": "message_id"}', 'copy');
BEGIN READ ONLY;
INSERT INTO pg_temp.t_inbox VALUES (id(41), now(), '{"v":"41"}'), (id(42), now(), '{"v":"42"}');
ROLLBACK;
-- … but it may write into a temporary table.
CREATE TEMP TABLE temp_t (v text, id uuid UNIQUE);
CREATE TEMP TABLE temp_rejects (LIKE t_rejects INCLUDING ALL);
SELECT attach_inbox('temp_inbox', 'temp_t', 'temp_rejects', '{"v": {"copy": "v"}, "id": "message_id"}', 'copy');
BEGIN READ ONLY;
INSERT INTO pg_temp.temp_inbox VALUES (id(41), now(), '{"v":"41"}'), (id(42), now(), '{"v":"42"}');
COMMIT;
SELECT count(*) FROM temp_t;
DROP VIEW pg_temp.temp_inbox, pg_temp.t_inbox;
DROP TABLE temp_t, temp_rejects;
DROP OWNED BY flusher;
DROP ROLE flusher;
DROP VIEW types_inbox, types_by_insert_inbox, inner_inbox, over_t;
DROP TABLE t, t_rejects, ways, types, types_by_insert, typed, inner_t, parts, some_parts, acl, timed CASCADE;
DROP TYPE mood;
DROP DOMAIN short;
DROP FUNCTION way, way_taken, attach_t, two, pass_on, swallow, obstacle;
-- Either way reads and refuses the same, with a type's modifier, and NULL where a domain refuses it.
SET client_min_messages = error;
CREATE DOMAIN given AS text NOT NULL;
CREATE DOMAIN given_too AS text CHECK (VALUE IS NOT NULL);
CREATE TABLE by_insert (hours interval hour, years interval year, bits bit(3), sum numeric(4, 1), at timestamptz(0), a given, b given_too, id uuid UNIQUE);
CREATE TABLE by_insert_rejects (LIKE login_rejects INCLUDING ALL);
CREATE TABLE by_copy (LIKE by_insert INCLUDING ALL);
CREATE TABLE by_copy_rejects (LIKE login_rejects INCLUDING ALL);
SELECT attach_inbox('inbox_' || name, name, name || '_rejects', '{"hours": {"copy": "i"}, "years": {"copy": "i"}, "bits": {"copy": "bits"}, "sum": {"copy": "sum"}, "at": {"copy": "at"}, "a": {"copy": "a"}, "b": {"copy": "b"}, "id": "message_id"}', flush => split_part(name, '_', 2))
FROM (VALUES ('by_insert'), ('by_copy')) AS v(name);
RESET client_min_messages;
CREATE TABLE odd AS SELECT id(n) AS id, now() AS sent_at, body FROM (VALUES
    (1, '{"i": "5", "bits": "101", "sum": "123.45", "at": "2026-01-01 00:00:00.7 UTC", "a": "x", "b": "y"}'), (2, '{"i": "7", "a": "x", "b": "y"}'),
    (3, '{"bits": "10", "a": "x", "b": "y"}'), (4, '{"sum": "12345", "a": "x", "b": "y"}'), (5, '{"b": "y"}'), (6, '{"a": "x"}'), (7, '{"a": "x", "b": "y"}')) AS v(n, body);
INSERT INTO inbox_by_insert SELECT * FROM odd;
INSERT INTO inbox_by_copy SELECT * FROM odd;
TABLE by_insert ORDER BY id;
(TABLE by_insert EXCEPT TABLE by_copy) UNION ALL (TABLE by_copy EXCEPT TABLE by_insert);
SELECT reason FROM by_insert_rejects ORDER BY message_id;
SELECT message_id, reason FROM by_insert_rejects EXCEPT SELECT message_id, reason FROM by_copy_rejects;
-- Whatever the columns of a table are called: none is taken for a part of a statement.
SET client_min_messages = error;
CREATE TABLE named (v1 uuid, v text, n text, t text, id uuid UNIQUE);
SELECT attach_inbox('named_inbox', 'named', 'by_copy_rejects', '{"v1": {"copy": "v1"}, "v": {"copy": "v"}, "n": {"copy": "n"}, "t": {"copy": "t"}, "id": "message_id"}');
RESET client_min_messages;
INSERT INTO named_inbox VALUES (id(1), now(), format('{"v1": "%s", "v": "v", "n": "n", "t": "t"}', id(1)));
INSERT INTO named_inbox VALUES (id(1), now(), '{}'), (id(2), now(), '{"v": "2"}');
TABLE counts;
INSERT INTO named_inbox VALUES (id(3), now(), '{}'), (id(4), now(), '{}');
TABLE counts;
TABLE named;
SET client_min_messages = error;
DROP TABLE by_insert, by_insert_rejects, by_copy, by_copy_rejects, odd, named CASCADE;
DROP DOMAIN given, given_too;
RESET client_min_messages;
-- A policy that reads a row of the target can fail with a value of it, while a refused row is looked up. It is not quoted.
CREATE ROLE veiled_owner;
CREATE SCHEMA veiled AUTHORIZATION veiled_owner;
SET ROLE veiled_owner;
CREATE TABLE veiled.t (v text, n integer, id uuid UNIQUE);
CREATE TABLE veiled.rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('veiled.inbox', 'veiled.t', 'veiled.rejects', '{"v": {"copy": "v"}, "n": {"copy": "n"}, "id": "message_id"}');
INSERT INTO veiled.inbox VALUES (id(1), now(), '{"v": "STORED", "n": 1}');
ALTER TABLE veiled.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY writes ON veiled.t FOR INSERT WITH CHECK (true);
CREATE POLICY reads ON veiled.t FOR SELECT USING (v::inet IS NOT NULL);
SELECT error_of($$INSERT INTO veiled.inbox VALUES (id(1), now(), '{"v": "10.0.0.1", "n": "x"}')$$);
RESET ROLE;
SET client_min_messages = error;
DROP SCHEMA veiled CASCADE;
DROP ROLE veiled_owner;
RESET client_min_messages;
