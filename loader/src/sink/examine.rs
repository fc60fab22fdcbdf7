//! What is looked at when a run begins and not at every connection; and for `loader check` alone, what takes longer or tries
//! something.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_postgres::Error;
use uuid::Uuid;

use super::catalog::Catalog;
use super::fault::describe;
use super::{Sink, Trial, Verdict, relations, rights};
use crate::budget::Share;
use crate::finding::Finding;
use crate::ledger::LeaseId;
use crate::message::Message;
use crate::postgres::{Roots, Servers, Tls};

/// The item that tells whether the connection is.
const ENCRYPTED: &str = "database.tls";
/// The item that tells whether the inbox takes a row.
const TRIAL: &str = "inbox.trial";
/// The item that tells how far clocks are apart.
const CLOCKS: &str = "database.clock";
/// How far clocks may be apart, in seconds, beyond the time that asking takes.
const SKEW: f64 = 2.0;

/// Whether the connection is encrypted; and whether it leaves this machine, as Postgres sees it.
const ENCRYPTION: &str = "
    SELECT s.ssl, s.version, inet_client_addr() IS NULL OR inet_client_addr() = inet_server_addr()
    FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()";

/// The clock of the database. It's a single reading between two of this machine's clock, so it names everything with its
/// schema instead of beginning a transaction.
const CLOCK: &str = "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())";

impl Sink {
    /// Looks at encryption, tables and clocks: where a run begins, too.
    pub(crate) async fn glance(&mut self, servers: &Servers) -> Vec<Finding> {
        [
            (ENCRYPTED, self.encryption(servers.tls()).await),
            (relations::LOGGED, self.logged().await),
            (CLOCKS, self.clock().await),
        ]
        .map(|(item, finding)| finding.unwrap_or_else(|error| unknown(item, &error)))
        .into()
    }

    /// Looks who can replace the inbox and at all rights, and has the database try an event, which is rolled back.
    pub(crate) async fn examine(&mut self) -> Vec<Finding> {
        let schema = self.schema().await.unwrap_or_else(|error| unknown(relations::SCHEMA, &error));
        let rights = self.rights().await.unwrap_or_else(|error| unknown("rights.others", &error));
        vec![schema, rights, self.examine_trial().await]
    }

    async fn encryption(&mut self, tls: &Tls) -> Result<Finding, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        let row = catalog.query_one(ENCRYPTION, &[]).await?;
        let (encrypted, version): (bool, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let version = version.unwrap_or_default();
        Ok(if encrypted && matches!(tls.roots, Roots::None) {
            Finding::warning(
                ENCRYPTED,
                format!(
                    "the connection is encrypted by {version}, and nobody verifies that the server is the right one: use \
                     sslmode=verify-full"
                ),
            )
        } else if encrypted {
            Finding::ok(
                ENCRYPTED,
                format!("the connection is encrypted by {version}, and the server's certificate verified"),
            )
        } else {
            unencrypted(row.try_get(2)?, self.address)
        })
    }

    async fn logged(&mut self) -> Result<Finding, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        relations::logged(&catalog, self.inbox.view).await
    }

    async fn schema(&mut self) -> Result<Finding, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        relations::replaceable(&catalog, self.inbox.view).await
    }

    async fn rights(&mut self) -> Result<Finding, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        let row = catalog.query_one("SELECT current_user::text", &[]).await?;
        let user: String = row.try_get(0)?;
        rights::of_others(&catalog, &user, self.inbox.view).await
    }

    async fn clock(&self) -> Result<Finding, Error> {
        let before = now();
        let row = self.client.query_typed_one(CLOCK, &[]).await?;
        let after = now();
        Ok(compare_clocks(CLOCKS, "the database", row.try_get(0)?, before, after))
    }

    /// Has the inbox take an event, and write a row: this shows its triggers, rules and keys, its owner's rights, and triggers
    /// of the target.
    async fn examine_trial(&mut self) -> Finding {
        let message = Message {
            lease: LeaseId::NONE,
            id: Uuid::new_v4(),
            sent_at: None,
            receive_count: 1,
            group: None,
            body: Some("{}".into()),
            _memory: Share::default(),
        };
        let tried = match self.store(&[message], Verdict::RollBack).await {
            Ok(_) => self.trial().await,
            Err(fault) => Err(fault),
        };
        tried.map_or_else(
            |fault| {
                let advice =
                    "In psql, SELECT try_inbox(…) with the inbox's name shows the database's own message";
                Finding::failed(TRIAL, format!("{}. {advice}", fault.error))
            },
            Finding::of_trial,
        )
    }
}

