//! The inbox: one connection to `PostgreSQL`, and one transaction for each batch.

mod catalog;
mod connecting;
mod durability;
mod examine;
mod fault;
mod identity;
mod preflight;
mod rejects;
mod relations;
mod replay;
mod rights;

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

use crate::copy::Encoder;
use crate::error::Error;
use crate::finding::Finding;
use crate::message::Message;
use crate::postgres::{Canceller, LOGIN_TIMEOUT, Servers, Session, Warnings};
use crate::stats::{Account, Counts};
use crate::writer::Database;
use catalog::can_be_prepared;
pub(crate) use examine::{compare_clocks, now};
pub(crate) use fault::{Fault, Kind};
pub(crate) use identity::KnownInbox;
use identity::{Identity, number};
use preflight::{Found, Statements};
pub(crate) use rejects::{Redriven, Rejects, Which};
pub(crate) use replay::{History, Positions, Replication, Standbys};

/// How long ROLLBACK may take.
const ROLLBACK_TIME: Duration = Duration::from_secs(10);
/// What becomes of a transaction that the inbox has accounted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Keep it.
    Commit,
    /// It was only to see what would happen.
    RollBack,
}

/// The result of a trial in which nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trial {
    /// A row went through the inbox.
    Stored,
    /// Checks of the target refused the row, so nothing is known of what comes after them.
    Refused,
}

/// A connection whose inbox has been looked at and found in order.
pub(crate) struct Sink {
    client: Client,
    /// The server's; none for a Unix socket.
    address: Option<IpAddr>,
    /// Ends with the connection, and then knows why it ended.
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
    canceller: Canceller,
    warnings: Arc<Warnings>,
    statements: Statements,
    inbox: Identity,
    /// The inbox's name with its schema, for people.
    name: String,
    /// How long a batch may take.
    limit: Duration,
    /// Whether COMMIT of the batch was sent.
    committing: AtomicBool,
}

/// Why a batch was not stored.
enum Failed {
    Database(tokio_postgres::Error),
    /// COMMIT was sent and not answered with yes: whether it happened is not known.
    Commit(tokio_postgres::Error),
    /// COMMIT was answered with success and a warning: the transaction may not be as durable as was asked for.
    Warned(SqlState),
    Count {
        accounted: Option<i128>,
    },
    /// Not sent, as the inbox is not the one that was looked at.
    Replaced(Fault),
    /// Not within the limit.
    Late {
        /// COMMIT was sent: it may wait for a standby.
        committing: bool,
    },
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// Connects, or says why not.
async fn connect(servers: &Servers) -> Result<Session, Fault> {
    servers.connect().await.map_err(|failed| connecting::explain(failed, servers))
}

impl Sink {
    /// Connects, and makes sure that the inbox is there, is an inbox, and takes what this role sends. A batch must be
    /// stored within `limit`. What is found goes to `findings`, with what is wrong where it fails.
    pub(crate) async fn open(database: &Database, findings: &mut Vec<Finding>) -> Result<Self, Fault> {
        let servers = &database.servers;
        let Session { mut client, address, connection, canceller, warnings } = connect(servers).await?;
        findings.push(Finding::ok("database.connection", format!("{servers} answers")));
        // A server that takes connections and then says nothing must not be waited for for ever.
        let look = Self::look(&mut client, database, findings);
        let Found { statements, inbox, name } =
            timeout(LOGIN_TIMEOUT, look).await.map_err(|_| connecting::late(servers, LOGIN_TIMEOUT))??;
        let limit = database.limit;
        let committing = AtomicBool::new(false);
        Ok(Self {
            client,
            address,
            connection,
            canceller,
            warnings,
            statements,
            inbox,
            name,
            limit,
            committing,
        })
    }

    async fn look(
        client: &mut Client,
        database: &Database,
        findings: &mut Vec<Finding>,
    ) -> Result<Found, Fault> {
        let found = preflight::run(client, &database.inbox, &database.known, findings).await?;
        let Statements { copy, classes, counts, .. } = &found.statements;
        can_be_prepared(client, [copy, classes, counts]).await.map_err(|e| fault::of_preparing(&e))?;
        Ok(found)
    }

    /// Puts a batch into the inbox, and commits only if the inbox says of every event what became of it.
    ///
    /// A fault means that nothing may be deleted: the transaction was rolled back, or its COMMIT went
    /// unanswered. After one of the connection's, the sink is of no more use.
    pub(crate) async fn store(&mut self, batch: &[Message], verdict: Verdict) -> Result<Account, Fault> {
        self.committing.store(false, Relaxed);
        let failed = match timeout(self.limit, self.attempt(batch, verdict)).await {
            Ok(Ok(account)) => return Ok(account),
            Ok(Err(failed)) => failed,
            Err(_) => Failed::Late { committing: self.committing.load(Relaxed) },
        };
        let fault = self.explain(failed, batch.len()).await;
        Err(self.roll_back(fault).await)
    }

