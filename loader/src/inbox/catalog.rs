//! Reads the database's catalogs.
//!
//! A search path decides which operator `=` is, and which function `now()` is. An operator in somebody's schema can fit
//! better than any in `pg_catalog`. It would run with the loader's privileges, and could make `loader check` report anything.
//! So all queries of catalogs go through `Catalog`, where the search path holds nothing else.
//!
//! Three kinds of statements stay outside, and name everything with its schema: the lookup of `--inbox` on the role's own
//! search path, the statements of a batch, and the database's clock.

//!
//! No query here or elsewhere in the loader leaves a named prepared statement: a pooler can run the next transaction in another
//! session of the server. `query_typed` uses the unnamed statement, which lives for one round trip.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Transaction};

/// A parameter and its type.
pub(super) type Parameter<'p> = (&'p (dyn ToSql + Sync), Type);

/// A transaction whose search path is `pg_catalog`. It needs no state of the session, so it works behind a pooler.
/// Dropping it rolls back.
pub(super) struct Catalog<'c>(Transaction<'c>);

impl<'c> Catalog<'c> {
    /// Begins the transaction.
    pub(super) async fn open(client: &'c mut Client) -> Result<Self, Error> {
        let transaction = client.transaction().await?;
        // JIT would compile the view `pii_privileges`, because Postgres estimates its cost far too high. Compiling
        // takes seconds, the query milliseconds.
        transaction.batch_execute("SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off").await?;
        Ok(Self(transaction))
    }

    /// Returns all rows.
    pub(super) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        self.0.query_typed(sql, parameters).await
    }

    /// Returns the only row, and fails for another number of rows.
    pub(super) async fn query_one(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row, Error> {
        self.0.query_typed_one(sql, parameters).await
    }

    /// Returns the row if there is one, and fails for several.
    pub(super) async fn query_opt(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Option<Row>, Error> {
        self.0.query_typed_opt(sql, parameters).await
    }
}

/// Has the server parse statements. Fails for one that can't be used. None of them stays in the session.
pub(super) async fn can_be_prepared<const N: usize>(
    client: &mut Client,
    statements: [&str; N],
) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    for statement in statements {
        drop(transaction.prepare(statement).await?);
    }
    transaction.rollback().await
}
