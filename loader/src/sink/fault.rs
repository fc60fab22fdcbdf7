//! What the database has to complain of, in words that are fit for a log.

use std::error::Error as _;

use tokio_postgres::config::Config;
use tokio_postgres::error::{Error as PgError, SqlState};

use crate::error::Error;
use crate::postgres_config::servers;

/// SQLSTATE, message and hint of an error. DETAIL and CONTEXT are left out: they are where `PostgreSQL` and
/// triggers quote values.
pub(super) fn describe(error: &PgError) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        return format!("{} (SQLSTATE {}){hint}", db.message(), db.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Why there is no connection, and what to do.
pub(super) fn of_connecting(error: &PgError, config: &Config) -> Error {
    let servers = servers(config);
    let user =
        config.get_user().map_or_else(|| "named like the operating system's user".to_owned(), str::to_owned);
    let advice = match error.code() {
        None if describe(error).contains("password missing") => {
            format!("{servers} wants a password for role {user}: put it into DATABASE_URL or PGPASSWORD")
        }
        None => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            format!("{servers} cannot be reached ({reason}): is the server up, and are host and port right?")
        }
        Some(code) => {
            let what = describe(error);
            if *code == SqlState::INVALID_PASSWORD {
                format!(
                    "{servers} refused the password of role {user}: {what}. Check DATABASE_URL or PGPASSWORD"
                )
            } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
                format!(
                    "{servers} does not let role {user} in: {what}. Check the role, and pg_hba.conf of the \
                     server"
                )
            } else if *code == SqlState::INVALID_CATALOG_NAME {
                format!("{what} on {servers}. Create it, or name another one in DATABASE_URL or PGDATABASE")
            } else {
                format!("{servers} refused the connection: {what}")
            }
        }
    };
    Error::Database(advice)
}

/// The COPY or the query of the counts was refused before it ran.
pub(super) fn of_preparing(error: &PgError) -> Error {
    Error::Database(format!("the inbox cannot be used: {}", describe(error)))
}
