-- A masked value: keeps a raw one out of the columns below, whoever inserts it. A domain, since its error quotes nothing,
-- where a CHECK of the table would show the whole row. (A text COPY tells the value in the error's context nevertheless.)
DO $$
BEGIN
    CREATE DOMAIN masked AS varchar(256) CONSTRAINT is_masked CHECK (is_masked(VALUE::text));
EXCEPTION WHEN duplicate_object THEN
    NULL;
END
$$;

-- Logins with their PII masked. No raw value ever comes into this table: see 03_inbox.sql.
CREATE TABLE IF NOT EXISTS user_logins (
    user_id          varchar(128) NOT NULL,
    device_type      varchar(32),
    masked_ip        masked,
    masked_device_id masked,
    locale           varchar(32),
    app_version      integer,
    create_date      date,
    -- The SQS message: a redelivered one is found by it and not stored again. NULL for rows put in by hand.
    message_id       uuid UNIQUE
);

-- Events that could not become a login, masked whole, with a reason that quotes nothing of them.
-- unmask_pii(masked_body) is the event, byte for byte: it can go into the inbox again when the cause is mended.
CREATE TABLE IF NOT EXISTS login_rejects (
    message_id  uuid UNIQUE,
    sent_at     timestamptz,
    reason      text NOT NULL,
    masked_body text,
    rejected_at timestamptz NOT NULL
);
-- Rejects are redriven, and deleted, by age.
CREATE INDEX IF NOT EXISTS login_rejects_rejected_at ON login_rejects (rejected_at);
