//! Checks for the beginning of a run, which aren't repeated for every connection. `loader check` adds checks that take
//! longer or try something.

use std::net::IpAddr;

use tokio_postgres::Error;
use uuid::Uuid;

use super::catalog::Catalog;
use super::error::describe;
use super::{Inbox, Trial, Verdict, privileges, problems};
use crate::check_item::CheckItem;
use crate::clock::{compare_clocks, now};
use crate::leases::capacity::Share;
use crate::leases::ledger::LeaseId;
use crate::message::Message;
use libpq_connect::{Roots, Servers, Tls};

/// Item: whether the connection is encrypted.
const ENCRYPTED: &str = "database.tls";
/// Item: whether the inbox accepts a row.
const TRIAL: &str = "inbox.trial";
/// Item: how far the clocks are apart.
const CLOCKS: &str = "database.clock";

/// Reads whether the connection is encrypted, and whether Postgres sees both ends on one machine.
const ENCRYPTION: &str = "
    SELECT s.ssl, s.version, inet_client_addr() IS NULL OR inet_client_addr() = inet_server_addr()
    FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid()";

/// Reads the database's clock. It is a single query between two readings of this machine's clock. So it names
/// everything with its schema instead of beginning a transaction.
const CLOCK: &str = "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())";

impl Inbox {
    /// Checks encryption, the inbox and clocks. Called when a run begins, too.
    pub(crate) async fn check_at_start(&mut self, servers: &Servers) -> Vec<CheckItem> {
        let encryption = self.encryption(servers.tls()).await;
        let problems = self.problems().await;
        let clock = self.clock().await;
        let mut items = vec![encryption.unwrap_or_else(|error| unknown(ENCRYPTED, &error))];
        items.extend(problems.unwrap_or_else(|error| vec![unknown(problems::OTHER, &error)]));
        items.push(clock.unwrap_or_else(|error| unknown(CLOCKS, &error)));
        items
    }

    /// Checks all privileges. Then has the database try an event, which is rolled back.
    pub(crate) async fn check_rights_and_trial(&mut self) -> Vec<CheckItem> {
        let rights = self.rights().await.unwrap_or_else(|error| unknown("rights.others", &error));
        vec![rights, self.check_trial().await]
    }

    async fn encryption(&mut self, tls: &Tls) -> Result<CheckItem, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        let row = catalog.query_one(ENCRYPTION, &[]).await?;
        let (encrypted, version): (bool, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        let version = version.unwrap_or_default();
        Ok(if encrypted && matches!(tls.roots, Roots::None) {
            CheckItem::warning(
                ENCRYPTED,
                format!(
                    "the connection is encrypted by {version}, and nobody verifies that the server is the right one: use \
                     sslmode=verify-full"
                ),
            )
        } else if encrypted {
            CheckItem::ok(
                ENCRYPTED,
                format!("the connection is encrypted by {version}, and the server's certificate verified"),
            )
        } else {
            unencrypted(row.try_get(2)?, self.address)
        })
    }

    async fn problems(&mut self) -> Result<Vec<CheckItem>, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        problems::of_inbox(&catalog, &self.statements.problems, self.identity.view).await
    }

    async fn rights(&mut self) -> Result<CheckItem, Error> {
        let catalog = Catalog::open(&mut self.client).await?;
        let row = catalog.query_one("SELECT current_user::text", &[]).await?;
        let user: String = row.try_get(0)?;
        privileges::of_others(&catalog, &user, &self.statements.inboxes, self.identity.view).await
    }

    async fn clock(&self) -> Result<CheckItem, Error> {
        let before = now();
        let row = self.client.query_typed_one(CLOCK, &[]).await?;
        let after = now();
        Ok(compare_clocks(CLOCKS, "the database", row.try_get(0)?, before, after))
    }

    /// Has the inbox take an event and write a row. This shows faults in its triggers, rules and keys, in its owner's
    /// privileges, and in the target's triggers.
    async fn check_trial(&mut self) -> CheckItem {
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
                const ADVICE: &str =
                    "In psql, SELECT try_inbox(…) with the inbox's name shows the database's own message";
                let reason = match fault.error {
                    crate::error::Error::Database(reason) => reason,
                    error => error.to_string(),
                };
                CheckItem::failed(TRIAL, format!("{reason}. {ADVICE}"))
            },
            CheckItem::of_trial,
        )
    }
}

impl CheckItem {
    /// Returns the item for a trial's result.
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

/// Returns the item for an unencrypted connection. The server may say that it is on the same machine; otherwise
/// `address` decides.
fn unencrypted(same_machine: bool, address: Option<IpAddr>) -> CheckItem {
    if same_machine {
        CheckItem::ok(ENCRYPTED, "the connection is not encrypted, and does not leave this machine")
    } else if address.is_some_and(|address| address.to_canonical().is_loopback()) {
        // Most often a container's port, or a tunnel.
        CheckItem::ok(
            ENCRYPTED,
            "the connection is not encrypted, and goes to a port of this machine: if that leads elsewhere, it has to \
             encrypt",
        )
    } else {
        CheckItem::warning(
            ENCRYPTED,
            "the connection is not encrypted, so raw events cross the network in the clear: use \
             sslmode=verify-full, unless the network is a private one",
        )
    }
}

/// Returns an item that couldn't be checked because of an error. A run can begin without it.
fn unknown(item: &'static str, error: &Error) -> CheckItem {
    CheckItem::warning(item, format!("it cannot be looked at: {}", describe(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check_item::Status;

    #[test]
    fn without_encryption_it_matters_where_the_server_is() {
        let status = |same_machine, address: &str| unencrypted(same_machine, address.parse().ok()).status;
        assert_eq!(status(true, "192.0.2.1"), Status::Ok);
        assert_eq!(["127.0.0.1", "::1", "::ffff:127.0.0.1"].map(|a| status(false, a)), [Status::Ok; 3]);
        // Without an address it is a Unix socket, for which Postgres itself says that it is on the same machine.
        assert_eq!(["192.0.2.1", "172.17.0.2", "none"].map(|a| status(false, a)), [Status::Warning; 3]);
    }
}
