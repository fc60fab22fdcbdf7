-- An inbox for a table of one's own, with columns of every common type.
CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
CREATE TABLE readings (
    id uuid PRIMARY KEY, t text, v varchar(5), c char(3), i2 smallint, i4 integer, i8 bigint, n numeric(6, 2), f double precision,
    b boolean, d date, ts timestamptz, u uuid, ip inet, j jsonb, js json, p percent, tags text[],
    secret text, version bigint, sent_date date, sent_at timestamptz, untouched integer DEFAULT 7,
    CHECK (i4 <> 13), UNIQUE (i8)
);
CREATE TABLE reading_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SELECT attach_inbox('reading_inbox', 'readings', 'reading_rejects', '{
    "id": "message_id", "t": {"copy": "t"}, "v": {"copy": "v"}, "c": {"copy": "c"}, "i2": {"copy": "i2"}, "i4": {"copy": "i4"},
    "i8": {"copy": "i8"}, "n": {"copy": "n"}, "f": {"copy": "f"}, "b": {"copy": "b"}, "d": {"copy": "d"}, "ts": {"copy": "ts"},
    "u": {"copy": "u"}, "ip": {"copy": "ip"}, "j": {"copy": "j"}, "js": {"copy": "j"}, "p": {"copy": "p"}, "tags": {"copy": "tags"},
    "secret": {"mask": "t"}, "version": {"version": "version"}, "sent_date": "sent_date", "sent_at": "sent_at"}');
INSERT INTO reading_inbox VALUES (id(1), '2026-03-01 12:00:00+00', '{"t":"text","v":"12345","c":"x","i2":-32768,"i4":"42","i8":9223372036854775807,
    "n":1234.567,"f":1e-3,"b":"yes","d":"2026-02-28","ts":"2026-02-28T10:00:00Z","u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
    "ip":"2001:db8::/32","j":{"b":[1,2.50,null],"a":"\u00e9"},"p":100,"tags":"{a,b}","version":"1.2.3"}');
SET timezone = 'UTC';
\x on
SELECT * FROM readings;
\x off
RESET timezone;
-- Whatever a type, constraint or trigger refuses becomes a reject by itself; the others are stored.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.t = 'refused' THEN RAISE EXCEPTION 'not this one: %', NEW.t; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE TABLE parents (u uuid PRIMARY KEY);
ALTER TABLE readings ADD CONSTRAINT parent FOREIGN KEY (u) REFERENCES parents NOT VALID;
CREATE INDEX long_texts ON readings (t);
CREATE TABLE bad (n serial, body text);
INSERT INTO bad (body) VALUES
    ('{"i2":32768}'), ('{"i4":"SECRET"}'), ('{"i4":13}'), ('{"i8":9223372036854775807}'), ('{"n":12345.6}'), ('{"f":"SECRET"}'), ('{"b":"SECRET"}'),
    ('{"d":"2026-02-30"}'), ('{"ts":"SECRET"}'), ('{"u":"SECRET"}'), ('{"u":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12"}'), ('{"ip":"300.1.1.1"}'),
    ('{"j":{"SECRET":"\u0000"}}'), ('{"p":101}'), ('{"tags":"SECRET"}'), ('{"t":"refused"}'), ('{"v":"123456"}'), ('{"c":"1234"}'),
    (format('{"t":"%s"}', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) n)));
INSERT INTO reading_inbox SELECT id(1000 + n), now(), '{"t":"good"}' FROM generate_series(1, 100) n UNION ALL SELECT id(100 + n), now(), body FROM bad
    UNION ALL SELECT id(2000 + n), now(), '{"t":"good"}' FROM generate_series(1, 100) n;
