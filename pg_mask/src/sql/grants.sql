-- All privileges on what the extension brings. Nobody but the owner has any that does not stand here.
--
-- ALTER DEFAULT PRIVILEGES, set before CREATE EXTENSION, gives other roles privileges on each new object. So the script first
-- takes every privilege from every grantee, and then grants what is meant. A new function is closed until it is added below.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    command text;
BEGIN
    FOR command IN
        SELECT DISTINCT format('REVOKE ALL ON %s %s FROM %s', m.kind, m.name,
                               CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM pg_extension e
        JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        JOIN (
            SELECT 'pg_proc'::regclass AS class, oid, 'ROUTINE' AS kind, oid::regprocedure::text AS name,
                   proowner AS owner, coalesce(proacl, acldefault('f', proowner)) AS acl
            FROM pg_proc
            UNION ALL
            SELECT 'pg_class'::regclass, oid, 'TABLE', oid::regclass::text, relowner, relacl FROM pg_class
        ) AS m ON m.class = d.classid AND m.oid = d.objid
        CROSS JOIN LATERAL aclexplode(m.acl) AS a
        WHERE e.extname = 'pg_mask' AND a.grantee <> m.owner
    LOOP
        EXECUTE command;
    END LOOP;
END
$$;

-- For everyone: functions that give nothing away, and the trigger of the inboxes that one makes.
GRANT EXECUTE ON FUNCTION
    @extschema@.mask_pii(text),
    @extschema@.mask_key(text),
    @extschema@.is_masked(text),
    @extschema@.inbox_counts(),
    @extschema@.inbox_reject_classes(),
    @extschema@.inbox_trigger(),
    @extschema@.pii_privileges(),
    @extschema@.inboxes(),
    @extschema@.inbox_problems(regclass),
    @extschema@.try_inbox(regclass),
    @extschema@.attach_inbox(text, text, text, jsonb, text, text, text, boolean)
TO PUBLIC;
GRANT SELECT ON @extschema@.inboxes, @extschema@.remask_progress, @extschema@.pii_privileges TO PUBLIC;

-- Which inboxes there are, how much comes in, and who unmasks how much, is for those who watch the server.
GRANT EXECUTE ON FUNCTION @extschema@.inbox_statistics(), @extschema@.unmask_statistics() TO pg_monitor;
GRANT SELECT ON @extschema@.inbox_statistics, @extschema@.unmask_statistics TO pg_monitor;

-- For nobody yet. Taking a mask back is a right of its own. So is masking under a key: there are no more than 4 billion
-- IPv4 addresses, so a user who can mask guesses finds out the value behind any mask. sql/04_roles.sql grants
--     unmask_pii(text), mask_pii(text, text), mask_pii_all(text), remask_pii(text), remask_column(regclass, name, integer)
--     and redrive_rejects(…).
