-- Re-masking a column of a table, batch by batch.
--
-- A procedure that commits can have neither an owner's rights nor a search_path of its own: so every name and operator
-- says its schema, and every argument has just the type of its function's, so that nothing which somebody put into the
-- caller's path, or beside the extension, is ever found.

CREATE TABLE remask_progress (
    relation     regclass    NOT NULL,
    column_name  name        NOT NULL,
    -- The key that masks are to be of, and the pass over the table: the last one finds nothing left.
    key          text        NOT NULL,
    pass         integer     NOT NULL,
    blocks_done  bigint      NOT NULL,
    blocks_total bigint      NOT NULL,
    remasked     bigint      NOT NULL,
    started_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    finished_at  timestamptz,
    PRIMARY KEY (relation, column_name)
);
COMMENT ON TABLE remask_progress IS 'how far remask_column() has come, or came, in each table';
GRANT SELECT ON remask_progress TO PUBLIC;

CREATE PROCEDURE remask_column(relation regclass, column_name name, batch_blocks integer DEFAULT 512)
LANGUAGE plpgsql AS $procedure$
DECLARE
    -- The key that masks now: of whatever mask, the empty one too.
    target   CONSTANT pg_catalog.text := @extschema@.mask_key(@extschema@.remask_pii(''::pg_catalog.text));
    tables   pg_catalog.regclass[];
    part     pg_catalog.regclass;
    progress @extschema@.remask_progress;
    nth      integer;
    first    bigint;
    total    bigint;
    done     bigint;
    in_pass  bigint;
    whole    boolean;
    some_left boolean;
    rows     bigint;
    others   pg_catalog.text;
    change   pg_catalog.text;
    range    pg_catalog.text;
    place    pg_catalog.tid;
    state    pg_catalog.text;
    said     pg_catalog.text;
    advice   pg_catalog.text;
