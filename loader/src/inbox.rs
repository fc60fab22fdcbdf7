//! The inbox: one connection to `PostgreSQL`, and one transaction per batch.

mod catalog;
mod check;
mod connecting;
mod copy_encoder;
mod database;
mod durability;
mod error;
mod identity;
mod preflight;
mod privileges;
mod problems;
mod rds_token;
mod redrive;
mod replay;
mod statements;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, CopyInSink, Row, SimpleQueryMessage};

use crate::check_item::CheckItem;
use crate::error::Error;
use crate::message::Message;
use crate::telemetry::stats::{Account, Counts};
use catalog::can_be_prepared;
use copy_encoder::Encoder;
pub(crate) use database::Database;
pub(crate) use error::{DbError, Retry};
pub(crate) use identity::KnownInbox;
use identity::{Identity, number};
use libpq_connect::{Canceller, LOGIN_TIMEOUT, Servers, Session, Warnings};
use preflight::Found;
pub(crate) use rds_token::RdsTokens;
pub(crate) use redrive::{Redriven, RejectFilter, Rejects};
pub(crate) use replay::{History, Positions, Replication, Standbys};
use statements::Statements;

/// Maximum time of a ROLLBACK.
const ROLLBACK_TIME: Duration = Duration::from_secs(10);
/// End of a transaction that the inbox has accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Commit it.
    Commit,
    /// Roll it back, because it only shows what would happen.
    RollBack,
}

/// Result of a trial in which nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Trial {
    /// A row went through the inbox.
    Stored,
    /// Checks of the target refused the row, so nothing after them was tried.
    Refused,
}

/// A connection whose inbox has been checked and found in order.
pub(crate) struct Inbox {
    client: Client,
    /// The server's address. `None` for a Unix socket.
    address: Option<IpAddr>,
    /// Task that drives the connection. It ends with the connection and returns the reason.
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
    canceller: Canceller,
    warnings: Arc<Warnings>,
    statements: Statements,
    identity: Identity,
    /// The inbox's name with its schema, for people.
    name: String,
    /// Maximum time for storing a batch.
    limit: Duration,
    /// Whether the batch's COMMIT was sent.
    committing: AtomicBool,
}

/// Reason why a batch was not stored.
enum StoreFailure {
    Database(tokio_postgres::Error),
    /// COMMIT was sent but not confirmed: whether it happened is unknown.
    Commit(tokio_postgres::Error),
    /// COMMIT succeeded with a warning: the transaction may be less durable than requested.
    Warned(SqlState),
    Count {
        accounted: Option<i128>,
    },
    /// No event was sent, because the inbox is not the one that was checked.
    Replaced(DbError),
    /// The batch was not stored within the limit.
    TimedOut {
        /// Whether COMMIT was sent. It may be waiting for a standby.
        committing: bool,
    },
}

impl From<tokio_postgres::Error> for StoreFailure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// Connects, or explains the failure.
async fn connect(servers: &Servers) -> Result<Session, DbError> {
    servers.connect().await.map_err(|failed| connecting::explain(failed, servers))
}

impl Inbox {
    /// Connects, and checks that the inbox exists, is an inbox, and accepts what this role sends. A batch must be
    /// stored within `database.limit`. The results, including a failed check, go to `check_items`.
    pub(crate) async fn open(database: &Database, check_items: &mut Vec<CheckItem>) -> Result<Self, DbError> {
        let servers = &database.servers;
        let Session { mut client, address, connection, canceller, warnings } = connect(servers).await?;
        check_items.push(CheckItem::ok("database.connection", format!("{servers} answers")));
        // A server that accepts connections and then says nothing must not block the loader indefinitely.
        let checked = Self::check(&mut client, database, check_items);
        let Found { statements, identity, name } = timeout(LOGIN_TIMEOUT, checked)
            .await
            .map_err(|_| connecting::timed_out(servers, LOGIN_TIMEOUT))??;
        let limit = database.limit;
        let committing = AtomicBool::new(false);
        Ok(Self {
            client,
            address,
            connection,
            canceller,
            warnings,
            statements,
            identity,
            name,
            limit,
            committing,
        })
    }

    async fn check(
        client: &mut Client,
        database: &Database,
        check_items: &mut Vec<CheckItem>,
    ) -> Result<Found, DbError> {
        let found = preflight::run(client, &database.inbox, &database.known, check_items).await?;
        let Statements { copy, classes, counts, .. } = &found.statements;
        can_be_prepared(client, [copy, classes, counts]).await.map_err(|e| error::of_preparing(&e))?;
        Ok(found)
    }