    /// Has the inbox write a made-up row, which is rolled back: it tells a fault of the set-up from a fault of a message. A
    /// fault of kind `Setup` is the set-up's.
    pub(crate) async fn trial(&mut self) -> Result<Trial, Fault> {
        let fault = match timeout(self.limit, self.client.simple_query(&self.statements.trial)).await {
            Ok(Ok(answers)) if is_true(&answers) => return Ok(Trial::Stored),
            Ok(Ok(_)) => return Ok(Trial::Refused),
            Ok(Err(e)) => {
                let reason = self.reason(&e).await;
                fault::of_storing(&e, format!("a trial of inbox {} failed: {reason}", self.name))
            }
            Err(_) => {
                let limit = self.limit.as_secs();
                let text = format!("a trial of inbox {} did not end within {limit} s", self.name);
                Fault { kind: Kind::Connection, error: Error::Database(text), code: fault::TIMEOUT.into() }
            }
        };
        let fault = self.roll_back(fault).await;
        Err(if fault.kind == Kind::Refused { Fault { kind: Kind::Setup, ..fault } } else { fault })
    }

    /// Ends the transaction in which a fault occurred, or gives the connection up.
    async fn roll_back(&self, fault: Fault) -> Fault {
        if let Kind::Connection = fault.kind {
            self.abandon();
        } else if timeout(ROLLBACK_TIME, self.client.batch_execute("ROLLBACK")).await.is_err() {
            return Fault { kind: Kind::Connection, ..fault };
        }
        fault
    }

    /// Tells the server, if it still hears, that nobody waits for the statement any more: it would hold its locks
    /// until it noticed by itself.
    fn abandon(&self) {
        let canceller = self.canceller.clone();
        let connection = self.connection.abort_handle();
        tokio::spawn(async move {
            _ = timeout(LOGIN_TIMEOUT, canceller.cancel()).await;
            connection.abort();
        });
    }

    /// Asks the server for a sign of life, for at most so long. A sink that gives none is of no more use.
    pub(crate) async fn ping(&mut self, limit: Duration) -> Result<(), Error> {
        let why = match timeout(limit, self.client.simple_query("SELECT 1")).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => self.reason(&e).await,
            Err(_) => format!("no answer within {} s", limit.as_secs()),
        };
        self.connection.abort();
        Err(Error::Database(why))
    }

    /// Whether the connection has ended already.
    pub(crate) fn is_lost(&self) -> bool {
        self.connection.is_finished()
    }

    /// Says goodbye to the server, which would otherwise log a lost connection.
    pub(crate) async fn close(self) {
        drop(self.client);
        _ = timeout(Duration::from_secs(1), self.connection).await;
    }

