//! The loader runs nothing with its own privileges that is found on a search path.

use crate::common::{World, demo_events, events};

/// Doubles of the functions and operators of `pg_catalog`, and operators that match better than any in `pg_catalog`. Each
/// does what its model does. With the session's own privileges it raises an error instead, and a sequence records which
/// double it was, because a rollback doesn't reset a sequence. Privileges that the extension lends are the extension's to
/// guard.
const TRAP: &str = r#"
    CREATE SCHEMA trap;
    GRANT USAGE ON SCHEMA trap TO PUBLIC;
    CREATE SEQUENCE trap.caught;
    GRANT ALL ON SEQUENCE trap.caught TO PUBLIC;
    SET check_function_bodies = off;
    DO $do$
    DECLARE
        model record;
        double text;
        body CONSTANT text := 'BEGIN
            IF current_user OPERATOR(pg_catalog.=) session_user THEN
                PERFORM pg_catalog.setval(''trap.caught'', (SELECT p.oid::pg_catalog.int8 FROM pg_catalog.pg_proc p
                    WHERE p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure(%L)::pg_catalog.oid));
                RAISE EXCEPTION ''trapped'';
            END IF;
            RETURN %s;
        END';
    BEGIN
        FOR model IN
            SELECT p.proname, p.oid, p.prorettype, p.pronargs,
                   (SELECT string_agg(format_type(a, NULL), ', ' ORDER BY n) FROM unnest(p.proargtypes) WITH ORDINALITY AS t (a, n)) AS types
            FROM pg_proc p
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset AND p.provariadic = 0
              AND p.proallargtypes IS NULL AND p.prorettype::regtype::text NOT IN ('name[]')
              AND NOT EXISTS (SELECT FROM pg_type t WHERE t.typtype = 'p' AND t.oid = ANY (p.proargtypes::oid[] || p.prorettype))
        LOOP
            double := format('trap.%I(%s)', model.proname, model.types);
            EXECUTE format('CREATE FUNCTION %s RETURNS %s LANGUAGE plpgsql AS %L', double, format_type(model.prorettype, NULL),
                format(body, double, format('pg_catalog.%I(%s)', model.proname,
                    (SELECT string_agg('$' || n, ', ' ORDER BY n) FROM generate_series(1, model.pronargs) AS n))));
        END LOOP;
        FOR model IN
            SELECT row_number() OVER () AS n, o.* FROM (
                SELECT o.oprname, o.oprleft, o.oprright, o.oprresult FROM pg_operator o
                WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0 AND o.oprcode <> 0
                UNION SELECT name, l::regtype, r::regtype, result::regtype FROM (VALUES
                    ('=', 'oid', 'regclass', 'bool'), ('<>', 'oid', 'regclass', 'bool'), ('=', 'regclass', 'oid', 'bool'),
                    ('&', 'int2', 'int4', 'int4'), ('=', '"char"', 'text', 'bool'), ('=', 'name', 'varchar', 'bool')
                ) AS better (name, l, r, result)
            ) AS o
        LOOP
            double := format('trap.operator_%s(%s, %s)', model.n, format_type(model.oprleft, NULL), format_type(model.oprright, NULL));
            EXECUTE format('CREATE FUNCTION %s RETURNS %s LANGUAGE plpgsql AS %L', double, format_type(model.oprresult, NULL),
                format(body, double, format('$1 OPERATOR(pg_catalog.%s) $2', model.oprname)));
            EXECUTE format('CREATE OPERATOR trap.%s (FUNCTION = trap.operator_%s, LEFTARG = %s, RIGHTARG = %s)', model.oprname,
                model.n, format_type(model.oprleft, NULL), format_type(model.oprright, NULL));
        END LOOP;
    END $do$"#;

/// Returns the last double that ran, if any did.
async fn caught(world: &World) -> Option<String> {
    let query = "SELECT last_value::oid::regprocedure::text FROM trap.caught WHERE is_called";
    let row = world.db.query_opt(query, &[]).await.unwrap();
    row.map(|row| row.get(0))
}

#[tokio::test]
async fn nothing_on_the_search_path_stands_in_for_the_catalogs_own() {
    World::run(async |world| {
        world.sql(TRAP).await;
        let path = "trap, pg_catalog, public";
        let role =
            format!("ALTER ROLE {0} SET search_path = {path}; GRANT login_redriver TO {0}", world.name);
        world.sql(&role).await;
        // The trap works.
        let session = world.session().await;
        session
            .batch_execute(&format!("SET search_path = {path}; SELECT current_setting('port')"))
            .await
            .unwrap_err();
        assert_eq!(caught(world).await.as_deref(), Some("trap.current_setting(text)"));
        world.sql("ALTER SEQUENCE trap.caught RESTART").await;

        let run = async |options: &str| {
            let ended = world.loader().options(options).end().await;
            assert_eq!(caught(world).await, None, "{options}");
            ended.expect(0).stdout
        };
        run("check --json").await;
        run("--dry-run").await;
        // The batch has events to store and to reject, so that every statement of a batch runs.
        let mut batch = demo_events();
        batch.extend(events(5));
        batch.push("broken".into());
        world.queue.send(&batch).await;
        let ended = world.loader().until_empty(&world.queue).await.expect(0).summary();
        assert!(ended.stored > 0 && ended.rejected > 0);
        assert_eq!(caught(world).await, None, "a run");
        assert!(!run("redrive --newer-than 1hour").await.starts_with("taken 0"));
    })
    .await;
}