    /// Puts a batch into the inbox. Commits only if `verdict` says so and the inbox accounts for every event.
    ///
    /// After an error, nothing may be deleted: the transaction was rolled back, or its COMMIT went unanswered or was
    /// answered with a warning. After a connection error, the connection is unusable.
    pub(crate) async fn store(&mut self, batch: &[Message], verdict: Verdict) -> Result<Account, DbError> {
        self.committing.store(false, Relaxed);
        let failed = match timeout(self.limit, self.attempt(batch, verdict)).await {
            Ok(Ok(account)) => return Ok(account),
            Ok(Err(failed)) => failed,
            Err(_) => StoreFailure::TimedOut { committing: self.committing.load(Relaxed) },
        };
        let fault = self.explain(failed, batch.len()).await;
        Err(self.roll_back(fault).await)
    }

    /// Has the inbox write a made-up row, which is rolled back. This tells a fault in the set-up from a fault in a
    /// message. `Retry::AfterSetup` marks a fault in the set-up.
    pub(crate) async fn trial(&mut self) -> Result<Trial, DbError> {
        let fault = match timeout(self.limit, self.client.simple_query(&self.statements.trial)).await {
            Ok(Ok(answers)) if is_true(&answers) => return Ok(Trial::Stored),
            Ok(Ok(_)) => return Ok(Trial::Refused),
            Ok(Err(e)) => {
                let reason = self.reason(&e).await;
                error::of_storing(&e, format!("a trial of inbox {} failed: {reason}", self.name))
            }
            Err(_) => {
                let limit = self.limit.as_secs();
                let text = format!("a trial of inbox {} did not end within {limit} s", self.name);
                DbError { retry: Retry::Reconnect, error: Error::Database(text), code: error::TIMEOUT.into() }
            }
        };
        let fault = self.roll_back(fault).await;
        Err(if fault.retry == Retry::Bisect { DbError { retry: Retry::AfterSetup, ..fault } } else { fault })
    }

    /// Ends the transaction in which an error occurred, or abandons the connection.
    async fn roll_back(&self, fault: DbError) -> DbError {
        if let Retry::Reconnect = fault.retry {
            self.abandon();
        } else if timeout(ROLLBACK_TIME, self.client.batch_execute("ROLLBACK")).await.is_err() {
            return DbError { retry: Retry::Reconnect, ..fault };
        }
        fault
    }

    /// Tells the server, if it still listens, that nobody waits for the statement any more. Otherwise the server would
    /// hold the statement's locks until it noticed by itself.
    fn abandon(&self) {
        let canceller = self.canceller.clone();
        let connection = self.connection.abort_handle();
        tokio::spawn(async move {
            _ = timeout(LOGIN_TIMEOUT, canceller.cancel()).await;
            connection.abort();
        });
    }