TABLE counts;
SELECT count(*) FROM readings WHERE t = 'good';
SELECT left(body, 40) AS body, reason FROM bad JOIN reading_rejects ON message_id = id(100 + n) ORDER BY n;
SELECT count(*) AS quoting FROM reading_rejects WHERE reason ~ 'SECRET|not this one';
SELECT count(*) FILTER (WHERE unmask_pii(masked_body) <> body) AS altered FROM bad JOIN reading_rejects ON message_id = id(100 + n);
-- All rows bad, more than a chunk.
TRUNCATE readings, reading_rejects;
INSERT INTO reading_inbox SELECT id(n), now(), '{"i4":"x"}' FROM generate_series(1, 30000) n;
TABLE counts;
-- A row that a trigger swallows would be an event lost: it is a reject.
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.t = 'swallowed' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON readings FOR EACH ROW EXECUTE FUNCTION swallow();
SELECT error_of($$INSERT INTO reading_inbox VALUES (id(1), now(), '{"t":"good"}'), (id(2), now(), '{"t":"swallowed"}')$$);
-- … with or without a message id.
SELECT error_of($$INSERT INTO reading_inbox VALUES (NULL, now(), '{"t":"swallowed"}')$$);
SELECT error_of($$INSERT INTO reading_inbox VALUES (NULL, now(), '{"t":"good"}'), (id(2), now(), '{"t":"good"}'), (NULL, now(), '{"t":"swallowed"}')$$);
SELECT count(*) FROM readings;
SELECT reason, count(*) FROM reading_rejects WHERE unmask_pii(masked_body) LIKE '%swallowed%' GROUP BY 1;
TRUNCATE readings;
DROP TRIGGER swallow ON readings;
CREATE RULE nothing AS ON INSERT TO reading_rejects DO INSTEAD NOTHING;
SELECT error_of($$INSERT INTO reading_inbox VALUES (id(70000), now(), 'bad')$$);
DROP RULE nothing ON reading_rejects;
SELECT count(*) FROM readings;
-- A column that appears, one that changes its type, one that goes: the inbox follows, or says what is wrong.
ALTER TABLE readings ADD COLUMN more text, ALTER COLUMN i2 TYPE text;
INSERT INTO reading_inbox VALUES (id(1), now(), '{"i2":"now text"}');
SELECT i2 FROM readings;
ALTER TABLE readings DROP COLUMN i2;
SELECT error_of($$INSERT INTO reading_inbox VALUES (id(2), now(), '{}')$$);
-- It is bound to its tables: they cannot go without it, and another of the same name does not take their place.
SELECT error_of('DROP TABLE readings');
ALTER TABLE readings RENAME TO old_readings;
SELECT error_of($$INSERT INTO reading_inbox VALUES (id(2), now(), '{}')$$);
CREATE TABLE readings (LIKE old_readings INCLUDING ALL);
ALTER TABLE readings ADD COLUMN i2 text;
SELECT error_of($$INSERT INTO reading_inbox VALUES (id(2), now(), '{}')$$);
DROP VIEW reading_inbox;
DROP TABLE readings, old_readings;
-- Types whose input fails with an error of that type.
CREATE TABLE odd (q tsquery, r regclass, x bit(4), d date, id uuid UNIQUE);
SELECT attach_inbox('odd_inbox', 'odd', 'reading_rejects', '{"q": {"copy": "q"}, "r": {"copy": "r"}, "x": {"copy": "x"}, "d": {"copy": "d"}, "id": "message_id"}');
TRUNCATE reading_rejects;
INSERT INTO odd_inbox VALUES (id(1), now(), '{"q":"SECRET & & ("}'), (id(2), now(), '{"q":"a & b","x":"1010"}'), (id(3), now(), '{"r":"SECRET.a.b.c"}'), (id(4), now(), '{"x":"10"}');
TABLE counts;
SELECT message_id, reason FROM reading_rejects ORDER BY 1;
-- A date means the same whatever the session's settings are.
SET datestyle = 'ISO, DMY';
INSERT INTO odd_inbox VALUES (id(5), now(), '{"d":"2026-02-01"}'), (id(6), now(), '{"d":"01/02/2026"}');
RESET datestyle;
SELECT x, d FROM odd ORDER BY id;
DROP VIEW odd_inbox;
DROP TABLE odd;
-- A type's warnings and notices, which quote the value, reach neither client nor log.
CREATE TABLE chatty (x xml, xs xml[], q tsquery, id uuid UNIQUE);
CREATE TABLE spoken AS SELECT n, id(n) AS id, now() AS at, body FROM (VALUES
    (1, '{"x":"<!DOCTYPE a><a xml:space=\"SECRET\"/>"}'), (2, '{"xs":"{<!DOCTYPE a><a xml:space=\u0027SECRET\u0027/>}"}'), (3, '{"q":"()"}'), (4, '{"q":" "}'),
    (5, '{"x":"<!DOCTYPE a><a xml:space=\"SECRET\">"}')) AS v(n, body);
SELECT '<!DOCTYPE a><a xml:space="LOUD"/>'::xml IS NOT NULL AS warned;
SELECT ' '::tsquery AS noticed;
SELECT attach_inbox('chatty_inbox', 'chatty', 'reading_rejects',
    '{"x": {"copy": "x"}, "xs": {"copy": "xs"}, "q": {"copy": "q"}, "id": "message_id"}', flush => 'insert');
