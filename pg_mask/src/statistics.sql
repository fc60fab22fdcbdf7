-- Which inboxes there are, and how much comes in, is for those who watch the server.
CREATE VIEW inbox_statistics AS
    SELECT c.oid::pg_catalog.regclass AS inbox, s.stored, s.duplicate, s.rejected, s.rejected_by_class, s.last_event_at, s.since
    FROM inbox_statistics() s JOIN pg_catalog.pg_class c ON c.oid = s.inbox;
COMMENT ON VIEW inbox_statistics IS 'what each inbox has done since the server started';
REVOKE EXECUTE ON FUNCTION inbox_statistics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION inbox_statistics() TO pg_monitor;
GRANT SELECT ON inbox_statistics TO pg_monitor;