impl Finding {
    /// Tells the result of a trial.
    pub(crate) fn of_trial(trial: Trial) -> Self {
        match trial {
            Trial::Stored => Self::ok(TRIAL, "a row went through the inbox, and was rolled back"),
            Trial::Refused => Self::warning(
                TRIAL,
                "checks of the target refused the trial's row, so triggers after them were not tried. Insert one event \
                 that becomes a row: later trials copy it",
            ),
        }
    }
}

/// Whether that matters, for a server on the same machine by its own account, or at this address.
fn unencrypted(same_machine: bool, address: Option<IpAddr>) -> Finding {
    if same_machine {
        Finding::ok(ENCRYPTED, "the connection is not encrypted, and does not leave this machine")
    } else if address.is_some_and(|address| address.to_canonical().is_loopback()) {
        // A container's port, most often, or a tunnel.
        Finding::ok(
            ENCRYPTED,
            "the connection is not encrypted, and goes to a port of this machine: if that leads elsewhere, it has to \
             encrypt",
        )
    } else {
        Finding::warning(
            ENCRYPTED,
            "the connection is not encrypted, so raw events cross the network in the clear: use \
             sslmode=verify-full, unless the network is a private one",
        )
    }
}

/// That a run can begin does not depend on it.
fn unknown(item: &'static str, error: &Error) -> Finding {
    Finding::skipped(item, format!("it cannot be looked at: {}", describe(error)))
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Compares a clock, which was read between `before` and `after`, with this machine's. All in seconds since 1970.
pub(crate) fn compare_clocks(
    item: &'static str,
    whose: &str,
    theirs: f64,
    before: f64,
    after: f64,
) -> Finding {
    let skew = if theirs < before { before - theirs } else { (theirs - after).max(0.0) };
    if skew <= SKEW {
        return Finding::ok(item, format!("the clock of {whose} is that of this machine"));
    }
    let which = if theirs < before { "behind" } else { "ahead of" };
    Finding::warning(
        item,
        format!(
            "the clock of {whose} is {skew:.0} s {which} this machine's: have both set by NTP. The ages of messages are \
             wrong, and AWS refuses requests of a clock that is five minutes off"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Status;

    #[test]
    fn without_encryption_it_matters_where_the_server_is() {
        let status = |same_machine, address: &str| unencrypted(same_machine, address.parse().ok()).status;
        assert_eq!(status(true, "192.0.2.1"), Status::Ok);
        assert_eq!(["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|a| status(false, a)), [Status::Ok; 3]);
        // None is a Unix socket, which Postgres itself says is on the same machine.
        assert_eq!(["192.0.2.1", "172.17.0.2", "none"].map(|a| status(false, a)), [Status::Warning; 3]);
    }

    #[test]
    fn clocks_are_compared_by_what_is_sure() {
        let status = |theirs| compare_clocks("c", "w", theirs, 100.0, 101.0).status;
        assert_eq!([98.0, 100.5, 103.0].map(status), [Status::Ok; 3]);
        assert_eq!([97.9, 103.1].map(status), [Status::Warning; 2]);
        assert!(compare_clocks("c", "w", 40.0, 100.0, 101.0).message.contains("60 s behind"));
    }
}
