CREATE FUNCTION inbox_trigger() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'inbox_trigger';
COMMENT ON FUNCTION inbox_trigger() IS 'the trigger of an inbox, which attach_inbox() makes';
COMMENT ON FUNCTION mask_pii(text) IS 'the mask of a value; equal values have equal masks';
COMMENT ON FUNCTION mask_pii_all(text) IS 'every mask that a value may have, to find rows by';
COMMENT ON FUNCTION unmask_pii(text) IS 'the value that mask_pii() made a mask from';
COMMENT ON FUNCTION remask_pii(text) IS 'the mask of a masked value under the primary key';
COMMENT ON FUNCTION mask_key(text) IS 'the id of the key that made a mask';
COMMENT ON FUNCTION is_masked(text) IS 'whether a text has the form of a masked value';
COMMENT ON FUNCTION inbox_counts() IS 'events of the session''s last inbox statement: stored, duplicate, rejected';
COMMENT ON FUNCTION inbox_reject_classes() IS 'rejects of the session''s last inbox statement, by class';
COMMENT ON FUNCTION redrive_rejects(regclass, text, timestamptz, timestamptz, uuid[], integer) IS
    'put rejects back into their inbox';
COMMENT ON FUNCTION try_inbox(regclass) IS 'tries whether an inbox takes events, with a row that is rolled back';
COMMENT ON FUNCTION inboxes() IS 'the rows of the view inboxes';
COMMENT ON FUNCTION inbox_problems(regclass) IS 'the problems of an inbox';
COMMENT ON FUNCTION attach_inbox(text, text, text, jsonb, text, text, text, boolean) IS 'creates an inbox for a table';

DO $$
BEGIN
    EXECUTE (
        SELECT pg_catalog.format('COMMENT ON FUNCTION @extschema@.mask_pii(text, text) IS %L',
                                 'the mask of a value by a scheme: ' || pg_catalog.array_to_string(enumvals, ' or '))
        FROM pg_catalog.pg_settings WHERE name = 'pg_mask.scheme'
    );
END
$$;