BEGIN
    IF batch_blocks OPERATOR(pg_catalog.<) 1 OR batch_blocks IS NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = 'a batch has at least one block';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) remask_column.relation
            AND c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog."char"[])
    ) THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('%s is not a table', relation),
            HINT = 'Re-mask the table that stores the rows.';
    END IF;
    SELECT pg_catalog.array_agg(c.oid::pg_catalog.regclass ORDER BY c.oid) INTO tables
    FROM pg_catalog.pg_class c
    WHERE c.relkind OPERATOR(pg_catalog.=) 'r'::pg_catalog."char" AND (
        c.oid OPERATOR(pg_catalog.=) remask_column.relation
        OR c.oid OPERATOR(pg_catalog.=) ANY (
            SELECT t.relid FROM pg_catalog.pg_partition_tree(remask_column.relation) t));

    IF EXISTS (
        SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
        WHERE i.inhparent OPERATOR(pg_catalog.=) remask_column.relation AND NOT c.relispartition
    ) OR EXISTS (
        SELECT FROM pg_catalog.pg_partition_tree(relation) t
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.relid
        WHERE c.relkind OPERATOR(pg_catalog.<>) ALL (ARRAY['r', 'p']::pg_catalog."char"[])
    ) THEN
        RAISE wrong_object_type USING
            MESSAGE = pg_catalog.format('not all rows of %s are in tables of its own', relation),
            HINT = 'Re-mask the tables that inherit from it one by one, and foreign partitions where they are.';
    END IF;

    FOREACH part IN ARRAY COALESCE(tables, '{}') LOOP
        IF pg_catalog.row_security_active(part::pg_catalog.oid) THEN
            RAISE insufficient_privilege USING
                MESSAGE = pg_catalog.format('row-level security hides rows of %s', part),
                HINT = 'Re-mask it as its owner, or as a role with BYPASSRLS.';
        END IF;
        SELECT * INTO progress FROM @extschema@.remask_progress p
        WHERE p.relation OPERATOR(pg_catalog.=) part AND p.column_name OPERATOR(pg_catalog.=) remask_column.column_name;
        -- One that was broken off in its first pass goes on where it was: the last pass looks at every block anyway.
        IF progress.key OPERATOR(pg_catalog.=) target AND progress.pass OPERATOR(pg_catalog.=) 1
            AND progress.finished_at IS NULL THEN
            nth := progress.pass;
            first := progress.blocks_done;
            done := progress.remasked;
        ELSE
            nth := 1;
            first := 0;
            done := 0;
            DELETE FROM @extschema@.remask_progress p
            WHERE p.relation OPERATOR(pg_catalog.=) part AND p.column_name OPERATOR(pg_catalog.=) remask_column.column_name;
            INSERT INTO @extschema@.remask_progress VALUES
                (part, column_name, target, nth, first, 0, done, pg_catalog.now(), pg_catalog.now(), NULL);
            COMMIT;
        END IF;
        others := pg_catalog.format(
            '%1$I IS NOT NULL AND (@extschema@.mask_key(%1$I::pg_catalog.text) OPERATOR(pg_catalog.=) %2$L) IS NOT TRUE',
            column_name, target);
        change := pg_catalog.format(
            'UPDATE ONLY %s SET %I = @extschema@.remask_pii(%2$I::pg_catalog.text)', part, column_name);
        -- A row that somebody changes meanwhile may move to a block that was passed already: so passes are made until none is
        -- left in all of the table.
        LOOP
            whole := first OPERATOR(pg_catalog.=) 0;
            in_pass := 0;
            total := pg_catalog.pg_relation_size(part) OPERATOR(pg_catalog./)
                pg_catalog.current_setting('block_size')::pg_catalog.int8;
            WHILE first OPERATOR(pg_catalog.<) total LOOP
                range := pg_catalog.format(
                    'ctid OPERATOR(pg_catalog.>=) %L::pg_catalog.tid AND ctid OPERATOR(pg_catalog.<) %L::pg_catalog.tid',
                    pg_catalog.format('(%s,0)', first),
                    pg_catalog.format('(%s,0)', first OPERATOR(pg_catalog.+) batch_blocks));
                BEGIN
                    EXECUTE pg_catalog.format('%s WHERE %s AND %s', change, range, others);
                    GET DIAGNOSTICS rows = ROW_COUNT;
                EXCEPTION
                    -- A value that is no mask, or cannot be read, or whose token does not fit. Which row it is, is looked for.
                    WHEN data_exception OR integrity_constraint_violation OR undefined_object
                        OR external_routine_invocation_exception THEN
                    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT;
                    FOR place IN EXECUTE pg_catalog.format('SELECT ctid FROM ONLY %s WHERE %s AND %s', part, range, others) LOOP
                        BEGIN
                            EXECUTE pg_catalog.format('%s WHERE ctid OPERATOR(pg_catalog.=) %L::pg_catalog.tid', change, place);
                        EXCEPTION WHEN OTHERS THEN
                            RAISE USING ERRCODE = state, HINT = advice,
                                MESSAGE = pg_catalog.format('row %s of %s: %s', place, part, said);
                        END;
                    END LOOP;
                    RAISE;
                END;
                in_pass := in_pass OPERATOR(pg_catalog.+) rows;
                done := done OPERATOR(pg_catalog.+) rows;
                first := first OPERATOR(pg_catalog.+) batch_blocks;
                UPDATE @extschema@.remask_progress p SET
                    pass = nth, blocks_done = LEAST(first, total), blocks_total = total,
                    remasked = done, updated_at = pg_catalog.clock_timestamp()
                WHERE p.relation OPERATOR(pg_catalog.=) part
                  AND p.column_name OPERATOR(pg_catalog.=) remask_column.column_name;
                COMMIT;
            END LOOP;
            IF whole AND in_pass OPERATOR(pg_catalog.=) 0 THEN
                EXECUTE pg_catalog.format('SELECT EXISTS (SELECT FROM ONLY %s WHERE %s)', part, others) INTO some_left;
                EXIT WHEN NOT some_left;
            END IF;
            IF nth OPERATOR(pg_catalog.>=) 20 THEN
                RAISE object_not_in_prerequisite_state USING
                    MESSAGE = pg_catalog.format('%s has masks of other keys after %s passes', part, nth),
                    HINT = 'A session that has not seen the new primary key makes them anew, or a trigger puts them back.';
            END IF;
            nth := nth OPERATOR(pg_catalog.+) 1;
            first := 0;
        END LOOP;
        UPDATE @extschema@.remask_progress p SET finished_at = pg_catalog.clock_timestamp()
        WHERE p.relation OPERATOR(pg_catalog.=) part AND p.column_name OPERATOR(pg_catalog.=) remask_column.column_name;
        COMMIT;
    END LOOP;
END
$procedure$;

COMMENT ON PROCEDURE remask_column(regclass, name, integer) IS
    're-mask a column under the primary key, in batches of so many blocks, each committed';
REVOKE EXECUTE ON PROCEDURE remask_column(regclass, name, integer) FROM PUBLIC;
