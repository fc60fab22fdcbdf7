-- A foreign table as target: nobody sees the indexes behind it, and what it answers decides.
CREATE EXTENSION postgres_fdw;
\set password none
\getenv password PGPASSWORD
SELECT split_part(current_setting('unix_socket_directories'), ', ', 1) AS sockets, current_setting('port') AS port \gset
CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host :'sockets', port :'port', dbname 'regression');
CREATE USER MAPPING FOR CURRENT_USER SERVER here OPTIONS (user :'USER', password :'password');
CREATE TABLE remote_visits (user_id varchar(128) UNIQUE, masked_ip text CHECK (masked_ip <> mask_pii('10.0.0.9')), id uuid UNIQUE);
CREATE FOREIGN TABLE visits (user_id text, masked_ip text, id uuid) SERVER here OPTIONS (table_name 'remote_visits');
CREATE TABLE visit_rejects (message_id uuid UNIQUE, sent_at timestamptz, reason text, masked_body text, rejected_at timestamptz);
SET client_min_messages = error;
SELECT attach_inbox('visit_inbox', 'visits', 'visit_rejects',
    '{"user_id": {"copy": "user_id"}, "masked_ip": {"mask": "ip"}, "id": "message_id"}');
RESET client_min_messages;
CREATE FUNCTION bring(users text, ip text DEFAULT '10.0.0.1') RETURNS TABLE (stored bigint, duplicate bigint, rejected bigint) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO visit_inbox SELECT id(ascii(u)), '2026-01-01', format('{"user_id":"%s","ip":"%s"}', u, ip) FROM string_to_table(users, NULL) u;
    RETURN QUERY SELECT c.stored, c.duplicate, c.rejected FROM inbox_counts() c;
END $$;
SELECT try_inbox('visit_inbox');
SELECT count(*) FROM remote_visits;
SELECT * FROM bring('abc');
-- A message that comes again is a duplicate by the index on its id.
SELECT * FROM bring('bcd');
-- A conflict on another unique index behind the foreign table is a reject, as on a table.
UPDATE remote_visits SET user_id = 'e' WHERE user_id = 'a';
SELECT * FROM bring('efg');
SELECT reason, count(*) FROM visit_rejects GROUP BY 1;
-- And so is a row that a CHECK there refuses, without holding up the others.
SELECT * FROM bring('h', '10.0.0.9');
SELECT * FROM bring('ij');
SELECT reason, count(*) FROM visit_rejects GROUP BY 1 ORDER BY 1;
SELECT user_id, unmask_pii(masked_ip) AS ip, id FROM remote_visits ORDER BY 1;
-- Rejects that another server keeps: it would remove them, even if this server then failed.
CREATE TABLE old_rejects (LIKE visit_rejects);
CREATE FOREIGN TABLE archive () INHERITS (visit_rejects) SERVER here OPTIONS (table_name 'old_rejects');
SELECT error_of($$SELECT * FROM redrive_rejects('visit_inbox')$$);
DROP FOREIGN TABLE archive;
DROP TABLE old_rejects;
SELECT * FROM redrive_rejects('visit_inbox');
SET client_min_messages = error;
DROP EXTENSION postgres_fdw CASCADE;
DROP TABLE remote_visits, visit_rejects CASCADE;
DROP FUNCTION bring;
