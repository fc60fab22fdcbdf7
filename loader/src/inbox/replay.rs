//! Positions up to which the server and its standbys have flushed the WAL.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::PgLsn;

use super::catalog::Catalog;
use super::error::{self, DbError};
use super::{connect, connecting};
use libpq_connect::{Servers, Session};

/// Maximum time for reading the positions.
const LIMIT: Duration = Duration::from_secs(10);

/// Reads the positions. The system identifier and the timeline distinguish one history of the WAL from another.
/// Connections for base backups and logical replication aren't standbys. A role without `pg_read_all_stats` doesn't see
/// the position of a standby.
const POSITIONS: &str = "
    SELECT (SELECT system_identifier FROM pg_control_system()),
           substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8),
           pg_current_wal_flush_lsn(), pg_has_role('pg_read_all_stats', 'USAGE'), count(*), max(r.flush_lsn)
    FROM pg_stat_replication r
    WHERE r.state IS DISTINCT FROM 'backup'
      AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')";

/// Identity of the WAL: the cluster's system identifier and the timeline. A failover begins a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History(pub(crate) i64, pub(crate) String);

/// Progress of the standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standbys {
    /// The role lacks the privilege to see it.
    Hidden,
    /// No standby is connected.
    None,
    /// The most advanced one has flushed the WAL up to here.
    Flushed(PgLsn),
}

/// One reading of the positions.
#[derive(Debug)]
pub(crate) struct Positions {
    pub(crate) history: History,
    /// Position up to which the server itself has flushed the WAL.
    pub(crate) flushed: PgLsn,
    pub(crate) standbys: Standbys,
}

/// A connection that reads the positions.
pub(crate) struct Replication(Session);

impl Replication {
    /// Connects to the server that takes writes.
    pub(crate) async fn open(servers: &Servers) -> Result<Self, DbError> {
        connect(servers).await.map(Self)
    }

    /// Reads all positions at one time. After an error the connection is unusable.
    pub(crate) async fn positions(&mut self, servers: &Servers) -> Result<Positions, DbError> {
        let read = timeout(LIMIT, self.read()).await.map_err(|_| connecting::timed_out(servers, LIMIT))?;
        read.map_err(|error| error::of_check(&error))
    }

    async fn read(&mut self) -> Result<Positions, tokio_postgres::Error> {
        let catalog = Catalog::open(&mut self.0.client).await?;
        let row = catalog.query_one(POSITIONS, &[]).await?;
        let (may_see, standbys): (bool, i64) = (row.try_get(3)?, row.try_get(4)?);
        let flushed: Option<PgLsn> = row.try_get(5)?;
        Ok(Positions {
            history: History(row.try_get(0)?, row.try_get(1)?),
            flushed: row.try_get(2)?,
            standbys: match (may_see, flushed) {
                (false, _) if standbys > 0 => Standbys::Hidden,
                (true, Some(flushed)) => Standbys::Flushed(flushed),
                _ => Standbys::None,
            },
        })
    }
}
