-- Uses everything after the upgrade. Fails where something differs from what before.sql made.
\set ON_ERROR_STOP on
DO $$
BEGIN
    ASSERT (SELECT array_agg(unmask_pii(masked_ip) ORDER BY user_id) FROM user_logins WHERE user_id IN ('u1', 'u4'))
        = ARRAY['10.0.0.1', '10.0.0.4'], 'masks of both schemes are readable';
    ASSERT (SELECT mask_key(masked_ip) FROM user_logins WHERE user_id = 'u4') = 'k1', 'the mask under a key';
    ASSERT mask_pii('10.0.0.4', 'aes-siv') = (SELECT masked_ip FROM user_logins WHERE user_id = 'u4'), 'equal masks';
    ASSERT EXISTS (SELECT FROM login_rejects), 'rejects are kept';
END
$$;
-- Delivered once more: known by the index.
INSERT INTO login_inbox (message_id, sent_at, body) VALUES
    ('00000000-0000-4000-8000-000000000001', '2026-01-01', '{"user_id": "u1", "ip": "10.0.0.1", "device_id": "d1"}');
INSERT INTO login_inbox (message_id, sent_at, body) VALUES
    ('00000000-0000-4000-8000-000000000005', '2026-01-01', '{"user_id": "u5", "ip": "10.0.0.5"}');
SELECT count(*) AS rejects FROM login_rejects \gset
SELECT * FROM redrive_rejects('login_inbox');
DO $$
BEGIN
    ASSERT (SELECT count(*) FROM user_logins WHERE user_id = 'u1') = 1, 'nothing is doubled';
    ASSERT (SELECT unmask_pii(masked_ip) FROM user_logins WHERE user_id = 'u5') = '10.0.0.5', 'new events are masked';
    ASSERT try_inbox('login_inbox'), 'a trial';
    ASSERT NOT EXISTS (SELECT FROM inbox_problems('login_inbox') WHERE problem = 'definition'), 'the inbox is as attached';
END
$$;
CALL remask_column('user_logins', 'masked_ip');
