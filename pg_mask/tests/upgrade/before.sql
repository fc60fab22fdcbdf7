-- Makes with the old version what an upgrade must keep: rows, rejects, and masks under a key. sql/ is applied.
\set ON_ERROR_STOP on
INSERT INTO login_inbox (message_id, sent_at, body) VALUES
    ('00000000-0000-4000-8000-000000000001', '2026-01-01', '{"user_id": "u1", "ip": "10.0.0.1", "device_id": "d1"}'),
    ('00000000-0000-4000-8000-000000000002', '2026-01-01', 'no json'),
    ('00000000-0000-4000-8000-000000000003', '2026-01-01', '{"user_id": "u3", "ip": 7, "device_id": "d3"}');
SET pg_mask.scheme = 'aes-siv';
INSERT INTO login_inbox (message_id, sent_at, body) VALUES
    ('00000000-0000-4000-8000-000000000004', '2026-01-01', '{"user_id": "u4", "ip": "10.0.0.4", "device_id": "d4"}');
