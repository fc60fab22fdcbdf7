-- The only door for raw events. A view, so there is nothing on disk that a raw event could be written to.
-- Inserting into the two tables is done with the rights of its owner: see 04_roles.sql.
SELECT attach_inbox(
    inbox   => 'login_inbox',
    target  => 'user_logins',
    rejects => 'login_rejects',
    rules   => '{
        "user_id":          {"copy": "user_id"},
        "device_type":      {"copy": "device_type"},
        "masked_ip":        {"mask": "ip"},
        "masked_device_id": {"mask": "device_id"},
        "locale":           {"copy": "locale"},
        "app_version":      {"version": "app_version"},
        "create_date":      "sent_date",
        "message_id":       "message_id"
    }'
);
