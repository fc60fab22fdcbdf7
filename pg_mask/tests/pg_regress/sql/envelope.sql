-- Events in envelopes, under pointers and in strings.
CREATE TABLE visits (who text NOT NULL, masked_ip text, day date, at timestamptz, message_id uuid UNIQUE);
CREATE TABLE visit_rejects (LIKE login_rejects INCLUDING ALL);
CREATE FUNCTION attach(envelope text DEFAULT 'none', event text DEFAULT '') RETURNS void LANGUAGE sql AS
$$ SELECT attach_inbox('visit_inbox', 'visits', 'visit_rejects',
    '{"who": {"copy": "who"}, "masked_ip": {"mask": "ip"}, "day": "sent_date", "at": "sent_at", "message_id": "message_id"}',
    envelope => envelope, event => event) $$;
CREATE VIEW seen AS SELECT who, unmask_pii(masked_ip) AS ip, day, at AT TIME ZONE 'UTC' AS at, message_id FROM visits ORDER BY message_id;
-- What SNS makes of a text that was published.
CREATE FUNCTION notification(n integer, message text, at text DEFAULT '2012-05-02T00:54:06.655Z') RETURNS text LANGUAGE sql AS
$$ SELECT json_build_object('Type', 'Notification', 'MessageId', format('22b80b92-fdea-4c2c-8f9d-%s', lpad(n::text, 12, '0')),
    'TopicArn', 'arn:aws:sns:us-west-2:123456789012:visits', 'Subject', 'A visit', 'Message', message, 'Timestamp', at,
    'SignatureVersion', '1', 'Signature', 'EXAMPLEw6JRN…', 'UnsubscribeURL', 'https://sns.us-west-2.amazonaws.com/?Action=Unsubscribe')::text $$;
-- The event in a notification. Id and time are the notification's, not those of the messages of SQS.
SELECT attach('sns');
INSERT INTO visit_inbox VALUES
    (id(1), '2026-03-01', notification(1, '{"who":"gr\u00fc\u00dfe \"😀\"","ip":"10.0.0.1"}')),
    (id(2), '2026-03-01', notification(2, '{"who":"u2"}', '2012-05-02T01:30:00+02:00')),
    (id(3), NULL, notification(3, ' {"who":"u3"} ', '2012-05-02T23:59:59.9999999Z')),
    (NULL, NULL, notification(4, '{"who":"by hand"}'));
TABLE counts;
TABLE seen;
-- Delivered twice, as messages with ids of their own: in one statement and in the next.
INSERT INTO visit_inbox VALUES
    (id(11), '2026-03-02', notification(1, '{"who":"again"}')),
    (id(12), '2026-03-02', notification(5, '{"who":"u5"}')), (id(13), '2026-03-03', notification(5, '{"who":"u5"}'));
