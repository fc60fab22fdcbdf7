-- Ids of keys and reasons are compared by their bytes, whatever the column's collation.
-- Postgres without ICU, as in some wheels, has no collation that ignores case: see expected/collations_1.out.
DO $$
BEGIN
    CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
EXCEPTION WHEN feature_not_supported THEN
END
$$;
SELECT to_regcollation('any_case') IS NULL AS lacks_icu \gset
\if :lacks_icu
    \quit
\endif
CREATE FUNCTION ring("primary" text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT %L) TO PROGRAM %L',
        format('{"primary": "%s", "keys": [%s]}', "primary", (SELECT string_agg(format('{"id": "%s", "key": "%s", "state": "active"}',
            id, replace(encode(decode(repeat(byte, 64), 'hex'), 'base64'), E'\n', '')), ', ') FROM (VALUES ('B', '01'), ('b', '02')) k (id, byte))),
        'umask 077; cat > collations.json');
END
$$;
\set reload 'SELECT pg_reload_conf() AS reloaded \\gset \\c'
SELECT ring('B'), is_masked('');
ALTER SYSTEM SET pg_mask.keyring_file = 'collations.json';
:reload
CREATE TABLE collated (v text COLLATE any_case);
INSERT INTO collated VALUES (mask_pii('10.0.0.1', 'aes-siv'));
SELECT ring('b');
:reload
CALL remask_column('collated', 'v');
SELECT mask_key(v) FROM collated;
CREATE TABLE collated_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text COLLATE any_case, masked_body text, rejected_at timestamptz);
SET client_min_messages = error;
SELECT attach_inbox('collated_inbox', 'collated', 'collated_rejects', '{"v": {"copy": "v"}}');
RESET client_min_messages;
INSERT INTO collated_inbox (body) VALUES ('x');
SELECT taken FROM redrive_rejects('collated_inbox', 'NOT VALID');
SELECT taken FROM redrive_rejects('collated_inbox', 'not valid');
SET client_min_messages = error;
DROP TABLE collated, collated_rejects CASCADE;
RESET client_min_messages;
DROP COLLATION any_case;
DROP FUNCTION ring;
DELETE FROM remask_progress;
ALTER SYSTEM RESET pg_mask.keyring_file;
:reload
COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; rm collations.json';
