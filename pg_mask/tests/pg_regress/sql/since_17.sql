-- What PostgreSQL 17 brought: MERGE into a view, and COPY that skips lines.
CREATE TABLE arrivals (n integer, id uuid, body text);
INSERT INTO arrivals SELECT n, id(n), CASE n WHEN 4 THEN 'x' ELSE format('{"user_id": "merge", "ip": "10.0.0.%s"}', n) END
FROM unnest(ARRAY[1, 2, 2, 3, 4]) n;
-- An inbox shows no rows, so nothing in it matches.
MERGE INTO login_inbox i USING arrivals a ON i.message_id = a.id
WHEN MATCHED THEN DO NOTHING
WHEN NOT MATCHED THEN INSERT (message_id, body) VALUES (a.id, a.body);
SELECT * FROM counts;
SELECT unmask_pii(masked_ip) FROM user_logins WHERE user_id = 'merge' ORDER BY 1;
SELECT reason FROM login_rejects;
-- RETURNING gives no body, and nothing in an inbox can be changed.
MERGE INTO login_inbox i USING arrivals a ON i.message_id = a.id AND a.n < 4
WHEN NOT MATCHED AND a.n > 2 THEN INSERT (message_id, body) VALUES (a.id, a.body) RETURNING merge_action(), i.*;
SELECT * FROM counts;
SELECT error_of($$MERGE INTO login_inbox i USING arrivals a ON true WHEN NOT MATCHED BY SOURCE THEN DELETE
    WHEN NOT MATCHED THEN INSERT (message_id, body) VALUES (a.id, a.body)$$);
-- A row that an error takes back was not stored.
CREATE FUNCTION fail() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'later'; END $$;
SELECT error_of($$MERGE INTO login_inbox i USING (SELECT id(5) AS id UNION ALL SELECT id(fail())) a ON false
    WHEN NOT MATCHED THEN INSERT (message_id, body) VALUES (a.id, '{"user_id": "merge", "ip": "10.0.0.5"}')$$);
SELECT count(*) FROM user_logins WHERE user_id = 'merge';
-- COPY leaves out what it cannot read. It never reaches the inbox, which counts the rest.
COPY login_inbox (message_id, body) FROM STDIN (FORMAT csv, ON_ERROR ignore);
00000000-0000-0000-0000-000000000011,"{""user_id"": ""merge"", ""ip"": ""10.0.0.11""}"
no uuid,"{""user_id"": ""merge"", ""ip"": ""10.0.0.12""}"
00000000-0000-0000-0000-000000000013,x
\.
SELECT * FROM counts;
SELECT count(*) FROM user_logins WHERE user_id = 'merge';
TRUNCATE user_logins, login_rejects;
DROP FUNCTION fail;
DROP TABLE arrivals;
