//! Puts rejects back into the inbox, within the database. No event leaves the database.

use std::fmt;
use std::ops::AddAssign;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Oid, Type};
use uuid::Uuid;

use super::catalog::{Catalog, Parameter, can_be_prepared};
use super::error::{self, DbError, Retry};
use super::{connect, connecting, preflight};
use crate::error::Error;
use libpq_connect::{LOGIN_TIMEOUT, Servers, Session};

/// Reads the extension's schema, and whether the extension can redrive.
const EXTENSION: &str = "
    SELECT quote_ident(n.nspname),
           EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = n.oid AND p.proname = 'redrive_rejects')
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_mask'";

/// Computes the bounds of `rejected_at` with the server's clock, which also sets that column. Reads whether an interval
/// is negative.
const TIMES: &str = "
    SELECT now() - older, now() - newer, now() - older > now() OR now() - newer > now()
    FROM (SELECT coalesce($1::text, '0')::interval AS older, $2::text::interval AS newer) AS given";

/// Selects rejects. Each condition that is set must match.
pub(crate) struct RejectFilter {
    /// Text that the reason contains.
    pub(crate) reason: Option<String>,
    /// Intervals, in Postgres's syntax.
    pub(crate) older_than: Option<String>,
    pub(crate) newer_than: Option<String>,
    pub(crate) message_ids: Option<Vec<Uuid>>,
}

/// Outcome for the rejects that were put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Redriven {
    pub(crate) taken: i64,
    pub(crate) stored: i64,
    pub(crate) duplicate: i64,
    /// Rejected again.
    pub(crate) rejected: i64,
}

impl AddAssign for Redriven {
    fn add_assign(&mut self, more: Self) {
        self.taken += more.taken;
        self.stored += more.stored;
        self.duplicate += more.duplicate;
        self.rejected += more.rejected;
    }
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, stored, duplicate, rejected } = self;
        write!(f, "taken {taken}, stored {stored}, duplicate {duplicate}, rejected {rejected}")
    }
}

/// The rejects of an inbox.
pub(crate) struct Rejects {
    session: Session,
    /// Statement that calls `redrive_rejects`.
    call: String,
    /// The view that the inbox's name referred to at the start. No other view can take its place between two batches.
    inbox: Oid,
    which: RejectFilter,
    /// Upper bound of `rejected_at`. An event that is rejected again has a later time, so it isn't taken again.
    before: SystemTime,
    after: Option<SystemTime>,
}

impl Rejects {
    /// Connects, and checks the inbox, the extension and the intervals.
    pub(crate) async fn open(servers: &Servers, inbox: &str, which: RejectFilter) -> Result<Self, DbError> {
        let session = connect(servers).await?;
        let opened = Self::on_session(session, inbox, which);
        timeout(LOGIN_TIMEOUT, opened).await.map_err(|_| connecting::timed_out(servers, LOGIN_TIMEOUT))?
    }