    /// Checks that the server answers within `limit`. A connection without an answer is unusable.
    pub(crate) async fn ping(&mut self, limit: Duration) -> Result<(), Error> {
        let why = match timeout(limit, self.client.simple_query("SELECT 1")).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => self.reason(&e).await,
            Err(_) => format!("no answer within {} s", limit.as_secs()),
        };
        self.connection.abort();
        Err(Error::Database(why))
    }

    /// Whether the connection has ended.
    pub(crate) fn is_lost(&self) -> bool {
        self.connection.is_finished()
    }

    /// Ends the connection properly. Otherwise the server would log a lost connection.
    pub(crate) async fn close(self) {
        drop(self.client);
        _ = timeout(Duration::from_secs(1), self.connection).await;
    }

    async fn attempt(&self, batch: &[Message], verdict: Verdict) -> Result<Account, StoreFailure> {
        let before = self.begin().await?;
        self.copy(batch).await?;
        // COPY's command tag proves nothing: it doesn't change if the inbox's triggers don't fire.
        let row = self.client.query_typed_opt(&self.statements.counts, &[]).await?;
        let counts = match row {
            Some(row) => {
                let accounts = Accounts {
                    statement: row.try_get(0)?,
                    stored: row.try_get(1)?,
                    duplicate: row.try_get(2)?,
                    rejected: row.try_get(3)?,
                };
                accounts.check(before, batch.len())
            }
            None => Err(StoreFailure::Count { accounted: None }),
        }?;
        let rejects = if counts.rejected > 0 { self.classes().await? } else { Vec::new() };
        match verdict {
            Verdict::Commit => self.commit().await?,
            Verdict::RollBack => self.client.batch_execute("ROLLBACK").await?,
        }
        Ok(Account { counts, rejects })
    }

    /// Begins a transaction and checks that the inbox's name still refers to the inbox. Returns the number of the
    /// session's last inbox statement. Behind a connection pooler, the session may not be the last batch's.
    async fn begin(&self) -> Result<Option<i64>, StoreFailure> {
        let answers = self.client.simple_query(&self.statements.begin).await?;
        self.identity.check(Identity::among(&answers), &self.name).map_err(StoreFailure::Replaced)?;
        Ok(number(&answers, "statement"))
    }

    /// Commits. Every earlier statement was answered without an error. So this can't be the COMMIT of an aborted
    /// transaction, which the server would answer with a mere "ROLLBACK".
    async fn commit(&self) -> Result<(), StoreFailure> {
        let before = self.warnings.count();
        self.committing.store(true, Relaxed);
        self.client.batch_execute("COMMIT").await.map_err(StoreFailure::Commit)?;
        // Warnings of earlier statements came before those statements' answers.
        self.warnings.last_since(before).map_or(Ok(()), |code| Err(StoreFailure::Warned(code)))
    }

    /// Returns the number of rejected events in the last inbox statement, by class of the reason.
    async fn classes(&self) -> Result<Vec<(String, u64)>, tokio_postgres::Error> {
        let rows = self.client.query_typed(&self.statements.classes, &[]).await?;
        let class = |row: &Row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()));
        rows.iter().map(class).collect()
    }

    async fn copy(&self, batch: &[Message]) -> Result<(), tokio_postgres::Error> {
        // `copy_in` prepares a named statement. It closes the statement in the same session, before the transaction
        // ends.
        let stream: CopyInSink<Bytes> = self.client.copy_in(self.statements.copy.as_str()).await?;
        let mut stream = pin!(stream);
        let mut encoder = Encoder::new();
        for message in batch {
            if let Some(chunk) = encoder.push(message) {
                stream.feed(chunk).await?;
            }
        }
        stream.feed(encoder.finish()).await?;
        stream.finish().await?;
        Ok(())
    }

    async fn explain(&mut self, failed: StoreFailure, sent: usize) -> DbError {
        match failed {
            StoreFailure::Count { accounted } => {
                let error = Error::Count { sent: sent as u64, accounted };
                DbError { retry: Retry::Never, error, code: error::COUNT.into() }
            }
            StoreFailure::Replaced(fault) => fault,
            StoreFailure::TimedOut { committing } => {
                let code = if committing { error::COMMIT } else { error::TIMEOUT };
                let text =
                    format!("a batch of {sent} messages was not stored within {} s", self.limit.as_secs());
                DbError { retry: Retry::Reconnect, error: Error::Database(text), code: code.into() }
            }
            StoreFailure::Database(e) => {
                let reason = self.reason(&e).await;
                error::of_storing(&e, format!("a batch of {sent} messages was not stored: {reason}"))
            }
            StoreFailure::Warned(code) => {
                let text = format!(
                    "COMMIT of a batch of {sent} messages was answered with a warning (SQLSTATE {}), as when the wait for a \
                     synchronous standby is canceled: the transaction may be on one server only. No message is deleted; \
                     messages that were stored will be found duplicates",
                    code.code()
                );
                DbError { retry: Retry::Later, error: Error::Database(text), code: code.code().to_owned() }
            }
            StoreFailure::Commit(e) => {
                let reason = self.reason(&e).await;
                error::of_storing(
                    &e,
                    format!(
                        "COMMIT of a batch of {sent} messages was not confirmed: {reason}. None of them is deleted; \
                         those that were stored will be found duplicates"
                    ),
                )
            }
        }
    }

    /// Returns the text of `error`. If it only says that the connection ended, returns the reason for that.
    async fn reason(&mut self, error: &tokio_postgres::Error) -> String {
        if error.is_closed()
            && !self.connection.is_finished()
            && let Ok(Ok(Err(reason))) = timeout(Duration::from_secs(1), &mut self.connection).await
        {
            let reason =
                if reason.is_closed() { "the server closed it".into() } else { error::describe(&reason) };
            return format!("the connection was lost: {reason}");
        }
        error::describe_storing(error)
    }
}

/// Whether the row among these answers is `true`.
fn is_true(answers: &[SimpleQueryMessage]) -> bool {
    answers.iter().any(|answer| matches!(answer, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")))
}

/// A row of `inbox_counts()`.
struct Accounts {
    statement: i64,
    stored: i64,
    duplicate: i64,
    rejected: i64,
}

impl Accounts {
    /// Returns the counts, if their statement came after number `before` and they account for `sent` events.
    fn check(&self, before: Option<i64>, sent: usize) -> Result<Counts, StoreFailure> {
        if before.is_some_and(|before| self.statement <= before) {
            return Err(StoreFailure::Count { accounted: None });
        }
        let parts = [self.stored, self.duplicate, self.rejected];
        let accounted = parts.iter().map(|n| i128::from(*n)).sum();
        let wrong = StoreFailure::Count { accounted: Some(accounted) };
        if usize::try_from(accounted) != Ok(sent) {
            return Err(wrong);
        }
        match parts.map(u64::try_from) {
            [Ok(stored), Ok(duplicate), Ok(rejected)] => Ok(Counts { stored, duplicate, rejected }),
            _ => Err(wrong),
        }
    }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
