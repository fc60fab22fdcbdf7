-- Re-masking a column of a table, batch by batch: see remask.rs.

CREATE TABLE remask_progress (
    relation     regclass    NOT NULL,
    column_name  name        NOT NULL,
    -- The key of the new masks, and the number of the pass over the table. The last pass finds nothing left.
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
COMMENT ON TABLE remask_progress IS 'progress of remask_column() in each table';

CREATE PROCEDURE remask_column(relation regclass, column_name name, batch_blocks integer DEFAULT 512)
LANGUAGE c AS 'MODULE_PATHNAME', 'remask_column';

COMMENT ON PROCEDURE remask_column(regclass, name, integer) IS
    're-masks a column under the primary key, in batches of so many blocks, each committed';
