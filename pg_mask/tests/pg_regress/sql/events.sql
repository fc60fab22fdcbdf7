-- What an event becomes.
INSERT INTO login_inbox (message_id, sent_at, body) VALUES
    (id(1), '2026-03-01 00:30:00+02', '{"user_id":"u1","app_version":"5.6.3","device_type":"android","ip":"199.172.111.135","locale":"RU","device_id":"593-47-5928"}'),
    (id(2), '2026-03-01 12:00:00+00', '{"user_id":"u2","ip":null,"locale":null}'),
    (id(3), '2026-03-01 12:00:00+00', '{"user_id":3,"device_type":true,"ip":1.50,"locale":12345678901234567890,"app_version":2.3}'),
    (id(4), '2026-03-01 12:00:00+00', '{"user_id":"lost","user_id":"u4","ip":"::1","unknown":{"deep":[1,{}]},"device_id":""}'),
    (id(5), '2026-03-01 12:00:00+00', '{"user_id":"\u0075\u0035 gr\u00fc\u00dfe 😀 \ud83d\ude00","locale":"日本"}'),
    (id(6), '2026-03-01 12:00:00+00', format('{"user_id":"%s","locale":"%s"}', repeat('é', 128), repeat('x', 32) || '   ')),
    (NULL, '2026-03-01 12:00:00+00', '{"user_id":"by hand"}');
TABLE counts;
SELECT user_id, device_type, unmask_pii(masked_ip) AS ip, unmask_pii(masked_device_id) AS device_id, locale, app_version, create_date, message_id
FROM user_logins ORDER BY message_id;
-- Without a sent date it is today's, in UTC whatever the session's time zone.
TRUNCATE user_logins;
SET timezone = 'Pacific/Kiritimati';
INSERT INTO login_inbox (body) VALUES ('{"user_id":"today"}');
SELECT create_date = (now() AT TIME ZONE 'UTC')::date AS today FROM user_logins;
RESET timezone;
TRUNCATE user_logins;
INSERT INTO login_inbox (sent_at, body) VALUES ('infinity', '{"user_id":"late"}'), ('-infinity', '{"user_id":"early"}'), ('4713-01-02 BC', '{"user_id":"old"}');
SELECT user_id, create_date FROM user_logins;
TRUNCATE user_logins;
-- Every kind of reject. The body of each can be had back, byte for byte.
CREATE TABLE bad (n serial, body text);
INSERT INTO bad (body) VALUES
    (''),
    ('{"user_id":"u'),
    ('{"user_id":"u"} {}'),
    ('{"user_id":"half a pair \ud800"}'),
    ('[{"user_id":"u"}]'),
    ('"user_id"'),
    ('null'),
    ('{"foo":"oops_wrong_msg_type","bar":"123"}'),
    ('{"user_id":null,"ip":"10.0.0.1"}'),
    ('{"user_id":["u"]}'),
    ('{"user_id":"u","device_id":{"id":1}}'),
    ('{"user_id":"u\u0000"}'),
    ('{"user_id":"u","ip":"\u0000"}'),
    ('{"user_id":"' || repeat('x', 129) || '"}'),
    ('{"user_id":"u","locale":"' || repeat('日', 33) || '"}'),
    ('{"user_id":"u","ip":"' || repeat('1', 193) || '"}'),
    ('{"user_id":"u","app_version":"5.6.beta"}'),
    ('{"user_id":"u","app_version":""}'),
    ('{"user_id":"u","app_version":"-5"}'),
    ('{"user_id":"u","app_version":"2147483648"}'),
    ('{"user_id":"u","app_version":true}'),
    (repeat('[', 100000)),
    (NULL);
INSERT INTO login_inbox SELECT id(100 + n), '2026-03-01', body FROM bad;
TABLE counts;
SELECT n, reason FROM bad JOIN login_rejects ON message_id = id(100 + n) ORDER BY n;
SELECT count(*) FILTER (WHERE unmask_pii(masked_body) IS DISTINCT FROM body) AS altered, count(*) FILTER (WHERE sent_at = '2026-03-01') AS sent,
       count(*) FILTER (WHERE rejected_at IS NOT NULL) AS dated
FROM bad JOIN login_rejects ON message_id = id(100 + n);
SELECT count(*) FROM user_logins;
-- A redelivery, of a login or of a reject, is stored once. So is a message that comes twice in one batch.
INSERT INTO login_inbox VALUES (id(1), now(), '{"user_id":"first"}'), (id(1), now(), '{"user_id":"second"}'), (id(101), now(), '');
TABLE counts;
SELECT user_id FROM user_logins;
INSERT INTO login_inbox VALUES (id(1), now(), '{"user_id":"third"}'), (id(2), now(), '{"user_id":"new"}');
TABLE counts;
SELECT user_id FROM user_logins ORDER BY 1;
-- Rows by hand, without a message, are never duplicates.
INSERT INTO login_inbox (body) VALUES ('{"user_id":"same"}'), ('{"user_id":"same"}'), ('bad'), ('bad');
TABLE counts;
-- No row, and a statement that says so.
INSERT INTO login_inbox SELECT NULL, NULL, 'x' WHERE false;
TABLE counts;
-- The inbox itself holds nothing, and takes nothing but INSERT.
SELECT count(*) FROM login_inbox;
SELECT error_of('UPDATE login_inbox SET body = NULL');
SELECT error_of('DELETE FROM login_inbox');
SELECT pg_relation_filepath('login_inbox') IS NULL AS no_storage;
-- By COPY as well.
TRUNCATE user_logins, login_rejects;
COPY login_inbox (body) FROM stdin;
{"user_id":"copied"}
not json
\.
TABLE counts;
SELECT user_id FROM user_logins;
-- When the cause of rejects is mended they go back into the inbox. Taken out of the rejects first: what is still bad
-- becomes a reject again, and nothing is lost.
TRUNCATE user_logins, login_rejects;
INSERT INTO login_inbox VALUES (id(1), '2026-03-01', format('{"user_id":"u1","locale":"%s"}', repeat('x', 40))), (id(2), '2026-03-01', 'bad');
ALTER TABLE user_logins ALTER COLUMN locale TYPE varchar(64);
WITH taken AS (DELETE FROM login_rejects RETURNING *)
INSERT INTO login_inbox SELECT message_id, sent_at, unmask_pii(masked_body) FROM taken;
TABLE counts;
SELECT user_id, create_date FROM user_logins;
SELECT message_id, reason FROM login_rejects;
UPDATE user_logins SET locale = NULL;
ALTER TABLE user_logins ALTER COLUMN locale TYPE varchar(32);
-- What is stored and comes again is a duplicate, be it that a newer constraint would refuse it.
ALTER TABLE user_logins ADD CONSTRAINT newer CHECK (user_id <> 'u1') NOT VALID;
INSERT INTO login_inbox VALUES (id(1), '2026-03-01', '{"user_id":"u1"}'), (id(3), '2026-03-01', '{"user_id":"u1"}');
TABLE counts;
ALTER TABLE user_logins DROP CONSTRAINT newer;
TRUNCATE user_logins, login_rejects;
DROP TABLE bad;
