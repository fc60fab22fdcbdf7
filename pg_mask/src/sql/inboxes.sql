CREATE VIEW inboxes AS
    SELECT inbox::pg_catalog.regclass, owner::pg_catalog.regrole, target::pg_catalog.regclass, rejects::pg_catalog.regclass, rules,
           envelope, event, found_by, flush, copy_obstacle
    FROM inboxes();
COMMENT ON VIEW inboxes IS 'the inboxes of the database, and how each is attached';
