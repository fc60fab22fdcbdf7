//! The statements of a connection. They name everything with its schema, since they run under the role's own search path.

use tokio_postgres::types::Oid;

use super::identity::Identity;

/// Statements that store a batch. They use the names in the catalog.
pub(super) struct Statements {
    /// Begins a transaction. In one round trip, reads which view the inbox is and the number of the session's last
    /// inbox statement.
    pub(super) begin: String,
    pub(super) trial: String,
    pub(super) copy: String,
    pub(super) counts: String,
    /// Reads the number of rejected events, by class of the reason.
    pub(super) classes: String,
    /// Asks what is wrong with the inbox `$1`.
    pub(super) problems: String,
    /// The view of all inboxes.
    pub(super) inboxes: String,
}

/// Columns of an inbox, in the order of the COPY data.
pub(super) const COLUMNS: [(&str, &str); 3] =
    [("message_id", "uuid"), ("sent_at", "timestamptz"), ("body", "text")];

/// Raises `synchronous_commit` to `on` for one transaction. Under `off`, COMMIT is answered before the batch is on
/// disk. Under `local` and `remote_write`, it is answered before a synchronous standby has flushed the batch. A crash
/// or a failover would then lose messages that were deleted. Each transaction sets it, because the setting can change
/// while the loader runs, and a pooler can change the session.
const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
    WHERE NOT pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) ANY ('{on,remote_apply}')";

/// A duplicate's message is deleted too, so the row that exists must be as durable as a new one. It may not be: its
/// COMMIT may still wait for a synchronous standby, or that wait may have been canceled. COMMIT of a transaction that
/// wrote nothing doesn't wait. With this WAL message in the transaction, COMMIT waits for all WAL before it.
const DURABLE_TOO: &str = "CAST(CASE WHEN duplicate OPERATOR(pg_catalog.>) 0
    THEN pg_catalog.pg_logical_emit_message(true, 'pg_mask', '') END AS pg_catalog.text)";

impl Statements {
    /// Builds the statements for the inbox `oid`, with its name in SQL and as an SQL literal. `schema` is the extension's.
    pub(super) fn of(schema: &str, oid: Oid, name: &str, literal: &str) -> Self {
        let columns = COLUMNS.map(|(name, _)| name).join(", ");
        let view = Identity::query(literal);
        Self {
            begin: format!("BEGIN; {DURABLE}; {view}; SELECT statement FROM {schema}.inbox_counts()"),
            // The second event, from the INSERT, takes the path of every event. It meets triggers that others have put
            // on the inbox, and the work that those defer to COMMIT.
            trial: format!(
                "BEGIN; SELECT {schema}.try_inbox(CAST('{oid}' AS pg_catalog.regclass)); \
                 INSERT INTO {name} ({columns}) VALUES (pg_catalog.gen_random_uuid(), pg_catalog.now(), '{{}}'); \
                 SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK"
            ),
            copy: format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary)"),
            counts: format!(
                "SELECT statement, stored, duplicate, rejected, {DURABLE_TOO} FROM {schema}.inbox_counts()"
            ),
            classes: format!("SELECT class, rejected FROM {schema}.inbox_reject_classes()"),
            problems: format!(
                "SELECT item, level, problem, hint FROM {schema}.inbox_problems(CAST($1 AS pg_catalog.regclass))"
            ),
            inboxes: format!("{schema}.inboxes"),
        }
    }
}
