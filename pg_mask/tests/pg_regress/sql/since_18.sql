-- What PostgreSQL 18 brought: virtual generated columns, NOT NULL without a look at the rows there, WITHOUT OVERLAPS.
CREATE FUNCTION attach(flush text DEFAULT 'auto') RETURNS text LANGUAGE sql AS $$
    SELECT error_of(format('SELECT attach_inbox(%L, %L, %L, %L, flush => %L)', 'stay_inbox', 'stays', 'stay_rejects',
        '{"guest": {"mask": "guest"}, "nights": {"copy": "nights"}, "during": {"copy": "during"}, "id": "message_id"}', flush))
$$;
CREATE FUNCTION arrive() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stay_inbox (message_id, body) SELECT id(n), body FROM (VALUES
        (1, '{"guest": "10.0.0.1", "nights": 2, "during": "[1,3)"}'),
        (1, '{"guest": "10.0.0.1", "nights": 2, "during": "[1,3)"}'),
        (2, '{"guest": "10.0.0.1", "nights": 30, "during": "[4,9)"}'),
        (3, '{"guest": "10.0.0.1", "during": "[4,9)"}'),
        (4, '{"nights": 2, "during": "[4,9)"}')) m (n, body);
END
$$;
CREATE TABLE stays (guest text, nights integer, during int4range, id uuid,
    weeks integer GENERATED ALWAYS AS (nights / 7) CHECK (weeks < 4) NOT NULL);
CREATE TABLE stay_rejects (LIKE login_rejects INCLUDING ALL);
SET client_min_messages = error;
-- A unique index of periods finds no redelivery, because ON CONFLICT cannot use it.
CREATE EXTENSION btree_gist;
ALTER TABLE stays ADD UNIQUE (id, during WITHOUT OVERLAPS);
SELECT attach();
ALTER TABLE stays ADD UNIQUE (id);
SELECT attach();
-- A constraint of a virtual column holds, and one of a column that already has NULLs.
INSERT INTO stays (nights, id) VALUES (1, id(9));
ALTER TABLE stays ADD CONSTRAINT guest_is_given NOT NULL guest NOT VALID;
SELECT attach();
SELECT arrive();
SELECT * FROM counts;
SELECT unmask_pii(guest), nights, weeks FROM stays WHERE guest IS NOT NULL;
SELECT reason FROM stay_rejects ORDER BY message_id;
-- The same by INSERT.
DELETE FROM stays WHERE id <> id(9);
DELETE FROM stay_rejects;
SELECT attach('insert');
SELECT arrive();
SELECT * FROM counts;
SELECT unmask_pii(guest), nights, weeks FROM stays WHERE guest IS NOT NULL;
SELECT reason FROM stay_rejects ORDER BY message_id;
-- Nothing can be written to a virtual column.
SELECT error_of($$SELECT attach_inbox('stay_inbox', 'stays', 'stay_rejects', '{"weeks": {"copy": "weeks"}, "id": "message_id"}')$$);
-- A virtual column that calls a function is refused by Postgres itself, so none runs with the owner's rights.
CREATE FUNCTION leak(v integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT v $$;
SELECT error_of('ALTER TABLE stays ADD COLUMN leaked integer GENERATED ALWAYS AS (leak(nights))');
DROP TABLE stays, stay_rejects CASCADE;
DROP EXTENSION btree_gist;
DROP FUNCTION attach, arrive, leak;
