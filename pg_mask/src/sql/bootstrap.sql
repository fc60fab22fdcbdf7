DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'pg_mask needs a database whose encoding is UTF8',
            HINT = 'Masks are made over UTF-8 bytes: create the database with ENCODING ''UTF8''.';
    END IF;
END
$$;