TRUNCATE reading_rejects;
INSERT INTO chatty_inbox SELECT id, at, body FROM spoken;
TABLE counts;
INSERT INTO chatty_inbox SELECT id, at, body FROM spoken WHERE n = 5;
SELECT * FROM redrive_rejects('chatty_inbox', message_ids => ARRAY[id(5)]);
ALTER TABLE chatty DROP COLUMN x, DROP COLUMN xs;
SELECT attach_inbox('chatty_inbox', 'chatty', 'reading_rejects', '{"q": {"copy": "q"}, "id": "message_id"}', flush => 'copy');
INSERT INTO chatty_inbox SELECT id(10 + n), at, body FROM spoken;
TABLE counts;
SELECT name FROM pg_settings WHERE name IN ('client_min_messages', 'log_min_messages') AND setting <> reset_val;
DROP VIEW chatty_inbox;
DROP TABLE chatty, spoken;
-- A partitioned table, whose unique index must have the partition key too: a redelivery has the same date.
CREATE TABLE parts (m text NOT NULL, day date, id uuid, UNIQUE (day, id)) PARTITION BY RANGE (day);
CREATE TABLE parts_march PARTITION OF parts FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
SELECT attach_inbox('part_inbox', 'parts', 'reading_rejects', '{"m": {"mask": "m"}, "day": "sent_date", "id": "message_id"}');
TRUNCATE reading_rejects;
INSERT INTO part_inbox VALUES (id(1), '2026-03-01', '{"m":"1"}'), (id(1), '2026-03-01', '{"m":"1"}'), (id(2), '2026-03-31', '{"m":"2"}'), (id(3), '2026-04-01', '{"m":"no partition"}');
TABLE counts;
SELECT tableoid::regclass, unmask_pii(m), day FROM parts ORDER BY 2;
SELECT reason FROM reading_rejects;
-- A view that Postgres can insert through, here with a check option.
CREATE TABLE base (m text, region text, id uuid UNIQUE);
CREATE VIEW eu AS SELECT * FROM base WHERE region = 'eu' WITH CHECK OPTION;
-- Whether it is unique behind a view cannot be seen, and is said.
SELECT attach_inbox('eu_inbox', 'eu', 'reading_rejects', '{"m": {"mask": "m"}, "region": {"copy": "region"}, "id": "message_id"}');
TRUNCATE reading_rejects;
INSERT INTO eu_inbox VALUES (id(1), now(), '{"m":"1","region":"eu"}'), (id(2), now(), '{"m":"2","region":"us"}'), (id(1), now(), '{"m":"1","region":"eu"}');
TABLE counts;
SELECT unmask_pii(m), region FROM base;
SELECT reason FROM reading_rejects;
-- Row-level security holds, for the owner of the inbox.
CREATE ROLE tenant;
GRANT CREATE, USAGE ON SCHEMA public TO tenant;
GRANT INSERT, SELECT ON base, reading_rejects, counts TO tenant;
ALTER TABLE base ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON base TO tenant USING (true) WITH CHECK (region = 'eu');
SET ROLE tenant;
SELECT attach_inbox('tenant_inbox', 'base', 'reading_rejects', '{"m": {"mask": "m"}, "region": {"copy": "region"}, "id": "message_id"}');
INSERT INTO tenant_inbox VALUES (id(4), now(), '{"m":"1","region":"eu"}'), (id(5), now(), '{"m":"2","region":"us"}');
TABLE counts;
RESET ROLE;
SELECT reason FROM reading_rejects WHERE message_id = id(5);
REVOKE INSERT ON base FROM tenant;
SELECT error_of($$INSERT INTO tenant_inbox VALUES (id(6), now(), '{"m":"1","region":"eu"}')$$);
SELECT region FROM base;
DROP VIEW tenant_inbox;
DROP VIEW eu_inbox;
DROP VIEW part_inbox;
DROP OWNED BY tenant;
DROP ROLE tenant;
-- A column of the unique index can have fewer digits than the time at which a message was sent.
CREATE TABLE seconds (v text, id uuid, sent_at timestamptz(0), UNIQUE (sent_at, id));
SET client_min_messages = error;
SELECT attach_inbox('seconds_' || flush, 'seconds', 'reading_rejects', '{"v": {"copy": "v"}, "id": "message_id", "sent_at": "sent_at"}', flush)
FROM (VALUES ('insert'), ('copy')) AS v(flush);
RESET client_min_messages;
INSERT INTO seconds_insert VALUES (id(1), '2026-01-01 00:00:00.6+00', '{"v":"1"}'), (id(2), '2026-01-01 00:00:00.4+00', '{"v":"2"}');
INSERT INTO seconds_insert VALUES (id(1), '2026-01-01 00:00:00.6+00', '{"v":"1"}'), (id(2), '2026-01-01 00:00:00.4+00', '{"v":"2"}');
TABLE counts;
INSERT INTO seconds_copy VALUES (id(1), '2026-01-01 00:00:00.6+00', '{"v":"1"}'), (id(3), '2026-01-01 00:00:00.7+00', '{"v":"3"}');
TABLE counts;
SET client_min_messages = error;
DROP TABLE parts, base, parents, bad, reading_rejects, seconds CASCADE;
RESET client_min_messages;
DROP DOMAIN percent;
DROP FUNCTION refuse, swallow;