TABLE counts;
SELECT count(*) FROM visits;
-- The id of another's message of SQS is not taken for that of a notification.
INSERT INTO visit_inbox VALUES ('22b80b92-fdea-4c2c-8f9d-000000000001', '2026-03-02', notification(6, '{"who":"u6"}'));
TABLE counts;
-- By COPY as well, and in chunks.
TRUNCATE visits;
COPY visit_inbox FROM stdin;
00000000-0000-0000-0000-000000000021	2026-03-01	{"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-000000000001", "Message": "{\\"who\\":\\"copied\\"}", "Timestamp": "2012-05-02T00:54:06.655Z"}
00000000-0000-0000-0000-000000000022	2026-03-01	{"Type": "Notification", "MessageId": "22b80b92-fdea-4c2c-8f9d-000000000001", "Message": "{\\"who\\":\\"copied\\"}", "Timestamp": "2012-05-02T00:54:06.655Z"}
00000000-0000-0000-0000-000000000023	2026-03-01	{"who":"raw"}
\.
TABLE counts;
TABLE seen;
TRUNCATE visits, visit_rejects;
INSERT INTO visit_inbox SELECT gen_random_uuid(), now(), notification(n % 30000, format('{"who":"u%s"}', n % 30000)) FROM generate_series(1, 60000) n;
TABLE counts;
SELECT count(*), count(DISTINCT who), min(day), max(day) FROM visits;
-- What is no notification, or has no event, is a reject: with the id and time of its message of SQS, and all of its body.
TRUNCATE visits, visit_rejects;
CREATE TABLE bad (n serial, body text);
INSERT INTO bad (body) VALUES
    (''),
    ('{"Type":"Notification"'),
    (notification(1, '{"who":"u"}') || ' {}'),
    ('{"who":"u","ip":"10.0.0.1"}'),
    ('[]'),
    (to_json(notification(1, '{"who":"u"}'))::text),
    (replace(notification(1, 'You have chosen to subscribe'), '"Notification"', '"SubscriptionConfirmation"')),
    (replace(notification(1, 'You have chosen to deactivate'), '"Notification"', '"UnsubscribeConfirmation"')),
    (replace(notification(1, '{"who":"u"}'), '"Message"', '"message"')),
    (replace(notification(1, 'null'), '"null"', 'null')),
    (replace(notification(1, '{}'), '"{}"', '{"who":"u"}')),
    (replace(notification(1, '{"who":"u"}'), '22b80b92-', '')),
    (replace(notification(1, '{"who":"u"}'), '"MessageId"', '"Id"')),
    (notification(1, '{"who":"u"}', '2012-05-02 00:54:06.655Z')),
    (notification(1, '{"who":"u"}', '2012-02-30T00:54:06Z')),
    (replace(notification(1, '{"who":"u"}'), '"Timestamp"', '"Time"')),
    (notification(1, NULL)),
    (notification(1, '')),
    (notification(1, 'Hello, world')),
    (notification(1, '{"who":"u","ip":"10.0.0.1"')),
    (notification(1, '"{\"who\":"')),
    (notification(1, '[{"who":"u"}]')),
    (notification(1, '{"ip":"10.0.0.1"}')),
    (notification(1, '{"who":"u\u0000"}')),
    (notification(1, '{"who":"u\ud800"}')),
    (replace(notification(1, 'x'), '"x"', '"{\"who\":\"\u0000\"}"')),
    (replace(notification(1, 'x'), '"x"', '"\ud800"')),
    (NULL);
INSERT INTO visit_inbox SELECT id(100 + n), '2026-03-01', body FROM bad;
TABLE counts;
SELECT n, reason FROM bad JOIN visit_rejects ON message_id = id(100 + n) ORDER BY n;
SELECT count(*) FILTER (WHERE unmask_pii(masked_body) IS DISTINCT FROM body) AS altered, count(*) FILTER (WHERE sent_at = '2026-03-01') AS sent,
       count(*) FILTER (WHERE reason LIKE '%10.0.0.1%' OR reason LIKE '%22b80b92%') AS quoted
FROM bad JOIN visit_rejects ON message_id = id(100 + n);
-- So is what the target refuses; and back in the inbox it is the same notification.
TRUNCATE visit_rejects;
ALTER TABLE visits ADD CONSTRAINT short CHECK (length(who) < 3);
INSERT INTO visit_inbox VALUES (id(1), '2026-03-01', notification(1, '{"who":"long","ip":"10.0.0.1"}'));
SELECT message_id, sent_at = '2026-03-01' AS sent, reason, unmask_pii(masked_body) = notification(1, '{"who":"long","ip":"10.0.0.1"}') AS whole FROM visit_rejects;
ALTER TABLE visits DROP CONSTRAINT short;
WITH taken AS (DELETE FROM visit_rejects RETURNING *)
INSERT INTO visit_inbox SELECT message_id, sent_at, unmask_pii(masked_body) FROM taken;
INSERT INTO visit_inbox VALUES (id(2), '2026-03-02', notification(1, '{"who":"long","ip":"10.0.0.1"}'));
TABLE counts;
TABLE seen;
-- Under a pointer into the body: id and time are those of SQS, as ever.
TRUNCATE visits;
SELECT attach(event => '/detail/logins/1/a~1b');
INSERT INTO visit_inbox VALUES
    (id(1), '2026-03-01', '{"detail-type":"login","detail":{"logins":[{},{"a/b":{"who":"u1","ip":"10.0.0.1"}}]}}'),
    (id(2), '2026-03-01', '{"detail":{"logins":[[],{"a/b":"{\"who\":\"in \\\"a\\\" string\"}"}]}}'),
    (id(3), '2026-03-01', '{"detail":{"logins":[0,{"a/b":{"who":"lost"},"a\/b":{"who":"last"}}]}}'),
    (id(4), '2026-03-01', '{"who":"beside","detail":{"logins":[{"a/b":{}}]}}'),
    (id(5), '2026-03-01', '{"detail":{"logins":[0,{"a/b":null}]}}'),
    (id(6), '2026-03-01', '{"detail":{"logins":{"1":{"a/b":{"who":"a key like an index"}}}}}'),
    (id(7), '2026-03-01', '{"detail":{"logins":[0,{"a/b":[]}]}}'),
    (id(8), '2026-03-01', '{"detail":{"logins":[0,{"a/b":"who"}]}}'),
    (id(9), '2026-03-01', '{"detail":{"logins":[0,{"a/b":{"who":"u9"}}]},}'),
    (id(10), '2026-03-01', '"detail"');
