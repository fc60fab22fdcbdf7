CREATE VIEW inbox_statistics AS
    SELECT c.oid::pg_catalog.regclass AS inbox, s.stored, s.duplicate, s.rejected, s.rejected_by_class, s.last_event_at, s.since
    FROM inbox_statistics() s JOIN pg_catalog.pg_class c ON c.oid = s.inbox;
COMMENT ON VIEW inbox_statistics IS 'events of each inbox since the server started';
CREATE VIEW unmask_statistics AS
    SELECT r.oid::pg_catalog.regrole AS role, s.statements, s.unmasked, s.with_purpose, s.last_at, s.since
    FROM unmask_statistics() s JOIN pg_catalog.pg_roles r ON r.oid = s.role;
COMMENT ON VIEW unmask_statistics IS 'values that each role has unmasked since the server started';
