-- Prints every object of the extension with its definition, privileges and comment. An upgraded extension and a new one
-- print the same.
\pset format unaligned
\pset tuples_only on
SET search_path = pg_catalog;
SELECT pg_describe_object(d.classid, d.objid, d.objsubid),
       CASE d.classid
           WHEN 'pg_proc'::regclass THEN (SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.oid = d.objid AND p.prokind <> 'a')
           WHEN 'pg_class'::regclass THEN pg_get_viewdef(d.objid)
       END,
       (SELECT array(SELECT a::text FROM unnest(coalesce(p.proacl, acldefault('f', p.proowner))) a ORDER BY 1)
        FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid),
       (SELECT concat_ws(' ', c.relkind, c.reloptions, c.relacl,
                         (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attacl,
                                                           col_description(c.oid, a.attnum)) ORDER BY a.attnum)
                          FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
        FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid),
       -- pg_upgrade leaves out the default of a function.
       array(SELECT a::text FROM unnest(coalesce(
           (SELECT i.initprivs FROM pg_init_privs i WHERE (i.classoid, i.objoid, i.objsubid) = (d.classid, d.objid, d.objsubid)),
           (SELECT acldefault('f', p.proowner) FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid))) a ORDER BY 1),
       obj_description(d.objid, (SELECT relname FROM pg_class WHERE oid = d.classid))
FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
WHERE e.extname = 'pg_mask' AND NOT (d.classid = 'pg_type'::regclass AND EXISTS
    (SELECT FROM pg_type t WHERE t.oid = d.objid AND (t.typelem <> 0 OR t.typrelid <> 0)))
ORDER BY 1;
SELECT 'version', extversion, nspname, extrelocatable, extconfig, extcondition
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_mask';