TABLE counts;
TABLE seen;
SELECT message_id, reason FROM visit_rejects ORDER BY 1;
-- Both: into the text that was published.
TRUNCATE visits, visit_rejects;
SELECT attach('sns', '/detail');
INSERT INTO visit_inbox VALUES
    (id(1), '2026-03-01', notification(1, '{"detail":{"who":"u1","ip":"10.0.0.1"}}')),
    (id(2), '2026-03-01', notification(2, '{"detail":"{\"who\":\"u2\"}"}')),
    (id(3), '2026-03-01', notification(3, '{"who":"u3"}')),
    (id(4), '2026-03-01', notification(4, '{"detail":{"who":"u4"}')),
    (id(5), '2026-03-01', '{"detail":{"who":"u5"}}');
TABLE counts;
TABLE seen;
SELECT message_id, reason FROM visit_rejects ORDER BY 1;
-- A body that is a string, or a text that is one, is no event where no pointer leads to it.
TRUNCATE visits, visit_rejects;
SELECT attach();
INSERT INTO visit_inbox VALUES (id(1), '2026-03-01', '"{\"who\":\"u1\",\"ip\":\"10.0.0.1\"}"'), (id(2), '2026-03-01', '"\"{}\""'), (id(3), '2026-03-01', '"who"');
TABLE seen;
SELECT message_id, reason FROM visit_rejects ORDER BY 1;
-- The unique index of a partitioned table, with the date in it, knows a notification too.
CREATE TABLE days (who text, day date, message_id uuid, UNIQUE (day, message_id)) PARTITION BY RANGE (day);
CREATE TABLE day PARTITION OF days DEFAULT;
SELECT attach_inbox('visit_inbox', 'days', 'visit_rejects', '{"who": {"copy": "who"}, "day": "sent_date", "message_id": "message_id"}', 'copy', 'sns');
INSERT INTO visit_inbox VALUES (id(1), '2026-03-01', notification(1, '{"who":"u1"}')), (id(2), '2026-03-02', notification(1, '{"who":"u1"}'));
TABLE counts;
TABLE days;
-- The definition is in the trigger, which a dump carries; one without envelope and pointer is as it was before there were any.
\pset format unaligned
\t on
SELECT attach();
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'visit_inbox'::regclass AND tgname = 'pg_mask_row';
SELECT attach('sns', '/it''s/~0~1');
SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgrelid = 'visit_inbox'::regclass AND tgname = 'pg_mask_row' \gset
\echo :definition
-- The same definition made again is the one that was attached; a changed one is not.
DROP TRIGGER pg_mask_row ON visit_inbox;
:definition;
SELECT error_of('INSERT INTO visit_inbox (body) VALUES ('''')');
SELECT replace(replace(:'definition', 'CREATE', 'CREATE OR REPLACE'), '~0~1', '~0') AS changed \gset
:changed;
SELECT error_of('INSERT INTO visit_inbox (body) VALUES ('''')');
SELECT replace(replace(:'definition', 'CREATE', 'CREATE OR REPLACE'), '~0~1', '~2') AS changed \gset
:changed;
SELECT error_of('INSERT INTO visit_inbox (body) VALUES ('''')');
-- RingError definitions are refused.
SELECT error_of($$SELECT attach('SNS')$$);
SELECT error_of($$SELECT attach('')$$);
SELECT error_of($$SELECT attach('sns', 'detail')$$);
SELECT error_of($$SELECT attach('none', '$.detail')$$);
SELECT error_of($$SELECT attach('none', '/a~')$$);
SELECT error_of($$SELECT attach('none', '/a~2')$$);
SELECT error_of($$SELECT attach('none', '#/a')$$);
SELECT error_of($$SELECT attach('none', repeat('/0', 33))$$);
\t off
\pset format aligned
DROP VIEW visit_inbox, seen;
DROP TABLE visits, visit_rejects, bad, days;
DROP FUNCTION attach, notification;
