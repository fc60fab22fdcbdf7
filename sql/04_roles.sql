-- Run it as a superuser, or as somebody who may create roles and grant unmask_pii. None of the roles can log in by
-- itself: they are for granting to the people and programs that need them.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[
        'login_owner', 'login_loader', 'login_analyst', 'login_pii_reader', 'login_finder',
        'login_remasker', 'login_redriver'
    ] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- Roles belong to the cluster: another database may have made it, even at this moment.
        END;
    END LOOP;
END
$$;

-- What an inbox does to its tables it does with the rights of its owner, whoever inserts. So that is a role which can
-- do nothing else.
ALTER TABLE user_logins OWNER TO login_owner;
ALTER TABLE login_rejects OWNER TO login_owner;
ALTER VIEW login_inbox OWNER TO login_owner;

-- An inbox masks under a key if its owner may: whoever inserts need not.
GRANT EXECUTE ON FUNCTION mask_pii(text, text) TO login_owner;

-- Rejects that go back into the inbox, by redrive_rejects(), are unmasked on their way with the owner's rights: whoever sends
-- them back need not be able to unmask. Nobody can log in as login_owner; whoever becomes a member of it, or may make
-- triggers on these tables, can unmask.
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO login_owner;

-- The loader puts events into the inbox and can do nothing else.
GRANT INSERT ON login_inbox TO login_loader;

-- Analysts see masked rows, and cannot unmask.
GRANT SELECT ON user_logins TO login_analyst;

-- Those who may see PII: all that analysts see, unmasking, and the rejects.
GRANT login_analyst TO login_pii_reader;
GRANT SELECT ON login_rejects TO login_pii_reader;
GRANT EXECUTE ON FUNCTION unmask_pii(text) TO login_pii_reader;

-- Those who look for the rows of a value that they know. By masking guesses, all IPv4 addresses say, one finds out every value,
-- and nobody counts that: so it is not for those whose unmasking is limited or logged.
GRANT EXECUTE ON FUNCTION mask_pii(text, text), mask_pii_all(text) TO login_finder;

-- Moves masked columns to another scheme or key. It could find out values, by re-masking guesses in base64.
GRANT SELECT, UPDATE (masked_ip, masked_device_id) ON user_logins TO login_remasker;
GRANT SELECT, UPDATE (masked_body) ON login_rejects TO login_remasker;
GRANT EXECUTE ON FUNCTION remask_pii(text) TO login_remasker;
GRANT EXECUTE ON PROCEDURE remask_column(regclass, name, integer) TO login_remasker;
GRANT INSERT, UPDATE, DELETE ON remask_progress TO login_remasker;

-- Sends rejects back into the inbox once their cause is mended. Sees why they were rejected, and never what is in them.
GRANT EXECUTE ON FUNCTION redrive_rejects(regclass, text, timestamptz, timestamptz, uuid[], integer) TO login_redriver;
GRANT INSERT ON login_inbox TO login_redriver;
GRANT SELECT (message_id, sent_at, reason, rejected_at) ON login_rejects TO login_redriver;