    async fn on_session(mut session: Session, inbox: &str, which: RejectFilter) -> Result<Self, DbError> {
        let client = &mut session.client;
        let inbox = named(client, inbox).await;
        let catalog = Catalog::open(client).await.map_err(|e| error::of_check(&e))?;
        let row = catalog.query_opt(EXTENSION, &[]).await.map_err(|e| error::of_check(&e))?;
        let extension = row.map(|row| Ok((row.try_get::<_, String>(0)?, row.try_get::<_, bool>(1)?)));
        let schema = match extension.transpose().map_err(|e| error::of_check(&e))? {
            None => return Err(refuse("the extension pg_mask is not in this database")),
            Some((_, false)) => {
                return Err(refuse("the extension has no redrive_rejects(): ALTER EXTENSION pg_mask UPDATE"));
            }
            Some((schema, true)) => schema,
        };
        let row = catalog
            .query_one(TIMES, &[(&which.older_than, Type::TEXT), (&which.newer_than, Type::TEXT)])
            .await
            .map_err(|e| of_intervals(&e))?;
        let times = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, Option<bool>>(2)?));
        let (before, after, negative) = times().map_err(|e| error::of_check(&e))?;
        if negative == Some(true) {
            // PostgreSQL reads '2 hours ago' as negative. Events that are rejected again would then be taken
            // indefinitely. An interval's own sign doesn't tell, because its months have 30 days.
            return Err(no_intervals());
        }
        drop(catalog);
        let inbox = inbox?;
        let call = format!(
            "SELECT taken, stored, duplicate, rejected
             FROM {schema}.redrive_rejects(
                 CAST(CAST($1 AS pg_catalog.oid) AS pg_catalog.regclass), CAST($2 AS pg_catalog.text),
                 CAST($3 AS pg_catalog.timestamptz), CAST($4 AS pg_catalog.timestamptz),
                 CAST($5 AS pg_catalog.uuid[]), CAST($6 AS pg_catalog.int4)
             )"
        );
        can_be_prepared(client, [&call]).await.map_err(|e| error::of_preparing(&e))?;
        Ok(Self { session, call, inbox, which, before, after })
    }

    /// Puts up to `most` rejects back in one transaction. Commits it if `keep` is true, and rolls it back otherwise.
    pub(crate) async fn redrive(&mut self, most: i32, keep: bool) -> Result<Redriven, DbError> {
        let result = self.attempt(most, keep).await;
        result.map_err(|e| {
            let why = error::describe_storing(&e);
            let advice = if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                ". It takes INSERT on the inbox and EXECUTE on redrive_rejects(), as login_redriver has for login_inbox. Where \
                 the role has pg_mask.require_purpose, set PGOPTIONS='-c pg_mask.unmask_purpose=…'"
            } else {
                ""
            };
            // If the answer to COMMIT is lost, the outcome is unknown. Another run finds what is left.
            let last = if e.is_closed() { ", and maybe the last batch was too" } else { "" };
            let text = format!("rejects were not put back: {why}{advice}. What was committed before stays so{last}");
            error::of_storing(&e, text)
        })
    }

    async fn attempt(&mut self, most: i32, keep: bool) -> Result<Redriven, tokio_postgres::Error> {
        let transaction = self.session.client.transaction().await?;
        let RejectFilter { reason, message_ids, .. } = &self.which;
        let parameters: [Parameter<'_>; 6] = [
            (&self.inbox, Type::OID),
            (reason, Type::TEXT),
            (&self.before, Type::TIMESTAMPTZ),
            (&self.after, Type::TIMESTAMPTZ),
            (message_ids, Type::UUID_ARRAY),
            (&most, Type::INT4),
        ];
        let row = transaction.query_typed_one(&self.call, &parameters).await?;
        let redriven = Redriven {
            taken: row.try_get(0)?,
            stored: row.try_get(1)?,
            duplicate: row.try_get(2)?,
            rejected: row.try_get(3)?,
        };
        if keep {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(redriven)
    }

    /// Ends the connection properly.
    pub(crate) async fn close(self) {
        let Session { client, connection, .. } = self.session;
        drop(client);
        _ = timeout(Duration::from_secs(1), connection).await;
    }
}

/// Returns the view that a name refers to on the role's search path.
async fn named(client: &Client, inbox: &str) -> Result<Oid, DbError> {
    match preflight::find(client, inbox).await {
        Ok(Some(oid)) => Ok(oid),
        Ok(None) => Err(refuse(&format!(
            "there is no inbox {inbox}. Name the inbox by --inbox, with its schema where that is not on the search path"
        ))),
        Err(e) => Err(error::of_check(&e)),
    }
}

fn of_intervals(error: &tokio_postgres::Error) -> DbError {
    let codes = [
        SqlState::INVALID_DATETIME_FORMAT,
        SqlState::DATETIME_FIELD_OVERFLOW,
        SqlState::INTERVAL_FIELD_OVERFLOW,
    ];
    if error.code().is_some_and(|code| codes.contains(code)) {
        no_intervals()
    } else {
        error::of_check(error)
    }
}

fn no_intervals() -> DbError {
    let text =
        "--older-than and --newer-than take an interval that is not negative, such as '2 hours' or '1 day'";
    DbError { retry: Retry::Never, error: Error::Config(text.into()), code: error::SETUP.into() }
}

fn refuse(why: &str) -> DbError {
    DbError { retry: Retry::Never, error: Error::Database(why.to_owned()), code: error::SETUP.into() }
}