    async fn attempt(&self, batch: &[Message], verdict: Verdict) -> Result<Account, Failed> {
        let before = self.begin().await?;
        self.copy(batch).await?;
        // The command tag of COPY proves nothing: where the inbox's triggers do not fire, it is the same.
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
            None => Err(Failed::Count { accounted: None }),
        }?;
        let rejects = if counts.rejected > 0 { self.classes().await? } else { Vec::new() };
        match verdict {
            Verdict::Commit => self.commit().await?,
            Verdict::RollBack => self.client.batch_execute("ROLLBACK").await?,
        }
        Ok(Account { counts, rejects })
    }

    /// Begins, makes sure that the inbox's name still means the inbox, and returns the number of the session's last inbox
    /// statement. Behind a connection pooler the session may be another one than that of the last batch.
    async fn begin(&self) -> Result<Option<i64>, Failed> {
        let answers = self.client.simple_query(&self.statements.begin).await?;
        self.inbox.check(Identity::among(&answers), &self.name).map_err(Failed::Replaced)?;
        Ok(number(&answers, "statement"))
    }

    /// Commits. Everything before was answered without an error, so this COMMIT cannot be the one of an aborted transaction,
    /// which the server would answer with a mere "ROLLBACK".
    async fn commit(&self) -> Result<(), Failed> {
        let before = self.warnings.count();
        self.committing.store(true, Relaxed);
        self.client.batch_execute("COMMIT").await.map_err(Failed::Commit)?;
        // Warnings of the statements before came before their answers.
        self.warnings.last_since(before).map_or(Ok(()), |code| Err(Failed::Warned(code)))
    }

    /// How many events of the last inbox statement were rejected, by class of the reason.
    async fn classes(&self) -> Result<Vec<(String, u64)>, tokio_postgres::Error> {
        let rows = self.client.query_typed(&self.statements.classes, &[]).await?;
        let class = |row: &Row| Ok((row.try_get(0)?, row.try_get::<_, i64>(1)?.unsigned_abs()));
        rows.iter().map(class).collect()
    }

    async fn copy(&self, batch: &[Message]) -> Result<(), tokio_postgres::Error> {
        // It prepares a named statement, and closes it before the transaction ends, in the session in which it made it.
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

    async fn explain(&mut self, failed: Failed, sent: usize) -> Fault {
        match failed {
            Failed::Count { accounted } => {
                let error = Error::Count { sent: sent as u64, accounted };
                Fault { kind: Kind::Final, error, code: fault::COUNT.into() }
            }
            Failed::Replaced(fault) => fault,
            Failed::Late { committing } => {
                let code = if committing { fault::COMMIT } else { fault::TIMEOUT };
                let text =
                    format!("a batch of {sent} messages was not stored within {} s", self.limit.as_secs());
                Fault { kind: Kind::Connection, error: Error::Database(text), code: code.into() }
            }
            Failed::Database(e) => {
                let reason = self.reason(&e).await;
                fault::of_storing(&e, format!("a batch of {sent} messages was not stored: {reason}"))
            }
            Failed::Warned(code) => {
                let text = format!(
                    "COMMIT of a batch of {sent} messages was answered with a warning (SQLSTATE {}), as when the wait for a \
                     synchronous standby is canceled: the transaction may be on one server only. No message is deleted; \
                     messages that were stored will be found duplicates",
                    code.code()
                );
                Fault { kind: Kind::Passing, error: Error::Database(text), code: code.code().to_owned() }
            }
            Failed::Commit(e) => {
                let reason = self.reason(&e).await;
                fault::of_storing(
                    &e,
                    format!(
                        "COMMIT of a batch of {sent} messages was not confirmed: {reason}. None of them is deleted; \
                         those that were stored will be found duplicates"
                    ),
                )
            }
        }
    }

    /// What `error` says, or why the connection ended where it says no more than that.
    async fn reason(&mut self, error: &tokio_postgres::Error) -> String {
        if error.is_closed()
            && !self.connection.is_finished()
            && let Ok(Ok(Err(reason))) = timeout(Duration::from_secs(1), &mut self.connection).await
        {
            let reason =
                if reason.is_closed() { "the server closed it".into() } else { fault::describe(&reason) };
            return format!("the connection was lost: {reason}");
        }
        fault::describe_storing(error)
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
    /// The counts, if they are of a statement after number `before` and account for `sent` events.
    fn check(&self, before: Option<i64>, sent: usize) -> Result<Counts, Failed> {
        if before.is_some_and(|before| self.statement <= before) {
            return Err(Failed::Count { accounted: None });
        }
        let parts = [self.stored, self.duplicate, self.rejected];
        let accounted = parts.iter().map(|n| i128::from(*n)).sum();
        let wrong = Failed::Count { accounted: Some(accounted) };
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
mod tests {
    use super::*;

    fn check(before: Option<i64>, row: [i64; 4], sent: usize) -> Result<Counts, Option<i128>> {
        let [statement, stored, duplicate, rejected] = row;
        Accounts { statement, stored, duplicate, rejected }.check(before, sent).map_err(|failed| match failed
        {
            Failed::Count { accounted } => accounted,
            Failed::Database(_)
            | Failed::Commit(_)
            | Failed::Warned(_)
            | Failed::Replaced(_)
            | Failed::Late { .. } => {
                panic!("not a wrong count")
            }
        })
    }

    #[test]
    fn only_a_new_statement_that_accounts_for_every_event_is_committed() {
        let counts = Counts { stored: 3, duplicate: 2, rejected: 1 };
        assert_eq!(check(None, [1, 3, 2, 1], 6), Ok(counts));
        assert_eq!(check(Some(1), [2, 3, 2, 1], 6), Ok(counts));
        // The counts of the statement before, because the triggers did not fire for this one.
        assert_eq!(check(Some(2), [2, 3, 2, 1], 6), Err(None));
        assert_eq!(check(None, [1, 3, 2, 1], 7), Err(Some(6)));
        assert_eq!(check(None, [1, 3, 2, 1], 5), Err(Some(6)));
        assert_eq!(check(None, [1, 7, -1, 0], 6), Err(Some(6)));
    }
}
