-- Bytes that are not UTF-8. Postgres doesn't check them where COPY says ENCODING 'SQL_ASCII', and in a connection's settings.
-- Statements with such names would make pg_stat_statements unreadable.
SET pg_stat_statements.track = 'none';
CREATE TABLE unchecked (v text);
COPY unchecked FROM PROGRAM $$printf '\277RAW\n'$$ (ENCODING 'SQL_ASCII');
SELECT octet_length(v) FROM unchecked;
-- No mask is made of them, they are no mask, and no error quotes them.
SELECT is_masked(v), mask_key(v) FROM unchecked;
SELECT f, error_of(format('SELECT %s FROM unchecked', f)) FROM unnest(ARRAY['mask_pii(v)', $$mask_pii(v, 'base64')$$, $$mask_pii('x', v)$$,
    'mask_pii_all(v)', 'unmask_pii(v)', 'remask_pii(v)', 'mask_key(v)', 'is_masked(v)',
    $$redrive_rejects('login_inbox', v)$$, $$attach_inbox(v, 'user_logins', 'login_rejects', '{}')$$,
    $$attach_inbox('new', 'user_logins', 'login_rejects', '{}', event => v)$$]) f;
SELECT error_of('SELECT mask_pii(string_agg(v, repeat(''x'', 100000))) FROM unchecked, generate_series(1, 2)');
-- An event with them is the statement's error, since neither a mask nor a reject could be turned back into it.
\set VERBOSITY verbose
SELECT error_of('INSERT INTO login_inbox (body) SELECT format(''{"user_id": "u", "ip": "%s"}'', v) FROM unchecked');
SELECT error_of('INSERT INTO login_inbox (body) SELECT v FROM unchecked');
\set VERBOSITY default
COPY login_inbox (body) FROM PROGRAM $$printf '{"ip": "10.0.0.1"}\n{"ip": "\277RAW"}\n'$$ (ENCODING 'SQL_ASCII');
SELECT (SELECT count(*) FROM user_logins), (SELECT count(*) FROM login_rejects);
-- A mask in a table of one's own, without the domain "masked".
CREATE TABLE loose (v text, id uuid UNIQUE);
CREATE TABLE loose_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SET client_min_messages = error;
SELECT attach_inbox('loose_inbox', 'loose', 'loose_rejects', '{"v": {"mask": "v"}, "id": "message_id"}');
INSERT INTO loose_rejects SELECT id(1), now(), 'x', v, now() FROM unchecked;
SELECT error_of($$SELECT redrive_rejects('loose_inbox')$$);
-- Anybody can give a trigger such an argument, and a view or column such a name. The views for operators still work.
DO $$
BEGIN
    EXECUTE (SELECT format('CREATE TABLE names (%1$I text, id uuid UNIQUE)', v) FROM unchecked);
    EXECUTE (SELECT format('CREATE VIEW %1$I AS SELECT NULL::uuid AS message_id, NULL::timestamptz AS sent_at, NULL::text AS body FROM names, loose_rejects WHERE false', v) FROM unchecked);
    EXECUTE (SELECT format('CREATE TRIGGER pg_mask_row INSTEAD OF INSERT ON %1$I FOR EACH ROW EXECUTE FUNCTION inbox_trigger(%1$L)', v) FROM unchecked);
END
$$;
SELECT octet_length(inbox::text), target, flush FROM inboxes WHERE inbox::text LIKE '%RAW%' OR inbox::text LIKE '%loose%' ORDER BY 1;
DO $$ BEGIN EXECUTE (SELECT format('DROP VIEW %I', v) FROM unchecked); END $$;
SELECT error_of($$SELECT attach_inbox('names_inbox', 'names', 'loose_rejects', '{"id": "message_id"}')$$);
INSERT INTO names_inbox (message_id, body) VALUES (id(2), '{}');
SELECT * FROM counts;
DROP TABLE unchecked, loose, loose_rejects, names CASCADE;
